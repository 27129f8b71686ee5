//! The groups that are simulated.

use std::time::Duration;

use vorrang_scheduler::{Deployment, GroupConfig, LimitKind, Reserve, Strategy, WhenAway};

use crate::scenario::WINDOW;

pub(crate) fn window() -> Duration {
    Duration::from_micros(WINDOW)
}

fn group(deployments: Vec<Deployment>) -> GroupConfig {
    GroupConfig::new(deployments)
}

pub(crate) fn plain(_: &mut fastrand::Rng) -> GroupConfig {
    group(vec![limited("a", 6, 4)])
}

pub(crate) fn limited(id: &str, requests: u64, concurrency: u64) -> Deployment {
    Deployment::new(id)
        .limit(LimitKind::Requests, requests, window())
        .limit(LimitKind::Concurrency, concurrency, Duration::ZERO)
}

pub(crate) fn few_slots(_: &mut fastrand::Rng) -> GroupConfig {
    group(vec![limited("a", 1000, 4)])
}

/// Nothing of it is counted in windows: nothing can be charged for the missing, either (P13).
pub(crate) fn only_slots(_: &mut fastrand::Rng) -> GroupConfig {
    let slots = Deployment::new("a").limit(LimitKind::Concurrency, 4, Duration::ZERO);
    group(vec![slots])
}

pub(crate) fn wide(_: &mut fastrand::Rng) -> GroupConfig {
    group(vec![limited("a", 10, 5)])
}

/// Each instance goes on alone while the server is away.
pub(crate) fn shared(rng: &mut fastrand::Rng) -> GroupConfig {
    let a = Deployment::new("a").limit(LimitKind::Requests, rng.u64(2..15), window());
    let a = if rng.bool() {
        let tokens = rng.u64(60..300);
        a.limit(LimitKind::Tokens, tokens, window()).limit(
            LimitKind::OutputTokens,
            tokens * 2 / 3,
            window(),
        )
    } else {
        a.limit(LimitKind::Requests, rng.u64(2..4), Duration::from_secs(2))
    };
    GroupConfig {
        when_away: WhenAway::Share,
        ..group(vec![a])
    }
}

/// The largest tickets may be above the limit.
pub(crate) fn with_tokens(rng: &mut fastrand::Rng) -> GroupConfig {
    let a = Deployment::new("a").limit(LimitKind::Tokens, rng.u64(40..200), window());
    group(vec![if rng.bool() {
        a.limit(LimitKind::Requests, rng.u64(3..10), window())
    } else {
        a
    }])
}

/// Limits of input and of output tokens; the largest tickets may be above them.
pub(crate) fn with_kinds(rng: &mut fastrand::Rng) -> GroupConfig {
    let mut a = Deployment::new("a")
        .limit(LimitKind::InputTokens, rng.u64(40..160), window())
        .limit(LimitKind::OutputTokens, rng.u64(40..160), window());
    if rng.bool() {
        a = a.limit(LimitKind::Tokens, rng.u64(60..250), window());
    }
    if rng.bool() {
        a = a.limit(LimitKind::OutputTokens, rng.u64(40..60), window() / 10);
    }
    group(vec![a])
}

/// Each deployment limits what the other does not.
pub(crate) fn kinds_ordered(rng: &mut fastrand::Rng) -> GroupConfig {
    // What is left of a limit fits the largest ticket: else it is refused.
    let limit = |id, kind, rng: &mut fastrand::Rng| {
        Deployment::new(id).limit(kind, rng.u64(130..200), window())
    };
    let a = limit("a", LimitKind::InputTokens, rng);
    let b = limit("b", LimitKind::OutputTokens, rng);
    let mut config = ordered(rng, group(vec![a, b]));
    if rng.bool() {
        config.strategy = Strategy::UsageBased;
    }
    config
}

