//! [`Cluster`]: three masters with a replica each, and what becomes of their slots.

use std::{
    net::TcpListener,
    process,
    sync::atomic::{AtomicU16, Ordering},
};

use anyhow::{Context as _, Result};
use redis::{Value, from_redis_value};

use crate::{
    redis::{REPLICATION, Redis},
    wait::until,
};

/// How far a node's port for other nodes is from its port for clients.
const BUS: u16 = 10_000;

/// The time after which a node is taken for dead by another one. Twice of it and a second until a replica has taken over.
const NODE_TIMEOUT_MS: &str = "1500";

const SLOTS: u16 = 16_384;

/// A Redis Cluster. The nodes 0 to 2 are its masters at the start, and the nodes 3 to 5 their replicas. Ends with its handle.
#[derive(Debug)]
pub struct Cluster {
    /// All that were ever part of it.
    pub nodes: Vec<Redis>,
    /// They run, and do not answer.
    frozen: Vec<usize>,
}

/// A slot between two nodes.
#[derive(Debug)]
pub struct Migration<'a> {
    cluster: &'a Cluster,
    slot: String,
    from: usize,
    to: usize,
    keys: Vec<String>,
}

/// One node, as another one knows it.
#[derive(Debug)]
struct Known {
    port: u16,
    flags: String,
    slots: Vec<(u16, u16)>,
    linked: bool,
}

// === impl Cluster ===

impl Cluster {
    /// Starts it. Slots whose master is dead are not served meanwhile; all others are.
    ///
    /// # Errors
    /// A node does not start, or they do not come to an agreement.
    pub async fn start() -> Result<Self> {
        let (nodes, frozen) = (Vec::new(), Vec::new());
        let mut cluster = Self { nodes, frozen };
        for _ in 0..6 {
            cluster.launch().await?;
        }
        for (index, slots) in [(0, 0..5461), (1, 5461..10_922), (2, 10_922..SLOTS)] {
            let node = &cluster.nodes[index];
            let slots: Vec<String> = slots.map(|slot: u16| slot.to_string()).collect();
            let slots = slots.iter().map(String::as_str);
            let words: Vec<&str> = ["CLUSTER", "ADDSLOTS"].into_iter().chain(slots).collect();
            node.command(&words).await?;
            // Without epochs of their own they would have to settle who is first.
            let epoch = (index + 1).to_string();
            node.command(&["CLUSTER", "SET-CONFIG-EPOCH", &epoch])
                .await?;
        }
        for index in 1..6 {
            cluster.meet(index).await?;
        }
        cluster.agreed().await?;
        for index in 3..6 {
            let master = cluster.id(index - 3).await?;
            let replica = &cluster.nodes[index];
            replica.command(&["CLUSTER", "REPLICATE", &master]).await?;
        }
        for replica in &cluster.nodes[3..] {
            replica.linked().await?;
        }
        let settled = |known: &Vec<Known>| {
            let replicas = known.iter().filter(|node| node.flags.contains("slave"));
            replicas.count() == 3
        };
        for node in &cluster.nodes {
            until("a cluster with replicas", || known(node), settled).await?;
        }
        cluster.agreed().await?;
        Ok(cluster)
    }

    /// Starts another node, which is no part of it yet.
    async fn launch(&mut self) -> Result<()> {
        let cluster = [
            "--cluster-enabled",
            "yes",
            "--cluster-node-timeout",
            NODE_TIMEOUT_MS,
            "--cluster-require-full-coverage",
            "no",
            // A replica takes over however old its data is.
            "--cluster-replica-validity-factor",
            "0",
            // A master keeps the replica that it has.
            "--cluster-allow-replica-migration",
            "no",
        ];
        let mut node = Redis::at(free_port()?, &[REPLICATION, &cluster].concat())?;
        node.restart().await?;
        self.nodes.push(node);
        Ok(())
    }

    async fn meet(&self, index: usize) -> Result<()> {
        let port = self.nodes[index].port().to_string();
        let first = &self.nodes[0];
        first
            .command(&["CLUSTER", "MEET", "127.0.0.1", &port])
            .await?;
        Ok(())
    }

    /// Adds a master without slots, and returns its index.
    ///
    /// # Errors
    /// It does not start, or the others do not come to know it.
    pub async fn add(&mut self) -> Result<usize> {
        self.launch().await?;
        let added = self.nodes.len() - 1;
        self.meet(added).await?;
        self.agreed().await?;
        Ok(added)
    }

