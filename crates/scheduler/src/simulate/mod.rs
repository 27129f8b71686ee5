//! What-if: a group in virtual time. The real step and the real dispatcher decide about recorded or invented requests.
//!
//! - [`VirtualGroup`] is one instance's group whose clock its user moves. Shadows use it.
//! - [`Simulator`] moves that clock from arrival to arrival: it makes calls as long as they are said to take, and lets tickets leave when
//!   their time is up.
//!
//! What several instances send at the same time one instance sends in one message here. Nothing is lost on the way, no call fails, and no
//! deployment cools.

mod simulator;
mod usage;
mod virtual_group;

pub use simulator::{Ended, Request, Simulator};
pub use usage::{LimitUse, Usage};
pub use virtual_group::{VirtualCall, VirtualEvent, VirtualGroup};
