//! A raw Stratum V2 client: what tests say to the gateway, and what they hear, message by message.
//!
//! It shares no code with the gateway. Handshake, sealing and message structs are those of the reference
//! implementation (`noise_sv2`, `codec_sv2`, `mining_sv2`), which also checks the gateway's certificate
//! against its authority key; headers are hashed in [`work`] from the messages alone. So a mistake that
//! the gateway makes on both sides of its own code shows here.
//!
//! It can be polite ([`Client::setup`], [`Client::open`], [`Client::submit`]) or not
//! ([`Client::send_raw_frame`], [`Client::seal`], [`Client::send_bytes`]). Every message that comes is
//! checked for the `channel_msg` bit that the specification gives it, whatever the test is about.

mod gateway;
mod link;
mod work;

pub use gateway::{BITS, gateway_for_clients};
pub use link::{Frame, channel_bit};
pub use work::{Job, OpenChannel, Share};

use crate::gateway::Channel;
use anyhow::{Context, Result, anyhow, bail, ensure};
use binary_sv2::U256;
use codec_sv2::{NoiseDecoder, NoiseEncoder, TransportDecryptState, TransportEncryptState};
use mining_sv2::{
    OpenExtendedMiningChannel, OpenStandardMiningChannel, SubmitSharesExtended, SubmitSharesStandard,
    SubmitSharesSuccessOwned,
};
use parsers_sv2::{CommonMessagesOwned, Mining, MiningOwned};
use std::collections::{BTreeSet, VecDeque};
use tokio::net::TcpStream;

/// Client flag of SetupConnection: only standard jobs.
pub const REQUIRES_STANDARD_JOBS: u32 = 0b001;
/// Client flag of SetupConnection: brings its own templates.
pub const REQUIRES_WORK_SELECTION: u32 = 0b010;
/// Client flag of SetupConnection: rolls version bits.
pub const REQUIRES_VERSION_ROLLING: u32 = 0b100;
/// Server flag of SetupConnection.Success: only extended channels.
pub const REQUIRES_EXTENDED_CHANNELS: u32 = 0b010;

/// The largest target, which every hash meets.
pub const EASIEST: [u8; 32] = [0xff; 32];

/// One message.
#[derive(Clone, Debug)]
pub enum Message {
    /// Of all subprotocols.
    Common(CommonMessagesOwned),
    /// Of the mining protocol.
    Mining(MiningOwned),
}

/// What became of a share.
#[derive(Clone, Debug)]
pub enum Answer {
    /// SubmitShares.Success.
    Accepted(SubmitSharesSuccessOwned),
    /// SubmitShares.Error, with its code.
    Refused(String),
}

impl Answer {
    /// The error code; empty when there is none.
    pub fn code(&self) -> &str {
        match self {
            Self::Accepted(_) => "",
            Self::Refused(code) => code,
        }
    }

    /// Whether it is a Success.
    pub fn is_accepted(&self) -> bool {
        matches!(self, Self::Accepted(_))
    }
}

/// What an open request asks for.
#[derive(Clone, Debug)]
pub struct Open<'a> {
    /// Standard or extended.
    pub kind: Channel,
    /// The user identity, raw.
    pub user: &'a [u8],
    /// Nominal hash rate, hashes a second. 0 gives the easiest target.
    pub hashrate: f32,
    /// Maximum target, little-endian.
    pub max_target: [u8; 32],
    /// Smallest extranonce of an extended channel, bytes.
    pub min_extranonce_size: u16,
}

impl<'a> Open<'a> {
    /// A channel on which every hash is a share.
    pub fn new(kind: Channel, user: &'a str) -> Self {
        Self { kind, user: user.as_bytes(), hashrate: 0.0, max_target: EASIEST, min_extranonce_size: 4 }
    }
}

/// A connection after its handshake.
pub struct Client {
    stream: TcpStream,
    peer: String,
    encoder: NoiseEncoder,
    sealing: TransportEncryptState,
    decoder: NoiseDecoder,
    opening: Option<TransportDecryptState>,
    unread: Vec<u8>,
    waiting: VecDeque<Message>,
    seen: BTreeSet<u8>,
    next_number: u32,
}

impl Client {
    /// This end's address: the `peer` of the gateway's events.
    pub fn peer(&self) -> &str {
        &self.peer
    }

    /// The types of the messages that came, each of which had the right `channel_msg` bit.
    pub fn seen(&self) -> &BTreeSet<u8> {
        &self.seen
    }

    /// The sequence number of the last share, or the id of the last request.
    pub fn last_number(&self) -> u32 {
        self.next_number - 1
    }

    fn number(&mut self) -> u32 {
        self.next_number += 1;
        self.next_number - 1
    }

