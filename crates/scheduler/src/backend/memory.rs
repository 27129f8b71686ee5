//! The state in memory: for one instance, and for tests.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::{sync::mpsc, time::Instant};

use super::{Backend, BackendError, Wake};
use crate::{
    message::{ALL_INSTANCES, Message, Reply},
    transition::{Environment, State, step},
    units::Micros,
};

/// The groups of one process. Its clock is tokio's, so tests can pause it.
#[derive(Debug)]
pub struct MemoryBackend {
    started: Instant,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    groups: HashMap<String, Option<State>>,
    listeners: BTreeMap<Arc<str>, mpsc::UnboundedSender<Wake>>,
    random: fastrand::Rng,
}

impl MemoryBackend {
    /// An empty backend. Needs a tokio runtime.
    pub fn new() -> Self {
        Self {
            started: Instant::now(),
            inner: Mutex::default(),
        }
    }

    /// An empty backend with a fixed sequence of random choices, for tests.
    pub fn with_seed(seed: u64) -> Self {
        let backend = Self::new();
        backend.lock().random.seed(seed);
        backend
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn execute(&self, group: &str, message: &Message) -> Reply {
        let mut inner = self.lock();
        let environment = Environment {
            // The clock begins at one second, so that no sequence number is 0.
            now: Micros::from(self.started.elapsed()) + Micros::SECOND,
            random: inner.random.u32(..),
            replication: "".into(),
            certain: true,
        };
        if !inner.groups.contains_key(group) {
            inner.groups.insert(group.into(), None);
        }
        let Some(state) = inner.groups.get_mut(group) else {
            unreachable!("just inserted")
        };
        let outcome = step(state, &environment, message);
        for name in outcome.wakes {
            let wake = Wake::Group(group.into());
            if &*name == ALL_INSTANCES {
                inner
                    .listeners
                    .retain(|_, listener| listener.send(wake.clone()).is_ok());
            } else if let Some(listener) = inner.listeners.get(&name) {
                // A closed listener needs no wake.
                let _ = listener.send(wake);
            }
        }
        outcome.reply
    }
}

impl Default for MemoryBackend {
    fn default() -> Self {
        Self::new()
    }
}

impl Backend for MemoryBackend {
    fn step<'a>(
        &'a self,
        group: &'a str,
        message: &'a Message,
    ) -> BoxFuture<'a, Result<Reply, BackendError>> {
        std::future::ready(Ok(self.execute(group, message))).boxed()
    }

    fn wakes(&self, instance: &str) -> mpsc::UnboundedReceiver<Wake> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.lock().listeners.insert(instance.into(), sender);
        receiver
    }

    fn post<'a>(&'a self, to: &'a str, body: Vec<u8>) -> BoxFuture<'a, Result<(), BackendError>> {
        let body: Arc<[u8]> = body.into();
        let inner = self.lock();
        for (name, listener) in &inner.listeners {
            if to == ALL_INSTANCES || to == &**name {
                // A closed listener needs no message.
                let _ = listener.send(Wake::Post(body.clone()));
            }
        }
        std::future::ready(Ok(())).boxed()
    }

    fn check(&self) -> BoxFuture<'_, Result<(), BackendError>> {
        std::future::ready(Ok(())).boxed()
    }
}
