//! A policy set: loaded whole or not at all, never changed, and named by its digest.
//!
//! Loading asks each policy who it is and lets it check its settings; every fault of every policy is
//! reported at once. Judging makes a fresh instance of each policy in turn, so nothing leaks from one
//! evaluation into the next, and a trap costs one instance.
//!
//! Enforcing policies give the verdict: the first rejection decides, and the others are asked all the
//! same, for the record. Monitored ones are asked separately, when the verdict has been given: whatever
//! they do, they delay nothing and decide nothing.

use super::{
    call::{Answer, Budget, Fresh, Stopped, call, deadline_exceeded, guard, output_invalid},
    contract::{Inputs, Version},
    engine::{EngineLimits, PolicyEngine},
    module::{Module, Refused},
    ready::{Ready, Waiting},
    verdict::{self, Judgement, PolicyInfo, PolicyResult, SetDigest, Verdict},
};
use crate::{config::PolicyEntry, reason::Reason, template::Template};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    collections::HashSet,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

/// Fuel of an evaluation where the operator says nothing: about a millisecond of ordinary compiled
/// code, and little enough that the tightest loop spends it before the clock stops it.
pub const DEFAULT_FUEL: u64 = 10_000_000;
/// Time for one call while a set is loaded. Nobody waits for work then.
const LOAD_DEADLINE: Duration = Duration::from_secs(2);
/// Faults in its settings that a policy is believed to have found.
const MAX_SETTINGS_FAULTS: usize = 64;

/// Whether what a policy says counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Enforcement {
    /// A rejection is the set's rejection.
    #[default]
    Enforce,
    /// It is recorded and has no effect.
    Monitor,
}

impl Enforcement {
    /// As it stands in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Monitor => "monitor",
        }
    }
}

/// One entry of the operator's policy list.
#[derive(Clone, Debug)]
pub struct PolicySpec {
    /// What the operator calls it; unique in the set.
    pub name: String,
    /// The component file.
    pub module: PathBuf,
    /// SHA-256 that the file must have.
    pub sha256: Option<[u8; 32]>,
    /// Settings for the policy, a JSON object.
    pub settings: serde_json::Value,
    /// Fuel of one evaluation.
    pub fuel: u64,
    /// Whether what it says counts.
    pub enforcement: Enforcement,
}

impl From<&PolicyEntry> for PolicySpec {
    fn from(entry: &PolicyEntry) -> Self {
        Self {
            name: entry.name.clone(),
            module: entry.module.clone(),
            sha256: entry.sha256,
            settings: entry.settings.clone(),
            fuel: entry.fuel,
            enforcement: entry.enforcement,
        }
    }
}

/// One reason why a set was not loaded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("policy {policy:?}: {reason}: {detail}")]
pub struct PolicyFault {
    /// The operator's name of the policy; empty for the engine itself.
    pub policy: String,
    /// The code.
    pub reason: Reason,
    /// What is wrong, where, and what to do about it.
    pub detail: String,
}

/// Policies that judge together, in order. Immutable; share it behind an `Arc`.
pub struct PolicySet {
    engine: Arc<PolicyEngine>,
    digest: SetDigest,
    policies: Vec<Policy>,
}

/// A policy of a set, ready to judge.
pub struct Policy {
    name: String,
    path: PathBuf,
    info: PolicyInfo,
    module: Arc<Module>,
    settings: String,
    fuel: u64,
    enforcement: Enforcement,
    waiting: Waiting,
}

/// The instances made ahead that a judgement used up. To drop them takes time: do it when the judgement is
/// where it has to be.
#[derive(Default)]
pub struct Spent(Vec<Ready>);

