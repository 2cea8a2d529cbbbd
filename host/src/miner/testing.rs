//! What the tests of this room stand on: jobs of a small embedded chain, admitted by a real gate.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;
use crate::{
    config::Secret,
    event,
    gate::{Action, Gate, Mode, Timings},
    ledger::{
        self, LedgerConfig, LedgerTasks,
        forward::{ForwardConfig, Requests},
        secret::SigningKeys,
    },
    policy::Verdict,
    share::target,
    template::{
        Context, Template, TemplateSource,
        chain::{EmbeddedChain, EmbeddedConfig},
        coinbase_only::CoinbaseOnly,
    },
};
use bitcoin::CompactTarget;
use std::time::Instant;

/// A chain whose blocks take 65,537 hashes, so that a test solves one when it wants to and not otherwise.
pub(super) struct Chain {
    source: EmbeddedChain,
    newest: Option<Arc<Template>>,
    serial: u64,
}

impl Chain {
    pub(super) fn new() -> Self {
        let config = EmbeddedConfig {
            bits: CompactTarget::from_consensus(0x1f00_ffff),
            transactions_per_template: 3,
            ..EmbeddedConfig::default()
        };
        Self { source: EmbeddedChain::new(config).unwrap(), newest: None, serial: 0 }
    }

    /// The chain's present template as a new job.
    pub(super) async fn job(&mut self) -> Arc<Job> {
        let patience = Duration::from_secs(60);
        let sourced = self.source.next_template(None, patience).await.unwrap().unwrap();
        self.newest = Some(sourced.template);
        self.again()
    }

    /// The same template as another job.
    pub(super) fn again(&mut self) -> Arc<Job> {
        let template = self.newest.clone().unwrap();
        self.make(template)
    }

    fn make(&mut self, template: Arc<Template>) -> Arc<Job> {
        let (now, hour) = (Instant::now(), Duration::from_secs(3600));
        let timings = Timings { verdict_timeout: hour, hold_timeout: hour, coinbase_only_after: None };
        let mut gate = Gate::new(Mode::Observe, timings, now);
        let mut actions = match template.is_future() {
            true => gate.on_future(template.clone()),
            false => gate.on_template(now, template.clone()),
        };
        actions.extend(gate.on_verdict(now, template.digest, &Verdict::accept()));
        let released = actions.into_iter().find_map(|action| match action {
            Action::Release { template, .. } | Action::SendAhead(template) => Some(template),
            _ => None,
        });
        self.serial += 1;
        Arc::new(Job::new(released.unwrap(), self.serial).unwrap())
    }

    /// A future job for the tip after the present one, without transactions.
    pub(super) fn ahead(&mut self) -> Arc<Job> {
        let newest = self.newest.clone().unwrap();
        let sourced = maker().after(&newest, &Context::default()).unwrap();
        self.make(sourced.template)
    }

    /// The job on the chain's present tip that a future job became.
    pub(super) async fn became(&mut self, future: &Job) -> Arc<Job> {
        self.job().await;
        let newest = self.newest.clone().unwrap();
        let template = maker().beside(&newest, &Context::default()).unwrap().template;
        assert!(template.activates(&future.template));
        let mut job = Arc::into_inner(self.make(template)).unwrap();
        job.ahead = Some(future.serial);
        Arc::new(job)
    }

    /// Solves a job; the next one is on another tip.
    pub(super) async fn solve(&self, job: &Job) {
        let extranonce = [9; EXTRANONCE_LEN];
        let root = job.merkle_root(&extranonce);
        let version = job.template.version.to_consensus().cast_unsigned();
        let time = job.template.current_time.max(job.template.min_time);
        let headers = (0..).map(|nonce| job.header(root, version, time, nonce));
        let solved = headers.into_iter().find(|h| job.network_target.is_met_by(h.block_hash())).unwrap();
        self.source.submit_block(&job.block(solved, &extranonce).unwrap()).await.unwrap();
    }
}

fn maker() -> CoinbaseOnly {
    let coinbase = EmbeddedConfig::default().coinbase;
    CoinbaseOnly { network: bitcoin::Network::Regtest, coinbase }
}

/// Everything a session may use. The ledger is real; its pool is not there.
pub(super) struct Surroundings {
    pub(super) shared: Arc<Shared>,
    _ledger: LedgerTasks,
    _blocks: mpsc::Receiver<Solved>,
    _folder: tempfile::TempDir,
}

/// Limits of which nothing is noticed, to be changed by a test.
pub(super) fn limits() -> Limits {
    let time = Duration::from_secs(60);
    Limits {
        door: DoorLimits {
            connections: 9,
            connections_per_source: 9,
            handshakes: 9,
            handshakes_per_source: 9,
        },
        max_channels: 100,
        max_channels_per_connection: 50,
        max_shares_per_second: 1_000,
        max_refusals_per_second: 100,
        max_unanswered_shares: 1_000,
        handshake_timeout: time,
        setup_timeout: time,
        idle_timeout: time,
        terms: Terms { shares_per_minute: 6.0, easiest: target::easiest(), vardiff: true },
        standard_success_batch: 1,
        extended_success_batch: 4,
        accept_held_shares: true,
        certificate_validity: Duration::from_secs(3600),
        reconnect: None,
    }
}

impl Surroundings {
    pub(super) fn new(limits: Limits, work: watch::Receiver<Work>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (events, _writer) = event::start(None, None).unwrap();
        let forward = ForwardConfig {
            keys: Arc::new(SigningKeys::new(&Secret::new("a secret of the pool"), "test").unwrap()),
            batch_size: 1,
            requests: Requests {
                url: "http://127.0.0.1:1/".into(),
                in_flight: 1,
                timeout: Duration::from_secs(1),
            },
        };
        let (ledger, ledger_tasks) =
            ledger::open(LedgerConfig::in_folder(folder.path()), forward, events.clone()).unwrap();
        let (blocks, solved) = mpsc::channel(8);
        let shared = Arc::new(Shared {
            identities: Identities::new(AuthoritySecretKey::generate(), Duration::from_secs(3600)),
            extranonces: Extranonces::new(),
            tunables: Arc::new(Tunables::new(limits, UserCheck::Open).unwrap()),
            channels: Places::default(),
            work,
            ledger,
            blocks,
            events,
            view: Arc::default(),
        });
        Self { shared, _ledger: ledger_tasks, _blocks: solved, _folder: folder }
    }
}
