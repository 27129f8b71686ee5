//! Settings that require more safety than Vorrang supports are errors: Redis topologies, TLS, access rules.

use std::{collections::BTreeMap, io::Write as _};

use secrecy::ExposeSecret;
use vorrang_gateway::{Config, ConfigError, Loaded};

pub(crate) const MODEL: &str =
    "model_list:\n- model_name: m\n  litellm_params: {model: gpt, mock_response: hi, rpm: 3}\n";

pub(crate) type Variables<'a> = &'a [(&'a str, &'a str)];

pub(crate) fn env(variables: Variables) -> BTreeMap<String, String> {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    variables.iter().map(owned).collect()
}

pub(crate) fn load(rest: &str, variables: Variables) -> Result<Loaded, ConfigError> {
    Config::parse(&format!("{MODEL}{rest}\n"), "c.yaml", &env(variables))
}

/// The error, which has to name the path and contain each of these words.
pub(crate) fn refused(rest: &str, variables: Variables, words: &[&str]) {
    let error = match load(rest, variables) {
        Err(error) => error.to_string(),
        Ok(loaded) => panic!("{rest} {variables:?} is taken: {}", loaded.config.plan()),
    };
    for word in words {
        assert!(error.contains(word), "{rest}: {word} in {error}");
    }
    assert!(!error.contains("hunter2"), "{error}");
}

fn url(rest: &str, variables: &[(&str, &str)]) -> String {
    let config = load(rest, variables).unwrap().config;
    config.redis.unwrap().url.expose_secret().to_owned()
}

#[test]
fn redis_tls_follows_settings_then_environment() {
    for (settings, variables) in [
        ("redis_host: h, redis_ssl: true", &[][..]),
        ("redis_host: h, ssl: 'True'", &[]),
        ("redis_host: h, cache_kwargs: {ssl: true}", &[]),
        ("redis_host: h", &[("REDIS_SSL", "True")]),
        ("redis_host: h, ssl: os.environ/TLS", &[("TLS", "1")]),
    ] {
        let rest = format!("router_settings: {{{settings}}}");
        assert_eq!(url(&rest, variables), "rediss://h:6379/0", "{settings}");
    }
    for (settings, variables) in [
        ("redis_host: h", &[][..]),
        ("redis_host: h", &[("REDIS_SSL", "")]),
        ("redis_host: h", &[("REDIS_SSL", "false")]),
        ("redis_host: h, ssl: false", &[("REDIS_SSL", "true")]),
    ] {
        let rest = format!("router_settings: {{{settings}}}");
        assert_eq!(url(&rest, variables), "redis://h:6379/0", "{settings}");
    }
}

#[test]
fn plain_redis_url_is_refused_when_tls_is_configured() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let ca = format!("redis_ssl_ca_certs: '{}'", file.path().display());
    for (settings, variables) in [
        ("ssl: true", &[][..]),
        ("redis_ssl: true", &[]),
        ("cache_kwargs: {ssl: true}", &[]),
        ("num_retries: 1", &[("REDIS_SSL", "yes")]),
        (ca.as_str(), &[]),
    ] {
        for rest in [
            format!("router_settings: {{redis_url: 'redis://:hunter2@h', {settings}}}"),
            format!(
                "router_settings: {{{settings}}}\nvorrang_settings: {{redis_url: 'redis://h'}}"
            ),
        ] {
            refused(&rest, variables, &["asks for TLS", "rediss://"]);
        }
        let rest = format!("router_settings: {{redis_url: 'redis+unix:///s', {settings}}}");
        refused(&rest, variables, &["asks for TLS", "unix socket"]);
        for url in [
            "redis+sentinel://:hunter2@h/s",
            "redis+cluster://:hunter2@h",
        ] {
            let rest = format!("router_settings: {{redis_url: '{url}', {settings}}}");
            refused(&rest, variables, &["asks for TLS", "rediss+"]);
        }
    }
    let rest = "router_settings: {redis_host: h}";
    refused(
        rest,
        &[("REDIS_SSL", "maybe")],
        &["REDIS_SSL", "true or false"],
    );
    for url in [
        "rediss://h/#insecure",
        "rediss://h/?ssl_cert_reqs=none",
        "redis://h/?db=3",
    ] {
        let rest = format!("router_settings: {{redis_url: '{url}'}}");
        refused(&rest, &[], &["router_settings.redis_url", "expected"]);
    }
}

