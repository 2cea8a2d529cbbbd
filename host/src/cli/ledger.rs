//! `reservegrid ledger ...`: the arguments, and what becomes of the results.

use super::policy::Format;
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use reservegrid::{
    author::InputFault,
    ledger::{
        chain::Keys,
        corrupt::Corruption,
        export,
        read::Ledger,
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
    fn open(&self) -> Result<std::result::Result<Ledger, Box<Corruption>>> {
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
        Ok(Ledger::open(folder, keys.map_err(InputFault)?))
    }
}

impl LedgerCommand {
    /// Runs the command. The error is for what cannot be used or failed; the code for the result.
    pub(crate) fn execute(self) -> Result<ExitCode> {
        match self {
            Self::Verify { place, complete, format } => {
                let report = match place.open()?.and_then(|ledger| verify(&ledger)) {
                    Ok(report) => report,
                    Err(corruption) => {
                        match format {
                            Format::Text => println!("FAULT {}: {corruption}", corruption.problem.code()),
                            Format::Json => println!("{}", fault(&corruption)),
                        }
                        return Ok(ExitCode::FAILURE);
                    }
                };
                super::policy::print(&report, format)?;
                let enough = !complete || report.open == 0;
                Ok(if enough { ExitCode::SUCCESS } else { ExitCode::FAILURE })
            }
            Self::Export { place, format, out } => {
                let ledger = place.open()??;
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
                super::policy::print(&stats(&place.open()??, by)?, format)?;
                Ok(ExitCode::SUCCESS)
            }
        }
    }
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
