//! A server to connect to: at an address, or the master that sentinels name at the moment.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use deadpool_redis::{Manager, Pool, Runtime, Timeouts};
use redis::{AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo};
use tokio::{sync::watch, time::sleep};

use super::{
    BackendError,
    connection::{jittered, patient},
    failure::Secret,
    sentinel::{Named, Sentinels},
    target,
};

/// Steps that are buffered for one connection; further ones wait for room.
const PIPELINE: usize = 1024;

/// The time between two questions to the sentinels.
const FOLLOW: Duration = Duration::from_millis(300);

/// Where a server is.
pub(super) enum Place {
    At(ConnectionInfo),
    /// Whatever master the sentinels name. They are asked for each connection.
    Named(Sentinels),
}

/// What is needed to open a connection, and the secrets that errors must not contain.
pub(super) struct Server {
    place: Place,
    pub(super) config: AsyncConnectionConfig,
    /// The longest time to open a connection, and to wait for an answer.
    pub(super) timeout: Duration,
    pub(super) secret: Secret,
    /// Connections for checks, and the address that they go to.
    admin: Mutex<Option<(ConnectionAddr, Pool)>>,
    /// Where the master is that connections are opened to.
    current: Mutex<Option<Named>>,
    /// Changes when the sentinels name another master. *Why:* the former one may still answer, and until a sentinel demotes it, it takes steps that are lost.
    moves: watch::Sender<()>,
}

// === impl Server ===

impl Server {
    pub(super) fn new(place: Place, timeout: Duration, secret: Secret) -> Self {
        Self {
            place,
            config: patient(timeout).set_pipeline_buffer_size(PIPELINE),
            timeout,
            secret,
            admin: Mutex::new(None),
            current: Mutex::new(None),
            moves: watch::Sender::new(()),
        }
    }

    /// Notices of another master.
    pub(super) fn moves(&self) -> watch::Receiver<()> {
        self.moves.subscribe()
    }

    /// A client of the server that is the master now.
    pub(super) async fn client(&self) -> Result<Client, BackendError> {
        match &self.place {
            Place::At(info) => Client::open(info.clone()).map_err(|e| self.secret.explain(&e)),
            Place::Named(sentinels) => {
                let master = sentinels.master(self.current(), self.timeout, &self.secret);
                let (client, named) = master.await?;
                let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
                *current = Some(named);
                Ok(client)
            }
        }
    }

    fn current(&self) -> Option<Named> {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        current.clone()
    }

    /// Asks the sentinels again and again whether the master is still the one that connections go to. *Why so often:* all instances have to leave a former
    /// master within a lease, as the new one then grants without those that are missing.
    pub(super) async fn follow(&self) {
        let Place::Named(sentinels) = &self.place else {
            return;
        };
        let mut told = None;
        loop {
            sleep(jittered(FOLLOW)).await;
            let Some(current) = self.current() else {
                continue;
            };
            let newer = sentinels.newer(&current, self.timeout, &self.secret).await;
            // Once for each: one that turns out to be no master would break the connections to another one for ever.
            if newer.is_some() && newer != told {
                told = newer;
                self.moves.send_replace(());
            }
        }
    }

    /// A pool of connections for checks.
    pub(super) async fn admin(&self) -> Result<Pool, BackendError> {
        let client = self.client().await?;
        let info = client.get_connection_info();
        let mut admin = self.admin.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((address, pool)) = &*admin
            && address == info.addr()
        {
            return Ok(pool.clone());
        }
        let pool = self.pool(info)?;
        *admin = Some((info.addr().clone(), pool.clone()));
        Ok(pool)
    }

    fn pool(&self, info: &ConnectionInfo) -> Result<Pool, BackendError> {
        let manager = Manager::new_with_config(info.clone(), self.config.clone())
            .map_err(|e| self.secret.explain(&e))?;
        let timeout = Some(self.timeout);
        let built = Pool::builder(manager)
            .max_size(2)
            .runtime(Runtime::Tokio1)
            .timeouts(Timeouts {
                wait: timeout,
                create: timeout,
                recycle: timeout,
            })
            .build();
        built.map_err(|error| target::error(error.to_string()))
    }
}
