//! From the raw tree to a [`Config`] that can run.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use http::HeaderName;
use secrecy::SecretString;
use vorrang_scheduler::{Strategy, Timing, WhenAway};

use super::{
    Config, ConfigError, CorsOrigins, DeploymentSettings, Diagnostic, Env, KEEPALIVE, Kind, Loaded,
    Shadow, default_params,
    deployment::{
        Defaults, FieldRules,
        account::accounts,
        limits::{LONG_WINDOW, Windows},
        verify::{verify, verify_of_environment},
    },
    fallbacks::{self, fallbacks},
    group::{check_aging, fair, headers::passed_headers, our_groups, spill, strategy},
    litellm::{refused, settings::explain},
    model_list::{Models, model_list},
    names::{Names, aliases},
    plan::urgent,
    read::{
        File, Recorded, Section,
        env::Overlay,
        tree::{Node, Value},
    },
    redis,
    serve::{
        addresses::addresses, bodies::body_budget, cors::cors_origins, exposure::exposure,
        keys::keys, tls::tls,
    },
    traces::traces,
};

use crate::Endpoint;

type Result<T> = std::result::Result<T, ConfigError>;

/// LiteLLM's timeout for a request where neither the request nor the file sets one.
const LITELLM_TIMEOUT: Duration = Duration::from_secs(6000);

/// As long as load balancers keep a silent connection.
pub(super) const CLIENT_WRITE_TIMEOUT: Duration = Duration::from_secs(60);

const OURS: &str = "window_seconds, guard_ms, lease_seconds, redis_namespace, redis_url, redis_startup_nodes, redis_sentinel_nodes, redis_service_name, redis_username, redis_password, redis_db, redis_sentinel_username, redis_sentinel_password, redis_wait_replicas, redis_ssl, redis_ssl_ca_certs, redis_ssl_certfile, redis_ssl_keyfile, admin_port, tls, proxy_protocol, trusted_proxies, forwarded_header, max_connections_per_address, allowed_hosts, public_metrics, metrics_allowed_from, admin_allowed_from, max_body_bytes, max_waiting_body_bytes, client_write_timeout_seconds, grace_seconds, shutdown_delay_seconds, max_queue_depth, refuse_late, when_redis_is_away, pace_worse_than, keepalive_seconds, cors_origins, groups, keys, shadow";

/// `redis_url`: the command line's, which comes before the file's.
///
/// The reading continues after an error, so that all of them are found; nothing runs with one.
pub(super) fn resolve(
    root: &Node,
    names: &[String],
    env: &dyn Env,
    redis_url: Option<&SecretString>,
) -> Result<Loaded> {
    let variables = {
        let file = File::new(names, env);
        let own = environment_variables(&Section::new(&file, String::new(), root)?);
        (own, file.finish())
    };
    let (own, wrong) = variables;
    let env = &Overlay { own, env };
    let file = File::new(names, env);
    let config = config(&default_params::spread(root), &file, redis_url);
    if let Err(wrong) = wrong {
        file.record(wrong);
    }
    let config = config.recorded_if_any(&file);
    let diagnostics = file.finish()?;
    let config = config.ok_or_else(|| Diagnostic::new(Kind::INVALID, "cannot be read"))?;
    Ok(Loaded {
        config,
        diagnostics,
        files: Vec::new(),
    })
}

