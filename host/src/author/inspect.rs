//! What a component is and what it says about itself: `reservegrid policy inspect`.
//!
//! A broken module is shown as far as it goes: its bytes always, its imports and exports where it is a
//! component at all, and then what keeps the gateway from loading it.

use super::{InputFault, engine::Engine};
use crate::{
    policy::{CodeInfo, DEFAULT_FUEL, EngineLimits, PolicyFault, PolicyInfo},
    reason::Reason,
};
use serde::Serialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::{
    fmt,
    fs::{self, File},
    io::Read,
    path::Path,
};
use wit_component::DecodedWasm;
use wit_parser::{WorldItem, WorldKey};

/// What is known about a module.
#[derive(Clone, Debug, Serialize)]
pub struct Inspected {
    /// The file.
    pub file: String,
    /// Its size, bytes; at most one more than the limit is read.
    pub bytes: u64,
    /// Its SHA-256, which a configuration can pin.
    pub sha256: String,
    /// The package of the contract that it imports, with its version.
    pub contract: Option<String>,
    /// What it imports.
    pub imports: Vec<String>,
    /// What it exports.
    pub exports: Vec<String>,
    /// What it says about itself.
    pub policy: Option<Described>,
    /// What holds for it where the configuration says nothing else.
    pub limits: Limits,
    /// Why a gateway would not load it.
    pub fault: Option<Fault>,
}

/// A policy in its own words.
#[derive(Clone, Debug, Serialize)]
pub struct Described {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What it does.
    pub summary: String,
    /// What it can reject with.
    pub codes: Vec<CodeInfo>,
    /// JSON Schema of its settings.
    pub settings_schema: Value,
}

/// The limits of one evaluation.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Limits {
    /// Fuel; a key of the configuration.
    pub fuel: u64,
    /// Milliseconds for the whole set.
    pub deadline_ms: u64,
    /// Memory, bytes.
    pub memory_bytes: u64,
    /// Size of a module, bytes.
    pub module_bytes: u64,
}

/// Why a gateway would not load a module.
#[derive(Clone, Debug, Serialize)]
pub struct Fault {
    /// The code.
    pub reason: Reason,
    /// What is wrong and what to do.
    pub detail: String,
}

impl From<PolicyInfo> for Described {
    fn from(info: PolicyInfo) -> Self {
        let PolicyInfo { name, version, summary, codes, settings_schema } = info;
        Self {
            name,
            version,
            summary,
            codes,
            settings_schema: serde_json::from_str(&settings_schema).unwrap_or_default(),
        }
    }
}

/// Looks at a module.
///
/// # Errors
/// Only when the file cannot be read; whatever else is wrong stands in [`Inspected::fault`].
pub fn inspect(file: &Path) -> Result<Inspected, InputFault> {
    let limits = EngineLimits::default();
    let unreadable = |error| InputFault(format!("{} cannot be read: {error}", file.display()));
    // Opening a pipe would wait for somebody who writes into it.
    if !fs::metadata(file).map_err(unreadable)?.is_file() {
        return Err(InputFault(format!("{} cannot be read: it is not a file", file.display())));
    }
    let mut bytes = Vec::new();
    let opened = File::open(file).map_err(unreadable)?;
    opened.take(limits.module_bytes + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    let described = Engine::start()?.describe(file);
    let (imports, exports) = names(&bytes);
    let contract = imports.iter().chain(&exports).find_map(|name| package(name));
    let (policy, fault) = match described {
        Ok(info) => (Some(info.into()), None),
        Err(PolicyFault { reason, detail, .. }) => (None, Some(Fault { reason, detail })),
    };
    Ok(Inspected {
        file: file.display().to_string(),
        bytes: bytes.len() as u64,
        sha256: hex::encode(Sha256::digest(&bytes)),
        contract,
        imports,
        exports,
        policy,
        limits: Limits {
            fuel: DEFAULT_FUEL,
            deadline_ms: u64::try_from(limits.deadline.as_millis()).unwrap_or(u64::MAX),
            memory_bytes: limits.memory_bytes as u64,
            module_bytes: limits.module_bytes,
        },
        fault,
    })
}

/// Names of imports and exports; none where the bytes are no component. Types that a world uses of an
/// interface are not told: the interface is.
fn names(bytes: &[u8]) -> (Vec<String>, Vec<String>) {
    let Ok(DecodedWasm::Component(resolve, world)) = wit_component::decode(bytes) else {
        return Default::default();
    };
    let world = &resolve.worlds[world];
    let told = |(key, item): (&WorldKey, &WorldItem)| {
        (!matches!(item, WorldItem::Type { .. })).then(|| resolve.name_world_key(key))
    };
    (world.imports.iter().filter_map(told).collect(), world.exports.iter().filter_map(told).collect())
}

/// `reservegrid:policy@0.1.0` of `reservegrid:policy/template@0.1.0`.
fn package(name: &str) -> Option<String> {
    let (package, rest) = name.split_once('/')?;
    let (_, version) = rest.split_once('@')?;
    (package == "reservegrid:policy").then(|| format!("{package}@{version}"))
}

impl fmt::Display for Inspected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(policy) = &self.policy {
            writeln!(f, "{} {}: {}\n", policy.name, policy.version, policy.summary)?;
        }
        let mut line = |name: &str, value: &str| writeln!(f, "{name:<10} {value}");
        line("file", &self.file)?;
        let more = if self.bytes > self.limits.module_bytes { "more than " } else { "" };
        line("size", &format!("{more}{} bytes", self.bytes.min(self.limits.module_bytes)))?;
        line("sha256", &self.sha256)?;
        line("contract", self.contract.as_deref().unwrap_or("none"))?;
        for (index, name) in self.imports.iter().enumerate() {
            line(if index == 0 { "imports" } else { "" }, name)?;
        }
        for (index, name) in self.exports.iter().enumerate() {
            line(if index == 0 { "exports" } else { "" }, name)?;
        }
        let Limits { fuel, deadline_ms, memory_bytes, module_bytes } = self.limits;
        line("limits", &format!("fuel {fuel} an evaluation (set `fuel` in the configuration)"))?;
        line("", &format!("{deadline_ms} ms for the whole set, {memory_bytes} bytes of memory"))?;
        line("", &format!("{module_bytes} bytes of module"))?;
        if let Some(policy) = &self.policy {
            let codes = policy.codes.iter().map(|code| [code.code.clone(), code.meaning.clone()]);
            table(f, "codes", &codes.collect::<Vec<_>>())?;
            table(f, "settings", &settings(&policy.settings_schema))?;
        }
        match &self.fault {
            None => Ok(()),
            Some(Fault { reason, detail }) => writeln!(f, "\nNOT LOADABLE  {reason}: {detail}"),
        }
    }
}

