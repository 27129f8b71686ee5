//! Models that are called by the Converse API.

use super::*;

fn typed(data: &Value) -> Vec<u8> {
    let mut payload = data.clone();
    let kind = payload.as_object_mut().unwrap().remove("type").unwrap();
    let headers = [
        (":event-type", kind.as_str().unwrap()),
        (":content-type", "application/json"),
        (":message-type", "event"),
    ];
    frame(&headers, payload.to_string().as_bytes())
}

fn converse_events() -> Vec<Value> {
    vec![
        json!({"type": "messageStart", "role": "assistant"}),
        json!({"type": "contentBlockDelta", "contentBlockIndex": 0, "delta": {"text": "hello"}, "p": "abc"}),
        json!({"type": "contentBlockStop", "contentBlockIndex": 0}),
        json!({"type": "messageStop", "stopReason": "end_turn"}),
        json!({"type": "metadata", "usage": {"inputTokens": 30, "outputTokens": 7, "totalTokens": 37}, "metrics": {"latencyMs": 1}}),
    ]
}

const CONVERSED: &str = r#"{"output":{"message":{"role":"assistant","content":[{"text":"hello"}]}},"stopReason":"end_turn","usage":{"inputTokens":30,"outputTokens":7,"totalTokens":37},"metrics":{"latencyMs":1}}"#;

#[tokio::test]
async fn models_of_other_makers_are_called_by_converse() {
    let mut upstream = Upstream::start([ok(CONVERSED), ok(CONVERSED)]).await;
    let host = host_of(&upstream);
    let more = format!("{KEYS}, tpm: 10000, max_tokens: 50");
    let model = "bedrock/us.amazon.nova-pro-v1:0";
    let (router, _) = router(&config(model, &upstream.base, &more));
    let body = r#"{"model":"m","messages":[{"role":"user","content":"hi"}],"priority":1}"#;
    let answer = router
        .call(Call::new(Endpoint::ChatCompletions, body))
        .await;
    let body: Value = serde_json::from_str(&text(answer.unwrap().body).await.unwrap()).unwrap();
    assert_eq!(body["choices"][0]["message"]["content"], "hello");
    assert_eq!(body["model"], "us.amazon.nova-pro-v1:0");
    assert_eq!(body["usage"]["total_tokens"], 37);
    let seen = upstream.next().await;
    assert_eq!(seen.path, "/model/us.amazon.nova-pro-v1%3A0/converse");
    assert_signed(&seen, &host);
    let sent: Value = serde_json::from_slice(&seen.body).unwrap();
    let hi = json!([{"role": "user", "content": [{"text": "hi"}]}]);
    assert_eq!(
        sent,
        json!({"messages": hi, "inferenceConfig": {"maxTokens": 50}})
    );
    until(&router, |status| status.deployments[0].tokens.total() == 37).await;

    let answer = router.call(message("")).await.unwrap();
    let body: Value = serde_json::from_str(&text(answer.body).await.unwrap()).unwrap();
    assert_eq!(
        (&body["type"], &body["content"][0]["text"]),
        (&json!("message"), &json!("hello"))
    );
    let sent: Value = serde_json::from_slice(&upstream.next().await.body).unwrap();
    assert_eq!(
        sent,
        json!({"messages": hi, "inferenceConfig": {"maxTokens": 100}})
    );
}

#[tokio::test]
async fn frames_of_converse_become_chunks_and_messages_at_any_cut() {
    let frames: Vec<u8> = converse_events().iter().flat_map(typed).collect();
    for length in [1, 7, 100, 100_000] {
        let replies = [
            streaming(frames.clone(), length),
            streaming(frames.clone(), length),
        ];
        let mut upstream = Upstream::start(replies).await;
        let more = format!("{KEYS}, tpm: 10000");
        let (router, _) = router(&config(
            "bedrock/mistral.mistral-large-2407-v1:0",
            &upstream.base,
            &more,
        ));
        let answer = router.call(chat(r#","stream":true"#)).await.unwrap();
        assert_eq!(answer.headers["content-type"], "text/event-stream");
        let stream = text(answer.body).await.unwrap();
        assert!(stream.contains(r#""content":"hello""#), "{stream}");
        assert!(stream.ends_with("data: [DONE]\n\n"), "{stream}");
        let seen = upstream.next().await;
        assert_eq!(
            seen.path,
            "/model/mistral.mistral-large-2407-v1%3A0/converse-stream"
        );
        assert_signed(&seen, &host_of(&upstream));
        assert!(!String::from_utf8_lossy(&seen.body).contains("stream"));
        until(&router, |status| status.deployments[0].tokens.total() == 37).await;
        let answer = router.call(message(r#","stream":true"#)).await.unwrap();
        let stream = text(answer.body).await.unwrap();
        assert!(stream.contains(r#""text":"hello""#), "{stream}");
        assert!(
            stream.ends_with("data: {\"type\":\"message_stop\"}\n\n"),
            "{stream}"
        );
    }
}

#[tokio::test]
async fn failures_of_converse_are_errors_with_their_status() {
    let stream = r#","stream":true"#;
    let begun = |rest: Vec<u8>| {
        let mut bytes = typed(&converse_events()[0]);
        let length = bytes.len();
        bytes.extend(rest);
        streaming(bytes, length)
    };
    let refusal = Bytes::from_static(br#"{"message":"Too many requests"}"#);
    let headers = vec![("content-type", "application/json".to_owned())];
    let replies = [
        streaming(exception("throttlingException"), 1000),
        Reply::With(StatusCode::TOO_MANY_REQUESTS, headers, refusal),
        begun(exception("modelStreamErrorException")),
        begun(typed(&converse_events()[1])),
        ok(r#"{"message":"hm"}"#),
    ];
    let upstream = Upstream::start(replies).await;
    let text_of = config(
        "bedrock/meta.llama3-3-70b-instruct-v1:0",
        &upstream.base,
        KEYS,
    );
    let settings = "router_settings: {num_retries: 0, disable_cooldowns: true}\n";
    let (router, _) = router(&format!("{text_of}{settings}"));
    for _ in 0..2 {
        let error = router.call(chat(stream)).await.unwrap_err();
        assert_eq!(error.status(), StatusCode::TOO_MANY_REQUESTS);
        assert!(error.message().contains("Too many requests"));
    }
    let answer = router.call(chat(stream)).await.unwrap();
    let failed = text(answer.body).await.unwrap();
    assert!(
        failed.contains(r#"data: {"error":"#) && !failed.contains("[DONE]"),
        "{failed}"
    );
    let answer = router.call(chat(stream)).await.unwrap();
    assert!(text(answer.body).await.is_err());
    let error = router.call(chat("")).await.unwrap_err();
    assert_eq!(error.status(), StatusCode::BAD_GATEWAY);
}
