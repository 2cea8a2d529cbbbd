//! Places of which there may be only so many, and how many that is may change at any time.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// Counts places that are taken. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct Places(Arc<AtomicUsize>);

/// A place; it is free again when this is dropped.
#[derive(Debug)]
pub struct Place(Arc<AtomicUsize>);

impl Places {
    /// A place, unless `limit` of them are taken.
    pub fn take(&self, limit: usize) -> Option<Place> {
        let more = |taken: usize| (taken < limit).then(|| taken + 1);
        self.0.try_update(Ordering::Relaxed, Ordering::Relaxed, more).ok().map(|_| Place(self.0.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lower_limit_takes_nothing_back_and_counts_for_the_next() {
        let places = Places::default();
        let taken = [places.take(3), places.take(3), places.take(3)];
        assert!(taken.iter().all(Option::is_some) && places.take(3).is_none());
        assert!(places.take(4).is_some(), "and it was given back at once");
        let [first, ..] = taken;
        drop(first);
        assert!(places.take(2).is_none() && places.take(3).is_some());
    }
}
