//! Faults of Redis: flushes, restarts, failovers, pauses, missing memory and missing rights.

use std::time::Duration;

use anyhow::{Result, ensure};
use redis::Value;
use tokio::time::{Instant, sleep};
use vorrang_tests::{Chat, Gateway, Redis, Upstream, until};

use crate::{
    fleet::{Fleet, alike, limited},
    load::{Rules, Target},
    pace::{PACE, SLACK},
};

/// After a loss an unaccounted instance gets a conservative charge (P13): that delays the others for a window.
fn after_a_loss() -> Rules {
    Rules {
        standstill: PACE.standstill() + PACE.window + PACE.guard + PACE.lease,
        ..Rules::default()
    }
}

/// Waits until every instance has opened a session again: the fleet has noticed the loss.
async fn recovered(fleet: &Fleet, before: &[f64]) -> Result<()> {
    for (gateway, before) in fleet.gateways.iter().zip(before) {
        let look = || gateway.metric("vorrang_resyncs_total", "");
        until("a resync", look, |seen| seen > before).await?;
    }
    Ok(())
}

async fn resyncs(fleet: &Fleet) -> Result<Vec<f64>> {
    let mut counts = Vec::new();
    for gateway in &fleet.gateways {
        counts.push(gateway.metric("vorrang_resyncs_total", "").await?);
    }
    Ok(counts)
}

/// A1, A3, P3, P5, P12: FLUSHALL under load, again and again, and once more right after a recovery.
#[tokio::test]
async fn flushes_neither_lose_nor_double_nor_over_admit() -> Result<()> {
    let fleet = Fleet::start().await?;
    let load = fleet.load("r");
    load.progress(10).await?;
    for _ in 0..PACE.rounds {
        let before = resyncs(&fleet).await?;
        fleet.redis.flush().await?;
        recovered(&fleet, &before).await?;
        fleet.redis.flush().await?;
        load.progress(10).await?;
    }
    let summary = fleet.judge(load, after_a_loss()).await?;
    ensure!(summary.died == 0, "{summary:?}");
    Ok(())
}

/// A3, A6, P13: FLUSHALL right after a `kill -9`: grants of the killed instance still count.
#[tokio::test]
async fn flush_right_after_a_kill_does_not_over_admit() -> Result<()> {
    let mut fleet = Fleet::start().await?;
    let load = fleet.load("r");
    load.progress(10).await?;
    for round in 0..PACE.rounds {
        let victim = round % 3;
        fleet.busy(victim).await?;
        fleet.kill(victim)?;
        fleet.redis.flush().await?;
        load.progress(5).await?;
        fleet.revive(victim).await?;
        load.progress(5).await?;
    }
    let summary = fleet.judge(load, after_a_loss()).await?;
    ensure!(summary.died > 0, "{summary:?}");
    Ok(())
}

/// A3, P11, P13: FLUSHALL right after a closed session: grants of that instance still count.
#[tokio::test]
async fn flush_right_after_a_closed_session_does_not_over_admit() -> Result<()> {
    let (redis, upstream) = (Redis::start().await?, Upstream::start().await?);
    // The instance closes its session within the window of its calls.
    let config = limited(&upstream, &redis.url()).replace("grace_seconds: 2", "grace_seconds: 0");
    let mut fleet = Fleet::with(redis, upstream, 3, alike(config)).await?;
    let load = fleet.load("r");
    load.progress(10).await?;
    for _ in 0..PACE.rounds {
        fleet.full().await?;
        // Without grace it waits only for calls that are nearly over.
        let open = || fleet.gateways[0].metric("vorrang_in_flight", "");
        until("no open calls", open, |open| *open == 0.0).await?;
        // Always the same instance: its refused requests are retried on one that stays.
        let client = fleet.gateways[0].client().clone();
        fleet.targets.set(0, Target::Leaving(client));
        fleet.gateways[0].terminate()?;
        ensure!(fleet.gateways[0].ended().await?.success());
        fleet.redis.flush().await?;
        load.progress(5).await?;
        fleet.revive(0).await?;
        load.progress(5).await?;
    }
    let summary = fleet.judge(load, after_a_loss()).await?;
    ensure!(summary.died == 0, "{summary:?}");
    Ok(())
}

/// A1, A3, P1-P3, P12: Redis is killed under load and restarts empty, once at once and once after the lease.
#[tokio::test]
async fn redis_that_restarts_empty_loses_nothing() -> Result<()> {
    let mut fleet = Fleet::start().await?;
    let load = fleet.load("r");
    load.progress(10).await?;
    for pause in [Duration::ZERO, 2 * PACE.lease] {
        fleet.full().await?;
        let before = resyncs(&fleet).await?;
        fleet.redis.stop()?;
        sleep(pause).await;
        fleet.redis.restart().await?;
        recovered(&fleet, &before).await?;
        load.progress(10).await?;
    }
    let summary = fleet.judge(load, after_a_loss()).await?;
    ensure!(summary.died == 0, "{summary:?}");
    Ok(())
}

