//! Requests of the past under another configuration.

use vorrang_scheduler::{Claim, Share, Tokens};

use crate::{
    Config, GroupSettings,
    config::{FairBy, FairCost},
    request::tenant,
};

/// What the log of a request says about its place in a queue.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct RecordedRequest<'a> {
    /// The name of the caller's key.
    pub key: Option<&'a str>,
    /// The priority that the request itself named.
    pub asked_priority: Option<i32>,
    /// The priority that counted.
    pub priority: i32,
    /// The tenant's number, where the group had fair shares; else 0.
    pub tenant: u64,
    /// The tokens to reserve.
    pub tokens: Tokens,
}

impl Config {
    /// What a request of the past would ask of a group of this configuration.
    ///
    /// A key that the configuration does not have leaves the priority as it counted. Tenants are those of the past, unless they are keys: who
    /// sent which `user` or header is not recorded otherwise.
    pub fn claim_of(&self, group: &GroupSettings, request: &RecordedRequest<'_>) -> Claim {
        let mut keys = self.keys.iter().map(|settings| &settings.policy);
        let key = request
            .key
            .and_then(|name| keys.find(|policy| policy.name == name));
        let priority = match (request.key, key) {
            (Some(_), None) => request.priority,
            _ => {
                let named = request
                    .asked_priority
                    .or(key.and_then(|key| key.default_priority))
                    .or(group.default_priority)
                    .or(self.default_priority);
                let best = key.and_then(|key| key.best_priority).unwrap_or(i32::MIN);
                named.unwrap_or(0).max(best)
            }
        };
        let share = group.fair.as_ref().map(|fair| {
            let service = match fair.cost {
                FairCost::Requests => 1.0,
                FairCost::Tokens => tenant::units(request.tokens.total()),
            };
            let weight = key.map_or(1.0, |key| key.weight());
            let by_key = Share::new(request.key.unwrap_or_default(), service / weight);
            match fair.by {
                FairBy::User | FairBy::Header(_) if request.tenant != 0 => Share {
                    tenant: request.tenant,
                    ..by_key
                },
                _ => by_key,
            }
        });
        Claim {
            share: share.unwrap_or_default(),
            ..Claim::new(priority, request.tokens)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{KeyPolicy, KeySettings, config::FairShares};

    fn config() -> Config {
        let mut config = Config::demo();
        config.default_priority = Some(7);
        config.keys = vec![KeySettings {
            key: "secret".into(),
            policy: KeyPolicy {
                name: "batch".into(),
                default_priority: Some(100),
                best_priority: Some(10),
                weight: Some(2.0),
                ..KeyPolicy::default()
            },
        }];
        config
    }

    #[test]
    fn recorded_request_gets_the_priority_that_the_configuration_gives_it() {
        let config = config();
        let of = |key, asked_priority| {
            let request = RecordedRequest {
                key,
                asked_priority,
                priority: 55,
                ..RecordedRequest::default()
            };
            config.claim_of(&config.groups[0], &request).priority
        };
        assert_eq!(of(Some("batch"), None), 100);
        assert_eq!(of(Some("batch"), Some(20)), 20);
        assert_eq!(
            of(Some("batch"), Some(0)),
            10,
            "no better than its key allows"
        );
        assert_eq!(of(None, None), 7);
        assert_eq!(of(Some("gone"), Some(1)), 55, "of an unknown key as it was");
    }

    #[test]
    fn recorded_request_keeps_its_tenant_where_that_is_no_key() {
        let config = config();
        let mut group = config.groups[0].clone();
        let request = RecordedRequest {
            key: Some("batch"),
            tenant: 9,
            tokens: Tokens::from(1000),
            ..RecordedRequest::default()
        };
        assert_eq!(config.claim_of(&group, &request).share, Share::default());
        let mut share = |by, cost| {
            group.fair = Some(FairShares { by, cost });
            config.claim_of(&group, &request).share
        };
        let by_user = share(FairBy::User, FairCost::Requests);
        assert_eq!((by_user.tenant, by_user.cost), (9, 5_000));
        let by_key = share(FairBy::Key, FairCost::Tokens);
        assert_eq!(by_key, Share::new("batch", 0.5));
    }
}
