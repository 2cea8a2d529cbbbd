//! Who waits for a verdict goes first.
//!
//! A replay judges templates one after the other and would keep a core to itself; where there are few, the
//! verdicts that miners wait for meanwhile would take several times as long. So it looks between two
//! evaluations whether somebody waits for a verdict, and steps aside: for a moment, so that it comes to its
//! end even under a stream of them.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

/// The longest that an evaluation of a replay stands back.
const PATIENCE: Duration = Duration::from_millis(1);
/// Between two looks.
const LOOK: Duration = Duration::from_micros(50);

/// Verdicts that somebody waits for.
#[derive(Debug, Default)]
pub(super) struct Awaited(AtomicUsize);

/// Somebody who waits for a verdict, as long as it lives.
pub(super) struct Asker<'a>(&'a Awaited);

impl Awaited {
    /// Somebody begins to wait.
    pub(super) fn wait(&self) -> Asker<'_> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Asker(self)
    }

    /// Lets them go first, for at most [`PATIENCE`]. Blocks.
    pub(super) fn step_aside(&self) {
        let started = Instant::now();
        while self.0.load(Ordering::Relaxed) > 0 && started.elapsed() < PATIENCE {
            thread::sleep(LOOK);
        }
    }
}

impl Drop for Asker<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replay_stands_back_while_somebody_waits_and_comes_to_its_end_all_the_same() {
        let awaited = Awaited::default();
        let long = |work: &dyn Fn()| {
            let started = Instant::now();
            work();
            started.elapsed() >= PATIENCE
        };
        let (first, second) = (awaited.wait(), awaited.wait());
        assert!(long(&|| awaited.step_aside()));
        drop(first);
        assert!(long(&|| awaited.step_aside()), "another one waits");
        drop(second);
        assert_eq!(awaited.0.load(Ordering::Relaxed), 0);
        awaited.step_aside();
    }
}
