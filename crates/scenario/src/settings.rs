//! The provider of a scenario.

use serde::{Deserialize, Serialize};

use crate::{
    amount::{Spread, Time},
    faults::FaultRule,
};

/// How much one window takes, and how many calls may be open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Requests per window.
    pub rpm: Option<u64>,
    /// Tokens per window.
    pub tpm: Option<u64>,
    /// Open calls.
    pub concurrency: Option<u64>,
}

/// What kind of provider it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Requests per window; any number without it.
    pub rpm: Option<u64>,
    /// Tokens per window; any number without it.
    pub tpm: Option<u64>,
    /// Open calls; any number without it.
    pub concurrency: Option<u64>,
    /// How long a window is.
    pub window: Time,
    /// From a call's arrival to its answer's first byte, seconds.
    pub latency: Spread,
    /// How fast an answer's tokens come, per second and call.
    pub token_speed: Spread,
    /// How many tokens an answer has; never more than the call's own maximum.
    pub tokens: Spread,
    /// What goes wrong from the start.
    pub faults: Vec<FaultRule>,
    /// Of all that is random.
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            rpm: None,
            tpm: None,
            concurrency: None,
            window: Time(std::time::Duration::from_secs(60)),
            latency: Spread::LogNormal(0.2, 0.4),
            token_speed: Spread::Constant(100.0),
            tokens: Spread::LogNormal(30.0, 0.5),
            faults: Vec::new(),
            seed: 1,
        }
    }
}

impl Settings {
    /// The limits among them.
    pub fn limits(&self) -> Limits {
        Limits {
            rpm: self.rpm,
            tpm: self.tpm,
            concurrency: self.concurrency,
        }
    }
}
