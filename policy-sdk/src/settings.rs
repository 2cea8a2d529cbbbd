//! Reading settings: every fault at once, and the schema for nothing.
//!
//! A policy reads its settings once, in [`crate::Policy::configure`], by saying for each what it is
//! called, what it means, what may stand there and what holds when nothing does. The same code then
//! serves three ends: the value, the faults with their place (unknown names among them), and the JSON
//! Schema in the policy's metadata, which therefore cannot differ from what is accepted.

use crate::SettingsFault;
use serde_json::{Map, Value, json};
use std::ops::RangeInclusive;

/// The settings that a policy is given: one JSON object, or one inside it.
pub struct Settings<'a> {
    given: &'a Map<String, Value>,
    /// Of this object, with a dot at its end; empty for the outermost.
    path: String,
    known: Vec<&'static str>,
    faults: Vec<SettingsFault>,
    /// Collected when the schema is asked for, and only then.
    schema: Option<Schema>,
}

#[derive(Default)]
struct Schema {
    properties: Map<String, Value>,
    required: Vec<Value>,
}

impl Settings<'_> {
    /// A whole number within `range`; `default: None` makes it required.
    pub fn integer(
        &mut self,
        name: &'static str,
        meaning: &str,
        range: RangeInclusive<u64>,
        default: Option<u64>,
    ) -> u64 {
        let (low, high) = (*range.start(), *range.end());
        self.describe(name, default.is_none(), || {
            let mut schema = json!({
                "type": "integer", "description": meaning, "minimum": low, "maximum": high
            });
            if let Some(default) = default {
                schema["default"] = json!(default);
            }
            schema
        });
        let value = self.value(name, default.is_none(), |value| {
            let number = value.as_u64().filter(|number| range.contains(number));
            number.ok_or_else(|| format!("must be a whole number from {low} to {high}, not {}", shown(value)))
        });
        value.or(default).unwrap_or(low)
    }

    /// `true` or `false`; `default: None` makes it required.
    pub fn boolean(&mut self, name: &'static str, meaning: &str, default: Option<bool>) -> bool {
        self.describe(name, default.is_none(), || {
            let mut schema = json!({ "type": "boolean", "description": meaning });
            if let Some(default) = default {
                schema["default"] = json!(default);
            }
            schema
        });
        let value = self.value(name, default.is_none(), |value| {
            value.as_bool().ok_or_else(|| format!("must be true or false, not {}", shown(value)))
        });
        value.or(default).unwrap_or_default()
    }

    /// One of some words; what does not stand there means the first of `words`.
    pub fn choice<T: Copy>(&mut self, name: &'static str, meaning: &str, words: &[(&str, T)]) -> T {
        let names: Vec<&str> = words.iter().map(|&(word, _)| word).collect();
        self.describe(name, false, || json!({ "enum": names, "description": meaning, "default": names[0] }));
        let value = self.value(name, false, |value| {
            let found = words.iter().find(|(word, _)| value.as_str() == Some(word));
            let found = found.map(|&(_, value)| value);
            found.ok_or_else(|| format!("must be one of {}, not {}", names.join(", "), shown(value)))
        });
        value.unwrap_or(words[0].1)
    }

    /// An object inside this one; when it does not stand there, all its defaults hold.
    pub fn object<T>(
        &mut self,
        name: &'static str,
        meaning: &str,
        read: impl FnOnce(&mut Settings) -> T,
    ) -> T {
        let given = self.value(name, false, |value| {
            value.as_object().ok_or_else(|| format!("must be an object, not {}", shown(value)))
        });
        let empty = Map::new();
        let mut inner = Settings {
            given: given.unwrap_or(&empty),
            path: format!("{}{name}.", self.path),
            known: Vec::new(),
            faults: Vec::new(),
            schema: self.schema.is_some().then(Schema::default),
        };
        let value = read(&mut inner);
        inner.refuse_unknown();
        let (faults, schema) = (inner.faults, inner.schema);
        self.faults.extend(faults);
        let schema = schema.unwrap_or_default();
        self.describe(name, !schema.required.is_empty(), || schema.finish(meaning));
        value
    }

    /// Notes a fault that only several settings together show. `name` is where it is to be mended.
    pub fn fault(&mut self, name: &str, problem: impl Into<String>) {
        self.faults.push(SettingsFault { path: format!("{}{name}", self.path), problem: problem.into() });
    }

    /// Reads a whole document.
    pub(crate) fn read<T>(
        json: &str,
        configure: impl FnOnce(&mut Settings) -> T,
    ) -> Result<T, Vec<SettingsFault>> {
        let whole = |problem: String| vec![SettingsFault { path: String::new(), problem }];
        let given: Value = serde_json::from_str(json).map_err(|error| whole(format!("not JSON: {error}")))?;
        let Value::Object(given) = given else {
            return Err(whole(format!("must be a JSON object, not {}", shown(&given))));
        };
        let mut settings = Settings::new(&given, None);
        let value = configure(&mut settings);
        settings.refuse_unknown();
        if settings.faults.is_empty() { Ok(value) } else { Err(settings.faults) }
    }

    /// The JSON Schema of what `configure` reads.
    pub(crate) fn schema(configure: impl FnOnce(&mut Settings)) -> String {
        let nothing = Map::new();
        let mut settings = Settings::new(&nothing, Some(Schema::default()));
        configure(&mut settings);
        let mut schema = settings.schema.unwrap_or_default().finish("");
        schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
        schema.to_string()
    }

    fn new(given: &Map<String, Value>, schema: Option<Schema>) -> Settings<'_> {
        Settings { given, path: String::new(), known: Vec::new(), faults: Vec::new(), schema }
    }
}

impl<'a> Settings<'a> {
    fn value<T>(
        &mut self,
        name: &'static str,
        required: bool,
        parse: impl FnOnce(&'a Value) -> Result<T, String>,
    ) -> Option<T> {
        self.known.push(name);
        match self.given.get(name).map(parse) {
            Some(Ok(value)) => return Some(value),
            Some(Err(problem)) => self.fault(name, problem),
            None if required => self.fault(name, "is missing; it has no default"),
            None => {}
        }
        None
    }
}

impl Settings<'_> {
    fn describe(&mut self, name: &str, required: bool, property: impl FnOnce() -> Value) {
        if let Some(schema) = &mut self.schema {
            schema.properties.insert(name.into(), property());
            if required {
                schema.required.push(name.into());
            }
        }
    }

    fn refuse_unknown(&mut self) {
        let unknown = self.given.keys().filter(|name| !self.known.contains(&name.as_str()));
        for name in unknown.cloned().collect::<Vec<_>>() {
            let known = self.known.join(", ");
            self.fault(&name, format!("is not a setting of this policy; there are: {known}"));
        }
    }
}

impl Schema {
    fn finish(self, description: &str) -> Value {
        let mut schema = json!({
            "type": "object", "properties": self.properties, "additionalProperties": false
        });
        if !self.required.is_empty() {
            schema["required"] = self.required.into();
        }
        if !description.is_empty() {
            schema["description"] = description.into();
        }
        schema
    }
}

/// A value for people, cut to a length that fits a line.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}
