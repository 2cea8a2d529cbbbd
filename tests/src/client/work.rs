//! Jobs and shares from the messages alone: what a miner's firmware computes, written once more.

use crate::gateway::Channel;
use anyhow::{Context, Result, bail, ensure};
use bitcoin::{
    BlockHash, CompactTarget, Target, Transaction, TxMerkleNode,
    block::{Header, Version},
    consensus::encode,
    hashes::{Hash, sha256d},
};
use parsers_sv2::MiningOwned;

/// A job and the tip it is on.
#[derive(Clone, Debug)]
pub struct Job {
    /// Its id.
    pub id: u32,
    /// Header version.
    pub version: u32,
    /// As the job message had it: `None` for a future job.
    pub min_ntime: Option<u32>,
    /// Header time to begin with: of the job, or of the SetNewPrevHash that made it current.
    pub ntime: u32,
    /// The tip, internal byte order.
    pub prev_hash: [u8; 32],
    /// Compact network target.
    pub nbits: u32,
    root: Root,
}

#[derive(Clone, Debug)]
enum Root {
    Given([u8; 32]),
    Coinbase { prefix: Vec<u8>, suffix: Vec<u8>, path: Vec<[u8; 32]> },
}

/// What a miner hands in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// The job.
    pub job_id: u32,
    /// Header nonce.
    pub nonce: u32,
    /// Header time, Unix seconds.
    pub ntime: u32,
    /// Header version.
    pub version: u32,
    /// The rolled part of the extranonce; `None` makes it a share of a standard channel.
    pub extranonce: Option<Vec<u8>>,
}

/// An open channel with its newest job.
#[derive(Clone, Debug)]
pub struct OpenChannel {
    /// Standard or extended.
    pub kind: Channel,
    /// Its id.
    pub id: u32,
    /// The id of its group.
    pub group: u32,
    /// Target of the Success, little-endian as it came.
    pub target: [u8; 32],
    /// The fixed part of the extranonce.
    pub extranonce_prefix: Vec<u8>,
    /// Bytes of extranonce to roll; 0 on a standard channel.
    pub extranonce_size: usize,
    /// The newest job.
    pub job: Job,
}

/// Whether a message gives one of these channels or groups something to mine.
pub(super) fn is_work_for(ids: [u32; 2], message: &MiningOwned) -> bool {
    match message {
        MiningOwned::NewMiningJob(m) => ids.contains(&m.channel_id),
        MiningOwned::NewExtendedMiningJob(m) => ids.contains(&m.channel_id),
        MiningOwned::SetNewPrevHash(m) => ids.contains(&m.channel_id),
        _ => false,
    }
}

impl OpenChannel {
    pub(super) fn from_messages(kind: Channel, request_id: u32, messages: &[MiningOwned]) -> Result<Self> {
        let [success, job, tip] = messages else { bail!("awaited three messages") };
        let job_of_nothing = Job {
            id: 0,
            version: 0,
            min_ntime: None,
            ntime: 0,
            prev_hash: [0; 32],
            nbits: 0,
            root: Root::Given([0; 32]),
        };
        let mut channel = match (kind, success) {
            (Channel::Standard, MiningOwned::OpenStandardMiningChannelSuccess(m))
                if m.request_id == request_id =>
            {
                Self {
                    kind,
                    id: m.channel_id,
                    group: m.group_channel_id,
                    target: m.target.to_array(),
                    extranonce_prefix: m.extranonce_prefix.as_bytes().to_vec(),
                    extranonce_size: 0,
                    job: job_of_nothing,
                }
            }
            (Channel::Extended, MiningOwned::OpenExtendedMiningChannelSuccess(m))
                if m.request_id == request_id =>
            {
                Self {
                    kind,
                    id: m.channel_id,
                    group: m.group_channel_id,
                    target: m.target.to_array(),
                    extranonce_prefix: m.extranonce_prefix.as_bytes().to_vec(),
                    extranonce_size: usize::from(m.extranonce_size),
                    job: job_of_nothing,
                }
            }
            _ => bail!("awaited the Success of request {request_id} first"),
        };
        let job_id = channel.take_job(job)?;
        ensure!(channel.job.min_ntime.is_none(), "the first job must be a future job, without min_ntime");
        channel.take_tip(job_id, tip)?;
        Ok(channel)
    }

