//! Wakes in a cluster: each group has shard channels, which only the node of its slot knows. Messages of other instances, which are rare, use ordinary
//! channels, which reach all nodes.

use std::{
    collections::{BTreeSet, HashMap},
    pin::pin,
    sync::Arc,
};

use redis::{
    ProtocolVersion, PushInfo, PushKind, RedisError, Value, aio::MultiplexedConnection,
    from_redis_value,
};
use tokio::{
    sync::{mpsc, watch},
    time::{interval, sleep, timeout},
};

use super::{
    super::{
        channel,
        connection::{jittered, patient},
        wakes::{LONGEST_PAUSE, PAUSE, PING_INTERVAL, post_channels, posts, subscription},
    },
    Address, BackendError, Cluster, Wake, failure, slot,
};
use crate::message::ALL_INSTANCES;

/// Groups of one node.
type Groups = BTreeSet<Arc<str>>;

/// Where wakes go, and whose.
#[derive(Clone)]
struct Listener {
    cluster: Arc<Cluster>,
    prefix: String,
    instance: String,
    sender: mpsc::UnboundedSender<Wake>,
}

/// Listens until the receiver is dropped, or the backend is.
pub(super) fn listen(
    cluster: Arc<Cluster>,
    prefix: &str,
    instance: &str,
) -> mpsc::UnboundedReceiver<Wake> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let stop = cluster.stop.clone();
    let listener = Listener {
        cluster,
        prefix: prefix.to_owned(),
        instance: instance.to_owned(),
        sender: sender.clone(),
    };
    tokio::spawn(async move {
        let (wakes, posts) = (listener.follow(), listener.posts());
        tokio::select! {
            () = wakes => {}
            () = posts => {}
            () = sender.closed() => {}
            () = stop.cancelled() => {}
        }
    });
    receiver
}

// === impl Listener ===

