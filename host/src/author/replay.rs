//! Recorded verdicts, computed again: `reservegrid policy replay`.
//!
//! The same modules, settings and templates give the same verdicts and the same fuel on every machine;
//! this shows it, or says precisely where it is not so. What a recording says about the machine that
//! made it (a missed deadline) cannot be compared and is listed.

use super::{
    InputFault, Steps, bad,
    engine::{Engine, judge, list},
    good,
};
use crate::{
    config::{Config, Environment},
    policy::{PolicyEngine, PolicySet, PolicySpec},
    record::{RecordedPolicy, Recording, Recordings, file},
    template::facts::assemble,
};
use anyhow::Result;
use serde_json::Value;
use std::{
    collections::{HashMap, hash_map::Entry},
    fmt::Display,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

/// How many recordings were what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Computed again, bit for bit the same.
    pub same: usize,
    /// Not the same.
    pub different: usize,
    /// Not to be compared.
    pub skipped: usize,
    /// Not computed again: the recording or its modules cannot be read.
    pub unusable: usize,
}

/// Computes recordings again and tells about each. `targets` are files and folders of them. The set is
/// that of `config`, or else the modules that each recording names.
///
/// # Errors
/// [`InputFault`] where the targets or the configuration cannot be used, and, when everything else has
/// been computed and told, where some recordings or their modules could not. A difference is no error.
pub fn replay(
    targets: &[PathBuf],
    config: Option<&Path>,
    out: &mut dyn Write,
    steps: Steps<'_>,
) -> Result<Outcome> {
    let given = config.map(configured).transpose()?;
    let mut recorded_sets = RecordedSets::default();
    let (mut outcome, mut faults) = (Outcome::default(), Vec::new());
    let files = recordings(targets)?;
    let all = files.len() as u64;
    for (done, file) in (0..).zip(files) {
        steps(done, all);
        let mut recordings = match Recordings::open(&file) {
            Ok(recordings) => recordings,
            Err(error) => {
                writeln!(out, "{}   {}", bad("unusable"), file.display())?;
                faults.push(error.to_string());
                outcome.unusable += 1;
                continue;
            }
        };
        while let Some(recording) = recordings.next() {
            let shown = recordings.place();
            let computed = recording.map_err(|error| error.to_string()).and_then(|recording| {
                again(&recording, given.as_ref(), &mut recorded_sets)
                    .map_err(|problem| format!("{shown}: {problem}"))
            });
            match computed {
                Ok(Again::Same) => {
                    writeln!(out, "{}       {shown}", good("same"))?;
                    outcome.same += 1;
                }
                Ok(Again::Different(differences)) => {
                    writeln!(out, "{}  {shown}", bad("DIFFERENT"))?;
                    for line in differences {
                        writeln!(out, "           {line}")?;
                    }
                    outcome.different += 1;
                }
                Ok(Again::NotComparable(code)) => {
                    writeln!(
                        out,
                        "skipped    {shown}: {code} was about the machine, not about the template"
                    )?;
                    outcome.skipped += 1;
                }
                Err(fault) => {
                    writeln!(out, "{}   {shown}", bad("unusable"))?;
                    faults.push(fault);
                    outcome.unusable += 1;
                }
            }
        }
    }
    let Outcome { same, different, skipped, unusable } = outcome;
    writeln!(out, "{same} the same, {different} different, {skipped} skipped, {unusable} unusable")?;
    if faults.is_empty() { Ok(outcome) } else { Err(InputFault(faults.join("\n")).into()) }
}

/// What came of computing a recording again.
enum Again {
    Same,
    Different(Vec<String>),
    NotComparable(String),
}

fn again(
    recording: &Recording,
    given: Option<&PolicySet>,
    recorded_sets: &mut RecordedSets,
) -> Result<Again, String> {
    if recording.infrastructure_fault {
        let code = recording.verdict["reason_code"].as_str().unwrap_or("a fault");
        return Ok(Again::NotComparable(code.to_owned()));
    }
    let set = match given {
        Some(set) => set,
        None => recorded_sets.of(recording).map_err(|problem| {
            format!(
                "the set that judged it cannot be loaded again; bring its modules back, or name another set with \
                 --config:\n{problem}"
            )
        })?,
    };
    let differences = compare(recording, set);
    Ok(if differences.is_empty() { Again::Same } else { Again::Different(differences) })
}

/// The files that are meant; of a folder those with recordings.
fn recordings(targets: &[PathBuf]) -> Result<Vec<PathBuf>, InputFault> {
    let mut files = Vec::new();
    for target in targets {
        if !target.is_dir() {
            files.push(target.clone());
            continue;
        }
        let unreadable =
            |error: io::Error| InputFault(format!("{} cannot be read: {error}", target.display()));
        let entries = fs::read_dir(target).map_err(unreadable)?;
        let paths = entries.flatten().map(|entry| entry.path());
        let mut found: Vec<_> =
            paths.filter(|path| path.extension().is_some_and(|end| end == "json")).collect();
        found.sort_unstable();
        found.extend(file::files(target).map_err(unreadable)?);
        if found.is_empty() {
            let problem = format!("{} holds no recordings (*.ndjson.gz, *.json)", target.display());
            return Err(InputFault(problem));
        }
        files.extend(found);
    }
    Ok(files)
}

