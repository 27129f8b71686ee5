//! Settings of a group and of its deployments.

use std::{borrow::Cow, time::Duration};

use http::HeaderName;
use vorrang_scheduler::{Deployment, LimitKind, MAX_LIMIT, Reserve};

use super::NamedLimit;

use crate::{
    Endpoint,
    config::{Serves, Upstream, Wildcard},
    provider::mock,
    request::edits::Edits,
};

/// All deployments behind one `model_name`.
#[derive(Debug, Clone)]
pub struct GroupSettings {
    /// The `model_name`.
    pub name: String,
    /// Where that has a `*`: the names that it stands for.
    pub wildcard: Option<Wildcard>,
    /// In the order of the file.
    pub deployments: Vec<DeploymentSettings>,
    /// Upstreams get headers of the client.
    pub passes_headers: bool,
    /// Priority where neither request nor key name one.
    pub default_priority: Option<i32>,
    /// At most this many tickets wait.
    pub max_queue_depth: Option<u64>,
    /// Tickets of a worse priority are granted no faster than limit / window; `None`: none are.
    pub pace_worse_than: Option<i32>,
    /// Room that is kept for better priorities.
    pub reserve: Option<Reserve>,
    /// Aging rate: how much waiting time makes up for one level of priority; `None`: no wait does.
    pub aging: Option<Duration>,
    /// Tenants of the same priority share fairly; `None`: first come, first served.
    pub fair: Option<FairShares>,
    /// Where urgent tickets go that have waited long enough; `None`: they wait on.
    pub spill: Option<Spill>,
}

/// When a ticket leaves the queue for that of another group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spill {
    /// The group's name, or an alias.
    pub to: String,
    /// It has waited for so long, or surely will.
    pub after: Duration,
    /// Its priority is better (lower) than this.
    pub better_than: i32,
}

/// Fair shares among tenants of the same priority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FairShares {
    /// What a tenant is.
    pub by: FairBy,
    /// What counts as service.
    pub cost: FairCost,
}

/// What a tenant is. Calls without a user or header are one tenant of their key.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FairBy {
    /// Each key, including the master key.
    Key,
    /// Each `user` of a key, as the body names it.
    User,
    /// Each value of this header, of a key.
    Header(HeaderName),
}

/// What one unit of service is for a key of weight 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FairCost {
    /// A request.
    Requests,
    /// A thousand tokens, as they are reserved.
    Tokens,
}

/// One entry of `model_list`.
#[derive(Debug, Clone)]
pub struct DeploymentSettings {
    /// What metrics, logs and answers call it: `model_info.id`, else a hash of name, model, host and ordinal. Nothing secret is in it.
    pub id: String,
    /// What the shared state calls it: `model_info.id`, else a hash of name, model, base, key and ordinal.
    pub state_id: String,
    /// What the upstream calls the model. In a wildcard's group a `*` stands for what it stands for in the request.
    pub model: String,
    /// What lists of models say of it.
    pub about: About,
    /// Where and how it is called.
    pub target: Target,
    /// What it may be asked for, by its `model_info.mode`.
    pub serves: Serves,
    /// What it changes in the fields of requests.
    pub edits: Edits,
    /// `rpm` and the like, `max_parallel_requests`, and those of `limits`; each kind once for each length.
    pub limits: Vec<NamedLimit>,
    /// What a cached token of the input counts against token limits, 0 to 1.
    pub cached_token_weight: f64,
    /// Share under simple-shuffle.
    pub weight: Option<f64>,
    /// Only deployments of the lowest order that have room are chosen from; one without an order comes after all that have one.
    pub order: Option<i32>,
    /// What a token of each kind costs, where deployments are chosen by that.
    pub price: Option<f64>,
    /// One attempt: to the whole answer, or to its first event where it is streamed.
    pub timeout: Option<Duration>,
    /// One attempt of a streamed call, to the answer's first event.
    pub stream_timeout: Option<Duration>,
    /// Attempts after the first, when an attempt on this deployment failed.
    pub num_retries: Option<u32>,
    /// How long it cools after a 401, 404, 408, a 429 that does not say, or too many failures.
    pub cooldown_time: Option<Duration>,
    /// Its own [`Config::keepalive`](crate::Config::keepalive).
    pub keepalive: Option<Duration>,
}

/// What lists of models say of a deployment; nothing of it decides about calls.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct About {
    /// `litellm_params.model`, with its provider.
    pub model: String,
    /// The provider that it was taken for; `None`: it is answered in process.
    pub provider: Option<&'static str>,
    /// `model_info.mode`.
    pub mode: Option<String>,
}

/// What a deployment's calls go to.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Target {
    /// A server that speaks OpenAI's format.
    Upstream(Upstream),
    /// `mock_response`: answered in process.
    Mock {
        /// The answer's text, or the name of an error to raise.
        response: String,
    },
}

impl Target {
    pub(super) fn has_key(&self) -> bool {
        matches!(self, Self::Upstream(upstream) if upstream.has_key())
    }

