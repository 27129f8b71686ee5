//! Groups spread over a Redis Cluster: masters fail, slots move, nodes come and go.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use tokio::time::{Instant, sleep};
use vorrang_tests::{Cluster, Gateway, Redis, Upstream, cluster::Migration, until};

use crate::{
    fleet::{Fleet, alike, settings},
    load::{Load, Rules, Summary, judge},
    pace::{PACE, SLACK},
};

/// Model names whose groups are on all three masters, three on each.
const GROUPS: [&str; 9] = [
    "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota",
];

/// Calls of a group in a window.
const LIMIT: usize = 10;

/// Clients of each group.
const CLIENTS: usize = 15;

/// Three instances with all groups, on a cluster, under load.
struct Loaded {
    fleet: Fleet<Cluster>,
    loads: Vec<Load>,
}

fn config(upstream: &Upstream, url: &str) -> String {
    let groups = GROUPS.map(|group| {
        format!(
            "
  - model_name: {group}
    litellm_params:
      model: openai/{group}
      api_base: {}
      api_key: upstream-key
      rpm: {LIMIT}
    model_info:
      id: {group}-first",
            upstream.url()
        )
    });
    let ours = settings(url).join("\n  ");
    format!(
        "model_list:{}\nvorrang_settings:\n  {ours}\n",
        groups.concat()
    )
}

// === impl Loaded ===

impl Loaded {
    async fn start() -> Result<Self> {
        let (cluster, upstream) = (Cluster::start().await?, Upstream::start().await?);
        let mut masters = Vec::new();
        for group in GROUPS {
            masters.push(cluster.master(group).await?);
        }
        println!("the groups' masters: {masters:?}");
        for master in 0..3 {
            ensure!(masters.contains(&master), "no group is on {master}");
        }
        let config = config(&upstream, &cluster.url());
        let fleet = Fleet::with(cluster, upstream, 3, alike(config)).await?;
        let load = |group: &str| Load::of(group, group, &fleet.targets, CLIENTS);
        let loads = GROUPS.map(load).into();
        let loaded = Self { fleet, loads };
        loaded.progress(LIMIT).await?;
        Ok(loaded)
    }

    /// Waits until so many more requests of each group are answered.
    async fn progress(&self, count: usize) -> Result<()> {
        self.progress_of(count, |_| true).await
    }

    /// The same, of some groups.
    async fn progress_of(&self, count: usize, of: impl Fn(&str) -> bool) -> Result<()> {
        let loads = GROUPS.iter().zip(&self.loads);
        let loads = loads.filter(|(group, _)| of(group));
        let progress = loads.map(async |(group, load)| {
            let done = load.progress(count).await;
            done.context(*group)
        });
        futures_util::future::try_join_all(progress).await?;
        Ok(())
    }

    /// Ends all loads and judges each group by itself.
    async fn judge(self, rules: Rules) -> Result<Summary> {
        let rules = Rules {
            limit: LIMIT,
            calls: false,
            ..rules
        };
        self.loads.iter().for_each(Load::stop);
        let mut records = Vec::new();
        for load in self.loads {
            records.push(load.end().await?);
        }
        let calls = self.fleet.upstream.calls().await?;
        let mut all = Summary::default();
        for (group, records) in GROUPS.iter().zip(records) {
            let own = format!("{group}-");
            let calls = calls.iter().filter(|call| call.user().starts_with(&own));
            let calls: Vec<_> = calls.cloned().collect();
            let mut dispatched = Vec::new();
            for gateway in &self.fleet.gateways {
                dispatched.extend(gateway.dispatches_of(|name| name == *group)?);
            }
            let summary = judge(&records, &calls, Some(&dispatched), rules).context(*group)?;
            all.answered += summary.answered;
            all.died += summary.died;
            all.calls += summary.calls;
            all.longest_gap = all.longest_gap.max(summary.longest_gap);
        }
        println!("all: {all:?}");
        ensure!(all.died == 0, "{all:?}");
        ensure!(all.calls == calls.len(), "calls of no group");
        self.fleet.empty().await?;
        Ok(all)
    }
}

/// The longest time without a call of a group that was lost once, and not served for this long.
fn after_an_outage(outage: Duration) -> Rules {
    Rules {
        standstill: PACE.standstill() + PACE.window + PACE.guard + PACE.lease + outage + SLACK,
        ..Rules::default()
    }
}

