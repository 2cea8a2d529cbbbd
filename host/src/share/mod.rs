//! Shares: what a miner sends back, and when it counts.
//!
//! [`validate`] is pure: a submission, the job it names with the target the channel had for it, and
//! the time go in; a [`ValidShare`] or the reason comes out. `ValidShare` is the only thing the
//! ledger takes, and only this room makes one. Duplicates are found by the header hash, which covers
//! everything a miner can vary, so the same work never counts twice even across jobs ([`Seen`]).
//!
//! - [`target`]: hash rate to target and difficulty

pub mod target;

use crate::{
    job::{EXTRANONCE_LEN, Job},
    reason::Reason,
};
use bitcoin::{BlockHash, Target, TxMerkleNode, block::Header, hashes::Hash};
use std::{collections::HashSet, sync::Arc};

/// Version bits a miner may roll (BIP 323).
pub const VERSION_ROLLING_MASK: u32 = 0x1fff_ffe0;

/// How far ahead of our clock a share's time may lie, seconds: what nodes accept in a header.
const MAX_FUTURE_NTIME: u32 = 2 * 60 * 60;

/// Header fields a miner chose (SV2 SubmitSharesStandard and SubmitSharesExtended).
#[derive(Clone, Copy, Debug)]
pub struct Submission {
    /// Header nonce.
    pub nonce: u32,
    /// Header time, Unix seconds.
    pub ntime: u32,
    /// Full header version.
    pub version: u32,
}

/// A job as one channel has it.
#[derive(Clone, Debug)]
pub struct ChannelJob {
    /// The id the channel knows it by.
    pub job_id: u32,
    /// The shared job.
    pub job: Arc<Job>,
    /// The target that was in force on the channel when the job was sent.
    pub target: Target,
    /// Smallest header time, Unix seconds.
    pub min_ntime: u32,
}

/// A share that counts.
#[derive(Debug)]
#[expect(
    clippy::manual_non_exhaustive,
    reason = "the private field keeps other rooms of this crate out, too"
)]
pub struct ValidShare {
    /// The job it was mined on.
    pub job: Arc<Job>,
    /// Its header.
    pub header: Header,
    /// Its hash; also its identity (`share_id`), since it covers channel (through the extranonce
    /// prefix), job, nonce, time, version, extranonce and tip.
    pub hash: BlockHash,
    /// The full extranonce.
    pub extranonce: [u8; EXTRANONCE_LEN],
    /// The target it had to meet.
    pub target: Target,
    /// It also meets the network's target.
    pub solves_block: bool,
    _only_here: (),
}

/// Judges one share. `merkle_root` belongs to `extranonce` and the job.
///
/// # Errors
/// The reason of category `share` that applies first.
pub fn validate(
    channel_job: &ChannelJob,
    submission: Submission,
    extranonce: [u8; EXTRANONCE_LEN],
    merkle_root: TxMerkleNode,
    seen: &mut Seen,
    now: u32,
) -> Result<ValidShare, Reason> {
    let job = &channel_job.job;
    let rolled = submission.version ^ job.template.version.to_consensus().cast_unsigned();
    if rolled & !VERSION_ROLLING_MASK != 0 {
        return Err(Reason::ShareVersionBitsInvalid);
    }
    let latest = now.saturating_add(MAX_FUTURE_NTIME);
    if !(channel_job.min_ntime..=latest).contains(&submission.ntime) {
        return Err(Reason::ShareNtimeOutOfRange);
    }
    let header = job.header(merkle_root, submission.version, submission.ntime, submission.nonce);
    let hash = header.block_hash();
    if !channel_job.target.is_met_by(hash) {
        return Err(Reason::ShareDifficultyTooLow);
    }
    seen.insert(hash)?;
    let solves_block = job.network_target.is_met_by(hash);
    let target = channel_job.target;
    Ok(ValidShare { job: job.clone(), header, hash, extranonce, target, solves_block, _only_here: () })
}

/// The shares a channel has had accepted under the current tip.
#[derive(Debug, Default)]
pub struct Seen(HashSet<[u8; 16]>);

impl Seen {
    /// Shares remembered per channel and tip; more are refused rather than counted twice.
    pub const CAPACITY: usize = 1 << 16;

    /// Forgets everything: the tip moved, so older work cannot be valid any more.
    pub fn clear(&mut self) {
        self.0 = HashSet::new();
    }

    fn insert(&mut self, hash: BlockHash) -> Result<(), Reason> {
        // The low half of a hash that meets a target is as good as random: 2^64 shares for one clash.
        let mut key = [0; 16];
        key.copy_from_slice(&hash.as_byte_array()[..16]);
        if self.0.contains(&key) {
            return Err(Reason::ShareDuplicate);
        }
        if self.0.len() >= Self::CAPACITY {
            return Err(Reason::ShareRateLimited);
        }
        self.0.insert(key);
        Ok(())
    }
}
