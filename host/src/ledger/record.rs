//! The records of the ledger, in binary as they stand in the files and as the JSON that others read.
//!
//! Numbers are little-endian, texts have their length (u16) before them, hashes are in internal byte order.
//! A record holds everything about its share: nothing in it needs another record to be understood. The
//! number of a share is not stored: it is counted, in the order of the chain.

use crate::{event::schema, job::EXTRANONCE_LEN, reason::Reason};

/// The largest body of a record, bytes: the longest texts and room to spare.
pub const MAX_BODY: usize = 4096;
/// Longest text in a record, bytes; what is longer is cut.
const MAX_TEXT: usize = 1024;

/// A hash in internal byte order.
pub type Hash = [u8; 32];

/// A share that the miner is told Success for, once this is durable.
#[derive(Clone, Debug, PartialEq)]
pub struct Accepted<'a> {
    /// When it was written down, Unix milliseconds.
    pub time_ms: u64,
    /// The share's identity: its header hash.
    pub share_id: Hash,
    /// Digest of the job's template, as it is shown.
    pub template: Hash,
    /// The tip it was mined on.
    pub previous_block_hash: Hash,
    /// Number of the connection, in this run of the gateway.
    pub connection: u64,
    /// The channel's id on it.
    pub channel: u32,
    /// Number of the job.
    pub job: u64,
    /// Height of the block it would have become.
    pub height: u32,
    /// Difficulty it was credited with.
    pub difficulty: f64,
    /// Header version.
    pub version: u32,
    /// Header time, Unix seconds.
    pub ntime: u32,
    /// Header nonce.
    pub nonce: u32,
    /// The full extranonce.
    pub extranonce: [u8; EXTRANONCE_LEN],
    /// Mined on the last job while newer work was held back.
    pub held: bool,
    /// It solves the block.
    pub solves_block: bool,
    /// Who mined it.
    pub user_identity: &'a str,
    /// Which machine behind a proxy.
    pub worker: Option<&'a str>,
}

/// The pool's answer for one share.
#[derive(Clone, Debug, PartialEq)]
pub struct Forwarded<'a> {
    /// When it was written down, Unix milliseconds.
    pub time_ms: u64,
    /// Number of the share.
    pub share: u64,
    /// Its identity.
    pub share_id: Hash,
    /// Whether the pool took it.
    pub accepted: bool,
    /// How often it was sent.
    pub attempts: u32,
    /// The pool's words; may be empty.
    pub detail: &'a str,
}

/// The node's answer for a solved block.
#[derive(Clone, Debug, PartialEq)]
pub struct Block<'a> {
    /// When it was written down, Unix milliseconds.
    pub time_ms: u64,
    /// Hash of the block, also the id of the share that solved it.
    pub share_id: Hash,
    /// Its height.
    pub height: u32,
    /// What it pays, satoshi.
    pub coinbase_value: u64,
    /// What became of it: `block_submitted`, `block_rejected_by_node`, `block_unconfirmed` or
    /// `block_submit_failed`.
    pub outcome: BlockOutcome,
    /// Who mined it.
    pub user_identity: &'a str,
    /// The node's words; may be empty.
    pub detail: &'a str,
}

/// What became of a solved block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockOutcome {
    /// The node took it.
    Submitted,
    /// The node refused it.
    Rejected,
    /// It could not be delivered.
    Failed,
    /// It was delivered to somebody who gives no answer.
    Unconfirmed,
}

impl BlockOutcome {
    /// The outcome that a reason of the category `block` says.
    pub fn of(reason: Reason) -> Self {
        match reason {
            Reason::BlockSubmitted => Self::Submitted,
            Reason::BlockRejectedByNode => Self::Rejected,
            Reason::BlockUnconfirmed => Self::Unconfirmed,
            _ => Self::Failed,
        }
    }

    /// Its reason.
    pub fn reason(self) -> Reason {
        match self {
            Self::Submitted => Reason::BlockSubmitted,
            Self::Rejected => Reason::BlockRejectedByNode,
            Self::Failed => Reason::BlockSubmitFailed,
            Self::Unconfirmed => Reason::BlockUnconfirmed,
        }
    }
}

/// One record.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "each variant's struct documents it")]
pub enum Record<'a> {
    Accepted(Accepted<'a>),
    Forwarded(Forwarded<'a>),
    Block(Block<'a>),
}

const ACCEPTED: u8 = 1;
const FORWARDED: u8 = 2;
const BLOCK: u8 = 3;

const HELD: u8 = 1;
const SOLVES: u8 = 2;
const HAS_WORKER: u8 = 4;

impl Accepted<'_> {
    /// Appends the body.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(ACCEPTED);
        out.extend_from_slice(&self.time_ms.to_le_bytes());
        out.extend_from_slice(&self.share_id);
        out.extend_from_slice(&self.template);
        out.extend_from_slice(&self.previous_block_hash);
        out.extend_from_slice(&self.connection.to_le_bytes());
        out.extend_from_slice(&self.channel.to_le_bytes());
        out.extend_from_slice(&self.job.to_le_bytes());
        out.extend_from_slice(&self.height.to_le_bytes());
        out.extend_from_slice(&self.difficulty.to_le_bytes());
        out.extend_from_slice(&self.version.to_le_bytes());
        out.extend_from_slice(&self.ntime.to_le_bytes());
        out.extend_from_slice(&self.nonce.to_le_bytes());
        out.extend_from_slice(&self.extranonce);
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        let flags = [(self.held, HELD), (self.solves_block, SOLVES), (self.worker.is_some(), HAS_WORKER)];
        out.push(flags.into_iter().fold(0, |all, (set, bit)| all | flag(set, bit)));
        text(out, self.user_identity);
        if let Some(worker) = self.worker {
            text(out, worker);
        }
    }

    /// As the event bus tells it.
    pub fn event(&self) -> schema::ShareAccepted {
        schema::ShareAccepted {
            share_id: reversed(&self.share_id),
            user_identity: self.user_identity.to_owned(),
            worker: self.worker.map(str::to_owned),
            connection: self.connection,
            channel: self.channel,
            job: self.job,
            template: hex::encode(self.template),
            height: self.height,
            previous_block_hash: reversed(&self.previous_block_hash),
            difficulty: self.difficulty,
            version: self.version,
            ntime: self.ntime,
            nonce: self.nonce,
            extranonce: hex::encode(self.extranonce),
            held: self.held,
            solves_block: self.solves_block,
        }
    }
}

