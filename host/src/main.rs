//! The `reservegrid` command.
//!
//! Exit codes: 0 done; 1 something failed while running, or a policy did not do what was expected; 2
//! wrong command line; 64 wrong configuration, or another wrong input (every fault is listed); 69 no
//! verdict could be given at the moment.
//!
//! `cli` has the larger commands.

#![forbid(unsafe_code)]

mod cli;

use anyhow::{Context, Result};
use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use cli::{ledger::LedgerCommand, policy::PolicyCommand, record::RecordCommand};
use reservegrid::{
    api::client as remote,
    author::InputFault,
    client::{self, MinerConfig, MinerEvent},
    config::{self, Config, ConfigFaults},
    demo,
    event::schema::Trigger,
    gateway::{Gateway, StartError},
    logs::Logs,
    noise::{AuthorityPublicKey, AuthoritySecretKey},
    reason::Reason,
};
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
};

/// Exit code for a configuration, or another input, that cannot be used (EX_USAGE of sysexits).
const EXIT_CONFIG: u8 = 64;

/// For threads that are still at work when everything else has ended.
const FAREWELL: Duration = Duration::from_secs(1);

/// What every user of the command has to know besides.
const AFTER_HELP: &str = "\
Exit codes:
   0  done
   1  something failed while running, or a policy did not do what was expected
   2  wrong command line
  64  wrong configuration, or another wrong input; every fault is listed with its place
  69  no verdict could be given at the moment

Environment:
  RESERVEGRID_SECTION__KEY  goes before the key of the configuration file (see `config keys`)
  RESERVEGRID_LOG           what is logged, by part: warn,reservegrid::miner=debug
  RESERVEGRID_LOG_FORMAT    text or json";

#[derive(Parser)]
#[command(version, about, arg_required_else_help = true, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the gateway
    Run {
        /// The configuration file
        #[arg(long, short, value_name = "FILE")]
        config: PathBuf,
    },
    /// Run gateway, embedded chain, pool backend and two miners in one process
    Demo {
        /// The demo's configuration file
        #[arg(long, short, value_name = "FILE", default_value = "examples/demo.toml")]
        config: PathBuf,
    },
    /// Mine on a CPU, to try a gateway
    Miner(MinerArgs),
    /// Check, explain and show configurations
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Make keys
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Write, build, test and measure policies, and check their verdicts
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Look into recordings of judged templates
    #[command(subcommand)]
    Record(RecordCommand),
    /// Check, export and sum up a share ledger, also while the gateway runs
    #[command(subcommand)]
    Ledger(LedgerCommand),
    /// Show or change the mode of a running gateway: observe or inline
    Mode(remote::ModeCommand),
    /// Print every reason code of the gateway
    Reasons {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Print a script that completes commands in a shell
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
}

