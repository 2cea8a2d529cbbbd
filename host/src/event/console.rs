//! Events as lines for people: time, room, what happened, in words; colour where a terminal shows it.

use super::{
    Stamped,
    schema::{Enforced, Event, PolicyMonitored, PolicyVerdict},
};
use crate::reason::{Reason, Severity};
use anstream::{AutoStream, ColorChoice};
use std::io::{self, Write};

const DIM: &str = "2";
const RED: &str = "31";
const GREEN: &str = "32";
const YELLOW: &str = "33";
const CYAN: &str = "36";

/// Writes lines to standard output.
pub struct Console {
    colour: bool,
    failed: bool,
}

impl Console {
    /// Standard output, coloured when it is a terminal and `NO_COLOR` is not set.
    pub fn stdout() -> Self {
        Self { colour: AutoStream::choice(&io::stdout()) != ColorChoice::Never, failed: false }
    }

    /// Prints one event. A closed standard output ends the console, not the gateway.
    pub fn print(&mut self, record: &Stamped) {
        let line = Line::of(&record.event);
        let (time, room) = (clock(record.time_ms), line.room);
        let text = if self.colour {
            format!("\x1b[{DIM}m{time}\x1b[0m \x1b[{}m{room:<9}\x1b[0m {}\n", line.colour, line.text)
        } else {
            format!("{time} {room:<9} {}\n", line.text)
        };
        if !self.failed {
            self.failed = io::stdout().write_all(text.as_bytes()).is_err();
        }
    }
}

struct Line {
    room: &'static str,
    colour: &'static str,
    text: String,
}

