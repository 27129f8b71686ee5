//! What an urgent request can wait at worst, for `vorrang check`; and where that is longer than the file's author may think.

use std::{collections::BTreeSet, fmt::Write, time::Duration};

use vorrang_scheduler::LimitKind;

use crate::{
    KeyPolicy,
    config::{
        Config, ConfigError, DeploymentSettings, GroupSettings, Kind, NamedLimit, kept,
        read::Section,
    },
};

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
    /// By the slowest limit of each kind.
    fn at(deployment: &DeploymentSettings, paced: bool) -> Self {
        let time = |limit: &NamedLimit, parts: f64| {
            #[expect(clippy::cast_precision_loss, reason = "shown in milliseconds")]
            let share = parts / limit.limit.max(1) as f64;
            if paced {
                limit.span.min(limit.span.mul_f64(share))
            } else {
                limit.span
            }
        };
        let slowest = |kinds: &[LimitKind], parts: f64| {
            let limits = deployment.limits.iter();
            let limits = limits.filter(|limit| kinds.contains(&limit.kind));
            limits
                .map(|limit| time(limit, parts))
                .max()
                .unwrap_or_default()
        };
        let tokens = [
            LimitKind::Tokens,
            LimitKind::InputTokens,
            LimitKind::OutputTokens,
        ];
        Self {
            call: deployment.lowest(LimitKind::Concurrency).is_some(),
            requests: slowest(&[LimitKind::Requests], 2.0),
            part: slowest(&[LimitKind::Requests], 1.0),
            tokens: slowest(&tokens, 1000.0),
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
    if !group.deployments.iter().all(DeploymentSettings::is_limited) {
        return writeln!(out, "not at all: there is a deployment without limits");
    }
    let paced = group.pace_worse_than.is_some();
    let waits = group.deployments.iter();
    let least = waits.map(|one| Longest::at(one, paced)).min();
    let mut parts = least.map_or_else(Vec::new, |least| least.parts(paced));
    if let Some(kept) = all_kept(group, config) {
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
fn all_kept(group: &GroupSettings, config: &Config) -> Option<String> {
    let reserve = group.reserve?;
    let keeps = |one: &&DeploymentSettings| {
        let mut limits = one.limits.iter();
        limits.all(|limit| kept(reserve, limit.limit) > 0)
    };
    let mut sums: Vec<(&NamedLimit, u64)> = Vec::new();
    let deployments = group.deployments.iter().filter(keeps);
    for limit in deployments.flat_map(|one| &one.limits) {
        let kept = kept(reserve, limit.limit);
        match sums.iter_mut().find(|(of, _)| of.same_window(limit)) {
            Some((_, sum)) => *sum += kept,
            None => sums.push((limit, kept)),
        }
    }
    let parts: Vec<String> = sums
        .into_iter()
        .map(|(limit, amount)| match limit.word().replace('_', " ") {
            _ if !limit.is_window() => format!("{amount} open calls"),
            words if limit.length == config.window => format!("{amount} {words} a window"),
            words => format!("{amount} {words} in {:?}", limit.length),
        })
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
    let (mut shared, mut longest_wait) = (Vec::new(), Duration::ZERO);
    for group in &config.groups {
        let settings = section.section(&group.name)?;
        if let Some(reserve) = group.reserve {
            let section = settings.section("reserve")?;
            for deployment in &group.deployments {
                let limits = deployment.limits.iter();
                for limit in limits.filter(|limit| kept(reserve, limit.limit) == 0) {
                    let text = format!(
                        "keeps nothing of {} at {}: the share would be less than one",
                        limit.name, deployment.id
                    );
                    section.tell(Kind::NO_EFFECT, "share", &text);
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
        let longest = group.deployments.iter().map(|one| {
            let windows = one.limits.iter().filter(|limit| limit.is_window());
            windows.map(|limit| limit.span).max()
        });
        // A deployment without a window always has room.
        let longest: Option<Vec<Duration>> = longest.collect();
        if let Some(span) = longest.and_then(|spans| spans.into_iter().min())
            && standings.len() > 1
            && !decided
        {
            shared.push(group.name.as_str());
            longest_wait = longest_wait.max(span);
        }
    }
    if !shared.is_empty() {
        let text = format!(
            "keys of different priorities share {} without pacing: the better ones can wait up to {} for a window that the others have filled; set pace_worse_than (none, if that is meant) or a reserve",
            shared.join(", "),
            shown(longest_wait),
        );
        ours.tell(Kind::LONG_WAIT, "keys", &text);
    }
    Ok(())
}
