//! `reservegrid record ...`: looking into the files of recordings that a gateway wrote (`[record] dir`).

use super::say;
use anyhow::{Result, bail};
use clap::Subcommand;
use reservegrid::{
    author::InputFault,
    record::{Recording, Recordings, file},
};
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

#[derive(Subcommand)]
pub(crate) enum RecordCommand {
    /// List recordings, a line each: place, time, height, transactions, verdict
    ///
    /// Exit code 0, or 64 when a file cannot be read to its end; what is whole is listed all the same.
    List {
        /// Files of recordings, and folders of them
        #[arg(value_name = "FILE|DIR", required = true)]
        targets: Vec<PathBuf>,
        /// Only those that were rejected
        #[arg(long)]
        rejected: bool,
    },
    /// Print one recording as JSON, for `policy run --template` and `policy replay`, or to be looked at
    Show {
        /// The recording: FILE#N, as `record list` names it
        #[arg(value_name = "FILE#N")]
        place: PathBuf,
    },
}

impl RecordCommand {
    pub(crate) fn execute(self) -> Result<ExitCode> {
        match self {
            Self::Show { place } => {
                let recording = Recording::read(&place).map_err(|error| InputFault(error.to_string()))?;
                say(serde_json::to_string_pretty(&recording)?)?;
            }
            Self::List { targets, rejected } => {
                let mut faults = Vec::new();
                for target in targets {
                    list(&target, rejected, &mut faults)?;
                }
                if !faults.is_empty() {
                    bail!(InputFault(faults.join("\n")));
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn list(target: &Path, rejected: bool, faults: &mut Vec<String>) -> Result<()> {
    let files = if target.is_dir() { file::files(target)? } else { vec![target.to_owned()] };
    for file in files {
        let mut recordings = match Recordings::open(&file) {
            Ok(recordings) => recordings,
            Err(error) => {
                faults.push(error.to_string());
                continue;
            }
        };
        while let Some(recording) = recordings.next() {
            match recording {
                Ok(recording) if rejected && recording.verdict["accepted"] == true => {}
                Ok(recording) => say(line(&recordings.place(), &recording))?,
                Err(error) => faults.push(error.to_string()),
            }
        }
    }
    Ok(())
}

fn line(place: &str, recording: &Recording) -> String {
    let declared = &recording.template.declared;
    let verdict = recording.verdict["reason_code"].as_str().unwrap_or("accepted");
    let time = chrono::DateTime::from_timestamp_millis(recording.time_ms.cast_signed()).unwrap_or_default();
    format!(
        "{place}  {}  height {}  {} transactions  {verdict}",
        time.format("%Y-%m-%dT%H:%M:%S%.3fZ"),
        declared.height,
        declared.transactions.len()
    )
}