    /// Sets the connection up; the answer must be version 2, with the flag for extended channels when the
    /// client brings its own work and without flags otherwise.
    ///
    /// # Errors
    /// When the answer is another.
    pub async fn setup(&mut self, flags: u32) -> Result<()> {
        self.send_raw_frame(0, false, 0x00, &setup_payload(0, (2, 2), flags, "tests")).await?;
        match self.next_message().await? {
            Message::Common(CommonMessagesOwned::SetupConnectionSuccess(m)) => {
                let answer =
                    if flags & REQUIRES_WORK_SELECTION != 0 { REQUIRES_EXTENDED_CHANNELS } else { 0 };
                ensure!((m.used_version, m.flags) == (2, answer), "{m:?}");
                Ok(())
            }
            other => bail!("awaited SetupConnection.Success, came {other:?}"),
        }
    }

    /// Sends an open request; gives its request id.
    ///
    /// # Errors
    /// When it cannot be sent.
    pub async fn request_open(&mut self, open: &Open<'_>) -> Result<u32> {
        let request_id = self.number();
        let user_identity = open.user.try_into().map_err(|error| anyhow!("{error:?}"))?;
        let (nominal_hash_rate, max_target) = (open.hashrate, U256::from(&open.max_target));
        let message = match open.kind {
            Channel::Standard => Mining::OpenStandardMiningChannel(OpenStandardMiningChannel {
                request_id,
                user_identity,
                nominal_hash_rate,
                max_target,
            }),
            Channel::Extended => Mining::OpenExtendedMiningChannel(OpenExtendedMiningChannel {
                request_id,
                user_identity,
                nominal_hash_rate,
                max_target,
                min_extranonce_size: open.min_extranonce_size,
            }),
        };
        self.send(message).await?;
        Ok(request_id)
    }

    /// Opens a channel. The next three messages must be its Success, a future job, and the
    /// SetNewPrevHash that names this job.
    ///
    /// # Errors
    /// When something else comes.
    pub async fn open(&mut self, open: &Open<'_>) -> Result<OpenChannel> {
        let request_id = self.request_open(open).await?;
        let mut messages = Vec::new();
        for _ in 0..3 {
            match self.next_message().await? {
                Message::Mining(message) => messages.push(message),
                Message::Common(other) => bail!("awaited an open channel, came {other:?} after {messages:?}"),
            }
        }
        OpenChannel::from_messages(open.kind, request_id, &messages)
            .with_context(|| format!("came {messages:?}"))
    }

