//! Bedrock: addresses, signatures and AWS's event streams, against a server of the tests' own that checks them.

mod converse;
mod credentials;
mod embeddings;

use std::collections::HashMap;

use crate::support::*;
use axum::body::Body;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use hmac::{Hmac, Mac};
use http::StatusCode;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use vorrang_gateway::{Call, Config, Endpoint, Loaded, config::Target};

const KEYS: &str = "aws_access_key_id: AKIDEXAMPLE, aws_secret_access_key: wJalrXUtnFEMI, aws_session_token: session-1";

fn config(model: &str, base: &str, more: &str) -> String {
    let host = base.trim_end_matches("/v1");
    format!(
        "model_list:\n- {{model_name: m, litellm_params: {{model: '{model}', aws_bedrock_runtime_endpoint: '{host}', aws_region_name: eu-central-1, {more}}}}}\n"
    )
}

fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// AWS's Signature Version 4, made again from what arrived.
fn assert_signed(seen: &Seen, host: &str) {
    let given = seen.headers["authorization"].to_str().unwrap();
    let given = given.strip_prefix("AWS4-HMAC-SHA256 ").unwrap();
    let parts: HashMap<&str, &str> = given
        .split(", ")
        .map(|part| part.split_once('=').unwrap())
        .collect();
    let time = seen.headers["x-amz-date"].to_str().unwrap();
    let scope = format!("{}/eu-central-1/bedrock/aws4_request", &time[..8]);
    assert_eq!(parts["Credential"], format!("AKIDEXAMPLE/{scope}"));
    assert_eq!(seen.headers["x-amz-security-token"], "session-1");
    let names = parts["SignedHeaders"];
    for needed in ["host", "x-amz-date", "x-amz-security-token"] {
        assert!(names.split(';').any(|name| name == needed), "{names}");
    }
    let headers: String = names
        .split(';')
        .map(|name| {
            let value = match name {
                "host" => host,
                name => seen.headers[name].to_str().unwrap(),
            };
            format!("{name}:{value}\n")
        })
        .collect();
    // The path is encoded twice for the signature.
    let path = seen.path.replace('%', "%25").replace(':', "%3A");
    let body = hex(&Sha256::digest(&seen.body));
    let canonical = format!("POST\n{path}\n\n{headers}\n{names}\n{body}");
    let canonical = hex(&Sha256::digest(canonical.as_bytes()));
    let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{canonical}");
    let date = hmac(b"AWS4wJalrXUtnFEMI", &time[..8]);
    let key = hmac(
        &hmac(&hmac(&date, "eu-central-1"), "bedrock"),
        "aws4_request",
    );
    assert_eq!(parts["Signature"], hex(&hmac(&key, &text)));
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

/// A frame of AWS's event streams, as their documentation has it.
fn frame(headers: &[(&str, &str)], payload: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::new();
    for (name, value) in headers {
        encoded.push(u8::try_from(name.len()).unwrap());
        encoded.extend_from_slice(name.as_bytes());
        encoded.push(7);
        encoded.extend_from_slice(&u16::try_from(value.len()).unwrap().to_be_bytes());
        encoded.extend_from_slice(value.as_bytes());
    }
    let mut frame = Vec::new();
    let total = u32::try_from(16 + encoded.len() + payload.len()).unwrap();
    frame.extend_from_slice(&total.to_be_bytes());
    frame.extend_from_slice(&u32::try_from(encoded.len()).unwrap().to_be_bytes());
    frame.extend_from_slice(&crc32(&frame).to_be_bytes());
    frame.extend_from_slice(&encoded);
    frame.extend_from_slice(payload);
    frame.extend_from_slice(&crc32(&frame).to_be_bytes());
    frame
}

fn event(data: &Value) -> Vec<u8> {
    let chunk = json!({"bytes": BASE64_STANDARD.encode(data.to_string()), "p": "abcd"});
    let headers = [
        (":event-type", "chunk"),
        (":content-type", "application/json"),
        (":message-type", "event"),
    ];
    frame(&headers, chunk.to_string().as_bytes())
}

fn exception(kind: &str) -> Vec<u8> {
    let headers = [(":exception-type", kind), (":message-type", "exception")];
    frame(&headers, br#"{"message":"Too many requests"}"#)
}

fn events() -> Vec<Value> {
    vec![
        json!({"type": "message_start", "message": {"id": "msg_1", "role": "assistant", "model": "claude", "content": [], "usage": {"input_tokens": 30, "output_tokens": 1}}}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hello"}}),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 7}}),
        json!({"type": "message_stop", "amazon-bedrock-invocationMetrics": {"inputTokenCount": 30}}),
    ]
}

/// A stream that comes in pieces of this length.
fn streaming(bytes: Vec<u8>, length: usize) -> Reply {
    let pieces: Vec<_> = bytes
        .chunks(length)
        .map(|piece| Ok::<_, std::io::Error>(Bytes::copy_from_slice(piece)))
        .collect();
    let body = Body::from_stream(futures_util::stream::iter(pieces));
    Reply::Typed("application/vnd.amazon.eventstream", body)
}

fn message(rest: &str) -> Call {
    let body = format!(
        r#"{{"model":"m","max_tokens":100,"messages":[{{"role":"user","content":"hi"}}]{rest}}}"#
    );
    Call::new(Endpoint::Messages, body)
}

fn host_of(upstream: &Upstream) -> String {
    let host = upstream.base.trim_start_matches("http://");
    host.trim_end_matches("/v1").to_owned()
}

const ANSWER: &str = r#"{"id":"msg_1","type":"message","role":"assistant","model":"claude","content":[{"type":"text","text":"hello"}],"stop_reason":"end_turn","usage":{"input_tokens":30,"output_tokens":7}}"#;

#[tokio::test]
async fn claude_is_invoked_with_a_signature_and_the_version_in_the_body() {
    let mut upstream = Upstream::start([ok(ANSWER), ok(ANSWER)]).await;
    let host = host_of(&upstream);
    let model = "bedrock/converse/eu.anthropic.claude-sonnet-4-5-20250929-v1:0";
    let (router, _) = router(&config(model, &upstream.base, KEYS));
    let mut call = message(r#","top_k":5"#);
    let beta = http::HeaderValue::from_static("context-1m-2025-08-07");
    call.anthropic_headers.insert("anthropic-beta", beta);
    let answer = router.call(call).await.unwrap();
    assert_eq!(text(answer.body).await.unwrap(), ANSWER);
    let seen = upstream.next().await;
    assert_eq!(
        seen.path,
        "/model/eu.anthropic.claude-sonnet-4-5-20250929-v1%3A0/invoke"
    );
    assert_eq!(
        seen.body,
        r#"{"anthropic_version":"bedrock-2023-05-31","anthropic_beta":["context-1m-2025-08-07"],"max_tokens":100,"messages":[{"role":"user","content":"hi"}],"top_k":5}"#
    );
    assert_signed(&seen, &host);

    let answer = router.call(chat("")).await.unwrap();
    let body: Value = serde_json::from_str(&text(answer.body).await.unwrap()).unwrap();
    assert_eq!(body["choices"][0]["message"]["content"], "hello");
    let seen = upstream.next().await;
    assert_signed(&seen, &host);
    let sent: Value = serde_json::from_slice(&seen.body).unwrap();
    assert_eq!(
        sent,
        json!({"anthropic_version": "bedrock-2023-05-31", "max_tokens": 64000, "messages": []})
    );
}

#[tokio::test]
async fn bedrocks_own_keys_are_bearer_tokens() {
    let mut upstream = Upstream::start([ok(ANSWER)]).await;
    let model = "bedrock/anthropic.claude-3-5-sonnet-20241022-v2:0";
    let (router, _) = router(&config(model, &upstream.base, "api_key: bedrock-key"));
    router.call(message("")).await.unwrap();
    let seen = upstream.next().await;
    assert_eq!(seen.headers["authorization"], "Bearer bedrock-key");
    assert!(!seen.headers.contains_key("x-amz-date"));
}

#[tokio::test]
async fn aws_frames_become_the_events_of_a_stream_at_any_cut() {
    let frames: Vec<u8> = events().iter().flat_map(event).collect();
    let whole: String = events()
        .iter()
        .map(|data| {
            format!(
                "event: {}\ndata: {data}\n\n",
                data["type"].as_str().unwrap()
            )
        })
        .collect();
    for length in [1, 7, 100, 100_000] {
        let replies = [
            streaming(frames.clone(), length),
            streaming(frames.clone(), length),
        ];
        let mut upstream = Upstream::start(replies).await;
        let model = "bedrock/anthropic.claude-3-5-sonnet-20241022-v2:0";
        let more = format!("{KEYS}, tpm: 10000");
        let (router, _) = router(&config(model, &upstream.base, &more));
        let answer = router.call(message(r#","stream":true"#)).await.unwrap();
        assert_eq!(answer.headers["content-type"], "text/event-stream");
        assert_eq!(text(answer.body).await.unwrap(), whole);
        let seen = upstream.next().await;
        assert!(seen.path.ends_with("%3A0/invoke-with-response-stream"));
        assert_signed(&seen, &host_of(&upstream));
        assert!(!String::from_utf8_lossy(&seen.body).contains("stream"));
        until(&router, |status| status.deployments[0].tokens.total() == 37).await;
        let answer = router.call(chat(r#","stream":true"#)).await.unwrap();
        let stream = text(answer.body).await.unwrap();
        assert!(stream.contains(r#""content":"hello""#), "{stream}");
        assert!(stream.ends_with("data: [DONE]\n\n"), "{stream}");
    }
}

#[tokio::test]
async fn exceptions_in_a_stream_are_errors_and_broken_frames_break_it_off() {
    let stream = r#","stream":true"#;
    let start = |rest: Vec<u8>| {
        let mut bytes = event(&events()[0]);
        let length = bytes.len();
        bytes.extend(rest);
        streaming(bytes, length)
    };
    let mut cut = event(&events()[1]);
    cut.truncate(20);
    let mut wrong = event(&events()[1]);
    *wrong.last_mut().unwrap() ^= 1;
    let headers = vec![("content-type", "application/json".to_owned())];
    let refusal = Bytes::from_static(br#"{"message":"not authorized: wJalrXUtnFEMI"}"#);
    let replies = [
        streaming(exception("throttlingException"), 1000),
        start(exception("modelStreamErrorException")),
        start(cut),
        start(wrong),
        Reply::With(StatusCode::FORBIDDEN, headers, refusal),
    ];
    let upstream = Upstream::start(replies).await;
    let model = "bedrock/anthropic.claude-3-5-sonnet-20241022-v2:0";
    let text_of = config(model, &upstream.base, KEYS);
    let settings = "router_settings: {num_retries: 0, disable_cooldowns: true}\n";
    let (router, _) = router(&format!("{text_of}{settings}"));
    let error = router.call(message(stream)).await.unwrap_err();
    assert_eq!(error.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(error.message().contains("Too many requests"));
    let answer = router.call(message(stream)).await.unwrap();
    let failed = text(answer.body).await.unwrap();
    assert!(
        failed.contains("event: error\ndata: {\"type\":\"error\""),
        "{failed}"
    );
    for _ in 0..2 {
        let answer = router.call(message(stream)).await.unwrap();
        assert!(text(answer.body).await.is_err());
    }
    let error = router.call(message("")).await.unwrap_err();
    assert_eq!(error.status(), StatusCode::FORBIDDEN);
    assert!(!String::from_utf8_lossy(&error.body()).contains("wJalrXUtnFEMI"));
}

#[tokio::test]
async fn other_models_are_called_at_the_openai_compatible_endpoint() {
    let mut upstream = Upstream::start([]).await;
    let host = host_of(&upstream);
    let (router, _) = router(&config(
        "bedrock/openai.gpt-oss-20b-1:0",
        &upstream.base,
        KEYS,
    ));
    router.call(chat("")).await.unwrap();
    let seen = upstream.next().await;
    assert_eq!(seen.path, "/openai/v1/chat/completions");
    assert_eq!(
        seen.body,
        r#"{"model":"openai.gpt-oss-20b-1:0","messages":[]}"#
    );
    assert_signed(&seen, &host);
}

fn load(params: &str, variables: &[(&str, &str)]) -> Result<Loaded, String> {
    let text = format!("model_list:\n- {{model_name: m, litellm_params: {{{params}}}}}\n");
    let variables = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let env: HashMap<String, String> = variables.collect();
    Config::parse(&text, "config.yaml", &env).map_err(|error| error.to_string())
}

#[test]
fn regions_names_and_credentials_come_from_the_file_or_the_environment() {
    let token = ("AWS_BEARER_TOKEN_BEDROCK", "token-1234");
    let region = ("AWS_REGION_NAME", "ap-northeast-1");
    let own = "https://bedrock-runtime";
    for (params, variables, base, model) in [
        (
            "model: bedrock/anthropic.claude-3-haiku",
            vec![token],
            "us-west-2",
            "anthropic.claude-3-haiku",
        ),
        (
            "model: anthropic.claude-3-haiku",
            vec![token, region],
            "ap-northeast-1",
            "anthropic.claude-3-haiku",
        ),
        (
            "model: us.anthropic.claude-opus-4-8-v1",
            vec![token],
            "us-west-2",
            "us.anthropic.claude-opus-4-8-v1",
        ),
        (
            "model: bedrock/us-east-1/anthropic.claude-3-haiku",
            vec![token, region],
            "us-east-1",
            "anthropic.claude-3-haiku",
        ),
        (
            "model: bedrock/invoke/global.anthropic.claude-sonnet-5, aws_region_name: eu-west-1",
            vec![token],
            "eu-west-1",
            "global.anthropic.claude-sonnet-5",
        ),
        (
            "model: bedrock/qwen.qwen3-32b-v1:0",
            vec![token],
            "us-west-2",
            "qwen.qwen3-32b-v1:0",
        ),
        (
            "model: bedrock/converse/us.meta.llama4-v1:0",
            vec![token],
            "us-west-2",
            "us.meta.llama4-v1:0",
        ),
        (
            "model: bedrock/openai.gpt-oss-20b-1:0",
            vec![token],
            "us-west-2",
            "openai.gpt-oss-20b-1:0",
        ),
        (
            "model: 'bedrock/arn:aws:bedrock:us-east-1:1:application-inference-profile/x'",
            vec![token],
            "us-east-1",
            "arn:aws:bedrock:us-east-1:1:application-inference-profile/x",
        ),
    ] {
        let config = load(params, &variables).unwrap().config;
        let deployment = &config.groups[0].deployments[0];
        let Target::Upstream(server) = &deployment.target else {
            panic!("{params}")
        };
        let end = if model.contains("openai.") {
            "/openai/v1"
        } else {
            ""
        };
        assert_eq!(
            server.api_base,
            format!("{own}.{base}.amazonaws.com{end}"),
            "{params}"
        );
        assert_eq!(deployment.model, model, "{params}");
    }
    let signed = [
        ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", "secret-of-aws"),
        ("AWS_SESSION_TOKEN", "session-of-aws"),
    ];
    let loaded = load("model: bedrock/anthropic.claude-3-haiku", &signed).unwrap();
    assert!(loaded.warnings().is_empty(), "{:?}", loaded.warnings());
    let shown = format!("{:?}", loaded.config);
    for secret in ["AKIDEXAMPLE", "secret-of-aws", "session-of-aws"] {
        assert!(!shown.contains(secret), "{shown}");
    }
    assert!(loaded.config.spends_keys());
    assert!(loaded.config.plan().contains("signed with AWS's keys"));
}

#[test]
fn what_bedrock_cannot_be_called_with_is_left_out_with_its_reason() {
    let keys = "aws_access_key_id: AKID1, aws_secret_access_key: secret1";
    for (params, reason) in [
        (
            "model: bedrock/anthropic.claude-3-haiku, aws_web_identity_token: x".to_owned(),
            "aws_web_identity_token: is not supported",
        ),
        (
            format!("model: bedrock/amazon.nova-canvas-v1:0, {keys}"),
            "no model for chats",
        ),
        (
            format!("model: bedrock/*, {keys}"),
            "which format its models have",
        ),
    ] {
        let error = load(&params, &[]).unwrap_err();
        assert!(error.contains(reason), "{params}: {error}");
        assert!(!error.contains("secret1"), "{error}");
    }
    let half = load(
        "model: bedrock/anthropic.claude-3-haiku, aws_access_key_id: AKID1",
        &[],
    );
    assert!(half.unwrap_err().contains("expected both"));
}
