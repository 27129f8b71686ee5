//! Operators (P23): they move tickets, pause the group and keys, and change a limit, while the group loses its state and instances are cut off.
//!
//! The sequence number of each change is known, and so is a number that was drawn before the next change was asked for. What is granted between both is granted under the
//! change, whatever is lost.

use vorrang_scheduler::{
    LimitKind, LimitOverride, Micros, Overrides, Seq,
    dispatcher::{Query, QueryId, QueryResult, TicketId},
    message::{Override, overridden},
    rules::{NONE, Rules},
};

use crate::{
    referee::{Dispatch, Referee},
    scenario::{Fault, SECOND, Scenario, WINDOW},
    scenarios::{BASE, QUIET, between},
    world::World,
};

/// The instance whose operators change the group. It never dies, so that it knows all changes.
const OPERATORS: usize = 0;

/// What an operator does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Operation {
    /// A waiting ticket of an instance gets this priority.
    Move(usize, i32),
    PauseGroup(bool),
    /// Clients of one tenant have one key.
    PauseKey(u64, bool),
    /// Most requests in a window; 0: as configured.
    Limit(i64),
}

/// Overrides, from which sequence number on they were in force, and until which at least.
#[derive(Debug)]
pub(crate) struct InForce {
    overrides: Overrides,
    until: Seq,
}

/// The highest limit that operators set.
const HIGHEST: u64 = 12;

/// What is known of the operators.
#[derive(Debug, Default)]
pub(crate) struct Operators {
    pub(crate) in_force: Vec<InForce>,
    /// Changes, and a sequence number that was drawn before each was asked for.
    asked: Vec<(QueryId, Seq)>,
    /// Tickets that are being moved.
    moving: Vec<(QueryId, TicketId)>,
    next: QueryId,
}

impl World {
    /// Whether operators act in this scenario.
    fn is_operated(&self) -> bool {
        self.scenario.name.starts_with("operated")
    }

    /// The limits that the referee judges: the highest ones that operators set.
    pub(crate) fn raise_limits(&mut self) {
        if !self.is_operated() {
            return;
        }
        let deployments = self.referee.config.deployments.iter_mut();
        for limit in deployments.flat_map(|d| &mut d.limits) {
            if limit.kind == LimitKind::Requests {
                limit.limit = HIGHEST;
            }
        }
    }

    pub(crate) fn operate(&mut self, operation: Operation) {
        self.referee.operators.next += 1;
        let id = self.referee.operators.next;
        let mut i = OPERATORS;
        let query = match operation {
            Operation::Move(instance, to) => {
                i = instance;
                let of = &mut self.instances[i];
                let known = of.waiting.keys().filter(|id| of.arrivals.contains_key(id));
                let known: Vec<_> = known.copied().collect();
                if !of.alive || of.paused.is_some() || known.is_empty() {
                    return;
                }
                let ticket = known[self.rng.usize(..known.len())];
                let Some(client) = of.waiting.get_mut(&ticket) else {
                    return;
                };
                client.moved.push(client.priority);
                client.priority = to;
                client.moved_at = Seq::MAX;
                let arrival = of.arrivals[&ticket];
                self.referee.operators.moving.push((id, ticket));
                Query::Move(arrival, to)
            }
            Operation::PauseGroup(paused) => pause(0, paused),
            Operation::PauseKey(key, paused) => pause(key, paused),
            Operation::Limit(limit) => {
                let of = &self.rules.deployments[0];
                let limit = LimitOverride {
                    deployment: of.id.clone(),
                    kind: 0,
                    span: of.windows[0].span,
                    limit: if limit == 0 { NONE } else { limit },
                };
                Query::Override(Override {
                    what: overridden::LIMIT,
                    limit,
                    ..Override::default()
                })
            }
        };
        if matches!(query, Query::Override(_)) {
            // It is executed later than all numbers that are drawn now.
            let now = self.referee.highest();
            let operators = &mut self.referee.operators;
            operators.asked.push((id, now));
            for former in &mut operators.in_force {
                former.until = former.until.min(now);
            }
        }
        self.instances[i].core.ask(id, query);
        self.pump(i);
    }

    pub(crate) fn answered(&mut self, i: usize, query: QueryId, result: &QueryResult) {
        match result {
            QueryResult::Overrides(overrides) => {
                let Operators {
                    asked, in_force, ..
                } = &mut self.referee.operators;
                let mut later = asked.iter().filter(|(id, _)| *id > query);
                in_force.push(InForce {
                    overrides: overrides.clone(),
                    until: later.next().map_or(Seq::MAX, |(_, at)| *at),
                });
            }
            QueryResult::Ahead(_) => {
                let moving = &self.referee.operators.moving;
                let ticket = moving.iter().find(|(id, _)| *id == query).map(|m| m.1);
                let seen = self.instances[i]
                    .core
                    .last_answer()
                    .map(|(answer, _)| answer.seen);
                let client = ticket.and_then(|ticket| self.instances[i].waiting.get_mut(&ticket));
                if let (Some(client), Some(seen)) = (client, seen) {
                    client.moved_at = seen;
                }
            }
            _ => {}
        }
    }
}

