//! The policy engine: operators' rules as WebAssembly components, and what they say about a template.
//!
//! The only room that names wasmtime. A [`PolicySet`] is loaded once, whole, and never changes: an
//! ordered list of components, each with its settings and its fuel. [`PolicySet::evaluate`] asks them
//! in order and gives a [`Judgement`]; the first rejection decides. Whatever goes wrong inside a
//! policy becomes a rejection with one of the gateway's own reasons (fail closed); whether that holds
//! the template is for the gate to say, not for this room.
//!
//! - [`set`]: loading a set and judging with it
//! - [`engine`]: the wasmtime engine, its limits and its clock
//! - [`contract`]: the WIT contract, and the template as its functions show it
//! - [`verdict`]: verdicts, and the check of what a guest returned
//! - [`judge`]: the same off the async threads, on a bounded number of them

mod contract;
mod engine;
mod judge;
mod set;
mod verdict;

pub use engine::EngineLimits;
pub use judge::Judge;
pub use set::{DEFAULT_FUEL, Policy, PolicyFault, PolicySet, PolicySpec};
pub use verdict::{ContextValue, Judgement, PolicyInfo, PolicyResult, SetDigest, Verdict};
