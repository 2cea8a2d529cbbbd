//! The configuration: one typed tree from a TOML file and environment variables, checked once.
//!
//! Whoever holds a [`Config`] holds something that is complete and consistent; whoever does not gets
//! every fault at once, each with its line ([`ConfigFaults`]). A variable
//! `RESERVEGRID_<SECTION>__<KEY>` (and `RESERVEGRID_MODE`) goes before the key of the file. Relative
//! paths of the file begin at the file's folder. Secrets are never in the file.
//!
//! - `sections`: the keys, each declared once with type, default and meaning; `choices`: values that are words;
//!   `check`: bounds
//! - `rules`: what must or may not stand together
//! - `reader`, `document`: TOML and environment as typed values, with their places
//! - `changes`: what differs between configurations, and when it takes effect
//! - `explain`: every key in words, and what is in force
//! - `value`: how a text becomes a value; `fault`: what is said when it does not

#[cfg(test)]
mod backup_tests;
mod changes;
mod check;
mod choices;
mod coinbase;
mod document;
mod explain;
mod fault;
#[cfg(test)]
mod mistakes;
mod reader;
mod rules;
mod secret;
mod section;
mod sections;
#[cfg(test)]
mod tests;
mod value;

pub use changes::Changes;
pub use choices::{CoinbaseOnly, Console, HeldShares, LogFormat, ProposalCheck, Switch};
pub use explain::{InForce, Key, defaults, in_force, keys, page};
pub use fault::{ConfigFaults, Fault, Place};
pub use secret::Secret;
pub use section::{KeyInfo, Presence, Reload};
pub use sections::{
    Api, Backup, Coinbase, Drain, EmbeddedSource, Engine, Events, Failover, Gate, Ledger, Log, Miners,
    NodeSource, PolicyEntry, Pool, ProviderSource, Record, ReplaySource, Rotation, SECTIONS, Swap,
};
pub use value::ByteSize;

use crate::gate::mode::Mode;
use bitcoin::{Network, ScriptBuf};
use choices::SourceKind;
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

/// Environment variables by name.
pub type Environment = BTreeMap<String, String>;

/// A complete, checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file it came from.
    pub file: PathBuf,
    /// What a verdict may do.
    pub mode: Mode,
    /// Where templates come from.
    pub source: Source,
    /// What that source is called.
    pub source_name: String,
    /// Where they come from when that one fails, in this order; all on the same network.
    pub backups: Vec<Backup>,
    /// When which of them gives the templates.
    pub failover: Failover,
    /// What the coinbase of a block pays and says.
    pub coinbase: Coinbase,
    /// The timing of the gate.
    pub gate: Gate,
    /// The engine that runs policies.
    pub engine: Engine,
    /// The policies in the order in which they are asked; at least one.
    pub policies: Vec<PolicyEntry>,
    /// How the policies are exchanged while miners work.
    pub swap: Swap,
    /// The HTTP surface for operators.
    pub api: Api,
    /// What serving miners needs: `None` exactly when [`Mode::serves_miners`] is false.
    pub serving: Option<Serving>,
    /// Recordings of judged templates.
    pub record: Record,
    /// Where events are written.
    pub events: Events,
    /// What is logged.
    pub log: Log,
    /// The end of the process.
    pub drain: Drain,
    origin: Origin,
}

/// What a configuration was read from, to read it again.
#[derive(Clone, Default)]
struct Origin {
    variables: Environment,
    digest: [u8; 32],
}

/// The variables hold secrets.
impl std::fmt::Debug for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Origin").finish_non_exhaustive()
    }
}

/// What serving miners needs.
#[derive(Clone, Debug)]
pub struct Serving {
    /// The listener and its limits.
    pub miners: Miners,
    /// The pool backend that receives shares.
    pub pool: Pool,
    /// The record of shares.
    pub ledger: Ledger,
}

/// Where templates come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A Bitcoin node over JSON-RPC.
    Node(NodeSource),
    /// An SV2 Template Provider.
    Provider(ProviderSource),
    /// The chain inside the process (regtest rules).
    Embedded(EmbeddedSource),
    /// Recorded templates.
    Replay(ReplaySource),
}

impl Source {
    fn kind(&self) -> SourceKind {
        match self {
            Self::Node(_) => SourceKind::Node,
            Self::Provider(_) => SourceKind::Provider,
            Self::Embedded(_) => SourceKind::Embedded,
            Self::Replay(_) => SourceKind::Replay,
        }
    }

