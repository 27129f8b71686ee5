//! One recovery for all losses (P3, P12, P13).

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

/// A state that is made anew begins with numbers so much later than the server's clock (P5).
pub(crate) const LEAP: Micros = Micros(10_000_000);

/// The numbers that may have been drawn beyond those known here, by steps that are lost (P5), and beyond the time since. Small: what one loss adds, another adds again,
/// and an instance that was cut off meanwhile must not know lower numbers than there are.
pub(crate) const STEP: Micros = Micros(100_000);

/// Where the numbers of a new state begin: above the clock, and above what its first sender knows. A clock behind that has gone back, and
/// says nothing.
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

/// So many spans of a window are as good as all: the highest limit times this is exact in a double.
pub(crate) const MOST_SPANS: u64 = 1 << 18;

/// While it lasts, open-session messages and joins are taken and nothing is granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Recovery {
    /// On the group clock.
    pub since: Micros,
    /// On the lease clock: while nobody can step nobody can open a session.
    began: Micros,
    /// Ends at the earliest, and at the latest, on the lease clock.
    earliest: Micros,
    latest: Micros,
    /// Instances that somebody believes to be alive.
    pub expected: BTreeSet<Arc<str>>,
    /// Those whose snapshot is complete.
    pub confirmed: BTreeSet<Arc<str>>,
    /// Somebody has come who was here before.
    remembered: bool,
    /// The newest view.
    view: Option<Seen>,
    /// What is reported of what that view shows.
    known: Known,
}

/// What an instance saw in use when it last looked.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    at: Micros,
    /// Its age when its sender opened the session.
    age: Micros,
    /// The last number that had been drawn then.
    number: Seq,
    /// Deployment, what counted in its longest window, and the span of that under the rules that were in force then.
    used: Vec<(Arc<str>, Cost, Micros)>,
}

impl Seen {
    /// A view is taken while all instances have one configuration: so the rules that were in force then are its sender's.
    fn new(at: Micros, view: &UsageSnapshot, rules: &Rules) -> Self {
        let span = |id: &str| {
            let of = rules.deployments.iter().find(|d| &*d.id == id);
            of.and_then(|d| d.windows.last())
                .map_or(Micros::ZERO, |w| w.span)
        };
        let used = view.used.iter();
        let used = used.map(|(id, cost)| (id.clone(), *cost, span(id)));
        Self {
            at,
            age: view.age,
            number: view.number,
            used: used.collect(),
        }
    }
}

/// What counted when a view was taken and is reported, as far as it is summed up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Known {
    /// When the view was taken.
    of: Micros,
    /// From which time of the order on there is more; `None`: that was all.
    from: Option<Micros>,
    by: BTreeMap<Arc<str>, Cost>,
}

/// What was charged for instances that may have been granted unseen, until all of them have reported.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ConservativeCharges {
    by: BTreeSet<Arc<str>>,
    charges: Vec<Key>,
}

/// The highest limit of each kind over all windows; 0 where there is none.
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
    /// P13: the most that unaccounted instances may have been granted of each kind: what the newest usage snapshot shows and no instance reports, and
    /// what the limits of the windows let through since then; at most the highest limit.
    fn most(&self, rules: &Rules, deployment: &DeploymentRules) -> [u64; KINDS] {
        let highest = highest_limits(deployment);
        let longest = deployment
            .windows
            .last()
            .map_or(Micros::ZERO, |window| window.span);
        let shown = self.view.as_ref().and_then(|view| {
            let mut all = view.used.iter();
            let (_, used, span) = all.find(|(id, ..)| *id == deployment.id)?;
            // A window that is longer now counts charges that the snapshot does not show.
            (*span >= longest).then_some((view.age, *used))
        });
        let Some((age, used)) = shown else {
            return highest;
        };
        if without(Part::P13ShorterWindows) {
            return highest;
        }
        // Its sender learned the snapshot at most two heartbeats after it was taken (P2), and opened its session after the loss.
        let time = age + 2 * rules.heartbeat();
        let reported = self.known.by.get(&deployment.id).copied();
        let unreported = used.saturating_sub(reported.unwrap_or_default()).amounts();
        std::array::from_fn(|k| {
            let most = unreported[k] + most_within(deployment, k, time);
            most.min(highest[k])
        })
    }

    /// Parts of the sum of what is reported are still to come.
    pub(super) fn is_summing(&self) -> bool {
        self.known.from.is_some()
    }

    /// When to look again, on the lease clock. Fresh instances do not know who else there is: if nobody else comes, that others are slow to come back is
    /// waited for.
    pub(super) fn next(&self) -> Micros {
        let remembered = self.remembered || without(Part::P3Fresh);
        if remembered && self.expected.is_subset(&self.confirmed) {
            self.earliest
        } else {
            self.latest
        }
    }
}

