//! Histories that reach the bounds of a step (P16), and the rules that the other fixed tests use.

use std::sync::Arc;

use vorrang_scheduler::{
    Claim, Micros,
    rules::{DeploymentRules, NONE, Rules, Window},
};

use crate::history::{Action, Event, History, deployment_name};

/// The server's clock at the beginning.
pub(crate) const START: Micros = Micros(1_795_000_000_123_456);

/// One deployment with a window of a minute.
pub(crate) fn simple_rules(tokens: i64, concurrency: i64) -> Arc<Rules> {
    let window = Window {
        span: Micros(60_000_000),
        limits: [NONE, tokens, NONE, NONE],
    };
    Arc::new(Rules {
        strategy: 0,
        latency_age: Micros::ZERO,
        latency_buffer: 0,
        max_queue_depth: 0,
        allowed_fails: 3,
        cooldown: Micros(5_000_000),
        lease: Micros(3_000_000),
        memory: Micros(60_000_000),
        pace_worse_than: i32::MAX,
        reserve_priority: i32::MAX,
        left: 1_000_000,
        aging: Micros::ZERO,
        fair: false,
        deployments: vec![DeploymentRules {
            id: "gpt".into(),
            weight: 1,
            order: 0,
            concurrency,
            cooldown: Micros(5_000_000),
            windows: vec![window],
        }],
    })
}

/// Deployments without limits, by weight.
pub(crate) fn weighted(weights: &[u64]) -> Arc<Rules> {
    let deployments = weights
        .iter()
        .enumerate()
        .map(|(n, weight)| DeploymentRules {
            id: deployment_name(n),
            weight: *weight,
            order: 0,
            concurrency: NONE,
            cooldown: Micros(5_000_000),
            windows: Vec::new(),
        });
    Arc::new(Rules {
        deployments: deployments.collect(),
        ..(*simple_rules(NONE, NONE)).clone()
    })
}

/// One instance, whose first recovery is over before these events.
fn after_recovery(rules: Arc<Rules>, events: impl IntoIterator<Item = Event>) -> History {
    let start = [send(Vec::new()), send(Vec::new())];
    // With fresh instances alone, the recovery lasts for the lease (P3).
    let recovery = (0..7).flat_map(|_| [Event::Tick(500_000), send(Vec::new())]);
    History {
        start: START,
        rules: vec![rules],
        instances: vec!["a".into()],
        events: start.into_iter().chain(recovery).chain(events).collect(),
    }
}

fn send(ops: Vec<Action>) -> Event {
    send_by(0, ops)
}

fn send_by(instance: usize, ops: Vec<Action>) -> Event {
    Event::Send {
        instance,
        ops,
        random: 0,
        lost: false,
    }
}

/// One instance, number 0 or 1, joins this many tickets of one token.
fn joins_by(instance: usize, count: usize) -> Event {
    send_by(instance, vec![Action::Joins(Claim::new(0, 1), count)])
}

/// Many small charges at different times, then a ticket that needs nearly all of their room.
pub(crate) fn many_expiries() -> History {
    let join = |tokens| send(vec![Action::Join(Claim::new(0, tokens))]);
    let small = (0..80).flat_map(|_| [join(10), Event::Tick(7_000)]);
    after_recovery(simple_rules(1000, NONE), small.chain([join(950)]))
}

/// More entries expire at once than one step drops: it stops at the end of a block.
pub(crate) fn many_entries_expire() -> History {
    let calls = (0..25).flat_map(|_| {
        let joins = Action::Joins(Claim::new(0, 1), 50);
        [send(vec![Action::DoneAll, joins]), Event::Tick(1_000)]
    });
    let end = [send(vec![Action::DoneAll]), Event::Tick(61_000_000)];
    let steps = (0..4).map(|_| send(Vec::new()));
    after_recovery(simple_rules(1_000_000, NONE), calls.chain(end).chain(steps))
}

/// A session ends with more than a thousand tickets at the head.
pub(crate) fn many_orphaned_entries() -> History {
    let joins = |count| send(vec![Action::Joins(Claim::new(0, 0), count)]);
    // The new process does not report them. Its openings are numbered from 1 again, so the first ones are stale.
    let new = [
        Event::Restart { instance: 0 },
        send(Vec::new()),
        send(Vec::new()),
    ];
    let events = (0..6)
        .map(|_| joins(200))
        .chain(new)
        .chain([joins(1), joins(1)]);
    after_recovery(simple_rules(NONE, 1), events)
}

/// More charges than one step recounts, and then another list of windows.
pub(crate) fn recount_in_parts() -> History {
    let other = {
        let mut rules = Rules::clone(&simple_rules(100_000, NONE));
        rules.deployments[0].windows.insert(
            0,
            Window {
                span: Micros(1_050_000),
                limits: [400, NONE, NONE, NONE],
            },
        );
        Arc::new(rules)
    };
    let calls = (0..6).flat_map(|_| [joins_by(0, 240), Event::Tick(150_000)]);
    let open_session = Event::OpenSession {
        instance: 1,
        rules: Some(1),
        parts: false,
        random: 0,
        lost: false,
    };
    let steps = (0..8).flat_map(|_| [joins_by(0, 240), Event::Tick(100)]);
    let mut history = after_recovery(
        simple_rules(100_000, NONE),
        calls
            .chain([open_session])
            .chain(steps)
            .chain([Event::Dirty]),
    );
    history
        .events
        .extend((0..8).flat_map(|_| [send(Vec::new()), Event::Tick(300_000)]));
    history.rules.push(other);
    history.instances.push("b".into());
    history
}

/// After a loss an instance is unaccounted that had departed before, and more entries are reported than one step adds up.
pub(crate) fn usage_summed_in_parts() -> History {
    let open = [send_by(1, Vec::new()), send_by(1, Vec::new())];
    let departs = (0..8).flat_map(|_| [Event::Tick(400_000), send(Vec::new())]);
    let calls = (0..4).flat_map(|_| [joins_by(0, 240), Event::Tick(100_000)]);
    let after = (0..16).flat_map(|_| [Event::Tick(400_000), send(Vec::new()), send(Vec::new())]);
    let events = open.into_iter().chain(departs).chain(calls);
    let mut history = after_recovery(
        simple_rules(100_000, NONE),
        events.chain([send(Vec::new()), Event::Dirty]).chain(after),
    );
    history.instances.push("b".into());
    history
}

/// An instance dies with more open calls and undelivered grants than one step settles. It rejoins, gets as many open calls again, and opens a session that
/// reports them.
pub(crate) fn sessions_settled_in_parts() -> History {
    let idle = |instance| send_by(instance, Vec::new());
    let reopen = Event::OpenSession {
        instance: 1,
        rules: None,
        parts: true,
        random: 0,
        lost: false,
    };
    let dies = (0..9).flat_map(|_| [Event::Tick(400_000), idle(0), idle(0)]);
    let settled = (0..8).map(|_| idle(0));
    let calls = || (0..8).map(|_| joins_by(1, 60)).chain([idle(1)]);
    let events = [idle(0), idle(1)]
        .into_iter()
        .chain(calls())
        .chain(dies)
        .chain(settled)
        .chain([idle(0)])
        .chain(calls())
        .chain([reopen])
        .chain((0..4).flat_map(|_| [idle(1), idle(0)]));
    let mut history = after_recovery(simple_rules(100_000, NONE), events);
    history.instances.push("b".into());
    history
}
