//! The configuration: what is accepted, what is warned about, and what an error says.

use std::{collections::BTreeMap, time::Duration};

use http::HeaderValue;
use secrecy::ExposeSecret;
use vorrang_gateway::{
    Config, Loaded,
    config::{CorsOrigins, DeploymentSettings, GroupSettings, Target},
};
use vorrang_scheduler::{LimitKind, Strategy};

const MODEL: &str =
    "model_list:\n- model_name: m\n  litellm_params: {model: gpt, mock_response: hi}\n";

fn env(variables: &[(&str, &str)]) -> BTreeMap<String, String> {
    variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn load(text: &str) -> Loaded {
    Config::parse(text, "config.yaml", &env(&[])).unwrap()
}

fn with_model(rest: &str) -> Loaded {
    load(&format!("{MODEL}{rest}"))
}

fn error(text: &str) -> String {
    Config::parse(text, "config.yaml", &env(&[]))
        .unwrap_err()
        .to_string()
}

fn error_with_model(rest: &str) -> String {
    error(&format!("{MODEL}{rest}"))
}

fn redis_of(text: &str, variables: &[(&str, &str)]) -> String {
    let loaded = Config::parse(&format!("{MODEL}{text}"), "config.yaml", &env(variables)).unwrap();
    loaded.config.redis.unwrap().url.expose_secret().to_owned()
}

fn limits(config: &Config, group: &GroupSettings) -> Vec<(LimitKind, u64, Duration)> {
    config.group_config(group).deployments[0]
        .limits
        .iter()
        .map(|limit| (limit.kind, limit.limit, limit.length))
        .collect()
}

const REFERENCE: &str = r#"
model_list:
  - model_name: gpt-3.5-turbo-fake-model
    litellm_params:
      model: gpt-3.5-turbo
      mock_response: "hello world!"
      api_key: my-good-key
litellm_settings:
  request_timeout: 600          # how long a request waits at most
router_settings:
  redis_host: os.environ/REDIS_HOST
  redis_password: os.environ/REDIS_PASSWORD
  redis_port: os.environ/REDIS_PORT
"#;

#[test]
fn documented_config_is_accepted_unchanged() {
    let environment = env(&[
        ("REDIS_HOST", "redis.example"),
        ("REDIS_PORT", "6380"),
        ("REDIS_PASSWORD", "p@ss/w:rd"),
    ]);
    let Loaded { config, warnings } =
        Config::parse(REFERENCE, "config.yaml", &environment).unwrap();
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!(config.timeout, Duration::from_secs(600));
    assert_eq!(config.groups[0].name, "gpt-3.5-turbo-fake-model");
    assert!(
        matches!(&config.groups[0].deployments[0].target, Target::Mock { response } if response == "hello world!")
    );
    let redis = config.redis.unwrap();
    assert_eq!(
        redis.url.expose_secret(),
        "redis://:p%40ss%2Fw%3Ard@redis.example:6380/0"
    );
    assert_eq!(redis.namespace, "vorrang");
}

#[test]
fn only_the_redis_password_variable_may_be_unset() {
    let host = ("REDIS_HOST", "h");
    let port = ("REDIS_PORT", "1");
    for variables in [&[host, port][..], &[host, port, ("REDIS_PASSWORD", "")][..]] {
        let loaded = Config::parse(REFERENCE, "config.yaml", &env(variables)).unwrap();
        assert_eq!(
            loaded.config.redis.unwrap().url.expose_secret(),
            "redis://h:1/0"
        );
    }
    let error = Config::parse(REFERENCE, "config.yaml", &env(&[host]))
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "config.yaml:13: router_settings.redis_port: the environment variable REDIS_PORT is not set"
    );
}

