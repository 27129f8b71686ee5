//! Where traces are sent: OpenTelemetry's variables, and LiteLLM's for its callback.

use std::{collections::BTreeMap, time::Duration};

use vorrang_gateway::{Config, Loaded};

const MODEL: &str =
    "model_list: [{model_name: m, litellm_params: {model: x, mock_response: hi}}]\n";
const OTEL: &str = "litellm_settings: {callbacks: [otel]}\n";

fn loaded(more: &str, env: &[(&str, &str)]) -> Loaded {
    let env: BTreeMap<String, String> = env
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    Config::parse(&format!("{MODEL}{more}"), "f.yaml", &env).unwrap()
}

fn endpoint(more: &str, env: &[(&str, &str)]) -> Option<String> {
    loaded(more, env)
        .config
        .traces
        .map(|traces| traces.endpoint)
}

#[test]
fn collector_comes_from_opentelemetrys_variables_or_litellms() {
    const GENERAL: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
    for (more, env, expected) in [
        ("", &[][..], None),
        ("", &[(GENERAL, "")], None),
        (
            "",
            &[(GENERAL, "http://c:4318")],
            Some("http://c:4318/v1/traces"),
        ),
        (
            "",
            &[(GENERAL, "https://c/otlp/")],
            Some("https://c/otlp/v1/traces"),
        ),
        (
            "",
            &[(GENERAL, "http://c/v1/traces")],
            Some("http://c/v1/traces"),
        ),
        // This one is the whole URL.
        (
            "",
            &[
                ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://t/x"),
                (GENERAL, "http://c"),
            ],
            Some("http://t/x"),
        ),
        // LiteLLM's own, with its callback only.
        ("", &[("OTEL_ENDPOINT", "http://l")], None),
        (
            OTEL,
            &[("OTEL_ENDPOINT", "http://l")],
            Some("http://l/v1/traces"),
        ),
        (
            "environment_variables: {OTEL_EXPORTER_OTLP_ENDPOINT: 'http://file'}\n",
            &[],
            Some("http://file/v1/traces"),
        ),
        (
            "",
            &[(GENERAL, "http://c"), ("OTEL_TRACES_EXPORTER", "none")],
            None,
        ),
        (
            "",
            &[(GENERAL, "http://c"), ("OTEL_SDK_DISABLED", "TRUE")],
            None,
        ),
    ] {
        assert_eq!(endpoint(more, env).as_deref(), expected, "{more} {env:?}");
    }
}

#[test]
fn trace_settings_are_read_and_their_secrets_are_not_shown() {
    let env = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://user:hidden@c:4318"),
        (
            "OTEL_EXPORTER_OTLP_HEADERS",
            "authorization=Bearer%20hidden, x-a = 1",
        ),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "2500"),
        ("OTEL_RESOURCE_ATTRIBUTES", "a=b,service.name=front"),
        ("OTEL_TRACES_SAMPLER", "traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "7"),
    ];
    let loaded = loaded("", &env);
    assert_eq!(loaded.warnings(), Vec::<String>::new());
    let traces = loaded.config.traces.as_ref().unwrap();
    assert_eq!(traces.headers["authorization"], "Bearer hidden");
    assert_eq!(traces.headers["x-a"], "1");
    assert_eq!(traces.timeout, Duration::from_millis(2500));
    assert_eq!(traces.service_name, "front");
    assert!(!traces.sampling.by_parent);
    assert_eq!(traces.sampling.per_million, 250_000);
    assert_eq!(traces.queue, 7);
    let plan = loaded.config.plan();
    assert!(
        plan.contains("traces: to http://c:4318/v1/*** as front"),
        "{plan}"
    );
    let report = Loaded::report(&Ok(loaded.clone()));
    for shown in [
        plan,
        report,
        format!("{traces:?}"),
        format!("{:?}", loaded.config),
    ] {
        assert!(!shown.contains("hidden"), "{shown}");
    }
}

#[test]
fn variables_that_cannot_be_read_are_said_and_do_not_stop_the_start() {
    let on = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c");
    for (variable, value, traced) in [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317", false),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", true),
        ("OTEL_EXPORTER_OTLP_HEADERS", "secret-without-a-name", true),
        ("OTEL_TRACES_SAMPLER", "sometimes", true),
        ("OTEL_BSP_SCHEDULE_DELAY", "soon", true),
    ] {
        let loaded = loaded("", &[on, (variable, value)]);
        assert_eq!(loaded.config.traces.is_some(), traced, "{variable}");
        let warnings = loaded.warnings();
        assert_eq!(warnings.len(), 1, "{variable}: {warnings:?}");
        assert!(warnings[0].contains(variable), "{warnings:?}");
        assert!(!warnings[0].contains(value), "{warnings:?}");
    }
}

#[test]
fn callback_otel_is_served_and_others_are_named() {
    let env = [
        ("OTEL_ENDPOINT", "http://l"),
        ("OTEL_HEADERS", "x-token=abc"),
    ];
    let both = "litellm_settings: {success_callback: [otel, langfuse]}\n";
    for (more, warned) in [
        (OTEL, 0),
        ("litellm_settings: {callbacks: otel}\n", 0),
        (both, 1),
    ] {
        let loaded = loaded(more, &env);
        assert_eq!(loaded.warnings().len(), warned, "{:?}", loaded.warnings());
        let traces = loaded.config.traces.unwrap();
        assert_eq!(traces.headers["x-token"], "abc");
    }
    // LiteLLM prints its spans then.
    let loaded = loaded(OTEL, &[]);
    assert!(loaded.config.traces.is_none());
    let warnings = loaded.warnings();
    assert!(
        warnings[0].contains("OTEL_EXPORTER_OTLP_ENDPOINT"),
        "{warnings:?}"
    );
}
