//! The thread that owns the log: it writes whatever has gathered, makes it durable with one sync, and then
//! tells everybody: miners hear Success, the feed may read on, events leave.

use super::{
    Ack, AckSender, Command, Gauge, NewShare,
    answer::Verdict,
    chain::Keys,
    feed::Progress,
    log::{CommitError, Log},
    record::{Accepted, Block, BlockOutcome, Forwarded},
    secret::Watched,
    settle::Settled,
};
use crate::{
    event::{Event, Events, schema, unix_ms},
    reason::Reason,
};
use bitcoin::hashes::Hash as _;
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::{Duration, Instant, SystemTime},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Commands taken at once.
const MAX_GROUP: usize = 16_384;
/// From this part of the backlog on acknowledgements are slowed down.
const SLOW_FROM: f64 = 0.75;
/// The longest pause before a group, when the backlog is all but full.
const MAX_PAUSE: Duration = Duration::from_millis(200);
/// After a write that found no room, shares are refused at once for this long.
const FULL_FOR: Duration = Duration::from_secs(1);
/// As much must fit on the disk before it counts as not full any more, bytes: about the largest group.
const ROOM: usize = 4 << 20;
/// Answers of the node that wait for room on the disk; the oldest gives way. They are events as well.
const MAX_BLOCKS: usize = 256;
/// Between two looks for segments that need not be kept.
const RETIRE_EVERY: Duration = Duration::from_secs(60);

pub(super) struct Writer {
    pub(super) log: Log,
    pub(super) settled: Arc<Mutex<Settled>>,
    pub(super) progress: Arc<Progress>,
    pub(super) gauge: Arc<Gauge>,
    pub(super) events: Events,
    pub(super) key_file: Option<Watched>,
    pub(super) state: State,
}

pub(super) struct State {
    /// The number of the first share of this run.
    first_share: u64,
    /// How many shares the connections of this run may have unanswered.
    quotas: HashMap<u64, Arc<Semaphore>>,
    /// Results that are not in the log yet, with the room they take.
    unwritten: Vec<(Vec<Verdict>, OwnedSemaphorePermit)>,
    /// What the node said about blocks, and when; not in the log yet.
    blocks: VecDeque<(u64, schema::BlockFound)>,
    /// Nothing is accepted any more in this run.
    failed: bool,
    /// The disk had no room; when it is tried again.
    full_until: Option<Instant>,
    slowed: bool,
    /// Something is not in the head.
    head_is_old: bool,
    retired: Instant,
}

impl State {
    pub(super) fn new(first_share: u64) -> Self {
        Self {
            first_share,
            quotas: HashMap::new(),
            unwritten: Vec::new(),
            blocks: VecDeque::new(),
            failed: false,
            full_until: None,
            slowed: false,
            head_is_old: false,
            retired: Instant::now(),
        }
    }
}