#[test]
fn documented_typo_is_reported_with_its_line() {
    let rest = "litellm_settings:\n  request_timeout: 600\nrouter_settings:\n  redis_host; os.environ/REDIS_HOST\n";
    let expected = "config.yaml:7: router_settings.redis_host: expected `redis_host: VALUE`, a colon and a space after the key";
    assert_eq!(error_with_model(rest), expected);
    // With more lines around it the parser notices elsewhere; the message stays.
    assert_eq!(
        error_with_model(&format!(
            "{rest}  redis_password: os.environ/REDIS_PASSWORD\n  redis_port: 1\n"
        )),
        expected
    );
    let between = rest.replace("  redis_host", "  redis_port: 1\n  redis_host");
    assert_eq!(
        error_with_model(&format!("{between}  redis_password: x\n")),
        expected.replace(":7:", ":8:")
    );
    let indented =
        "litellm_settings:\n    x: 1\nrouter_settings:\n    redis_host:os.environ/REDIS_HOST\n";
    assert_eq!(error_with_model(indented), expected);
}

#[test]
fn invalid_yaml_is_reported_by_line_without_its_text() {
    for (rest, line) in [
        ("general_settings: {master_key: sk-secret", 4),
        ("general_settings:\n  master_key: 'sk-secret\n", 5),
        ("general_settings: [sk-secret\n", 4),
        ("general_settings:\n  master_key: *sk-secret\n", 5),
        ("general_settings:\n  a: b: sk-secret\n", 5),
        ("---\nmaster_key: sk-secret\n", 4),
    ] {
        let error = error_with_model(rest);
        let (place, message) = error.split_once(": ").unwrap();
        let named: u64 = place.strip_prefix("config.yaml:").unwrap().parse().unwrap();
        assert!((line..=line + 2).contains(&named), "{rest}: {error}");
        assert!(!message.contains("secret"), "{rest}: {error}");
    }
}

