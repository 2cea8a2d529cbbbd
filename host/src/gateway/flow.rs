//! News to verdicts to work: the one task that drives the gate.

use super::source::News;
use crate::{
    event::{self, Event, Events, schema},
    gate::{Action, Admitted, Gate, Mode},
    job::Job,
    miner::Work,
    policy::{Judge, Judgement, PolicyResult},
    reason::Reason,
    record::Recorder,
    template::{Sourced, Template, TemplateDigest, best::BestValues},
};
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
    pub(super) judge: Judge,
    pub(super) recorder: Option<Recorder>,
    pub(super) work: watch::Sender<Work>,
    pub(super) ask: Arc<Notify>,
    pub(super) connections: Arc<AtomicU64>,
    pub(super) events: Events,
    pub(super) next_serial: u64,
    /// The newest template given to the policies; none when their answer said nothing about it.
    pub(super) newest: Option<TemplateDigest>,
    pub(super) best: BestValues,
}

impl Flow {
    /// Runs until shutdown.
    pub(super) async fn run(mut self, mut news: mpsc::Receiver<News>, mut down: watch::Receiver<bool>) {
        let mut judging = JoinSet::new();
        loop {
            let deadline = self.gate.deadline();
            tokio::select! {
                _ = down.wait_for(|down| *down) => return,
                Some(judged) = judging.join_next() => {
                    if let Ok((template, judgement)) = judged {
                        self.judged(&template, judgement);
                    }
                }
                () = until(deadline) => {
                    let actions = self.gate.on_time(Instant::now());
                    self.carry_out(actions);
                }
                news = news.recv(), if judging.len() < MAX_JUDGING => match news {
                    None => return,
                    Some(News::Stale) => {
                        self.events.emit(Event::SourceStale { reason: Reason::TemplateSourceStale });
                        let actions = self.gate.on_source_stale();
                        self.carry_out(actions);
                    }
                    Some(News::Template(sourced)) => {
                        let template = sourced.template.clone();
                        if self.is_known(&template) {
                            continue;
                        }
                        self.newest = Some(template.digest);
                        let actions = self.gate.on_template(Instant::now(), template.clone());
                        self.carry_out(actions);
                        let best = self.best.note(&template);
                        let age = sourced.received.elapsed();
                        let context = sourced.context.taken(event::unix_ms() / 1000, age, best);
                        let sourced = Sourced { context, ..*sourced };
                        let (judge, recorder) = (self.judge.clone(), self.recorder.clone());
                        judging.spawn(async move {
                            let judgement = judge.judge(sourced.clone()).await;
                            if let Some(recorder) = recorder {
                                recorder.record(&sourced.declared, &sourced.context, judge.set(), &judgement);
                            }
                            (template, judgement)
                        });
                    }
                },
            }
        }
    }

    /// The source gave the same template again: its verdict stands, and a second job of it would only
    /// make miners repeat their work. While miners wait, the source is asked on.
    fn is_known(&self, template: &Template) -> bool {
        let known =
            self.newest == Some(template.digest) && self.gate.tip() == Some(template.previous_block_hash);
        if known && self.gate.is_waiting() {
            self.ask.notify_one();
        }
        known
    }

    fn judged(&mut self, template: &Arc<Template>, judgement: Judgement) {
        if judgement.infrastructure_fault && self.newest == Some(judgement.template) {
            // This machine was too slow or too busy: asked again, the policies may answer otherwise.
            self.newest = None;
        }
        let actions = self.gate.on_verdict(Instant::now(), judgement.template, &judgement.verdict);
        let enforced = match actions.first() {
            Some(Action::Release { template, .. }) if template.would_reject().is_some() => {
                schema::Enforced::WouldReject
            }
            Some(Action::Release { .. }) => schema::Enforced::Admitted,
            Some(Action::Superseded(_)) => schema::Enforced::Superseded,
            _ if self.gate.mode() == Mode::Shadow => schema::Enforced::Logged,
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
            policies: judgement.policies.into_iter().map(policy_verdict).collect(),
            mode: self.gate.mode(),
            enforced,
            duration_us: micros(judgement.duration),
        })));
        self.carry_out(actions);
    }

    fn carry_out(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Release { template, new_tip, since_tip } => {
                    self.release(template, new_tip, since_tip)
                }
                Action::Hold(reason) => {
                    self.work.send_modify(|work| work.held = true);
                    self.events
                        .emit(Event::GateHeld { reason, tip: self.gate.tip().map(|tip| tip.to_string()) });
                    self.ask.notify_one();
                }
                Action::Expire(reason) => {
                    self.work
                        .send_modify(|work| *work = Work { job: None, held: true, closed: Some(reason) });
                    let connections = self.connections.load(Ordering::Relaxed);
                    let tip = self.gate.tip().map(|tip| tip.to_string());
                    self.events.emit(Event::GateExpired { reason, tip, connections });
                }
                Action::Superseded(template) => self.events.emit(Event::TemplateSuperseded {
                    reason: Reason::TemplateSuperseded,
                    template: template.to_string(),
                }),
                // Refused while miners have nothing on this tip: ask for another one.
                Action::Refused(_) if self.gate.is_waiting() => self.ask.notify_one(),
                Action::Refused(_) => {}
            }
        }
    }

    fn release(&mut self, template: Admitted<Template>, new_tip: bool, since_tip: Duration) {
        let digest = template.digest.to_string();
        let height = template.height;
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
            would_reject,
            since_tip_ms: u64::try_from(since_tip.as_millis()).unwrap_or(u64::MAX),
            connections: self.connections.load(Ordering::Relaxed),
        }));
        self.next_serial += 1;
        self.work.send_replace(Work { job: Some(Arc::new(job)), held: false, closed: None });
    }
}

fn policy_verdict(result: PolicyResult) -> schema::PolicyVerdict {
    let PolicyResult { name, verdict, fuel, duration } = result;
    schema::PolicyVerdict { name, verdict, fuel, duration_us: micros(duration) }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline.into()).await,
        None => pending().await,
    }
}
