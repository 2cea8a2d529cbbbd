#![allow(clippy::unwrap_used, clippy::expect_used)]
//! The generated pages of `docs/`, held against what the code says. `make docs` writes them again.

use crate::{
    api,
    config::{KeyInfo, Presence, SECTIONS},
    event::{Heard, Listener, Numbered, about::EVENTS, samples},
    metrics::HeardMetrics,
    reason::{Reason, Severity},
    view::{View, board::Board},
};
use serde_json::{Value, json};
use std::{fmt::Write, path::Path, sync::Arc};

/// Compares a file of `docs/` with what it should be, or writes it.
fn check(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    if std::env::var_os("RESERVEGRID_WRITE_DOCS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == text, "docs/{name} is not what the code says: run `make docs`");
}

#[test]
fn generated_reason_codes_are_current() {
    let mut page = String::from(
        "# Reason codes\n\nGenerated from `host/src/reason.rs` by `make docs`; `reservegrid reasons` prints the \
         same. A code has one meaning for ever. Policies bring codes of their own: their READMEs list them.\n",
    );
    let mut category = "";
    for reason in Reason::ALL {
        if reason.category() != category {
            category = reason.category();
            let head = "| code | meaning | severity | who acts | miners see |\n|---|---|---|---|---|";
            let _ = write!(page, "\n## {category}\n\n{head}\n");
        }
        let word = |value: Value| value.as_str().unwrap().to_owned();
        let (severity, fault) = (word(json!(reason.severity())), word(json!(reason.fault())));
        let wire = reason.sv2_code().map_or_else(String::new, |code| format!("`{code}`"));
        let meaning = reason.meaning();
        let _ = writeln!(page, "| `{reason}` | {meaning} | {severity} | {fault} | {wire} |");
    }
    check("reason-codes.md", &page);
}

#[test]
fn generated_configuration_is_current() {
    check("configuration.md", &crate::config::page());
}

#[test]
fn every_key_is_explained_and_there_are_enough_to_run_a_pool() {
    let keys: Vec<&KeyInfo> =
        SECTIONS.iter().flat_map(|(_, lists)| lists.iter().flat_map(|l| l.iter())).collect();
    assert!(keys.len() >= 51, "{}", keys.len());
    for key in keys {
        assert!(key.doc.trim().ends_with('.'), "{}: {:?}", key.name, key.doc);
        assert!(key.presence != Presence::Default(""), "{}", key.name);
    }
}

#[test]
fn generated_http_description_is_current() {
    check("openapi.json", &(serde_json::to_string_pretty(&api::description()).unwrap() + "\n"));
}

#[test]
fn generated_event_schema_and_examples_are_current() {
    check("events.schema.json", &(serde_json::to_string_pretty(&api::event_schema()).unwrap() + "\n"));
    let samples = samples::all();
    let numbered = (1..).zip(&samples).map(|(seq, record)| Numbered { seq, record });
    let lines = numbered.map(|event| serde_json::to_string(&event).unwrap() + "\n");
    check("events.ndjson", &lines.collect::<String>());
}

/// What a reference of the schema leads to; what stands beside the reference counts as well.
fn referred<'a>(root: &'a Value, schema: &Value) -> Option<&'a Value> {
    schema["$ref"].as_str().map(|reference| root.pointer(reference.strip_prefix('#').unwrap()).unwrap())
}

/// Whether a value fits a schema, as far as the words go that ours use.
fn fits(root: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    if let Some(schema) = referred(root, schema) {
        fits(root, schema, value)?;
    }
    for word in ["oneOf", "anyOf"] {
        if let Some(list) = schema[word].as_array()
            && !list.iter().any(|one| fits(root, one, value).is_ok())
        {
            return Err(format!("{value} fits none of {}", schema[word]));
        }
    }
    if let Some(constant) = schema.get("const").filter(|constant| *constant != value) {
        return Err(format!("{value} is not {constant}"));
    }
    if let Some(values) = schema["enum"].as_array()
        && !values.contains(value)
    {
        return Err(format!("{value} is not one of {values:?}"));
    }
    let kinds = match &schema["type"] {
        Value::String(kind) => vec![kind.as_str()],
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => vec![],
    };
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let whole = kind == "integer" && kinds.contains(&"number");
    if !(kinds.is_empty() || kinds.contains(&kind) || whole) {
        return Err(format!("{value} is {kind} and not {kinds:?}"));
    }
    for name in schema["required"].as_array().into_iter().flatten() {
        if value.get(name.as_str().unwrap()).is_none() {
            return Err(format!("{value} lacks {name}"));
        }
    }
    for (name, part) in schema["properties"].as_object().into_iter().flatten() {
        if let Some(value) = value.get(name) {
            fits(root, part, value).map_err(|error| format!("{name}: {error}"))?;
        }
    }
    if let (Some(items), Some(list)) = (schema.get("items"), value.as_array()) {
        list.iter().try_for_each(|value| fits(root, items, value))?;
    }
    Ok(())
}