impl Policy {
    /// What the operator calls it.
    pub fn name(&self) -> &str {
        &self.name
    }
    /// The file that its module was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }
    /// What it says about itself.
    pub fn info(&self) -> &PolicyInfo {
        &self.info
    }
    /// SHA-256 of its module.
    pub fn module_digest(&self) -> &[u8; 32] {
        &self.module.digest
    }
    /// The version of the contract that its module speaks.
    pub fn contract(&self) -> Version {
        self.module.version
    }
    /// Its settings, a JSON object.
    pub fn settings(&self) -> &str {
        &self.settings
    }
    /// Fuel of one evaluation.
    pub fn fuel(&self) -> u64 {
        self.fuel
    }
    /// Whether what it says counts.
    pub fn enforcement(&self) -> Enforcement {
        self.enforcement
    }
}

impl PolicySet {
    /// Loads a set.
    ///
    /// # Errors
    /// Every fault of every policy: a module that cannot be read, is no component of the contract,
    /// imports something else or has another digest than pinned; settings that it does not accept.
    pub fn load(engine: &Arc<PolicyEngine>, specs: &[PolicySpec]) -> Result<Self, Vec<PolicyFault>> {
        let (mut policies, mut faults, mut names) = (Vec::new(), Vec::new(), HashSet::new());
        for spec in specs {
            if !names.insert(spec.name.as_str()) {
                let detail = "the name is given to more than one policy of the set; give each its own".into();
                faults.push(fault(spec, Reason::PolicySettingsInvalid, detail));
                continue;
            }
            match Policy::load(engine, spec) {
                Ok(policy) => policies.push(policy),
                Err(found) => faults.extend(found),
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        Ok(Self { engine: engine.clone(), digest: digest(&engine.limits, &policies), policies })
    }

    /// The name of the set.
    pub fn digest(&self) -> SetDigest {
        self.digest
    }

    /// What an evaluation may use up.
    pub fn limits(&self) -> &EngineLimits {
        &self.engine.limits
    }

    /// The policies in order.
    pub fn policies(&self) -> &[Policy] {
        &self.policies
    }

    /// Time to make an instance of each policy, as every evaluation does, and to end it again.
    ///
    /// # Errors
    /// The name of the policy of which none could be made, and why.
    pub fn time_instances(&self) -> Result<Duration, String> {
        let started = Instant::now();
        for policy in &self.policies {
            let budget = Budget { fuel: policy.fuel, time: LOAD_DEADLINE };
            call(&self.engine, &*policy.module.guest, budget, |_, _| Ok(()))
                .map_err(|stopped| format!("{}: {}", policy.name, stopped.detail))?;
        }
        Ok(started.elapsed())
    }

    /// Makes an instance ahead for each enforcing policy that has none, as far as there is room.
    pub fn make_ready(&self) {
        for policy in self.those(Enforcement::Enforce) {
            let budget = Budget { fuel: policy.fuel, time: LOAD_DEADLINE };
            policy.waiting.make(&self.engine, &policy.module, budget);
        }
    }

    /// Throws away what was made ahead: the set is not the one that judges any more.
    pub fn rest(&self) {
        self.policies.iter().for_each(|policy| drop(policy.waiting.take()));
    }

    /// Judges a template with the enforcing policies. Blocks for up to the deadline of the set; see
    /// [`super::Judge`] for async code.
    pub fn evaluate(&self, inputs: &Inputs) -> Judgement {
        self.ask_all(inputs, None)
    }

    /// The same, sooner: on instances that were made ahead, which are left to be thrown away.
    pub fn judge(&self, inputs: &Inputs) -> (Judgement, Spent) {
        let mut spent = Spent::default();
        (self.ask_all(inputs, Some(&mut spent)), spent)
    }

    fn ask_all(&self, inputs: &Inputs, mut spent: Option<&mut Spent>) -> Judgement {
        let started = Instant::now();
        let template = &inputs.template;
        let mut judgement = Judgement {
            template: template.digest,
            set: self.digest,
            verdict: Verdict::accept(),
            decided_by: None,
            policies: Vec::with_capacity(self.policies.len()),
            duration: Duration::ZERO,
            infrastructure_fault: false,
        };
        let mut discrepancies_judged = false;
        for policy in self.those(Enforcement::Enforce) {
            let (result, asked_for_discrepancies) = self.ask(policy, inputs, started, spent.as_deref_mut());
            discrepancies_judged |= asked_for_discrepancies;
            if !result.verdict.accepted && judgement.verdict.accepted {
                judgement.verdict = result.verdict.clone();
                judgement.decided_by = Some(result.name.clone());
                judgement.infrastructure_fault = result.infrastructure_fault;
            }
            judgement.policies.push(result);
        }
        if judgement.verdict.accepted && !discrepancies_judged {
            judgement.verdict = unjudged_discrepancy(template).unwrap_or(judgement.verdict);
        }
        judgement.duration = started.elapsed();
        judgement
    }

    /// Asks the monitored policies about a template. Blocks for up to another deadline of the set.
    pub fn monitor(&self, inputs: &Inputs) -> Vec<PolicyResult> {
        let started = Instant::now();
        self.those(Enforcement::Monitor).map(|policy| self.ask(policy, inputs, started, None).0).collect()
    }

    /// Whether there is a policy that is only monitored.
    pub fn has_monitored(&self) -> bool {
        self.those(Enforcement::Monitor).next().is_some()
    }

    fn those(&self, enforcement: Enforcement) -> impl Iterator<Item = &Policy> {
        self.policies.iter().filter(move |policy| policy.enforcement == enforcement)
    }

    /// Asks one policy, with what is left of the set's time; on an instance that was made ahead where
    /// there is one, and a place to leave it. Says too whether it gave an answer knowing how the template
    /// differs from what was declared.
    fn ask(
        &self,
        policy: &Policy,
        inputs: &Inputs,
        started: Instant,
        spent: Option<&mut Spent>,
    ) -> (PolicyResult, bool) {
        let begun = Instant::now();
        let deadline = self.engine.deadline();
        let left = || deadline.saturating_sub(started.elapsed());
        let mut discrepancies_judged = false;
        let answer = if left().is_zero() {
            Err(deadline_exceeded(deadline))
        } else {
            let budget = || Budget { fuel: policy.fuel, time: left() };
            let evaluate = |fresh: &mut Fresh| {
                fresh.call(Some(inputs.clone()), budget(), |instance, store| {
                    instance.evaluate(store, &policy.settings)
                })
            };
            let late = || deadline_exceeded(deadline);
            let ready = spent.and_then(|spent| Some(spent.0.push_mut(policy.waiting.take()?)));
            let answer = match ready {
                Some(ready) => guard(policy.fuel, late, || evaluate(&mut ready.fresh)),
                None => guard(policy.fuel, late, || {
                    evaluate(&mut Fresh::new(&self.engine, &*policy.module.guest, budget())?)
                }),
            };
            answer.and_then(|Answer { answer, fuel, memory, asked_for_discrepancies }| {
                let verdict = verdict::check_verdict(answer, &policy.info).map_err(output_invalid)?;
                discrepancies_judged = asked_for_discrepancies;
                Ok((verdict, fuel, memory))
            })
        };
        let (verdict, fuel, memory_bytes, infrastructure_fault) = match answer {
            Ok((verdict, fuel, memory)) => (verdict, Some(fuel), Some(memory), false),
            Err(Stopped { reason, detail, infrastructure }) => {
                (Verdict::fault(reason, detail), None, None, infrastructure)
            }
        };
        let result = PolicyResult {
            name: policy.name.clone(),
            enforcement: policy.enforcement,
            verdict,
            fuel,
            memory_bytes,
            duration: begun.elapsed(),
            infrastructure_fault,
        };
        (result, discrepancies_judged)
    }
}

/// A template that is not what was declared is for a policy to judge; if none looked, it is refused.
fn unjudged_discrepancy(template: &Template) -> Option<Verdict> {
    let first = template.discrepancies.first()?;
    let place = first.transaction.map(|row| format!(" of transaction {row}")).unwrap_or_default();
    let detail = format!(
        "{}{place} is declared as {}, but the bytes say {}; no policy of the set judges such differences, so the \
         template is refused (the policy integrity does)",
        first.kind, first.declared, first.derived
    );
    Some(Verdict::fault(Reason::TemplateSourceInvalid, detail))
}

impl fmt::Debug for PolicySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.policies.iter().map(|policy| policy.name.as_str()).collect();
        f.debug_struct("PolicySet").field("digest", &self.digest).field("policies", &names).finish()
    }
}

