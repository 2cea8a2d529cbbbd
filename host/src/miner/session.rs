//! What the messages of one connection mean. No socket, no waiting, no clock of its own.
//!
//! - `open`: opening, updating and closing channels, and who may
//! - `shares`: shares and their answers
//! - `jobs`: work for the channels, in advance too
//! - here: which message goes where, setup, extensions, difficulty
//!
//! Unless the client asked for standard jobs, all channels of a connection are one group: a new job is one
//! message for all of them (SV2 specification 05, "Group channel"). Job ids come from one counter per
//! connection, so that jobs of channels and of the group never share one.

mod jobs;
mod open;
mod shares;
#[cfg(test)]
mod tests;

use super::{
    Shared, Work,
    channel::{Channel, Kind},
    outbox::{Close, Outbox, code, first_ntime, impossible, send_job, send_target, text},
    rate::Bucket,
    view::Seat,
};
use crate::{
    event::{Event, schema, unix_seconds},
    ledger::AckSender,
    reason::Reason,
    share::{Submission, target},
    sv2::{Frame, setup, tlv},
    words::printable,
};
use binary_sv2::Seq064K;
use bitcoin::{BlockHash, Target};
use common_messages_sv2::{MESSAGE_TYPE_SETUP_CONNECTION, Reconnect, SetupConnection, SetupConnectionError};
use extensions_sv2::{
    EXTENSION_TYPE_EXTENSIONS_NEGOTIATION, MESSAGE_TYPE_REQUEST_EXTENSIONS, RequestExtensions,
    RequestExtensionsError, RequestExtensionsSuccess,
};
use mining_sv2::{CloseChannel, MESSAGE_TYPE_SUBMIT_SHARES_EXTENDED, SetCustomMiningJobError};
pub(super) use open::Question;
use open::{Asked, Opening};
use parsers_sv2::{CommonMessages, Extensions, ExtensionsNegotiation, Mining};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Instant,
};
use tokio::sync::Semaphore;

/// Group of all channels of a connection; channel ids come after it in the same number space.
const GROUP_CHANNEL_ID: u32 = 1;
/// Messages of unknown type that a peer may send at once, and how many a second later.
const UNKNOWN: (f64, f64) = (32.0, 0.01);
/// Updates of channels that a peer may send at once, and how many a second later.
const UPDATES: (f64, f64) = (512.0, 64.0);
/// Opens a second, once as many as there may be channels have been tried.
const OPENS_PER_SECOND: f64 = 4.0;
/// Seconds for which a peer may have saved up its share rate.
const SHARE_BURST: f64 = 10.0;
/// Seconds for which a peer may have saved up its refusals. Each accepted share earns one more: the proxy of
/// a large farm has many stale ones after a new tip.
const REFUSAL_BURST: f64 = 50.0;
/// Refused shares of a connection that are told at once, and how many a second later.
const TOLD: (f64, f64) = (64.0, 8.0);
/// Longest text about a device in events, characters.
const MAX_DEVICE: usize = 128;

pub(super) struct Session {
    number: u64,
    shared: Arc<Shared>,
    acks: AckSender,
    agreed: Option<setup::Agreed>,
    /// What the peer says it is, for people.
    device: String,
    worker_names: bool,
    /// Boxed: a tree has room for eleven of them at once, and most connections have one.
    channels: BTreeMap<u32, Box<Channel>>,
    opening: Opening,
    next_job_id: u32,
    work: Work,
    /// Job serial that the channels were last given.
    sent: u64,
    /// The tip of that job.
    tip: Option<BlockHash>,
    /// Serial of the future job that the channels have, and its id on the group.
    ahead: Option<(u64, u32)>,
    in_flight: usize,
    /// Shares that the pool may still have to answer for.
    unanswered: Arc<Semaphore>,
    unknown: Bucket,
    updates: Bucket,
    shares: Bucket,
    /// What may be refused, or means nothing.
    refusals: Bucket,
    tiresome: bool,
    /// Refused shares that are events.
    told: Bucket,
    /// Those that are none since the last one.
    untold: u64,
    /// What operators see of this connection.
    seat: Seat,
    /// When the shares in flight were read, oldest first: the ledger answers in order.
    read: VecDeque<Instant>,
}

