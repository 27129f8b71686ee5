//! [`Server`]: one instance, from its socket until its sessions are closed.

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use tokio::{net::TcpListener, time::timeout};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use vorrang_gateway::Config;
use vorrang_scheduler::backend::{Backend, MemoryBackend};

use crate::{
    api,
    app::App,
    connection::{
        Connections,
        entry::Entry,
        listener,
        slots::{Budget, Slots},
    },
    demo_load,
    eviction::{self, Eviction},
    lifecycle::Lifecycle,
    patience::Patience,
    reload::Reloader,
};

/// One instance of the gateway: bound, not yet serving.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    admin: Option<(TcpListener, SocketAddr)>,
    app: Arc<App>,
    patience: Patience,
    grace: Duration,
    delay: Duration,
    write_timeout: Duration,
}

// === impl Server ===

impl Server {
    /// Binds `host:port` (port 0: a free one), connects to the backend and opens a session in every group.
    ///
    /// # Errors
    /// The address cannot be bound, the Redis URL is malformed, or this Redis may evict or refuses INFO. A Redis that does not answer is no error: it is waited for.
    pub async fn bind(config: Config, host: &str, port: u16, patience: Patience) -> Result<Self> {
        let (listener, address) = listen(host, port).await?;
        let admin = match config.admin_port {
            Some(port) => Some(listen(host, port).await?),
            None => None,
        };
        let budget = Budget::of(listener::descriptors());
        tracing::debug!(?budget, "file descriptors");
        let (grace, write_timeout) = (config.grace, config.client_write_timeout);
        let delay = config.shutdown_delay;
        let (backend, eviction) = backend(&config).await?;
        Ok(Self {
            listener,
            address,
            admin,
            app: Arc::new(App::start(config, backend, eviction, patience, budget)),
            patience,
            grace,
            delay,
            write_timeout,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How its URL begins: `http` or `https`.
    pub fn scheme(&self) -> &'static str {
        scheme(self.app.certificates.is_some())
    }

    /// How the admin port's URL begins.
    pub fn admin_scheme(&self) -> &'static str {
        let certificates = self.app.certificates.as_ref();
        scheme(certificates.is_some_and(|certificates| certificates.at_admin_port()))
    }

    /// What gives it other configurations while it runs.
    pub fn reloader(&self) -> Reloader {
        Reloader(self.app.clone())
    }

    /// Sends the demo's traffic, until it is dropped.
    pub fn demo_load(&self, provider: demo_load::Provider) -> impl Future<Output = ()> + use<> {
        let (router, metrics) = (self.app.router.clone(), self.app.metrics.clone());
        demo_load::run(provider, router, metrics)
    }

    /// Where the admin port listens, if there is one.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(|(_, address)| *address)
    }

    /// Serves until `stop` is done, then shuts down: readiness says no; after the shutdown delay there are no new connections; waiting tickets are served and streams may end within
    /// the grace time, the rest is answered 503 or cut; permits are returned; sessions are closed.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let lifecycle = self.app.lifecycle.clone();
        let scheduler = self.app.scheduler.clone();
        let metrics = self.app.metrics.clone();
        let slots = self.app.slots.clone();
        let app = self.app.clone();
        let tasks = TaskTracker::new();
        // Answers until the end, also while the rest shuts down.
        let _admin = self.admin.map(|(listener, _)| {
            let routes = api::admin(self.app.clone());
            let lifecycle = Lifecycle::default();
            let end = lifecycle.abort.clone().drop_guard();
            let entry = Entry::admin(&self.app, self.patience.handshake);
            let (head, write) = (self.patience.head, self.write_timeout);
            let connections = Connections::new(routes, entry, head, write, lifecycle);
            AbortOnDropHandle::new(tokio::spawn(async move {
                let _end = end;
                let slots = Slots::new(ADMIN);
                listener::accept(&listener, &connections, &slots, &TaskTracker::new()).await;
            }))
        });
        let _watched = self.app.certificates.clone().map(|certificates| {
            let watched = async move { certificates.watch().await };
            AbortOnDropHandle::new(tokio::spawn(watched))
        });
        let entry = Entry::main(&self.app, self.patience.handshake);
        let connections = Connections::new(
            api::service(self.app),
            entry,
            self.patience.head,
            self.write_timeout,
            lifecycle.clone(),
        );
        tokio::select! {
            () = listener::accept(&self.listener, &connections, &slots, &tasks) => {}
            () = stop => {}
        }
        lifecycle.leaving.cancel();
        if !self.delay.is_zero() {
            let delay_seconds = self.delay.as_secs_f64();
            tracing::info!(
                delay_seconds,
                "not ready any more; the listener closes later"
            );
            let accepting = listener::accept(&self.listener, &connections, &slots, &tasks);
            let _ = timeout(self.delay, accepting).await;
        }
        tracing::info!(
            grace_seconds = self.grace.as_secs_f64(),
            connections = tasks.len(),
            "shutting down"
        );
        lifecycle.stopping.cancel();
        drop((self.listener, connections));
        tasks.close();
        let close_time = self.patience.close;
        if timeout(self.grace, tasks.wait()).await.is_err() {
            tracing::warn!(connections = tasks.len(), "the grace time is over");
            lifecycle.cut.cancel();
            let answered = async {
                // Clients read their 503 in this time; a client that does not is not reading.
                let _ = timeout(close_time, tasks.wait()).await;
                lifecycle.abort.cancel();
                tasks.wait().await;
            };
            tokio::join!(scheduler.close(close_time), answered);
        } else {
            scheduler.close(close_time).await;
        }
        if let Some(traces) = &app.traces {
            traces.close(close_time).await;
        }
        // Its task has the router, and so these metrics.
        metrics.shadow.store(None);
        tracing::info!("sessions closed");
    }
}

/// The admin port's connections: probes and scrapes. Their descriptors are among those that the [`Budget`] leaves to others.
const ADMIN: Budget = Budget {
    total: 16,
    reserve: 8,
    idle_upstream: 0,
};

fn scheme(tls: bool) -> &'static str {
    if tls { "https" } else { "http" }
}

async fn listen(host: &str, port: u16) -> Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind((host, port))
        .await
        .with_context(|| format!("cannot listen on {host}:{port}"))?;
    let address = listener
        .local_addr()
        .context("cannot tell the bound address")?;
    Ok((listener, address))
}

/// In memory unless the configuration names a Redis.
async fn backend(config: &Config) -> Result<(Arc<dyn Backend>, Eviction)> {
    let Some(redis) = &config.redis else {
        return Ok((Arc::new(MemoryBackend::new()), Eviction::never()));
    };
    let backend = redis.connect().context("cannot use this Redis")?;
    let away = match backend.check().await {
        Ok(()) => false,
        // It answers, and will go on losing tickets until its policy is changed.
        Err(error) if eviction::is_objection(&error) => {
            return Err(error).context("cannot use this Redis");
        }
        Err(error) => {
            tracing::warn!(%error, "Redis cannot be used yet; requests wait for it");
            true
        }
    };
    let eviction = Eviction::watched(backend.clone(), away);
    Ok((backend, eviction))
}
