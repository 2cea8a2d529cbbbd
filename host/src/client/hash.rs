//! The hashing thread: one core, throttled to the wanted rate, always on the newest job.

use super::work::{Assignment, Found};
use bitcoin::{
    BlockHash,
    consensus::encode,
    hashes::{Hash, HashEngine, sha256d},
};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// How often the thread looks for a new job and checks its speed.
const SLICE: Duration = Duration::from_millis(50);

/// Hashes until the sender of jobs is gone.
pub(super) fn run(mut jobs: watch::Receiver<Option<Assignment>>, found: mpsc::Sender<Found>, hashrate: u64) {
    let runtime = tokio::runtime::Handle::current();
    let mut current: Option<Assignment> = None;
    loop {
        if current.is_none() {
            if runtime.block_on(jobs.changed()).is_err() {
                return;
            }
            current.clone_from(&jobs.borrow_and_update());
            continue;
        }
        match jobs.has_changed() {
            Err(_) => return,
            Ok(true) => current.clone_from(&jobs.borrow_and_update()),
            Ok(false) => {}
        }
        if let Some(job) = &mut current {
            slice(job, &found, hashrate);
        }
    }
}

/// Hashes for one slice of time, or what the rate allows in it, and waits for its end.
fn slice(job: &mut Assignment, found: &mpsc::Sender<Found>, hashrate: u64) {
    let started = Instant::now();
    // Below one hash a slice the slice grows, so that slow miners are possible too.
    let length = SLICE.max(Duration::from_secs(1) / u32::try_from(hashrate.max(1)).unwrap_or(u32::MAX));
    let count = (hashrate as f64 * length.as_secs_f64()).round().max(1.0) as u64;
    let bytes = encode::serialize(&job.header);
    let mut midstate = sha256d::Hash::engine();
    midstate.input(&bytes[..76]);
    for tried in 0..count {
        let mut engine = midstate.clone();
        engine.input(&job.header.nonce.to_le_bytes());
        let hash = BlockHash::from_raw_hash(sha256d::Hash::from_engine(engine));
        if job.target.is_met_by(hash) {
            let share = Found {
                channel_id: job.channel_id,
                job_id: job.job_id,
                nonce: job.header.nonce,
                ntime: job.header.time,
                version: job.header.version.to_consensus().cast_unsigned(),
                extranonce: job.extranonce.clone(),
            };
            if found.blocking_send(share).is_err() {
                return;
            }
        }
        job.header.nonce = job.header.nonce.wrapping_add(1);
        if job.header.nonce == 0 {
            // All nonces used up: the next second has as many again.
            job.header.time += 1;
            return;
        }
        if tried % 1024 == 1023 && started.elapsed() > length {
            return;
        }
    }
    std::thread::sleep(length.saturating_sub(started.elapsed()));
}
