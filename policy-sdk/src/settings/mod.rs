//! Reading settings: every fault at once, and the schema for nothing.
//!
//! A policy reads its settings once, in [`crate::Policy::configure`], by saying for each what it is
//! called, what it means, what may stand there and what holds when nothing does. The same code then
//! serves three ends: the value, the faults with their place (unknown names among them), and the JSON
//! Schema in the policy's metadata, which therefore cannot differ from what is accepted.
//!
//! The gateway makes a fresh instance for every verdict, so settings are read as often as templates
//! are judged. That is why values stay slices of the document, and why nothing is put into words
//! unless there is a fault or somebody asks for the schema.

mod schema;

pub(crate) use self::schema::{Kind, Property, Schema};

use crate::SettingsFault;
use nojson::{RawJson, RawJsonValue};
use std::{borrow::Cow, ops::RangeInclusive};

/// The settings that a policy is given: one JSON object, or one inside it.
#[derive(Default)]
pub struct Settings<'a> {
    given: Vec<Given<'a>>,
    known: Vec<&'static str>,
    faults: Vec<SettingsFault>,
    /// Collected when the schema is asked for, and only then.
    schema: Option<Schema>,
}

/// One name with its value in the document.
struct Given<'a> {
    name: Cow<'a, str>,
    value: RawJsonValue<'a, 'a>,
    read: bool,
}

impl<'a> Settings<'a> {
    /// A whole number within `range`; `default: None` makes it required.
    pub fn integer(
        &mut self,
        name: &'static str,
        meaning: &'static str,
        range: RangeInclusive<u64>,
        default: Option<u64>,
    ) -> u64 {
        let (low, high) = range.into_inner();
        self.describe(name, meaning, || Kind::Integer { low, high, default });
        let value = self.value(name, default.is_none(), |value| {
            let number = value.as_raw_str().parse().ok().filter(|number| (low..=high).contains(number));
            number.ok_or_else(|| format!("must be a whole number from {low} to {high}, not {}", shown(value)))
        });
        value.or(default).unwrap_or(low)
    }

    /// `true` or `false`; `default: None` makes it required.
    pub fn boolean(&mut self, name: &'static str, meaning: &'static str, default: Option<bool>) -> bool {
        self.describe(name, meaning, || Kind::Boolean { default });
        let value = self.value(name, default.is_none(), |value| match value.as_raw_str() {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(format!("must be true or false, not {}", shown(value))),
        });
        value.or(default).unwrap_or_default()
    }

    /// One of some words; what does not stand there means the first of `words`.
    pub fn choice<T: Copy>(
        &mut self,
        name: &'static str,
        meaning: &'static str,
        words: &[(&'static str, T)],
    ) -> T {
        let names = || words.iter().map(|&(word, _)| word).collect::<Vec<_>>();
        self.describe(name, meaning, || Kind::Choice(names()));
        let value = self.value(name, false, |value| {
            let given = string(value);
            let found = words.iter().find(|(word, _)| given.as_deref() == Some(word));
            let found = found.map(|&(_, value)| value);
            found.ok_or_else(|| format!("must be one of {}, not {}", names().join(", "), shown(value)))
        });
        value.unwrap_or(words[0].1)
    }

    /// One line of text, at most `most` bytes of UTF-8; `default: None` makes it required.
    pub fn text(
        &mut self,
        name: &'static str,
        meaning: &'static str,
        most: usize,
        default: Option<&'static str>,
    ) -> String {
        self.describe(name, meaning, || Kind::Text { most, default });
        let value = self.value(name, default.is_none(), |value| {
            let text = string(value).filter(|text| text.len() <= most && !text.chars().any(char::is_control));
            text.ok_or_else(|| format!("must be one line of at most {most} bytes, not {}", shown(value)))
        });
        value.unwrap_or(Cow::Borrowed(default.unwrap_or_default())).into_owned()
    }

    /// Bytes written in hexadecimal, at most `most` of them; none when it does not stand there.
    pub fn hex(&mut self, name: &'static str, meaning: &'static str, most: usize) -> Vec<u8> {
        self.describe(name, meaning, || Kind::Hex { most });
        self.value(name, false, |value| bytes(value, most)).unwrap_or_default()
    }

    /// A list of at most `entries` byte strings written in hexadecimal, each of at most `most` bytes;
    /// empty when it does not stand there.
    pub fn hex_list(
        &mut self,
        name: &'static str,
        meaning: &'static str,
        entries: usize,
        most: usize,
    ) -> Vec<Vec<u8>> {
        self.describe(name, meaning, || Kind::HexList { entries, most });
        let mut list = Vec::new();
        for (index, value) in self.elements(name, entries).into_iter().enumerate() {
            match bytes(value, most) {
                Ok(bytes) => list.push(bytes),
                Err(problem) => self.fault(&format!("{name}[{index}]"), problem),
            }
        }
        list
    }

    /// An object inside this one; when it does not stand there, all its defaults hold.
    pub fn object<T>(
        &mut self,
        name: &'static str,
        meaning: &'static str,
        read: impl FnOnce(&mut Settings) -> T,
    ) -> T {
        let given = self.value(name, false, members).unwrap_or_default();
        let mut inner = self.inner(given);
        let value = read(&mut inner);
        let schema = self.adopt(name, inner);
        self.describe(name, meaning, || Kind::Object(schema));
        value
    }

    /// A list of at most `entries` objects, each read by `read`; empty when it does not stand there.
    pub fn list<T>(
        &mut self,
        name: &'static str,
        meaning: &'static str,
        entries: usize,
        read: impl Fn(&mut Settings) -> T,
    ) -> Vec<T> {
        self.describe(name, meaning, || {
            let mut entry = Settings { schema: Some(Schema::default()), ..Settings::default() };
            read(&mut entry);
            Kind::List { entries, entry: entry.schema.unwrap_or_default() }
        });
        let mut list = Vec::new();
        for (index, value) in self.elements(name, entries).into_iter().enumerate() {
            let place = format!("{name}[{index}]");
            match members(value) {
                Ok(given) => {
                    let mut inner = self.inner(given);
                    list.push(read(&mut inner));
                    self.adopt(&place, inner);
                }
                Err(problem) => self.fault(&place, problem),
            }
        }
        list
    }

    /// Notes a fault that only several settings together show. `name` is where it is to be mended.
    pub fn fault(&mut self, name: &str, problem: impl Into<String>) {
        self.faults.push(SettingsFault { path: name.into(), problem: problem.into() });
    }

    /// Reads a whole document.
    pub(crate) fn read<T>(
        json: &str,
        configure: impl FnOnce(&mut Settings) -> T,
    ) -> Result<T, Vec<SettingsFault>> {
        let document = parse(json)?;
        let mut settings = Settings { given: outermost(&document)?, ..Settings::default() };
        let value = configure(&mut settings);
        settings.refuse_unread();
        if settings.faults.is_empty() { Ok(value) } else { Err(settings.faults) }
    }

    /// What `configure` reads.
    pub(crate) fn schema(configure: impl FnOnce(&mut Settings)) -> Schema {
        let mut settings = Settings { schema: Some(Schema::default()), ..Settings::default() };
        configure(&mut settings);
        settings.schema.unwrap_or_default()
    }

    /// For what stands inside of this object.
    fn inner<'b>(&self, given: Vec<Given<'b>>) -> Settings<'b> {
        Settings { given, schema: self.schema.as_ref().map(|_| Schema::default()), ..Settings::default() }
    }

