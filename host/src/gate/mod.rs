//! The gate: decides which judged template becomes work.
//!
//! [`Admitted`] is the proof: only this room can make one, and a job is made from nothing else.
//! - `mode`: what a verdict means (shadow, observe, inline)
//! - `prevhash`: the state machine that holds miners when the chain tip moves until work on the new tip was
//!   judged, and gives up on them in a bounded time when none is admitted
//! - `again`: verdicts on what was judged before, changes of the mode
//! - `ahead`: templates for the next tip, judged before it comes
//! - `coinbase_only`: the way out when everything was refused, for operators who want one
//! - `action`: what it is told and what it answers; its times are those of `[gate]` in the configuration
//!
//! Sans-IO: inputs and a time go in, [`Action`]s come out; the gateway carries them out.

mod action;
mod again;
mod ahead;
mod coinbase_only;
pub mod mode;
mod prevhash;
#[cfg(test)]
mod soak;
#[cfg(test)]
mod testing;

pub use action::{Action, Phase, Timings};
pub use mode::Mode;
pub use prevhash::Gate;

use crate::{reason::VerdictCode, template::Template};
use std::{ops::Deref, sync::Arc};

/// Something that passed the gate. There is no other way to get one than through [`Gate`].
#[derive(Clone, Debug)]
pub struct Admitted<T> {
    inner: Arc<T>,
    would_reject: Option<VerdictCode>,
}

impl Admitted<Template> {
    fn new(template: Arc<Template>, would_reject: Option<VerdictCode>) -> Self {
        Self { inner: template, would_reject }
    }
}

impl<T> Admitted<T> {
    /// In observe mode: why inline mode would have refused it. `None` when the policies accepted.
    pub fn would_reject(&self) -> Option<&VerdictCode> {
        self.would_reject.as_ref()
    }
}

impl<T> Deref for Admitted<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.inner
    }
}
