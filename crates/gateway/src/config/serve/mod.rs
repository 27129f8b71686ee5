//! Who may call the server, from where, over which connections, and with how large bodies.

pub(super) mod addresses;
pub(super) mod bodies;
pub(super) mod cors;
pub(super) mod exposure;
pub(super) mod keys;
pub(super) mod networks;
pub(super) mod tls;
