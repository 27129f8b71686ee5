//! When an answer has begun: before its first event, or its whole body, its attempt may fail and be retried.

use std::sync::Arc;

use crate::support::*;
use bytes::Bytes;
use futures_util::future::join_all;
use http::StatusCode;
use http_body_util::BodyExt as _;
use tokio::sync::mpsc;
use vorrang_gateway::{Answer, Call, CallError, Events, Router, Stage};

const STREAM: &str = r#","stream":true"#;
const EVENT: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n";
const BUSY: &str = "data: {\"error\":{\"message\":\"slow down\",\"code\":429}}\n\n";

/// A 200 with these bytes.
fn with(kind: &str, body: &str) -> Reply {
    let headers = vec![
        ("content-type", kind.to_owned()),
        ("retry-after", "0.01".into()),
    ];
    Reply::With(StatusCode::OK, headers, Bytes::from(body.to_owned()))
}

fn events(body: &str) -> Reply {
    with("text/event-stream; charset=utf-8", body)
}

/// An event stream that has sent this and is still open.
async fn open(body: &'static str) -> (mpsc::Sender<Result<Bytes, std::io::Error>>, Reply) {
    let (chunks, receiver) = mpsc::channel(8);
    if !body.is_empty() {
        chunks.send(Ok(Bytes::from(body))).await.unwrap();
    }
    (chunks, Reply::Stream("text/event-stream", receiver))
}

/// The statuses of a call's attempts, with its outcome.
async fn attempts(router: &Router, rest: &str) -> (Vec<u16>, Result<Answer, CallError>) {
    let log = Arc::new(Log::default());
    let call = Call {
        events: log.clone(),
        ..chat(rest)
    };
    let outcome = router.call(call).await;
    let statuses = log.upstream.lock().unwrap();
    (
        statuses.iter().map(|(_, status)| *status).collect(),
        outcome,
    )
}

const QUICK: &str = "router_settings: {allowed_fails: 100, cooldown_time: 0.01, num_retries: 1}";

