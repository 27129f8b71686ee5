//! What a run sends, and what it expects. A small YAML file; `scenarios/` has ready ones.

mod check;
mod rate;
mod ready;
mod tenants;

use std::{fmt, path::Path, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use thiserror::Error;

pub use self::{
    rate::Rate,
    ready::{READY, ready},
    tenants::Tenants,
};
use crate::{
    amount::{Spread, Time},
    faults::FaultRule,
    settings::Settings,
};

/// One run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// As the report names it.
    pub name: String,
    /// What it shows.
    #[serde(default)]
    pub about: String,
    /// The provider, where the run starts one; else the one that is there says what its limits are.
    #[serde(default)]
    pub provider: Settings,
    /// What the configuration of instances that the run starts has beside the provider's limits.
    #[serde(default)]
    pub gateway: GatewayExtras,
    /// What the gateway calls the model.
    #[serde(default = "model")]
    pub model: String,
    /// One after the other.
    pub phases: Vec<Phase>,
    /// Who sends.
    pub traffic: Vec<Traffic>,
    /// What happens meanwhile.
    #[serde(default)]
    pub events: Vec<Event>,
    /// How long answers may take after the last request was sent; what has none then is lost.
    #[serde(default = "two_minutes")]
    pub drain: Time,
    /// What is no failure of the run.
    #[serde(default)]
    pub expect: Expect,
}

/// Parts of a gateway's configuration, as its own file has them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GatewayExtras {
    /// Into the deployment's.
    pub litellm_params: Map<String, Value>,
    /// Its own section.
    pub router_settings: Map<String, Value>,
    /// Its own section.
    pub vorrang_settings: Map<String, Value>,
}

/// A time with one rate of arrivals.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Phase {
    /// As the report names it.
    pub name: String,
    /// How long it is.
    #[serde(rename = "for")]
    pub length: Time,
    /// Of all its traffic together.
    pub rate: Rate,
    /// Which traffic it has, by name; all without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic: Option<Vec<String>>,
}

/// One kind of request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Traffic {
    /// As the report names it.
    pub name: String,
    /// The body's; none is sent without it.
    #[serde(default)]
    pub priority: Option<i32>,
    /// Its part of a phase's rate, against the others'.
    #[serde(default = "one")]
    pub share: f64,
    /// When they come.
    #[serde(default)]
    pub arrivals: Pattern,
    /// Where they go.
    #[serde(default)]
    pub api: Api,
    /// Which part of them is streamed, 0 to 1.
    #[serde(default)]
    pub stream: f64,
    /// Length of the prompt.
    #[serde(default = "forty")]
    pub prompt_tokens: Spread,
    /// Bound of the answer; none is sent without it.
    #[serde(default)]
    pub max_tokens: Option<Spread>,
    /// The body's `timeout`; none is sent without it.
    #[serde(default)]
    pub timeout: Option<Time>,
    /// Whose they are.
    #[serde(default)]
    pub tenants: Tenants,
    /// As `Authorization: Bearer`; the run's own without it.
    #[serde(default)]
    pub key: Option<String>,
    /// What the gateway's configuration gives that key: so much of a share its requests get, against the others'.
    #[serde(default = "one")]
    pub weight: f64,
    /// Clients that do not wait for ever.
    #[serde(default)]
    pub leave: Option<Leave>,
}

/// When requests come, at a given mean rate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pattern {
    /// As many independent clients send.
    #[default]
    Poisson,
    /// In even steps.
    Constant,
    /// All that come in so long a time come at its start.
    Bursts(Time),
}

/// OpenAI's APIs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Api {
    /// `/v1/chat/completions`
    #[default]
    Chat,
    /// `/v1/completions`
    Text,
}

/// Clients that hang up before their answer's end.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Leave {
    /// How many of them, 0 to 1.
    pub share: f64,
    /// When, after their start.
    pub after: Spread,
}

/// Something that happens at a time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Since the run's start.
    pub at: Time,
    /// What.
    #[serde(flatten)]
    pub action: Action,
}

/// What can happen. Instances count from 1, and are those that the run has started itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// SIGKILL.
    Kill(usize),
    /// SIGTERM.
    Terminate(usize),
    /// SIGSTOP.
    Pause(usize),
    /// SIGCONT.
    Resume(usize),
    /// One that was killed or terminated comes back.
    Start(usize),
    /// The provider's fault rules from now on.
    Faults(Vec<FaultRule>),
    /// All clients of this traffic that have no answer yet hang up at once.
    Leave(String),
}

/// What is no failure of a run. Inversions, windows over the limit, lost and doubled requests always are one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Expect {
    /// Kinds of failures that may be, as the report names them: `408`, `429`, `killed`, ...
    pub failed: Vec<String>,
    /// How many answers may break off without a reason the run knows of, as when a balancer's instance is killed from outside.
    pub cut: u64,
    /// The least share of the limit that is used while tickets wait, 0 to 1.
    pub slots_used: f64,
    /// From when on slots and shares are judged: a limit that is paced takes a window to fill.
    pub slots_from: Time,
    /// The least Jain's index over any stretch of ten windows, 0 to 1; without it no fairness is required.
    pub fairness: Option<f64>,
}

impl Default for Expect {
    fn default() -> Self {
        Self {
            failed: Vec::new(),
            cut: 0,
            slots_used: 0.95,
            slots_from: Time::default(),
            fairness: None,
        }
    }
}

fn model() -> String {
    "model".into()
}

