//! What can be counted beside a share: atomics, no locks, no waiting.
//!
//! The library's counters by label take a lock to find their label, and its histograms take one for each
//! value. On the way of a share that is too much, so these three are their own: a count for each reason, a
//! histogram with fixed bounds, and a sum. They encode like any other metric.

use crate::reason::Reason;
use prometheus_client::{
    encoding::{EncodeMetric, MetricEncoder, NoLabelSet},
    metrics::MetricType,
};
use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Reasons that can be counted; a test sees to it that they are enough.
const REASONS: usize = Reason::ALL.len();

/// A count for each reason, under one label.
#[derive(Debug)]
pub struct ByReason {
    label: &'static str,
    /// Which reasons are shown before they happened: a rate begins with a 0 that was seen.
    always: fn(Reason) -> bool,
    counts: [AtomicU64; REASONS],
}

impl ByReason {
    /// Nothing counted; `label` is what the reason stands under.
    pub fn new(label: &'static str) -> Self {
        Self::showing(label, |_| false)
    }

    /// The same, with reasons that are shown as 0 from the start, for alerts on their first time.
    pub fn showing(label: &'static str, always: fn(Reason) -> bool) -> Self {
        Self { label, always, counts: [const { AtomicU64::new(0) }; REASONS] }
    }

    /// One more.
    pub fn add(&self, reason: Reason) {
        self.add_many(reason, 1);
    }

    /// Several more.
    pub fn add_many(&self, reason: Reason, count: u64) {
        // `Reason` has as many values as there are places.
        if let Some(place) = self.counts.get(reason as usize) {
            place.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// All of them together.
    pub fn sum(&self) -> u64 {
        self.counts.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// How often this one.
    pub fn of(&self, reason: Reason) -> u64 {
        self.counts.get(reason as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }
}

impl EncodeMetric for ByReason {
    /// Only what happened, or is always shown: a code that never occurs is no series.
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        for reason in Reason::ALL {
            let count = self.of(*reason);
            if count > 0 || (self.always)(*reason) {
                let labels = [(self.label, reason.code())];
                let mut one = encoder.encode_family(&labels)?;
                one.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
            }
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }
}

/// A histogram of durations. Its bounds are those of the promises: 50 ms for a verdict and 10 ms for an
/// acknowledgement lie on one.
#[derive(Debug)]
pub struct Times {
    bounds: &'static [f64],
    counts: Box<[AtomicU64]>,
    sum_us: AtomicU64,
}

/// From a tenth of a millisecond to ten seconds.
pub const FINE: &[f64] =
    &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// From a millisecond to ten minutes.
pub const COARSE: &[f64] =
    &[0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0];

impl Times {
    /// Nothing measured yet, with these upper bounds in seconds.
    pub fn new(bounds: &'static [f64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, counts, sum_us: AtomicU64::new(0) }
    }

    /// One more duration.
    pub fn observe(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let bucket = self.bounds.partition_point(|bound| *bound < seconds);
        if let Some(count) = self.counts.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.sum_us.fetch_add(micros, Ordering::Relaxed);
    }
}

impl EncodeMetric for Times {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let bounds = self.bounds.iter().copied().chain([f64::INFINITY]);
        let buckets: Vec<_> =
            bounds.zip(&self.counts).map(|(bound, count)| (bound, count.load(Ordering::Relaxed))).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = self.sum_us.load(Ordering::Relaxed) as f64 / 1e6;
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

/// A sum of numbers that are not whole.
#[derive(Debug, Default)]
pub struct Sum(AtomicU64);

impl Sum {
    /// Adds to it.
    pub fn add(&self, value: f64) {
        let add = |bits| Some((f64::from_bits(bits) + value).to_bits());
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    /// What it is now.
    pub fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }
}

impl EncodeMetric for Sum {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        encoder.encode_counter::<NoLabelSet, _, u64>(&self.get(), None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{super::Part, *};
    use prometheus_client::{encoding::text, registry::Registry};
    use std::sync::Arc;

    fn encoded(name: &'static str, metric: impl EncodeMetric + Send + Sync + 'static) -> String {
        let mut registry = Registry::default();
        let part = Part { owner: Arc::new(metric), name, help: "Help.", metric: |metric| metric };
        registry.register_collector(Box::new(part));
        let mut out = String::new();
        text::encode(&mut out, &registry).unwrap();
        out
    }

    #[test]
    fn every_reason_has_its_own_count() {
        let counts = ByReason::new("code");
        for reason in Reason::ALL {
            counts.add(*reason);
        }
        assert!(Reason::ALL.iter().all(|reason| counts.of(*reason) == 1), "each has its place");
        assert_eq!(counts.sum(), REASONS as u64);
    }

    #[test]
    fn what_never_happened_is_no_series() {
        let counts = ByReason::new("code");
        counts.add_many(Reason::ShareStale, 3);
        let text = encoded("x", counts);
        assert!(text.contains("x_total{code=\"share_stale\"} 3\n"), "{text}");
        assert_eq!(text.matches("x_total").count(), 1, "{text}");
        let shown = encoded("x", ByReason::showing("code", |reason| reason == Reason::BlockSubmitFailed));
        assert!(shown.contains("x_total{code=\"block_submit_failed\"} 0\n"), "{shown}");
    }

    #[test]
    fn a_duration_falls_into_the_first_bucket_that_holds_it() {
        let times = Times::new(&[0.01, 0.05]);
        for millis in [5, 10, 11, 50, 51, 4_000] {
            times.observe(Duration::from_millis(millis));
        }
        let text = encoded("x", times);
        for line in
            ["x_bucket{le=\"0.01\"} 2", "x_bucket{le=\"0.05\"} 4", "x_bucket{le=\"+Inf\"} 6", "x_count 6"]
        {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert!(text.contains("x_sum 4.127"), "{text}");
    }

    #[test]
    fn a_sum_loses_nothing_when_many_add_at_once() {
        let sum = Arc::new(Sum::default());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1_000).for_each(|_| sum.add(0.5)));
            }
        });
        assert_eq!(sum.get(), 2_000.0);
    }
}
