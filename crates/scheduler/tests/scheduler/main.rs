//! Tickets, permits and dispatchers by the public API. One binary, because each binary links the whole optimised scheduler.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot be set up fails"
)]

mod aging;
mod choice;
mod contract;
mod dispatchers;
mod dispatching;
mod examples;
mod extremes;
mod fair;
mod next_free;
mod operators;
mod processes;
mod reconfiguring;
mod rollouts;
mod scheduling;
mod sender;
mod simulating;
mod snapshots;