impl Writer {
    pub(super) fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Command>) {
        let mut group = Vec::new();
        while inbox.blocking_recv_many(&mut group, MAX_GROUP) > 0 {
            self.pause(&group);
            self.group(&mut group);
        }
        if !self.state.failed {
            self.write_head();
        }
        self.progress.close();
    }

    /// Too many shares wait for the backend: those who bring more wait, too.
    fn pause(&mut self, group: &[Command]) {
        let fill = self.gauge.open.load(Ordering::Relaxed) as f64
            / self.gauge.max_open.load(Ordering::Relaxed) as f64;
        let over = ((fill - SLOW_FROM) / (1.0 - SLOW_FROM)).clamp(0.0, 1.0);
        if (over > 0.0) != self.state.slowed {
            self.state.slowed = over > 0.0;
            if over > 0.0 {
                let detail = "acknowledgements are slowed down; when the backlog is full, shares are refused";
                self.status(Reason::LedgerBacklogHigh, detail.into());
            }
        }
        if over > 0.0 && group.iter().any(|command| matches!(command, Command::Share(_))) {
            std::thread::sleep(MAX_PAUSE.mul_f64(over));
        }
    }

    fn group(&mut self, group: &mut Vec<Command>) {
        let mut shares = Vec::new();
        let (mut tick, mut drain) = (false, false);
        let time_ms = unix_ms();
        for command in group.drain(..) {
            match command {
                Command::Share(share) => shares.push(share),
                Command::Verdicts(verdicts, room) => self.state.unwritten.push((verdicts, room)),
                Command::Block(block) => {
                    if self.state.blocks.len() == MAX_BLOCKS {
                        self.state.blocks.pop_front();
                    }
                    self.state.blocks.push_back((time_ms, block));
                }
                Command::Tick => tick = true,
                Command::Keep { segment_size, keep } => self.log.set_limits(segment_size, keep),
                Command::Corrupt(detail) => self.fail(detail),
                Command::Drain => drain = true,
            }
        }
        // What has no answer yet waits for room; shares are answered at once.
        let full = self.state.full_until.is_some_and(|until| Instant::now() < until);
        if self.state.failed || full {
            shares.drain(..).for_each(|share| self.refuse(share));
        } else {
            let results = std::mem::take(&mut self.state.unwritten);
            self.push(&results, &shares, time_ms);
            let wrote = self.log.is_pending();
            match self.log.commit() {
                Ok(()) => {
                    if wrote {
                        self.wrote();
                    }
                    self.told(results, shares, time_ms);
                }
                Err(error) => {
                    shares.into_iter().for_each(|share| self.refuse(share));
                    self.state.unwritten = results;
                    self.not_written(error);
                }
            }
        }
        if tick && !self.state.failed {
            self.tick();
        }
        if drain {
            self.progress.close();
        }
    }

    fn push(&mut self, results: &[(Vec<Verdict>, OwnedSemaphorePermit)], shares: &[NewShare], time_ms: u64) {
        let settled = lock(&self.settled);
        for verdict in results.iter().flat_map(|(verdicts, _)| verdicts) {
            // One that has its result gets no other, whatever the backend says.
            if settled.is_settled(verdict.share.share) {
                continue;
            }
            let record = forwarded(verdict, time_ms);
            self.log.push(false, |out| record.encode(out));
        }
        drop(settled);
        for (time_ms, block) in &self.state.blocks {
            let record = Block {
                time_ms: *time_ms,
                share_id: hash_of(&block.hash),
                height: block.height,
                coinbase_value: block.coinbase_value,
                outcome: BlockOutcome::of(block.reason),
                user_identity: &block.user_identity,
                detail: &block.detail,
            };
            self.log.push(false, |out| record.encode(out));
        }
        for share in shares {
            let record = accepted(share, time_ms);
            self.log.push(true, |out| record.encode(out));
        }
    }

    /// The disk took something.
    fn wrote(&mut self) {
        self.state.blocks.clear();
        self.gauge.groups.fetch_add(1, Ordering::Relaxed);
        self.has_room();
    }

    fn has_room(&mut self) {
        if self.state.full_until.take().is_some() {
            self.gauge.full.store(false, Ordering::Relaxed);
            self.status(Reason::LedgerResumed, "the log can be written again".into());
        }
    }

    /// The group is durable.
    fn told(
        &mut self,
        results: Vec<(Vec<Verdict>, OwnedSemaphorePermit)>,
        shares: Vec<NewShare>,
        time_ms: u64,
    ) {
        self.state.head_is_old |= !results.is_empty() || !shares.is_empty();
        self.progress.reached(self.log.end());
        let count = shares.len() as u64;
        self.gauge.open.fetch_add(count, Ordering::Relaxed);
        for share in shares {
            self.events.emit_with(|| Event::ShareAccepted(accepted(&share, time_ms).event()));
            let NewShare { connection, quota, ack, reply, .. } = share;
            self.state.quotas.entry(connection).or_insert_with(|| quota.semaphore().clone());
            // Given back with the share's result.
            quota.forget();
            self.answer(ack, &reply);
        }
        for (verdicts, _room) in results {
            let mut settled = lock(&self.settled);
            let mut count = 0;
            for verdict in &verdicts {
                if !settled.settle(verdict.share.share) {
                    continue;
                }
                count += 1;
                if verdict.share.share >= self.state.first_share
                    && let Some(quota) = self.state.quotas.get(&verdict.share.connection)
                {
                    quota.add_permits(1);
                }
                self.events.emit_with(|| Event::ShareForwardResult(forwarded(verdict, time_ms).event()));
            }
            self.gauge.open.fetch_sub(count, Ordering::Relaxed);
        }
        // Their connections are gone.
        if self.state.quotas.len() > 1_024 && self.state.quotas.len().is_multiple_of(1_024) {
            self.forget_quotas();
        }
        match self.log.rotate(None) {
            Ok(false) => {}
            Ok(true) => {
                self.progress.reached(self.log.end());
                self.write_head();
            }
            // It goes on in the segment it has, and tries again with the next group.
            Err(CommitError::Refused(_)) => {}
            Err(CommitError::Broken(error)) => self.fail(error.to_string()),
        }
    }

    fn forget_quotas(&mut self) {
        self.state.quotas.retain(|_, quota| Arc::strong_count(quota) > 1);
    }

    fn answer(&self, ack: Ack, reply: &AckSender) {
        self.gauge.queued.fetch_sub(1, Ordering::Relaxed);
        // Never full: its capacity is the number of shares the connection may have in flight. Closed when the
        // miner has gone; the share counts all the same.
        let _ = reply.try_send(ack);
    }

    fn refuse(&self, share: NewShare) {
        self.answer(Ack { recorded: Err(Reason::ShareLedgerFull), ..share.ack }, &share.reply);
    }

    fn not_written(&mut self, error: CommitError) {
        match error {
            CommitError::Refused(error) => {
                self.gauge.full.store(true, Ordering::Relaxed);
                if self.state.full_until.replace(Instant::now() + FULL_FOR).is_none() {
                    self.status(
                        Reason::LedgerDiskFull,
                        format!("{error}; shares are refused until there is room again"),
                    );
                }
            }
            CommitError::Broken(error) => self.fail(error.to_string()),
        }
    }

    /// Nobody knows what is on the disk: nothing is acknowledged any more in this run. A restart reads what
    /// is really there.
    fn fail(&mut self, detail: String) {
        if std::mem::replace(&mut self.state.failed, true) {
            return;
        }
        self.gauge.failed.store(true, Ordering::Relaxed);
        let detail =
            format!("{detail}; no share is accepted until the gateway is restarted on a healthy disk");
        tracing::error!(%detail, "the share ledger failed");
        self.events.emit(Event::LedgerFailed { reason: Reason::LedgerWriteFailed, detail });
    }

    fn tick(&mut self) {
        // With no share and no result to write, nobody else would find out.
        if self.state.full_until.is_some_and(|until| until <= Instant::now()) {
            match self.log.try_room(ROOM) {
                Ok(()) => self.has_room(),
                Err(_) => self.state.full_until = Some(Instant::now() + FULL_FOR),
            }
        }
        if self.state.head_is_old {
            self.write_head();
        }
        if let Some(text) = self.key_file.as_mut().and_then(Watched::changed) {
            let text = text.map_err(|error| error.to_string());
            match text.and_then(|text| Keys::parse(&text)) {
                Ok(keys) => self.change_keys(keys),
                Err(error) => self.status(Reason::LedgerKeyUnusable, error),
            }
        }
        if self.state.retired.elapsed() >= RETIRE_EVERY.min(self.log.keep().max(Duration::from_secs(1))) {
            self.state.retired = Instant::now();
            self.forget_quotas();
            let settled = lock(&self.settled).clone();
            match self.log.retire(&settled, SystemTime::now()) {
                Ok(0) => {}
                Ok(count) => self.status(
                    Reason::LedgerRetired,
                    format!("{count} segment(s) older than [ledger] keep were removed"),
                ),
                Err(error) => tracing::warn!(%error, "old segments of the ledger cannot be removed"),
            }
        }
    }

    fn change_keys(&mut self, keys: Keys) {
        let (new, old) = (keys.signing().fingerprint(), self.log.keys().signing().fingerprint());
        if new == old {
            return;
        }
        if keys.named(old).is_none() {
            let detail = "the key of before is not in the file any more; put it under the new one".into();
            return self.status(Reason::LedgerKeyUnusable, detail);
        }
        self.progress.set_keys(keys.clone());
        match self.log.rotate(Some(keys)) {
            Ok(_) => {
                self.progress.reached(self.log.end());
                self.write_head();
                let detail = format!("the key {} signs records from now on", hex::encode(new));
                self.status(Reason::LedgerKeyChanged, detail);
            }
            Err(CommitError::Refused(error)) => self.status(Reason::LedgerKeyUnusable, error.to_string()),
            Err(CommitError::Broken(error)) => self.fail(error.to_string()),
        }
    }

    fn write_head(&mut self) {
        let settled = lock(&self.settled).clone();
        match self.log.write_head(&settled) {
            Ok(()) => self.state.head_is_old = false,
            // The one before says less and is as true.
            Err(error) => tracing::warn!(%error, "the head of the ledger cannot be written"),
        }
    }

    fn status(&self, reason: Reason, detail: String) {
        self.events.emit(Event::LedgerStatus { reason, detail });
    }
}

