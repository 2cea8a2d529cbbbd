//! The gateway as a whole: makes the rooms from the configuration, connects them, and ends them.
//!
//! ```text
//! source ─► flow (judge, gate, job) ─► miner ─► ledger ─► pool
//!    ▲                                   │
//!    └───────────── blocks ◄─────────────┘
//! ```
//!
//! - `sources`: asks the template sources for news; which of them gives the templates
//! - `flow`: news to verdicts to work; `asked`: what the policies were asked about; `verdicts`: what they said;
//!   `actions`: what the gate wants done; `coinbase_only`: templates without transactions
//! - `settings`: what the rooms are told of the configuration; `reload`: how they are told again
//! - `blocks`: solved blocks back to the sources; `proposal`: assembled blocks checked by the node
//!
//! Beside it: the HTTP surface (`api`) and the changes of the policy set (`swap`).

mod actions;
mod asked;
mod blocks;
mod coinbase_only;
mod flow;
mod proposal;
mod reload;
mod settings;
mod sources;
mod verdicts;

use crate::{
    api::Api,
    config::{Config, Console, ProposalCheck, Serving, Source},
    event::{self, Event, EventWriter, Events, Sinks, schema},
    gate::Gate,
    ledger::{
        self, LedgerConfig, LedgerTasks, chain::Keys, fault::Fault, forward::ForwardConfig, log::LogConfig,
        secret::SigningKeys,
    },
    metrics::HeardMetrics,
    miner::{Server, ServerParts, Tunables, Work},
    noise::{AuthoritySecretKey, KeyTextError},
    policy::{EngineLimits, Judge, PolicyEngine, PolicyFault, PolicyStore},
    reason::Reason,
    record::Recorder,
    swap::{self, Swaps},
    template::best::BestValues,
    view::{View, board::Board},
};
use proposal::Proposals;
use sources::NamedSource;
use std::{
    fmt, io,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex, atomic::AtomicU64},
    time::{Duration, Instant},
};
use tokio::{
    sync::{Notify, mpsc, watch},
    task::JoinHandle,
};

/// Solved blocks that may wait for the source.
const MAX_BLOCKS_WAITING: usize = 64;
/// Time that deliveries of blocks have at the end, whatever the drain timeout leaves.
const BLOCKS_FAREWELL: Duration = Duration::from_secs(2);

/// Time for the last events to be written.
const EVENTS_FAREWELL: Duration = Duration::from_secs(2);

/// Why the gateway does not start.
#[derive(Debug)]
pub enum StartError {
    /// Policies that cannot be loaded, each with the line of its entry in the configuration.
    Policies {
        /// The configuration file.
        file: String,
        /// Each fault and the line of its policy.
        faults: Vec<(usize, PolicyFault)>,
    },
    /// The authority key is none.
    Key(KeyTextError),
    /// Something of the operating system: a file, an address.
    Io(io::Error),
    /// The source cannot be set up.
    Source(String),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Policies { file, faults } => {
                for (line, fault) in faults {
                    writeln!(
                        f,
                        "{file}:{line}: policy \"{}\": {}: {}",
                        fault.policy, fault.reason, fault.detail
                    )?;
                }
                write!(f, "{} of the policies cannot be loaded; nothing was started", faults.len())
            }
            Self::Key(error) => write!(f, "[miners] authority secret: {error}"),
            Self::Io(error) => error.fmt(f),
            Self::Source(detail) => write!(f, "[source]: {detail}"),
        }
    }
}

impl std::error::Error for StartError {}

impl From<io::Error> for StartError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A running gateway.
pub struct Gateway {
    shutdown: watch::Sender<bool>,
    flow: JoinHandle<()>,
    source: JoinHandle<()>,
    /// What serves operators: the watch on the files, the HTTP surface.
    operations: Vec<JoinHandle<()>>,
    swaps: Arc<Swaps>,
    serving: Option<ServingTasks>,
    events: Events,
    writer: EventWriter,
    /// Where miners connect; `None` in shadow mode.
    pub listen: Option<SocketAddr>,
    /// The key miners must be given; `None` in shadow mode.
    pub authority_key: Option<String>,
}

