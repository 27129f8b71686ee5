//! An upstream's answer: its head, and its bytes as they come.

use std::{
    fmt,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::{Stream, stream::BoxStream};
use http::{HeaderMap, StatusCode, response::Parts};
use http_body::Body;
use hyper::body::Incoming;

use super::{error::HttpError, http1::Http1Body};
use crate::answer::body::BoxError;

/// An answer that has begun.
pub(crate) struct Response {
    head: Parts,
    body: AnswerBytes,
}

/// Where the bytes come from. Dropped before their end, they end the call.
pub(crate) enum AnswerBytes {
    Http1(Http1Body),
    Http2(Incoming),
    /// Through a proxy, or from this process.
    Other(reqwest::Body),
    /// Those of another answer, rewritten.
    Rewritten(BoxStream<'static, Result<Bytes, BoxError>>),
}

impl Response {
    pub(super) fn new<B>(answer: http::Response<B>, body: fn(B) -> AnswerBytes) -> Self {
        let (head, bytes) = answer.into_parts();
        Self {
            head,
            body: body(bytes),
        }
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.head.status
    }

    pub(crate) fn headers(&self) -> &HeaderMap {
        &self.head.headers
    }

    pub(crate) fn headers_mut(&mut self) -> &mut HeaderMap {
        &mut self.head.headers
    }

    /// The next bytes; `None`: that was all.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, HttpError> {
        poll_fn(|cx| self.body.poll_chunk(cx)).await.transpose()
    }

    pub(crate) fn into_bytes(self) -> AnswerBytes {
        self.body
    }

    /// The same answer with other bytes, made of its own.
    pub(crate) fn rewritten(
        self,
        with: impl FnOnce(AnswerBytes) -> BoxStream<'static, Result<Bytes, BoxError>>,
    ) -> Self {
        Self {
            head: self.head,
            body: AnswerBytes::Rewritten(with(self.body)),
        }
    }
}

/// From an upstream in this process, or from a proxy.
impl From<http::Response<reqwest::Body>> for Response {
    fn from(answer: http::Response<reqwest::Body>) -> Self {
        Self::new(answer, AnswerBytes::Other)
    }
}

impl AnswerBytes {
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, HttpError>>> {
        match self {
            Self::Http1(body) => body.poll_chunk(cx).map_err(HttpError::Connection),
            Self::Http2(body) => poll_data(body, cx).map_err(HttpError::Connection),
            Self::Other(body) => {
                poll_data(body, cx).map_err(|error| HttpError::Proxied(error.without_url()))
            }
            Self::Rewritten(chunks) => chunks.as_mut().poll_next(cx).map_err(HttpError::Answer),
        }
    }
}

/// Trailers do not pass.
fn poll_data<B: Body<Data = Bytes> + Unpin>(
    body: &mut B,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Bytes, B::Error>>> {
    loop {
        match ready!(Pin::new(&mut *body).poll_frame(cx)) {
            None => return Poll::Ready(None),
            Some(Err(error)) => return Poll::Ready(Some(Err(error))),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Poll::Ready(Some(Ok(data)));
                }
            }
        }
    }
}

impl Stream for AnswerBytes {
    type Item = Result<Bytes, HttpError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_chunk(cx)
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response")
            .field("status", &self.head.status)
            .finish_non_exhaustive()
    }
}