/// Sums a figure over nodes.
async fn sum(
    cluster: &Cluster,
    nodes: impl IntoIterator<Item = usize>,
    figure: impl AsyncFn(&Redis) -> Result<u64>,
) -> Result<u64> {
    let mut sum = 0;
    for index in nodes {
        sum += figure(&cluster.nodes[index]).await?;
    }
    Ok(sum)
}

/// Waits until a node has published further wakes on shard channels that are listened to.
async fn wakes_at(node: &Redis) -> Result<()> {
    let before = node.calls("spublish").await?;
    let look = || node.calls("spublish");
    until("wakes on shard channels", look, |seen| *seen > before).await?;
    let channels = async || -> Result<Vec<String>> {
        let channels = node.command(&["PUBSUB", "SHARDCHANNELS"]).await?;
        Ok(redis::from_redis_value(channels)?)
    };
    until("subscriptions", channels, |found| !found.is_empty()).await?;
    Ok(())
}

/// A1, A3, P1, P3, P4, P15, P17: a master of the cluster is dead for a time, then its replica takes over. Then another one is stopped
/// (SIGSTOP), whose replica has missed the last windows, and goes on when the replica is the master. Only groups of the dead master wait, and wakes go by shard channels all the time. An instance
/// that is new says which groups it cannot serve.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failover_in_a_cluster_stops_only_groups_of_the_dead_master() -> Result<()> {
    /// Connections of an instance in a second to all other nodes. Measured: none, as those that are open say where slots are.
    const MOST: u64 = 5;
    let mut loaded = Loaded::start().await?;
    let cluster = &loaded.fleet.redis;
    for node in &cluster.nodes[..3] {
        wakes_at(node).await?;
    }
    let published = sum(cluster, 0..3, async |node| node.calls("publish").await).await?;
    ensure!(published == 0, "{published} wakes to the whole cluster");

    let mut masters = Vec::new();
    for group in GROUPS {
        masters.push(cluster.master(group).await?);
    }
    let on = |group: &str, node: usize| {
        let index = GROUPS.iter().position(|name| *name == group);
        index.is_some_and(|index| masters[index] == node)
    };
    // The replica waits for the test: whatever is served until then is served without the dead master.
    let dead = masters[0];
    let replica = dead + 3;
    cluster.allow(replica, false).await?;
    let since = Instant::now();
    loaded.fleet.redis.nodes[dead].stop()?;
    loaded
        .progress_of(2 * LIMIT, |group| !on(group, dead))
        .await?;
    let cluster = &loaded.fleet.redis;
    let fresh = Gateway::launch(&config(&loaded.fleet.upstream, &cluster.url()), &[]).await?;
    let look = || fresh.client().get("/health/readiness");
    let only = |text: &str| {
        let mut groups = GROUPS.iter();
        groups.all(|group| text.contains(group) == on(group, dead))
    };
    let reply = until("the groups of the dead master", look, |reply| {
        // Before its first step has failed, it knows no cause.
        let moment = reply.text.contains("in a moment");
        reply.status == 503 && only(&reply.text) && !moment
    });
    println!("a new instance: {}", reply.await?.text);
    drop(fresh);
    let survivors = (0..6).filter(|index| *index != dead);
    let connections = async |node: &Redis| -> Result<u64> {
        let count = node.info("stats", "total_connections_received").await?;
        Ok(count.parse()?)
    };
    let before = sum(cluster, survivors.clone(), connections).await?;
    sleep(Duration::from_secs(2)).await;
    // One connection to each node is that of the second look.
    let tried = sum(cluster, survivors, connections).await? - before - 5;
    println!("{tried} connections of three instances in two seconds");
    ensure!(tried <= MOST * 3 * 2, "a storm: {tried}");
    ensure!(
        !cluster.nodes[replica].is_master().await?,
        "the master was not dead all the time"
    );

    cluster.allow(replica, true).await?;
    cluster.served_by(GROUPS[0], replica).await?;
    let outage = since.elapsed();
    println!("a master was dead for {outage:?}");
    loaded.progress(LIMIT).await?;
    wakes_at(&loaded.fleet.redis.nodes[replica]).await?;

    let cluster = &loaded.fleet.redis;
    let lagging = (dead + 1) % 3;
    let group = GROUPS.iter().find(|group| on(group, lagging));
    let group = group.context("no group")?;
    cluster.nodes[lagging]
        .cut_off(&[&cluster.nodes[lagging + 3]])
        .await?;
    loaded
        .progress_of(2 * LIMIT, |group| on(group, lagging))
        .await?;
    let (stopped, since) = (SystemTime::now(), Instant::now());
    loaded.fleet.redis.freeze(lagging)?;
    loaded.fleet.redis.served_by(group, lagging + 3).await?;
    println!("another master after {:?}", since.elapsed());
    loaded.progress(LIMIT).await?;
    loaded.fleet.redis.thaw(lagging)?;
    let former = || loaded.fleet.redis.nodes[lagging].is_master();
    until("a former master", former, |master| !master).await?;
    loaded.progress(LIMIT).await?;
    let running = (0..6).filter(|index| *index != dead);
    let cluster = &loaded.fleet.redis;
    let published = sum(cluster, running, async |node| node.calls("publish").await).await?;
    ensure!(published == 0, "{published} wakes to the whole cluster");
    let stopped = u64::try_from(stopped.duration_since(UNIX_EPOCH)?.as_micros())?;
    let calls = loaded.fleet.upstream.calls().await?;
    let lost = calls.iter().filter(|call| {
        let user = call.user();
        on(user.split('-').next().unwrap_or_default(), lagging)
    });
    let after = lost
        .map(|call| call.at)
        .filter(|at| *at > stopped + 1_000_000);
    let first = Duration::from_micros(after.min().context("no call")? - stopped);
    println!("the first call came {first:?} after the stop");
    loaded.judge(after_an_outage(outage)).await?;
    Ok(())
}

