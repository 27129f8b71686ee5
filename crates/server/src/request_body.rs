//! Reads a request's body within a size and a time.

use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use http_body::Body;
use http_body_util::BodyExt as _;
use tokio::time::{Instant, timeout_at};

use crate::{failure::Failure, keys::body_budget::HeldBytes};

/// How long and how large a body may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BodyLimits {
    /// Bytes.
    pub(crate) size: usize,
    /// Between two pieces of it.
    pub(crate) pause: Duration,
    /// For all of it, from where it is waited for.
    pub(crate) total: Duration,
}

/// The bodies of waiting requests are dropped when these are served; how soon that is cannot be known.
const BUDGET_RETRY: Duration = Duration::from_secs(5);

/// The whole body, or why not: 400 (broken off), 408 (too slow), 413 (too large), 429 (no room for it in the budget).
/// What is left of it then is `unread`'s to deal with.
pub(crate) async fn read(
    body: &mut (impl Body<Data = Bytes> + Unpin),
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
    let mut bytes = Vec::new();
    let mut end = None;
    loop {
        // Most bodies are here with their heads, and need no timer.
        let frame = match body.frame().now_or_never() {
            Some(frame) => frame,
            None => {
                let now = Instant::now();
                let end = *end.get_or_insert(now + limits.total);
                match timeout_at(end.min(now + limits.pause), body.frame()).await {
                    Ok(frame) => frame,
                    Err(_) => return Err(Failure::body_timed_out()),
                }
            }
        };
        let frame = match frame {
            None => {
                bytes.shrink_to_fit();
                return Ok(bytes.into());
            }
            Some(Err(_)) => {
                return Err(Failure::invalid("Request body is incomplete or malformed"));
            }
            Some(Ok(frame)) => frame,
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
}

/// Room for `more` bytes, growing in steps: a client gets the memory for what it has sent, not for what it announces.
fn reserve(bytes: &mut Vec<u8>, more: usize, announced: usize) {
    let needed = bytes.len() + more;
    if needed > bytes.capacity() {
        let grown = (bytes.capacity() * 2).min(announced).max(needed);
        bytes.reserve_exact(grown - bytes.len());
    }
}
