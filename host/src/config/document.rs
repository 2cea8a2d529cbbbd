//! The two inputs, TOML text and environment variables, as one flat list of entries with their places.
//!
//! Nothing is interpreted here: an entry is a text and the form it was written in. The TOML parser
//! recovers from syntax errors, so that an operator who forgot a quote still sees the other faults.

use super::{
    Environment,
    fault::{Fault, Place},
    sections,
    value::Form,
};
use std::collections::BTreeMap;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// What every variable of the gateway begins with.
pub(super) const PREFIX: &str = "RESERVEGRID_";

/// The section of keys that stand above all sections.
pub(super) const TOP: &str = "";

/// A value as it was written.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) form: Form,
    pub(super) text: String,
    pub(super) place: Place,
    /// Where the file has the same key, when a variable goes before it.
    pub(super) overridden: Option<Place>,
    /// Whether somebody asked for it; what nobody asks for is an unknown key.
    pub(super) taken: bool,
}

impl Entry {
    pub(super) fn new(form: Form, text: String, place: Place) -> Self {
        Self { form, text, place, overridden: None, taken: false }
    }
}

/// One table of the file. The entries of a list are sections: `policy.0`, `policy.1` and so on.
#[derive(Clone, Debug)]
pub(super) struct Section {
    pub(super) place: Place,
    pub(super) entries: BTreeMap<String, Entry>,
}

/// Everything that was written, and what is wrong with it before any key is looked at.
#[derive(Debug, Default)]
pub(super) struct Document {
    pub(super) sections: BTreeMap<String, Section>,
    pub(super) faults: Vec<Fault>,
    /// The number of tables in each list.
    lists: BTreeMap<&'static str, usize>,
    /// Whether the file is broken TOML, so that what seems to be missing may well be there.
    pub(super) broken: bool,
}

/// The name of the variable that stands for a key.
pub(super) fn variable(section: &str, key: &str) -> String {
    let separator = if section == TOP { "" } else { "__" };
    format!("{PREFIX}{}{separator}{}", section.to_uppercase(), key.to_uppercase())
}

impl Document {
    /// Takes the text of the file apart.
    pub(super) fn parse(text: &str) -> Self {
        let (table, errors) = DeTable::parse_recoverable(text);
        let mut document = Self { broken: !errors.is_empty(), ..Self::default() };
        let mut broken_lines = Vec::new();
        for error in errors {
            let place = error.span().map_or(Place::Whole, |span| place(text, span.start));
            // One forgotten quote can give several errors in a line; the first says it.
            if !broken_lines.contains(&place.line()) {
                broken_lines.push(place.line());
                document.fault(place, format!("TOML syntax: {}", error.message()));
            }
        }
        for (key, value) in table.into_inner() {
            document.top_level(text, &key, value);
        }
        for section in document.sections.values_mut() {
            section.entries.retain(|_, entry| !broken_lines.contains(&entry.place.line()));
        }
        document
    }

    /// The number of tables in a list.
    pub(super) fn count(&self, list: &str) -> usize {
        self.lists.get(list).copied().unwrap_or(0)
    }

    fn fault(&mut self, place: Place, message: String) {
        self.faults.push(Fault { place, message });
    }

    fn top_level(
        &mut self,
        text: &str,
        key: &Spanned<std::borrow::Cow<'_, str>>,
        value: Spanned<DeValue<'_>>,
    ) {
        let at = place(text, key.span().start);
        let value_at = place(text, value.span().start);
        let name = key.get_ref().to_string();
        let list_of = sections::LISTS.into_iter().find(|(list, _)| *list == name);
        match (list_of, value.into_inner()) {
            (Some((list, _)), DeValue::Array(tables)) => {
                for table in tables {
                    let at = place(text, table.span().start);
                    match table.into_inner() {
                        DeValue::Table(table) => {
                            let count = self.lists.entry(list).or_default();
                            let section = format!("{list}.{count}");
                            *count += 1;
                            self.section(text, section, at, table);
                        }
                        _ => self.fault(
                            at,
                            format!("[[{list}]]: each {list} is a table; begin it with [[{list}]]"),
                        ),
                    }
                }
            }
            (Some((list, entries)), _) => {
                self.fault(at, format!("{entries} are a list; begin each with [[{list}]]"));
            }
            (None, DeValue::Table(table)) => {
                if sections::is_section(&name) {
                    self.section(text, name, at, table);
                } else {
                    let hint = suggestion(&name, sections::section_names()).map_or_else(
                        || format!("the sections are {}", list(sections::section_names())),
                        |near| format!("did you mean [{near}]?"),
                    );
                    self.fault(at, format!("unknown section [{name}]; {hint}"));
                }
            }
            (None, value) if sections::is_section(&name) => {
                let what = entry(value, at.clone()).text;
                self.fault(
                    at,
                    format!("[{name}] is a section, not the value {what}; begin it with [{name}]"),
                );
            }
            (None, value) => {
                let top = self.sections.entry(TOP.into()).or_insert_with(empty);
                top.entries.insert(name, entry(value, value_at));
            }
        }
    }