/// The set of a configuration. Only its policies are needed: it is read as one that serves no miners,
/// so that no secret has to be given.
fn configured(file: &Path) -> Result<PolicySet> {
    let mut variables: Environment = Environment::new();
    variables.insert("RESERVEGRID_MODE".into(), "shadow".into());
    let config = Config::load_with(file, &variables)?;
    let specs: Vec<_> = config.policies.iter().map(PolicySpec::from).collect();
    let set = Engine::with_memory(usize::try_from(config.engine.memory.0)?)?.load(&specs);
    set.map_err(|faults| InputFault(format!("{}: {}", file.display(), list(&faults))).into())
}

/// The sets that recordings name, each loaded once. An engine has one memory limit.
#[derive(Default)]
struct RecordedSets {
    engines: HashMap<usize, Engine>,
    sets: HashMap<(usize, String), PolicySet>,
}

impl RecordedSets {
    /// The set that a recording names, or why it cannot be had.
    fn of(&mut self, recording: &Recording) -> Result<&PolicySet, String> {
        let memory = recording.memory_limit;
        let unknown = match self.sets.entry((memory, recording.policy_set.clone())) {
            Entry::Occupied(known) => return Ok(known.into_mut()),
            Entry::Vacant(unknown) => unknown,
        };
        let engine = match self.engines.entry(memory) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => unknown.insert(Engine::with_memory(memory).map_err(|fault| fault.0)?),
        };
        let specs: Result<Vec<_>, String> = recording.policies.iter().map(spec).collect();
        Ok(unknown.insert(engine.load(&specs?).map_err(|faults| list(&faults))?))
    }
}

fn spec(policy: &RecordedPolicy) -> Result<PolicySpec, String> {
    let mut sha256 = [0; 32];
    hex::decode_to_slice(&policy.sha256, &mut sha256)
        .map_err(|error| format!("the sha256 of {:?} is none: {error}", policy.name))?;
    Ok(PolicySpec {
        name: policy.name.clone(),
        module: policy.module.clone(),
        sha256: Some(sha256),
        settings: policy.settings.clone(),
        fuel: policy.fuel_limit,
        enforcement: policy.enforcement,
    })
}

/// Every difference, a line each.
fn compare(recording: &Recording, set: &PolicySet) -> Vec<String> {
    let mut lines = Vec::new();
    let mut differ = |what: &str, recorded: &dyn Display, now: &dyn Display| {
        let (recorded, now) = (recorded.to_string(), now.to_string());
        if recorded != now {
            lines.push(format!("{what}: recorded {recorded}, now {now}"));
        }
    };
    let template = match assemble(&recording.template.declared) {
        Ok(template) => Arc::new(template),
        Err(error) => return vec![format!("template: recorded {}, now none: {error}", recording.digest)],
    };
    let judgement = judge(set, &template, &recording.template.context);
    let now = Recording::new(
        recording.template.declared.clone(),
        recording.template.context.clone(),
        set,
        &judgement,
    );
    differ("template", &recording.digest, &now.digest);
    differ("memory limit", &recording.memory_limit, &now.memory_limit);
    differ("policy set", &recording.policy_set, &now.policy_set);
    differ("verdict", &recording.verdict, &now.verdict);
    let word = |text: &Option<String>| text.clone().unwrap_or_else(|| "none".into());
    differ("decided by", &word(&recording.decided_by), &word(&now.decided_by));
    for policy in &recording.policies {
        let Some(again) = now.policies.iter().find(|other| other.name == policy.name) else {
            differ(&format!("policy {}", policy.name), &"there", &"not in the set");
            continue;
        };
        let said =
            |verdict: &Option<Value>| verdict.as_ref().map_or_else(|| "none".into(), ToString::to_string);
        let fuel = |fuel: Option<u64>| fuel.map_or_else(|| "none".into(), |fuel| fuel.to_string());
        let name = |what: &str| format!("policy {}: {what}", policy.name);
        differ(&name("module"), &policy.sha256, &again.sha256);
        differ(&name("settings"), &policy.settings, &again.settings);
        differ(&name("fuel limit"), &policy.fuel_limit, &again.fuel_limit);
        differ(&name("enforcement"), &policy.enforcement.as_str(), &again.enforcement.as_str());
        // What was about a machine, that one or this one, is no difference between the two.
        if policy.verdict.is_some() && !policy.infrastructure_fault && !again.infrastructure_fault {
            differ(&name("verdict"), &said(&policy.verdict), &said(&again.verdict));
            differ(&name("fuel"), &fuel(policy.fuel), &fuel(again.fuel));
        }
    }
    if !lines.is_empty() && recording.engine != PolicyEngine::version() {
        lines.push(format!(
            "(recorded with {}, this is {}: fuel may differ)",
            recording.engine,
            PolicyEngine::version()
        ));
    }
    lines
}
