//! `vorrang-bench`: what a request costs, measured side by side. `scripts/bench` builds and runs it.

mod answers;
mod bare;
mod baseline;
mod callgrind;
mod cli;
mod commandstats;
mod load;
mod parts;
mod peer;
mod process;
mod redis;
mod report;
mod results;
mod rounds;
mod servers;
mod stats;
mod summary;
mod upstream;

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Command, ExitCode},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser as _;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::Instant,
};

use crate::{
    baseline::{Baseline, Build},
    cli::{Cli, Run, Serve},
    parts::{Context, fleet, forward, instructions, memory, mock, peers, step, traffic, wake},
    results::{Part, Results},
};

/// That of the gateway: the bare handler differs in nothing but what it does.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Only with `--peers`.
const PEERS: &str = "peers";

/// All parts, in their order.
const PARTS: [&str; 9] = [
    "mock",
    "forward",
    "step",
    "fleet",
    "traffic",
    "wake",
    "memory",
    PEERS,
    "instructions",
];

fn main() -> Result<ExitCode> {
    // A second installation is refused and changes nothing.
    drop(rustls::crypto::ring::default_provider().install_default());
    let cli = Cli::parse();
    let mut runtime = match cli.server {
        Some(_) => tokio::runtime::Builder::new_multi_thread(),
        // The load leaves the other processors to what it measures.
        None => tokio::runtime::Builder::new_current_thread(),
    };
    let runtime = runtime.enable_all().build()?;
    match cli.server {
        Some(Serve::Bare) => runtime.block_on(bare::serve())?,
        Some(Serve::Upstream { directory }) => runtime.block_on(upstream::serve(&directory))?,
        None => return runtime.block_on(until_a_signal(run(&cli.run))),
    }
    Ok(ExitCode::SUCCESS)
}

/// A signal drops what runs, and with it all processes of the run.
async fn until_a_signal(run: impl Future<Output = Result<ExitCode>>) -> Result<ExitCode> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        done = run => done,
        _ = terminate.recv() => bail!("ended by a SIGTERM"),
        _ = interrupt.recv() => bail!("ended by a SIGINT"),
    }
}

async fn run(options: &Run) -> Result<ExitCode> {
    for name in &options.only {
        ensure!(
            PARTS.contains(&name.as_str()),
            "no part is called {name}: {}",
            PARTS.join(", ")
        );
    }
    ensure!(
        options.vorrang.exists(),
        "there is no {}: scripts/bench builds it",
        options.vorrang.display()
    );
    let directory = tempfile::tempdir()?;
    let context = Context {
        binary: options.vorrang.canonicalize()?,
        directory: directory.path().into(),
        rounds: options
            .rounds
            .unwrap_or(if options.quick { 2 } else { 5 })
            .max(1),
        quick: options.quick,
    };
    let baseline = Path::new(env!("CARGO_MANIFEST_DIR")).join("baseline.json");
    let build = if options.dev {
        Build::Dev
    } else {
        Build::Release
    };
    if options.accept {
        let now = instructions::measure(&context, build).await?;
        let mut accepted = Baseline::read(&baseline)?;
        accepted.accept(build, now);
        accepted.write(&baseline)?;
        println!("{} is written", baseline.display());
        return Ok(ExitCode::SUCCESS);
    }
    if options.check {
        let now = instructions::measure(&context, build).await?;
        let comparison = Baseline::read(&baseline)?.compare(build, &now);
        print!("{}", comparison.text);
        return Ok(if comparison.failed {
            println!(
                "More than 5 % beyond benches/baseline.json: mend it, or accept it by scripts/bench --accept and say why."
            );
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        });
    }
    let results = measure(options, &context).await?;
    report::write(&results, &options.out)?;
    println!("{}", options.out.join("report.html").display());
    Ok(ExitCode::SUCCESS)
}

