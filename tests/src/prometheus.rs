//! A real Prometheus that scrapes a gateway, with the rules of `examples/` made quick.

use crate::{gateway::DEADLINE, process::Process, wait};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Output},
};
use tempfile::TempDir;

/// A program of the package: in `RESERVEGRID_PROMETHEUS_DIR`.
///
/// # Errors
/// When it is not there.
pub fn program(name: &str) -> Result<PathBuf> {
    let folder =
        std::env::var_os("RESERVEGRID_PROMETHEUS_DIR").context("RESERVEGRID_PROMETHEUS_DIR is not set")?;
    let path = PathBuf::from(folder).join(name);
    ensure!(path.exists(), "{} is missing: run `make prometheus`", path.display());
    Ok(path)
}

/// The folder of the example.
pub fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/prometheus")
}

/// Runs promtool to its end.
///
/// # Errors
/// When it does not start.
pub fn promtool(arguments: &[&str], input: &str) -> Result<Output> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("input");
    std::fs::write(&file, input)?;
    let stdin = std::fs::File::open(&file)?;
    Ok(Command::new(program("promtool")?).args(arguments).current_dir(examples()).stdin(stdin).output()?)
}

/// A running Prometheus; it ends with this handle.
#[derive(Debug)]
pub struct Prometheus {
    process: Process,
    url: String,
    _folder: TempDir,
}

impl Prometheus {
    /// Starts it against a gateway's HTTP surface. The example's rules, but that they wait for nothing and
    /// everything happens many times a second.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start(api: &str) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("reservegrid-prometheus-").tempdir()?;
        let rules = std::fs::read_to_string(examples().join("alerts.yml"))?;
        let at_once: Vec<_> = rules.lines().filter(|line| !line.trim_start().starts_with("for:")).collect();
        ensure!(at_once.len() < rules.lines().count(), "the rules have their waiting times");
        std::fs::write(folder.path().join("alerts.yml"), at_once.join("\n"))?;
        let target = api.strip_prefix("http://").context("an address")?;
        let config = std::fs::read_to_string(examples().join("prometheus.yml"))?;
        let config = config.replace(": 5s", ": 200ms").replace("127.0.0.1:34256", target);
        ensure!(config.contains(target), "the example has the gateway's address");
        std::fs::write(folder.path().join("prometheus.yml"), config)?;
        // Free a moment ago; taken by somebody else it would not start, and say so.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let mut command = Command::new(program("prometheus")?);
        command.args(["--config.file=prometheus.yml", "--storage.tsdb.path=data", "--log.level=warn"]);
        command.arg(format!("--web.listen-address={address}")).current_dir(folder.path());
        let process = Process::start("prometheus", command, folder.path())?;
        let mut prometheus = Self { process, url: format!("http://{address}"), _folder: folder };
        let ready = format!("{}/-/ready", prometheus.url);
        let process = &mut prometheus.process;
        wait::until("Prometheus", DEADLINE, async || {
            process.check_running()?;
            Ok(reqwest::get(&ready).await.is_ok_and(|answer| answer.status().is_success()).then_some(()))
        })
        .await?;
        Ok(prometheus)
    }

    async fn ask(&self, path: &str) -> Result<Value> {
        Ok(reqwest::get(format!("{}{path}", self.url)).await?.json().await?)
    }

    /// The first value of a query.
    ///
    /// # Errors
    /// When Prometheus does not answer.
    pub async fn value(&self, query: &str) -> Result<Option<f64>> {
        let mut url = reqwest::Url::parse(&format!("{}/api/v1/query", self.url))?;
        url.query_pairs_mut().append_pair("query", query);
        let answer: Value = reqwest::get(url).await?.json().await?;
        Ok(answer["data"]["result"][0]["value"][1].as_str().and_then(|text| text.parse().ok()))
    }

    /// The names of the alerts that fire.
    ///
    /// # Errors
    /// When Prometheus does not answer.
    pub async fn firing(&self) -> Result<BTreeSet<String>> {
        let answer = self.ask("/api/v1/alerts").await?;
        let alerts = answer["data"]["alerts"].as_array().context("alerts")?.iter();
        let firing = alerts.filter(|alert| alert["state"] == "firing");
        Ok(firing.filter_map(|alert| alert["labels"]["alertname"].as_str().map(str::to_owned)).collect())
    }

    /// Waits until an alert fires, or does no more.
    ///
    /// # Errors
    /// When that does not happen, with what fires instead.
    pub async fn wait_for(&mut self, alert: &str, fires: bool) -> Result<()> {
        let mut last = BTreeSet::new();
        let waited = wait::until(alert, DEADLINE, async || {
            last = self.firing().await?;
            Ok((last.contains(alert) == fires).then_some(()))
        });
        let waited = waited.await;
        waited.with_context(|| format!("{alert} fires: {}; firing: {last:?}", !fires))
    }
}
