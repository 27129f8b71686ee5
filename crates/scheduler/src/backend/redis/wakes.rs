//! Wakes by pub/sub.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt;
use redis::{Msg, RedisResult};
use tokio::{
    sync::mpsc,
    time::{interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{Server, Wake};
use crate::message::ALL_INSTANCES;

/// The pause between attempts to subscribe.
const PAUSE: Duration = Duration::from_millis(200);
/// The time between two pings on a subscription.
const PING_INTERVAL: Duration = Duration::from_secs(1);

/// Subscribes for one instance until the receiver is dropped or `stop` is cancelled. Each subscription begins with [`Wake::All`].
pub(super) fn listen(
    server: Arc<Server>,
    prefix: &str,
    instance: &str,
    stop: CancellationToken,
) -> mpsc::UnboundedReceiver<Wake> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let posts = format!("{prefix}post:");
    let channels = [
        format!("{prefix}wake:{instance}"),
        format!("{prefix}wake:{ALL_INSTANCES}"),
        format!("{posts}{instance}"),
        format!("{posts}{ALL_INSTANCES}"),
    ];
    tokio::spawn(async move {
        let listening = async {
            loop {
                if let Err(error) = subscription(&server, &channels, &posts, &sender).await {
                    tracing::debug!(error = %server.secret.explain(&error), "the subscription to wakes was lost");
                }
                sleep(PAUSE).await;
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

async fn subscription(
    server: &Server,
    channels: &[String],
    posts: &str,
    sender: &mpsc::UnboundedSender<Wake>,
) -> RedisResult<()> {
    let opening = async {
        let mut subscription = server.client.get_async_pubsub().await?;
        subscription.subscribe(channels).await?;
        RedisResult::Ok(subscription)
    };
    let (mut sink, mut messages) = timeout(server.timeout * 2, opening)
        .await
        .map_err(std::io::Error::from)??
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
            _ = pings.tick() => timeout(server.timeout, sink.ping::<()>()).await.map_err(std::io::Error::from)??,
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
