//! What the messages of one connection mean: setup, channels, jobs, shares. No socket, no waiting.

use super::{
    ROLLABLE_LEN, Shared, Solved, Work,
    channel::{Channel, Kind, Request},
    outbox::{Close, Outbox, code, impossible, send_job, send_target, text},
};
use crate::{
    event::{Event, schema, unix_seconds},
    ledger::{Ack, AckSender, Origin},
    reason::Reason,
    share::{Submission, target},
    sv2::{Frame, setup},
};
use binary_sv2::{Str0255, U256};
use bitcoin::Target;
use common_messages_sv2::{MESSAGE_TYPE_SETUP_CONNECTION, SetupConnection, SetupConnectionError};
use mining_sv2::{
    CloseChannel, OpenExtendedMiningChannelSuccess, OpenMiningChannelError, OpenStandardMiningChannelSuccess,
    SetCustomMiningJobError, SubmitSharesError, SubmitSharesSuccess, UpdateChannelError,
};
use parsers_sv2::{CommonMessages, Mining};
use std::{collections::BTreeMap, sync::Arc};

/// Group of all channels of a connection; channel ids come after it in the same number space.
const GROUP_CHANNEL_ID: u32 = 1;
/// Frames of unknown type or extension that a peer may send.
const UNKNOWN_BUDGET: u32 = 32;

pub(super) struct Session {
    number: u64,
    shared: Arc<Shared>,
    acks: AckSender,
    agreed: Option<setup::Agreed>,
    channels: BTreeMap<u32, Channel>,
    next_channel_id: u32,
    next_job_id: u32,
    work: Work,
    /// Job serial that the channels were last given.
    sent: u64,
    in_flight: usize,
    unknown: u32,
}

impl Session {
    pub(super) fn new(number: u64, shared: Arc<Shared>, acks: AckSender, work: Work) -> Self {
        let sent = work.job.as_ref().map_or(0, |job| job.serial);
        Self {
            number,
            shared,
            acks,
            agreed: None,
            channels: BTreeMap::new(),
            next_channel_id: GROUP_CHANNEL_ID + 1,
            next_job_id: 1,
            work,
            sent,
            in_flight: 0,
            unknown: 0,
        }
    }

    pub(super) fn has_channels(&self) -> bool {
        !self.channels.is_empty()
    }

