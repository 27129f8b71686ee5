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

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, Version, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::{sync::oneshot, time::timeout};

/// A rest of this size is read, so that the connection can be kept. Beyond that a new connection costs the client less.
const DRAINED_BYTES: usize = 256 * 1024;

/// The answer waits for the rest at most this long.
const DRAIN_TIME: Duration = Duration::from_millis(500);

/// Set for a connection that is closed while its client may still be sending.
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

/// Whether the rest of a request's body is in the way of the next request. HTTP/2 resets the stream with NO_ERROR, and the connection stays.
pub(crate) fn matters<B: Body>(request: &Request<B>) -> bool {
    request.version() <= Version::HTTP_11 && !request.body().is_end_stream()
}

/// Reads what a handler left of its request's body. Where that is too much or too slow, the answer announces the connection's end.
/// `awaits_100`: the request said that it would.
pub(crate) async fn settle<B, A>(
    rest: Rest<B>,
    awaits_100: bool,
    discard: &Discard,
    response: &mut Response<A>,
) where
    B: Body<Data = Bytes> + Unpin,
{
    // A client that still waits for `100 Continue` may send its body or not: only a new connection is unambiguous. One that has timed
    // out gets no more time.
    let ambiguous = awaits_100 && !rest.begun;
    let late = response.status() == StatusCode::REQUEST_TIMEOUT;
    if ambiguous || late || rest.broken || !drained(rest.body).await {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
        discard.set();
    }
}

/// Whether the rest of the body was read within the bounds.
async fn drained(mut body: impl Body<Data = Bytes> + Unpin) -> bool {
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

/// A request body, and how much of it its handler has read.
pub(crate) struct Tracked<B> {
    body: B,
    begun: bool,
    broken: bool,
    over: bool,
}

/// What a handler left.
pub(crate) struct Rest<B> {
    body: B,
    /// The handler has read of it.
    begun: bool,
    /// It did not end as it should.
    broken: bool,
}

impl<B: Body> Tracked<B> {
    pub(crate) fn new(body: B) -> Self {
        Self {
            body,
            begun: false,
            broken: false,
            over: false,
        }
    }

    pub(crate) fn rest(self) -> Option<Rest<B>> {
        let left = !self.over && !self.body.is_end_stream();
        left.then_some(Rest {
            body: self.body,
            begun: self.begun,
            broken: self.broken,
        })
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Tracked<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = &mut *self;
        this.begun = true;
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        match &frame {
            None => this.over = true,
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

/// A request body on loan to a handler that takes it: what is left of it comes back with its drop.
pub(crate) struct Lent<B: Body> {
    body: Option<Tracked<B>>,
    give_back: Option<oneshot::Sender<Option<Rest<B>>>>,
}

/// Where a lent body comes back.
pub(crate) struct Returned<B>(oneshot::Receiver<Option<Rest<B>>>);

pub(crate) fn lend<B: Body>(body: B) -> (Lent<B>, Returned<B>) {
    let (give_back, rest) = oneshot::channel();
    let lent = Lent {
        body: Some(Tracked::new(body)),
        give_back: Some(give_back),
    };
    (lent, Returned(rest))
}

impl<B> Returned<B> {
    /// `None`: there is none, or the handler has not given it back.
    pub(crate) fn rest(mut self) -> Option<Rest<B>> {
        self.0.try_recv().ok().flatten()
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Lent<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(Body::size_hint).unwrap_or_default()
    }
}

impl<B: Body> Drop for Lent<B> {
    fn drop(&mut self) {
        let rest = self.body.take().and_then(Tracked::rest);
        if let Some(give_back) = self.give_back.take() {
            // The request's own future was dropped, and the connection with it.
            drop(give_back.send(rest));
        }
    }
}
