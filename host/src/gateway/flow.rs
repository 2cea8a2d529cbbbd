//! News to verdicts to work: the one task that drives the gate.

use super::{
    asked::{AskedTemplates, Question},
    source::News,
};
use crate::{
    event::{
        self, Event, Events,
        schema::{self, micros, millis},
    },
    gate::{Action, Admitted, Gate, Mode},
    job::Job,
    miner::{Released, Work},
    policy::{Inputs, Judge, Judged, Judgement, Monitored, PolicyResult, store::LoadedSet},
    reason::Reason,
    record::Recorder,
    swap::{GateSeat, ModeChange},
    template::{Sourced, Template, TemplateDigest, best::BestValues},
};
use bitcoin::BlockHash;
use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    sync::{Notify, mpsc, watch},
    task::JoinSet,
    time::sleep_until,
};

/// Templates that are judged at the same time; more wait at the source.
const MAX_JUDGING: usize = 4;

pub(super) struct Flow {
    pub(super) gate: Gate,
    /// Where operators change its mode and look at it.
    pub(super) seat: GateSeat,
    pub(super) judge: Judge,
    pub(super) recorder: Option<Recorder>,
    pub(super) work: watch::Sender<Work>,
    pub(super) ask: Arc<Notify>,
    pub(super) connections: Arc<AtomicU64>,
    pub(super) events: Events,
    pub(super) next_serial: u64,
    pub(super) best: BestValues,
    pub(super) asked: AskedTemplates,
    /// Since when miners are held.
    pub(super) held_since: Option<Instant>,
}

impl Flow {
    /// Runs until shutdown.
    pub(super) async fn run(mut self, mut news: mpsc::Receiver<News>, mut down: watch::Receiver<bool>) {
        let mut judging = JoinSet::new();
        let mut swaps = self.judge.store().changes();
        loop {
            self.judge_again(&mut judging);
            self.show();
            let deadline = self.gate.deadline();
            tokio::select! {
                _ = down.wait_for(|down| *down) => return,
                Some(judged) = judging.join_next() => match judged {
                    Ok(judged) => self.judged(judged),
                    Err(error) => {
                        tracing::error!(%error, "a judgement was lost");
                        self.asked.lost();
                        self.ask.notify_one();
                    }
                },
                () = until(deadline) => {
                    let actions = self.gate.on_time(Instant::now());
                    self.carry_out(actions);
                }
                Some(change) = self.seat.changes.recv() => self.change_mode(change),
                () = swaps.next() => {} // the next turn of the loop sees the new set
                news = news.recv(), if judging.len() < MAX_JUDGING => match news {
                    None => return,
                    Some(News::Stale) => {
                        self.events.emit(Event::SourceStale { reason: Reason::TemplateSourceStale });
                        let actions = self.gate.on_source_stale();
                        self.carry_out(actions);
                    }
                    Some(News::Tip(tip)) => {
                        let before = self.gate.tip();
                        let actions = self.gate.on_tip(Instant::now(), tip);
                        self.tell_tip(before, None);
                        self.carry_out(actions);
                    }
                    Some(News::Template(sourced)) => self.template(*sourced, &mut judging),
                },
            }
        }
    }

    /// Says it when the tip is another than before.
    fn tell_tip(&self, before: Option<BlockHash>, template: Option<TemplateDigest>) {
        let Some(tip) = self.gate.tip().filter(|tip| Some(*tip) != before) else { return };
        self.events.emit(Event::TipChanged(schema::TipChanged {
            reason: Reason::PrevhashMoved,
            mode: self.gate.mode(),
            tip: tip.to_string(),
            template: template.map(|digest| digest.to_string()),
        }));
    }

    fn change_mode(&mut self, ModeChange { mode, trigger, done }: ModeChange) {
        let from = self.gate.mode();
        if mode != from && mode.serves_miners() == from.serves_miners() {
            // Said first, so that nothing that follows from it stands before it.
            self.events.emit(Event::ModeChanged(schema::ModeChanged {
                reason: Reason::ModeChanged,
                trigger,
                from,
                to: mode,
                tip: self.tip(),
                template: self.gate.in_use().map(|digest| digest.to_string()),
            }));
            let actions = self.gate.on_mode(Instant::now(), mode);
            self.carry_out(actions);
        }
        self.show();
        let _ = done.send(from);
    }