fn one() -> f64 {
    1.0
}

fn forty() -> Spread {
    Spread::Constant(40.0)
}

fn two_minutes() -> Time {
    Time(Duration::from_secs(120))
}

/// What is wrong with a scenario.
#[derive(Debug, Error)]
pub enum ScenarioError {
    /// The file cannot be read.
    #[error("cannot read {file}: {error}")]
    Unreadable {
        /// Its path.
        file: String,
        /// The system's words.
        error: std::io::Error,
    },
    /// It is not what a scenario looks like.
    #[error("{file}: {message}")]
    Syntax {
        /// Its path.
        file: String,
        /// Where and what.
        message: String,
    },
    /// It reads well and makes no sense.
    #[error("{0}")]
    Senseless(String),
}

// === impl Scenario ===

impl Scenario {
    /// Reads a file and checks it.
    ///
    /// # Errors
    /// It cannot be read, or says something that cannot be done.
    pub fn load(path: &Path) -> Result<Self, ScenarioError> {
        let file = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| ScenarioError::Unreadable {
            file: file.clone(),
            error,
        })?;
        Self::parse(&text, &file)
    }

    /// The same, of a text.
    ///
    /// # Errors
    /// It says something that cannot be done.
    pub fn parse(text: &str, file: &str) -> Result<Self, ScenarioError> {
        let scenario: Self =
            serde_saphyr::from_str(text).map_err(|error| ScenarioError::Syntax {
                file: file.to_owned(),
                message: error.to_string(),
            })?;
        match scenario.mistake() {
            Some(mistake) => Err(ScenarioError::Senseless(format!("{file}: {mistake}"))),
            None => Ok(scenario),
        }
    }

    /// How long requests are sent.
    pub fn length(&self) -> Duration {
        self.phases.iter().map(|phase| phase.length.0).sum()
    }
}

impl Phase {
    /// Whether a traffic takes part in it.
    pub fn has(&self, traffic: &Traffic) -> bool {
        let named = self.traffic.as_ref();
        named.is_none_or(|names| names.contains(&traffic.name))
    }
}

impl Action {
    /// Which instance it is about.
    pub fn instance(&self) -> Option<usize> {
        match *self {
            Self::Kill(instance)
            | Self::Terminate(instance)
            | Self::Pause(instance)
            | Self::Resume(instance)
            | Self::Start(instance) => Some(instance),
            Self::Faults(_) | Self::Leave(_) => None,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill(instance) => write!(f, "kill -9 {instance}"),
            Self::Terminate(instance) => write!(f, "SIGTERM {instance}"),
            Self::Pause(instance) => write!(f, "SIGSTOP {instance}"),
            Self::Resume(instance) => write!(f, "SIGCONT {instance}"),
            Self::Start(instance) => write!(f, "start {instance}"),
            Self::Faults(rules) if rules.is_empty() => f.write_str("faults end"),
            Self::Faults(_) => f.write_str("faults"),
            Self::Leave(name) => write!(f, "all {name} leave"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = "
name: small
phases: [{name: all, for: 2s, rate: 0.9x}]
traffic: [{name: users, priority: 0}]
";

    fn parse(more: &str) -> Result<Scenario, ScenarioError> {
        Scenario::parse(&format!("{SMALL}{more}"), "s.yaml")
    }

    #[test]
    fn scenario_round_trips_through_its_text() {
        let more = "
provider: {rpm: 100, window: 5s, latency: 'lognormal(0.2, 0.4)', faults: [{fault: stall, time: 2s}]}
gateway: {vorrang_settings: {lease_seconds: 1}}
events: [{at: 1s, kill: 1}, {at: 1.5, start: 1}, {at: 1s, leave: users}, {at: 1s, faults: [{fault: error, status: 429}]}]
expect: {failed: ['408'], slots_used: 0.5, fairness: 0.95}
";
        let scenario = parse(more).unwrap();
        assert_eq!(scenario.events[1].action, Action::Start(1));
        assert_eq!(scenario.phases[0].rate, Rate::OfLimit(0.9));
        let json = serde_json::to_string(&scenario).unwrap();
        assert_eq!(serde_json::from_str::<Scenario>(&json).unwrap(), scenario);
    }

    #[test]
    fn scenario_errors_name_their_position() {
        for (more, words) in [
            ("trafic: []", "trafic"),
            ("events: [{at: 1s, kill: 0}]", "count from 1"),
            ("events: [{at: 1s, leave: nobody}]", "nobody"),
            ("events: [{at: 1s, explode: 1}]", "explode"),
            ("provider: {latency: soon}", "soon"),
            ("expect: {fairness: 95}", "fairness"),
            ("provider: {faults: [{fault: error, share: 7}]}", "share"),
        ] {
            let error = parse(more).unwrap_err().to_string();
            assert!(error.contains(words) && error.contains("s.yaml"), "{error}");
        }
        for rate in ["fast", "0x", "-1/s", "nanx"] {
            assert!(rate.parse::<Rate>().is_err(), "{rate}");
        }
    }

    #[test]
    fn built_in_scenarios_parse_and_plan() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
        let files = std::fs::read_dir(directory).unwrap().count();
        assert_eq!(files, READY.len(), "each file is a ready scenario");
        for (name, text) in READY {
            let scenario = Scenario::parse(text, name).unwrap();
            assert_eq!(scenario.name, *name);
            crate::plan::Plan::new(&scenario, Some(100.0), 1).unwrap();
        }
    }
}
