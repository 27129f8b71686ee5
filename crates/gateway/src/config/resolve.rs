//! From the raw tree to a [`Config`] that can run.

use std::{collections::HashMap, time::Duration};

use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use vorrang_scheduler::{Strategy, Timing};

use super::{
    Alias, Config, ConfigError, Env, GroupSettings, KEEPALIVE, Loaded, RedisSettings,
    cors::cors_origins,
    deployment::{Defaults, deployment},
    exposure::exposure,
    fair,
    groups::{check_aging, our_groups},
    keys::keys,
    read::{File, Section},
    tree::{Node, Value},
    unserved::not_served,
    urgent,
};

type Result<T> = std::result::Result<T, ConfigError>;

/// LiteLLM's time for a request where nobody names one.
const LITELLM_TIMEOUT: Duration = Duration::from_secs(6000);

/// As long as load balancers keep a silent connection.
pub(super) const CLIENT_WRITE_TIMEOUT: Duration = Duration::from_secs(60);

const OURS: &str = "window_seconds, guard_ms, lease_seconds, redis_namespace, redis_url, admin_port, allowed_hosts, public_metrics, max_body_bytes, client_write_timeout_seconds, grace_seconds, max_queue_depth, refuse_late, pace_worse_than, keepalive_seconds, cors_origins, groups, keys";

pub(super) fn resolve(root: &Node, name: &str, env: &dyn Env) -> Result<Loaded> {
    let file = File::new(name, env);
    let root = Section::new(&file, String::new(), root)?;
    let router = root.section("router_settings")?;
    let litellm = root.section("litellm_settings")?;
    let general = root.section("general_settings")?;
    let ours = root.section("vorrang_settings")?;

    let defaults = Defaults {
        max_parallel_requests: router.whole("default_max_parallel_requests", 1)?,
    };
    let mut groups = groups(&root, &defaults)?;
    our_groups(&ours, &mut groups)?;
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
    let config = Config {
        keepalive: ours
            .seconds_or_zero("keepalive_seconds")?
            .unwrap_or(KEEPALIVE),
        cors_origins: cors_origins(&ours, master_key.is_some() || !keys.is_empty())?,
        redis: redis(&ours, &router)?.map(|url| RedisSettings {
            url,
            namespace: namespace.clone(),
        }),
        namespace,
        aliases,
        max_body_bytes: usize::try_from(ours.whole("max_body_bytes", 1)?.unwrap_or(33_554_432))
            .unwrap_or(usize::MAX),
        admin_port: port(&ours, "admin_port")?,
        exposure: exposure(&ours, master_key.as_ref())?,
        client_write_timeout: ours
            .seconds("client_write_timeout_seconds")?
            .unwrap_or(CLIENT_WRITE_TIMEOUT),
        grace: ours
            .seconds_or_zero("grace_seconds")?
            .unwrap_or(Duration::from_secs(30)),
        strategy: strategy(&router)?,
        window: ours
            .seconds("window_seconds")?
            .unwrap_or(Duration::from_secs(60)),
        timing: Timing {
            lease: ours
                .seconds("lease_seconds")?
                .unwrap_or(Timing::default().lease),
            guard: ours
                .milliseconds("guard_ms")?
                .unwrap_or(Timing::default().guard),
            polling_interval: router
                .seconds("polling_interval")?
                .unwrap_or(Timing::default().polling_interval),
        },
        timeout: [
            router.seconds("timeout")?,
            litellm.seconds("request_timeout")?,
        ]
        .into_iter()
        .flatten()
        .next()
        .unwrap_or(LITELLM_TIMEOUT),
        stream_timeout: router.seconds("stream_timeout")?,
        default_priority: router.priority("default_priority")?,
        num_retries: [
            router.small("num_retries", 0)?,
            litellm.small("num_retries", 0)?,
        ]
        .into_iter()
        .flatten()
        .next()
        .unwrap_or(2),
        allowed_fails: [
            router.small("allowed_fails", 0)?,
            litellm.small("allowed_fails", 0)?,
        ]
        .into_iter()
        .flatten()
        .next()
        .unwrap_or(3),
        cooldown_time: [
            router.seconds("cooldown_time")?,
            litellm.seconds("cooldown_time")?,
        ]
        .into_iter()
        .flatten()
        .next()
        .unwrap_or(Duration::from_secs(5)),
        disable_cooldowns: router.boolean("disable_cooldowns")?.unwrap_or(false),
        refuse_late: ours.boolean("refuse_late")?.unwrap_or(false),
        keys,
        master_key,
        groups,
    };
    check_aging(&ours, &config)?;
    urgent::warn(&ours, &config)?;
    fair::warn(&ours, &config)?;
    not_served(&root, &router, &litellm, &general);
    ours.refuse_unknown(OURS)?;
    for section in [&router, &litellm, &general, &root] {
        section.warn_unknown();
    }
    Ok(Loaded {
        config,
        warnings: file.into_warnings(),
    })
}

