//! Records as JSON, the form of the events of the same name, without a copy of anything: the backend is sent
//! a hundred thousand shares a second.

use super::record::{Accepted, Record};
use crate::reason::Reason;
use serde::{Serialize, Serializer};

impl Record<'_> {
    /// As JSON: the form of the event of the same name.
    pub fn json(&self) -> Json<'_> {
        match self {
            Self::Accepted(r) => Json::Accepted(r.json()),
            Self::Forwarded(r) => Json::Forwarded(ForwardedJson {
                time_ms: r.time_ms,
                event: "share_forward_result",
                share_id: ReversedHex(&r.share_id),
                reason: r.reason(),
                detail: r.detail,
                attempts: r.attempts,
            }),
            Self::Block(r) => Json::Block(BlockJson {
                time_ms: r.time_ms,
                event: "block_found",
                reason: r.outcome.reason(),
                hash: ReversedHex(&r.share_id),
                height: r.height,
                user_identity: r.user_identity,
                detail: r.detail,
                coinbase_value: r.coinbase_value,
            }),
        }
    }
}

impl Accepted<'_> {
    /// As JSON: what the pool backend is sent.
    pub fn json(&self) -> AcceptedJson<'_> {
        AcceptedJson {
            time_ms: self.time_ms,
            event: "share_accepted",
            share_id: ReversedHex(&self.share_id),
            user_identity: self.user_identity,
            worker: self.worker,
            connection: self.connection,
            channel: self.channel,
            job: self.job,
            template: Hex(&self.template),
            height: self.height,
            previous_block_hash: ReversedHex(&self.previous_block_hash),
            difficulty: self.difficulty,
            version: self.version,
            ntime: self.ntime,
            nonce: self.nonce,
            extranonce: Hex(&self.extranonce),
            held: self.held,
            solves_block: self.solves_block,
        }
    }
}

/// A record as JSON.
#[derive(Serialize)]
#[serde(untagged)]
#[expect(missing_docs, reason = "the records document it")]
pub enum Json<'a> {
    Accepted(AcceptedJson<'a>),
    Forwarded(ForwardedJson<'a>),
    Block(BlockJson<'a>),
}

/// [`Accepted`] as JSON, without a copy of anything.
#[derive(Serialize)]
pub struct AcceptedJson<'a> {
    time_ms: u64,
    event: &'static str,
    share_id: ReversedHex<'a>,
    user_identity: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    worker: Option<&'a str>,
    connection: u64,
    channel: u32,
    job: u64,
    template: Hex<'a>,
    height: u32,
    previous_block_hash: ReversedHex<'a>,
    difficulty: f64,
    version: u32,
    ntime: u32,
    nonce: u32,
    extranonce: Hex<'a>,
    held: bool,
    solves_block: bool,
}

/// [`Forwarded`] as JSON.
#[derive(Serialize)]
pub struct ForwardedJson<'a> {
    time_ms: u64,
    event: &'static str,
    share_id: ReversedHex<'a>,
    reason: Reason,
    detail: &'a str,
    attempts: u32,
}

/// [`Block`] as JSON.
#[derive(Serialize)]
pub struct BlockJson<'a> {
    time_ms: u64,
    event: &'static str,
    reason: Reason,
    hash: ReversedHex<'a>,
    height: u32,
    user_identity: &'a str,
    detail: &'a str,
    coinbase_value: u64,
}

/// Bytes in their order.
struct Hex<'a>(&'a [u8]);

/// A hash as it is shown: the last byte first.
struct ReversedHex<'a>(&'a [u8; 32]);

impl Serialize for Hex<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = [0; 64];
        match text.get_mut(..2 * self.0.len()) {
            Some(text) => digits(self.0, text, serializer),
            None => serializer.serialize_str(&hex::encode(self.0)),
        }
    }
}

impl Serialize for ReversedHex<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut bytes = *self.0;
        bytes.reverse();
        digits(&bytes, &mut [0; 64], serializer)
    }
}

fn digits<S: Serializer>(bytes: &[u8], text: &mut [u8], serializer: S) -> Result<S::Ok, S::Error> {
    hex::encode_to_slice(bytes, text).map_err(serde::ser::Error::custom)?;
    serializer.serialize_str(std::str::from_utf8(text).map_err(serde::ser::Error::custom)?)
}
