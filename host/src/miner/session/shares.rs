//! Shares of one connection and their answers: errors at once, Success once the ledger has recorded them.

use super::{
    super::{
        Solved,
        channel::Kind,
        outbox::{Close, Outbox, code},
    },
    Session,
};
use crate::{
    event::{Event, schema, unix_ms, unix_seconds},
    ledger::{Ack, Origin},
    reason::Reason,
    share::Submission,
};
use mining_sv2::{SubmitSharesError, SubmitSharesSuccess};
use parsers_sv2::Mining;
use std::{collections::BTreeMap, time::Instant};

/// A share as it came.
pub(super) struct Submitted<'a> {
    pub(super) job_id: u32,
    pub(super) submission: Submission,
    /// The miner's part of the extranonce; `None` in the message for standard channels.
    pub(super) rolled: Option<&'a [u8]>,
    /// The worker behind a proxy, where the proxy says so.
    pub(super) worker: Option<String>,
}

impl Session {
    pub(super) fn submit(
        &mut self,
        channel_id: u32,
        sequence_number: u32,
        share: Submitted<'_>,
        now: Instant,
        out: &mut Outbox,
    ) -> Result<(), Close> {
        match self.account(channel_id, sequence_number, share, now) {
            Ok(()) => {
                self.in_flight += 1;
                self.refusals.give();
                self.read.push_back(now);
                self.adjust(channel_id, now, out)
            }
            Err(reason) => {
                self.nuisance(now);
                self.reject(channel_id, sequence_number, reason, out)
            }
        }
    }

    fn account(
        &mut self,
        channel_id: u32,
        sequence_number: u32,
        share: Submitted<'_>,
        now: Instant,
    ) -> Result<(), Reason> {
        if !self.shares.take(now) {
            return Err(Reason::ShareRateLimited);
        }
        let channel = self.channels.get_mut(&channel_id).ok_or(Reason::ChannelNotFound)?;
        let Submitted { job_id, submission, rolled, worker } = share;
        let share = channel.submit(job_id, submission, rolled, unix_seconds())?;
        // The node first: a solved block must not wait for anything, not even for the held rule.
        if share.solves_block
            && self.shared.blocks.try_send(Solved::new(&share, &channel.user_identity)).is_err()
        {
            let lost = schema::BlockFound {
                reason: Reason::BlockSubmitFailed,
                hash: share.hash.to_string(),
                height: share.job.template.height,
                user_identity: channel.user_identity.clone(),
                detail: "too many solved blocks wait for the template source".into(),
                coinbase_value: share.job.template.coinbase_value,
            };
            self.shared.ledger.block(lost.clone());
            self.shared.events.emit(Event::BlockFound(lost));
        }
        if self.work.held && !self.shared.limits().accept_held_shares {
            return Err(Reason::ShareHeld);
        }
        let quota = self.unanswered.clone().try_acquire_owned().map_err(|_| Reason::PeerQuotaExceeded);
        let origin = |quota| Origin {
            connection: self.number,
            channel_id,
            sequence_number,
            user_identity: &channel.user_identity,
            worker,
            difficulty: share.difficulty,
            held: self.work.held,
            quota,
        };
        let recorded = quota.and_then(|quota| self.shared.ledger.record(&share, origin(quota), &self.acks));
        match recorded {
            Ok(()) => {
                if self.work.held {
                    self.seat.meters().shares_held.inc();
                }
                channel.accepted(&share);
            }
            Err(_) => channel.forget(share.hash),
        }
        recorded
    }

    /// The ledger answered, perhaps for several shares at once: those of one channel are one Success, up
    /// to the length of a batch.
    pub(in super::super) fn on_acks(
        &mut self,
        acks: impl IntoIterator<Item = Ack>,
        out: &mut Outbox,
    ) -> Result<(), Close> {
        let mut batches: BTreeMap<u32, SubmitSharesSuccess> = BTreeMap::new();
        let (now, now_ms, mut count, mut work) = (Instant::now(), unix_ms(), 0, 0.0);
        for ack in acks {
            self.in_flight = self.in_flight.saturating_sub(1);
            let read = self.read.pop_front();
            if let Err(reason) = ack.recorded {
                if let Some(channel) = self.channels.get_mut(&ack.channel_id) {
                    channel.forget(ack.hash);
                }
                self.reject(ack.channel_id, ack.sequence_number, reason, out)?;
                continue;
            }
            if let Some(read) = read {
                self.seat.meters().acknowledged(read, now);
            }
            self.seat.accepted(ack.channel_id, ack.difficulty, now_ms);
            count += 1;
            work += ack.difficulty;
            let batch = batches.entry(ack.channel_id).or_insert(SubmitSharesSuccess {
                channel_id: ack.channel_id,
                last_sequence_number: 0,
                new_submits_accepted_count: 0,
                new_shares_sum: 0,
            });
            batch.last_sequence_number = ack.sequence_number;
            batch.new_submits_accepted_count += 1;
            batch.new_shares_sum = batch.new_shares_sum.saturating_add(ack.difficulty.max(1.0) as u64);
            if batch.new_submits_accepted_count >= self.batch(ack.channel_id)
                && let Some(full) = batches.remove(&ack.channel_id)
            {
                out.send(Mining::SubmitSharesSuccess(full))?;
            }
        }
        self.seat.meters().accepted(count, work);
        batches.into_values().try_for_each(|batch| out.send(Mining::SubmitSharesSuccess(batch)))
    }

    /// Shares that one Success may answer.
    fn batch(&self, channel_id: u32) -> u32 {
        match self.channels.get(&channel_id).map(|channel| channel.kind) {
            Some(Kind::Extended) => self.shared.limits().extended_success_batch,
            _ => self.shared.limits().standard_success_batch,
        }
    }

    fn reject(
        &mut self,
        channel_id: u32,
        sequence_number: u32,
        reason: Reason,
        out: &mut Outbox,
    ) -> Result<(), Close> {
        self.seat.rejected(channel_id, reason);
        if self.told.take(Instant::now()) {
            let user_identity = self.channels.get(&channel_id).map(|channel| channel.user_identity.clone());
            self.shared.events.emit(Event::ShareRejected(schema::ShareRejected {
                reason,
                connection: self.number,
                channel: channel_id,
                user_identity: user_identity.unwrap_or_default(),
                sequence_number,
                untold: std::mem::take(&mut self.untold),
            }));
        } else {
            self.untold += 1;
        }
        let error = SubmitSharesError { channel_id, sequence_number, error_code: code(reason) };
        out.send(Mining::SubmitSharesError(error))
    }
}
