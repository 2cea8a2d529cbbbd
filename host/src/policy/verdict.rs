//! Verdicts, and the check of what a guest returned.
//!
//! A guest is not believed: codes must have the form of a code and be listed in the policy's own
//! metadata, words must be short and free of control characters, the number of context entries is
//! bounded. What does not hold is answered with `policy_output_invalid`, so nothing unchecked reaches
//! a log, an event or a miner.

use super::{contract::types as guest, set::Enforcement};
use crate::{
    reason::{PolicyCode, Reason, VerdictCode},
    template::TemplateDigest,
};
use schemars::JsonSchema;
use serde::{Serialize, Serializer};
use std::{collections::BTreeMap, fmt, time::Duration};

/// Longest `reason_detail`, bytes.
const MAX_DETAIL: usize = 512;
/// Longest text in `policy_context`, bytes.
const MAX_TEXT: usize = 256;
/// Most entries in `policy_context`.
const MAX_CONTEXT: usize = 16;
/// Most codes in a policy's metadata.
const MAX_CODES: usize = 64;
/// Longest settings schema, bytes.
const MAX_SCHEMA: usize = 64 * 1024;

/// What was decided about a template. As JSON always these four keys, in this order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Verdict {
    /// Whether the template may become work.
    pub accepted: bool,
    /// Why not; `None` when accepted.
    pub reason_code: Option<VerdictCode>,
    /// The same in words, with measured and required values.
    pub reason_detail: Option<String>,
    /// What was measured, by name.
    pub policy_context: BTreeMap<String, ContextValue>,
}

impl Verdict {
    /// The template is fine.
    pub fn accept() -> Self {
        Self { accepted: true, reason_code: None, reason_detail: None, policy_context: BTreeMap::new() }
    }

    /// A rejection for one of the gateway's own reasons.
    pub fn fault(reason: Reason, detail: impl Into<String>) -> Self {
        Self {
            accepted: false,
            reason_code: Some(VerdictCode::Gateway(reason)),
            reason_detail: Some(detail.into()),
            policy_context: BTreeMap::new(),
        }
    }
}

/// One value in a verdict's context. Never floating point: it has to print alike everywhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum ContextValue {
    /// Yes or no.
    Boolean(bool),
    /// A count or an amount.
    Unsigned(u64),
    /// A difference.
    Signed(i64),
    /// A name.
    Text(String),
}

/// What names a policy set: SHA-256 over the memory limit and, of each policy in order, its module's
/// digest, fuel, enforcement, name and settings.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SetDigest(pub [u8; 32]);

impl fmt::Display for SetDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for SetDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SetDigest({self})")
    }
}

impl JsonSchema for SetDigest {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "SetDigest".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "SHA-256 of a policy set, hex.",
            "type": "string",
            "pattern": "^[0-9a-f]{64}$",
        })
    }
}

impl Serialize for SetDigest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What one policy said.
#[derive(Clone, Debug)]
pub struct PolicyResult {
    /// Its name in the set.
    pub name: String,
    /// Whether what it says counts.
    pub enforcement: Enforcement,
    /// What it said, or the engine's reason for it.
    pub verdict: Verdict,
    /// Fuel that the evaluation used; `None` when it did not end by itself.
    pub fuel: Option<u64>,
    /// Memory that its instance came to have, bytes; `None` when it did not end by itself.
    pub memory_bytes: Option<usize>,
    /// Wall-clock time of the evaluation.
    pub duration: Duration,
    /// The verdict speaks of this machine at that moment and not of the template.
    pub infrastructure_fault: bool,
}

/// What a policy set said about a template, with everything needed to check it later.
#[derive(Clone, Debug)]
pub struct Judgement {
    /// The template that was judged.
    pub template: TemplateDigest,
    /// The set that judged it.
    pub set: SetDigest,
    /// The verdict of the set: the first rejection, or acceptance.
    pub verdict: Verdict,
    /// The policy whose rejection decided; `None` when accepted, or when the gateway itself refused.
    pub decided_by: Option<String>,
    /// What each enforcing policy said, in order.
    pub policies: Vec<PolicyResult>,
    /// Wall-clock time of the whole.
    pub duration: Duration,
    /// The verdict says something about this machine at this moment (its clock, its load) and not
    /// about the template: asked again, the answer may be another.
    pub infrastructure_fault: bool,
}

/// Who a policy is, in its own words (checked for form).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PolicyInfo {
    /// Name, for example `fee-floor`.
    pub name: String,
    /// Version of the policy.
    pub version: String,
    /// One sentence on what it does.
    pub summary: String,
    /// Every code that it can return.
    pub codes: Vec<CodeInfo>,
    /// JSON Schema of its settings, as the policy wrote it.
    pub settings_schema: String,
}

/// One reason code of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct CodeInfo {
    /// The code.
    pub code: String,
    /// What it means and what to do about it, in one sentence.
    pub meaning: String,
}

