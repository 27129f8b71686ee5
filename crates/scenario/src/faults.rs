//! Errors on demand.

use std::time::Duration;

use rand::{Rng, RngExt as _};
use serde::{Deserialize, Serialize};

use crate::amount::Time;

/// What goes wrong with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fault {
    /// It is answered with an error: `status`, `retry_after`.
    Error,
    /// Its connection is reset instead of an answer.
    Reset,
    /// Its connection is reset in the middle of the answer.
    Break,
    /// Nothing happens for `time` before the answer begins.
    Stall,
    /// The tokens come `factor` times slower.
    Slow,
}

/// Which calls a fault hits. Of several rules the first that hits counts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultRule {
    /// What goes wrong.
    pub fault: Fault,
    /// How likely each call is hit.
    #[serde(default = "all")]
    pub share: f64,
    /// How many calls are hit before the rule is used up; without it there is no end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// Only calls of this model, by the provider's name of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Of an error.
    #[serde(default = "internal")]
    pub status: u16,
    /// Of an error: its `Retry-After`, in whole seconds as HTTP has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
    /// Of a stall.
    #[serde(default = "minute")]
    pub time: Time,
    /// Of a slow answer.
    #[serde(default = "ten")]
    pub factor: f64,
}

fn all() -> f64 {
    1.0
}

fn internal() -> u16 {
    500
}

fn minute() -> Time {
    Time(Duration::from_secs(60))
}

fn ten() -> f64 {
    10.0
}

/// The rules in force.
#[derive(Debug, Default)]
pub struct Faults(Vec<FaultRule>);

impl FaultRule {
    /// What is wrong with the rule itself.
    fn mistake(&self) -> Option<String> {
        if !(0.0..=1.0).contains(&self.share) {
            return Some(format!("share: {} is not within 0 and 1", self.share));
        }
        if !(400..=599).contains(&self.status) {
            return Some(format!("status: {} is no error", self.status));
        }
        if !(self.factor.is_finite() && self.factor >= 1.0) {
            return Some(format!("factor: {} is not at least 1", self.factor));
        }
        None
    }

    fn hits(&self, model: &str, random: &mut impl Rng) -> bool {
        self.count != Some(0)
            && self.model.as_deref().is_none_or(|name| name == model)
            && random.random::<f64>() < self.share
    }
}

impl Faults {
    /// These rules from now on.
    ///
    /// # Errors
    /// What is wrong with one of them.
    pub fn new(rules: Vec<FaultRule>) -> Result<Self, String> {
        match rules.iter().find_map(FaultRule::mistake) {
            Some(mistake) => Err(mistake),
            None => Ok(Self(rules)),
        }
    }

    /// What goes wrong with the next call, if anything.
    pub fn next(&mut self, model: &str, random: &mut impl Rng) -> Option<FaultRule> {
        let rule = self.0.iter_mut().find(|rule| rule.hits(model, random))?;
        if let Some(count) = &mut rule.count {
            *count -= 1;
        }
        Some(rule.clone())
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng as _, rngs::StdRng};

    use super::*;

    fn rules(json: &str) -> Result<Faults, String> {
        Faults::new(serde_json::from_str(json).map_err(|error| error.to_string())?)
    }

    #[test]
    fn fault_rule_with_a_count_is_followed_by_the_next_rule() {
        let text = r#"[{"fault":"error","status":429,"retry_after":2,"count":2},{"fault":"stall","time":"1s","model":"m"}]"#;
        let (mut faults, mut random) = (rules(text).unwrap(), StdRng::seed_from_u64(1));
        for _ in 0..2 {
            let rule = faults.next("m", &mut random).unwrap();
            assert_eq!((rule.status, rule.retry_after), (429, Some(2)));
        }
        assert_eq!(faults.next("m", &mut random).unwrap().fault, Fault::Stall);
        assert_eq!(faults.next("other", &mut random), None);
    }

    #[test]
    fn fault_rule_with_a_share_hits_that_share_of_calls() {
        let mut faults = rules(r#"[{"fault":"reset","share":0.25}]"#).unwrap();
        let mut random = StdRng::seed_from_u64(1);
        let hits = (0..10_000).filter(|_| faults.next("m", &mut random).is_some());
        assert!((2300..2700).contains(&hits.count()));
    }

    #[test]
    fn invalid_fault_rule_is_refused() {
        for (text, word) in [
            (r#"[{"fault":"error","share":2}]"#, "share"),
            (r#"[{"fault":"error","status":200}]"#, "status"),
            (r#"[{"fault":"slow","factor":0}]"#, "factor"),
            (r#"[{"fault":"explode"}]"#, "explode"),
            (r#"[{"fault":"error","chance":1}]"#, "chance"),
        ] {
            assert!(rules(text).unwrap_err().contains(word), "{text}");
        }
    }
}
