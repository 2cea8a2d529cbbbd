//! What operators look at: the state of the whole gateway, its last decisions, and how it went lately.
//!
//! Everything here is a copy. The rooms decide and tell (events, counters, the gate's view); this room
//! remembers the last of it, bounded, and puts it together when somebody asks. Nothing waits for it.
//!
//! - [`board`]: the last templates and steps of the gate, heard from events
//! - `ready`: whether the gateway does its work, and if not, why
//! - [`sources`]: the template sources, their health and who leads
//! - here: what is shown of the whole, the samples over time, and the metrics

pub mod board;
mod ready;
pub mod sources;

pub use ready::{Readiness, Trouble};

use crate::{
    event::{ring::Ring, unix_ms},
    gate::{Mode, Phase},
    ledger::Backlog,
    metrics::{HeardMetrics, Metrics, Rate},
    miner::view::{HASHES_PER_DIFFICULTY, MinersView},
    swap::{GateHandle, GateView},
};
use board::Board;
use schemars::JsonSchema;
use serde::Serialize;
use sources::{SourceState, SourceView, SourcesBoard, SourcesView};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// Between two samples.
const SAMPLE_EVERY: Duration = Duration::from_secs(5);
/// Samples that are kept: an hour.
const MAX_SAMPLES: usize = 720;

/// Everything that can be looked at. Share it behind an `Arc`.
#[derive(Debug)]
pub struct View {
    /// The last events.
    pub ring: Arc<Ring>,
    /// The last templates and steps of the gate.
    pub board: Arc<Board>,
    /// Who is connected.
    pub miners: Arc<MinersView>,
    /// The template sources.
    pub sources: Arc<SourcesBoard>,
    heard: HeardMetrics,
    gate: OnceLock<GateHandle>,
    backlog: OnceLock<Backlog>,
    started_ms: u64,
    samples: Mutex<Samples>,
    down: OnceLock<watch::Receiver<bool>>,
}

#[derive(Debug, Default)]
struct Samples {
    list: VecDeque<Sample>,
    rate: Rate,
}

/// How things were at one moment.
#[derive(Clone, Copy, Debug, Default, Serialize, JsonSchema)]
pub struct Sample {
    /// Unix time, milliseconds.
    pub time_ms: u64,
    /// Open connections.
    pub connections: u64,
    /// Open channels.
    pub channels: u64,
    /// What the accepted shares of the last five minutes show, hashes a second.
    pub hashrate: f64,
    /// Shares accepted since the start.
    pub shares_accepted: u64,
    /// Shares refused since the start.
    pub shares_rejected: u64,
    /// Shares that the pool backend took since the start.
    pub shares_forwarded: u64,
    /// Shares that wait for the pool backend.
    pub backlog: u64,
}

/// The gateway in one look.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Overview {
    /// Version of the gateway.
    pub version: &'static str,
    /// Since when it runs, Unix time, milliseconds.
    pub started_ms: u64,
    /// What the gate is doing.
    pub gate: GateView,
    /// Whether it does its work.
    pub readiness: Readiness,
    /// The template sources.
    pub sources: SourcesView,
    /// Miners and shares now.
    pub now: Sample,
    /// Age of the newest judged template, milliseconds; none before the first.
    pub template_age_ms: Option<u64>,
    /// Name of this run in the event stream.
    pub run: String,
    /// Number of the newest event.
    pub newest_event: u64,
}

/// The ledger and the forwarding of shares.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
pub struct LedgerView {
    /// Shares are recorded: the gateway serves miners.
    pub active: bool,
    /// Shares that wait for the pool backend.
    pub backlog: u64,
    /// How many may; beyond that shares are refused.
    pub backlog_limit: u64,
    /// Shares that the backend took.
    pub forwarded: u64,
    /// Whether the backend takes shares, as far as it is known.
    pub backend_up: bool,
}

