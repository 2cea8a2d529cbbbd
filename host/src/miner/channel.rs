//! One mining channel: who mines on it, which jobs it has with which target, and what counts as a share.
//!
//! A job keeps the target that was in force when it was sent; a new target is for later jobs (SV2
//! specification 05, SetTarget). Where the target comes from: `vardiff`, within the bounds of miner, pool
//! and network.

use super::{
    PREFIX_LEN, ROLLABLE_LEN,
    places::Place,
    vardiff::{Estimate, Vardiff, WORTH_IT},
};
use crate::{
    job::{EXTRANONCE_LEN, Job},
    reason::Reason,
    share::{
        self, ChannelJob, Seen, Submission, ValidShare,
        target::{self, Bounds},
    },
};
use bitcoin::{BlockHash, Target, TxMerkleNode};
use std::{collections::VecDeque, sync::Arc, time::Instant};

/// Jobs on the current tip that shares are still taken for.
const MAX_JOBS: usize = 8;
/// Ids of older jobs that are answered with "stale" rather than "unknown".
const MAX_RETIRED: usize = 64;
/// A change of target that is not worth a message, as a natural logarithm.
const UNNOTICED: f64 = 0.05;

/// What the miner varies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Header fields alone; the merkle root is fixed per job.
    Standard,
    /// The last bytes of the extranonce as well.
    Extended,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Extended => "extended",
        }
    }
}

/// What a client asked for when it opened a channel.
#[derive(Debug)]
pub struct Request {
    /// What it will vary.
    pub kind: Kind,
    /// Who mines.
    pub user_identity: String,
    /// What it says of its speed, hashes a second; 0 when it does not know.
    pub nominal_hashrate: f32,
    /// The easiest target that it takes.
    pub max_target: Target,
}

/// What the pool wants of every channel.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Shares a minute to aim at.
    pub shares_per_minute: f64,
    /// The easiest target.
    pub easiest: Target,
    /// Targets follow the accepted shares.
    pub vardiff: bool,
}

/// An open channel.
pub struct Channel {
    pub(super) id: u32,
    pub(super) kind: Kind,
    pub(super) user_identity: String,
    pub(super) target: Target,
    prefix: [u8; PREFIX_LEN],
    terms: Terms,
    /// What the client said; a first guess.
    nominal_hashrate: f32,
    /// What the target is made for, hashes a second.
    hashrate: f64,
    max_target: Target,
    vardiff: Vardiff,
    tip: Option<BlockHash>,
    jobs: VecDeque<Held>,
    /// Serial and id of the future job that the miner has; it counts once its tip is told.
    future: Option<(u64, u32)>,
    retired: VecDeque<u32>,
    seen: Seen,
    /// One of the channels that the gateway may have.
    _place: Place,
}

/// A job, and on a standard channel its merkle root, once somebody needed it.
struct Held {
    job: ChannelJob,
    merkle_root: Option<TxMerkleNode>,
}

impl Channel {
    /// Opens a channel with an extranonce prefix that is its alone; `job` is what is mined at present, which
    /// it is not given yet.
    pub fn open(
        id: u32,
        prefix: [u8; PREFIX_LEN],
        request: Request,
        terms: Terms,
        job: Option<&Job>,
        place: Place,
        now: Instant,
    ) -> Self {
        let mut channel = Self {
            id,
            kind: request.kind,
            user_identity: request.user_identity,
            target: target::easiest(),
            prefix,
            terms,
            nominal_hashrate: request.nominal_hashrate,
            hashrate: f64::from(request.nominal_hashrate),
            max_target: request.max_target,
            vardiff: Vardiff::new(terms.shares_per_minute, now),
            tip: None,
            jobs: VecDeque::new(),
            future: None,
            retired: VecDeque::new(),
            seen: Seen::default(),
            _place: place,
        };
        channel.retarget(job);
        channel
    }

