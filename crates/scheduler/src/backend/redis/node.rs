//! A server with its shared connections for steps.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
};

use redis::aio::MultiplexedConnection;
use tokio_util::sync::CancellationToken;

use super::{connection::Connection, server::Server};

pub(super) struct Node {
    pub(super) server: Arc<Server>,
    pub(super) connections: Vec<Connection>,
}

// === impl Node ===

impl Node {
    /// Begins to connect.
    pub(super) fn open(server: Arc<Server>, connections: usize, stop: &CancellationToken) -> Self {
        let open = |_| Connection::open(server.clone(), stop.clone());
        Self {
            connections: (0..connections.max(1)).map(open).collect(),
            server,
        }
    }

    /// A group always uses the same connection, so that its steps arrive in order.
    pub(super) fn connection(&self, group: &str) -> &Connection {
        let mut hasher = DefaultHasher::new();
        group.hash(&mut hasher);
        let count = self.connections.len() as u64;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "below the number of connections"
        )]
        let index = (hasher.finish() % count) as usize;
        &self.connections[index]
    }

    /// An open connection, if there is one.
    pub(super) fn ready(&self) -> Option<MultiplexedConnection> {
        self.connections.iter().find_map(Connection::ready)
    }
}