#[derive(clap::Args)]
struct MinerArgs {
    /// Address of the gateway
    #[arg(long, value_name = "HOST:PORT")]
    connect: String,
    /// The gateway's authority key; without it the connection leads to whoever answers
    #[arg(long, value_name = "KEY")]
    authority_key: Option<AuthorityPublicKey>,
    /// Kind of channel
    #[arg(long, value_enum, default_value_t = ChannelKind::Standard)]
    channel: ChannelKind,
    /// Hashes a second to stay below
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    hashrate: u64,
    /// Who mines
    #[arg(long, value_name = "NAME", default_value = "cpu.miner")]
    user: String,
    /// End when the connection ends, instead of connecting again
    #[arg(long)]
    once: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum ChannelKind {
    Standard,
    Extended,
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Check a file and list every fault with its line
    Check {
        /// The configuration file
        #[arg(value_name = "FILE")]
        config: PathBuf,
    },
    /// Let a running gateway read its configuration again: policies, mode, and every key that can change
    Reload(remote::ReloadCommand),
    /// Print every key that has a default, as a configuration file
    Defaults,
    /// Print every key with its type, default, meaning and variable
    Keys {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Print what is in force with a file and the variables, and where each value came from; secrets are not shown
    Show {
        /// The configuration file
        #[arg(value_name = "FILE")]
        config: PathBuf,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Subcommand)]
enum KeysCommand {
    /// Print a new authority key: the secret for the gateway, the public key for miners
    Generate,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match dispatch(cli.command) {
        Ok(code) => code,
        Err(error) => {
            let config_fault = error.is::<ConfigFaults>()
                || error.is::<InputFault>()
                || matches!(
                    error.downcast_ref(),
                    Some(StartError::Policies { .. } | StartError::Key(_) | StartError::Source(_))
                );
            eprintln!("reservegrid: {error:#}");
            if config_fault { ExitCode::from(EXIT_CONFIG) } else { ExitCode::FAILURE }
        }
    }
}

fn configuration(command: ConfigCommand) -> Result<String> {
    let mut text = String::new();
    match command {
        ConfigCommand::Check { config } => {
            Config::load(&config)?;
            text = format!("{}: no faults\n", config.display());
        }
        ConfigCommand::Reload(command) => text = runtime()?.block_on(remote::run_reload(command))? + "\n",
        ConfigCommand::Defaults => text = config::defaults(),
        ConfigCommand::Keys { json: true } => text = serde_json::to_string_pretty(&config::keys())? + "\n",
        ConfigCommand::Keys { json: false } => {
            for key in config::keys() {
                let variable = key.variable.as_deref().unwrap_or("no variable: policies are a list");
                let (name, meaning) = (key.name(), &key.meaning);
                text += &format!(
                    "{name}\n    {meaning}\n    {}, default: {}, reload: {}\n    {variable}\n",
                    key.kind, key.default, key.reload
                );
            }
        }
        ConfigCommand::Show { config, json } => {
            let values = config::in_force(&config, &config::environment())?;
            if json {
                return Ok(serde_json::to_string_pretty(&values)? + "\n");
            }
            for value in values {
                text += &format!("{:<36} {:<40} {}\n", value.key, value.value, value.from);
            }
        }
    }
    Ok(text)
}

fn dispatch(command: Command) -> Result<ExitCode> {
    if !matches!(command, Command::Run { .. }) {
        // A gateway has its configuration say what is logged.
        Logs::start(&config::Log::of_environment(&config::environment())?)?;
    }
    match command {
        Command::Run { config } => to_the_end(run(&config))?,
        Command::Demo { config } => to_the_end(async { demo::run(&config, stop_signal()?).await })?,
        Command::Miner(args) => runtime()?.block_on(mine(args))?,
        Command::Config(command) => print!("{}", configuration(command)?),
        Command::Keys(KeysCommand::Generate) => {
            let secret = AuthoritySecretKey::generate();
            println!("public key, for miners:                {}", secret.public());
            println!("secret key, for [miners] authority_secret_file: {}", secret.expose_text());
        }
        Command::Policy(command) => return command.execute(),
        Command::Record(command) => return command.execute(),
        Command::Ledger(command) => return command.execute(),
        Command::Mode(command) => println!("{}", runtime()?.block_on(remote::run_mode(command))?),
        Command::Reasons { json } => reasons(json)?,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "reservegrid", &mut script);
            print!("{}", String::from_utf8_lossy(&script));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs a gateway. What still computes when it has ended (a module being compiled) is not waited for.
fn to_the_end(work: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = runtime()?;
    let outcome = runtime.block_on(work);
    runtime.shutdown_timeout(FAREWELL);
    outcome
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the async runtime does not start")
}

/// Ready at the first SIGINT or SIGTERM; a second one ends the process at once. The handlers are in
/// place when this returns.
fn stop_signal() -> Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut next = async move || {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    let (stop, stopped) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        next().await;
        let _ = stop.send(());
        next().await;
        std::process::exit(1);
    });
    Ok(async move {
        let _ = stopped.await;
    })
}

async fn run(config: &Path) -> Result<()> {
    let stop = stop_signal()?;
    // In place before anything starts: from then on SIGHUP ends nothing.
    let mut hangup = signal(SignalKind::hangup())?;
    let config = Config::load(config)?;
    let logs = Logs::start(&config.log)?;
    let gateway = Gateway::start(config).await?;
    let swaps = gateway.swaps();
    swaps.tell(Box::new(move |_, new| {
        let (logs, levels) = (logs.clone(), new.log.levels.clone());
        Ok(Box::new(move || logs.set_levels(&levels)))
    }));
    let reloads = tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            // What came of it is an event; there is nobody here to tell.
            let _ = swaps.reload(Trigger::Signal, false).await;
        }
    });
    let broken = tokio::select! {
        () = stop => false,
        () = gateway.broken() => true,
    };
    reloads.abort();
    let _ = reloads.await;
    gateway.drain().await;
    anyhow::ensure!(!broken, "a part of the gateway ended by itself; what was open was drained");
    Ok(())
}

async fn mine(args: MinerArgs) -> Result<()> {
    let stop = stop_signal()?;
    let config = MinerConfig {
        connect: args.connect,
        authority_key: args.authority_key,
        user_identity: args.user,
        extended: matches!(args.channel, ChannelKind::Extended),
        hashrate: args.hashrate,
        reconnect: !args.once,
    };
    let (sender, mut events) = mpsc::channel(64);
    let (stop_miner, stopped) = watch::channel(false);
    let printer = tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            match event {
                MinerEvent::Opened { channel_id, difficulty } => {
                    println!("channel {channel_id} open, difficulty {difficulty:.6}");
                }
                MinerEvent::Job { job_id, new_tip } => {
                    println!("job {job_id}{}", if new_tip { " on a new tip" } else { "" });
                }
                MinerEvent::Accepted { count } => println!("accepted {count}"),
                MinerEvent::Rejected { code } => println!("rejected: {code}"),
                MinerEvent::Closed { reason } => println!("closed: {reason}"),
            }
        }
    });
    let mining = client::mine(config, sender, stopped);
    tokio::pin!(mining);
    let outcome = tokio::select! {
        outcome = &mut mining => outcome,
        () = stop => {
            let _ = stop_miner.send(true);
            mining.await
        }
    };
    let _ = printer.await;
    outcome
}

fn reasons(json: bool) -> Result<()> {
    if json {
        let all: Vec<_> = Reason::ALL
            .iter()
            .map(|r| {
                serde_json::json!({
                    "code": r.code(), "category": r.category(), "fault": r.fault(),
                    "severity": r.severity(), "sv2_code": r.sv2_code(), "meaning": r.meaning(),
                })
            })
            .collect();
        cli::say(serde_json::to_string_pretty(&all)?)?;
    } else {
        let line = |r: &Reason| format!("{:<10} {:<34} {}", r.category(), r.code(), r.meaning());
        cli::say(Reason::ALL.iter().map(line).collect::<Vec<_>>().join("\n"))?;
    }
    Ok(())
}
