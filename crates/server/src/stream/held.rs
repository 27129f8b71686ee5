//! A body that keeps something until it is over.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};

/// `body`, and what is dropped with it.
pub(crate) struct BodyWith<T> {
    body: Body,
    _until_the_end: T,
}

// === impl BodyWith ===

impl<T> BodyWith<T> {
    pub(crate) fn new(body: Body, until_the_end: T) -> Self {
        Self {
            body,
            _until_the_end: until_the_end,
        }
    }
}

impl<T: Unpin> http_body::Body for BodyWith<T> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