    /// Takes a node without slots out of it, and ends it.
    ///
    /// # Errors
    /// The others do not forget it.
    pub async fn remove(&mut self, index: usize) -> Result<()> {
        let id = self.id(index).await?;
        self.nodes[index].stop()?;
        for node in self.running() {
            node.command(&["CLUSTER", "FORGET", &id]).await?;
        }
        Ok(())
    }

    /// Those that answer.
    fn running(&self) -> impl Iterator<Item = &Redis> {
        let nodes = self.nodes.iter().enumerate();
        let nodes = nodes.filter(|(index, node)| node.runs() && !self.frozen.contains(index));
        nodes.map(|(_, node)| node)
    }

    /// Stops a node from answering, without closing its connections, until [`Cluster::thaw`].
    ///
    /// # Errors
    /// It does not run.
    pub fn freeze(&mut self, index: usize) -> Result<()> {
        self.frozen.push(index);
        self.nodes[index].freeze()
    }

    /// Undoes [`Cluster::freeze`].
    ///
    /// # Errors
    /// It does not run.
    pub fn thaw(&mut self, index: usize) -> Result<()> {
        self.frozen.retain(|frozen| *frozen != index);
        self.nodes[index].thaw()
    }

    /// Waits until all nodes that run know and reach each other, and agree on the slots.
    ///
    /// # Errors
    /// They never do.
    pub async fn agreed(&self) -> Result<()> {
        let count = self.running().count();
        for node in self.running() {
            let state = || async {
                let info = node.command(&["CLUSTER", "INFO"]).await?;
                let info: String = from_redis_value(info)?;
                let linked = known(node).await?.iter().filter(|node| node.linked).count();
                Ok((info.contains("cluster_state:ok"), linked))
            };
            let agreed = |(ok, linked): &(bool, usize)| *ok && *linked >= count;
            until("a cluster that agrees", state, agreed).await?;
        }
        Ok(())
    }

    /// A URL with some of its nodes.
    pub fn url(&self) -> String {
        let seeds: Vec<String> = self.nodes[..3].iter().map(Redis::address).collect();
        format!("redis+cluster://{}", seeds.join(","))
    }

    /// The slot of a group.
    ///
    /// # Errors
    /// No node answers.
    pub async fn slot(&self, group: &str) -> Result<u16> {
        let node = self.running().next().context("no node runs")?;
        let slot = node
            .command(&["CLUSTER", "KEYSLOT", &format!("{{{group}}}")])
            .await?;
        Ok(from_redis_value(slot)?)
    }

    /// The node that serves a group, as one of those that run knows it.
    ///
    /// # Errors
    /// No node answers, or none serves it.
    pub async fn master(&self, group: &str) -> Result<usize> {
        let slot = self.slot(group).await?;
        let node = self.running().next().context("no node runs")?;
        let serves = |node: &&Known| {
            let mut slots = node.slots.iter();
            slots.any(|(first, last)| (*first..=*last).contains(&slot))
        };
        let known = known(node).await?;
        let port = known.iter().find(serves).context("nobody serves it")?.port;
        let mut nodes = self.nodes.iter();
        let index = nodes.position(|node| node.port() == port);
        index.context("an unknown node")
    }

    /// Waits until a node serves a group, by the word of all that run.
    ///
    /// # Errors
    /// It never does.
    pub async fn served_by(&self, group: &str, index: usize) -> Result<()> {
        let (slot, port) = (self.slot(group).await?, self.nodes[index].port());
        let serves = |known: &Vec<Known>| {
            let mut known = known.iter().filter(|node| node.port == port);
            known.any(|node| {
                let mut slots = node.slots.iter();
                slots.any(|(first, last)| (*first..=*last).contains(&slot))
            })
        };
        for node in self.running() {
            until("another master", || known(node), serves).await?;
        }
        Ok(())
    }

