//! What a policy's settings are, collected while it reads them, and their JSON Schema (2020-12).

use nojson::{DisplayJson, JsonFormatter, JsonObjectFormatter};
use std::fmt;

/// The settings of one object.
#[derive(Default)]
pub(crate) struct Schema {
    pub(crate) properties: Vec<Property>,
}

/// One setting.
pub(crate) struct Property {
    pub(crate) name: &'static str,
    pub(crate) meaning: &'static str,
    pub(crate) kind: Kind,
}

/// What may stand there, and what holds when nothing does; `None` for a default makes it required.
pub(crate) enum Kind {
    Integer {
        low: u64,
        high: u64,
        default: Option<u64>,
    },
    Boolean {
        default: Option<bool>,
    },
    /// The first is the default.
    Choice(Vec<&'static str>),
    /// Lengths are in bytes.
    Text {
        most: usize,
        default: Option<&'static str>,
    },
    Hex {
        most: usize,
    },
    HexList {
        entries: usize,
        most: usize,
    },
    Object(Schema),
    List {
        entries: usize,
        entry: Schema,
    },
}

impl Property {
    pub(crate) fn required(&self) -> bool {
        match &self.kind {
            Kind::Integer { default, .. } => default.is_none(),
            Kind::Boolean { default } => default.is_none(),
            Kind::Text { default, .. } => default.is_none(),
            Kind::Object(inner) => inner.properties.iter().any(Self::required),
            Kind::Choice(_) | Kind::Hex { .. } | Kind::HexList { .. } | Kind::List { .. } => false,
        }
    }
}

impl Schema {
    /// The whole document.
    pub(crate) fn document(&self) -> String {
        let document = nojson::object(|f| {
            f.member("$schema", "https://json-schema.org/draft/2020-12/schema")?;
            self.members(f)
        });
        document.to_string()
    }

    fn members(&self, f: &mut JsonObjectFormatter) -> fmt::Result {
        f.member("type", "object")?;
        let properties = || self.properties.iter();
        f.member("properties", nojson::object(|f| f.members(properties().map(|p| (p.name, p)))))?;
        let required: Vec<&str> = properties().filter(|p| p.required()).map(|p| p.name).collect();
        if !required.is_empty() {
            f.member("required", required)?;
        }
        f.member("additionalProperties", false)
    }
}

impl DisplayJson for Property {
    fn fmt(&self, f: &mut JsonFormatter<'_, '_>) -> fmt::Result {
        f.object(|f| {
            f.member("description", self.meaning)?;
            match &self.kind {
                Kind::Integer { low, high, default } => {
                    f.member("type", "integer")?;
                    f.members([("minimum", low), ("maximum", high)])?;
                    f.members(default.map(|value| ("default", value)))
                }
                Kind::Boolean { default } => {
                    f.member("type", "boolean")?;
                    f.members(default.map(|value| ("default", value)))
                }
                Kind::Choice(words) => f.members([("enum", words)]).and(f.member("default", words[0])),
                Kind::Text { most, default } => {
                    f.member("type", "string")?;
                    f.member("maxLength", most)?;
                    f.members(default.map(|value| ("default", value)))
                }
                Kind::Hex { most } => hex(f, *most).and(f.member("default", "")),
                Kind::HexList { entries, most } => {
                    list(f, *entries)?;
                    f.member("items", nojson::object(|f| hex(f, *most)))
                }
                Kind::Object(inner) => inner.members(f),
                Kind::List { entries, entry } => {
                    list(f, *entries)?;
                    f.member("items", nojson::object(|f| entry.members(f)))
                }
            }
        })
    }
}

fn hex(f: &mut JsonObjectFormatter, most: usize) -> fmt::Result {
    f.member("type", "string")?;
    f.member("pattern", "^([0-9a-fA-F]{2})*$")?;
    f.member("maxLength", 2 * most)
}

fn list(f: &mut JsonObjectFormatter, entries: usize) -> fmt::Result {
    f.member("type", "array")?;
    f.member("maxItems", entries)?;
    f.member("default", [(); 0])
}
