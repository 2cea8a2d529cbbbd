//! News to verdicts to work: the one task that drives the gate.

use super::{
    asked::{AskedTemplates, Question},
    coinbase_only::CoinbaseOnlyPlan,
    proposal::Proposals,
    sources::News,
    verdicts::ask_monitored,
};
use crate::{
    event::{self, Event, Events, schema},
    gate::{Gate, Timings},
    miner::Work,
    policy::{Inputs, Judge, Judged},
    reason::Reason,
    record::Recorder,
    swap::{GateSeat, ModeChange},
    template::{Context, SourceTip, Sourced, Template, TemplateDigest, best::BestValues},
};
use bitcoin::BlockHash;
use std::{
    future::pending,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64},
    time::Instant,
};
use tokio::{
    sync::{Notify, mpsc, watch},
    task::JoinSet,
    time::sleep_until,
};

/// Templates that are judged at the same time; more wait at the source.
const MAX_JUDGING: usize = 4;

/// What may change while it runs.
#[derive(Clone)]
pub(super) struct FlowSettings {
    /// The gate's.
    pub(super) timings: Timings,
    /// How templates without transactions are made, where the operator wants them.
    pub(super) coinbase_only: Option<CoinbaseOnlyPlan>,
}

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
    /// The best that any of our sources offered; they note theirs as they give them.
    pub(super) best: Arc<Mutex<BestValues>>,
    pub(super) asked: AskedTemplates,
    /// Since when miners are held.
    pub(super) held_since: Option<Instant>,
    /// How templates without transactions are made, where the operator wants them.
    pub(super) coinbase_only: Option<CoinbaseOnlyPlan>,
    /// The newest template of the source that is on a tip, with what was known around it.
    pub(super) newest: Option<(Arc<Template>, Context)>,
    /// The newest tip that the source told without a template.
    pub(super) source_tip: Option<SourceTip>,
    /// What a reload may change of it.
    pub(super) settings: watch::Receiver<FlowSettings>,
    /// Evaluations under way.
    pub(super) judging: JoinSet<Judged>,
    /// Asks the node about assembled blocks, where the operator wants it.
    pub(super) proposals: Option<Proposals>,
}