#[test]
fn invalid_redis_certificates_and_unsupported_tls_settings_are_refused() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"no certificate").unwrap();
    let path = file.path().display().to_string();
    let tls = |more: &str| format!("router_settings: {{redis_url: 'rediss://h', {more}}}");
    for key in [
        "redis_ssl_ca_certs",
        "ssl_ca_certs",
        "redis_ssl_certfile",
        "ssl_certfile",
    ] {
        let there = tls(&format!("{key}: '{path}'"));
        refused(&there, &[], &[key, "PEM"]);
        let absent = tls(&format!("{key}: '{path}.not'"));
        refused(&absent, &[], &[key, "cannot be read"]);
    }
    let rest = tls("num_retries: 1");
    refused(
        &rest,
        &[("REDIS_SSL_CA_CERTS", &path)],
        &["REDIS_SSL_CA_CERTS", "PEM"],
    );
    let rest = tls(&format!("redis_ssl_keyfile: '{path}'"));
    refused(&rest, &[], &["redis_ssl_keyfile", "ssl_certfile"]);
    let rest =
        format!("vorrang_settings: {{redis_url: 'rediss://h', redis_ssl_ca_certs: '{path}'}}");
    refused(&rest, &[], &["vorrang_settings.redis_ssl_ca_certs", "PEM"]);
    for (more, variables) in [
        ("ssl_min_version: TLSv1.3", &[][..]),
        ("cache_kwargs: {ssl_ciphers: x}", &[]),
        ("redis_ssl_validate_ocsp: true", &[]),
        ("num_retries: 1", &[("REDIS_SSL_CA_PATH", "/etc")]),
    ] {
        refused(&tls(more), variables, &["is not supported"]);
    }
    for more in ["ssl_cert_reqs: none", "redis_ssl_check_hostname: false"] {
        let warnings = load(&tls(more), &[]).unwrap().warnings();
        assert!(warnings[0].contains("always verified"), "{warnings:?}");
    }
    assert!(
        load(&tls("ssl_cert_reqs: required"), &[])
            .unwrap()
            .warnings()
            .is_empty()
    );
    let rest = "router_settings: {redis_host: h, cache_kwargs: {aws_iam_auth: true}}";
    refused(rest, &[], &["aws_iam_auth", "redis_password"]);
}

#[test]
fn unsupported_access_rules_are_refused() {
    for (section, key, value, instead) in [
        (
            "general_settings",
            "custom_auth",
            "my.auth",
            "vorrang_settings.keys",
        ),
        ("general_settings", "allowed_ips", "[10.0.0.1]", "firewall"),
        (
            "general_settings",
            "enable_jwt_auth",
            "true",
            "vorrang_settings.keys",
        ),
        (
            "general_settings",
            "enable_jwt_auth",
            "os.environ/ON",
            "vorrang_settings.keys",
        ),
        (
            "general_settings",
            "enable_oauth2_auth",
            "on",
            "vorrang_settings.keys",
        ),
        (
            "general_settings",
            "litellm_jwtauth",
            "{a: b}",
            "vorrang_settings.keys",
        ),
        ("general_settings", "allowed_routes", "[/chat]", "models"),
        (
            "general_settings",
            "reject_clientside_metadata_tags",
            "true",
            "checked",
        ),
        (
            "general_settings",
            "key_management_system",
            "aws_kms",
            "environment",
        ),
        (
            "general_settings",
            "max_in_flight_requests_per_worker",
            "5",
            "max_parallel_requests",
        ),
        (
            "general_settings",
            "max_response_size_mb",
            "1",
            "max_tokens",
        ),
        (
            "litellm_settings",
            "guardrails",
            "[{a: b}]",
            "pass as they are",
        ),
        (
            "litellm_settings",
            "callbacks",
            "[prometheus, presidio]",
            "presidio",
        ),
        (
            "litellm_settings",
            "callbacks",
            "hide_secrets",
            "hide_secrets",
        ),
        (
            "litellm_settings",
            "banned_keywords_list",
            "[x]",
            "pass as they are",
        ),
        (
            "router_settings",
            "enable_tag_filtering",
            "true",
            "model_name",
        ),
    ] {
        let rest = format!("{section}:\n  {key}: {value}");
        let place = format!("c.yaml:5: {section}.{key}:");
        refused(&rest, &[("ON", "1")], &[&place, instead]);
    }
    refused(
        "guardrails: [{guardrail_name: pii}]",
        &[],
        &["c.yaml:4: guardrails:"],
    );
}

#[test]
fn disabled_access_rules_are_accepted() {
    for rest in [
        "custom_auth: null",
        "allowed_ips: []",
        "enable_jwt_auth: false",
        "enable_oauth2_auth: os.environ/OFF",
        "litellm_jwtauth: {}",
    ] {
        let loaded = load(
            &format!("general_settings: {{{rest}}}"),
            &[("OFF", "False")],
        );
        assert_eq!(loaded.unwrap().warnings(), Vec::<String>::new(), "{rest}");
    }
}

