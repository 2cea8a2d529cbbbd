//! A CPU miner that speaks Stratum V2 over Noise: for demonstrations, for tests, and to try a gateway
//! from another machine. Not for profit.
//!
//! It shares with the server only what both sides of the wire need (Noise, frames, SRI's messages) and
//! builds headers from the messages alone, so that it notices when the server sends something wrong.
//!
//! - `work`: jobs as a miner has them, from the messages
//! - `hash`: the hashing thread
//! - here: the conversation

mod hash;
mod work;

use crate::{
    dial::{Introduction, Link},
    noise::AuthorityPublicKey,
    share::target,
    sv2::{Side, setup},
};
use anyhow::{Context, Result, bail};
use binary_sv2::U256;
use bitcoin::Target;
use common_messages_sv2::Protocol;
use mining_sv2::{
    OpenExtendedMiningChannel, OpenStandardMiningChannel, SubmitSharesExtended, SubmitSharesStandard,
};
use parsers_sv2::Mining;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use work::{Found, MinerWork};

/// For each wait: connecting, the handshake, setup, sending.
const PATIENCE: Duration = Duration::from_secs(10);

/// How to mine.
#[derive(Clone, Debug)]
pub struct MinerConfig {
    /// Address of the gateway, `host:port`.
    pub connect: String,
    /// The gateway's authority key; without it the connection leads to whoever answers.
    pub authority_key: Option<AuthorityPublicKey>,
    /// Who mines.
    pub user_identity: String,
    /// Open an extended channel instead of a standard one.
    pub extended: bool,
    /// Hashes a second to stay below; also what the gateway is told.
    pub hashrate: u64,
    /// Connect again after the connection has ended.
    pub reconnect: bool,
}

/// What happened, for whoever shows it.
#[derive(Clone, Debug)]
pub enum MinerEvent {
    /// The channel is open.
    Opened {
        /// The channel's id.
        channel_id: u32,
        /// Difficulty of its shares.
        difficulty: f64,
    },
    /// There is a new job.
    Job {
        /// Its id.
        job_id: u32,
        /// It is on another tip than the one before.
        new_tip: bool,
    },
    /// The gateway took shares.
    Accepted {
        /// How many.
        count: u32,
    },
    /// The gateway refused a share.
    Rejected {
        /// The SV2 error code.
        code: String,
    },
    /// The connection ended.
    Closed {
        /// Why.
        reason: String,
    },
}

