//! Metrics of the shadow: what another configuration decides about the same requests.

use std::time::Duration;

use arc_swap::ArcSwapOption;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::{Registry, Unit},
};

use vorrang_gateway::PriorityClass;

use super::{GroupLabels, HistogramFamily, WaitLabels, group, waits};
use crate::shadow::Shadow;

/// The shadow in force, if there is one.
pub(crate) type ShadowSlot = ArcSwapOption<Shadow>;

/// When the shadow granted a request, against the real grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Than {
    Earlier,
    Same,
    Later,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    group: String,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ThanLabels {
    group: String,
    than: &'static str,
}

/// Counts what the shadow decides.
#[derive(Debug)]
pub(crate) struct ShadowMetrics {
    waits: HistogramFamily<WaitLabels>,
    outcomes: Family<OutcomeLabels, Counter>,
    grants: Family<ThanLabels, Counter>,
    without_group: Family<GroupLabels, Counter>,
    lost: Counter,
}

impl Default for ShadowMetrics {
    fn default() -> Self {
        Self {
            waits: Family::new_with_constructor(waits),
            outcomes: Family::default(),
            grants: Family::default(),
            without_group: Family::default(),
            lost: Counter::default(),
        }
    }
}

impl ShadowMetrics {
    pub(super) fn register(&self, to: &mut Registry) {
        to.register_with_unit(
            "shadow_wait",
            "Time in the shadow's queue until a grant",
            Unit::Seconds,
            self.waits.clone(),
        );
        to.register(
            "shadow_outcomes",
            "Requests in the shadow's queue by what became of them",
            self.outcomes.clone(),
        );
        to.register(
            "shadow_grants",
            "Requests that the shadow granted earlier, at the same time, or later than the real queue",
            self.grants.clone(),
        );
        to.register(
            "shadow_without_group",
            "Requests of groups that the shadow's configuration does not have",
            self.without_group.clone(),
        );
        to.register(
            "shadow_lost",
            "Reports that the shadow could not take: its figures are incomplete",
            self.lost.clone(),
        );
    }

    pub(crate) fn granted(&self, name: &str, priority: i32, waited: Duration) {
        let labels = WaitLabels {
            group: name.into(),
            priority: PriorityClass::of(priority).as_str(),
        };
        let waits = self.waits.get_or_create(&labels);
        waits.observe(waited.as_secs_f64());
        drop(waits);
        self.ended(name, "granted");
    }

    pub(crate) fn ended(&self, name: &str, outcome: &'static str) {
        let group = name.into();
        let labels = OutcomeLabels { group, outcome };
        self.outcomes.get_or_create(&labels).inc();
    }

    pub(crate) fn compared(&self, name: &str, than: Than) {
        let than = match than {
            Than::Earlier => "earlier",
            Than::Same => "same",
            Than::Later => "later",
        };
        let group = name.into();
        self.grants.get_or_create(&ThanLabels { group, than }).inc();
    }

    pub(crate) fn without_group(&self, name: &str) {
        self.without_group.get_or_create(&group(name)).inc();
    }

    pub(crate) fn lost(&self) {
        self.lost.inc();
    }
}
