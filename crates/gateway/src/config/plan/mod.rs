//! The resolved plan, for `vorrang check`.

pub(super) mod json;
mod network;
pub(super) mod urgent;

use std::fmt::Write;

use reqwest::Url;
use secrecy::ExposeSecret;
use vorrang_scheduler::{Strategy, WhenAway};

use crate::{
    KeyPolicy,
    config::{
        Config, CorsOrigins, DeploymentSettings, Dialect, GroupSettings, Target,
        diagnostic::shown::Shown,
        fallbacks,
        group::{fair, strategy},
        redis,
    },
    provider::{hosts, tokens::PROJECT},
};

pub(in crate::config) fn plan(config: &Config) -> String {
    let mut out = String::new();
    // Writing to a `String` cannot fail.
    let _ = write_plan(config, &mut out);
    out
}

fn write_plan(config: &Config, out: &mut String) -> std::fmt::Result {
    let strategy = strategy::name(config.strategy);
    writeln!(out, "groups ({strategy}, window {:?}):", config.window)?;
    if let Strategy::LatencyBased {
        forget_after,
        buffer,
    } = config.strategy
    {
        writeln!(
            out,
            "  latencies are forgotten after {forget_after:?}; up to {buffer} above the lowest they are equal"
        )?;
    }
    for group in &config.groups {
        write_group(group, config, out)?;
    }
    for alias in &config.aliases {
        writeln!(
            out,
            "alias {} -> {}{}",
            Shown(&alias.name),
            Shown(&alias.group),
            if alias.hidden { " (hidden)" } else { "" }
        )?;
    }
    for account in &config.accounts {
        let (settings, upstream) = (account.settings, &account.upstream);
        let (provider, server) = (Shown(&account.provider), public(&upstream.api_base));
        writeln!(out, "{settings} {provider}: {server}")?;
    }
    fallbacks::write(&config.fallbacks, out)?;
    match &config.redis {
        Some(settings) => writeln!(
            out,
            "state: {} (namespace {}{})",
            redis_server(settings.url.expose_secret()),
            Shown(&settings.namespace),
            match settings.wait_replicas {
                0 => String::new(),
                replicas => format!(", each step waits for replicas: {replicas}"),
            }
        )?,
        None => writeln!(out, "state: in memory (one instance)")?,
    }
    let timing = &config.timing;
    writeln!(
        out,
        "times: request {:?}, lease {:?}, guard {:?}, polling {:?}, grace {:?}",
        config.timeout, timing.lease, timing.guard, timing.polling_interval, config.grace
    )?;
    if let Some(timeout) = config.stream_timeout {
        writeln!(out, "  one attempt of a streamed call: {timeout:?}")?;
    }
    if config.keepalive.is_zero() {
        writeln!(out, "  silent event streams are left alone")?;
    } else {
        let every = config.keepalive;
        writeln!(
            out,
            "  a comment into an event stream that is silent: after {every:?}"
        )?;
    }
    write!(out, "retries: {}", config.num_retries)?;
    if !config.retry_after.is_zero() {
        write!(out, ", each after at least {:?}", config.retry_after)?;
    }
    writeln!(out)?;
    if config.refuse_late {
        writeln!(
            out,
            "a wait that is surely longer than the request's time is refused at once"
        )?;
    }
    if config.redis.is_some() && config.when_redis_is_away == WhenAway::Share {
        writeln!(
            out,
            "while Redis is away each instance goes on with its part of the limits"
        )?;
    }
    if config.disable_cooldowns {
        writeln!(out, "cooldown: never")?;
    } else {
        writeln!(
            out,
            "cooldown: {:?} after more than {} failures within 60 s",
            config.cooldown_time, config.allowed_fails
        )?;
    }
    writeln!(
        out,
        "largest body: {} bytes, of all waiting requests: {} bytes",
        config.max_body_bytes, config.max_waiting_body_bytes
    )?;
    writeln!(
        out,
        "a client that takes nothing of its answer for {:?} is cut off",
        config.client_write_timeout
    )?;
    writeln!(
        out,
        "default priority: {}",
        config.default_priority.unwrap_or(0)
    )?;
    writeln!(
        out,
        "master key: {}",
        if config.master_key.is_some() {
            "set"
        } else {
            "none"
        }
    )?;
    if config.is_open() {
        writeln!(out, "keys: none, every caller is served")?;
    }
    if !config.exposure.public_metrics {
        writeln!(out, "metrics and details of readiness: with the master key")?;
    }
    network::write(config, out)?;
    if let Some(shadow) = &config.shadow {
        let shadow = Shown(&shadow.file);
        writeln!(
            out,
            "decisions of {shadow} are made beside these, for metrics only"
        )?;
    }
    if let Some(port) = config.admin_port {
        writeln!(out, "admin port: {port}")?;
    }
    if let Some(traces) = &config.traces {
        let (to, name) = (traces.shown(), Shown(&traces.service_name));
        writeln!(out, "traces: to {to} as {name}")?;
    }
    for key in &config.keys {
        write_key(&key.policy, out)?;
    }
    match &config.cors_origins {
        CorsOrigins::Any => writeln!(out, "web pages that may call it: all"),
        CorsOrigins::Local => writeln!(out, "web pages that may call it: those of localhost"),
        CorsOrigins::These(origins) => {
            let origins = origins.iter().filter_map(|origin| origin.to_str().ok());
            let origins = origins.collect::<Vec<_>>().join(", ");
            writeln!(out, "web pages that may call it: those of {origins}")
        }
    }
}

