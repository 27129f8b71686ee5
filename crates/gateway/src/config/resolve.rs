//! From the raw tree to a [`Config`] that can run.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use secrecy::SecretString;
use vorrang_scheduler::{Strategy, Timing, WhenAway};

use super::{
    Alias, Config, ConfigError, DeploymentSettings, Env, GroupSettings, KEEPALIVE, Loaded,
    RedisSettings,
    deployment::{
        Defaults, FieldRules,
        limits::{LONG_WINDOW, Windows},
        verify::{verify, verify_of_environment},
    },
    group::{check_aging, fair, our_groups},
    litellm::{refused, unserved::not_served},
    model_list::model_list,
    plan::urgent,
    read::{
        File, Section,
        env::Overlay,
        tree::{Node, Value},
    },
    redis,
    serve::{bodies::body_budget, cors::cors_origins, exposure::exposure, keys::keys},
};

type Result<T> = std::result::Result<T, ConfigError>;

/// LiteLLM's timeout for a request where neither the request nor the file sets one.
const LITELLM_TIMEOUT: Duration = Duration::from_secs(6000);

/// As long as load balancers keep a silent connection.
pub(super) const CLIENT_WRITE_TIMEOUT: Duration = Duration::from_secs(60);

const OURS: &str = "window_seconds, guard_ms, lease_seconds, redis_namespace, redis_url, redis_ssl, redis_ssl_ca_certs, redis_ssl_certfile, redis_ssl_keyfile, admin_port, allowed_hosts, public_metrics, max_body_bytes, max_waiting_body_bytes, client_write_timeout_seconds, grace_seconds, max_queue_depth, refuse_late, when_redis_is_away, pace_worse_than, keepalive_seconds, cors_origins, groups, keys";

