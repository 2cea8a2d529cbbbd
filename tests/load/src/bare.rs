//! The mining server alone: the gateway's listener, sessions and share validation, with a job that never
//! changes and a ledger that says yes and keeps nothing. What the server itself costs shows here, without
//! the disk and without the pool.

use anyhow::{Context, Result};
use bitcoin::CompactTarget;
use reservegrid::{
    event,
    gate::{Action, Gate, Mode, Timings},
    job::Job,
    ledger::Ledger,
    miner::{DoorLimits, Limits, Server, ServerParts, Terms, UserCheck, Work},
    noise::AuthoritySecretKey,
    policy::Verdict,
    share::target,
    template::{
        TemplateSource,
        chain::{EmbeddedChain, EmbeddedConfig},
    },
};
use std::{
    io::Write,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, watch};

/// Serves until the process is ended; says its address in the first line of its output.
///
/// # Errors
/// When there is no port.
pub async fn serve(success_batch: u32) -> Result<()> {
    let hour = Duration::from_secs(3600);
    let (work, seen) = watch::channel(Work { job: Some(job().await?), ..Work::default() });
    let (events, _writer) = event::start(None, None)?;
    let (blocks, _solved) = mpsc::channel(8);
    let crowd = 1_000_000;
    let limits = Limits {
        door: DoorLimits {
            connections: crowd,
            connections_per_source: crowd,
            handshakes: crowd,
            handshakes_per_source: crowd,
        },
        max_channels: crowd,
        max_channels_per_connection: 100,
        max_shares_per_second: 1_000_000,
        max_refusals_per_second: 1_000_000,
        max_unanswered_shares: 100_000,
        handshake_timeout: hour,
        setup_timeout: hour,
        idle_timeout: hour,
        terms: Terms { shares_per_minute: 6.0, easiest: target::easiest(), vardiff: false },
        standard_success_batch: success_batch,
        extended_success_batch: success_batch,
        accept_held_shares: true,
        certificate_validity: hour,
        reconnect: None,
    };
    let parts = ServerParts {
        limits,
        authority: AuthoritySecretKey::generate(),
        users: UserCheck::Open,
        work: seen,
        ledger: Ledger::unrecorded(),
        blocks,
        events,
        view: Arc::default(),
    };
    let server = Server::bind("127.0.0.1:0".parse()?, parts).await?;
    println!("{}", server.local_addr()?);
    std::io::stdout().flush()?;
    let (_down, shutdown) = watch::channel(false);
    server.run(shutdown).await;
    drop(work);
    Ok(())
}

/// A job of the embedded chain, which a gate in observe mode let through.
async fn job() -> Result<Arc<Job>> {
    let config = EmbeddedConfig {
        bits: CompactTarget::from_consensus(0x1d00_ffff),
        transactions_per_template: 200,
        ..EmbeddedConfig::default()
    };
    let (now, hour) = (Instant::now(), Duration::from_secs(3600));
    let template =
        EmbeddedChain::new(config)?.next_template(None, hour).await?.context("no template")?.template;
    let timings = Timings { verdict_timeout: hour, hold_timeout: hour, coinbase_only_after: None };
    let mut gate = Gate::new(Mode::Observe, timings, now);
    let mut actions = gate.on_template(now, template.clone());
    actions.extend(gate.on_verdict(now, template.digest, &Verdict::accept()));
    let released = actions.into_iter().find_map(|action| match action {
        Action::Release { template, .. } => Some(template),
        _ => None,
    });
    Ok(Arc::new(Job::new(released.context("the gate lets nothing through")?, 1)?))
}