    fn section(&mut self, text: &str, name: String, at: Place, table: DeTable<'_>) {
        let section = self.sections.entry(name).or_insert_with(empty);
        section.place = at;
        for (key, value) in table {
            let at = place(text, value.span().start);
            section.entries.insert(key.into_inner().into_owned(), entry(value.into_inner(), at));
        }
    }

    /// Lets the variables go before the file.
    pub(super) fn overlay(&mut self, environment: &Environment) {
        for (name, value) in environment {
            let Some(rest) = name.strip_prefix(PREFIX) else { continue };
            let rest = rest.to_lowercase();
            let (section, key) = match rest.split_once("__") {
                // These two every command has.
                None if rest == "log" => ("log", "levels"),
                None if rest == "log_format" => ("log", "format"),
                Some((section, key)) if sections::is_section(section) => (section, key),
                Some((section, _)) => {
                    if let Some((_, entries)) = sections::LISTS.into_iter().find(|(list, _)| *list == section)
                    {
                        let message = format!("{entries} are given in the file only");
                        self.fault(Place::Variable(name.clone()), message);
                        continue;
                    }
                    let hint = suggestion(section, sections::section_names())
                        .map_or_else(String::new, |near| {
                            format!("; did you mean {PREFIX}{}__…?", near.to_uppercase())
                        });
                    self.fault(Place::Variable(name.clone()), format!("unknown section [{section}]{hint}"));
                    continue;
                }
                None if sections::key_names(TOP).any(|known| known == rest) => (TOP, rest.as_str()),
                // Scripts have variables of the same prefix; only one that is a key but for its
                // underscores is surely a mistake.
                None => {
                    if let Some(right) = sections::variables().find(|known| known.replace("__", "_") == *name)
                    {
                        self.fault(Place::Variable(name.clone()), format!("is not read; write {right}"));
                    }
                    continue;
                }
            };
            let mut entry = Entry::new(Form::Variable, value.clone(), Place::Variable(name.clone()));
            let section = self.sections.entry(section.into()).or_insert_with(empty);
            entry.overridden = section.entries.get(key).map(|file| file.place.clone());
            section.entries.insert(key.into(), entry);
        }
    }
}

fn empty() -> Section {
    Section { place: Place::Whole, entries: BTreeMap::new() }
}

/// Line and column of a byte offset.
fn place(text: &str, offset: usize) -> Place {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    Place::File {
        line: before.matches('\n').count() + 1,
        column: before.get(line_start..).map_or(0, |line| line.chars().count()) + 1,
    }
}

fn entry(value: DeValue<'_>, place: Place) -> Entry {
    let (form, text) = match value {
        DeValue::String(text) => (Form::Text, text.into_owned()),
        DeValue::Integer(number) => (Form::Integer, integer(&number)),
        DeValue::Float(number) => (Form::Float, number.as_str().to_owned()),
        DeValue::Boolean(value) => (Form::Other, value.to_string()),
        DeValue::Datetime(time) => (Form::Other, time.to_string()),
        DeValue::Array(_) => (Form::Other, "a list".into()),
        table @ DeValue::Table(_) => (Form::Table, json(table).to_string()),
    };
    Entry::new(form, text, place)
}

/// An integer in decimal; one that is beyond any type of ours stays as written and fails there.
fn integer(number: &toml::de::DeInteger<'_>) -> String {
    i128::from_str_radix(number.as_str(), number.radix())
        .map_or_else(|_| number.to_string(), |number| number.to_string())
}

/// A free table as JSON. JSON has no infinity and no times: both become text, which the policy that
/// gets them can judge.
fn json(value: DeValue<'_>) -> serde_json::Value {
    match value {
        DeValue::String(text) => text.into_owned().into(),
        DeValue::Integer(number) => {
            let text = integer(&number);
            serde_json::from_str(&text).unwrap_or(serde_json::Value::String(text))
        }
        DeValue::Float(number) => number
            .as_str()
            .parse()
            .ok()
            .and_then(serde_json::Number::from_f64)
            .map_or_else(|| number.as_str().into(), serde_json::Value::Number),
        DeValue::Boolean(value) => value.into(),
        DeValue::Datetime(time) => time.to_string().into(),
        DeValue::Array(values) => values.into_iter().map(|value| json(value.into_inner())).collect(),
        DeValue::Table(table) => table
            .into_iter()
            .map(|(key, value)| (key.into_inner().into_owned(), json(value.into_inner())))
            .collect::<serde_json::Map<_, _>>()
            .into(),
    }
}

/// The known name that a mistyped one comes nearest to, if one is near.
pub(super) fn suggestion<'a>(mistyped: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|name| (strsim::normalized_damerau_levenshtein(mistyped, name), name))
        .filter(|(likeness, _)| *likeness >= 0.6)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, name)| name)
}

/// Names as part of a sentence.
pub(super) fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.filter(|name| !name.is_empty()).collect::<Vec<_>>().join(", ")
}
