//! The one place that knows how a set is loaded and asked, and what "10,000 times in a row" means.
//!
//! Each test of this suite has the process to itself (a lock), because it looks at what the process
//! has left behind: memory and threads.

use super::{guest::Guest, templates::with_fees};
use reservegrid::{
    policy::{
        Enforcement, EngineLimits, Inputs, Judgement, PolicyEngine, PolicyFault, PolicySet, PolicySpec,
    },
    reason::Reason,
    template::Template,
};
use serde_json::{Value, json};
use std::{
    fs,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// How often each hostile guest is asked.
pub(crate) const TIMES: usize = 10_000;
/// Before memory is looked at: caches and pools are full by then.
const WARM_UP: usize = 500;
/// What the process may have grown by at the end, bytes: a leak of 500 bytes an evaluation shows.
const GROWTH: u64 = 4 << 20;

static ALONE: Mutex<()> = Mutex::new(());

/// One engine for each choice of limits, as a process has one.
static ENGINES: Mutex<Vec<Arc<PolicyEngine>>> = Mutex::new(Vec::new());

/// Holds other tests of this process off.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All the time in the world, so that a slow machine changes no verdict.
pub(crate) fn patient() -> EngineLimits {
    EngineLimits { deadline: Duration::from_secs(3600), ..EngineLimits::default() }
}

/// Loads one module.
pub(crate) fn load(
    limits: EngineLimits,
    module: &[u8],
    fuel: u64,
    settings: Value,
) -> Result<PolicySet, Vec<PolicyFault>> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hostile.wasm");
    fs::write(&path, module).unwrap();
    load_set(limits, &[spec("hostile", path, fuel, settings)])
}

/// One entry of a policy list.
pub(crate) fn spec(name: &str, module: PathBuf, fuel: u64, settings: Value) -> PolicySpec {
    PolicySpec { name: name.into(), module, sha256: None, settings, fuel, enforcement: Enforcement::Enforce }
}

/// Loads a set.
pub(crate) fn load_set(limits: EngineLimits, specs: &[PolicySpec]) -> Result<PolicySet, Vec<PolicyFault>> {
    let mut engines = ENGINES.lock().unwrap_or_else(PoisonError::into_inner);
    let known = engines.iter().position(|engine| *engine.limits() == limits);
    let engine = known.map_or_else(|| PolicyEngine::start(limits, None).unwrap(), |at| engines.remove(at));
    let set = PolicySet::load(&engine, specs);
    engines.push(engine);
    set
}

/// Asks a set about a template.
pub(crate) fn evaluate(set: &PolicySet, template: &Arc<Template>) -> Judgement {
    set.evaluate(&Inputs { template: template.clone(), context: Arc::default() })
}

/// The set of a guest that must load.
pub(crate) fn loaded(guest: &Guest, fuel: u64) -> PolicySet {
    load(patient(), &guest.component(), fuel, json!({})).unwrap_or_else(|faults| panic!("{faults:#?}"))
}

/// The only fault of a module that must not load.
pub(crate) fn refused(module: &[u8], fuel: u64) -> PolicyFault {
    let mut faults = load(patient(), module, fuel, json!({})).expect_err("a hostile module was loaded");
    assert_eq!(faults.len(), 1, "{faults:#?}");
    faults.remove(0)
}

/// Asserts that a guest is answered with a code of the gateway, each of 10,000 times, in the same words
/// every time, and that it leaves nothing behind.
pub(crate) fn holds(guest: &Guest, fuel: u64, reason: Reason, words: &str) {
    let _alone = alone();
    let set = loaded(guest, fuel);
    let template = with_fees([1, 2, 3]);
    let first = evaluate(&set, &template);
    assert_answer(&first, reason, words);
    asked_often(&set, &template, |judgement| {
        assert_eq!(judgement.verdict, first.verdict);
        assert_answer(judgement, reason, words);
    });
}

/// Asks a set 10,000 times and looks at memory and threads.
pub(crate) fn asked_often(set: &PolicySet, template: &Arc<Template>, check: impl Fn(&Judgement)) {
    let begun = Instant::now();
    let (threads, mut before) = (policy_threads(), 0);
    for round in 0..TIMES / 2 {
        if round == WARM_UP / 2 {
            before = resident();
        }
        check(&evaluate(set, template));
        // The same on an instance that was made ahead, as the gateway asks.
        set.make_ready();
        let inputs = Inputs { template: template.clone(), context: Arc::default() };
        let (judgement, spent) = set.judge(&inputs);
        check(&judgement);
        drop(spent);
    }
    let grown = resident().saturating_sub(before);
    println!("{TIMES} evaluations: {:?}, {} KiB more", begun.elapsed(), grown / 1024);
    assert!(grown <= GROWTH, "the process grew by {grown} bytes");
    assert_threads_end(threads);
}

/// Asserts the verdict that a hostile guest gets: a rejection, for this reason, in printable words.
pub(crate) fn assert_answer(judgement: &Judgement, reason: Reason, words: &str) {
    let verdict = &judgement.verdict;
    let detail = verdict.reason_detail.as_deref().unwrap_or_default();
    let code = verdict.reason_code.as_ref().map(ToString::to_string);
    assert!(!verdict.accepted);
    assert_eq!(code.as_deref(), Some(reason.code()), "{detail}");
    assert!(detail.contains(words), "{detail:?}");
    assert_printable(detail);
    assert!(verdict.policy_context.is_empty());
    assert_eq!(judgement.infrastructure_fault, is_infrastructure(reason), "{detail}");
}

/// Asserts that a fault of a module that was not loaded is this one, in printable words.
pub(crate) fn assert_fault(fault: &PolicyFault, reason: Reason, words: &str) {
    assert_eq!(fault.reason, reason, "{fault}");
    assert!(fault.detail.contains(words), "{fault}");
    assert_printable(&fault.detail);
}

/// Asserts that what a guest had a hand in can be shown to people: one line, and not a book.
pub(crate) fn assert_printable(detail: &str) {
    assert!(!detail.chars().any(char::is_control), "{detail:?}");
    assert!(detail.len() <= 4096, "{} bytes: {}...", detail.len(), &detail[..200]);
}

/// The reasons that say something about this machine and not about the policy.
fn is_infrastructure(reason: Reason) -> bool {
    matches!(reason, Reason::PolicyDeadlineExceeded | Reason::PolicySetUnavailable)
}

/// Memory of this process that is in RAM, bytes.
pub(crate) fn resident() -> u64 {
    status("VmRSS")
}

/// The most memory of this process that ever was in RAM, bytes.
pub(crate) fn most_resident() -> u64 {
    status("VmHWM")
}

fn status(key: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(key)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// Threads of the policy engine, by their name.
pub(crate) fn policy_threads() -> usize {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.flatten().filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| name.starts_with("policy-")).count()
}

/// Waits until at most so many threads of the policy engine are left, which an engine that was dropped
/// needs a moment for.
pub(crate) fn assert_threads_end(left: usize) {
    let patience = Instant::now() + Duration::from_secs(60);
    while policy_threads() > left {
        assert!(Instant::now() < patience, "{} threads of the policy engine are left", policy_threads());
        thread::yield_now();
    }
}
