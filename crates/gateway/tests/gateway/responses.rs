//! Deployments that only have the Responses API: which these are, what is sent, what comes back, and how it fails.

use crate::support::*;
use http::StatusCode;
use serde_json::{Value, json};
use vorrang_gateway::{Call, Config, Endpoint};

/// One deployment `m` with a model, parameters and information.
fn deployment(base: &str, model: &str, params: &str, info: &str) -> String {
    format!(
        "model_list:\n- {{model_name: 'm', litellm_params: {{model: '{model}', api_base: '{base}', api_key: sk-secret, {params}}}, model_info: {{id: d0, {info}}}}}\n"
    )
}

fn codex(base: &str, params: &str) -> String {
    deployment(base, "openai/gpt-5-codex", params, "")
}

fn chat_call(rest: &str) -> Call {
    let body = format!(r#"{{"model":"m","messages":[{{"role":"user","content":"hi"}}]{rest}}}"#);
    Call::new(Endpoint::ChatCompletions, body)
}

fn message_call(rest: &str) -> Call {
    let body = format!(
        r#"{{"model":"m","max_tokens":100,"messages":[{{"role":"user","content":"hi"}}]{rest}}}"#
    );
    Call::new(Endpoint::Messages, body)
}

fn response(status: &str, error: &Value) -> Value {
    json!({
        "id": "resp_1", "object": "response", "created_at": 1, "status": status, "model": "up", "error": error,
        "output": [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "hello"}]}],
        "usage": {
            "input_tokens": 30, "input_tokens_details": {"cached_tokens": 20},
            "output_tokens": 70, "output_tokens_details": {"reasoning_tokens": 60}, "total_tokens": 100,
        },
    })
}

fn failed() -> Value {
    let error = json!({"code": "rate_limit_exceeded", "message": "slow down"});
    json!({"type": "response.failed", "response": response("failed", &error)})
}

fn completed() -> String {
    response("completed", &Value::Null).to_string()
}

/// A stream of events.
fn events(events: &[Value]) -> Reply {
    let event = |data: &Value| {
        let name = data["type"].as_str().unwrap();
        format!("event: {name}\ndata: {data}\n\n")
    };
    let stream: String = events.iter().map(event).collect();
    Reply::Typed("text/event-stream", stream.into())
}

fn stream() -> Vec<Value> {
    let piece = |text: &str| json!({"type": "response.output_text.delta", "output_index": 1, "content_index": 0, "delta": text});
    vec![
        json!({"type": "response.created", "response": {"id": "resp_1", "model": "up", "status": "in_progress", "error": null}}),
        piece("hel"),
        piece("lo"),
        json!({"type": "response.completed", "response": response("completed", &Value::Null)}),
    ]
}

const ONCE: &str = "router_settings: {num_retries: 0, disable_cooldowns: true}\n";

#[tokio::test]
async fn chat_is_called_by_the_responses_api_and_its_answer_translated_back() {
    let mut upstream = Upstream::start([ok(&completed())]).await;
    let defaults = "tpm: 1000, reasoning_effort: low";
    let (router, _) = router(&codex(&upstream.base, defaults));
    let fields = r#","max_tokens":50,"priority":1,"seed":3"#;
    let answer = router.call(chat_call(fields)).await.unwrap();
    let body: Value = serde_json::from_str(&text(answer.body).await.unwrap()).unwrap();
    assert_eq!(body["object"], "chat.completion");
    assert_eq!(body["choices"][0]["message"]["content"], "hello");
    assert_eq!(
        body["usage"]["completion_tokens_details"]["reasoning_tokens"],
        60
    );
    let seen = upstream.next().await;
    assert_eq!(seen.path, "/v1/responses");
    assert_eq!(seen.headers["authorization"], "Bearer sk-secret");
    let sent: Value = serde_json::from_slice(&seen.body).unwrap();
    assert_eq!(
        sent,
        json!({
            "model": "gpt-5-codex", "input": [{"type": "message", "role": "user", "content": "hi"}],
            "max_output_tokens": 50, "reasoning": {"effort": "low"}, "store": false,
        })
    );
    until(&router, |status| {
        status.deployments[0].tokens.total() == 100
    })
    .await;
}

