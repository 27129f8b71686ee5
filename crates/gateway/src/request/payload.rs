//! A request's body on its way to an upstream.

use std::{
    collections::VecDeque,
    convert::Infallible,
    mem,
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

    pub(crate) fn body(&self) -> Option<PayloadBody> {
        match self {
            Self::Empty => None,
            Self::Json(bytes) => Some(PayloadBody::Whole(bytes.clone())),
            Self::Form { pieces, .. } => {
                Some(PayloadBody::Pieces(pieces.iter().cloned().collect()))
            }
        }
    }
}

/// A payload on its way. Its length is known: many servers take no form without one.
#[derive(Debug, Default)]
pub(crate) enum PayloadBody {
    /// Nothing, or no more.
    #[default]
    End,
    Whole(Bytes),
    Pieces(VecDeque<Bytes>),
}

impl Body for PayloadBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = match &mut *self {
            Self::End => None,
            Self::Whole(bytes) => {
                let bytes = mem::take(bytes);
                *self = Self::End;
                Some(bytes)
            }
            Self::Pieces(pieces) => pieces.pop_front(),
        };
        Poll::Ready(next.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::End => true,
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Pieces(pieces) => pieces.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match self {
            Self::End => 0,
            Self::Whole(bytes) => bytes.len() as u64,
            Self::Pieces(pieces) => pieces.iter().map(|piece| piece.len() as u64).sum(),
        })
    }
}
