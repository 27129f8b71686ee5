//! The scenarios that come with this program.

use super::ScenarioError;

/// By name.
pub const READY: &[(&str, &str)] = &[
    ("standard", include_str!("../../scenarios/standard.yaml")),
    (
        "interactive-batch",
        include_str!("../../scenarios/interactive-batch.yaml"),
    ),
    ("overload", include_str!("../../scenarios/overload.yaml")),
    (
        "overload-refused",
        include_str!("../../scenarios/overload-refused.yaml"),
    ),
    (
        "pacing-off",
        include_str!("../../scenarios/pacing-off.yaml"),
    ),
    ("pacing", include_str!("../../scenarios/pacing.yaml")),
    ("reserve", include_str!("../../scenarios/reserve.yaml")),
    ("aging", include_str!("../../scenarios/aging.yaml")),
    ("burst", include_str!("../../scenarios/burst.yaml")),
    (
        "cancellation",
        include_str!("../../scenarios/cancellation.yaml"),
    ),
    ("tenants", include_str!("../../scenarios/tenants.yaml")),
    ("fair-off", include_str!("../../scenarios/fair-off.yaml")),
    ("fair", include_str!("../../scenarios/fair.yaml")),
    (
        "fair-impatient",
        include_str!("../../scenarios/fair-impatient.yaml"),
    ),
    ("kill", include_str!("../../scenarios/kill.yaml")),
    ("faults", include_str!("../../scenarios/faults.yaml")),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{Expect, Scenario};

    #[test]
    fn fair_baseline_differs_only_in_its_setting() {
        let read = |name| Scenario::parse(ready(name).unwrap(), name).unwrap();
        let (mut fair, off) = (read("fair"), read("fair-off"));
        assert_eq!(fair.sharer(0, 7), "tenant-7");
        assert_eq!(fair.expect.fairness, Some(0.95));
        fair.expect = Expect {
            fairness: None,
            ..fair.expect
        };
        (fair.name, fair.about) = (off.name.clone(), off.about.clone());
        fair.gateway = off.gateway.clone();
        assert_eq!(fair, off);
    }
}
