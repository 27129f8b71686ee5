//! Event streams that begin before their answer: comments keep the connection alive while the call waits in the queue, or for its
//! upstream's first event. By then the status is 200: what would have been headers are comments, and an error is an event.

use std::{
    fmt::Write as _,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use futures_util::{FutureExt as _, future::BoxFuture, stream};
use http::{HeaderMap, HeaderValue, header};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tokio_util::task::AbortOnDropHandle;
use vorrang_gateway::{Answer, CallError, Endpoint, Place, Stage};

use crate::{
    failure::Failure,
    record::{Record, Staged},
    stream::keepalive,
};

/// How a call ended: with the gateway's answer or error, or with one of the server's own.
pub(crate) type Outcome = Result<Result<Answer, CallError>, Failure>;

/// A call whose answer has not begun.
pub(crate) struct PendingCall {
    pub(crate) outcome: BoxFuture<'static, Outcome>,
    pub(crate) record: Record,
    /// Which API's events it has.
    pub(crate) endpoint: Endpoint,
    /// After how much silence a client wants a comment while its call waits; `None`: it did not ask for any.
    pub(crate) asked: Option<Duration>,
}

/// What comes first.
pub(crate) enum First {
    Outcome(Box<Outcome>),
    /// The response that has to begin now, with comments.
    Comments(Response),
}

// === impl PendingCall ===

impl PendingCall {
    /// Waits for the call's outcome, or until a comment is due.
    pub(crate) async fn first(mut self) -> First {
        let mut due = Due::new(self.asked);
        let first = poll_fn(|cx| match self.outcome.poll_unpin(cx) {
            Poll::Ready(outcome) => Poll::Ready(Ok(outcome)),
            // The call's stage changes only while it is polled.
            Poll::Pending => due.poll(self.record.staged(), cx).map(Err),
        });
        let every = match first.await {
            Ok(outcome) => return First::Outcome(Box::new(outcome)),
            Err(every) => every,
        };
        let comments = Comments {
            record: self.record,
            endpoint: self.endpoint,
            // A task of its own: it goes on also while the client takes no bytes. Dropping its handle ends it (A7).
            outcome: AbortOnDropHandle::new(tokio::spawn(self.outcome)),
            every,
            next: Instant::now(),
            told: false,
        };
        let parts = stream::unfold(Part::Comments(Box::new(comments)), Part::next);
        let mut response = Response::new(Body::from_stream(parts));
        let kind = HeaderValue::from_static("text/event-stream");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        First::Comments(response)
    }
}

/// When the first comment is due. For a client that asked: at once when its position is known. For any other only in an event stream that
/// its upstream has begun.
struct Due {
    asked: Option<Duration>,
    /// Since when a client that asked waits for its call.
    begun: Instant,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Due {
    fn new(asked: Option<Duration>) -> Self {
        Self {
            asked,
            begun: Instant::now(),
            timer: None,
        }
    }

    /// Ready when it is due, with the time until the next one.
    fn poll(&mut self, staged: Staged, cx: &mut Context<'_>) -> Poll<Duration> {
        let Staged { stage, since } = staged;
        let silent = match stage {
            Stage::Silent { keepalive } if !keepalive.is_zero() => Some((since, keepalive)),
            _ => None,
        };
        let next = match (stage, self.asked) {
            (Stage::Queued { .. }, Some(every)) => return Poll::Ready(every),
            (Stage::Checking, _) | (_, None) => silent,
            (_, Some(every)) => Some((self.begun, every)),
        };
        let Some((since, every)) = next else {
            self.timer = None;
            return Poll::Pending;
        };
        let until = since + every;
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(sleep_until(until)));
        if timer.deadline() != until {
            timer.as_mut().reset(until);
        }
        timer.as_mut().poll(cx).map(|()| every)
    }
}

/// What an early event stream is made of, in this order.
enum Part {
    Comments(Box<Comments>),
    Answer(Body),
    End,
}

// === impl Part ===

impl Part {
    async fn next(self) -> Option<(Result<Bytes, axum::Error>, Self)> {
        match self {
            Self::Comments(mut comments) => match comments.next().await {
                Ok(comment) => Some((Ok(comment), Self::Comments(comments))),
                Err(outcome) => {
                    let (bytes, rest) = begin(outcome, &comments.record, comments.endpoint);
                    Some((Ok(bytes), rest))
                }
            },
            Self::Answer(mut body) => loop {
                // Trailers have no meaning here.
                match body.frame().await? {
                    Ok(frame) => {
                        if let Ok(bytes) = frame.into_data() {
                            return Some((Ok(bytes), Self::Answer(body)));
                        }
                    }
                    Err(error) => return Some((Err(error), Self::End)),
                }
            },
            Self::End => None,
        }
    }
}

struct Comments {
    outcome: AbortOnDropHandle<Outcome>,
    record: Record,
    endpoint: Endpoint,
    every: Duration,
    next: Instant,
    /// The last comment told its place in the queue.
    told: bool,
}

// === impl Comments ===

impl Comments {
    /// The next comment, or the call's outcome.
    async fn next(&mut self) -> Result<Bytes, Outcome> {
        tokio::select! {
            biased;
            outcome = &mut self.outcome => {
                // The panic itself is on stderr by now.
                return Err(outcome.unwrap_or_else(|_| Err(Failure::internal())));
            }
            () = sleep_until(self.next) => {}
        }
        let staged = self.record.staged();
        let queued = matches!(staged.stage, Stage::Queued { .. });
        // The first comment of a wait has the place that it came to.
        let place = if queued && self.told {
            self.record.place()
        } else {
            None
        };
        let staged = tokio::select! {
            biased;
            outcome = &mut self.outcome => {
                return Err(outcome.unwrap_or_else(|_| Err(Failure::internal())));
            }
            staged = present(staged, place) => staged,
        };
        self.next = Instant::now() + self.every;
        self.told = queued;
        Ok(comment(staged))
    }
}

/// What a call is doing, with its present place in the queue where that can be asked for.
async fn present(staged: Staged, place: Option<Place>) -> Staged {
    let Some(place) = place else {
        return staged;
    };
    // An unresponsive backend holds no comment up.
    match timeout(LONGEST_LOOK, place.now()).await {
        Ok(Some((ahead, least_wait))) => Staged {
            stage: Stage::Queued { ahead, least_wait },
            since: Instant::now(),
        },
        // The ticket of a paused key may have left the queue: where it came to says nothing any more.
        _ if place.is_paused() => Staged {
            stage: Stage::Entering,
            ..staged
        },
        _ => staged,
    }
}

/// How long a comment waits for the present place in the queue.
const LONGEST_LOOK: Duration = Duration::from_millis(500);

fn comment(Staged { stage, since }: Staged) -> Bytes {
    match stage {
        Stage::Queued { ahead, least_wait } => {
            let position = ahead.saturating_add(1);
            let left = least_wait.map(|least| least.saturating_sub(since.elapsed()).as_millis());
            let Some(left) = left else {
                let comment =
                    format!(": queued position={position}\n: x-vorrang-position: {position}\n\n");
                return comment.into();
            };
            format!(
                ": queued position={position} least_wait_ms={left}\n\
                 : x-vorrang-position: {position}\n\
                 : x-vorrang-least-wait-ms: {left}\n\n"
            )
            .into()
        }
        Stage::Entering => Bytes::from_static(b": queued\n\n"),
        Stage::Checking | Stage::Calling | Stage::Silent { .. } => keepalive::COMMENT,
    }
}

/// The answer's own beginning: its headers as comments, then its body; or the error as an event, and the end.
fn begin(outcome: Outcome, record: &Record, endpoint: Endpoint) -> (Bytes, Part) {
    let ours = |failure: &Failure, headers: &HeaderMap| {
        let body = if endpoint.is_anthropic() {
            failure.anthropic_body(&record.call_id)
        } else {
            failure.body()
        };
        error_event(endpoint, &body, headers)
    };
    match outcome {
        Ok(Ok(answer)) if keepalive::is_event_stream(&answer.headers) => {
            record.call(&answer.info);
            let every = answer.info.keepalive;
            let body = keepalive::kept_alive(Body::new(answer.body), every);
            (comments(&answer.headers).into(), Part::Answer(body))
        }
        Ok(Ok(answer)) => {
            record.call(&answer.info);
            let failure = Failure::no_event_stream();
            let error = ours(&failure, &answer.headers);
            record.failed_in_stream(failure.status());
            (error, Part::End)
        }
        Ok(Err(error)) => {
            record.call(error.info());
            record.failed_in_stream(error.status());
            // One line: the fields of an upstream's own error may be on several.
            let body = serde_json::from_slice(&error.body()).unwrap_or_default();
            (error_event(endpoint, &body, &error.headers()), Part::End)
        }
        Err(failure) => {
            record.failed_in_stream(failure.status());
            (ours(&failure, &HeaderMap::new()), Part::End)
        }
    }
}

fn error_event(endpoint: Endpoint, body: &Value, headers: &HeaderMap) -> Bytes {
    let comments = comments(headers);
    if endpoint.is_anthropic() {
        format!("{comments}event: error\ndata: {body}\n\n").into()
    } else {
        format!("{comments}data: {body}\n\ndata: [DONE]\n\n").into()
    }
}

/// Headers that came too late for the response's head, one comment each; without those that describe its bytes.
fn comments(headers: &HeaderMap) -> String {
    let mut text = String::new();
    for (name, value) in headers {
        let described = matches!(
            *name,
            header::CONTENT_TYPE | header::CONTENT_ENCODING | header::CACHE_CONTROL
        );
        if let (false, Ok(value)) = (described, value.to_str()) {
            // Writing to a `String` cannot fail.
            let _ = writeln!(text, ": {name}: {value}");
        }
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use axum::body::to_bytes;
    use http::{Request, StatusCode};
    use tokio::time::timeout;
    use vorrang_gateway::{Config, Events as _};
    use vorrang_scheduler::backend::MemoryBackend;

    use super::*;
    use crate::{
        api::{self, front::Front},
        app::App,
        connection::slots::Budget,
        eviction::Eviction,
        patience::Patience,
    };

    /// One request in a window of 60 s, at most one that waits.
    const CONFIG: &str = "
model_list: [{model_name: m, litellm_params: {model: openai/m, mock_response: hello, rpm: 1}}]
vorrang_settings: {max_queue_depth: 1}
";

    fn gateway(more: &str) -> (Arc<App>, Front) {
        let text = format!("{}{more}", CONFIG.trim_end().trim_end_matches('}'));
        let config = Config::parse(&format!("{text}}}\n"), "test.yaml", &BTreeMap::new());
        let backend = Arc::new(MemoryBackend::new());
        let app = Arc::new(App::start(
            config.unwrap().config,
            backend,
            Eviction::never(),
            Patience::default(),
            Budget::of(1024),
        ));
        (app.clone(), api::service(app))
    }

    fn streamed(more: &str) -> Request<Body> {
        let body = format!(r#"{{"model": "m", "messages": [], "stream": true{more}}}"#);
        let request = Request::post("/v1/chat/completions")
            .header("content-type", "application/json")
            .header("x-vorrang-keepalive", "true");
        request.body(Body::from(body)).unwrap()
    }

    async fn send(routes: &Front, request: Request<Body>) -> Response {
        routes.clone().oneshot(request).await.unwrap()
    }

    async fn chunk(body: &mut Body) -> String {
        let frame = body.frame().await.unwrap().unwrap();
        String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap()
    }

    async fn rest(body: Body) -> String {
        let bytes = to_bytes(body, usize::MAX).await.unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    /// Uses up the window.
    async fn fill(routes: &Front) {
        let response = send(routes, streamed("")).await;
        assert_eq!(
            response.headers()["x-litellm-priority"],
            "0",
            "no early head"
        );
        assert!(rest(response.into_body()).await.contains("hello"));
    }

    #[tokio::test(start_paused = true)]
    async fn early_stream_reports_queue_position_in_comments_until_its_answer() {
        let (_app, routes) = gateway("");
        fill(&routes).await;
        let begun = Instant::now();
        let response = send(&routes, streamed("")).await;
        assert!(begun.elapsed() < Duration::from_secs(1), "before the grant");
        assert_eq!(response.status(), StatusCode::OK);
        let headers = response.headers();
        assert_eq!(headers[header::CONTENT_TYPE], "text/event-stream");
        assert_eq!(headers[header::CACHE_CONTROL], "no-cache");
        assert_eq!(headers["x-accel-buffering"], "no");
        assert!(headers.contains_key("x-litellm-call-id"));

        let mut body = response.into_body();
        let mut waits = Vec::new();
        for _ in 0..5 {
            let comment = chunk(&mut body).await;
            let wait = comment.strip_prefix(": queued position=1 least_wait_ms=");
            let wait = wait.unwrap_or_else(|| panic!("{comment:?}"));
            let (wait, headers) = wait.split_once('\n').unwrap();
            let expected =
                format!(": x-vorrang-position: 1\n: x-vorrang-least-wait-ms: {wait}\n\n");
            assert_eq!(headers, expected);
            waits.push(wait.parse::<u64>().unwrap());
        }
        assert!(waits[0] > 59_000 && waits[0] <= 60_100, "{waits:?}");
        for pair in waits.windows(2) {
            assert!((pair[0] - pair[1]).abs_diff(15_000) <= 100, "{waits:?}");
        }
        let answer = rest(body).await;
        // Headers that came too late for the head, then the stream itself.
        let (comments, stream) = answer.split_once("\n\n").unwrap();
        assert!(
            comments.lines().all(|line| line.starts_with(": ")),
            "{comments}"
        );
        assert!(
            comments.contains(": x-vorrang-ticket: arrival="),
            "{comments}"
        );
        assert!(stream.starts_with("data: {"), "{stream}");
        assert!(
            stream.contains("hello") && stream.ends_with("data: [DONE]\n\n"),
            "{stream}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn error_after_an_early_head_is_an_event() {
        let (_app, routes) = gateway("");
        fill(&routes).await;
        let response = send(&routes, streamed(r#", "timeout": 20"#)).await;
        assert_eq!(response.status(), StatusCode::OK);
        let text = rest(response.into_body()).await;
        let events: Vec<_> = text
            .lines()
            .filter(|line| line.starts_with("data: "))
            .collect();
        assert_eq!(events.len(), 2, "{text}");
        assert_eq!(events[1], "data: [DONE]");
        let error: Value = serde_json::from_str(&events[0]["data: ".len()..]).unwrap();
        assert_eq!(error["error"]["code"], "408", "{error}");
        assert_eq!(error["error"]["type"], "timeout_error");
        assert!(text.contains(": x-should-retry: false\n"), "{text}");
    }

    #[tokio::test(start_paused = true)]
    async fn error_of_a_message_after_an_early_head_is_anthropics_event() {
        let (_app, routes) = gateway("");
        fill(&routes).await;
        let mut request = streamed(r#", "max_tokens": 9, "timeout": 20"#);
        *request.uri_mut() = http::Uri::from_static("/v1/messages");
        let response = send(&routes, request).await;
        assert_eq!(response.status(), StatusCode::OK);
        let text = rest(response.into_body()).await;
        let (_, event) = text.split_once("event: error\ndata: ").unwrap();
        let error: Value = serde_json::from_str(event).unwrap();
        assert_eq!(error["type"], "error", "{error}");
        assert_eq!(error["error"]["type"], "timeout_error");
        assert!(
            error["request_id"].is_string() && !text.contains("[DONE]"),
            "{text}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn refusal_before_the_wait_keeps_its_status() {
        let (app, routes) = gateway("");
        fill(&routes).await;
        let _waiting = send(&routes, streamed("")).await;
        let full = send(&routes, streamed("")).await;
        assert_eq!(full.status(), StatusCode::TOO_MANY_REQUESTS);
        let invalid = send(&routes, streamed(r#", "priority": "best""#)).await;
        assert_eq!(invalid.status(), StatusCode::BAD_REQUEST);
        let mut wrong = streamed("");
        let value = HeaderValue::from_static("yes");
        wrong.headers_mut().insert("x-vorrang-keepalive", value);
        assert_eq!(send(&routes, wrong).await.status(), StatusCode::BAD_REQUEST);
        assert_eq!(app.router.groups()[0].status.waiting, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn only_streams_with_the_keepalive_header_begin_early() {
        let (_app, routes) = gateway("");
        let (_off, without) = gateway(", keepalive_seconds: 0");
        for routes in [&routes, &without] {
            fill(routes).await;
        }
        let mut silent = streamed(r#", "timeout": 20"#);
        silent.headers_mut().remove("x-vorrang-keepalive");
        assert_eq!(
            send(&routes, silent).await.status(),
            StatusCode::REQUEST_TIMEOUT
        );
        let whole = streamed(r#", "timeout": 20, "stream": false"#);
        assert_eq!(
            send(&routes, whole).await.status(),
            StatusCode::REQUEST_TIMEOUT
        );
        let off = streamed(r#", "timeout": 20"#);
        assert_eq!(
            send(&without, off).await.status(),
            StatusCode::REQUEST_TIMEOUT
        );
    }

    #[tokio::test(start_paused = true)]
    async fn disconnect_during_early_comments_leaves_the_queue() {
        let (app, routes) = gateway("");
        fill(&routes).await;
        let response = send(&routes, streamed("")).await;
        let mut body = response.into_body();
        chunk(&mut body).await;
        assert_eq!(app.router.groups()[0].status.waiting, 1);
        drop(body);
        while app.router.groups()[0].status.waiting > 0 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn shutdown_ends_an_early_stream_with_a_503_event() {
        let (app, routes) = gateway("");
        fill(&routes).await;
        let response = send(&routes, streamed("")).await;
        app.lifecycle.cut.cancel();
        let text = rest(response.into_body()).await;
        assert!(text.contains(r#""code":"503""#), "{text}");
    }

    /// What its upstream has begun stays open, whether the client asked or not.
    #[tokio::test(start_paused = true)]
    async fn silent_upstream_stream_begins_after_the_keepalive_interval() {
        let (app, _routes) = gateway("");
        let record = Record::new("id".into(), None, app.metrics.clone());
        let mut due = Due::new(None);
        let mut due = poll_fn(|cx| due.poll(record.staged(), cx));
        for stage in [
            Stage::Entering,
            Stage::Calling,
            Stage::Silent {
                keepalive: Duration::ZERO,
            },
        ] {
            record.stage(stage);
            let early = timeout(Duration::from_secs(600), &mut due).await;
            assert!(early.is_err(), "{stage:?}");
        }
        let keepalive = Duration::from_secs(7);
        record.stage(Stage::Silent { keepalive });
        let since = Instant::now();
        assert_eq!(due.await, keepalive);
        assert_eq!(since.elapsed(), keepalive);
    }
}
