//! Accepts connections, whatever happens, up to a number of them.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    time::sleep,
};
use tokio_util::task::TaskTracker;

use crate::connection::{Connections, rarely::Rarely, slots::Slots};

/// Accepts until it is dropped. Each connection is a task of `tasks`, and holds a slot.
///
/// Without a free slot, the kernel's backlog holds further connections.
pub(crate) async fn accept(
    listener: &TcpListener,
    connections: &Connections,
    slots: &Arc<Slots>,
    tasks: &TaskTracker,
) {
    let mut errors = Rarely::default();
    loop {
        slots.acceptable().await;
        let (stream, from) = next(listener, slots, &mut errors).await;
        // One that is refused costs no slot, and no answer either: it is closed.
        if let Some(accepted) = connections.admits(from) {
            let slot = slots.connection();
            tasks.spawn(connections.clone().serve(stream, from, accepted, slot));
        }
    }
}

async fn next(
    listener: &TcpListener,
    slots: &Slots,
    errors: &mut Rarely,
) -> (TcpStream, SocketAddr) {
    let mut pause = Duration::from_millis(10);
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            // This connection failed in the backlog; the next may be fine.
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
                if let Some(errors) = errors.due() {
                    tracing::warn!(%error, errors, "cannot accept connections");
                }
                slots.close_idle();
                sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(1));
            }
        }
    }
}

/// Lets this process open as many files as it may, and says how many.
pub(crate) fn descriptors() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
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
    usize::try_from(files).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        time::timeout,
    };
    use vorrang_gateway::Config;
    use vorrang_scheduler::backend::MemoryBackend;

    use super::*;
    use crate::{
        api,
        app::App,
        connection::{entry::Entry, slots::Budget},
        eviction::Eviction,
        lifecycle::Lifecycle,
        patience::Patience,
    };

    const LONG: Duration = Duration::from_secs(10);

    fn connections() -> Connections {
        let app = App::start(
            Config::demo(),
            Arc::new(MemoryBackend::new()),
            Eviction::never(),
            Patience::default(),
            Budget::of(1024),
        );
        let app = Arc::new(app);
        let entry = Entry::main(&app, LONG);
        Connections::new(api::service(app), entry, LONG, LONG, Lifecycle::default())
    }

    #[tokio::test]
    async fn connections_beyond_the_limit_wait_until_one_ends() {
        let connections = connections();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tasks = TaskTracker::new();
        let slots = Slots::new(Budget {
            total: 1,
            reserve: 0,
            idle_upstream: 0,
        });
        tokio::spawn(async move { accept(&listener, &connections, &slots, &tasks).await });

        let mut answer = [0; 12];
        let mut clients = Vec::new();
        for _ in 0..2 {
            let mut client = TcpStream::connect(address).await.unwrap();
            client
                .write_all(b"GET /health/liveliness HTTP/1.1\r\nhost: test\r\n\r\n")
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
        assert!(early.is_err(), "the only slot is taken");
        drop(first);
        timeout(LONG, second.read_exact(&mut answer))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
    }
}
