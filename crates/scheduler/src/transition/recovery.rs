//! One recovery for all losses (P3, P12, P13). `lua/recovery.lua` has the same functions in the same order.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    Environment, Key, Kind, State, Step,
    queue::Queue,
    windows::{Charge, Dispatch},
};
use crate::{
    cost::{Cost, KINDS, Tokens},
    message::{Message, UsageSnapshot},
    mutation::{Part, without},
    rules::{DeploymentRules, MAX_LIMIT, Rules, Window},
    units::{Micros, Seq, SessionId},
};

/// The sequence numbers of a new state begin this much above the server's clock (P5).
pub(crate) const LEAP: Micros = Micros(10_000_000);

/// A recovery with state continues this much above its last number and the time that has passed since: lost steps may have drawn more numbers (P5). It is small
/// because each loss adds it again, and an instance that was cut off meanwhile must not know numbers that are too low.
pub(crate) const STEP: Micros = Micros(100_000);

/// P5 (sequence numbers): where the numbers of a new state begin: above the clock, and above what its first sender knows. If the clock is behind that, it has gone
/// back.
pub(super) fn first_number(raw: Micros, seen: Seq) -> Seq {
    if without(Part::P5Later) {
        return Seq::at(raw);
    }
    let now = Seq::at(raw);
    if now + LEAP >= seen {
        now + LEAP
    } else {
        seen + LEAP
    }
}

/// More spans of a window than this are not counted: the highest limit times it is exact in a double.
pub(crate) const MOST_SPANS: u64 = 1 << 18;

/// A recovery under way: the group accepts sessions and joins, and grants nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Recovery {
    /// When it began, on the group clock.
    pub since: Micros,
    /// The same on the lease clock, which stands still while no instance can reach the server.
    began: Micros,
    /// When it ends at the earliest and at the latest, on the lease clock.
    earliest: Micros,
    latest: Micros,
    /// Instances that any instance believes to be alive.
    pub expected: BTreeSet<Arc<str>>,
    /// Instances whose snapshot is complete.
    pub confirmed: BTreeSet<Arc<str>>,
    /// An instance has opened a session that was there before the loss.
    any_rejoined: bool,
    /// The newest usage snapshot.
    usage: Option<Usage>,
    /// What is reported of the use that it shows.
    reported: ReportedUse,
}

/// A usage snapshot on the group clock.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Usage {
    at: Micros,
    /// Its age when its sender opened the session.
    age: Micros,
    /// The last sequence number then.
    number: Seq,
    /// Deployment, what counted in its longest window, and the span of that window under the rules that were in force then.
    used: Vec<(Arc<str>, Cost, Micros)>,
}

impl Usage {
    /// A usage snapshot is only taken while all instances have one configuration, so the rules that were in force then are its sender's.
    fn new(at: Micros, snapshot: &UsageSnapshot, rules: &Rules) -> Self {
        let span = |id: &str| {
            let of = rules.deployments.iter().find(|d| &*d.id == id);
            of.and_then(|d| d.windows.last())
                .map_or(Micros::ZERO, |w| w.span)
        };
        let used = snapshot.used.iter();
        let used = used.map(|(id, cost)| (id.clone(), *cost, span(id)));
        Self {
            at,
            age: snapshot.age,
            number: snapshot.number,
            used: used.collect(),
        }
    }
}

/// What instances report of the use that a usage snapshot shows, as far as it is summed up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct ReportedUse {
    /// When the usage snapshot was taken.
    of: Micros,
    /// The time in the order of the entries where the next part begins; `None`: the sum is complete.
    from: Option<Micros>,
    by: BTreeMap<Arc<str>, Cost>,
}

/// What is charged for unaccounted instances until all of them have reported.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ConservativeCharges {
    unaccounted: BTreeSet<Arc<str>>,
    charges: Vec<Key>,
}

/// The highest limit of each kind over all windows; 0 if there is none.
fn highest_limits(deployment: &DeploymentRules) -> [u64; KINDS] {
    std::array::from_fn(|k| {
        let limits = deployment.windows.iter().map(|w| w.limits[k]);
        let limits = limits.filter_map(|limit| u64::try_from(limit).ok());
        limits.max().unwrap_or(0)
    })
}

/// The most of a kind that is granted within a time: by the window that allows least, its limit for each of its spans that begins in it.
fn most_within(deployment: &DeploymentRules, kind: usize, time: Micros) -> u64 {
    let of = |window: &Window| {
        let limit = u64::try_from(window.limits[kind]).ok()?;
        let spans = (time.0 / window.span.0.max(1) + 1).min(MOST_SPANS);
        Some(limit.min(MAX_LIMIT) * spans)
    };
    deployment.windows.iter().filter_map(of).min().unwrap_or(0)
}

