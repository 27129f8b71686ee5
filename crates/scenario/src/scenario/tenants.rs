//! Whose requests are.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Scenario;

/// The body's `user`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tenants {
    /// How many there are.
    pub count: u64,
    /// How unequal they are: the n-th sends 1/n^zipf as much as the first; 0 is equal.
    pub zipf: f64,
    /// What they are called, before their numbers: the traffic's name without it. Traffics that name them alike have the same ones.
    pub name: Option<String>,
}

impl Default for Tenants {
    fn default() -> Self {
        Self {
            count: 1,
            zipf: 0.0,
            name: None,
        }
    }
}

impl Scenario {
    /// The body's `user` of a traffic's tenant.
    pub fn user(&self, traffic: usize, tenant: u64) -> String {
        let traffic = &self.traffic[traffic];
        let name = traffic.tenants.name.as_ref().unwrap_or(&traffic.name);
        format!("{name}-{tenant}")
    }

    /// Whom the gateway takes a traffic's tenant for: its user; where shares go by key, all that send that key, told by the first
    /// traffic that does (a key is not for a report).
    pub fn sharer(&self, traffic: usize, tenant: u64) -> String {
        if self.fair_by() != Some("key") {
            return self.user(traffic, tenant);
        }
        let key = &self.traffic[traffic].key;
        let first = self.traffic.iter().find(|other| other.key == *key);
        first.map_or_else(String::new, |first| first.name.clone())
    }

    /// Whether it makes sense to compare a traffic's tenants with each other.
    pub fn has_tenants(&self, traffic: usize) -> bool {
        self.traffic[traffic].tenants.count > 1 || self.fair_by().is_some()
    }

    /// What shares go by, where the gateway that the run starts is told to serve them fairly.
    fn fair_by(&self) -> Option<&str> {
        let groups = self.gateway.vorrang_settings.get("groups")?;
        groups
            .get(&self.model)?
            .get("fair_by")
            .and_then(Value::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scenario(fair_by: &str) -> Scenario {
        let text = format!(
            "name: x
phases: [{{name: all, for: 1s, rate: 1/s}}]
traffic:
  - {{name: a, tenants: {{count: 2}}, key: k, weight: 2}}
  - {{name: b, tenants: {{name: a}}, key: k}}
  - {{name: c}}
gateway: {{vorrang_settings: {{groups: {{model: {{fair_by: {fair_by}}}}}}}}}
"
        );
        Scenario::parse(&text, "x").unwrap()
    }

    #[test]
    fn traffic_streams_share_tenants_only_by_name() {
        let scenario = scenario("user");
        let users =
            [(0, 2), (1, 1), (2, 1)].map(|(traffic, tenant)| scenario.user(traffic, tenant));
        assert_eq!(users, ["a-2", "a-1", "c-1"]);
        assert_eq!(scenario.sharer(1, 1), "a-1");
        assert!(scenario.has_tenants(2), "they are compared with the others");
    }

    #[test]
    fn callers_with_one_key_are_one_tenant() {
        let scenario = scenario("key");
        let sharers = [(0, 1), (0, 2), (1, 1), (2, 1)];
        let sharers = sharers.map(|(traffic, tenant)| scenario.sharer(traffic, tenant));
        assert_eq!(sharers, ["a", "a", "a", "c"]);
    }
}
