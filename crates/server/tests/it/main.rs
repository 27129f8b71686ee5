//! The server in its own process, over real sockets.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that panics has failed"
)]

mod access;
mod addresses;
mod admin;
mod auth;
mod authority;
mod binary;
mod bodies;
mod calls;
mod check;
mod disconnect;
mod edges;
mod fallbacks;
mod listing;
mod log;
mod malformed;
mod metrics;
mod redis;
mod redis_tls;
mod reload;
mod resources;
mod scheduling;
mod secrets;
mod shadow;
mod shutdown;
mod slow_clients;
mod support;
mod tls;
mod tls_reload;
mod traces;
mod unread;
mod wire;
