//! Answers that come before their request's body has been read: the next request on the connection must not meet the rest of it.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{body::Body, extract::Request, middleware::Next, response::Response};
use bytes::Bytes;
use http::{HeaderValue, StatusCode, Version, header};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::{sync::oneshot, time::timeout};

/// A rest of this size is read, so that the connection can be kept. Beyond that a new connection costs the client less.
const DRAINED_BYTES: usize = 256 * 1024;

/// The answer waits for the rest at most this long.
const DRAIN_TIME: Duration = Duration::from_millis(500);

/// Set for a connection that is closed while its client may still be sending. A request extension of every HTTP/1 request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Discard(Arc<AtomicBool>);

impl Discard {
    fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Reads what a handler left of its request's body. Where that is too much or too slow, the answer announces the connection's end.
pub(crate) async fn layer(request: Request, next: Next) -> Response {
    // HTTP/2 resets the stream with NO_ERROR, and the connection stays.
    if request.version() > Version::HTTP_11 || request.body().is_end_stream() {
        return next.run(request).await;
    }
    let discard = request.extensions().get::<Discard>().cloned();
    let awaits_100 = request.headers().contains_key(header::EXPECT);
    let (give_back, mut rest) = oneshot::channel();
    let request = request.map(|body| {
        Body::new(Tracked {
            body,
            begun: false,
            broken: false,
            give_back: Some(give_back),
        })
    });
    let mut response = next.run(request).await;
    let Some(rest) = rest.try_recv().ok().flatten() else {
        return response;
    };
    // A client that still waits for `100 Continue` may send its body or not: only a new connection is unambiguous. One that has timed
    // out gets no more time.
    let ambiguous = awaits_100 && !rest.begun;
    let late = response.status() == StatusCode::REQUEST_TIMEOUT;
    if ambiguous || late || rest.broken || !drained(rest.body).await {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
        if let Some(discard) = discard {
            discard.set();
        }
    }
    response
}

/// Whether the rest of the body was read within the bounds.
async fn drained(mut body: Body) -> bool {
    let read = async {
        let mut left = DRAINED_BYTES;
        loop {
            if body.size_hint().lower() > left as u64 {
                return false;
            }
            match body.frame().await {
                None => return true,
                Some(Err(_)) => return false,
                Some(Ok(frame)) => {
                    let bytes = frame.data_ref().map_or(0, Bytes::len);
                    let Some(rest) = left.checked_sub(bytes) else {
                        return false;
                    };
                    left = rest;
                }
            }
        }
    };
    timeout(DRAIN_TIME, read).await.unwrap_or(false)
}

/// A request body on loan to its handler.
struct Tracked {
    body: Body,
    begun: bool,
    broken: bool,
    give_back: Option<oneshot::Sender<Option<Rest>>>,
}

/// What a handler left.
struct Rest {
    body: Body,
    /// The handler has read of it.
    begun: bool,
    /// It did not end as it should.
    broken: bool,
}

impl http_body::Body for Tracked {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        this.begun = true;
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        match &frame {
            None => this.give_back = None,
            Some(Err(_)) => this.broken = true,
            Some(Ok(_)) => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        if let Some(give_back) = self.give_back.take() {
            let rest = (!self.body.is_end_stream()).then(|| Rest {
                body: std::mem::take(&mut self.body),
                begun: self.begun,
                broken: self.broken,
            });
            // The request's own future was dropped, and the connection with it.
            drop(give_back.send(rest));
        }
    }
}
