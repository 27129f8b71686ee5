//! `baseline.json`: the counts of the last accepted commit, and how a commit's counts compare with them.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

/// Beyond it a figure fails.
const TOLERANCE: f64 = 0.05;
/// Of figures whose work depends on the clock: how many ops share a message to Redis does, and counts differed by 4 % on a busy machine.
const LOOSE: (&str, f64) = ("mock_on_redis.", 0.15);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Baseline {
    pub(crate) about: String,
    /// Of what the counts depend on beside the source.
    pub(crate) versions: BTreeMap<String, String>,
    /// `NAME.instructions` and `NAME.allocations`, of each request or step.
    pub(crate) figures: BTreeMap<String, f64>,
}

/// How the gateway was built that is counted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Build {
    /// As users run it.
    Release,
    /// By the dev profile, as the tests build it: several times the instructions, but a change shows in them too, and CI has no time for
    /// another build.
    Dev,
}

/// Names of figures of the dev profile begin with it.
pub(crate) const DEV: &str = "dev.";
/// Those of Redis are the same whatever the build is.
const REDIS: &str = "redis.";

impl Build {
    /// Whether a figure of the baseline is measured with this build.
    fn has(self, figure: &str) -> bool {
        figure.starts_with(DEV) == (self == Self::Dev) || figure.starts_with(REDIS)
    }
}

/// A comparison, line by line.
#[derive(Debug, PartialEq)]
pub(crate) struct Comparison {
    pub(crate) text: String,
    pub(crate) failed: bool,
}

impl Baseline {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = fs::read(path).with_context(|| path.display().to_string())?;
        serde_json::from_slice(&text).with_context(|| path.display().to_string())
    }

    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        fs::write(path, text).with_context(|| path.display().to_string())
    }

    /// Takes over what was measured with this build; what is only measured with the other one stays.
    pub(crate) fn accept(&mut self, build: Build, now: Self) {
        self.figures.retain(|name, _| !build.has(name));
        self.figures.extend(now.figures);
        self.about = now.about;
        self.versions = now.versions;
    }

    /// `redis.` figures count only where they are of the same Redis.
    pub(crate) fn compare(&self, build: Build, now: &Self) -> Comparison {
        let mut comparison = Comparison {
            text: String::new(),
            failed: false,
        };
        let text = &mut comparison.text;
        for (what, version) in &now.versions {
            let known = self.versions.get(what);
            if known != Some(version) {
                let known = known.map_or("nothing", String::as_str);
                _ = writeln!(text, "  {what} is {version}; the baseline is of {known}");
            }
        }
        let other_redis = self.versions.get("redis") != now.versions.get("redis");
        for (name, &value) in &now.figures {
            let Some(&before) = self.figures.get(name) else {
                _ = writeln!(text, "  {name:<32} {value:>9.0}  new");
                continue;
            };
            let change = value / before - 1.0;
            let tolerance = if name.starts_with(LOOSE.0) {
                LOOSE.1
            } else {
                TOLERANCE
            };
            let verdict = if other_redis && name.starts_with(REDIS) {
                "  not compared: another Redis"
            } else if value > before * (1.0 + tolerance) {
                comparison.failed = true;
                "  FAILED"
            } else {
                ""
            };
            let change = change * 100.0;
            _ = writeln!(
                text,
                "  {name:<32} {value:>9.0}  {change:>+6.1} % of {before:.0}{verdict}"
            );
        }
        for name in self.figures.keys() {
            if build.has(name) && !now.figures.contains_key(name) {
                comparison.failed = true;
                _ = writeln!(text, "  {name:<32} was not measured  FAILED");
            }
        }
        comparison
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn baseline(redis: &str, figures: &[(&str, f64)]) -> Baseline {
        Baseline {
            about: String::new(),
            versions: BTreeMap::from([("redis".into(), redis.into())]),
            figures: figures
                .iter()
                .map(|(name, value)| ((*name).into(), *value))
                .collect(),
        }
    }

    #[test]
    fn more_than_five_per_cent_fails_and_less_does_not() {
        let before = baseline("7", &[("mock.instructions", 1000.0)]);
        let now = |value| baseline("7", &[("mock.instructions", value)]);
        let compare = |value| before.compare(Build::Release, &now(value));
        assert!(!compare(1050.0).failed);
        assert!(!compare(500.0).failed);
        assert!(compare(1051.0).failed);
        assert!(compare(1051.0).text.contains("+5.1 % of 1000  FAILED"));
    }

    #[test]
    fn figures_that_depend_on_the_clock_may_differ_by_more() {
        let before = baseline("7", &[("mock_on_redis.instructions", 1000.0)]);
        let now = |value| baseline("7", &[("mock_on_redis.instructions", value)]);
        let compare = |value| before.compare(Build::Release, &now(value));
        assert!(!compare(1150.0).failed);
        assert!(compare(1151.0).failed);
    }

    #[test]
    fn figure_that_is_gone_fails_and_a_new_one_does_not() {
        let (one, both) = ([("a", 1.0)], [("a", 1.0), ("b", 1.0)]);
        let (one, both) = (baseline("7", &one), baseline("7", &both));
        assert!(both.compare(Build::Release, &one).failed);
        assert!(!one.compare(Build::Release, &both).failed);
    }

    #[test]
    fn builds_have_figures_of_their_own_beside_those_of_redis() {
        let all = [("dev.mock.a", 2.0), ("mock.a", 1.0), ("redis.a", 3.0)];
        let before = baseline("7", &all);
        let compare = |build, figures: &[_]| before.compare(build, &baseline("7", figures)).failed;
        assert!(!compare(Build::Dev, &[all[0], all[2]]));
        assert!(!compare(Build::Release, &all[1..]));
        assert!(compare(Build::Dev, &all[1..]));
        assert!(compare(Build::Release, &all[..2]));
        let mut accepted = before;
        accepted.accept(
            Build::Dev,
            baseline("8", &[("dev.new", 4.0), ("redis.a", 5.0)]),
        );
        let expected = [("dev.new", 4.0), ("mock.a", 1.0), ("redis.a", 5.0)];
        assert_eq!(accepted, baseline("8", &expected));
    }

    #[test]
    fn steps_of_another_redis_are_not_compared() {
        let compare = |name| {
            let before = baseline("7.0.15", &[(name, 10.0)]);
            before.compare(Build::Release, &baseline("8.0.0", &[(name, 20.0)]))
        };
        assert!(!compare("redis.step_1.instructions").failed);
        assert!(compare("mock.instructions").failed);
        assert!(compare("mock.instructions").text.contains("redis is 8.0.0"));
    }
}
