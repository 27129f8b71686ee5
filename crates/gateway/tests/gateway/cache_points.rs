//! `cache_control_injection_points`: at deployments whose format has `cache_control`, and elsewhere.

use std::collections::HashMap;

use crate::support::*;
use serde_json::{Value, json};
use vorrang_gateway::{Call, Config, Endpoint};

const POINTS: &str = "cache_control_injection_points: [{location: message, role: system}, {location: message, index: -1}]";

fn entry(model: &str, base: &str, more: &str) -> String {
    format!(
        "model_list:\n- {{model_name: m, litellm_params: {{model: {model}, api_base: '{base}', api_key: k, num_retries: 0, {more}}}}}\n"
    )
}

fn chat_with(more: &str) -> Call {
    let body = format!(
        r#"{{"model":"m","max_tokens":9,"messages":[{{"role":"system","content":"s"}},{{"role":"user","content":"hi"}}]{more}}}"#
    );
    Call::new(Endpoint::ChatCompletions, body)
}

fn text(text: &str) -> Value {
    json!([{"type": "text", "text": text}])
}

fn ending(text: &str) -> Value {
    json!([{"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}])
}

async fn sent(upstream: &mut Upstream, file: &str, call: Call) -> Value {
    let (router, _) = router(file);
    drop(router.call(call).await);
    serde_json::from_slice(&upstream.next().await.body).unwrap()
}

#[tokio::test]
async fn prompts_for_claude_are_marked_in_chats_and_in_messages() {
    let mut upstream = Upstream::start([]).await;
    let file = entry("anthropic/up", &upstream.base, POINTS);
    let expected = json!({
        "model": "up", "max_tokens": 9, "system": ending("s"),
        "messages": [{"role": "user", "content": ending("hi")}],
    });
    assert_eq!(sent(&mut upstream, &file, chat_with("")).await, expected);
    let body =
        r#"{"model":"m","max_tokens":9,"system":"s","messages":[{"role":"user","content":"hi"}]}"#;
    let call = Call::new(Endpoint::Messages, body);
    assert_eq!(sent(&mut upstream, &file, call).await, expected);
}

#[tokio::test]
async fn points_of_the_request_replace_those_of_the_deployment() {
    let mut upstream = Upstream::start([]).await;
    let own = r#","cache_control_injection_points":[{"location":"message","index":0}]"#;
    for more in [POINTS, ""] {
        let file = entry("anthropic/up", &upstream.base, more);
        let body = sent(&mut upstream, &file, chat_with(own)).await;
        assert_eq!(body["system"], ending("s"));
        assert_eq!(body["messages"][0]["content"], text("hi"));
        assert!(
            body.get("cache_control_injection_points").is_none(),
            "{body}"
        );
    }
}

#[tokio::test]
async fn chats_with_cache_control_are_marked_and_others_are_not() {
    let mut upstream = Upstream::start([]).await;
    for (model, system, user) in [
        ("openrouter/anthropic/claude", ending("s"), ending("hi")),
        ("openai/gpt", json!("s"), json!("hi")),
    ] {
        let file = entry(model, &upstream.base, POINTS);
        let body = sent(&mut upstream, &file, chat_with("")).await;
        let messages =
            json!([{"role": "system", "content": system}, {"role": "user", "content": user}]);
        assert_eq!(body["messages"], messages, "{model}");
        assert_eq!(body.as_object().unwrap().len(), 3, "{body}");
    }
    let own = r#","cache_control_injection_points":[]"#;
    let file = entry("openai/gpt", &upstream.base, "");
    let body = sent(&mut upstream, &file, chat_with(own)).await;
    assert_eq!(body.as_object().unwrap().len(), 3, "{body}");
}

#[test]
fn points_that_mark_nothing_are_reported() {
    let env = HashMap::<String, String>::new();
    for (model, more, expected) in [
        ("anthropic/up", POINTS, None),
        ("openai/up", POINTS, Some("does nothing here")),
        (
            "anthropic/up",
            "cache_control_injection_points: [{location: message}]",
            Some("expected a list of mappings"),
        ),
        (
            "anthropic/up",
            "cache_control_injection_points: yes",
            Some("expected a list of mappings"),
        ),
    ] {
        let file = entry(model, "http://h", more);
        let loaded = Config::parse(&file, "config.yaml", &env).unwrap();
        let warnings = loaded.warnings().join("\n");
        match expected {
            None => assert_eq!(warnings, "", "{more}"),
            Some(text) => assert!(warnings.contains(text), "{more}: {warnings}"),
        }
    }
}
