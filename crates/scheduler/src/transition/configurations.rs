//! Configurations differ during every roll-out (P20).
//!
//! The group's deployments are the union of the configurations of all sessions. Of a limit that several configurations have the strictest holds, until the last session
//! with it has ended. Other settings are those of the newest configuration, or the longest where waiting longer is safe. `lua/configurations.lua` has the same functions
//! in the same order.

use std::{cmp::Reverse, collections::BTreeSet, sync::Arc};

use super::{Environment, State, Step};
use crate::{
    cost::KINDS,
    mutation::{Part, without},
    rules::{DeploymentRules, NONE, Rules, Window},
    units::{Micros, Seq},
};

/// The configuration of one or several sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Configuration {
    pub id: Seq,
    /// The higher, the newer. Instances keep it, so that it survives a loss.
    pub version: u64,
    pub rules: Arc<Rules>,
}

/// All configurations of a group, the newest first, and the rules that follow from them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Configurations {
    all: Vec<Configuration>,
    /// The union, with the stricter limits: the rules in force.
    pub strict: Option<Arc<Rules>>,
    /// The same deployments and windows with the limits of the newest configuration that knows them: for tickets that the stricter limits would
    /// never admit. The index of a window is the same in both.
    pub newest: Option<Arc<Rules>>,
    /// A session has begun or ended since these rules were settled.
    pub unsettled: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Limits {
    Strict,
    Newest,
}

/// The list of windows of each deployment. A change of it needs a recount.
fn counted(rules: &Rules) -> Vec<(&str, Vec<Micros>)> {
    let spans = |d: &DeploymentRules| d.windows.iter().map(|w| w.span).collect();
    let all = rules.deployments.iter().map(|d| (&*d.id, spans(d)));
    let mut all: Vec<_> = all.collect();
    all.sort_unstable();
    all
}

/// Adds an older configuration's limits of a deployment.
fn add_limits(known: &mut DeploymentRules, older: &DeploymentRules, limits: Limits) {
    let stricter = |newer: i64, older: i64| match (limits, newer, older) {
        (Limits::Newest, newer, _) => newer,
        (Limits::Strict, NONE, only) | (Limits::Strict, only, NONE) => only,
        (Limits::Strict, newer, _) if without(Part::P20Stricter) => newer,
        (Limits::Strict, newer, older) => newer.min(older),
    };
    known.concurrency = stricter(known.concurrency, older.concurrency);
    for window in &older.windows {
        let both =
            |newer: [i64; KINDS]| std::array::from_fn(|k| stricter(newer[k], window.limits[k]));
        match known.windows.iter_mut().find(|w| w.span == window.span) {
            Some(same) => same.limits = both(same.limits),
            None => known.windows.push(Window {
                span: window.span,
                limits: both([NONE; KINDS]),
            }),
        }
    }
    known.windows.sort_by_key(|w| w.span);
}

impl Configurations {
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn version(&self, id: Seq) -> u64 {
        let found = self.all.iter().find(|c| c.id == id);
        found.map_or(0, |c| c.version)
    }

    /// The shortest heartbeat of all configurations: how often each instance has to step.
    pub(super) fn heartbeat(&self) -> Micros {
        let all = self.all.iter().map(|c| c.rules.heartbeat());
        all.min().unwrap_or(Micros::ZERO)
    }

    fn merged(&self, limits: Limits) -> Option<Rules> {
        let (newest, older) = self.all.split_first()?;
        let mut merged = Rules::clone(&newest.rules);
        for Configuration { rules, .. } in older {
            if !without(Part::P20LongestLease) {
                merged.lease = merged.lease.max(rules.lease);
            }
            merged.memory = merged.memory.max(rules.memory);
            // `max_queue_depth` protects no provider. The larger one refuses no ticket that either configuration lets wait.
            let capped = merged.max_queue_depth > 0 && rules.max_queue_depth > 0;
            let larger = merged.max_queue_depth.max(rules.max_queue_depth);
            merged.max_queue_depth = if capped { larger } else { 0 };
            if limits == Limits::Newest {
                merged.left = merged.left.max(rules.left);
                merged.reserve_priority = merged.reserve_priority.max(rules.reserve_priority);
            }
            for other in &rules.deployments {
                let known = merged.deployments.iter_mut().find(|d| d.id == other.id);
                match known {
                    None => merged.deployments.push(other.clone()),
                    Some(known) => add_limits(known, other, limits),
                }
            }
        }
        Some(merged)
    }
}

impl State {
    /// Takes the configuration of a session, and returns its id. A configuration without a version was never in force, so it is the newest: versions are sequence
    /// numbers. A restarted instance brings no version either, but the group knows its configuration as long as another session has it.
    pub(super) fn learn_configuration(&mut self, rules: &Arc<Rules>, version: u64) -> Seq {
        let all = &mut self.configurations.all;
        let id = if let Some(known) = all.iter_mut().find(|c| c.rules == *rules) {
            known.version = known.version.max(version);
            known.id
        } else {
            let id = self.draw();
            let version = if version == 0 { id.0 } else { version };
            let rules = rules.clone();
            self.configurations
                .all
                .push(Configuration { id, version, rules });
            id
        };
        let all = &mut self.configurations.all;
        all.sort_by_key(|c| Reverse((c.version, c.id)));
        id
    }

    /// Settles the rules in force after sessions have begun or ended. While the group recovers all configurations are kept, because their sessions may follow. Returns
    /// whether the order of waiting tickets has changed.
    pub(super) fn settle_configurations(&mut self, step: &mut Step) -> bool {
        self.configurations.unsettled = false;
        let live: BTreeSet<Seq> = self.sessions.values().map(|s| s.configuration).collect();
        if self.recovery.is_none() && !live.is_empty() {
            self.configurations.all.retain(|c| live.contains(&c.id));
        }
        let former = self.rules().cloned();
        let in_force = |limits| {
            let mut merged = self.configurations.merged(limits)?;
            self.overrides.apply(&mut merged);
            Some(Arc::new(merged))
        };
        let (merged, newest) = (in_force(Limits::Strict), in_force(Limits::Newest));
        if merged != former
            && let Some(rules) = &merged
        {
            if let Some(former) = &former
                && counted(former) != counted(rules)
            {
                self.windows.change_lists(former, rules);
            }
            // All sessions are woken to learn how long to keep charges, and how often to step. Not instances without a session: each would open one, close it when
            // idle, and so change the configurations twice more.
            if former.is_some() {
                let sessions = self.sessions.values();
                step.wakes.extend(sessions.map(|s| s.instance.clone()));
            }
        }
        let ordering = |rules: &Option<Arc<Rules>>| rules.as_ref().map(|r| r.ordering());
        let reordered = self.queue.len() > 0 && ordering(&former) != ordering(&merged);
        self.configurations.strict = merged;
        self.configurations.newest = newest;
        reordered
    }

    /// The rules in force.
    pub(super) fn rules(&self) -> Option<&Arc<Rules>> {
        self.configurations.strict.as_ref()
    }

    /// P18 (pacing, reserve, aging): if the queue order has changed, all tickets join again.
    pub(super) fn settle_order(&mut self, environment: &Environment, step: &mut Step) -> bool {
        let reordered = self.configurations.unsettled && self.settle_configurations(step);
        if reordered && without(Part::P18OtherOrder) {
            return false;
        }
        if reordered {
            self.begin_recovery(environment, step);
        }
        reordered
    }
}
