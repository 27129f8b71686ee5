//! An answer on its way from the upstream to the client.

pub(crate) mod body;
pub(crate) mod buffered;
pub(crate) mod watch;
