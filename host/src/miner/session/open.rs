//! Opening, updating and closing channels: what is asked for, who may, and what it gets.

use super::{
    super::{
        ROLLABLE_LEN,
        channel::{Channel, Kind, Request},
        outbox::{Close, Outbox, code, impossible, send_target},
        rate::Bucket,
    },
    GROUP_CHANNEL_ID, OPENS_PER_SECOND, Session, next,
};
use crate::{
    event::{Event, schema},
    reason::Reason,
    share::target,
    sv2::setup::Agreed,
    words::printable,
};
use binary_sv2::U256;
use bitcoin::Target;
use mining_sv2::{
    OpenExtendedMiningChannelSuccess, OpenMiningChannelError, OpenStandardMiningChannelSuccess,
    UpdateChannelError,
};
use parsers_sv2::Mining;
use std::{collections::BTreeMap, time::Instant};

/// Requests of one connection that may wait for an answer about their user.
const MAX_ASKED: usize = 64;

/// Longest identity in the event of a refusal, characters.
const MAX_IDENTITY: usize = 255;

/// Channels on their way to being open.
pub(super) struct Opening {
    next_channel_id: u32,
    opens: Bucket,
    /// Requests whose user somebody else is being asked about, by ticket.
    asked: BTreeMap<u64, (u32, Request)>,
    next_ticket: u64,
    questions: Vec<Question>,
}

/// Whether a user may mine, for the connection to find out.
#[derive(Debug)]
pub(in super::super) struct Question {
    /// To be given back with the answer.
    pub(in super::super) ticket: u64,
    /// Who wants to mine.
    pub(in super::super) user: String,
}

impl Opening {
    pub(super) fn new(max_channels: usize, now: Instant) -> Self {
        Self {
            next_channel_id: GROUP_CHANNEL_ID + 1,
            // Twice, since a client may close and open again what it has.
            opens: Bucket::new(2.0 * max_channels as f64 + 16.0, OPENS_PER_SECOND, now),
            asked: BTreeMap::new(),
            next_ticket: 0,
            questions: Vec::new(),
        }
    }
}

/// What a client asks for.
pub(super) struct Asked<'a> {
    pub(super) request_id: u32,
    pub(super) kind: Kind,
    pub(super) user_identity: &'a [u8],
    pub(super) nominal_hashrate: f32,
    pub(super) max_target: Target,
    /// Bytes that the client wants to roll at least; 0 on a standard channel.
    pub(super) extranonce_size: usize,
}

impl Asked<'_> {
    fn check(&self, agreed: Agreed) -> Result<Request, Reason> {
        let user_identity = std::str::from_utf8(self.user_identity)
            .ok()
            .filter(|user| !user.is_empty() && user.chars().all(is_printable))
            .ok_or(Reason::UserIdentityInvalid)?
            .to_owned();
        let Self { kind, nominal_hashrate, max_target, extranonce_size, .. } = *self;
        check_channel(nominal_hashrate, max_target)?;
        match kind {
            Kind::Extended if agreed.standard_jobs_only => Err(Reason::ChannelKindNotAllowed),
            Kind::Standard if agreed.work_selection => Err(Reason::StandardChannelNotAllowed),
            _ if extranonce_size > ROLLABLE_LEN => Err(Reason::ExtranonceSizeUnsupported),
            _ => Ok(Request { kind, user_identity, nominal_hashrate, max_target }),
        }
    }
}

impl Session {
    pub(super) fn open(
        &mut self,
        asked: Asked<'_>,
        agreed: Agreed,
        now: Instant,
        out: &mut Outbox,
    ) -> Result<(), Close> {
        let request_id = asked.request_id;
        let allowed = self.opening.opens.take(now);
        let request = if allowed { asked.check(agreed) } else { Err(Reason::ChannelRateLimited) };
        let request = match request {
            Ok(request) => request,
            Err(reason) => {
                let user = printable(asked.user_identity, MAX_IDENTITY);
                self.nuisance(now);
                return self.refuse(request_id, user, reason, out);
            }
        };
        match self.shared.tunables.users.load().known(&request.user_identity, now) {
            Some(Ok(())) => self.admit(request_id, request, now, out),
            Some(Err(reason)) => {
                self.nuisance(now);
                self.refuse(request_id, request.user_identity, reason, out)
            }
            None if self.opening.asked.len() >= MAX_ASKED => {
                self.refuse(request_id, request.user_identity, Reason::ChannelRateLimited, out)
            }
            None => {
                let ticket = self.opening.next_ticket;
                self.opening.next_ticket += 1;
                self.opening.questions.push(Question { ticket, user: request.user_identity.clone() });
                self.opening.asked.insert(ticket, (request_id, request));
                Ok(())
            }
        }
    }

