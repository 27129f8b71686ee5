//! Log lines go to stderr: readable on a terminal, JSON otherwise. `RUST_LOG` says which.

mod escaping;

use std::io::IsTerminal as _;

use tracing_subscriber::{EnvFilter, fmt};

use crate::logging::escaping::Escaping;

/// Installs the subscriber of this process. Without `RUST_LOG`: everything from `info` on.
pub fn install() {
    let filter = EnvFilter::builder()
        .with_default_directive(tracing::Level::INFO.into())
        .from_env_lossy();
    // Below this it writes the whole request that it signs, with AWS's session token.
    let filter = match "aws_sigv4=info".parse() {
        Ok(directive) => filter.add_directive(directive),
        Err(_) => filter,
    };
    let lines = fmt()
        .with_env_filter(filter)
        .with_writer(|| Escaping(std::io::stderr()));
    let installed = if std::io::stderr().is_terminal() {
        lines.compact().with_target(false).try_init()
    } else {
        lines
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .try_init()
    };
    // A program that embeds this may have installed a subscriber already; that one stays.
    drop(installed);
}
