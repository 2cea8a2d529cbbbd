//! Metrics for Prometheus: what is counted where it happens, what is counted from events, and what is looked
//! at when somebody asks.
//!
//! Three sources, by what they may cost. On the way of a share only atomics ([`Meters`]). Decisions are
//! counted from their events, on the thread that writes events ([`heard`]). Gauges (the gate's phase,
//! connections, the backlog) are read when Prometheus asks. Names follow its conventions: base units,
//! `_total` for counters. No label grows with miners; a policy's name and codes are the only ones that are
//! not fixed, and they are the operator's.
//!
//! - `meter`: counts and histograms without locks
//! - `heard`: what is counted from events

mod heard;
mod meter;

pub use heard::HeardMetrics;
pub use meter::{ByReason, COARSE, FINE, Sum, Times};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, text},
    metrics::{MetricType, counter::Counter},
    registry::Registry,
};
use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

/// The content type of the text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// All names begin with this.
const PREFIX: &str = "reservegrid";

/// What rooms count where it happens. Adding is an atomic addition.
#[derive(Debug)]
pub struct Meters {
    /// Shares that were acknowledged.
    pub shares_accepted: Counter,
    /// Of those, mined while newer work was held back.
    pub shares_held: Counter,
    /// Shares that were refused, by reason.
    pub shares_rejected: ByReason,
    /// Difficulty of the acknowledged shares, summed; times 2^32 these are hashes.
    pub work: Sum,
    /// From reading a share to having its acknowledgement ready to be sent.
    pub ack: Times,
    /// Connections that were let in.
    pub connections: Counter,
    /// Connections that were not, by reason.
    pub connections_refused: ByReason,
    /// Connections that ended, by reason.
    pub connections_closed: ByReason,
    /// HTTP requests that were answered as asked.
    pub http_answered: Counter,
    /// HTTP requests that were refused, by reason.
    pub http_refused: ByReason,
    /// Readers of the event stream that were cut off, by reason.
    pub readers_cut: ByReason,
}

impl Default for Meters {
    fn default() -> Self {
        Self {
            shares_accepted: Counter::default(),
            shares_held: Counter::default(),
            shares_rejected: ByReason::showing("code", |reason| reason.category() == "share"),
            work: Sum::default(),
            ack: Times::new(FINE),
            connections: Counter::default(),
            connections_refused: ByReason::new("code"),
            connections_closed: ByReason::new("code"),
            http_answered: Counter::default(),
            http_refused: ByReason::new("code"),
            readers_cut: ByReason::new("code"),
        }
    }
}

impl Meters {
    /// Shares were acknowledged: how many, and their difficulty.
    pub fn accepted(&self, count: u64, difficulty: f64) {
        self.shares_accepted.inner().fetch_add(count, Ordering::Relaxed);
        self.work.add(difficulty);
    }

    /// The time since a share was read, now that its acknowledgement is ready.
    pub fn acknowledged(&self, read: Instant, now: Instant) {
        self.ack.observe(now.saturating_duration_since(read));
    }
}

/// Everything that is shown, under its name.
pub struct Metrics {
    registry: Registry,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// With what is counted in the rooms and from events.
    pub fn new(meters: &Arc<Meters>, heard: &HeardMetrics) -> Self {
        let mut this = Self { registry: Registry::with_prefix(PREFIX) };
        let m = meters;
        this.of(m, "shares_accepted", "Shares that were acknowledged.", |m| &m.shares_accepted);
        this.of(
            m,
            "shares_held",
            "Acknowledged shares that were mined while newer work was held back.",
            |m| &m.shares_held,
        );
        this.of(m, "shares_rejected", "Shares that were refused, by reason code.", |m| &m.shares_rejected);
        this.of(
            m,
            "share_work",
            "Difficulty of the acknowledged shares, summed; times 2^32 these are hashes.",
            |m| &m.work,
        );
        this.of(
            m,
            "share_ack_seconds",
            "From reading a share to its acknowledgement, durable in the ledger.",
            |m| &m.ack,
        );
        this.of(m, "connections_opened", "Connections of miners that were let in.", |m| &m.connections);
        this.of(m, "connections_refused", "Connections that were not let in, by reason code.", |m| {
            &m.connections_refused
        });
        this.of(m, "connections_closed", "Connections that ended, by reason code.", |m| {
            &m.connections_closed
        });
        this.of(m, "http_answered", "HTTP requests that were answered as asked.", |m| &m.http_answered);
        this.of(m, "http_refused", "HTTP requests that were refused, by reason code.", |m| &m.http_refused);
        this.of(
            m,
            "event_readers_cut",
            "Readers of the event stream that were cut off, by reason code.",
            |m| &m.readers_cut,
        );
        heard.register(&mut this.registry);
        this
    }

    fn of<T: Send + Sync + fmt::Debug + 'static, M: EncodeMetric + 'static>(
        &mut self,
        owner: &Arc<T>,
        name: &'static str,
        help: &'static str,
        metric: fn(&T) -> &M,
    ) {
        let owner = owner.clone();
        self.registry.register_collector(Box::new(Part { owner, name, help, metric }));
    }

    /// A gauge that is looked at when somebody asks.
    pub fn gauge(
        &mut self,
        name: &'static str,
        help: &'static str,
        read: impl Fn() -> f64 + Send + Sync + 'static,
    ) {
        let samples = Box::new(move || vec![(None, read())]);
        self.registry.register_collector(Box::new(Gauges { name, help, label: "", samples }));
    }

