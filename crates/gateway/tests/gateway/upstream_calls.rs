//! What becomes of each upstream call is reported to its events.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use tokio::sync::mpsc;
use vorrang_gateway::{Call, Events, UpstreamCall, UpstreamEnd, UpstreamEvents};
use vorrang_scheduler::Tokens;

use crate::support::*;

#[derive(Debug, Clone, PartialEq)]
enum Told {
    Began(u16),
    Ended(UpstreamEnd, Option<Tokens>),
    Dropped,
}

/// What was told, by the number of the upstream call.
type Lines = Arc<Mutex<Vec<(usize, Told)>>>;

#[derive(Debug, Default)]
struct Watching {
    calls: Mutex<usize>,
    told: Lines,
}

#[derive(Debug)]
struct Watched(usize, Lines);

impl Events for Watching {
    fn calls_upstream(&self, call: &UpstreamCall<'_>) -> Option<Box<dyn UpstreamEvents>> {
        assert_eq!(
            (call.group, &*call.deployment.id, call.model),
            ("m", "d0", "up")
        );
        let mut calls = self.calls.lock().unwrap();
        *calls += 1;
        Some(Box::new(Watched(*calls, self.told.clone())))
    }
}

impl Watched {
    fn tell(&self, told: Told) {
        self.1.lock().unwrap().push((self.0, told));
    }
}

impl UpstreamEvents for Watched {
    fn add_headers(&self, headers: &mut HeaderMap) {
        headers.insert("traceparent", HeaderValue::from(self.0));
    }

    fn began(&mut self, status: u16) {
        self.tell(Told::Began(status));
    }

    fn ended(&mut self, end: UpstreamEnd, used: Option<Tokens>) {
        self.tell(Told::Ended(end, used));
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.tell(Told::Dropped);
    }
}

fn watched(rest: &str) -> (Call, Lines) {
    let events = Arc::new(Watching::default());
    let told = events.told.clone();
    (
        Call {
            events,
            ..chat(rest)
        },
        told,
    )
}

fn lines(told: &Lines) -> Vec<(usize, Told)> {
    told.lock().unwrap().clone()
}

const USAGE: &str =
    r#"{"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7},"choices":[]}"#;

#[tokio::test]
async fn each_attempt_is_reported_with_its_end_and_has_its_headers() {
    let mut upstream = Upstream::start([error(500, "{}"), ok(USAGE)]).await;
    let (router, _) = router(&one(&upstream.base, "num_retries: 1", ""));
    let (call, told) = watched("");
    drop(text(router.call(call).await.unwrap().body).await.unwrap());
    let failed = UpstreamEnd::Failed {
        status: 500,
        cause: "error status",
    };
    let used = Some(Tokens::new(3, 4));
    let expected = [
        (1, Told::Ended(failed, None)),
        (1, Told::Dropped),
        (2, Told::Began(200)),
        (2, Told::Ended(UpstreamEnd::Complete, used)),
        (2, Told::Dropped),
    ];
    assert_eq!(lines(&told), expected);
    for number in ["1", "2"] {
        assert_eq!(upstream.next().await.headers["traceparent"], number);
    }
}

#[tokio::test]
async fn stream_ends_complete_broken_or_with_its_error() {
    let error = std::io::Error::other("gone");
    let bytes = |text: &str| Ok(Bytes::from(text.to_owned()));
    for (last, end, used) in [
        (
            bytes(&format!("data: {USAGE}\n\n")),
            UpstreamEnd::Complete,
            Some(Tokens::new(3, 4)),
        ),
        (Err(error), UpstreamEnd::Broken, None),
        (
            bytes("data: {\"error\":{\"message\":\"x\",\"code\":503}}\n\n"),
            UpstreamEnd::Failed {
                status: 503,
                cause: "error in a stream",
            },
            None,
        ),
    ] {
        let (sender, chunks) = mpsc::channel(2);
        let upstream = Upstream::start([Reply::Stream("text/event-stream", chunks)]).await;
        let (router, _) = router(&one(&upstream.base, "num_retries: 0", ""));
        let first = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n";
        sender.send(bytes(first)).await.unwrap();
        let (call, told) = watched(r#","stream":true"#);
        let answer = router.call(call).await.unwrap();
        assert_eq!(lines(&told), [(1, Told::Began(200))]);
        sender.send(last).await.unwrap();
        drop(sender);
        drop(text(answer.body).await);
        let ended = (1, Told::Ended(end, used));
        assert_eq!(lines(&told)[1..], [ended, (1, Told::Dropped)]);
    }
}

#[tokio::test]
async fn caller_that_leaves_abandons_its_upstream_call() {
    let (sender, chunks) = mpsc::channel(2);
    let stream = Reply::Stream("text/event-stream", chunks);
    let mut upstream = Upstream::start([Reply::Hang, stream]).await;
    let (router, _) = router(&one(&upstream.base, "max_parallel_requests: 1", ""));
    // Before its answer began.
    let (call, told) = watched("");
    let calling = tokio::spawn({
        let router = router.clone();
        async move { router.call(call).await.map(drop) }
    });
    drop(upstream.next().await);
    calling.abort();
    until(&router, |status| status.in_flight == 0).await;
    assert_eq!(lines(&told), [(1, Told::Dropped)]);
    // In the middle of its answer.
    let first = "data: {\"choices\":[]}\n\n";
    sender.send(Ok(Bytes::from(first))).await.unwrap();
    let (call, told) = watched(r#","stream":true"#);
    drop(router.call(call).await.unwrap());
    until(&router, |status| status.in_flight == 0).await;
    let ended = Told::Ended(UpstreamEnd::Abandoned, None);
    let expected = [
        (1, Told::Began(200)),
        (1, ended.clone()),
        (1, Told::Dropped),
    ];
    assert_eq!(lines(&told), expected);
}
