//! Vorrang's server: HTTP in front of the gateway's [`Router`](vorrang_gateway::Router).
//!
//! The binary `vorrang` is a command line around [`Server`]; this library is there so that tests can start one in their own process.

mod access;
mod app;
mod auth;
mod body_budget;
mod calls;
pub mod cli;
mod client_io;
mod connection;
mod cors;
mod early;
mod escaping;
mod eviction;
mod failure;
mod gauges;
mod held;
mod keepalive;
mod lifecycle;
mod listener;
mod listing;
pub mod logging;
mod metrics;
mod paths;
mod places;
mod request_body;
mod server;
mod stall;
mod strangers;
mod unread;
pub mod welcome;

pub use server::{Patience, Server};