struct ServingTasks {
    server: JoinHandle<()>,
    blocks: JoinHandle<()>,
    ledger: LedgerTasks,
}

impl Gateway {
    /// Starts everything. Must run inside a tokio runtime.
    ///
    /// # Errors
    /// [`StartError`]; the process is expected to end then.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let policies = Arc::new(load_policies(&config)?);
        let running = policies.running();
        let (events, writer, view) = start_events(&config)?;
        let (stale_after, stale_seen) = watch::channel(config.source.stale_after());
        let list = sources::make(&config, &stale_seen).map_err(StartError::Source)?;
        let recorder = match &config.record.dir {
            Some(dir) => {
                let keep = settings::keep(&config.record);
                Some(Recorder::start(dir, keep, events.clone())?)
            }
            None => None,
        };
        let (shutdown, down) = watch::channel(false);
        let (work, work_seen) = watch::channel(Work::default());
        let mut listening = None;
        if let Some(serving) = &config.serving {
            listening = Some(serve(&config, serving, &events, &list, work_seen, &view, &down).await?);
        }
        let (handle, seat) = swap::gate_handle(config.mode);
        view.with_gate(handle.clone(), down.clone());
        let swaps = Arc::new(Swaps::new(policies.clone(), config.clone(), handle, events.clone()));
        reload::events(&swaps, events.clone());
        reload::policies(&swaps, policies.clone());
        if let Some(recorder) = &recorder {
            reload::record(&swaps, recorder.keep());
        }
        if let Some(listening) = &listening {
            listening.reload(&swaps);
        }
        let (api, mut operations) = (bind_api(&config, &swaps, &view, &down).await?, Vec::new());
        let listen = listening.as_ref().map(|l| l.address);
        let authority_key = listening.as_ref().map(|l| l.authority.clone());
        events.emit(Event::GatewayStarted(schema::GatewayStarted {
            version: env!("CARGO_PKG_VERSION"),
            mode: config.mode,
            source: list.iter().map(|named| named.source.name()).collect::<Vec<_>>().join(", then "),
            policy_set: running.digest().to_string(),
            policies: running.specs().iter().map(|spec| spec.name.clone()).collect(),
            listen: listen.map(|address| address.to_string()),
            authority_key: authority_key.clone(),
            api: api.as_ref().map(|api| api.address().to_string()),
        }));
        let (board, proposals) = (view.sources.clone(), proposals(&config, &list, &view, &events));
        if let Some(api) = api {
            reload::tokens(&swaps, &config, api.tokens());
            operations.push(tokio::spawn(api.run(down.clone())));
            operations.push(tokio::spawn(view.follow(down.clone())));
        }
        operations.push(tokio::spawn(swaps.clone().watch_files(down.clone())));
        let ask = listening.as_ref().map_or_else(Arc::default, |l| l.ask.clone());
        let connections = listening.as_ref().map_or_else(Arc::default, |l| l.connections.clone());
        let flow_settings = reload::flow_and_source(&swaps, &config, stale_after);
        let (news, news_seen) = mpsc::channel(1);
        let best = Arc::<Mutex<BestValues>>::default();
        let sources = sources::Sources {
            list: list.to_vec(),
            rules: sources::Rules {
                apart_after: config.failover.disagree_after,
                return_after: config.failover.return_after,
            },
            news,
            ask: ask.clone(),
            best: best.clone(),
            board,
            events: events.clone(),
        };
        let flow::FlowSettings { timings, coinbase_only } =
            settings::flow(&config.gate, &settings::maker(&config));
        let flow = flow::Flow {
            gate: Gate::new(config.mode, timings, Instant::now()),
            seat,
            judge: Judge::new(policies, running.limits().workers),
            recorder,
            work,
            ask,
            connections,
            events: events.clone(),
            next_serial: 1,
            best,
            asked: Default::default(),
            held_since: None,
            coinbase_only,
            newest: None,
            source_tip: None,
            settings: flow_settings,
            judging: Default::default(),
            proposals,
        };
        Ok(Self {
            source: tokio::spawn(sources.run(down.clone())),
            flow: tokio::spawn(flow.run(news_seen, down)),
            serving: listening.map(|l| l.tasks),
            operations,
            swaps,
            shutdown,
            events,
            writer,
            listen,
            authority_key,
        })
    }

    /// The running policies, and how to change them.
    pub fn swaps(&self) -> Arc<Swaps> {
        self.swaps.clone()
    }

    /// Ready when a part that should run for ever has ended: a defect, after which the gateway is to be
    /// drained and started again.
    pub async fn broken(&self) {
        let ended = |task: &JoinHandle<()>| task.is_finished();
        let broken = || {
            let serving = self.serving.as_ref();
            ended(&self.flow)
                || ended(&self.source)
                || self.operations.iter().any(ended)
                || serving.is_some_and(|s| ended(&s.server) || ended(&s.blocks))
        };
        while !broken() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// Ends everything in order: no new work, miners told, open shares recorded and acknowledged,
    /// shares forwarded as far as the drain timeout allows, events written.
    pub async fn drain(self) {
        let limit = tokio::time::Instant::now() + self.swaps.in_force().drain.timeout;
        let _ = self.shutdown.send(true);
        end(self.source, limit).await;
        end(self.flow, limit).await;
        if let Some(serving) = self.serving {
            end(serving.server, limit).await;
            // A block is worth a moment more than anything else.
            end(serving.blocks, limit.max(tokio::time::Instant::now() + BLOCKS_FAREWELL)).await;
            serving.ledger.drain(limit.saturating_duration_since(tokio::time::Instant::now())).await;
        }
        // They were told too, and had as much time as the others.
        for task in self.operations {
            end(task, limit).await;
        }
        drop(self.swaps);
        self.events.emit(Event::GatewayStopped { reason: Reason::ShutdownDrain });
        drop(self.events);
        let writer = self.writer;
        // Whoever still computes (a module being compiled) may hold on to the events: nobody waits for that.
        let written = tokio::task::spawn_blocking(move || writer.join());
        let _ = tokio::time::timeout(EVENTS_FAREWELL, written).await;
    }
}