    /// Whether this replica may take over.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn allow(&self, replica: usize, allowed: bool) -> Result<()> {
        let refused = if allowed { "no" } else { "yes" };
        let words = ["CONFIG", "SET", "cluster-replica-no-failover", refused];
        self.nodes[replica].command(&words).await?;
        Ok(())
    }

    /// Begins to move the slot of a group to another master.
    ///
    /// # Errors
    /// A node refuses.
    pub async fn migrate(&self, group: &str, to: usize) -> Result<Migration<'_>> {
        let slot = self.slot(group).await?.to_string();
        let from = self.master(group).await?;
        let (source, target) = (self.id(from).await?, self.id(to).await?);
        self.nodes[to]
            .command(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &source])
            .await?;
        let migrating = ["CLUSTER", "SETSLOT", &slot, "MIGRATING", &target];
        self.nodes[from].command(&migrating).await?;
        let keys = ["CLUSTER", "GETKEYSINSLOT", &slot, "1000"];
        let keys = from_redis_value(self.nodes[from].command(&keys).await?)?;
        Ok(Migration {
            cluster: self,
            slot,
            from,
            to,
            keys,
        })
    }

    async fn id(&self, index: usize) -> Result<String> {
        let id = self.nodes[index].command(&["CLUSTER", "MYID"]).await?;
        Ok(from_redis_value(id)?)
    }
}

// === impl Migration ===

impl Migration<'_> {
    /// The node that the slot comes from.
    pub fn source(&self) -> &Redis {
        &self.cluster.nodes[self.from]
    }

    /// The node that the slot goes to.
    pub fn target(&self) -> &Redis {
        &self.cluster.nodes[self.to]
    }

    /// Moves one key, if one is left.
    ///
    /// # Errors
    /// A node refuses.
    pub async fn move_key(&mut self) -> Result<Option<String>> {
        let Some(key) = self.keys.pop() else {
            return Ok(None);
        };
        let port = self.target().port().to_string();
        let words = ["MIGRATE", "127.0.0.1", &port, &key, "0", "10000"];
        // A key that is gone already: NOKEY.
        let _: Value = self.source().command(&words).await?;
        Ok(Some(key))
    }

    /// Moves all keys that are left, those that were made since included, and the slot.
    ///
    /// # Errors
    /// A node refuses.
    pub async fn finish(mut self) -> Result<()> {
        while self.move_key().await?.is_some() {}
        let target = self.cluster.id(self.to).await?;
        let words = ["CLUSTER", "SETSLOT", &self.slot, "NODE", &target];
        self.target().command(&words).await?;
        self.source().command(&words).await?;
        for node in self.cluster.running() {
            // A replica refuses: it hears of it from the others.
            drop(node.command(&words).await);
        }
        Ok(())
    }
}

/// What a node knows of all.
async fn known(node: &Redis) -> Result<Vec<Known>> {
    let nodes: String = from_redis_value(node.command(&["CLUSTER", "NODES"]).await?)?;
    let read = |line: &str| {
        let mut words = line.split(' ');
        let mut next = || words.next().context(line.to_owned());
        let (_id, address, flags) = (next()?, next()?, next()?);
        let (_master, _ping, _pong, _epoch) = (next()?, next()?, next()?, next()?);
        let link = next()?;
        let port = address.split(['@', ',']).next().unwrap_or_default();
        let port = port.rsplit(':').next().unwrap_or_default();
        // `[slot->-node]` is a slot that moves.
        let slots = words.filter(|slots| !slots.starts_with('['));
        let range = |slots: &str| {
            let (first, last) = slots.split_once('-').unwrap_or((slots, slots));
            Ok((first.parse()?, last.parse()?))
        };
        Ok(Known {
            port: port.parse()?,
            flags: flags.to_owned(),
            slots: slots.map(range).collect::<Result<_>>()?,
            linked: link == "connected" && !flags.contains("handshake"),
        })
    };
    nodes.lines().map(read).collect()
}

/// A port that was free a moment ago, as was the one for other nodes. Below the range that connections and other tests take theirs
/// from, and in a part of it that hardly any other process of the tests uses.
fn free_port() -> Result<u16> {
    const FIRST: u32 = 12_000;
    const COUNT: u32 = 9_000;
    static TRIED: AtomicU16 = AtomicU16::new(0);
    let start = process::id().wrapping_mul(97);
    for _ in 0..COUNT {
        let step = u32::from(TRIED.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(FIRST + start.wrapping_add(step) % COUNT)?;
        let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
        if free(port) && free(port + BUS) {
            return Ok(port);
        }
    }
    anyhow::bail!("no port is free")
}