impl PolicyEngine {
    /// What a module says about itself, whatever settings it needs.
    ///
    /// # Errors
    /// What keeps it from being loaded.
    pub fn describe(&self, module: &Path) -> Result<PolicyInfo, PolicyFault> {
        let refused = |(reason, detail)| PolicyFault { policy: module.display().to_string(), reason, detail };
        self.load(module, None).and_then(|module| self.ask_metadata(&module, DEFAULT_FUEL)).map_err(refused)
    }

    fn ask_metadata(&self, module: &Module, fuel: u64) -> Result<PolicyInfo, Refused> {
        let budget = loading(fuel);
        let metadata = call(self, &*module.guest, budget, |guest, store| guest.metadata(store))
            .map_err(|stopped| (stopped.reason, stopped.detail))?;
        verdict::check_metadata(metadata.answer).map_err(|detail| (Reason::PolicyOutputInvalid, detail))
    }
}

impl Policy {
    fn load(engine: &PolicyEngine, spec: &PolicySpec) -> Result<Self, Vec<PolicyFault>> {
        let one = |(reason, detail)| vec![fault(spec, reason, detail)];
        let stopped = |stopped: Stopped| vec![fault(spec, stopped.reason, stopped.detail)];

        let module = engine.load(&spec.module, spec.sha256).map_err(one)?;
        let info = engine.ask_metadata(&module, spec.fuel).map_err(one)?;
        if !spec.settings.is_object() {
            let detail = "settings: must be an object of names and values; `{}` where there are none".into();
            return Err(one((Reason::PolicySettingsInvalid, detail)));
        }
        let settings = spec.settings.to_string();
        let checked = call(engine, &*module.guest, loading(spec.fuel), |guest, store| {
            guest.validate_settings(store, &settings)
        })
        .map_err(stopped)?;
        if let Err(found) = checked.answer {
            let faults = found.iter().take(MAX_SETTINGS_FAULTS).map(|found| {
                let place = if found.path.is_empty() { "settings" } else { &found.path };
                let detail = format!("{}: {}", verdict::one_line(place), verdict::one_line(&found.problem));
                fault(spec, Reason::PolicySettingsInvalid, detail)
            });
            return Err(faults.collect());
        }
        Ok(Self {
            name: spec.name.clone(),
            path: spec.module.clone(),
            info,
            module,
            settings,
            fuel: spec.fuel,
            enforcement: spec.enforcement,
            waiting: Waiting::default(),
        })
    }
}

/// For a call while a module is loaded. The budget of an evaluation may be too small for it, and is meant
/// for something else.
fn loading(evaluation_fuel: u64) -> Budget {
    Budget { fuel: evaluation_fuel.max(DEFAULT_FUEL), time: LOAD_DEADLINE }
}

fn fault(spec: &PolicySpec, reason: Reason, detail: String) -> PolicyFault {
    PolicyFault { policy: spec.name.clone(), reason, detail }
}

/// Names a set by everything that its verdicts depend on.
fn digest(limits: &EngineLimits, policies: &[Policy]) -> SetDigest {
    let mut hash = Sha256::new();
    hash.update(b"reservegrid policy set 3");
    hash.update((limits.memory_bytes as u64).to_le_bytes());
    for policy in policies {
        hash.update(policy.module.digest);
        hash.update(policy.fuel.to_le_bytes());
        for text in [policy.enforcement.as_str(), &policy.name, &policy.settings] {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        }
    }
    SetDigest(hash.finalize().into())
}

#[cfg(test)]
#[path = "set_tests.rs"]
mod tests;
