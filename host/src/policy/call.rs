//! One call of a guest, on an instance of its own, and what it means when the call does not come back.
//!
//! What goes wrong is told apart by type, never by text. A panic on the way is a fault of the gateway
//! or of wasmtime: it must not take the process down, and it must not let a template through.

use super::{
    contract::{Guest, Inputs, State, TooEarly},
    engine::{EngineLimits, Exceeded, PolicyEngine},
};
use crate::reason::Reason;
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};
use wasmtime::{PoolConcurrencyLimitError, Store, Trap};

/// What a guest may hand over in one call, bytes.
const MAX_FROM_GUEST: usize = 256 * 1024;
/// Live handles of a guest. The contract has no resources, so it needs none.
const MAX_HANDLES: usize = 16;

/// Why a call of a guest gave nothing.
pub(super) struct Stopped {
    pub(super) reason: Reason,
    pub(super) detail: String,
    /// It says something about this machine, not about the policy and its inputs.
    pub(super) infrastructure: bool,
}

/// An answer, and what it took.
pub(super) struct Answer<R> {
    pub(super) answer: R,
    /// Fuel used.
    pub(super) fuel: u64,
    /// Memory of the instance, bytes.
    pub(super) memory: usize,
    /// The guest asked how the template differs from what was declared.
    pub(super) asked_for_discrepancies: bool,
}

/// What a call may use up.
#[derive(Clone, Copy)]
pub(super) struct Budget {
    pub(super) fuel: u64,
    pub(super) time: Duration,
}

/// Calls a guest.
pub(super) fn call<R>(
    engine: &PolicyEngine,
    guest: &dyn Guest,
    inputs: Option<Inputs>,
    budget: Budget,
    invoke: impl FnOnce(&dyn Guest, &mut Store<State>) -> wasmtime::Result<R>,
) -> Result<Answer<R>, Stopped> {
    let run = || {
        let mut store = Store::new(&engine.engine, State::new(&engine.limits, inputs));
        store.limiter(|state| &mut state.limiter);
        store.set_hostcall_fuel(MAX_FROM_GUEST);
        store.set_max_component_handles(MAX_HANDLES);
        store.set_epoch_deadline(EngineLimits::ticks(budget.time));
        let answer = store.set_fuel(budget.fuel).and_then(|()| invoke(guest, &mut store));
        let state = store.data();
        let classify = |error| classify(&error, state.instantiated, &engine.limits, budget.fuel);
        let left = store.get_fuel().map_err(classify)?;
        Ok(Answer {
            answer: answer.map_err(classify)?,
            fuel: budget.fuel.saturating_sub(left),
            memory: state.limiter.memory(),
            asked_for_discrepancies: state.asked_for_discrepancies,
        })
    };
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| {
        let detail = "the gateway itself failed while the policy ran; please report it".into();
        Err(Stopped { reason: Reason::PolicyTrapped, detail, infrastructure: true })
    })
}

fn classify(error: &wasmtime::Error, instantiated: bool, limits: &EngineLimits, fuel: u64) -> Stopped {
    let fixed = |reason, detail| Stopped { reason, detail, infrastructure: false };
    if let Some(exceeded) = error.downcast_ref::<Exceeded>() {
        return fixed(Reason::PolicyMemoryExceeded, exceeded.to_string());
    }
    if error.is::<TooEarly>() {
        return output_invalid(TooEarly.to_string()); // whichever export, or start function, it was
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::OutOfFuel) => fixed(
            Reason::PolicyFuelExhausted,
            format!("it used up its {fuel} units of fuel without a verdict"),
        ),
        Some(Trap::Interrupt) => deadline_exceeded(limits),
        Some(trap) => fixed(Reason::PolicyTrapped, format!("it stopped with a trap: {trap}")),
        None if error.is::<PoolConcurrencyLimitError>() => Stopped {
            reason: Reason::PolicySetUnavailable,
            detail: "more evaluations at the same time than the engine has room for".into(),
            infrastructure: true,
        },
        None if !instantiated => Stopped {
            reason: Reason::PolicySetUnavailable,
            detail: format!("no instance of the policy could be made: {error:#}"),
            infrastructure: true,
        },
        // The guest came back, and what it left behind cannot be read: a pointer out of range, text
        // that is not UTF-8, more data than it may hand over.
        None => output_invalid(format!("{error:#}")),
    }
}

pub(super) fn output_invalid(detail: String) -> Stopped {
    Stopped { reason: Reason::PolicyOutputInvalid, detail, infrastructure: false }
}

pub(super) fn deadline_exceeded(limits: &EngineLimits) -> Stopped {
    let detail = format!("no verdict within {} ms, the time for the whole set", limits.deadline.as_millis());
    Stopped { reason: Reason::PolicyDeadlineExceeded, detail, infrastructure: true }
}
