//! What lists say of a model.

use crate::{Router, config::GroupSettings};

/// A model by one of its names, as it is when it is asked for.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ModelView {
    /// The `model_name`, or an alias.
    pub name: String,
    /// The group that it leads to.
    pub settings: GroupSettings,
}

impl Router {
    /// The model of this name or alias.
    pub fn model(&self, name: &str) -> Option<ModelView> {
        let inner = self.inner();
        let settings = inner.groups[inner.group_index(name)?].settings.clone();
        let name = name.to_owned();
        Some(ModelView { name, settings })
    }
}

impl ModelView {
    /// The provider of its first deployment that has one.
    pub fn provider(&self) -> Option<&'static str> {
        let mut deployments = self.settings.deployments.iter();
        deployments.find_map(|deployment| deployment.about.provider)
    }

    /// The first `model_info.mode` of its deployments.
    pub fn mode(&self) -> Option<&str> {
        let mut deployments = self.settings.deployments.iter();
        deployments.find_map(|deployment| deployment.about.mode.as_deref())
    }

    /// What a limit of this name lets through at all deployments together; `None`: one of them has no such limit.
    pub fn limit(&self, name: &str) -> Option<u64> {
        let of = |one: &crate::config::DeploymentSettings| {
            let mut limits = one.limits.iter();
            limits
                .find(|limit| limit.name == name)
                .map(|limit| limit.limit)
        };
        let limits: Option<Vec<u64>> = self.settings.deployments.iter().map(of).collect();
        limits.map(|limits| limits.into_iter().fold(0, u64::saturating_add))
    }
}