impl Listener {
    /// Listens for messages of other instances at some node.
    async fn posts(&self) {
        let channels = post_channels(&self.prefix, &self.instance);
        let posts = posts(&self.prefix);
        let mut pause = PAUSE;
        loop {
            let listening = async {
                let (node, _) = self.cluster.any().await?;
                let client = node.server.client();
                subscription(&node.server, client, &channels, &posts, &self.sender).await
            };
            match listening.await {
                Ok(()) => pause = PAUSE,
                Err(error) => {
                    tracing::debug!(%error, "the subscription to messages was lost");
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
            sleep(jittered(pause)).await;
        }
    }

    /// Has a subscription at each node with groups, wherever these are.
    async fn follow(&self) {
        let mut topology = self.cluster.topology.subscribe();
        let mut groups = self.cluster.groups.subscribe();
        let mut nodes: HashMap<Address, watch::Sender<Groups>> = HashMap::new();
        loop {
            let mut wanted: HashMap<Address, Groups> = HashMap::new();
            if let Ok(topology) = &*topology.borrow_and_update() {
                for group in groups.borrow_and_update().iter() {
                    let slot = slot(&channel(&self.prefix, group, ""));
                    if let Some(master) = topology.master(slot) {
                        let of = wanted.entry(master.clone()).or_default();
                        of.insert(group.clone());
                    }
                }
            }
            // A listener ends with its sender.
            nodes.retain(|at, _| wanted.contains_key(at));
            for (at, groups) in wanted {
                let node = nodes.entry(at).or_insert_with_key(|at| self.at(at.clone()));
                node.send_if_modified(|known| {
                    let news = *known != groups;
                    *known = groups;
                    news
                });
            }
            tokio::select! {
                changed = topology.changed() => if changed.is_err() { return },
                changed = groups.changed() => if changed.is_err() { return },
            }
        }
    }

    fn at(&self, at: Address) -> watch::Sender<Groups> {
        let (sender, groups) = watch::channel(Groups::new());
        let listener = self.clone();
        let stop = self.cluster.stop.clone();
        tokio::spawn(async move {
            let mut ended = groups.clone();
            let ended = async move { while ended.changed().await.is_ok() {} };
            let (ended, listening) = (pin!(ended), pin!(listener.keep(at, groups)));
            tokio::select! {
                () = ended => {}
                () = listening => {}
                () = listener.sender.closed() => {}
                () = stop.cancelled() => {}
            }
        });
        sender
    }

    async fn keep(&self, at: Address, groups: watch::Receiver<Groups>) {
        let mut pause = PAUSE;
        loop {
            match self.subscription(&at, groups.clone()).await {
                Ok(()) => pause = PAUSE,
                Err(error) => {
                    tracing::debug!(%error, node = %at, "the subscription to wakes was lost");
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
            self.cluster.refresh();
            sleep(jittered(pause)).await;
        }
    }

    /// Listens until the connection or a slot is lost.
    async fn subscription(
        &self,
        at: &Address,
        mut groups: watch::Receiver<Groups>,
    ) -> Result<(), BackendError> {
        let cluster = &self.cluster;
        let explain = |error: RedisError| cluster.secret.explain(&error);
        let late = |_| explain(std::io::Error::from(std::io::ErrorKind::TimedOut).into());
        let (pushes, mut pushed) = mpsc::unbounded_channel();
        let info = at.apply(&cluster.seeds[0]);
        // Pushes need RESP3.
        let settings = info
            .redis_settings()
            .clone()
            .set_protocol(ProtocolVersion::RESP3);
        let config = patient(cluster.timeout).set_push_sender(pushes);
        let client = redis::Client::open(info.set_redis_settings(settings)).map_err(explain)?;
        let opening = client.get_multiplexed_async_connection_with_config(&config);
        let mut connection = timeout(cluster.timeout * 2, opening)
            .await
            .map_err(late)?
            .map_err(explain)?;
        let mut subscribed = Groups::new();
        let mut pings = interval(PING_INTERVAL);
        loop {
            let missing: Vec<Arc<str>> = groups
                .borrow_and_update()
                .difference(&subscribed)
                .cloned()
                .collect();
            for group in missing {
                self.subscribe(&mut connection, &group)
                    .await
                    .map_err(explain)?;
                // Wakes that were published before the subscription are lost.
                let _ = self.sender.send(Wake::Group(group.clone()));
                subscribed.insert(group);
            }
            tokio::select! {
                push = pushed.recv() => match push {
                    Some(PushInfo { kind: PushKind::SMessage | PushKind::Message, data }) => {
                        let _ = self.sender.send(wake(data));
                    }
                    // The node has lost a slot.
                    Some(PushInfo { kind: PushKind::SUnsubscribe | PushKind::Disconnection, .. }) | None => return Ok(()),
                    Some(_) => {}
                },
                changed = groups.changed() => if changed.is_err() { return Ok(()) },
                _ = pings.tick() => redis::cmd("PING").query_async::<Value>(&mut connection).await.map(drop).map_err(explain)?,
            }
        }
    }

    /// Before version 7 Redis has no shard channels, and the step publishes to ordinary ones of the same names.
    async fn subscribe(
        &self,
        connection: &mut MultiplexedConnection,
        group: &str,
    ) -> Result<(), RedisError> {
        for to in [self.instance.as_str(), ALL_INSTANCES] {
            let channel = channel(&self.prefix, group, to);
            let subscribe = |word: &str| redis::cmd(word).arg(&channel).clone();
            match subscribe("SSUBSCRIBE")
                .query_async::<Value>(connection)
                .await
            {
                Err(error) if failure::is_refused_command(&error) => {
                    subscribe("SUBSCRIBE")
                        .query_async::<Value>(connection)
                        .await?;
                }
                answer => drop(answer?),
            }
        }
        Ok(())
    }
}

/// The payload of a wake is its group's name.
fn wake(data: Vec<Value>) -> Wake {
    let group = data
        .into_iter()
        .nth(1)
        .and_then(|group| from_redis_value::<String>(group).ok());
    group.map_or(Wake::All, |group| Wake::Group(group.into()))
}
