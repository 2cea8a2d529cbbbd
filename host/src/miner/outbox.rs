//! What a connection sends: messages sealed into bytes, jobs as the messages they consist of.

use super::channel::Channel;
use crate::{job::Job, noise::Sealer, reason::Reason, sv2};
use binary_sv2::{Encodable, GetSize, Seq0255, Str0255, Sv2Option, U256};
use bitcoin::{Target, TxMerkleNode, hashes::Hash};
use mining_sv2::{
    CHANNEL_BIT_NEW_EXTENDED_MINING_JOB, MESSAGE_TYPE_NEW_EXTENDED_MINING_JOB, NewExtendedMiningJob,
    NewMiningJob, SetNewPrevHash, SetTarget,
};
use parsers_sv2::{IsSv2Message, Mining};
use std::sync::Arc;

/// Why a connection ends.
#[derive(Debug)]
pub(super) struct Close {
    pub(super) reason: Reason,
    pub(super) detail: String,
}

impl Close {
    pub(super) fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }
}

/// Room that is kept for the next messages; more is given back once it was needed.
const KEPT: usize = 2 << 10;

/// Sealed bytes that wait to be written.
pub(super) struct Outbox {
    sealer: Sealer,
    pub(super) bytes: Vec<u8>,
}

impl Outbox {
    pub(super) fn new(sealer: Sealer) -> Self {
        Self { sealer, bytes: Vec::new() }
    }

    /// All of it was written, or never will be.
    pub(super) fn sent(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(KEPT);
    }

    pub(super) fn send<M: IsSv2Message + Encodable + GetSize>(&mut self, message: M) -> Result<(), Close> {
        sv2::encode(&mut self.sealer, message, &mut self.bytes)
            .map_err(|error| Close::new(Reason::InternalError, error.to_string()))
    }

    /// A message of the base protocol whose payload is encoded already.
    fn send_encoded(&mut self, msg_type: u8, channel_msg: bool, payload: &[u8]) -> Result<(), Close> {
        let header = sv2::Header { extension: 0, channel_msg, msg_type, length: payload.len() };
        self.sealer
            .seal_frame(&header.to_bytes(), payload, &mut self.bytes)
            .map_err(|error| Close::new(Reason::InternalError, error.to_string()))
    }
}

/// The smallest header time of a job when it is new, Unix seconds.
pub(super) fn first_ntime(job: &Job) -> u32 {
    job.template.current_time.max(job.template.min_time)
}

/// Sends one channel a job: on a tip that is new to it as a future job and the SetNewPrevHash that names
/// it, otherwise to be mined at once.
pub(super) fn send_job(
    channel: &mut Channel,
    job: &Arc<Job>,
    job_id: u32,
    ntime: u32,
    out: &mut Outbox,
) -> Result<(), Close> {
    if channel.retarget(Some(job)) {
        send_target(channel.id, channel.target, out)?;
    }
    let new_tip = channel.add_job(job_id, job, ntime);
    match channel.newest_merkle_root() {
        Some(root) => send_standard_job(channel.id, job, job_id, root, (!new_tip).then_some(ntime), out)?,
        None => send_extended_job(channel.id, job, job_id, (!new_tip).then_some(ntime), out)?,
    }
    if new_tip { send_tip(channel.id, job, job_id, ntime, out) } else { Ok(()) }
}

/// Sends all channels of a group a job, in one message and, on a new tip, a second one.
pub(super) fn send_group_job<'a>(
    group_id: u32,
    channels: impl Iterator<Item = &'a mut Channel>,
    job: &Arc<Job>,
    job_id: u32,
    out: &mut Outbox,
) -> Result<(), Close> {
    let ntime = first_ntime(job);
    let (mut any, mut new_tip) = (false, false);
    for channel in channels {
        if channel.retarget(Some(job)) {
            send_target(channel.id, channel.target, out)?;
        }
        // The same for all: they got their last job together, or at their opening, on the same tip.
        new_tip = channel.add_job(job_id, job, ntime);
        any = true;
    }
    if any {
        send_extended_job(group_id, job, job_id, (!new_tip).then_some(ntime), out)?;
    }
    if new_tip { send_tip(group_id, job, job_id, ntime, out) } else { Ok(()) }
}

/// Sends one channel a job for the tip after this one. It gets its target when its tip is told: SetTarget is
/// for future jobs that are out, too.
pub(super) fn send_future_job(
    channel: &mut Channel,
    job: &Job,
    job_id: u32,
    out: &mut Outbox,
) -> Result<(), Close> {
    channel.note_future(job_id, job);
    match channel.merkle_root(job) {
        Some(root) => send_standard_job(channel.id, job, job_id, root, None, out),
        None => send_extended_job(channel.id, job, job_id, None, out),
    }
}

