//! An answer between an upstream and a client that may be slower: the upstream's part ends when the upstream is done or its time is up,
//! whatever the client does.

use std::{
    fmt,
    future::poll_fn,
    mem,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::StatusCode;
use http_body::{Body, Frame, SizeHint};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::{
    answer::body::{AnswerBody, BoxError},
    journal::{Ended, LiveCall},
};

/// Bytes that an answer may be ahead of its client. Beyond that the upstream waits for the client.
const BUFFERED_BYTES: u32 = 256 * 1024;

/// An answer's bytes, chunk by chunk. A small rest waits here for the client, without the permit. Dropping it ends the upstream call.
pub struct BufferedBody(Inner);

enum Inner {
    /// All of it was there at once, and has not been read.
    Whole(Bytes),
    End,
    Coming(Coming),
}

/// An answer that comes piece by piece.
struct Coming {
    pieces: mpsc::UnboundedReceiver<Piece>,
    /// Bytes to come, where known.
    length: Option<u64>,
    /// Fetches what was not there at once.
    fetching: Option<JoinHandle<()>>,
}

enum Piece {
    /// Bytes, and the room that they take.
    Data(Bytes, OwnedSemaphorePermit),
    /// The answer broke off.
    Broken(BoxError),
    /// All of it was there.
    End,
}

// === impl BufferedBody ===

impl BufferedBody {
    /// Takes what is there at once; a task of its own fetches the rest, if there is one.
    ///
    /// `live`: the call's entry in the journal. `cut`: the answer breaks off.
    pub(crate) fn new(
        mut body: AnswerBody,
        status: StatusCode,
        live: Option<LiveCall>,
        cut: &CancellationToken,
    ) -> Self {
        if let Some(whole) = body.take_whole() {
            if let Some(live) = live {
                live.ends(Ended::Answered(status));
            }
            return Self(Inner::Whole(whole));
        }
        let (client, pieces) = mpsc::unbounded_channel();
        let length = body.size_hint().exact();
        let cut = cut.clone();
        let mut fetch = Box::pin(async move {
            let whole = fetch(body, client, cut).await;
            if let Some(live) = live {
                live.ends(if whole {
                    Ended::Answered(status)
                } else {
                    Ended::BrokenOff
                });
            }
        });
        let fetching = match fetch.as_mut().now_or_never() {
            Some(()) => None,
            None => Some(tokio::spawn(fetch)),
        };
        Self(Inner::Coming(Coming {
            pieces,
            length,
            fetching,
        }))
    }
}

/// The answer and its permit end with this future. Whether all of it was there.
async fn fetch(
    mut body: AnswerBody,
    client: mpsc::UnboundedSender<Piece>,
    cut: CancellationToken,
) -> bool {
    let mut cut = pin!(cut.cancelled());
    let room = Arc::new(Semaphore::new(BUFFERED_BYTES as usize));
    loop {
        let frame = tokio::select! {
            biased;
            frame = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)) => frame,
            () = &mut cut => Some(Err("the router was closed".into())),
        };
        let data = match frame.map(|frame| frame.map(Frame::into_data)) {
            Some(Ok(Ok(data))) => data,
            // Trailers do not pass.
            Some(Ok(Err(_))) => continue,
            Some(Err(error)) => {
                drop(client.send(Piece::Broken(error)));
                return false;
            }
            None => {
                drop(client.send(Piece::End));
                return true;
            }
        };
        let size = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let taken = room.clone().acquire_many_owned(size.min(BUFFERED_BYTES));
        let taken = tokio::select! {
            biased;
            taken = pin!(taken) => taken.ok(),
            () = body.time_up() => None,
            () = &mut cut => None,
        };
        let piece = match taken {
            Some(taken) => Piece::Data(data, taken),
            None => Piece::Broken("the request's time is up".into()),
        };
        let broken = matches!(piece, Piece::Broken(_));
        if client.send(piece).is_err() || broken {
            return false;
        }
    }
}

impl Body for BufferedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.0 {
            Inner::End => Poll::Ready(None),
            Inner::Whole(bytes) => {
                let bytes = mem::take(bytes);
                self.0 = Inner::End;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Inner::Coming(coming) => coming.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.0, Inner::End)
    }

    fn size_hint(&self) -> SizeHint {
        let length = match &self.0 {
            Inner::End => Some(0),
            Inner::Whole(bytes) => Some(bytes.len() as u64),
            Inner::Coming(coming) => coming.length,
        };
        length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Coming {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Poll::Ready(match ready!(self.pieces.poll_recv(cx)) {
            Some(Piece::Data(data, _room)) => {
                if let Some(length) = &mut self.length {
                    *length = length.saturating_sub(data.len() as u64);
                }
                Some(Ok(Frame::data(data)))
            }
            Some(Piece::Broken(error)) => {
                self.fetching = None;
                Some(Err(error))
            }
            Some(Piece::End) => {
                self.fetching = None;
                None
            }
            // After its end; before that the task has panicked, and half an answer must not look like a whole one.
            None if self.fetching.is_none() => None,
            None => Some(Err("the answer broke off".into())),
        })
    }
}

impl Drop for Coming {
    fn drop(&mut self) {
        if let Some(fetching) = &self.fetching {
            fetching.abort();
        }
    }
}

impl fmt::Debug for BufferedBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufferedBody")
            .field("length", &self.size_hint().exact())
            .finish_non_exhaustive()
    }
}
