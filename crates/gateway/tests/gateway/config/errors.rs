//! What an error or a warning about the file says.

use super::*;

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
            "config.yaml:5: router_settings.routing_strategy: expected simple-shuffle, usage-based-routing-v2, least-busy, latency-based-routing or cost-based-routing",
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
            "config.yaml:5: router_settings.redis_url: expected redis://HOST:PORT or rediss://HOST:PORT, unix:///PATH, redis+sentinel://HOST:PORT,HOST:PORT/SERVICE or redis+cluster://HOST:PORT,HOST:PORT (with TLS rediss+sentinel://, rediss+cluster://)",
        ),
        (
            "router_settings:\n  redis_host: h\n  redis_port: 70000\n",
            "config.yaml:6: router_settings.redis_port: expected a port between 1 and 65535",
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
fn all_errors_of_a_file_are_reported_together_in_its_order() {
    let text = "model_list:
- model_name: a
  litellm_params: {model: openai/x, rpm: 0, timeout: soon, weight: -1}
- litellm_params: {model: openai/x}
- model_name: b
  litellm_params: {model: openai/x, api_key: os.environ/NOPE}
- 7
router_settings: {num_retries: many, model_group_alias: {c: b, d: nobody}}
litellm_settings: [1]
general_settings: {master_key: os.environ/MASTER, enable_jwt_auth: true, custom_auth: x.y}
vorrang_settings:
  public_metrics: false
  keys: [{name: k, models: [a, b, c]}, {name: l, key: x, models: [nobody]}]
  groups: {b: {max_queue_depth: 0, nope: 1}, nobody: {}}
  lease: 3
";
    let error = Config::parse(text, "f", &env(&[])).unwrap_err();
    let lines: Vec<String> = error.to_string().lines().map(str::to_owned).collect();
    let expected = [
        "f:3: model_list[0].litellm_params.rpm: expected a whole number",
        "f:3: model_list[0].litellm_params.weight: expected a number of at least 0",
        "f:3: model_list[0].litellm_params.timeout: expected a number of seconds",
        "f:4: model_list[1].model_name: is missing",
        "f:6: model_list[2].litellm_params.api_key: the environment variable NOPE is not set",
        "f:7: model_list[3]: expected a mapping",
        "f:8: router_settings.num_retries: expected a whole number",
        "f:9: litellm_settings: expected a mapping",
        "f:10: general_settings.custom_auth: is not supported",
        "f:10: general_settings.enable_jwt_auth: is not supported",
        "f:10: general_settings.master_key: the environment variable MASTER is not set",
        "f:13: vorrang_settings.keys[0].key: is missing",
        "f:13: vorrang_settings.keys[1].models: expected names",
        "f:14: vorrang_settings.groups.b.max_queue_depth: expected a whole number",
        "f:14: vorrang_settings.groups.b.nope: unknown setting",
        "f:14: vorrang_settings.groups.nobody: no deployment of model_list",
        "f:15: vorrang_settings.lease: unknown setting",
    ];
    for part in expected {
        assert_eq!(
            lines.iter().filter(|line| line.starts_with(part)).count(),
            1,
            "{part} in {lines:#?}"
        );
    }
    assert_eq!(lines.len(), expected.len(), "{lines:#?}");
    // What is no error is known as well.
    let told = |code: &str| error.diagnostics().iter().any(|one| one.code == code);
    assert!(told("group-missing"), "{:#?}", error.diagnostics());
}

#[test]
fn names_of_the_file_cannot_write_to_the_terminal() {
    let text = "model_list: [{model_name: \"m\", litellm_params: {model: gpt, mock_response: hi}}]\n\
                \"a\\e[31m\\nb\": 1\n";
    let warnings = load(text).warnings();
    assert_eq!(
        warnings,
        ["config.yaml:2: a\\u{1b}[31m\\u{a}b: unknown setting, ignored"]
    );
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
    let text = "model_list:\n- model_name: m\n  litellm_params:\n    model: gpt-4\n    mock_response: hi\n    tags: [a]\n    temperature: 0.5\n  extra: 1\n\
                router_settings:\n  retry_policy: {a: 1}\n  routing_strategy: simple\n  novelty: 1\nlitellm_settings:\n  modify_params: true\n\
                general_settings:\n  alerting: [slack]\nelsewhere: 1\n";
    let warnings = load(text).warnings();
    let expected = [
        ("6: model_list[0].litellm_params.tags:", "does nothing here"),
        ("8: model_list[0].extra:", "unknown setting, ignored"),
        ("10: router_settings.retry_policy:", "does nothing here"),
        (
            "11: router_settings.routing_strategy:",
            "is taken as simple-shuffle",
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
        loaded.warnings(),
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
fn octal_and_sexagesimal_numbers_count_as_in_pyyaml_and_are_named() {
    let text = "model_list:\n- model_name: 1:30\n  litellm_params:\n    model: gpt\n    mock_response: hi\n    rpm: 010\n    \
                tpm: 1:30\n    timeout: 0.5\n    max_parallel_requests: 08\n    num_retries: 0\n";
    let loaded = load(text);
    let group = &loaded.config.groups[0];
    assert_eq!(group.name, "1:30", "where a text is expected");
    let amounts: Vec<u64> = limits(&loaded.config, group)
        .iter()
        .map(|(_, limit, _)| *limit)
        .collect();
    assert_eq!(amounts, [8, 90, 8]);
    let read = |line: u64, key: &str, number: u64| {
        format!(
            "config.yaml:{line}: model_list[0].litellm_params.{key}: is read as {number}, as PyYAML reads it"
        )
    };
    assert_eq!(loaded.warnings(), [read(6, "rpm", 8), read(7, "tpm", 90)]);
    let quoted = error(&text.replace("1:30\n    timeout", "'1:30'\n    timeout"));
    assert!(quoted.contains("tpm: expected a whole number"), "{quoted}");
}

#[test]
fn model_whose_provider_lacks_its_endpoint_is_a_loss() {
    let entry = |params: &str| {
        format!("model_list:\n- {{model_name: m, litellm_params: {{{params}, api_key: k}}}}\n")
    };
    let codes =
        |text: &str| -> Vec<&str> { load(text).diagnostics.iter().map(|one| one.code).collect() };
    for params in [
        "model: groq/nomic-embed-text-v1.5",
        "model: cerebras/whisper-large",
        "model: vertex_ai/gemini-embedding-2, vertex_project: p, vertex_location: l",
    ] {
        assert!(
            codes(&entry(params)).contains(&"endpoint-missing"),
            "{params}"
        );
    }
    let of_mode = entry("model: groq/some")
        .replace("api_key: k}", "api_key: k}, model_info: {mode: embedding}");
    assert_eq!(codes(&of_mode), ["endpoint-missing"]);
    for params in [
        "model: openai/text-embedding-3-small",
        "model: groq/whisper-large-v3",
        "model: mistral/mistral-embed",
        "model: vertex_ai/gemini-embedding-001, vertex_project: p, vertex_location: l",
    ] {
        assert_eq!(codes(&entry(params)), [""; 0], "{params}");
    }
}

#[test]
fn keys_that_would_be_sent_literally_are_named() {
    let entry = |key: &str| {
        format!(
            "model_list:\n- {{model_name: m, litellm_params: {{model: gpt-4, mock_response: hi}}}}\n\
                 - {{model_name: m, litellm_params: {{model: gpt-4, api_key: '{key}'}}}}\n"
        )
    };
    let loaded = load(&entry("oidc/google/https://x"));
    assert_eq!(loaded.diagnostics[0].code, "deployment-left-out");
    assert_eq!(loaded.config.groups[0].deployments.len(), 1);
    assert_eq!(
        load(&entry("${KEY}")).diagnostics[0].code,
        "variable-not-replaced"
    );
}

#[test]
fn provider_that_litellm_knows_is_a_loss_and_another_is_none() {
    let codes = |model: &str| -> Vec<&'static str> {
        let text = format!(
            "model_list:\n- {{model_name: m, litellm_params: {{model: gpt, mock_response: hi}}}}\n\
             - {{model_name: n, litellm_params: {{model: {model}/x}}}}\n"
        );
        load(&text).diagnostics.iter().map(|one| one.code).collect()
    };
    assert_eq!(codes("clarifai"), ["deployment-left-out"]);
    assert_eq!(codes("nobody"), ["provider-unknown"]);
}

#[test]
fn tab_in_the_indentation_is_an_error_with_its_line() {
    let error = error_with_model("router_settings:\n\tnum_retries: 1\n");
    assert!(
        error.starts_with("config.yaml:5: ") || error.starts_with("config.yaml:4: "),
        "{error}"
    );
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

#[test]
fn restrictions_of_deployments_are_refused_where_they_ask_for_something() {
    let text = |info: &str| {
        format!(
            "model_list:\n- {{model_name: m, litellm_params: {{model: gpt, mock_response: hi}}, model_info: {{{info}}}}}\n"
        )
    };
    for (name, asks, nothing) in [
        ("blocked", "true", "false"),
        ("team_id", "team-1", "null"),
        ("access_windows", "[{start: '08:00', end: '17:00'}]", "[]"),
    ] {
        let error = error(&text(&format!("{name}: {asks}")));
        let words = format!("model_list[0].model_info.{name}: is not supported");
        assert!(error.contains(&words), "{error}");
        assert_eq!(
            load(&text(&format!("{name}: {nothing}"))).warnings(),
            [""; 0]
        );
    }
}

#[test]
fn wrong_name_of_the_header_for_keys_is_an_error() {
    let error = error_with_model("general_settings: {litellm_key_header_name: 'a b'}\n");
    assert!(
        error.contains("litellm_key_header_name: expected the name of a header"),
        "{error}"
    );
}
