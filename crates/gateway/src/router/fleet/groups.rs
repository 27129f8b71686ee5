//! One group as operators see it.

use std::time::Duration;

use vorrang_scheduler::{
    COUNTED, DeploymentView, GroupStatus, GroupView, LimitKind, LimitOverride,
};

use super::{
    answering::Report,
    overview::{DeploymentOverview, GroupOverview, LimitOverview, ReserveOverview, classes},
};
use crate::{
    config::{DeploymentSettings, NamedLimit, strategy_name},
    group::OpenGroup,
    journal::milliseconds,
    router::Inner,
    waiting::estimates,
};

impl OpenGroup {
    /// Whether an operator has paused the group, or the key of this number in it.
    pub(crate) fn pauses(&self, key: u64) -> bool {
        let overrides = self.queue.status().overrides;
        overrides.paused || overrides.keys.contains(&key)
    }

    /// How long a ticket with so many before it surely waits, as of now; `None`: it is paused, and nobody knows for how long.
    pub(crate) fn least_wait(&self, ahead: u64, priority: i32, key: u64) -> Option<Duration> {
        if self.pauses(key) {
            return None;
        }
        let status = self.queue.status();
        let least = estimates::least_wait(&status, ahead, priority, &self.settings);
        Some(least)
    }

    /// The same in milliseconds.
    pub(crate) fn least_wait_ms(&self, ahead: u64, priority: i32, key: u64) -> Option<u64> {
        self.least_wait(ahead, priority, key).map(milliseconds)
    }

    fn order(&self) -> &'static str {
        match (self.settings.aging, &self.settings.fair) {
            (None, None) => "priority",
            (Some(_), None) => "aging",
            (None, Some(_)) => "fair",
            (Some(_), Some(_)) => "aging, fair",
        }
    }
}

impl Inner {
    /// `view`: what the step says; `None` where the backend does not answer, and the last that it said has to do.
    pub(super) fn group_overview(
        &self,
        group: &OpenGroup,
        view: Option<&GroupView>,
        reports: &[Report],
    ) -> GroupOverview {
        let status = group.queue.status();
        let settings = &group.settings;
        let overrides = view.map_or(&status.overrides, |view| &view.overrides);
        let (classes, history) = classes(&settings.name, reports);
        let deployments = settings.deployments.iter().enumerate();
        let deployments: Vec<_> = deployments
            .map(|(index, of)| deployment(of, index, view, &status))
            .collect();
        GroupOverview {
            name: settings.name.clone(),
            paused: overrides.paused,
            paused_keys: self.paused_keys(&overrides.keys),
            order: group.order(),
            strategy: strategy_name(self.config.strategy),
            pace_worse_than: settings.pace_worse_than,
            reserve: settings.reserve.map(|reserve| ReserveOverview {
                priority: reserve.priority,
                share: reserve.share,
            }),
            max_queue_depth: settings.max_queue_depth,
            depth: view.map_or(status.depth, |view| view.depth),
            held: reports
                .iter()
                .flat_map(|report| &report.groups)
                .filter(|of| of.name == settings.name)
                .map(|of| of.held)
                .sum(),
            open: deployments.iter().map(|of| of.open).sum(),
            next_free_ms: view
                .map_or(status.next_free, |view| view.next_free)
                .map(milliseconds),
            reasons: view
                .map_or(status.reasons, |view| view.reasons)
                .words()
                .collect(),
            backend_answers: view.is_some(),
            recovering: !status.ready,
            configurations: status.configurations,
            classes,
            history,
            deployments,
        }
    }

    /// The names of paused keys.
    pub(super) fn paused_keys(&self, numbers: &[u64]) -> Vec<String> {
        let name = |number: &u64| match self.tenants.key_name(*number) {
            Some(name) => name.to_owned(),
            None => format!("#{number:x}"),
        };
        numbers.iter().map(name).collect()
    }
}

fn deployment(
    of: &DeploymentSettings,
    index: usize,
    view: Option<&GroupView>,
    status: &GroupStatus,
) -> DeploymentOverview {
    let mut known = view.into_iter().flat_map(|view| &view.deployments);
    let seen = known.find(|one| *one.id == *of.state_id);
    let last = status.deployments.get(index);
    let cooling = match seen {
        Some(seen) => seen.cooling,
        None => last.and_then(|last| last.cooling),
    };
    let pace = seen.map(|seen| seen.pace).or(last.map(|last| last.pace));
    let open = seen
        .map(|seen| seen.open)
        .or(last.map(|last| last.in_flight));
    DeploymentOverview {
        id: of.id.clone(),
        model: of.model.clone(),
        order: of.order,
        weight: of.weight,
        open: open.unwrap_or_default(),
        cooling_ms: cooling.map(milliseconds),
        cooling_status: seen.filter(|_| cooling.is_some()).map(|seen| seen.status),
        pace_ms: milliseconds(pace.unwrap_or_default()),
        limits: limits(of, seen, &status.overrides.limits),
    }
}

/// The limits of a deployment as configured, and as they are in force.
pub(super) fn limits(
    of: &DeploymentSettings,
    seen: Option<&DeploymentView>,
    changed: &[LimitOverride],
) -> Vec<LimitOverview> {
    let overview = |named: &NamedLimit| {
        let mut known = seen.into_iter().flat_map(|seen| &seen.limits);
        let seen = known.find(|one| (one.kind, one.length) == (named.kind, named.length));
        let mut changes = changed.iter();
        let change = changes.find(|change| replaces(change, of, named));
        LimitOverview {
            limit: named.name.to_string(),
            kind: named.word(),
            window_s: named.is_window().then_some(named.length.as_secs_f64()),
            used: seen.map(|seen| seen.used),
            configured: named.limit,
            in_force: match change {
                Some(change) => u64::try_from(change.limit).unwrap_or_default(),
                None => named.limit,
            },
        }
    };
    of.limits.iter().map(overview).collect()
}

/// Whether an operator's change is one of this limit.
pub(crate) fn replaces(
    change: &LimitOverride,
    of: &DeploymentSettings,
    named: &NamedLimit,
) -> bool {
    let kind = COUNTED.get(usize::from(change.kind));
    *change.deployment == *of.state_id
        && kind.copied().unwrap_or(LimitKind::Concurrency) == named.kind
        && std::time::Duration::from(change.span) == named.span
}
