//! Where a group's state lives: in memory (one instance) or in Redis (a fleet).

mod memory;
mod redis;

use std::{fmt, sync::Arc};

use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

pub use self::{
    memory::MemoryBackend,
    redis::{RedisBackend, RedisOptions},
};

use crate::message::{Message, Reply};

/// Executes steps on the shared state of groups.
///
/// A failed step may have been executed, now or later: the protocol allows the same message to be sent again whatever happened (P1, P2).
pub trait Backend: Send + Sync + fmt::Debug {
    /// Executes one message in a group.
    fn step<'a>(
        &'a self,
        group: &'a str,
        message: &'a Message,
    ) -> BoxFuture<'a, Result<Reply, BackendError>>;

    /// What wakes this instance from now on. A wake may be lost; it costs latency, never liveness (P15).
    fn wakes(&self, instance: &str) -> mpsc::UnboundedReceiver<Wake>;

    /// Whether the backend answers and is set up as it has to be; for health checks.
    fn check(&self) -> BoxFuture<'_, Result<(), BackendError>>;
}

/// A reason to step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wake {
    /// Something happened in this group.
    Group(Arc<str>),
    /// Wakes may have been lost: look everywhere.
    All,
}

/// The kind of an answer that came and cannot be read.
pub const UNDECODABLE: &str = "undecodable";

/// Why a step was not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind}: {message}")]
pub struct BackendError {
    /// A short stable word, for metrics.
    pub kind: &'static str,
    /// For people.
    pub message: String,
}
