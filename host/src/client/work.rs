//! Jobs as a miner has them: put together from the messages, nothing else.

use anyhow::{Context, Result};
use bitcoin::{
    BlockHash, CompactTarget, Target, TxMerkleNode,
    block::{Header, Version},
    hashes::{Hash, sha256d},
    secp256k1::rand::{RngCore, thread_rng},
};
use mining_sv2::{NewExtendedMiningJob, NewMiningJob, SetNewPrevHash};

/// Everything needed to hash one job.
#[derive(Clone, Debug)]
pub(super) struct Assignment {
    pub(super) channel_id: u32,
    pub(super) job_id: u32,
    pub(super) header: Header,
    pub(super) target: Target,
    /// What was rolled into the coinbase; `None` on a standard channel.
    pub(super) extranonce: Option<Vec<u8>>,
}

/// A share to submit.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) channel_id: u32,
    pub(super) job_id: u32,
    pub(super) nonce: u32,
    pub(super) ntime: u32,
    pub(super) version: u32,
    pub(super) extranonce: Option<Vec<u8>>,
}

#[derive(Clone, Debug)]
struct Job {
    id: u32,
    version: u32,
    merkle_root: TxMerkleNode,
    extranonce: Option<Vec<u8>>,
    target: Target,
}

#[derive(Clone, Copy, Debug)]
struct Tip {
    prev_hash: BlockHash,
    bits: CompactTarget,
}

/// The state of one channel.
#[derive(Debug)]
pub(super) struct MinerWork {
    channel_id: u32,
    target: Target,
    prefix: Vec<u8>,
    extranonce_size: usize,
    future: Option<Job>,
    active: Option<(Job, u32)>,
    tip: Option<Tip>,
}

impl Default for MinerWork {
    fn default() -> Self {
        Self {
            channel_id: 0,
            target: Target::ZERO,
            prefix: Vec::new(),
            extranonce_size: 0,
            future: None,
            active: None,
            tip: None,
        }
    }
}

impl MinerWork {
    pub(super) fn open(&mut self, channel_id: u32, target: Target, prefix: &[u8], extranonce_size: usize) {
        *self = Self { channel_id, target, prefix: prefix.to_vec(), extranonce_size, ..Self::default() };
    }

    /// For jobs that come after it.
    pub(super) fn set_target(&mut self, target: Target) {
        self.target = target;
        if let Some(job) = &mut self.future {
            job.target = target;
        }
    }

    /// For jobs that come after it.
    pub(super) fn set_prefix(&mut self, prefix: &[u8]) {
        self.prefix = prefix.to_vec();
    }

    /// True when the job is active at once.
    pub(super) fn standard_job(&mut self, m: &NewMiningJob<'_>) -> bool {
        let merkle_root = TxMerkleNode::from_byte_array(*m.merkle_root.as_array());
        self.job(m.job_id, m.version, merkle_root, None, m.min_ntime.clone().into_inner())
    }

    /// True when the job is active at once.
    pub(super) fn extended_job(&mut self, m: &NewExtendedMiningJob<'_>) -> bool {
        let mut extranonce = vec![0; self.extranonce_size];
        thread_rng().fill_bytes(&mut extranonce);
        let coinbase =
            [m.coinbase_tx_prefix.as_bytes(), &self.prefix, &extranonce, m.coinbase_tx_suffix.as_bytes()]
                .concat();
        let root = m.merkle_path.iter().fold(sha256d::Hash::hash(&coinbase), |hash, sibling| {
            sha256d::Hash::hash(&[hash.as_byte_array(), sibling.as_bytes()].concat())
        });
        let merkle_root = TxMerkleNode::from_raw_hash(root);
        self.job(m.job_id, m.version, merkle_root, Some(extranonce), m.min_ntime.clone().into_inner())
    }

    fn job(
        &mut self,
        id: u32,
        version: u32,
        merkle_root: TxMerkleNode,
        extranonce: Option<Vec<u8>>,
        ntime: Option<u32>,
    ) -> bool {
        let job = Job { id, version, merkle_root, extranonce, target: self.target };
        match ntime {
            None => self.future = Some(job),
            Some(ntime) => self.active = Some((job, ntime)),
        }
        ntime.is_some()
    }

    pub(super) fn new_prev_hash(&mut self, m: &SetNewPrevHash<'_>) -> Result<()> {
        let job = self.future.take().filter(|job| job.id == m.job_id);
        let job = job.context("SetNewPrevHash names a job that was not sent as a future job")?;
        self.active = Some((job, m.min_ntime));
        self.tip = Some(Tip {
            prev_hash: BlockHash::from_byte_array(*m.prev_hash.as_array()),
            bits: CompactTarget::from_consensus(m.nbits),
        });
        Ok(())
    }

    /// What to hash now.
    pub(super) fn current(&self) -> Option<Assignment> {
        let ((job, ntime), tip) = (self.active.as_ref()?, self.tip?);
        Some(Assignment {
            channel_id: self.channel_id,
            job_id: job.id,
            header: Header {
                version: Version::from_consensus(job.version.cast_signed()),
                prev_blockhash: tip.prev_hash,
                merkle_root: job.merkle_root,
                time: *ntime,
                bits: tip.bits,
                nonce: 0,
            },
            target: job.target,
            extranonce: job.extranonce.clone(),
        })
    }
}
