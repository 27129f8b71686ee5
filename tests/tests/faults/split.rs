//! Two masters at once: what both sides of a cut network grant, and what keeps it in bounds.

use std::time::{Duration, SystemTime};

use anyhow::{Result, ensure};
use tokio::time::Instant;
use vorrang_tests::{
    Announcer, Relay, Service, Upstream,
    referee::fullest_window,
    relay::LinkState,
    sentinel::{Setup, url},
    until_within,
};

use crate::{
    fleet::{Fleet, configured},
    load::{Load, Outcome, Rules},
    pace::{PACE, SLACK},
    sentinel::{after_an_outage, micros},
};

/// Two sides that are cut off from each other. Instance A is with the first master and with a sentinel that knows no other; instance B with
/// two replicas and three sentinels, which make one of the replicas the master.
struct Sides {
    fleet: Fleet<Service>,
    load: Load,
    link: Relay,
    /// A's.
    stale: Announcer,
    /// When they were cut off, microseconds since 1970.
    cut: u64,
    /// From then until the other side had its master.
    failover: Duration,
}

// === impl Sides ===

impl Sides {
    /// Cuts them off under load. `options`: of the servers; `ours`: of the instances.
    async fn cut(options: &[&str], lease: Duration, ours: &[&str]) -> Result<Self> {
        let setup = Setup {
            replicas: 2,
            options,
            ..Setup::default()
        };
        let (master, port) = setup.server().await?;
        let link = Relay::to(port).await?;
        let stale = Announcer::of(port).await?;
        let service = Service::around(master, link.port(), setup).await?;
        let urls = [url("", [stale.address()]), service.url("")];
        let upstream = Upstream::start().await?;
        let configs = urls.map(|url| {
            let limit = format!("rpm: {}", PACE.limit);
            let lines = configured(&upstream, &url, &[limit], &[], ours);
            let line = |lease: Duration| format!("lease_seconds: {}", lease.as_secs_f64());
            lines.replace(&line(PACE.lease), &line(lease))
        });
        let setup = Box::new(move |index: usize| configs[index].clone().into());
        let fleet = Fleet::with(service, upstream, 2, setup).await?;
        let load = fleet.load("r");
        load.progress(PACE.limit).await?;
        fleet.full().await?;
        let (cut, since) = (micros(SystemTime::now())?, Instant::now());
        link.set(LinkState::Cut);
        fleet.redis.successor(0).await?;
        Ok(Self {
            fleet,
            load,
            link,
            stale,
            cut,
            failover: since.elapsed(),
        })
    }

    /// When an instance has dispatched calls since the cut.
    fn since(&self, index: usize) -> Result<Vec<u64>> {
        let times = self.fleet.gateways[index].dispatches()?;
        Ok(times.into_iter().filter(|at| *at > self.cut).collect())
    }

    /// Waits until B has dispatched the calls of a window, and some more have followed.
    async fn served(&self) -> Result<()> {
        let count = || async { Ok(self.since(1)?.len()) };
        let whole = |count: &usize| *count >= PACE.limit;
        until_within(PACE.patience(), "calls of the other side", count, whole).await?;
        self.load.progress(PACE.limit).await
    }

    /// The last call of A, after the cut.
    fn last(&self) -> Result<Duration> {
        let last = self.since(0)?.into_iter().max();
        Ok(Duration::from_micros(last.map_or(0, |at| at - self.cut)))
    }

    /// The most calls of both in a window, those before the cut included.
    fn fullest(&self) -> Result<usize> {
        let mut all = Vec::new();
        for gateway in &self.fleet.gateways {
            all.extend(gateway.dispatches()?);
        }
        let calls = [self.since(0)?.len(), self.since(1)?.len()];
        let fullest = fullest_window(&all, PACE.window);
        let (last, failover) = (self.last()?, self.failover);
        println!(
            "another master after {failover:?}; since the cut {calls:?} calls, the last of A after {last:?}; {fullest} in a window"
        );
        Ok(fullest)
    }

    /// Joins them again: the sentinels demote the first master, and A learns of the other one.
    async fn heal(&self) -> Result<()> {
        self.link.set(LinkState::Up);
        let master = self.fleet.redis.successor(0).await?;
        self.stale.name(self.fleet.redis.servers[master].port());
        Ok(())
    }

    /// The rules without a word on the limit.
    fn rules(&self) -> Rules {
        Rules {
            calls: false,
            ..after_an_outage(self.failover + 2 * PACE.window)
        }
    }
}

/// Limits of what is promised: two masters that both take steps grant the limit each, and not more. Nothing is lost or doubled.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_masters_grant_at_most_the_limit_each() -> Result<()> {
    let sides = Sides::cut(&[], PACE.lease, &[]).await?;
    sides.served().await?;
    ensure!(sides.last()? > sides.failover, "not two masters");
    let fullest = sides.fullest()?;
    ensure!(fullest <= 2 * PACE.limit, "{fullest} in a window");
    ensure!(fullest > PACE.limit, "nothing was measured");
    sides.heal().await?;
    let calls = sides.load.end().await?;
    for record in &calls {
        let Outcome::Answered(reply) = &record.outcome else {
            anyhow::bail!("no answer: {record:?}");
        };
        ensure!(reply.status == 200, "{record:?}");
    }
    let seen = sides.fleet.upstream.count().await?;
    ensure!(
        seen == calls.len(),
        "{} requests came {seen} times",
        calls.len()
    );
    Ok(())
}

/// `min-replicas-to-write`: a master without replicas grants only until it has missed them for `min-replicas-max-lag`. Nothing is lost,
/// doubled or inverted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn master_without_replicas_grants_only_within_the_lag() -> Result<()> {
    let options = "--min-replicas-to-write 1 --min-replicas-max-lag 1";
    let options: Vec<&str> = options.split(' ').collect();
    let sides = Sides::cut(&options, PACE.lease, &[]).await?;
    sides.served().await?;
    sides.fullest()?;
    // Redis counts whole seconds, and looks once a second.
    let last = sides.last()?;
    ensure!(last < Duration::from_secs(3) + SLACK, "{last:?}");
    sides.heal().await?;
    let rules = Rules {
        limit: 2 * PACE.limit,
        ..sides.rules()
    };
    sides.fleet.judge(sides.load, rules).await?;
    Ok(())
}

/// `redis_wait_replicas`: a step that no replica has grants nothing, so two masters never grant more than one. Nothing is lost, doubled
/// or inverted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_that_no_replica_has_grant_nothing() -> Result<()> {
    // With a shorter one steps are sent again before they are given up.
    let lease = Duration::from_secs(3);
    let sides = Sides::cut(&[], lease, &["redis_wait_replicas: 1"]).await?;
    sides.served().await?;
    let fullest = sides.fullest()?;
    ensure!(fullest <= PACE.limit, "{fullest} in a window");
    let name = "vorrang_redis_errors_total";
    let kind = "kind=\"noreplicas\"";
    let refused = sides.fleet.gateways[0].metric(name, kind).await?;
    ensure!(refused > 0.0, "no step lacked its replica");
    sides.heal().await?;
    let rules = Rules {
        standstill: sides.rules().standstill + 2 * lease,
        ..sides.rules()
    };
    sides.fleet.judge(sides.load, rules).await?;
    Ok(())
}
