//! The gateway and the CPU miner, run as operators run them: the real binary with a configuration file.
//!
//! ```no_run
//! # use reservegrid_tests::{backend::Backend, gateway::*, node::Node};
//! # use serde_json::json;
//! # async fn example(node: Node) -> anyhow::Result<()> {
//! let backend = Backend::start("test", "a secret of the pool").await?;
//! let config = GatewayConfig::new("inline")?
//!     .node(&node)
//!     .policy("fee-floor", &policy("fee-floor")?, &json!({ "min_avg_fee": { "low": 200, "mid": 200, "high": 200 } }))?
//!     .pool(&backend)
//!     .set("gate", "hold_timeout", "2s");
//! let mut gateway = Gateway::start(&config).await?;
//! let miner = Miner::start(&gateway, Channel::Standard, 200_000, "alice")?;
//! let block = gateway.wait_for_event("a block", DEADLINE, |e| e["event"] == "block_found").await?;
//! # Ok(()) }
//! ```

use crate::{
    backend::Backend,
    node::{self, Auth, Node},
    process::Process,
    tail::Tail,
    wait,
};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tempfile::TempDir;
use toml::{Table, Value as Toml};

/// Long enough for anything that works on a machine that is busy with something else.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// The variables of the gateway begin with this.
const PREFIX: &str = "RESERVEGRID_";

/// The binary: `RESERVEGRID_BIN`, or the one beside the test's own target folder.
///
/// # Errors
/// When there is none.
pub fn binary() -> Result<PathBuf> {
    let path = match std::env::var_os("RESERVEGRID_BIN") {
        Some(path) => PathBuf::from(path),
        None => release_folder()?.join("reservegrid"),
    };
    ensure!(path.exists(), "{} is missing: run `make build`", path.display());
    Ok(path)
}

/// A policy built by `make policies`: in `RESERVEGRID_POLICY_DIR`, or beside the test's target folder.
///
/// # Errors
/// When it is not there.
pub fn policy(name: &str) -> Result<PathBuf> {
    let folder = match std::env::var_os("RESERVEGRID_POLICY_DIR") {
        Some(path) => PathBuf::from(path),
        None => release_folder()?.with_file_name("policies"),
    };
    let path = folder.join(name).with_extension("wasm");
    ensure!(path.exists(), "{} is missing: run `make policies`", path.display());
    Ok(path)
}

/// `target/release`, from `target/release/deps/<this test>`.
fn release_folder() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    let folder = program.ancestors().nth(2).context("a test outside a target folder")?;
    Ok(folder.with_file_name("release"))
}

/// A configuration and the folder it lives in, with ledger and events. Clones share the folder: a
/// gateway started from one continues where the other ended.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    table: Table,
    variables: BTreeMap<String, String>,
    folder: Arc<TempDir>,
    runs: Arc<AtomicU32>,
    address_space: Option<u64>,
}

