//! Clients of one format at upstreams of the other: what is sent, what comes back, what it costs, and how it fails.

use crate::support::*;
use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use vorrang_gateway::{Call, Endpoint};

fn claude(base: &str, params: &str) -> String {
    format!(
        "model_list:\n- {{model_name: m, litellm_params: {{model: anthropic/up, api_base: '{base}', api_key: sk-secret, {params}}}, model_info: {{id: d0}}}}\n"
    )
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

fn message() -> String {
    json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": "up", "content": [{"type": "text", "text": "hello"}],
        "stop_reason": "end_turn", "stop_sequence": null,
        "usage": {"input_tokens": 10, "cache_read_input_tokens": 20, "output_tokens": 7},
    })
    .to_string()
}

fn chat_answer() -> String {
    json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "up",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hello"}}],
        "usage": {"prompt_tokens": 30, "completion_tokens": 7, "total_tokens": 37, "prompt_tokens_details": {"cached_tokens": 20}},
    })
    .to_string()
}

fn message_stream() -> Vec<String> {
    let events = [
        json!({"type": "message_start", "message": {"id": "msg_1", "role": "assistant", "model": "up", "content": [], "usage": {"input_tokens": 30, "output_tokens": 1}}}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hel"}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "lo"}}),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 7}}),
        json!({"type": "message_stop"}),
    ];
    let event = |data: &Value| {
        format!(
            "event: {}\ndata: {data}\n\n",
            data["type"].as_str().unwrap()
        )
    };
    events.iter().map(event).collect()
}

fn chat_stream() -> Vec<String> {
    let chunk = |delta: Value, reason: Value| {
        let chunk = json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "up", "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]});
        format!("data: {chunk}\n\n")
    };
    vec![
        chunk(json!({"role": "assistant", "content": ""}), Value::Null),
        chunk(json!({"content": "hel"}), Value::Null),
        chunk(json!({"content": "lo"}), Value::Null),
        chunk(json!({}), json!("stop")),
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":30,\"completion_tokens\":7,\"total_tokens\":37}}\n\n".into(),
        "data: [DONE]\n\n".into(),
    ]
}

fn events(stream: &[String]) -> Reply {
    Reply::Typed("text/event-stream", stream.concat().into())
}

#[tokio::test]
async fn chat_is_translated_for_an_anthropic_server_and_its_answer_back() {
    let mut upstream = Upstream::start([ok(&message())]).await;
    let (router, _) = router(&claude(&upstream.base, "tpm: 1000"));
    let fields = r#","temperature":0.5,"priority":1,"seed":3"#;
    let answer = router.call(chat_call(fields)).await.unwrap();
    let length = answer.headers.contains_key("content-length");
    let body: Value = serde_json::from_str(&text(answer.body).await.unwrap()).unwrap();
    assert!(!length, "of the other format");
    assert_eq!(body["object"], "chat.completion");
    assert_eq!(body["choices"][0]["message"]["content"], "hello");
    assert_eq!(body["usage"]["prompt_tokens"], 30);
    let seen = upstream.next().await;
    assert_eq!(seen.path, "/v1/messages");
    assert_eq!(seen.headers["x-api-key"], "sk-secret");
    assert_eq!(seen.headers["anthropic-version"], "2023-06-01");
    assert_eq!(seen.headers["accept-encoding"], "identity");
    let sent: Value = serde_json::from_slice(&seen.body).unwrap();
    let turn = json!([{"role": "user", "content": [{"type": "text", "text": "hi"}]}]);
    assert_eq!(
        sent,
        json!({"model": "up", "messages": turn, "max_tokens": 4096, "temperature": 0.5})
    );
    until(&router, |status| status.deployments[0].tokens.total() == 37).await;
}

#[tokio::test]
async fn messages_are_translated_for_an_openai_server_and_its_answer_back() {
    let mut upstream = Upstream::start([ok(&chat_answer())]).await;
    let (router, _) = router(&one(&upstream.base, "tpm: 1000", ""));
    let answer = router
        .call(message_call(r#","system":"be brief","priority":1"#))
        .await;
    let body: Value = serde_json::from_str(&text(answer.unwrap().body).await.unwrap()).unwrap();
    assert_eq!(body["type"], "message");
    assert_eq!(body["content"], json!([{"type": "text", "text": "hello"}]));
    assert_eq!(body["usage"]["input_tokens"], 10);
    assert_eq!(body["usage"]["cache_read_input_tokens"], 20);
    let seen = upstream.next().await;
    assert_eq!(seen.path, "/v1/chat/completions");
    assert_eq!(seen.headers["authorization"], "Bearer sk-secret");
    assert!(!seen.headers.contains_key("anthropic-version"));
    let sent: Value = serde_json::from_slice(&seen.body).unwrap();
    let turns =
        json!([{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]);
    assert_eq!(
        sent,
        json!({"model": "up", "messages": turns, "max_tokens": 100})
    );
    until(&router, |status| status.deployments[0].tokens.total() == 37).await;
}

#[tokio::test]
async fn streams_are_translated_both_ways_and_metered() {
    let upstream = Upstream::start([events(&message_stream())]).await;
    let (one_way, _) = router(&claude(&upstream.base, "tpm: 10000"));
    let asking = r#","stream":true,"stream_options":{"include_usage":true}"#;
    let answer = one_way.call(chat_call(asking)).await.unwrap();
    let stream = text(answer.body).await.unwrap();
    let contents = stream.matches(r#""content":"hel""#).count();
    assert!(
        contents == 1 && stream.ends_with("data: [DONE]\n\n"),
        "{stream}"
    );
    assert!(stream.contains(r#""total_tokens":37"#), "{stream}");
    until(&one_way, |status| {
        status.deployments[0].tokens.total() == 37
    })
    .await;

    let mut upstream = Upstream::start([events(&chat_stream())]).await;
    let (other_way, _) = router(&one(&upstream.base, "tpm: 10000", ""));
    let answer = other_way
        .call(message_call(r#","stream":true"#))
        .await
        .unwrap();
    let stream = text(answer.body).await.unwrap();
    assert!(stream.starts_with("event: message_start\n"), "{stream}");
    assert!(
        stream.ends_with("data: {\"type\":\"message_stop\"}\n\n"),
        "{stream}"
    );
    let sent: Value = serde_json::from_slice(&upstream.next().await.body).unwrap();
    assert_eq!(sent["stream_options"], json!({"include_usage": true}));
    until(&other_way, |status| {
        status.deployments[0].tokens.total() == 37
    })
    .await;
}

#[tokio::test]
async fn usage_that_the_upstream_reports_counts_where_its_client_does_not_see_it() {
    let upstream = Upstream::start([events(&message_stream())]).await;
    let (router, _) = router(&claude(&upstream.base, "tpm: 10000"));
    let answer = router.call(chat_call(r#","stream":true"#)).await.unwrap();
    let stream = text(answer.body).await.unwrap();
    assert!(!stream.contains("usage"), "{stream}");
    until(&router, |status| status.deployments[0].tokens.total() == 37).await;
}

#[tokio::test]
async fn translated_stream_passes_piece_by_piece_at_any_cut() {
    use http_body_util::BodyExt as _;
    let (chunks, receiver) = mpsc::channel(1);
    let upstream = Upstream::start([Reply::Stream("text/event-stream", receiver)]).await;
    let (router, _) = router(&claude(&upstream.base, ""));
    let stream = message_stream();
    let send = |text: &str| chunks.send(Ok(Bytes::from(text.to_owned())));
    let begun = async {
        let (first, second) = stream[0].split_at(30);
        send(first).await.unwrap();
        send(second).await.unwrap();
    };
    let (answer, ()) = tokio::join!(router.call(chat_call(r#","stream":true"#)), begun);
    let mut body = answer.unwrap().body;
    // Before the upstream sends more.
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert!(first.starts_with(b"data: {"));
    for event in &stream[1..] {
        send(event).await.unwrap();
    }
    drop(chunks);
    assert!(text(body).await.unwrap().ends_with("data: [DONE]\n\n"));
}

#[tokio::test]
async fn translated_stream_without_its_end_breaks_the_answer() {
    for (text_of, call) in [
        (message_stream(), chat_call(r#","stream":true"#)),
        (chat_stream(), message_call(r#","stream":true"#)),
    ] {
        let upstream = Upstream::start([events(&text_of[..3])]).await;
        let config = match call.endpoint {
            Endpoint::Messages => one(&upstream.base, "", ""),
            _ => claude(&upstream.base, ""),
        };
        let (router, _) = router(&config);
        let answer = router.call(call).await.unwrap();
        assert!(text(answer.body).await.is_err());
    }
}

#[tokio::test]
async fn coded_answer_is_decoded_before_its_translation() {
    let headers = vec![
        ("content-type", "application/json".to_owned()),
        ("content-encoding", "gzip".to_owned()),
    ];
    let reply = Reply::With(StatusCode::OK, headers, gzip(message().as_bytes()));
    let upstream = Upstream::start([reply]).await;
    let (router, _) = router(&claude(&upstream.base, ""));
    let mut call = chat_call("");
    call.codings = Some("gzip".into());
    let answer = router.call(call).await.unwrap();
    assert!(!answer.headers.contains_key("content-encoding"));
    assert!(text(answer.body).await.unwrap().contains("chat.completion"));
}

#[tokio::test]
async fn errors_come_in_the_clients_format() {
    let anthropics = r#"{"type":"error","error":{"type":"rate_limit_error","message":"slow down"},"request_id":"req_1"}"#;
    let in_stream = format!("event: error\ndata: {anthropics}\n\n");
    let replies = [
        error(429, anthropics),
        Reply::Typed("text/event-stream", in_stream.into()),
        ok(anthropics),
    ];
    let upstream = Upstream::start(replies).await;
    let without_retries = "router_settings: {num_retries: 0, disable_cooldowns: true}\n";
    let (claude_router, _) = router(&format!("{}{without_retries}", claude(&upstream.base, "")));
    for fields in ["", r#","stream":true"#, ""] {
        let error = claude_router.call(chat_call(fields)).await.unwrap_err();
        assert_eq!(error.status(), StatusCode::TOO_MANY_REQUESTS);
        let body: Value = serde_json::from_slice(&error.body()).unwrap();
        assert!(body.get("type").is_none(), "{body}");
        assert_eq!(body["error"]["message"], "slow down");
    }

    let openais = r#"{"error":{"message":"slow down","type":"requests","param":null,"code":"rate_limit_exceeded"}}"#;
    let in_stream = format!("data: {openais}\n\n");
    let replies = [
        error(429, openais),
        Reply::Typed("text/event-stream", in_stream.into()),
        ok(openais),
    ];
    let upstream = Upstream::start(replies).await;
    let (openai_router, _) = router(&one(&upstream.base, "", without_retries));
    for fields in ["", r#","stream":true"#, ""] {
        let error = openai_router.call(message_call(fields)).await.unwrap_err();
        assert_eq!(error.status(), StatusCode::TOO_MANY_REQUESTS);
        let body: Value = serde_json::from_slice(&error.body()).unwrap();
        assert_eq!(body["type"], "error", "{body}");
        assert_eq!(
            body["error"],
            json!({"type": "rate_limit_error", "message": "slow down"})
        );
    }
}

#[tokio::test]
async fn answer_that_is_none_in_the_upstreams_format_is_a_502() {
    for body in [r#"{"answer":42}"#, "<html>busy</html>", "", "busy"] {
        let upstream = Upstream::start([ok(body)]).await;
        let settings = "router_settings: {num_retries: 0}\n";
        let (one_way, _) = router(&one(&upstream.base, "", settings));
        let error = one_way.call(message_call("")).await.unwrap_err();
        assert_eq!(error.status(), StatusCode::BAD_GATEWAY, "{body}");
    }
}

#[tokio::test]
async fn request_without_an_equivalent_is_a_400_before_the_queue_unless_another_deployment_takes_it()
 {
    let mut upstream = Upstream::start([]).await;
    let claude_alone = claude(&upstream.base, "");
    let (alone, _) = router(&claude_alone);
    let error = alone.call(chat_call(r#","n":2"#)).await.unwrap_err();
    assert_eq!(
        (error.status(), error.param()),
        (StatusCode::BAD_REQUEST, Some("n"))
    );
    assert_eq!((error.info().attempts, upstream.pending()), (0, 0));
    let base = &upstream.base;
    let (both, _) = router(&format!(
        "{claude_alone}- {{model_name: m, litellm_params: {{model: openai/other, api_base: '{base}'}}}}\n"
    ));
    for _ in 0..8 {
        both.call(chat_call(r#","n":2"#)).await.unwrap();
        assert_eq!(upstream.next().await.path, "/v1/chat/completions");
    }
    let (dropping, _) = router(&claude(&upstream.base, "drop_params: true"));
    upstream.then(ok(&message()));
    dropping.call(chat_call(r#","n":2"#)).await.unwrap();
    assert_eq!(upstream.next().await.path, "/v1/messages");
}

#[tokio::test]
async fn count_tokens_without_an_anthropic_server_is_an_estimate_without_a_call() {
    let upstream = Upstream::start([error(404, "{}")]).await;
    let body = r#"{"model":"m","system":"1234","messages":[{"role":"user","content":"12345678"}]}"#;
    let (estimating, _) = router(&one(&upstream.base, "rpm: 1", ""));
    for _ in 0..3 {
        let answer = estimating
            .call(Call::new(Endpoint::CountTokens, body))
            .await
            .unwrap();
        assert_eq!(text(answer.body).await.unwrap(), r#"{"input_tokens":3}"#);
    }
    assert_eq!(upstream.pending(), 0);
    // A server that speaks Anthropic's format, but does not count.
    let (asking, _) = router(&claude(&upstream.base, ""));
    let answer = asking
        .call(Call::new(Endpoint::CountTokens, body))
        .await
        .unwrap();
    assert_eq!(text(answer.body).await.unwrap(), r#"{"input_tokens":3}"#);
    assert_eq!(upstream.pending(), 1);
    let embedding = one(&upstream.base, "", "").replace("{id: d0}", "{id: d0, mode: embedding}");
    let (embedding, _) = router(&embedding);
    let refused = embedding.call(Call::new(Endpoint::CountTokens, body)).await;
    assert_eq!(refused.unwrap_err().status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn malformed_bodies_of_messages_are_a_400_at_upstreams_of_either_format() {
    let upstream = Upstream::start([]).await;
    let values = [
        "null",
        "0",
        "-1",
        "1e400",
        "true",
        r#""x""#,
        "[]",
        "{}",
        "[[]]",
        r#"[{"role":1}]"#,
        r#"[{"role":"user","content":[{"type":"image","source":7}]}]"#,
        r#"[{"role":"user","content":[{"type":"tool_result"}]}]"#,
        r#"[{"role":"assistant","content":[{"type":"tool_use","input":[]}]}]"#,
        r#"[{"name":7}]"#,
        r#"{"type":"tool"}"#,
        r#""\ud800""#,
    ];
    let fields = [
        "model",
        "messages",
        "max_tokens",
        "system",
        "tools",
        "tool_choice",
        "stream",
        "thinking",
        "metadata",
        "stop_sequences",
        "output_config",
        "temperature",
        "priority",
        "timeout",
    ];
    let settings = "router_settings: {num_retries: 0, disable_cooldowns: true}\n";
    let (native, _) = router(&claude(&upstream.base, ""));
    let (translated, _) = router(&one(&upstream.base, "", settings));
    for field in fields {
        for value in values {
            let all = json!({"model": "m", "messages": [], "max_tokens": 9});
            let others = all
                .as_object()
                .unwrap()
                .iter()
                .filter(|(name, _)| *name != field);
            let others: String = others
                .map(|(name, value)| format!(r#","{name}":{value}"#))
                .collect();
            let body = format!(r#"{{"{field}":{value}{others}}}"#);
            for (router, of_upstream) in [(&native, 200), (&translated, 502)] {
                for endpoint in [Endpoint::Messages, Endpoint::CountTokens] {
                    let answer = router.call(Call::new(endpoint, body.clone())).await;
                    // The upstream answers `{}`: to a translated request that is no answer.
                    let status = answer.map_or_else(|error| error.status().as_u16(), |_| 200);
                    let known = [200, 400, of_upstream].contains(&status);
                    assert!(known, "{status} {body}");
                }
            }
        }
    }
}