#[test]
fn config_error_names_path_and_expectation_but_no_value() {
    let cases = [
        (
            "",
            "config.yaml:1: model_list: expected a list with at least one deployment (`- model_name: ...`)",
        ),
        (
            "- a\n",
            "config.yaml:1: the file: expected a mapping (`key: value`), found a list",
        ),
        (
            "model_list: {}\n",
            "config.yaml:1: model_list: expected a list, found a mapping",
        ),
        (
            "model_list:\n- litellm_params: {model: gpt-x}\n",
            "config.yaml:2: model_list[0].model_name: is missing; expected a text",
        ),
        (
            "model_list:\n- model_name: m\n",
            "config.yaml:2: model_list[0].litellm_params: is missing; expected a mapping with at least `model`",
        ),
        (
            "model_list:\n- model_name: m\n  litellm_params:\n    model: gpt-x\n    rpm: sk-secret\n",
            "config.yaml:5: model_list[0].litellm_params.rpm: expected a whole number of at least 1, found a text",
        ),
        (
            "model_list:\n- model_name: m\n  litellm_params: {model: gpt-x, rpm: 0}\n",
            "config.yaml:3: model_list[0].litellm_params.rpm: expected a whole number of at least 1",
        ),
        (
            "model_list:\n- model_name: m\n  litellm_params: {model: gpt-x, tpm: 1.5}\n",
            "config.yaml:3: model_list[0].litellm_params.tpm: expected a whole number of at least 1",
        ),
        (
            "model_list:\n- model_name: m\n  litellm_params: {model: gpt-x, itpm: 5, otpm: 0}\n",
            "config.yaml:3: model_list[0].litellm_params.otpm: expected a whole number of at least 1",
        ),
        (
            "model_list:\n- model_name: m\n  litellm_params: {model: gpt-x, cached_token_weight: 1.5}\n",
            "config.yaml:3: model_list[0].litellm_params.cached_token_weight: expected a number between 0 and 1",
        ),
        (
            "model_list:\n- model_name: m\n  litellm_params: {model: gpt-x, timeout: -1}\n",
            "config.yaml:3: model_list[0].litellm_params.timeout: expected a number of seconds, 0 or more",
        ),
        (
            "model_list:\n- model_name: m\n  litellm_params: {model: hosted_vllm/x}\n",
            "config.yaml:3: model_list[0].litellm_params.api_base: is missing, and so is the environment variable HOSTED_VLLM_API_BASE; the provider hosted_vllm needs the URL of its server; no other deployment is left",
        ),
        (
            "model_list:\n- model_name: m\n  litellm_params: {model: gpt-x, api_base: 'ftp://user:sk-secret@h'}\n",
            "config.yaml:3: model_list[0].litellm_params.api_base: expected a URL such as https://host/v1",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(error(text), expected, "{text}");
    }
    let broken_key = "model_list:\n- model_name: m\n  litellm_params:\n    model: gpt-x\n    api_key: \"sk-secret\\n\"\n";
    let expected = "config.yaml:5: model_list[0].litellm_params.api_key: expected visible characters only (is there a line break at its end?)";
    assert_eq!(error(broken_key), expected);
    let cases = [
        (
            "router_settings:\n  routing_strategy: fastest\n",
            "config.yaml:5: router_settings.routing_strategy: expected simple-shuffle or usage-based-routing-v2",
        ),
        (
            "router_settings:\n  default_priority: 3000000000\n",
            "config.yaml:5: router_settings.default_priority: expected a whole number between -2147483648 and 2147483647",
        ),
        (
            "router_settings:\n  disable_cooldowns: 3\n",
            "config.yaml:5: router_settings.disable_cooldowns: expected true or false, found a number",
        ),
        (
            "general_settings:\n  master_key: os.environ/NOPE\n",
            "config.yaml:5: general_settings.master_key: the environment variable NOPE is not set",
        ),
        (
            "general_settings:\n  master_key: ''\n",
            "config.yaml:5: general_settings.master_key: expected a text that is not empty",
        ),
        (
            "router_settings:\n  redis_url: localhost:6379\n",
            "config.yaml:5: router_settings.redis_url: expected redis://HOST:PORT or rediss://HOST:PORT",
        ),
        (
            "router_settings:\n  redis_host: h\n  redis_port: 70000\n",
            "config.yaml:6: router_settings.redis_port: expected a port between 1 and 65535",
        ),
        (
            "vorrang_settings:\n  redis_sentinel: {}\n",
            "config.yaml:5: vorrang_settings.redis_sentinel: not supported yet; expected redis_url",
        ),
        (
            "vorrang_settings:\n  groups: {nope: {}}\n",
            "config.yaml:5: vorrang_settings.groups.nope: no deployment of model_list has this model_name",
        ),
    ];
    for (rest, expected) in cases {
        assert_eq!(error_with_model(rest), expected, "{rest}");
    }
}

#[test]
fn unknown_vorrang_settings_are_errors() {
    let error = error_with_model("vorrang_settings:\n  lease: 3\n");
    assert!(error.starts_with("config.yaml:5: vorrang_settings.lease: unknown setting; expected one of window_seconds, "), "{error}");
    for rest in [
        "groups: {m: {prio: 1}}",
        "keys: [{name: a, key: k, prio: 1}]",
    ] {
        assert!(
            error_with_model(&format!("vorrang_settings:\n  {rest}\n"))
                .contains("prio: unknown setting"),
            "{rest}"
        );
    }
}

#[test]
fn unknown_and_ineffective_litellm_settings_are_one_warning_each() {
    let text = "model_list:\n- model_name: m\n  litellm_params:\n    model: gpt-4\n    mock_response: hi\n    order: 1\n    temperature: 0.5\n  extra: 1\n\
                router_settings:\n  fallbacks: [{a: [b]}]\n  routing_strategy: least-busy\n  novelty: 1\nlitellm_settings:\n  modify_params: true\n\
                general_settings:\n  alerting: [slack]\nelsewhere: 1\n";
    let warnings = load(text).warnings;
    let expected = [
        (
            "6: model_list[0].litellm_params.order:",
            "does nothing here",
        ),
        ("8: model_list[0].extra:", "unknown setting, ignored"),
        ("10: router_settings.fallbacks:", "does nothing here"),
        (
            "11: router_settings.routing_strategy:",
            "simple-shuffle is used instead",
        ),
        ("12: router_settings.novelty:", "unknown setting, ignored"),
        ("14: litellm_settings.modify_params:", "does nothing here"),
        ("16: general_settings.alerting:", "does nothing here"),
        ("17: elsewhere:", "unknown setting, ignored"),
    ];
    for (place, words) in expected {
        let found = warnings
            .iter()
            .filter(|warning| {
                warning.starts_with(&format!("config.yaml:{place}")) && warning.contains(words)
            })
            .count();
        assert_eq!(found, 1, "{place} {words} in {warnings:#?}");
    }
    assert_eq!(warnings.len(), expected.len(), "{warnings:#?}");
}

#[test]
fn numbers_and_booleans_parse_as_in_pyyaml() {
    let text = "defaults: &defaults\n  rpm: 1e6\n  tpm: 1_000\nmodel_list:\n- model_name: m\n  litellm_params:\n    <<: *defaults\n    model: gpt\n    \
                mock_response: hi\n    max_parallel_requests: os.environ/PARALLEL\n    weight: '2.5'\nrouter_settings:\n  disable_cooldowns: on\n  \
                timeout: os.environ/TIME\n  default_priority: '-5'\n  num_retries: ~\n";
    let loaded = Config::parse(
        text,
        "config.yaml",
        &env(&[("PARALLEL", "7"), ("TIME", "2.5")]),
    )
    .unwrap();
    assert_eq!(
        loaded.warnings,
        ["config.yaml:1: defaults: unknown setting, ignored"]
    );
    let config = loaded.config;
    let minute = Duration::from_secs(60);
    let expected = [
        (LimitKind::Requests, 1_000_000, minute),
        (LimitKind::Tokens, 1000, minute),
        (LimitKind::Concurrency, 7, Duration::ZERO),
    ];
    assert_eq!(limits(&config, &config.groups[0]), expected);
    assert_eq!(config.groups[0].deployments[0].weight, Some(2.5));
    assert!(config.disable_cooldowns);
    assert_eq!(
        (config.timeout, config.default_priority, config.num_retries),
        (Duration::from_millis(2500), Some(-5), 2)
    );
    for (text, value) in [
        ("off", false),
        ("No", false),
        ("false", false),
        ("YES", true),
        ("on", true),
        ("True", true),
    ] {
        let config =
            with_model(&format!("router_settings: {{disable_cooldowns: {text}}}\n")).config;
        assert_eq!(config.disable_cooldowns, value, "{text}");
    }
    // Unlike other readers of YAML 1.1, PyYAML takes this for a text.
    let config = load(&MODEL.replace("model_name: m", "model_name: y")).config;
    assert_eq!(config.groups[0].name, "y");
}

#[test]
fn default_settings_equal_litellms() {
    let config = with_model("").config;
    assert_eq!(
        (config.timeout, config.num_retries, config.allowed_fails),
        (Duration::from_secs(6000), 2, 3)
    );
    assert_eq!(
        (config.cooldown_time, config.timing.polling_interval),
        (Duration::from_secs(5), Duration::from_millis(30))
    );
    assert_eq!(
        (config.strategy, config.default_priority, config.window),
        (Strategy::SimpleShuffle, None, Duration::from_secs(60))
    );
    assert_eq!(
        (config.max_body_bytes, config.grace),
        (33_554_432, Duration::from_secs(30))
    );
    assert!(config.redis.is_none() && config.master_key.is_none() && config.keys.is_empty());
}

#[test]
fn router_settings_override_litellm_settings() {
    let both = "litellm_settings: {request_timeout: 7, num_retries: 5}\nrouter_settings: {timeout: 3, num_retries: 0}\n";
    let config = with_model(both).config;
    assert_eq!(
        (config.timeout, config.num_retries),
        (Duration::from_secs(3), 0)
    );
    let config = with_model("litellm_settings: {request_timeout: 7, num_retries: 5}\n").config;
    assert_eq!(
        (config.timeout, config.num_retries),
        (Duration::from_secs(7), 5)
    );
}

#[test]
fn provider_prefixes_resolve_to_base_url_and_model() {
    let text = "model_list:\n- {model_name: a, litellm_params: {model: gpt-4o, api_key: k}}\n\
                - {model_name: b, litellm_params: {model: openai/meta/llama, api_base: 'http://h:8000/v1/', api_key: k}}\n\
                - {model_name: c, litellm_params: {model: hosted_vllm/q/w, api_base: 'http://h/v1'}}\n\
                - {model_name: d, litellm_params: {model: nobody/x, api_base: 'http://h/v1'}}\n";
    let Loaded { config, warnings } = load(text);
    let seen: Vec<(String, String)> = config
        .groups
        .iter()
        .map(|group| match &group.deployments[0].target {
            Target::Upstream(upstream) => (
                upstream.api_base.clone(),
                group.deployments[0].model.clone(),
            ),
            other => panic!("{other:?}"),
        })
        .collect();
    let expected = [
        ("https://api.openai.com/v1", "gpt-4o"),
        ("http://h:8000/v1", "meta/llama"),
        ("http://h/v1", "q/w"),
        ("http://h/v1", "x"),
    ];
    assert_eq!(
        seen,
        expected.map(|(base, model)| (base.to_owned(), model.to_owned()))
    );
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(
        warnings[0].contains("the provider nobody is not known here"),
        "{warnings:?}"
    );
}

#[test]
fn openai_api_key_of_the_environment_is_sent_to_openai_only() {
    let text = "model_list:\n- {model_name: a, litellm_params: {model: gpt-4o}}\n- {model_name: b, litellm_params: {model: openai/x, api_base: 'http://h/v1'}}\n";
    let config = Config::parse(text, "config.yaml", &env(&[("OPENAI_API_KEY", "sk-env")]))
        .unwrap()
        .config;
    let key = |group: usize| match &config.groups[group].deployments[0].target {
        Target::Upstream(upstream) => upstream
            .api_key
            .as_ref()
            .map(|key| key.expose_secret().to_owned()),
        other => panic!("{other:?}"),
    };
    assert_eq!((key(0).as_deref(), key(1)), (Some("sk-env"), None));
    let missing = load(text).warnings;
    assert!(missing[0].contains("OPENAI_API_KEY"), "{missing:?}");
}

fn ids(text: &str, of: impl Fn(&DeploymentSettings) -> &String) -> Vec<String> {
    let groups = load(text).config.groups;
    let deployments = groups.iter().flat_map(|group| &group.deployments);
    deployments
        .map(|deployment| of(deployment).clone())
        .collect()
}

#[test]
fn public_deployment_ids_reveal_neither_keys_nor_base_urls() {
    let entry = |key: &str, base: &str| {
        format!(
            "- {{model_name: m, litellm_params: {{model: openai/x, api_base: '{base}', api_key: {key}}}}}\n"
        )
    };
    let of = |entries: &[String], of: fn(&DeploymentSettings) -> &String| {
        ids(&format!("model_list:\n{}", entries.concat()), of)
    };
    let first = [
        entry("~", "https://u:p@host/v1/secret-a"),
        entry("sk-b", "https://host/v1"),
    ];
    let other = [
        entry("sk-c", "https://host/v1/secret-c"),
        entry("~", "https://u:q@host/v1"),
    ];
    let shown = of(&first, |deployment| &deployment.id);
    assert_eq!(shown, of(&other, |deployment| &deployment.id));
    assert_ne!(shown[0], shown[1], "each has its own");
    let elsewhere = of(&[entry("sk-a", "https://elsewhere/v1")], |deployment| {
        &deployment.id
    });
    assert_ne!(shown[0], elsewhere[0]);
    // Ids of the shared state still differ between accounts.
    let state = of(&first, |deployment| &deployment.state_id);
    assert!(
        of(&other, |deployment| &deployment.state_id)
            .iter()
            .all(|id| !state.contains(id))
    );
}

#[test]
fn exposure_settings_are_parsed_and_invalid_ones_refused() {
    let with = |settings: &str| {
        format!(
            "model_list: [{{model_name: m, litellm_params: {{model: gpt-x, mock_response: hi}}}}]\n{settings}\n"
        )
    };
    let open = load(&with("")).config.exposure;
    assert!(open.public_metrics && open.allowed_hosts.is_empty());
    let closed = load(&with(
        "general_settings: {master_key: sk-m}\nvorrang_settings: {public_metrics: false, allowed_hosts: [a, '*.b:1'], admin_port: 4001}",
    ));
    assert!(!closed.config.exposure.public_metrics);
    assert_eq!(closed.config.exposure.allowed_hosts.len(), 2);
    assert_eq!(closed.config.admin_port, Some(4001));
    for (settings, message) in [
        (
            "public_metrics: false",
            "public_metrics: false needs general_settings.master_key",
        ),
        (
            "allowed_hosts: []",
            "allowed_hosts: expected a list of HOST",
        ),
        (
            "allowed_hosts: ['http://a']",
            "allowed_hosts: expected a list of HOST",
        ),
        (
            "admin_port: 65536",
            "admin_port: expected a port between 0 and 65535",
        ),
    ] {
        let error = error(&with(&format!("vorrang_settings: {{{settings}}}")));
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn state_ids_ignore_limits_and_other_entries() {
    let ids = |text: &str| ids(text, |deployment| &deployment.state_id);
    let entry = |name: &str, params: &str| {
        format!(
            "- {{model_name: {name}, litellm_params: {{model: gpt-x, mock_response: hi{params}}}}}\n"
        )
    };
    let base = ids(&format!(
        "model_list:\n{}{}",
        entry("m", ""),
        entry("m", ", rpm: 5")
    ));
    assert_eq!(base.len(), 2);
    assert!(
        base[0] != base[1]
            && base
                .iter()
                .all(|id| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()))
    );
    // Other limits, or another entry before these, do not change their ids.
    let moved = ids(&format!(
        "model_list:\n{}{}{}",
        entry("m", ", api_key: k"),
        entry("m", ", tpm: 9"),
        entry("m", "")
    ));
    assert_eq!(moved[1..], base);
    assert_ne!(
        moved[0],
        ids(&format!("model_list:\n{}", entry("m", ", api_key: l")))[0]
    );
    assert_ne!(
        base[0],
        ids(&format!("model_list:\n{}", entry("other", "")))[0]
    );

    let own = "model_list:\n- {model_name: m, litellm_params: {model: gpt-x, mock_response: hi}, model_info: {id: one, mode: chat}}\n";
    assert_eq!(ids(own), ["one"]);
    let twice = format!("{own}{}", own.trim_start_matches("model_list:\n"));
    assert_eq!(
        error(&twice),
        "config.yaml:3: model_list[1].model_info.id: another deployment of m has the same id; expected one of its own"
    );
}

#[test]
fn vorrang_settings_set_groups_keys_and_times() {
    let rest = "router_settings: {redis_url: 'redis://old:1', model_group_alias: {alias: m, hush: {model: m, hidden: true}, lost: nobody}}\n\
                vorrang_settings:\n  window_seconds: 2\n  guard_ms: 20\n  lease_seconds: 1.5\n  redis_namespace: other\n  redis_url: rediss://u:sk-secret@new:2/1\n  \
                max_body_bytes: 1e3\n  max_waiting_body_bytes: 5e3\n  client_write_timeout_seconds: 7.5\n  grace_seconds: 0\n  max_queue_depth: 9\n  groups: {m: {default_priority: -1, max_queue_depth: 4}}\n  \
                keys: [{name: batch, key: sk-secret-batch, default_priority: 1000, best_priority: 500, models: [alias]}]\n";
    let Loaded { config, warnings } = with_model(rest);
    let expected = [
        "router_settings.redis_url: is not used; vorrang_settings.redis_url is",
        "lost: names no model_name",
    ];
    assert!(
        warnings.len() == 2
            && warnings
                .iter()
                .zip(expected)
                .all(|(warning, words)| warning.contains(words)),
        "{warnings:?}"
    );
    assert_eq!(config.window, Duration::from_secs(2));
    assert_eq!(
        (config.timing.guard, config.timing.lease),
        (Duration::from_millis(20), Duration::from_millis(1500))
    );
    assert_eq!(
        (config.max_body_bytes, config.grace),
        (1000, Duration::ZERO)
    );
    assert_eq!(config.max_waiting_body_bytes, 5000);
    let of_key = config.waiting_body_bytes_of(&config.keys[0].policy);
    assert_eq!(of_key, 2500, "half of the total");
    assert_eq!(config.client_write_timeout, Duration::from_millis(7500));
    assert_eq!(
        (
            config.groups[0].default_priority,
            config.groups[0].max_queue_depth
        ),
        (Some(-1), Some(4))
    );
    assert_eq!(
        config.redis.as_ref().unwrap().url.expose_secret(),
        "rediss://u:sk-secret@new:2/1"
    );
    assert_eq!(config.redis.as_ref().unwrap().namespace, "other");
    assert_eq!(config.keys[0].policy.name, "batch");
    assert_eq!(config.aliases.len(), 2);
    assert!(config.aliases[1].hidden);

    let plan = config.plan();
    for part in [
        "m: default priority -1, at most 4 waiting",
        "rediss://new:2/1 (namespace other)",
        "key batch: default priority 1000",
        "alias alias -> m",
    ] {
        assert!(plan.contains(part), "{part} in\n{plan}");
    }
    assert!(
        !plan.contains("secret") && !format!("{config:?}").contains("secret"),
        "{plan}"
    );
}

#[test]
fn plan_lists_limits_and_addresses_without_secrets() {
    let text = "model_list:\n- {model_name: a, litellm_params: {model: openai/gpt, api_base: 'http://h:1/v1', api_key: sk-secret, rpm: 5, tpm: 6, itpm: 8, otpm: 9, max_parallel_requests: 7}}\n\
                - {model_name: b, litellm_params: {model: openai/gpt, api_base: 'https://user:sk-secret@h/v1/account-secret/key-secret/openai/'}}\n\
                general_settings: {master_key: sk-secret}\n";
    let plan = load(text).config.plan();
    for part in [
        "gpt at http://h:1/v1 with a key, rpm 5, tpm 6, itpm 8, otpm 9, max_parallel_requests 7",
        "gpt at https://h/v1/***/***/openai without a key",
        "state: in memory",
        "master key: set",
        "request 6000s",
    ] {
        assert!(plan.contains(part), "{part} in\n{plan}");
    }
    assert!(!plan.contains("secret"), "{plan}");
}

#[test]
fn redis_address_is_set_by_parts_or_url() {
    assert_eq!(
        redis_of("router_settings: {redis_host: h}\n", &[]),
        "redis://h:6379/0"
    );
    assert_eq!(
        redis_of(
            "router_settings: {redis_host: '::1', redis_port: 7, redis_username: u, redis_password: p, redis_db: 3}\n",
            &[]
        ),
        "redis://u:p@[::1]:7/3"
    );
    assert_eq!(
        redis_of(
            "router_settings: {redis_url: os.environ/URL}\n",
            &[("URL", "redis://x:1")]
        ),
        "redis://x:1"
    );
    assert!(
        with_model("router_settings: {redis_port: 1}\n")
            .config
            .redis
            .is_none()
    );
}

#[test]
fn litellm_master_key_variable_applies_without_a_master_key_in_the_file() {
    let environment = env(&[("LITELLM_MASTER_KEY", "sk-env")]);
    let key = |rest: &str| {
        let config = Config::parse(&format!("{MODEL}{rest}"), "config.yaml", &environment)
            .unwrap()
            .config;
        config.master_key.unwrap().expose_secret().to_owned()
    };
    assert_eq!(key(""), "sk-env");
    assert_eq!(key("general_settings: {master_key: sk-file}\n"), "sk-file");
}

#[test]
fn demo_config_has_an_unlimited_and_a_limited_group() {
    let config = Config::demo();
    let named: Vec<_> = config
        .groups
        .iter()
        .map(|group| (group.name.as_str(), limits(&config, group)))
        .collect();
    assert_eq!(
        named,
        [
            ("demo", vec![]),
            (
                "demo-limited",
                vec![(LimitKind::Requests, 6, Duration::from_secs(60))]
            )
        ]
    );
    assert!(config.redis.is_none());
}

#[test]
fn missing_file_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let error = Config::load(&directory.path().join("none.yaml"), &env(&[]))
        .unwrap_err()
        .to_string();
    assert!(error.contains("none.yaml: cannot be read"), "{error}");
    let path = directory.path().join("some.yaml");
    std::fs::write(&path, MODEL).unwrap();
    assert_eq!(
        Config::load(&path, &env(&[])).unwrap().config.groups.len(),
        1
    );
}

proptest::proptest! {
    #[test]
    fn any_text_parses_or_is_refused_with_a_clear_error(text in "[a-z:;\\-\\[\\]{}#&*!|>'\"%@` \n\t0-9]{0,80}") {
        if let Err(error) = Config::parse(&text, "f", &env(&[])) {
            proptest::prop_assert!(error.to_string().starts_with("f:"), "{}", error);
        }
        let _ = Config::parse(&format!("{MODEL}router_settings:\n  {text}"), "f", &env(&[]));
    }
}

#[test]
fn cors_origins_default_to_all_with_keys_and_to_localhost_without() {
    let origins = |rest: &str, variables: &[(&str, &str)]| {
        let text = format!("{MODEL}{rest}");
        let loaded = Config::parse(&text, "config.yaml", &env(variables));
        loaded.map(|loaded| loaded.config.cors_origins)
    };
    let these = |origin: &'static str| CorsOrigins::These(vec![HeaderValue::from_static(origin)]);
    let app = "https://app.example.com";
    assert_eq!(origins("", &[]).unwrap(), CorsOrigins::Local);
    for keys in [
        "general_settings: {master_key: sk-1}\n",
        "vorrang_settings: {keys: [{name: a, key: sk-a}]}\n",
    ] {
        assert_eq!(origins(keys, &[]).unwrap(), CorsOrigins::Any);
        let variable = [("LITELLM_CORS_ORIGINS", app)];
        assert_eq!(origins(keys, &variable).unwrap(), these(app));
    }
    let empty = [("LITELLM_CORS_ORIGINS", " , ")];
    assert_eq!(origins("", &empty).unwrap(), CorsOrigins::Local);
    let own = "vorrang_settings: {cors_origins: ['HTTPS://App.example.com']}\n";
    let all = [("LITELLM_CORS_ORIGINS", "*")];
    assert_eq!(
        origins(own, &all).unwrap(),
        these(app),
        "the file's own setting goes first"
    );
    assert_eq!(origins("", &all).unwrap(), CorsOrigins::Any);
    assert_eq!(
        origins("vorrang_settings: {cors_origins: []}\n", &[]).unwrap(),
        CorsOrigins::These(Vec::new()),
    );
    for wrong in [
        "app.example.com",
        "https://app.example.com/",
        "https://",
        "https://a b",
        "null",
    ] {
        let setting = format!("vorrang_settings: {{cors_origins: ['{wrong}']}}\n");
        let error = origins(&setting, &[]).unwrap_err().to_string();
        assert!(
            error.contains("cors_origins") && error.contains("expected origins"),
            "{error}"
        );
        let error = origins("", &[("LITELLM_CORS_ORIGINS", wrong)]).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("environment variable LITELLM_CORS_ORIGINS: expected")
        );
    }
}

