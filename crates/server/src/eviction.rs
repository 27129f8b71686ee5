//! Whether Redis may evict what lives in it. It is asked again and again: it may come late, fail over, or be changed.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::sleep};
use vorrang_scheduler::backend::{Backend, BackendError};

/// How often a Redis that answers is asked.
const INTERVAL: Duration = Duration::from_secs(5);

/// How often a Redis that does not answer is asked: after a failover another server with another policy may answer.
const WHILE_AWAY: Duration = Duration::from_millis(500);

/// What the backend said last.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Said {
    Nothing,
    Keeps,
    MayEvict(String),
}

/// What is known of it by now.
#[derive(Debug, Clone)]
pub(crate) struct Eviction(watch::Receiver<Said>);

// === impl Eviction ===

impl Eviction {
    /// For a backend that cannot evict.
    pub(crate) fn never() -> Self {
        Self(watch::channel(Said::Keeps).1)
    }

    /// Asks from now on, until the last user of the result is dropped. `away`: it did not answer just now; otherwise it said that it keeps everything.
    pub(crate) fn watched(backend: Arc<dyn Backend>, away: bool) -> Self {
        let first = if away { Said::Nothing } else { Said::Keeps };
        let (said, heard) = watch::channel(first);
        tokio::spawn(ask(backend, said, away));
        Self(heard)
    }

    /// Why the backend cannot be relied on, if it cannot.
    pub(crate) fn objection(&self) -> Option<String> {
        match &*self.0.borrow() {
            Said::Nothing => {
                Some("Redis has not said yet whether it is set up as the queue needs it".into())
            }
            Said::Keeps => None,
            Said::MayEvict(why) => Some(why.clone()),
        }
    }
}

/// Whether this is about how the backend is set up, and not about reaching it.
pub(crate) fn is_objection(error: &BackendError) -> bool {
    error.kind == "config"
}

async fn ask(backend: Arc<dyn Backend>, said: watch::Sender<Said>, mut away: bool) {
    loop {
        let pause = if away { WHILE_AWAY } else { INTERVAL };
        tokio::select! {
            () = said.closed() => return,
            () = sleep(pause) => {}
        }
        let now = match backend.check().await {
            Ok(()) => Said::Keeps,
            Err(error) if is_objection(&error) => Said::MayEvict(error.message),
            // What it said last holds until it says something else.
            Err(error) => {
                if !away {
                    tracing::warn!(%error, "Redis cannot be used; requests wait for it");
                }
                away = true;
                continue;
            }
        };
        if away {
            tracing::info!("Redis is there");
        }
        away = false;
        let before = said.send_replace(now.clone());
        match (before, now) {
            (before, now) if before == now => {}
            (_, Said::MayEvict(why)) => {
                tracing::error!(why, "this Redis cannot be relied on: not ready");
            }
            (Said::MayEvict(_), _) => tracing::info!("Redis is set up as the queue needs it"),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Mutex, PoisonError},
    };

    use futures_util::future::{BoxFuture, FutureExt as _, ready};
    use tokio::sync::mpsc;
    use vorrang_scheduler::{
        backend::Wake,
        message::{Message, Reply},
    };

    use super::*;

    /// Answers each check as the test sets it.
    #[derive(Debug)]
    struct Told(Mutex<Result<(), BackendError>>);

    impl Told {
        fn tell(&self, kind: &'static str, message: &str) {
            *self.0.lock().unwrap() = Err(BackendError {
                kind,
                message: message.into(),
            });
        }
    }

    impl Backend for Told {
        fn step<'a>(
            &'a self,
            _: &'a str,
            _: &'a Message,
        ) -> BoxFuture<'a, Result<Reply, BackendError>> {
            panic!("no step is made here")
        }

        fn wakes(&self, _: &str) -> mpsc::UnboundedReceiver<Wake> {
            panic!("no listener is used here")
        }

        fn check(&self) -> BoxFuture<'_, Result<(), BackendError>> {
            ready(self.0.lock().unwrap().clone()).boxed()
        }
    }

    /// The levels and texts that were logged.
    #[derive(Debug, Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Log {
        fn lines(&self) -> Vec<String> {
            let bytes = std::mem::take(&mut *self.0.lock().unwrap());
            let text = String::from_utf8(bytes).unwrap();
            text.lines().map(|line| line.trim().to_owned()).collect()
        }
    }

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            all.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Long enough for several checks at either interval.
    async fn later() {
        sleep(4 * INTERVAL).await;
    }

    #[tokio::test(start_paused = true)]
    async fn eviction_policy_change_is_noticed_and_logged_once() {
        let log = Log::default();
        let writer = log.clone();
        let lines = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .without_time()
            .with_target(false)
            .with_ansi(false)
            .finish();
        let _installed = tracing::subscriber::set_default(lines);
        let backend = Arc::new(Told(Mutex::new(Ok(()))));
        backend.tell("io", "refused");
        let eviction = Eviction::watched(backend.clone(), true);
        later().await;
        let unknown = eviction.objection().unwrap();
        assert!(unknown.contains("has not said yet"), "{unknown}");
        assert_eq!(log.lines(), Vec::<String>::new(), "the start has logged it");

        backend.tell("config", "policy is allkeys-lru");
        later().await;
        assert_eq!(eviction.objection().unwrap(), "policy is allkeys-lru");
        let logged = "ERROR this Redis cannot be relied on: not ready why=";
        let first = format!(r#"{logged}"policy is allkeys-lru""#);
        assert_eq!(log.lines(), ["INFO Redis is there", &first]);

        backend.tell("config", "policy is volatile-lru");
        later().await;
        let second = format!(r#"{logged}"policy is volatile-lru""#);
        assert_eq!(log.lines(), [second]);

        // Being away takes nothing back.
        backend.tell("io", "refused");
        later().await;
        assert_eq!(eviction.objection().unwrap(), "policy is volatile-lru");
        let away = "WARN Redis cannot be used; requests wait for it error=io: refused";
        assert_eq!(log.lines(), [away]);

        *backend.0.lock().unwrap() = Ok(());
        later().await;
        assert_eq!(eviction.objection(), None);
        assert_eq!(
            log.lines(),
            [
                "INFO Redis is there",
                "INFO Redis is set up as the queue needs it"
            ]
        );

        drop(eviction);
        later().await;
        assert_eq!(Arc::strong_count(&backend), 1, "the watch has ended");
    }
}