fn table<const N: usize>(f: &mut fmt::Formatter<'_>, title: &str, rows: &[[String; N]]) -> fmt::Result {
    writeln!(f, "\n{title}")?;
    if rows.is_empty() {
        writeln!(f, "  none")?;
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    for row in rows {
        let cells = row.iter().enumerate().map(|(column, cell)| format!("{cell:<w$}", w = width(column)));
        writeln!(f, "  {}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}

/// The settings of a schema as rows: name, type and range, default, meaning. Objects are taken apart.
fn settings(schema: &Value) -> Vec<[String; 4]> {
    let mut rows = Vec::new();
    collect(schema, "", &mut rows);
    if !rows.is_empty() {
        rows.insert(0, ["name", "type", "default", "meaning"].map(str::to_owned));
    }
    rows
}

fn collect(schema: &Value, prefix: &str, rows: &mut Vec<[String; 4]>) {
    let required = |name: &str| {
        schema["required"].as_array().is_some_and(|names| names.iter().any(|known| known == name))
    };
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{prefix}{name}");
        let default = match property.get("default") {
            Some(default) => default.to_string(),
            None if required(name) => "required".into(),
            None => "-".into(),
        };
        let meaning = property["description"].as_str().unwrap_or_default().to_owned();
        rows.push([path.clone(), kind(property), default, meaning]);
        if property["properties"].is_object() && path.len() < MAX_PATH {
            collect(property, &format!("{path}."), rows);
        }
    }
}

/// Longest path into settings that is shown; a schema comes from a guest.
const MAX_PATH: usize = 256;

fn kind(property: &Value) -> String {
    let empty = Map::new();
    let property = property.as_object().unwrap_or(&empty);
    if let Some(words) = property.get("enum").and_then(Value::as_array) {
        return words.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ");
    }
    let name = property.get("type").and_then(Value::as_str).unwrap_or("any");
    let name = match property.get("items") {
        Some(items) => format!("{name} of {}", kind(items)),
        None => name.to_owned(),
    };
    match (property.get("minimum"), property.get("maximum")) {
        (Some(low), Some(high)) => format!("{name} {low} to {high}"),
        (Some(low), None) => format!("{name} from {low}"),
        (None, Some(high)) => format!("{name} up to {high}"),
        (None, None) => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_schema_is_a_table_with_a_row_for_each_setting() {
        let schema = json!({
            "type": "object",
            "required": ["floor"],
            "properties": {
                "floor": { "type": "object", "description": "Floors.", "required": ["mid"], "properties": {
                    "low": { "type": "integer", "minimum": 0, "maximum": 9, "default": 3, "description": "Low." },
                    "mid": { "type": "integer", "minimum": 0 },
                } },
                "mode": { "enum": ["a", "b"], "default": "a" },
                "tags": { "type": "array", "items": { "type": "string" } },
            }
        });
        let rows = settings(&schema);
        let rows: Vec<_> = rows.iter().map(|row| row.join("|")).collect();
        assert_eq!(
            rows,
            [
                "name|type|default|meaning",
                "floor|object|required|Floors.",
                "floor.low|integer 0 to 9|3|Low.",
                "floor.mid|integer from 0|required|",
                "mode|\"a\" or \"b\"|\"a\"|",
                "tags|array of string|-|",
            ]
        );
        assert!(settings(&json!({})).is_empty());
    }

    #[test]
    fn bytes_that_are_no_component_have_no_names() {
        assert_eq!(names(b"\0asm\x01\0\0\0"), Default::default());
        assert_eq!(names(b"nothing"), Default::default());
        assert_eq!(package("reservegrid:policy/log@0.1.0").as_deref(), Some("reservegrid:policy@0.1.0"));
        assert_eq!(package("wasi:clocks/wall-clock@0.2.0"), None);
    }
}
