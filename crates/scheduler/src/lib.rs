//! A distributed priority scheduler: one queue for a fleet, one atomic step.
//!
//! Each request [joins](Group::join) its group's queue with a priority and gets a [`Ticket`]; when the ticket is the best of the whole fleet
//! and a deployment has room under every limit, it becomes a [`Permit`], and the permit an [`ActiveCall`] when the call goes out. All are
//! returned by dropping them.
//!
//! ```
//! # use std::{sync::Arc, time::Duration};
//! # use vorrang_scheduler::{*, backend::MemoryBackend};
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! let scheduler = Scheduler::new(Arc::new(MemoryBackend::new()), "instance-1", Arc::new(NoObserver));
//! let ten_per_minute = Deployment::new("gpt").limit(LimitKind::Requests, 10, Duration::from_secs(60));
//! let group = scheduler.open("gpt", &GroupConfig::new(vec![ten_per_minute]));
//!
//! let permit = group.join(0, 0).granted().await.unwrap();
//! let call = permit.dispatch().unwrap(); // the call goes out now
//! assert_eq!(call.deployment(), 0);
//! # }
//! ```

// The wire format, the transition and the protocol's client are not part of the API: the feature `internals` exports them to tests.
#![cfg_attr(
    not(feature = "internals"),
    allow(
        dead_code,
        unreachable_pub,
        unused_imports,
        reason = "what only tests use"
    )
)]

pub mod backend;
mod bounds;
mod claim;
mod config;
mod cost;
#[cfg(not(feature = "internals"))]
mod dispatcher;
#[cfg(feature = "internals")]
pub mod dispatcher;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzz;
mod grant;
#[cfg(not(feature = "internals"))]
mod message;
#[cfg(feature = "internals")]
pub mod message;
mod mutation;
#[cfg(test)]
#[path = "../../../fuzz/near.rs"]
mod near;
mod operators;
mod overrides;
mod permit;
#[cfg(not(feature = "internals"))]
mod rules;
#[cfg(feature = "internals")]
pub mod rules;
mod scheduler;
pub mod simulate;
mod ticket;
#[cfg(not(feature = "internals"))]
mod transition;
#[cfg(feature = "internals")]
pub mod transition;
mod units;
mod wire;

#[cfg(feature = "internals")]
pub use claim::Entry;
pub use claim::{Claim, MAX_COST, Share, UNIT_COST};
pub use config::*;
pub use cost::*;
#[cfg(feature = "internals")]
pub use grant::HeldGrant;
pub use grant::Numbers;
pub use operators::*;
pub use overrides::{LimitOverride, Overrides};
pub use permit::{ActiveCall, Expired, Permit};
pub use rules::{MAX_HANDICAP, MAX_LIMIT};
pub use scheduler::*;
pub use ticket::*;
pub use units::Seq;
#[cfg(feature = "internals")]
pub use units::{Micros, SessionId};