fn config(root: &Node, file: &File<'_>, redis_url: Option<&SecretString>) -> Result<Config> {
    for (line, key) in root.repeated() {
        let text = "stands more than once in the same mapping; the last counts, as in LiteLLM";
        file.tell(Kind::TWICE, line, Some(&key), text);
    }
    let root = Section::new(file, String::new(), root)?;
    // They are in the environment already.
    root.pass_over("environment_variables");
    let router = section(&root, "router_settings");
    let litellm = section(&root, "litellm_settings");
    let general = section(&root, "general_settings");
    let ours = section(&root, "vorrang_settings");
    let kwargs = section(&router, "cache_kwargs");
    // They stand in each deployment by now.
    section(&router, "default_litellm_params");
    refused::refuse(&root, &router, &litellm, &general);
    let sections = redis::Sections {
        ours: &ours,
        router: &router,
        litellm: &litellm,
        general: &general,
        kwargs: &kwargs,
    };
    let timing = Timing {
        lease: ours
            .seconds("lease_seconds")
            .recorded(file)
            .unwrap_or(Timing::default().lease),
        guard: ours
            .milliseconds("guard_ms")
            .recorded(file)
            .unwrap_or(Timing::default().guard),
        polling_interval: router
            .seconds("polling_interval")
            .recorded(file)
            .unwrap_or(Timing::default().polling_interval),
    };
    let window = ours
        .seconds("window_seconds")
        .recorded(file)
        .unwrap_or(Windows::default().length);
    let strategy = strategy::strategy(&router)
        .recorded_if_any(file)
        .unwrap_or(Strategy::SimpleShuffle);
    let defaults = Defaults {
        by_cost: strategy == Strategy::CostBased,
        by_usage: strategy == Strategy::UsageBased,
        windows: Windows {
            length: window,
            guard: timing.guard,
        },
        max_parallel_requests: router
            .whole("default_max_parallel_requests", 1)
            .recorded(file),
        fields: FieldRules {
            drop_params: litellm.boolean("drop_params").recorded(file) == Some(true),
            metadata: litellm.boolean("enable_preview_features").recorded(file) == Some(true),
        },
        verify: verify(&litellm)
            .recorded(file)
            .or(verify_of_environment(&litellm).recorded(file)),
    };
    let Models {
        mut groups,
        left_out,
        broken,
    } = model_list(&root, &defaults);
    let accounts = accounts(&root, &defaults);
    let names = Names {
        left_out: &left_out,
        broken: &broken,
    };
    passed_headers(&general, &litellm, &mut groups);
    our_groups(&ours, &mut groups, &names);
    let mut deployments = groups.iter().flat_map(|group| &group.deployments);
    let limited = deployments.any(DeploymentSettings::is_limited);
    let reached = redis::redis(&sections, redis_url, limited).recorded(file);
    let namespace = match ours.name("redis_namespace").recorded(file) {
        Some(namespace) if namespace.contains(['{', '}']) => {
            file.record(ours.error("redis_namespace", "expected a text without `{` and `}`"));
            namespace
        }
        Some(namespace) => namespace,
        None => {
            let reached = reached.as_ref();
            let litellms = reached.and_then(|reached| reached.namespace.clone());
            litellms.unwrap_or_else(|| "vorrang".into())
        }
    };
    let all_aliases = section(&router, "model_group_alias");
    let aliases = aliases(&all_aliases, &groups, &names);
    let master_key = master_key(&general);
    let keys = keys(
        &ours,
        |model| names.knows(&groups, all_aliases.keys(), model),
        master_key.as_ref(),
    );
    let mut config = Config {
        // It follows from the texts.
        version: String::new(),
        keepalive: ours
            .seconds_or_zero("keepalive_seconds")
            .recorded(file)
            .unwrap_or(KEEPALIVE),
        cors_origins: cors_origins(&ours, master_key.is_some() || !keys.is_empty())
            .recorded_if_any(file)
            .unwrap_or(CorsOrigins::Local),
        redis: reached.map(|reached| reached.named(&namespace)),
        namespace,
        aliases,
        accounts,
        left_out,
        max_body_bytes: max_body_bytes(&ours, &general),
        admin_port: port(&ours, "admin_port").recorded(file),
        tls: tls(&ours).recorded(file),
        addresses: addresses(&ours),
        exposure: exposure(&ours, &litellm, master_key.as_ref()).recorded(file),
        max_waiting_body_bytes: 0,
        client_write_timeout: ours
            .seconds("client_write_timeout_seconds")
            .recorded(file)
            .unwrap_or(CLIENT_WRITE_TIMEOUT),
        grace: ours
            .seconds_or_zero("grace_seconds")
            .recorded(file)
            .unwrap_or(Duration::from_secs(30)),
        shutdown_delay: ours
            .seconds_or_zero("shutdown_delay_seconds")
            .recorded(file)
            .unwrap_or_default(),
        strategy,
        window,
        timing,
        timeout: [
            router.seconds_if_any("timeout").recorded(file),
            litellm.seconds_if_any("request_timeout").recorded(file),
        ]
        .into_iter()
        .flatten()
        .next()
        .unwrap_or(LITELLM_TIMEOUT),
        stream_timeout: router.seconds_if_any("stream_timeout").recorded(file),
        models: models_of_endpoints(&general),
        required_fields: required_fields(&general),
        default_priority: router.priority("default_priority").recorded(file),
        num_retries: [
            router.small("num_retries", 0).recorded(file),
            litellm.small("num_retries", 0).recorded(file),
        ]
        .into_iter()
        .flatten()
        .next()
        .unwrap_or(2),
        fallbacks: fallbacks(&router, &litellm, &general),
        retry_after: router
            .seconds_or_zero("retry_after")
            .recorded(file)
            .unwrap_or_default(),
        allowed_fails: [
            router.small("allowed_fails", 0).recorded(file),
            litellm.small("allowed_fails", 0).recorded(file),
        ]
        .into_iter()
        .flatten()
        .next()
        .unwrap_or(3),
        cooldown_time: [
            router.seconds_if_any("cooldown_time").recorded(file),
            litellm.seconds_if_any("cooldown_time").recorded(file),
        ]
        .into_iter()
        .flatten()
        .next()
        .unwrap_or(Duration::from_secs(5)),
        disable_cooldowns: router.boolean("disable_cooldowns").recorded(file) == Some(true),
        refuse_late: ours.boolean("refuse_late").recorded(file) == Some(true),
        when_redis_is_away: when_away(&ours)
            .recorded_if_any(file)
            .unwrap_or(WhenAway::Wait),
        traces: traces(&root, &litellm),
        shadow: ours.name("shadow").recorded(file).map(Shadow::named),
        keys,
        master_key,
        key_header: key_header(&general).recorded(file),
        groups,
    };
    body_budget(&ours, &mut config).recorded(file);
    warn_of_long_windows(&ours, &config);
    check_aging(&ours, &config).recorded(file);
    spill::check(&ours, &config).recorded(file);
    fallbacks::check_names(&router, &litellm, &broken, &mut config);
    urgent::warn(&ours, &config).recorded(file);
    fair::warn(&ours, &config).recorded(file);
    strategy::warn_of_prices(&router, config.strategy, &config.groups);
    if root.node("include").is_some() {
        let text = "there is no such file beside this one, and what it holds is missing";
        root.tell(Kind::NO_INCLUDE, "include", text);
    }
    explain("router_settings", &router);
    explain("litellm_settings", &litellm);
    explain("general_settings", &general);
    explain("", &root);
    ours.refuse_unknown(OURS);
    for section in [&kwargs, &router, &litellm, &general, &root] {
        section.warn_unknown();
    }
    Ok(config)
}