/// `redis_url`: the command line's, which comes before the file's.
pub(super) fn resolve(
    root: &Node,
    names: &[String],
    env: &dyn Env,
    redis_url: Option<&SecretString>,
) -> Result<Loaded> {
    let env = &Overlay {
        own: environment_variables(&Section::new(&File::new(names, env), String::new(), root)?)?,
        env,
    };
    let file = File::new(names, env);
    for (line, key) in root.repeated() {
        file.warn(
            line,
            &format!(
                "{key}: stands more than once in the same mapping; the last counts, as in LiteLLM"
            ),
        );
    }
    let root = Section::new(&file, String::new(), root)?;
    // They are in `env` already.
    root.pass_over("environment_variables");
    let router = root.section("router_settings")?;
    let litellm = root.section("litellm_settings")?;
    let general = root.section("general_settings")?;
    let ours = root.section("vorrang_settings")?;
    let kwargs = router.section("cache_kwargs")?;
    refused::refuse(&root, &router, &litellm, &general)?;
    let sections = redis::Sections {
        ours: &ours,
        router: &router,
        litellm: &litellm,
        general: &general,
        kwargs: &kwargs,
    };
    let timing = Timing {
        lease: ours
            .seconds("lease_seconds")?
            .unwrap_or(Timing::default().lease),
        guard: ours
            .milliseconds("guard_ms")?
            .unwrap_or(Timing::default().guard),
        polling_interval: router
            .seconds("polling_interval")?
            .unwrap_or(Timing::default().polling_interval),
    };
    let window = ours
        .seconds("window_seconds")?
        .unwrap_or(Windows::default().length);
    let defaults = Defaults {
        windows: Windows {
            length: window,
            guard: timing.guard,
        },
        max_parallel_requests: router.whole("default_max_parallel_requests", 1)?,
        fields: FieldRules {
            drop_params: litellm.boolean("drop_params")?.unwrap_or(false),
        },
        verify: verify(&litellm)?.or(verify_of_environment(&litellm)?),
    };
    let (mut groups, left_out) = model_list(&root, &defaults)?;
    our_groups(&ours, &mut groups)?;
    let mut deployments = groups.iter().flat_map(|group| &group.deployments);
    let limited = deployments.any(DeploymentSettings::is_limited);
    let reached = redis::redis(&sections, redis_url, limited)?;
    let namespace = ours
        .name("redis_namespace")?
        .unwrap_or_else(|| "vorrang".into());
    if namespace.contains(['{', '}']) {
        return Err(ours.error("redis_namespace", "expected a text without `{` and `}`"));
    }
    let aliases = aliases(&router, &groups)?;
    let master_key = general.secret("master_key")?.or_else(|| {
        env.get("LITELLM_MASTER_KEY")
            .filter(|key| !key.is_empty())
            .map(SecretString::from)
    });
    let keys = keys(&ours, &groups, &router, master_key.as_ref())?;
    let mut config = Config {
        keepalive: ours
            .seconds_or_zero("keepalive_seconds")?
            .unwrap_or(KEEPALIVE),
        cors_origins: cors_origins(&ours, master_key.is_some() || !keys.is_empty())?,
        redis: reached.map(|reached| RedisSettings {
            url: reached.url,
            namespace: namespace.clone(),
            tls: reached.tls,
        }),
        namespace,
        aliases,
        left_out,
        max_body_bytes: max_body_bytes(&ours, &general)?,
        admin_port: port(&ours, "admin_port")?,
        exposure: exposure(&ours, &litellm, master_key.as_ref())?,
        max_waiting_body_bytes: 0,
        client_write_timeout: ours
            .seconds("client_write_timeout_seconds")?
            .unwrap_or(CLIENT_WRITE_TIMEOUT),
        grace: ours
            .seconds_or_zero("grace_seconds")?
            .unwrap_or(Duration::from_secs(30)),
        strategy: strategy(&router)?,
        window,
        timing,
        timeout: [
            router.seconds_if_any("timeout")?,
            litellm.seconds_if_any("request_timeout")?,
        ]
        .into_iter()
        .flatten()
        .next()
        .unwrap_or(LITELLM_TIMEOUT),
        stream_timeout: router.seconds_if_any("stream_timeout")?,
        default_priority: router.priority("default_priority")?,
        num_retries: [
            router.small("num_retries", 0)?,
            litellm.small("num_retries", 0)?,
        ]
        .into_iter()
        .flatten()
        .next()
        .unwrap_or(2),
        retry_after: router.seconds_or_zero("retry_after")?.unwrap_or_default(),
        allowed_fails: [
            router.small("allowed_fails", 0)?,
            litellm.small("allowed_fails", 0)?,
        ]
        .into_iter()
        .flatten()
        .next()
        .unwrap_or(3),
        cooldown_time: [
            router.seconds_if_any("cooldown_time")?,
            litellm.seconds_if_any("cooldown_time")?,
        ]
        .into_iter()
        .flatten()
        .next()
        .unwrap_or(Duration::from_secs(5)),
        disable_cooldowns: router.boolean("disable_cooldowns")?.unwrap_or(false),
        refuse_late: ours.boolean("refuse_late")?.unwrap_or(false),
        when_redis_is_away: when_away(&ours)?,
        keys,
        master_key,
        groups,
    };
    body_budget(&ours, &mut config)?;
    warn_of_long_windows(&ours, &config);
    check_aging(&ours, &config)?;
    urgent::warn(&ours, &config)?;
    fair::warn(&ours, &config)?;
    not_served(&root, &router, &litellm, &general);
    ours.refuse_unknown(OURS)?;
    for section in [&kwargs, &router, &litellm, &general, &root] {
        section.warn_unknown();
    }
    Ok(Loaded {
        config,
        warnings: file.into_warnings(),
    })
}

/// P21 (local fallback): what others may have used of the longest window counts against each of them.
fn warn_of_long_windows(ours: &Section<'_>, config: &Config) {
    let mut deployments = config.groups.iter().flat_map(|group| &group.deployments);
    let several = |one: &DeploymentSettings| {
        let lengths = one.limits.iter().filter(|limit| limit.is_window());
        let lengths: HashSet<Duration> = lengths.map(|limit| limit.length).collect();
        lengths.len() > 1 && lengths.iter().any(|length| *length > LONG_WINDOW)
    };
    if config.when_redis_is_away == WhenAway::Share && deployments.any(several) {
        let text = "share: a deployment has a long window beside a short one; while Redis is away an instance gets little of the short one until \
                    the long one is over";
        ours.warn("when_redis_is_away", text);
    }
}

