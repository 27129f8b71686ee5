//! One line in the log for each request, when its answer is over.

use std::{
    borrow::Cow,
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::body::Body;
use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header,
    header::Entry,
};
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{
    api::{client, in_shape_of_path},
    app::App,
    connection::Peer,
    record::Record,
    stream::answer::AnswerBody,
    traces::Ended,
};

const CALL_ID: HeaderName = HeaderName::from_static("x-litellm-call-id");

/// The target of access lines.
pub(crate) const TARGET: &str = "vorrang::access";

/// nginx's status for a client that left before its answer. It is only logged.
const CLIENT_LEFT: u16 = 499;

/// Writes the line when it is dropped: with the answer's last byte, or when the client has left.
pub(crate) struct AccessLine {
    record: Record,
    method: Method,
    path: Box<str>,
    arrived: SystemTime,
    status: Option<StatusCode>,
    complete: bool,
}

// === impl AccessLine ===

impl Drop for AccessLine {
    fn drop(&mut self) {
        let known = self.record.known();
        // An error in a stream counts like an error status; else it would look like a success.
        if let Some(status) = known.stream_error.or(self.status) {
            self.record.metrics.answered(status);
        }
        let error = self.error_type(known.stream_error);
        if let Some(trace) = &known.trace {
            trace.ended(Ended {
                status: self.status.map_or(CLIENT_LEFT, |status| status.as_u16()),
                error_type: error.clone(),
                group: known.group.as_deref(),
                key: known.key.as_deref(),
                priority: known.priority,
                waited: known.waited,
                attempts: known.attempts,
            });
        }
        if let (Some(endpoint), Some(group)) = (known.endpoint, &known.group) {
            let took = self.record.came.elapsed();
            let gen_ai = &self.record.metrics.gen_ai;
            gen_ai.answered(endpoint, group, error, took);
        }
        let joined = known.joined.as_ref();
        let tenant = joined.map(|joined| joined.claim.share.tenant);
        // docs/simulate.md describes the line: `vorrang simulate` reads it.
        tracing::info!(
            target: TARGET,
            request_id = &*self.record.call_id,
            method = self.method.as_str(),
            path = &*self.path,
            client = self.record.client.map(tracing::field::display),
            key = known.key.as_deref(),
            group = known.group.as_deref(),
            tenant = tenant.filter(|tenant| *tenant != 0),
            priority = known.priority,
            asked_priority = joined.and_then(|joined| joined.asked_priority),
            input_tokens = joined.map(|joined| joined.claim.tokens.input),
            output_tokens = joined.map(|joined| joined.claim.tokens.output),
            used_input_tokens = known.used.map(|used| used.input),
            used_output_tokens = known.used.map(|used| used.output),
            streamed = joined.map(|joined| joined.streamed),
            timeout_ms = joined.map(|joined| milliseconds(joined.timeout)),
            arrived_us = self.arrived.duration_since(UNIX_EPOCH).ok().map(microseconds),
            wait_ms = known.waited.map(milliseconds),
            deployment = known.deployment,
            attempts = known.attempts,
            fallbacks = known.fallbacks,
            fallback_from = known.fallback_from,
            spilled_from = known.spilled_from,
            status = self.status.map_or(CLIENT_LEFT, |status| status.as_u16()),
            stream_error = known.stream_error.map(|status| status.as_u16()),
            complete = self.complete,
            upstream_ms = known.called.map(milliseconds),
            duration_ms = milliseconds(self.record.came.elapsed()),
            "request"
        );
    }
}

impl AccessLine {
    /// As the metrics of generative AI have it; empty: it ended well.
    fn error_type(&self, stream_error: Option<StatusCode>) -> Cow<'static, str> {
        match stream_error.or(self.status) {
            None => CLIENT_LEFT.to_string().into(),
            Some(status) if !status.is_success() => status.as_u16().to_string().into(),
            // The answer broke off, or its reader left.
            Some(_) if !self.complete => "incomplete".into(),
            Some(_) => "".into(),
        }
    }
}

fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Names a request, and begins its line.
pub(crate) fn begin<B>(
    app: &App,
    request: &Request<B>,
    peer: Option<Peer>,
) -> (Record, AccessLine) {
    let headers = request.headers();
    let client = peer.and_then(|peer| client::of(peer, headers, &app.live_now().addresses));
    let record = Record::new(call_id(headers), client, app.metrics.clone());
    let line = AccessLine {
        method: request.method().clone(),
        // Without the query: it is where a key ends up by mistake.
        path: request.uri().path().into(),
        arrived: SystemTime::now(),
        status: None,
        complete: false,
        record: record.clone(),
    };
    (record, line)
}

/// What every answer has, whichever way it comes: a documented shape, an id, a line in the log, and an end when the grace time is over.
pub(crate) fn end(
    app: &App,
    mut line: AccessLine,
    response: Response<AnswerBody>,
) -> Response<LoggedBody> {
    let mut response = in_shape_of_path(response, &line.path, &line.record.call_id);
    line.status = Some(response.status());
    if let Entry::Vacant(entry) = response.headers_mut().entry(CALL_ID)
        && let Ok(id) = HeaderValue::from_str(&line.record.call_id)
    {
        entry.insert(id);
    }
    // RFC 9110, 8.6: it has no content and no length, whatever an upstream says.
    if response.status() == StatusCode::NO_CONTENT {
        *response.body_mut() = AnswerBody::Other(Body::new(NoContent));
        response.headers_mut().remove(header::CONTENT_LENGTH);
    }
    let patience = response.extensions().get::<CutAfter>().map(|after| after.0);
    response.map(|body| {
        let left = body.size_hint().exact();
        line.complete = left == Some(0) || body.is_end_stream();
        LoggedBody {
            body,
            left,
            cut: Cut::Token(app.lifecycle.cut.clone(), patience),
            line,
        }
    })
}

/// The client's own id where it sends one that is fit for a log, else a new one.
fn call_id(headers: &HeaderMap) -> Box<str> {
    let sent = headers.get(CALL_ID).and_then(|id| id.to_str().ok());
    match sent {
        Some(id)
            if (1..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic()) =>
        {
            id.into()
        }
        _ => {
            let mut text = uuid::Uuid::encode_buffer();
            let id = uuid::Uuid::new_v4().hyphenated().encode_lower(&mut text);
            (&*id).into()
        }
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
pub(crate) struct LoggedBody {
    body: AnswerBody,
    /// Bytes to come, where that is known: hyper does not ask for the end after the last of them.
    left: Option<u64>,
    cut: Cut,
    line: AccessLine,
}

/// When an answer that is not ready is cut.
enum Cut {
    /// Most answers are ready: nothing waits.
    Token(CancellationToken, Option<Duration>),
    Waits(Pin<Box<dyn Future<Output = ()> + Send>>),
}

// === impl Cut ===

impl Cut {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Self::Token(cut, patience) = self {
            let (cut, patience) = (cut.clone(), *patience);
            *self = Self::Waits(Box::pin(async move {
                cut.cancelled().await;
                if let Some(patience) = patience {
                    sleep(patience).await;
                }
            }));
        }
        match self {
            Self::Token(..) => Poll::Pending,
            Self::Waits(cut) => cut.as_mut().poll(cx),
        }
    }
}

// === impl LoggedBody ===

impl http_body::Body for LoggedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) else {
            // Only answers that are not ready are cut: the 503 of the shutdown is still sent.
            ready!(this.cut.poll(context));
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
