//! What can be said of a wait: how long it is at least, and what it is for.

use std::{borrow::Cow, time::Duration};

use vorrang_scheduler::{GroupStatus, LimitKind};

use crate::{GroupSettings, config::NamedLimit, problem::Problem, router::fleet::replaces};

/// What a message says for the scheduler's word, beside limits.
const REASONS: [(&str, &str); 5] = [
    ("paused", "an operator, who has paused it"),
    ("cooldown", "the end of a cooldown"),
    ("probing", "the answer to a probe after a cooldown"),
    ("pacing", "the pace of its priority (pacing)"),
    (
        "reserve",
        "room that is not kept for better priorities (reserve)",
    ),
];

/// A reason in words, with the settings that cause it.
fn reason(word: &str, settings: &GroupSettings) -> Option<String> {
    if let Some((_, text)) = REASONS.iter().find(|(of, _)| *of == word) {
        return Some((*text).to_owned());
    }
    let text = match LimitKind::from_word(word)? {
        LimitKind::Concurrency => "the end of an open call".to_owned(),
        kind => format!("room for {}", kind.word().replace('_', " ")),
    };
    let mut names: Vec<&str> = Vec::new();
    let limits = settings.deployments.iter().flat_map(|one| &one.limits);
    for limit in limits.filter(|limit| limit.word() == word) {
        let name = limit.setting();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Some(match names.as_slice() {
        // Of another configuration, during a roll-out.
        [] => text,
        names => format!("{text} ({})", names.join(", ")),
    })
}

/// The time of a request is up that came behind `ahead` others, where that is known.
pub(crate) fn timed_out(
    settings: &GroupSettings,
    ahead: Option<u64>,
    status: &GroupStatus,
) -> Problem {
    let group = &settings.name;
    let came = match ahead {
        None => "It waited".to_owned(),
        // Tickets of other tenants may have been ahead, or have come between.
        Some(ahead) if settings.fair.is_some() => format!("It came behind at least {ahead}"),
        Some(ahead) => format!("It came as number {}", ahead.saturating_add(1)),
    };
    // The ticket itself still waits, but the last report of the fleet may not include it.
    let depth = status.depth.max(1);
    let mut message = format!(
        "Request timed out while polling queue. {came} in the queue of {group}, where {depth} {} now",
        if depth == 1 { "waits" } else { "wait" }
    );
    let held = status.reasons.words();
    let held: Vec<String> = held.filter_map(|word| reason(word, settings)).collect();
    if !held.is_empty() {
        message += "; the first of them waits for ";
        message += &held.join(" and ");
    }
    message.push('.');
    Problem::TimedOutWaiting { message }
}

/// When the present queue will have been served, for a ticket of this priority at its end.
pub(crate) fn drained(status: &GroupStatus, priority: i32, settings: &GroupSettings) -> Duration {
    least_wait(status, status.depth, priority, settings)
}

/// When a ticket that waits at least so long will have been served, if no other request comes. With fair shares all tickets of
/// its priority may be served first.
pub(crate) fn served(
    status: &GroupStatus,
    least: Duration,
    priority: i32,
    settings: &GroupSettings,
) -> Duration {
    match settings.fair {
        Some(_) => least.max(drained(status, priority, settings)),
        None => least,
    }
}

/// How long a ticket with so many before it waits at least, if none of those leaves: the time to the head's grant, and a window and
/// its guard for each windowful, by the limit for which that is longest. A paced ticket waits for its part of the window behind each, except that two may
/// go at once at each deployment.
pub(crate) fn least_wait(
    status: &GroupStatus,
    ahead: u64,
    priority: i32,
    settings: &GroupSettings,
) -> Duration {
    let settings = &*in_force(settings, status);
    let next = status.next_free.unwrap_or_default();
    let deployments = &settings.deployments;
    let spans = deployments
        .iter()
        .flat_map(|one| one.limits_of(LimitKind::Requests))
        .map(|limit| limit.span);
    let whole_windows = |span: Duration| {
        let capacity = most_within(settings, span)?;
        let windows = u32::try_from(ahead / capacity.max(1)).unwrap_or(u32::MAX);
        Some(span.saturating_mul(windows))
    };
    let mut then = spans.filter_map(whole_windows).max().unwrap_or_default();
    // With aging, better tickets behind it may lift its pace.
    let paced = settings.pace_worse_than.is_some_and(|pace| priority > pace);
    if paced
        && settings.aging.is_none()
        && let Some(rate) = pace(settings)
    {
        let parts = ahead
            .saturating_add(1)
            .saturating_sub(2 * deployments.len() as u64);
        #[expect(clippy::cast_precision_loss, reason = "a time, not a count")]
        let seconds = parts as f64 / rate;
        then = then.max(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX));
    }
    next.saturating_add(then)
}

