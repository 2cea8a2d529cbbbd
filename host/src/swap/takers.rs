//! How what runs takes over another configuration: all of it, or nothing.
//!
//! Whoever has keys that may change while it runs leaves a [`Taker`] here. It looks first, with everything
//! that can go wrong; only when nobody has found a fault is anything changed, and that cannot fail.

use crate::config::Config;
use std::sync::{Mutex, PoisonError};

/// Looks at the configuration in force and the one that is to be, and says what there is to do.
pub type Taker = Box<dyn Fn(&Config, &Config) -> Result<Takeover, String> + Send + Sync>;
/// Does it.
pub type Takeover = Box<dyn FnOnce() + Send>;

/// All of them.
#[derive(Default)]
pub(super) struct Takers(Mutex<Vec<Taker>>);

impl Takers {
    pub(super) fn add(&self, taker: Taker) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(taker);
    }

    /// What there is to do, or all that is in the way.
    pub(super) fn look(&self, in_force: &Config, new: &Config) -> Result<Vec<Takeover>, Vec<String>> {
        let takers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut takeovers, mut faults) = (Vec::new(), Vec::new());
        for taker in takers.iter() {
            match taker(in_force, new) {
                Ok(takeover) => takeovers.push(takeover),
                Err(fault) => faults.push(fault),
            }
        }
        if faults.is_empty() { Ok(takeovers) } else { Err(faults) }
    }
}
