//! The dispatcher: one for each group and instance.
//!
//! [`Core`] is the client side of the protocol as a state machine without I/O: it takes ops and replies, returns messages and events, and time is an argument. The
//! simulation drives it in virtual time. `task` drives it with a real backend and tokio's clock, `supervisor` replaces a task that panics, and the handles of a group use
//! `shared`.

mod answers;
mod charge_log;
mod core;
mod differing;
mod fallback;
mod queries;
mod reconfigure;
mod sending;
mod shared;
mod snapshot;
mod supervisor;
mod task;

pub use self::{
    core::{Alive, Core, Event, QueryId, TicketId, Transmission},
    queries::{Query, QueryResult},
};
pub(crate) use shared::{Board, Command, GroupShared, Waiter};
pub(crate) use supervisor::supervise;
pub(crate) use task::Surroundings;
