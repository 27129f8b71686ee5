//! Settings: their defaults, what overrides them, and what the plan shows.

use super::*;

#[test]
fn documented_config_is_accepted_unchanged() {
    let environment = env(&[
        ("REDIS_HOST", "redis.example"),
        ("REDIS_PORT", "6380"),
        ("REDIS_PASSWORD", "p@ss/w:rd"),
    ]);
    let loaded = Config::parse(REFERENCE, "config.yaml", &environment).unwrap();
    let (warnings, config) = (loaded.warnings(), loaded.config);
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
fn vorrang_settings_set_groups_keys_and_times() {
    let rest = "router_settings: {redis_url: 'redis://old:1', model_group_alias: {alias: m, hush: {model: m, hidden: true}, lost: nobody}}\n\
                vorrang_settings:\n  window_seconds: 2\n  guard_ms: 20\n  lease_seconds: 1.5\n  redis_namespace: other\n  redis_url: rediss://u:sk-secret@new:2/1\n  \
                max_body_bytes: 1e3\n  max_waiting_body_bytes: 5e3\n  client_write_timeout_seconds: 7.5\n  grace_seconds: 0\n  shutdown_delay_seconds: 2.5\n  max_queue_depth: 9\n  groups: {m: {default_priority: -1, max_queue_depth: 4}}\n  \
                keys: [{name: batch, key: sk-secret-batch, default_priority: 1000, best_priority: 500, models: [alias]}]\n";
    let loaded = with_model(rest);
    let (warnings, config) = (loaded.warnings(), loaded.config);
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
    assert_eq!(config.shutdown_delay, Duration::from_millis(2500));
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
    assert!(loaded.warnings().is_empty(), "{:?}", loaded.warnings());
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
