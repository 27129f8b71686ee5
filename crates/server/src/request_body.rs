//! Reads a request's body within a size and a time.

use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use tokio::time::timeout;

use crate::failure::Failure;

/// How long and how large a body may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BodyLimits {
    /// Bytes.
    pub(crate) size: usize,
    /// Between two pieces of it.
    pub(crate) pause: Duration,
    /// For all of it.
    pub(crate) total: Duration,
}

/// The whole body, or why not: 400 (broken off), 408 (too slow), 413 (too large).
/// What is left of it then is `unread`'s to deal with.
pub(crate) async fn read(mut body: Body, limits: BodyLimits) -> Result<Bytes, Failure> {
    if usize::try_from(body.size_hint().lower()).map_or(true, |size| size > limits.size) {
        return Err(Failure::too_large(limits.size));
    }
    timeout(limits.total, async {
        let mut pieces = BytesMut::new();
        loop {
            let frame = match timeout(limits.pause, body.frame()).await {
                Err(_) => return Err(Failure::body_timed_out()),
                Ok(None) => return Ok(pieces.freeze()),
                Ok(Some(Err(_))) => {
                    return Err(Failure::invalid("Request body is incomplete or malformed"));
                }
                Ok(Some(Ok(frame))) => frame,
            };
            // Trailers say nothing here.
            if let Ok(piece) = frame.into_data() {
                if piece.len() > limits.size - pieces.len() {
                    return Err(Failure::too_large(limits.size));
                }
                pieces.extend_from_slice(&piece);
            }
        }
    })
    .await
    .unwrap_or_else(|_| Err(Failure::body_timed_out()))
}
