//! A body that keeps something until it is over.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use http_body::{Body, Frame, SizeHint};

/// `body`, and what is dropped with it.
pub(crate) struct BodyWith<B, T> {
    body: B,
    _until_the_end: T,
}

// === impl BodyWith ===

impl<B, T> BodyWith<B, T> {
    pub(crate) fn new(body: B, until_the_end: T) -> Self {
        Self {
            body,
            _until_the_end: until_the_end,
        }
    }
}

impl<B: Body + Unpin, T: Unpin> Body for BodyWith<B, T> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
