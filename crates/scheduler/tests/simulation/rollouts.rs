//! Roll-outs (P20): another configuration is rolled out instance by instance, and back. No ticket is refused that either configuration could serve. While
//! sessions with both configurations exist, the limits of both hold.

use std::time::Duration;

use vorrang_scheduler::{
    Deployment, GroupConfig, LimitKind, Micros, Reserve, Strategy, rules::Rules,
};

use crate::{
    groups::{limited, window},
    referee::Dispatch,
    scenario::{Fault, SECOND, Scenario},
    scenarios::{BASE, between},
    world::World,
};

/// Which of two configurations.
pub(crate) type Side = usize;

/// The two configurations of a roll-out, and when each of them was in force.
pub(crate) struct Rollout {
    pub(crate) sides: [GroupConfig; 2],
    /// Periods in which sessions with the configuration existed: from, until.
    in_force: [Vec<(u64, Option<u64>)>; 2],
}

/// The other configuration of a scenario's roll-out.
pub(crate) type OtherConfig = fn(&mut fastrand::Rng) -> GroupConfig;

impl Rollout {
    pub(crate) fn new(first: GroupConfig, other: GroupConfig) -> Self {
        let in_force = [Vec::new(), Vec::new()];
        let sides = [first, other];
        Self { sides, in_force }
    }

    /// The deployments of both, without limits, which are judged here.
    pub(crate) fn union(&self) -> GroupConfig {
        let mut all: Vec<Deployment> = Vec::new();
        for deployment in self.sides.iter().flat_map(|side| &side.deployments) {
            if all.iter().all(|known| known.id != deployment.id) {
                all.push(Deployment::new(deployment.id.clone()));
            }
        }
        let mut union = self.sides[0].clone();
        union.deployments = all;
        union.max_queue_depth = None;
        union.pace_worse_than = None;
        union.reserve = None;
        union.timing.lease = self.sides[0].timing.lease.max(self.sides[1].timing.lease);
        union
    }

    /// Both configurations have the same queue order.
    pub(crate) fn same_order(&self) -> bool {
        let [first, other] = &self.sides;
        (first.fair, first.aging) == (other.fair, other.aging)
    }

    /// Either configuration has a `max_queue_depth`.
    pub(crate) fn capped(&self) -> bool {
        self.sides.iter().any(|side| side.max_queue_depth.is_some())
    }

    fn covers(&self, side: Side, from: u64, to: u64) -> bool {
        let mut periods = self.in_force[side].iter();
        periods.any(|(since, until)| *since <= from && until.is_none_or(|until| to < until))
    }

    fn limits(&self, side: Side, id: &str, kind: LimitKind) -> Vec<(u64, u64)> {
        let known = self.sides[side].deployments.iter().find(|d| d.id == id);
        let limits = known.iter().flat_map(|d| &d.limits);
        limits
            .filter(|l| l.kind == kind)
            .map(|l| (l.limit, Micros::from(l.length).0))
            .collect()
    }
}

impl World {
    /// Notes that an instance has a session, or has none any more. With the last session of a side, its configuration is no longer in force.
    pub(crate) fn note_session(&mut self, i: usize, open: bool, recovering: bool) {
        let now = self.now;
        let instance = &mut self.instances[i];
        instance.has_session = open && !instance.leaving;
        let (side, instances) = (instance.side, self.instances.iter());
        let any = instances
            .filter(|i| i.has_session && i.side == side)
            .count()
            > 0;
        let Some(rollout) = &mut self.rollout else {
            return;
        };
        let periods = &mut rollout.in_force[side];
        let open = periods.last_mut().filter(|(_, until)| until.is_none());
        match open {
            Some((_, until)) if !any => *until = Some(now),
            None if any && !recovering => periods.push((now, None)),
            _ => {}
        }
    }

    /// Notes whose configuration an instance opens a session with: a reload changes it while the instance runs.
    pub(crate) fn note_side(&mut self, i: usize, rules: &Rules) {
        let Some(rollout) = &self.rollout else {
            return;
        };
        let mut sides = rollout.sides.iter();
        let side = sides.position(|side| Rules::from(side) == *rules);
        if let Some(side) = side.filter(|side| *side != self.instances[i].side) {
            self.note_session(i, false, false);
            self.instances[i].side = side;
        }
    }