impl Line {
    fn of(event: &Event) -> Self {
        let line = |room, colour, text| Self { room, colour, text };
        match event {
            Event::GatewayStarted(e) => {
                let policies = if e.policies.is_empty() { "none".into() } else { e.policies.join(", ") };
                let mut text = format!("ReserveGrid {}, mode {}, policies: {policies}", e.version, e.mode);
                text += &format!("\n{:18} templates from {}", "", e.source);
                if let (Some(listen), Some(key)) = (&e.listen, &e.authority_key) {
                    text += &format!("\n{:18} miners: stratum2+tcp://{listen}/{key}", "");
                }
                if let Some(api) = &e.api {
                    text += &format!("\n{:18} dashboard: http://{api}/", "");
                }
                line("gateway", CYAN, text)
            }
            Event::GatewayStopped { .. } => line("gateway", CYAN, "stopped".into()),
            Event::SourceUp { source, address } => {
                line("source", GREEN, format!("{source}: {address} answers"))
            }
            Event::SourceDown(e) => {
                let text =
                    format!("{}: {}: {}; next try in {} ms", e.source, e.reason, e.detail, e.retry_in_ms);
                line("source", colour(e.reason), text)
            }
            Event::SourceStale { source, reason } => {
                line("source", RED, format!("{source}: {reason}: {}", reason.meaning()))
            }
            Event::SourceLeads(e) => {
                let of = |name: &Option<String>| name.clone().unwrap_or_else(|| "none".into());
                let text =
                    format!("{}: templates from {}, before from {}", e.reason, of(&e.source), of(&e.from));
                line("source", colour(e.reason), text)
            }
            Event::SourceTips(e) => {
                let tips: Vec<_> = e
                    .tips
                    .iter()
                    .map(|t| format!("{} at {} {}", t.source, t.height, short(&t.tip)))
                    .collect();
                line("source", colour(e.reason), format!("{}: {}", e.reason, tips.join(", ")))
            }
            Event::ProposalAnswered(e) => {
                let text = format!("{} by {} in {} ms {}", e.reason, e.source, e.duration_ms, e.detail);
                line("template", colour(e.reason), text)
            }
            Event::TemplateJudged(e) => {
                let average = e.total_fees.checked_div(e.transactions as u64).unwrap_or(0);
                let facts = format!(
                    "height {}, {} tx, {} sat fees (avg {average}), {:.2} MWU, judged in {:.1} ms",
                    e.height,
                    e.transactions,
                    e.total_fees,
                    e.total_weight as f64 / 1e6,
                    e.duration_us as f64 / 1e3,
                );
                let why = match (&e.verdict.reason_code, &e.verdict.reason_detail) {
                    (Some(code), Some(detail)) => format!("{code}: {detail}"),
                    _ => "accepted".into(),
                };
                let (colour, word) = match e.enforced {
                    Enforced::Admitted => (GREEN, "admitted"),
                    Enforced::Ahead => (GREEN, "ahead"),
                    Enforced::WouldReject => (YELLOW, "used, would be rejected"),
                    Enforced::Refused => (RED, "REJECTED"),
                    Enforced::Logged if e.verdict.accepted => (GREEN, "accepted (shadow)"),
                    Enforced::Logged => (RED, "rejected (shadow)"),
                    Enforced::InUse => (GREEN, "in use, accepted again"),
                    Enforced::AskedAgain => (YELLOW, "no answer, asked again"),
                    Enforced::Withdrawn => (RED, "WITHDRAWN"),
                    Enforced::Superseded => (DIM, "superseded"),
                };
                let why = if e.verdict.accepted { String::new() } else { format!("\n{:28} {why}", "") };
                line("template", colour, format!("{word:<9} {facts}{why}"))
            }
            Event::PolicyMonitored(e) => Self::monitored(e),
            Event::PolicySetSwapped(e) => {
                let counts = &e.difference;
                let text = format!(
                    "{} by {}: {}; of {} templates {} newly rejected, {} newly accepted, {} for another reason, \
                     {} without an answer; took {} ms",
                    e.reason,
                    e.trigger.name(),
                    e.policies.join(", "),
                    counts.replayed,
                    counts.newly_rejected,
                    counts.newly_accepted,
                    counts.other_reason,
                    counts.infrastructure_faults,
                    e.duration_ms,
                );
                line("policy", CYAN, text)
            }
            Event::PolicySetUnchanged { reason, trigger, .. } => {
                line("policy", DIM, format!("{reason} by {}: {}", trigger.name(), reason.meaning()))
            }
            Event::PolicySetRolledBack(e) => {
                let text = format!("{} by {}: {}", e.reason, e.trigger.name(), e.policies.join(", "));
                line("policy", CYAN, text)
            }
            Event::PolicySwapRefused(e) => {
                let mut text = format!("{} by {}: {}", e.reason, e.trigger.name(), e.detail);
                for fault in &e.faults {
                    text += &format!("\n{:18} {}: {}: {}", "", fault.place, fault.reason, fault.detail);
                }
                line("policy", colour(e.reason), text)
            }
            Event::ConfigReloaded { reason, trigger, keys } => line(
                "config",
                colour(*reason),
                format!("{reason} by {}: {}", trigger.name(), keys.join(", ")),
            ),
            Event::ConfigRestartNeeded { reason, keys } => {
                line("config", colour(*reason), format!("{reason}: {}", keys.join(", ")))
            }
            Event::TemplateSuperseded { template, .. } => {
                line("template", DIM, format!("superseded by a newer one: {}", short(template)))
            }
            Event::WorkReleased(e) => {
                let tip = match e.reason {
                    Reason::TemplateAdmitted => String::new(),
                    Reason::PrevhashActivated => ", judged ahead".to_owned(),
                    _ => format!(", new tip {} ms ago", e.since_tip_ms),
                };
                let what = if e.coinbase_only { ", without transactions" } else { "" };
                let text =
                    format!("job {} at height {} to {} miners{tip}{what}", e.job, e.height, e.connections);
                line("job", CYAN, text)
            }
            Event::WorkAhead(e) => {
                let text = format!("job {} at height {} in advance, for the tip after this", e.job, e.height);
                line("job", DIM, text)
            }
            Event::CoinbaseOnlyWanted(e) => {
                line("gate", YELLOW, format!("{}: {}", e.reason, e.reason.meaning()))
            }
            Event::TipChanged(e) => {
                let template = if e.template.is_some() { "" } else { ", without a usable template" };
                line("gate", DIM, format!("new tip {}{template}", short(&e.tip)))
            }
            Event::TipServed(e) => {
                let text = format!(
                    "job {} reached the last of {} miners {:.1} ms after the tip",
                    e.job,
                    e.connections,
                    e.since_tip_us as f64 / 1e3
                );
                line("gate", DIM, text)
            }
            Event::GateHeld(e) => line("gate", YELLOW, format!("{}: {}", e.reason, e.reason.meaning())),
            Event::GateResumed(e) => line("gate", GREEN, format!("{}: {}", e.reason, e.reason.meaning())),
            Event::GateExpired(e) => {
                let text = format!("{}: {} ({} connections)", e.reason, e.reason.meaning(), e.connections);
                line("gate", RED, text)
            }
            Event::ModeChanged(e) => {
                line("gate", CYAN, format!("mode {} instead of {}, by {}", e.to, e.from, e.trigger.name()))
            }
            Event::WorkFailed { reason, detail } => line("job", RED, format!("{reason}: {detail}")),
            Event::ConnectionClosed(e) => {
                let detail = if e.detail.is_empty() { e.reason.meaning() } else { &e.detail };
                let text = format!("#{} {} left: {}: {detail}", e.connection, e.peer, e.reason);
                line("miner", colour(e.reason), text)
            }
            Event::ConnectionsRefused { reason, count } => {
                line("miner", colour(*reason), format!("{count} more were not let in: {reason}"))
            }
            Event::ChannelOpened(e) => {
                let text = format!(
                    "{} opened {} channel {} on #{}, difficulty {:.6}",
                    e.user_identity, e.kind, e.channel, e.connection, e.difficulty
                );
                line("miner", CYAN, text)
            }
            Event::TargetChanged(e) => {
                let text = format!(
                    "{} on #{} goes to difficulty {:.6}: {:.3e} H/s, {} shares in {:.0} s",
                    e.user_identity, e.connection, e.difficulty, e.hashrate, e.shares, e.window_s
                );
                line("miner", DIM, text)
            }
            Event::ChannelRefused { connection, user_identity, reason, detail } => {
                let text = format!("{user_identity} on #{connection} got no channel: {reason}: {detail}");
                line("miner", YELLOW, text)
            }
            Event::ShareAccepted(e) => {
                let held = if e.held { ", held" } else { "" };
                let text =
                    format!("accepted  {} by {}, job {}{held}", short(&e.share_id), e.user_identity, e.job);
                line("share", GREEN, text)
            }
            Event::ShareRejected(e) => {
                line("share", YELLOW, format!("rejected  by {}: {}", e.user_identity, e.reason))
            }
            Event::ShareForwardResult(e) if e.reason == Reason::ForwardAccepted => {
                line("pool", GREEN, format!("took      {}", short(&e.share_id)))
            }
            Event::ShareForwardResult(e) => {
                line("pool", RED, format!("refused   {}: {}", short(&e.share_id), e.detail))
            }
            Event::ForwardStatus(e) => {
                line("pool", colour(e.reason), format!("{}: {} ({} shares)", e.reason, e.detail, e.shares))
            }
            Event::LedgerFailed { reason, detail } => line("ledger", RED, format!("{reason}: {detail}")),
            Event::LedgerStatus { reason, detail } => {
                line("ledger", colour(*reason), format!("{reason}: {detail}"))
            }
            Event::BlockFound(e) if e.reason == Reason::BlockSubmitted => {
                let coins = e.coinbase_value as f64 / 1e8;
                let text = format!(
                    "FOUND     height {}, {} by {}, pays {coins:.8} BTC",
                    e.height, e.hash, e.user_identity
                );
                line("block", GREEN, text)
            }
            Event::BlockFound(e) => {
                line("block", RED, format!("LOST      height {}: {}: {}", e.height, e.reason, e.detail))
            }
            Event::BlockAnswered(e) => {
                let text = format!("{} by {} for {} {}", e.reason, e.source, short(&e.hash), e.detail);
                line("block", colour(e.reason), text)
            }
            Event::RecordingFailed { reason, detail, lost } => {
                line("record", colour(*reason), format!("{reason}: {detail} ({lost} not recorded)"))
            }
            Event::EventsDropped { count } => {
                line("events", YELLOW, format!("{count} events were dropped: the sinks are too slow"))
            }
        }
    }
}

