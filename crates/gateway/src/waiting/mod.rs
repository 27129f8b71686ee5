//! Calls that wait in the queue: how many may, and what is known of their wait.

pub(crate) mod by_key;
pub(crate) mod estimates;
pub(crate) mod room;
