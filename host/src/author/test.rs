//! Judging case files with a policy's component: `reservegrid policy test`.
//!
//! Each case goes through the real engine. What a case expects and what was found are shown beside each
//! other where they differ; codes of the policy that no case reached are named at the end.

use super::{
    InputFault, bad,
    build::build,
    case::{Case, Expect},
    engine::{Engine, judge, list},
    good,
};
use crate::policy::{PolicySet, Verdict};
use anyhow::Result;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    io::Write,
    path::{Path, PathBuf},
};

/// How many cases did what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// As expected.
    pub passed: usize,
    /// Otherwise.
    pub failed: usize,
    /// Codes of the policies that no case reached.
    pub unreached: usize,
}

/// Cases that one module judges.
struct Group {
    /// What is built where no module is given.
    crate_dir: Option<PathBuf>,
    files: Vec<PathBuf>,
}

/// Judges cases and tells about each. `targets` are folders (a policy's crate with its `cases/`, or a
/// folder of cases) and case files. `module` is what judges them; where it is not given, the crate that
/// the cases lie in is built.
///
/// # Errors
/// [`InputFault`] where a case or a module cannot be used, and what building has to say; nothing is
/// judged then. A failed case is no error.
pub fn test(targets: &[PathBuf], module: Option<&Path>, out: &mut dyn Write) -> Result<Outcome> {
    let groups = targets.iter().map(|target| group(target, module)).collect::<Result<Vec<_>, _>>()?;
    let mut by_crate: BTreeMap<Option<PathBuf>, BTreeSet<PathBuf>> = BTreeMap::new();
    for group in groups {
        by_crate.entry(group.crate_dir).or_default().extend(group.files);
    }
    let engine = Engine::start()?;
    let mut outcome = Outcome::default();
    for (crate_dir, files) in by_crate {
        let module = match (module, crate_dir) {
            (Some(module), _) => module.to_owned(),
            (None, Some(crate_dir)) => build(&crate_dir, None)?,
            (None, None) => continue, // `group` has refused that
        };
        let (cases, faults): (Vec<_>, Vec<_>) =
            files.iter().map(|file| Case::read(file)).partition(Result::is_ok);
        let faults: Vec<_> = faults.into_iter().filter_map(Result::err).map(|fault| fault.0).collect();
        if !faults.is_empty() {
            return Err(InputFault(faults.join("\n")).into());
        }
        let cases: Vec<_> = cases.into_iter().filter_map(Result::ok).collect();
        let part = judge_cases(&engine, &module, &cases, out)?;
        outcome.passed += part.passed;
        outcome.failed += part.failed;
        outcome.unreached += part.unreached;
    }
    Ok(outcome)
}

/// What a target of the command line stands for.
fn group(target: &Path, module: Option<&Path>) -> Result<Group, InputFault> {
    let is_crate = |dir: &Path| dir.join("Cargo.toml").is_file();
    let (crate_dir, files) = if target.is_dir() {
        let cases = target.join("cases");
        let folder = if cases.is_dir() { cases } else { target.to_owned() };
        let crate_dir = [Some(target), target.parent()].into_iter().flatten().find(|dir| is_crate(dir));
        (crate_dir.map(Path::to_owned), case_files(&folder)?)
    } else {
        let absolute =
            fs::canonicalize(target).map_err(|error| InputFault(format!("{}: {error}", target.display())))?;
        let crate_dir = absolute.ancestors().skip(1).take(2).find(|dir| is_crate(dir));
        (crate_dir.map(Path::to_owned), vec![target.to_owned()])
    };
    if module.is_none() && crate_dir.is_none() {
        let problem = "lies in no policy's crate; say what judges with --module FILE";
        return Err(InputFault(format!("{}: {problem}", target.display())));
    }
    let crate_dir = crate_dir.map(|dir| dir.canonicalize().unwrap_or(dir)).filter(|_| module.is_none());
    Ok(Group { crate_dir, files })
}

fn case_files(folder: &Path) -> Result<Vec<PathBuf>, InputFault> {
    let entries =
        fs::read_dir(folder).map_err(|error| InputFault(format!("{}: {error}", folder.display())))?;
    let paths = entries.flatten().map(|entry| entry.path());
    let files: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|end| end == "toml") && !path.ends_with("Cargo.toml"))
        .collect();
    if files.is_empty() {
        return Err(InputFault(format!("{} holds no case (*.toml)", folder.display())));
    }
    Ok(files)
}

