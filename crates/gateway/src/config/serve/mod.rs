//! Who may call the server, from where, and with how large bodies.

pub(super) mod bodies;
pub(super) mod cors;
pub(super) mod exposure;
pub(super) mod keys;
