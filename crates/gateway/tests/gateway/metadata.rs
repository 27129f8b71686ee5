//! `metadata` of requests and deployments: LiteLLM keeps it for its logs on all endpoints but responses and messages.

use crate::support::*;
use http::HeaderValue;
use serde_json::{Value, json};
use vorrang_gateway::{Call, Endpoint};

const METADATA: &str = r#""metadata":{"a":"b","tags":["x"]}"#;

fn call(endpoint: Endpoint, input: &str) -> Call {
    let body = format!(r#"{{"model":"m",{input},{METADATA}}}"#);
    Call::new(endpoint, body)
}

#[tokio::test]
async fn metadata_of_requests_and_deployments_reaches_no_endpoint_but_responses() {
    let mut upstream = Upstream::start([]).await;
    let (router, _) = router(&one(&upstream.base, "metadata: {of: file}", ""));
    for (endpoint, input) in [
        (Endpoint::ChatCompletions, r#""messages":[]"#),
        (Endpoint::Completions, r#""prompt":"hi""#),
        (Endpoint::Embeddings, r#""input":"hi""#),
        (Endpoint::ImageGenerations, r#""prompt":"hi""#),
    ] {
        router.call(call(endpoint, input)).await.unwrap();
        let body = upstream.next().await.body;
        assert_eq!(body, format!(r#"{{"model":"up",{input}}}"#));
    }
    let input = r#""input":"hi""#;
    router.call(call(Endpoint::Responses, input)).await.unwrap();
    assert_eq!(
        upstream.next().await.body,
        format!(r#"{{"model":"up",{input},"metadata":{{"a":"b"}}}}"#)
    );
    let bare = format!(r#"{{"model":"m",{input}}}"#);
    let bare = Call::new(Endpoint::Responses, bare);
    router.call(bare).await.unwrap();
    assert_eq!(
        upstream.next().await.body,
        format!(r#"{{"model":"up",{input},"metadata":{{"of":"file"}}}}"#)
    );
}

#[tokio::test]
async fn chats_by_the_responses_api_carry_metadata_as_other_chats_do() {
    for (settings, expected) in [
        ("", None),
        (
            "litellm_settings: {enable_preview_features: true}",
            Some(json!({"a": "b"})),
        ),
    ] {
        let mut upstream = Upstream::start([]).await;
        let (router, _) = router(&format!(
            "model_list:\n- {{model_name: m, litellm_params: {{model: openai/responses/up, api_base: '{}', api_key: k}}}}\n{settings}\n",
            upstream.base
        ));
        let messages = r#""messages":[{"role":"user","content":"hi"}]"#;
        // The upstream's answer is none: only what it was sent matters.
        let _ = router.call(call(Endpoint::ChatCompletions, messages)).await;
        let seen = upstream.next().await;
        assert_eq!(seen.path, "/v1/responses");
        let body: Value = serde_json::from_slice(&seen.body).unwrap();
        assert_eq!(body.get("metadata"), expected.as_ref());
    }
}

#[tokio::test]
async fn metadata_is_left_out_of_forms() {
    let mut upstream = Upstream::start([]).await;
    let (router, _) = router(&one(&upstream.base, "", ""));
    let part = |name: &str, value: &str| {
        format!("--b\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    };
    let sound = "--b\r\ncontent-disposition: form-data; name=\"file\"; filename=\"x\"\r\n\r\ny\r\n";
    let parts = [
        &part("model", "m"),
        &part("metadata", "{}"),
        sound,
        "--b--\r\n",
    ];
    let mut call = Call::new(Endpoint::Transcriptions, parts.concat());
    call.content_type = Some(HeaderValue::from_static("multipart/form-data; boundary=b"));
    router.call(call).await.unwrap();
    let expected = [&part("model", "up"), sound, "--b--\r\n"].concat();
    assert_eq!(upstream.next().await.body, expected);
}

#[tokio::test]
async fn messages_carry_the_user_id_of_their_metadata() {
    let mut upstream = Upstream::start([]).await;
    let (router, _) = router(&format!(
        "model_list:\n- {{model_name: m, litellm_params: {{model: anthropic/up, api_base: '{}', api_key: k}}}}\n",
        upstream.base
    ));
    let input = r#""max_tokens":1,"messages":[]"#;
    for (metadata, expected) in [
        (r#"{"user_id": "u"}"#, r#"{"user_id": "u"}"#),
        (r#"{"user_id":"u","tags":["x"]}"#, r#"{"user_id":"u"}"#),
    ] {
        let body = format!(r#"{{"model":"m",{input},"metadata":{metadata}}}"#);
        router
            .call(Call::new(Endpoint::Messages, body))
            .await
            .unwrap();
        let expected = format!(r#"{{"model":"up",{input},"metadata":{expected}}}"#);
        assert_eq!(upstream.next().await.body, expected);
    }
}

#[tokio::test]
async fn preview_features_send_the_texts_of_metadata_with_chats() {
    let mut upstream = Upstream::start([]).await;
    let settings = "litellm_settings: {enable_preview_features: true}";
    let (router, _) = router(&one(&upstream.base, "metadata: {of: file}", settings));
    let input = r#""messages":[]"#;
    router
        .call(call(Endpoint::ChatCompletions, input))
        .await
        .unwrap();
    assert_eq!(
        upstream.next().await.body,
        format!(r#"{{"model":"up",{input},"metadata":{{"a":"b"}}}}"#)
    );
    let input = r#""prompt":"hi""#;
    router
        .call(call(Endpoint::Completions, input))
        .await
        .unwrap();
    assert_eq!(
        upstream.next().await.body,
        format!(r#"{{"model":"up",{input}}}"#)
    );
}