impl Session {
    pub(super) fn new(
        number: u64,
        shared: Arc<Shared>,
        acks: AckSender,
        work: Work,
        now: Instant,
        seat: Seat,
    ) -> Self {
        let sent = work.job.as_ref().map_or(0, |job| job.serial);
        let tip = work.job.as_ref().map(|job| job.previous_block_hash());
        let limits = shared.limits();
        let rate = f64::from(limits.max_shares_per_second);
        let refusals = f64::from(limits.max_refusals_per_second);
        Self {
            number,
            acks,
            agreed: None,
            device: String::new(),
            worker_names: false,
            channels: BTreeMap::new(),
            opening: Opening::new(limits.max_channels_per_connection, now),
            next_job_id: 1,
            work,
            sent,
            tip,
            ahead: None,
            in_flight: 0,
            unanswered: Arc::new(Semaphore::new(limits.max_unanswered_shares)),
            unknown: Bucket::new(UNKNOWN.0, UNKNOWN.1, now),
            updates: Bucket::new(UPDATES.0, UPDATES.1, now),
            shares: Bucket::new(rate * SHARE_BURST, rate, now),
            refusals: Bucket::new(refusals * REFUSAL_BURST, refusals, now),
            tiresome: false,
            told: Bucket::new(TOLD.0, TOLD.1, now),
            untold: 0,
            seat,
            read: VecDeque::new(),
            shared,
        }
    }

    pub(super) fn has_channels(&self) -> bool {
        !self.channels.is_empty()
    }

    /// SetupConnection has been answered with Success.
    pub(super) fn is_set_up(&self) -> bool {
        self.agreed.is_some()
    }

    /// Shares that the ledger has not answered for.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Whether the peer has been refused so often that it is to be read more slowly; asking forgives it.
    pub(super) fn is_tiresome(&mut self) -> bool {
        std::mem::take(&mut self.tiresome)
    }

    /// The peer was refused something, or sent something that nobody needs: it costs as much as a share.
    fn nuisance(&mut self, now: Instant) {
        self.tiresome |= !self.refusals.take(now);
    }

    /// Handles one frame.
    pub(super) fn on_frame(
        &mut self,
        frame: &mut Frame,
        now: Instant,
        out: &mut Outbox,
    ) -> Result<(), Close> {
        let (extension, msg_type) = (frame.header.extension, frame.header.msg_type);
        let Some(agreed) = self.agreed else {
            if extension != 0 || msg_type != MESSAGE_TYPE_SETUP_CONNECTION {
                let detail = format!("message type 0x{msg_type:02x} came before SetupConnection");
                return Err(Close::new(Reason::MessageUnexpected, detail));
            }
            return self.setup(&mut frame.payload, out);
        };
        match extension {
            0 => {}
            EXTENSION_TYPE_EXTENSIONS_NEGOTIATION => return self.extensions(frame, now, out),
            // Of an extension that the gateway does not know: to be discarded (03, "Extensions").
            _ => {
                self.nuisance(now);
                return Ok(());
            }
        }
        if msg_type == MESSAGE_TYPE_SETUP_CONNECTION {
            return Err(Close::new(Reason::MessageUnexpected, "a second SetupConnection"));
        }
        if parsers_sv2::MiningTypes::try_from(msg_type).is_err() {
            return self.unknown(extension, msg_type, now);
        }
        let worker = (self.worker_names && msg_type == MESSAGE_TYPE_SUBMIT_SHARES_EXTENDED)
            .then(|| tlv::worker_name(&frame.payload).map(|name| printable(name, name.len())))
            .flatten();
        let message = Mining::try_from((msg_type, &mut frame.payload[..])).map_err(|error| {
            Close::new(Reason::FrameDecodeFailed, format!("message type 0x{msg_type:02x}: {error:?}"))
        })?;
        match message {
            Mining::OpenStandardMiningChannel(m) => {
                let asked = Asked {
                    request_id: m.request_id,
                    kind: Kind::Standard,
                    user_identity: m.user_identity.as_bytes(),
                    nominal_hashrate: m.nominal_hash_rate,
                    max_target: Target::from_le_bytes(m.max_target.to_array()),
                    extranonce_size: 0,
                };
                self.open(asked, agreed, now, out)
            }
            Mining::OpenExtendedMiningChannel(m) => {
                let asked = Asked {
                    request_id: m.request_id,
                    kind: Kind::Extended,
                    user_identity: m.user_identity.as_bytes(),
                    nominal_hashrate: m.nominal_hash_rate,
                    max_target: Target::from_le_bytes(m.max_target.to_array()),
                    extranonce_size: usize::from(m.min_extranonce_size),
                };
                self.open(asked, agreed, now, out)
            }
            Mining::UpdateChannel(m) => {
                let max_target = Target::from_le_bytes(m.maximum_target.to_array());
                self.update(m.channel_id, m.nominal_hash_rate, max_target, now, out)
            }
            Mining::CloseChannel(m) => {
                let before = self.channels.len();
                if m.channel_id == GROUP_CHANNEL_ID {
                    self.channels.clear();
                    self.seat.close_all();
                } else {
                    self.channels.remove(&m.channel_id);
                    self.seat.close(m.channel_id);
                }
                if self.channels.len() == before {
                    self.nuisance(now);
                }
                Ok(())
            }
            Mining::SubmitSharesStandard(m) => {
                let submission = Submission { nonce: m.nonce, ntime: m.ntime, version: m.version };
                let share = shares::Submitted { job_id: m.job_id, submission, rolled: None, worker: None };
                self.submit(m.channel_id, m.sequence_number, share, now, out)
            }
            Mining::SubmitSharesExtended(m) => {
                let submission = Submission { nonce: m.nonce, ntime: m.ntime, version: m.version };
                let rolled = Some(m.extranonce.as_bytes());
                let share = shares::Submitted { job_id: m.job_id, submission, rolled, worker };
                self.submit(m.channel_id, m.sequence_number, share, now, out)
            }
            Mining::SetCustomMiningJob(m) => {
                let reason = match self.channels.contains_key(&m.channel_id) {
                    true => Reason::JobDeclarationUnsupported,
                    false => Reason::ChannelNotFound,
                };
                self.nuisance(now);
                out.send(Mining::SetCustomMiningJobError(SetCustomMiningJobError {
                    channel_id: m.channel_id,
                    request_id: m.request_id,
                    error_code: code(reason),
                }))
            }
            _ => {
                let detail = format!("message type 0x{msg_type:02x} is only sent by servers");
                Err(Close::new(Reason::MessageUnexpected, detail))
            }
        }
    }

