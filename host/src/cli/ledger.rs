//! `reservegrid ledger ...`: the arguments, and what becomes of the results.

use super::{policy::Format, progress::Progress};
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use reservegrid::{
    author::InputFault,
    ledger::{
        chain::Keys,
        corrupt::{Checked, Corruption},
        export,
        read::{Ledger, Watch},
        repair::{Findings, Repair},
        stats::{By, stats},
        verify::verify,
    },
};
use std::{fs::File, io, path::PathBuf, process::ExitCode};

/// The variable that holds a ledger's keys, as it does for the gateway.
const KEY: &str = "RESERVEGRID_LEDGER__KEY";

#[derive(Subcommand)]
pub(crate) enum LedgerCommand {
    /// Check the chain, the joins and the duplicates, and name the first fault
    ///
    /// Exit code 0 when everything is as it was written, 1 when not, 64 when there is no ledger or no key.
    Verify {
        #[command(flatten)]
        place: Place,
        /// Fail as well when a share has no result yet
        #[arg(long)]
        complete: bool,
        /// How to print
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
    /// Give a ledger a new head where the old one is lost, or where records before it are
    ///
    /// Checks everything that is there, says what is lost and what cannot be proved any more, and writes nothing
    /// without --write. Records are never changed: where the chain is broken it names the place and ends.
    /// No gateway may be at work in the folder. Exit code 0 when there is nothing to repair or it was
    /// repaired, 1 when a repair is needed or not possible, 64 when there is no ledger or no key.
    Repair {
        #[command(flatten)]
        place: Place,
        /// Write the new head; the old one, and what was found, are kept beside it
        #[arg(long)]
        write: bool,
        /// How to print
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
    /// Write every record for other programs
    Export {
        #[command(flatten)]
        place: Place,
        /// The form
        #[arg(long, value_enum, default_value_t = ExportFormat::Ndjson)]
        format: ExportFormat,
        /// Where it goes [default: standard output]
        #[arg(long, short, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Sum up what was accepted and paid
    Stats {
        #[command(flatten)]
        place: Place,
        /// What the rows are about
        #[arg(long, value_enum, value_delimiter = ',', default_value = "user")]
        by: Vec<Dimension>,
        /// How to print
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
}

/// Which ledger.
#[derive(Args)]
pub(crate) struct Place {
    /// The ledger's folder
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// The file of its keys [default: the variable RESERVEGRID_LEDGER__KEY, or chain.key in the folder]
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum ExportFormat {
    Ndjson,
    Csv,
    Parquet,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Dimension {
    User,
    Channel,
    Hour,
}

impl Place {
    fn open(&self, watch: Watch) -> Result<Checked<Ledger>> {
        Ok(Ledger::open(&self.folder, self.keys()?).map(|ledger| ledger.watched(Some(watch))))
    }

    fn keys(&self) -> Result<Keys> {
        let folder = &self.folder;
        if !folder.is_dir() {
            return Err(InputFault(format!("{}: there is no such folder", folder.display())).into());
        }
        let keys = match (&self.key_file, std::env::var(KEY)) {
            (Some(file), _) => Keys::read(file).map_err(|error| error.to_string()),
            (None, Ok(text)) => Keys::parse(&text).map_err(|error| format!("{KEY}: {error}")),
            (None, Err(_)) => Keys::of_folder(folder, false)
                .map_err(|error| format!("{error}; give the ledger's keys with --key-file or in {KEY}")),
        };
        Ok(keys.map_err(InputFault)?)
    }
}

impl LedgerCommand {
    /// Runs the command. The error is for what cannot be used or failed; the code for the result.
    pub(crate) fn execute(self) -> Result<ExitCode> {
        let progress = Progress::new();
        match self {
            Self::Verify { place, complete, format } => {
                let checked = place.open(progress.watch())?.and_then(|ledger| verify(&ledger));
                progress.end();
                let report = match checked {
                    Ok(report) => report,
                    Err(corruption) => return refused(&corruption, format),
                };
                super::policy::print(&report, format)?;
                let enough = !complete || report.open == 0;
                Ok(if enough { ExitCode::SUCCESS } else { ExitCode::FAILURE })
            }
            Self::Repair { place, write, format } => {
                let looked = Repair::look(&place.folder, place.keys()?, Some(progress.watch()));
                progress.end();
                match looked {
                    Ok(repair) => mend(&repair, write, format),
                    Err(corruption) => refused(&corruption, format),
                }
            }
            Self::Export { place, format, out } => {
                let ledger = place.open(progress.watch())??;
                match out {
                    Some(path) => {
                        let file = File::create(&path).with_context(|| path.display().to_string())?;
                        write(&ledger, format, file)?;
                    }
                    None => write(&ledger, format, io::stdout())?,
                }
                Ok(ExitCode::SUCCESS)
            }
            Self::Stats { place, by, format } => {
                let has = |dimension| by.contains(&dimension);
                let by = By {
                    user: has(Dimension::User),
                    channel: has(Dimension::Channel),
                    hour: has(Dimension::Hour),
                };
                let sums = stats(&place.open(progress.watch())??, by)?;
                progress.end();
                super::policy::print(&sums, format)?;
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

/// Says what was found, and repairs it when that is wanted.
fn mend(repair: &Repair, write: bool, format: Format) -> Result<ExitCode> {
    super::policy::print(&repair.findings, format)?;
    let Findings { fault, besides, .. } = &repair.findings;
    if fault.is_none() {
        return Ok(if besides.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    if !write {
        eprintln!("nothing was written; run it again with --write to go on with what is there");
        return Ok(ExitCode::FAILURE);
    }
    for file in repair.write()? {
        eprintln!("written: {}", file.display());
    }
    Ok(ExitCode::SUCCESS)
}

fn refused(corruption: &Corruption, format: Format) -> Result<ExitCode> {
    match format {
        Format::Text => super::say(format_args!("FAULT {}: {corruption}", corruption.problem.code()))?,
        Format::Json => super::say(fault(corruption))?,
    }
    Ok(ExitCode::FAILURE)
}

fn write(ledger: &Ledger, format: ExportFormat, out: impl io::Write + Send) -> Result<()> {
    let written = match format {
        ExportFormat::Ndjson => export::ndjson(ledger, out),
        ExportFormat::Csv => export::csv(ledger, out),
        ExportFormat::Parquet => export::parquet(ledger, out),
    };
    match written {
        // Whoever read it has enough.
        Err(export::ExportError::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => bail!(error),
        Ok(()) => Ok(()),
    }
}

fn fault(corruption: &Corruption) -> serde_json::Value {
    serde_json::json!({
        "fault": corruption.problem.code(),
        "file": corruption.file,
        "record": corruption.at.map(|at| at.record),
        "byte": corruption.at.map(|at| at.offset),
        "share_id": corruption.share_id,
        "detail": corruption.problem.to_string(),
    })
}
