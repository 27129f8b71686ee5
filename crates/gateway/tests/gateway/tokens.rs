//! Tokens as the provider counts them: reserved before a call, corrected by what it used.

use crate::support::*;
use bytes::Bytes;
use tokio::sync::mpsc;
use vorrang_scheduler::Tokens;

const EVENT: &str = "data: {\"choices\":[{\"delta\":{\"reasoning_content\":\"12345678\",\"tool_calls\":[{\"function\":{\"arguments\":\"1234\"}}]}}]}\n\n";

fn stream(chunks: &[&'static str]) -> Reply {
    let chunks = chunks.iter().map(|chunk| Ok::<_, std::io::Error>(*chunk));
    let chunks: Vec<_> = chunks.collect();
    let body = axum::body::Body::from_stream(futures_util::stream::iter(chunks));
    Reply::Typed("text/event-stream", body)
}

/// What counts against `tpm` once the call is over.
async fn counted(reply: Reply, params: &str, rest: &str) -> u64 {
    let upstream = Upstream::start([reply]).await;
    let (router, _) = router(&one(&upstream.base, &format!("tpm: 100000, {params}"), ""));
    let answer = router.call(chat(rest)).await.unwrap();
    text(answer.body).await.unwrap();
    until(&router, |status| status.deployments[0].in_flight == 0).await;
    status(&router).deployments[0].tokens.total()
}

#[tokio::test]
async fn stream_without_usage_is_charged_by_its_text() {
    let reply = stream(&[EVENT, EVENT, "data: [DONE]\n\n"]);
    let rest = r#","stream":true,"max_tokens":500,"tools":[{"t":"12345678"}]"#;
    // The tools are 20 bytes.
    assert_eq!(counted(reply, "", rest).await, 5 + 6);
}

#[tokio::test]
async fn abandoned_stream_is_charged_for_its_streamed_text() {
    let (chunks, receiver) = mpsc::channel(1);
    let upstream = Upstream::start([Reply::Stream("text/event-stream", receiver)]).await;
    let (router, _) = router(&one(&upstream.base, "tpm: 1000", ""));
    chunks.send(Ok(Bytes::from(EVENT))).await.unwrap();
    let call = router.call(chat(r#","stream":true,"max_tokens":500"#));
    let mut answer = call.await.unwrap();
    http_body_util::BodyExt::frame(&mut answer.body)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(status(&router).deployments[0].tokens.total(), 500);
    drop(answer);
    until(&router, |status| status.deployments[0].in_flight == 0).await;
    assert_eq!(status(&router).deployments[0].tokens.total(), 3);
}

#[tokio::test]
async fn reservation_is_corrected_by_usage_in_every_format() {
    for (usage, tokens) in [
        (
            r#""x_groq":{"usage":{"prompt_tokens":3,"completion_tokens":4}}"#,
            7,
        ),
        (
            r#""choices":[{"usage":{"input_tokens":3.0,"output_tokens":"4"}}]"#,
            7,
        ),
        (
            r#""usage":{"prompt_tokens":100,"completion_tokens":10,"prompt_tokens_details":{"cached_tokens":80}}"#,
            38,
        ),
        (r#""usage":{"total_tokens":-5}"#, 500),
    ] {
        let reply = ok(&format!("{{{usage}}}"));
        let rest = r#","max_tokens":500.0"#;
        assert_eq!(
            counted(reply, "cached_token_weight: 0.1", rest).await,
            tokens,
            "{usage}"
        );
    }
}

#[tokio::test]
async fn group_keeps_serving_after_absurd_usage() {
    for usage in [
        r#"{"total_tokens":9223372036854775807}"#,
        r#"{"prompt_tokens":18446744073709551615,"completion_tokens":18446744073709551615}"#,
        r#"{"total_tokens":1e308}"#,
    ] {
        let upstream = Upstream::start([ok(&format!(r#"{{"usage":{usage}}}"#))]).await;
        let (router, _) = router(&one(&upstream.base, "rpm: 10", ""));
        for _ in 0..3 {
            let answer = router.call(chat("")).await.unwrap();
            text(answer.body).await.unwrap();
        }
    }
}

/// A call of 20 bytes of tools and at most 100 tokens of answer, under limits of each kind.
const KINDS: &str = r#","stream":true,"max_tokens":100,"tools":[{"t":"12345678"}]"#;

#[tokio::test]
async fn input_and_output_tokens_are_reserved_and_corrected_separately() {
    let usage = "data: {\"usage\":{\"prompt_tokens\":20,\"completion_tokens\":40,\"prompt_tokens_details\":{\"cached_tokens\":8}}}\n\n";
    for limits in [
        "itpm: 1000",
        "otpm: 1000",
        "itpm: 1000, otpm: 1000, tpm: 2000",
    ] {
        let (chunks, receiver) = mpsc::channel(2);
        let upstream = Upstream::start([Reply::Stream("text/event-stream", receiver)]).await;
        let params = format!("{limits}, cached_token_weight: 0.5");
        let (router, _) = router(&one(&upstream.base, &params, ""));
        chunks.send(Ok(Bytes::from(EVENT))).await.unwrap();
        let answer = router.call(chat(KINDS)).await.unwrap();
        let counted = || status(&router).deployments[0].tokens;
        assert_eq!(counted(), Tokens::new(5, 100), "{limits}");
        chunks.send(Ok(Bytes::from(usage))).await.unwrap();
        drop(chunks);
        text(answer.body).await.unwrap();
        until(&router, |status| status.deployments[0].in_flight == 0).await;
        // More input than was estimated, less output than was asked for.
        assert_eq!(counted(), Tokens::new(16, 40), "{limits}");
    }
}

#[tokio::test]
async fn otpm_limit_delays_requests_until_shorter_answers_free_tokens() {
    let (chunks, receiver) = mpsc::channel(2);
    let streamed = Reply::Stream("text/event-stream", receiver);
    let upstream = Upstream::start([streamed, ok("{}")]).await;
    let (router, _) = router(&one(&upstream.base, "otpm: 100", ""));
    chunks.send(Ok(Bytes::from(EVENT))).await.unwrap();
    let long = router
        .call(chat(r#","stream":true,"max_tokens":100"#))
        .await
        .unwrap();
    let waits = router.call(chat(r#","max_tokens":97,"timeout":0.1"#)).await;
    let message = waits.unwrap_err().message();
    assert!(
        message.contains("room for output tokens (otpm)"),
        "{message}"
    );
    // The text of one event is three tokens.
    drop(chunks);
    text(long.body).await.unwrap();
    router.call(chat(r#","max_tokens":97"#)).await.unwrap();
}
