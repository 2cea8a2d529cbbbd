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
//! - [`store`]: the running set, and how another takes its place
//! - [`compare`]: how two sets judge the same templates
//! - [`judge`]: the same off the async threads, on a bounded number of them
//! - [`build`]: from a policy's crate to a component file

pub mod build;
pub mod compare;
mod contract;
mod engine;
mod judge;
mod set;
pub mod store;
mod verdict;

pub use engine::EngineLimits;
pub use judge::{Judge, Judged, Monitored};
pub use set::{DEFAULT_FUEL, Enforcement, PolicyFault, PolicySet, PolicySpec};
pub use store::PolicyStore;
pub use verdict::{ContextValue, Judgement, PolicyInfo, PolicyResult, SetDigest, Verdict};
