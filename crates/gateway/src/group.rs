//! A group that is open: its settings, its queue, and what this instance has learnt of its calls.

use std::{fmt, sync::Arc};

use reqwest::Url;
use vorrang_scheduler::{GroupConfig, Permit, Scheduler};

use crate::{
    Config, Endpoint, GroupSettings,
    config::{DeploymentSettings, Target, Upstream},
    journal::{Clock, GroupWaits},
    provider::secrets::Secrets,
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
    urls: Vec<Urls>,
}

/// The URLs of a deployment's endpoints, parsed once. Empty where a URL depends on the request.
#[derive(Default)]
struct Urls(Vec<Option<Url>>);

impl Urls {
    fn of(target: &Target) -> Self {
        match target {
            Target::Upstream(upstream) if upstream.has_fixed_urls() => {
                let url = |endpoint| Url::parse(&upstream.url(endpoint, "", false)).ok();
                Self(Endpoint::all().map(url).collect())
            }
            _ => Self::default(),
        }
    }
}

/// A URL may hold a password or a key.
impl fmt::Debug for Urls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Urls")
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
            urls: settings
                .deployments
                .iter()
                .map(|deployment| Urls::of(&deployment.target))
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
    pub(crate) fn url(
        &self,
        deployment: usize,
        upstream: &Upstream,
        endpoint: Endpoint,
        model: &str,
        stream: bool,
    ) -> Option<Url> {
        match self.urls[deployment].0.get(endpoint as usize) {
            Some(url) => url.clone(),
            None => Url::parse(&upstream.url(endpoint, model, stream)).ok(),
        }
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
