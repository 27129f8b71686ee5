//! A Redis Cluster: each group's keys are in one slot, so each step goes to one node.
//!
//! Each node has connections of its own ([`super::connection`]), so a node that fails concerns no group of other nodes. Where slots are is asked
//! again whenever a node redirects, refuses or is lost. *Why not the client library's cluster:* there one connection speaks with all nodes, waits while
//! it asks for the slots, and sends ASKING apart from the command that it is for, which others may come between.

mod topology;
mod wakes;

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::join_all;
use redis::{Client, ConnectionInfo, RedisError, aio::MultiplexedConnection};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use self::topology::{Topology, slot};
use super::{
    BackendError, Wake,
    address::Address,
    connection::{jittered, patient},
    failure::{self, Secret},
    node::Node,
    server::{Place, Server},
    step::{Answer, Call, Step},
};

/// The shortest and longest time between two questions for the slots.
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Redirections of one step. A slot moves once; a node that was just promoted may be redirected to once more.
const REDIRECTIONS: usize = 4;

/// While some keys of a slot are at its old node and some at its new one, a step has to wait.
const HALF_MOVED: Duration = Duration::from_millis(20);

/// The nodes of a cluster.
pub(super) struct Cluster {
    seeds: Vec<ConnectionInfo>,
    timeout: Duration,
    secret: Secret,
    connections: usize,
    /// What is known of the slots, or why nothing is.
    topology: watch::Sender<Result<Arc<Topology>, BackendError>>,
    outdated: Notify,
    nodes: Mutex<HashMap<Address, Member>>,
    /// The groups that steps were for: their channels are listened to.
    groups: watch::Sender<BTreeSet<Arc<str>>>,
    stop: CancellationToken,
}

struct Member {
    node: Arc<Node>,
    _stopped_on_drop: DropGuard,
}

/// What a node's error asks for.
enum Remedy {
    Moved(Address),
    Ask(Address),
    TryAgain,
    None,
}

// === impl Cluster ===

impl Cluster {
    pub(super) fn connect(
        seeds: Vec<ConnectionInfo>,
        timeout: Duration,
        secret: Secret,
        connections: usize,
        stop: CancellationToken,
    ) -> Arc<Self> {
        let unknown = BackendError {
            kind: "io",
            message: "no node of the cluster has answered yet".into(),
        };
        let cluster = Arc::new(Self {
            seeds,
            timeout,
            secret,
            connections,
            topology: watch::Sender::new(Err(unknown)),
            outdated: Notify::new(),
            nodes: Mutex::default(),
            groups: watch::Sender::default(),
            stop: stop.clone(),
        });
        let asking = cluster.clone();
        tokio::spawn(async move { stop.run_until_cancelled(asking.keep_topology()).await });
        cluster
    }