    /// New work, or the end of it.
    pub(super) fn on_work(&mut self, work: Work, out: &mut Outbox) -> Result<(), Close> {
        self.work = work;
        if let Some(reason) = self.work.closed {
            self.close_channels(reason, out)?;
            return Err(Close::new(reason, ""));
        }
        let Some(agreed) = self.agreed.filter(|agreed| !agreed.work_selection) else { return Ok(()) };
        if self.work.withdrawn {
            return Ok(());
        }
        if let Some(job) = self.work.job.clone().filter(|job| job.serial != self.sent) {
            self.sent = job.serial;
            if self.tip.replace(job.previous_block_hash()) != Some(job.previous_block_hash()) {
                // Future jobs end with the tip they were sent under, but for the one that becomes current.
                self.ahead = None;
            }
            self.send_work(&job, agreed, out)?;
        }
        self.serve_idle(out)?;
        self.send_ahead(agreed, out)
    }

    /// Time has passed: channels that fell silent get an easier target.
    pub(super) fn on_tick(&mut self, now: Instant, out: &mut Outbox) -> Result<(), Close> {
        let channels: Vec<u32> = self.channels.keys().copied().collect();
        channels.into_iter().try_for_each(|channel_id| self.adjust(channel_id, now, out))
    }

    /// The last words before the gateway ends: where to go instead, where that is configured and the peer
    /// is set up; otherwise that its channels are over.
    pub(super) fn farewell(&mut self, reason: Reason, out: &mut Outbox) -> Result<(), Close> {
        let shared = self.shared.clone();
        match shared.limits().reconnect.as_ref().filter(|_| self.is_set_up()) {
            Some(elsewhere) => {
                let new_host = elsewhere.host.as_str().try_into().map_err(impossible)?;
                self.channels.clear();
                self.seat.close_all();
                out.send(CommonMessages::Reconnect(Reconnect { new_host, new_port: elsewhere.port }))
            }
            None => self.close_channels(reason, out),
        }
    }

    /// Tells every channel that it is over.
    pub(super) fn close_channels(&mut self, reason: Reason, out: &mut Outbox) -> Result<(), Close> {
        self.seat.close_all();
        for channel_id in std::mem::take(&mut self.channels).into_keys() {
            out.send(Mining::CloseChannel(CloseChannel { channel_id, reason_code: text(reason.code()) }))?;
        }
        Ok(())
    }

