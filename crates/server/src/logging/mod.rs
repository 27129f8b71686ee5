//! Log lines go to stderr: readable on a terminal, JSON otherwise. `RUST_LOG` says which.

mod escaping;
mod gathered;
mod json;

use std::{
    io::{self, IsTerminal as _, Stderr},
    sync::OnceLock,
};

use tracing::Metadata;
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

use crate::{
    api::access,
    logging::{escaping::Escaping, gathered::Gathered, json::JsonLines},
};

/// Lines of this process that are not written yet. Empty: each is written at once.
static GATHERED: OnceLock<Gathered<Stderr>> = OnceLock::new();

/// Installs the subscriber of this process. Without `RUST_LOG`: everything from `info` on.
///
/// The access lines, of which each request has one, may wait for a moment where stderr is no terminal: [`flush`] writes them, and has to be
/// called before the process ends. A panic does so, too. Other lines are written at once, after those that wait: an operator's action is in
/// the log before it is answered.
pub fn install() {
    let filter = EnvFilter::builder()
        .with_default_directive(tracing::Level::INFO.into())
        .from_env_lossy();
    // Below this it writes the whole request that it signs, with AWS's session token.
    let filter = match "aws_sigv4=info".parse() {
        Ok(directive) => filter.add_directive(directive),
        Err(_) => filter,
    };
    let lines = tracing_subscriber::fmt().with_env_filter(filter);
    if io::stderr().is_terminal() {
        let lines = lines.compact().with_target(false);
        let lines = lines.with_writer(|| Escaping(io::stderr()));
        // A program that embeds this may have installed a subscriber already; that one stays.
        drop(lines.try_init());
        return;
    }
    let lines = lines.json().event_format(JsonLines::default());
    if lines.with_writer(Lines).try_init().is_ok()
        && let Some(gathered) = Gathered::start(io::stderr())
        && GATHERED.set(gathered).is_ok()
    {
        flush_before_panics();
    }
}

/// Writes the lines that wait.
pub fn flush() {
    if let Some(gathered) = GATHERED.get() {
        gathered.write();
    }
}

/// What led to a panic stands before it.
fn flush_before_panics() {
    let next = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        flush();
        next(panic);
    }));
}

/// Takes the lines of this process.
struct Lines;

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Escaping<Line>;

    fn make_writer(&'a self) -> Self::Writer {
        Escaping(Line { urgent: true })
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Self::Writer {
        let urgent = meta.target() != access::TARGET;
        Escaping(Line { urgent })
    }
}

/// Takes one line, which is written as a whole.
struct Line {
    urgent: bool,
}

impl io::Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match GATHERED.get() {
            Some(gathered) => gathered.add(line, self.urgent),
            None => io::stderr().write_all(line)?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