    /// The network whose rules and addresses apply.
    pub fn network(&self) -> Network {
        match self {
            Self::Node(node) => node.network,
            Self::Provider(provider) => provider.network,
            Self::Embedded(_) => Network::Regtest,
            Self::Replay(replay) => replay.network,
        }
    }

    /// How long the source may give nothing new.
    pub fn stale_after(&self) -> Duration {
        match self {
            Self::Node(node) => node.stale_after,
            Self::Provider(provider) => provider.stale_after,
            Self::Embedded(embedded) => embedded.stale_after,
            Self::Replay(replay) => replay.stale_after,
        }
    }

    /// Whether it checks assembled blocks.
    pub fn proposal(&self) -> ProposalCheck {
        match self {
            Self::Node(node) => node.proposal,
            Self::Provider(_) | Self::Embedded(_) | Self::Replay(_) => ProposalCheck::Off,
        }
    }

    /// How soon better templates on the same tip are seen at the latest.
    pub fn refresh(&self) -> Duration {
        match self {
            Self::Node(node) => node.fee_refresh,
            Self::Embedded(embedded) => embedded.refresh,
            // They speak by themselves.
            Self::Provider(_) | Self::Replay(_) => Duration::from_secs(30),
        }
    }
}

/// How the gateway shows a node who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeAuth {
    /// The node's cookie file; it changes whenever the node starts, so it is read for each connection.
    Cookie(PathBuf),
    /// A user name and a password.
    Password {
        /// The user name.
        user: String,
        /// The password.
        password: Secret,
    },
}

/// The variables of this process.
pub fn environment() -> Environment {
    let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect()
}

impl Log {
    /// What the variables say of the log, for commands without a configuration file.
    ///
    /// # Errors
    /// Every fault of these variables.
    pub fn of_environment(environment: &Environment) -> Result<Self, ConfigFaults> {
        let of_log =
            |name: &str| name.strip_prefix(document::PREFIX).is_some_and(|rest| rest.starts_with("LOG"));
        let variables = environment.iter().filter(|(name, _)| of_log(name));
        let variables = variables.map(|(name, value)| (name.clone(), value.clone())).collect();
        let file = Path::new("");
        let mut reader = reader::Reader::new("", file, &variables);
        let log = Self::read(&mut reader, "log");
        let faults = reader.finish();
        log.filter(|_| faults.is_empty()).ok_or_else(|| ConfigFaults::new(file, faults))
    }
}

impl Config {
    /// Reads and checks a configuration file with the variables of this process.
    ///
    /// # Errors
    /// Every fault of the file and the variables, with its place.
    pub fn load(path: &Path) -> Result<Self, ConfigFaults> {
        Self::load_with(path, &environment())
    }

    /// [`load`](Self::load) with a given environment.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_with(path: &Path, environment: &Environment) -> Result<Self, ConfigFaults> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            let message = format!("the configuration file cannot be read: {error}");
            ConfigFaults::new(path, vec![Fault { place: Place::Whole, message }])
        })?;
        Self::parse(&text, path, environment)
    }

    /// Reads the same file again, with the variables that it was read with before.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn reload(&self) -> Result<Self, ConfigFaults> {
        Self::load_with(&self.file, &self.origin.variables)
    }

    /// SHA-256 of the file's text.
    pub fn file_digest(&self) -> [u8; 32] {
        self.origin.digest
    }

    /// Checks the text of a configuration; `path` names it in faults and its folder is where relative
    /// paths begin.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn parse(text: &str, path: &Path, environment: &Environment) -> Result<Self, ConfigFaults> {
        let mut reader = reader::Reader::new(text, path, environment);
        let config = rules::read(&mut reader, path);
        let faults = reader.finish();
        match config {
            Some(config) if faults.is_empty() => {
                let variables = environment.iter().filter(|(name, _)| name.starts_with(document::PREFIX));
                let variables = variables.map(|(name, value)| (name.clone(), value.clone())).collect();
                Ok(Self { origin: Origin { variables, digest: Sha256::digest(text).into() }, ..config })
            }
            _ => Err(ConfigFaults::new(path, faults)),
        }
    }

    /// What a payout of the embedded chain goes to where no address is given: a script that anyone may
    /// spend (P2WSH of `OP_TRUE`), since its coins are worth nothing.
    fn anyone_can_spend() -> ScriptBuf {
        let script = bitcoin::script::Builder::new().push_opcode(bitcoin::opcodes::OP_TRUE).into_script();
        ScriptBuf::new_p2wsh(&script.wscript_hash())
    }
}
