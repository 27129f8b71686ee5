//! What is known of each deployment's health, without a call upstream.

use vorrang_scheduler::{DeploymentStatus, GroupStatus};

use crate::{KeyPolicy, Router, config::DeploymentSettings};

/// One deployment as `/health` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EndpointView {
    /// The group's `model_name`.
    pub group: String,
    /// What the upstream calls the model.
    pub model: String,
    /// The deployment's id.
    pub id: String,
    /// Why no call would be sent to it now; `None`: it is healthy as far as the fleet knows.
    pub unhealthy: Option<String>,
}

impl Router {
    /// Every deployment of the groups that the key, where there is one, may call: of all groups, or of the one of this name or alias.
    pub fn endpoints(&self, key: Option<&KeyPolicy>, model: Option<&str>) -> Vec<EndpointView> {
        let inner = self.inner();
        let named = model.map(|name| inner.group_index(name));
        let asked = |index: usize| named.is_none_or(|named| named == Some(index));
        let allowed = |group: &str| key.is_none_or(|key| key.allows(model.unwrap_or(group), group));
        let groups = inner.groups_with_status().enumerate();
        groups
            .filter(|(index, (group, _))| asked(*index) && allowed(&group.name))
            .flat_map(|(_, (group, status))| {
                let view = move |(index, deployment): (usize, &DeploymentSettings)| EndpointView {
                    group: group.name.clone(),
                    model: deployment.model.clone(),
                    id: deployment.id.clone(),
                    unhealthy: unhealthy(&status, index),
                };
                let deployments = group.deployments.iter().enumerate();
                deployments.map(view).collect::<Vec<_>>()
            })
            .collect()
    }
}

/// Why no call goes to a deployment now.
fn unhealthy(status: &GroupStatus, deployment: usize) -> Option<String> {
    if !status.ready {
        return Some("the group has no open session with the scheduler's backend".into());
    }
    // Nothing is known of a deployment before the first step: that is no fault.
    let DeploymentStatus { cooling, .. } = status.deployments.get(deployment)?;
    cooling.map(|left| {
        let seconds = left.as_secs_f64().ceil();
        format!("cooling down after failures, for another {seconds} s")
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn deployment_is_unhealthy_during_cooldown_or_without_a_session() {
        let cooling = DeploymentStatus {
            cooling: Some(Duration::from_millis(2_100)),
            ..DeploymentStatus::default()
        };
        let mut status = GroupStatus {
            ready: true,
            deployments: vec![cooling, DeploymentStatus::default()],
            ..GroupStatus::default()
        };
        assert_eq!(
            unhealthy(&status, 0).unwrap(),
            "cooling down after failures, for another 3 s"
        );
        assert_eq!(unhealthy(&status, 1), None);
        assert_eq!(unhealthy(&status, 2), None, "nothing is known of it yet");
        status.ready = false;
        assert!(unhealthy(&status, 1).unwrap().contains("no open session"));
    }
}
