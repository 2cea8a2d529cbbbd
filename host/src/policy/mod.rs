//! The policy engine: operators' rules as WebAssembly components, and what they say about a template.
//!
//! The only room that names wasmtime. A [`PolicySet`] is loaded once, whole, and never changes: an
//! ordered list of components, each with its settings and its fuel. [`PolicySet::evaluate`] asks them
//! in order and gives a [`Judgement`]; the first rejection decides. Whatever goes wrong inside a
//! policy becomes a rejection with one of the gateway's own reasons (fail closed); whether that holds
//! the template is for the gate to say, not for this room.
//!
//! - [`set`]: what a set is, how it is loaded, and how it judges
//! - [`judge`]: the same off the async threads, on a bounded number of them
//! - [`store`]: the running set, and how another takes its place; [`manners`]: a replay lets verdicts go first
//! - [`compare`]: how two sets judge the same templates
//! - [`verdict`]: verdicts, and the check of what a guest returned
//! - [`contract`]: the WIT contract, and the template as its functions show it
//! - [`call`]: one call of a guest, and what it means when it does not come back
//! - [`ready`]: instances made ahead
//! - [`module`]: from a file to something that can be instantiated; [`shape`]: what it may be made of;
//!   [`cache`]: compiled code on disk
//! - [`engine`]: the wasmtime engine, its limits and its clock

mod cache;
mod call;
pub mod compare;
mod contract;
mod engine;
mod judge;
mod manners;
mod module;
mod ready;
mod set;
mod shape;
pub mod store;
mod verdict;

pub use contract::{Inputs, Version};
pub use engine::{EngineLimits, PolicyEngine};
pub use judge::{Judge, Judged, Monitored};
pub use module::Loads;
pub use set::{DEFAULT_FUEL, Enforcement, Policy, PolicyFault, PolicySet, PolicySpec, Spent};
pub use store::PolicyStore;
pub use verdict::{CodeInfo, ContextValue, Judgement, PolicyInfo, PolicyResult, SetDigest, Verdict};
