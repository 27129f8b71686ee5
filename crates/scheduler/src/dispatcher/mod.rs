//! The dispatcher: one for each group and instance.
//!
//! [`Core`] is the protocol's client as a state machine without I/O: ops and replies go in, messages and events come out, and time is an argument. The
//! simulation drives it in virtual time. `task` drives it with a real backend and tokio's clock.

mod answers;
mod core;
mod differing;
mod memory;
mod sending;
mod snapshot;
mod task;

pub use self::core::{Alive, Core, Event, TicketId, Transmission};
pub(crate) use task::{Asker, Command, GroupShared, PermitReturn, run};
