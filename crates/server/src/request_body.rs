//! Reads a request's body within a size and a time.

use std::{pin::pin, time::Duration};

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

/// After a refusal this much of a body is still taken, so that a client that writes first and reads later sees the answer
/// and not a reset. More than that is not worth its while.
const DRAINED: Duration = Duration::from_secs(2);

/// The whole body, or why not: 400 (broken off), 408 (too slow), 413 (too large).
pub(crate) async fn read(
    body: Body,
    limits: BodyLimits,
    awaits_100: bool,
) -> Result<Bytes, Failure> {
    let mut body = pin!(body);
    let too_large = Failure::too_large(limits.size);
    if usize::try_from(body.size_hint().lower()).map_or(true, |size| size > limits.size) {
        // A client that waits for `100 Continue` sends nothing once it has its answer.
        if !awaits_100 {
            drain(body).await;
        }
        return Err(too_large);
    }
    let collected = timeout(limits.total, async {
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
    .unwrap_or_else(|_| Err(Failure::body_timed_out()));
    if collected.as_ref() == Err(&too_large) {
        drain(body).await;
    }
    collected
}

async fn drain(mut body: std::pin::Pin<&mut Body>) {
    let rest = async { while let Some(Ok(_)) = body.frame().await {} };
    // Time up: the connection is closed with the answer, which is all that is left to do.
    let _ = timeout(DRAINED, rest).await;
}