impl Line {
    fn monitored(event: &PolicyMonitored) -> Self {
        if let Some(reason) = event.reason {
            let text = format!("{reason}: {}", reason.meaning());
            return Self { room: "policy", colour: colour(reason), text };
        }
        let said = |policy: &PolicyVerdict| match (&policy.verdict.reason_code, &policy.verdict.reason_detail)
        {
            (Some(code), Some(detail)) => format!("{} would reject: {code}: {detail}", policy.name),
            (Some(code), None) => format!("{} would reject: {code}", policy.name),
            _ => format!("{} would accept", policy.name),
        };
        let text = event.policies.iter().map(said).collect::<Vec<_>>().join("; ");
        let rejects = event.policies.iter().any(|policy| !policy.verdict.accepted);
        Self { room: "policy", colour: if rejects { YELLOW } else { DIM }, text: format!("monitored {text}") }
    }
}

fn colour(reason: Reason) -> &'static str {
    match reason.severity() {
        Severity::Info => DIM,
        Severity::Warning => YELLOW,
        Severity::Error => RED,
    }
}

/// The telling end of a hash in display order: its beginning is zeros.
fn short(hash: &str) -> &str {
    hash.get(hash.len().saturating_sub(12)..).unwrap_or(hash)
}

/// `hh:mm:ss` of a Unix time in milliseconds, UTC.
fn clock(ms: u64) -> String {
    let seconds = ms / 1000 % 86_400;
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}
