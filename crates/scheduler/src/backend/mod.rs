//! Backends hold the state of groups: in memory (one instance) or in Redis (a fleet).

mod memory;
mod redis;

use std::{fmt, sync::Arc};

use futures_util::{FutureExt as _, future::BoxFuture};
use tokio::sync::mpsc;

pub use self::{
    memory::MemoryBackend,
    redis::{ClientCertificate, RedisBackend, RedisOptions, TlsOptions, Topology},
};

#[cfg(feature = "internals")]
pub use self::redis::script;

pub use crate::message::ALL_INSTANCES;
use crate::message::{Message, Reply};

/// Executes steps on the shared state of groups.
///
/// A failed step may have been executed, or may be later: the protocol allows the same message to be sent again in any case (P1, P2).
/// Messages and replies are private, so there are no backends outside this module.
pub trait Backend: Send + Sync + fmt::Debug {
    /// Executes one message in a group.
    fn step<'a>(
        &'a self,
        group: &'a str,
        message: &'a Message,
    ) -> BoxFuture<'a, Result<Reply, BackendError>>;

    /// Subscribes to the wakes of an instance. A wake may be lost; that costs latency, not liveness (P15).
    fn wakes(&self, instance: &str) -> mpsc::UnboundedReceiver<Wake>;

    /// Sends a message to an instance, or to all ([`ALL_INSTANCES`]), with its wakes. It may be lost.
    fn post<'a>(&'a self, _to: &'a str, _body: Vec<u8>) -> BoxFuture<'a, Result<(), BackendError>> {
        std::future::ready(Ok(())).boxed()
    }

    /// Whether the backend answers and its settings are correct; for health checks.
    fn check(&self) -> BoxFuture<'_, Result<(), BackendError>>;

    /// The same of the part that holds this group.
    fn check_group<'a>(&'a self, _group: &'a str) -> BoxFuture<'a, Result<(), BackendError>> {
        self.check()
    }
}

/// A notice that a step may have results for the instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wake {
    /// In this group.
    Group(Arc<str>),
    /// Wakes may have been lost: every group has to be polled.
    All,
    /// A message of another instance.
    Post(Arc<[u8]>),
}

/// The kind of an answer that cannot be decoded.
pub const UNDECODABLE: &str = "undecodable";

/// Why a step failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind}: {message}")]
pub struct BackendError {
    /// A short stable word, for metrics.
    pub kind: &'static str,
    /// A sentence for logs and operators.
    pub message: String,
}

impl BackendError {
    /// The kind of error in words, without the backend's address, user and message: safe to send to clients.
    pub fn cause(&self) -> &'static str {
        match self.kind {
            "io" => "it cannot be reached",
            "timeout" => "it does not answer in time",
            "auth" => "it refuses the user or the password",
            "noperm" => "it refuses a command, a key or a channel to its user",
            "readonly" => "it is a read-only replica",
            "masterdown" => "it is a replica that has lost its master",
            "noreplicas" => "it has fewer replicas than it needs for writing",
            "moved" | "crossslot" => {
                "it is a node of a Redis Cluster: name it with redis+cluster://"
            }
            "clusterdown" => "the cluster has no node that serves this group",
            "tryagain" => "the group is on its way to another node of the cluster",
            "sentinel" => "the sentinels name no master",
            "oom" => "it is out of memory",
            "misconf" => "it refuses writes because it cannot save to its disk",
            "loading" => "it is still loading its data",
            "busy" => "it is busy with another script",
            "config" => "it is not set up as the queue needs it",
            _ => "it answers with an error",
        }
    }

    /// Whether the backend answered with an error. Otherwise there was no answer.
    pub fn is_refusal(&self) -> bool {
        !matches!(self.kind, "io" | "timeout")
    }
}