    /// Gauges of one name, told apart by a label.
    pub fn gauges(
        &mut self,
        name: &'static str,
        help: &'static str,
        label: &'static str,
        read: impl Fn() -> Vec<(String, f64)> + Send + Sync + 'static,
    ) {
        let samples = Box::new(move || read().into_iter().map(|(value, n)| (Some(value), n)).collect());
        self.registry.register_collector(Box::new(Gauges { name, help, label, samples }));
    }

    /// Everything as text (OpenMetrics, which Prometheus reads).
    pub fn text(&self) -> String {
        let mut out = String::with_capacity(16 << 10);
        // Writing to a string does not fail.
        let _ = text::encode(&mut out, &self.registry);
        out
    }
}

/// A metric that lies in something shared.
struct Part<T, M> {
    owner: Arc<T>,
    name: &'static str,
    help: &'static str,
    metric: fn(&T) -> &M,
}

impl<T, M> fmt::Debug for Part<T, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl<T: Send + Sync + 'static, M: EncodeMetric + 'static> Collector for Part<T, M> {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let metric = (self.metric)(&self.owner);
        metric.encode(encoder.encode_descriptor(self.name, self.help, None, metric.metric_type())?)
    }
}

/// A label's value, where there is a label, and the number.
type Sample = (Option<String>, f64);

struct Gauges {
    name: &'static str,
    help: &'static str,
    label: &'static str,
    samples: Box<dyn Fn() -> Vec<Sample> + Send + Sync>,
}

impl fmt::Debug for Gauges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl Collector for Gauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut metric = encoder.encode_descriptor(self.name, self.help, None, MetricType::Gauge)?;
        for (value, number) in (self.samples)() {
            match value {
                None => metric.encode_gauge(&number)?,
                Some(value) => metric.encode_family(&[(self.label, value)])?.encode_gauge(&number)?,
            }
        }
        Ok(())
    }
}

/// The rate of a growing sum over the last minutes, from samples taken now and then.
#[derive(Debug, Default)]
pub struct Rate {
    samples: std::collections::VecDeque<(Instant, f64)>,
}

impl Rate {
    /// What it is measured over.
    const WINDOW: Duration = Duration::from_secs(300);
    /// Between two samples at least.
    const STEP: Duration = Duration::from_secs(1);

    /// Takes a sample; gives the rate per second over the window, 0 before there is one.
    pub fn sample(&mut self, now: Instant, sum: f64) -> f64 {
        // Whoever asks often makes no more samples of it.
        let is_news = |(at, _): &(Instant, f64)| now.saturating_duration_since(*at) >= Self::STEP;
        if self.samples.back().is_none_or(is_news) {
            self.samples.push_back((now, sum));
        }
        while self.samples.get(1).is_some_and(|(at, _)| now.saturating_duration_since(*at) >= Self::WINDOW) {
            self.samples.pop_front();
        }
        let Some((since, before)) = self.samples.front() else { return 0.0 };
        let seconds = now.saturating_duration_since(*since).as_secs_f64();
        if seconds > 0.0 { (sum - before) / seconds } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reason::Reason;

    #[test]
    fn names_follow_the_conventions_and_gauges_are_read_when_asked() {
        let meters = Arc::new(Meters::default());
        let mut metrics = Metrics::new(&meters, &HeardMetrics::default());
        let connections = meters.clone();
        metrics.gauge("connections", "Open.", move || connections.connections.get() as f64);
        metrics.gauges("mode", "Mode.", "mode", || vec![("inline".into(), 1.0), ("observe".into(), 0.0)]);
        meters.accepted(3, 1.5);
        meters.connections.inc();
        meters.shares_rejected.add(Reason::ShareStale);
        let text = metrics.text();
        for line in [
            "# TYPE reservegrid_shares_accepted counter",
            "reservegrid_shares_accepted_total 3",
            "reservegrid_shares_rejected_total{code=\"share_stale\"} 1",
            "reservegrid_share_work_total 1.5",
            "reservegrid_connections 1.0",
            "reservegrid_mode{mode=\"inline\"} 1.0",
            "reservegrid_share_ack_seconds_bucket{le=\"0.01\"} 0",
            "# EOF",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        for name in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            assert!(name.starts_with("reservegrid_"), "{name}");
        }
    }

    #[test]
    fn a_rate_is_that_of_the_last_minutes() {
        let (mut rate, start) = (Rate::default(), Instant::now());
        assert_eq!(rate.sample(start, 0.0), 0.0);
        assert_eq!(rate.sample(start + Duration::from_secs(10), 50.0), 5.0);
        // An hour of nothing, sampled; the old burst is forgotten.
        for second in (20..3_600).step_by(10) {
            rate.sample(start + Duration::from_secs(second), 50.0);
        }
        assert_eq!(rate.sample(start + Duration::from_secs(3_600), 50.0), 0.0);
        assert!(rate.samples.len() < 40, "{}", rate.samples.len());
        for millis in 0..2_000 {
            rate.sample(start + Duration::from_millis(3_600_000 + millis), 60.0);
        }
        assert!(rate.samples.len() < 42, "{}", rate.samples.len());
    }
}