impl Recovery {
    /// P13 (conservative charges): the most of each kind that unaccounted instances may have been granted: what the newest usage snapshot shows and no instance
    /// reports, and what the limits of the windows let through since then; at most the highest limit.
    fn most_granted(&self, rules: &Rules, deployment: &DeploymentRules) -> [u64; KINDS] {
        let highest = highest_limits(deployment);
        let longest = deployment
            .windows
            .last()
            .map_or(Micros::ZERO, |window| window.span);
        let shown = self.usage.as_ref().and_then(|usage| {
            let mut all = usage.used.iter();
            let (_, used, span) = all.find(|(id, ..)| *id == deployment.id)?;
            // A window that is longer now counts charges that the snapshot does not show.
            (*span >= longest).then_some((usage.age, *used))
        });
        let Some((age, used)) = shown else {
            return highest;
        };
        if without(Part::P13ShorterWindows) {
            return highest;
        }
        // Its sender learned the snapshot at most two heartbeats after it was taken (P2), and opened its session after the loss.
        let time = age + 2 * rules.heartbeat();
        let reported = self.reported.by.get(&deployment.id).copied();
        let unreported = used.saturating_sub(reported.unwrap_or_default()).amounts();
        std::array::from_fn(|k| {
            let most = unreported[k] + most_within(deployment, k, time);
            most.min(highest[k])
        })
    }

    /// The sum of the reported use is not complete.
    pub(super) fn is_summing(&self) -> bool {
        self.reported.from.is_some()
    }

    /// When the recovery may end, on the lease clock. Fresh instances do not know which others exist, so with fresh instances alone it lasts for the lease.
    pub(super) fn next(&self) -> Micros {
        let any_rejoined = self.any_rejoined || without(Part::P3Fresh);
        if any_rejoined && self.expected.is_subset(&self.confirmed) {
            self.earliest
        } else {
            self.latest
        }
    }
}

/// How many other epochs are kept. A late message with an older one causes a needless recovery.
pub(crate) const EPOCHS: usize = 8;

/// When an epoch began, on the group clock of its state; 0 where that is unknown.
fn began(epoch: &str) -> Micros {
    let parts = epoch.split_once('-');
    let clock = parts.and_then(|(clock, _)| clock.parse().ok());
    Micros(clock.unwrap_or(0))
}

impl State {
    /// P1 (sessions and replays): an unknown epoch belongs to another state, which may have granted calls since. That is a loss like a batch gap, except for epochs
    /// that the recovery under way replaces: those began before it.
    pub(super) fn was_lost_since(&mut self, epoch: &Arc<str>) -> bool {
        let lost = !epoch.is_empty()
            && !self.epochs.contains(epoch)
            && (self.recovery.is_none() || began(epoch) > began(&self.epoch));
        self.note_epoch(epoch);
        lost
    }

    /// Notes another epoch that messages may still have: a former one of this state, or one of a state that its last recovery replaced.
    pub(super) fn note_epoch(&mut self, epoch: &Arc<str>) {
        if epoch.is_empty() || self.epochs.contains(epoch) {
            return;
        }
        self.epochs.push_back(epoch.clone());
        if self.epochs.len() > EPOCHS {
            self.epochs.pop_front();
        }
    }

    /// Begins a recovery: a new epoch. Queue, sessions, open calls and inboxes are void. Windows and health stay, if they are there.
    pub(super) fn begin_recovery(&mut self, environment: &Environment, step: &mut Step) {
        self.note_epoch(&self.epoch.clone());
        self.epoch = format!("{}-{}", self.clock.0, environment.random).into();
        if !environment.replication.is_empty() {
            self.replication = environment.replication.clone();
        }
        self.dirty = false;
        let elapsed = if without(Part::P5TimePassed) {
            Micros::ZERO
        } else {
            step.elapsed
        };
        self.last = (self.last + elapsed).max(Seq::at(self.clock)) + STEP;
        if let Some(rules) = self.rules().cloned() {
            // Undelivered grants never will be delivered. After a partial write entries, totals and inboxes may contradict each other, so the entries decide.
            self.windows.recount_all(&rules);
        }
        let highest_finish = self.queue.fair.highest_finish;
        self.queue = Queue::default();
        (self.queue.fair.highest_finish, self.queue.fair.recovering) = (highest_finish, true);
        self.waiting.clear();
        (self.orphans, self.sweep) = (0, (0, 0));
        self.calls.clear();
        self.leftovers.clear();
        self.inbox.clear();
        for health in self.health.values_mut() {
            health.probe = Seq::NONE;
        }
        // A recovery that begins again still waits for the instances that the former one expected.
        let former = self.recovery.take().map(|recovery| recovery.expected);
        let mut expected = former.unwrap_or_default();
        expected.extend(self.sessions.values().map(|s| s.instance.clone()));
        self.sessions.clear();
        self.instances.clear();
        (self.reap_at, self.revoke_at) = (Micros::MAX, Micros::MAX);
        self.head_notice = (Seq::NONE, SessionId::NONE, -1);
        self.conservative = ConservativeCharges::default();
        self.recovery = Some(Recovery {
            since: self.clock,
            began: self.lease,
            earliest: Micros::MAX,
            latest: Micros::MAX,
            expected,
            confirmed: BTreeSet::new(),
            any_rejoined: false,
            usage: None,
            reported: ReportedUse::default(),
        });
        step.recovered = true;
        Self::wake_all(step);
    }

