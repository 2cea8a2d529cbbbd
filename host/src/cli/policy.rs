//! `reservegrid policy ...`: the arguments, and what becomes of the results.

use super::{say, steps};
use anyhow::Result;
use clap::{Subcommand, ValueEnum, value_parser};
use reservegrid::{
    api::client::{self as remote, RemoteCommand},
    author::{bench, build, inspect, new, replay, run, test},
};
use serde::Serialize;
use std::{
    fmt::Display,
    io::{self, IsTerminal},
    path::PathBuf,
    process::ExitCode,
};

/// Exit code for a verdict that speaks of the machine and not of the template (EX_UNAVAILABLE).
const EXIT_UNAVAILABLE: u8 = 69;

#[derive(Subcommand)]
pub(crate) enum PolicyCommand {
    /// Make a project with a small policy that works
    ///
    /// The project is a Rust crate with settings, a unit test, an accepting and a rejecting case, and a
    /// README with the next commands. It brings the SDK along and builds wherever cargo reaches its registry.
    New {
        /// Name of the policy: lower case letters, digits and dashes
        #[arg(value_name = "NAME")]
        name: String,
        /// The project's folder [default: NAME]
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
        /// Use the SDK crate in this folder instead of bringing one along
        #[arg(long, value_name = "DIR")]
        sdk: Option<PathBuf>,
    },
    /// Build a policy crate into a WebAssembly component
    Build {
        /// Folder of the policy's crate
        #[arg(value_name = "DIR")]
        crate_dir: PathBuf,
        /// Where the component goes [default: policies/NAME.wasm in the target folder]
        #[arg(long, short, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Show what a component is and says about itself, or why it cannot be loaded
    ///
    /// Exit code 0 when a gateway would load it, 1 when not.
    Inspect {
        /// The component
        #[arg(value_name = "FILE")]
        module: PathBuf,
        /// How to print
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
    /// Judge case files, and compare with the verdicts they expect
    ///
    /// Exit code 0 when every case gives what it expects, 1 when not, 64 when a case or a module cannot be
    /// used.
    Test {
        /// Folders of policy crates (with their cases/) or of cases, and single case files
        #[arg(value_name = "DIR|FILE", default_value = ".")]
        targets: Vec<PathBuf>,
        /// The component that judges; without it the crate around the cases is built
        #[arg(long, value_name = "FILE")]
        module: Option<PathBuf>,
        /// Fail as well when the policy has a code that no case reaches
        #[arg(long)]
        strict: bool,
    },
    /// Measure fuel, time and memory of a policy
    Bench {
        /// The component
        #[arg(value_name = "FILE")]
        module: PathBuf,
        /// The policy's settings, JSON or TOML [default: none]
        #[arg(long, value_name = "FILE")]
        settings: Option<PathBuf>,
        /// Transactions of the template
        #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = value_parser!(u32).range(..=50_000))]
        transactions: u32,
        /// Evaluations
        #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = value_parser!(u32).range(1..=1_000_000))]
        runs: u32,
        /// How to print
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
    /// Judge a recorded template and print the verdict as JSON
    ///
    /// Exit code 0 when it is accepted, 1 when it is rejected, 64 when something given cannot be used, 69
    /// when this machine could not give a verdict.
    Run {
        /// The component
        #[arg(value_name = "FILE")]
        module: PathBuf,
        /// The record of a template, or a recording of a gateway (FILE#N in a file of several)
        #[arg(long, value_name = "FILE")]
        template: PathBuf,
        /// The policy's settings, JSON or TOML [default: none]
        #[arg(long, value_name = "FILE")]
        settings: Option<PathBuf>,
    },
    /// Compute recorded verdicts again, and say whether they are bit for bit the same
    ///
    /// Exit code 0 when they are, 1 when one is not, 64 when a recording or a set cannot be used.
    Replay {
        /// Files of recordings, and folders of them
        #[arg(value_name = "RECORDING", required = true)]
        recordings: Vec<PathBuf>,
        /// Judge with the policies of this configuration instead of those that the recordings name
        #[arg(long, short, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    #[command(flatten)]
    Remote(RemoteCommand),
}

/// How a result is printed.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Text,
    /// For programs
    Json,
}

impl PolicyCommand {
    /// Runs the command. The error is for what cannot be used or failed; the code for the result.
    pub(crate) fn execute(self) -> Result<ExitCode> {
        let as_expected = match self {
            Self::New { name, dir, sdk } => {
                let project = new::new(&name, dir.as_deref(), sdk.as_deref())?;
                say(format_args!("{}: see README.md there for the next commands", project.display()))?;
                true
            }
            Self::Build { crate_dir, out } => {
                say(build::build(&crate_dir, out.as_deref())?.display())?;
                true
            }
            Self::Inspect { module, format } => {
                let inspected = inspect::inspect(&module)?;
                print(&inspected, format)?;
                inspected.fault.is_none()
            }
            Self::Test { targets, module, strict } => {
                let outcome = test::test(&targets, module.as_deref(), &mut anstream::stdout().lock())?;
                outcome.failed == 0 && !(strict && outcome.unreached > 0)
            }
            Self::Bench { module, settings, transactions, runs, format } => {
                let watch = steps::shown();
                print(&bench::bench(&module, settings.as_deref(), transactions, runs, &watch)?, format)?;
                true
            }
            Self::Run { module, template, settings } => {
                let judgement = run::run(&module, &template, settings.as_deref())?;
                say(serde_json::to_string(&judgement.verdict)?)?;
                if judgement.infrastructure_fault {
                    return Ok(ExitCode::from(EXIT_UNAVAILABLE));
                }
                judgement.verdict.accepted
            }
            Self::Remote(command) => {
                say(crate::runtime()?.block_on(remote::run(command))?)?;
                true
            }
            Self::Replay { recordings, config } => {
                // In a terminal its lines are the progress; a bar is for those that go somewhere else.
                let watch = steps::shown_if(!io::stdout().is_terminal());
                let mut out = anstream::stdout().lock();
                replay::replay(&recordings, config.as_deref(), &mut out, &watch)?.different == 0
            }
        };
        Ok(if as_expected { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// Prints a result for people or for programs.
pub(super) fn print<T: Serialize + Display>(value: &T, format: Format) -> Result<()> {
    match format {
        Format::Text => say(value.to_string().trim_end())?,
        Format::Json => say(serde_json::to_string_pretty(value)?)?,
    }
    Ok(())
}