/// Waits for a task, at most until `limit`; then it is cut off.
async fn end(mut task: JoinHandle<()>, limit: tokio::time::Instant) {
    if tokio::time::timeout_at(limit, &mut task).await.is_err() {
        task.abort();
        let _ = task.await;
    }
}

fn load_policies(config: &Config) -> Result<PolicyStore, StartError> {
    let engine = &config.engine;
    let limits = EngineLimits {
        deadline: config.gate.verdict_timeout,
        memory_bytes: usize::try_from(engine.memory.0).unwrap_or(usize::MAX),
        workers: engine.workers as usize,
        module_bytes: engine.module_size.0,
        compile_time: engine.compile_time,
    };
    let specs = swap::specs(&config.policies);
    let loaded = PolicyEngine::start(limits, engine.code_cache.as_deref())
        .map_err(|fault| vec![fault])
        .and_then(|started| PolicyStore::load(started, specs, config.swap.replay as usize));
    loaded.map_err(|faults| {
        let line = |name: &str| config.policies.iter().find(|p| p.name == name).map_or(0, |p| p.line);
        let faults = faults.into_iter().map(|fault| (line(&fault.policy), fault)).collect();
        StartError::Policies { file: config.file.display().to_string(), faults }
    })
}

/// The bus of events. Who only looks follows them where there is an HTTP surface to look through.
fn start_events(config: &Config) -> io::Result<(Events, EventWriter, Arc<View>)> {
    let (heard, board) = (HeardMetrics::default(), Arc::new(Board::default()));
    let view = View::new(heard.clone(), board.clone(), Arc::default());
    let mut sinks = Sinks::default();
    if let Some(file) = &config.events.file {
        sinks = sinks.with_file(file, config.events.rotation())?;
    }
    if config.events.console == Console::Text {
        sinks = sinks.with_console(event::console::Console::stdout());
    }
    if config.api.listen.is_some() {
        sinks = sinks.with_listener(heard).with_listener(board).with_listener(view.ring.clone());
    }
    let (events, writer) = sinks.start()?;
    Ok((events, writer, view))
}

