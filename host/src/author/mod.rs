//! What the author of a policy does, before any gateway runs it: `reservegrid policy ...`.
//!
//! All of it uses the same engine, the same contract and the same templates as the gateway; nothing is
//! imitated. What is wrong with what was given (a file, a setting, a case) is an [`InputFault`]; that a
//! policy does not do what was expected of it is a result.
//!
//! - [`new`]: a project with a small policy that works; `sdk`: the SDK as this binary carries it
//! - [`build`]: from a policy's crate to a component file
//! - [`inspect`]: what a component is and says about itself, or what is wrong with it
//! - [`case`], [`test`]: case files, and judging them
//! - [`bench`]: fuel, time and memory of a policy
//! - [`run`]: one verdict on a recorded template
//! - [`replay`]: recorded verdicts, computed again
//! - `engine`: the policy engine as these tools use it

pub mod bench;
pub mod build;
pub mod case;
mod engine;
pub mod inspect;
pub mod new;
pub mod replay;
pub mod run;
mod sdk;
pub mod test;

use std::{fs, path::Path};

/// Something that was given cannot be used. The message says what, where, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InputFault(pub String);

/// Told how much of something long is done, and of how much.
pub type Steps<'a> = &'a dyn Fn(u64, u64);

/// What is as it should be, in colour; whoever prints it takes colours away where they are not wanted.
fn good(word: &str) -> String {
    format!("\x1b[32m{word}\x1b[0m")
}

/// What is not.
fn bad(word: &str) -> String {
    format!("\x1b[31m{word}\x1b[0m")
}

/// Reads a text file.
fn read_text(path: &Path) -> Result<String, InputFault> {
    fs::read_to_string(path)
        .map_err(|error| InputFault(format!("{} cannot be read: {error}", path.display())))
}

/// Reads a policy's settings: TOML where the file is named so, JSON otherwise; none are an empty object.
fn read_settings(path: Option<&Path>) -> Result<serde_json::Value, InputFault> {
    let Some(path) = path else { return Ok(serde_json::json!({})) };
    let text = read_text(path)?;
    let read: Result<serde_json::Value, String> = if path.extension().is_some_and(|end| end == "toml") {
        toml::from_str(&text).map_err(|error| case::toml_problem(&text, &error))
    } else {
        serde_json::from_str(&text).map_err(|error| format!(" {error}"))
    };
    match read {
        Ok(settings) if settings.is_object() => Ok(settings),
        Ok(_) => Err(InputFault(format!("{}: settings are an object", path.display()))),
        Err(problem) => Err(InputFault(format!("{}:{problem}", path.display()))),
    }
}
