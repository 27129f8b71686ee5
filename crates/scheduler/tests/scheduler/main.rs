//! Tickets, permits and messages by the public API. One binary: each links all of the scheduler, optimised.
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
mod extremes;
mod fair;
mod next_free;
mod processes;
mod rollouts;
mod scheduling;
mod sender;