/// A1, A3, P1, P17: a slot moves to another master under load, key by key, and is between two nodes for a time. A node is added, gets
/// slots, and is removed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_and_nodes_that_move_lose_nothing() -> Result<()> {
    let mut loaded = Loaded::start().await?;
    let cluster = &loaded.fleet.redis;
    let moving = GROUPS[0];
    let from = cluster.master(moving).await?;
    let to = (from + 1) % 3;
    let since = Instant::now();
    let mut migration = cluster.migrate(moving, to).await?;
    half_moved(&mut migration).await?;
    // Both nodes have keys of the group, and serve all others.
    loaded.progress_of(LIMIT, |group| group != moving).await?;
    let [left, come] = [migration.source(), migration.target()];
    println!(
        "half moved: TRYAGAIN {} and {}",
        left.errors("TRYAGAIN").await?,
        come.errors("TRYAGAIN").await?,
    );
    // All keys are at the new node, while the old one still has the slot.
    while migration.move_key().await?.is_some() {}
    let outage = since.elapsed();
    loaded.progress_of(LIMIT, |group| group == moving).await?;
    let asked = migration.source().errors("ASK").await?;
    ensure!(asked > 0, "no step was sent on");
    migration.finish().await?;
    println!("the slot was between two nodes for {outage:?}; {asked} steps were sent on");
    loaded.progress(LIMIT).await?;
    let added = loaded.fleet.redis.add().await?;
    let cluster = &loaded.fleet.redis;
    let mut homes = Vec::new();
    for group in [GROUPS[1], GROUPS[2]] {
        homes.push((group, cluster.master(group).await?));
        cluster.migrate(group, added).await?.finish().await?;
        cluster.served_by(group, added).await?;
    }
    loaded.progress(LIMIT).await?;
    wakes_at(&cluster.nodes[added]).await?;
    for (group, home) in homes {
        cluster.migrate(group, home).await?.finish().await?;
        cluster.served_by(group, home).await?;
    }
    loaded.fleet.redis.remove(added).await?;
    loaded.progress(LIMIT).await?;
    loaded.judge(after_an_outage(outage)).await?;
    Ok(())
}

/// Moves the first keys of a slot, and waits until steps have met the gap.
async fn half_moved(migration: &mut Migration<'_>) -> Result<()> {
    for _ in 0..2 {
        migration.move_key().await?.context("no key")?;
    }
    let refused = || async {
        let source = migration.source().errors("TRYAGAIN").await?;
        Ok(source + migration.target().errors("TRYAGAIN").await?)
    };
    until("steps between two nodes", refused, |seen| *seen > 10).await?;
    Ok(())
}
