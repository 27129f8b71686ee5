//! [`Relay`]: a TCP relay that does to connections what networks do.

use std::{sync::Arc, time::Duration};

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
    time::sleep,
};

/// What becomes of bytes. Those that are held back arrive when the relay passes again: as on a network, where they are sent anew
/// until they get through. That is how a command can be executed long after its sender gave it up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    /// They pass.
    Fair,
    /// They pass after this time, each way.
    Slow(Duration),
    /// None passes, either way; connections stay open, and new ones seem to be accepted.
    Dead,
    /// They pass to the server and not back.
    Deaf,
    /// They pass back and not to the server.
    Mute,
    /// Connections are reset, new ones too.
    Resetting,
}

/// A relay on a free port. Ends with its handle.
#[derive(Debug)]
pub struct Relay {
    port: u16,
    weather: watch::Sender<Weather>,
    storm: Arc<Notify>,
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
        let (weather, seen) = watch::channel(Weather::Fair);
        let storm = Arc::new(Notify::new());
        let task = tokio::spawn(accept(listener, port, seen, storm.clone()));
        Ok(Self {
            port: own,
            weather,
            storm,
            task,
        })
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// From now on, for the connections that are there and for new ones.
    pub fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }

    /// Resets the connections that are there.
    pub fn reset(&self) {
        self.storm.notify_waiters();
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(
    listener: TcpListener,
    port: u16,
    weather: watch::Receiver<Weather>,
    storm: Arc<Notify>,
) {
    // Out of descriptors: then the test fails by what it waits for.
    while let Ok((client, _)) = listener.accept().await {
        let (weather, storm) = (weather.clone(), storm.clone());
        tokio::spawn(async move {
            // How connections end is not looked at: that is what they are relayed for.
            drop(relay(client, port, weather, storm).await);
        });
    }
}

async fn relay(
    client: TcpStream,
    port: u16,
    mut weather: watch::Receiver<Weather>,
    storm: Arc<Notify>,
) -> Result<()> {
    // An end is a reset as long as this is set: both halves are dropped without a word.
    let abrupt = |stream: &TcpStream| SockRef::from(stream).set_linger(Some(Duration::ZERO));
    abrupt(&client)?;
    if *weather.borrow() == Weather::Resetting {
        return Ok(());
    }
    let server = TcpStream::connect(("127.0.0.1", port)).await?;
    abrupt(&server)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let there = pipe(from_client, to_server, weather.clone(), Weather::Mute);
    let back = pipe(from_server, to_client, weather.clone(), Weather::Deaf);
    tokio::select! {
        end = there => end,
        end = back => end,
        () = storm.notified() => Ok(()),
        _ = weather.wait_for(|now| *now == Weather::Resetting) => Ok(()),
    }
}

/// One direction, until its end. `shut`: the weather that closes only this one.
async fn pipe(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut weather: watch::Receiver<Weather>,
    shut: Weather,
) -> Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let size = from.read(&mut buffer).await?;
        if size == 0 {
            return Ok(());
        }
        let open = |now: &Weather| *now != Weather::Dead && *now != shut;
        let now = *weather.wait_for(open).await?;
        if let Weather::Slow(time) = now {
            sleep(time).await;
            weather.wait_for(open).await?;
        }
        to.write_all(&buffer[..size]).await?;
    }
}