fn judge_cases(engine: &Engine, module: &Path, cases: &[Case], out: &mut dyn Write) -> Result<Outcome> {
    let info = engine.describe(module).map_err(|fault| InputFault(list(&[fault])))?;
    writeln!(out, "{} {} ({})", info.name, info.version, module.display())?;
    let width = cases.iter().map(|case| case_name(case).chars().count()).max().unwrap_or(0);
    let mut sets: HashMap<String, Result<PolicySet, InputFault>> = HashMap::new();
    let (mut outcome, mut reached) = (Outcome::default(), BTreeSet::new());
    for case in cases {
        let set = sets
            .entry(case.settings.to_string())
            .or_insert_with(|| engine.load_one(module, case.settings.clone()).map(|(set, _)| set));
        let differences = match set {
            Err(fault) => {
                let faults = fault.0.lines().map(|line| format!("  {line}"));
                std::iter::once("the policy does not take the settings:".to_owned()).chain(faults).collect()
            }
            Ok(set) => {
                let verdict = judge(set, &case.template, &case.context).verdict;
                reached.extend(verdict.reason_code.as_ref().map(ToString::to_string));
                differences(&case.expect, &verdict)
            }
        };
        let word = if differences.is_empty() { good("ok  ") } else { bad("FAIL") };
        writeln!(out, "  {word}  {:width$}  {}", case_name(case), case.meaning)?;
        for line in &differences {
            writeln!(out, "        {line}")?;
        }
        *(if differences.is_empty() { &mut outcome.passed } else { &mut outcome.failed }) += 1;
    }
    let unreached: Vec<_> =
        info.codes.iter().map(|code| code.code.as_str()).filter(|code| !reached.contains(*code)).collect();
    outcome.unreached = unreached.len();
    writeln!(out, "  {} cases, {} passed, {} failed", cases.len(), outcome.passed, outcome.failed)?;
    if !unreached.is_empty() {
        writeln!(out, "  warning: no case reaches {}", unreached.join(", "))?;
    }
    Ok(outcome)
}

fn case_name(case: &Case) -> String {
    case.file.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// What was expected and what was found instead, a line each.
fn differences(expect: &Expect, verdict: &Verdict) -> Vec<String> {
    let context = |verdict: &Verdict| json!(verdict.policy_context);
    let text = |text: &Option<String>| text.as_ref().map_or(Value::Null, |text| json!(text));
    let mut rows = vec![
        ("accepted", json!(expect.accepted), json!(verdict.accepted)),
        ("reason_code", text(&expect.reason_code), json!(verdict.reason_code)),
    ];
    // What a case leaves open is shown only where something else differs.
    let mut open = Vec::new();
    match &expect.reason_detail {
        Some(detail) => rows.push(("reason_detail", json!(detail), json!(verdict.reason_detail))),
        None => open.push(("reason_detail", json!(verdict.reason_detail))),
    }
    match &expect.policy_context {
        Some(expected) => rows.push(("policy_context", json!(expected), context(verdict))),
        None => open.push(("policy_context", context(verdict))),
    }
    let mut lines = Vec::new();
    for (key, expected, found) in rows.into_iter().filter(|(_, expected, found)| expected != found) {
        lines.push(format!("- {key} = {expected}"));
        lines.push(format!("+ {key} = {found}"));
    }
    if !lines.is_empty() {
        let told = open.into_iter().filter(|(_, found)| !found.is_null() && *found != json!({}));
        lines.extend(told.map(|(key, found)| format!("  {key} = {found}")));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reason::Reason;

    fn expect(toml: &str) -> Expect {
        toml::from_str(toml).unwrap()
    }

    #[test]
    fn only_what_differs_is_shown_expected_before_found() {
        let found = Verdict::fault(Reason::PolicyTrapped, "it stopped");
        let expected = expect("accepted = false\nreason_code = \"other_code\"");
        assert_eq!(
            differences(&expected, &found),
            [
                "- reason_code = \"other_code\"",
                "+ reason_code = \"policy_trapped\"",
                "  reason_detail = \"it stopped\""
            ]
        );
        let accepting = differences(&expect("accepted = true"), &found);
        assert_eq!(accepting[..2], ["- accepted = true", "+ accepted = false"]);
    }

    #[test]
    fn what_a_case_leaves_open_may_be_anything() {
        let found = Verdict::fault(Reason::PolicyTrapped, "it stopped");
        assert!(
            differences(&expect("accepted = false\nreason_code = \"policy_trapped\""), &found).is_empty()
        );
        let detail = "accepted = false\nreason_code = \"policy_trapped\"\nreason_detail = \"other\"";
        assert_eq!(differences(&expect(detail), &found).len(), 2);
        let context = "accepted = false\nreason_code = \"policy_trapped\"\npolicy_context = { a = 1 }";
        assert_eq!(
            differences(&expect(context), &found)[..2],
            ["- policy_context = {\"a\":1}", "+ policy_context = {}"]
        );
    }
}
