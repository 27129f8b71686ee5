//! Series that nearly every request counts in, found without an allocation.

use std::{
    collections::HashMap,
    fmt,
    hash::Hash,
    sync::{Arc, OnceLock},
};

use arc_swap::ArcSwap;
use prometheus_client::metrics::{
    counter::Counter,
    family::{Family, MetricConstructor},
    histogram::Histogram,
};
use vorrang_gateway::PriorityClass;

/// What is known by a name. Reading it writes to no memory that threads share.
#[derive(Debug)]
pub(super) struct ByName<T>(ArcSwap<HashMap<Box<str>, Arc<T>>>);

/// The series of a group.
#[derive(Debug, Default)]
pub(super) struct GroupSeries {
    pub(super) granted: OnceLock<Counter>,
    pub(super) waits: [OnceLock<Histogram>; PriorityClass::ALL.len()],
    pub(super) steps: OnceLock<Counter>,
    pub(super) step_ops: OnceLock<Histogram>,
    pub(super) step_seconds: OnceLock<Histogram>,
    pub(super) deployments: ByName<DeploymentSeries>,
}

/// The series of a deployment.
#[derive(Debug, Default)]
pub(super) struct DeploymentSeries {
    /// Upstream calls that were answered with 200.
    pub(super) ok: OnceLock<Counter>,
    pub(super) seconds: OnceLock<Histogram>,
}

impl<T> Default for ByName<T> {
    fn default() -> Self {
        Self(ArcSwap::default())
    }
}

impl<T: Default> ByName<T> {
    /// Names are those of the configuration: their number is bounded.
    pub(super) fn with<R>(&self, name: &str, use_it: impl FnOnce(&T) -> R) -> R {
        if let Some(known) = self.0.load().get(name) {
            return use_it(known);
        }
        let new = Arc::<T>::default();
        self.0.rcu(|known| {
            let mut known = HashMap::clone(known);
            known.entry(name.into()).or_insert_with(|| new.clone());
            known
        });
        use_it(self.0.load().get(name).unwrap_or(&new))
    }
}

/// A series of `family` that is looked up once.
pub(super) fn kept<'a, Labels, Series, Make>(
    cell: &'a OnceLock<Series>,
    family: &Family<Labels, Series, Make>,
    labels: impl FnOnce() -> Labels,
) -> &'a Series
where
    Labels: Clone + PartialEq + Eq + Hash + fmt::Debug,
    Series: Clone,
    Make: MetricConstructor<Series>,
{
    cell.get_or_init(|| family.get_or_create_owned(&labels()))
}
