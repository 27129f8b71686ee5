//! A request's body on its way to an upstream.

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::HeaderValue;
use http_body::{Body, Frame, SizeHint};

/// A body, which can be sent more than once.
#[derive(Debug)]
pub(crate) enum Payload {
    /// None at all: a GET or a DELETE.
    Empty,
    Json(Bytes),
    /// A form in pieces, most of them slices of the client's body.
    Form {
        content_type: HeaderValue,
        pieces: Vec<Bytes>,
    },
}

impl Payload {
    pub(crate) fn content_type(&self) -> Option<HeaderValue> {
        match self {
            Self::Empty => None,
            Self::Json(_) => Some(HeaderValue::from_static("application/json")),
            Self::Form { content_type, .. } => Some(content_type.clone()),
        }
    }

    /// All of it in one piece.
    pub(crate) fn bytes(&self) -> Bytes {
        match self {
            Self::Empty => Bytes::new(),
            Self::Json(bytes) => bytes.clone(),
            Self::Form { pieces, .. } => pieces.concat().into(),
        }
    }

    pub(crate) fn body(&self) -> Option<reqwest::Body> {
        match self {
            Self::Empty => None,
            Self::Json(bytes) => Some(bytes.clone().into()),
            Self::Form { pieces, .. } => {
                let pieces = pieces.iter().cloned().collect();
                Some(reqwest::Body::wrap(InPieces(pieces)))
            }
        }
    }
}

/// Its length is known: many servers take no form without one.
struct InPieces(VecDeque<Bytes>);

impl Body for InPieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.iter().map(|piece| piece.len() as u64).sum())
    }
}
