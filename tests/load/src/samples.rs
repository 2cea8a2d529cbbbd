//! Latencies: collected as they come, sorted once.

use std::{fmt, time::Duration};

/// Durations in microseconds.
#[derive(Clone, Debug, Default)]
pub struct Samples(Vec<u32>);

impl Samples {
    /// Takes one.
    pub fn add(&mut self, sample: Duration) {
        self.0.push(u32::try_from(sample.as_micros()).unwrap_or(u32::MAX));
    }

    /// Takes those of another.
    pub fn append(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The duration that this part (0 to 1) of them stays within; zero without any.
    pub fn percentile(&self, part: f64) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let last = sorted.len().saturating_sub(1);
        let at = (last as f64 * part).round() as usize;
        Duration::from_micros(sorted.get(at).copied().unwrap_or(0).into())
    }
}

impl fmt::Display for Samples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, part) in [("p50", 0.5), ("p99", 0.99), ("max", 1.0)] {
            let millis = self.percentile(part).as_secs_f64() * 1e3;
            write!(f, "{name} {millis:.2} ms{}", if part < 1.0 { ", " } else { "" })?;
        }
        Ok(())
    }
}