    /// Takes over a job of the channel or of its group; gives the job's id.
    ///
    /// # Errors
    /// When the message is no job for this channel.
    pub fn take_job(&mut self, message: &MiningOwned) -> Result<u32> {
        let (channel_id, id, version, min_ntime, root) = match (self.kind, message) {
            (Channel::Standard, MiningOwned::NewMiningJob(m)) => {
                let root = Root::Given(m.merkle_root.to_array());
                (m.channel_id, m.job_id, m.version, m.min_ntime.as_ref().copied(), root)
            }
            // A standard channel makes its merkle root itself of a job for its group.
            (kind, MiningOwned::NewExtendedMiningJob(m))
                if kind == Channel::Extended || m.channel_id == self.group =>
            {
                let root = Root::Coinbase {
                    prefix: m.coinbase_tx_prefix.as_bytes().to_vec(),
                    suffix: m.coinbase_tx_suffix.as_bytes().to_vec(),
                    path: m.merkle_path.iter().map(|sibling| sibling.to_array()).collect(),
                };
                (m.channel_id, m.job_id, m.version, m.min_ntime.as_ref().copied(), root)
            }
            (kind, other) => bail!("awaited a job of a channel that is {kind:?}, came {other:?}"),
        };
        ensure!(
            [self.id, self.group].contains(&channel_id),
            "awaited a job of channel {}, came one of {channel_id}",
            self.id
        );
        let Job { ntime, prev_hash, nbits, .. } = self.job;
        self.job = Job { id, version, min_ntime, ntime: min_ntime.unwrap_or(ntime), prev_hash, nbits, root };
        Ok(id)
    }

    /// Takes over the tip, which must name the job.
    ///
    /// # Errors
    /// When the message is another, or names another job.
    pub fn take_tip(&mut self, job_id: u32, message: &MiningOwned) -> Result<()> {
        let MiningOwned::SetNewPrevHash(m) = message else {
            bail!("awaited SetNewPrevHash, came {message:?}")
        };
        ensure!([self.id, self.group].contains(&m.channel_id), "awaited one of channel {}: {m:?}", self.id);
        ensure!(m.job_id == job_id, "SetNewPrevHash names job {}, not {job_id}", m.job_id);
        self.job.ntime = m.min_ntime;
        self.job.prev_hash = m.prev_hash.to_array();
        self.job.nbits = m.nbits;
        Ok(())
    }

    /// The target of the Success, as a number.
    pub fn share_target(&self) -> Target {
        Target::from_le_bytes(self.target)
    }

    /// The target that solves a block.
    pub fn network_target(&self) -> Target {
        Target::from_compact(CompactTarget::from_consensus(self.job.nbits))
    }

    /// The coinbase transaction for an extranonce, on an extended channel.
    ///
    /// # Errors
    /// When prefix, extranonce and suffix are no transaction.
    pub fn coinbase(&self, extranonce: &[u8]) -> Result<Transaction> {
        let Root::Coinbase { prefix, suffix, .. } = &self.job.root else { bail!("a standard channel") };
        let bytes = [prefix, &self.extranonce_prefix[..], extranonce, suffix].concat();
        encode::deserialize(&bytes).context("the coinbase does not parse")
    }

    /// A share of the newest job that nobody has looked at yet: nonce and extranonce 0.
    pub fn share(&self) -> Share {
        let extranonce = (self.kind == Channel::Extended).then(|| vec![0; self.extranonce_size]);
        Share { job_id: self.job.id, nonce: 0, ntime: self.job.ntime, version: self.job.version, extranonce }
    }

    /// The header of a share of the newest job.
    pub fn header(&self, share: &Share) -> Header {
        let root = match &self.job.root {
            Root::Given(root) => sha256d::Hash::from_byte_array(*root),
            Root::Coinbase { prefix, suffix, path } => {
                let rolled = share.extranonce.as_deref().unwrap_or_default();
                let coinbase = [prefix, &self.extranonce_prefix[..], rolled, suffix].concat();
                path.iter().fold(sha256d::Hash::hash(&coinbase), |hash, sibling| {
                    sha256d::Hash::hash(&[hash.to_byte_array(), *sibling].concat())
                })
            }
        };
        Header {
            version: Version::from_consensus(share.version.cast_signed()),
            prev_blockhash: BlockHash::from_byte_array(self.job.prev_hash),
            merkle_root: TxMerkleNode::from_raw_hash(root),
            time: share.ntime,
            bits: CompactTarget::from_consensus(self.job.nbits),
            nonce: share.nonce,
        }
    }

    /// The same share with the first nonce, from its own on, whose hash is as wanted.
    ///
    /// # Errors
    /// When there is none.
    pub fn find(&self, share: &Share, wanted: impl Fn(BlockHash) -> bool) -> Result<Share> {
        let mut header = self.header(share);
        while !wanted(header.block_hash()) {
            header.nonce = header.nonce.checked_add(1).context("no nonce gives such a hash")?;
        }
        Ok(Share { nonce: header.nonce, ..share.clone() })
    }

    /// A share that meets the channel's target and solves no block, from nonce `from` on.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    pub fn good_share(&self, from: u32) -> Result<Share> {
        let (share, network) = (self.share_target(), self.network_target());
        self.find(&Share { nonce: from, ..self.share() }, |hash| {
            share.is_met_by(hash) && !network.is_met_by(hash)
        })
    }

    /// A share that solves a block.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    pub fn solution(&self) -> Result<Share> {
        let network = self.network_target();
        self.find(&self.share(), |hash| network.is_met_by(hash))
    }
}
