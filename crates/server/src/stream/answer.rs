//! The bodies of answers.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use vorrang_gateway::BufferedBody;

use crate::{connection::slots::CallSlot, stream::held::BodyWith};

/// A body of any kind. That of a call is the usual one, and needs no allocation.
pub(crate) enum AnswerBody {
    /// What a call needs of an upstream connection is back with the answer's end, and so is its slot.
    Call(BodyWith<BufferedBody, Arc<CallSlot>>),
    Other(Body),
}

impl From<Body> for AnswerBody {
    fn from(body: Body) -> Self {
        Self::Other(body)
    }
}

impl http_body::Body for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        match self.get_mut() {
            Self::Call(body) => Pin::new(body).poll_frame(context).map_err(axum::Error::new),
            Self::Other(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Call(body) => body.is_end_stream(),
            Self::Other(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Call(body) => body.size_hint(),
            Self::Other(body) => body.size_hint(),
        }
    }
}
