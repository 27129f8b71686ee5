//! Anthropic's endpoints at upstreams that speak its format: what passes, what it costs, and how it fails.

use crate::support::*;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::Value;
use vorrang_gateway::{Call, Endpoint};

/// One deployment `m` at a server that speaks Anthropic's format.
fn claude(base: &str, params: &str) -> String {
    format!(
        "model_list:\n- {{model_name: m, litellm_params: {{model: anthropic/up, api_base: '{base}', api_key: sk-secret, {params}}}, model_info: {{id: d0}}}}\n"
    )
}

fn message(rest: &str) -> Call {
    let body = format!(
        r#"{{"model":"m","max_tokens":100,"messages":[{{"role":"user","content":"hi"}}]{rest}}}"#
    );
    Call::new(Endpoint::Messages, body)
}

const ANSWER: &str = r#"{"id":"msg_1","type":"message","role":"assistant","model":"up","content":[{"type":"text","text":"hello"}],"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":10,"cache_creation_input_tokens":5,"cache_read_input_tokens":20,"output_tokens":7}}"#;

#[tokio::test]
async fn message_passes_to_an_anthropic_server_with_its_key_and_version() {
    let mut upstream = Upstream::start([ok(ANSWER), ok(ANSWER)]).await;
    let (router, _) = router(&claude(
        &upstream.base,
        "top_k: 5, reasoning_effort: low, extra_headers: {anthropic-beta: of-file}",
    ));
    let fields = r#","system":[{"type":"text","text":"be brief"}],"temperature":1.00,"priority":2"#;
    let mut call = message(fields);
    let answer = router.call(call.clone()).await.unwrap();
    assert_eq!(answer.info.priority, 2);
    assert_eq!(text(answer.body).await.unwrap(), ANSWER);
    let seen = upstream.next().await;
    assert_eq!(seen.path, "/v1/messages");
    assert_eq!(seen.headers["x-api-key"], "sk-secret");
    assert_eq!(seen.headers["anthropic-version"], "2023-06-01");
    assert!(!seen.headers.contains_key("authorization"));
    // A default that Anthropic does not know by this name stays behind.
    assert_eq!(
        seen.body,
        r#"{"model":"up","max_tokens":100,"messages":[{"role":"user","content":"hi"}],"system":[{"type":"text","text":"be brief"}],"temperature":1.00,"top_k":5}"#
    );
    let mut headers = HeaderMap::new();
    headers.insert("anthropic-version", HeaderValue::from_static("2024-01-01"));
    headers.insert("anthropic-beta", HeaderValue::from_static("of-client"));
    headers.insert("x-api-key", HeaderValue::from_static("sk-client"));
    call.take_headers(&headers);
    router.call(call).await.unwrap();
    let seen = upstream.next().await;
    assert_eq!(seen.headers["anthropic-version"], "2024-01-01");
    let betas: Vec<_> = seen.headers.get_all("anthropic-beta").iter().collect();
    assert_eq!(betas, ["of-client", "of-file"]);
    assert_eq!(seen.headers["x-api-key"], "sk-secret");
}

