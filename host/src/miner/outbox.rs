//! What a connection sends: messages sealed into bytes, jobs as the messages they consist of.

use super::channel::Channel;
use crate::{job::Job, noise::Sealer, reason::Reason, sv2};
use binary_sv2::{Encodable, GetSize, Seq0255, Str0255, Sv2Option, U256};
use bitcoin::{Target, hashes::Hash};
use mining_sv2::{NewExtendedMiningJob, NewMiningJob, SetNewPrevHash, SetTarget};
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

/// Sealed bytes that wait to be written.
pub(super) struct Outbox {
    sealer: Sealer,
    pub(super) bytes: Vec<u8>,
}

impl Outbox {
    pub(super) fn new(sealer: Sealer) -> Self {
        Self { sealer, bytes: Vec::new() }
    }

    pub(super) fn send<M: IsSv2Message + Encodable + GetSize>(&mut self, message: M) -> Result<(), Close> {
        sv2::encode(&mut self.sealer, message, &mut self.bytes)
            .map_err(|error| Close::new(Reason::InternalError, error.to_string()))
    }
}

/// Sends a job: on a new tip as a future job and the SetNewPrevHash that names it, otherwise active.
pub(super) fn send_job(
    channel: &mut Channel,
    job: &Arc<Job>,
    next_job_id: &mut u32,
    out: &mut Outbox,
) -> Result<(), Close> {
    if channel.retarget(Some(job)) {
        send_target(channel.id, channel.target, out)?;
    }
    let job_id = *next_job_id;
    *next_job_id = next_job_id.wrapping_add(1);
    let template = &job.template;
    let ntime = template.current_time.max(template.min_time);
    let (merkle_root, new_tip) = channel.add_job(job_id, job, ntime);
    let min_ntime = Sv2Option::new((!new_tip).then_some(ntime));
    let version = template.version.to_consensus().cast_unsigned();
    match merkle_root {
        Some(root) => out.send(Mining::NewMiningJob(NewMiningJob {
            channel_id: channel.id,
            job_id,
            min_ntime,
            version,
            merkle_root: U256::from(root.as_raw_hash().as_byte_array()),
        }))?,
        None => out.send(Mining::NewExtendedMiningJob(NewExtendedMiningJob {
            channel_id: channel.id,
            job_id,
            min_ntime,
            version,
            version_rolling_allowed: true,
            merkle_path: Seq0255::new(template.facts.merkle_path.iter().map(U256::from).collect())
                .map_err(impossible)?,
            coinbase_tx_prefix: job.coinbase_prefix.as_slice().try_into().map_err(impossible)?,
            coinbase_tx_suffix: job.coinbase_suffix.as_slice().try_into().map_err(impossible)?,
        }))?,
    }
    if new_tip {
        out.send(Mining::SetNewPrevHash(SetNewPrevHash {
            channel_id: channel.id,
            job_id,
            prev_hash: U256::from(template.previous_block_hash.as_byte_array()),
            min_ntime: ntime,
            nbits: template.bits.to_consensus(),
        }))?;
    }
    Ok(())
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
