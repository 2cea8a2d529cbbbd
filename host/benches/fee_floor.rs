//! One `fee-floor` evaluation on templates of 2,500 and 10,000 transactions: p50, p99 and fuel, beside
//! the same rule computed natively in the same run.
//!
//! An evaluation is the whole of it: a fresh instance, its settings parsed, the verdict checked.
//! "totals" needs two scalars of the template; "rates" pulls two columns and looks at every
//! transaction. Times depend on the machine, fuel does not.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "../tests/policy/templates.rs"]
mod templates;

use reservegrid::{
    policy::{DEFAULT_FUEL, Enforcement, EngineLimits, PolicySet, PolicySpec},
    template::Template,
};
use serde_json::{Value, json};
use std::{
    hint::black_box,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use templates::{mempool, with_fees};

const WARM_UP: usize = 200;
const RUNS: usize = 2_000;
const MIN_FEE_RATE: u64 = 1_000;

fn main() {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/policies");
    let module =
        std::env::var_os("RESERVEGRID_POLICY_DIR").map_or(default, PathBuf::from).join("fee-floor.wasm");
    assert!(module.is_file(), "{} is not there: run `make policies`", module.display());

    println!("fee-floor, {RUNS} evaluations each; times in microseconds");
    println!(
        "{:<8}{:>14}{:>10}{:>10}{:>12}{:>12}{:>12}{:>8}",
        "rule", "transactions", "p50", "p99", "fuel", "native p50", "native p99", "ratio"
    );
    let started = Instant::now();
    drop(load(&module, json!({ "min_avg_fee": { "mid": 0, "high": 0 } })));
    let loaded = started.elapsed();
    let floors = json!({ "low": 1, "mid": 1, "high": 1 });
    for (rule, settings) in [
        ("totals", json!({ "min_avg_fee": floors, "min_total_fees": 1 })),
        ("rates", json!({ "min_avg_fee": floors, "min_total_fees": 1, "min_fee_rate": MIN_FEE_RATE })),
    ] {
        let set = load(&module, settings);
        for count in [2_500_u64, 10_000] {
            let template = with_fees((0..count).map(|index| 1_000 + index));
            let context = mempool(2_000_000);
            let judgement = set.evaluate(&template, &context);
            assert!(judgement.verdict.accepted, "{:?}", judgement.verdict);
            let fuel = judgement.policies[0].fuel.unwrap();

            let [p50, p99] = percentiles(|| set.evaluate(&template, &context).verdict.accepted);
            let [native_p50, native_p99] = percentiles(|| native(&template, rule == "rates"));
            println!(
                "{rule:<8}{count:>14}{:>10.1}{:>10.1}{fuel:>12}{:>12.2}{:>12.2}{:>8.1}",
                micros(p50),
                micros(p99),
                micros(native_p50),
                micros(native_p99),
                micros(p50) / micros(native_p50)
            );
        }
    }
    let size = std::fs::metadata(&module).unwrap().len();
    println!(
        "loading the module ({} kB), compilation included: {:.1} ms",
        size / 1000,
        micros(loaded) / 1000.0
    );
}

fn load(module: &Path, settings: Value) -> PolicySet {
    let spec = PolicySpec {
        name: "fee-floor".into(),
        module: module.into(),
        sha256: None,
        settings,
        fuel: DEFAULT_FUEL,
        enforcement: Enforcement::Enforce,
    };
    PolicySet::load(EngineLimits::default(), &[spec]).expect("fee-floor loads")
}

/// The same rule on the same facts, without an engine.
fn native(template: &Template, rates: bool) -> bool {
    let facts = black_box(&template.facts);
    let total: u64 = facts.fees.iter().sum();
    let average = total / facts.fees.len().max(1) as u64;
    let fine = |(fee, weight): (&u64, &u32)| {
        u128::from(*fee) * 1000 >= u128::from(MIN_FEE_RATE) * u128::from(weight.div_ceil(4))
    };
    average >= 1 && total >= 1 && (!rates || facts.fees.iter().zip(&facts.weights).all(fine))
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
