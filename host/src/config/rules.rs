//! The rules between keys: what must be there in which mode and with which source, and what may not
//! stand together. Reads the whole tree; a fault never stops the reading of the rest.

use super::{
    Config, Mode, NodeAuth, Origin, Serving, Source,
    choices::{CoinbaseOnly, SourceKind},
    coinbase,
    document::{TOP, variable},
    reader::{Reader, secret_ways},
    sections::{
        Api, Backup, BackupKey, Drain, EmbeddedSource, Engine, Events, FILE_KEYS, Failover, Gate, Ledger,
        Log, Miners, NodeKeys, NodeSource, PolicyEntry, PolicyKeys, Pool, ProviderSource, Record,
        ReplaySource, SourceKey, Swap, Top, key_names,
    },
};
use crate::policy::Enforcement;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

/// Reads the whole tree. `None` when there was a fault; the reader has it.
pub(super) fn read(reader: &mut Reader, file: &Path) -> Option<Config> {
    let mode = Top::read(reader, TOP).map(|top| top.mode);
    let source = source(reader);
    if matches!(source, Some((_, Source::Replay(_)))) && mode.is_some_and(Mode::serves_miners) {
        reader.fault(
            "source",
            "kind",
            "is \"replay\": nobody can mine on templates of the past; set mode = \"shadow\"",
        );
    }
    let backups = backups(reader, source.as_ref());
    let failover = Failover::read(reader, "failover");
    let coinbase = coinbase::read(reader, source.as_ref().map(|(_, source)| source));
    let gate = gate(reader);
    let engine = Engine::read(reader, "engine");
    let policies = policies(reader, mode);
    let swap = Swap::read(reader, "swap");
    let api = api(reader);
    // Without miners their sections may be there, and are checked, but nothing in them is needed. The
    // same when the mode is not known: what is missing then is a guess.
    let serves = mode.is_some_and(Mode::serves_miners);
    reader.lenient = !serves;
    let miners = miners(reader);
    let pool = Pool::read(reader, "pool");
    let ledger = Ledger::read(reader, "ledger");
    reader.lenient = false;
    let record = Record::read(reader, "record");
    let (events, log) = (Events::read(reader, "events"), Log::read(reader, "log"));
    let drain = Drain::read(reader, "drain");
    let serving = if serves { Some(Serving { miners: miners?, pool: pool?, ledger: ledger? }) } else { None };
    Some(Config {
        file: file.to_owned(),
        mode: mode?,
        source_name: source.as_ref()?.0.clone(),
        source: source?.1,
        backups: backups?,
        failover: failover?,
        coinbase: coinbase?,
        gate: gate?,
        engine: engine?,
        policies: policies?,
        swap: swap?,
        api: api?,
        serving,
        record: record?,
        events: events?,
        log: log?,
        drain: drain?,
        origin: Origin::default(),
    })
}

/// The preferred source, with its name.
fn source(reader: &mut Reader) -> Option<(String, Source)> {
    const SECTION: &str = "source";
    let Some(SourceKey { kind, name }) = SourceKey::read(reader, SECTION) else {
        // Whether the other keys belong there cannot be said.
        for key in key_names(SECTION) {
            reader.take(SECTION, key);
        }
        return None;
    };
    Some((name, source_of(reader, SECTION, kind)?))
}

/// The keys of a source of a kind, in its section.
fn source_of(reader: &mut Reader, section: &str, kind: SourceKind) -> Option<Source> {
    let all = SourceKind::ALL.iter().flat_map(|kind| kind.keys());
    let others: BTreeSet<_> = all.map(|key| key.name).collect();
    for name in others.into_iter().filter(|name| kind.keys().iter().all(|key| key.name != *name)) {
        for name in [
            name,
            FILE_KEYS.into_iter().find(|file| file.strip_suffix("_file") == Some(name)).unwrap_or(name),
        ] {
            if reader.has(section, name) {
                reader.take(section, name);
                reader.fault(section, name, "belongs to another kind of source; remove it, or change kind");
            }
        }
    }
    match kind {
        SourceKind::Embedded => EmbeddedSource::read(reader, section).map(Source::Embedded),
        SourceKind::Replay => ReplaySource::read(reader, section).map(Source::Replay),
        SourceKind::Provider => provider(reader, section).map(Source::Provider),
        SourceKind::Node => node(reader, section).map(Source::Node),
    }
}

fn provider(reader: &mut Reader, section: &str) -> Option<ProviderSource> {
    let given = reader.has(section, "authority_key");
    let provider = ProviderSource::read(reader, section)?;
    // Whoever else answers there would choose what is mined.
    if provider.authority_key.is_none() && !given && !provider.address.is_loopback() {
        let message = "give the key that the Template Provider shows; without it anybody on the way could answer, \
                       so only a loopback address needs none";
        reader.missing(section, "authority_key", message);
        return None;
    }
    Some(provider)
}

fn node(reader: &mut Reader, section: &str) -> Option<NodeSource> {
    let given = ["cookie_file", "user", "password", "password_file"].map(|key| reader.has(section, key));
    let node = NodeKeys::read(reader, section);
    let auth = match given {
        [true, false, false, false] => None,
        [false, true, password, file] if password || file => None,
        [false, true, ..] => Some(("password", format!("is missing; {}", secret_ways(section, "password")))),
        [false, false, false, false] => {
            Some(("cookie_file", "is missing; give the node's cookie file, or user and a password".into()))
        }
        [true, ..] => {
            Some(("cookie_file", "stands beside user or password; give one of the two ways".into()))
        }
        [false, false, ..] => Some(("user", "is missing, and there is a password; give both".into())),
    };
    if let Some((key, message)) = auth {
        reader.fault(section, key, message);
    }
    let node = node?;
    let auth = match (node.cookie_file, node.user, node.password) {
        (Some(file), None, None) => NodeAuth::Cookie(file),
        (None, Some(user), Some(password)) => NodeAuth::Password { user, password },
        _ => return None,
    };
    let NodeKeys { url, network, request_timeout, stale_after, fee_refresh, zmq_hashblock, proposal, .. } =
        node;
    Some(NodeSource {
        url,
        network,
        auth,
        request_timeout,
        stale_after,
        fee_refresh,
        zmq_hashblock,
        proposal,
    })
}

