//! [`Relay`]: a TCP relay that does to connections what networks do.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Notify, watch},
    task::JoinHandle,
    time::{Instant, sleep},
};

/// What becomes of bytes. Those that are held back arrive when the relay passes again: as on a network, where they are sent anew
/// until they get through. That is how a command can be executed long after its sender gave it up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkState {
    /// They pass.
    Up,
    /// They pass after this time, each way.
    Slow(Duration),
    /// None passes, either way; connections stay open, and new ones seem to be accepted.
    Cut,
    /// They pass to the server and not back.
    RepliesHeld,
    /// They pass back and not to the server.
    RequestsHeld,
    /// Connections are reset, new ones too.
    Resetting,
}

/// A relay on a free port. Ends with its handle.
#[derive(Debug)]
pub struct Relay {
    port: u16,
    target: Arc<AtomicU16>,
    state: watch::Sender<LinkState>,
    reset: Arc<Notify>,
    accepted: Arc<Mutex<Vec<Instant>>>,
    task: JoinHandle<()>,
}

// === impl Relay ===

impl Relay {
    /// Relays to a port of this machine.
    ///
    /// # Errors
    /// No port is free.
    pub async fn to(port: u16) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let own = listener.local_addr()?.port();
        let (state, seen) = watch::channel(LinkState::Up);
        let reset = Arc::new(Notify::new());
        let target = Arc::new(AtomicU16::new(port));
        let accepted = Arc::<Mutex<Vec<Instant>>>::default();
        let task = tokio::spawn(accept(
            listener,
            target.clone(),
            seen,
            reset.clone(),
            accepted.clone(),
        ));
        Ok(Self {
            port: own,
            target,
            state,
            reset,
            accepted,
            task,
        })
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// When connections came, those that it reset included.
    pub fn accepted(&self) -> Vec<Instant> {
        let accepted = self.accepted.lock();
        accepted.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// From now on, for the connections that are there and for new ones.
    pub fn set(&self, state: LinkState) {
        self.state.send_replace(state);
    }

    /// Relays to another port from now on: new connections go there, and those that are there are reset.
    pub fn retarget(&self, port: u16) {
        self.target.store(port, Ordering::Relaxed);
        self.reset();
    }

    /// Resets the connections that are there.
    pub fn reset(&self) {
        self.reset.notify_waiters();
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(
    listener: TcpListener,
    target: Arc<AtomicU16>,
    state: watch::Receiver<LinkState>,
    reset: Arc<Notify>,
    accepted: Arc<Mutex<Vec<Instant>>>,
) {
    // Out of descriptors: then the test fails by what it waits for.
    while let Ok((client, _)) = listener.accept().await {
        let mut times = accepted.lock().unwrap_or_else(PoisonError::into_inner);
        times.push(Instant::now());
        drop(times);
        let (state, reset) = (state.clone(), reset.clone());
        let port = target.load(Ordering::Relaxed);
        tokio::spawn(async move {
            // How connections end is not looked at: that is what they are relayed for.
            drop(relay(client, port, state, reset).await);
        });
    }
}

async fn relay(
    client: TcpStream,
    port: u16,
    mut state: watch::Receiver<LinkState>,
    reset: Arc<Notify>,
) -> Result<()> {
    // With this set, dropping the sockets resets the connection.
    let abrupt = |stream: &TcpStream| SockRef::from(stream).set_linger(Some(Duration::ZERO));
    abrupt(&client)?;
    if *state.borrow() == LinkState::Resetting {
        return Ok(());
    }
    let server = TcpStream::connect(("127.0.0.1", port)).await?;
    abrupt(&server)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let there = pipe(
        from_client,
        to_server,
        state.clone(),
        LinkState::RequestsHeld,
    );
    let back = pipe(
        from_server,
        to_client,
        state.clone(),
        LinkState::RepliesHeld,
    );
    tokio::select! {
        end = there => end,
        end = back => end,
        () = reset.notified() => Ok(()),
        _ = state.wait_for(|now| *now == LinkState::Resetting) => Ok(()),
    }
}

/// One direction, until its end. `shut`: the state that closes only this one.
async fn pipe(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut state: watch::Receiver<LinkState>,
    shut: LinkState,
) -> Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let size = from.read(&mut buffer).await?;
        if size == 0 {
            return Ok(());
        }
        let open = |now: &LinkState| *now != LinkState::Cut && *now != shut;
        let now = *state.wait_for(open).await?;
        if let LinkState::Slow(time) = now {
            sleep(time).await;
            state.wait_for(open).await?;
        }
        to.write_all(&buffer[..size]).await?;
    }
}