    fn show(&self) {
        let work = self.work.borrow();
        self.seat.show(&self.gate, work.job.as_deref(), work.held);
    }

    fn tip(&self) -> Option<String> {
        self.gate.tip().map(|tip| tip.to_string())
    }

    /// The source gave a template.
    fn template(&mut self, sourced: Sourced, judging: &mut JoinSet<Judged>) {
        let (now, template) = (Instant::now(), &sourced.template);
        if self.is_known(template) {
            return;
        }
        if self.gate.mode().serves_miners()
            && let Err(error) = template.coinbase.split()
        {
            // No job can be made with it, so it need not be judged; but there is a tip.
            let (reason, detail) = (Reason::TemplateSourceInvalid, error.to_string());
            self.events.emit(Event::WorkFailed { reason, detail });
            let before = self.gate.tip();
            let actions = self.gate.on_tip(now, template.previous_block_hash);
            self.tell_tip(before, None);
            self.carry_out(actions);
            return self.ask.notify_one();
        }
        let before = self.gate.tip();
        let actions = self.gate.on_template(now, template.clone());
        self.tell_tip(before, Some(template.digest));
        self.carry_out(actions);
        let best = self.best.note(template);
        let context = sourced.context.taken(event::unix_ms() / 1000, sourced.received.elapsed(), best);
        let inputs = Inputs { template: template.clone(), context: Arc::new(context) };
        let question = Question { declared: sourced.declared, inputs };
        let names: Vec<_> = self.gate.judged().collect();
        self.asked.ask(&question, &names);
        self.ask_policies(judging, question);
    }

    fn ask_policies(&self, judging: &mut JoinSet<Judged>, question: Question) {
        let (judge, recorder) = (self.judge.clone(), self.recorder.clone());
        let Question { declared, inputs } = question;
        judging.spawn(async move {
            let judged = judge.judge(inputs).await;
            if let Some(recorder) = recorder {
                recorder.record(&declared, &judged);
            }
            judged
        });
    }

    /// Asks the running set about what another one judged and still matters: what miners work on or may
    /// get back, and the newest template.
    fn judge_again(&mut self, judging: &mut JoinSet<Judged>) {
        let matters: Vec<_> = self.gate.judged().chain(self.asked.newest()).collect();
        let running = self.judge.store().running().digest();
        for question in self.asked.again(&matters, running) {
            self.ask_policies(judging, question);
        }
    }

    /// The source gave the same template again: its verdict stands, and a second job of it would only
    /// make miners repeat their work. While miners wait, the source is asked on.
    fn is_known(&self, template: &Template) -> bool {
        let known =
            self.asked.is_newest(template.digest) && self.gate.tip() == Some(template.previous_block_hash);
        if known && self.gate.is_waiting() {
            self.ask.notify_one();
        }
        known
    }

    fn judged(&mut self, judged: Judged) {
        let Judged { judgement, by, inputs } = judged;
        let failed = judgement.infrastructure_fault;
        if !self.asked.answered(judgement.template, judgement.set, failed) {
            return self.record(&inputs.template, judgement, &[]);
        }
        let actions = self.gate.on_verdict(Instant::now(), judgement.template, &judgement.verdict);
        self.record(&inputs.template, judgement, &actions);
        self.carry_out(actions);
        self.judge.store().remember(&inputs);
        if by.monitors() {
            tokio::spawn(ask_monitored(self.judge.clone(), self.events.clone(), by, inputs));
        }
    }

    /// Writes down what the policies said, and what the gate made of it.
    fn record(&self, template: &Template, judgement: Judgement, actions: &[Action]) {
        let enforced = match actions.first() {
            _ if self.gate.mode() == Mode::Shadow => schema::Enforced::Logged,
            Some(Action::Release { template, .. }) if template.would_reject().is_some() => {
                schema::Enforced::WouldReject
            }
            Some(Action::Release { .. } | Action::Resume) => schema::Enforced::Admitted,
            Some(Action::Superseded(_)) => schema::Enforced::Superseded,
            Some(Action::Confirmed(None)) => schema::Enforced::InUse,
            Some(Action::Confirmed(Some(_))) => schema::Enforced::WouldReject,
            Some(Action::Hold(Reason::WorkWithdrawn)) => schema::Enforced::Withdrawn,
            None => schema::Enforced::AskedAgain,
            _ => schema::Enforced::Refused,
        };
        self.events.emit(Event::TemplateJudged(Box::new(schema::TemplateJudged {
            template: template.digest.to_string(),
            height: template.height,
            previous_block_hash: template.previous_block_hash.to_string(),
            transactions: template.transactions.len(),
            total_fees: template.facts.total_fees,
            total_weight: template.facts.total_weight,
            total_sigops: template.facts.total_sigops,
            coinbase_value: template.coinbase_value,
            policy_set: judgement.set.to_string(),
            verdict: judgement.verdict,
            decided_by: judgement.decided_by,
            infrastructure_fault: judgement.infrastructure_fault,
            policies: policy_verdicts(judgement.policies),
            mode: self.gate.mode(),
            enforced,
            duration_us: micros(judgement.duration),
        })));
    }

