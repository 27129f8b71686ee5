//! Wakes by pub/sub.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt;
use redis::{Client, Msg, RedisError};
use tokio::{
    sync::mpsc,
    time::{interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{BackendError, Wake, connection::jittered, server::Server};
use crate::message::ALL_INSTANCES;

/// The pause between attempts to subscribe, and the longest.
pub(super) const PAUSE: Duration = Duration::from_millis(200);
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// The time between two pings on a subscription.
pub(super) const PING_INTERVAL: Duration = Duration::from_secs(1);

/// Subscribes for one instance until the receiver is dropped or `stop` is cancelled. Each subscription begins with [`Wake::All`].
pub(super) fn listen(
    server: Arc<Server>,
    prefix: &str,
    instance: &str,
    stop: CancellationToken,
) -> mpsc::UnboundedReceiver<Wake> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let posts = posts(prefix);
    let mut channels = post_channels(prefix, instance);
    channels.push(format!("{prefix}wake:{instance}"));
    channels.push(format!("{prefix}wake:{ALL_INSTANCES}"));
    tokio::spawn(async move {
        let listening = async {
            let mut pause = PAUSE;
            loop {
                let client = server.client();
                match subscription(&server, client, &channels, &posts, &sender).await {
                    Ok(()) => pause = PAUSE,
                    Err(error) => {
                        tracing::debug!(%error, "the subscription to wakes was lost");
                        pause = (pause * 2).min(LONGEST_PAUSE);
                    }
                }
                sleep(jittered(pause)).await;
            }
        };
        tokio::select! {
            () = listening => {}
            () = sender.closed() => {}
            () = stop.cancelled() => {}
        }
    });
    receiver
}

/// The prefix of the channels for messages of other instances.
pub(super) fn posts(prefix: &str) -> String {
    format!("{prefix}post:")
}

/// The channels for messages of other instances.
pub(super) fn post_channels(prefix: &str, instance: &str) -> Vec<String> {
    let posts = posts(prefix);
    vec![
        format!("{posts}{instance}"),
        format!("{posts}{ALL_INSTANCES}"),
    ]
}

/// Listens until the connection is lost, or its server is no master any more.
pub(super) async fn subscription(
    server: &Server,
    client: impl Future<Output = Result<Client, BackendError>>,
    channels: &[String],
    posts: &str,
    sender: &mpsc::UnboundedSender<Wake>,
) -> Result<(), BackendError> {
    let explain = |error: RedisError| server.secret.explain(&error);
    let mut moves = server.moves();
    let opening = async {
        let client = client.await?;
        let mut subscription = client.get_async_pubsub().await.map_err(explain)?;
        subscription.subscribe(channels).await.map_err(explain)?;
        Ok(subscription)
    };
    let late = |_| explain(std::io::Error::from(std::io::ErrorKind::TimedOut).into());
    let (mut sink, mut messages) = timeout(server.timeout * 2, opening)
        .await
        .map_err(late)??
        .split();
    // Wakes that were published before the subscription are lost.
    let _ = sender.send(Wake::All);
    let mut pings = interval(PING_INTERVAL);
    loop {
        tokio::select! {
            message = messages.next() => match message {
                Some(message) => { let _ = sender.send(wake(&message, posts)); }
                None => return Ok(()),
            },
            _ = moves.changed() => return Ok(()),
            _ = pings.tick() => timeout(server.timeout, sink.ping::<()>()).await.map_err(late)?.map_err(explain)?,
        }
    }
}

/// The payload of a wake is its group's name.
fn wake(message: &Msg, posts: &str) -> Wake {
    let body = message.get_payload_bytes();
    if message.get_channel_name().starts_with(posts) {
        return Wake::Post(body.into());
    }
    std::str::from_utf8(body).map_or(Wake::All, |group| Wake::Group(group.into()))
}
