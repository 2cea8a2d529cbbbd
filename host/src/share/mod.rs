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
use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
};

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
    /// The difficulty of that target, computed once.
    pub difficulty: f64,
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
    /// The difficulty of that target.
    pub difficulty: f64,
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
    // A solved block counts whatever the channel's target and memory say; only twice it does not.
    let solves_block = job.network_target.is_met_by(hash);
    if !solves_block && !channel_job.target.is_met_by(hash) {
        return Err(Reason::ShareDifficultyTooLow);
    }
    seen.insert(header.prev_blockhash, hash, solves_block)?;
    let ChannelJob { target, difficulty, .. } = *channel_job;
    let job = job.clone();
    Ok(ValidShare { job, header, hash, extranonce, target, difficulty, solves_block, _only_here: () })
}

/// The shares a channel has had accepted, by the tip they were mined on.
///
/// A few tips are kept: after a reorganisation there and back, work of before must still be known.
#[derive(Debug, Default)]
pub struct Seen(VecDeque<(BlockHash, HashSet<[u8; 16]>)>);

impl Seen {
    /// Shares remembered per channel and tip; more are refused rather than counted twice.
    pub const CAPACITY: usize = 1 << 16;
    /// Tips remembered.
    pub const TIPS: usize = 4;

    /// Forgets a share that was not recorded after all, so that it may be sent again.
    pub fn forget(&mut self, hash: BlockHash) {
        self.0.iter_mut().for_each(|(_, seen)| _ = seen.remove(&key(hash)));
    }

    fn insert(&mut self, tip: BlockHash, hash: BlockHash, always: bool) -> Result<(), Reason> {
        let at = self.0.iter().position(|(known, _)| *known == tip);
        let at = at.unwrap_or_else(|| {
            self.0.truncate(Self::TIPS - 1);
            self.0.push_front((tip, HashSet::new()));
            0
        });
        let seen = &mut self.0[at].1;
        if seen.contains(&key(hash)) {
            return Err(Reason::ShareDuplicate);
        }
        if seen.len() >= Self::CAPACITY && !always {
            return Err(Reason::ShareRateLimited);
        }
        seen.insert(key(hash));
        Ok(())
    }
}

/// The low half of a hash that meets a target is as good as random: 2^64 shares for one clash.
fn key(hash: BlockHash) -> [u8; 16] {
    let mut key = [0; 16];
    key.copy_from_slice(&hash.as_byte_array()[..16]);
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(n: u8) -> BlockHash {
        BlockHash::from_byte_array([n; 32])
    }

    #[test]
    fn the_same_work_is_a_duplicate_even_after_a_reorganisation_there_and_back() {
        let mut seen = Seen::default();
        let (tip_a, tip_b) = (hash(1), hash(2));
        assert_eq!(seen.insert(tip_a, hash(10), false), Ok(()));
        assert_eq!(seen.insert(tip_b, hash(11), false), Ok(()));
        assert_eq!(seen.insert(tip_a, hash(10), false), Err(Reason::ShareDuplicate));
    }

    #[test]
    fn what_is_remembered_is_bounded_in_tips_and_in_shares() {
        let mut seen = Seen::default();
        for tip in 0..100 {
            assert_eq!(seen.insert(hash(tip), hash(200), false), Ok(()));
        }
        assert_eq!(seen.0.len(), Seen::TIPS);
        let mut bytes = [0; 32];
        for n in 0..Seen::CAPACITY as u32 {
            bytes[..4].copy_from_slice(&n.to_le_bytes());
            assert_eq!(seen.insert(hash(255), BlockHash::from_byte_array(bytes), false), Ok(()));
        }
        assert_eq!(seen.insert(hash(255), hash(9), false), Err(Reason::ShareRateLimited));
        assert_eq!(seen.insert(hash(255), hash(9), true), Ok(()), "a solved block is never turned away");
    }
}
