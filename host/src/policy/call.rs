//! One call of a guest, on an instance of its own, and what it means when the call does not come back.
//!
//! An instance is made, called once, and thrown away. Making and calling are apart, because it can be made
//! before there is anything to judge (see [`super::ready`]).
//!
//! What goes wrong is told apart by type, never by text. A panic on the way is a fault of the gateway
//! or of wasmtime: it must not take the process down, and it must not let a template through.

use super::{
    contract::{Guest, Inputs, Instance, State, TooEarly, Unknown},
    engine::{EngineLimits, Exceeded, PolicyEngine},
};
use crate::reason::Reason;
use std::{
    io,
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

/// An instance that nobody has called yet.
pub(super) struct Fresh {
    store: Store<State>,
    instance: Box<dyn Instance>,
}

impl Fresh {
    /// Makes an instance. What its module does at its start is paid from the fuel of the call.
    pub(super) fn new(engine: &PolicyEngine, guest: &dyn Guest, budget: Budget) -> wasmtime::Result<Self> {
        let mut store = Store::try_new(&engine.engine, State::new(&engine.limits))?;
        store.limiter(|state| &mut state.limiter);
        store.set_hostcall_fuel(MAX_FROM_GUEST);
        store.set_max_component_handles(MAX_HANDLES);
        store.set_epoch_deadline(EngineLimits::ticks(budget.time));
        store.set_fuel(budget.fuel)?;
        let instance = guest.instantiate(&mut store)?;
        Ok(Self { store, instance })
    }

    /// Calls it. The time begins now; the fuel began when it was made.
    pub(super) fn call<R>(
        &mut self,
        inputs: Option<Inputs>,
        budget: Budget,
        invoke: impl FnOnce(&dyn Instance, &mut Store<State>) -> wasmtime::Result<R>,
    ) -> wasmtime::Result<Answer<R>> {
        let Self { store, instance } = self;
        store.data_mut().inputs = inputs;
        store.set_epoch_deadline(EngineLimits::ticks(budget.time));
        let answer = invoke(&**instance, store)?;
        let left = store.get_fuel()?;
        let state = store.data();
        Ok(Answer {
            answer,
            fuel: budget.fuel.saturating_sub(left),
            memory: state.limiter.memory(),
            asked_for_discrepancies: state.asked_for_discrepancies,
        })
    }
}

/// Makes an instance and calls it, while a module is loaded.
pub(super) fn call<R>(
    engine: &PolicyEngine,
    guest: &dyn Guest,
    budget: Budget,
    invoke: impl FnOnce(&dyn Instance, &mut Store<State>) -> wasmtime::Result<R>,
) -> Result<Answer<R>, Stopped> {
    let run = || Fresh::new(engine, guest, budget)?.call(None, budget, invoke);
    guard(budget.fuel, || late_while_loading(budget), run)
}

/// Runs what runs a guest, and says what it means when it does not come back. `late` is what it means that
/// the clock stopped it.
pub(super) fn guard<T>(
    fuel: u64,
    late: impl FnOnce() -> Stopped,
    run: impl FnOnce() -> wasmtime::Result<T>,
) -> Result<T, Stopped> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(answer) => answer.map_err(|error| classify(&error, fuel, late)),
        Err(_) => {
            let detail = "the gateway itself failed while the policy ran; please report it".into();
            Err(Stopped { reason: Reason::PolicyTrapped, detail, infrastructure: true })
        }
    }
}

/// What an error means.
fn classify(error: &wasmtime::Error, fuel: u64, late: impl FnOnce() -> Stopped) -> Stopped {
    let fixed = |reason, detail| Stopped { reason, detail, infrastructure: false };
    let infrastructure =
        |detail| Stopped { reason: Reason::PolicySetUnavailable, detail, infrastructure: true };
    if let Some(exceeded) = error.downcast_ref::<Exceeded>() {
        return fixed(Reason::PolicyMemoryExceeded, exceeded.to_string());
    }
    if let Some(unknown) = error.downcast_ref::<Unknown>() {
        return fixed(Reason::PolicyFactUnknown, unknown.to_string());
    }
    if error.is::<TooEarly>() {
        return output_invalid(TooEarly.to_string()); // whichever export, or start function, it was
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::OutOfFuel) => fixed(
            Reason::PolicyFuelExhausted,
            format!("it used up its {fuel} units of fuel without a verdict"),
        ),
        Some(Trap::Interrupt) => late(),
        Some(trap) => fixed(Reason::PolicyTrapped, format!("it stopped with a trap: {trap}")),
        None if error.is::<PoolConcurrencyLimitError>() => {
            infrastructure("more evaluations at the same time than the engine has room for".into())
        }
        None if is_of_the_machine(error) => {
            infrastructure(format!("this machine has no room for an instance of the policy: {error:#}"))
        }
        // The guest did something that the contract has no words for: a pointer out of range, text that
        // is not UTF-8, more data than it may hand over, in an export or its start function.
        None => output_invalid(format!("{error:#}")),
    }
}

/// The system refused memory or something else; no guest can bring that about within its limits.
fn is_of_the_machine(error: &wasmtime::Error) -> bool {
    error.is::<rustix::io::Errno>() || error.is::<io::Error>() || error.is::<wasmtime::OutOfMemory>()
}

pub(super) fn output_invalid(detail: String) -> Stopped {
    Stopped { reason: Reason::PolicyOutputInvalid, detail, infrastructure: false }
}

pub(super) fn deadline_exceeded(deadline: Duration) -> Stopped {
    let detail = format!("no verdict within {} ms, the time for the whole set", deadline.as_millis());
    Stopped { reason: Reason::PolicyDeadlineExceeded, detail, infrastructure: true }
}

pub(super) fn late_while_loading(budget: Budget) -> Stopped {
    let detail =
        format!("no answer within {} ms, the time for one call while it is loaded", budget.time.as_millis());
    Stopped { reason: Reason::PolicyDeadlineExceeded, detail, infrastructure: true }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classified(error: impl Into<wasmtime::Error>) -> Stopped {
        classify(&error.into().context("on the way"), 1, || {
            deadline_exceeded(EngineLimits::default().deadline)
        })
    }

    #[test]
    fn what_the_system_refuses_is_of_the_machine_and_everything_else_of_the_policy() {
        for stopped in [
            classified(rustix::io::Errno::NOMEM),
            classified(io::Error::from_raw_os_error(12)),
            classified(wasmtime::OutOfMemory::new(7)),
        ] {
            assert_eq!(stopped.reason, Reason::PolicySetUnavailable, "{}", stopped.detail);
            assert!(stopped.infrastructure, "{}", stopped.detail);
        }
        let stopped = classified(wasmtime::Error::msg("a pointer out of range"));
        assert_eq!(stopped.reason, Reason::PolicyOutputInvalid);
        assert!(!stopped.infrastructure);
    }
}
