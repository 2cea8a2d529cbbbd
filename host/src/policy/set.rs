//! A policy set: loaded whole or not at all, never changed, and named by its digest.
//!
//! Loading reads and compiles every module, refuses imports outside the contract, asks each policy
//! who it is and lets it check its settings; every fault of every policy is reported at once.
//! Judging makes a fresh instance of each policy in turn, so nothing leaks from one evaluation into
//! the next, and a trap costs one instance. What goes wrong is told apart by type, never by text.

use super::{
    contract::{self, IMPORTS, Inputs, State, TemplatePolicy, TemplatePolicyPre, VERSION},
    engine::{self, EngineLimits, Exceeded},
    verdict::{self, Judgement, PolicyInfo, PolicyResult, SetDigest, Verdict},
};
use crate::{
    reason::Reason,
    template::{Context, Template},
};
use sha2::{Digest, Sha256};
use std::{
    collections::HashSet,
    fs::File,
    io::Read,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};
use wasmtime::{
    Engine, PoolConcurrencyLimitError, Store, Trap,
    component::{Component, Linker},
};

/// Fuel of an evaluation where the operator says nothing: about a millisecond of ordinary compiled
/// code, and little enough that the tightest loop spends it before the clock stops it.
pub const DEFAULT_FUEL: u64 = 10_000_000;
/// Time for one call while a set is loaded. Nobody waits for work then.
const LOAD_DEADLINE: Duration = Duration::from_secs(2);
/// What a guest may hand over in one call, bytes.
const MAX_FROM_GUEST: usize = 256 * 1024;
/// Live handles of a guest. The contract has no resources, so it needs none.
const MAX_HANDLES: usize = 16;

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
    digest: SetDigest,
    limits: EngineLimits,
    policies: Vec<Policy>,
}

/// A policy of a set, ready to judge.
pub struct Policy {
    name: String,
    path: PathBuf,
    info: PolicyInfo,
    module: TemplatePolicyPre<State>,
    module_digest: [u8; 32],
    settings: String,
    fuel: u64,
}

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
        &self.module_digest
    }
    /// Its settings, a JSON object.
    pub fn settings(&self) -> &str {
        &self.settings
    }
    /// Fuel of one evaluation.
    pub fn fuel(&self) -> u64 {
        self.fuel
    }
}

/// Why a call of a guest gave nothing.
struct Stopped {
    reason: Reason,
    detail: String,
    /// It says something about this machine, not about the policy and its inputs.
    infrastructure: bool,
}

