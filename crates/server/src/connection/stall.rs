//! HTTP/2 streams whose client takes nothing: a window that stays shut holds one stream, not its connection.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::rt::Executor;
use tokio::time::{Instant, sleep};

/// Bytes handed over at once. hyper asks for more when the window has room again, so a client that takes so many in time is not cut off.
const PIECE_BYTES: usize = 4 * 1024;

tokio::task_local! {
    /// Of the stream that the task serves.
    static WINDOW: Window;
}

/// Runs each stream of an HTTP/2 connection as a task, and resets it when its client takes nothing for `limit`.
#[derive(Debug, Clone)]
pub(crate) struct StreamExecutor {
    limit: Duration,
}

impl StreamExecutor {
    pub(crate) fn new(limit: Duration) -> Self {
        Self { limit }
    }
}

impl<F> Executor<F> for StreamExecutor
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let limit = self.limit;
        let window = Window::default();
        tokio::spawn(WINDOW.scope(window.clone(), async move {
            let (mut stream, mut stalled) = (pin!(stream), pin!(sleep(limit)));
            poll_fn(|cx| {
                if stream.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(());
                }
                let Some(since) = window.shut_since() else {
                    return Poll::Pending;
                };
                if stalled.deadline() != since + limit {
                    stalled.as_mut().reset(since + limit);
                }
                ready!(stalled.as_mut().poll(cx));
                tracing::debug!("a stream is reset: its client takes nothing of its answer");
                Poll::Ready(())
            })
            .await;
        }));
    }
}

/// Since when bytes of a stream's answer wait for its client.
#[derive(Debug, Clone, Default)]
struct Window(Arc<Mutex<Option<Instant>>>);

impl Window {
    fn shut_since(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, since: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }
}

/// The answer's body, observed for the [`StreamExecutor`] that runs its stream. On HTTP/1 nobody observes it.
pub(crate) fn watched<B>(body: B) -> Watched<B> {
    Watched {
        body,
        rest: Bytes::new(),
        window: WINDOW.try_with(Window::clone).ok(),
    }
}

pub(crate) struct Watched<B> {
    body: B,
    /// Of the last frame.
    rest: Bytes,
    /// `None`: the body is passed as it is.
    window: Option<Window>,
}

impl<B: Body<Data = Bytes> + Unpin> Body for Watched<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = &mut *self;
        let Some(window) = &this.window else {
            return Pin::new(&mut this.body).poll_frame(cx);
        };
        // The client has taken what came before: otherwise hyper would not ask.
        window.set(None);
        if this.rest.is_empty() {
            let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
            match frame.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => this.rest = data,
                Some(Ok(Err(trailers))) => return Poll::Ready(Some(Ok(trailers))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
        let piece = this.rest.split_to(this.rest.len().min(PIECE_BYTES));
        window.set(Some(Instant::now()));
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.body.size_hint();
        let rest = self.rest.len() as u64;
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint.set_lower(hint.lower().saturating_add(rest));
        hint
    }
}
