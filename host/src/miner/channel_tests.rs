//! Channels with real jobs and a clock of the test's own.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::super::places::Places;
use super::*;
use crate::miner::testing::{Chain, limits};
use std::time::Duration;

fn open(kind: Kind, hashrate: f32, job: Option<&Job>, terms: Terms, now: Instant) -> Channel {
    let request = Request {
        kind,
        user_identity: "alice".into(),
        nominal_hashrate: hashrate,
        max_target: target::easiest(),
    };
    let place = Places::default().take(1).unwrap();
    Channel::open(2, [7; PREFIX_LEN], request, terms, job, place, now)
}

/// The time of a job; also the gateway's clock when its shares come.
fn time(job: &Job) -> u32 {
    job.template.current_time.max(job.template.min_time)
}

/// A share of a job from `nonce` on whose hash is as wanted.
fn share(channel: &Channel, job: &Job, mut nonce: u32, wanted: impl Fn(BlockHash) -> bool) -> Submission {
    let root = job.merkle_root(&channel.extranonce(&[0; ROLLABLE_LEN]));
    let version = job.template.version.to_consensus().cast_unsigned();
    while !wanted(job.header(root, version, time(job), nonce).block_hash()) {
        nonce += 1;
    }
    Submission { nonce, ntime: time(job), version }
}

const ROLLED: [u8; ROLLABLE_LEN] = [0; ROLLABLE_LEN];

fn rolled(channel: &Channel) -> Option<&'static [u8]> {
    (channel.kind == Kind::Extended).then_some(&ROLLED)
}

fn submit(channel: &mut Channel, job_id: u32, job: &Job, submission: Submission) -> Result<(), Reason> {
    let rolled = rolled(channel);
    let share = channel.submit(job_id, submission, rolled, time(job))?;
    channel.accepted(&share);
    Ok(())
}

#[tokio::test]
async fn a_share_counts_against_the_target_its_job_was_sent_with() {
    let (mut chain, now) = (Chain::new(), Instant::now());
    let first = chain.job().await;
    let second = chain.again();
    for kind in [Kind::Standard, Kind::Extended] {
        let mut channel = open(kind, 0.0, Some(&first), limits().terms, now);
        channel.add_job(1, &first, time(&first));
        let harder = target::for_hashrate(
            100.0,
            6.0,
            Bounds { miner: target::easiest(), pool: target::easiest(), network: first.network_target },
        );
        assert!(channel.update(100.0, target::easiest(), Some(&first), now));
        assert_eq!(channel.target, harder);
        assert!(!channel.add_job(2, &second, time(&second)), "the same tip");
        let low = share(&channel, &first, 0, |hash| !harder.is_met_by(hash));
        let good = share(&channel, &first, 0, |hash| harder.is_met_by(hash));
        assert_eq!(submit(&mut channel, 2, &second, low), Err(Reason::ShareDifficultyTooLow));
        assert_eq!(submit(&mut channel, 1, &first, low), Ok(()));
        assert_eq!(submit(&mut channel, 2, &second, good), Ok(()));
        assert_eq!(submit(&mut channel, 1, &first, good), Err(Reason::ShareDuplicate), "the same header");
    }
}

#[tokio::test]
async fn jobs_of_an_earlier_tip_are_stale_and_jobs_that_never_were_unknown() {
    let (mut chain, now) = (Chain::new(), Instant::now());
    let first = chain.job().await;
    chain.solve(&first).await;
    let next = chain.job().await;
    let mut channel = open(Kind::Extended, 0.0, Some(&first), limits().terms, now);
    assert!(channel.add_job(1, &first, time(&first)));
    assert!(channel.add_job(2, &next, time(&next)), "another tip");
    let any = share(&channel, &first, 0, |_| true);
    assert_eq!(submit(&mut channel, 1, &first, any), Err(Reason::ShareStale));
    assert_eq!(submit(&mut channel, 3, &first, any), Err(Reason::ShareJobUnknown));
    // What is remembered of old jobs is bounded, and so are the jobs of one tip.
    for job_id in 3..200 {
        channel.add_job(job_id, &next, time(&next));
    }
    assert_eq!((channel.jobs.len(), channel.retired.len()), (MAX_JOBS, MAX_RETIRED));
    assert_eq!(submit(&mut channel, 1, &next, any), Err(Reason::ShareJobUnknown));
    assert_eq!(submit(&mut channel, 191, &next, any), Err(Reason::ShareStale));
    let any = share(&channel, &next, 0, |_| true);
    assert_eq!(submit(&mut channel, 192, &next, any), Ok(()));
}