    /// Executes a step at the node that has the group's slot.
    pub(super) async fn send(&self, step: &Step, call: &Call<'_>) -> Result<Answer, BackendError> {
        self.listen_to(call.group);
        let slot = slot(&call.keys[0]);
        let mut address = self.master(slot).await?;
        let mut asking = false;
        let deadline = Instant::now() + self.timeout;
        let mut redirections = 0;
        loop {
            let node = self.node(&address);
            let shared = node.connection(call.group);
            let mut connection = match shared.ready() {
                Some(connection) => connection,
                None => {
                    self.refresh();
                    tokio::select! {
                        // A node that is lost may have a successor sooner than a connection.
                        to = self.successor(slot, &address), if !asking => {
                            address = to;
                            continue;
                        }
                        opened = shared.connection(self.timeout) => opened?,
                    }
                }
            };
            let given_up = RefreshOnDrop(self);
            let answer = call.send(step, shared, &mut connection, asking).await;
            std::mem::forget(given_up);
            let error = match answer {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            match remedy(&error, &address) {
                Remedy::Moved(to) if redirections < REDIRECTIONS => {
                    self.moved(slot, &to);
                    (address, asking) = (to, false);
                    redirections += 1;
                }
                Remedy::Ask(to) if redirections < REDIRECTIONS => {
                    (address, asking) = (to, true);
                    redirections += 1;
                }
                Remedy::TryAgain if Instant::now() < deadline => {
                    sleep(jittered(HALF_MOVED)).await;
                    // Where it is may have changed meanwhile.
                    (address, asking) = (self.master(slot).await?, false);
                }
                _ => {
                    shared.doubt(&error);
                    if failure::may_have_moved(&error) {
                        self.refresh();
                    }
                    return Err(self.secret.explain(&error));
                }
            }
        }
    }

    /// The node of a group's slot.
    pub(super) async fn node_of(&self, key: &str) -> Result<Arc<Node>, BackendError> {
        Ok(self.node(&self.master(slot(key)).await?))
    }

    /// All nodes that serve slots.
    pub(super) async fn masters(&self) -> Result<Vec<Arc<Node>>, BackendError> {
        let topology = self.known().await?;
        let masters = topology.masters();
        Ok(masters.into_iter().map(|at| self.node(at)).collect())
    }

    /// A connection to some node that answers.
    pub(super) async fn any(&self) -> Result<(Arc<Node>, MultiplexedConnection), BackendError> {
        let nodes = self.masters().await?;
        for node in &nodes {
            if let Some(connection) = node.ready() {
                return Ok((node.clone(), connection));
            }
        }
        let Some(node) = nodes.first() else {
            return Err(unserved());
        };
        let connection = node.connections[0].connection(self.timeout).await?;
        Ok((node.clone(), connection))
    }

    pub(super) fn wakes(
        self: &Arc<Self>,
        prefix: &str,
        instance: &str,
    ) -> mpsc::UnboundedReceiver<Wake> {
        wakes::listen(self.clone(), prefix, instance)
    }

    /// Asks soon where the slots are.
    fn refresh(&self) {
        self.outdated.notify_one();
    }

    async fn master(&self, slot: u16) -> Result<Address, BackendError> {
        let topology = self.known().await?;
        topology.master(slot).cloned().ok_or_else(|| {
            self.refresh();
            unserved()
        })
    }

    /// What is known of the slots. At the start it waits for that.
    async fn known(&self) -> Result<Arc<Topology>, BackendError> {
        let mut topology = self.topology.subscribe();
        let _ = timeout(self.timeout, topology.wait_for(Result::is_ok))
            .await
            .map(drop);
        topology.borrow_and_update().clone()
    }

    /// The node that a slot comes to have instead of this one.
    async fn successor(&self, slot: u16, of: &Address) -> Address {
        let mut topology = self.topology.subscribe();
        let other = |known: &Result<Arc<Topology>, _>| {
            let master = known.as_ref().ok()?.master(slot)?;
            (master != of).then(|| master.clone())
        };
        loop {
            if let Some(other) = other(&topology.borrow_and_update()) {
                return other;
            }
            // It ends with the cluster, which the caller has.
            let _ = topology.changed().await;
        }
    }

    fn moved(&self, slot: u16, to: &Address) {
        self.topology.send_if_modified(|known| match known {
            Ok(topology) if topology.master(slot) != Some(to) => {
                Arc::make_mut(topology).moved(slot, to.clone());
                true
            }
            _ => false,
        });
        self.refresh();
    }

    fn node(&self, at: &Address) -> Arc<Node> {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let open = || {
            let stop = self.stop.child_token();
            let server = Server::new(
                Place::At(at.apply(&self.seeds[0])),
                self.timeout,
                self.secret.clone(),
            );
            Member {
                node: Arc::new(Node::open(Arc::new(server), self.connections, &stop)),
                _stopped_on_drop: stop.drop_guard(),
            }
        };
        let member = nodes.entry(at.clone()).or_insert_with(open);
        member.node.clone()
    }

    /// Asks for the slots at the start, and whenever they may have changed: at once, then less and less often as long as that brings no news.
    async fn keep_topology(self: Arc<Self>) {
        let mut pause = PAUSE;
        loop {
            let deadline = Instant::now() + self.timeout;
            let asked = self.candidates().into_iter().map(|at| self.reach(at));
            let answer = Topology::ask(asked.collect(), deadline).await;
            let known = answer.is_ok();
            let news = self.learn(answer);
            pause = if news {
                PAUSE
            } else {
                (pause * 2).min(LONGEST_PAUSE)
            };
            sleep(jittered(pause)).await;
            if known {
                let since = Instant::now();
                self.outdated.notified().await;
                if since.elapsed() > LONGEST_PAUSE {
                    pause = PAUSE;
                }
            }
        }
    }

    /// Returns whether it is new. Of an error only where nothing is known: what was known may be true of some nodes.
    fn learn(&self, answer: Result<Topology, RedisError>) -> bool {
        match answer {
            Ok(topology) => {
                self.keep_nodes(&topology);
                let topology = Arc::new(topology);
                self.topology.send_if_modified(|known| {
                    let news = known.as_ref().ok() != Some(&topology);
                    *known = Ok(topology);
                    news
                })
            }
            Err(error) => {
                let error = self.secret.explain(&error);
                tracing::debug!(%error, "no node of the cluster says where the slots are");
                self.topology.send_if_modified(|known| {
                    let unknown = known.is_err();
                    if unknown {
                        *known = Err(error);
                    }
                    unknown
                });
                false
            }
        }
    }

    /// The masters that have an open connection, if these are most of them. Else all nodes that are known, and those that were named, in case that all
    /// others are gone.
    fn candidates(&self) -> BTreeSet<Address> {
        let topology = self.topology.borrow().as_ref().ok().cloned();
        let Some(topology) = topology else {
            return self.seeds.iter().filter_map(Address::of).collect();
        };
        let masters = topology.masters();
        let open: BTreeSet<Address> = {
            let nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
            let open = |at: &Address| nodes.get(at).is_some_and(|m| m.node.ready().is_some());
            let open = masters.iter().filter(|at| open(at));
            open.map(|at| (*at).clone()).collect()
        };
        if open.len() > masters.len() / 2 {
            return open;
        }
        let seeds = self.seeds.iter().filter_map(Address::of);
        seeds.chain(topology.all.iter().cloned()).collect()
    }

    /// A connection to a node that has one, else a new one.
    async fn reach(&self, at: Address) -> Result<(Address, MultiplexedConnection), RedisError> {
        let open = {
            let nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
            nodes.get(&at).and_then(|member| member.node.ready())
        };
        let connection = match open {
            Some(connection) => connection,
            None => {
                Client::open(at.apply(&self.seeds[0]))?
                    .get_multiplexed_async_connection_with_config(&patient(self.timeout))
                    .await?
            }
        };
        Ok((at, connection))
    }

    /// Closes connections to nodes that serve nothing. One that a step uses may be about to serve its slot.
    fn keep_nodes(&self, topology: &Topology) {
        let masters = topology.masters();
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        nodes.retain(|at, member| masters.contains(at) || Arc::strong_count(&member.node) > 1);
    }

    fn listen_to(&self, group: &str) {
        if self.groups.borrow().contains(group) {
            return;
        }
        self.groups
            .send_if_modified(|groups| groups.insert(group.into()));
    }

    /// Whether any master answers, and all that answer are set up well.
    pub(super) async fn examine(&self) -> Result<(), BackendError> {
        let masters = self.masters().await?;
        let answers = join_all(masters.iter().map(|node| node.server.examine())).await;
        let mut failure = None;
        let mut answered = false;
        for answer in answers {
            match answer {
                Ok(()) => answered = true,
                Err(error) if error.kind == "config" => return Err(error),
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            Some(error) if !answered => Err(error),
            None if !answered => Err(unserved()),
            _ => Ok(()),
        }
    }
}

/// A step that is given up before its answer is here: its node may be lost.
struct RefreshOnDrop<'a>(&'a Cluster);

impl Drop for RefreshOnDrop<'_> {
    fn drop(&mut self) {
        self.0.refresh();
    }
}

fn remedy(error: &RedisError, from: &Address) -> Remedy {
    let to = || {
        let detail = error.detail().unwrap_or_default();
        let address = detail.split_ascii_whitespace().nth(1);
        address.and_then(|text| Address::parse(text, from))
    };
    match (error.code(), to()) {
        (Some("MOVED"), Some(to)) => Remedy::Moved(to),
        (Some("ASK"), Some(to)) => Remedy::Ask(to),
        (Some("TRYAGAIN"), _) => Remedy::TryAgain,
        _ => Remedy::None,
    }
}

fn unserved() -> BackendError {
    BackendError {
        kind: "clusterdown",
        message: "no node of the cluster serves this slot".into(),
    }
}
