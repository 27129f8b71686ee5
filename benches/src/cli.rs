//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// What a request costs, measured side by side.
#[derive(Debug, Parser)]
#[command(name = "vorrang-bench", args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) server: Option<Serve>,
    #[command(flatten)]
    pub(crate) run: Run,
}

/// Servers of a run, as processes of their own.
#[derive(Debug, Subcommand)]
pub(crate) enum Serve {
    /// The bare handler that everything is compared with
    #[command(hide = true)]
    Bare,
    /// The upstream
    #[command(hide = true)]
    Upstream {
        /// Where its certificate is
        directory: PathBuf,
    },
}

/// A run.
#[derive(Debug, clap::Args)]
pub(crate) struct Run {
    /// Only these parts, separated by commas; all by default
    #[arg(long, value_delimiter = ',', value_name = "PARTS")]
    pub(crate) only: Vec<String>,
    /// Fewer rounds and points, shorter visits: less than two minutes
    #[arg(long)]
    pub(crate) quick: bool,
    /// How often each contender is visited [default: 5, or 2 with --quick]
    #[arg(long, value_name = "N")]
    pub(crate) rounds: Option<usize>,
    /// LiteLLM's proxy beside it; scripts/bench installs it from PyPI
    #[arg(long)]
    pub(crate) peers: bool,
    /// LiteLLM's command, for --peers
    #[arg(
        long,
        value_name = "PATH",
        default_value = "target/bench-peers/bin/litellm",
        hide = true
    )]
    pub(crate) litellm: PathBuf,
    /// Count instructions alone, and compare them with the baseline: fails beyond +5 %
    #[arg(long, group = "counts", conflicts_with_all = ["only", "quick", "rounds", "peers"])]
    pub(crate) check: bool,
    /// Count instructions alone, and make them the baseline
    #[arg(long, group = "counts", conflicts_with_all = ["only", "quick", "rounds", "peers"])]
    pub(crate) accept: bool,
    /// With --check or --accept: the gateway is of the dev profile, as the tests build it. Fewer figures and requests, with a baseline of
    /// their own
    #[arg(long, requires = "counts")]
    pub(crate) dev: bool,
    /// The gateway that is measured
    #[arg(long, value_name = "PATH", default_value = "target/release/vorrang")]
    pub(crate) vorrang: PathBuf,
    /// Where results.json and report.html go
    #[arg(long, value_name = "DIRECTORY", default_value = "target/bench")]
    pub(crate) out: PathBuf,
}