impl PolicySet {
    /// Loads a set.
    ///
    /// # Errors
    /// Every fault of every policy: a module that cannot be read, is no component of the contract,
    /// imports something else or has another digest than pinned; settings that it does not accept.
    pub fn load(limits: EngineLimits, specs: &[PolicySpec]) -> Result<Self, Vec<PolicyFault>> {
        let linker = linker(&limits).map_err(|fault| vec![fault])?;
        let (mut policies, mut faults, mut names) = (Vec::new(), Vec::new(), HashSet::new());
        for spec in specs {
            if !names.insert(spec.name.as_str()) {
                let detail = "the name is given to more than one policy of the set; give each its own".into();
                faults.push(fault(spec, Reason::PolicySettingsInvalid, detail));
                continue;
            }
            match Policy::load(&limits, &linker, spec) {
                Ok(policy) => policies.push(policy),
                Err(found) => faults.extend(found),
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        Ok(Self { digest: digest(&policies), limits, policies })
    }

    /// The name of the set.
    pub fn digest(&self) -> SetDigest {
        self.digest
    }

    /// What the set may use up.
    pub fn limits(&self) -> &EngineLimits {
        &self.limits
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
            let state = State::new(&self.limits, None);
            call(&self.limits, &policy.module, state, policy.fuel, LOAD_DEADLINE, |_, _| Ok(()))
                .map_err(|stopped| format!("{}: {}", policy.name, stopped.detail))?;
        }
        Ok(started.elapsed())
    }

    /// What a module says about itself, whatever settings it needs.
    ///
    /// # Errors
    /// What keeps it from being loaded.
    pub fn describe(limits: EngineLimits, module: &Path) -> Result<PolicyInfo, PolicyFault> {
        let spec = PolicySpec {
            name: module.display().to_string(),
            module: module.to_owned(),
            sha256: None,
            settings: serde_json::Value::Null,
            fuel: DEFAULT_FUEL,
        };
        let linker = linker(&limits)?;
        Ok(Opened::open(&limits, &linker, &spec)?.info)
    }

    /// Judges a template. Blocks for up to the deadline of the set; see [`super::Judge`] for async code.
    pub fn evaluate(&self, template: &Arc<Template>, context: &Context) -> Judgement {
        let started = Instant::now();
        let inputs = Inputs { template: template.clone(), context: context.clone() };
        let mut judgement = Judgement {
            template: template.digest,
            set: self.digest,
            verdict: Verdict::accept(),
            decided_by: None,
            policies: Vec::with_capacity(self.policies.len()),
            duration: Duration::ZERO,
            infrastructure_fault: false,
        };
        for policy in &self.policies {
            let begun = Instant::now();
            let left = self.limits.deadline.saturating_sub(started.elapsed());
            let (verdict, fuel) = match self.ask(policy, inputs.clone(), left) {
                Ok((verdict, fuel)) => (verdict, Some(fuel)),
                Err(stopped) => {
                    judgement.infrastructure_fault = stopped.infrastructure;
                    (Verdict::fault(stopped.reason, stopped.detail), None)
                }
            };
            let result = PolicyResult { name: policy.name.clone(), verdict, fuel, duration: begun.elapsed() };
            judgement.policies.push(result.clone());
            if !result.verdict.accepted {
                judgement.verdict = result.verdict;
                judgement.decided_by = Some(result.name);
                break;
            }
        }
        judgement.duration = started.elapsed();
        judgement
    }

    fn ask(&self, policy: &Policy, inputs: Inputs, left: Duration) -> Result<(Verdict, u64), Stopped> {
        if left.is_zero() {
            return Err(deadline_exceeded(&self.limits));
        }
        let state = State::new(&self.limits, Some(inputs));
        let settings = policy.settings.as_str();
        let (verdict, fuel) =
            call(&self.limits, &policy.module, state, policy.fuel, left, |guest, store| {
                guest.call_evaluate(store, settings)
            })?;
        let verdict = verdict::check_verdict(verdict, &policy.info).map_err(output_invalid)?;
        Ok((verdict, fuel))
    }
}

impl std::fmt::Debug for PolicySet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = self.policies.iter().map(|policy| policy.name.as_str()).collect();
        f.debug_struct("PolicySet").field("digest", &self.digest).field("policies", &names).finish()
    }
}

fn linker(limits: &EngineLimits) -> Result<Linker<State>, PolicyFault> {
    let start = || {
        let mut linker = Linker::new(&engine::start(limits)?);
        contract::link(&mut linker)?;
        Ok(linker)
    };
    start().map_err(|error: wasmtime::Error| {
        let detail = format!("the policy engine does not start: {error:#}");
        PolicyFault { policy: String::new(), reason: Reason::PolicySetUnavailable, detail }
    })
}

/// A module that has said who it is.
struct Opened {
    info: PolicyInfo,
    module: TemplatePolicyPre<State>,
    module_digest: [u8; 32],
}