/// A1, A3, P1, P5, P12: Redis is killed and restarts with a snapshot that is some windows old: old queue entries, old
/// windows, old sequence numbers.
#[tokio::test]
async fn redis_that_restarts_with_an_old_snapshot_loses_nothing() -> Result<()> {
    let mut fleet = Fleet::start().await?;
    let load = fleet.load("r");
    for _ in 0..2 {
        load.progress(10).await?;
        let saved = fleet.redis.command(&["SAVE"]).await?;
        ensure!(saved == Value::Okay, "{saved:?}");
        load.progress(2 * PACE.limit).await?;
        let before = resyncs(&fleet).await?;
        fleet.redis.stop()?;
        fleet.redis.restart().await?;
        recovered(&fleet, &before).await?;
        load.progress(10).await?;
    }
    let summary = fleet.judge(load, after_a_loss()).await?;
    ensure!(summary.died == 0, "{summary:?}");
    Ok(())
}

/// P1, P2: functions are flushed and connections are killed again and again. This costs only time.
#[tokio::test]
async fn function_flushes_and_killed_connections_lose_nothing() -> Result<()> {
    let fleet = Fleet::start().await?;
    let load = fleet.load("r");
    load.progress(10).await?;
    let (start, mut kills) = (Instant::now(), 0);
    while start.elapsed() < 2 * PACE.window {
        fleet.redis.command(&["FUNCTION", "FLUSH"]).await?;
        for kind in ["normal", "pubsub"] {
            let killed = fleet
                .redis
                .command(&["CLIENT", "KILL", "TYPE", kind])
                .await?;
            if let Value::Int(count) = killed {
                kills += count;
            }
        }
        sleep(PACE.lease / 2).await;
    }
    // The library is loaded again when it is needed.
    for _ in 0..PACE.rounds {
        fleet.redis.command(&["FUNCTION", "FLUSH"]).await?;
        load.progress(10).await?;
    }
    ensure!(
        kills > 10,
        "only {kills} connections were there to be killed"
    );
    load.progress(10).await?;
    let rules = Rules {
        standstill: PACE.standstill() + 2 * PACE.window,
        ..Rules::default()
    };
    let summary = fleet.judge(load, rules).await?;
    ensure!(summary.died == 0, "{summary:?}");
    Ok(())
}

/// A1, A3, P1, P7: Redis is paused for longer than the lease, and then executes all messages that were sent meanwhile.
#[tokio::test]
async fn redis_paused_beyond_the_lease_loses_nothing() -> Result<()> {
    let fleet = Fleet::on(Redis::with(&["--enable-debug-command", "yes"]).await?).await?;
    let load = fleet.load("r");
    load.progress(10).await?;
    let asleep = 3 * PACE.lease;
    let before = resyncs(&fleet).await?;
    for _ in 0..PACE.rounds {
        let seconds = asleep.as_secs_f64().to_string();
        fleet.redis.command(&["DEBUG", "SLEEP", &seconds]).await?;
        load.progress(10).await?;
    }
    // Redis was paused and no instance was unresponsive (P7): all sessions outlive the pause.
    let refused: f64 = resyncs(&fleet).await?.iter().sum::<f64>() - before.iter().sum::<f64>();
    println!("{refused} sessions were refused");
    ensure!(
        refused < 2.0 * PACE.rounds as f64,
        "{refused} sessions were refused"
    );
    let rules = Rules {
        standstill: PACE.standstill() + asleep + PACE.lease,
        ..Rules::default()
    };
    let summary = fleet.judge(load, rules).await?;
    ensure!(summary.died == 0, "{summary:?}");
    Ok(())
}

/// P2: Redis runs out of memory, and then has memory again.
#[tokio::test]
async fn redis_out_of_memory_loses_nothing() -> Result<()> {
    let fleet = Fleet::start().await?;
    let load = fleet.load("r");
    load.progress(10).await?;
    for _ in 0..PACE.rounds {
        fleet
            .redis
            .command(&["CONFIG", "SET", "maxmemory", "1"])
            .await?;
        for gateway in &fleet.gateways {
            let look = || gateway.metric("vorrang_redis_errors_total", "kind=\"oom\"");
            let before = look().await?;
            until("an error", look, |seen| *seen > before).await?;
        }
        sleep(2 * PACE.lease).await;
        fleet
            .redis
            .command(&["CONFIG", "SET", "maxmemory", "0"])
            .await?;
        load.progress(10).await?;
    }
    let rules = Rules {
        standstill: PACE.standstill() + 4 * PACE.lease,
        ..Rules::default()
    };
    let summary = fleet.judge(load, rules).await?;
    ensure!(summary.died == 0, "{summary:?}");
    Ok(())
}