    /// The referee's index of a deployment.
    pub(crate) fn referee_index(&self, id: &str) -> usize {
        let mut all = self.config.deployments.iter();
        all.position(|d| d.id == *id).unwrap_or(usize::MAX)
    }

    /// Judges the limits of each configuration that has been in force for as long as they reach back.
    pub(crate) fn judge_rollout(&mut self, dispatch: &Dispatch) {
        let Some(rollout) = &self.rollout else {
            return;
        };
        let id = &self.config.deployments[dispatch.deployment].id;
        let mut found = Vec::new();
        for side in 0..2 {
            let open = self.referee.open_on(dispatch.deployment);
            for (limit, _) in rollout.limits(side, id, LimitKind::Concurrency) {
                // Calls from before the configuration may still be open.
                let longest = self.scenario.longest_call + SECOND;
                let in_force = rollout.covers(side, self.now.saturating_sub(longest), self.now);
                if in_force && open > limit {
                    found.push(format!(
                        "A2: {open} calls open at {}, limit {limit}",
                        self.now
                    ));
                }
            }
            for (limit, length) in rollout.limits(side, id, LimitKind::Requests) {
                let from = self.now.saturating_sub(length);
                let recent = self.referee.dispatches.iter().rev();
                let within = recent
                    .take_while(|d| d.at > from)
                    .filter(|d| d.sent && d.deployment == dispatch.deployment)
                    .count() as u64;
                let in_force = rollout.covers(side, from.saturating_sub(SECOND), self.now);
                if in_force && within > limit {
                    found.push(format!(
                        "A3: {within} calls within {length} us before {}, limit {limit} of side {side}",
                        self.now
                    ));
                }
            }
        }
        self.referee.violations.extend(found);
    }
}

/// Rolls out instance by instance, and back, sometimes with a loss.
fn all_and_back(rng: &mut fastrand::Rng) -> Vec<(u64, Fault)> {
    let pause = between(rng, 1_000, 6_000);
    let mut faults = Vec::new();
    let mut at = between(rng, 12_000, 20_000);
    // The new instances have the indices 3 to 5.
    for (i, side) in [(0, 1), (1, 1), (2, 1), (3, 0), (4, 0), (5, 0)] {
        faults.push((at, Fault::RollOut(i, side)));
        at += pause;
    }
    if rng.bool() {
        faults.push((between(rng, 15_000, 50_000), Fault::Flush));
    }
    faults
}

/// Rolls out on one instance, and back, sometimes with a loss.
fn one_instance_and_back(rng: &mut fastrand::Rng) -> Vec<(u64, Fault)> {
    let at = between(rng, 12_000, 20_000);
    let mut faults = vec![
        (at, Fault::RollOut(0, 1)),
        (at + between(rng, 18_000, 25_000), Fault::RollOut(3, 0)),
    ];
    if rng.bool() {
        faults.push((at + between(rng, 16_000, 18_000), Fault::Flush));
    }
    faults
}

/// The same instances get the other configuration one by one, and the first one back.
fn reloads(rng: &mut fastrand::Rng) -> Vec<(u64, Fault)> {
    let pause = between(rng, 1_000, 6_000);
    let mut faults = Vec::new();
    let mut at = between(rng, 12_000, 20_000);
    for (i, side) in [(0, 1), (1, 1), (2, 1), (0, 0), (1, 0), (2, 0)] {
        faults.push((at, Fault::Reload(i, side)));
        at += pause;
    }
    match rng.u8(..3) {
        0 => faults.push((between(rng, 15_000, 50_000), Fault::Flush)),
        // Shorter than the lease: the referee learns of sessions that end by it from no message.
        1 => faults.push((between(rng, 12_000, 40_000), Fault::LoseReplies(0, SECOND))),
        _ => {}
    }
    faults
}

fn without_losses(mut faults: Vec<(u64, Fault)>) -> Vec<(u64, Fault)> {
    faults.retain(|(_, fault)| *fault != Fault::Flush);
    faults
}

const RELOAD: Scenario = Scenario {
    faults: reloads,
    ..ROLLOUT
};

const ROLLOUT: Scenario = Scenario {
    faults: all_and_back,
    idle: u64::MAX,
    ..BASE
};

fn group(deployments: Vec<Deployment>) -> GroupConfig {
    GroupConfig::new(deployments)
}

