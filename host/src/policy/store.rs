//! The running policy set, and how another takes its place while miners work.
//!
//! A set is immutable and swapped whole. [`PolicyStore::prepare`] does everything that can fail aside:
//! it loads the proposed set (modules, imports, settings) and lets it and the running one judge the last
//! templates again, one after the other, in no place that a live verdict waits for and stepping aside for those. What comes out is a
//! [`Proposal`] with the [`Difference`]; dropping it changes nothing, [`Proposal::commit`] is one store of
//! a pointer. The set before is kept, so that [`PolicyStore::rollback`] is one store of a pointer too.
//!
//! An evaluation holds the set it started with. Changes come one at a time: a [`Turn`] proves it.

use super::{
    compare::{Compared, Difference},
    contract::Inputs,
    engine::{EngineLimits, PolicyEngine},
    manners::Awaited,
    set::{Enforcement, Policy, PolicyFault, PolicySet, PolicySpec, Spent},
    verdict::{CodeInfo, Judgement, PolicyResult, SetDigest},
};
use crate::reason::Reason;
use schemars::JsonSchema;
use serde::Serialize;
use std::{
    collections::VecDeque,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// A policy set and the list it was loaded from.
#[derive(Debug)]
pub struct LoadedSet {
    set: PolicySet,
    specs: Vec<PolicySpec>,
}

impl LoadedSet {
    fn load(engine: &Arc<PolicyEngine>, specs: Vec<PolicySpec>) -> Result<Self, Vec<PolicyFault>> {
        Ok(Self { set: PolicySet::load(engine, &specs)?, specs })
    }

    /// The name of the set.
    pub fn digest(&self) -> SetDigest {
        self.set.digest()
    }

    /// What the set may use up.
    pub fn limits(&self) -> &EngineLimits {
        self.set.limits()
    }

    /// The operator's list, in order.
    pub fn specs(&self) -> &[PolicySpec] {
        &self.specs
    }

    /// The component file of each policy, and the SHA-256 that it had when it was loaded.
    pub fn modules(&self) -> impl Iterator<Item = (&Path, &[u8; 32])> {
        let modules = self.specs.iter().zip(self.set.policies());
        modules.map(|(spec, policy)| (spec.module.as_path(), policy.module_digest()))
    }

    /// The policies as an operator sees them, in order.
    pub fn policies(&self) -> Vec<PolicyView> {
        let view = |(spec, policy): (&PolicySpec, &Policy)| {
            let info = policy.info();
            PolicyView {
                name: spec.name.clone(),
                enforcement: spec.enforcement,
                policy: info.name.clone(),
                version: info.version.clone(),
                contract: policy.contract().as_str(),
                summary: info.summary.clone(),
                module: spec.module.display().to_string(),
                module_digest: hex::encode(policy.module_digest()),
                pinned: spec.sha256.is_some(),
                settings: spec.settings.clone(),
                fuel: spec.fuel,
                codes: info.codes.clone(),
            }
        };
        self.specs.iter().zip(self.set.policies()).map(view).collect()
    }

    /// The set itself.
    pub fn set(&self) -> &PolicySet {
        &self.set
    }

    /// Judges with the enforcing policies. Blocks for up to the deadline of the set.
    pub fn evaluate(&self, inputs: &Inputs) -> Judgement {
        self.set.evaluate(inputs)
    }

    /// The same, with what can be thrown away later.
    pub fn judge(&self, inputs: &Inputs) -> (Judgement, Spent) {
        self.set.judge(inputs)
    }

    /// Asks the monitored policies. Blocks for up to the deadline of the set.
    pub fn monitor(&self, inputs: &Inputs) -> Vec<PolicyResult> {
        self.set.monitor(inputs)
    }

    /// Whether any policy is monitored.
    pub fn monitors(&self) -> bool {
        self.set.has_monitored()
    }
}

/// One policy of a set, for people and for the HTTP surface.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct PolicyView {
    /// The operator's name.
    pub name: String,
    /// What its rejection does.
    pub enforcement: Enforcement,
    /// What the policy calls itself.
    pub policy: String,
    /// The policy's version.
    pub version: String,
    /// The version of the contract that its module speaks.
    pub contract: &'static str,
    /// The policy in one sentence.
    pub summary: String,
    /// The component file.
    pub module: String,
    /// SHA-256 of the component, hex.
    pub module_digest: String,
    /// Whether the configuration pins that digest.
    pub pinned: bool,
    /// Its settings.
    pub settings: serde_json::Value,
    /// Fuel of one evaluation.
    pub fuel: u64,
    /// The codes it can give.
    pub codes: Vec<CodeInfo>,
}

