//! One mining channel: who mines on it, which jobs it has, and what counts as a share.

use super::{PREFIX_LEN, ROLLABLE_LEN};
use crate::{
    job::{EXTRANONCE_LEN, Job},
    reason::Reason,
    share::{self, ChannelJob, Seen, Submission, ValidShare, target},
};
use bitcoin::{BlockHash, Target, TxMerkleNode};
use std::{collections::VecDeque, sync::Arc};

/// Jobs on the current tip that shares are still taken for.
const MAX_JOBS: usize = 8;
/// Ids of older jobs that are answered with "stale" rather than "unknown".
const MAX_RETIRED: usize = 64;

/// What the miner varies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
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

pub(super) struct Channel {
    pub(super) id: u32,
    pub(super) kind: Kind,
    pub(super) user_identity: String,
    pub(super) target: Target,
    prefix: [u8; PREFIX_LEN],
    nominal_hashrate: f32,
    max_target: Target,
    shares_per_minute: f64,
    tip: Option<BlockHash>,
    jobs: VecDeque<(ChannelJob, Option<TxMerkleNode>)>,
    retired: VecDeque<u32>,
    seen: Seen,
}

/// What a client asked for when it opened a channel.
pub(super) struct Request {
    pub(super) kind: Kind,
    pub(super) user_identity: String,
    pub(super) nominal_hashrate: f32,
    pub(super) max_target: Target,
    pub(super) shares_per_minute: f64,
}

impl Channel {
    pub(super) fn open(id: u32, prefix: [u8; PREFIX_LEN], request: Request, job: Option<&Job>) -> Self {
        let mut channel = Self {
            id,
            kind: request.kind,
            user_identity: request.user_identity,
            target: target::easiest(),
            prefix,
            nominal_hashrate: request.nominal_hashrate,
            max_target: request.max_target,
            shares_per_minute: request.shares_per_minute,
            tip: None,
            jobs: VecDeque::with_capacity(MAX_JOBS),
            retired: VecDeque::new(),
            seen: Seen::default(),
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
    pub(super) fn update(&mut self, nominal_hashrate: f32, max_target: Target, job: Option<&Job>) -> bool {
        self.nominal_hashrate = nominal_hashrate;
        self.max_target = max_target;
        self.retarget(job)
    }

    /// Fits the target to hash rate and network; true when it changed. Jobs that are out keep theirs.
    pub(super) fn retarget(&mut self, job: Option<&Job>) -> bool {
        let network_target = job.map_or(Target::ZERO, |job| job.network_target);
        let target = target::for_hashrate(
            self.nominal_hashrate,
            self.shares_per_minute,
            self.max_target,
            network_target,
        );
        std::mem::replace(&mut self.target, target) != target
    }

    /// Adds a job under `job_id`. Gives the merkle root for a standard channel, and whether the tip is
    /// another than that of the job before.
    pub(super) fn add_job(
        &mut self,
        job_id: u32,
        job: &Arc<Job>,
        min_ntime: u32,
    ) -> (Option<TxMerkleNode>, bool) {
        let new_tip = self.tip != Some(job.previous_block_hash());
        if new_tip {
            self.tip = Some(job.previous_block_hash());
            while self.retire_oldest() {}
        } else if self.jobs.len() == MAX_JOBS {
            self.retire_oldest();
        }
        let merkle_root =
            (self.kind == Kind::Standard).then(|| job.merkle_root(&self.extranonce(&[0; ROLLABLE_LEN])));
        let channel_job = ChannelJob { job_id, job: job.clone(), target: self.target, min_ntime };
        self.jobs.push_back((channel_job, merkle_root));
        (merkle_root, new_tip)
    }

    /// Judges a submitted share; `rolled` is the miner's part of the extranonce on an extended channel.
    pub(super) fn submit(
        &mut self,
        job_id: u32,
        submission: Submission,
        rolled: Option<&[u8]>,
        now: u32,
    ) -> Result<ValidShare, Reason> {
        let Some((channel_job, merkle_root)) = self.jobs.iter().find(|(job, _)| job.job_id == job_id) else {
            let known = self.retired.contains(&job_id);
            return Err(if known { Reason::ShareStale } else { Reason::ShareJobUnknown });
        };
        let rolled: [u8; ROLLABLE_LEN] = match rolled {
            None => [0; ROLLABLE_LEN],
            Some(bytes) => bytes.try_into().map_err(|_| Reason::ShareExtranonceSizeInvalid)?,
        };
        let extranonce = self.extranonce(&rolled);
        let merkle_root = merkle_root.unwrap_or_else(|| channel_job.job.merkle_root(&extranonce));
        share::validate(channel_job, submission, extranonce, merkle_root, &mut self.seen, now)
    }

    /// The share was valid but could not be recorded: its miner may send it again.
    pub(super) fn forget(&mut self, share: &ValidShare) {
        self.seen.forget(share);
    }

    fn retire_oldest(&mut self) -> bool {
        let Some((job, _)) = self.jobs.pop_front() else { return false };
        if self.retired.len() == MAX_RETIRED {
            self.retired.pop_front();
        }
        self.retired.push_back(job.job_id);
        true
    }

    fn extranonce(&self, rolled: &[u8; ROLLABLE_LEN]) -> [u8; EXTRANONCE_LEN] {
        let mut extranonce = [0; EXTRANONCE_LEN];
        extranonce[..PREFIX_LEN].copy_from_slice(&self.prefix);
        extranonce[PREFIX_LEN..].copy_from_slice(rolled);
        extranonce
    }
}
