//! Case files: a template, settings, and the verdict that is expected. One TOML file a case.
//!
//! A key that is not known is a fault, with its line and the key that may have been meant. The template
//! is made to order ([`crate::template::synthetic`]) or was recorded.

use super::{InputFault, read_text};
use crate::{
    record,
    template::{
        Context, Template,
        facts::assemble,
        synthetic::{self, ContextTable, TemplateTable},
    },
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// A case, ready to be judged.
#[derive(Debug)]
pub struct Case {
    /// The file it came from.
    pub file: PathBuf,
    /// One sentence on what it shows.
    pub meaning: String,
    /// The policy's settings, an object.
    pub settings: Value,
    /// The template.
    pub template: Arc<Template>,
    /// What is known around it.
    pub context: Context,
    /// The verdict that is expected.
    pub expect: Expect,
}

/// The verdict that is expected.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// Whether the template is accepted.
    pub accepted: bool,
    /// The code of a rejection.
    pub reason_code: Option<String>,
    /// Its words; any where left out.
    pub reason_detail: Option<String>,
    /// Its values; any where left out.
    pub policy_context: Option<Map<String, Value>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseFile<T> {
    meaning: String,
    #[serde(default)]
    settings: Map<String, Value>,
    #[serde(default = "Option::default")]
    template: Option<T>,
    context: Option<ContextTable>,
    expect: Expect,
}

/// Instead of a template made to order.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordedTable {
    recorded: PathBuf,
}

impl Case {
    /// Reads a case and makes its template.
    ///
    /// # Errors
    /// The file, the line where it is one of a line, and what to do.
    pub fn read(file: &Path) -> Result<Self, InputFault> {
        let text = read_text(file)?;
        let fault = |problem: String| InputFault(format!("{}: {problem}", file.display()));
        let recorded = text.parse::<toml::Table>().is_ok_and(|table| {
            table.get("template").is_some_and(|template| template.get("recorded").is_some())
        });
        let (meaning, settings, template, context, expect);
        if recorded {
            let case: CaseFile<RecordedTable> = parse(file, &text)?;
            let table = case.template.ok_or_else(|| fault("there is no [template]".into()))?;
            let path = file.parent().unwrap_or(Path::new("")).join(&table.recorded);
            let recorded = record::read_template(&path).map_err(|error| fault(error.to_string()))?;
            if case.context.is_some() {
                return Err(fault("a recorded template brings its own context; leave [context] out".into()));
            }
            template = assemble(&recorded.declared).map_err(|error| fault(error.to_string()))?;
            (meaning, settings, context, expect) =
                (case.meaning, case.settings, recorded.context, case.expect);
        } else {
            let case: CaseFile<TemplateTable> = parse(file, &text)?;
            let table = case.template.unwrap_or_default();
            let (declared, surroundings) = synthetic::build(&table, &case.context.unwrap_or_default())
                .map_err(|error| fault(error.to_string()))?;
            template = assemble(&declared).map_err(|error| fault(error.to_string()))?;
            (meaning, settings, context, expect) = (case.meaning, case.settings, surroundings, case.expect);
        }
        if expect.accepted && (expect.reason_code.is_some() || expect.reason_detail.is_some()) {
            return Err(fault("[expect] accepted = true and a reason do not go together".into()));
        }
        if !expect.accepted && expect.reason_code.is_none() {
            return Err(fault("[expect] a rejection needs its reason_code".into()));
        }
        let (file, settings, template) = (file.to_owned(), Value::Object(settings), Arc::new(template));
        Ok(Self { file, meaning, settings, template, context, expect })
    }
}

fn parse<T: DeserializeOwned>(file: &Path, text: &str) -> Result<T, InputFault> {
    toml::from_str(text)
        .map_err(|error| InputFault(format!("{}:{}", file.display(), toml_problem(text, &error))))
}

/// `LINE:COLUMN: what is wrong`, with the key that may have been meant.
pub(super) fn toml_problem(text: &str, error: &toml::de::Error) -> String {
    let message = error.message();
    let hint = meant(message).map_or_else(String::new, |key| format!("; did you mean `{key}`?"));
    let Some(span) = error.span() else { return format!(" {message}{hint}") };
    let before = text.get(..span.start).unwrap_or(text);
    let (line, column) =
        (before.matches('\n').count() + 1, before.chars().rev().take_while(|c| *c != '\n').count() + 1);
    format!("{line}:{column}: {message}{hint}")
}

/// What the parser says of an unknown key names it first and the known ones after it, each in backticks.
fn meant(message: &str) -> Option<&str> {
    let mut words = message.starts_with("unknown field").then(|| message.split('`').skip(1).step_by(2))?;
    let unknown = words.next()?;
    let likeness = |known: &str| strsim::normalized_damerau_levenshtein(unknown, known);
    let nearest = words.max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(nearest) >= 0.6).then_some(nearest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Case, String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("case.toml");
        std::fs::write(&file, text).unwrap();
        let shown = format!("{}/", folder.path().display());
        Case::read(&file).map_err(|fault| fault.to_string().replace(&shown, ""))
    }

    const EXPECT: &str = "[expect]\naccepted = true\n";

    #[test]
    fn a_case_that_says_little_is_an_ordinary_template() {
        let case = read(&format!("meaning = \"m\"\n{EXPECT}")).unwrap();
        assert_eq!((case.template.height, case.template.transactions.len()), (900_000, 0));
        assert_eq!(case.settings, serde_json::json!({}));
        assert!(case.template.discrepancies.is_empty());
    }

    #[test]
    fn an_unknown_key_is_told_with_its_line_and_the_key_that_may_have_been_meant() {
        for (line, text, place, hint) in [
            (2, "[template]\nhight = 3\n", ":2:1", "did you mean `height`?"),
            (2, "[template]\ntransactions = [{ wight = 3 }]\n", ":2:19", "did you mean `weight`?"),
            (2, "[context]\nfee_rate = 3\n", ":2:1", "did you mean `fee_rates`?"),
        ] {
            let error = read(&format!("{text}{EXPECT}")).unwrap_err();
            assert!(error.contains(place) && error.contains(hint), "line {line}: {error}");
        }
        let error = read("meaning = \"m\"\n[expect]\naccepted = true\nzzz = 1\n").unwrap_err();
        assert!(error.contains("unknown field `zzz`") && !error.contains("did you mean"), "{error}");
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_file_and_the_place() {
        for (text, words) in [
            ("meaning = \"m\"\n[expect]\naccepted = false\n", "case.toml: [expect] a rejection needs"),
            ("meaning = \"m\"\n[expect]\naccepted = true\nreason_code = \"x\"\n", "do not go together"),
            ("meaning = \"m\"\n", "missing field `expect`"),
            ("meaning = \n", "case.toml:1:"),
            (
                "meaning = \"m\"\n[template]\ntransactions = [{ weight = 4 }]\n[expect]\naccepted = true\n",
                "transactions row 0: a weight of 4 cannot be reached",
            ),
            (
                "meaning = \"m\"\n[template]\nrecorded = \"gone.json\"\n[expect]\naccepted = true\n",
                "gone.json",
            ),
            (
                "meaning = \"m\"\n[template]\nrecorded = \"gone.json\"\nheight = 3\n[expect]\naccepted = true\n",
                "unknown field `height`",
            ),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(words), "{words:?} is not in {error}");
        }
    }
}
