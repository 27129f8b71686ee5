//! `vorrang-load`: load over a fleet of `vorrang`, and the provider simulator that is its referee.
//!
//! - [`provider`]: an OpenAI-compatible server with the limits of a real one. It judges its calls.
//! - [`scenario`] and [`plan`]: what is sent when. A plan is made before the first request and never waits for an answer.
//! - [`run`]: sends it, and keeps a [`log`] of each request.
//! - [`judge`]: verdicts from that log and the provider's; [`report`]: both to look at.

mod client;
pub mod fleet;
pub mod judge;
pub mod log;
mod progress;
pub mod provider;
pub mod report;
pub mod run;

pub use vorrang_scenario::{amount, plan, scenario};