async fn measure(options: &Run, context: &Context) -> Result<Results> {
    let (start, started) = (
        Instant::now(),
        SystemTime::now().duration_since(UNIX_EPOCH)?,
    );
    let mut found = Vec::new();
    for name in PARTS {
        let is_wanted = options.only.is_empty() || options.only.iter().any(|wanted| wanted == name);
        if !is_wanted || name == PEERS && !options.peers {
            continue;
        }
        let part = part(name, options, context).await?;
        println!("{}", part.text());
        found.push(part);
    }
    Ok(Results {
        started: started.as_secs(),
        took: start.elapsed().as_secs_f64(),
        command: command(options),
        machine: machine(),
        versions: versions(&context.binary),
        parts: found,
    })
}

async fn part(name: &str, options: &Run, context: &Context) -> Result<Part> {
    match name {
        "mock" => mock::run(context).await,
        "forward" => forward::run(context).await,
        "step" => step::run(context).await,
        "fleet" => fleet::run(context).await,
        "traffic" => traffic::run(context).await,
        "wake" => wake::run(context).await,
        "memory" => memory::run(context).await,
        PEERS => {
            let litellm = options.litellm.canonicalize().context("--peers")?;
            peers::run(context, &litellm).await
        }
        _ => {
            let counted = instructions::measure(context, Build::Release).await?;
            Ok(instructions::part(&counted))
        }
    }
}

/// The last line that a program prints.
fn printed(program: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().lines().last()?.trim().to_owned())
}

/// Of all that the figures depend on.
fn versions(binary: &Path) -> BTreeMap<String, String> {
    let asked = [
        ("vorrang", binary, &["--version"][..]),
        (
            "commit",
            Path::new("git"),
            &["describe", "--always", "--dirty"],
        ),
        ("redis", Path::new("redis-server"), &["--version"]),
        ("rustc", Path::new("rustc"), &["--version"]),
    ];
    let known = asked.into_iter().filter_map(|(name, program, arguments)| {
        let text = printed(program, arguments)?;
        Some((name.to_owned(), version(&text)))
    });
    known.collect()
}

/// `7.0.15` of `Redis server v=7.0.15 sha=...`; of other texts all.
fn version(text: &str) -> String {
    let is_version = |word: &&str| {
        let numbers: Vec<&str> = word.split('.').collect();
        numbers.len() == 3 && numbers.iter().all(|number| number.parse::<u32>().is_ok())
    };
    let mut words = text.split(|c: char| c.is_whitespace() || c == '=' || c == '-');
    let word = words.find(is_version);
    word.unwrap_or(text).into()
}

/// The options as a user of `scripts/bench` gives them.
fn command(options: &Run) -> String {
    let mut words = Vec::new();
    if options.quick {
        words.push("--quick".to_owned());
    }
    if let Some(rounds) = options.rounds {
        words.push(format!("--rounds {rounds}"));
    }
    if options.peers {
        words.push("--peers".to_owned());
    }
    if !options.only.is_empty() {
        words.push(format!("--only {}", options.only.join(",")));
    }
    words.join(" ")
}

/// Processor, cores, kernel.
fn machine() -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let processors = read("/proc/cpuinfo");
    let names: Vec<&str> = processors
        .lines()
        .filter_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map(|(_, name)| name)
        .collect();
    let kernel = read("/proc/sys/kernel/osrelease");
    let name = names.first().copied().unwrap_or("unknown processor");
    format!("{} x {name}, Linux {}", names.len(), kernel.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_programs_print() {
        assert_eq!(
            version("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0"),
            "7.0.15"
        );
        assert_eq!(version("\nLiteLLM: Current Version = 1.2.3\n\n"), "1.2.3");
        assert_eq!(version("rustc 1.95.0 (59807616e 2026-04-14)"), "1.95.0");
        assert_eq!(version("bf96a2d-dirty"), "bf96a2d-dirty");
    }

    #[test]
    fn command_has_the_options_that_change_a_run() {
        let words = [
            "vorrang-bench",
            "--only",
            "mock,step",
            "--quick",
            "--rounds",
            "3",
            "--out",
            "x",
        ];
        assert_eq!(
            command(&Cli::parse_from(words).run),
            "--quick --rounds 3 --only mock,step"
        );
    }
}