fn lock(settled: &Mutex<Settled>) -> MutexGuard<'_, Settled> {
    settled.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The hash that a block's event shows.
fn hash_of(text: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    // Made by the gateway itself; a text that is none would be its mistake.
    let _ = hex::decode_to_slice(text, &mut hash);
    hash.reverse();
    hash
}

fn accepted(share: &NewShare, time_ms: u64) -> Accepted<'_> {
    let template = &share.job.template;
    Accepted {
        time_ms,
        share_id: share.share_id,
        template: template.digest.0,
        previous_block_hash: template.previous_block_hash.to_byte_array(),
        connection: share.connection,
        channel: share.ack.channel_id,
        job: share.job.serial,
        height: template.height,
        difficulty: share.ack.difficulty,
        version: share.version,
        ntime: share.ntime,
        nonce: share.nonce,
        extranonce: share.extranonce,
        held: share.held,
        solves_block: share.solves_block,
        user_identity: &share.user_identity,
        worker: share.worker.as_deref(),
    }
}

fn forwarded(verdict: &Verdict, time_ms: u64) -> Forwarded<'_> {
    Forwarded {
        time_ms,
        share: verdict.share.share,
        share_id: verdict.share.share_id,
        accepted: verdict.accepted,
        attempts: verdict.share.attempts,
        detail: &verdict.detail,
    }
}
