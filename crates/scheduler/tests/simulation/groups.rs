//! The configurations of the simulated groups.

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

/// Without windows, so that nothing can be charged for unaccounted instances (P13).
pub(crate) fn only_slots(_: &mut fastrand::Rng) -> GroupConfig {
    let slots = Deployment::new("a").limit(LimitKind::Concurrency, 4, Duration::ZERO);
    group(vec![slots])
}

pub(crate) fn wide(_: &mut fastrand::Rng) -> GroupConfig {
    group(vec![limited("a", 10, 5)])
}

/// Each instance uses its part of the limits while the backend is away (P21).
pub(crate) fn shared_when_away(rng: &mut fastrand::Rng) -> GroupConfig {
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

/// Limits of tokens. The largest tickets may be above them.
pub(crate) fn with_tokens(rng: &mut fastrand::Rng) -> GroupConfig {
    let a = Deployment::new("a").limit(LimitKind::Tokens, rng.u64(40..200), window());
    group(vec![if rng.bool() {
        a.limit(LimitKind::Requests, rng.u64(3..10), window())
    } else {
        a
    }])
}

/// Limits of input and of output tokens. The largest tickets may be above them.
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

/// One deployment limits input tokens, the other output tokens.
pub(crate) fn kinds_with_policies(rng: &mut fastrand::Rng) -> GroupConfig {
    // The limits are large enough for the largest ticket, which would be refused otherwise.
    let limit = |id, kind, rng: &mut fastrand::Rng| {
        Deployment::new(id).limit(kind, rng.u64(130..200), window())
    };
    let a = limit("a", LimitKind::InputTokens, rng);
    let b = limit("b", LimitKind::OutputTokens, rng);
    let mut config = with_policies(rng, group(vec![a, b]));
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

/// A long window that never fills beside a short one.
pub(crate) fn long_window(_: &mut fastrand::Rng) -> GroupConfig {
    let a = limited("a", 6, 4);
    group(vec![a.limit(LimitKind::Requests, 1000, 40 * window())])
}

/// A long window that fills.
pub(crate) fn full_long_window(rng: &mut fastrand::Rng) -> GroupConfig {
    let a = limited("a", 6, 4);
    group(vec![a.limit(
        LimitKind::Requests,
        rng.u64(12..20),
        4 * window(),
    )])
}

pub(crate) fn short_windows(_: &mut fastrand::Rng) -> GroupConfig {
    let a = Deployment::new("a").limit(LimitKind::Requests, 2, window() / 10);
    group(vec![a.limit(LimitKind::Requests, 12, window())])
}

/// Adds any of pacing, a reserve, aging and fair shares.
fn with_policies(rng: &mut fastrand::Rng, config: GroupConfig) -> GroupConfig {
    let mut some = |often: u8| rng.u8(..4) < often;
    let (pacing, reserve, aging, fair) = (some(3), some(2), some(1), some(2));
    GroupConfig {
        pace_worse_than: pacing.then(|| rng.i32(-4..5)),
        reserve: reserve.then(|| Reserve {
            priority: rng.i32(-4..5),
            share: rng.f64(),
        }),
        aging: aging.then(|| Duration::from_millis(rng.u64(1..5_000))),
        fair,
        ..config
    }
}

pub(crate) fn wide_with_policies(rng: &mut fastrand::Rng) -> GroupConfig {
    let config = wide(rng);
    with_policies(rng, config)
}

pub(crate) fn wide_fair(rng: &mut fastrand::Rng) -> GroupConfig {
    GroupConfig {
        fair: true,
        ..wide(rng)
    }
}

pub(crate) fn tokens_with_policies(rng: &mut fastrand::Rng) -> GroupConfig {
    // The limit is large enough for the largest ticket, which would be refused otherwise.
    let a = Deployment::new("a").limit(LimitKind::Tokens, rng.u64(130..300), window());
    with_policies(rng, group(vec![a]))
}

pub(crate) fn several_with_policies(rng: &mut fastrand::Rng) -> GroupConfig {
    let config = several(rng);
    with_policies(rng, config)
}

/// `allowed_fails` that no number of failures reaches.
pub(crate) const ANY_NUMBER: u32 = u32::MAX;

/// Counted failures never cool the deployment.
pub(crate) fn without_counted_failures(_: &mut fastrand::Rng) -> GroupConfig {
    GroupConfig {
        allowed_fails: ANY_NUMBER,
        ..group(vec![limited("a", 6, 4)])
    }
}

/// Deployments cool only for a time that the upstream names, so that the referee knows all cooldowns.
pub(crate) fn explicit_cooldowns(rng: &mut fastrand::Rng) -> GroupConfig {
    let calls = |id: &&str| Deployment::new(*id).limit(LimitKind::Requests, 12, window());
    GroupConfig {
        allowed_fails: ANY_NUMBER,
        ..group(["a", "b"].iter().take(rng.usize(1..3)).map(calls).collect())
    }
}

pub(crate) fn one_unhealthy(rng: &mut fastrand::Rng) -> GroupConfig {
    GroupConfig {
        cooldown: Duration::from_millis(rng.u64(500..4000)),
        allowed_fails: rng.u32(0..3),
        ..group(vec![limited("a", 12, 4)])
    }
}
