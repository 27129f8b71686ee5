//! One line in the log for each request, when its answer is over.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    body::Body,
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};
use http_body::{Body as _, Frame, SizeHint};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use vorrang_gateway::{CallInfo, Events, Stage, WaitOutcome};

use crate::{api::App, connection::places::CallPlace, metrics::Metrics};

const CALL_ID: &str = "x-litellm-call-id";

/// What nginx writes when the client left before its answer; it is logged, nobody is there to receive it.
const CLIENT_LEFT: u16 = 499;

/// What a request's line will say, filled in while the request is served.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) call_id: Arc<str>,
    metrics: Arc<Metrics>,
    known: Arc<Mutex<Known>>,
    stage: watch::Sender<Staged>,
}

/// What a call whose answer has not begun is doing, and since when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Staged {
    pub(crate) stage: Stage,
    pub(crate) since: Instant,
}

#[derive(Debug, Default)]
struct Known {
    key: Option<String>,
    group: Option<String>,
    priority: Option<i32>,
    waited: Option<Duration>,
    deployment: Option<String>,
    attempts: Option<u32>,
    /// Status of an error that was sent as an event, when the answer's status was out.
    stream_error: Option<StatusCode>,
    place: Option<Weak<CallPlace>>,
}

// === impl Record ===

impl Record {
    pub(crate) fn new(call_id: Arc<str>, metrics: Arc<Metrics>) -> Self {
        let stage = Stage::Checking;
        let since = Instant::now();
        Self {
            call_id,
            metrics,
            known: Arc::default(),
            stage: watch::Sender::new(Staged { stage, since }),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // A panic between two assignments leaves nothing worse than a line that says less.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The name of the caller's key, never the key.
    pub(crate) fn key(&self, name: &str) {
        self.known().key = Some(name.into());
    }

    /// What the call is doing until its answer begins.
    pub(crate) fn stages(&self) -> watch::Receiver<Staged> {
        self.stage.subscribe()
    }

    /// An error was sent as an event of a stream that had begun with a 200.
    pub(crate) fn failed_in_stream(&self, status: StatusCode) {
        self.known().stream_error = Some(status);
    }

    /// The call's place, which learns of its grant.
    pub(crate) fn place(&self, place: &Arc<CallPlace>) {
        self.known().place = Some(Arc::downgrade(place));
    }

    /// How the call went.
    pub(crate) fn call(&self, info: &CallInfo) {
        if info.group.is_empty() {
            return;
        }
        let mut known = self.known();
        known.group = Some(info.group.clone());
        known.priority = Some(info.priority);
        known.waited = Some(info.waited);
        known.deployment = Some(info.deployment.clone()).filter(|id| !id.is_empty());
        known.attempts = Some(info.attempts);
    }
}

/// A call tells its events to the metrics, and here: the line of a client that left has no other source.
impl Events for Record {
    fn upstream(&self, group: &str, deployment: &str, status: u16, latency: Duration) {
        self.known().deployment = Some(deployment.into());
        self.metrics.upstream(group, deployment, status, latency);
    }

    fn waited(&self, group: &str, priority: i32, waited: Duration, outcome: WaitOutcome) {
        let place = {
            let mut known = self.known();
            known.group = Some(group.into());
            known.priority = Some(priority);
            known.waited = Some(known.waited.unwrap_or_default() + waited);
            known.place.as_ref().and_then(Weak::upgrade)
        };
        if let (Some(place), WaitOutcome::Granted) = (place, outcome) {
            place.granted(priority);
        }
        self.metrics.waited(group, priority, waited, outcome);
    }

    fn stage(&self, stage: Stage) {
        let since = Instant::now();
        self.stage.send_replace(Staged { stage, since });
    }
}

/// Writes the line when it is dropped: with the answer's last byte, or when the client is gone.
struct Line {
    record: Record,
    method: Method,
    path: String,
    started: Instant,
    status: Option<StatusCode>,
    complete: bool,
}

// === impl Line ===

impl Drop for Line {
    fn drop(&mut self) {
        let known = self.record.known();
        // What went wrong counts, not when: an error in a stream would else look like a success.
        if let Some(status) = known.stream_error.or(self.status) {
            self.record.metrics.answered(status);
        }
        tracing::info!(
            target: "vorrang::access",
            request_id = &*self.record.call_id,
            method = self.method.as_str(),
            path = self.path,
            key = known.key,
            group = known.group,
            priority = known.priority,
            wait_ms = known.waited.map(milliseconds),
            deployment = known.deployment,
            attempts = known.attempts,
            status = self.status.map_or(CLIENT_LEFT, |status| status.as_u16()),
            stream_error = known.stream_error.map(|status| status.as_u16()),
            complete = self.complete,
            duration_ms = milliseconds(self.started.elapsed()),
            "request"
        );
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The outermost layer: names the request, writes its line, and ends its answer when the grace time is over.
pub(crate) async fn layer(
    State(app): State<Arc<App>>,
    mut request: Request,
    next: Next,
) -> Response {
    let record = Record::new(call_id(&request), app.metrics.clone());
    let mut line = Line {
        method: request.method().clone(),
        // Without the query: it is where a key ends up by mistake.
        path: request.uri().path().to_owned(),
        started: Instant::now(),
        status: None,
        complete: false,
        record: record.clone(),
    };
    let id = HeaderValue::from_str(&record.call_id);
    request.extensions_mut().insert(record);
    let mut response = next.run(request).await;
    line.status = Some(response.status());
    if let Ok(id) = id {
        response.headers_mut().entry(CALL_ID).or_insert(id);
    }
    // RFC 9110, 8.6: it has no content and no length, whatever an upstream says.
    if response.status() == StatusCode::NO_CONTENT {
        *response.body_mut() = Body::new(NoContent);
        response.headers_mut().remove(header::CONTENT_LENGTH);
    }
    let patience = response.extensions().get::<CutAfter>().map(|after| after.0);
    let cut = app.lifecycle.cut.clone();
    let cut = Box::pin(async move {
        cut.cancelled().await;
        if let Some(patience) = patience {
            sleep(patience).await;
        }
    });
    response.map(|body| {
        let left = body.size_hint().exact();
        line.complete = left == Some(0) || body.is_end_stream();
        Body::new(AnswerBody {
            body,
            left,
            cut,
            line,
        })
    })
}

/// The client's own id where it sends one that is fit for a log, else a new one.
fn call_id(request: &Request) -> Arc<str> {
    let sent = request
        .headers()
        .get(CALL_ID)
        .and_then(|id| id.to_str().ok());
    match sent {
        Some(id)
            if (1..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic()) =>
        {
            id.into()
        }
        _ => uuid::Uuid::new_v4().to_string().into(),
    }
}

/// Extension of a response that may still end by itself within this time of the end of the grace time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CutAfter(pub(crate) Duration);

/// Nothing, and no length of it either: axum and hyper would announce one.
struct NoContent;

impl http_body::Body for NoContent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        true
    }
}

/// An answer on its way out.
struct AnswerBody {
    body: Body,
    /// Bytes to come, where that is known: hyper does not ask for the end after the last of them.
    left: Option<u64>,
    cut: Pin<Box<dyn Future<Output = ()> + Send>>,
    line: Line,
}

// === impl AnswerBody ===

impl http_body::Body for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) else {
            // Only what has to be waited for is cut: the 503 that tells of the shutdown is not.
            ready!(this.cut.as_mut().poll(context));
            let error = axum::Error::new("the grace time is over");
            return Poll::Ready(Some(Err(error)));
        };
        let sent = match &frame {
            Some(Ok(frame)) => frame.data_ref().map_or(0, Bytes::len),
            Some(Err(_)) | None => 0,
        };
        this.left = this.left.map(|left| left.saturating_sub(sent as u64));
        this.line.complete = frame.is_none() || this.left == Some(0);
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
