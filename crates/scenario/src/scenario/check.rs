//! What is wrong with a scenario that reads well.

use std::collections::HashSet;

use super::{Action, Event, Pattern, Phase, Scenario, Traffic};
use crate::{amount::Time, faults::Faults};

impl Scenario {
    pub(super) fn mistake(&self) -> Option<String> {
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
        if self.expect.fairness.is_some_and(|least| !part(least)) {
            return Some("expect.fairness is an index, 0 to 1".into());
        }
        self.phases
            .iter()
            .find_map(|phase| phase.mistake(&names))
            .or_else(|| self.traffic.iter().find_map(Traffic::mistake))
            .or_else(|| self.events.iter().find_map(|event| event.mistake(&names)))
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
}

impl Traffic {
    fn mistake(&self) -> Option<String> {
        let of = |message: &str| Some(format!("traffic {}: {message}", self.name));
        let positive = |value: f64| value.is_finite() && value > 0.0;
        if !positive(self.share) || !positive(self.weight) {
            return of("share and weight must be above 0");
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

fn part(value: f64) -> bool {
    (0.0..=1.0).contains(&value)
}
