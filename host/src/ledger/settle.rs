//! Which shares have their result, in memory that does not grow with the backlog.
//!
//! Shares are handed out for forwarding in the order of the chain and answered nearly in that order. So
//! "everything before this one, and these few ranges" says it all, however many wait on the disk. Beside it
//! stand the places where handed-out batches begin: reading goes on from the last one that has nothing open
//! before it, after a restart too.

use super::segment::Position;
use std::collections::{BTreeMap, VecDeque};

/// Beginnings of batches that are remembered; beyond that neighbours are merged, and a restart reads a
/// little more.
const MAX_STARTS: usize = 4_096;

/// The state of all shares.
#[derive(Clone, Debug)]
pub struct Settled {
    /// Every share before this one has its result.
    low: u64,
    /// Shares from `low` on that have theirs: first, and the one after the last.
    ranges: BTreeMap<u64, u64>,
    /// Where batches begin, oldest first; the last entry is where the next one will.
    starts: VecDeque<Position>,
    /// Results of all times.
    answered: u64,
}

impl Settled {
    /// A ledger in which reading goes on at `resume`, and of the shares from there on these have results.
    pub fn new(resume: Position, ranges: impl IntoIterator<Item = (u64, u64)>, answered: u64) -> Self {
        let mut settled = Self {
            low: resume.share,
            ranges: ranges.into_iter().collect(),
            starts: [resume].into(),
            answered,
        };
        settled.lift();
        settled
    }

    /// A share has its result. False when it had one.
    pub fn settle(&mut self, share: u64) -> bool {
        if self.is_settled(share) {
            return false;
        }
        self.answered += 1;
        let before = self.ranges.range(..=share).next_back().map(|(first, end)| (*first, *end));
        let after = self.ranges.remove(&(share + 1)).unwrap_or(share + 1);
        match before {
            Some((first, end)) if end == share => self.ranges.insert(first, after),
            _ => self.ranges.insert(share, after),
        };
        self.lift();
        true
    }

    /// Whether a share has its result.
    pub fn is_settled(&self, share: u64) -> bool {
        share < self.low || self.ranges.range(..=share).next_back().is_some_and(|(_, end)| share < *end)
    }

    fn lift(&mut self) {
        while let Some(first) = self.ranges.first_entry().filter(|first| *first.key() <= self.low) {
            self.low = self.low.max(first.remove());
        }
        while self.starts.get(1).is_some_and(|next| next.share <= self.low) {
            self.starts.pop_front();
        }
    }

    /// Everything up to `end` was handed out, or needs no answer.
    pub fn handed_out(&mut self, end: Position) {
        match self.starts.back_mut() {
            // No share between the two: nothing to remember.
            Some(last) if last.share == end.share => *last = end,
            _ => self.starts.push_back(end),
        }
        if self.starts.len() > MAX_STARTS {
            let mut at = 0;
            let last = self.starts.len() - 1;
            self.starts.retain(|_| {
                at += 1;
                at % 2 == 1 || at > last
            });
        }
        self.lift();
    }

    /// Where reading goes on after a restart.
    pub fn resume(&self) -> Position {
        // There is always one: `new` puts it there, and the last one stays.
        self.starts.front().copied().unwrap_or_default()
    }

    /// The shares from [`resume`](Self::resume) on that have their result: first, and one after the last.
    pub fn ranges(&self) -> Vec<(u64, u64)> {
        let begun = (self.low > self.resume().share).then(|| (self.resume().share, self.low));
        begun.into_iter().chain(self.ranges.iter().map(|(first, end)| (*first, *end))).collect()
    }

    /// Results of all times.
    pub fn answered(&self) -> u64 {
        self.answered
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn at(share: u64) -> Position {
        Position { segment: 1, offset: share * 10, record: share * 2, share, tag: [0; 16] }
    }

    #[test]
    fn reading_goes_on_at_the_oldest_batch_with_something_open() {
        let mut settled = Settled::new(at(1), [], 0);
        for end in [4, 7, 10] {
            settled.handed_out(at(end));
        }
        for share in [4, 5, 6, 1, 3] {
            assert!(settled.settle(share));
        }
        assert_eq!((settled.resume(), settled.ranges()), (at(1), vec![(1, 2), (3, 7)]));
        assert!(!settled.settle(5), "it has one");
        assert!(settled.settle(2));
        assert_eq!((settled.resume(), settled.ranges()), (at(7), vec![]));
        assert_eq!(settled.answered(), 6);
    }

    #[test]
    fn one_share_that_is_never_answered_does_not_make_it_grow() {
        let mut settled = Settled::new(at(1), [], 0);
        for share in 1..100_000 {
            settled.handed_out(at(share + 1));
            if share != 1 {
                settled.settle(share);
            }
        }
        assert!(settled.starts.len() <= MAX_STARTS);
        assert_eq!((settled.resume(), settled.ranges()), (at(1), vec![(2, 100_000)]));
        settled.settle(1);
        assert_eq!(settled.resume(), at(100_000));
    }

    proptest! {
        #[test]
        fn it_knows_exactly_what_was_settled(shares in proptest::collection::vec(1u64..60, 0..80), cut in 0usize..80) {
            let mut settled = Settled::new(at(1), [], 0);
            for end in (2..=60).step_by(7) {
                settled.handed_out(at(end));
            }
            let mut known = BTreeSet::new();
            for (index, share) in shares.iter().enumerate() {
                if index == cut {
                    // As a restart would.
                    settled = Settled::new(settled.resume(), settled.ranges(), settled.answered());
                }
                prop_assert_eq!(settled.settle(*share), known.insert(*share));
            }
            for share in 1..60 {
                prop_assert_eq!(settled.is_settled(share), known.contains(&share));
            }
            prop_assert_eq!(settled.answered(), known.len() as u64);
            let open = (1..60).find(|share| !known.contains(share)).unwrap_or(60);
            prop_assert!(settled.resume().share <= open);
        }
    }
}
