//! What an urgent request can wait at worst, for `vorrang check`; and where that is longer than the file's author may think.

use std::{collections::BTreeSet, fmt::Write, time::Duration};

use vorrang_scheduler::COUNTED;

use crate::{
    KeyPolicy,
    config::{Config, ConfigError, DeploymentSettings, GroupSettings, kept, read::Section},
};

impl DeploymentSettings {
    fn has_window(&self) -> bool {
        self.limits().any(|(_, kind, _)| COUNTED.contains(&kind))
    }
}

/// The longest wait for room at one deployment, by what it is for; the last of them to end counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Longest {
    /// A call has to end; when it will is unknown.
    call: bool,
    /// For one request: a window, or with pacing two of its parts.
    ///
    /// A window of N calls is full N - 2 parts after the first of them at the earliest if the last of them was paced: pacing tolerates one part.
    requests: Duration,
    /// A part: window / limit. Each better call behind the last paced one makes the wait longer by as much.
    part: Duration,
    /// For 1,000 tokens, by the slowest of their limits. As with requests the last paced call counts beside its own; and the call whose tokens come
    /// free first counts in full.
    tokens: Duration,
}

impl Longest {
    fn at(deployment: &DeploymentSettings, paced: bool, span: Duration) -> Self {
        let time = |limit: Option<u64>, parts: f64| match limit {
            #[expect(clippy::cast_precision_loss, reason = "shown in milliseconds")]
            Some(limit) if paced => span.min(span.mul_f64(parts / limit.max(1) as f64)),
            Some(_) => span,
            None => Duration::ZERO,
        };
        Self {
            call: deployment.max_parallel_requests.is_some(),
            requests: time(deployment.rpm, 2.0),
            part: time(deployment.rpm, 1.0),
            tokens: [deployment.tpm, deployment.itpm, deployment.otpm]
                .into_iter()
                .map(|limit| time(limit, 1000.0))
                .max()
                .unwrap_or_default(),
        }
    }

    /// In parts that belong together.
    fn parts(self, paced: bool) -> Vec<String> {
        let mut parts = Vec::new();
        if !paced && self.requests.max(self.tokens) > Duration::ZERO {
            let window = shown(self.requests.max(self.tokens));
            parts.push(format!("up to {window}, a full window"));
        }
        if paced && self.requests > Duration::ZERO {
            let (two, part) = (shown(self.requests), shown(self.part));
            parts.push(format!(
                "up to {two} (pacing; {part} more for each unpaced call that went just before)"
            ));
        }
        if paced && self.tokens > Duration::ZERO {
            let or = if parts.is_empty() {
                ""
            } else {
                "or if longer "
            };
            let tokens = shown(self.tokens);
            parts.push(format!(
                "{or}about {tokens} for each 1000 tokens of it and of the two largest others (pacing)"
            ));
        }
        if self.call {
            let and = if parts.is_empty() { "" } else { "and " };
            parts.push(format!("{and}until an open call ends"));
        }
        parts
    }
}

/// A group's settings for order and pace, and what they mean for an urgent request.
pub(in crate::config) fn write(
    group: &GroupSettings,
    config: &Config,
    out: &mut String,
) -> std::fmt::Result {
    if let Some(pace) = group.pace_worse_than {
        writeln!(
            out,
            "    pacing: worse than {pace} goes no faster than limit / window"
        )?;
    }
    if let Some(reserve) = group.reserve {
        writeln!(
            out,
            "    reserve: worse than {} leaves a share of {} of each limit",
            reserve.priority, reserve.share
        )?;
    }
    if let Some(aging) = group.aging {
        // With fair shares it is the start tag.
        let since = group.fair.as_ref().map_or("", |_| "'s start tag");
        write!(
            out,
            "    aging: what comes later than {aging:?} x (difference of priority) after a request{since} overtakes it no more"
        )?;
        let (best, worst) = named_priorities(group, config);
        if best < worst {
            let levels = worst.abs_diff(best);
            write!(
                out,
                "; between {best} and {worst}: {:?}",
                aging.saturating_mul(levels)
            )?;
        }
        writeln!(out)?;
    }
    write_worst(group, config, out)
}

