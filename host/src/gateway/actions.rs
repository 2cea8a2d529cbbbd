//! The gate's actions carried out: jobs made and given out, miners held and let go, each with its event.

use super::flow::Flow;
use crate::{
    event::{
        Event,
        schema::{self, millis},
    },
    gate::{Action, Admitted},
    job::Job,
    miner::{Released, Work},
    reason::Reason,
    template::{Template, TemplateDigest},
};
use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

impl Flow {
    pub(super) fn carry_out(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Release { template, new_tip, since_tip, ahead } => {
                    let released = self.release(template, new_tip, since_tip, ahead);
                    if released && new_tip {
                        self.make_ahead();
                    }
                }
                Action::SendAhead(template) => self.send_ahead(template),
                Action::AskCoinbaseOnly(tip) => self.want_coinbase_only(tip),
                Action::Hold(reason) => self.hold(reason),
                Action::Expire(reason) => self.expire(reason),
                Action::Superseded(template) => self.events.emit(Event::TemplateSuperseded {
                    reason: Reason::TemplateSuperseded,
                    template: template.to_string(),
                }),
                Action::Resume => {
                    self.work.send_modify(|work| (work.held, work.withdrawn) = (false, false));
                    self.events.emit(Event::GateResumed(schema::GateResumed {
                        reason: Reason::WorkResumed,
                        mode: self.gate.mode(),
                        tip: self.tip(),
                        template: self.gate.in_use().map(|digest| digest.to_string()),
                        held_ms: self.held_since.take().map(|since| millis(since.elapsed())),
                    }));
                }
                Action::Confirmed(_) => {}
                Action::Ask => self.ask.notify_one(),
                // Refused while miners have nothing on this tip: ask for another one.
                Action::Refused(_) if self.gate.is_waiting(Instant::now()) => self.ask.notify_one(),
                Action::Refused(_) => {}
            }
        }
        // A future job that may not be used any more is given to nobody else.
        let ahead = self.gate.ahead();
        self.work
            .send_if_modified(|work| work.ahead.take_if(|job| Some(job.template.digest) != ahead).is_some());
    }

    fn hold(&mut self, reason: Reason) {
        self.held_since = Some(Instant::now());
        let withdrawn = reason == Reason::WorkWithdrawn;
        self.work.send_modify(|work| (work.held, work.withdrawn) = (true, withdrawn));
        let template = match reason {
            Reason::PrevhashVerdictTimeout => self.gate.awaited(),
            Reason::WorkWithdrawn => self.gate.withdrawn(),
            _ => self.gate.refused(),
        };
        self.events.emit(Event::GateHeld(schema::GateHeld {
            reason,
            mode: self.gate.mode(),
            tip: self.tip(),
            template: template.map(|digest| digest.to_string()),
            since_tip_ms: millis(self.gate.unserved_since().elapsed()),
        }));
        self.ask.notify_one();
    }

    fn expire(&mut self, reason: Reason) {
        self.work.send_modify(|work| {
            *work = Work { held: true, closed: Some(reason), round: work.round.clone(), ..Work::default() };
        });
        let since_tip = (reason == Reason::PrevhashHoldExpired).then(|| self.gate.unserved_since().elapsed());
        self.events.emit(Event::GateExpired(schema::GateExpired {
            reason,
            mode: self.gate.mode(),
            tip: self.tip(),
            template: self.gate.awaited().or(self.gate.refused()).map(|digest| digest.to_string()),
            since_tip_ms: since_tip.map(millis),
            held_ms: self.held_since.take().map(|since| millis(since.elapsed())),
            connections: self.connections.load(Ordering::Relaxed),
        }));
    }

    /// Makes the job and gives it out; false when there can be none.
    fn release(
        &mut self,
        template: Admitted<Template>,
        new_tip: bool,
        since_tip: Duration,
        ahead: Option<TemplateDigest>,
    ) -> bool {
        let (digest, coinbase_only) = (template.digest.to_string(), template.is_coinbase_only());
        let (height, tip) = (template.height, template.previous_block_hash.to_string());
        let would_reject = template.would_reject().map(ToString::to_string);
        let Some(mut job) = self.make_job(template) else { return false };
        let sent = self.work.borrow().ahead.clone();
        job.ahead = sent.filter(|sent| Some(sent.template.digest) == ahead).map(|sent| sent.serial);
        self.events.emit(Event::WorkReleased(schema::WorkReleased {
            reason: match (new_tip, ahead, coinbase_only) {
                (true, Some(_), _) => Reason::PrevhashActivated,
                (_, _, true) => Reason::CoinbaseOnlyAdmitted,
                (true, ..) => Reason::PrevhashSwitched,
                (false, ..) => Reason::TemplateAdmitted,
            },
            job: job.serial,
            template: digest,
            height,
            previous_block_hash: tip.clone(),
            mode: self.gate.mode(),
            would_reject,
            coinbase_only,
            since_tip_ms: millis(since_tip),
            held_ms: self.held_since.take().map(|since| millis(since.elapsed())),
            connections: self.connections.load(Ordering::Relaxed),
        }));
        let mut round = self.work.borrow().round.clone();
        if new_tip {
            let (at, events) = (Instant::now(), self.events.clone());
            round = round.end(Released { job: job.serial, tip, since_tip, at, events });
        }
        let ahead = self.gate.ahead();
        self.work.send_modify(|work| {
            let ahead = work.ahead.take().filter(|job| Some(job.template.digest) == ahead);
            *work = Work { job: Some(Arc::new(job)), ahead, round, ..Work::default() };
        });
        true
    }

    /// Gives out a future job.
    fn send_ahead(&mut self, template: Admitted<Template>) {
        let (digest, height) = (template.digest.to_string(), template.height);
        let (coinbase_only, would_reject) =
            (template.is_coinbase_only(), template.would_reject().map(ToString::to_string));
        let Some(job) = self.make_job(template) else { return };
        self.events.emit(Event::WorkAhead(schema::WorkAhead {
            reason: Reason::TemplateAhead,
            job: job.serial,
            template: digest,
            height,
            mode: self.gate.mode(),
            would_reject,
            coinbase_only,
        }));
        self.work.send_modify(|work| work.ahead = Some(Arc::new(job)));
    }

    fn make_job(&mut self, template: Admitted<Template>) -> Option<Job> {
        match Job::new(template, self.next_serial) {
            Ok(job) => {
                self.next_serial += 1;
                Some(job)
            }
            Err(error) => {
                let detail = error.to_string();
                self.events.emit(Event::WorkFailed { reason: Reason::InternalError, detail });
                None
            }
        }
    }
}
