//! A group that is open: its settings, its queue, and what this instance has learnt of its calls.

use std::{borrow::Cow, sync::Arc};

use vorrang_scheduler::{GroupConfig, Permit, Scheduler};

use crate::{
    Config, Endpoint, GroupSettings,
    config::{DeploymentSettings, KeyHeader, Target, Upstream},
    journal::{Clock, GroupWaits},
    provider::{client::Key, http::Address, secrets::Secrets},
    tokens::MeanCompletion,
};

/// A group that is open.
#[derive(Debug)]
pub(crate) struct OpenGroup {
    pub(crate) settings: GroupSettings,
    /// The same as the scheduler knows it.
    pub(crate) scheduled: GroupConfig,
    pub(crate) queue: vorrang_scheduler::Group,
    pub(crate) mean: Arc<MeanCompletion>,
    /// Its name, and the ids of its deployments, for the journal.
    pub(crate) name: Arc<str>,
    pub(crate) ids: Vec<Arc<str>>,
    pub(crate) waits: Arc<GroupWaits>,
    /// Of each deployment.
    pub(crate) secrets: Vec<Secrets>,
    /// Of each deployment.
    calls: Vec<Calls>,
}

/// What is the same in all calls of a deployment, made once.
#[derive(Debug)]
pub(crate) struct Calls {
    /// By endpoint. Empty where an address depends on the request.
    addresses: Vec<Option<Address>>,
    pub(crate) key: Key,
    pub(crate) key_header: KeyHeader,
}

impl Calls {
    fn of(target: &Target) -> Self {
        let Target::Upstream(upstream) = target else {
            return Self {
                addresses: Vec::new(),
                key: Key::None,
                key_header: KeyHeader::Bearer,
            };
        };
        let address = |endpoint| Address::parse(&upstream.url(endpoint, "", false));
        let key_header = upstream.key_header();
        Self {
            addresses: if upstream.has_fixed_urls() {
                Endpoint::all().map(address).collect()
            } else {
                Vec::new()
            },
            key: Key::of(upstream, key_header),
            key_header,
        }
    }
}

impl OpenGroup {
    /// Opens a group of the configuration.
    pub(crate) fn open(
        settings: &GroupSettings,
        config: &Config,
        scheduler: &Scheduler,
        clock: Clock,
    ) -> Self {
        let scheduled = config.group_config(settings);
        Self {
            settings: settings.clone(),
            queue: scheduler.open(&settings.name, &scheduled),
            scheduled,
            mean: Arc::default(),
            name: settings.name.as_str().into(),
            ids: settings
                .deployments
                .iter()
                .map(|deployment| deployment.id.as_str().into())
                .collect(),
            waits: Arc::new(GroupWaits::new(clock)),
            secrets: settings
                .deployments
                .iter()
                .map(|deployment| Secrets::of_target(&deployment.target))
                .collect(),
            calls: settings
                .deployments
                .iter()
                .map(|deployment| Calls::of(&deployment.target))
                .collect(),
        }
    }

    /// With what was learnt of its calls under another configuration.
    pub(crate) fn continuing(self, old: &Self) -> Self {
        Self {
            mean: old.mean.clone(),
            waits: old.waits.clone(),
            ..self
        }
    }

    /// Where a call of a deployment goes; `None`: its URL is none. `model`: what the upstream calls the model.
    pub(crate) fn address(
        &self,
        deployment: usize,
        upstream: &Upstream,
        endpoint: Endpoint,
        model: &str,
        stream: bool,
    ) -> Option<Cow<'_, Address>> {
        match self.calls[deployment].addresses.get(endpoint as usize) {
            Some(address) => address.as_ref().map(Cow::Borrowed),
            None => Address::parse(&upstream.url(endpoint, model, stream)).map(Cow::Owned),
        }
    }

    /// What is the same in all calls of a deployment.
    pub(crate) fn calls(&self, deployment: usize) -> &Calls {
        &self.calls[deployment]
    }

    /// The deployment of a permit: permits may be of an earlier configuration.
    pub(crate) fn index_of(&self, permit: &Permit) -> Option<usize> {
        let id = permit.deployment_id();
        let is = |deployment: &DeploymentSettings| deployment.state_id == id;
        let deployments = &self.settings.deployments;
        let place = permit.deployment();
        if deployments.get(place).is_some_and(is) {
            return Some(place);
        }
        deployments.iter().position(is)
    }
}
