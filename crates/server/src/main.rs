//! `vorrang`: a gateway for LLM APIs that decides who goes next.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use clap::Parser as _;
use futures_util::future::OptionFuture;
use tokio::signal::unix::{Signal, SignalKind, signal};
use vorrang_gateway::{
    ConfigError, Loaded, ProcessEnv,
    config::{Diagnostic, Grouped, Level},
};
use vorrang_server::{
    Patience, Server,
    cli::{Check, Cli, Command, Serve},
    demo_load, logging, queue, reload,
    simulate::Simulate,
    top, welcome,
};

/// Many small, short-lived allocations on many threads: what this allocator is for.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let done = match Cli::parse().command() {
        Command::Check(options) => return check(&options),
        Command::Simulate(options) => simulate(&options),
        Command::Top(options) => show(top::run(&options)),
        Command::Queue(options) => match show(queue::run(&options)) {
            Ok(code) => return code,
            Err(error) => Err(error),
        },
        Command::Serve(options) => {
            let done = serve(*options);
            logging::flush();
            done
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            match error.downcast_ref::<ConfigError>() {
                Some(error) => say_all(error.diagnostics()),
                None => eprintln!("error: {error:#}"),
            }
            ExitCode::FAILURE
        }
    }
}

fn simulate(options: &Simulate) -> Result<()> {
    let report = options.run(&ProcessEnv)?;
    if let Some(path) = &options.html {
        let cannot = || format!("cannot write {}", path.display());
        std::fs::write(path, report.html()?).with_context(cannot)?;
    }
    if options.json {
        print(&report.json()?);
    } else {
        print(&report.text());
    }
    Ok(())
}

/// Fails where the file has errors, and with `--strict` also where anything is lost or differs.
fn check(options: &Check) -> ExitCode {
    let loaded = options.settings.load(&ProcessEnv);
    let diagnostics = match &loaded {
        Ok(loaded) => &loaded.diagnostics,
        Err(error) => error.diagnostics(),
    };
    if options.json {
        print(&Loaded::report(&loaded));
    } else {
        if let Ok(loaded) = &loaded {
            print(&loaded.config.plan());
        }
        say_all(diagnostics);
    }
    let level = if options.strict {
        Level::Difference
    } else {
        Level::Error
    };
    if diagnostics.iter().any(|one| one.level <= level) {
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// A command that asks a running instance.
fn show<T>(command: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let done = runtime.block_on(command);
    // What still asks is not waited for.
    runtime.shutdown_background();
    done
}

/// One line for each kind, the worst first.
fn say_all(diagnostics: &[Diagnostic]) {
    for group in Grouped::of(diagnostics) {
        eprintln!("{}: {group}", group.level);
    }
}

fn serve(mut options: Serve) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let provider = match options.demo_load {
        true => Some(runtime.block_on(demo_load::Provider::bind())?),
        false => None,
    };
    if let Some(provider) = &provider {
        anyhow::ensure!(
            options.settings.is_demo(),
            "--demo-load is for the built-in demo, without a configuration"
        );
        options.settings.demo_groups = provider.groups();
    }
    let mut loaded = options.settings.load(&ProcessEnv)?;
    let files = reload::Files::read_now(std::mem::take(&mut loaded.files));
    if options.admin_port.is_some() {
        loaded.config.admin_port = options.admin_port;
    }
    let config = &loaded.config;
    anyhow::ensure!(
        !(options.require_keys && config.is_open()),
        "--require-keys: there is no key; set general_settings.master_key or vorrang_settings.keys"
    );
    let spends_keys_of_all = config.is_open() && config.spends_keys();
    logging::install();
    loaded.log();
    if options.num_workers.is_some_and(|workers| workers > 1) {
        tracing::warn!("--num_workers does nothing: one process uses all cores");
    }
    for warning in options.litellms.warnings() {
        tracing::warn!("{warning}");
    }
    runtime.block_on(async {
        // Before the server is up: a signal during its start counts, too.
        let stop = stop_signal()?;
        let hangup = signal(SignalKind::hangup()).context("cannot listen for signals")?;
        let server = Server::bind(
            loaded.config,
            &options.host,
            options.port,
            Patience::default(),
        )
        .await?;
        if options.settings.is_demo() {
            let program = std::env::args_os().next().unwrap_or("vorrang".into());
            let program = program.to_string_lossy();
            print(&welcome::tour(
                (server.scheme(), server.address()),
                &program,
                options.demo_load,
            ));
        }
        if spends_keys_of_all && let Some(warning) = welcome::open_to_all(server.address()) {
            tracing::error!("{warning}");
        }
        if let Some(address) = server.admin_address() {
            print(&welcome::admin((server.admin_scheme(), address)));
        }
        print(&welcome::listening((server.scheme(), server.address())));
        let traffic = OptionFuture::from(provider.map(|provider| server.demo_load(provider)));
        let traffic = async {
            traffic.await;
            std::future::pending::<()>().await;
        };
        let reloads = reload::Options {
            settings: options.settings,
            require_keys: options.require_keys,
            watch: options.watch,
            files,
        };
        let reloads = server.reloader().run(reloads, hangup);
        tokio::select! {
            () = server.run(stop) => {}
            // These never end.
            () = reloads => {}
            () = traffic => {}
        }
        Ok(())
    })
}

/// How long the last log lines may take at the second signal.
const LAST_LINES: std::time::Duration = std::time::Duration::from_millis(500);

/// Done at the first SIGTERM or SIGINT; the second one ends the process at once.
fn stop_signal() -> Result<impl Future<Output = ()>> {
    let listen = |kind| signal(kind).context("cannot listen for signals");
    let (mut terminate, mut interrupt) = (
        listen(SignalKind::terminate())?,
        listen(SignalKind::interrupt())?,
    );
    async fn either(terminate: &mut Signal, interrupt: &mut Signal) {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
    Ok(async move {
        either(&mut terminate, &mut interrupt).await;
        tokio::spawn(async move {
            either(&mut terminate, &mut interrupt).await;
            // Whoever reads stderr may have stopped.
            let flushed = tokio::task::spawn_blocking(logging::flush);
            drop(tokio::time::timeout(LAST_LINES, flushed).await);
            // As a shell reports a process that a SIGINT ended.
            std::process::exit(130);
        });
    })
}

/// To stdout. A closed stdout is no reason to stop.
fn print(text: &str) {
    let mut stdout = io::stdout().lock();
    drop(writeln!(stdout, "{}", text.trim_end()).and_then(|()| stdout.flush()));
}