fn windowed(requests: u64, length: Duration) -> GroupConfig {
    group(vec![Deployment::new("a").limit(
        LimitKind::Requests,
        requests,
        length,
    )])
}

fn with_lease(seconds: u64) -> GroupConfig {
    let slots = Deployment::new("a").limit(LimitKind::Concurrency, 4, Duration::ZERO);
    let mut config = group(vec![slots]);
    config.timing.lease = Duration::from_secs(seconds);
    config
}

fn everything(rng: &mut fastrand::Rng) -> GroupConfig {
    let mut config = group(Vec::new());
    for id in ["a", "b", "c"] {
        if rng.u8(..3) > 0 {
            config
                .deployments
                .push(limited(id, rng.u64(3..9), rng.u64(2..5)));
        }
    }
    if config.deployments.is_empty() {
        config.deployments.push(limited("a", 5, 3));
    }
    if rng.bool() {
        config.strategy = Strategy::UsageBased;
    }
    config.allowed_fails = rng.u32(0..3);
    config.cooldown = Duration::from_millis(rng.u64(500..4000));
    config.fair = rng.bool();
    config.pace_worse_than = rng.bool().then(|| rng.i32(-4..5));
    config.aging = (rng.u8(..3) == 0).then(|| Duration::from_millis(rng.u64(1..5_000)));
    config.reserve = rng.bool().then(|| Reserve {
        priority: rng.i32(-4..5),
        share: rng.f64() / 2.0,
    });
    config.max_queue_depth = (rng.u8(..3) == 0).then(|| rng.u64(20..60));
    config.timing.lease = Duration::from_millis(rng.u64(1_500..6_000));
    config
}

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "rollout_limits",
        group: |_| group(vec![limited("a", 8, 4)]),
        roll_out: Some(|_| group(vec![limited("a", 5, 2)])),
        ..ROLLOUT
    },
    Scenario {
        name: "rollout_limits_on_one",
        group: |_| group(vec![limited("a", 5, 2)]),
        roll_out: Some(|_| group(vec![limited("a", 9, 4)])),
        faults: one_instance_and_back,
        ..ROLLOUT
    },
    // Charge logs reach back for the longest window of both configurations.
    Scenario {
        name: "rollout_windows",
        group: |_| windowed(5, window() / 10),
        roll_out: Some(|_| windowed(9, window())),
        ..ROLLOUT
    },
    Scenario {
        name: "rollout_windows_on_one",
        group: |_| windowed(5, window() / 10),
        roll_out: Some(|_| windowed(9, window())),
        faults: one_instance_and_back,
        rate: 0.9,
        ..ROLLOUT
    },
    // A new API key makes a new deployment id.
    Scenario {
        name: "rollout_ids",
        group: |_| group(vec![limited("a", 6, 3)]),
        roll_out: Some(|_| group(vec![limited("b", 6, 3)])),
        ..ROLLOUT
    },
    // Sessions of instances with the long lease do not end by the short one.
    Scenario {
        name: "rollout_lease",
        group: |_| with_lease(10),
        roll_out: Some(|_| with_lease(1)),
        longest_call: 9 * SECOND,
        ..ROLLOUT
    },
    Scenario {
        name: "rollout_order",
        group: |_| group(vec![limited("a", 8, 4)]),
        roll_out: Some(|rng| GroupConfig {
            fair: true,
            aging: rng.bool().then(|| Duration::from_millis(300)),
            ..group(vec![limited("a", 8, 4)])
        }),
        ..ROLLOUT
    },
    Scenario {
        name: "reload_limits",
        group: |_| group(vec![limited("a", 8, 4)]),
        roll_out: Some(|_| group(vec![limited("a", 5, 2)])),
        ..RELOAD
    },
    Scenario {
        name: "reload_windows",
        group: |_| windowed(5, window() / 10),
        roll_out: Some(|_| windowed(9, window())),
        ..RELOAD
    },
    Scenario {
        name: "reload_everything",
        group: everything,
        roll_out: Some(everything),
        failing: 0.1,
        rate: 0.5,
        // P20: a loss while a deployment of the former configuration still has charges on an instance without it is an exception.
        faults: |rng| without_losses(reloads(rng)),
        ..RELOAD
    },
    Scenario {
        name: "rollout_everything",
        group: everything,
        roll_out: Some(everything),
        failing: 0.1,
        rate: 0.5,
        ..ROLLOUT
    },
];