/// The same for all channels of a group, in one message.
pub(super) fn send_future_group_job<'a>(
    group_id: u32,
    channels: impl Iterator<Item = &'a mut Channel>,
    job: &Job,
    job_id: u32,
    out: &mut Outbox,
) -> Result<(), Close> {
    let mut any = false;
    for channel in channels {
        channel.note_future(job_id, job);
        any = true;
    }
    if any { send_extended_job(group_id, job, job_id, None, out) } else { Ok(()) }
}

/// Tells channels that they have the job already, and on which tip it is: one message. `told` is the group, or
/// the one channel.
pub(super) fn activate_job<'a>(
    told: u32,
    channels: impl Iterator<Item = &'a mut Channel>,
    job: &Arc<Job>,
    job_id: u32,
    out: &mut Outbox,
) -> Result<(), Close> {
    let ntime = first_ntime(job);
    for channel in channels {
        if channel.retarget(Some(job)) {
            send_target(channel.id, channel.target, out)?;
        }
        channel.add_job(job_id, job, ntime);
    }
    send_tip(told, job, job_id, ntime, out)
}

fn send_standard_job(
    channel_id: u32,
    job: &Job,
    job_id: u32,
    merkle_root: TxMerkleNode,
    min_ntime: Option<u32>,
    out: &mut Outbox,
) -> Result<(), Close> {
    out.send(Mining::NewMiningJob(NewMiningJob {
        channel_id,
        job_id,
        min_ntime: Sv2Option::new(min_ntime),
        version: job.template.version.to_consensus().cast_unsigned(),
        merkle_root: U256::from(merkle_root.as_raw_hash().as_byte_array()),
    }))
}

fn send_extended_job(
    channel_id: u32,
    job: &Job,
    job_id: u32,
    min_ntime: Option<u32>,
    out: &mut Outbox,
) -> Result<(), Close> {
    let shared = match job.encoded.get() {
        Some(shared) => shared,
        None => {
            let shared = shared_part(job)?;
            job.encoded.get_or_init(|| shared)
        }
    };
    let option: &[u8] = if min_ntime.is_some() { &[1] } else { &[0] };
    let min_ntime = min_ntime.map(u32::to_le_bytes);
    let min_ntime = min_ntime.as_ref().map_or(&[][..], |time| &time[..]);
    let ids = [channel_id.to_le_bytes(), job_id.to_le_bytes()].concat();
    out.send_encoded(
        MESSAGE_TYPE_NEW_EXTENDED_MINING_JOB,
        CHANNEL_BIT_NEW_EXTENDED_MINING_JOB,
        &[&ids, option, min_ntime, shared].concat(),
    )
}

/// What NewExtendedMiningJob says to everybody alike: all of it after ids and time.
fn shared_part(job: &Job) -> Result<Vec<u8>, Close> {
    let path = job.template.facts.merkle_path.iter().map(U256::from).collect();
    let message = NewExtendedMiningJob {
        channel_id: 0,
        job_id: 0,
        min_ntime: Sv2Option::new(None),
        version: job.template.version.to_consensus().cast_unsigned(),
        version_rolling_allowed: true,
        merkle_path: Seq0255::new(path).map_err(impossible)?,
        coinbase_tx_prefix: job.coinbase_prefix.as_slice().try_into().map_err(impossible)?,
        coinbase_tx_suffix: job.coinbase_suffix.as_slice().try_into().map_err(impossible)?,
    };
    let mut bytes = vec![0; message.get_size()];
    message.to_bytes(&mut bytes).map_err(impossible)?;
    // Two ids and the byte that says that there is no time.
    bytes.drain(..4 + 4 + 1);
    Ok(bytes)
}

fn send_tip(channel_id: u32, job: &Job, job_id: u32, min_ntime: u32, out: &mut Outbox) -> Result<(), Close> {
    out.send(Mining::SetNewPrevHash(SetNewPrevHash {
        channel_id,
        job_id,
        prev_hash: U256::from(job.template.previous_block_hash.as_byte_array()),
        min_ntime,
        nbits: job.template.bits.to_consensus(),
    }))
}

pub(super) fn send_target(channel_id: u32, target: Target, out: &mut Outbox) -> Result<(), Close> {
    let bytes = target.to_le_bytes();
    out.send(Mining::SetTarget(SetTarget { channel_id, maximum_target: U256::from(&bytes) }))
}

/// The SV2 code of a reason as a message field; the gateway's own code where SV2 has none.
pub(super) fn code(reason: Reason) -> Str0255<'static> {
    text(reason.sv2_code().unwrap_or(reason.code()))
}

pub(super) fn text(code: &'static str) -> Str0255<'static> {
    #[expect(clippy::expect_used, reason = "reason codes are far shorter than 255 bytes")]
    code.try_into().expect("reason codes are far shorter than 255 bytes")
}

pub(super) fn impossible(error: impl std::fmt::Debug) -> Close {
    Close::new(Reason::InternalError, format!("{error:?}"))
}
