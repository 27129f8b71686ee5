//! Configurations differ during every roll-out: what holds while they do.
//!
//! The group's deployments are the union of what the live sessions brought. A limit that several of them have is the stricter one until the last
//! session with the stricter one has ended; everything that is no limit is as the newest configuration says, or as the longer, where waiting longer is safe.

use std::{cmp::Reverse, collections::BTreeSet, sync::Arc};

use super::{Environment, State, Step};
use crate::{
    cost::KINDS,
    mutation::{Part, without},
    rules::{DeploymentRules, NONE, Rules, Window},
    units::{Micros, Seq, SessionId},
};

/// What one or several sessions brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Configuration {
    pub id: Seq,
    /// The higher, the newer. Instances remember it, so that it outlives a loss.
    pub version: u64,
    pub rules: Arc<Rules>,
}

/// All configurations of a group, the newest first, and what follows from them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Configurations {
    all: Vec<Configuration>,
    /// The union, with the stricter limits: the rules in force.
    pub strict: Option<Arc<Rules>>,
    /// The same deployments and windows with the limits of the newest configuration that knows them: for tickets that the stricter limits would
    /// never let go. The index of a window means the same in both.
    pub newest: Option<Arc<Rules>>,
    /// A session has begun or ended since all of this was worked out.
    pub unsettled: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Limits {
    Strict,
    Newest,
}

impl Configurations {
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn version(&self, id: Seq) -> u64 {
        let found = self.all.iter().find(|c| c.id == id);
        found.map_or(0, |c| c.version)
    }

    /// The shortest heartbeat of all: how often each instance has to step.
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
            // Not a provider's limit: the looser one refuses no ticket that either lets wait.
            let capped = merged.max_queue_depth > 0 && rules.max_queue_depth > 0;
            let deeper = merged.max_queue_depth.max(rules.max_queue_depth);
            merged.max_queue_depth = if capped { deeper } else { 0 };
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

/// What is counted: another list of windows needs a recount.
fn counted(rules: &Rules) -> Vec<(&str, Vec<Micros>)> {
    let spans = |d: &DeploymentRules| d.windows.iter().map(|w| w.span).collect();
    let all = rules.deployments.iter().map(|d| (&*d.id, spans(d)));
    let mut all: Vec<_> = all.collect();
    all.sort_unstable();
    all
}

impl State {
    /// Takes a session's configuration: one that is known, or a new one. One without a version was never in force, so it is the newest (a version comes from the
    /// group's counter of numbers). A restarted instance has none, but its configuration is known as long as others have it: so it is not taken for a newer one.
    pub(super) fn learn_rules(&mut self, rules: &Arc<Rules>, version: u64) -> Seq {
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

    /// Works out the rules in force after sessions have begun or ended. While the group recovers all configurations are kept: their sessions are on their way.
    /// Returns whether the order of tickets that wait has become another one.
    pub(super) fn settle_rules(&mut self, step: &mut Step) -> bool {
        self.configurations.unsettled = false;
        let live: BTreeSet<Seq> = self.sessions.values().map(|s| s.configuration).collect();
        if self.recovery.is_none() && !live.is_empty() {
            self.configurations.all.retain(|c| live.contains(&c.id));
        }
        let former = self.rules().cloned();
        let merged = self.configurations.merged(Limits::Strict).map(Arc::new);
        if merged != former
            && let Some(rules) = &merged
        {
            if let Some(former) = &former
                && counted(former) != counted(rules)
            {
                self.windows.relist(former, rules);
            }
            // So that all learn at once for how long to remember, and how often to step. Not instances that sleep without a session: one would bring its
            // configuration, go to sleep, and take it along again.
            if former.is_some() {
                let sessions = self.sessions.values();
                step.wakes.extend(sessions.map(|s| s.instance.clone()));
            }
        }
        let ordering = |rules: &Option<Arc<Rules>>| rules.as_ref().map(|r| r.ordering());
        let reordered = self.queue.len() > 0 && ordering(&former) != ordering(&merged);
        self.configurations.strict = merged;
        self.configurations.newest = self.configurations.merged(Limits::Newest).map(Arc::new);
        reordered
    }

    /// The rules in force.
    pub(super) fn rules(&self) -> Option<&Arc<Rules>> {
        self.configurations.strict.as_ref()
    }

    /// Queue entries are ordered, and counted, by rules that are no longer in force: all join anew (P18).
    pub(super) fn settle_order(&mut self, environment: &Environment, step: &mut Step) -> bool {
        let reordered = self.configurations.unsettled && self.settle_rules(step);
        if reordered && without(Part::P18OtherOrder) {
            return false;
        }
        if reordered {
            self.recover(environment, step);
        }
        reordered
    }

    /// Whether a session's instance could call a deployment.
    pub(super) fn knows(&self, session: SessionId, deployment: &str) -> bool {
        let names = |id: &Arc<str>| **id == *deployment || without(Part::P20Known);
        self.sessions
            .get(&session)
            .is_some_and(|s| self.configurations.len() == 1 || s.deployments.iter().any(names))
    }
}