/// A1, A3, P1-P3, P17: a failover to a lagging replica at the same address: first it is read-only, then it is a master
/// with a state that is some windows old.
#[tokio::test]
async fn failover_to_a_lagging_replica_loses_nothing() -> Result<()> {
    let fleet = Fleet::start().await?;
    // At once, so that the failover is over before the window is.
    let replica = Redis::with(&["--repl-diskless-sync-delay", "0"]).await?;
    let own = fleet.redis.port().to_string();
    let load = fleet.load("r");
    load.progress(10).await?;
    replica.command(&["REPLICAOF", "127.0.0.1", &own]).await?;
    let synced = async || -> Result<bool> {
        let info: String =
            redis::from_redis_value(replica.command(&["INFO", "replication"]).await?)?;
        Ok(info.contains("master_link_status:up"))
    };
    until("a synced replica", synced, |synced| *synced).await?;
    // From here on the replica lags.
    replica.command(&["REPLICAOF", "NO", "ONE"]).await?;
    load.progress(2 * PACE.limit).await?;

    let before = resyncs(&fleet).await?;
    let port = replica.port().to_string();
    fleet.full().await?;
    let begun = Instant::now();
    fleet
        .redis
        .command(&["REPLICAOF", "127.0.0.1", &port])
        .await?;
    for gateway in &fleet.gateways {
        let look = || gateway.metric("vorrang_redis_errors_total", "kind=\"readonly\"");
        until("a read-only answer", look, |seen| *seen > 0.0).await?;
    }
    let linked = async || -> Result<bool> {
        let info = fleet.redis.command(&["INFO", "replication"]).await?;
        let info: String = redis::from_redis_value(info)?;
        Ok(info.contains("master_link_status:up"))
    };
    until("the replica's data", linked, |linked| *linked).await?;
    fleet.redis.command(&["REPLICAOF", "NO", "ONE"]).await?;
    println!("the failover took {:?}", begun.elapsed());
    recovered(&fleet, &before).await?;
    load.progress(10).await?;
    let rules = Rules {
        standstill: after_a_loss().standstill + Duration::from_secs(5),
        ..Rules::default()
    };
    let summary = fleet.judge(load, rules).await?;
    ensure!(summary.died == 0, "{summary:?}");
    Ok(())
}

/// P15: the user has no right to any channel: wakes are lost, which costs only latency.
#[tokio::test]
async fn missing_channel_permission_disables_only_wakes() -> Result<()> {
    let redis = Redis::start().await?;
    let rights = [
        "ACL",
        "SETUSER",
        "mute",
        "on",
        ">pass",
        "~*",
        "+@all",
        "resetchannels",
    ];
    redis.command(&rights).await?;
    let upstream = Upstream::start().await?;
    let url = redis.url().replace("//", "//mute:pass@");
    let config = limited(&upstream, &url);
    let fleet = Fleet::with(redis, upstream, 3, alike(config)).await?;
    let load = fleet.load("r");
    load.progress(2 * PACE.limit).await?;
    let rules = Rules {
        standstill: PACE.standstill() + SLACK,
        ..Rules::default()
    };
    let summary = fleet.judge(load, rules).await?;
    ensure!(summary.died == 0, "{summary:?}");
    for gateway in &fleet.gateways {
        // Not those that are late on a busy machine.
        for kind in ["noperm", "script", "other"] {
            let labels = format!("kind=\"{kind}\"");
            let name = "vorrang_redis_errors_total";
            let failed = gateway.metric(name, &labels).await?;
            ensure!(failed == 0.0, "{failed} steps failed: {kind}");
        }
    }
    let log = fleet.redis.command(&["ACL", "LOG"]).await?;
    ensure!(
        format!("{log:?}").contains("channel"),
        "no channel was refused: {log:?}"
    );
    Ok(())
}

/// The user has no right to the keys: readiness fails, a request that times out gets the reason, and service resumes
/// when the right is given.
#[tokio::test]
async fn missing_key_permission_grants_nothing_and_is_reported() -> Result<()> {
    let redis = Redis::start().await?;
    let rights = [
        "ACL", "SETUSER", "poor", "on", ">pass", "~other:*", "&*", "+@all",
    ];
    redis.command(&rights).await?;
    let upstream = Upstream::start().await?;
    let url = redis.url().replace("//", "//poor:pass@");
    let gateway = Gateway::launch(&limited(&upstream, &url), &[]).await?;
    let look = || gateway.metric("vorrang_redis_errors_total", "kind=\"noperm\"");
    until("refused steps", look, |seen| *seen > 0.0).await?;
    ensure!(gateway.client().get("/health/readiness").await?.status == 503);
    let hasty = 2.0 * PACE.lease.as_secs_f64();
    let reply = gateway
        .client()
        .chat(&Chat::new("hasty").with("timeout", hasty))
        .await?;
    ensure!(reply.status == 503, "{reply:?}");
    ensure!(reply.error()?.contains("Redis"), "{reply:?}");
    ensure!(!gateway.log()?.contains("pass@") && !reply.text.contains("pass@"));
    redis.command(&["ACL", "SETUSER", "poor", "~*"]).await?;
    gateway.client().chat(&Chat::new("patient")).await?.ok()?;
    upstream.seen(1).await?;
    Ok(())
}
