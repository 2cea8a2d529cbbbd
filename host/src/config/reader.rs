//! Takes typed values out of a document and collects what is wrong with them.
//!
//! Every method records its fault and goes on, so that one pass finds all of them. What nobody took in
//! the end is an unknown key. The methods named after the words of the `section!` macro (`required`,
//! `default`, `optional`, `secret`, `optional_secret`) are what it calls.

use super::{
    Environment,
    document::{Document, Entry, TOP, list, suggestion, variable},
    fault::{Fault, Place},
    secret::Secret,
    sections,
    value::{Form, Value},
};
use std::path::{Path, PathBuf};

/// The state of reading one configuration.
pub(super) struct Reader {
    document: Document,
    folder: PathBuf,
    /// Nothing is asked for that is not there: the section is checked, but not used.
    pub(super) lenient: bool,
}

impl Reader {
    pub(super) fn new(text: &str, path: &Path, environment: &Environment) -> Self {
        let mut document = Document::parse(text);
        document.overlay(environment);
        Self { document, folder: path.parent().unwrap_or(Path::new("")).to_owned(), lenient: false }
    }

    /// The number of tables in a list; their sections are `policy.0` and so on.
    pub(super) fn count(&self, list: &str) -> usize {
        self.document.count(list)
    }

    /// Records a fault of a key, at the place of its value or else of its section.
    pub(super) fn fault(&mut self, section: &str, key: &str, message: impl AsRef<str>) {
        let place = self.place(section, key);
        self.fault_at(place, section, key, message.as_ref());
    }

    fn fault_at(&mut self, place: Place, section: &str, key: &str, message: &str) {
        let message = match (section, sections::list_of(section)) {
            (TOP, _) => format!("{key}: {message}"),
            (_, Some(list)) => format!("[[{list}]] {key}: {message}"),
            (_, None) => format!("[{section}] {key}: {message}"),
        };
        self.document.faults.push(Fault { place, message });
    }

    /// Records a fault of the file as a whole.
    pub(super) fn fault_of_file(&mut self, message: &str) {
        self.document.faults.push(Fault { place: Place::Whole, message: message.into() });
    }

    /// Records that a key is not there, unless that does not matter or cannot be known.
    pub(super) fn missing(&mut self, section: &str, key: &str, what_to_do: &str) {
        if !self.lenient && !self.document.broken {
            self.fault(section, key, format!("is missing; {what_to_do}"));
        }
    }

    /// Where a key, or else its section, was written.
    pub(super) fn place(&self, section: &str, key: &str) -> Place {
        match self.document.sections.get(section) {
            Some(section) => {
                section.entries.get(key).map_or_else(|| section.place.clone(), |e| e.place.clone())
            }
            None => Place::Whole,
        }
    }

    /// Whether a key was written at all.
    pub(super) fn has(&self, section: &str, key: &str) -> bool {
        self.document.sections.get(section).is_some_and(|section| section.entries.contains_key(key))
    }

    /// Takes a key without looking at it.
    pub(super) fn take(&mut self, section: &str, key: &str) -> Option<Entry> {
        let entry = self.document.sections.get_mut(section)?.entries.get_mut(key)?;
        entry.taken = true;
        Some(entry.clone())
    }

    /// `None`: not there. `Some(None)`: there and wrong.
    fn value<T: Value>(&mut self, section: &str, key: &str) -> Option<Option<T>> {
        let entry = self.take(section, key)?;
        let result = if entry.form == Form::Variable && T::FORMS != [Form::Table] {
            T::read(&entry.text)
        } else if T::FORMS.contains(&entry.form) {
            T::read(&entry.text).map(|value| value.based(&self.folder))
        } else {
            Err(T::unexpected())
        };
        Some(result.map_err(|error| self.fault(section, key, format!("{} {error}", shown(&entry)))).ok())
    }

    pub(super) fn required<T: Value>(&mut self, section: &str, key: &str) -> Option<T> {
        self.value(section, key).unwrap_or_else(|| {
            self.missing(section, key, &format!("it is {}", T::EXPECTED));
            None
        })
    }

    pub(super) fn optional<T: Value>(&mut self, section: &str, key: &str) -> Option<Option<T>> {
        match self.value(section, key) {
            Some(value) => value.map(Some),
            None => Some(None),
        }
    }