    fn carry_out(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Release { template, new_tip, since_tip } => {
                    self.release(template, new_tip, since_tip)
                }
                Action::Hold(reason) => self.hold(reason),
                Action::Expire(reason) => self.expire(reason),
                Action::Superseded(template) => self.events.emit(Event::TemplateSuperseded {
                    reason: Reason::TemplateSuperseded,
                    template: template.to_string(),
                }),
                Action::Resume => {
                    self.work.send_modify(|work| work.held = false);
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
                Action::Refused(_) if self.gate.is_waiting() => self.ask.notify_one(),
                Action::Refused(_) => {}
            }
        }
    }

    fn hold(&mut self, reason: Reason) {
        self.held_since = Some(Instant::now());
        self.work.send_modify(|work| work.held = true);
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
            *work = Work { job: None, held: true, closed: Some(reason), round: work.round.clone() };
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

    fn release(&mut self, template: Admitted<Template>, new_tip: bool, since_tip: Duration) {
        let digest = template.digest.to_string();
        let (height, tip) = (template.height, template.previous_block_hash.to_string());
        let would_reject = template.would_reject().map(ToString::to_string);
        let job = match Job::new(template, self.next_serial) {
            Ok(job) => job,
            Err(error) => {
                let detail = error.to_string();
                return self.events.emit(Event::WorkFailed { reason: Reason::InternalError, detail });
            }
        };
        self.events.emit(Event::WorkReleased(schema::WorkReleased {
            reason: if new_tip { Reason::PrevhashSwitched } else { Reason::TemplateAdmitted },
            job: job.serial,
            template: digest,
            height,
            previous_block_hash: tip.clone(),
            mode: self.gate.mode(),
            would_reject,
            since_tip_ms: millis(since_tip),
            held_ms: self.held_since.take().map(|since| millis(since.elapsed())),
            connections: self.connections.load(Ordering::Relaxed),
        }));
        self.next_serial += 1;
        let mut round = self.work.borrow().round.clone();
        if new_tip {
            let (at, events) = (Instant::now(), self.events.clone());
            round = round.end(Released { job: job.serial, tip, since_tip, at, events });
        }
        self.work.send_replace(Work { job: Some(Arc::new(job)), held: false, closed: None, round });
    }
}

/// Asks the monitored policies, now that the verdict is given, and writes down what they say.
async fn ask_monitored(judge: Judge, events: Events, by: Arc<LoadedSet>, inputs: Inputs) {
    let (template, policy_set) = (inputs.template.digest.to_string(), by.digest().to_string());
    let (reason, results) = match judge.monitor(by, inputs).await {
        None => return,
        Some(Monitored::Skipped) => (Some(Reason::PolicyMonitorSkipped), Vec::new()),
        Some(Monitored::Failed) => (Some(Reason::InternalError), Vec::new()),
        Some(Monitored::Said(results)) => (None, results),
    };
    events.emit(Event::PolicyMonitored(Box::new(schema::PolicyMonitored {
        reason,
        template,
        policy_set,
        policies: policy_verdicts(results),
    })));
}

fn policy_verdicts(results: Vec<PolicyResult>) -> Vec<schema::PolicyVerdict> {
    let verdict =
        |PolicyResult { name, enforcement, verdict, fuel, memory_bytes, duration, infrastructure_fault }| {
            let duration_us = micros(duration);
            schema::PolicyVerdict {
                name,
                enforcement,
                verdict,
                fuel,
                memory_bytes,
                duration_us,
                infrastructure_fault,
            }
        };
    results.into_iter().map(verdict).collect()
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline.into()).await,
        None => pending().await,
    }
}