    /// Shares that the ledger has not answered for.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Handles one frame.
    pub(super) fn on_frame(&mut self, mut frame: Frame, out: &mut Outbox) -> Result<(), Close> {
        let msg_type = frame.header.msg_type;
        if frame.header.extension != 0 {
            return self.unknown(frame.header.extension, msg_type);
        }
        if self.agreed.is_none() {
            if msg_type != MESSAGE_TYPE_SETUP_CONNECTION {
                let detail = format!("message type 0x{msg_type:02x} came before SetupConnection");
                return Err(Close::new(Reason::MessageUnexpected, detail));
            }
            return self.setup(&mut frame.payload, out);
        }
        if msg_type == MESSAGE_TYPE_SETUP_CONNECTION {
            return Err(Close::new(Reason::MessageUnexpected, "a second SetupConnection"));
        }
        if parsers_sv2::MiningTypes::try_from(msg_type).is_err() {
            return self.unknown(0, msg_type);
        }
        let message = Mining::try_from((msg_type, &mut frame.payload[..])).map_err(|error| {
            Close::new(Reason::FrameDecodeFailed, format!("message type 0x{msg_type:02x}: {error:?}"))
        })?;
        match message {
            Mining::OpenStandardMiningChannel(m) => {
                let request =
                    self.request(Kind::Standard, m.user_identity, m.nominal_hash_rate, &m.max_target, 0);
                self.open(m.request_id, request, out)
            }
            Mining::OpenExtendedMiningChannel(m) => {
                let size = usize::from(m.min_extranonce_size);
                let request =
                    self.request(Kind::Extended, m.user_identity, m.nominal_hash_rate, &m.max_target, size);
                self.open(m.request_id, request, out)
            }
            Mining::UpdateChannel(m) => {
                let max_target = Target::from_le_bytes(m.maximum_target.to_array());
                self.update(m.channel_id, m.nominal_hash_rate, max_target, out)
            }
            Mining::CloseChannel(m) => {
                if m.channel_id == GROUP_CHANNEL_ID {
                    self.channels.clear();
                } else {
                    self.channels.remove(&m.channel_id);
                }
                Ok(())
            }
            Mining::SubmitSharesStandard(m) => {
                let submission = Submission { nonce: m.nonce, ntime: m.ntime, version: m.version };
                self.submit(m.channel_id, m.sequence_number, m.job_id, submission, None, out)
            }
            Mining::SubmitSharesExtended(m) => {
                let submission = Submission { nonce: m.nonce, ntime: m.ntime, version: m.version };
                let rolled = Some(m.extranonce.as_bytes());
                self.submit(m.channel_id, m.sequence_number, m.job_id, submission, rolled, out)
            }
            Mining::SetCustomMiningJob(m) => {
                out.send(Mining::SetCustomMiningJobError(SetCustomMiningJobError {
                    channel_id: m.channel_id,
                    request_id: m.request_id,
                    error_code: code(Reason::JobDeclarationUnsupported),
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
        let Some(job) = self.work.job.clone() else { return Ok(()) };
        if job.serial != self.sent {
            self.sent = job.serial;
            for channel in self.channels.values_mut() {
                send_job(channel, &job, &mut self.next_job_id, out)?;
            }
        }
        Ok(())
    }

    /// The ledger answered.
    pub(super) fn on_ack(&mut self, ack: Ack, out: &mut Outbox) -> Result<(), Close> {
        self.in_flight = self.in_flight.saturating_sub(1);
        match ack.recorded {
            // One Success a share: some firmware counts messages, not the count in them.
            Ok(()) => out.send(Mining::SubmitSharesSuccess(SubmitSharesSuccess {
                channel_id: ack.channel_id,
                last_sequence_number: ack.sequence_number,
                new_submits_accepted_count: 1,
                new_shares_sum: ack.difficulty.max(1.0) as u64,
            })),
            Err(reason) => self.reject(ack.channel_id, ack.sequence_number, reason, out),
        }
    }

    /// Tells every channel that it is over.
    pub(super) fn close_channels(&mut self, reason: Reason, out: &mut Outbox) -> Result<(), Close> {
        for channel_id in std::mem::take(&mut self.channels).into_keys() {
            out.send(Mining::CloseChannel(CloseChannel { channel_id, reason_code: text(reason.code()) }))?;
        }
        Ok(())
    }

    fn unknown(&mut self, extension: u16, msg_type: u8) -> Result<(), Close> {
        self.unknown += 1;
        if self.unknown <= UNKNOWN_BUDGET {
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

    fn request(
        &self,
        kind: Kind,
        user_identity: Str0255<'_>,
        nominal_hashrate: f32,
        max_target: &U256<'_>,
        extranonce_size: usize,
    ) -> Result<Request, Reason> {
        let max_target = Target::from_le_bytes(*max_target.as_array());
        let user_identity = std::str::from_utf8(user_identity.as_bytes())
            .ok()
            .filter(|user| !user.is_empty() && user.chars().all(is_printable))
            .ok_or(Reason::UserIdentityInvalid)?;
        check_channel(nominal_hashrate, max_target)?;
        if kind == Kind::Extended && self.agreed.is_some_and(|agreed| agreed.standard_jobs_only) {
            return Err(Reason::ChannelKindNotAllowed);
        }
        if extranonce_size > ROLLABLE_LEN {
            return Err(Reason::ExtranonceSizeUnsupported);
        }
        if self.channels.len() >= self.shared.limits.max_channels_per_connection {
            return Err(Reason::ChannelLimitExceeded);
        }
        Ok(Request {
            kind,
            user_identity: user_identity.to_owned(),
            nominal_hashrate,
            max_target,
            shares_per_minute: self.shared.limits.shares_per_minute,
        })
    }

    fn open(
        &mut self,
        request_id: u32,
        request: Result<Request, Reason>,
        out: &mut Outbox,
    ) -> Result<(), Close> {
        let request = match request {
            Ok(request) => request,
            Err(reason) => {
                let detail = reason.meaning().to_owned();
                self.shared.events.emit(Event::ChannelRefused { connection: self.number, reason, detail });
                let error = OpenMiningChannelError { request_id, error_code: code(reason) };
                return out.send(Mining::OpenMiningChannelError(error));
            }
        };
        let id = self.next_channel_id;
        self.next_channel_id += 1;
        let mut channel =
            Channel::open(id, self.shared.extranonces.next(), request, self.work.job.as_deref());
        self.shared.events.emit(Event::ChannelOpened(schema::ChannelOpened {
            connection: self.number,
            channel: id,
            kind: channel.kind.name(),
            user_identity: channel.user_identity.clone(),
            difficulty: target::difficulty(channel.target),
        }));
        let prefix = channel.extranonce_prefix();
        let target_bytes = channel.target.to_le_bytes();
        let target = U256::from(&target_bytes);
        let extranonce_prefix = prefix.as_slice().try_into().map_err(impossible)?;
        out.send(match channel.kind {
            Kind::Standard => Mining::OpenStandardMiningChannelSuccess(OpenStandardMiningChannelSuccess {
                request_id,
                channel_id: id,
                target,
                extranonce_prefix,
                group_channel_id: GROUP_CHANNEL_ID,
            }),
            Kind::Extended => Mining::OpenExtendedMiningChannelSuccess(OpenExtendedMiningChannelSuccess {
                request_id,
                channel_id: id,
                target,
                extranonce_size: ROLLABLE_LEN as u16,
                extranonce_prefix,
                group_channel_id: GROUP_CHANNEL_ID,
            }),
        })?;
        if let Some(job) = self.work.job.clone() {
            send_job(&mut channel, &job, &mut self.next_job_id, out)?;
        }
        self.channels.insert(id, channel);
        Ok(())
    }

    fn update(
        &mut self,
        channel_id: u32,
        hashrate: f32,
        max_target: Target,
        out: &mut Outbox,
    ) -> Result<(), Close> {
        let job = self.work.job.as_deref();
        let updated = match self.channels.get_mut(&channel_id) {
            None => Err(Reason::ChannelNotFound),
            Some(channel) => check_channel(hashrate, max_target)
                .map(|()| channel.update(hashrate, max_target, job).then_some(channel.target)),
        };
        match updated {
            Ok(None) => Ok(()),
            Ok(Some(target)) => send_target(channel_id, target, out),
            Err(reason) => out.send(Mining::UpdateChannelError(UpdateChannelError {
                channel_id,
                error_code: code(reason),
            })),
        }
    }

    fn submit(
        &mut self,
        channel_id: u32,
        sequence_number: u32,
        job_id: u32,
        submission: Submission,
        rolled: Option<&[u8]>,
        out: &mut Outbox,
    ) -> Result<(), Close> {
        let recorded = self.account(channel_id, sequence_number, job_id, submission, rolled);
        match recorded {
            Ok(()) => {
                self.in_flight += 1;
                Ok(())
            }
            Err(reason) => self.reject(channel_id, sequence_number, reason, out),
        }
    }

    fn account(
        &mut self,
        channel_id: u32,
        sequence_number: u32,
        job_id: u32,
        submission: Submission,
        rolled: Option<&[u8]>,
    ) -> Result<(), Reason> {
        let channel = self.channels.get_mut(&channel_id).ok_or(Reason::ChannelNotFound)?;
        // A standard channel has nothing to roll, an extended one must say what it rolled.
        if rolled.is_some() != (channel.kind == Kind::Extended) {
            return Err(Reason::ShareExtranonceSizeInvalid);
        }
        let share = channel.submit(job_id, submission, rolled, unix_seconds())?;
        // The node first: a solved block must not wait for anything, not even for the held rule.
        if share.solves_block
            && self.shared.blocks.try_send(Solved::new(&share, &channel.user_identity)).is_err()
        {
            self.shared.events.emit(Event::BlockFound(schema::BlockFound {
                reason: Reason::BlockSubmitFailed,
                hash: share.hash.to_string(),
                height: share.job.template.height,
                user_identity: channel.user_identity.clone(),
                detail: "too many solved blocks wait for the template source".into(),
                coinbase_value: share.job.template.coinbase_value,
            }));
        }
        if self.work.held && !self.shared.limits.accept_held_shares {
            return Err(Reason::ShareHeld);
        }
        let origin = Origin {
            connection: self.number,
            channel_id,
            sequence_number,
            user_identity: channel.user_identity.clone(),
            difficulty: target::difficulty(share.target),
            held: self.work.held,
        };
        self.shared.ledger.record(&share, origin, &self.acks).inspect_err(|_| channel.forget(&share))
    }

    fn reject(
        &self,
        channel_id: u32,
        sequence_number: u32,
        reason: Reason,
        out: &mut Outbox,
    ) -> Result<(), Close> {
        let user_identity = self.channels.get(&channel_id).map(|channel| channel.user_identity.clone());
        self.shared.events.emit(Event::ShareRejected(schema::ShareRejected {
            reason,
            connection: self.number,
            channel: channel_id,
            user_identity: user_identity.unwrap_or_default(),
            sequence_number,
        }));
        let error = SubmitSharesError { channel_id, sequence_number, error_code: code(reason) };
        out.send(Mining::SubmitSharesError(error))
    }
}

/// Nothing that hides, or turns text around, in a log: control and invisible formatting characters.
fn is_printable(c: char) -> bool {
    let invisible = matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}');
    !c.is_control() && !invisible
}

fn check_channel(nominal_hashrate: f32, max_target: Target) -> Result<(), Reason> {
    if !nominal_hashrate.is_finite() || nominal_hashrate.is_sign_negative() && nominal_hashrate != 0.0 {
        return Err(Reason::NominalHashrateInvalid);
    }
    if max_target == Target::ZERO {
        return Err(Reason::MaxTargetOutOfRange);
    }
    Ok(())
}