    /// P13 (conservative charges): when all unaccounted instances have reported, what was charged for them is removed.
    fn settle_conservative(&mut self, rules: &Rules, message: &Message) {
        let conservative = &mut self.conservative;
        if !message.complete
            || !conservative.unaccounted.remove(&message.instance)
            || !conservative.unaccounted.is_empty()
        {
            return;
        }
        let charges = std::mem::take(&mut conservative.charges).into_iter();
        for key in charges.filter(|_| !without(Part::P13Removed)) {
            self.windows.remove(rules, key);
        }
    }

    /// Receives what a message reports of the sender and of other instances, during a recovery and after it.
    pub(super) fn receive_report(&mut self, rules: &Rules, message: &Message) {
        let clock = self.clock;
        let Some(recovery) = &mut self.recovery else {
            self.settle_conservative(rules, message);
            return;
        };
        recovery.earliest = recovery.began + 2 * rules.heartbeat();
        recovery.latest = recovery.began + rules.lease;
        if let Some(open_session) = message.open_session.first() {
            if !without(Part::P3Named) {
                recovery.expected.extend(open_session.peers.iter().cloned());
            }
            recovery.any_rejoined |= message.seen > Seq::NONE;
            for snapshot in open_session.view.iter().map(UsageSnapshot::bounded) {
                let at = clock.saturating_sub(snapshot.age);
                if recovery.usage.as_ref().is_none_or(|newest| at > newest.at) {
                    recovery.usage = Some(Usage::new(at, &snapshot, &open_session.rules));
                }
            }
            for (name, age) in &open_session.departed {
                let living = self.instances.contains_key(name);
                if *age < rules.memory && !living {
                    let at = self.departed.entry(name.clone()).or_default();
                    *at = (*at).max(clock.saturating_sub(*age));
                }
            }
        }
        if message.complete {
            recovery.confirmed.insert(message.instance.clone());
        }
    }

    fn charge(
        &mut self,
        rules: &Rules,
        deployment: &Arc<str>,
        cost: Cost,
        at: Micros,
    ) -> Option<Key> {
        if cost == Cost::default() {
            return None;
        }
        // More than any limit holds up no ticket longer.
        let cost = cost.bounded();
        let key = Key {
            kind: Kind::Conservative,
            number: self.draw(),
        };
        let charge = Charge {
            deployment: deployment.clone(),
            cost,
            at,
            dispatch: Dispatch::Reported,
        };
        self.windows.insert(rules, self.clock, key, charge);
        Some(key)
    }

    /// Charges an amount of each kind of limit.
    fn charge_amounts(
        &mut self,
        rules: &Rules,
        deployment: &DeploymentRules,
        [requests, both, input, output]: [u64; KINDS],
        at: Micros,
    ) -> Option<Key> {
        // The amount of both kinds of tokens is reached too: what it needs beyond the amounts of the kinds counts as input.
        let tokens = Tokens::new(input.max(both.saturating_sub(output)), output);
        self.charge(rules, &deployment.id, Cost { requests, tokens }, at)
    }

    /// P13 (conservative charges): an unaccounted instance may have been granted anything up to the loss, after the newest usage snapshot too.
    fn charge_limits(&mut self, rules: &Rules, recovery: &Recovery, at: Micros) {
        if without(Part::P13Limits) {
            return;
        }
        for deployment in &rules.deployments {
            let most = recovery.most_granted(rules, deployment);
            let charge = self.charge_amounts(rules, deployment, most, at);
            self.conservative.charges.extend(charge);
        }
    }

