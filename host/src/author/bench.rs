//! What a policy costs: `reservegrid policy bench`.
//!
//! The template is an ordinary one with as many transactions as asked for, and everything that a
//! context can hold is known. Fuel is the same on every machine; times are those of this one, with
//! whatever else it is doing.

use super::{
    InputFault, Steps,
    engine::{Engine, judge, memory},
    read_settings,
};
use crate::{
    policy::Verdict,
    template::{
        FeeRatePercentiles, MempoolState,
        facts::assemble,
        synthetic::{self, ContextTable, RowTable, TemplateTable, TipTable},
    },
};
use serde::Serialize;
use std::{
    fmt,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

/// Evaluations before measuring begins.
const WARM_UP: u32 = 20;

/// What was measured. Times in microseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    /// Name and version of the policy.
    pub policy: String,
    /// The same for the module.
    pub version: String,
    /// Transactions of the template.
    pub transactions: u32,
    /// Evaluations.
    pub runs: u32,
    /// What the policy says about the template: a rejection may mean that it looked at little of it.
    pub verdict: Verdict,
    /// Fuel of one evaluation; `None` when it did not end by itself.
    pub fuel: Option<u64>,
    /// Whether every evaluation took the same fuel and gave the same verdict, as they must.
    pub deterministic: bool,
    /// Memory of the instance at its end, bytes, where the engine says.
    pub memory_bytes: Option<u64>,
    /// Half of the evaluations took no longer.
    pub p50_us: f64,
    /// 99 % took no longer.
    pub p99_us: f64,
    /// Half of the instances were made and ended in no more; a part of each evaluation.
    pub instance_p50_us: f64,
    /// Reading, compiling and asking for metadata and settings, once and without a cache.
    pub load_us: f64,
}

/// Measures a module; `steps` is told between the evaluations.
///
/// # Errors
/// Where module or settings cannot be used.
pub fn bench(
    module: &Path,
    settings: Option<&Path>,
    transactions: u32,
    runs: u32,
    steps: Steps<'_>,
) -> Result<Measured, InputFault> {
    let unusable = |error: &dyn fmt::Display| InputFault(error.to_string());
    let settings = read_settings(settings)?;
    let (set, load) = Engine::start()?.load_one(module, settings)?;
    let (declared, context) =
        synthetic::build(&template(transactions), &surroundings()).map_err(|e| unusable(&e))?;
    let template = Arc::new(assemble(&declared).map_err(|error| unusable(&error))?);
    for _ in 0..WARM_UP {
        judge(&set, &template, &context);
    }
    let first = judge(&set, &template, &context);
    let (mut deterministic, mut times) = (true, Vec::with_capacity(runs as usize));
    let fuel =
        |judgement: &crate::policy::Judgement| judgement.policies.first().and_then(|policy| policy.fuel);
    for run in 0..runs {
        steps(run.into(), runs.into());
        let started = Instant::now();
        let judgement = judge(&set, &template, &context);
        times.push(started.elapsed());
        deterministic &= fuel(&judgement) == fuel(&first) && judgement.verdict == first.verdict;
    }
    let instances: Result<Vec<_>, _> = (0..runs).map(|_| set.time_instances()).collect();
    let mut instances = instances.map_err(|error| unusable(&error))?;
    let info = set.policies().first().map(|policy| policy.info()).ok_or_else(|| unusable(&"no policy"))?;
    Ok(Measured {
        policy: info.name.clone(),
        version: info.version.clone(),
        transactions,
        runs,
        fuel: fuel(&first),
        deterministic,
        memory_bytes: memory(&first),
        p50_us: percentile(&mut times, 50),
        p99_us: percentile(&mut times, 99),
        instance_p50_us: percentile(&mut instances, 50),
        load_us: micros(load),
        verdict: first.verdict,
    })
}

/// As many payments as asked for, with different fees.
fn template(transactions: u32) -> TemplateTable {
    let row = |count, fee| RowTable { count, fee, ..RowTable::default() };
    let half = transactions / 2;
    TemplateTable {
        transactions: vec![row(transactions - half, 5_000), row(half, 2_000)],
        ..TemplateTable::default()
    }
}

fn surroundings() -> ContextTable {
    ContextTable {
        tip: Some(TipTable::default()),
        mempool: Some(MempoolState {
            transaction_count: 50_000,
            total_vsize: 20_000_000,
            total_fees: 100_000_000,
        }),
        fee_rates: Some(FeeRatePercentiles { p10: 1_000, p25: 2_000, p50: 5_000, p75: 10_000, p90: 20_000 }),
        best_template_value: Some(312_500_000),
        known: true,
        ..ContextTable::default()
    }
}

/// The time that so many percent do not exceed.
fn percentile(times: &mut [Duration], percent: usize) -> f64 {
    times.sort_unstable();
    let rank = (times.len() * percent).div_ceil(100).saturating_sub(1);
    times.get(rank).map_or(0.0, |time| micros(*time))
}

fn micros(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1_000.0
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let none = || "unknown".to_owned();
        let mut line = |name: &str, value: String| writeln!(f, "{name:<14} {value}");
        line("policy", format!("{} {}", self.policy, self.version))?;
        line("template", format!("{} transactions, judged {} times", self.transactions, self.runs))?;
        line(
            "verdict",
            match (&self.verdict.reason_code, &self.verdict.reason_detail) {
                (Some(code), Some(detail)) => format!("rejected: {code}: {detail}"),
                _ => "accepted".into(),
            },
        )?;
        line("fuel", self.fuel.map_or_else(none, |fuel| fuel.to_string()))?;
        if !self.deterministic {
            line("WARNING", "the evaluations differ in fuel or verdict; please report this".into())?;
        }
        line("memory", self.memory_bytes.map_or_else(none, |bytes| format!("{bytes} bytes")))?;
        line("p50", format!("{:.1} us", self.p50_us))?;
        line("p99", format!("{:.1} us", self.p99_us))?;
        line("instance p50", format!("{:.1} us", self.instance_p50_us))?;
        line("load, cold", format!("{:.1} ms", self.load_us / 1_000.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_smallest_time_that_so_many_do_not_exceed() {
        let mut times: Vec<_> = (1..=200).rev().map(Duration::from_micros).collect();
        assert_eq!(percentile(&mut times, 50), 100.0);
        assert_eq!(percentile(&mut times, 99), 198.0);
        assert_eq!(percentile(&mut [Duration::from_micros(7)], 99), 7.0);
        assert_eq!(percentile(&mut [], 99), 0.0);
    }
}
