//! A connection for steps that is replaced whenever it is lost.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use redis::{AsyncConnectionConfig, RedisError, RedisResult, aio::MultiplexedConnection};
use tokio::{
    sync::{mpsc, watch},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{BackendError, Server, failure};

/// Pauses between attempts to connect.
const PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Why a connection may have to be replaced.
enum Doubt {
    /// A time-out: a PING decides. Without it a lost peer would be detected after minutes only.
    Unresponsive,
    /// The connection is broken, or its server is no master.
    Broken,
}

/// The connection, or why there is none.
type State = Result<MultiplexedConnection, BackendError>;

/// A shared connection that a task of its own keeps open.
pub(super) struct Connection {
    state: watch::Receiver<State>,
    doubts: mpsc::Sender<Doubt>,
    /// The server refused functions. Each new connection tries them again, as its server may be another one.
    without_functions: Arc<AtomicBool>,
}

impl Connection {
    pub(super) fn open(server: Arc<Server>, stop: CancellationToken) -> Self {
        let connecting = BackendError {
            kind: "io",
            message: "not connected yet".into(),
        };
        let (sender, state) = watch::channel(Err(connecting));
        // Room for one is enough: further steps that fail meanwhile report the same doubt.
        let (doubts, doubted) = mpsc::channel(1);
        let without_functions = Arc::new(AtomicBool::new(false));
        let found = without_functions.clone();
        tokio::spawn(async move {
            stop.run_until_cancelled(keep(server, sender, doubted, found))
                .await
        });
        Self {
            state,
            doubts,
            without_functions,
        }
    }

    /// Whether the step may be called as a function.
    pub(super) fn has_functions(&self) -> bool {
        !self.without_functions.load(Ordering::Relaxed)
    }

    /// The server has no functions, or the user may not use them.
    pub(super) fn use_script(&self) {
        self.without_functions.store(true, Ordering::Relaxed);
    }

    /// The user may not use the script either.
    pub(super) fn try_functions(&self) {
        self.without_functions.store(false, Ordering::Relaxed);
    }

    /// The connection. Without one it waits up to `at_most`, unless another attempt would fail as well; the error says why there is none.
    pub(super) async fn connection(&self, at_most: Duration) -> State {
        let mut state = self.state.clone();
        // An error means a time-out or that the task has ended: the last state is returned in both cases.
        let settled = |state: &State| match state {
            Ok(_) => true,
            Err(error) => failure::is_settled(error),
        };
        let _ = timeout(at_most, state.wait_for(settled)).await.map(drop);
        state.borrow_and_update().clone()
    }

    /// The connection, if it is open.
    pub(super) fn ready(&self) -> Option<MultiplexedConnection> {
        self.state.borrow().as_ref().ok().cloned()
    }

    /// Has to be kept while a step waits for its answer, and told when that is here. A step that is given up before is as much of a doubt as a time-out.
    pub(super) fn waits(&self) -> Waits<'_> {
        Waits(Some(self))
    }

    /// Has to be called with each error of a step.
    pub(super) fn doubt(&self, error: &RedisError) {
        let doubt = if error.is_timeout() {
            Doubt::Unresponsive
        } else if error.is_unrecoverable_error()
            || error.is_io_error()
            || failure::is_wrong_server(error)
        {
            Doubt::Broken
        } else {
            return;
        };
        let _ = self.doubts.try_send(doubt);
    }
}

/// Settings of a connection that is given up when it takes so long to open, or an answer to come.
pub(super) fn patient(limit: Duration) -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(limit))
        .set_response_timeout(Some(limit))
}

/// A pause that is up to a half shorter or longer. *Why:* instances that lost the same server at once do not come back at once.
pub(super) fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.5 + fastrand::f64())
}

/// A step that waits for its answer.
pub(super) struct Waits<'a>(Option<&'a Connection>);

impl Waits<'_> {
    pub(super) fn answered(mut self) {
        self.0 = None;
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        if let Some(connection) = self.0 {
            let _ = connection.doubts.try_send(Doubt::Unresponsive);
        }
    }
}

async fn keep(
    server: Arc<Server>,
    state: watch::Sender<State>,
    mut doubts: mpsc::Receiver<Doubt>,
    without_functions: Arc<AtomicBool>,
) {
    let mut pause = PAUSE;
    let mut moves = server.moves();
    loop {
        moves.mark_unchanged();
        match open(&server).await {
            Ok(mut connection) => {
                pause = PAUSE;
                without_functions.store(false, Ordering::Relaxed);
                let _ = state.send_replace(Ok(connection.clone()));
                loop {
                    let doubt = tokio::select! {
                        doubt = doubts.recv() => doubt,
                        // It ends with the server, which this task holds.
                        _ = moves.changed() => Some(Doubt::Broken),
                    };
                    let alive = match doubt {
                        None => return,
                        Some(Doubt::Unresponsive) => redis::cmd("PING")
                            .query_async::<()>(&mut connection)
                            .await
                            .is_ok(),
                        Some(Doubt::Broken) => false,
                    };
                    if !alive {
                        break;
                    }
                }
                let _ = state.send_replace(Err(BackendError {
                    kind: "io",
                    message: "the connection was lost".into(),
                }));
            }
            Err(error) => {
                tracing::debug!(%error, "cannot connect to Redis");
                let _ = state.send_replace(Err(error));
            }
        }
        sleep(jittered(pause)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Connects, and asks whether the server takes commands. A step would find it out less well: a server that wants a password closes the connection at a command with many
/// arguments, and the steps after it would only find it broken.
async fn open(server: &Server) -> State {
    let opening = async {
        let client = server.client().await?;
        let opened = client.get_multiplexed_async_connection_with_config(&server.config);
        let mut connection = opened.await.map_err(|e| server.secret.explain(&e))?;
        let asked: RedisResult<()> = redis::cmd("PING").query_async(&mut connection).await;
        match asked {
            // The user may not ask, but may step.
            Err(error) if !failure::is_refused_command(&error) => {
                Err(server.secret.explain(&error))
            }
            _ => Ok(connection),
        }
    };
    match timeout(server.timeout * 2, opening).await {
        Ok(opened) => opened,
        Err(_) => Err(BackendError {
            kind: "timeout",
            message: "no connection in time".into(),
        }),
    }
}