/// The settings with the limits that operators have changed.
pub(crate) fn in_force<'a>(
    settings: &'a GroupSettings,
    status: &GroupStatus,
) -> Cow<'a, GroupSettings> {
    let changes = &status.overrides.limits;
    if changes.is_empty() {
        return Cow::Borrowed(settings);
    }
    let mut settings = settings.clone();
    for deployment in &mut settings.deployments {
        let mut limits = std::mem::take(&mut deployment.limits);
        for limit in &mut limits {
            let mut changes = changes.iter();
            if let Some(change) = changes.find(|change| replaces(change, deployment, limit)) {
                limit.limit = u64::try_from(change.limit).unwrap_or_default();
            }
        }
        deployment.limits = limits;
    }
    Cow::Owned(settings)
}

/// The most requests that all deployments take within a time; `None` where one of them has no limit of requests.
fn most_within(settings: &GroupSettings, time: Duration) -> Option<u64> {
    let most = settings.deployments.iter().map(|one| {
        let limits = one.limits_of(LimitKind::Requests);
        limits.map(|limit| limit.most_within(time)).min()
    });
    most.reduce(|sum, of| Some(sum?.saturating_add(of?)))?
}

/// How many requests a second pacing lets through; `None` where a deployment has no limit of requests.
fn pace(settings: &GroupSettings) -> Option<f64> {
    settings
        .deployments
        .iter()
        .map(|one| {
            one.limits_of(LimitKind::Requests)
                .map(NamedLimit::rate)
                .reduce(f64::min)
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Config,
        config::{FairBy, FairCost, FairShares, named},
    };

    const MINUTE: Duration = Duration::from_secs(60);

    fn limited() -> (GroupSettings, GroupStatus) {
        let status = GroupStatus {
            depth: 13,
            next_free: Some(Duration::from_secs(7)),
            ..GroupStatus::default()
        };
        (Config::demo().groups.remove(1), status)
    }

    #[test]
    fn drain_estimate_of_a_full_queue_counts_windows_of_its_limits() {
        let (mut settings, status) = limited();
        let drained = |settings: &GroupSettings| drained(&status, 1, settings).as_secs();
        // Six a window: two windows go by before the thirteenth is the head.
        assert_eq!(drained(&settings), 127);
        settings.deployments[0].limits.clear();
        assert_eq!(drained(&settings), 7);
    }

    #[test]
    fn estimate_counts_each_paced_ticket_ahead_but_whole_windows_for_unpaced_ones() {
        let (mut settings, status) = limited();
        settings.pace_worse_than = Some(0);
        let least = |settings: &GroupSettings, ahead, priority| {
            least_wait(&status, ahead, priority, settings).as_secs()
        };
        // Of those before it and itself two go at once.
        assert_eq!(least(&settings, 5, 1), 7 + 40);
        assert_eq!(least(&settings, 1, 1), 7);
        assert_eq!(least(&settings, 5, 0), 7);
        assert_eq!(least(&settings, 13, 1), 7 + 120);
        settings.aging = Some(MINUTE);
        assert_eq!(least(&settings, 5, 1), 7);
        settings.aging = None;
        settings.deployments.push(settings.deployments[0].clone());
        assert_eq!(least(&settings, 5, 1), 7 + 10);
        let long = least_wait(&status, u64::MAX / 2, 1, &settings);
        assert!(long > MINUTE, "{long:?}");
    }

    #[test]
    fn estimate_is_the_longest_wait_of_all_windows() {
        let (mut settings, status) = limited();
        let least =
            |settings: &GroupSettings, ahead| least_wait(&status, ahead, 1, settings).as_secs();
        let day = 24 * 60 * 60;
        settings.deployments[0].limits.push(named("rpd", 20));
        assert_eq!(least(&settings, 13), 7 + 120, "the minute's");
        assert_eq!(least(&settings, 20), 7 + day, "the day's");
        // Another deployment that has no limit by the minute may take all of its day at once.
        let mut other = settings.deployments[0].clone();
        other.limits = vec![named("rpd", 5)];
        settings.deployments.push(other);
        assert_eq!(least(&settings, 13), 7 + 60);
        assert_eq!(least(&settings, 25), 7 + day);
        settings.pace_worse_than = Some(0);
        // 25 a day go evenly, after two at each deployment.
        assert_eq!(least(&settings, 4), 7 + day / 25);
    }

    #[test]
    fn timeout_message_omits_unknown_positions_and_waits() {
        let status = GroupStatus::default();
        let (mut settings, _) = limited();
        settings.name = "m".into();
        let told =
            |settings: &GroupSettings, ahead| timed_out(settings, ahead, &status).to_string();
        let says = "Request timed out while polling queue.";
        assert_eq!(
            told(&settings, None),
            format!("{says} It waited in the queue of m, where 1 waits now.")
        );
        assert_eq!(
            told(&settings, Some(2)),
            format!("{says} It came as number 3 in the queue of m, where 1 waits now.")
        );
        settings.fair = Some(FairShares {
            by: FairBy::Key,
            cost: FairCost::Requests,
        });
        assert_eq!(
            told(&settings, Some(2)),
            format!("{says} It came behind at least 2 in the queue of m, where 1 waits now.")
        );
    }
}
