//! The command line's side of the HTTP surface: `reservegrid policy swap | rollback | status`, `reservegrid
//! config reload`, `reservegrid mode`.
//!
//! Thin: one request, and its answer as lines for people, or as it came with `--json`. What the gateway
//! refuses is an error with all its faults.

use crate::words;
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::{fmt::Write, path::PathBuf, time::Duration};

/// A little more than the gateway takes to answer.
const TIMEOUT: Duration = Duration::from_secs(65);
/// Largest answer that is read, bytes.
const MAX_ANSWER: usize = 16 << 20;

/// What can be asked of a running gateway.
#[derive(Debug, Subcommand)]
pub enum RemoteCommand {
    /// Let a running gateway read its configuration again and swap to its policies
    Swap {
        /// Only say what would be judged differently
        #[arg(long)]
        dry_run: bool,
        /// Which gateway.
        #[command(flatten)]
        remote: Remote,
    },
    /// Let a running gateway go back to the policy set before
    Rollback {
        /// Which gateway.
        #[command(flatten)]
        remote: Remote,
    },
    /// Show the policies of a running gateway
    Status {
        /// Which gateway.
        #[command(flatten)]
        remote: Remote,
    },
}

/// Lets a running gateway read its configuration again.
#[derive(Debug, Args)]
pub struct ReloadCommand {
    /// Only say what would be different
    #[arg(long)]
    dry_run: bool,
    /// Which gateway.
    #[command(flatten)]
    remote: Remote,
}

/// Shows or changes the mode of a running gateway.
#[derive(Debug, Args)]
pub struct ModeCommand {
    /// The mode from now on; without it, what the gate is doing is shown
    #[arg(value_name = "MODE", value_parser = ["observe", "inline"])]
    mode: Option<String>,
    /// Which gateway.
    #[command(flatten)]
    remote: Remote,
}

/// Which gateway, and how it is asked.
#[derive(Debug, Args)]
pub struct Remote {
    /// Address of the gateway's HTTP surface, for example http://127.0.0.1:8331
    #[arg(long, value_name = "URL")]
    api: reqwest::Url,
    /// File with the token, where the gateway has one
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The answer as JSON
    #[arg(long)]
    json: bool,
}

/// Asks, and gives what is to be printed.
///
/// # Errors
/// When the gateway cannot be reached, or refuses; with everything it says about it.
pub async fn run(command: RemoteCommand) -> Result<String> {
    let (remote, path, lines): (_, _, fn(&Value) -> String) = match &command {
        RemoteCommand::Swap { remote, dry_run: false } => (remote, "v1/policies/swap", swapped),
        RemoteCommand::Swap { remote, dry_run: true } => (remote, "v1/policies/swap?dry_run=true", swapped),
        RemoteCommand::Rollback { remote } => (remote, "v1/policies/rollback", rolled_back),
        RemoteCommand::Status { remote } => (remote, "v1/policies", status),
    };
    let question =
        if matches!(command, RemoteCommand::Status { .. }) { Question::Look } else { Question::Change(None) };
    printed(remote, &ask(remote, path, question).await?, lines)
}

/// Asks for a reload, and gives what is to be printed.
///
/// # Errors
/// As [`run`].
pub async fn run_reload(ReloadCommand { dry_run, remote }: ReloadCommand) -> Result<String> {
    let path = if dry_run { "v1/reload?dry_run=true" } else { "v1/reload" };
    printed(&remote, &ask(&remote, path, Question::Change(None)).await?, swapped)
}

/// Asks for the mode, or for another one, and gives what is to be printed.
///
/// # Errors
/// As [`run`].
pub async fn run_mode(ModeCommand { mode, remote }: ModeCommand) -> Result<String> {
    match mode {
        None => printed(&remote, &ask(&remote, "v1/gate", Question::Look).await?, gate),
        Some(mode) => {
            let question = Question::Change(Some(json!({ "mode": mode })));
            printed(&remote, &ask(&remote, "v1/mode", question).await?, mode_set)
        }
    }
}

fn printed(remote: &Remote, answer: &Value, lines: fn(&Value) -> String) -> Result<String> {
    Ok(if remote.json { serde_json::to_string_pretty(answer)? } else { lines(answer) })
}

enum Question {
    Look,
    Change(Option<Value>),
}

async fn ask(remote: &Remote, path: &str, question: Question) -> Result<Value> {
    let url = remote.api.join(path).context("--api is not an address that can be asked")?;
    let client = reqwest::Client::builder().timeout(TIMEOUT).no_proxy().build()?;
    let mut request = match question {
        Question::Look => client.get(url),
        Question::Change(None) => client.post(url),
        Question::Change(Some(body)) => client.post(url).body(body.to_string()),
    };
    if let Some(file) = &remote.token_file {
        let token =
            std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        request = request.bearer_auth(token.trim());
    }
    let cannot =
        |error: reqwest::Error| anyhow::anyhow!("{} does not answer: {}", remote.api, words::chain(&error));
    let mut response = request.send().await.map_err(cannot)?;
    let status = response.status();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(cannot)? {
        anyhow::ensure!(body.len() + chunk.len() <= MAX_ANSWER, "the answer of {} has no end", remote.api);
        body.extend_from_slice(&chunk);
    }
    let answer = serde_json::from_slice::<Value>(&body).with_context(|| {
        format!("{} is no ReserveGrid ({status}): {}", remote.api, words::printable(&body, 200))
    })?;
    if !status.is_success() {
        bail!(refused(&answer));
    }
    Ok(answer)
}