    /// What has to be asked before a channel may be opened; the answers go to [`Self::on_answer`].
    pub(in super::super) fn questions(&mut self) -> Vec<Question> {
        std::mem::take(&mut self.opening.questions)
    }

    /// Whether such answers are awaited.
    pub(in super::super) fn is_asking(&self) -> bool {
        !self.opening.asked.is_empty()
    }

    /// Somebody said whether a user may mine.
    pub(in super::super) fn on_answer(
        &mut self,
        ticket: u64,
        answer: Result<(), Reason>,
        now: Instant,
        out: &mut Outbox,
    ) -> Result<(), Close> {
        let Some((request_id, request)) = self.opening.asked.remove(&ticket) else { return Ok(()) };
        match answer {
            Ok(()) => self.admit(request_id, request, now, out),
            Err(reason) => self.refuse(request_id, request.user_identity, reason, out),
        }
    }

    fn refuse(
        &mut self,
        request_id: u32,
        user_identity: String,
        reason: Reason,
        out: &mut Outbox,
    ) -> Result<(), Close> {
        if self.told.take(Instant::now()) {
            let (connection, detail) = (self.number, reason.meaning().to_owned());
            self.shared.events.emit(Event::ChannelRefused { connection, user_identity, reason, detail });
        } else {
            self.untold += 1;
        }
        let error = OpenMiningChannelError { request_id, error_code: code(reason) };
        out.send(Mining::OpenMiningChannelError(error))
    }

    /// Opens the channel, if there is a place for it, and gives it work.
    fn admit(
        &mut self,
        request_id: u32,
        request: Request,
        now: Instant,
        out: &mut Outbox,
    ) -> Result<(), Close> {
        if self.channels.len() >= self.shared.limits().max_channels_per_connection {
            self.nuisance(now);
            return self.refuse(request_id, request.user_identity, Reason::ChannelLimitExceeded, out);
        }
        let Some(place) = self.shared.channels.take(self.shared.limits().max_channels) else {
            return self.refuse(request_id, request.user_identity, Reason::ChannelCapacityExhausted, out);
        };
        let id = next(&mut self.opening.next_channel_id);
        let (prefix, terms) = (self.shared.extranonces.next(), self.shared.limits().terms);
        let mut channel = Channel::open(id, prefix, request, terms, self.work.job.as_deref(), place, now);
        let difficulty = target::difficulty(channel.target);
        self.seat.open(id, channel.kind.name(), &channel.user_identity, difficulty);
        self.shared.events.emit(Event::ChannelOpened(schema::ChannelOpened {
            connection: self.number,
            channel: id,
            kind: channel.kind.name(),
            user_identity: channel.user_identity.clone(),
            device: self.device.clone(),
            difficulty,
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
        if let Some(agreed) = self.agreed.filter(|agreed| !agreed.work_selection) {
            self.first_work(&mut channel, agreed, out)?;
        }
        self.channels.insert(id, Box::new(channel));
        Ok(())
    }

    pub(super) fn update(
        &mut self,
        channel_id: u32,
        hashrate: f32,
        max_target: Target,
        now: Instant,
        out: &mut Outbox,
    ) -> Result<(), Close> {
        let job = self.work.job.as_deref();
        let updated = match self.channels.get_mut(&channel_id) {
            _ if !self.updates.take(now) => Err(Reason::ChannelRateLimited),
            None => Err(Reason::ChannelNotFound),
            Some(channel) => check_channel(hashrate, max_target)
                .map(|()| channel.update(hashrate, max_target, job, now).then_some(channel.target)),
        };
        match updated {
            Ok(None) => Ok(()),
            Ok(Some(target)) => {
                self.seat.retarget(channel_id, target::difficulty(target));
                send_target(channel_id, target, out)
            }
            Err(reason) => {
                self.nuisance(now);
                let error_code = code(reason);
                out.send(Mining::UpdateChannelError(UpdateChannelError { channel_id, error_code }))
            }
        }
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