    /// `host:port` of an upstream; nothing of it is secret.
    pub fn host(&self) -> Option<String> {
        match self {
            Self::Upstream(upstream) => upstream.host(),
            Self::Mock { .. } => None,
        }
    }
}

impl GroupSettings {
    /// Its `model_name` in the file: a group for one provider of `*` has another name.
    pub(crate) fn declared(&self) -> &str {
        let wildcard = self.wildcard.as_ref();
        wildcard.map_or(&self.name, |wildcard| &wildcard.declared)
    }

    /// Whether it is a wildcard that stands for this name.
    pub(crate) fn fits(&self, name: &str) -> bool {
        let wildcard = self.wildcard.as_ref();
        wildcard.is_some_and(|wildcard| wildcard.fits(name))
    }

    /// What a deployment's upstream calls the model that is asked for.
    pub(crate) fn model_at<'a>(
        &self,
        deployment: &'a DeploymentSettings,
        requested: &str,
    ) -> Cow<'a, str> {
        let template = &deployment.model;
        let wildcard = self.wildcard.as_ref();
        let filled = wildcard.and_then(|wildcard| wildcard.filled(template, requested));
        filled.map_or(Cow::Borrowed(template), Cow::Owned)
    }

    /// Why no deployment can be asked for this; `None`: one can be.
    pub(crate) fn lacks(&self, endpoint: Endpoint) -> Option<&'static str> {
        let mut why = None;
        for deployment in &self.deployments {
            why = Some(deployment.lacks(endpoint)?);
        }
        why
    }

    /// How much of a limit tickets of a priority may fill.
    pub fn room(&self, priority: i32, limit: u64) -> u64 {
        match self.reserve {
            Some(reserve) if priority > reserve.priority => reserve.leaves(limit),
            _ => limit,
        }
    }
}

/// How much of a limit a reserve keeps for better priorities.
pub(crate) fn kept(reserve: Reserve, limit: u64) -> u64 {
    let limit = limit.min(MAX_LIMIT);
    limit - reserve.leaves(limit)
}

impl DeploymentSettings {
    /// Why it cannot be asked for this; `None`: it can be.
    pub(crate) fn lacks(&self, endpoint: Endpoint) -> Option<&'static str> {
        if !self.serves.includes(endpoint) {
            return Some("is for other endpoints, as its model_info.mode says");
        }
        match &self.target {
            Target::Upstream(upstream) if !upstream.serves(endpoint) => {
                Some("is served by a provider without this endpoint")
            }
            Target::Mock { response } if !mock::answers(endpoint, response) => {
                Some("is answered by mock_response, which has no answer for this endpoint")
            }
            _ => None,
        }
    }

    /// Its limits of a kind, one for each length of a window.
    pub fn limits_of(&self, kind: LimitKind) -> impl Iterator<Item = &NamedLimit> {
        self.limits.iter().filter(move |limit| limit.kind == kind)
    }

    /// The lowest of its limits of a kind: no single call takes more.
    pub fn lowest(&self, kind: LimitKind) -> Option<u64> {
        self.limits_of(kind).map(|limit| limit.limit).min()
    }

    /// Whether its calls are limited.
    pub(super) fn is_limited(&self) -> bool {
        !self.limits.is_empty()
    }

    /// What LiteLLM's simple-shuffle takes for its weight, where no deployment has one: its limit by this name.
    fn limit_named(&self, name: &str) -> Option<f64> {
        let limit = self.limits.iter().find(|limit| limit.name == name)?;
        #[expect(clippy::cast_precision_loss, reason = "a share needs no more")]
        let weight = limit.limit as f64;
        Some(weight)
    }

    fn scheduled(&self, weight: Option<f64>) -> Deployment {
        let deployment = Deployment {
            weight,
            cooldown: self.cooldown_time,
            order: self.order,
            price: self.price,
            ..Deployment::new(&self.state_id)
        };
        self.limits.iter().fold(deployment, |deployment, limit| {
            deployment.limit(limit.kind, limit.limit, limit.length)
        })
    }
}

/// A group's deployments as the scheduler knows them. Their weights are LiteLLM's: `weight`, else `rpm`, else `tpm`, `itpm`, `otpm`,
/// where any deployment of the group has it. Windows of other lengths change nothing of that.
pub(super) fn scheduled(deployments: &[DeploymentSettings]) -> Vec<Deployment> {
    let weights = |of: &dyn Fn(&DeploymentSettings) -> Option<f64>| {
        let weights: Vec<Option<f64>> = deployments.iter().map(of).collect();
        weights.iter().any(Option::is_some).then_some(weights)
    };
    let names = ["rpm", "tpm", "itpm", "otpm"].into_iter();
    let weights = weights(&|one| one.weight)
        .or_else(|| {
            names
                .into_iter()
                .find_map(|name| weights(&|one| one.limit_named(name)))
        })
        .unwrap_or_else(|| vec![None; deployments.len()]);
    let all = deployments.iter().zip(weights);
    all.map(|(one, weight)| one.scheduled(weight)).collect()
}