impl Forwarded<'_> {
    /// Appends the body.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(FORWARDED);
        out.extend_from_slice(&self.time_ms.to_le_bytes());
        out.extend_from_slice(&self.share.to_le_bytes());
        out.extend_from_slice(&self.share_id);
        out.push(u8::from(self.accepted));
        out.extend_from_slice(&self.attempts.to_le_bytes());
        text(out, self.detail);
    }

    /// The reason it stands for.
    pub fn reason(&self) -> Reason {
        if self.accepted { Reason::ForwardAccepted } else { Reason::ForwardRejected }
    }

    /// As the event bus tells it.
    pub fn event(&self) -> schema::ShareForwardResult {
        schema::ShareForwardResult {
            share_id: reversed(&self.share_id),
            reason: self.reason(),
            detail: self.detail.to_owned(),
            attempts: self.attempts,
        }
    }
}

impl Block<'_> {
    /// Appends the body.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(BLOCK);
        out.extend_from_slice(&self.time_ms.to_le_bytes());
        out.extend_from_slice(&self.share_id);
        out.extend_from_slice(&self.height.to_le_bytes());
        out.extend_from_slice(&self.coinbase_value.to_le_bytes());
        out.push(match self.outcome {
            BlockOutcome::Submitted => 0,
            BlockOutcome::Rejected => 1,
            BlockOutcome::Failed => 2,
            BlockOutcome::Unconfirmed => 3,
        });
        text(out, self.user_identity);
        text(out, self.detail);
    }
}

impl<'a> Record<'a> {
    /// Reads a body; `None` when it is none.
    pub fn decode(body: &'a [u8]) -> Option<Self> {
        let mut rest = Rest(body);
        let record = match rest.u8()? {
            ACCEPTED => {
                let mut accepted = Accepted {
                    time_ms: rest.u64()?,
                    share_id: rest.bytes()?,
                    template: rest.bytes()?,
                    previous_block_hash: rest.bytes()?,
                    connection: rest.u64()?,
                    channel: rest.u32()?,
                    job: rest.u64()?,
                    height: rest.u32()?,
                    difficulty: f64::from_le_bytes(rest.bytes()?),
                    version: rest.u32()?,
                    ntime: rest.u32()?,
                    nonce: rest.u32()?,
                    extranonce: rest.bytes()?,
                    held: false,
                    solves_block: false,
                    user_identity: "",
                    worker: None,
                };
                let flags = rest.u8()?;
                accepted.held = flags & HELD != 0;
                accepted.solves_block = flags & SOLVES != 0;
                accepted.user_identity = rest.text()?;
                if flags & HAS_WORKER != 0 {
                    accepted.worker = Some(rest.text()?);
                }
                Self::Accepted(accepted)
            }
            FORWARDED => Self::Forwarded(Forwarded {
                time_ms: rest.u64()?,
                share: rest.u64()?,
                share_id: rest.bytes()?,
                accepted: match rest.u8()? {
                    0 => false,
                    1 => true,
                    _ => return None,
                },
                attempts: rest.u32()?,
                detail: rest.text()?,
            }),
            BLOCK => Self::Block(Block {
                time_ms: rest.u64()?,
                share_id: rest.bytes()?,
                height: rest.u32()?,
                coinbase_value: rest.u64()?,
                outcome: match rest.u8()? {
                    0 => BlockOutcome::Submitted,
                    1 => BlockOutcome::Rejected,
                    2 => BlockOutcome::Failed,
                    3 => BlockOutcome::Unconfirmed,
                    _ => return None,
                },
                user_identity: rest.text()?,
                detail: rest.text()?,
            }),
            _ => return None,
        };
        rest.0.is_empty().then_some(record)
    }

    /// When it was written down, Unix milliseconds.
    pub fn time_ms(&self) -> u64 {
        match self {
            Self::Accepted(record) => record.time_ms,
            Self::Forwarded(record) => record.time_ms,
            Self::Block(record) => record.time_ms,
        }
    }

    /// The share it is about.
    pub fn share_id(&self) -> &Hash {
        match self {
            Self::Accepted(record) => &record.share_id,
            Self::Forwarded(record) => &record.share_id,
            Self::Block(record) => &record.share_id,
        }
    }
}

/// A hash as it is shown.
pub fn reversed(hash: &Hash) -> String {
    let mut bytes = *hash;
    bytes.reverse();
    hex::encode(bytes)
}

fn text(out: &mut Vec<u8>, text: &str) {
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    // Cut to less than a u16 holds.
    out.extend_from_slice(&u16::try_from(end).unwrap_or_default().to_le_bytes());
    out.extend_from_slice(&text.as_bytes()[..end]);
}

/// What is left of a body.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*bytes)
    }

    fn u8(&mut self) -> Option<u8> {
        self.bytes().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Option<u32> {
        self.bytes().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.bytes().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = usize::from(u16::from_le_bytes(self.bytes()?));
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        std::str::from_utf8(text).ok()
    }
}

#[cfg(test)]
#[path = "record_tests.rs"]
pub(super) mod tests;
