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
use crate::message::EVERYONE;

/// Between attempts to subscribe.
const PAUSE: Duration = Duration::from_millis(200);
/// How often a quiet subscription is asked for a sign of life.
const QUIET: Duration = Duration::from_secs(1);

/// Subscribes for one instance until the receiver is dropped or `stop` comes. After each subscription [`Wake::All`] comes first.
pub(super) fn listen(
    server: Arc<Server>,
    prefix: String,
    instance: &str,
    stop: CancellationToken,
) -> mpsc::UnboundedReceiver<Wake> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let channels = [format!("{prefix}{instance}"), format!("{prefix}{EVERYONE}")];
    tokio::spawn(async move {
        let listening = async {
            loop {
                if let Err(error) = subscription(&server, &channels, &sender).await {
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
    channels: &[String; 2],
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
    // What was published before is lost.
    let _ = sender.send(Wake::All);
    let mut quiet = interval(QUIET);
    loop {
        tokio::select! {
            message = messages.next() => match message {
                Some(message) => { let _ = sender.send(wake(&message)); }
                None => return Ok(()),
            },
            _ = quiet.tick() => timeout(server.timeout, sink.ping::<()>()).await.map_err(std::io::Error::from)??,
        }
    }
}

/// A wake carries its group's name.
fn wake(message: &Msg) -> Wake {
    std::str::from_utf8(message.get_payload_bytes())
        .map_or(Wake::All, |group| Wake::Group(group.into()))
}