/// Mines until `stop` becomes true, or, without `reconnect`, until the connection ends.
///
/// # Errors
/// Without `reconnect`: why the connection ended.
pub async fn mine(
    config: MinerConfig,
    events: mpsc::Sender<MinerEvent>,
    mut stop: watch::Receiver<bool>,
) -> Result<()> {
    loop {
        let ended = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
            ended = session(&config, &events) => ended,
        };
        let Err(error) = ended;
        let reason = format!("{error:#}");
        let _ = events.send(MinerEvent::Closed { reason }).await;
        if !config.reconnect {
            return Err(error);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn session(
    config: &MinerConfig,
    events: &mpsc::Sender<MinerEvent>,
) -> Result<std::convert::Infallible> {
    let mut link = Link::connect(&config.connect, config.authority_key, Side::Server, PATIENCE).await?;
    let flags = if config.extended { setup::REQUIRES_VERSION_ROLLING } else { setup::REQUIRES_STANDARD_JOBS };
    let protocol = Protocol::MiningProtocol;
    let who = Introduction { protocol, flags, endpoint: &config.connect, device: "CPU" };
    link.setup(who, PATIENCE).await?;
    let easiest = target::easiest().to_le_bytes();
    let user_identity = config.user_identity.as_str().try_into().ok().context("the user name is too long")?;
    let nominal_hash_rate = config.hashrate as f32;
    let open = if config.extended {
        Mining::OpenExtendedMiningChannel(OpenExtendedMiningChannel {
            request_id: 1,
            user_identity,
            nominal_hash_rate,
            max_target: U256::from(&easiest),
            min_extranonce_size: 4,
        })
    } else {
        Mining::OpenStandardMiningChannel(OpenStandardMiningChannel {
            request_id: 1,
            user_identity,
            nominal_hash_rate,
            max_target: U256::from(&easiest),
        })
    };
    link.send(open, PATIENCE).await?;
    let mut work = MinerWork::default();
    // Stops hashing when this function returns: the sender is dropped.
    let (jobs, jobs_seen) = watch::channel(None);
    let (found_sender, mut found) = mpsc::channel(64);
    let hashrate = config.hashrate;
    tokio::task::spawn_blocking(move || hash::run(jobs_seen, found_sender, hashrate));
    let mut sequence_number = 0;
    loop {
        tokio::select! {
            frame = link.next_frame() => {
                let mut frame = frame?;
                if frame.header.extension != 0 {
                    continue;
                }
                let message = Mining::try_from((frame.header.msg_type, &mut frame.payload[..]))
                    .map_err(|error| anyhow::anyhow!("a message of the gateway does not decode: {error:?}"))?;
                if let Some(event) = handle(message, &mut work)? {
                    // Only a new job: handing out the old one again would hash the same nonces again.
                    if matches!(event, MinerEvent::Job { .. }) {
                        jobs.send_replace(work.current());
                    }
                    let _ = events.send(event).await;
                }
            }
            Some(share) = found.recv() => {
                sequence_number += 1;
                link.send(submission(&share, sequence_number)?, PATIENCE).await?;
            }
        }
    }
}

fn submission(share: &Found, sequence_number: u32) -> Result<Mining<'_>> {
    let Found { channel_id, job_id, nonce, ntime, version, .. } = *share;
    Ok(match &share.extranonce {
        None => Mining::SubmitSharesStandard(SubmitSharesStandard {
            channel_id,
            sequence_number,
            job_id,
            nonce,
            ntime,
            version,
        }),
        Some(extranonce) => Mining::SubmitSharesExtended(SubmitSharesExtended {
            channel_id,
            sequence_number,
            job_id,
            nonce,
            ntime,
            version,
            extranonce: extranonce.as_slice().try_into().ok().context("the extranonce is too long")?,
        }),
    })
}

fn handle(message: Mining<'_>, work: &mut MinerWork) -> Result<Option<MinerEvent>> {
    Ok(Some(match message {
        Mining::OpenStandardMiningChannelSuccess(m) => {
            let target = Target::from_le_bytes(*m.target.as_array());
            work.open(m.channel_id, target, m.extranonce_prefix.as_bytes(), 0);
            MinerEvent::Opened { channel_id: m.channel_id, difficulty: target::difficulty(target) }
        }
        Mining::OpenExtendedMiningChannelSuccess(m) => {
            let target = Target::from_le_bytes(*m.target.as_array());
            work.open(m.channel_id, target, m.extranonce_prefix.as_bytes(), usize::from(m.extranonce_size));
            MinerEvent::Opened { channel_id: m.channel_id, difficulty: target::difficulty(target) }
        }
        Mining::OpenMiningChannelError(m) => bail!("no channel: {}", m.error_code.as_utf8_or_hex()),
        Mining::NewMiningJob(m) => match work.standard_job(&m) {
            true => MinerEvent::Job { job_id: m.job_id, new_tip: false },
            false => return Ok(None),
        },
        Mining::NewExtendedMiningJob(m) => match work.extended_job(&m) {
            true => MinerEvent::Job { job_id: m.job_id, new_tip: false },
            false => return Ok(None),
        },
        Mining::SetNewPrevHash(m) => {
            work.new_prev_hash(&m)?;
            MinerEvent::Job { job_id: m.job_id, new_tip: true }
        }
        Mining::SetTarget(m) => {
            work.set_target(Target::from_le_bytes(*m.maximum_target.as_array()));
            return Ok(None);
        }
        Mining::SetExtranoncePrefix(m) => {
            work.set_prefix(m.extranonce_prefix.as_bytes());
            return Ok(None);
        }
        Mining::SubmitSharesSuccess(m) => MinerEvent::Accepted { count: m.new_submits_accepted_count },
        Mining::SubmitSharesError(m) => MinerEvent::Rejected { code: m.error_code.as_utf8_or_hex() },
        Mining::CloseChannel(m) => {
            bail!("the gateway closed the channel: {}", m.reason_code.as_utf8_or_hex())
        }
        _ => return Ok(None),
    }))
}
