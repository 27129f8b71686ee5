//! How an answer's bytes are written: content codings, and event streams.

pub(crate) mod coding;
pub(crate) mod sse;
