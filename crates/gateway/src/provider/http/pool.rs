//! Connections that wait for their next request, by the server that they lead to.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak},
    time::Duration,
};

use tokio::{runtime::Handle, time::Instant};

use super::{address::Origin, http1::Http1, http2::Http2};

/// An idle connection is closed after so long.
const LONGEST_IDLE: Duration = Duration::from_secs(90);

/// How often idle connections are looked at: those that the server has closed go, too.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The servers that have been called. There are as many as the configuration has.
#[derive(Debug)]
pub(super) struct Pool {
    /// So many idle connections of a server are kept.
    most_idle: usize,
    servers: RwLock<HashMap<Arc<Origin>, Arc<Server>>>,
}

/// A server, and the connections to it.
#[derive(Debug)]
pub(super) struct Server {
    /// It is called through a proxy, and not from here.
    pub(super) proxied: bool,
    most_idle: usize,
    idle: Mutex<Idle>,
}

#[derive(Default)]
struct Idle {
    /// Each serves one request at a time. The last one is used first.
    http1: Vec<(Http1, Instant)>,
    /// It serves all requests at once; when it was used last.
    http2: Option<(Http2, Instant)>,
    /// A task looks after them.
    watched: bool,
}

impl Pool {
    pub(super) fn new(most_idle: usize) -> Self {
        Self {
            most_idle,
            servers: RwLock::default(),
        }
    }

    /// The server of an origin. `proxied`: whether it is called through a proxy, which does not change.
    pub(super) fn server(
        &self,
        origin: &Arc<Origin>,
        proxied: impl FnOnce() -> bool,
    ) -> Arc<Server> {
        let known = self.servers.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = known.get(origin) {
            return server.clone();
        }
        drop(known);
        let mut servers = self.servers.write().unwrap_or_else(PoisonError::into_inner);
        let server = servers.entry(origin.clone()).or_insert_with(|| {
            Arc::new(Server {
                proxied: proxied(),
                most_idle: self.most_idle,
                idle: Mutex::default(),
            })
        });
        server.clone()
    }
}

impl Server {
    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection that is open, as far as is known here.
    pub(super) fn take(&self) -> Option<Http1> {
        loop {
            // The lock is not held while the connection is looked at.
            let (mut connection, _) = self.idle().http1.pop()?;
            if connection.is_open() {
                return Some(connection);
            }
        }
    }

    /// The connection that all requests share, where the server speaks HTTP/2.
    pub(super) fn shared(&self) -> Option<Http2> {
        let mut idle = self.idle();
        let (shared, used) = idle.http2.as_mut()?;
        if shared.is_open() {
            *used = Instant::now();
            return Some(shared.clone());
        }
        idle.http2 = None;
        None
    }

    /// Keeps a connection for all requests. Another one that is open stays, and is to be used instead (`Err`).
    pub(super) fn share(self: &Arc<Self>, connection: Http2) -> Result<Http2, Http2> {
        if let Some(other) = self.shared() {
            return Err(other);
        }
        let mut idle = self.idle();
        idle.http2 = Some((connection.clone(), Instant::now()));
        self.watch(&mut idle);
        Ok(connection)
    }

    /// Keeps a connection for the next request.
    pub(super) fn give(self: &Arc<Self>, connection: Http1) {
        let mut idle = self.idle();
        if idle.http1.len() < self.most_idle {
            idle.http1.push((connection, Instant::now()));
            self.watch(&mut idle);
        }
    }

    fn watch(self: &Arc<Self>, idle: &mut Idle) {
        // Without a runtime nothing is called.
        if !idle.watched
            && let Ok(runtime) = Handle::try_current()
        {
            idle.watched = true;
            runtime.spawn(Watch(Arc::downgrade(self)).run());
        }
    }

    /// Closes what nobody needs; whether anything is left.
    fn cleared(&self) -> bool {
        let mut idle = self.idle();
        let idle = &mut *idle;
        let young = |since: &Instant| since.elapsed() < LONGEST_IDLE;
        idle.http1
            .retain_mut(|(connection, since)| young(since) && connection.is_open());
        idle.http2
            .take_if(|(shared, used)| !young(used) || !shared.is_open());
        idle.watched = !idle.http1.is_empty() || idle.http2.is_some();
        idle.watched
    }
}

impl fmt::Debug for Idle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Idle")
            .field("http1", &self.http1.len())
            .field("http2", &self.http2.is_some())
            .finish_non_exhaustive()
    }
}

/// Looks after the idle connections of a server while there are any.
struct Watch(Weak<Server>);

impl Watch {
    async fn run(mut self) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            if !self.0.upgrade().is_some_and(|server| server.cleared()) {
                // Another one may have begun.
                self.0 = Weak::new();
                return;
            }
        }
    }
}

/// The runtime may end before the server does: another one goes on.
impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(server) = self.0.upgrade() {
            server.idle().watched = false;
        }
    }
}