impl Opened {
    fn open(limits: &EngineLimits, linker: &Linker<State>, spec: &PolicySpec) -> Result<Self, PolicyFault> {
        let one = |reason| move |detail| fault(spec, reason, detail);

        let bytes = read(&spec.module, limits.module_bytes).map_err(one(Reason::PolicySetUnavailable))?;
        let module_digest: [u8; 32] = Sha256::digest(&bytes).into();
        if spec.sha256.is_some_and(|pinned| pinned != module_digest) {
            let detail = format!(
                "{} has the sha256 {}, not the one that the configuration pins; take the pinned file, or pin \
                 this one if it is what you want",
                spec.module.display(),
                hex::encode(module_digest)
            );
            return Err(one(Reason::PolicyModuleInvalid)(detail));
        }
        let component = compile(linker.engine(), &bytes)
            .map_err(|problem| format!("{}: {problem}", spec.module.display()))
            .map_err(one(Reason::PolicyModuleInvalid))?;
        check_imports(linker.engine(), &component).map_err(one(Reason::PolicyImportRefused))?;
        let module = linker
            .instantiate_pre(&component)
            .and_then(TemplatePolicyPre::new)
            .map_err(|error| format!("{} does not fit the contract: {error:#}", spec.module.display()))
            .map_err(one(Reason::PolicyModuleInvalid))?;

        let state = State::new(limits, None);
        let (metadata, _) =
            call(limits, &module, state, spec.fuel, LOAD_DEADLINE, |guest, store| guest.call_metadata(store))
                .map_err(|stopped| fault(spec, stopped.reason, stopped.detail))?;
        let info = verdict::check_metadata(metadata).map_err(one(Reason::PolicyOutputInvalid))?;
        Ok(Self { info, module, module_digest })
    }
}

impl Policy {
    fn load(
        limits: &EngineLimits,
        linker: &Linker<State>,
        spec: &PolicySpec,
    ) -> Result<Self, Vec<PolicyFault>> {
        let Opened { info, module, module_digest } =
            Opened::open(limits, linker, spec).map_err(|fault| vec![fault])?;
        let settings = spec.settings.to_string();
        let state = State::new(limits, None);
        let (checked, _) = call(limits, &module, state, spec.fuel, LOAD_DEADLINE, |guest, store| {
            guest.call_validate_settings(store, &settings)
        })
        .map_err(|stopped| vec![fault(spec, stopped.reason, stopped.detail)])?;
        if let Err(found) = checked {
            let faults = found.iter().take(64).map(|found| {
                let place = if found.path.is_empty() { "settings" } else { &found.path };
                let detail = format!("{}: {}", place.escape_debug(), found.problem.escape_debug());
                fault(spec, Reason::PolicySettingsInvalid, detail)
            });
            return Err(faults.collect());
        }
        let (name, path) = (spec.name.clone(), spec.module.clone());
        Ok(Self { name, path, info, module, module_digest, settings, fuel: spec.fuel })
    }
}

fn fault(spec: &PolicySpec, reason: Reason, detail: String) -> PolicyFault {
    PolicyFault { policy: spec.name.clone(), reason, detail }
}