/// Checks a guest's metadata; the error says what is wrong with it.
pub(super) fn check_metadata(metadata: guest::PolicyMetadata) -> Result<PolicyInfo, String> {
    let name_is_fine = (1..=64).contains(&metadata.name.len())
        && metadata.name.starts_with(|c: char| c.is_ascii_lowercase())
        && metadata.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !name_is_fine {
        return Err(format!("its name {} is not of the form [a-z][a-z0-9-]{{0,63}}", shown(&metadata.name)));
    }
    let version = text("its version", metadata.version, 64)?;
    let summary = text("its summary", metadata.summary, MAX_DETAIL)?;
    if metadata.codes.len() > MAX_CODES {
        return Err(format!("it lists {} codes, at most {MAX_CODES} are allowed", metadata.codes.len()));
    }
    let mut codes = Vec::with_capacity(metadata.codes.len());
    for guest::CodeInfo { code, meaning } in metadata.codes {
        if PolicyCode::new(code.as_str()).is_none() {
            return Err(format!("its code {} is not of the form [a-z][a-z0-9_]{{2,63}}", shown(&code)));
        }
        codes.push(CodeInfo { code, meaning: text("the meaning of a code", meaning, MAX_DETAIL)? });
    }
    if metadata.settings_schema.len() > MAX_SCHEMA {
        return Err(format!("its settings schema is longer than {MAX_SCHEMA} bytes"));
    }
    let schema = serde_json::from_str::<serde_json::Value>(&metadata.settings_schema);
    if !schema.is_ok_and(|schema| schema.is_object()) {
        return Err("its settings schema is not a JSON object".into());
    }
    Ok(PolicyInfo { name: metadata.name, version, summary, codes, settings_schema: metadata.settings_schema })
}

/// Checks a guest's verdict against the contract and the policy's own list of codes; the error says
/// what is wrong with it.
pub(super) fn check_verdict(verdict: guest::Verdict, info: &PolicyInfo) -> Result<Verdict, String> {
    let rejection = match verdict {
        guest::Verdict::Accept => return Ok(Verdict::accept()),
        guest::Verdict::Reject(rejection) => rejection,
    };
    let code = PolicyCode::new(rejection.code.as_str()).ok_or_else(|| {
        format!("the code {} is not of the form [a-z][a-z0-9_]{{2,63}}", shown(&rejection.code))
    })?;
    if !info.codes.iter().any(|known| known.code == code.as_str()) {
        return Err(format!(
            "the code {} is not one of the codes in the policy's metadata",
            shown(code.as_str())
        ));
    }
    let detail = text("the detail", rejection.detail, MAX_DETAIL)?;
    if rejection.context.len() > MAX_CONTEXT {
        return Err(format!(
            "{} context entries, at most {MAX_CONTEXT} are allowed",
            rejection.context.len()
        ));
    }
    let mut policy_context = BTreeMap::new();
    for (name, value) in rejection.context {
        if PolicyCode::new(name.as_str()).is_none() {
            return Err(format!(
                "the context name {} is not of the form [a-z][a-z0-9_]{{2,63}}",
                shown(&name)
            ));
        }
        let value = match value {
            guest::ContextValue::Boolean(value) => ContextValue::Boolean(value),
            guest::ContextValue::Unsigned(value) => ContextValue::Unsigned(value),
            guest::ContextValue::Signed(value) => ContextValue::Signed(value),
            guest::ContextValue::Text(value) => ContextValue::Text(text("a context value", value, MAX_TEXT)?),
        };
        if policy_context.insert(name, value).is_some() {
            return Err("a context name is given twice".into());
        }
    }
    Ok(Verdict {
        accepted: false,
        reason_code: Some(VerdictCode::Policy(code)),
        reason_detail: Some(detail),
        policy_context,
    })
}

/// One line of a guest's words, checked. What would steer how the line is shown is escaped: the contract
/// allows it, and nobody is to be deceived by it.
fn text(what: &str, value: String, max: usize) -> Result<String, String> {
    if value.len() > max {
        return Err(format!("{what} is {} bytes long, at most {max} are allowed", value.len()));
    }
    if let Some(c) = value.chars().find(|c| c.is_control()) {
        return Err(format!("{what} contains the control character U+{:04X}", u32::from(c)));
    }
    if !value.contains(steers) {
        return Ok(value);
    }
    let escaped = |c: char| if steers(c) { c.escape_unicode().collect() } else { String::from(c) };
    Ok(value.chars().map(escaped).collect())
}

/// Line and paragraph separators, and what turns the direction of writing, with which a text can be made to
/// look like another one (Unicode Technical Report 36, bidirectional text spoofing).
fn steers(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A guest's text for people: escaped, and cut to a length that fits a line.
pub(super) fn shown(value: &str) -> String {
    let cut: String = value.chars().take(80).collect();
    let dots = if cut.len() < value.len() { "..." } else { "" };
    format!("{cut:?}{dots}")
}

/// Words that a guest had a hand in, as one line for people: escaped, and cut to the length of a detail.
pub(super) fn one_line(value: &str) -> String {
    let mut line: String = value.chars().take(MAX_DETAIL).flat_map(char::escape_debug).collect();
    if value.chars().nth(MAX_DETAIL).is_some() {
        line.push_str("...");
    }
    line
}
