//! News to verdicts to work: the one task that drives the gate.

use super::source::News;
use crate::{
    event::{Event, Events, schema},
    gate::{Action, Admitted, Gate, Mode},
    job::{CoinbaseSpec, Job},
    miner::Work,
    policy::{
        Enforcement, Judge, Judged, Monitored, PolicyResult, SetDigest,
        store::{Inputs, LoadedSet},
    },
    reason::Reason,
    template::{Sourced, Template},
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
    pub(super) coinbase: CoinbaseSpec,
    pub(super) work: watch::Sender<Work>,
    pub(super) ask: Arc<Notify>,
    pub(super) connections: Arc<AtomicU64>,
    pub(super) events: Events,
    pub(super) next_serial: u64,
    /// The newest template given to the policies.
    pub(super) newest: Option<Newest>,
}

/// What was asked last, to ask it again when the policies are others.
pub(super) struct Newest {
    sourced: Sourced,
    /// The set that answered; none while the answer is outstanding.
    judged_by: Option<SetDigest>,
    /// The answer said nothing about the template: this machine was too slow or too busy.
    unanswered: bool,
}

/// An answer of the policies, on its way back to the flow.
struct Answer {
    judged: Judged,
    /// Miners had it as work already when it was asked.
    in_use: bool,
}

impl Flow {
    /// Runs until shutdown.
    pub(super) async fn run(mut self, mut news: mpsc::Receiver<News>, mut down: watch::Receiver<bool>) {
        let mut judging = JoinSet::new();
        let mut swaps = self.judge.store().changes();
        loop {
            self.judge_again(&mut judging);
            let deadline = self.gate.deadline();
            tokio::select! {
                _ = down.wait_for(|down| *down) => return,
                Some(answer) = judging.join_next() => {
                    if let Ok(answer) = answer {
                        self.judged(answer);
                    }
                }
                () = until(deadline) => {
                    let actions = self.gate.on_time(Instant::now());
                    self.carry_out(actions);
                }
                () = swaps.next() => {} // the next turn of the loop sees the new set
                news = news.recv(), if judging.len() < MAX_JUDGING => match news {
                    None => return,
                    Some(News::Stale) => {
                        self.events.emit(Event::SourceStale { reason: Reason::TemplateSourceStale });
                        let actions = self.gate.on_source_stale();
                        self.carry_out(actions);
                    }
                    Some(News::Template(sourced)) => {
                        if self.is_known(&sourced.template) {
                            continue;
                        }
                        let actions = self.gate.on_template(Instant::now(), sourced.template.clone());
                        self.carry_out(actions);
                        self.newest =
                            Some(Newest { sourced: sourced.clone(), judged_by: None, unanswered: false });
                        self.ask_policies(&mut judging, sourced, false);
                    }
                },
            }
        }
    }

    fn ask_policies(&self, judging: &mut JoinSet<Answer>, sourced: Sourced, in_use: bool) {
        let judge = self.judge.clone();
        judging.spawn(async move { Answer { judged: judge.judge(&sourced).await, in_use } });
    }

    /// The newest template was judged by a set that no longer runs: the running one is asked too. An
    /// answer that is still outstanding is waited for, so that the two cannot overtake each other.
    fn judge_again(&mut self, judging: &mut JoinSet<Answer>) {
        let Some(newest) = &mut self.newest else { return };
        let running = self.judge.store().running().digest();
        let template = newest.sourced.template.clone();
        let outdated = newest.judged_by.is_some_and(|set| set != running);
        if !outdated || judging.len() >= MAX_JUDGING || self.gate.tip() != Some(template.previous_block_hash)
        {
            return;
        }
        newest.judged_by = None;
        let sourced = newest.sourced.clone();
        let in_use = self.is_in_use(&template);
        if !in_use {
            let actions = self.gate.on_template(Instant::now(), template);
            self.carry_out(actions);
        }
        self.ask_policies(judging, sourced, in_use);
    }

    /// Miners work on it.
    fn is_in_use(&self, template: &Template) -> bool {
        let work = self.work.borrow();
        let job = work.job.as_ref().filter(|_| !work.held && work.closed.is_none());
        job.is_some_and(|job| job.template.digest == template.digest)
    }

    /// The source gave the same template again: its verdict stands, and a second job of it would only
    /// make miners repeat their work. While miners wait, the source is asked on.
    fn is_known(&self, template: &Template) -> bool {
        let asked = |newest: &Newest| newest.sourced.template.digest == template.digest && !newest.unanswered;
        let known =
            self.newest.as_ref().is_some_and(asked) && self.gate.tip() == Some(template.previous_block_hash);
        if known && self.gate.is_waiting() {
            self.ask.notify_one();
        }
        known
    }

    fn judged(&mut self, Answer { judged, in_use }: Answer) {
        let Judged { judgement, by, inputs } = judged;
        let template = &inputs.template;
        if let Some(newest) = &mut self.newest
            && newest.sourced.template.digest == judgement.template
        {
            newest.judged_by = Some(judgement.set);
            newest.unanswered = judgement.infrastructure_fault;
        }
        // Work that miners have is not sent again: they would repeat what they did. Nor is it taken back.
        let actions = if in_use {
            Vec::new()
        } else {
            self.gate.on_verdict(Instant::now(), judgement.template, &judgement.verdict)
        };
        let enforced = match actions.first() {
            Some(Action::Release { template, .. }) if template.would_reject().is_some() => {
                schema::Enforced::WouldReject
            }
            Some(Action::Release { .. }) => schema::Enforced::Admitted,
            Some(Action::Superseded(_)) => schema::Enforced::Superseded,
            _ if in_use && self.is_in_use(template) => schema::Enforced::InUse,
            _ if in_use => schema::Enforced::Superseded,
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
            infrastructure_fault: judgement.infrastructure_fault,
            policies: policy_verdicts(judgement.policies, Enforcement::Enforce),
            mode: self.gate.mode(),
            enforced,
            duration_us: micros(judgement.duration),
        })));
        self.carry_out(actions);
        self.judge.store().remember(&inputs);
        if by.monitors() {
            tokio::spawn(ask_monitored(self.judge.clone(), self.events.clone(), by, inputs));
        }
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
        let job = match Job::new(template, &self.coinbase, self.next_serial) {
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

/// Asks the monitored policies, now that the verdict is given, and writes down what they say.
async fn ask_monitored(judge: Judge, events: Events, by: Arc<LoadedSet>, inputs: Inputs) {
    let (template, policy_set) = (inputs.template.digest.to_string(), by.digest().to_string());
    let (reason, results) = match judge.monitor(by, inputs).await {
        None => return,
        Some(Monitored::Skipped) => (Some(Reason::PolicyMonitorSkipped), Vec::new()),
        Some(Monitored::Said(results)) => (None, results),
    };
    let policies = policy_verdicts(results, Enforcement::Monitor);
    events.emit(Event::PolicyMonitored(Box::new(schema::PolicyMonitored {
        reason,
        template,
        policy_set,
        policies,
    })));
}

fn policy_verdicts(results: Vec<PolicyResult>, enforcement: Enforcement) -> Vec<schema::PolicyVerdict> {
    let verdict = |PolicyResult { name, verdict, fuel, duration }| schema::PolicyVerdict {
        name,
        enforcement,
        verdict,
        fuel,
        duration_us: micros(duration),
    };
    results.into_iter().map(verdict).collect()
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