#[tokio::test]
async fn streams_of_chats_and_messages_are_translated_and_metered() {
    let replies = [events(&stream()), events(&stream())];
    let upstream = Upstream::start(replies).await;
    let (router, _) = router(&codex(&upstream.base, "tpm: 100000"));
    let answer = router.call(chat_call(r#","stream":true"#)).await.unwrap();
    let chunks = text(answer.body).await.unwrap();
    assert!(chunks.contains(r#""content":"hel""#), "{chunks}");
    assert!(!chunks.contains("usage"), "{chunks}");
    assert!(chunks.ends_with("data: [DONE]\n\n"), "{chunks}");
    // The client does not see the usage, but it counts: thoughts are most of it.
    until(&router, |status| {
        status.deployments[0].tokens.total() == 100
    })
    .await;
    let answer = router.call(message_call(r#","stream":true"#)).await;
    let message = text(answer.unwrap().body).await.unwrap();
    assert!(message.starts_with("event: message_start\n"), "{message}");
    assert!(message.contains(r#""text":"hel""#), "{message}");
    assert!(
        message.contains(r#""cache_read_input_tokens":20"#),
        "{message}"
    );
    assert!(
        message.ends_with("data: {\"type\":\"message_stop\"}\n\n"),
        "{message}"
    );
    until(&router, |status| {
        status.deployments[0].tokens.total() == 200
    })
    .await;
}

#[tokio::test]
async fn requests_of_the_responses_api_pass_byte_by_byte() {
    let mut upstream = Upstream::start([ok(&completed())]).await;
    let (router, _) = router(&codex(&upstream.base, ""));
    let body = r#"{"model":"gpt-5-codex","input":"hi","stop":[ ]}"#;
    let call = Call::new(Endpoint::Responses, body.replace("gpt-5-codex", "m"));
    let answer = router.call(call).await.unwrap();
    assert_eq!(text(answer.body).await.unwrap(), completed());
    let seen = upstream.next().await;
    assert_eq!(
        (seen.path.as_str(), &seen.body[..]),
        ("/v1/responses", body.as_bytes())
    );
}

#[tokio::test]
async fn prefix_mode_and_name_say_which_chats_are_called_by_the_responses_api() {
    let mut upstream = Upstream::start([]).await;
    let root = upstream.base.trim_end_matches("/v1").to_owned();
    let versioned = "api_version: 2025-04-01-preview";
    for (model, params, info, path) in [
        ("openai/responses/mine", "", "", "/v1/responses"),
        ("openai/mine", "", "mode: responses", "/v1/responses"),
        ("hosted_vllm/mine", "", "mode: responses", "/v1/responses"),
        ("o1-pro", "", "", "/v1/responses"),
        (
            "openai/gpt-5-codex",
            "",
            "mode: chat",
            "/v1/chat/completions",
        ),
        (
            "openrouter/openai/gpt-5-codex",
            "",
            "",
            "/v1/chat/completions",
        ),
        ("azure/responses/mine", "", "", "/openai/v1/responses"),
        ("azure/responses/mine", versioned, "", "/openai/responses"),
        (
            "azure/mine",
            "",
            "base_model: azure/gpt-5-codex",
            "/openai/v1/responses",
        ),
        (
            "azure/mine",
            "",
            "",
            "/openai/deployments/mine/chat/completions",
        ),
    ] {
        let azure = model.starts_with("azure");
        let base = if azure { &root } else { &upstream.base };
        let (router, _) = router(&format!("{}{ONCE}", deployment(base, model, params, info)));
        upstream.then(ok(&completed()));
        router.call(chat_call("")).await.unwrap();
        let seen = upstream.next().await;
        assert_eq!(seen.path, path, "{model} {params} {info}");
        let sent: Value = serde_json::from_slice(&seen.body).unwrap();
        let name = model.trim_start_matches("openrouter/");
        let name = name.rsplit_once('/').map_or(name, |(_, name)| name);
        if path.ends_with("/responses") {
            assert_eq!(sent["model"], name);
        }
        let query = (params == versioned).then_some("api-version=2025-04-01-preview");
        if path.ends_with("/responses") {
            assert_eq!(seen.query.as_deref(), query);
        }
    }
}

#[tokio::test]
async fn names_that_a_wildcard_stands_for_say_how_their_chats_are_called() {
    let mut upstream = Upstream::start([]).await;
    let entry =
        deployment(&upstream.base, "openai/gpt-*", "", "").replace("name: 'm'", "name: 'gpt-*'");
    let (router, _) = router(&format!("{entry}{ONCE}"));
    for (model, reply, path) in [
        ("gpt-5-codex", completed(), "/v1/responses"),
        ("gpt-4o", "{}".into(), "/v1/chat/completions"),
    ] {
        upstream.then(ok(&reply));
        let body = json!({"model": model, "messages": [{"role": "user", "content": "hi"}]});
        let call = Call::new(Endpoint::ChatCompletions, body.to_string());
        router.call(call).await.unwrap();
        assert_eq!(upstream.next().await.path, path);
    }
}

#[test]
fn such_deployments_are_no_loss_and_the_plan_names_them() {
    let text = deployment(
        "https://r.openai.azure.com",
        "azure/responses/gpt-5.3-codex",
        "",
        "",
    );
    let env = std::collections::HashMap::<String, String>::new();
    let loaded = Config::parse(&text, "config.yaml", &env).unwrap();
    assert_eq!(loaded.warnings(), Vec::<String>::new());
    let plan = loaded.config.plan();
    assert!(plan.contains("chats by the Responses API"), "{plan}");
}

#[tokio::test]
async fn endpoints_without_a_counterpart_are_a_400() {
    let upstream = Upstream::start([]).await;
    let (router, _) = router(&codex(&upstream.base, ""));
    let call = Call::new(Endpoint::Completions, r#"{"model":"m","prompt":"hi"}"#);
    let error = router.call(call).await.unwrap_err();
    assert_eq!(error.status(), StatusCode::BAD_REQUEST);
    let error = router.call(chat_call(r#","n":2"#)).await.unwrap_err();
    assert_eq!(
        (error.status(), error.param()),
        (StatusCode::BAD_REQUEST, Some("n"))
    );
    assert_eq!(upstream.pending(), 0);
}

#[tokio::test]
async fn failed_response_is_an_error_with_the_status_of_its_code() {
    let upstream = Upstream::start([]).await;
    let (router, _) = router(&format!("{}{ONCE}", codex(&upstream.base, "")));
    for reply in [
        || ok(&failed()["response"].to_string()),
        || events(&[failed()]),
        || {
            events(&[json!({
                "type": "error", "code": "rate_limit_exceeded", "message": "slow down", "param": null,
            })])
        },
        || {
            error(
                429,
                r#"{"error":{"message":"slow down","type":"requests"}}"#,
            )
        },
    ] {
        for call in [chat_call(r#","stream":true"#), message_call("")] {
            upstream.then(reply());
            let error = router.call(call).await.unwrap_err();
            assert_eq!(error.status(), StatusCode::TOO_MANY_REQUESTS);
            let body = String::from_utf8(error.body().to_vec()).unwrap();
            assert!(body.contains("slow down"), "{body}");
        }
    }
}

#[tokio::test]
async fn failure_before_the_first_event_is_made_again_and_after_it_ends_the_stream() {
    let replies = [events(&[failed()]), events(&stream())];
    let upstream = Upstream::start(replies).await;
    let settings = "router_settings: {num_retries: 1, retry_after: 0, disable_cooldowns: true}\n";
    let (repeating, _) = router(&format!("{}{settings}", codex(&upstream.base, "")));
    let answer = repeating.call(chat_call(r#","stream":true"#)).await;
    let chunks = text(answer.unwrap().body).await.unwrap();
    assert!(chunks.ends_with("data: [DONE]\n\n"), "{chunks}");

    let mut late = stream()[..2].to_vec();
    late.push(failed());
    // One failure cools it: it is counted in streams of both formats.
    let cooling = "router_settings: {num_retries: 0, allowed_fails: 0, cooldown_time: 60}\n";
    for call in [
        chat_call(r#","stream":true"#),
        Call::new(
            Endpoint::Responses,
            r#"{"model":"m","input":"hi","stream":true}"#,
        ),
    ] {
        let upstream = Upstream::start([events(&late)]).await;
        let (router, _) = router(&format!("{}{cooling}", codex(&upstream.base, "")));
        let answer = router.call(call).await.unwrap();
        let stream = text(answer.body).await.unwrap();
        assert!(
            stream.contains("slow down") && !stream.contains("[DONE]"),
            "{stream}"
        );
        until(&router, |status| status.deployments[0].cooling.is_some()).await;
    }
}

#[tokio::test]
async fn stream_that_breaks_off_breaks_the_answer() {
    for call in [
        chat_call(r#","stream":true"#),
        message_call(r#","stream":true"#),
    ] {
        let upstream = Upstream::start([events(&stream()[..3])]).await;
        let (router, _) = router(&codex(&upstream.base, ""));
        let answer = router.call(call).await.unwrap();
        assert!(text(answer.body).await.is_err());
    }
}

#[tokio::test]
async fn answer_that_is_no_response_is_a_502() {
    for body in [r#"{"answer":42}"#, r#"{"output":[],"status":"queued"}"#] {
        let upstream = Upstream::start([ok(body)]).await;
        let (router, _) = router(&format!("{}{ONCE}", codex(&upstream.base, "")));
        let error = router.call(chat_call("")).await.unwrap_err();
        assert_eq!(error.status(), StatusCode::BAD_GATEWAY, "{body}");
    }
}
