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
        keys.add_where("source", &[("name", self.source_name != new.source_name)]);
        keys.add("source", &source_differences(&self.source, &new.source));
        if self.backups.len() != new.backups.len() {
            keys.0.push("[[backup]], their number".into());
        }
        for (old, new) in self.backups.iter().zip(&new.backups) {
            if old.name != new.name {
                keys.0.push("[[backup]] name".into());
            }
            let differing = source_differences(&old.source, &new.source);
            keys.0.extend(differing.iter().map(|key| format!("backup \"{}\": {key}", old.name)));
        }
        keys.add("failover", &self.failover.differences(&new.failover));
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

fn source_differences(old: &Source, new: &Source) -> Vec<&'static str> {
    match (old, new) {
        (Source::Embedded(old), Source::Embedded(new)) => old.differences(new),
        (Source::Node(old), Source::Node(new)) => {
            let differing = [
                ("url", old.url != new.url),
                ("network", old.network != new.network),
                ("cookie_file, user or password", old.auth != new.auth),
                ("request_timeout", old.request_timeout != new.request_timeout),
                ("stale_after", old.stale_after != new.stale_after),
                ("fee_refresh", old.fee_refresh != new.fee_refresh),
                ("zmq_hashblock", old.zmq_hashblock != new.zmq_hashblock),
                ("proposal", old.proposal != new.proposal),
            ];
            differing.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
        }
        (Source::Embedded(_), Source::Node(_)) | (Source::Node(_), Source::Embedded(_)) => vec!["kind"],
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