pub(crate) fn several(rng: &mut fastrand::Rng) -> GroupConfig {
    let mut config = group(Vec::new());
    for id in ["a", "b", "c"].into_iter().take(rng.usize(2..4)) {
        let mut deployment =
            Deployment::new(id).limit(LimitKind::Requests, rng.u64(2..6), window());
        if rng.bool() {
            deployment = deployment.limit(LimitKind::Concurrency, rng.u64(1..4), Duration::ZERO);
        }
        if rng.bool() {
            deployment = deployment.limit(LimitKind::Tokens, rng.u64(60..200), window());
        }
        if rng.u8(..3) == 0 {
            deployment = deployment.limit(LimitKind::Requests, 2, window() / 10);
        }
        if rng.bool() {
            deployment.weight = Some(rng.f64());
        }
        if rng.u8(..4) == 0 {
            deployment.cooldown = Some(Duration::from_millis(rng.u64(200..4000)));
        }
        config.deployments.push(deployment);
    }
    if rng.bool() {
        config.strategy = Strategy::UsageBased;
    }
    config.allowed_fails = rng.u32(0..3);
    config.cooldown = Duration::from_millis(rng.u64(500..4000));
    if rng.u8(..4) == 0 {
        config.max_queue_depth = Some(rng.u64(3..12));
    }
    config
}

pub(crate) fn short_windows(_: &mut fastrand::Rng) -> GroupConfig {
    let a = Deployment::new("a").limit(LimitKind::Requests, 2, window() / 10);
    group(vec![a.limit(LimitKind::Requests, 12, window())])
}

/// With any of pacing, a reserve, aging and fair shares.
fn ordered(rng: &mut fastrand::Rng, config: GroupConfig) -> GroupConfig {
    let mut some = |often: u8| rng.u8(..4) < often;
    let (paces, keeps, ages, fair) = (some(3), some(2), some(1), some(2));
    GroupConfig {
        pace_worse_than: paces.then(|| rng.i32(-4..5)),
        reserve: keeps.then(|| Reserve {
            priority: rng.i32(-4..5),
            share: rng.f64(),
        }),
        aging: ages.then(|| Duration::from_millis(rng.u64(1..5_000))),
        fair,
        ..config
    }
}

pub(crate) fn wide_ordered(rng: &mut fastrand::Rng) -> GroupConfig {
    let config = wide(rng);
    ordered(rng, config)
}

pub(crate) fn wide_fair(rng: &mut fastrand::Rng) -> GroupConfig {
    GroupConfig {
        fair: true,
        ..wide(rng)
    }
}

pub(crate) fn tokens_ordered(rng: &mut fastrand::Rng) -> GroupConfig {
    // What is left of the limit fits the largest ticket: else it is refused.
    let a = Deployment::new("a").limit(LimitKind::Tokens, rng.u64(130..300), window());
    ordered(rng, group(vec![a]))
}

pub(crate) fn several_ordered(rng: &mut fastrand::Rng) -> GroupConfig {
    let config = several(rng);
    ordered(rng, config)
}

/// Failures that are never enough.
pub(crate) const ALWAYS: u32 = u32::MAX;

/// Never cools by itself.
pub(crate) fn patient(_: &mut fastrand::Rng) -> GroupConfig {
    GroupConfig {
        allowed_fails: ALWAYS,
        ..group(vec![limited("a", 6, 4)])
    }
}

/// Cool only when the upstream says so, so that the referee knows.
pub(crate) fn frank(rng: &mut fastrand::Rng) -> GroupConfig {
    let calls = |id: &&str| Deployment::new(*id).limit(LimitKind::Requests, 12, window());
    GroupConfig {
        allowed_fails: ALWAYS,
        ..group(["a", "b"].iter().take(rng.usize(1..3)).map(calls).collect())
    }
}

pub(crate) fn one_sick(rng: &mut fastrand::Rng) -> GroupConfig {
    GroupConfig {
        cooldown: Duration::from_millis(rng.u64(500..4000)),
        allowed_fails: rng.u32(0..3),
        ..group(vec![limited("a", 12, 4)])
    }
}
