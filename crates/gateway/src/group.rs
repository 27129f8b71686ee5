//! A group that is open: its settings, its queue, and what this instance has learnt of its calls.

use std::sync::Arc;

use vorrang_scheduler::{GroupConfig, Permit, Scheduler};

use crate::{
    Config, GroupSettings, config::DeploymentSettings, provider::secrets::Secrets,
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
    /// Of each deployment.
    pub(crate) secrets: Vec<Secrets>,
}

impl OpenGroup {
    /// Opens a group of the configuration.
    pub(crate) fn open(settings: &GroupSettings, config: &Config, scheduler: &Scheduler) -> Self {
        let scheduled = config.group_config(settings);
        Self {
            settings: settings.clone(),
            queue: scheduler.open(&settings.name, &scheduled),
            scheduled,
            mean: Arc::default(),
            secrets: settings
                .deployments
                .iter()
                .map(|deployment| Secrets::of_target(&deployment.target))
                .collect(),
        }
    }
    /// With what was learnt of its calls under another configuration.
    pub(crate) fn continuing(self, old: &Self) -> Self {
        let mean = old.mean.clone();
        Self { mean, ..self }
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