/// LiteLLM's way to set variables of the environment in the file.
fn environment_variables(root: &Section<'_>) -> Result<HashMap<String, String>> {
    let section = root.section("environment_variables")?;
    let value = |name: &'_ str| {
        let value = match section.node(name).map(|node| &node.value) {
            Some(Value::Bool(value)) => Some(if *value { "True" } else { "False" }.to_owned()),
            _ => section.text(name)?,
        };
        Ok(value.map(|value| (name.to_owned(), value)))
    };
    section
        .keys()
        .filter_map(|name| value(name).transpose())
        .collect()
}

fn when_away(ours: &Section<'_>) -> Result<WhenAway> {
    let key = "when_redis_is_away";
    match ours.name(key)?.as_deref().map(str::trim) {
        None | Some("wait") => Ok(WhenAway::Wait),
        Some("share") => Ok(WhenAway::Share),
        Some(_) => Err(ours.error(key, "expected wait or share")),
    }
}

/// Ours, else LiteLLM's, which is in MiB.
fn max_body_bytes(ours: &Section<'_>, general: &Section<'_>) -> Result<usize> {
    let theirs = general.positive("max_request_size_mb")?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "positive, and a float beyond the range saturates"
    )]
    let bytes = |mib: f64| (mib * 1_048_576.0) as u64;
    let bytes = match ours.whole("max_body_bytes", 1)? {
        Some(own) => own,
        None => theirs.map_or(33_554_432, bytes),
    };
    Ok(usize::try_from(bytes).unwrap_or(usize::MAX))
}

/// `{alias: group}` or `{alias: {model: group, hidden: true}}`.
fn aliases(router: &Section<'_>, groups: &[GroupSettings]) -> Result<Vec<Alias>> {
    let section = router.section("model_group_alias")?;
    let mut aliases = Vec::new();
    for name in section.keys() {
        let Some(node) = section.node(name) else {
            continue;
        };
        let (group, hidden) = match &node.value {
            Value::Map(_) => {
                let settings = section.section(name)?;
                let alias = (
                    settings.required("model")?,
                    settings.boolean("hidden")?.unwrap_or(false),
                );
                settings.warn_unknown();
                alias
            }
            _ => (section.required(name)?, false),
        };
        if !groups
            .iter()
            .any(|known| known.name == group || known.fits(&group))
        {
            section.warn(
                name,
                "names no model_name of model_list; calls to it will be refused",
            );
            continue;
        }
        if groups.iter().any(|known| known.name == name) {
            section.warn(name, "is the model_name of a group itself, which wins");
            continue;
        }
        aliases.push(Alias {
            name: name.to_owned(),
            group,
            hidden,
        });
    }
    Ok(aliases)
}

fn strategy(router: &Section<'_>) -> Result<Strategy> {
    let warn = |served: &str| {
        router.warn(
            "routing_strategy",
            &format!("this strategy is not served here yet; {served} is used instead"),
        )
    };
    match router.name("routing_strategy")?.as_deref() {
        None | Some("simple-shuffle") => Ok(Strategy::SimpleShuffle),
        Some("usage-based-routing-v2") => Ok(Strategy::UsageBased),
        Some("usage-based-routing") => {
            warn("usage-based-routing-v2");
            Ok(Strategy::UsageBased)
        }
        Some("least-busy" | "latency-based-routing" | "cost-based-routing") => {
            warn("simple-shuffle");
            Ok(Strategy::SimpleShuffle)
        }
        Some(_) => Err(router.error(
            "routing_strategy",
            "expected simple-shuffle or usage-based-routing-v2",
        )),
    }
}

/// A port, or 0 for a free one.
fn port(section: &Section<'_>, key: &str) -> Result<Option<u16>> {
    let port = section.whole(key, 0)?;
    port.map(|port| {
        u16::try_from(port).map_err(|_| section.error(key, "expected a port between 0 and 65535"))
    })
    .transpose()
}
