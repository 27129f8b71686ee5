//! A group that is open: its settings, its queue, and what this instance has learnt of its calls.

use std::sync::Arc;

use vorrang_scheduler::Scheduler;

use crate::{Config, GroupSettings, provider::secrets::Secrets, tokens::MeanCompletion};

/// A group that is open.
#[derive(Debug)]
pub(crate) struct OpenGroup {
    pub(crate) settings: GroupSettings,
    pub(crate) queue: vorrang_scheduler::Group,
    pub(crate) mean: Arc<MeanCompletion>,
    /// Of each deployment.
    pub(crate) secrets: Vec<Secrets>,
}

impl OpenGroup {
    /// Opens a group of the configuration.
    pub(crate) fn open(settings: &GroupSettings, config: &Config, scheduler: &Scheduler) -> Self {
        Self {
            settings: settings.clone(),
            queue: scheduler.open(&settings.name, &config.group_config(settings)),
            mean: Arc::default(),
            secrets: settings
                .deployments
                .iter()
                .map(|deployment| Secrets::of_target(&deployment.target))
                .collect(),
        }
    }
}