#[test]
fn every_event_has_its_name_its_room_and_fits_its_schema() {
    let schema = api::event_schema();
    let samples = samples::all();
    let names: Vec<_> = samples.iter().map(|sample| sample.event.about().name).collect();
    let listed: Vec<_> = EVENTS.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, listed, "one sample for each event, in the order of the list");
    let branches = schema["oneOf"].as_array().expect("one schema for each event");
    assert_eq!(branches.len(), samples.len());
    for sample in samples {
        let name = sample.event.about().name;
        let value = serde_json::to_value(Numbered { seq: 1, record: &sample }).unwrap();
        assert_eq!(value["event"], name, "the name in the list is the one that is written");
        let branch = branches
            .iter()
            .find(|branch| branch["properties"]["event"]["const"] == name)
            .unwrap_or_else(|| panic!("{name} has no schema of its own"));
        fits(&schema, branch, &value).unwrap_or_else(|error| panic!("{name}: {error}"));
        fits(&schema, &schema, &value).unwrap_or_else(|error| panic!("{name}: {error}"));
        let places = [Some(&schema), Some(branch), referred(&schema, branch)];
        for field in value.as_object().unwrap().keys() {
            let known = places.iter().flatten().any(|place| place["properties"].get(field).is_some());
            assert!(known, "{name}: {field} is not in the schema");
        }
    }
}

/// All metrics of a gateway in which everything happened once.
fn metrics() -> String {
    let mut heard = HeardMetrics::default();
    let view = View::new(heard.clone(), Arc::new(Board::default()), Arc::default());
    for (seq, record) in (1..).zip(samples::all()) {
        let (about, json) = (record.event.about(), "{}".into());
        heard.hear(&Heard { seq, record: &record, about, json: &json });
    }
    view.metrics().text()
}

#[test]
fn generated_metrics_are_current() {
    let text = metrics();
    let mut page = String::from(
        "# Metrics\n\nGenerated by `make docs`. `GET /metrics` of the HTTP surface gives them as OpenMetrics text; \
         `examples/prometheus/` has a configuration, alerts and a dashboard. Counters have `_total` behind \
         their name.\n\n| name | kind | meaning |\n|---|---|---|\n",
    );
    let kinds: Vec<_> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    for line in text.lines().filter_map(|line| line.strip_prefix("# HELP ")) {
        let (name, help) = line.split_once(' ').unwrap();
        let (_, kind) = kinds.iter().find(|(known, _)| *known == name).unwrap();
        let help = help.strip_suffix("..").map_or(help.to_owned(), |help| format!("{help}."));
        let _ = writeln!(page, "| `{name}` | {kind} | {help} |");
    }
    check("metrics.md", &page);
    assert!(kinds.len() >= 40, "{}", kinds.len());
    assert!(
        text.contains("reservegrid_verdicts_total{code=\"avg_fee_below_minimum\",policy=\"fee-floor\"} 1"),
        "{text}"
    );
    assert!(text.contains("reservegrid_rejections_in_a_row 1"), "{text}");
}

#[test]
fn alerts_and_dashboard_ask_for_metrics_that_there_are() {
    let text = metrics();
    let kinds = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let names: Vec<String> = kinds
        .flat_map(|(name, kind)| match kind {
            "counter" => vec![format!("{name}_total")],
            "histogram" => ["_bucket", "_sum", "_count", ""].map(|part| format!("{name}{part}")).into(),
            _ => vec![name.to_owned()],
        })
        .collect();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    for file in ["prometheus/alerts.yml", "prometheus/alerts_test.yml", "grafana/dashboard.json"] {
        let text = std::fs::read_to_string(folder.join(file)).unwrap();
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let asked: Vec<_> = words.filter(|word| word.starts_with("reservegrid_")).collect();
        assert!(asked.len() > 5, "{file}");
        for name in asked {
            assert!(names.iter().any(|known| known == name), "{file} asks for {name}");
        }
    }
}

#[test]
fn severities_are_ordered_by_the_attention_they_deserve() {
    assert!(Severity::Info < Severity::Warning && Severity::Warning < Severity::Error);
}