impl GatewayConfig {
    /// A configuration that lacks source, policies and pool.
    ///
    /// # Errors
    /// When there is no temporary folder.
    pub fn new(mode: &str) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("reservegrid-gateway-").tempdir()?;
        let mut config = Self {
            table: Table::new(),
            variables: BTreeMap::new(),
            folder: Arc::new(folder),
            runs: Arc::default(),
            address_space: None,
        };
        config.table.insert("mode".into(), mode.into());
        let authority = bitcoin::base58::encode_check(&[0x24; 32]);
        Ok(config
            .set("miners", "listen", "127.0.0.1:0")
            .set("ledger", "dir", "ledger")
            .set("events", "file", "events.ndjson")
            .variable("RESERVEGRID_MINERS__AUTHORITY_SECRET", &authority))
    }

    /// Another mode.
    #[must_use]
    pub fn mode(mut self, mode: &str) -> Self {
        self.table.insert("mode".into(), mode.into());
        self
    }

    /// The most address space that the gateway may have, KiB (`ulimit -v`).
    #[must_use]
    pub fn address_space(mut self, most: u64) -> Self {
        self.address_space = Some(most);
        self
    }

    /// Templates of the embedded chain.
    #[must_use]
    pub fn embedded(self, bits: &str, transactions: u32) -> Self {
        self.set("source", "kind", "embedded").set("source", "bits", bits).set(
            "source",
            "transactions",
            i64::from(transactions),
        )
    }

    /// Templates of a node on regtest.
    #[must_use]
    pub fn node(self, node: &Node) -> Self {
        let config = self
            .set("source", "kind", "node")
            .set("source", "url", node.url())
            .set("source", "network", "regtest")
            .set("coinbase", "payout_address", "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080");
        match node.auth {
            Auth::Cookie => config.set("source", "cookie_file", node.cookie_file().display().to_string()),
            Auth::Password => config
                .set("source", "user", node::USER)
                .variable("RESERVEGRID_SOURCE__PASSWORD", node::PASSWORD),
        }
    }

    /// One more source of templates, for when those before it fail: a node with a cookie file.
    #[must_use]
    pub fn backup(mut self, name: &str, node: &Node) -> Self {
        let mut entry = Table::new();
        entry.insert("name".into(), name.into());
        entry.insert("kind".into(), "node".into());
        entry.insert("url".into(), node.url().into());
        entry.insert("network".into(), "regtest".into());
        entry.insert("cookie_file".into(), node.cookie_file().display().to_string().into());
        let list = self.table.entry("backup").or_insert_with(|| Toml::Array(Vec::new()));
        if let Some(list) = list.as_array_mut() {
            list.push(entry.into());
        }
        self
    }

    /// One more policy, asked after those before it.
    ///
    /// # Errors
    /// When the settings cannot be written as TOML (`null`).
    pub fn policy(mut self, name: &str, module: &Path, settings: &Value) -> Result<Self> {
        let mut entry = Table::new();
        entry.insert("name".into(), name.into());
        entry.insert("module".into(), module.display().to_string().into());
        entry.insert("settings".into(), Toml::try_from(settings)?);
        let list = self.table.entry("policy").or_insert_with(|| Toml::Array(Vec::new()));
        list.as_array_mut().context("policies are a list")?.push(entry.into());
        Ok(self)
    }

    /// Sets any key of the policy of this name.
    #[must_use]
    pub fn set_policy(mut self, name: &str, key: &str, value: impl Into<Toml>) -> Self {
        let list = self.table.get_mut("policy").and_then(Toml::as_array_mut);
        let mut entries = list.into_iter().flatten().filter_map(Toml::as_table_mut);
        if let Some(entry) = entries.find(|entry| entry.get("name").and_then(Toml::as_str) == Some(name)) {
            entry.insert(key.into(), value.into());
        }
        self
    }

    /// No policies any more, to give others.
    #[must_use]
    pub fn without_policies(mut self) -> Self {
        self.table.remove("policy");
        self
    }

    /// Shares go to this backend.
    #[must_use]
    pub fn pool(self, backend: &Backend) -> Self {
        self.set("pool", "url", backend.url())
            .set("pool", "key_id", backend.key_id())
            .variable("RESERVEGRID_POOL__SECRET", backend.secret())
    }

    /// Sets any key of any section.
    #[must_use]
    pub fn set(mut self, section: &str, key: &str, value: impl Into<Toml>) -> Self {
        let table = self.table.entry(section).or_insert_with(|| Table::new().into());
        if let Some(table) = table.as_table_mut() {
            table.insert(key.into(), value.into());
        }
        self
    }

    /// Leaves a key out.
    #[must_use]
    pub fn unset(mut self, section: &str, key: &str) -> Self {
        if let Some(table) = self.table.get_mut(section).and_then(Toml::as_table_mut) {
            table.remove(key);
        }
        self
    }

    /// Sets a variable of the environment.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.insert(name.into(), value.into());
        self
    }

    /// What the gateway has recorded so far in a folder of its own, oldest first.
    ///
    /// # Errors
    /// When the command does not run.
    pub fn recordings(&self, dir: &str) -> Result<Vec<Value>> {
        let record = |arguments: &[&str]| -> Result<String> {
            let output = command()?.arg("record").args(arguments).current_dir(self.folder()).output()?;
            Ok(String::from_utf8(output.stdout)?)
        };
        let places = record(&["list", dir])?;
        let places = places.lines().filter_map(|line| line.split_whitespace().next());
        places.map(|place| Ok(serde_json::from_str(&record(&["show", place])?)?)).collect()
    }

    /// The variables of the environment.
    pub fn variables(&self) -> &BTreeMap<String, String> {
        &self.variables
    }

    /// The folder with configuration, ledger and events.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The configuration file.
    pub fn file(&self) -> PathBuf {
        self.folder().join("gateway.toml")
    }

    /// Writes the configuration file, at once and whole, also under a gateway that runs.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self) -> Result<()> {
        let next = self.folder().join("gateway.toml.next");
        std::fs::write(&next, toml::to_string(&self.table)?)?;
        std::fs::rename(next, self.file())?;
        Ok(())
    }

    /// The ledger's folder.
    pub fn ledger(&self) -> PathBuf {
        self.folder().join("ledger")
    }
}

