//! What differs between configurations, and when it takes effect.
//!
//! Each key says in its line of `sections` whether a reload takes it over. What does is compared with what is
//! in force, what waits with what the gateway was started with: a key that is set back waits no more.

use super::{Config, Reload, Secret, Source, sections::SECTIONS};

/// What a reload does, policies aside; the keys as `[gate] hold_timeout`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// These take effect.
    pub taken: Vec<String>,
    /// These wait for the next start.
    pub waiting: Vec<String>,
}

impl Config {
    /// What `new` changes in a gateway that was started with this configuration and has `running` in force.
    pub fn changes(&self, running: &Self, new: &Self) -> Changes {
        let named = |keys: Vec<Key>, waits: bool| -> Vec<String> {
            keys.into_iter()
                .filter(|key| (key.reload == Reload::NextStart) == waits)
                .map(|key| key.name)
                .collect()
        };
        Changes { taken: named(running.differences(new), false), waiting: named(self.differences(new), true) }
    }

    /// Every key but those of policies that has another value in `new`.
    fn differences(&self, new: &Self) -> Vec<Key> {
        let mut keys = Keys::default();
        if self.mode.serves_miners() != new.mode.serves_miners() {
            keys.0.push(Key { name: "mode".into(), reload: Reload::NextStart });
        }
        keys.add_where("source", &[("name", self.source_name != new.source_name)]);
        keys.add("source", &source_differences(&self.source, &new.source));
        if self.backups.len() != new.backups.len() {
            keys.0.push(Key { name: "[[backup]], their number".into(), reload: Reload::NextStart });
        }
        for (old, new) in self.backups.iter().zip(&new.backups) {
            if old.name != new.name {
                keys.0.push(Key { name: "[[backup]] name".into(), reload: Reload::NextStart });
            }
            let differing = source_differences(&old.source, &new.source);
            let named = |key: &&str| Key {
                name: format!("backup \"{}\": {key}", old.name),
                reload: Reload::NextStart,
            };
            keys.0.extend(differing.iter().map(named));
        }
        keys.add("failover", &self.failover.differences(&new.failover));
        let coinbase = [
            ("payout_address or payouts", self.coinbase.payout != new.coinbase.payout),
            ("tag", self.coinbase.tag != new.coinbase.tag),
        ];
        keys.add_where("coinbase", &coinbase);
        keys.add("gate", &self.gate.differences(&new.gate));
        keys.add("engine", &self.engine.differences(&new.engine));
        keys.add("swap", &self.swap.differences(&new.swap));
        keys.add("api", &self.api.differences(&new.api));
        if let (Some(old), Some(new)) = (&self.serving, &new.serving) {
            keys.add("miners", &old.miners.differences(&new.miners));
            keys.add("pool", &old.pool.differences(&new.pool));
            // A file of chain keys is looked at again by the ledger.
            let mut ledger = old.ledger.differences(&new.ledger);
            ledger
                .retain(|key| *key != "key" || !same_file(old.ledger.key.as_ref(), new.ledger.key.as_ref()));
            keys.add("ledger", &ledger);
        }
        keys.add("record", &self.record.differences(&new.record));
        keys.add("events", &self.events.differences(&new.events));
        keys.add("log", &self.log.differences(&new.log));
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
        (Source::Provider(old), Source::Provider(new)) => old.differences(new),
        (Source::Replay(old), Source::Replay(new)) => old.differences(new),
        _ => vec!["kind"],
    }
}

fn same_file(old: Option<&Secret>, new: Option<&Secret>) -> bool {
    old.zip(new).is_some_and(|(old, new)| old.file().is_some() && old.file() == new.file())
}

struct Key {
    name: String,
    reload: Reload,
}

#[derive(Default)]
struct Keys(Vec<Key>);

impl Keys {
    fn add(&mut self, section: &str, keys: &[&str]) {
        self.0.extend(
            keys.iter().map(|key| Key { name: format!("[{section}] {key}"), reload: reload(section, key) }),
        );
    }

    fn add_where(&mut self, section: &str, keys: &[(&str, bool)]) {
        for (key, _) in keys.iter().filter(|(_, differs)| *differs) {
            self.add(section, &[key]);
        }
    }
}

/// What stands in the key's line; several keys together wait.
fn reload(section: &str, key: &str) -> Reload {
    let lists = SECTIONS.iter().filter(|(name, _)| *name == section).flat_map(|(_, lists)| lists.iter());
    let mut keys = lists.flat_map(|list| list.iter());
    keys.find(|info| info.name == key).map_or(Reload::NextStart, |info| info.reload)
}

#[cfg(test)]
#[path = "changes_tests.rs"]
pub(super) mod tests;
