//! The configuration explained: every key with its type, default and meaning, and what is in force where it
//! came from. The documentation and `reservegrid config keys | defaults | show` are the same text.

use super::{
    Config, ConfigFaults, Environment, KeyInfo, Place, Presence,
    document::{Document, Entry, TOP, variable},
    sections::{FILE_KEYS, LISTS, SECTIONS},
    value::Form,
};
use serde::Serialize;
use std::{fmt::Write, path::Path};

/// A key, explained.
#[derive(Clone, Debug, Serialize)]
pub struct Key {
    /// The section; empty for the keys above all sections.
    pub section: &'static str,
    /// The name in the section.
    pub key: &'static str,
    /// What kind of value it has.
    pub kind: &'static str,
    /// Whether it has to be there, or what it is when it is not.
    pub default: String,
    /// When another value takes effect: at once with a reload, for new ones (connections and channels that begin
    /// after it), or with the next start.
    pub reload: &'static str,
    /// What it means.
    pub meaning: String,
    /// The variable that goes before it; none for policies, which are a list.
    pub variable: Option<String>,
}

/// Every key, in the order of the documentation. Keys of the same name and meaning appear once.
pub fn keys() -> Vec<Key> {
    let mut keys: Vec<Key> = Vec::new();
    for (section, lists) in SECTIONS {
        for info in lists.iter().flat_map(|list| list.iter()) {
            if !keys.iter().any(|key| key.section == *section && key.key == info.name) {
                keys.push(Key::new(section, info));
            }
        }
    }
    keys
}

impl Key {
    fn new(section: &'static str, info: &KeyInfo) -> Self {
        let secret = matches!(info.presence, Presence::Secret | Presence::OptionalSecret);
        let is_list = LISTS.iter().any(|(list, _)| *list == section);
        let by = if is_list { "" } else { "by variable, or " };
        let by_file = format!("; {by}in the file named by `{}_file`", info.name);
        let default = match info.presence {
            Presence::Required => "required".to_owned(),
            Presence::Optional => "none".to_owned(),
            Presence::Default(text) => text.to_owned(),
            Presence::Secret => format!("required{by_file}"),
            Presence::OptionalSecret => format!("none{by_file}"),
        };
        let named = (!is_list).then(|| variable(section, info.name));
        let meaning = info.doc.split_whitespace().collect::<Vec<_>>().join(" ");
        let kind = if secret { "secret" } else { kind(info.kind) };
        let reload = info.reload.words();
        Self { section, key: info.name, kind, default, reload, meaning, variable: named }
    }

    /// As it is written in messages: `[gate] hold_timeout`.
    pub fn name(&self) -> String {
        match self.section {
            TOP => self.key.to_owned(),
            list if self.variable.is_none() => format!("[[{list}]] {}", self.key),
            section => format!("[{section}] {}", self.key),
        }
    }
}

/// A Rust type in words.
fn kind(rust: &'static str) -> &'static str {
    let inner = rust.strip_prefix("Option<").and_then(|kind| kind.strip_suffix('>')).unwrap_or(rust);
    match inner {
        "Duration" => "duration",
        "ByteSize" => "size",
        "u32" | "u64" => "whole number",
        "f64" => "number",
        "String" => "text",
        "PathBuf" => "path",
        "SocketAddr" => "address and port",
        "Url" => "URL",
        "Network" => "network",
        "Address<NetworkUnchecked>" => "Bitcoin address",
        "Payouts" => "table of payouts",
        "Elsewhere" => "host and port",
        "AuthorityPublicKey" => "authority key",
        "CompactTarget" => "compact target",
        "[u8; 32]" => "SHA-256",
        "serde_json::Value" => "table",
        _ => "choice",
    }
}

/// The keys as a page of the documentation.
pub fn page() -> String {
    let mut page = String::from(
        "# Configuration\n\nGenerated from `host/src/config/sections.rs` by `make docs`; `reservegrid config keys` \
         prints the same.\n\nOne TOML file. Durations are a whole number with a unit (`50ms`, `5s`, `2m`, `1h`), \
         sizes likewise (`512KiB`, `64MiB`, `1GiB`). A variable goes before the key of the file. Secrets are \
         never in the file: they come from their variable, or from a file of their own. Relative paths begin at \
         the folder of the configuration file. `reservegrid config check FILE` lists every fault with its line, \
         `reservegrid config show FILE` says what is in force and where it came from.\n\nWhile the gateway runs, \
         SIGHUP, `POST /v1/reload` (`reservegrid config reload`) and a changed file take over what changed, all of it or, \
         when there is a fault, nothing. The column \"reload\" says for each key what that does: `at once`; `for new ones`, \
         which are connections and channels that begin afterwards; or `next start`. The event `config_reloaded` \
         names the keys that took effect, `config_restart_needed` those that wait.\n",
    );
    let mut section = "-";
    for key in keys() {
        if key.section != section {
            section = key.section;
            let title = match section {
                TOP => "Above all sections".to_owned(),
                "policy" => "`[[policy]]`, once for each policy".to_owned(),
                "backup" => {
                    "`[[backup]]`, once for each source that stands in for `[source]`, in order".to_owned()
                }
                section => format!("`[{section}]`"),
            };
            let _ = write!(
                page,
                "\n## {title}\n\n| key | type | default | reload | meaning |\n|---|---|---|---|---|\n"
            );
        }
        let Key { key: name, kind, default, reload, meaning, .. } = &key;
        let _ = writeln!(page, "| `{name}` | {kind} | {default} | {reload} | {meaning} |");
    }
    page
}

/// The keys that have a default, as a configuration file that changes nothing.
pub fn defaults() -> String {
    let mut text = String::new();
    let mut section = TOP;
    for key in keys() {
        let Some(Presence::Default(default)) = info(&key).map(|info| info.presence) else { continue };
        // What belongs to the embedded chain, or to a policy, stands in no other configuration.
        if key.variable.is_none() || key.section == "source" {
            continue;
        }
        if key.section != section {
            section = key.section;
            let _ = writeln!(text, "\n[{section}]");
        }
        let bare = matches!(key.kind, "whole number" | "number");
        let value = if bare { default.to_owned() } else { format!("{default:?}") };
        let _ = writeln!(text, "# {}\n{} = {value}", key.meaning, key.key);
    }
    text.trim_start().to_owned()
}

fn info(key: &Key) -> Option<&'static KeyInfo> {
    let (_, lists) = SECTIONS.iter().find(|(name, _)| *name == key.section)?;
    lists.iter().flat_map(|list| list.iter()).find(|info| info.name == key.key)
}