/// A running gateway; it ends with this handle.
#[derive(Debug)]
pub struct Gateway {
    process: Process,
    events: Tail,
    config: GatewayConfig,
    listen: Option<String>,
    authority_key: Option<String>,
    api: Option<String>,
}

impl Gateway {
    /// Starts the gateway and waits until it says so.
    ///
    /// # Errors
    /// When it ends, or does not say so in time.
    pub async fn start(config: &GatewayConfig) -> Result<Self> {
        let mut gateway = Self::spawn(config)?;
        gateway.started().await?;
        Ok(gateway)
    }

    /// Waits until a gateway that was spawned says that it has started.
    ///
    /// # Errors
    /// When it ends, or does not say so in time.
    pub async fn started(&mut self) -> Result<()> {
        let started = self.wait_for_event("the start", DEADLINE, |e| e["event"] == "gateway_started").await?;
        let text = |name: &str| started[name].as_str().map(str::to_owned);
        (self.listen, self.authority_key) = (text("listen"), text("authority_key"));
        self.api = text("api").map(|address| format!("http://{address}"));
        Ok(())
    }

    /// Starts the gateway without waiting, for configurations with which it is not to start.
    ///
    /// # Errors
    /// When there is no binary.
    pub fn spawn(config: &GatewayConfig) -> Result<Self> {
        config.write()?;
        let path = config.file();
        let run = config.runs.fetch_add(1, Ordering::Relaxed);
        let mut command = command()?;
        command.arg("run").arg("--config").arg(&path);
        if let Some(most) = config.address_space {
            command = limited(&command, most);
        }
        command.envs(&config.variables).current_dir(config.folder());
        let events = Tail::at_end(config.folder().join("events.ndjson"))?;
        let process = Process::start(&format!("gateway-{run}"), command, config.folder())?;
        Ok(Self { process, events, config: config.clone(), listen: None, authority_key: None, api: None })
    }

    /// Where miners connect, `127.0.0.1:PORT`.
    ///
    /// # Errors
    /// In shadow mode.
    pub fn address(&self) -> Result<&str> {
        self.listen.as_deref().context("this gateway serves no miners")
    }

    /// The key its miners need, base58.
    ///
    /// # Errors
    /// In shadow mode.
    pub fn authority_key(&self) -> Result<&str> {
        self.authority_key.as_deref().context("this gateway serves no miners")
    }

    /// Its HTTP surface, `http://127.0.0.1:PORT`.
    ///
    /// # Errors
    /// When it has none.
    pub fn api(&self) -> Result<&str> {
        self.api.as_deref().context("this gateway has no HTTP surface")
    }

    /// The process: its output, signals to it, its end.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Its configuration and folder.
    pub fn config(&self) -> &GatewayConfig {
        &self.config
    }

    /// All events of this run so far, in order.
    ///
    /// # Errors
    /// When a line is not JSON.
    pub fn events(&mut self) -> Result<&[Value]> {
        self.events.poll()?;
        Ok(&self.events.seen)
    }

    /// The events of one kind so far.
    ///
    /// # Errors
    /// As [`events`](Self::events).
    pub fn events_named(&mut self, name: &str) -> Result<Vec<Value>> {
        Ok(self.events()?.iter().filter(|event| event["event"] == name).cloned().collect())
    }

    /// Waits for the first event of this run for which something holds; it may have come already.
    ///
    /// # Errors
    /// When it does not come within the deadline, or the gateway ends.
    pub async fn wait_for_event(
        &mut self,
        what: &str,
        deadline: Duration,
        condition: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        self.wait_for_event_after(0, what, deadline, condition).await
    }

    /// Waits for the first event after the first `skip` for which something holds. `events()?.len()` is
    /// the `skip` of now.
    ///
    /// # Errors
    /// As [`wait_for_event`](Self::wait_for_event).
    pub async fn wait_for_event_after(
        &mut self,
        skip: usize,
        what: &str,
        deadline: Duration,
        condition: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let (process, events) = (&mut self.process, &mut self.events);
        let mut next = skip;
        let waited = wait::until(what, deadline, async || {
            // In this order: what it wrote before it ended is still read.
            let ended = process.exited()?;
            events.poll()?;
            let found = events.seen.iter().skip(next).find(|event| condition(event)).cloned();
            next = next.max(events.seen.len());
            match (found, ended) {
                (Some(event), _) => Ok(Some(event)),
                (None, Some(status)) => bail!("the gateway ended with {status}"),
                (None, None) => Ok(None),
            }
        });
        let waited = waited.await;
        waited.with_context(|| format!("{}\n{}", self.events.tail(), self.process.tail()))
    }