fn write_worst(group: &GroupSettings, config: &Config, out: &mut String) -> std::fmt::Result {
    let thresholds = [
        group.pace_worse_than,
        group.reserve.map(|reserve| reserve.priority),
    ];
    let urgent = thresholds.into_iter().flatten().min().unwrap_or(0);
    write!(
        out,
        "    at worst, while no better request waits, priority {urgent} or better waits "
    )?;
    let free = |deployment: &&DeploymentSettings| deployment.limits().next().is_none();
    if group.deployments.iter().any(|one| free(&one)) {
        return writeln!(out, "not at all: there is a deployment without limits");
    }
    let paced = group.pace_worse_than.is_some();
    let waits = group.deployments.iter();
    let least = waits
        .map(|one| Longest::at(one, paced, config.span()))
        .min();
    let mut parts = least.map_or_else(Vec::new, |least| least.parts(paced));
    if let Some(kept) = all_kept(group) {
        if let Some(first) = parts.first_mut() {
            first.insert_str(0, "then ");
        }
        parts.insert(
            0,
            format!("not at all as long as the reserve lasts ({kept})"),
        );
    }
    writeln!(out, "{}", parts.join(",\n      "))
}

/// What the reserve keeps, over all deployments at which it keeps something of each limit.
fn all_kept(group: &GroupSettings) -> Option<String> {
    let reserve = group.reserve?;
    let keeps = |one: &DeploymentSettings| one.limits().all(|(.., limit)| kept(reserve, limit) > 0);
    let of = |name: &str| -> u64 {
        let deployments = group.deployments.iter().filter(|one| keeps(one));
        let limits = deployments.flat_map(DeploymentSettings::limits);
        limits
            .filter(|(limit, ..)| *limit == name)
            .map(|(.., limit)| kept(reserve, limit))
            .sum()
    };
    let parts: Vec<String> = [
        ("rpm", "requests a window"),
        ("tpm", "tokens a window"),
        ("itpm", "input tokens a window"),
        ("otpm", "output tokens a window"),
        ("max_parallel_requests", "open calls"),
    ]
    .into_iter()
    .map(|(name, unit)| (of(name), unit))
    .filter(|(amount, _)| *amount > 0)
    .map(|(amount, unit)| format!("{amount} {unit}"))
    .collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// In whole milliseconds where there are some.
fn shown(time: Duration) -> String {
    if time < Duration::from_millis(1) {
        return format!("{time:?}");
    }
    let rounded = (time.as_micros() + 500) / 1000;
    format!(
        "{:?}",
        Duration::from_millis(u64::try_from(rounded).unwrap_or(u64::MAX))
    )
}

/// Priority of calls that name none, and the best that they can have.
fn standing(key: Option<&KeyPolicy>, group: &GroupSettings, config: &Config) -> (i32, i32) {
    let default = key
        .and_then(|key| key.default_priority)
        .or(group.default_priority)
        .or(config.default_priority)
        .unwrap_or(0);
    let best = key.and_then(|key| key.best_priority).unwrap_or(i32::MIN);
    (default.max(best), best)
}

/// The best and the worst that the file names for callers of a group.
fn named_priorities(group: &GroupSettings, config: &Config) -> (i32, i32) {
    let (anyones, _) = standing(None, group, config);
    let keys = config.callers(group).flat_map(|(_, key)| {
        let (default, _) = standing(Some(key), group, config);
        [Some(default), key.best_priority]
    });
    keys.flatten()
        .fold((anyones, anyones), |(best, worst), priority| {
            (best.min(priority), worst.max(priority))
        })
}

/// Warns where a full window can delay urgent requests and no setting addresses it, and where a reserve keeps nothing.
pub(in crate::config) fn warn(ours: &Section<'_>, config: &Config) -> Result<(), ConfigError> {
    let section = ours.section("groups")?;
    let mut shared = Vec::new();
    for group in &config.groups {
        let settings = section.section(&group.name)?;
        if let Some(reserve) = group.reserve {
            let section = settings.section("reserve")?;
            for deployment in &group.deployments {
                for (name, ..) in deployment
                    .limits()
                    .filter(|(.., limit)| kept(reserve, *limit) == 0)
                {
                    let text = format!(
                        "keeps nothing of {name} at {}: the share would be less than one",
                        deployment.id
                    );
                    section.warn("share", &text);
                }
            }
        }
        let standings: BTreeSet<_> = config
            .callers(group)
            .map(|(_, key)| standing(Some(key), group, config))
            .collect();
        // An explicit `none` is a decision: no warning.
        let decided = settings.has("pace_worse_than")
            || group.pace_worse_than.is_some()
            || group.reserve.is_some();
        let limited = group.deployments.iter().all(DeploymentSettings::has_window);
        if standings.len() > 1 && limited && !decided {
            shared.push(group.name.as_str());
        }
    }
    if !shared.is_empty() {
        let text = format!(
            "keys of different priorities share {} without pacing: the better ones can wait up to {} for a window that the others have filled; set pace_worse_than (none, if that is meant) or a reserve",
            shared.join(", "),
            shown(config.span()),
        );
        ours.warn("keys", &text);
    }
    Ok(())
}
