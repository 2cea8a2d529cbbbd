//! The standard pack through the engine, beside the same policies compiled natively and called directly,
//! on templates of 2,500 and 10,000 transactions; what a fresh instance costs; what loading a module
//! costs, compiled anew and from compiled code on disk. All in one run; times depend on the machine,
//! fuel and sizes do not.
//!
//! An evaluation is the whole of it: six fresh instances, settings read, six verdicts checked. The native
//! column runs the same `evaluate` functions over the same facts, copied out in the same chunks, with
//! settings read once: what is left out is exactly what the sandbox adds.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "../tests/policy/hostile.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod hostile;
#[path = "../tests/policy/pack.rs"]
mod pack;
#[path = "../tests/policy/templates.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod templates;

use reservegrid::policy::{EngineLimits, PolicyEngine, PolicySet, PolicySpec};
use serde_json::json;
use std::{
    hint::black_box,
    time::{Duration, Instant},
};

const WARM_UP: usize = 200;
const RUNS: usize = 2_000;

fn main() {
    let engine = PolicyEngine::start(EngineLimits::default(), None).unwrap();
    let set = PolicySet::load(&engine, &pack::specs()).expect("the standard pack loads");
    println!("the standard pack, {RUNS} evaluations each; times in microseconds");
    println!(
        "{:<14}{:>10}{:>10}{:>12}{:>12}{:>12}{:>8}{:>8}",
        "transactions", "p50", "p99", "fuel", "native p50", "native p99", "p50 x", "p99 x"
    );
    for count in [2_500, 10_000] {
        let inputs = pack::inputs(count);
        let judgement = set.evaluate(&inputs);
        assert!(judgement.verdict.accepted, "{:?}", judgement.verdict);
        let fuel: u64 = judgement.policies.iter().filter_map(|policy| policy.fuel).sum();
        let native = pack::Native::new(&inputs);
        let [p50, p99] = percentiles(|| set.evaluate(&inputs).verdict.accepted);
        let [native_p50, native_p99] = percentiles(|| native.judge().is_ok());
        println!(
            "{count:<14}{:>10.1}{:>10.1}{fuel:>12}{:>12.1}{:>12.1}{:>8.2}{:>8.2}",
            micros(p50),
            micros(p99),
            micros(native_p50),
            micros(native_p99),
            micros(p50) / micros(native_p50),
            micros(p99) / micros(native_p99)
        );
    }
    each(&set);
    instance();
    loading();
}

/// Where the time goes, policy by policy.
fn each(set: &PolicySet) {
    let inputs = pack::inputs(10_000);
    let mut times = vec![Vec::new(); set.policies().len()];
    let mut last = set.evaluate(&inputs);
    for _ in 0..RUNS {
        last = set.evaluate(&inputs);
        for (times, policy) in times.iter_mut().zip(&last.policies) {
            times.push(policy.duration);
        }
    }
    println!("\n{:<20}{:>10}{:>12}{:>10}", "10,000 each", "p50", "fuel", "memory kB");
    for (mut times, policy) in times.into_iter().zip(&last.policies) {
        times.sort_unstable();
        let fuel = policy.fuel.unwrap_or_default();
        let memory = policy.memory_bytes.unwrap_or_default() / 1000;
        println!("{:<20}{:>10.1}{fuel:>12}{memory:>10}", policy.name, micros(times[RUNS / 2]));
    }
}

/// A policy of a few instructions, written by hand: what remains is the instance.
fn instance() {
    let dir = tempfile::tempdir().unwrap();
    let module = dir.path().join("nothing.wasm");
    std::fs::write(&module, hostile::component("i32.const 1024")).unwrap();
    let engine = PolicyEngine::start(EngineLimits::default(), None).unwrap();
    let spec = PolicySpec { module, settings: json!({}), ..pack::spec("nothing") };
    let set = PolicySet::load(&engine, &[spec]).unwrap();
    let inputs = pack::inputs(1);
    let [p50, p99] = percentiles(|| set.evaluate(&inputs).verdict.accepted);
    println!("\na fresh instance, called once: p50 {:.1}, p99 {:.1} microseconds", micros(p50), micros(p99));
}

fn loading() {
    let dir = tempfile::tempdir().unwrap();
    println!("\n{:<20}{:>8}{:>16}{:>18}", "loading, ms", "kB", "compiled anew", "compiled before");
    for spec in pack::specs() {
        let load = || {
            let engine = PolicyEngine::start(EngineLimits::default(), Some(dir.path())).unwrap();
            let started = Instant::now();
            drop(PolicySet::load(&engine, std::slice::from_ref(&spec)).unwrap());
            micros(started.elapsed()) / 1000.0
        };
        let (anew, before) = (load(), (0..5).map(|_| load()).fold(f64::MAX, f64::min));
        let size = std::fs::metadata(&spec.module).unwrap().len() / 1000;
        println!("{:<20}{size:>8}{anew:>16.1}{before:>18.2}", spec.name);
    }
}

fn percentiles(mut work: impl FnMut() -> bool) -> [Duration; 2] {
    for _ in 0..WARM_UP {
        assert!(black_box(work()));
    }
    let mut times: Vec<Duration> = (0..RUNS)
        .map(|_| {
            let started = Instant::now();
            assert!(black_box(work()));
            started.elapsed()
        })
        .collect();
    times.sort_unstable();
    [times[RUNS / 2], times[RUNS * 99 / 100]]
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}
