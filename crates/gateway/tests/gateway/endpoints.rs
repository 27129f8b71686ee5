//! The endpoints besides chat and text: what they need, where they go, what they cost, and who serves them.

use crate::support::*;
use bytes::Bytes;
use http::StatusCode;
use serde_json::Value;
use tokio::sync::mpsc;
use vorrang_gateway::{Call, Endpoint, ErrorKind};
use vorrang_scheduler::GroupStatus;

fn call(endpoint: Endpoint, fields: &str) -> Call {
    Call::new(endpoint, format!(r#"{{"model":"m",{fields}}}"#))
}

/// Tokens that count against the first deployment.
fn used(status: &GroupStatus) -> u64 {
    let first = status.deployments.first();
    first.map_or(0, |deployment| deployment.tokens.total())
}

/// A request of each endpoint that has what it needs.
const REQUESTS: &[(Endpoint, &str)] = &[
    (Endpoint::ChatCompletions, r#""messages":[]"#),
    (Endpoint::Completions, r#""prompt":"hi""#),
    (Endpoint::Responses, r#""input":"hi""#),
    (Endpoint::Embeddings, r#""input":["a","b"]"#),
    (Endpoint::Moderations, r#""input":"hi""#),
    (
        Endpoint::Rerank,
        r#""query":"q","documents":["a",{"text":"b"}]"#,
    ),
    (Endpoint::ImageGenerations, r#""prompt":"a cat","n":1"#),
    (Endpoint::Speech, r#""input":"hi","voice":"alloy""#),
];

#[tokio::test]
async fn every_endpoint_goes_to_its_path_and_changes_only_model_priority_and_timeout() {
    let mut upstream = Upstream::start([]).await;
    let (router, _) = router(&one(&upstream.base, "", ""));
    let json = Endpoint::all().filter(|endpoint| !endpoint.is_form() && !endpoint.is_anthropic());
    assert_eq!(REQUESTS.len(), json.count());
    for (endpoint, fields) in REQUESTS {
        let more = format!(r#"{fields},"priority":3,"timeout":9,"x":1.00"#);
        let answer = router.call(call(*endpoint, &more)).await.unwrap();
        assert_eq!(answer.info.priority, 3);
        assert_eq!(text(answer.body).await.unwrap(), "{}");
        let seen = upstream.next().await;
        assert_eq!(seen.path, format!("/v1{}", endpoint.path()));
        assert_eq!(seen.body, format!(r#"{{"model":"up",{fields},"x":1.00}}"#));
    }
}

#[tokio::test]
async fn missing_or_mistyped_endpoint_field_gets_400_that_names_it() {
    let upstream = Upstream::start([]).await;
    let (router, _) = router(&one(&upstream.base, "", ""));
    for (endpoint, fields, param, message) in [
        (
            Endpoint::Responses,
            r#""x":1"#,
            "input",
            "Missing required parameter: 'input'.",
        ),
        (
            Endpoint::Embeddings,
            r#""input":null"#,
            "input",
            "Missing required parameter: 'input'.",
        ),
        (
            Endpoint::Embeddings,
            r#""input":7"#,
            "input",
            "expected a string or an array",
        ),
        (
            Endpoint::Moderations,
            r#""input":{}"#,
            "input",
            "expected a string or an array",
        ),
        (
            Endpoint::Rerank,
            r#""documents":[]"#,
            "query",
            "Missing required parameter: 'query'.",
        ),
        (
            Endpoint::Rerank,
            r#""query":"q""#,
            "documents",
            "Missing required parameter",
        ),
        (
            Endpoint::Rerank,
            r#""query":"q","documents":"d""#,
            "documents",
            "expected an array",
        ),
        (
            Endpoint::ImageGenerations,
            r#""prompt":["p"]"#,
            "prompt",
            "expected a string",
        ),
        (
            Endpoint::Speech,
            r#""voice":"alloy""#,
            "input",
            "Missing required parameter: 'input'.",
        ),
    ] {
        let problem = router
            .call(call(endpoint, fields))
            .await
            .unwrap_err()
            .problem;
        assert_eq!(
            (problem.status().as_u16(), problem.param()),
            (400, Some(param)),
            "{endpoint:?} {fields}"
        );
        assert!(problem.to_string().contains(message), "{problem}");
    }
    // A stored prompt stands for the input.
    let stored = call(Endpoint::Responses, r#""prompt":{"id":"pmpt_1"}"#);
    router.call(stored).await.unwrap();
    assert_eq!(upstream.pending(), 1);
}

#[tokio::test]
async fn embeddings_reserve_their_input_and_are_corrected_by_their_usage() {
    let usage = r#"{"data":[],"usage":{"prompt_tokens":7,"total_tokens":7}}"#;
    let mut upstream = Upstream::start([Reply::Hang, ok(usage)]).await;
    let (router, _) = router(&one(&upstream.base, "tpm: 1000", ""));
    // `max_tokens` is no field of it.
    let fields = format!(
        r#""input":["{}","{}"],"max_tokens":900"#,
        "a".repeat(200),
        "b".repeat(200)
    );
    let hanging = tokio::spawn({
        let (router, call) = (router.clone(), call(Endpoint::Embeddings, &fields));
        async move { router.call(call).await }
    });
    until(&router, |status| used(status) == 100).await;
    // Otherwise the next call would get the first answer.
    upstream.next().await;
    hanging.abort();
    let before = used(&status(&router));
    let answer = router
        .call(call(Endpoint::Embeddings, &fields))
        .await
        .unwrap();
    assert_eq!(text(answer.body).await.unwrap(), usage);
    until(&router, |status| used(status) == before + 7).await;
}

#[tokio::test]
async fn responses_reserve_max_output_tokens_and_are_corrected_by_stream_usage() {
    let (events, chunks) = mpsc::channel(4);
    let upstream = Upstream::start([Reply::Stream("text/event-stream", chunks)]).await;
    let (router, _) = router(&one(&upstream.base, "tpm: 1000", ""));
    let send = async |text: &'static str| events.send(Ok(Bytes::from(text))).await.unwrap();
    send("event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"hi\"}\n\n").await;
    let fields = r#""input":"12345678","max_output_tokens":50,"stream":true"#;
    let answer = router
        .call(call(Endpoint::Responses, fields))
        .await
        .unwrap();
    until(&router, |status| used(status) == 52).await;
    let last = "event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"output\":[],\"usage\":{\"input_tokens\":9,\"output_tokens\":4,\"total_tokens\":13}}}\n\n";
    send(last).await;
    drop(events);
    assert!(text(answer.body).await.unwrap().ends_with(last));
    until(&router, |status| used(status) == 13).await;
}

#[tokio::test]
async fn responses_stream_without_usage_is_charged_by_its_text() {
    let stream = "data: {\"type\":\"response.output_text.delta\",\"delta\":\"12345678\"}\n\n\
                  data: {\"type\":\"response.output_text.done\",\"text\":\"12345678\"}\n\n";
    let reply = || Reply::Typed("text/event-stream", stream.into());
    let upstream = Upstream::start([reply()]).await;
    let (router, _) = router(&one(&upstream.base, "tpm: 1000", ""));
    let fields = r#""input":[{"role":"user","content":"12345678"}],"stream":true"#;
    let answer = router
        .call(call(Endpoint::Responses, fields))
        .await
        .unwrap();
    assert_eq!(text(answer.body).await.unwrap(), stream);
    until(&router, |status| used(status) == 4).await;
}

#[tokio::test]
async fn speech_passes_unchanged_for_any_first_bytes() {
    // They would be taken for a comment of an event stream, for JSON, or for nothing.
    for first in [&b":\x00\x01"[..], b"{\x00", b"  ", b"<html"] {
        let (sound, chunks) = mpsc::channel(4);
        let upstream = Upstream::start([Reply::Stream("audio/pcm", chunks)]).await;
        let (router, _) = router(&one(&upstream.base, "tpm: 1000", ""));
        sound.send(Ok(Bytes::copy_from_slice(first))).await.unwrap();
        let fields = r#""input":"12345678","voice":"alloy""#;
        // It begins before its end.
        let answer = router.call(call(Endpoint::Speech, fields)).await.unwrap();
        assert_eq!(answer.headers["content-type"], "audio/pcm");
        sound
            .send(Ok(Bytes::from_static(b"\xff\xfe")))
            .await
            .unwrap();
        drop(sound);
        let body = http_body_util::BodyExt::collect(answer.body).await.unwrap();
        assert_eq!(body.to_bytes(), [first, b"\xff\xfe"].concat());
        assert_eq!(used(&status(&router)), 0, "a request, and no tokens");
    }
}

#[tokio::test]
async fn empty_speech_is_retried_and_speech_errors_are_returned() {
    let error_of_upstream =
        r#"{"error":{"message":"no such voice","type":"invalid_request_error"}}"#;
    let upstream = Upstream::start([
        Reply::Typed("audio/mpeg", "".into()),
        Reply::Typed("audio/mpeg", "ID3".into()),
        error(400, error_of_upstream),
    ])
    .await;
    let (router, _) = router(&one(&upstream.base, "", ""));
    let speech = || call(Endpoint::Speech, r#""input":"hi","voice":"alloy""#);
    let answer = router.call(speech()).await.unwrap();
    assert_eq!(answer.info.attempts, 2, "an empty answer is made again");
    let failed = router.call(speech()).await.unwrap_err();
    assert_eq!(failed.problem.status(), StatusCode::BAD_REQUEST);
    let body: Value = serde_json::from_slice(&failed.body()).unwrap();
    assert_eq!(body["error"]["message"], "no such voice");
}

#[tokio::test]
async fn embeddings_are_retried_and_queue_by_priority_with_chats() {
    let mut upstream = Upstream::start([error(500, "{}"), ok(r#"{"data":[]}"#), Reply::Hang]).await;
    let (router, _) = router(&one(&upstream.base, "max_parallel_requests: 1", ""));
    let embed = |rest: &str| call(Endpoint::Embeddings, &format!(r#""input":"a"{rest}"#));
    let answer = router.call(embed("")).await.unwrap();
    assert_eq!(answer.info.attempts, 2);
    drop(answer);
    let hanging = tokio::spawn({
        let (router, call) = (router.clone(), embed(""));
        async move { router.call(call).await }
    });
    // Otherwise another call would get the answer that hangs.
    for _ in 0..3 {
        upstream.next().await;
    }
    let batch = queued(&router, embed(r#","priority":9"#)).await;
    let user = queued(&router, chat(r#","priority":1"#)).await;
    hanging.abort();
    let user = user.await.unwrap().unwrap();
    assert!(!batch.is_finished(), "chat and embeddings share one queue");
    drop(user);
    batch.await.unwrap().unwrap();
}

#[tokio::test]
async fn failures_at_an_endpoint_that_other_deployments_lack_count_for_health() {
    let upstream = Upstream::start([error(500, "{}")]).await;
    let base = &upstream.base;
    let entry = |mode: &str| {
        format!(
            "- {{model_name: m, litellm_params: {{model: openai/{mode}, api_base: '{base}'}}, model_info: {{mode: {mode}}}}}\n"
        )
    };
    let list = entry("chat") + &entry("embedding");
    let (router, _) = router(&format!(
        "model_list:\n{list}router_settings: {{num_retries: 0, allowed_fails: 0, cooldown_time: 60}}\n"
    ));
    let embeddings = call(Endpoint::Embeddings, r#""input":"a""#);
    let failed = router.call(embeddings).await.unwrap_err();
    assert_eq!(failed.problem.status(), StatusCode::INTERNAL_SERVER_ERROR);
    until(&router, |status| status.deployments[1].cooling.is_some()).await;
}

#[tokio::test]
async fn model_info_mode_restricts_the_endpoints_of_a_deployment() {
    let mut upstream = Upstream::start([]).await;
    let base = &upstream.base;
    let entry = |name: &str, model: &str, mode: &str| {
        format!(
            "- {{model_name: {name}, litellm_params: {{model: openai/{model}, api_base: '{base}'}}, model_info: {{mode: {mode}}}}}\n"
        )
    };
    let list = [
        entry("m", "embedder", "embedding"),
        entry("both", "embedder", "embeddings"),
        entry("both", "talker", "chat"),
        entry("ocr", "reader", "ocr"),
    ];
    let (router, _) = router(&format!("model_list:\n{}", list.concat()));
    let failed = router.call(chat("")).await.unwrap_err();
    assert_eq!(failed.problem.kind(), ErrorKind::InvalidRequest);
    let problem = failed.problem.to_string();
    assert!(
        problem.starts_with("/chat/completions: m is for other endpoints"),
        "{problem}"
    );
    for _ in 0..8 {
        for (endpoint, fields, model) in [
            (Endpoint::Embeddings, r#""input":"a""#, "embedder"),
            (Endpoint::ChatCompletions, r#""messages":[]"#, "talker"),
        ] {
            let body = format!(r#"{{"model":"both",{fields}}}"#);
            router.call(Call::new(endpoint, body)).await.unwrap();
            let seen: Value = serde_json::from_slice(&upstream.next().await.body).unwrap();
            assert_eq!(seen["model"], model);
        }
    }
    // A mode that is not known restricts nothing.
    let body = r#"{"model":"ocr","input":"a"}"#;
    router
        .call(Call::new(Endpoint::Embeddings, body))
        .await
        .unwrap();
}

#[tokio::test]
async fn request_waits_for_room_at_a_deployment_of_its_mode() {
    let mut upstream = Upstream::start([Reply::Hang]).await;
    let base = &upstream.base;
    let entry = |model: &str, mode: &str| {
        format!(
            "- {{model_name: m, litellm_params: {{model: openai/{model}, api_base: '{base}', max_parallel_requests: 1}}, model_info: {{mode: {mode}}}}}\n"
        )
    };
    let text = [entry("talker", "chat"), entry("embedder", "embedding")].concat();
    let (router, _) = router(&format!("model_list:\n{text}"));
    let embed = || call(Endpoint::Embeddings, r#""input":"a""#);
    let hanging = tokio::spawn({
        let (router, call) = (router.clone(), embed());
        async move { router.call(call).await }
    });
    assert_eq!(upstream.next().await.path, "/v1/embeddings");
    let mut late = embed();
    late.timeout = vorrang_gateway::Setting::Set(std::time::Duration::from_millis(300));
    let failed = router.call(late).await.unwrap_err();
    assert_eq!(failed.problem.status(), StatusCode::REQUEST_TIMEOUT);
    router.call(chat("")).await.unwrap();
    assert_eq!(upstream.next().await.path, "/v1/chat/completions");
    hanging.abort();
    let answer = router.call(embed()).await.unwrap();
    assert_eq!(
        answer.info.attempts, 1,
        "a permit that is of no use is no attempt"
    );
}

#[tokio::test]
async fn status_404_of_a_missing_endpoint_does_not_cool_the_deployment() {
    let missing = || error(404, r#"{"error":{"message":"Not Found"}}"#);
    let upstream = Upstream::start([missing(), missing()]).await;
    let settings = "router_settings: {cooldown_time: 600, num_retries: 0}";
    let (router, _) = router(&one(&upstream.base, "", settings));
    let failed = router
        .call(call(Endpoint::Rerank, r#""query":"q","documents":[]"#))
        .await;
    assert_eq!(failed.unwrap_err().problem.status(), StatusCode::NOT_FOUND);
    assert!(status(&router).deployments[0].cooling.is_none());
    // A chat model that is not there is missed by every call.
    let failed = router.call(chat("")).await;
    assert_eq!(failed.unwrap_err().problem.status(), StatusCode::NOT_FOUND);
    until(&router, |status| status.deployments[0].cooling.is_some()).await;
}

#[tokio::test]
async fn mock_answers_embeddings_images_and_responses_and_refuses_other_endpoints() {
    let (router, _) = router(&mock("", ""));
    for (endpoint, fields) in REQUESTS {
        let outcome = router.call(call(*endpoint, fields)).await;
        match endpoint {
            Endpoint::Moderations | Endpoint::Rerank | Endpoint::Speech => {
                let problem = outcome.unwrap_err().problem;
                assert_eq!(problem.status(), StatusCode::BAD_REQUEST);
                assert!(problem.to_string().contains("mock_response"), "{problem}");
            }
            _ => {
                let body = text(outcome.unwrap().body).await.unwrap();
                assert!(serde_json::from_str::<Value>(&body).is_ok(), "{body}");
            }
        }
    }
}