#[tokio::test]
async fn status_200_without_an_answer_is_a_failed_attempt() {
    let whole = r#"{"id":"x"}"#;
    let cases = [
        ("", with("application/json", ""), 0),
        ("", with("application/json", " \n"), 0),
        ("", with("application/json", "{\"choices\":["), 0),
        ("", with("text/html", "<p>Bad gateway"), 0),
        ("", with("application/json", "<!doctype html>"), 0),
        (
            "",
            with(
                "application/json",
                r#"{"error":{"message":"no","code":429}}"#,
            ),
            429,
        ),
        ("", with("application/json", r#"{"error":"no"}"#), 500),
        (
            STREAM,
            with("application/json", r#"{"error":{"code":503}}"#),
            503,
        ),
        (STREAM, with("text/html", "<html>"), 0),
        (STREAM, events(""), 0),
        (
            STREAM,
            events(": processing\n\nevent: ping\ndata: {}\n\n"),
            0,
        ),
        (STREAM, events("data: [DONE]\n\n"), 0),
        (STREAM, events("data: {\"choices\":"), 0),
        (STREAM, events(BUSY), 429),
        (STREAM, events("event: error\ndata: overloaded\n\n"), 500),
        (STREAM, with("text/plain", BUSY), 429),
    ];
    join_all(cases.map(async |(rest, reply, status)| {
        let upstream = Upstream::start([reply, ok(whole)]).await;
        let (router, _) = router(&one(&upstream.base, "", QUICK));
        let (statuses, answer) = attempts(&router, rest).await;
        assert_eq!(statuses, [status, 200]);
        assert_eq!(text(answer.unwrap().body).await.unwrap(), whole);
    }))
    .await;
}

#[tokio::test]
async fn client_error_in_a_200_is_returned_with_its_own_status_and_message() {
    let error =
        r#"{"message":"max_tokens is too large","type":"invalid_request_error","code":null}"#;
    for (rest, reply) in [
        (STREAM, events(&format!("data: {{\"error\":{error}}}\n\n"))),
        ("", ok(&format!("{{\"error\":{error},\"choices\":[]}}"))),
    ] {
        let mut upstream = Upstream::start([reply]).await;
        let (router, _) = router(&one(
            &upstream.base,
            "",
            "router_settings: {allowed_fails: 0}",
        ));
        let (statuses, failed) = attempts(&router, rest).await;
        let failed = failed.unwrap_err();
        assert_eq!(failed.status(), StatusCode::BAD_REQUEST);
        assert_eq!(failed.body(), format!("{{\"error\":{error}}}"));
        // A client error is not retried and does not count as a failure of the deployment.
        assert_eq!(statuses, [400]);
        upstream.next().await;
        assert_eq!(upstream.pending(), 0);
        assert_eq!(status(&router).deployments[0].cooling, None);
    }
}

/// Codings of event streams pass only where no comments are written into them.
const CODED: &str = "vorrang_settings: {keepalive_seconds: 0}\n";

#[tokio::test]
async fn errors_and_truncation_in_gzipped_200s_are_failed_attempts() {
    let whole = (
        "",
        "application/json",
        r#"{"error":{"code":429}}"#,
        r#"{"id":"x"}"#,
    );
    let stream = (STREAM, "text/event-stream", BUSY, EVENT);
    let cases = [
        (whole, None),
        (whole, Some("gzip")),
        (stream, None),
        (stream, Some("gzip")),
    ];
    join_all(cases.map(async |((rest, kind, bad, good), accept)| {
        let coded = |body: &str, cut: usize| {
            let headers = vec![
                ("content-type", kind.to_owned()),
                ("content-encoding", "gzip".into()),
            ];
            let mut coded = gzip(body.as_bytes());
            coded.truncate(coded.len() - cut);
            Reply::With(StatusCode::OK, headers, coded)
        };
        let replies = [coded(bad, 0), coded(good, 12), coded(good, 0)];
        let upstream = Upstream::start(replies).await;
        let settings = QUICK.replace("num_retries: 1", "num_retries: 2");
        let (router, _) = router(&one(&upstream.base, "", &format!("{CODED}{settings}")));
        let call = Call {
            codings: accept.map(str::to_owned),
            ..chat(rest)
        };
        let answer = router.call(call).await.unwrap();
        assert_eq!(answer.info.attempts, 3);
        let passed = answer.body.collect().await.unwrap().to_bytes();
        let expected = if accept.is_some() {
            gzip(good.as_bytes())
        } else {
            Bytes::from(good)
        };
        assert_eq!(passed, expected);
    }))
    .await;
}

#[tokio::test]
async fn gzipped_429_event_after_the_first_event_cools_the_deployment() {
    let coded = gzip(format!("{EVENT}{BUSY}").as_bytes());
    let headers = vec![
        ("content-type", "text/event-stream".to_owned()),
        ("content-encoding", "gzip".into()),
    ];
    let reply = Reply::With(StatusCode::OK, headers, coded.clone());
    let upstream = Upstream::start([reply]).await;
    let settings = format!("{CODED}router_settings: {{cooldown_time: 60}}");
    let (router, _) = router(&one(&upstream.base, "", &settings));
    let call = Call {
        codings: Some("gzip".into()),
        ..chat(STREAM)
    };
    let answer = router.call(call).await.unwrap();
    let passed = answer.body.collect().await.unwrap().to_bytes();
    assert_eq!(passed, coded);
    until(&router, |status| status.deployments[0].cooling.is_some()).await;
}

#[tokio::test]
async fn api_key_in_an_error_of_a_200_is_masked() {
    let reply =
        events("data: {\"error\":{\"message\":\"no such key: sk-secret\",\"code\":401}}\n\n");
    let upstream = Upstream::start([reply]).await;
    let (router, _) = router(&one(&upstream.base, "", ""));
    let failed = router.call(chat(STREAM)).await.unwrap_err();
    let expected = r#"{"error":{"message":"no such key: ***","code":401}}"#;
    assert_eq!(
        (failed.status().as_u16(), failed.body()),
        (401, expected.into())
    );
}

#[tokio::test]
async fn connection_closed_before_the_first_event_or_whole_body_is_a_failed_attempt() {
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 500\r\ncontent-type: ";
    let cases = [
        ("", format!("{head}application/json\r\n\r\n")),
        ("", format!("{head}application/json\r\n\r\n{{\"id\":")),
        (STREAM, format!("{head}text/event-stream\r\n\r\n")),
        (
            STREAM,
            format!("{head}text/event-stream\r\n\r\n: hi\n\ndata: {{\"a"),
        ),
    ];
    join_all(cases.map(async |(rest, bytes)| {
        let (base, count) = rude(bytes.leak().as_bytes()).await;
        let (router, _) = router(&one(&base, "num_retries: 1", ""));
        let failed = router.call(chat(rest)).await.unwrap_err();
        assert_eq!((failed.status().as_u16(), failed.info().attempts), (502, 2));
        assert_eq!(*count.lock().unwrap(), 2);
    }))
    .await;
}

#[tokio::test]
async fn stream_timeout_bounds_the_time_until_the_first_event() {
    for start in ["", ": processing\n\n"] {
        let (chunks, silent) = open(start).await;
        let mut upstream = Upstream::start([silent, events(EVENT)]).await;
        let (router, _) = router(&one(
            &upstream.base,
            "stream_timeout: 0.2, max_parallel_requests: 1, num_retries: 1",
            "",
        ));
        let (statuses, answer) = attempts(&router, STREAM).await;
        assert_eq!(statuses, [0, 200]);
        assert_eq!(text(answer.unwrap().body).await.unwrap(), EVENT);
        upstream.gone().await;
        drop(chunks);
    }
}

// Comments before the first event pass with it; nothing is lost or reordered.
#[tokio::test]
async fn stream_is_forwarded_from_its_first_byte() {
    let (chunks, stream) = open(": processing\n\n").await;
    let upstream = Upstream::start([stream]).await;
    let (router, _) = router(&one(&upstream.base, "", ""));
    for piece in [&EVENT[..9], &EVENT[9..], "data: [DO", "NE]\n\n"] {
        chunks
            .send(Ok(Bytes::from_static(piece.as_bytes())))
            .await
            .unwrap();
    }
    drop(chunks);
    let answer = router.call(chat(STREAM)).await.unwrap();
    let expected = format!(": processing\n\n{EVENT}data: [DONE]\n\n");
    assert_eq!(text(answer.body).await.unwrap(), expected);
}

#[derive(Debug, Default)]
struct Stages(std::sync::Mutex<Vec<Stage>>);

impl Events for Stages {
    fn stage(&self, stage: Stage) {
        self.0.lock().unwrap().push(stage);
    }
}

#[tokio::test]
async fn stream_head_before_its_first_event_is_reported_as_the_silent_stage() {
    let upstream = Upstream::start([events(EVENT)]).await;
    let (router, _) = router(&one(&upstream.base, "keepalive_seconds: 7", ""));
    let stages = Arc::new(Stages::default());
    let call = Call {
        events: stages.clone(),
        ..chat(STREAM)
    };
    router.call(call).await.unwrap();
    let keepalive = std::time::Duration::from_secs(7);
    let stages = stages.0.lock().unwrap();
    assert_eq!(stages.last(), Some(&Stage::Silent { keepalive }));
}

#[tokio::test]
async fn large_whole_answer_keeps_its_length_and_bytes() {
    let large = format!("{{\"id\":\"{}\"}}", "x".repeat(3 * 1024 * 1024));
    let upstream = Upstream::start([ok(&large)]).await;
    let (router, _) = router(&one(&upstream.base, "", ""));
    let answer = router.call(chat("")).await.unwrap();
    assert_eq!(
        http_body::Body::size_hint(&answer.body).exact(),
        Some(large.len() as u64)
    );
    assert!(text(answer.body).await.unwrap() == large);
}

// A9: what happens after the first event counts.
#[tokio::test]
async fn error_event_429_after_the_first_event_passes_and_cools_the_deployment() {
    let (chunks, stream) = open(EVENT).await;
    let upstream = Upstream::start([stream]).await;
    let settings = "router_settings: {cooldown_time: 60}";
    let (router, _) = router(&one(&upstream.base, "", settings));
    let answer = router.call(chat(STREAM)).await.unwrap();
    chunks.send(Ok(Bytes::from(BUSY))).await.unwrap();
    drop(chunks);
    // The client gets all of it.
    assert_eq!(text(answer.body).await.unwrap(), format!("{EVENT}{BUSY}"));
    until(&router, |status| status.deployments[0].cooling.is_some()).await;
}

#[tokio::test]
async fn stream_broken_after_its_first_event_counts_as_a_failure_without_retry() {
    let (chunks, stream) = open(EVENT).await;
    let mut upstream = Upstream::start([stream]).await;
    let settings = "router_settings: {allowed_fails: 0, cooldown_time: 60}";
    let (router, _) = router(&one(&upstream.base, "", settings));
    let mut answer = router.call(chat(STREAM)).await.unwrap();
    answer.body.frame().await.unwrap().unwrap();
    chunks
        .send(Err(std::io::Error::other("broken")))
        .await
        .unwrap();
    assert!(answer.body.frame().await.unwrap().is_err());
    until(&router, |status| status.deployments[0].cooling.is_some()).await;
    upstream.next().await;
    // The answer has begun: no retry.
    assert_eq!(upstream.pending(), 0);
}
