//! The plan and what there is to say about a file as one JSON document, for `vorrang check --json`.
//!
//! Its form is documented in `docs/operations.md`: fields are added, never renamed or removed without another `version`.

use std::{collections::BTreeMap, time::Duration};

use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::{network, public, public_at, redis_server};
use crate::{
    Endpoint, Fallback, FallbackLists, Fallbacks,
    config::{
        Config, ConfigError, DeploymentSettings, Diagnostic, FairBy, FairCost, GroupSettings,
        Loaded, Target, group::strategy,
    },
};

/// Raised when a field is renamed or removed.
const VERSION: u32 = 1;

/// The document: the plan is null where the file has errors. No secret is in it.
pub(in crate::config) fn report(loaded: &Result<Loaded, ConfigError>) -> Value {
    let (plan, diagnostics) = match loaded {
        Ok(loaded) => (plan(&loaded.config), &loaded.diagnostics[..]),
        Err(error) => (Value::Null, error.diagnostics()),
    };
    json!({
        "version": VERSION,
        "counts": counts(diagnostics),
        "diagnostics": diagnostics,
        "plan": plan,
    })
}

fn counts(diagnostics: &[Diagnostic]) -> Value {
    let mut counts =
        BTreeMap::from(["error", "loss", "difference", "note"].map(|level| (level, 0)));
    for one in diagnostics {
        *counts.entry(one.level.word()).or_default() += 1;
    }
    json!(counts)
}

fn plan(config: &Config) -> Value {
    let aliases = config.aliases.iter();
    let accounts = config.accounts.iter();
    let left_out = config.left_out.iter();
    let keys = config.keys.iter().map(|key| &key.policy);
    json!({
        "strategy": strategy::name(config.strategy),
        "groups": config.groups.iter().map(|group| of_group(group, config)).collect::<Vec<_>>(),
        "aliases": aliases
            .map(|alias| json!({"name": alias.name, "group": alias.group, "hidden": alias.hidden}))
            .collect::<Vec<_>>(),
        "accounts": accounts
            .map(|account| json!({
                "settings": account.settings,
                "provider": account.provider,
                "server": public(&account.upstream.api_base),
            }))
            .collect::<Vec<_>>(),
        "left_out": left_out
            .map(|one| json!({"model": one.model, "reason": one.reason}))
            .collect::<Vec<_>>(),
        "state": config.redis.as_ref().map(|redis| json!({
            "redis": redis_server(redis.url.expose_secret()),
            "namespace": redis.namespace,
            "wait_replicas": redis.wait_replicas,
        })),
        "timeout_seconds": seconds(config.timeout),
        "stream_timeout_seconds": config.stream_timeout.map(seconds),
        "num_retries": config.num_retries,
        "fallbacks": (config.fallbacks != Fallbacks::default()).then(|| of_fallbacks(&config.fallbacks)),
        "allowed_fails": (!config.disable_cooldowns).then_some(config.allowed_fails),
        "cooldown_seconds": (!config.disable_cooldowns).then(|| seconds(config.cooldown_time)),
        "traces": config.traces.as_ref().map(|traces| json!({
            "endpoint": traces.shown(),
            "service_name": traces.service_name,
        })),
        "max_body_bytes": config.max_body_bytes,
        "network": network::json(config),
        "master_key": config.master_key.is_some(),
        "keys": keys
            .map(|key| json!({
                "name": key.name,
                "admin": key.admin,
                "models": key.models,
                "default_priority": key.default_priority,
                "best_priority": key.best_priority,
                "weight": key.weight(),
                "max_waiting": key.max_waiting,
            }))
            .collect::<Vec<_>>(),
    })
}

/// Names of models by the group that they take over from; `*`: any.
fn of_fallbacks(fallbacks: &Fallbacks) -> Value {
    let names = |list: &[Fallback]| list.iter().map(|to| to.model.clone()).collect::<Vec<_>>();
    let lists = |lists: &FallbackLists| {
        let named = lists.named.iter();
        let mut all: BTreeMap<_, _> = named.map(|(of, list)| (of.clone(), names(list))).collect();
        if !lists.any.is_empty() {
            all.insert("*".to_owned(), names(&lists.any));
        }
        all
    };
    json!({
        "failure": lists(&fallbacks.general),
        "context_window": lists(&fallbacks.context_window),
        "content_policy": lists(&fallbacks.content_policy),
        "max_fallbacks": fallbacks.most,
        "only_models_of_the_key": fallbacks.checked,
    })
}

fn of_group(group: &GroupSettings, config: &Config) -> Value {
    let fair = group.fair.as_ref().map(|fair| {
        json!({
            "by": match &fair.by {
                FairBy::Key => "key".to_owned(),
                FairBy::User => "user".to_owned(),
                FairBy::Header(name) => format!("header:{name}"),
            },
            "cost": match fair.cost {
                FairCost::Requests => "requests",
                FairCost::Tokens => "tokens",
            },
        })
    });
    let reserve = group.reserve;
    json!({
        "name": group.name,
        "default_priority": group.default_priority.or(config.default_priority).unwrap_or(0),
        "max_queue_depth": group.max_queue_depth,
        "pace_worse_than": group.pace_worse_than,
        "reserve": reserve
            .map(|reserve| json!({"priority": reserve.priority, "share": reserve.share})),
        "aging_seconds": group.aging.map(seconds),
        "fair": fair,
        "spill": group.spill.as_ref().map(|spill| json!({
            "to": spill.to,
            "after_seconds": seconds(spill.after),
            "better_than": spill.better_than,
        })),
        "deployments": group.deployments.iter().map(of_deployment).collect::<Vec<_>>(),
    })
}

fn of_deployment(deployment: &DeploymentSettings) -> Value {
    let (address, key) = match &deployment.target {
        Target::Upstream(upstream) => (
            Some(public_at(&upstream.api_base, &deployment.model)),
            upstream.has_key(),
        ),
        Target::Mock { .. } => (None, false),
    };
    let all: Vec<Endpoint> = Endpoint::all().collect();
    let served = all
        .iter()
        .filter(|endpoint| deployment.lacks(**endpoint).is_none());
    let served: Vec<&str> = served.map(|endpoint| endpoint.path()).collect();
    let limit = |limit: &crate::config::NamedLimit| {
        json!({
            "name": limit.name,
            "kind": limit.word(),
            "limit": limit.limit,
            "window_seconds": limit.is_window().then(|| seconds(limit.length)),
        })
    };
    json!({
        "id": deployment.id,
        "model": deployment.model,
        "address": address,
        "key": key,
        "endpoints": (served.len() < all.len()).then_some(served),
        "request_defaults": deployment.edits.defaults.iter().map(|(name, _)| name).collect::<Vec<_>>(),
        "left_out_fields": deployment.edits.drops,
        "limits": deployment.limits.iter().map(limit).collect::<Vec<_>>(),
        "weight": deployment.weight,
        "order": deployment.order,
        "timeout_seconds": deployment.timeout.map(seconds),
        "stream_timeout_seconds": deployment.stream_timeout.map(seconds),
        "num_retries": deployment.num_retries,
        "cooldown_seconds": deployment.cooldown_time.map(seconds),
    })
}

fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}
