//! What differs between the configuration that runs and one that was read again.
//!
//! The list of policies takes effect while the gateway runs, and so does the mode among those that serve
//! miners. Everything else is named, key by key, so that an operator who changed it knows that it waits for
//! the next start.

use super::{Config, Secret, Source};

impl Config {
    /// The keys, policies aside, that have another value in `new` and wait for a start: `[gate] hold_timeout`.
    pub fn restart_keys(&self, new: &Self) -> Vec<String> {
        let mut keys = Keys::default();
        if self.mode.serves_miners() != new.mode.serves_miners() {
            keys.0.push("mode".into());
        }
        match (&self.source, &new.source) {
            (Source::Embedded(old), Source::Embedded(new)) => keys.add("source", &old.differences(new)),
            (Source::Node(old), Source::Node(new)) => {
                let differing = [
                    ("url", old.url != new.url),
                    ("network", old.network != new.network),
                    ("cookie_file, user or password", old.auth != new.auth),
                    ("request_timeout", old.request_timeout != new.request_timeout),
                    ("stale_after", old.stale_after != new.stale_after),
                ];
                keys.add_where("source", &differing);
            }
            (Source::Provider(old), Source::Provider(new)) => keys.add("source", &old.differences(new)),
            (Source::Embedded(_) | Source::Node(_) | Source::Provider(_), _) => keys.add("source", &["kind"]),
        }
        let coinbase = [
            ("payout_address", self.coinbase.payout != new.coinbase.payout),
            ("tag", self.coinbase.tag != new.coinbase.tag),
        ];
        keys.add_where("coinbase", &coinbase);
        keys.add("gate", &self.gate.differences(&new.gate));
        keys.add("engine", &self.engine.differences(&new.engine));
        keys.add("swap", &self.swap.differences(&new.swap));
        keys.add("api", &self.api.differences(&new.api));
        if let (Some(old), Some(new)) = (&self.serving, &new.serving) {
            keys.add("miners", &old.miners.differences(&new.miners));
            // Secrets in files are looked at again by those who use them.
            let mut pool = old.pool.differences(&new.pool);
            pool.retain(|key| *key != "secret" || !same_file(Some(&old.pool.secret), Some(&new.pool.secret)));
            keys.add("pool", &pool);
            let mut ledger = old.ledger.differences(&new.ledger);
            ledger
                .retain(|key| *key != "key" || !same_file(old.ledger.key.as_ref(), new.ledger.key.as_ref()));
            keys.add("ledger", &ledger);
        }
        keys.add("record", &self.record.differences(&new.record));
        keys.add("events", &self.events.differences(&new.events));
        keys.add("drain", &self.drain.differences(&new.drain));
        keys.0
    }
}

fn same_file(old: Option<&Secret>, new: Option<&Secret>) -> bool {
    old.zip(new).is_some_and(|(old, new)| old.file().is_some() && old.file() == new.file())
}

#[derive(Default)]
struct Keys(Vec<String>);

impl Keys {
    fn add(&mut self, section: &str, keys: &[&str]) {
        self.0.extend(keys.iter().map(|key| format!("[{section}] {key}")));
    }

    fn add_where(&mut self, section: &str, keys: &[(&str, bool)]) {
        for (key, _) in keys.iter().filter(|(_, differs)| *differs) {
            self.add(section, &[key]);
        }
    }
}
