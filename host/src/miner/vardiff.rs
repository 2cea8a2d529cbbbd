//! Variable difficulty: how fast a channel hashes, judged from its accepted shares alone.
//!
//! A window collects the work of the shares that were accepted (the hashes that a share of its target
//! costs on average) and the time that has passed. The work of a share does not depend on what the
//! channel's target is by now, so shares of older jobs count as what they are. Each look compares the
//! shares seen with the shares expected, as counts of a Poisson process: only a difference that chance
//! hardly explains, and that is worth a message, gives a new hash rate ([`Vardiff::look`]). Then, and when
//! the window is full, a new window begins; the one before it stays in the estimate.
//!
//! No clock of its own and no limits: what the target may be is the channel's business.

use std::time::{Duration, Instant};

/// Likelihood ratio (G statistic) above which a difference is no chance: 12 is 3.5 standard deviations.
const SIGNIFICANT: f64 = 12.0;
/// Smallest factor by which the hash rate must differ from what is assumed, as a natural logarithm (22 %).
pub(super) const WORTH_IT: f64 = 0.2;
/// Shares, seen or expected, that fill a window.
const WINDOW: f64 = 240.0;
/// No judgement before: shares that waited somewhere arrive all at once.
const SHORTEST: Duration = Duration::from_secs(1);

/// How fast a channel hashes, and what that is known from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Estimate {
    /// Hashes a second.
    pub(super) hashrate: f64,
    /// The time over which the shares were counted.
    pub(super) window: Duration,
    /// The shares that were counted.
    pub(super) shares: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Window {
    hashes: f64,
    shares: u64,
    elapsed: Duration,
}

/// The state of one channel.
#[derive(Debug)]
pub(super) struct Vardiff {
    shares_per_second: f64,
    began: Instant,
    current: Window,
    before: Window,
}

impl Vardiff {
    /// Begins to count at `now`.
    pub(super) fn new(shares_per_minute: f64, now: Instant) -> Self {
        let (current, before) = (Window::default(), Window::default());
        Self { shares_per_second: shares_per_minute / 60.0, began: now, current, before }
    }

    /// A share was accepted whose target is met by one of so many hashes.
    pub(super) fn on_share(&mut self, hashes: f64) {
        self.current.hashes += hashes;
        self.current.shares += 1;
    }

    /// The hash rate to aim at, if it is clearly another than the one that `hashes_per_share` was made
    /// for. To be called after shares and, so that silence is noticed, now and then.
    pub(super) fn look(&mut self, hashes_per_share: f64, now: Instant) -> Option<f64> {
        self.current.elapsed = now.saturating_duration_since(self.began);
        if self.current.elapsed < SHORTEST {
            return None;
        }
        let seconds = self.current.elapsed.as_secs_f64();
        let expected = seconds * self.shares_per_second;
        // In units of the present target, so that shares of easier or harder jobs weigh what they cost.
        let seen = self.current.hashes / hashes_per_share;
        // One share of doubt: nothing seen is not a hash rate of zero, two shares at once are no flood.
        let ratio = (seen + 1.0) / (expected + 1.0);
        if g_statistic(seen, expected) > SIGNIFICANT && ratio.ln().abs() > WORTH_IT {
            self.restart(now);
            return Some(ratio * hashes_per_share * self.shares_per_second);
        }
        if seen.max(expected) > WINDOW {
            self.restart(now);
        }
        None
    }

    /// Begins a new window.
    pub(super) fn restart(&mut self, now: Instant) {
        self.current.elapsed = now.saturating_duration_since(self.began);
        self.before = std::mem::take(&mut self.current);
        self.began = now;
    }

    /// What is known, over this window and the one before it.
    pub(super) fn estimate(&self, now: Instant) -> Estimate {
        let window = self.before.elapsed + now.saturating_duration_since(self.began);
        let hashes = self.before.hashes + self.current.hashes;
        let seconds = window.as_secs_f64();
        let hashrate = if seconds > 0.0 { hashes / seconds } else { 0.0 };
        Estimate { hashrate, window, shares: self.before.shares + self.current.shares }
    }
}

