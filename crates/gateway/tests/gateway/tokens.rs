//! Tokens as the provider counts them: reserved before a call, corrected by what it used.

use crate::support::*;
use bytes::Bytes;
use tokio::sync::mpsc;

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
    status(&router).deployments[0].tokens
}

#[tokio::test]
async fn a_stream_without_usage_counts_what_was_streamed() {
    let reply = stream(&[EVENT, EVENT, "data: [DONE]\n\n"]);
    let rest = r#","stream":true,"max_tokens":500,"tools":[{"t":"12345678"}]"#;
    // The tools are 20 bytes.
    assert_eq!(counted(reply, "", rest).await, 5 + 6);
}

#[tokio::test]
async fn client_that_leaves_a_stream_is_charged_for_what_was_streamed() {
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
    assert_eq!(status(&router).deployments[0].tokens, 500);
    drop(answer);
    until(&router, |status| status.deployments[0].in_flight == 0).await;
    assert_eq!(status(&router).deployments[0].tokens, 3);
}

#[tokio::test]
async fn usage_corrects_the_reservation_in_every_form() {
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
async fn an_absurd_usage_does_not_stop_the_group() {
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
