//! Hostile policies through the real engine: whatever a module does, the answer is a code, each of 10,000
//! times, and the process is as it was before.
//!
//! Fuel is small where a guest would go on for ever, so that the suite is quick; deadlines are patient, so
//! that a busy machine changes no answer. Where full size matters, a guest is asked once at full size too.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "hostile_modules/bytes.rs"]
mod bytes;
#[path = "hostile_modules/compiling.rs"]
mod compiling;
#[path = "hostile_modules/engine.rs"]
mod engine;
#[path = "hostile_modules/evaluating.rs"]
mod evaluating;
#[path = "hostile_modules/guest.rs"]
mod guest;
#[path = "hostile_modules/loading.rs"]
mod loading;
#[path = "hostile_modules/output.rs"]
mod output;
#[path = "policy/templates.rs"]
mod templates;