fn read(path: &Path, max: u64) -> Result<Vec<u8>, String> {
    let cannot = |error| format!("cannot read {}: {error}", path.display());
    let mut bytes = Vec::new();
    File::open(path).map_err(cannot)?.take(max + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > max {
        return Err(format!("{} is larger than {max} bytes, the limit for a module", path.display()));
    }
    Ok(bytes)
}

fn compile(engine: &Engine, bytes: &[u8]) -> Result<Component, String> {
    let advice = "build the policy with `reservegrid policy build`";
    match bytes.get(..8) {
        Some([0, b'a', b's', b'm', 1, 0, 0, 0]) => {
            return Err(format!("this is a core WebAssembly module and not a component; {advice}"));
        }
        Some([0, b'a', b's', b'm', ..]) => {}
        _ => return Err(format!("this is not WebAssembly; {advice}")),
    }
    Component::from_binary(engine, bytes)
        .map_err(|error| format!("this is not a component that the engine takes: {error:#}"))
}

/// Only the contract may be imported, and only the version that is served.
fn check_imports(engine: &Engine, component: &Component) -> Result<(), String> {
    for (name, _) in component.component_type().imports(engine) {
        let shown = verdict::shown(name);
        if !name.starts_with(IMPORTS) {
            return Err(format!(
                "the module imports {shown}; a policy may import {IMPORTS}* and nothing else"
            ));
        }
        if !name.ends_with(VERSION) {
            return Err(format!(
                "the module imports {shown}; this gateway serves version {VERSION} of the contract"
            ));
        }
    }
    Ok(())
}

/// One call on a fresh instance. Gives the answer and the fuel that it took.
fn call<R>(
    limits: &EngineLimits,
    module: &TemplatePolicyPre<State>,
    state: State,
    fuel: u64,
    left: Duration,
    invoke: impl FnOnce(&TemplatePolicy, &mut Store<State>) -> wasmtime::Result<R>,
) -> Result<(R, u64), Stopped> {
    let classify = |instantiated: bool| move |error| classify(&error, instantiated, limits, fuel);
    let run = || {
        let mut store = Store::new(module.engine(), state);
        store.limiter(|state| &mut state.limiter);
        store.set_hostcall_fuel(MAX_FROM_GUEST);
        store.set_max_component_handles(MAX_HANDLES);
        store.set_fuel(fuel).map_err(classify(false))?;
        store.set_epoch_deadline(EngineLimits::ticks(left));
        let guest = module.instantiate(&mut store).map_err(classify(false))?;
        let answer = invoke(&guest, &mut store).map_err(classify(true))?;
        let used = fuel.saturating_sub(store.get_fuel().map_err(classify(true))?);
        Ok((answer, used))
    };
    // A panic here is a fault of the gateway or of wasmtime. It must not take the process down, and it
    // must not let the template through.
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| {
        let detail = "the gateway itself failed while the policy ran; please report it".into();
        Err(Stopped { reason: Reason::PolicyTrapped, detail, infrastructure: true })
    })
}

fn classify(error: &wasmtime::Error, instantiated: bool, limits: &EngineLimits, fuel: u64) -> Stopped {
    let fixed = |reason, detail| Stopped { reason, detail, infrastructure: false };
    if let Some(exceeded) = error.downcast_ref::<Exceeded>() {
        return fixed(Reason::PolicyMemoryExceeded, exceeded.to_string());
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::OutOfFuel) => fixed(
            Reason::PolicyFuelExhausted,
            format!("it used up its {fuel} units of fuel without a verdict"),
        ),
        Some(Trap::Interrupt) => deadline_exceeded(limits),
        Some(trap) => fixed(Reason::PolicyTrapped, format!("it stopped with a trap: {trap}")),
        None if error.is::<PoolConcurrencyLimitError>() => Stopped {
            reason: Reason::PolicySetUnavailable,
            detail: "more evaluations at the same time than the engine has room for".into(),
            infrastructure: true,
        },
        None if !instantiated => Stopped {
            reason: Reason::PolicySetUnavailable,
            detail: format!("no instance of the policy could be made: {error:#}"),
            infrastructure: true,
        },
        // The guest came back, and what it left behind cannot be read: a pointer out of range, text
        // that is not UTF-8, more data than it may hand over.
        None => output_invalid(format!("{error:#}")),
    }
}

fn output_invalid(detail: String) -> Stopped {
    Stopped { reason: Reason::PolicyOutputInvalid, detail, infrastructure: false }
}

fn deadline_exceeded(limits: &EngineLimits) -> Stopped {
    let detail = format!("no verdict within {} ms, the time for the whole set", limits.deadline.as_millis());
    Stopped { reason: Reason::PolicyDeadlineExceeded, detail, infrastructure: true }
}

/// Names a set by everything that its verdicts depend on.
fn digest(policies: &[Policy]) -> SetDigest {
    let mut hash = Sha256::new();
    hash.update(b"reservegrid policy set 1");
    for policy in policies {
        hash.update(policy.module_digest);
        hash.update(policy.fuel.to_le_bytes());
        for text in [&policy.name, &policy.settings] {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        }
    }
    SetDigest(hash.finalize().into())
}
