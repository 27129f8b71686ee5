//! `vorrang-load`: load tests of a fleet, and the provider simulator that judges them.

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand};
use vorrang_load::{
    amount::{Spread, Time},
    fleet::Fleet,
    log::Log,
    provider::{Provider, Settings},
    report::{self, Summary},
    run::{self, RunTarget},
    scenario::{self, Scenario},
};

/// Load over a fleet of vorrang, and the provider simulator that is its referee.
#[derive(Debug, Parser)]
#[command(name = "vorrang-load", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve OpenAI's API as a provider with limits does, and judge who comes
    Provider(ProviderOptions),
    /// Send a scenario's requests, and judge what became of them; fails where a verdict does
    Run(RunOptions),
    /// Judge a run again, from the log in its directory
    Report {
        /// Where `run --out` has put it
        directory: PathBuf,
    },
    /// Print a ready scenario, or the names of all
    Scenario {
        /// Its name
        name: Option<String>,
    },
}

#[derive(Debug, Args)]
struct RunOptions {
    /// A YAML file, or the name of a ready scenario
    scenario: String,
    /// A gateway's URL: an instance, or a balancer; may be given several times
    #[arg(
        long = "target",
        value_name = "URL",
        required_unless_present = "instances"
    )]
    targets: Vec<String>,
    /// The provider simulator behind them: without it nobody knows what arrived there
    #[arg(long, value_name = "URL", conflicts_with = "instances")]
    provider: Option<String>,
    /// Start so many instances instead, with a Redis and a provider of their own
    #[arg(
        long,
        value_name = "N",
        requires = "binary",
        conflicts_with = "targets"
    )]
    instances: Option<usize>,
    /// The gateway's executable
    #[arg(long, value_name = "FILE", requires = "instances")]
    binary: Option<PathBuf>,
    /// As long a window, and all of the scenario's times stretched with it
    #[arg(long, value_name = "TIME", requires = "instances")]
    window: Option<Time>,
    /// So many requests per window
    #[arg(long, value_name = "N", requires = "instances")]
    rpm: Option<u64>,
    /// What clients send as their key
    #[arg(
        long,
        value_name = "KEY",
        env = "VORRANG_LOAD_KEY",
        hide_env_values = true
    )]
    key: Option<String>,
    /// Where the log and the report go
    #[arg(long, value_name = "DIR", default_value = "load-report")]
    out: PathBuf,
    /// Of all that is random
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Args)]
struct ProviderOptions {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// Port to listen on; 0: a free one
    #[arg(long, default_value_t = 8000)]
    port: u16,
    /// A YAML file of all settings; those given here as well win
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Requests per window
    #[arg(long, value_name = "N")]
    rpm: Option<u64>,
    /// Tokens per window
    #[arg(long, value_name = "N")]
    tpm: Option<u64>,
    /// Open calls
    #[arg(long, value_name = "N")]
    concurrency: Option<u64>,
    /// Length of a window: seconds, or a time with its unit
    #[arg(long, value_name = "TIME")]
    window: Option<Time>,
    /// Time to an answer's first byte: 200ms, uniform(0.1, 0.3), exponential(0.2), lognormal(0.2, 0.4)
    #[arg(long, value_name = "SPREAD")]
    latency: Option<Spread>,
    /// Tokens per second and call
    #[arg(long, value_name = "SPREAD")]
    token_speed: Option<Spread>,
    /// Tokens of an answer
    #[arg(long, value_name = "SPREAD")]
    tokens: Option<Spread>,
    /// Of all that is random
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode> {
    let command = Cli::parse().command;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match command {
            Command::Provider(options) => provide(options).await,
            Command::Run(options) => {
                let stopped = stop_signal()?;
                tokio::select! {
                    done = load(options) => done,
                    // What the run has started ends with it.
                    () = stopped => Ok(ExitCode::from(130)),
                }
            }
            Command::Report { directory } => {
                let log = Log::load(&directory)
                    .with_context(|| format!("no log of a run in {}", directory.display()))?;
                report(&log, &directory)
            }
            Command::Scenario { name } => {
                print_scenario(name.as_deref())?;
                Ok(ExitCode::SUCCESS)
            }
        }
    })
}