fn refused(answer: &Value) -> String {
    let mut lines = format!("{}: {}", text(answer, "reason_code"), text(answer, "detail"));
    for fault in list(answer, "faults") {
        let policy = fault["policy"].as_str().map_or_else(String::new, |name| format!("policy \"{name}\": "));
        let (place, reason, detail) = (text(fault, "place"), text(fault, "reason"), text(fault, "detail"));
        let _ = write!(lines, "\n{place}: {policy}{reason}: {detail}");
    }
    lines
}

fn swapped(answer: &Value) -> String {
    let (difference, counts) = (&answer["difference"], &answer["difference"]["counts"]);
    let dry = if answer["dry_run"] == true { " (dry run, nothing was changed)" } else { "" };
    let mut lines = format!("{}{dry}\n", text(answer, "reason_code"));
    let _ = writeln!(lines, "from {}\nto   {}", text(difference, "running"), text(difference, "proposed"));
    let _ = write!(
        lines,
        "{} templates judged by both: {} the same, {} newly rejected, {} newly accepted, {} for another \
         reason, {} without an answer",
        counts["replayed"],
        counts["same"],
        counts["newly_rejected"],
        counts["newly_accepted"],
        counts["other_reason"],
        counts["infrastructure_faults"]
    );
    for template in list(difference, "templates").iter().filter(|template| template["outcome"] != "same") {
        let said = |side: &Value| match side["reason_code"].as_str() {
            Some(code) => format!("{code} by {}", side["decided_by"].as_str().unwrap_or("the gateway")),
            None => "accepted".into(),
        };
        let _ = write!(
            lines,
            "\n  height {} {}: {} -> {} (fuel {} -> {}, {} -> {} us)",
            template["height"],
            text(template, "template").get(..12).unwrap_or_default(),
            said(&template["running"]),
            said(&template["proposed"]),
            template["running"]["fuel"],
            template["proposed"]["fuel"],
            template["running"]["duration_us"],
            template["proposed"]["duration_us"],
        );
    }
    if answer["mode"]["from"] != answer["mode"]["to"] {
        let _ = write!(lines, "\nmode {} -> {}", text(&answer["mode"], "from"), text(&answer["mode"], "to"));
    }
    let takes_effect = if answer["dry_run"] == true { "would take effect" } else { "has taken effect" };
    for (keys, what) in
        [("reloaded", takes_effect), ("restart_needed", "changed too, takes effect at the next start")]
    {
        for key in list(answer, keys) {
            let _ = write!(lines, "\n{}: {what}", key.as_str().unwrap_or("?"));
        }
    }
    lines
}

fn rolled_back(answer: &Value) -> String {
    let (from, to) = (text(answer, "from"), text(answer, "to"));
    format!(
        "{}\nfrom {from}\nto   {to}\nthe configuration file still has the other policies; it counts again at \
         the next swap or start",
        text(answer, "reason_code")
    )
}

fn mode_set(answer: &Value) -> String {
    format!(
        "{}: {} -> {}\nthe configuration file keeps its mode; it counts again when the file is read again, and \
         at the next start",
        text(answer, "reason_code"),
        text(answer, "from"),
        text(answer, "to")
    )
}

fn gate(answer: &Value) -> String {
    let tip = answer["tip"].as_str().unwrap_or("unknown");
    let mut lines = format!("mode  {}\nphase {}\ntip   {tip}", text(answer, "mode"), text(answer, "phase"));
    let job = &answer["job"];
    if job.is_null() {
        return lines + "\njob   none";
    }
    let (number, height, template) = (&job["job"], &job["height"], text(job, "template"));
    let _ = write!(lines, "\njob   {number} at height {height}, template {template}");
    if let Some(code) = job["would_reject"].as_str() {
        let _ = write!(lines, "\n      inline mode would not have released it: {code}");
    }
    if answer["held"] == true {
        lines += "\n      held: shares on it are marked";
    }
    lines
}

fn status(answer: &Value) -> String {
    let previous = answer["previous_set"].as_str().unwrap_or("none");
    let mut lines = format!("running  {}\nprevious {previous}", text(answer, "policy_set"));
    for policy in list(answer, "policies") {
        let _ = write!(
            lines,
            "\n{} ({}): {} {}, sha256 {}, fuel {}\n  {}\n  settings {}",
            text(policy, "name"),
            text(policy, "enforcement"),
            text(policy, "policy"),
            text(policy, "version"),
            text(policy, "module_digest"),
            policy["fuel"],
            text(policy, "module"),
            policy["settings"],
        );
    }
    lines
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or("?")
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}
