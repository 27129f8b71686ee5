//! `vorrang simulate`: the requests of a trace or of a load scenario under another configuration, in virtual time.
//!
//! - `trace` reads access lines, `load` draws a scenario; both give `Traced` requests in order of their arrival.
//! - `run` sends them to the groups, each of which is simulated on one of several threads.
//! - `figures` sums up; `report` shows it as a table, JSON, or a page.

mod figures;
mod group;
mod line;
mod load;
mod report;
mod run;
mod trace;

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use vorrang_gateway::{Config, Env};
use vorrang_scheduler::Tokens;

pub use self::report::Report;

/// What to simulate.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("traffic").required(true))]
pub struct Simulate {
    /// The configuration to try
    #[arg(long, short, value_name = "FILE")]
    pub config: PathBuf,
    /// Another one, to compare with: who would wait longer or less
    #[arg(long, value_name = "FILE")]
    pub against: Option<PathBuf>,
    /// An instance's log with its access lines, JSON or text; `-` for stdin; may be given several times
    #[arg(long, value_name = "FILE", group = "traffic")]
    pub trace: Vec<PathBuf>,
    /// A load scenario of vorrang-load: a YAML file, or the name of a ready one
    #[arg(long, value_name = "SCENARIO", group = "traffic")]
    pub load: Option<String>,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
    /// Write a page with charts
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// From a message to the queue's state until its reply is there: that of Redis
    #[arg(long, value_name = "TIME", default_value = "1ms", value_parser = time)]
    pub round_trip: Duration,
    /// The longest that a request takes: a trace is in the order of ends, and is sorted by arrival this far
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = time)]
    pub longest: Duration,
    /// Of all that is random
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
}

fn time(text: &str) -> Result<Duration, String> {
    let time = text.parse::<vorrang_scenario::amount::Time>();
    time.map(|time| time.0).map_err(|error| error.to_string())
}

/// A number for a name.
type Name = u32;

/// One request of a trace or scenario.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Traced {
    /// Microseconds since 1970, or since the scenario's start.
    at: u64,
    /// Its group and its key; the key 0 is no key.
    group: Name,
    key: Name,
    tenant: u64,
    priority: i32,
    asked_priority: Option<i32>,
    reserved: Tokens,
    used: Option<Tokens>,
    patience: Duration,
    calls: u32,
    /// How long its calls took together; `None`: there was none.
    took: Option<Duration>,
    /// How long it really waited until its call; `None`: it had none.
    waited: Option<Duration>,
}

/// Names by their numbers, which are drawn in order. Number 0 is no name.
#[derive(Debug)]
struct Names {
    names: Vec<String>,
    numbers: std::collections::HashMap<String, Name>,
}

impl Names {
    fn new() -> Self {
        Self {
            names: vec![String::new()],
            numbers: std::collections::HashMap::from([(String::new(), 0)]),
        }
    }

    fn number(&mut self, name: &str) -> Name {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let number = Name::try_from(self.names.len()).unwrap_or(Name::MAX);
        self.names.push(name.to_owned());
        self.numbers.insert(name.to_owned(), number);
        number
    }

    fn name(&self, number: Name) -> &str {
        self.names
            .get(usize::try_from(number).unwrap_or(usize::MAX))
            .map_or("", String::as_str)
    }
}

/// Requests, in order of their arrival.
trait Source {
    /// The next one; `None` at the end.
    fn next(&mut self, names: &mut Names) -> Result<Option<Traced>>;
    /// What was read, and what could not be.
    fn counts(&self) -> trace::TraceCounts;
}

impl Simulate {
    /// Reads the configurations and the traffic, and simulates.
    ///
    /// # Errors
    /// A file cannot be read or has no request, or a configuration or scenario has errors.
    pub fn run(&self, env: &dyn Env) -> Result<Report> {
        let load = |path: &PathBuf| -> Result<Config> {
            let loaded = Config::load(path, env);
            Ok(loaded.with_context(|| path.display().to_string())?.config)
        };
        let config = load(&self.config)?;
        let against = self.against.as_ref().map(load).transpose()?;
        let mut source: Box<dyn Source> = match &self.load {
            Some(scenario) => Box::new(load::Load::new(scenario, self.seed, &config)?),
            None => Box::new(trace::Traces::open(&self.trace, self.longest)?),
        };
        let report = run::run(self, &config, against.as_ref(), source.as_mut())?;
        let read = &report.read;
        ensure!(
            read.requests > 0,
            "no request is in these {} lines ({} access lines could not be used): is it the log of an instance, at level info?",
            read.lines,
            read.bad
        );
        Ok(report)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn trace_without_requests_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let model = "{model_name: m, litellm_params: {model: openai/m, mock_response: hi}}";
        let simulate = Simulate {
            config: path("config.yaml", &format!("model_list: [{model}]\n")),
            against: None,
            trace: vec![path("log", "garbage\n{\"a\": 1}\n")],
            load: None,
            json: false,
            html: None,
            round_trip: Duration::from_millis(1),
            longest: Duration::from_secs(3600),
            seed: 1,
        };
        let error = simulate
            .run(&BTreeMap::<String, String>::new())
            .unwrap_err();
        assert!(
            error.to_string().contains("no request is in these 2 lines"),
            "{error}"
        );
    }
}