fn groups(root: &Section<'_>, defaults: &Defaults) -> Result<Vec<GroupSettings>> {
    let entries = root.sections("model_list")?.unwrap_or_default();
    if entries.is_empty() {
        return Err(root.error(
            "model_list",
            "expected a list with at least one deployment (`- model_name: ...`)",
        ));
    }
    let mut groups: Vec<GroupSettings> = Vec::new();
    let mut seen: HashMap<String, usize> = HashMap::new();
    for entry in &entries {
        let (name, settings) = deployment(entry, defaults, |identity| {
            let count = seen.entry(identity.to_owned()).or_default();
            *count += 1;
            *count - 1
        })?;
        match groups.iter_mut().find(|group| group.name == name) {
            Some(group)
                if group
                    .deployments
                    .iter()
                    .any(|other| other.id == settings.id) =>
            {
                return Err(entry.error(
                    "model_info.id",
                    &format!(
                        "another deployment of {name} has the same id; expected one of its own"
                    ),
                ));
            }
            Some(group) => group.deployments.push(settings),
            None => groups.push(GroupSettings {
                name,
                deployments: vec![settings],
                default_priority: None,
                max_queue_depth: None,
                pace_worse_than: None,
                reserve: None,
                aging: None,
                fair: None,
            }),
        }
    }
    Ok(groups)
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
        if !groups.iter().any(|known| known.name == group) {
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

/// The URL of Redis: ours, else LiteLLM's URL, else its host, port and password.
fn redis(ours: &Section<'_>, router: &Section<'_>) -> Result<Option<SecretString>> {
    for key in ["redis_sentinel", "redis_cluster"] {
        if ours.node(key).is_some() {
            return Err(ours.error(key, "not supported yet; expected redis_url"));
        }
    }
    let host = router.name("redis_host")?;
    let port = router.whole("redis_port", 1)?;
    let password = router.optional_secret("redis_password")?;
    let user = router.name("redis_username")?;
    let database = router.whole("redis_db", 0)?;
    let urls = [
        (ours, ours.name("redis_url")?),
        (router, router.name("redis_url")?),
    ];
    for (section, url) in urls {
        let Some(url) = url else { continue };
        for key in ["redis_url", "redis_host"] {
            if router.has(key) && !(std::ptr::eq(section, router) && key == "redis_url") {
                router.warn(
                    key,
                    &format!("is not used; {} is", section.path_of("redis_url")),
                );
            }
        }
        let expected = "expected redis://HOST:PORT or rediss://HOST:PORT";
        return redis_url(&url)
            .map(Some)
            .ok_or_else(|| section.error("redis_url", expected));
    }
    let Some(host) = host else {
        for key in ["redis_port", "redis_password", "redis_username", "redis_db"] {
            if router.has(key) {
                router.warn(key, "does nothing without redis_host");
            }
        }
        return Ok(None);
    };
    let port = match port.map_or(Ok(6379), u16::try_from) {
        Ok(port) => port,
        Err(_) => return Err(router.error("redis_port", "expected a port between 1 and 65535")),
    };
    let bracketed = if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]")
    } else {
        host
    };
    let url = Url::parse(&format!(
        "redis://{bracketed}:{port}/{}",
        database.unwrap_or(0)
    ))
    .ok();
    // Setters, so that any character may stand in a password.
    let url = url
        .filter(|url| url.username().is_empty() && url.host_str().is_some())
        .and_then(|mut url| {
            url.set_username(user.as_deref().unwrap_or_default()).ok()?;
            url.set_password(password.as_ref().map(ExposeSecret::expose_secret))
                .ok()?;
            Some(url)
        });
    url.map(|url| Some(SecretString::from(String::from(url))))
        .ok_or_else(|| router.error("redis_host", "expected a host name or an address"))
}

fn redis_url(text: &str) -> Option<SecretString> {
    let url = Url::parse(text).ok()?;
    let socket = matches!(url.scheme(), "redis+unix" | "unix") && !url.path().is_empty();
    let net = matches!(url.scheme(), "redis" | "rediss")
        && url.host_str().is_some_and(|host| !host.is_empty());
    (socket || net).then(|| SecretString::from(text.to_owned()))
}
