//! HTTP/1 connections of hyper. A connection is driven by the call that uses it: there is no other task, and no channel between two.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body as _;
use hyper::{
    body::Incoming,
    client::conn::{
        TrySendError,
        http1::{Connection, SendRequest, handshake},
    },
};

use super::{connect::Io, pool::Server};
use crate::request::payload::PayloadBody;

/// A connection between two requests, or with one.
pub(super) struct Http1 {
    sender: SendRequest<PayloadBody>,
    connection: Pin<Box<Connection<Io, PayloadBody>>>,
}

impl Http1 {
    pub(super) async fn new(io: Io) -> hyper::Result<Self> {
        let (sender, connection) = handshake(io).await?;
        let connection = Box::pin(connection);
        Ok(Self { sender, connection })
    }

    /// Whether the next request can be sent, as far as is known here.
    pub(super) fn is_open(&mut self) -> bool {
        // Nobody waits for it: what has come is seen now.
        let ended = self.drive(&mut Context::from_waker(Waker::noop()));
        ended.is_pending() && self.sender.is_ready()
    }

    fn drive(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // Its error is that of the request, too.
        self.connection.as_mut().poll(cx).map(drop)
    }

    /// Sends a request and waits for the head of its answer.
    pub(super) async fn send(
        mut self,
        request: Request<PayloadBody>,
        server: &Arc<Server>,
    ) -> Result<Response<Http1Body>, TrySendError<Request<PayloadBody>>> {
        let mut answer = pin!(self.sender.try_send_request(request));
        let mut connection = Some(self);
        let answer = poll_fn(|cx| {
            // A connection that has ended is dropped: that ends its request.
            connection.take_if(|connection| connection.drive(cx).is_ready());
            answer.as_mut().poll(cx)
        });
        let answer = answer.await?;
        Ok(answer.map(|body| Http1Body {
            body,
            connection,
            server: server.clone(),
        }))
    }
}

/// The bytes of an answer. It drives its connection, and gives it back at the end. Dropped before its end, it closes it.
pub(crate) struct Http1Body {
    body: Incoming,
    connection: Option<Http1>,
    server: Arc<Server>,
}

impl Http1Body {
    pub(super) fn poll_chunk(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, hyper::Error>>> {
        loop {
            let frame = match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(frame) => frame,
                Poll::Pending => {
                    self.connection
                        .take_if(|connection| connection.drive(cx).is_ready());
                    ready!(Pin::new(&mut self.body).poll_frame(cx))
                }
            };
            return Poll::Ready(match frame {
                Some(Ok(frame)) => {
                    // Trailers do not pass.
                    let Ok(data) = frame.into_data() else {
                        continue;
                    };
                    if self.body.is_end_stream() {
                        self.give_back(cx);
                    }
                    Some(Ok(data))
                }
                Some(Err(error)) => {
                    self.connection = None;
                    Some(Err(error))
                }
                None => {
                    self.give_back(cx);
                    None
                }
            });
        }
    }

    fn give_back(&mut self, cx: &mut Context<'_>) {
        if let Some(mut connection) = self.connection.take()
            && (connection.sender.is_ready() || connection.drive(cx).is_pending())
            // Otherwise the server answered before it had all of the request.
            && connection.sender.is_ready()
        {
            self.server.give(connection);
        }
    }
}
