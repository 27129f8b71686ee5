//! Vorrang's server: HTTP in front of the gateway's [`Router`](vorrang_gateway::Router).
//!
//! The binary `vorrang` is a command line around [`Server`]; this library is there so that tests can start one in their own process.

mod api;
mod app;
mod certificates;
pub mod cli;
mod connection;
pub mod demo_load;
mod eviction;
mod failure;
mod keys;
mod lifecycle;
pub mod logging;
mod metrics;
mod patience;
pub mod queue;
mod record;
pub mod reload;
pub mod remote;
mod request_body;
mod server;
mod shadow;
pub mod simulate;
mod stream;
pub mod top;
mod traces;
mod watched_call;
pub mod welcome;

pub use patience::Patience;
pub use server::Server;