/// A value that is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InForce {
    /// The key as it is written in messages.
    pub key: String,
    /// Its value; of a secret only that there is one.
    pub value: String,
    /// Where it came from: `gateway.toml:12:19`, a variable, or `default`.
    pub from: String,
}

/// What is in force with this file and these variables, key by key.
///
/// # Errors
/// As [`Config::load_with`].
pub fn in_force(path: &Path, environment: &Environment) -> Result<Vec<InForce>, ConfigFaults> {
    let config = Config::load_with(path, environment)?;
    // It was read a moment ago.
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let mut document = Document::parse(&text);
    document.overlay(environment);
    let from = |entry: &Entry| match &entry.place {
        Place::File { line, column } => format!("{}:{line}:{column}", path.display()),
        Place::Variable(name) => name.clone(),
        Place::Whole => path.display().to_string(),
    };
    let of_source =
        |key: &str| key == "kind" || config.source.kind().keys().iter().any(|info| info.name == key);
    let mut shown = Vec::new();
    for key in keys() {
        let Some(info) = info(&key) else { continue };
        let sections: Vec<String> = match key.section {
            list if key.variable.is_none() => {
                (0..document.count(list)).map(|index| format!("{list}.{index}")).collect()
            }
            section => vec![section.to_owned()],
        };
        for section in sections {
            let entries = document.sections.get(&section).map(|section| &section.entries);
            let secret = key.kind == "secret";
            let entry = entries.and_then(|entries| entries.get(key.key));
            let file_key = format!("{}_file", key.key);
            let file = entries.filter(|_| secret && FILE_KEYS.contains(&&*file_key));
            let file = file.and_then(|entries| entries.get(&file_key));
            let entry_name = |list: &str, names: &[&str]| {
                let index = section.strip_prefix(list)?.strip_prefix('.')?.parse::<usize>().ok()?;
                Some(format!("{list} \"{}\": {}", names.get(index)?, key.key))
            };
            let policies: Vec<&str> = config.policies.iter().map(|policy| &*policy.name).collect();
            let backups: Vec<&str> = config.backups.iter().map(|backup| &*backup.name).collect();
            let name = entry_name("policy", &policies)
                .or_else(|| entry_name("backup", &backups))
                .unwrap_or_else(|| key.name());
            let (value, from) = match (entry, file, info.presence) {
                (Some(entry), ..) if secret => ("(secret)".to_owned(), from(entry)),
                (Some(entry), ..) => (written(entry), from(entry)),
                (None, Some(file), _) => (format!("(secret in {})", file.text), from(file)),
                (.., Presence::Default(default)) => (default.to_owned(), "default".to_owned()),
                _ => continue,
            };
            let of_other_source = key.section == "source" && entry.is_none() && !of_source(key.key);
            if !of_other_source {
                shown.push(InForce { key: name, value, from });
            }
        }
    }
    Ok(shown)
}

fn written(entry: &Entry) -> String {
    match entry.form {
        Form::Table => entry.text.clone(),
        _ => entry.text.chars().take(200).collect(),
    }
}

#[cfg(test)]
#[path = "explain_tests.rs"]
mod tests;
