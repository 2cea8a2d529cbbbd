//! Rounds: how it is known that the last miner has the work on a new tip.
//!
//! Every connection belongs to the round of the newest tip whose work it was sent; work carries its
//! round. When work on another tip is released, the round of the tip before ends: connections leave it
//! once their bytes were handed to the socket, or when they close. Nobody can enter it any more, so
//! whoever leaves last was the last to be served, and that is an event.
//!
//! A round keeps those after it alive: a connection that is two tips behind is missing in both. Nothing
//! here is locked; leaving is an atomic addition. How long a round can last is bounded by the time that a
//! connection has to write.

use crate::{
    event::{
        Event, Events,
        schema::{TipServed, micros},
    },
    reason::Reason,
};
use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// The connections that work on one tip. The first one is the default.
#[derive(Debug, Default)]
pub struct Round {
    end: OnceLock<End>,
    /// Connections that left after the end.
    left: AtomicU64,
}

/// What ended a round: the release of work on another tip.
#[derive(Debug)]
pub struct Released {
    /// Number of the job.
    pub job: u64,
    /// The tip it is on.
    pub tip: String,
    /// From the arrival of the tip to the release.
    pub since_tip: Duration,
    /// When that was.
    pub at: Instant,
    /// Where it is told that everybody was served.
    pub events: Events,
}

#[derive(Debug)]
struct End {
    released: Released,
    next: Arc<Round>,
}

impl Round {
    /// Ends the round; gives the one that the released work belongs to. A round ends once.
    pub fn end(&self, released: Released) -> Arc<Round> {
        let next = Arc::new(Round::default());
        let end = End { released, next: next.clone() };
        if self.end.set(end).is_err() {
            tracing::error!("a round was ended twice: it is not told when everybody was served");
        }
        next
    }
}

impl Drop for Round {
    fn drop(&mut self) {
        let connections = *self.left.get_mut();
        let Some(End { released, next }) = self.end.take() else { return };
        if connections > 0 {
            let since_release = released.at.elapsed();
            released.events.emit(Event::TipServed(TipServed {
                reason: Reason::PrevhashServed,
                job: released.job,
                tip: released.tip,
                connections,
                since_tip_us: micros(released.since_tip + since_release),
                since_release_us: micros(since_release),
            }));
        }
        drop(next);
    }
}

/// A connection's place in a round.
#[derive(Debug)]
pub(super) struct Member(Arc<Round>);

impl Member {
    /// A connection that begins with the work of this round.
    pub(super) fn new(round: Arc<Round>) -> Self {
        Self(round)
    }

    /// It was sent the work of that round.
    pub(super) fn served(&mut self, round: Arc<Round>) {
        if !Arc::ptr_eq(&self.0, &round) {
            *self = Self(round);
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if self.0.end.get().is_some() {
            self.0.left.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::event;
    use serde_json::Value;

    /// The rounds of a gateway, and what they tell into a file.
    struct Bench {
        events: Events,
        writer: event::EventWriter,
        folder: tempfile::TempDir,
        current: Arc<Round>,
        job: u64,
    }

    impl Bench {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let (events, writer) = event::start(Some(&folder.path().join("events")), None).unwrap();
            Self { events, writer, folder, current: Arc::default(), job: 0 }
        }

        fn enter(&self) -> Member {
            Member::new(self.current.clone())
        }

        fn release(&mut self) {
            self.job += 1;
            let released = Released {
                job: self.job,
                tip: format!("tip {}", self.job),
                since_tip: Duration::from_millis(7),
                at: Instant::now(),
                events: self.events.clone(),
            };
            self.current = self.current.end(released);
        }

        /// Job and connections of what was told.
        fn told(self) -> Vec<(u64, u64)> {
            let Self { events, writer, folder, current, .. } = self;
            drop((events, current));
            writer.join();
            let text = std::fs::read_to_string(folder.path().join("events")).unwrap();
            let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
            let told = lines.map(|e| {
                assert_eq!((&e["event"], &e["reason"]), (&"tip_served".into(), &"prevhash_served".into()));
                assert!(
                    e["since_tip_us"].as_u64().unwrap() >= 7_000 + e["since_release_us"].as_u64().unwrap()
                );
                (e["job"].as_u64().unwrap(), e["connections"].as_u64().unwrap())
            });
            told.collect()
        }
    }

    #[test]
    fn the_last_connection_that_was_there_tells_it_and_later_ones_do_not_count() {
        let mut bench = Bench::new();
        let [mut a, mut b, closing] = [bench.enter(), bench.enter(), bench.enter()];
        let gone = bench.enter();
        drop(gone);
        bench.release();
        let late = bench.enter();
        a.served(bench.current.clone());
        a.served(bench.current.clone());
        drop(closing);
        let slow = Arc::downgrade(&b.0);
        assert!(slow.upgrade().is_some(), "one is not served yet");
        b.served(bench.current.clone());
        assert!(slow.upgrade().is_none());
        drop((a, b, late));
        assert_eq!(bench.told(), [(1, 3)]);
    }

    #[test]
    fn a_connection_that_is_two_tips_behind_is_missing_in_both() {
        let mut bench = Bench::new();
        let (mut quick, mut slow) = (bench.enter(), bench.enter());
        bench.release();
        quick.served(bench.current.clone());
        bench.release();
        quick.served(bench.current.clone());
        let new = bench.enter();
        slow.served(bench.current.clone());
        drop((quick, slow, new));
        assert_eq!(bench.told(), [(1, 2), (2, 1)], "the slow one was sent the newest work only");
    }

    #[test]
    fn without_connections_there_is_nothing_to_tell() {
        let mut bench = Bench::new();
        bench.release();
        let member = bench.enter();
        drop(member);
        bench.release();
        assert_eq!(bench.told(), []);
    }
}