    /// Waits until something holds of all events of this run.
    ///
    /// # Errors
    /// As [`wait_for_event`](Self::wait_for_event).
    pub async fn wait_until(
        &mut self,
        what: &str,
        deadline: Duration,
        condition: impl Fn(&[Value]) -> bool,
    ) -> Result<()> {
        let (process, events) = (&mut self.process, &mut self.events);
        let waited = wait::until(what, deadline, async || {
            let ended = process.exited()?;
            events.poll()?;
            match (condition(&events.seen), ended) {
                (true, _) => Ok(Some(())),
                (false, Some(status)) => bail!("the gateway ended with {status}"),
                (false, None) => Ok(None),
            }
        });
        let waited = waited.await;
        waited.with_context(|| format!("{}\n{}", self.events.tail(), self.process.tail()))
    }

    /// Asks it to end (SIGTERM), waits until it did and reads its last events.
    ///
    /// # Errors
    /// When it does not end within the deadline.
    pub async fn stop(&mut self) -> Result<ExitStatus> {
        let status = self.process.terminate(DEADLINE).await?;
        self.events.poll()?;
        Ok(status)
    }
}

/// The kind of channel a miner opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// The gateway makes the whole header.
    Standard,
    /// The miner rolls its own extranonce.
    Extended,
}

/// A running CPU miner; it ends with this handle.
#[derive(Debug)]
pub struct Miner {
    /// The process: its output, signals to it, its end.
    pub process: Process,
}

impl Miner {
    /// Starts `reservegrid miner` against a gateway.
    ///
    /// # Errors
    /// When the gateway serves no miners or the program does not start.
    pub fn start(gateway: &Gateway, channel: Channel, hashrate: u64, user: &str) -> Result<Self> {
        let (address, key) = (gateway.address()?, gateway.authority_key()?);
        let run = gateway.config.runs.fetch_add(1, Ordering::Relaxed);
        let mut command = command()?;
        command.args(["miner", "--connect", address, "--authority-key", key, "--user", user]);
        command.args(["--channel", if channel == Channel::Standard { "standard" } else { "extended" }]);
        command.args(["--hashrate", &hashrate.to_string()]);
        Ok(Self { process: Process::start(&format!("miner-{run}"), command, gateway.config.folder())? })
    }

    /// Waits until it printed a line for which something holds.
    ///
    /// # Errors
    /// When it does not within the deadline, or ends.
    pub async fn wait_for_line(
        &mut self,
        what: &str,
        deadline: Duration,
        line: impl Fn(&str) -> bool,
    ) -> Result<String> {
        let process = &mut self.process;
        let waited = wait::until(what, deadline, async || {
            let ended = process.exited()?;
            let found = process.stdout().lines().find(|text| line(text)).map(str::to_owned);
            match (found, ended) {
                (Some(line), _) => Ok(Some(line)),
                (None, Some(status)) => bail!("the miner ended with {status}"),
                (None, None) => Ok(None),
            }
        });
        let waited = waited.await;
        waited.with_context(|| self.process.tail())
    }
}

/// The binary, without the variables of whoever runs the tests.
///
/// # Errors
/// When there is none.
pub fn command() -> Result<Command> {
    let mut command = Command::new(binary()?);
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with(PREFIX)) {
            command.env_remove(name);
        }
    }
    Ok(command)
}

/// The same command, started by a shell that limits its address space, KiB.
fn limited(command: &Command, address_space: u64) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -v \"$0\" && exec \"$@\"", &address_space.to_string()]);
    shell.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_written_as_toml_with_its_policies_in_order() {
        let config = GatewayConfig::new("inline")
            .unwrap()
            .embedded("207fffff", 10)
            .policy("a", Path::new("/a.wasm"), &serde_json::json!({ "x": { "y": 1 } }))
            .unwrap()
            .policy("b", Path::new("/b.wasm"), &serde_json::json!({}))
            .unwrap();
        let text = toml::to_string(&config.table).unwrap();
        let read: Table = text.parse().unwrap();
        assert_eq!(read["policy"][0]["settings"]["x"]["y"].as_integer(), Some(1), "{text}");
        assert_eq!(read["policy"][1]["name"].as_str(), Some("b"), "{text}");
        assert_eq!(read["source"]["transactions"].as_integer(), Some(10), "{text}");
    }
}