    /// Gives a channel another target if its accepted shares ask for one. The jobs that are out keep
    /// theirs, so the same work follows as a job of its own, with a later time that makes it fresh.
    fn adjust(&mut self, channel_id: u32, now: Instant, out: &mut Outbox) -> Result<(), Close> {
        // While work is held back the newest job is one of an old tip: not to be handed out again.
        let again = !self.work.held && self.gets_jobs();
        let job = self.work.job.as_ref();
        let Some(channel) = self.channels.get_mut(&channel_id) else { return Ok(()) };
        let Some(estimate) = channel.adjust(job.map(|job| &**job), now) else { return Ok(()) };
        send_target(channel_id, channel.target, out)?;
        self.seat.retarget(channel_id, target::difficulty(channel.target));
        self.shared.events.emit(Event::TargetChanged(schema::TargetChanged {
            connection: self.number,
            channel: channel_id,
            user_identity: channel.user_identity.clone(),
            difficulty: target::difficulty(channel.target),
            hashrate: estimate.hashrate,
            window_s: estimate.window.as_secs_f64(),
            shares: estimate.shares,
        }));
        let Some(job) = job.filter(|_| again) else { return Ok(()) };
        let ntime = first_ntime(job).max(unix_seconds()).max(channel.newest_ntime().saturating_add(1));
        let job_id = next(&mut self.next_job_id);
        send_job(channel, job, job_id, ntime, out)
    }

    fn gets_jobs(&self) -> bool {
        self.agreed.is_some_and(|agreed| !agreed.work_selection)
    }

    fn unknown(&mut self, extension: u16, msg_type: u8, now: Instant) -> Result<(), Close> {
        if self.unknown.take(now) {
            return Ok(());
        }
        let detail = format!("the last one had extension {extension} and type 0x{msg_type:02x}");
        Err(Close::new(Reason::MessageUnknownBudgetExceeded, detail))
    }

    fn setup(&mut self, payload: &mut [u8], out: &mut Outbox) -> Result<(), Close> {
        // SRI's codec has no value for a protocol number that does not exist; answer it all the same.
        let judged = if payload.first().is_some_and(|protocol| *protocol > 2) {
            Err(setup::Refusal { reason: Reason::UnsupportedProtocol, flags: 0 })
        } else {
            let setup: SetupConnection = binary_sv2::from_bytes(payload).map_err(|error| {
                Close::new(Reason::FrameDecodeFailed, format!("SetupConnection: {error:?}"))
            })?;
            self.device = device(&setup);
            self.seat.device(&self.device);
            setup::judge(&setup)
        };
        match judged {
            Ok((agreed, success)) => {
                self.agreed = Some(agreed);
                out.send(CommonMessages::SetupConnectionSuccess(success))
            }
            Err(setup::Refusal { reason, flags }) => {
                let error = SetupConnectionError { flags, error_code: code(reason) };
                out.send(CommonMessages::SetupConnectionError(error))?;
                Err(Close::new(reason, format!("unsupported flags 0b{flags:b}")))
            }
        }
    }

    /// Extension 0x0001: agrees on the extensions that both sides know.
    fn extensions(&mut self, frame: &mut Frame, now: Instant, out: &mut Outbox) -> Result<(), Close> {
        let msg_type = frame.header.msg_type;
        // Requests count as well: there is no reason for many.
        self.unknown(frame.header.extension, msg_type, now)?;
        if msg_type != MESSAGE_TYPE_REQUEST_EXTENSIONS {
            return Ok(());
        }
        let request: RequestExtensions = binary_sv2::from_bytes(&mut frame.payload).map_err(|error| {
            Close::new(Reason::FrameDecodeFailed, format!("RequestExtensions: {error:?}"))
        })?;
        let asked = request.requested_extensions.into_inner();
        let (supported, unsupported): (Vec<u16>, Vec<u16>) =
            asked.into_iter().partition(|extension| *extension == tlv::WORKER_NAMES);
        let request_id = request.request_id;
        out.send(Extensions::ExtensionsNegotiation(if supported.is_empty() {
            ExtensionsNegotiation::RequestExtensionsError(RequestExtensionsError {
                request_id,
                unsupported_extensions: Seq064K::new(unsupported).map_err(impossible)?,
                required_extensions: Seq064K::new(Vec::new()).map_err(impossible)?,
            })
        } else {
            self.worker_names = true;
            ExtensionsNegotiation::RequestExtensionsSuccess(RequestExtensionsSuccess {
                request_id,
                supported_extensions: Seq064K::new(vec![tlv::WORKER_NAMES]).map_err(impossible)?,
            })
        }))
    }
}

/// The next number of a counter.
fn next(counter: &mut u32) -> u32 {
    let number = *counter;
    *counter = counter.wrapping_add(1);
    number
}

/// What a client says of itself, in one line.
fn device(setup: &SetupConnection<'_>) -> String {
    let fields = [&setup.vendor, &setup.hardware_version, &setup.firmware, &setup.device_id];
    let words: Vec<_> =
        fields.iter().map(|field| field.as_bytes()).filter(|field| !field.is_empty()).collect();
    printable(&words.join(&b' '), MAX_DEVICE)
}
