//! Limits over windows of several lengths: how the file names them, and how they hold together.

use std::{collections::HashMap, time::Duration};

use crate::support::*;
use tokio::time::Instant;
use vorrang_gateway::{Config, Loaded};
use vorrang_scheduler::LimitKind;

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

fn load(text: &str) -> Loaded {
    Config::parse(text, "config.yaml", &HashMap::<String, String>::new()).unwrap()
}

fn error(text: &str) -> String {
    let loaded = Config::parse(text, "config.yaml", &HashMap::<String, String>::new());
    loaded.unwrap_err().to_string()
}

#[test]
fn limits_accept_windows_of_any_length() {
    let text = mock(
        "rpm: 10, tpm: 1000, rps: 2, rpd: 500, tpd: 20000, limits: [{kind: output_tokens, limit: 7, seconds: 1.5}, {kind: requests, limit: 90, seconds: 3600}, {kind: concurrency, limit: 3}]",
        "",
    );
    let loaded = load(&text);
    let (warnings, config) = (loaded.warnings(), loaded.config);
    assert!(warnings.is_empty(), "{warnings:?}");
    let deployment = &config.group_config(&config.groups[0]).deployments[0];
    let limits = deployment.limits.iter();
    let limits: Vec<_> = limits.map(|of| (of.kind, of.limit, of.length)).collect();
    assert_eq!(
        limits,
        [
            (LimitKind::Requests, 10, MINUTE),
            (LimitKind::Tokens, 1000, MINUTE),
            (LimitKind::Requests, 2, Duration::from_secs(1)),
            (LimitKind::Requests, 500, DAY),
            (LimitKind::Tokens, 20_000, DAY),
            (LimitKind::OutputTokens, 7, Duration::from_millis(1500)),
            (LimitKind::Requests, 90, 60 * MINUTE),
            (LimitKind::Concurrency, 3, Duration::ZERO),
        ]
    );
    let shown = "rpm 10, tpm 1000, rps 2, rpd 500, tpd 20000, 7 output tokens in 1.5s, 90 requests in 3600s, 3 open calls";
    assert!(config.plan().contains(shown), "{}", config.plan());
}

#[test]
fn window_seconds_applies_to_limits_by_the_minute_only() {
    let settings = "vorrang_settings: {window_seconds: 5}";
    let config = load(&mock("rpm: 10, rpd: 50", settings)).config;
    let deployment = &config.group_config(&config.groups[0]).deployments[0];
    let lengths = deployment.limits.iter().map(|limit| limit.length);
    assert!(lengths.eq([Duration::from_secs(5), DAY]));
}

#[test]
fn limit_errors_name_key_and_expectation() {
    let kinds = "expected one of requests, tokens, input_tokens, output_tokens, concurrency";
    let seconds = "expected a number of seconds from 1 to 2678400 (31 days)";
    let limit = "expected a whole number of at least 1";
    let one_of_them = |name, other| {
        format!(": {name} has the kind and the window of {other}; expected one of them")
    };
    for (params, expected) in [
        ("limits: 5", ": expected a list, found a number".to_owned()),
        (
            "limits: [5]",
            "[0]: expected a mapping (`key: value`), found a number".into(),
        ),
        (
            "limits: [{limit: 5, seconds: 60}]",
            "[0].kind: is missing; expected a text".into(),
        ),
        (
            "limits: [{kind: sk-secret, limit: 5, seconds: 60}]",
            format!("[0].kind: {kinds}"),
        ),
        (
            "limits: [{kind: requests, seconds: 60}]",
            format!("[0].limit: is missing; {limit}"),
        ),
        (
            "limits: [{kind: requests, limit: 0, seconds: 60}]",
            format!("[0].limit: {limit}"),
        ),
        (
            "limits: [{kind: requests, limit: -1, seconds: 60}]",
            format!("[0].limit: {limit}"),
        ),
        (
            "limits: [{kind: requests, limit: 1.5, seconds: 60}]",
            format!("[0].limit: {limit}"),
        ),
        (
            "limits: [{kind: requests, limit: many, seconds: 60}]",
            format!("[0].limit: {limit}, found a text"),
        ),
        (
            "limits: [{kind: requests, limit: 5}]",
            format!("[0].seconds: is missing; {seconds}"),
        ),
        (
            "limits: [{kind: requests, limit: 5, seconds: 0}]",
            format!("[0].seconds: {seconds}"),
        ),
        (
            "limits: [{kind: requests, limit: 5, seconds: -60}]",
            format!("[0].seconds: {seconds}"),
        ),
        (
            "limits: [{kind: requests, limit: 5, seconds: 2678401}]",
            format!("[0].seconds: {seconds}"),
        ),
        (
            "limits: [{kind: requests, limit: 5, seconds: .inf}]",
            format!("[0].seconds: {seconds}, found a number"),
        ),
        (
            "limits: [{kind: requests, limit: 5, seconds: hour}]",
            format!("[0].seconds: {seconds}, found a text"),
        ),
        (
            "limits: [{kind: concurrency, limit: 5, seconds: 60}]",
            "[0].seconds: open calls have no window; expected no seconds beside concurrency".into(),
        ),
        (
            "limits: [{kind: requests, limit: 5, seconds: 60, per: day}]",
            "[0].per: unknown setting; expected one of kind, limit, seconds".into(),
        ),
        (
            "rpm: 5, limits: [{kind: requests, limit: 5, seconds: 60}]",
            one_of_them("limits[0]", "rpm"),
        ),
        (
            "max_parallel_requests: 5, limits: [{kind: concurrency, limit: 6}]",
            one_of_them("limits[0]", "max_parallel_requests"),
        ),
        (
            "limits: [{kind: tokens, limit: 5, seconds: 9}, {kind: tokens, limit: 6, seconds: 9}]",
            one_of_them("limits[1]", "limits[0]"),
        ),
    ] {
        let expected = format!("config.yaml:2: model_list[0].litellm_params.limits{expected}");
        assert_eq!(error(&mock(params, "")), expected, "{params}");
    }
    for name in ["rps", "rpd", "tpd"] {
        let expected = format!("config.yaml:2: model_list[0].litellm_params.{name}: {limit}");
        assert_eq!(error(&mock(&format!("{name}: 0"), "")), expected);
    }
}