    /// Opens a standard channel on which every hash is a share.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn open_standard(&mut self, user: &str) -> Result<OpenChannel> {
        self.open(&Open::new(Channel::Standard, user)).await
    }

    /// Opens an extended channel on which every hash is a share.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn open_extended(&mut self, user: &str) -> Result<OpenChannel> {
        self.open(&Open::new(Channel::Extended, user)).await
    }

    /// Sends an open request that must be refused; gives the error code.
    ///
    /// # Errors
    /// When something else comes.
    pub async fn open_refused(&mut self, open: &Open<'_>) -> Result<String> {
        let request_id = self.request_open(open).await?;
        match self.next_message().await? {
            Message::Mining(MiningOwned::OpenMiningChannelError(m)) if m.request_id == request_id => {
                Ok(m.error_code.as_utf8_or_hex())
            }
            other => bail!("awaited OpenMiningChannel.Error for request {request_id}, came {other:?}"),
        }
    }

    /// Sends a share and waits for its answer.
    ///
    /// # Errors
    /// When none comes.
    pub async fn submit(&mut self, channel: &OpenChannel, share: &Share) -> Result<Answer> {
        let number = self.send_share(channel.id, share).await?;
        self.answer(channel.id, number).await
    }

    /// Sends a share: as an extended one when it has an extranonce. Gives its sequence number.
    ///
    /// # Errors
    /// When it cannot be sent.
    pub async fn send_share(&mut self, channel_id: u32, share: &Share) -> Result<u32> {
        let sequence_number = self.number();
        let Share { job_id, nonce, ntime, version, extranonce } = share;
        let (job_id, nonce, ntime, version) = (*job_id, *nonce, *ntime, *version);
        self.send(match extranonce {
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
                extranonce: extranonce.as_slice().try_into().map_err(|error| anyhow!("{error:?}"))?,
            }),
        })
        .await?;
        Ok(sequence_number)
    }

    /// Waits for the answer to a share.
    ///
    /// # Errors
    /// When none comes.
    pub async fn answer(&mut self, channel: u32, number: u32) -> Result<Answer> {
        self.pick(&format!("the answer to share {number}"), |message| match message {
            MiningOwned::SubmitSharesSuccess(m)
                if (m.channel_id, m.last_sequence_number) == (channel, number) =>
            {
                Some(Answer::Accepted(m.clone()))
            }
            MiningOwned::SubmitSharesError(m) if (m.channel_id, m.sequence_number) == (channel, number) => {
                Some(Answer::Refused(m.error_code.as_utf8_or_hex()))
            }
            _ => None,
        })
        .await
    }

    /// Takes over the next job of a channel, its own or its group's. True when it is on a new tip; it was
    /// then sent as a future job with the SetNewPrevHash after it, and otherwise as one to be mined at once.
    ///
    /// # Errors
    /// When none comes, or SetNewPrevHash without it.
    pub async fn follow(&mut self, channel: &mut OpenChannel) -> Result<bool> {
        self.follow_group(&mut [channel]).await
    }

    /// [`follow`](Self::follow) for channels that are told together.
    ///
    /// # Errors
    /// As [`follow`](Self::follow).
    pub async fn follow_group(&mut self, channels: &mut [&mut OpenChannel]) -> Result<bool> {
        let first = channels.first().context("no channel")?;
        let ids = [first.id, first.group];
        let is_work = |message: &MiningOwned| work::is_work_for(ids, message).then(|| message.clone());
        let message = self.pick("a job", is_work).await?;
        let mut job_id = 0;
        for channel in &mut *channels {
            job_id = channel.take_job(&message)?;
        }
        if channels.iter().all(|channel| channel.job.min_ntime.is_some()) {
            return Ok(false);
        }
        let message = self.pick("SetNewPrevHash", is_work).await?;
        for channel in channels {
            channel.take_tip(job_id, &message)?;
        }
        Ok(true)
    }

    /// Takes the first of the messages that came while something else was awaited for which `pick` gives
    /// something.
    pub fn heard<T>(&mut self, pick: impl Fn(&MiningOwned) -> Option<T>) -> Option<T> {
        let found = self.waiting.iter().enumerate().find_map(|(at, message)| match message {
            Message::Mining(message) => Some((at, pick(message)?)),
            Message::Common(_) => None,
        });
        let (at, picked) = found?;
        self.waiting.remove(at);
        Some(picked)
    }

    /// The next message.
    ///
    /// # Errors
    /// When none comes, or one that does not decode or has the wrong `channel_msg` bit.
    pub async fn next_message(&mut self) -> Result<Message> {
        if let Some(message) = self.waiting.pop_front() {
            return Ok(message);
        }
        let frame = self.next_frame().await?.context("the gateway closed the connection")?;
        self.decode(frame)
    }

    fn decode(&mut self, frame: Frame) -> Result<Message> {
        self.seen.insert(frame.msg_type);
        frame.decode()
    }

    /// Waits for the first message for which `pick` gives something; the others keep their order.
    ///
    /// # Errors
    /// When none comes: says what was awaited and what came instead.
    pub async fn pick<T>(&mut self, what: &str, pick: impl Fn(&MiningOwned) -> Option<T>) -> Result<T> {
        let mut next = 0;
        loop {
            while let Some(message) = self.waiting.get(next) {
                if let Message::Mining(message) = message
                    && let Some(picked) = pick(message)
                {
                    self.waiting.remove(next);
                    return Ok(picked);
                }
                next += 1;
            }
            let frame =
                self.next_frame().await.and_then(|frame| frame.context("the gateway closed the connection"));
            let frame = frame.with_context(|| format!("awaited {what}, came {:?}", self.waiting))?;
            let message = self.decode(frame)?;
            self.waiting.push_back(message);
        }
    }

    /// Reads to the end of the connection, before which a channel must have been told why.
    ///
    /// # Errors
    /// When no CloseChannel gives this reason, or as [`until_closed`](Self::until_closed).
    pub async fn told(&mut self, reason: &str) -> Result<()> {
        let messages = self.until_closed().await?;
        let told = messages.iter().any(|message| match message {
            Message::Mining(MiningOwned::CloseChannel(m)) => m.reason_code.as_utf8_or_hex() == reason,
            _ => false,
        });
        ensure!(told, "no CloseChannel with {reason}: {messages:?}");
        Ok(())
    }

    /// Reads to the end of the connection; gives the messages before it.
    ///
    /// # Errors
    /// When the gateway keeps the connection open.
    pub async fn until_closed(&mut self) -> Result<Vec<Message>> {
        let mut messages = Vec::from(std::mem::take(&mut self.waiting));
        loop {
            let frame = self.next_frame().await;
            match frame.with_context(|| format!("awaited the end of the connection, came {messages:?}"))? {
                Some(frame) => messages.push(self.decode(frame)?),
                None => return Ok(messages),
            }
        }
    }
}

/// The payload of SetupConnection, byte by byte, so that it can ask for what no library would.
pub fn setup_payload(protocol: u8, versions: (u16, u16), flags: u32, vendor: &str) -> Vec<u8> {
    let mut payload = vec![protocol];
    payload.extend(versions.0.to_le_bytes());
    payload.extend(versions.1.to_le_bytes());
    payload.extend(flags.to_le_bytes());
    text(&mut payload, "127.0.0.1");
    payload.extend(34255u16.to_le_bytes());
    for field in [vendor, "", "", ""] {
        text(&mut payload, field);
    }
    payload
}

fn text(payload: &mut Vec<u8>, text: &str) {
    payload.push(text.len() as u8);
    payload.extend(text.as_bytes());
}