/// How many other epochs are kept. A message of an older one costs a recovery that nothing needs.
pub(crate) const EPOCHS: usize = 8;

/// When an epoch began, on the group clock of its state; 0 where that is unknown.
fn began(epoch: &str) -> Micros {
    let parts = epoch.split_once('-');
    let clock = parts.and_then(|(clock, _)| clock.parse().ok());
    Micros(clock.unwrap_or(0))
}

impl State {
    /// P1 (evidence of loss): an epoch that this state never had is from another state, in which others may have been granted something since. That is a loss
    /// like a missing batch, but for epochs that the recovery under way replaces: those began before it.
    pub(super) fn was_lost_since(&mut self, epoch: &Arc<str>) -> bool {
        let lost = !epoch.is_empty()
            && !self.epochs.contains(epoch)
            && (self.recovery.is_none() || began(epoch) > began(&self.epoch));
        self.note_epoch(epoch);
        lost
    }

    pub(super) fn note_epoch(&mut self, epoch: &Arc<str>) {
        if epoch.is_empty() || self.epochs.contains(epoch) {
            return;
        }
        self.epochs.push_back(epoch.clone());
        if self.epochs.len() > EPOCHS {
            self.epochs.pop_front();
        }
    }

    /// A new epoch. Queue, sessions, open calls and inbox are void; windows and health that are there stay.
    pub(super) fn recover(&mut self, environment: &Environment, step: &mut Step) {
        self.note_epoch(&self.epoch.clone());
        self.epoch = format!("{}-{}", self.clock.0, environment.random).into();
        if !environment.replication.is_empty() {
            self.replication = environment.replication.clone();
        }
        self.dirty = false;
        let passed = if without(Part::P5TimePassed) {
            Micros::ZERO
        } else {
            step.passed
        };
        self.last = (self.last + passed).max(Seq::at(self.clock)) + STEP;
        if let Some(rules) = self.rules().cloned() {
            // What was not delivered never will be. A write that was cut short may have left entries, totals and what was to be delivered apart: so
            // this goes by the entries. None of them leaves while the group recovers.
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
        // A recovery that begins anew still waits for those whom it was waiting for.
        let former = self.recovery.take().map(|recovery| recovery.expected);
        let mut expected = former.unwrap_or_default();
        expected.extend(self.sessions.values().map(|s| s.instance.clone()));
        self.sessions.clear();
        self.instances.clear();
        (self.reap_at, self.take_back_at) = (Micros::MAX, Micros::MAX);
        self.told = (Seq::NONE, SessionId::NONE, -1);
        self.conservative = ConservativeCharges::default();
        self.recovery = Some(Recovery {
            since: self.clock,
            began: self.lease,
            earliest: Micros::MAX,
            latest: Micros::MAX,
            expected,
            confirmed: BTreeSet::new(),
            remembered: false,
            known: Known::default(),
            view: None,
        });
        step.recovered = true;
        Self::wake_everyone(step);
    }

    /// Takes what a message says about others while the group recovers, and what it settles afterwards.
    pub(super) fn hear(&mut self, rules: &Rules, message: &Message) {
        let clock = self.clock;
        let Some(recovery) = &mut self.recovery else {
            if message.complete
                && self.conservative.by.remove(&message.instance)
                && self.conservative.by.is_empty()
            {
                let charges = std::mem::take(&mut self.conservative.charges).into_iter();
                for key in charges.filter(|_| !without(Part::P13TakenBack)) {
                    self.windows.remove(rules, key);
                }
            }
            return;
        };
        recovery.earliest = recovery.began + 2 * rules.heartbeat();
        recovery.latest = recovery.began + rules.lease;
        if let Some(open_session) = message.open_session.first() {
            if !without(Part::P3Named) {
                recovery.expected.extend(open_session.peers.iter().cloned());
            }
            recovery.remembered |= message.seen > Seq::NONE;
            for view in open_session.view.iter().map(UsageSnapshot::bounded) {
                let at = clock.saturating_sub(view.age);
                if recovery.view.as_ref().is_none_or(|newest| at > newest.at) {
                    recovery.view = Some(Seen::new(at, &view, &open_session.rules));
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
        let missing: BTreeSet<Arc<str>> = lately
            .map(|(name, _)| name)
            .chain(&recovery.expected)
            .filter(|name| !confirmed(name))
            .cloned()
            .collect();
        // Whoever was known to have departed when the newest view was taken was granted nothing after it.
        let seen_off = |view: Micros| {
            missing
                .iter()
                .all(|name| self.departed.get(name).is_some_and(|at| *at <= view))
        };
        let vouches = |view: &Seen| seen_off(view.at) || without(Part::P13AccountsForAll);
        let vouches = recovery.view.as_ref().is_some_and(vouches);
        if !missing.is_empty() && !self.sum_known(&mut recovery) {
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
        match &recovery.view {
            _ if missing.is_empty() => {}
            Some(view) if vouches => self.charge_conservatively(rules, view, &recovery.known.by),
            _ => {
                // Until then they may have dispatched what they were granted before the loss (P9).
                let later = if without(Part::P13DispatchedLater) {
                    Micros::ZERO
                } else {
                    rules.dispatch_within()
                };
                let at = recovery.since + later;
                self.charge_limits(rules, &recovery, at);
                self.conservative.by.clone_from(&missing);
            }
        }
        // Told to all, so that they expect them no more.
        self.peers_version += u64::from(!missing.is_empty());
        for name in missing {
            self.departed.entry(name).or_insert(self.clock);
        }
    }

    /// P13: sums up what is reported of what counted when the newest view was taken, a part in each step (P16). Returns whether that is all.
    fn sum_known(&self, recovery: &mut Recovery) -> bool {
        let Some(view) = &recovery.view else {
            return true;
        };
        let known = &mut recovery.known;
        if known.of != view.at {
            *known = Known {
                of: view.at,
                from: Some(Micros::ZERO),
                by: BTreeMap::new(),
            };
        }
        let Some(from) = known.from else {
            return true;
        };
        let (keys, next) = self.windows.part(from);
        for key in keys {
            let Some(charge) = self.windows.get(key).map(|entry| &entry.charge) else {
                continue;
            };
            let Some((id, _, span)) = view.used.iter().find(|(id, ..)| *id == charge.deployment)
            else {
                continue;
            };
            let then = match key.kind {
                Kind::Grant => key.number <= view.number,
                Kind::Excess | Kind::Conservative => charge.at <= view.at,
            };
            if then && (charge.dispatch == Dispatch::Open || charge.at + *span > view.at) {
                *known.by.entry(id.clone()).or_default() += charge.cost;
            }
        }
        known.from = next;
        next.is_none()
    }

    /// P13: an unaccounted instance may have been granted anything up to the loss, after the newest usage snapshot too.
    fn charge_limits(&mut self, rules: &Rules, recovery: &Recovery, at: Micros) {
        if without(Part::P13Limits) {
            return;
        }
        for deployment in &rules.deployments {
            let most = recovery.most(rules, deployment);
            let charge = self.charge_amounts(rules, deployment, most, at);
            self.conservative.charges.extend(charge);
        }
    }

    fn charge_amounts(
        &mut self,
        rules: &Rules,
        deployment: &DeploymentRules,
        [requests, both, input, output]: [u64; KINDS],
        at: Micros,
    ) -> Option<Key> {
        // Enough of each kind, and of both together: what that needs beyond the limits of the kinds counts as input.
        let tokens = Tokens::new(input.max(both.saturating_sub(output)), output);
        self.charge(rules, &deployment.id, Cost { requests, tokens }, at)
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
        // More than any limit, so more would hold nothing up.
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

    /// P13: what the newest view had in use and no snapshot reports was granted to missing instances. A deployment that the view does not know, as no instance had it
    /// then, may have been used by instances that were missing already: its limits are charged.
    fn charge_conservatively(
        &mut self,
        rules: &Rules,
        view: &Seen,
        known: &BTreeMap<Arc<str>, Cost>,
    ) {
        if without(Part::P13UsageSnapshot) {
            return;
        }
        for deployment in &rules.deployments {
            let Some((id, used, span)) = view.used.iter().find(|(id, ..)| *id == deployment.id)
            else {
                self.charge_amounts(rules, deployment, highest_limits(deployment), view.at);
                continue;
            };
            if deployment.windows.is_empty() || *span == Micros::ZERO {
                continue;
            }
            let known = known.get(id).copied().unwrap_or_default();
            self.charge(rules, id, used.saturating_sub(known), view.at);
        }
    }
}