/// Serves until SIGTERM or SIGINT.
async fn provide(options: ProviderOptions) -> Result<ExitCode> {
    let settings = options.settings()?;
    let bound = Provider::bind(&options.host, options.port, settings).await;
    let address = format!("{}:{}", options.host, options.port);
    let provider = bound.with_context(|| format!("cannot serve at {address}"))?;
    // A closed output is no reason to stop.
    drop(writeln!(
        io::stdout(),
        "listening on http://{}",
        provider.address()?
    ));
    let stopped = stop_signal()?;
    tokio::select! {
        never = provider.serve() => match never {},
        () = stopped => Ok(ExitCode::SUCCESS),
    }
}

async fn load(options: RunOptions) -> Result<ExitCode> {
    let mut scenario = scenario(&options.scenario)?;
    if let Some(window) = options.window {
        scenario.stretch(window);
    }
    scenario.provider.rpm = options.rpm.or(scenario.provider.rpm);
    std::fs::create_dir_all(&options.out)
        .with_context(|| format!("cannot write to {}", options.out.display()))?;
    let trimmed = |url: &String| url.trim_end_matches('/').to_owned();
    let target = match (options.instances, &options.binary) {
        (Some(instances), Some(binary)) => {
            let directory = options.out.join("processes");
            let fleet = Fleet::start(&scenario, instances, binary, &directory).await?;
            RunTarget {
                targets: fleet.targets(),
                provider: Some(fleet.provider().to_owned()),
                fleet: Some(fleet),
                key: options.key,
            }
        }
        _ => RunTarget {
            targets: options.targets.iter().map(trimmed).collect(),
            provider: options.provider.as_ref().map(trimmed),
            fleet: None,
            key: options.key,
        },
    };
    let log = run::run(scenario, options.seed, target).await?;
    log.save(&options.out)?;
    report(&log, &options.out)
}

/// Writes the report and prints the verdicts; fails where one does.
fn report(log: &Log, directory: &Path) -> Result<ExitCode> {
    let summary = Summary::new(log);
    report::write(&summary, directory)
        .with_context(|| format!("cannot write to {}", directory.display()))?;
    // A closed output is no reason to fail.
    drop(io::stdout().write_all(summary.text().as_bytes()));
    println!("report: {}", directory.join("report.html").display());
    Ok(if summary.passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn print_scenario(name: Option<&str>) -> Result<()> {
    let text = match name {
        Some(name) => scenario::ready(name)?.to_owned(),
        None => scenario::READY
            .iter()
            .map(|(name, _)| format!("{name}\n"))
            .collect(),
    };
    Ok(io::stdout().write_all(text.as_bytes())?)
}

/// A file, else one of the ready ones.
fn scenario(name: &str) -> Result<Scenario> {
    let path = Path::new(name);
    Ok(if path.exists() {
        Scenario::load(path)?
    } else {
        Scenario::parse(scenario::ready(name)?, name)?
    })
}

/// Done at SIGTERM or SIGINT.
fn stop_signal() -> Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

// === impl ProviderOptions ===

impl ProviderOptions {
    fn settings(&self) -> Result<Settings> {
        let mut settings = match &self.config {
            Some(file) => read_yaml(file)?,
            None => Settings::default(),
        };
        settings.rpm = self.rpm.or(settings.rpm);
        settings.tpm = self.tpm.or(settings.tpm);
        settings.concurrency = self.concurrency.or(settings.concurrency);
        settings.window = self.window.unwrap_or(settings.window);
        settings.latency = self.latency.unwrap_or(settings.latency);
        settings.token_speed = self.token_speed.unwrap_or(settings.token_speed);
        settings.tokens = self.tokens.unwrap_or(settings.tokens);
        settings.seed = self.seed.unwrap_or(settings.seed);
        Ok(settings)
    }
}

fn read_yaml<T: serde::de::DeserializeOwned>(file: &Path) -> Result<T> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    serde_saphyr::from_str(&text).with_context(|| file.display().to_string())
}