    /// The extranonce prefix as the client is told: for a standard channel all of the extranonce.
    pub(super) fn extranonce_prefix(&self) -> Vec<u8> {
        match self.kind {
            Kind::Standard => self.extranonce(&[0; ROLLABLE_LEN]).to_vec(),
            Kind::Extended => self.prefix.to_vec(),
        }
    }

    /// Takes over what UpdateChannel says; true when the target changed.
    pub(super) fn update(
        &mut self,
        nominal_hashrate: f32,
        max_target: Target,
        job: Option<&Job>,
        now: Instant,
    ) -> bool {
        self.max_target = max_target;
        if let Some(hashrate) = self.told(nominal_hashrate) {
            self.nominal_hashrate = nominal_hashrate;
            self.hashrate = hashrate;
            self.vardiff.restart(now);
        }
        self.retarget(job)
    }

    /// What a hash rate that the client says anew makes of the one that is aimed at. Once shares have been
    /// seen it is only believed by how much it changed: a proxy knows when a farm joins it, and what it
    /// says each second must not undo what its shares have shown.
    fn told(&self, nominal_hashrate: f32) -> Option<f64> {
        let (before, said) = (f64::from(self.nominal_hashrate), f64::from(nominal_hashrate));
        if !self.terms.vardiff || before == 0.0 {
            return (said != before).then_some(said);
        }
        let factor = said / before;
        (said > 0.0 && factor.ln().abs() > WORTH_IT).then_some(self.hashrate * factor)
    }

    /// Fits the target to hash rate and bounds; true when it changed. Jobs that are out keep theirs.
    pub(super) fn retarget(&mut self, job: Option<&Job>) -> bool {
        let target = self.target_for(self.hashrate, job);
        std::mem::replace(&mut self.target, target) != target
    }

    fn target_for(&self, hashrate: f64, job: Option<&Job>) -> Target {
        let network = job.map_or(Target::ZERO, |job| job.network_target);
        let bounds = Bounds { miner: self.max_target, pool: self.terms.easiest, network };
        target::for_hashrate(hashrate, self.terms.shares_per_minute, bounds)
    }

    /// Looks whether the accepted shares ask for another target; gives what they were when it changed.
    pub(super) fn adjust(&mut self, job: Option<&Job>, now: Instant) -> Option<Estimate> {
        if !self.terms.vardiff {
            return None;
        }
        let hashes = target::expected_hashes(self.target);
        let hashrate = self.vardiff.look(hashes, now)?;
        let target = self.target_for(hashrate, job);
        if (target::expected_hashes(target) / hashes).ln().abs() < UNNOTICED {
            // It is at one of its bounds.
            return None;
        }
        (self.hashrate, self.target) = (hashrate, target);
        Some(self.vardiff.estimate(now))
    }

    /// Adds a job under `job_id`; true when the tip is another than that of the job before.
    pub fn add_job(&mut self, job_id: u32, job: &Arc<Job>, min_ntime: u32) -> bool {
        let new_tip = self.tip != Some(job.previous_block_hash());
        if new_tip {
            self.tip = Some(job.previous_block_hash());
            // SetNewPrevHash makes one future job current and ends all others.
            self.future = None;
            while self.retire_oldest() {}
        } else if self.jobs.len() == MAX_JOBS {
            self.retire_oldest();
        }
        let difficulty = target::difficulty(self.target);
        let job = ChannelJob { job_id, job: job.clone(), target: self.target, difficulty, min_ntime };
        self.jobs.push_back(Held { job, merkle_root: None });
        new_tip
    }

    /// It has no work: when it was opened there was none that it could be given.
    pub(super) fn is_idle(&self) -> bool {
        self.jobs.is_empty()
    }

    /// The miner was sent a future job; one before it is forgotten.
    pub(super) fn note_future(&mut self, job_id: u32, job: &Job) {
        self.future = Some((job.serial, job_id));
    }