    /// P13 (conservative charges): what the newest usage snapshot shows as used and no instance reports was granted to unaccounted instances. A deployment that the
    /// snapshot lacks, as no instance had it then, may have been used by instances that had departed before: its limits are charged.
    fn charge_usage(&mut self, rules: &Rules, usage: &Usage, reported: &BTreeMap<Arc<str>, Cost>) {
        if without(Part::P13UsageSnapshot) {
            return;
        }
        for deployment in &rules.deployments {
            let Some((id, used, span)) = usage.used.iter().find(|(id, ..)| *id == deployment.id)
            else {
                self.charge_amounts(rules, deployment, highest_limits(deployment), usage.at);
                continue;
            };
            if deployment.windows.is_empty() || *span == Micros::ZERO {
                continue;
            }
            let reported = reported.get(id).copied().unwrap_or_default();
            self.charge(rules, id, used.saturating_sub(reported), usage.at);
        }
    }

    /// P13 (conservative charges): sums up what is reported of the use that the newest usage snapshot shows, a part in each step (P16). Returns whether the sum is
    /// complete.
    fn sum_reported(&self, recovery: &mut Recovery) -> bool {
        let Some(usage) = &recovery.usage else {
            return true;
        };
        let reported = &mut recovery.reported;
        if reported.of != usage.at {
            *reported = ReportedUse {
                of: usage.at,
                from: Some(Micros::ZERO),
                by: BTreeMap::new(),
            };
        }
        let Some(from) = reported.from else {
            return true;
        };
        let (keys, next) = self.windows.part(from);
        for key in keys {
            let Some(charge) = self.windows.get(key).map(|entry| &entry.charge) else {
                continue;
            };
            let Some((id, _, span)) = usage.used.iter().find(|(id, ..)| *id == charge.deployment)
            else {
                continue;
            };
            let existed = match key.kind {
                Kind::Grant => key.number <= usage.number,
                Kind::Excess | Kind::Conservative => charge.at <= usage.at,
            };
            if existed && (charge.dispatch == Dispatch::Open || charge.at + *span > usage.at) {
                *reported.by.entry(id.clone()).or_default() += charge.cost;
            }
        }
        reported.from = next;
        next.is_none()
    }

    /// Ends the recovery when its time has come.
    pub(super) fn settle_recovery(&mut self, rules: &Rules, step: &mut Step) {
        let due = |recovery: &Recovery| self.lease >= recovery.next() || without(Part::P3Wait);
        if !self.recovery.as_ref().is_some_and(due) || !self.windows.is_counted() {
            return;
        }
        let Some(mut recovery) = self.recovery.take() else {
            return;
        };
        let confirmed = |name: &Arc<str>| recovery.confirmed.contains(name);
        let lately = self
            .departed
            .iter()
            .filter(|(_, at)| **at + rules.memory > self.clock);
        let unaccounted: BTreeSet<Arc<str>> = lately
            .map(|(name, _)| name)
            .chain(&recovery.expected)
            .filter(|name| !confirmed(name))
            .cloned()
            .collect();
        // An instance that was known as departed when the newest usage snapshot was taken was granted nothing after it.
        let accounts_for_all = |usage: &Usage| {
            let departed = |name| self.departed.get(name).is_some_and(|at| *at <= usage.at);
            unaccounted.iter().all(departed) || without(Part::P13AccountsForAll)
        };
        let accounts_for_all = recovery.usage.as_ref().is_some_and(accounts_for_all);
        if !unaccounted.is_empty() && !self.sum_reported(&mut recovery) {
            step.more = true;
            self.recovery = Some(recovery);
            return;
        }
        self.configurations.unsettled = true;
        let fair = &mut self.queue.fair;
        fair.recovering = false;
        if !without(Part::P19Floor) {
            fair.tag_floor = fair.highest_finish;
        }
        match &recovery.usage {
            _ if unaccounted.is_empty() => {}
            Some(usage) if accounts_for_all => {
                self.charge_usage(rules, usage, &recovery.reported.by)
            }
            _ => {
                // Until then unaccounted instances may have dispatched what they were granted before the loss (P9).
                let later = if without(Part::P13DispatchedLater) {
                    Micros::ZERO
                } else {
                    rules.dispatch_within()
                };
                let at = recovery.since + later;
                self.charge_limits(rules, &recovery, at);
                self.conservative.unaccounted.clone_from(&unaccounted);
            }
        }
        // All instances learn it, so that no later recovery expects them.
        self.peers_version += u64::from(!unaccounted.is_empty());
        for name in unaccounted {
            self.departed.entry(name).or_insert(self.clock);
        }
    }
}