fn write_key(key: &KeyPolicy, out: &mut String) -> std::fmt::Result {
    write!(out, "key {}:", key.name)?;
    if key.admin {
        write!(out, " may use the admin API,")?;
    }
    if let Some(priority) = key.default_priority {
        write!(out, " default priority {priority},")?;
    }
    if let Some(priority) = key.best_priority {
        write!(out, " best priority {priority},")?;
    }
    if let Some(weight) = key.weight {
        write!(out, " weight {weight},")?;
    }
    if let Some(most) = key.max_waiting {
        write!(out, " at most {most} waiting,")?;
    }
    if let Some(bytes) = key.max_waiting_body_bytes {
        write!(out, " waiting bodies up to {bytes} bytes,")?;
    }
    match &key.models {
        Some(models) => writeln!(out, " models {}", Shown(&models.join(", "))),
        None => writeln!(out, " all models"),
    }
}

fn write_group(group: &GroupSettings, config: &Config, out: &mut String) -> std::fmt::Result {
    let priority = group
        .default_priority
        .or(config.default_priority)
        .unwrap_or(0);
    let depth = group.max_queue_depth.map_or_else(
        || "any depth".into(),
        |depth| format!("at most {depth} waiting"),
    );
    writeln!(
        out,
        "  {}: default priority {priority}, {depth}",
        Shown(&group.name)
    )?;
    for deployment in &group.deployments {
        write_deployment(deployment, out)?;
    }
    if let Some(spill) = &group.spill {
        let (to, after, than) = (Shown(&spill.to), spill.after, spill.better_than);
        writeln!(
            out,
            "    priorities below {than} go to {to} after a wait of {after:?}"
        )?;
    }
    fair::write(group, config, out)?;
    urgent::write(group, config, out)
}

fn write_deployment(deployment: &DeploymentSettings, out: &mut String) -> std::fmt::Result {
    write!(out, "    {} ", deployment.id)?;
    match &deployment.target {
        Target::Upstream(upstream) => {
            let api_base = &upstream.api_base;
            let key = if upstream.tokens.is_some() {
                "with tokens of its own"
            } else if upstream.aws.is_some() {
                "signed with AWS's keys"
            } else if upstream.api_key.is_some() {
                "with a key"
            } else {
                "without a key"
            };
            let model = Shown(&deployment.model);
            let address = public_at(api_base, &deployment.model);
            write!(out, "{model} at {address} {key}")?;
            if upstream.dialect == Dialect::Responses {
                write!(out, ", chats by the Responses API")?;
            }
        }
        Target::Mock { .. } => write!(
            out,
            "{} answered in process (mock_response)",
            Shown(&deployment.model)
        )?,
    }
    for limit in &deployment.limits {
        write!(out, ", {limit}")?;
    }
    if deployment.cached_token_weight < 1.0 {
        write!(
            out,
            ", cached_token_weight {}",
            deployment.cached_token_weight
        )?;
    }
    if let Some(weight) = deployment.weight {
        write!(out, ", weight {weight}")?;
    }
    if let Some(order) = deployment.order {
        write!(out, ", order {order}")?;
    }
    if let Some(price) = deployment.price {
        write!(out, ", price {price}")?;
    }
    let times = [
        ("timeout", deployment.timeout),
        ("stream_timeout", deployment.stream_timeout),
        ("cooldown_time", deployment.cooldown_time),
        ("keepalive_seconds", deployment.keepalive),
    ];
    for (name, time) in times {
        if let Some(time) = time {
            write!(out, ", {name} {time:?}")?;
        }
    }
    if let Some(retries) = deployment.num_retries {
        write!(out, ", num_retries {retries}")?;
    }
    writeln!(out)
}

/// Parts of paths that are the same for all accounts. Others may be accounts and keys.
const HARMLESS: &[&str] = &[
    "",
    "api",
    "accounts",
    "beta",
    "chat",
    "compatibility",
    "deployments",
    "endpoints",
    "foundry",
    "locations",
    "openapi",
    "projects",
    "publishers",
    "studio",
    "compatible-mode",
    "compat",
    "inference",
    "llm",
    "models",
    "openai",
    "paas",
    "serving",
    "v1",
    "v1beta",
    "v2",
    "v3",
    "v4",
];

/// A URL without what may be secret: user, password, query, and all of the path that is not known to be harmless.
pub(super) fn public(text: &str) -> String {
    public_at(text, "")
}

/// The same, with the model's own name where it is a part of the path.
fn public_at(text: &str, model: &str) -> String {
    let Ok(url) = Url::parse(text) else {
        return "(a URL)".into();
    };
    let part = |part| {
        if HARMLESS.contains(&part) || part == model || part == PROJECT {
            part
        } else {
            "***"
        }
    };
    let path: Vec<&str> = url.path().split('/').map(part).collect();
    let path = path.join("/");
    format!("{}{}", origin(&url), path.trim_end_matches('/'))
}

/// A Redis server with its database, a socket, or the nodes of sentinels or a cluster.
fn redis_server(text: &str) -> String {
    if let Some(nodes) = redis::shown(text) {
        return nodes;
    }
    match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "redis" | "rediss") => {
            let is_database = url
                .path()
                .bytes()
                .all(|byte| byte == b'/' || byte.is_ascii_digit());
            let database = if is_database { url.path() } else { "/***" };
            format!("{}{}", origin(&url), database.trim_end_matches('/'))
        }
        Ok(url) => format!("{}://{}", url.scheme(), url.path()),
        Err(_) => "(a URL)".into(),
    }
}

fn origin(url: &Url) -> String {
    let host = hosts::host_of(url).unwrap_or_default();
    match url.port() {
        Some(port) => format!("{}://{host}:{port}", url.scheme()),
        None => format!("{}://{host}", url.scheme()),
    }
}
