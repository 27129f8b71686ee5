//! Vorrang's server: HTTP in front of the gateway's [`Router`](vorrang_gateway::Router).
//!
//! The binary `vorrang` is a command line around [`Server`]; this library is there so that tests can start one in their own process.

mod api;
pub mod cli;
mod connection;
mod eviction;
mod keys;
mod lifecycle;
pub mod logging;
mod metrics;
mod server;
mod stream;
pub mod welcome;

pub use server::{Patience, Server};