/// A section; one that is no mapping is an error and counts as empty.
fn section<'a>(parent: &Section<'a>, key: &str) -> Section<'a> {
    let section = parent.section(key).recorded_if_any(parent.file);
    section.unwrap_or_else(|| parent.empty(key))
}

fn key_header(general: &Section<'_>) -> Result<Option<HeaderName>> {
    let key = "litellm_key_header_name";
    let parsed = |name: String| {
        let name = name.parse();
        name.map_err(|_| general.error(key, "expected the name of a header"))
    };
    general.name(key)?.map(parsed).transpose()
}

fn master_key(general: &Section<'_>) -> Option<SecretString> {
    let file = general.file;
    match general.secret("master_key") {
        Ok(Some(key)) => Some(key),
        Ok(None) => file
            .env
            .get("LITELLM_MASTER_KEY")
            .filter(|key| !key.is_empty())
            .map(SecretString::from),
        Err(error) => {
            file.record(error);
            // It is there, though it cannot be read: no further error should say that it is missing.
            Some(SecretString::default())
        }
    }
}

/// Models that LiteLLM puts in the place of those that calls name.
fn models_of_endpoints(general: &Section<'_>) -> Vec<(Endpoint, String)> {
    use Endpoint::{ChatCompletions, Completions, ImageEdits, ImageGenerations, Moderations};
    // The first that is set counts.
    let settings: [(&str, &[Endpoint]); 3] = [
        (
            "completion_model",
            &[ChatCompletions, Completions, ImageEdits],
        ),
        ("image_generation_model", &[ImageGenerations, ImageEdits]),
        ("moderation_model", &[Moderations]),
    ];
    let mut models = Vec::new();
    for (key, endpoints) in settings {
        let Some(model) = general.text(key).recorded(general.file) else {
            continue;
        };
        let endpoints = endpoints.iter().filter(|_| !model.is_empty());
        models.extend(endpoints.map(|endpoint| (*endpoint, model.clone())));
    }
    models
}

/// Fields without which LiteLLM refuses a request.
fn required_fields(general: &Section<'_>) -> Vec<String> {
    let file = general.file;
    let user = general.boolean("enforce_user_param").recorded(file) == Some(true);
    let enforced = general.texts("enforced_params").recorded(file);
    let user = user.then(|| "user".to_owned());
    user.into_iter()
        .chain(enforced.into_iter().flatten())
        .collect()
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
fn environment_variables(root: &Section<'_>) -> HashMap<String, String> {
    let section = section(root, "environment_variables");
    let value = |name: &'_ str| {
        let value = match section.node(name).map(|node| &node.value) {
            Some(Value::Bool(value)) => Some(if *value { "True" } else { "False" }.to_owned()),
            _ => section.text(name).recorded(section.file),
        };
        Some((name.to_owned(), value?))
    };
    section.keys().filter_map(value).collect()
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
fn max_body_bytes(ours: &Section<'_>, general: &Section<'_>) -> usize {
    let theirs = general.positive("max_request_size_mb").recorded(ours.file);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "positive, and a float beyond the range saturates"
    )]
    let bytes = |mib: f64| (mib * 1_048_576.0) as u64;
    let bytes = match ours.whole("max_body_bytes", 1).recorded(ours.file) {
        Some(own) => own,
        None => theirs.map_or(33_554_432, bytes),
    };
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// A port, or 0 for a free one.
fn port(section: &Section<'_>, key: &str) -> Result<Option<u16>> {
    let port = section.whole(key, 0)?;
    port.map(|port| {
        u16::try_from(port).map_err(|_| section.error(key, "expected a port between 0 and 65535"))
    })
    .transpose()
}
