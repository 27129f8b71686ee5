//! Instances that are killed, terminated, and stopped.

use anyhow::{Result, ensure};
use tokio::time::{Instant, sleep};
use vorrang_tests::{Chat, until};

use crate::{
    fleet::Fleet,
    load::{Rules, Target},
    pace::PACE,
};

/// A1, A3, A6: one of three instances is killed with tickets at the head and open calls, and restarted, ten times in a
/// row.
#[tokio::test]
async fn ten_kills_lose_only_requests_of_the_killed_instances() -> Result<()> {
    let mut fleet = Fleet::start().await?;
    let load = fleet.load("r");
    load.progress(10).await?;
    for round in 0..10 {
        let victim = round % 3;
        // At the head: better than all others, on this instance.
        let client = fleet.gateways[victim].client().clone();
        let heads: Vec<_> = (0..3)
            .map(|head| client.send(Chat::new(&format!("head-{round}-{head}")).priority(-1000)))
            .collect();
        fleet.busy(victim).await?;
        fleet.kill(victim)?;
        // The other instances make progress before it restarts.
        load.progress(5).await?;
        fleet.revive(victim).await?;
        load.progress(5).await?;
        for head in heads {
            head.abort();
        }
    }
    let rules = Rules {
        beside: Some("head-"),
        ..Rules::default()
    };
    let summary = fleet.judge(load, rules).await?;
    ensure!(summary.died > 0, "ten kills and nobody died: {summary:?}");
    Ok(())
}

/// A1, A3, A6: each instance is terminated in turn and replaced. Clients call it until it has ended; one retry on
/// another instance is enough for each of them.
#[tokio::test]
async fn rolling_restart_is_invisible_to_clients_that_retry_once() -> Result<()> {
    let mut fleet = Fleet::start().await?;
    let load = fleet.load("r");
    load.progress(10).await?;
    for index in 0..3 {
        fleet.busy(index).await?;
        let client = fleet.gateways[index].client().clone();
        fleet.targets.set(index, Target::Leaving(client));
        fleet.gateways[index].terminate()?;
        ensure!(fleet.gateways[index].ended().await?.success());
        // P11: its session is closed, so no ticket waits out the lease for its permits. Each other instance has a session.
        let sessions = fleet.redis.records("model", 'S').await?;
        ensure!(sessions == 2, "{sessions} sessions after a closed session");
        fleet.revive(index).await?;
        load.progress(5).await?;
        load.settled().await?;
    }
    let summary = fleet.judge(load, Rules::default()).await?;
    ensure!(summary.died == 0, "{summary:?}");
    Ok(())
}

/// A1, A3, A6, P1: an instance with tickets and calls is stopped (SIGSTOP) for longer than the lease, and continued.
/// The others keep serving. Its tickets stay, and none is lost or doubled.
#[tokio::test]
async fn stopped_instance_blocks_no_others_and_loses_nothing() -> Result<()> {
    let fleet = Fleet::start().await?;
    let load = fleet.load("r");
    load.progress(10).await?;
    for index in 0..PACE.rounds {
        let stopped = &fleet.gateways[index % 3];
        fleet.busy(index % 3).await?;
        let resyncs = || stopped.metric("vorrang_resyncs_total", "");
        let before = resyncs().await?;
        stopped.freeze()?;
        let since = Instant::now();
        sleep(2 * PACE.lease).await;
        load.progress(5).await?;
        ensure!(since.elapsed() > PACE.lease);
        stopped.thaw()?;
        until("a resync", resyncs, |seen| *seen > before).await?;
        load.progress(5).await?;
    }
    // A stopped process keeps its sockets: its calls are open for longer than its permits (docs/protocol.md, limits).
    let rules = Rules {
        calls: false,
        ..Rules::default()
    };
    let summary = fleet.judge(load, rules).await?;
    ensure!(summary.died == 0, "{summary:?}");
    Ok(())
}