fn pause(key: u64, paused: bool) -> Query {
    Query::Override(Override {
        what: overridden::PAUSE,
        key,
        paused,
        ..Override::default()
    })
}

impl Referee {
    /// P23 (operators): nothing is granted while the group is paused, no ticket of a paused key is, and a changed limit holds at once.
    pub(crate) fn judge_overrides(&mut self, d: &Dispatch) {
        let in_force = self.operators.in_force.iter();
        let granted_under =
            |of: &&InForce| of.overrides.version < d.granted && d.granted <= of.until;
        let Some(InForce { overrides, .. }) = in_force.rev().find(granted_under) else {
            return;
        };
        if overrides.paused {
            let found = format!("P23: {d:?} was granted while the group was paused: {overrides:?}");
            self.violations.push(found);
        }
        if overrides.keys.contains(&d.share.tenant) {
            let found = format!("P23: {d:?} was granted while its key was paused: {overrides:?}");
            self.violations.push(found);
        }
        let limit = overrides
            .limits
            .first()
            .and_then(|changed| u64::try_from(changed.limit).ok());
        let before = |other: &&Dispatch| {
            other.sent && other.granted <= d.granted && other.at + WINDOW > d.at
        };
        // The dispatch itself is not in the list yet.
        let within = self.dispatches.iter().filter(before).count() as u64 + u64::from(d.sent);
        if let Some(limit) = limit.filter(|limit| d.sent && within > *limit) {
            let found =
                format!("P23: {within} calls within a window before {d:?}, changed limit {limit}");
            self.violations.push(found);
        }
    }
}

/// Changes every second or two, and all are taken back at the end.
fn operations(rng: &mut fastrand::Rng) -> Vec<(u64, Fault)> {
    let mut all = Vec::new();
    let mut at = 8_000;
    while at < 52_000 {
        at += rng.u64(600..3_000);
        let operation = match rng.u8(..10) {
            0..4 => Operation::Move(rng.usize(..3), [0, 1, 5, -3, -9][rng.usize(..5)]),
            4 => Operation::PauseGroup(true),
            5..7 => Operation::PauseGroup(false),
            7 => Operation::PauseKey(rng.u64(1..4), rng.bool()),
            _ => Operation::Limit([0, 1, 3, 9, 12][rng.usize(..5)]),
        };
        all.push((at * 1_000, Fault::Operate(operation)));
    }
    let back = [1, 2, 3].map(|key| Operation::PauseKey(key, false));
    let back = back
        .into_iter()
        .chain([Operation::PauseGroup(false), Operation::Limit(0)]);
    all.extend(back.map(|operation| (58 * SECOND, Fault::Operate(operation))));
    all
}

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "operated",
        faults: operations,
        network: QUIET,
        // Room is idle while an operator says so, which the referee does not know.
        idle: u64::MAX,
        ..BASE
    },
    Scenario {
        name: "operated_and_flushed",
        faults: |rng| {
            let mut all = operations(rng);
            all.push((between(rng, 15_000, 30_000), Fault::Flush));
            all.push((between(rng, 30_000, 55_000), Fault::Flush));
            all.push((
                between(rng, 10_000, 55_000),
                Fault::Cut(1, between(rng, 300, 9_000)),
            ));
            all
        },
        idle: u64::MAX,
        ..BASE
    },
    Scenario {
        name: "operated_and_everything",
        faults: |rng| {
            let mut all = operations(rng);
            // As in `everything`: after a loss and a failover, sequence numbers cannot be compared.
            all.push((between(rng, 15_000, 55_000), Fault::Flush));
            let older = rng.usize(1..9);
            all.push((between(rng, 15_000, 55_000), Fault::Failover(older)));
            all.push((
                between(rng, 15_000, 55_000),
                Fault::PartialWrite(rng.u32(..)),
            ));
            all.push((
                between(rng, 15_000, 55_000),
                Fault::Hang(between(rng, 500, 7_000)),
            ));
            for instance in 1..3 {
                all.push((
                    between(rng, 10_000, 55_000),
                    Fault::Pause(instance, between(rng, 300, 9_000)),
                ));
            }
            all.push((between(rng, 15_000, 55_000), Fault::Restart(2)));
            all
        },
        network: crate::scenarios::BAD,
        idle: u64::MAX,
        ..BASE
    },
];

/// The priority by which a moved ticket was ordered: its score is the priority in these groups.
pub(crate) fn ordered_by(rules: &Rules, moved: &[i32], priority: i32, score: i64) -> Option<i32> {
    let all = moved.iter().copied().chain([priority]);
    all.rev()
        .find(|priority| rules.score(*priority, 0) == score && rules.aging == Micros::ZERO)
}
