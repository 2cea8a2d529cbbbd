//! The other thing that changes while miners work: the mode, and what the gate says of itself.
//!
//! Operators hold a [`GateHandle`], the gateway's flow the [`GateSeat`]. A change is asked for and
//! answered: once the answer is there, the mode is in force. Observe and inline are exchanged like that;
//! shadow mode serves no miners, which is decided at the start.

use crate::{
    event::{schema::Trigger, unix_ms},
    gate::{Gate, Mode, Phase},
    job::Job,
    reason::Reason,
};
use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot, watch};

/// What the gate is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct GateView {
    /// The mode in force.
    pub mode: Mode,
    /// Since when, Unix time, milliseconds.
    pub mode_since_ms: u64,
    /// What miners may do.
    pub phase: Phase,
    /// Since when, Unix time, milliseconds.
    pub phase_since_ms: u64,
    /// The newest tip; none before the first template and while the source is silent.
    pub tip: Option<String>,
    /// Shares on the job are marked: work on the tip is not admitted, or the job was taken back.
    pub held: bool,
    /// What miners have; none before the first release and after they were disconnected.
    pub job: Option<JobView>,
}

/// A job that miners have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct JobView {
    /// Number of the job in this process.
    pub job: u64,
    /// Digest of its template.
    pub template: String,
    /// Height of the block it would become.
    pub height: u32,
    /// The tip it is on.
    pub previous_block_hash: String,
    /// Why inline mode would not have released it.
    pub would_reject: Option<String>,
}

impl GateView {
    /// Before anything is known.
    pub fn new(mode: Mode) -> Self {
        let now = unix_ms();
        Self {
            mode,
            mode_since_ms: now,
            phase: Phase::Switching,
            phase_since_ms: now,
            tip: None,
            held: false,
            job: None,
        }
    }
}

impl From<&Job> for JobView {
    fn from(job: &Job) -> Self {
        Self {
            job: job.serial,
            template: job.template.digest.to_string(),
            height: job.template.height,
            previous_block_hash: job.template.previous_block_hash.to_string(),
            would_reject: job.template.would_reject().map(ToString::to_string),
        }
    }
}

/// A change of mode that is asked for.
#[derive(Debug)]
pub struct ModeChange {
    /// The mode that is wanted.
    pub mode: Mode,
    /// What set it off.
    pub trigger: Trigger,
    /// Told the mode before, once the new one is in force.
    pub done: oneshot::Sender<Mode>,
}

/// The operators' end.
#[derive(Clone, Debug)]
pub struct GateHandle {
    changes: mpsc::Sender<ModeChange>,
    view: watch::Receiver<GateView>,
}

/// The flow's end.
#[derive(Debug)]
pub struct GateSeat {
    /// Changes that are asked for.
    pub changes: mpsc::Receiver<ModeChange>,
    view: watch::Sender<GateView>,
}

/// The gateway is ending; the mode counts no more.
#[derive(Clone, Copy, Debug)]
pub struct Ended;

/// What became of a change of mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ModeReport {
    /// `mode_changed` or `mode_unchanged`.
    pub reason_code: Reason,
    /// The mode before.
    pub from: Mode,
    /// The mode now.
    pub to: Mode,
}

impl ModeReport {
    /// From one mode to another, or to the same.
    pub fn new(from: Mode, to: Mode) -> Self {
        let reason_code = if from == to { Reason::ModeUnchanged } else { Reason::ModeChanged };
        Self { reason_code, from, to }
    }
}

/// The two ends, for a gate that begins in this mode.
pub fn gate_handle(mode: Mode) -> (GateHandle, GateSeat) {
    let (asks, changes) = mpsc::channel(1);
    let (view, viewed) = watch::channel(GateView::new(mode));
    (GateHandle { changes: asks, view: viewed }, GateSeat { changes, view })
}

impl GateHandle {
    /// What the gate is doing.
    pub fn view(&self) -> GateView {
        self.view.borrow().clone()
    }

    /// Changes the mode.
    ///
    /// # Errors
    /// When the gateway is ending.
    pub async fn change(&self, mode: Mode, trigger: Trigger) -> Result<ModeReport, Ended> {
        let (done, is_done) = oneshot::channel();
        self.changes.send(ModeChange { mode, trigger, done }).await.map_err(|_| Ended)?;
        let from = is_done.await.map_err(|_| Ended)?;
        Ok(ModeReport::new(from, mode))
    }

    /// [`change`](Self::change), on a thread that may wait.
    ///
    /// # Errors
    /// As [`change`](Self::change).
    pub fn change_blocking(&self, mode: Mode, trigger: Trigger) -> Result<ModeReport, Ended> {
        let (done, is_done) = oneshot::channel();
        self.changes.blocking_send(ModeChange { mode, trigger, done }).map_err(|_| Ended)?;
        let from = is_done.blocking_recv().map_err(|_| Ended)?;
        Ok(ModeReport::new(from, mode))
    }
}

impl GateSeat {
    /// Shows what the gate is doing now, with the job that miners have.
    pub fn show(&self, gate: &Gate, job: Option<&Job>, held: bool) {
        let (mode, phase) = (gate.mode(), gate.phase());
        let (tip, job) = (gate.tip().map(|tip| tip.to_string()), job.map(JobView::from));
        self.view.send_if_modified(|shown| {
            let since = |changed: bool, before: u64| if changed { unix_ms() } else { before };
            let view = GateView {
                mode,
                mode_since_ms: since(mode != shown.mode, shown.mode_since_ms),
                phase,
                phase_since_ms: since(phase != shown.phase, shown.phase_since_ms),
                tip,
                held,
                job,
            };
            let changed = view != *shown;
            *shown = view;
            changed
        });
    }
}