/// Twice the logarithm of how much better `seen` explains itself than `expected` does (Poisson).
fn g_statistic(seen: f64, expected: f64) -> f64 {
    let surprise = if seen > 0.0 { seen * (seen / expected).ln() } else { 0.0 };
    2.0 * (surprise - (seen - expected))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::secp256k1::rand::{Rng, SeedableRng, rngs::StdRng};

    const RATE: f64 = 6.0;
    /// How often the gateway looks at silent channels at this rate.
    const TICK: f64 = 30.0;

    /// A miner on a simulated clock, and the target that vardiff gives it.
    struct Miner {
        random: StdRng,
        now: Instant,
        vardiff: Vardiff,
        hashrate: f64,
        hashes_per_share: f64,
        changes: u32,
    }

    impl Miner {
        fn new(seed: u64, hashrate: f64, assumed: f64) -> Self {
            let now = Instant::now();
            Self {
                random: StdRng::seed_from_u64(seed),
                now,
                vardiff: Vardiff::new(RATE, now),
                hashrate,
                hashes_per_share: (assumed * 60.0 / RATE).max(1.0),
                changes: 0,
            }
        }

        /// Lets time pass; gives the shares found. At most a thousand a second arrive, as on the wire.
        fn mine(&mut self, seconds: f64) -> u32 {
            let (mut left, mut shares) = (seconds, 0);
            while left > 0.0 {
                let mean = (self.hashes_per_share / self.hashrate).max(1e-3);
                let wait = -mean * (1.0 - self.random.r#gen::<f64>()).ln();
                let step = wait.min(TICK).min(left);
                (left, self.now) = (left - step, self.now + Duration::from_secs_f64(step));
                if step == wait {
                    shares += 1;
                    self.vardiff.on_share(self.hashes_per_share);
                }
                if let Some(hashrate) = self.vardiff.look(self.hashes_per_share, self.now) {
                    self.hashes_per_share = hashrate * 60.0 / RATE;
                    self.changes += 1;
                }
            }
            shares
        }

        /// Shares a minute at the present target.
        fn rate(&self) -> f64 {
            self.hashrate * 60.0 / self.hashes_per_share
        }
    }

    const HASHRATES: [f64; 6] = [1e5, 1e7, 1e9, 1e11, 1e13, 1e15];

    #[test]
    fn from_any_first_guess_the_share_rate_comes_near_the_wanted_one_within_minutes() {
        for (seed, hashrate) in HASHRATES.into_iter().enumerate() {
            for guess in [hashrate / 1e3, hashrate / 10.0, hashrate, hashrate * 10.0, hashrate * 1e3] {
                let mut miner = Miner::new(seed as u64, hashrate, guess);
                miner.mine(600.0);
                let rate = miner.rate();
                assert!((RATE / 2.0..RATE * 2.0).contains(&rate), "{hashrate:e} H/s told {guess:e}: {rate}");
            }
        }
    }

    #[test]
    fn a_miner_that_said_nothing_of_its_hash_rate_does_not_flood_for_long() {
        // A petahash on the easiest target a pool may allow: 4.3e5 hashes a share.
        let mut miner = Miner::new(7, 1e15, 4.3e4);
        let flood = miner.mine(60.0);
        assert!(flood < 10_000, "{flood} shares in the first minute");
        assert!((RATE / 2.0..RATE * 2.0).contains(&miner.rate()), "{}", miner.rate());
    }

    #[test]
    fn a_steady_miner_is_left_alone() {
        for (seed, hashrate) in HASHRATES.into_iter().enumerate() {
            let mut miner = Miner::new(100 + seed as u64, hashrate, hashrate);
            let shares = miner.mine(24.0 * 3600.0);
            let expected = 24.0 * 60.0 * RATE;
            assert!((f64::from(shares) / expected - 1.0).abs() < 0.15, "{hashrate:e}: {shares}");
            assert!(miner.changes <= 12, "{hashrate:e}: {} changes in a day", miner.changes);
        }
    }

    #[test]
    fn a_miner_that_loses_or_gains_machines_is_followed() {
        for (seed, factor) in [0.02, 0.25, 4.0, 50.0].into_iter().enumerate() {
            let mut miner = Miner::new(200 + seed as u64, 1e12, 1e12);
            miner.mine(3600.0);
            miner.hashrate *= factor;
            miner.mine(1200.0);
            let rate = miner.rate();
            assert!((RATE / 1.7..RATE * 1.7).contains(&rate), "factor {factor}: {rate}");
        }
    }

    #[test]
    fn silence_lowers_the_difficulty_step_by_step_and_never_to_nothing() {
        let mut miner = Miner::new(0, 1e-9, 1e12);
        miner.mine(3600.0);
        assert!(miner.changes > 5 && miner.hashes_per_share > 0.0, "{}", miner.hashes_per_share);
    }

    #[test]
    fn the_estimate_says_what_it_was_made_from() {
        let start = Instant::now();
        let mut vardiff = Vardiff::new(RATE, start);
        for _ in 0..10 {
            vardiff.on_share(1e6);
        }
        let estimate = vardiff.estimate(start + Duration::from_secs(100));
        let expected = Estimate { hashrate: 1e5, window: Duration::from_secs(100), shares: 10 };
        assert_eq!(estimate, expected);
        // A new window forgets only what lies before the last one.
        vardiff.restart(start + Duration::from_secs(100));
        assert_eq!(vardiff.estimate(start + Duration::from_secs(100)), expected);
        vardiff.restart(start + Duration::from_secs(200));
        assert_eq!(vardiff.estimate(start + Duration::from_secs(200)).shares, 0);
    }

    #[test]
    fn a_burst_of_a_few_shares_changes_nothing() {
        let start = Instant::now();
        let mut vardiff = Vardiff::new(RATE, start);
        for _ in 0..4 {
            vardiff.on_share(1e6);
        }
        // Four shares that waited for the network for half a minute.
        assert_eq!(vardiff.look(1e6, start + Duration::from_secs(30)), None);
    }
}