/// The other sources, in the order of the file. `None` when there was a fault.
fn backups(reader: &mut Reader, preferred: Option<&(String, Source)>) -> Option<Vec<Backup>> {
    let mut lines: BTreeMap<String, String> = BTreeMap::new();
    if let Some((name, _)) = preferred {
        lines.insert(name.clone(), "[source]".into());
    }
    let mut backups = Some(Vec::new());
    for index in 0..reader.count("backup") {
        let section = format!("backup.{index}");
        let line = reader.place(&section, "").line().unwrap_or_default();
        let Some(BackupKey { name, kind }) = BackupKey::read(reader, &section) else {
            for key in key_names("backup") {
                reader.take(&section, key);
            }
            backups = None;
            continue;
        };
        let source = source_of(reader, &section, kind);
        let mut faults = Vec::new();
        if let Some(first) = lines.insert(name.clone(), format!("the backup in line {line}")) {
            faults.push(("name", format!("{name:?} is the name of {first} too")));
        }
        let alone = matches!(preferred, Some((_, Source::Embedded(_) | Source::Replay(_))));
        if matches!(kind, SourceKind::Embedded | SourceKind::Replay) || alone {
            let message =
                "nothing can stand in for the embedded chain or a replay, nor they for anything else";
            faults.push(("kind", message.into()));
        } else if let (Some((_, preferred)), Some(source)) = (preferred, &source)
            && preferred.network() != source.network()
        {
            faults.push(("network", "is another one than that of [source]".into()));
        }
        let good = faults.is_empty();
        for (key, message) in faults {
            reader.fault(&section, key, message);
        }
        backups = backups.zip(source).filter(|_| good).map(|(mut backups, source)| {
            backups.push(Backup { name, source });
            backups
        });
    }
    backups
}

fn miners(reader: &mut Reader) -> Option<Miners> {
    let miners = Miners::read(reader, "miners")?;
    if miners.users_file.is_some() && miners.users_url.is_some() {
        reader.fault("miners", "users_url", "stands beside users_file; give one of the two ways");
        return None;
    }
    Some(miners)
}

fn gate(reader: &mut Reader) -> Option<Gate> {
    let gate = Gate::read(reader, "gate")?;
    if gate.coinbase_only != CoinbaseOnly::Off && gate.coinbase_only_after >= gate.hold_timeout {
        reader.fault(
            "gate",
            "coinbase_only_after",
            "is not shorter than hold_timeout: miners would be gone before the fallback is asked for",
        );
    }
    if gate.verdict_timeout > gate.hold_timeout {
        reader.fault(
            "gate",
            "verdict_timeout",
            "is longer than hold_timeout; a verdict has to come before the hold ends",
        );
        return None;
    }
    Some(gate)
}

fn api(reader: &mut Reader) -> Option<Api> {
    let api = Api::read(reader, "api")?;
    if api.listen.is_some_and(|address| !address.ip().is_loopback()) && api.token.is_none() {
        reader.fault(
            "api",
            "listen",
            format!(
                "is no loopback address, so others can reach it: set {}, or name a file that holds a token \
                 with token_file",
                variable("api", "token")
            ),
        );
        return None;
    }
    if api.read_token.is_some() && api.token.is_none() {
        reader.fault(
            "api",
            "read_token",
            format!(
                "stands alone, and without token everybody on this machine may change things: set {} too",
                variable("api", "token")
            ),
        );
        return None;
    }
    if api.token.is_some() && api.token == api.read_token {
        reader.fault("api", "read_token", "is the same as token; the one that only looks must be another");
        return None;
    }
    Some(api)
}

fn policies(reader: &mut Reader, mode: Option<Mode>) -> Option<Vec<PolicyEntry>> {
    if reader.count("policy") == 0 {
        reader.fault_of_file("there is no [[policy]]; a gateway without one would judge nothing");
        return None;
    }
    let mut lines = BTreeMap::new();
    let mut entries = Some(Vec::new());
    for index in 0..reader.count("policy") {
        let section = format!("policy.{index}");
        let line = reader.place(&section, "").line().unwrap_or_default();
        let entry = PolicyKeys::read(reader, &section).and_then(|keys| {
            let PolicyKeys { name, module, sha256, settings, enforcement, fuel } = keys;
            if let Some(first) = lines.insert(name.clone(), line) {
                reader.fault(
                    &section,
                    "name",
                    format!("{name:?} is the name of the policy in line {first} too"),
                );
                return None;
            }
            let settings = settings.unwrap_or_else(|| serde_json::Value::Object(serde_json::Map::new()));
            Some(PolicyEntry { name, module, sha256, settings, fuel, enforcement, line })
        });
        entries = entries.zip(entry).map(|(mut entries, entry)| {
            entries.push(entry);
            entries
        });
    }
    let enforces = |entry: &PolicyEntry| entry.enforcement == Enforcement::Enforce;
    if mode == Some(Mode::Inline) && entries.as_ref().is_some_and(|entries| !entries.iter().any(enforces)) {
        reader.fault_of_file(
            "every [[policy]] is monitored, so none could refuse anything; in inline mode at least one must have \
             enforcement = \"enforce\"",
        );
        return None;
    }
    entries
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