    pub(super) fn default<T: Value>(&mut self, section: &str, key: &str, default: &str) -> Option<T> {
        // A test reads the default of every key.
        self.value(section, key).unwrap_or_else(|| T::read(default).ok())
    }

    pub(super) fn secret(&mut self, section: &str, key: &str, what_to_do: &str) -> Option<Secret> {
        let secret = self.optional_secret(section, key)?;
        if secret.is_none() {
            let ways = secret_ways(section, key);
            self.missing(section, key, &format!("{ways} ({what_to_do})"));
        }
        secret
    }

    pub(super) fn optional_secret(&mut self, section: &str, key: &str) -> Option<Option<Secret>> {
        let file_key = format!("{key}_file");
        let entry = self.take(section, key);
        let in_file = entry.as_ref().and_then(|entry| match entry.form {
            Form::Variable => entry.overridden.clone(),
            _ => Some(entry.place.clone()),
        });
        if let Some(place) = in_file {
            let ways = secret_ways(section, key);
            let message = format!("a secret does not belong into the configuration file; {ways}");
            self.fault_at(place, section, key, &message);
            return None;
        }
        let file: Option<PathBuf> = self.optional(section, &file_key)?;
        if self.lenient {
            return Some(None);
        }
        let (text, place, file) = match (entry, file) {
            (Some(entry), _) => (entry.text, entry.place, None),
            (None, Some(path)) => match std::fs::read_to_string(&path) {
                Ok(text) => (text, self.place(section, &file_key), Some(path)),
                Err(error) => {
                    self.fault(section, &file_key, format!("{} cannot be read: {error}", path.display()));
                    return None;
                }
            },
            (None, None) => return Some(None),
        };
        self.stand_in(section, key, place);
        match Secret::read(&text) {
            Ok(mut secret) => {
                if let Some(file) = file {
                    secret.came_from(&file);
                }
                Some(Some(secret))
            }
            Err(error) => {
                self.fault(section, key, format!("the secret {error}"));
                None
            }
        }
    }

    /// Puts a harmless text where a check of the secret will look for its place and text.
    fn stand_in(&mut self, section: &str, key: &str, place: Place) {
        if let Some(section) = self.document.sections.get_mut(section) {
            let mut entry = Entry::new(Form::Other, "the secret".into(), place);
            entry.taken = true;
            section.entries.insert(key.into(), entry);
        }
    }

    /// Applies a check to a value that was read.
    pub(super) fn checked<T>(
        &mut self,
        section: &str,
        key: &str,
        value: Option<T>,
        check: impl Fn(&T) -> Result<(), String>,
    ) -> Option<T> {
        let value = value?;
        match check(&value) {
            Ok(()) => Some(value),
            Err(error) => {
                let entry = self.take(section, key);
                self.fault(
                    section,
                    key,
                    format!("{} {error}", entry.as_ref().map_or("the default".into(), shown)),
                );
                None
            }
        }
    }

    /// Ends the reading: what was not taken is unknown.
    pub(super) fn finish(mut self) -> Vec<Fault> {
        let mut unknown = Vec::new();
        for (name, section) in &self.document.sections {
            let kind = sections::list_of(name).unwrap_or(name);
            for (key, entry) in section.entries.iter().filter(|(_, entry)| !entry.taken) {
                let hint = suggestion(key, sections::key_names(kind)).map_or_else(
                    || format!("the keys are {}", list(sections::key_names(kind))),
                    |near| format!("did you mean {near}?"),
                );
                unknown.push((
                    entry.place.clone(),
                    name.clone(),
                    key.clone(),
                    format!("unknown key; {hint}"),
                ));
            }
        }
        for (place, section, key, message) in unknown {
            self.fault_at(place, &section, &key, &message);
        }
        self.document.faults
    }
}

/// How a secret is given; an entry of a list has no variable.
pub(super) fn secret_ways(section: &str, key: &str) -> String {
    match sections::list_of(section) {
        Some(_) => format!("name a file that holds it with {key}_file"),
        None => format!("set {}, or name a file that holds it with {key}_file", variable(section, key)),
    }
}

/// A value as part of a message; a long one is cut.
fn shown(entry: &Entry) -> String {
    let mut text: String = entry.text.chars().take(60).collect();
    if text.len() < entry.text.len() {
        text.push('…');
    }
    match entry.form {
        Form::Text | Form::Variable => format!("{text:?}"),
        Form::Table => "a table".into(),
        Form::Integer | Form::Float | Form::Other => text,
    }
}