#[test]
fn ineffective_limit_and_window_of_very_many_calls_are_warned_about() {
    let place = "config.yaml:2: model_list[0].litellm_params.";
    let never = |name, other| {
        format!("{place}{name} never holds: {other} allows no more in a longer window")
    };
    for (params, expected) in [
        ("rpm: 60, rpd: 50", vec![never("rpm: rpm", "rpd")]),
        (
            "tpm: 60, limits: [{kind: tokens, limit: 70, seconds: 5}]",
            vec![never("limits: limits[0]", "tpm")],
        ),
        ("rpm: 60, tpd: 50", vec![]),
        ("rpm: 69, rpd: 100000", vec![]),
        (
            "rpm: 70, rpd: 100001",
            vec![format!(
                "{place}rpd: up to 100001 calls count in this window, and each of them is kept until it leaves: about 25 MB for 100000 of them in Redis, \
                 and 5 s of standstill after a loss of its data"
            )],
        ),
    ] {
        assert_eq!(load(&mock(params, "")).warnings(), expected, "{params}");
    }
}

#[test]
fn when_redis_is_away_share_warns_about_long_windows_beside_short_ones() {
    let share = "vorrang_settings: {when_redis_is_away: share}";
    for (params, settings, warned) in [
        ("rpm: 5, rpd: 50", share, true),
        ("rpm: 5, rpd: 50", "", false),
        ("rpd: 50", share, false),
        ("rpm: 5, rps: 1", share, false),
    ] {
        let warnings = load(&mock(params, settings)).warnings();
        let expected = "config.yaml:3: vorrang_settings.when_redis_is_away: share: a deployment has a long window beside a short one";
        let found = warnings.iter().any(|warning| warning.starts_with(expected));
        assert_eq!(
            (found, warnings.len()),
            (warned, usize::from(warned)),
            "{params}"
        );
    }
}

/// LiteLLM's simple-shuffle goes by `rpm`.
#[test]
fn windows_of_other_lengths_do_not_change_routing_weights() {
    let weights = |params: [&str; 3]| {
        let entry = |params| {
            format!(
                "- {{model_name: m, litellm_params: {{model: up, mock_response: hi, {params}}}}}\n"
            )
        };
        let config = load(&format!("model_list:\n{}", params.map(entry).concat())).config;
        let deployments = config.group_config(&config.groups[0]).deployments;
        deployments
            .into_iter()
            .map(|one| one.weight)
            .collect::<Vec<_>>()
    };
    let few = "limits: [{kind: requests, limit: 2, seconds: 600}]";
    let by_minute = [Some(30.0), Some(60.0), None];
    assert_eq!(
        weights(["rpm: 30, rpd: 40", "rpm: 60", "rpd: 5"]),
        by_minute
    );
    assert_eq!(
        weights(["tpm: 30, rpd: 40", "tpm: 60, rps: 1", few]),
        by_minute
    );
    assert_eq!(
        weights(["weight: 30, rpm: 9", "weight: 60", few]),
        by_minute
    );
    assert_eq!(
        weights(["rpd: 30", "rpd: 60", few]),
        [None; 3],
        "the scheduler's own, by their rates"
    );
}

/// Two in a minute and three in ten.
#[tokio::test(start_paused = true)]
async fn call_waits_for_room_in_each_of_its_windows() {
    let limits = "rpm: 2, limits: [{kind: requests, limit: 3, seconds: 600}]";
    let (router, _) = router(&mock(limits, "router_settings: {timeout: 6000}"));
    let started = Instant::now();
    let mut granted = Vec::new();
    for _ in 0..5 {
        router.call(chat("")).await.unwrap();
        granted.push(started.elapsed());
    }
    // A window and its guard.
    let (minute, ten) = (
        Duration::from_millis(60_100),
        Duration::from_millis(600_100),
    );
    let due = [Duration::ZERO, Duration::ZERO, minute, ten, ten];
    for (granted, due) in granted.iter().zip(due) {
        let late = Duration::from_millis(100);
        assert!(
            (due..due + late).contains(granted),
            "{granted:?}, due {due:?}"
        );
    }
    let late = router.call(chat(r#","timeout":5"#)).await.unwrap_err();
    let message = late.problem.to_string();
    assert!(
        message.contains("waits for room for requests (rpm, limits)"),
        "{message}"
    );
}

/// What all windows together let through is reserved: a guess that is too large for one of them is cut.
#[tokio::test(start_paused = true)]
async fn request_above_its_smallest_window_of_tokens_is_refused() {
    let (router, _) = router(&mock("tpm: 1000, tpd: 500", ""));
    router.call(chat(r#","max_tokens":500"#)).await.unwrap();
    let refused = router.call(chat(r#","max_tokens":501"#)).await.unwrap_err();
    let message = refused.problem.to_string();
    assert!(
        message.contains("takes more than 500 in a window"),
        "{message}"
    );
}