    /// The id under which the miner has the future job that `job` became.
    pub(super) fn future_id(&self, job: &Job) -> Option<u32> {
        self.future.filter(|(serial, _)| job.ahead == Some(*serial)).map(|(_, job_id)| job_id)
    }

    /// The merkle root of a job; only a standard channel has one of its own.
    pub(super) fn merkle_root(&self, job: &Job) -> Option<TxMerkleNode> {
        let extranonce = self.extranonce(&[0; ROLLABLE_LEN]);
        (self.kind == Kind::Standard).then(|| job.merkle_root(&extranonce))
    }

    /// The smallest time of the newest job, Unix seconds.
    pub(super) fn newest_ntime(&self) -> u32 {
        self.jobs.back().map_or(0, |held| held.job.min_ntime)
    }

    /// The merkle root of the newest job; only a standard channel has one of its own.
    pub(super) fn newest_merkle_root(&mut self) -> Option<TxMerkleNode> {
        let extranonce = self.extranonce(&[0; ROLLABLE_LEN]);
        let held = self.jobs.back_mut().filter(|_| self.kind == Kind::Standard)?;
        Some(held.merkle_root(&extranonce))
    }

    /// Judges a submitted share; `rolled` is the miner's part of the extranonce on an extended channel, `now`
    /// the time in Unix seconds.
    ///
    /// # Errors
    /// Why it does not count.
    pub fn submit(
        &mut self,
        job_id: u32,
        submission: Submission,
        rolled: Option<&[u8]>,
        now: u32,
    ) -> Result<ValidShare, Reason> {
        let rolled = rolled.map(<[u8; ROLLABLE_LEN]>::try_from);
        let kind = self.kind;
        let extranonce = match &rolled {
            Some(Ok(rolled)) => self.extranonce(rolled),
            _ => self.extranonce(&[0; ROLLABLE_LEN]),
        };
        let Some(held) = self.jobs.iter_mut().find(|held| held.job.job_id == job_id) else {
            let known = self.retired.contains(&job_id);
            return Err(if known { Reason::ShareStale } else { Reason::ShareJobUnknown });
        };
        let merkle_root = match (kind, rolled) {
            (Kind::Standard, None) => held.merkle_root(&extranonce),
            (Kind::Extended, Some(Ok(_))) => held.job.job.merkle_root(&extranonce),
            // A standard channel has nothing to roll, an extended one must say all that it rolled.
            _ => return Err(Reason::ShareExtranonceSizeInvalid),
        };
        share::validate(&held.job, submission, extranonce, merkle_root, &mut self.seen, now)
    }

    /// The share counts.
    pub fn accepted(&mut self, share: &ValidShare) {
        self.vardiff.on_share(target::hashes_of(share.difficulty));
    }

    /// The share was valid but could not be recorded: its miner may send it again.
    pub(super) fn forget(&mut self, hash: BlockHash) {
        self.seen.forget(hash);
    }

    fn retire_oldest(&mut self) -> bool {
        let Some(held) = self.jobs.pop_front() else { return false };
        if self.retired.len() == MAX_RETIRED {
            self.retired.pop_front();
        }
        self.retired.push_back(held.job.job_id);
        true
    }

    fn extranonce(&self, rolled: &[u8; ROLLABLE_LEN]) -> [u8; EXTRANONCE_LEN] {
        let mut extranonce = [0; EXTRANONCE_LEN];
        extranonce[..PREFIX_LEN].copy_from_slice(&self.prefix);
        extranonce[PREFIX_LEN..].copy_from_slice(rolled);
        extranonce
    }
}

impl Held {
    /// On a standard channel; hashed the first time.
    fn merkle_root(&mut self, extranonce: &[u8; EXTRANONCE_LEN]) -> TxMerkleNode {
        *self.merkle_root.get_or_insert_with(|| self.job.job.merkle_root(extranonce))
    }
}

#[cfg(test)]
#[path = "channel_tests.rs"]
mod tests;