    /// Takes over the faults of what stood at `place`; gives its schema.
    fn adopt(&mut self, place: &str, mut inner: Settings) -> Schema {
        inner.refuse_unread();
        for SettingsFault { path, problem } in inner.faults {
            self.fault(&format!("{place}.{path}"), problem);
        }
        inner.schema.unwrap_or_default()
    }

    fn value<T>(
        &mut self,
        name: &'static str,
        required: bool,
        parse: impl FnOnce(RawJsonValue<'a, 'a>) -> Result<T, String>,
    ) -> Option<T> {
        match self.take(name).map(parse) {
            Some(Ok(value)) => return Some(value),
            Some(Err(problem)) => self.fault(name, problem),
            None if required => self.fault(name, "is missing; it has no default"),
            None => {}
        }
        None
    }

    fn take(&mut self, name: &'static str) -> Option<RawJsonValue<'a, 'a>> {
        self.known.push(name);
        let given = self.given.iter_mut().find(|given| given.name == name)?;
        given.read = true;
        Some(given.value)
    }

    /// The elements of a list.
    fn elements(&mut self, name: &'static str, most: usize) -> Vec<RawJsonValue<'a, 'a>> {
        let elements = self.value(name, false, |value| {
            let elements: Option<Vec<_>> = value.to_array().ok().map(Iterator::collect);
            let elements = elements.filter(|elements| elements.len() <= most);
            elements.ok_or_else(|| format!("must be a list of at most {most} entries, not {}", shown(value)))
        });
        elements.unwrap_or_default()
    }

    fn describe(&mut self, name: &'static str, meaning: &'static str, kind: impl FnOnce() -> Kind) {
        if let Some(schema) = &mut self.schema {
            schema.properties.push(Property { name, meaning, kind: kind() });
        }
    }

    fn refuse_unread(&mut self) {
        for given in std::mem::take(&mut self.given).iter().filter(|given| !given.read) {
            let problem = if self.known.contains(&given.name.as_ref()) {
                "stands there twice".to_owned()
            } else {
                format!("is not a setting of this policy; there are: {}", self.known.join(", "))
            };
            self.fault(&given.name, problem);
        }
    }
}

// Not generic, so that a module carries the parser once.
fn parse(json: &str) -> Result<RawJson<'_>, Vec<SettingsFault>> {
    RawJson::parse(json).map_err(|error| whole(format!("not JSON: {error}")))
}

fn outermost<'a>(document: &'a RawJson<'a>) -> Result<Vec<Given<'a>>, Vec<SettingsFault>> {
    members(document.value()).map_err(whole)
}

/// A fault of the document as a whole.
fn whole(problem: String) -> Vec<SettingsFault> {
    vec![SettingsFault { path: String::new(), problem }]
}

/// The members of an object.
fn members<'a>(value: RawJsonValue<'a, 'a>) -> Result<Vec<Given<'a>>, String> {
    let Ok(members) = value.to_object() else {
        return Err(format!("must be an object, not {}", shown(value)));
    };
    let given = members.filter_map(|(name, value)| Some(Given { name: string(name)?, value, read: false }));
    Ok(given.collect())
}

fn string<'a>(value: RawJsonValue<'a, 'a>) -> Option<Cow<'a, str>> {
    value.to_unquoted_string_str().ok()
}

fn bytes(value: RawJsonValue, most: usize) -> Result<Vec<u8>, String> {
    let bytes = string(value).and_then(|text| hex::decode(text.as_ref()).ok());
    bytes
        .filter(|bytes| bytes.len() <= most)
        .ok_or_else(|| format!("must be at most {most} bytes in hexadecimal, not {}", shown(value)))
}

/// A value for people, cut to a length that fits a line.
fn shown(value: RawJsonValue) -> String {
    let text = value.as_raw_str();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests;