impl View {
    /// For a gateway that starts now; the room learns of the others by [`with_gate`](Self::with_gate) and
    /// [`with_ledger`](Self::with_ledger).
    pub fn new(heard: HeardMetrics, board: Arc<Board>, miners: Arc<MinersView>) -> Arc<Self> {
        let started_ms = unix_ms();
        Arc::new(Self {
            ring: Ring::new(format!("{started_ms:x}")),
            board,
            miners,
            sources: Arc::default(),
            heard,
            gate: OnceLock::new(),
            backlog: OnceLock::new(),
            started_ms,
            samples: Mutex::default(),
            down: OnceLock::new(),
        })
    }

    /// From now on the gate can be seen.
    pub fn with_gate(&self, gate: GateHandle, down: watch::Receiver<bool>) {
        let _ = self.gate.set(gate);
        let _ = self.down.set(down);
    }

    /// From now on the ledger can be seen.
    pub fn with_ledger(&self, backlog: Backlog) {
        let _ = self.backlog.set(backlog);
    }

    /// What the gate is doing.
    pub fn gate(&self) -> GateView {
        self.gate.get().map_or_else(|| GateView::new(Mode::Shadow), GateHandle::view)
    }

    /// Miners and shares now.
    pub fn sample(&self) -> Sample {
        let meters = &self.miners.meters;
        let hashrate = {
            let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
            samples.rate.sample(Instant::now(), meters.work.get()) * HASHES_PER_DIFFICULTY
        };
        Sample {
            time_ms: unix_ms(),
            connections: self.miners.connections() as u64,
            channels: self.miners.channels(),
            hashrate,
            shares_accepted: meters.shares_accepted.get(),
            shares_rejected: meters.shares_rejected.sum(),
            shares_forwarded: self.heard.forwarded(),
            backlog: self.ledger().backlog,
        }
    }

    /// The ledger and the forwarding.
    pub fn ledger(&self) -> LedgerView {
        let backlog = self.backlog.get();
        LedgerView {
            active: backlog.is_some(),
            backlog: backlog.map_or(0, |backlog| backlog.waiting()),
            backlog_limit: backlog.map_or(0, |backlog| backlog.limit()),
            forwarded: self.heard.forwarded(),
            backend_up: self.heard.backend_is_up(),
        }
    }

    /// The gateway in one look.
    pub fn overview(&self) -> Overview {
        let last = u64::try_from(self.heard.last_template_ms()).ok().filter(|time| *time > 0);
        Overview {
            version: env!("CARGO_PKG_VERSION"),
            started_ms: self.started_ms,
            gate: self.gate(),
            readiness: self.readiness(),
            sources: self.sources.look(),
            now: self.sample(),
            template_age_ms: last.map(|time| unix_ms().saturating_sub(time)),
            run: self.ring.run().to_owned(),
            newest_event: self.ring.newest(),
        }
    }

