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

use anyhow::{Context as _, Result, ensure};
use clap::Parser as _;
use tokio::time::Instant;

use crate::{
    baseline::Baseline,
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
        None => return runtime.block_on(run(&cli.run)),
    }
    Ok(ExitCode::SUCCESS)
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
    if options.accept {
        instructions::measure(&context).await?.write(&baseline)?;
        println!("{} is written", baseline.display());
        return Ok(ExitCode::SUCCESS);
    }
    if options.check {
        let now = instructions::measure(&context).await?;
        let comparison = Baseline::read(&baseline)?.compare(&now);
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
        command: std::env::args().skip(1).collect::<Vec<_>>().join(" "),
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
            let version = printed(&litellm, &["--version"]).context("litellm --version")?;
            // `LiteLLM: Current Version = 1.2.3`
            let version = version.rsplit(' ').next().unwrap_or_default();
            peers::run(context, &litellm, version).await
        }
        _ => Ok(instructions::part(&instructions::measure(context).await?)),
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
        Some((name.to_owned(), printed(program, arguments)?))
    });
    known.collect()
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
