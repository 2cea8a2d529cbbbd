//! Instances made ahead, each for one evaluation to come.
//!
//! To make an instance and to throw it away takes longer than an ordinary rule computes, and neither has to
//! happen while somebody waits for the verdict. When one was delivered, each policy of the running set gets
//! one instance that waits, called by nobody; an evaluation takes it, uses it once, and leaves it to be
//! thrown away behind the verdict. Where none waits, the evaluation makes its own: the answer is the same.
//!
//! Nobody waits for this: who finds an instance being made does without. How many wait in all is bounded,
//! and their places in the pool are not taken from evaluations.

use super::{
    call::{Budget, Fresh, guard, late_while_loading},
    engine::PolicyEngine,
    module::Module,
};
use std::sync::Mutex;
use tokio::sync::OwnedSemaphorePermit;

/// Most instances that wait for an evaluation or, after it, for their end.
pub(super) const MAX_READY: u32 = 16;

/// An instance that was made ahead.
pub(super) struct Ready {
    pub(super) fresh: Fresh,
    _place: OwnedSemaphorePermit,
}

/// Room for one.
#[derive(Default)]
pub(super) struct Waiting(Mutex<Option<Ready>>);

impl Waiting {
    /// The instance, if one waits.
    pub(super) fn take(&self) -> Option<Ready> {
        self.0.try_lock().ok()?.take()
    }

    /// Makes an instance, if none waits and there is a place. What keeps it from being made is for the
    /// evaluation to say, which will meet it too.
    pub(super) fn make(&self, engine: &PolicyEngine, module: &Module, budget: Budget) {
        let Ok(mut waiting) = self.0.try_lock() else { return };
        if waiting.is_some() {
            return;
        }
        let Ok(place) = engine.ready.clone().try_acquire_owned() else { return };
        let made =
            guard(budget.fuel, || late_while_loading(budget), || Fresh::new(engine, &*module.guest, budget));
        *waiting = made.ok().map(|fresh| Ready { fresh, _place: place });
    }
}
