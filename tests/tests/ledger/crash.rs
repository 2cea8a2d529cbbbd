//! Crashes: the real binary dies again and again under load, at a byte of a write, in a power cut, or of a
//! SIGKILL at any moment; in the end files and books must agree with what miners were told.
//!
//! Each run goes on where the one before died, so a fault that one leaves behind is the next one's problem.
//! `make test` has a few dozen; `make crash` sets `RESERVEGRID_CRASHES` and has 200.

use super::miner::{Miner, config};
use anyhow::{Context, Result, ensure};
use reservegrid_tests::{
    account::{check_every_share_has_one_result, ledger, ledger_records, verified},
    backend::{Backend, Behaviour},
    gateway::{DEADLINE, Gateway},
    wait,
};
use std::collections::{BTreeMap, BTreeSet};

const FAULT: &str = "RESERVEGRID_LEDGER_FAULT";

/// Numbers that look random and are the same each time (splitmix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }
}

#[tokio::test]
async fn whatever_the_moment_of_a_crash_each_acknowledged_share_has_one_result_and_is_paid_once() -> Result<()>
{
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>()).transpose();
    let crashes = number("RESERVEGRID_CRASHES")?.unwrap_or(24);
    let seed = number("RESERVEGRID_CRASH_SEED")?.unwrap_or(6);
    let mut dice = Dice(seed);
    let backend = Backend::start("test", "a secret of the pool").await?;
    let config = config()?.pool(&backend).set("ledger", "segment_size", "64KiB").set("pool", "timeout", "1s");
    let mut acked = BTreeSet::new();
    let mut deaths: BTreeMap<&str, u32> = BTreeMap::new();
    for crash in 0..crashes {
        // A backend that takes shares, or one that fails or is confused while it happens.
        backend.behave(match dice.roll(4) {
            0 => Behaviour::ServerError,
            1 => Behaviour::Nonsense,
            _ => Behaviour::Accept,
        });
        let at = 1 + dice.roll(60_000);
        let (how, fault) = match dice.roll(5) {
            0 | 1 => ("inside a write", Some(format!("kill:{at}"))),
            2 | 3 => ("power cut inside a write", Some(format!("power:{at}"))),
            _ => ("SIGKILL", None),
        };
        let shares = 32 + usize::try_from(dice.roll(400))?;
        let run = match &fault {
            Some(fault) => config.clone().variable(FAULT, fault),
            None => config.clone(),
        };
        let mut gateway = Gateway::spawn(&run)?;
        // It may die before it listens: results of before are written as well.
        let told: Result<()> = async {
            gateway.started().await?;
            let mut miner = Miner::start(&gateway, "alice").await?;
            let mined =
                if fault.is_some() { miner.mine(100_000).await } else { miner.until_killed(shares).await };
            acked.extend(miner.acked);
            mined
        }
        .await;
        if fault.is_none() {
            told.with_context(|| format!("seed {seed}, crash {crash}"))?;
            gateway.process().kill()?;
        }
        let status = gateway.process().wait(DEADLINE).await?;
        ensure!(!status.success(), "seed {seed}, crash {crash} ({how}): it ended with {status}");
        if fault.is_some() {
            use std::os::unix::process::ExitStatusExt;
            let said = gateway.process().stderr();
            ensure!(status.signal() == Some(6), "seed {seed}, crash {crash} ({how}): {status}: {said}");
        }
        *deaths.entry(how).or_default() += 1;
    }
    backend.behave(Behaviour::Accept);
    let mut gateway = Gateway::start(&config).await?;
    let complete = async || Ok(ledger(&config, "verify", &["--complete"])?.status.success().then_some(()));
    wait::until("a result for every share", DEADLINE, complete)
        .await
        .with_context(|| format!("seed {seed}"))?;
    ensure!(gateway.stop().await?.success());

    let report = verified(&config).with_context(|| format!("seed {seed}"))?;
    ensure!(report["open"] == 0 && report["in_use"] == false, "seed {seed}: {report}");
    let records = ledger_records(&config)?;
    let accounted = check_every_share_has_one_result(&records, &backend)?;
    let accepted: BTreeSet<_> = records
        .iter()
        .filter(|record| record["event"] == "share_accepted")
        .filter_map(|record| record["share_id"].as_str().map(str::to_owned))
        .collect();
    let lost: Vec<_> = acked.difference(&accepted).collect();
    ensure!(
        lost.is_empty(),
        "seed {seed}: {} acknowledged shares are not in the ledger: {lost:?}",
        lost.len()
    );
    let paid = backend.shares();
    ensure!(accepted.iter().all(|id| paid.get(id).is_some_and(|share| share.answers.contains(&true))));
    ensure!(acked.len() as u64 > 16 * crashes, "hardly any load: {} acknowledged", acked.len());
    println!(
        "{crashes} crashes (seed {seed}): {deaths:?}; {} shares acknowledged, {accounted} accounted for, \
         {} segments, {} deliveries",
        acked.len(),
        report["segments"],
        paid.values().map(|share| u64::from(share.deliveries)).sum::<u64>()
    );
    Ok(())
}
