//! Groups as metrics show them.

use vorrang_scheduler::{GroupStatus, Reserve};

use crate::{
    Router,
    config::{DeploymentSettings, NamedLimit, kept},
    group::OpenGroup,
    waiting::estimates,
};

/// One group as metrics show it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct GroupView {
    /// The `model_name`.
    pub name: String,
    /// What this instance knows of it.
    pub status: GroupStatus,
    /// One for each deployment, in the order of [`GroupStatus::deployments`].
    pub limits: Vec<DeploymentLimits>,
    /// What the reserve keeps of each of them; empty without one.
    pub reserve: Vec<DeploymentLimits>,
    /// Whether tickets of any priority are paced.
    pub paced: bool,
}

/// A deployment's limits in force, or so much of each.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeploymentLimits {
    /// The deployment's id.
    pub id: String,
    /// Each kind once for each length of a window.
    pub limits: Vec<NamedLimit>,
}

impl Router {
    /// Every group with its use and limits.
    pub fn groups(&self) -> Vec<GroupView> {
        let view = |group: &OpenGroup| {
            let status = group.queue.status();
            let settings = estimates::in_force(&group.settings, &status);
            let deployments = settings.deployments.iter();
            let limits: Vec<_> = deployments.map(DeploymentLimits::from).collect();
            let reserve = settings.reserve;
            GroupView {
                name: group.settings.name.clone(),
                status,
                reserve: reserve
                    .map(|reserve| limits.iter().map(|of| of.kept_by(reserve)).collect())
                    .unwrap_or_default(),
                limits,
                paced: group.settings.pace_worse_than.is_some(),
            }
        };
        self.inner().groups.iter().map(view).collect()
    }
}

impl From<&DeploymentSettings> for DeploymentLimits {
    fn from(settings: &DeploymentSettings) -> Self {
        Self {
            id: settings.id.clone(),
            limits: settings.limits.clone(),
        }
    }
}

impl DeploymentLimits {
    /// What a reserve keeps of each limit for better priorities.
    fn kept_by(&self, reserve: Reserve) -> Self {
        let part = |of: &NamedLimit| NamedLimit {
            limit: kept(reserve, of.limit),
            ..of.clone()
        };
        Self {
            id: self.id.clone(),
            limits: self.limits.iter().map(part).collect(),
        }
    }
}
