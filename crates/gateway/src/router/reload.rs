//! Another configuration for a running router: groups and deployments come and go, and no call is dropped.
//!
//! A group is known by its name and a deployment by its id. A group that stays keeps its queue, and each ticket its place in it; the calls
//! that wait go to the deployments as the new configuration has them. A group that goes is called until its last ticket is served.

use std::{collections::HashSet, sync::Arc};

use vorrang_scheduler::{Scheduler, WhenAway};

use super::{Bounds, Inner, Router};
use crate::{
    Config, config::Verify, group::OpenGroup, journal::Clock, provider::client::Clients,
    request::tenant::Tenants, router::names::Names,
};

impl Router {
    /// Puts another configuration in force. What follows from it for the shared state (limits, order, health) is in force with the next
    /// answer of the backend.
    ///
    /// What the process is started with is not changed by it: where Redis is, ports, and bounds of the process.
    pub fn reload(&self, config: Arc<Config>) {
        self.current.rcu(|old| {
            let groups = open(&config, &old.scheduler, old.journal.clock(), &old.groups);
            let same_clients = verifies(&config) == verifies(&old.config)
                && config.hosts().len() == old.config.hosts().len();
            Inner {
                current: old.current.clone(),
                tenants: Tenants::new(&config),
                names: Names::of(&config),
                groups,
                clients: if same_clients {
                    old.clients.clone()
                } else {
                    Arc::new(clients(&config, &old.bounds))
                },
                config: config.clone(),
                scheduler: old.scheduler.clone(),
                waiting_by_key: old.waiting_by_key.clone(),
                reading: old.reading.clone(),
                waiting: old.waiting.clone(),
                journal: old.journal.clone(),
                member: old.member.clone(),
                bounds: old.bounds.clone(),
                cut: old.cut.clone(),
            }
        });
    }
}

impl Inner {
    /// This router with the configuration in force; itself where the router is gone.
    pub(super) fn latest(self: &Arc<Self>) -> Arc<Self> {
        let current = self.current.upgrade();
        current.map_or_else(|| self.clone(), |current| current.load_full())
    }

    /// The group of this name.
    pub(super) fn group_of_name(&self, name: &str) -> Option<&OpenGroup> {
        let mut groups = self.groups.iter();
        groups.find(|group| group.settings.name == name)
    }
}

/// Opens the groups of a configuration. Those that are open keep their queue and what was learnt of their calls.
pub(super) fn open(
    config: &Config,
    scheduler: &Scheduler,
    clock: Clock,
    known: &[OpenGroup],
) -> Vec<OpenGroup> {
    let same = |name: &str| known.iter().find(|group| group.settings.name == name);
    for gone in known {
        let name = &gone.settings.name;
        if !config.groups.iter().any(|group| group.name == *name) {
            // It may close its session when it is idle.
            let mut last = gone.scheduled.clone();
            last.when_away = WhenAway::Wait;
            gone.queue.reconfigure(&last);
        }
    }
    let groups = config.groups.iter();
    groups
        .map(|settings| {
            let group = OpenGroup::open(settings, config, scheduler, clock);
            // Does nothing where the configuration is the same.
            group.queue.reconfigure(&group.scheduled);
            match same(&settings.name) {
                Some(old) => group.continuing(old),
                None => group,
            }
        })
        .collect()
}

pub(super) fn clients(config: &Config, bounds: &Bounds) -> Clients {
    let per_host = bounds.idle_connections / config.hosts().len().max(1);
    Clients::new(per_host, config.verifies()).and(bounds.upstreams.clone())
}

fn verifies(config: &Config) -> HashSet<Verify> {
    config.verifies().collect()
}