impl Flow {
    /// Runs until shutdown.
    pub(super) async fn run(mut self, mut news: mpsc::Receiver<News>, mut down: watch::Receiver<bool>) {
        let mut swaps = self.judge.store().changes();
        loop {
            self.judge_again();
            self.show();
            let deadline = self.gate.deadline();
            tokio::select! {
                _ = down.wait_for(|down| *down) => return,
                Some(judged) = self.judging.join_next() => match judged {
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
                Ok(()) = self.settings.changed() => self.resettle(),
                () = swaps.next() => {} // the next turn of the loop sees the new set
                news = news.recv(), if self.judging.len() < MAX_JUDGING => match news {
                    None => return,
                    Some(News::Stale) => {
                        let actions = self.gate.on_source_stale();
                        self.carry_out(actions);
                        if self.gate.tip().is_none() {
                            // The gate has forgotten everything: even the same template again is news.
                            self.asked.forget_newest();
                        }
                    }
                    Some(News::Tip(tip)) => self.tip_alone(tip),
                    Some(News::Template(sourced)) => self.template(*sourced),
                },
            }
        }
    }

    /// Says it when the tip is another than before.
    pub(super) fn tell_tip(&self, before: Option<BlockHash>, template: Option<TemplateDigest>) {
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

    /// The configuration has other timings, or other ways with templates without transactions.
    fn resettle(&mut self) {
        let FlowSettings { timings, coinbase_only } = self.settings.borrow_and_update().clone();
        self.gate.set_timings(timings);
        let wanted = self.coinbase_only.take().and_then(|plan| plan.wanted);
        self.coinbase_only = coinbase_only.map(|plan| CoinbaseOnlyPlan { wanted, ..plan });
    }

    fn show(&self) {
        let work = self.work.borrow();
        self.seat.show(&self.gate, work.job.as_deref(), work.held);
    }

    pub(super) fn tip(&self) -> Option<String> {
        self.gate.tip().map(|tip| tip.to_string())
    }

    /// The source has no usable template, but a tip.
    fn tip_alone(&mut self, tip: SourceTip) {
        let before = self.gate.tip();
        let actions = self.gate.on_tip(Instant::now(), tip.hash);
        self.source_tip = Some(tip);
        self.tell_tip(before, None);
        self.carry_out(actions);
        self.activate_on(tip);
        self.make_coinbase_only();
    }

    /// The source gave a template.
    fn template(&mut self, sourced: Sourced) {
        if sourced.template.is_future() {
            return self.future(sourced);
        }
        let (now, template) = (Instant::now(), sourced.template.clone());
        if self.is_outdated(&sourced) || self.is_known(&template) {
            return;
        }
        let before = self.gate.tip();
        if self.gate.mode().serves_miners()
            && let Err(error) = template.coinbase.split()
        {
            // No job can be made with it, so it need not be judged; but there is a tip.
            let (reason, detail) = (Reason::TemplateSourceInvalid, error.to_string());
            self.events.emit(Event::WorkFailed { reason, detail });
            let actions = self.gate.on_tip(now, template.previous_block_hash);
            self.tell_tip(before, None);
            self.carry_out(actions);
            return self.ask.notify_one();
        }
        let actions = self.gate.on_tip(now, template.previous_block_hash);
        self.tell_tip(before, Some(template.digest));
        self.newest = Some((template.clone(), sourced.context.clone()));
        self.carry_out(actions);
        self.activate_beside(&template);
        let actions = self.gate.on_template(now, template.clone());
        self.carry_out(actions);
        self.asked.source_gave(template.digest);
        self.ask_about(sourced);
        self.make_coinbase_only();
    }

    /// The source, or the gateway, has a template for a tip that is still to come.
    pub(super) fn future(&mut self, sourced: Sourced) {
        let template = &sourced.template;
        if self.asked.knows(template.digest) {
            return;
        }
        if let Err(error) = template.coinbase.split() {
            let (reason, detail) = (Reason::TemplateSourceInvalid, error.to_string());
            return self.events.emit(Event::WorkFailed { reason, detail });
        }
        let actions = self.gate.on_future(template.clone());
        self.carry_out(actions);
        self.ask_about(sourced);
    }

    /// Asks the policies about a template for the first time.
    pub(super) fn ask_about(&mut self, sourced: Sourced) {
        let Sourced { declared, template, context, received, .. } = sourced;
        let best = self.best.lock().unwrap_or_else(PoisonError::into_inner).note(&template);
        let context = context.taken(event::unix_ms() / 1000, received.elapsed(), best);
        let inputs = Inputs { template, context: Arc::new(context) };
        // Megabytes that only a recording needs.
        let question = Question { declared: self.recorder.is_some().then_some(declared), inputs };
        let names: Vec<_> = self.gate.judged().collect();
        let activated = self.gate.in_use() == Some(question.digest());
        let admitted_by = activated.then(|| self.judge.store().running().digest());
        self.asked.ask(&question, &names, admitted_by);
        self.ask_policies(question);
    }

    fn ask_policies(&mut self, question: Question) {
        let (judge, recorder) = (self.judge.clone(), self.recorder.clone());
        let Question { declared, inputs } = question;
        let asked = self.proposals.as_ref().and_then(|proposals| proposals.ask(&inputs.template));
        self.judging.spawn(async move {
            let mut judged = judge.judge(inputs).await;
            if let Some((recorder, declared)) = recorder.zip(declared) {
                recorder.record(&declared, &judged);
            }
            // Behind the recording, which is of what the policies said.
            if let Some(asked) = asked {
                asked.decide(&mut judged.judgement).await;
            }
            judged
        });
    }

    /// Asks the running set about what another one judged and still matters: what miners work on or may
    /// get back, and the newest template.
    fn judge_again(&mut self) {
        let matters: Vec<_> = self.gate.judged().chain(self.asked.newest()).collect();
        let running = self.judge.store().running().digest();
        for question in self.asked.again(&matters, running) {
            self.ask_policies(question);
        }
    }

    /// The source made this template before its tip moved, and says so itself: it is for a tip of the past,
    /// whatever way it took. The tip it names instead is news.
    fn is_outdated(&mut self, sourced: &Sourced) -> bool {
        let template = &sourced.template;
        let Some(tip) = sourced.context.tip.filter(|tip| tip.hash != template.previous_block_hash) else {
            return false;
        };
        self.events.emit(Event::TemplateSuperseded {
            reason: Reason::TemplateSuperseded,
            template: template.digest.to_string(),
        });
        self.tip_alone(SourceTip::named(tip.hash));
        self.ask.notify_one();
        true
    }

    /// The source gave the same template again: its verdict stands, and a second job of it would only
    /// make miners repeat their work. While miners wait, the source is asked on.
    fn is_known(&self, template: &Template) -> bool {
        let known =
            self.asked.is_newest(template.digest) && self.gate.tip() == Some(template.previous_block_hash);
        if known && self.gate.is_waiting(Instant::now()) {
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
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline.into()).await,
        None => pending().await,
    }
}
