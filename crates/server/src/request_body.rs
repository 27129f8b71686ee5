//! Reads a request's body within a size and a time.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body::Body as _;
use http_body_util::BodyExt as _;
use tokio::time::timeout;

use crate::{failure::Failure, keys::body_budget::HeldBytes};

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

/// The bodies of waiting requests are dropped when these are served; how soon that is cannot be known.
const BUDGET_RETRY: Duration = Duration::from_secs(5);

/// The whole body, or why not: 400 (broken off), 408 (too slow), 413 (too large), 429 (no room for it in the budget).
/// What is left of it then is `unread`'s to deal with.
pub(crate) async fn read(
    mut body: Body,
    limits: BodyLimits,
    held: &mut HeldBytes,
) -> Result<Bytes, Failure> {
    let announced = body.size_hint().exact();
    let announced = announced.map_or(usize::MAX, |size| {
        usize::try_from(size).unwrap_or(usize::MAX)
    });
    if usize::try_from(body.size_hint().lower()).map_or(true, |size| size > limits.size) {
        return Err(Failure::too_large(limits.size));
    }
    timeout(limits.total, async {
        let mut bytes = Vec::new();
        loop {
            let frame = match timeout(limits.pause, body.frame()).await {
                Err(_) => return Err(Failure::body_timed_out()),
                Ok(None) => {
                    bytes.shrink_to_fit();
                    return Ok(bytes.into());
                }
                Ok(Some(Err(_))) => {
                    return Err(Failure::invalid("Request body is incomplete or malformed"));
                }
                Ok(Some(Ok(frame))) => frame,
            };
            // Trailers say nothing here.
            if let Ok(piece) = frame.into_data() {
                if piece.len() > limits.size - bytes.len() {
                    return Err(Failure::too_large(limits.size));
                }
                if held.add(piece.len()).is_err() {
                    return Err(Failure::bodies_full(BUDGET_RETRY));
                }
                reserve(&mut bytes, piece.len(), announced);
                bytes.extend_from_slice(&piece);
            }
        }
    })
    .await
    .unwrap_or_else(|_| Err(Failure::body_timed_out()))
}

/// Room for `more` bytes, growing in steps: a client gets the memory for what it has sent, not for what it announces.
fn reserve(bytes: &mut Vec<u8>, more: usize, announced: usize) {
    let needed = bytes.len() + more;
    if needed > bytes.capacity() {
        let grown = (bytes.capacity() * 2).min(announced).max(needed);
        bytes.reserve_exact(grown - bytes.len());
    }
}