#[tokio::test]
async fn accepted_shares_move_the_target_within_its_bounds() {
    let (mut chain, start) = (Chain::new(), Instant::now());
    let job = chain.job().await;
    let mut channel = open(Kind::Standard, 0.0, Some(&job), limits().terms, start);
    channel.add_job(1, &job, time(&job));
    let mut nonce = 0;
    for _ in 0..300 {
        let next = share(&channel, &job, nonce, |hash| !job.network_target.is_met_by(hash));
        nonce = next.nonce + 1;
        assert_eq!(submit(&mut channel, 1, &job, next), Ok(()));
    }
    // 300 hashes in ten seconds: 30 H/s, a share in 300 hashes.
    let now = start + Duration::from_secs(10);
    let estimate = channel.adjust(Some(&job), now).unwrap();
    assert_eq!((estimate.shares, estimate.window), (300, Duration::from_secs(10)));
    assert!((target::expected_hashes(channel.target) / 150.0 - 1.0).abs() < 0.1, "{}", channel.target);
    assert_eq!(channel.adjust(Some(&job), now), None, "nothing new was seen");

    // Silence: easier step by step, down to what the miner or the pool allows.
    let mut before = channel.target;
    for minute in 1..120 {
        if channel.adjust(Some(&job), now + Duration::from_secs(60 * minute)).is_some() {
            assert!(channel.target > before);
            before = channel.target;
        }
    }
    assert!(target::expected_hashes(channel.target) < 1.1, "{}", channel.target);
}

#[tokio::test]
async fn no_shares_move_a_target_that_is_fixed_or_at_its_bound() {
    let (mut chain, start) = (Chain::new(), Instant::now());
    let job = chain.job().await;
    let later = start + Duration::from_secs(3600);
    let fixed = Terms { vardiff: false, ..limits().terms };
    let mut channel = open(Kind::Standard, 1e12, Some(&job), fixed, start);
    assert_eq!(channel.target, job.network_target, "never harder than the network's");
    assert_eq!(channel.adjust(Some(&job), later), None);
    let floor = Terms { easiest: target::from_difficulty(1e-6), ..limits().terms };
    let mut channel = open(Kind::Standard, 0.0, Some(&job), floor, start);
    assert_eq!(channel.target, floor.easiest);
    assert_eq!(channel.adjust(Some(&job), later), None, "silent at the easiest target");
}

#[tokio::test]
async fn a_hash_rate_that_is_said_does_not_undo_what_the_shares_have_shown() {
    let (mut chain, start) = (Chain::new(), Instant::now());
    let job = chain.job().await;
    let mut channel = open(Kind::Standard, 1e3, Some(&job), limits().terms, start);
    let now = start + Duration::from_secs(120);
    assert!(channel.adjust(Some(&job), now).is_some(), "two minutes of silence");
    let shown = target::expected_hashes(channel.target);
    // The same, a little more, and nothing at all.
    for said in [1e3, 1.1e3, 0.9e3, 0.0] {
        assert!(!channel.update(said, target::easiest(), Some(&job), now), "{said}");
    }
    // A harder maximum is obeyed all the same, and a change is believed as a change.
    let hard = target::from_difficulty(1e-6);
    assert!(channel.update(1e3, hard, Some(&job), now));
    assert_eq!(channel.target, hard);
    assert!(channel.update(4e3, target::easiest(), Some(&job), now));
    assert!((target::expected_hashes(channel.target) / (4.0 * shown) - 1.0).abs() < 0.01);
    // Back and forth gains nothing.
    for said in [1e30, 1e-30, 1e3, 0.0, 4e3] {
        channel.update(said, target::easiest(), Some(&job), now);
    }
    assert!((target::expected_hashes(channel.target) / (4.0 * shown) - 1.0).abs() < 0.01);
    // With a fixed difficulty what is said is all there is.
    let fixed = Terms { vardiff: false, ..limits().terms };
    let mut channel = open(Kind::Standard, 1e3, Some(&job), fixed, start);
    assert!(channel.update(1.1e3, target::easiest(), Some(&job), now));
    assert!((target::expected_hashes(channel.target) / 1.1e4 - 1.0).abs() < 0.01);
}

#[tokio::test]
async fn a_standard_channel_mines_jobs_of_its_group_under_the_root_it_would_be_sent() {
    let (mut chain, now) = (Chain::new(), Instant::now());
    let job = chain.job().await;
    let mut channel = open(Kind::Standard, 0.0, Some(&job), limits().terms, now);
    assert_eq!(channel.extranonce_prefix().len(), EXTRANONCE_LEN);
    channel.add_job(1, &job, time(&job));
    // Nobody asked for the root: the job went to the group.
    let any = share(&channel, &job, 0, |_| true);
    assert_eq!(submit(&mut channel, 1, &job, any), Ok(()));
    let extranonce = channel.extranonce(&[0; ROLLABLE_LEN]);
    assert_eq!(channel.newest_merkle_root(), Some(job.merkle_root(&extranonce)));
    let extra = channel.submit(1, any, Some(&ROLLED), time(&job)).unwrap_err();
    assert_eq!(extra, Reason::ShareExtranonceSizeInvalid);
}
