//! The tables in a policy's README: made from its codes and its settings, so that they cannot say
//! anything else than the policy does.

use crate::{
    Policy, Settings,
    settings::{Kind, Schema},
};
use std::fmt::Write;

/// Fails when the tables in a README are not the policy's. They stand between the lines
/// `<!-- codes -->` and `<!-- /codes -->`, and `<!-- settings -->` and `<!-- /settings -->`.
///
/// # Panics
/// When a table is missing or another; the message is the right one, ready to be pasted.
pub fn assert_readme<P: Policy>(readme: &str) {
    for (section, table) in [("codes", codes_table::<P>()), ("settings", settings_table::<P>())] {
        let expected = format!("<!-- {section} -->\n\n{table}\n<!-- /{section} -->\n");
        assert!(
            readme.contains(&expected),
            "the {section} in the README of {} are out of date; this is what must stand there:\n\n{expected}",
            P::NAME
        );
    }
}

/// Every code of a policy with its meaning, as a Markdown table.
pub fn codes_table<P: Policy>() -> String {
    let mut table = "| code | meaning |\n|---|---|\n".to_owned();
    for (code, meaning) in P::CODES {
        let _ = writeln!(table, "| `{code}` | {} |", cell(meaning));
    }
    table
}

/// Every setting of a policy with what may stand there, as a Markdown table.
pub fn settings_table<P: Policy>() -> String {
    let mut table = "| setting | values | default | meaning |\n|---|---|---|---|\n".to_owned();
    rows(&mut table, "", &Settings::schema(|settings| drop(P::configure(settings))));
    table
}

/// One row for each setting of an object, those of objects inside it below it.
fn rows(table: &mut String, path: &str, schema: &Schema) {
    for property in &schema.properties {
        let name = format!("{path}{}", property.name);
        let (values, default) = values(&property.kind);
        let default = if property.required() { "required".to_owned() } else { default };
        let _ = writeln!(table, "| `{name}` | {values} | {default} | {} |", cell(property.meaning));
        match &property.kind {
            Kind::Object(inner) => rows(table, &format!("{name}."), inner),
            Kind::List { entry, .. } => rows(table, &format!("{name}[]."), entry),
            _ => {}
        }
    }
}

/// What may stand there, and the default, in words.
fn values(kind: &Kind) -> (String, String) {
    fn code(value: Option<impl ToString>) -> String {
        value.map(|value| format!("`{}`", value.to_string())).unwrap_or_default()
    }
    match kind {
        Kind::Integer { low, high, default } => (format!("{low} to {high}"), code(*default)),
        Kind::Boolean { default } => ("`true`, `false`".to_owned(), code(*default)),
        Kind::Choice(words) => {
            let all: Vec<_> = words.iter().map(|word| format!("`\"{word}\"`")).collect();
            (all.join(", "), code(Some(format!("\"{}\"", words[0]))))
        }
        Kind::Text { most, default } => {
            (format!("text, up to {most} bytes"), code(default.map(|text| format!("\"{text}\""))))
        }
        Kind::Hex { most } => (format!("hexadecimal, up to {most} bytes"), "`\"\"`".to_owned()),
        Kind::HexList { entries, most } => {
            (format!("list of up to {entries}, each hexadecimal, up to {most} bytes"), "`[]`".to_owned())
        }
        Kind::Object(_) => ("table".to_owned(), String::new()),
        Kind::List { entries, .. } => (format!("list of up to {entries} tables"), "`[]`".to_owned()),
    }
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