#[test]
fn keepalive_seconds_is_15_by_default_and_0_turns_it_off() {
    let keepalive = |rest: &str| with_model(rest).config.keepalive;
    assert_eq!(keepalive(""), Duration::from_secs(15));
    assert_eq!(
        keepalive("vorrang_settings: {keepalive_seconds: 0}\n"),
        Duration::ZERO
    );
    assert_eq!(
        keepalive("vorrang_settings: {keepalive_seconds: 2.5}\n"),
        Duration::from_millis(2500)
    );
    let own = MODEL.replace(
        "mock_response: hi",
        "mock_response: hi, keepalive_seconds: 0",
    );
    let loaded = load(&own);
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    assert_eq!(
        loaded.config.groups[0].deployments[0].keepalive,
        Some(Duration::ZERO)
    );
    let error = error_with_model("vorrang_settings: {keepalive_seconds: -1}\n");
    assert!(error.contains("keepalive_seconds"), "{error}");
}

#[test]
fn max_waiting_body_bytes_below_max_body_bytes_is_refused() {
    let with =
        |settings: &str| format!("{MODEL}vorrang_settings: {{max_body_bytes: 10, {settings}}}\n");
    for (settings, place) in [
        ("max_waiting_body_bytes: 9", "max_waiting_body_bytes: "),
        (
            "keys: [{name: a, key: k, max_waiting_body_bytes: 9}]",
            "keys: max_waiting_body_bytes of a: ",
        ),
    ] {
        let error = error(&with(settings));
        let expected = format!("vorrang_settings.{place}expected at least max_body_bytes");
        assert!(error.contains(&expected), "{error}");
    }
}
