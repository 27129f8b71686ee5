//! Groups as metrics show them.

use vorrang_scheduler::{GroupStatus, Reserve};

use crate::{
    Router,
    config::{DeploymentSettings, kept},
    group::OpenGroup,
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

/// A deployment's configured limits, or so much of each.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeploymentLimits {
    /// The deployment's id.
    pub id: String,
    /// Requests per window.
    pub rpm: Option<u64>,
    /// Tokens per window, input and output together.
    pub tpm: Option<u64>,
    /// Input tokens per window.
    pub itpm: Option<u64>,
    /// Output tokens per window.
    pub otpm: Option<u64>,
    /// Open calls.
    pub max_parallel_requests: Option<u64>,
}

impl Router {
    /// Every group with its use and limits.
    pub fn groups(&self) -> Vec<GroupView> {
        let view = |group: &OpenGroup| {
            let deployments = group.settings.deployments.iter();
            let limits: Vec<_> = deployments.map(DeploymentLimits::from).collect();
            let reserve = group.settings.reserve;
            GroupView {
                name: group.settings.name.clone(),
                status: group.queue.status(),
                reserve: reserve
                    .map(|reserve| limits.iter().map(|of| of.kept_by(reserve)).collect())
                    .unwrap_or_default(),
                limits,
                paced: group.settings.pace_worse_than.is_some(),
            }
        };
        self.inner.groups.iter().map(view).collect()
    }
}

impl From<&DeploymentSettings> for DeploymentLimits {
    fn from(settings: &DeploymentSettings) -> Self {
        Self {
            id: settings.id.clone(),
            rpm: settings.rpm,
            tpm: settings.tpm,
            itpm: settings.itpm,
            otpm: settings.otpm,
            max_parallel_requests: settings.max_parallel_requests,
        }
    }
}

impl DeploymentLimits {
    /// What a reserve keeps of each limit for better priorities.
    fn kept_by(&self, reserve: Reserve) -> Self {
        let part = |limit: Option<u64>| limit.map(|limit| kept(reserve, limit));
        Self {
            id: self.id.clone(),
            rpm: part(self.rpm),
            tpm: part(self.tpm),
            itpm: part(self.itpm),
            otpm: part(self.otpm),
            max_parallel_requests: part(self.max_parallel_requests),
        }
    }
}
