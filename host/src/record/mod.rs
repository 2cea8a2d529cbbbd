//! Recordings: what was judged, by what, and what was said, so that it can be judged again.
//!
//! A recording is one JSON object: the template and its surroundings as the policies saw them, the set
//! with everything that a verdict depends on, and the verdict of each policy. `reservegrid policy
//! replay` computes it again and compares; `[source] kind = "replay"` gives its template once more.
//!
//! - here: the form of a recording
//! - [`file`]: the files they stand in, one a day
//! - [`recorder`]: writes them beside the gateway, never in its way
//! - [`source`]: recorded templates as a template source

pub mod file;
pub mod recorder;
pub mod source;
#[cfg(test)]
mod tests;

pub use file::{Keep, Recordings};
pub use recorder::Recorder;

use crate::{
    event::unix_ms,
    policy::{Enforcement, Judgement, PolicyEngine, PolicySet},
    template::{Context, Declared, record::Recorded},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The format that is written, and the only one that is read.
const FORMAT: u32 = 1;

/// A judged template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recording {
    /// The number of the format of recordings.
    pub recording: u32,
    /// When it was written, Unix time in milliseconds.
    pub time_ms: u64,
    /// Version of the gateway that wrote it.
    pub gateway: String,
    /// Engine and price list, on which fuel depends.
    pub engine: String,
    /// Digest of the template.
    pub digest: String,
    /// Digest of the policy set.
    pub policy_set: String,
    /// The verdict of the set, as the event `template_judged` has it.
    pub verdict: Value,
    /// The policy that decided, when one refused.
    pub decided_by: Option<String>,
    /// The verdict speaks of the machine at that moment and not of the template: it cannot be compared.
    pub infrastructure_fault: bool,
    /// Memory that one policy might have during one evaluation, bytes.
    pub memory_limit: usize,
    /// The set, in order.
    pub policies: Vec<RecordedPolicy>,
    /// The template and its surroundings.
    pub template: Recorded,
}

/// A policy of the set, and what it said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordedPolicy {
    /// Its name in the set.
    pub name: String,
    /// The file of its module.
    pub module: PathBuf,
    /// SHA-256 of the module, hex.
    pub sha256: String,
    /// Its settings.
    pub settings: Value,
    /// Fuel that it might use.
    pub fuel_limit: u64,
    /// Whether what it says counts.
    pub enforcement: Enforcement,
    /// Its verdict; `None` when it was not asked for the verdict (monitored policies are asked later).
    pub verdict: Option<Value>,
    /// Fuel that it used; `None` when it did not end by itself.
    pub fuel: Option<u64>,
    /// Its verdict speaks of the machine at that moment and not of the template: it cannot be compared.
    pub infrastructure_fault: bool,
}

/// Why a recording cannot be read. The message names the file, and which of several it is.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct ReadError {
    place: String,
    problem: String,
}

impl ReadError {
    fn new(file: &Path, problem: String) -> Self {
        Self { place: file.display().to_string(), problem }
    }
}

impl Recording {
    /// What a set said about a template. `context` is the snapshot that the policies saw.
    pub fn new(declared: Declared, context: Context, set: &PolicySet, judgement: &Judgement) -> Self {
        let policies = set.policies().iter().map(|policy| {
            let result = judgement.policies.iter().find(|result| result.name == policy.name());
            RecordedPolicy {
                name: policy.name().to_owned(),
                module: std::path::absolute(policy.path()).unwrap_or_else(|_| policy.path().to_owned()),
                sha256: hex::encode(policy.module_digest()),
                settings: serde_json::from_str(policy.settings()).unwrap_or_default(),
                fuel_limit: policy.fuel(),
                enforcement: policy.enforcement(),
                verdict: result.map(|result| json(&result.verdict)),
                fuel: result.and_then(|result| result.fuel),
                infrastructure_fault: result.is_some_and(|result| result.infrastructure_fault),
            }
        });
        Self {
            recording: FORMAT,
            time_ms: unix_ms(),
            gateway: env!("CARGO_PKG_VERSION").to_owned(),
            engine: PolicyEngine::version().to_owned(),
            digest: judgement.template.to_string(),
            policy_set: judgement.set.to_string(),
            verdict: json(&judgement.verdict),
            decided_by: judgement.decided_by.clone(),
            infrastructure_fault: judgement.infrastructure_fault,
            memory_limit: set.limits().memory_bytes,
            policies: policies.collect(),
            template: Recorded::new(declared, context),
        }
    }

    /// Reads a recording: a file of its own, or one of a file of several (`FILE#3`).
    ///
    /// # Errors
    /// A file that cannot be read, has another format, or is damaged.
    pub fn read(place: &Path) -> Result<Self, ReadError> {
        Self::parse(&file::text_at(place)?).map_err(|problem| ReadError::new(place, problem))
    }

    fn parse(text: &str) -> Result<Self, String> {
        match Head::parse(text)? {
            Head { recording: Some(FORMAT), .. } => {}
            Head { recording: Some(format), .. } => {
                return Err(format!("it has format {format}, but this version knows {FORMAT} only"));
            }
            Head { recording: None, .. } => {
                return Err("this is no recording of a judged template".into());
            }
        }
        serde_json::from_str(text).map_err(|error| format!("the recording is damaged: {error}"))
    }
}

/// What tells the kinds of files apart.
#[derive(Deserialize)]
struct Head {
    recording: Option<u32>,
}

impl Head {
    fn parse(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|error| format!("this is no JSON object: {error}"))
    }
}

/// The template in a file: a record of one, or a recording with its verdict, also one of several (`FILE#3`).
///
/// # Errors
/// A file that cannot be read, or is neither.
pub fn read_template(place: &Path) -> Result<Recorded, ReadError> {
    let text = file::text_at(place)?;
    let parse = || match Head::parse(&text)?.recording {
        Some(_) => Ok(Recording::parse(&text)?.template),
        None => Recorded::from_json(&text).map_err(|error| error.to_string()),
    };
    parse().map_err(|problem| ReadError::new(place, problem))
}

/// A verdict as JSON; it has no values that JSON has not.
pub fn json(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}