#[tokio::test]
async fn message_reserves_max_tokens_and_its_usage_with_cached_input_corrects_it() {
    let upstream = Upstream::start([ok(ANSWER)]).await;
    let (router, _) = router(&claude(&upstream.base, "tpm: 1000"));
    let answer = router.call(message("")).await.unwrap();
    assert_eq!(text(answer.body).await.unwrap(), ANSWER);
    until(&router, |status| status.deployments[0].tokens.total() == 42).await;
    let never = r#"{"model":"m","max_tokens":1001,"messages":[]}"#;
    let error = router.call(Call::new(Endpoint::Messages, never)).await;
    assert_eq!(error.unwrap_err().status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn stream_of_messages_passes_and_its_events_are_metered() {
    let events = [
        r#"{"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","model":"up","content":[],"stop_reason":null,"usage":{"input_tokens":10,"cache_read_input_tokens":20,"output_tokens":1}}}"#,
        r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"hello"}}"#,
        r#"{"type":"content_block_stop","index":0}"#,
        r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":7}}"#,
        r#"{"type":"message_stop"}"#,
    ];
    let stream: String = events
        .iter()
        .map(|data| {
            let value: Value = serde_json::from_str(data).unwrap();
            format!(
                "event: {}\ndata: {data}\n\n",
                value["type"].as_str().unwrap()
            )
        })
        .collect();
    let reply = Reply::Typed("text/event-stream", stream.clone().into());
    let upstream = Upstream::start([reply]).await;
    let (router, _) = router(&claude(&upstream.base, "tpm: 1000"));
    let answer = router.call(message(r#","stream":true"#)).await.unwrap();
    assert_eq!(text(answer.body).await.unwrap(), stream);
    until(&router, |status| status.deployments[0].tokens.total() == 37).await;
}

#[tokio::test]
async fn errors_of_messages_have_anthropics_shape_and_the_upstreams_own_pass() {
    let native = r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"},"request_id":"req_1"}"#;
    let in_stream = format!("event: error\ndata: {native}\n\n");
    let upstream = Upstream::start([
        error(529, native),
        error(401, r#"{"error":"no such key: sk-secret"}"#),
        Reply::Typed("text/event-stream", in_stream.into()),
    ])
    .await;
    let text = claude(&upstream.base, "num_retries: 0");
    let (router, _) = router(&format!(
        "{text}router_settings: {{disable_cooldowns: true}}
"
    ));
    let failed = |call: Call| async {
        let error = router.call(call).await.unwrap_err();
        let body: Value = serde_json::from_slice(&error.body()).unwrap();
        assert_eq!(body["type"], "error", "{body}");
        (error.status().as_u16(), body)
    };
    let (status, body) = failed(message("")).await;
    assert_eq!((status, body.to_string()), (529, native.to_owned()));
    let (status, body) = failed(message("")).await;
    assert_eq!(
        (status, &body["error"]["type"]),
        (401, &"authentication_error".into())
    );
    assert!(!body.to_string().contains("sk-secret"), "{body}");
    let (status, body) = failed(message(r#","stream":true"#)).await;
    assert_eq!(
        (status, &body["error"]["type"]),
        (503, &"overloaded_error".into())
    );
    assert_eq!(body["error"]["message"], "Overloaded");
    for (fields, missing) in [
        (r#""max_tokens":5"#, "'messages'"),
        (r#""messages":[]"#, "'max_tokens'"),
        (r#""messages":[],"max_tokens":"9""#, "'max_tokens'"),
    ] {
        let call = Call::new(Endpoint::Messages, format!(r#"{{"model":"m",{fields}}}"#));
        let (status, body) = failed(call).await;
        assert_eq!(
            (status, &body["error"]["type"]),
            (400, &"invalid_request_error".into())
        );
        assert!(
            body["error"]["message"].as_str().unwrap().contains(missing),
            "{body}"
        );
    }
}

#[tokio::test]
async fn count_tokens_passes_to_an_anthropic_server_and_counts_as_a_request() {
    let mut upstream = Upstream::start([ok(r#"{"input_tokens":14}"#)]).await;
    let (router, _) = router(&claude(&upstream.base, "rpm: 5, tpm: 1000"));
    let body = r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#;
    let answer = router
        .call(Call::new(Endpoint::CountTokens, body))
        .await
        .unwrap();
    assert_eq!(text(answer.body).await.unwrap(), r#"{"input_tokens":14}"#);
    let seen = upstream.next().await;
    assert_eq!(seen.path, "/v1/messages/count_tokens");
    assert_eq!(seen.headers["x-api-key"], "sk-secret");
    assert_eq!(seen.body, body.replace("\"m\"", "\"up\""));
    let first = &status(&router).deployments[0];
    assert_eq!((first.requests, first.tokens.total()), (1, 0));
}

#[tokio::test]
async fn addresses_of_anthropic_servers_get_the_path_once() {
    for end in ["", "/", "/v1", "/v1/", "/v1/messages", "/anthropic"] {
        let mut upstream = Upstream::start([ok(ANSWER)]).await;
        let base = upstream.base.trim_end_matches("/v1");
        let (router, _) = router(&claude(&format!("{base}{end}"), ""));
        router.call(message("")).await.unwrap();
        let path = upstream.next().await.path;
        let root = if end == "/anthropic" { end } else { "" };
        assert_eq!(path, format!("{root}/v1/messages"), "{end}");
    }
}

#[tokio::test]
async fn mock_deployment_answers_messages() {
    let (router, _) = router(&mock("", ""));
    let answer = router.call(message("")).await.unwrap();
    let body: Value = serde_json::from_str(&text(answer.body).await.unwrap()).unwrap();
    assert_eq!(body["content"][0]["text"], "hello world");
    let answer = router.call(message(r#","stream":true"#)).await.unwrap();
    let kind = answer.headers["content-type"].clone();
    assert!(kind.to_str().unwrap().starts_with("text/event-stream"));
    assert!(
        text(answer.body)
            .await
            .unwrap()
            .contains("event: message_stop")
    );
    let body = Bytes::from_static(br#"{"model":"m","messages":[]}"#);
    let answer = router
        .call(Call::new(Endpoint::CountTokens, body))
        .await
        .unwrap();
    assert_eq!(text(answer.body).await.unwrap(), r#"{"input_tokens":0}"#);
}

#[tokio::test]
async fn oauth_token_is_sent_as_a_bearer_token_with_its_beta() {
    let mut upstream = Upstream::start([]).await;
    let base = &upstream.base;
    let entry = |params: &str| {
        format!(
            "model_list:\n- {{model_name: m, litellm_params: {{model: anthropic/up, api_base: '{base}', num_retries: 0, {params}}}}}\n"
        )
    };
    let key = entry("api_key: sk-ant-oat01-x, extra_headers: {anthropic-beta: of-file}");
    let header = entry("extra_headers: {authorization: Bearer sk-ant-oat01-x}");
    let chat = Call::new(Endpoint::ChatCompletions, r#"{"model":"m","messages":[]}"#);
    let betas = |client: &'static str, mut call: Call| {
        let mut headers = HeaderMap::new();
        headers.insert("anthropic-beta", HeaderValue::from_static(client));
        call.take_headers(&headers);
        call
    };
    for (file, call, expected) in [
        (&key, message(""), vec!["oauth-2025-04-20", "of-file"]),
        (&key, chat, vec!["oauth-2025-04-20", "of-file"]),
        (
            &key,
            betas("x", message("")),
            vec!["x", "oauth-2025-04-20", "of-file"],
        ),
        // Anthropic's own tools ask for it themselves.
        (
            &key,
            betas("x, oauth-2025-04-20", message("")),
            vec!["x, oauth-2025-04-20", "of-file"],
        ),
        (&header, message(""), vec!["oauth-2025-04-20"]),
    ] {
        let (router, _) = router(file);
        drop(router.call(call).await);
        let seen = upstream.next().await;
        assert_eq!(seen.headers["authorization"], "Bearer sk-ant-oat01-x");
        assert!(!seen.headers.contains_key("x-api-key"));
        let betas: Vec<_> = seen.headers.get_all("anthropic-beta").iter().collect();
        assert_eq!(betas, expected);
    }
}
