//! An answer on its way from the upstream to the client.

pub(crate) mod body;
pub(crate) mod buffered;
pub(crate) mod watch;

use crate::CallInfo;
use buffered::BufferedBody;

/// An answer's head and its body.
#[derive(Debug)]
#[non_exhaustive]
pub struct Answer {
    /// Always a success: everything else is a [`CallError`](crate::CallError).
    pub status: http::StatusCode,
    /// The upstream's headers that pass, `x-litellm-*` and `x-vorrang-*`.
    pub headers: http::HeaderMap,
    /// The answer's bytes. The permit goes back when the upstream has ended, or with the drop of this.
    pub body: BufferedBody,
    /// What is known of the call.
    pub info: CallInfo,
}
