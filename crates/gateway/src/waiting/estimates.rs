//! What can be said of a wait: how long it is at least, and what it is for.

use std::time::Duration;

use vorrang_scheduler::GroupStatus;

use crate::{GroupSettings, problem::Problem};

/// What a message says for the scheduler's word.
const REASONS: [(&str, &str); 9] = [
    ("requests", "room for requests (rpm)"),
    ("tokens", "room for tokens (tpm)"),
    ("input_tokens", "room for input tokens (itpm)"),
    ("output_tokens", "room for output tokens (otpm)"),
    (
        "concurrency",
        "the end of an open call (max_parallel_requests)",
    ),
    ("cooldown", "the end of a cooldown"),
    ("probing", "the answer to a probe after a cooldown"),
    ("pacing", "the pace of its priority (pacing)"),
    (
        "reserve",
        "room that is not kept for better priorities (reserve)",
    ),
];

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
    let text = |word| REASONS.iter().find(|(of, _)| *of == word);
    let held = status.reasons.words().filter_map(text);
    let held: Vec<&str> = held.map(|(_, text)| *text).collect();
    if !held.is_empty() {
        message += "; the first of them waits for ";
        message += &held.join(" and ");
    }
    message.push('.');
    Problem::TimedOutWaiting { message }
}

/// When the present queue will have been served, for a ticket of this priority at its end.
pub(crate) fn drained(
    status: &GroupStatus,
    priority: i32,
    settings: &GroupSettings,
    span: Duration,
) -> Duration {
    least_wait(status, status.depth, priority, settings, span)
}

/// When a ticket that waits at least so long will have been served, if no other request comes. With fair shares all tickets of
/// its priority may be served first.
pub(crate) fn served(
    status: &GroupStatus,
    least: Duration,
    priority: i32,
    settings: &GroupSettings,
    span: Duration,
) -> Duration {
    match settings.fair {
        Some(_) => least.max(drained(status, priority, settings, span)),
        None => least,
    }
}

/// How long a ticket with so many before it waits at least, if none of those leaves: the time to the head's grant, and a window and
/// its guard (`span`) for each windowful. A paced ticket waits for its part of the window behind each, except that two may go at once at each deployment.
pub(crate) fn least_wait(
    status: &GroupStatus,
    ahead: u64,
    priority: i32,
    settings: &GroupSettings,
    span: Duration,
) -> Duration {
    let next = status.next_free.unwrap_or_default();
    let deployments = &settings.deployments;
    let capacity: Option<u64> = deployments.iter().map(|deployment| deployment.rpm).sum();
    let Some(capacity) = capacity.filter(|capacity| *capacity > 0) else {
        return next;
    };
    let windows = u32::try_from(ahead / capacity).unwrap_or(u32::MAX);
    let mut then = span.saturating_mul(windows);
    // With aging, better tickets behind it may lift its pace.
    let paced = settings.pace_worse_than.is_some_and(|pace| priority > pace);
    if paced && settings.aging.is_none() {
        let parts = ahead
            .saturating_add(1)
            .saturating_sub(2 * deployments.len() as u64);
        #[expect(clippy::cast_precision_loss, reason = "a time, not a count")]
        let seconds = span.as_secs_f64() * parts as f64 / capacity as f64;
        then = then.max(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX));
    }
    next.saturating_add(then)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Config,
        config::{FairBy, FairCost, FairShares},
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
    fn a_full_queue_says_when_it_will_have_been_served() {
        let (mut settings, status) = limited();
        let drained = |settings: &GroupSettings| drained(&status, 1, settings, MINUTE).as_secs();
        // Six a window: two windows go by before the thirteenth is the head.
        assert_eq!(drained(&settings), 127);
        settings.deployments[0].rpm = None;
        assert_eq!(drained(&settings), 7);
    }

    #[test]
    fn paced_ticket_waits_for_each_ahead_and_unpaced_for_whole_windows() {
        let (mut settings, status) = limited();
        settings.pace_worse_than = Some(0);
        let least = |settings: &GroupSettings, ahead, priority| {
            least_wait(&status, ahead, priority, settings, MINUTE).as_secs()
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
        let long = least_wait(&status, u64::MAX / 2, 1, &settings, MINUTE * 1_000_000);
        assert!(long > MINUTE, "{long:?}");
    }

    #[test]
    fn estimate_omits_what_is_unknown() {
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
