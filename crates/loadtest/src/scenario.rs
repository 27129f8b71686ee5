//! What a run sends, and what it expects. A small YAML file; `scenarios/` has ready ones.

use std::{collections::HashSet, fmt, path::Path, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::{Map, Value};
use thiserror::Error;

use crate::{
    amount::{Spread, Time},
    provider::{FaultRule, Faults, Settings},
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

/// Arrivals in a second: `20/s`, or `0.9x` of what the provider's requests per window allow.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rate {
    /// In a second.
    PerSecond(f64),
    /// Times the limit.
    OfLimit(f64),
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

/// Who the body's `user` is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tenants {
    /// How many there are.
    pub count: u64,
    /// How unequal they are: the n-th sends 1/n^zipf as much as the first; 0 is equal.
    pub zipf: f64,
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
    /// How many answers may break off without a reason the run knows of, as when a balancer's instance is killed by someone else.
    pub cut: u64,
    /// The least share of the limit that is used while tickets wait, 0 to 1.
    pub slots_used: f64,
    /// From when on it is judged: a limit that is paced takes a window to fill.
    pub slots_from: Time,
}

impl Default for Expect {
    fn default() -> Self {
        Self {
            failed: Vec::new(),
            cut: 0,
            slots_used: 0.95,
            slots_from: Time::default(),
        }
    }
}

impl Default for Tenants {
    fn default() -> Self {
        Self {
            count: 1,
            zipf: 0.0,
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

/// The scenarios that come with this program, by name.
pub const READY: &[(&str, &str)] = &[
    ("standard", include_str!("../scenarios/standard.yaml")),
    (
        "interactive-batch",
        include_str!("../scenarios/interactive-batch.yaml"),
    ),
    ("overload", include_str!("../scenarios/overload.yaml")),
    (
        "overload-refused",
        include_str!("../scenarios/overload-refused.yaml"),
    ),
    ("pacing-off", include_str!("../scenarios/pacing-off.yaml")),
    ("pacing", include_str!("../scenarios/pacing.yaml")),
    ("reserve", include_str!("../scenarios/reserve.yaml")),
    ("aging", include_str!("../scenarios/aging.yaml")),
    ("burst", include_str!("../scenarios/burst.yaml")),
    (
        "cancellation",
        include_str!("../scenarios/cancellation.yaml"),
    ),
    ("tenants", include_str!("../scenarios/tenants.yaml")),
    ("kill", include_str!("../scenarios/kill.yaml")),
    ("faults", include_str!("../scenarios/faults.yaml")),
];

/// The text of a ready scenario.
///
/// # Errors
/// There is none of that name.
pub fn ready(name: &str) -> Result<&'static str, ScenarioError> {
    let text = READY.iter().find(|(known, _)| *known == name);
    text.map(|(_, text)| *text).ok_or_else(|| {
        let names: Vec<&str> = READY.iter().map(|(name, _)| *name).collect();
        let names = names.join(", ");
        ScenarioError::Senseless(format!(
            "{name} is no file and no ready scenario; ready ones are {names}"
        ))
    })
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

    fn mistake(&self) -> Option<String> {
        let names: HashSet<&str> = self.traffic.iter().map(|one| one.name.as_str()).collect();
        if self.phases.is_empty() || self.traffic.is_empty() {
            return Some("there must be at least one phase and one traffic".into());
        }
        if names.len() < self.traffic.len() {
            return Some("two traffics have the same name".into());
        }
        if let Err(mistake) = Faults::new(self.provider.faults.clone()) {
            return Some(format!("provider.faults: {mistake}"));
        }
        self.phases
            .iter()
            .find_map(|phase| phase.mistake(&names))
            .or_else(|| self.traffic.iter().find_map(Traffic::mistake))
            .or_else(|| self.events.iter().find_map(|event| event.mistake(&names)))
    }

    /// How long requests are sent.
    pub fn length(&self) -> Duration {
        self.phases.iter().map(|phase| phase.length.0).sum()
    }
}

impl Phase {
    fn mistake(&self, names: &HashSet<&str>) -> Option<String> {
        let of = |message: String| Some(format!("phase {}: {message}", self.name));
        if self.length.0.is_zero() {
            return of("it has no time".into());
        }
        let unknown = self
            .traffic
            .iter()
            .flatten()
            .find(|name| !names.contains(name.as_str()));
        match unknown {
            Some(name) => of(format!("there is no traffic {name}")),
            None => None,
        }
    }

    /// Whether a traffic takes part in it.
    pub fn has(&self, traffic: &Traffic) -> bool {
        let named = self.traffic.as_ref();
        named.is_none_or(|names| names.contains(&traffic.name))
    }
}

impl Traffic {
    fn mistake(&self) -> Option<String> {
        let of = |message: &str| Some(format!("traffic {}: {message}", self.name));
        let part = |value: f64| (0.0..=1.0).contains(&value);
        if !(self.share.is_finite() && self.share > 0.0) {
            return of("share must be above 0");
        }
        if !part(self.stream) || self.leave.is_some_and(|leave| !part(leave.share)) {
            return of("stream and leave.share are parts, 0 to 1");
        }
        if self.tenants.count == 0 || !(self.tenants.zipf.is_finite() && self.tenants.zipf >= 0.0) {
            return of("tenants: count must be at least 1, zipf not negative");
        }
        match self.arrivals {
            Pattern::Bursts(Time(every)) if every.is_zero() => of("bursts need a time in between"),
            _ => None,
        }
    }
}

impl Event {
    fn mistake(&self, names: &HashSet<&str>) -> Option<String> {
        let mistake = match &self.action {
            Action::Faults(rules) => Faults::new(rules.clone()).err(),
            Action::Leave(name) if !names.contains(name.as_str()) => {
                Some(format!("there is no traffic {name}"))
            }
            _ => match self.action.instance() {
                Some(0) => Some("instances count from 1".into()),
                _ => None,
            },
        };
        mistake.map(|mistake| format!("event at {}: {mistake}", self.at))
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

// === impl Rate ===

impl Rate {
    /// In a second; `limit` is what the provider allows.
    pub fn per_second(self, limit: Option<f64>) -> Option<f64> {
        match self {
            Self::PerSecond(rate) => Some(rate),
            Self::OfLimit(times) => limit.map(|limit| limit * times),
        }
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no rate: write 20/s, or 0.9x for a part of the limit");
        let (number, make): (_, fn(f64) -> Self) = match text.trim() {
            text if text.ends_with("/s") => (&text[..text.len() - 2], Self::PerSecond),
            text if text.ends_with('x') => (&text[..text.len() - 1], Self::OfLimit),
            _ => return Err(wrong()),
        };
        let number: f64 = number.trim().parse().map_err(|_| wrong())?;
        let sound = number.is_finite() && number > 0.0;
        sound.then(|| make(number)).ok_or_else(wrong)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PerSecond(rate) => write!(f, "{rate}/s"),
            Self::OfLimit(times) => write!(f, "{times}x"),
        }
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
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
    fn what_is_written_out_is_read_back() {
        let more = "
provider: {rpm: 100, window: 5s, latency: 'lognormal(0.2, 0.4)', faults: [{fault: stall, time: 2s}]}
gateway: {vorrang_settings: {lease_seconds: 1}}
events: [{at: 1s, kill: 1}, {at: 1.5, start: 1}, {at: 1s, leave: users}, {at: 1s, faults: [{fault: error, status: 429}]}]
expect: {failed: ['408'], slots_used: 0.5}
";
        let scenario = parse(more).unwrap();
        assert_eq!(scenario.events[1].action, Action::Start(1));
        assert_eq!(scenario.phases[0].rate, Rate::OfLimit(0.9));
        let json = serde_json::to_string(&scenario).unwrap();
        assert_eq!(serde_json::from_str::<Scenario>(&json).unwrap(), scenario);
    }

    #[test]
    fn a_mistake_is_named_with_its_place() {
        for (more, words) in [
            ("trafic: []", "trafic"),
            ("events: [{at: 1s, kill: 0}]", "count from 1"),
            ("events: [{at: 1s, leave: nobody}]", "nobody"),
            ("events: [{at: 1s, explode: 1}]", "explode"),
            ("provider: {latency: soon}", "soon"),
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
    fn the_ready_scenarios_are_sound() {
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
