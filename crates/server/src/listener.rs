//! Accepts connections, whatever happens, up to a number of them.

use std::{io, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::sleep,
};
use tokio_util::task::TaskTracker;

use crate::connection::Connections;

/// Accepts until it is dropped. Each connection is a task of `tasks`.
///
/// Beyond `limit` connections the kernel's backlog holds the rest, until one ends.
pub(crate) async fn accept(
    listener: &TcpListener,
    connections: &Connections,
    limit: usize,
    tasks: &TaskTracker,
) {
    let places = Arc::new(Semaphore::new(limit));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return; // The semaphore is never closed.
        };
        let stream = next(listener).await;
        let connection = connections.clone().serve(stream);
        tasks.spawn(async move {
            connection.await;
            drop(place);
        });
    }
}

async fn next(listener: &TcpListener) -> TcpStream {
    let mut pause = Duration::from_millis(10);
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            // This one connection died in the backlog; the next one is fine.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionAborted
                        | io::ErrorKind::ConnectionReset
                        | io::ErrorKind::ConnectionRefused
                        | io::ErrorKind::Interrupted
                ) => {}
            // Out of file descriptors or memory: trying at once would only burn time until some are free.
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections");
                sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(1));
            }
        }
    }
}

/// Lets this process open as many files as it may, and says how many connections that is: each may need an upstream one as well.
pub(crate) fn connection_limit() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    /// Redis, logs, listener, what libraries open.
    const OTHERS: u64 = 64;
    /// More than a process can use; an unlimited number would overflow somewhere.
    const MOST: u64 = 1 << 20;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.unwrap_or(MOST).min(MOST);
    let current = current.unwrap_or(MOST).min(MOST);
    let raised = Rlimit {
        current: Some(wanted),
        maximum,
    };
    let files = if wanted > current && setrlimit(Resource::Nofile, raised).is_ok() {
        wanted
    } else {
        current
    };
    usize::try_from(files.saturating_sub(OTHERS) / 2)
        .unwrap_or(usize::MAX)
        .max(16)
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        time::timeout,
    };

    use super::*;
    use crate::lifecycle::Lifecycle;

    const LONG: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn connections_beyond_the_limit_wait_until_one_ends() {
        let routes = axum::Router::new().route("/", get(|| async { "here" }));
        let connections = Connections::new(routes, LONG, Lifecycle::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tasks = TaskTracker::new();
        tokio::spawn(async move { accept(&listener, &connections, 1, &tasks).await });

        let mut answer = [0; 12];
        let mut clients = Vec::new();
        for _ in 0..2 {
            let mut client = TcpStream::connect(address).await.unwrap();
            client
                .write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n")
                .await
                .unwrap();
            clients.push(client);
        }
        let (mut second, mut first) = (clients.pop().unwrap(), clients.pop().unwrap());
        timeout(LONG, first.read_exact(&mut answer))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
        let early = timeout(Duration::from_millis(100), second.read_exact(&mut answer)).await;
        assert!(early.is_err(), "the only place is taken");
        drop(first);
        timeout(LONG, second.read_exact(&mut answer))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
    }
}