    /// The samples of the last hour, oldest first.
    pub fn history(&self) -> Vec<Sample> {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner).list.iter().copied().collect()
    }

    /// Takes a sample now and then, until shutdown.
    pub async fn follow(self: Arc<Self>, mut down: watch::Receiver<bool>) {
        let sampling = async {
            let mut clock = tokio::time::interval(SAMPLE_EVERY);
            loop {
                clock.tick().await;
                let sample = self.sample();
                let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
                samples.list.push_back(sample);
                while samples.list.len() > MAX_SAMPLES {
                    samples.list.pop_front();
                }
            }
        };
        tokio::select! {
            _ = down.wait_for(|down| *down) => {}
            () = sampling => {}
        }
    }

    /// All metrics, with the gauges that are looked at here.
    pub fn metrics(self: &Arc<Self>) -> Metrics {
        let mut metrics = Metrics::new(&self.miners.meters, &self.heard);
        type Read = fn(&View) -> f64;
        let gauges: [(&'static str, &'static str, Read); 11] = [
            ("connections", "Open connections of miners.", |v| v.miners.connections() as f64),
            ("channels", "Open channels.", |v| v.miners.channels() as f64),
            ("hashrate_hashes_per_second", "What the accepted shares of the last five minutes show.", |v| {
                v.sample().hashrate
            }),
            ("ledger_backlog_shares", "Shares that wait for the pool backend.", |v| {
                v.ledger().backlog as f64
            }),
            ("ledger_backlog_limit_shares", "Shares that may wait; beyond that they are refused.", |v| {
                v.ledger().backlog_limit as f64
            }),
            (
                "template_age_seconds",
                "Age of the newest judged template; since the start before the first.",
                |v| {
                    let last = u64::try_from(v.heard.last_template_ms()).ok().filter(|time| *time > 0);
                    unix_ms().saturating_sub(last.unwrap_or(v.started_ms)) as f64 / 1e3
                },
            ),
            ("ready", "Whether the gateway does its work.", |v| f64::from(u8::from(v.readiness().ready))),
            ("start_time_seconds", "When the gateway started, Unix time.", |v| v.started_ms as f64 / 1e3),
            ("source_up", "Whether a template source answers with usable templates.", |v| {
                f64::from(u8::from(v.sources.is_led()))
            }),
            ("source_tips_agree", "Whether the template sources that answer agree on the tip.", |v| {
                f64::from(u8::from(v.sources.look().tips_agree))
            }),
            ("held", "Whether miners are held on their last job.", |v| f64::from(u8::from(v.gate().held))),
        ];
        for (name, help, read) in gauges {
            let view = self.clone();
            metrics.gauge(name, help, move || read(&view));
        }
        let view = self.clone();
        metrics.gauges(
            "gate_phase",
            "What the gate is doing: 1 for the phase it is in.",
            "phase",
            move || {
                let now = view.gate().phase;
                Phase::ALL.map(|phase| (phase.name().to_owned(), f64::from(u8::from(phase == now)))).into()
            },
        );
        let view = self.clone();
        metrics.gauges("mode", "The mode in force: 1 for the one.", "mode", move || {
            let now = view.gate().mode;
            Mode::ALL.map(|mode| (mode.name().to_owned(), f64::from(u8::from(mode == now)))).into()
        });
        type OfSource = fn(&SourceView) -> Option<f64>;
        let of_sources: [(&'static str, &'static str, OfSource); 4] = [
            ("source_healthy", "Whether this source could give the templates.", |s| {
                Some(f64::from(u8::from(s.state == SourceState::Up)))
            }),
            ("source_leads", "Whether the templates come from this source.", |s| {
                Some(f64::from(u8::from(s.leads)))
            }),
            ("source_height", "The height of this source's tip.", |s| s.height.map(f64::from)),
            ("source_template_time_seconds", "When this source's newest template came, Unix time.", |s| {
                s.template_ms.map(|ms| ms as f64 / 1e3)
            }),
        ];
        for (name, help, read) in of_sources {
            let view = self.clone();
            metrics.gauges(name, help, "source", move || {
                let sources = view.sources.look().sources;
                sources.into_iter().filter_map(|source| Some((source.name.clone(), read(&source)?))).collect()
            });
        }
        metrics.gauges("build_info", "The version that runs.", "version", || {
            vec![(env!("CARGO_PKG_VERSION").to_owned(), 1.0)]
        });
        metrics
    }

    fn is_going_down(&self) -> bool {
        self.down.get().is_some_and(|down| *down.borrow())
    }
}

impl View {
    /// Whether the gateway does its work, and what is wrong.
    pub fn readiness(&self) -> Readiness {
        let (gate, ledger, sources) = (self.gate(), self.ledger(), self.sources.look());
        ready::judge(&ready::Facts {
            mode: gate.mode,
            phase: gate.phase,
            has_job: gate.job.is_some(),
            judged: self.heard.last_template_ms() > 0,
            source_up: sources.sources.iter().any(|source| source.leads),
            sources_well: sources
                .sources
                .iter()
                .all(|source| matches!(source.state, SourceState::Up | SourceState::Starting)),
            tips_agree: sources.tips_agree,
            ledger_full: ledger.active && self.backlog.get().is_some_and(Backlog::is_refusing),
            backend_up: ledger.backend_up,
            going_down: self.is_going_down(),
        })
    }
}
