//! How often a peer may ask for something: a bucket of tokens that fills with time.

use std::time::Instant;

/// Tokens of one kind of request.
#[derive(Debug)]
pub(crate) struct Bucket {
    capacity: f64,
    per_second: f64,
    level: f64,
    at: Instant,
}

impl Bucket {
    /// A full bucket of `capacity` tokens that gains `per_second`.
    pub(crate) fn new(capacity: f64, per_second: f64, now: Instant) -> Self {
        Self { capacity, per_second, level: capacity, at: now }
    }

    /// Whether nothing is missing in it any more.
    pub(crate) fn is_full(&self, now: Instant) -> bool {
        let gained = now.saturating_duration_since(self.at).as_secs_f64() * self.per_second;
        self.level + gained >= self.capacity
    }

    /// Takes a token; false when there is none.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let gained = now.saturating_duration_since(self.at).as_secs_f64() * self.per_second;
        self.level = (self.level + gained).min(self.capacity);
        self.at = self.at.max(now);
        let taken = self.level >= 1.0;
        if taken {
            self.level -= 1.0;
        }
        taken
    }

    /// Gives one back: it was earned.
    pub(super) fn give(&mut self) {
        self.level = (self.level + 1.0).min(self.capacity);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_burst_is_allowed_and_then_the_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::new(3.0, 0.5, start);
        let taken = |bucket: &mut Bucket, seconds| {
            (0..10).filter(|_| bucket.take(start + Duration::from_secs(seconds))).count()
        };
        assert_eq!(taken(&mut bucket, 0), 3);
        assert_eq!(taken(&mut bucket, 1), 0);
        assert_eq!(taken(&mut bucket, 4), 2);
        assert_eq!(taken(&mut bucket, 3_600), 3, "never more than the burst");
    }

    #[test]
    fn what_is_given_back_may_be_taken_again_but_never_more_than_the_burst() {
        let start = Instant::now();
        let mut bucket = Bucket::new(2.0, 1.0, start);
        bucket.give();
        assert_eq!((0..10).filter(|_| bucket.take(start)).count(), 2);
        bucket.give();
        assert!(bucket.take(start) && !bucket.take(start));
    }

    #[test]
    fn a_clock_that_stands_or_goes_back_gives_nothing() {
        let start = Instant::now();
        let mut bucket = Bucket::new(1.0, 1.0, start + Duration::from_secs(9));
        assert!(bucket.take(start + Duration::from_secs(9)));
        assert!(!bucket.take(start));
        assert!(!bucket.take(start + Duration::from_secs(9)));
        assert!(bucket.take(start + Duration::from_secs(10)));
    }
}