async fn bind_api(
    config: &Config,
    swaps: &Arc<Swaps>,
    view: &Arc<View>,
    down: &watch::Receiver<bool>,
) -> Result<Option<Api>, StartError> {
    let Some(listen) = config.api.listen else { return Ok(None) };
    Ok(Some(Api::bind(listen, &config.api, swaps.clone(), view.clone(), down.clone()).await?))
}

/// Who asks the node about assembled blocks, where the operator wants it of a source.
fn proposals(config: &Config, list: &[NamedSource], view: &View, events: &Events) -> Option<Proposals> {
    let all = [&config.source].into_iter().chain(config.backups.iter().map(|backup| &backup.source));
    let checks: Vec<_> = all.map(Source::proposal).collect();
    let wanted = checks.iter().any(|check| *check != ProposalCheck::Off);
    let (board, events) = (view.sources.clone(), events.clone());
    wanted.then(|| Proposals { sources: list.iter().cloned().zip(checks).collect(), board, events })
}

struct Listening {
    address: SocketAddr,
    authority: String,
    connections: Arc<AtomicU64>,
    ask: Arc<Notify>,
    tunables: Arc<Tunables>,
    signing: Arc<SigningKeys>,
    tasks: ServingTasks,
}

impl Listening {
    fn reload(&self, swaps: &Swaps) {
        reload::miners(swaps, self.tunables.clone(), self.signing.clone());
        reload::ledger(swaps, self.tasks.ledger.dials.clone(), self.signing.clone());
    }
}

async fn serve(
    config: &Config,
    serving: &Serving,
    events: &Events,
    sources: &Arc<[NamedSource]>,
    work: watch::Receiver<Work>,
    view: &Arc<View>,
    down: &watch::Receiver<bool>,
) -> Result<Listening, StartError> {
    let Serving { miners, pool, ledger } = serving;
    let authority: AuthoritySecretKey = miners.authority_secret.expose().parse().map_err(StartError::Key)?;
    let usable = |error: String| StartError::Io(io::Error::new(io::ErrorKind::InvalidInput, error));
    let signing = Arc::new(SigningKeys::new(&pool.secret, &pool.key_id).map_err(usable)?);
    let forward = ForwardConfig {
        keys: signing.clone(),
        batch_size: pool.batch_size as usize,
        requests: settings::requests(pool),
    };
    let folder = ledger.dir.clone();
    let log = LogConfig { folder: folder.clone(), segment_size: ledger.segment_size.0, keep: ledger.keep };
    let record = LedgerConfig {
        log,
        keys: ledger.key.as_ref().map(|key| Keys::parse(key.expose())).transpose().map_err(usable)?,
        key_file: ledger.key.as_ref().and_then(|key| key.file()).map(Path::to_owned),
        max_backlog: ledger.max_backlog,
        fault: Fault::of_environment()?,
    };
    let (ledger, ledger_tasks) = ledger::open(record, forward, events.clone())?;
    let recorder = ledger.clone();
    view.with_ledger(ledger.backlog());
    let (blocks, solved) = mpsc::channel(MAX_BLOCKS_WAITING);
    let parts = ServerParts {
        limits: settings::limits(config, miners),
        authority,
        users: settings::users(miners, &signing),
        work,
        ledger,
        blocks,
        events: events.clone(),
        view: view.miners.clone(),
    };
    let server = Server::bind(miners.listen, parts).await?;
    let ask = Arc::new(Notify::new());
    let delivery = blocks::Delivery {
        sources: sources.clone(),
        ask: ask.clone(),
        events: events.clone(),
        ledger: recorder,
        folder,
        down: down.clone(),
    };
    Ok(Listening {
        address: server.local_addr()?,
        authority: server.authority().to_string(),
        connections: server.connections(),
        tunables: server.tunables(),
        signing,
        tasks: ServingTasks {
            server: tokio::spawn(server.run(down.clone())),
            blocks: tokio::spawn(blocks::submit(solved, delivery)),
            ledger: ledger_tasks,
        },
        ask,
    })
}