#[test]
fn max_body_bytes_overrides_litellms_max_request_size_mb() {
    let bytes = |rest: &str| load(rest, &[]).unwrap().config.max_body_bytes;
    assert_eq!(
        bytes("general_settings: {max_request_size_mb: 0.5}"),
        524_288
    );
    let both = "general_settings: {max_request_size_mb: 2}\nvorrang_settings: {max_body_bytes: 7}";
    assert_eq!(bytes(both), 7);
}

#[test]
fn limited_deployment_in_several_groups_is_refused() {
    let list = |first: &str, second: &str, ids: [&str; 2]| {
        let entry = |name: &str, limit: &str, id: &str| {
            format!(
                "- model_name: {name}\n  litellm_params: {{model: gpt, mock_response: hi{limit}}}\n  model_info: {{id: {id}}}\n"
            )
        };
        let text = format!(
            "model_list:\n{}{}{}",
            entry("a", first, ids[0]),
            entry("b", "", "other"),
            entry("c", second, ids[1])
        );
        Config::parse(&text, "c.yaml", &BTreeMap::new())
    };
    for limit in [
        ", rpm: 3",
        ", tpm: 3",
        ", itpm: 3",
        ", otpm: 3",
        ", max_parallel_requests: 3",
    ] {
        for (first, second) in [(limit, ""), ("", limit), (limit, limit)] {
            let error = list(first, second, ["one", "one"]).unwrap_err().to_string();
            assert!(
                error.contains(
                    "c.yaml:8: model_list[2].model_info.id: a deployment of a has the same id"
                ),
                "{error}"
            );
            assert!(error.contains("model_group_alias"), "{error}");
        }
        assert!(list(limit, limit, ["one", "two"]).is_ok());
    }
    assert!(list("", "", ["one", "one"]).is_ok());
}

#[test]
fn number_like_text_is_kept_as_written() {
    for written in [
        "5e123456789012345678",
        "0123456",
        "0x1F",
        "0o17",
        "12345678901234567890123456789012345678901234567890",
        "-170141183460469231731687303715884105729",
        "1_000_000_1",
        "1.50",
        "12:30:45",
        ".inf",
        "+7",
    ] {
        for rest in [
            format!("general_settings: {{master_key: {written} }} # not this"),
            format!("general_settings:\n  master_key: {written}   # not this"),
            format!("x: &key {written}\ngeneral_settings: {{master_key: *key}}"),
        ] {
            let config = match load(&rest, &[]) {
                Ok(loaded) => loaded.config,
                Err(error) => panic!("{written}: {error}"),
            };
            let key = config.master_key.unwrap();
            assert_eq!(key.expose_secret(), written, "{rest}");
        }
    }
}

#[test]
fn duplicate_upstream_credentials_are_refused() {
    let with = |base: &str, key: &str| {
        let text = format!(
            "model_list:\n- model_name: m\n  litellm_params: {{model: openai/gpt, api_base: '{base}'{key}}}\n"
        );
        Config::parse(&text, "c.yaml", &BTreeMap::new())
    };
    for base in ["https://u:hunter2@h/v1", "https://hunter2@h/v1"] {
        let error = with(base, ", api_key: hunter2").unwrap_err().to_string();
        assert!(
            error.contains("litellm_params.api_base: expected the credentials once"),
            "{error}"
        );
        assert!(!error.contains("hunter2"), "{error}");
        assert!(with(base, "").is_ok());
    }
}

#[test]
fn yaml_error_contains_no_value() {
    for text in [
        "model_list: !!int hunter2",
        "a: {b: *hunter2}",
        "? [hunter2]\n: 1",
        "? 12345678901234567890123\n: [hunter2",
    ] {
        let error = Config::parse(text, "c.yaml", &BTreeMap::new())
            .unwrap_err()
            .to_string();
        assert!(
            !error.contains("hunter2") && !error.contains("123456789"),
            "{error}"
        );
    }
}

#[test]
fn require_auth_for_metrics_endpoint_makes_metrics_private() {
    let closed = "litellm_settings: {require_auth_for_metrics_endpoint: true}";
    let public = |rest: &str| load(rest, &[]).unwrap().config.exposure.public_metrics;
    let key = "general_settings: {master_key: sk-1}";
    assert!(!public(&format!("{closed}\n{key}")));
    assert!(public(&format!(
        "{closed}\n{key}\nvorrang_settings: {{public_metrics: true}}"
    )));
    refused(
        closed,
        &[],
        &[
            "require_auth_for_metrics_endpoint: true needs",
            "master_key",
        ],
    );
}
