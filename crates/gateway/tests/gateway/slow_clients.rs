//! Clients that do not read: permits and upstream calls do not wait for them beyond a small buffer.

use crate::support::*;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use tokio::sync::mpsc;

const EVENTS: &str = "text/event-stream";

/// The permit returns when the upstream is done, not when the client has read.
#[tokio::test]
async fn permit_returns_when_the_upstream_ends_before_the_client_has_read() {
    let event = Bytes::from(format!("data: {{\"x\":\"{}\"}}\n\n", "y".repeat(1000)));
    let (sender, chunks) = mpsc::channel(100);
    let upstream = Upstream::start([Reply::Stream(EVENTS, chunks)]).await;
    let (router, _) = router(&one(&upstream.base, "max_parallel_requests: 1", ""));
    let first = event.clone();
    sender.send(Ok(first)).await.unwrap();
    let answer = router.call(chat(r#","stream":true"#)).await.unwrap();
    for _ in 1..100 {
        sender.send(Ok(event.clone())).await.unwrap();
    }
    assert_eq!(status(&router).in_flight, 1, "the upstream is not done");
    drop(sender);
    until(&router, |status| status.in_flight == 0).await;
    let whole = answer.body.collect().await.unwrap().to_bytes();
    assert_eq!(whole, event.repeat(100));
}

/// The request's timeout also ends a whole answer that its client does not read.
#[tokio::test]
async fn unread_whole_answer_ends_at_the_request_timeout() {
    let megabyte = Bytes::from(vec![b' '; 1 << 20]);
    let (sender, chunks) = mpsc::channel(16);
    let upstream = Upstream::start([Reply::Stream("application/json", chunks)]).await;
    let (router, _) = router(&one(&upstream.base, "max_parallel_requests: 1", ""));
    for _ in 0..16 {
        sender.send(Ok(megabyte.clone())).await.unwrap();
    }
    let answer = router.call(chat(r#","timeout":0.5"#)).await.unwrap();
    until(&router, |status| status.in_flight == 0).await;
    let error = text(answer.body).await.unwrap_err();
    assert!(error.to_string().contains("time is up"), "{error}");
    drop(sender);
}

/// Back-pressure: a stream that is far ahead of its client waits, and goes on when the client reads.
#[tokio::test]
async fn stream_ahead_of_a_slow_client_is_paused_without_loss() {
    const CHUNKS: usize = 64;
    let chunk = Bytes::from(format!("data: {{\"x\":\"{}\"}}\n\n", "y".repeat(100_000)));
    let (sender, chunks) = mpsc::channel(1);
    let upstream = Upstream::start([Reply::Stream(EVENTS, chunks)]).await;
    let (router, _) = router(&one(&upstream.base, "", ""));
    let sending = tokio::spawn({
        let chunk = chunk.clone();
        async move {
            for _ in 0..CHUNKS {
                sender.send(Ok(chunk.clone())).await.unwrap();
            }
        }
    });
    let answer = router.call(chat(r#","stream":true"#)).await.unwrap();
    let whole = answer.body.collect().await.unwrap().to_bytes();
    assert_eq!(whole.len(), CHUNKS * chunk.len());
    sending.await.unwrap();
    until(&router, |status| status.in_flight == 0).await;
}

/// A7: a client that drops its answer ends the upstream call, whether it was reading or not.
#[tokio::test]
async fn dropped_answer_ends_the_upstream_call() {
    let (sender, chunks) = mpsc::channel(1);
    let upstream = Upstream::start([Reply::Stream(EVENTS, chunks)]).await;
    let (router, _) = router(&one(&upstream.base, "", ""));
    let event = Bytes::from_static(b"data: {}\n\n");
    sender.send(Ok(event)).await.unwrap();
    let answer = router.call(chat(r#","stream":true"#)).await.unwrap();
    drop(answer);
    until(&router, |status| status.in_flight == 0).await;
    sender.closed().await;
}