/// The right to change the running set; there is one at a time.
#[derive(Debug)]
pub struct Turn(#[expect(dead_code, reason = "it is held, not read")] OwnedSemaphorePermit);

/// Another change is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("another change of the policy set is under way; try again when it has ended")]
pub struct Busy;

impl Busy {
    /// The code.
    pub const REASON: Reason = Reason::PolicySwapBusy;
}

/// There is no set to go back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no previous policy set: none was swapped since the start")]
pub struct NoPreviousSet;

impl NoPreviousSet {
    /// The code.
    pub const REASON: Reason = Reason::PolicyRollbackUnavailable;
}

/// The running set and the one before it.
#[derive(Clone, Debug)]
struct Sets {
    running: Arc<LoadedSet>,
    previous: Option<Arc<LoadedSet>>,
}

/// Holds the running set. Share it behind an `Arc`.
#[derive(Debug)]
pub struct PolicyStore {
    engine: Arc<PolicyEngine>,
    sets: watch::Sender<Sets>,
    turn: Arc<Semaphore>,
    /// The last templates that were judged, newest last, at most `replay`.
    recent: Mutex<VecDeque<Inputs>>,
    replay: AtomicUsize,
    /// What a replay makes way for.
    pub(super) awaited: Awaited,
}

impl PolicyStore {
    /// Loads the first set. `replay` is how many templates are kept to compare sets on.
    ///
    /// # Errors
    /// Every fault of every policy.
    pub fn load(
        engine: Arc<PolicyEngine>,
        specs: Vec<PolicySpec>,
        replay: usize,
    ) -> Result<Self, Vec<PolicyFault>> {
        let running = Arc::new(LoadedSet::load(&engine, specs)?);
        Ok(Self {
            engine,
            sets: watch::Sender::new(Sets { running, previous: None }),
            turn: Arc::new(Semaphore::new(1)),
            recent: Mutex::default(),
            replay: AtomicUsize::new(replay),
            awaited: Awaited::default(),
        })
    }

    /// The set that judges now. Whoever holds it may finish with it.
    pub fn running(&self) -> Arc<LoadedSet> {
        self.sets.borrow().running.clone()
    }

    /// Makes instances ahead for a set, if it is the running one.
    pub fn make_ready(&self, set: &Arc<LoadedSet>) {
        let runs = || Arc::ptr_eq(&self.sets.borrow().running, set);
        if runs() {
            set.set.make_ready();
            if !runs() {
                set.set.rest(); // it was swapped meanwhile, and whoever did that found nothing to drop
            }
        }
    }

    /// The set before the running one.
    pub fn previous(&self) -> Option<Arc<LoadedSet>> {
        self.sets.borrow().previous.clone()
    }

    /// Is told of every change of the running set.
    pub fn changes(&self) -> Changes {
        Changes(self.sets.subscribe())
    }

    /// Keeps a template that was judged, for replays.
    pub fn remember(&self, inputs: &Inputs) {
        let mut recent = self.recent();
        // Judged again after a swap, it is still one template.
        recent.retain(|kept| kept.template.digest != inputs.template.digest);
        let replay = self.replay.load(Ordering::Relaxed);
        while recent.len() >= replay.max(1) {
            recent.pop_front();
        }
        if replay > 0 {
            recent.push_back(inputs.clone());
        }
    }

    /// Another number of templates to keep; those beyond it go with the next template.
    pub fn set_replay(&self, replay: usize) {
        self.replay.store(replay, Ordering::Relaxed);
    }

    /// What a verdict may take.
    pub fn deadline(&self) -> Duration {
        self.engine.deadline()
    }

    /// Another time for a verdict, from the next evaluation on.
    pub fn set_deadline(&self, deadline: Duration) {
        self.engine.set_deadline(deadline);
    }

    /// How many templates a replay would look at.
    pub fn remembered(&self) -> usize {
        self.recent().len()
    }

    /// Takes the turn, if nobody has it.
    ///
    /// # Errors
    /// When another change is under way.
    pub fn turn(&self) -> Result<Turn, Busy> {
        self.turn.clone().try_acquire_owned().map(Turn).map_err(|_| Busy)
    }

    /// Waits for the turn. For the gateway's own triggers, of which there are few; what asks from
    /// outside is refused instead ([`turn`](Self::turn)).
    pub async fn wait_for_turn(&self) -> Result<Turn, Busy> {
        // The semaphore is never closed; the error has no other way to come about.
        self.turn.clone().acquire_owned().await.map(Turn).map_err(|_| Busy)
    }

    /// Loads a proposed set and compares it with the running one. Changes nothing. Blocks for as long as
    /// loading and replaying take: never call it on an async thread.
    ///
    /// # Errors
    /// Every fault of every policy.
    pub fn prepare(&self, turn: Turn, specs: Vec<PolicySpec>) -> Result<Proposal<'_>, Vec<PolicyFault>> {
        let started = Instant::now();
        let proposed = Arc::new(LoadedSet::load(&self.engine, specs)?);
        let running = self.running();
        let templates: Vec<Inputs> = self.recent().iter().cloned().collect();
        let judge = |set: &LoadedSet, inputs: &Inputs| {
            self.awaited.step_aside();
            set.evaluate(inputs)
        };
        let compare = |inputs: &Inputs| {
            Compared::of(&inputs.template, judge(&running, inputs), judge(&proposed, inputs))
        };
        // The same set judges the same: there is nothing to learn.
        let templates: Vec<Compared> = if proposed.digest() == running.digest() {
            Vec::new()
        } else {
            templates.iter().map(compare).collect()
        };
        let difference = Difference::new(running.digest(), proposed.digest(), templates);
        Ok(Proposal { store: self, _turn: turn, proposed, difference, took: started.elapsed() })
    }

    /// Puts the previous set in the place of the running one, which becomes the previous one.
    ///
    /// # Errors
    /// When there is no previous set.
    pub fn rollback(&self, _turn: &Turn) -> Result<(), NoPreviousSet> {
        let mut result = Err(NoPreviousSet);
        self.sets.send_if_modified(|sets| {
            let Some(previous) = sets.previous.take() else { return false };
            sets.previous = Some(std::mem::replace(&mut sets.running, previous));
            result = Ok(());
            true
        });
        self.settle();
        result
    }

    /// After a swap: what was made ahead for the set that judges no more is thrown away.
    fn settle(&self) {
        if let Some(previous) = self.previous() {
            previous.set.rest();
        }
    }

    fn recent(&self) -> MutexGuard<'_, VecDeque<Inputs>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells when the running set is another one.
#[derive(Debug)]
pub struct Changes(watch::Receiver<Sets>);

impl Changes {
    /// Ready when the set changed since the last time; never again when the store is gone.
    pub async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

/// A set that is loaded and compared, and not running.
#[derive(Debug)]
#[must_use = "a proposal that is not committed changes nothing"]
pub struct Proposal<'a> {
    store: &'a PolicyStore,
    _turn: Turn,
    proposed: Arc<LoadedSet>,
    difference: Difference,
    took: Duration,
}

impl Proposal<'_> {
    /// How it judges the last templates, beside the running set.
    pub fn difference(&self) -> &Difference {
        &self.difference
    }

    /// The proposed set.
    pub fn proposed(&self) -> &LoadedSet {
        &self.proposed
    }

    /// Time that loading and replaying took.
    pub fn took(&self) -> Duration {
        self.took
    }

    /// It is the set that runs already: committing it would only forget the previous one.
    pub fn is_running(&self) -> bool {
        self.difference.proposed == self.difference.running
    }

    /// Makes it the running set, and the running one the previous. Nothing can fail any more.
    pub fn commit(self) -> Difference {
        if !self.is_running() {
            let old = self.store.running();
            self.store.sets.send_replace(Sets { running: self.proposed, previous: Some(old) });
            self.store.settle();
        }
        self.difference
    }
}
