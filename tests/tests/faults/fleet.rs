//! Several instances on one Redis with one upstream, under load.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use vorrang_tests::{Act, Gateway, Redis, Start, Upstream, config, until, until_within};

use crate::{
    load::{Load, Rules, Summary, Target, Targets, judge},
    pace::{CALLS, PACE},
};

/// What a call takes upstream, milliseconds. With it `max_parallel_requests` and `rpm` both bind in turn: in the first half of a
/// window calls are open while tickets wait.
pub(crate) const CALL_MS: u64 = 100;

/// `R`: what keeps the state, which lives as long as the fleet.
pub(crate) struct Fleet<R = Redis> {
    pub(crate) redis: R,
    pub(crate) upstream: Upstream,
    pub(crate) gateways: Vec<Gateway>,
    pub(crate) targets: Targets,
    setup: Setup,
    /// When ended instances dispatched their calls.
    dispatched: Vec<u64>,
}

/// What an instance is started with, by its index.
pub(crate) type Setup = Box<dyn Fn(usize) -> Start>;

/// The same for all of them.
pub(crate) fn alike(config: String) -> Setup {
    Box::new(move |_| config.clone().into())
}

/// The lines of `vorrang_settings` for this Redis.
pub(crate) fn settings(redis_url: &str) -> Vec<String> {
    vec![
        format!("redis_url: {redis_url}"),
        format!("window_seconds: {}", PACE.window.as_secs_f64()),
        format!("guard_ms: {}", PACE.guard.as_millis()),
        format!("lease_seconds: {}", PACE.lease.as_secs_f64()),
        // An instance that shuts down has tickets that it refuses with a retry.
        "grace_seconds: 2".to_owned(),
    ]
}

/// A configuration with both limits.
pub(crate) fn limited(upstream: &Upstream, redis_url: &str) -> String {
    let limits = [
        format!("rpm: {}", PACE.limit),
        format!("max_parallel_requests: {CALLS}"),
    ];
    configured(upstream, redis_url, &limits, &[], &[])
}

/// A configuration with these lines of `litellm_params`, `router_settings` and, beside [`settings`], `vorrang_settings`.
pub(crate) fn configured(
    upstream: &Upstream,
    redis_url: &str,
    limits: &[String],
    router: &[&str],
    more: &[&str],
) -> String {
    let limits: Vec<&str> = limits.iter().map(String::as_str).collect();
    let ours = settings(redis_url);
    let ours: Vec<&str> = ours
        .iter()
        .map(String::as_str)
        .chain(more.iter().copied())
        .collect();
    config(&upstream.url(), &limits, router, &ours)
}

/// What a time of an instance's log is by the clock of this machine: clocks in tests of that are wrong by whole days.
fn by_this_clock(time: u64) -> Result<u64> {
    const DAY: i64 = 24 * 3600 * 1_000_000;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let (time, now) = (i64::try_from(time)?, i64::try_from(now.as_micros())?);
    let days = (time - now + DAY / 2).div_euclid(DAY);
    Ok(u64::try_from(time - days * DAY)?)
}

fn dispatches(gateway: &Gateway) -> Result<Vec<u64>> {
    gateway
        .dispatches()?
        .into_iter()
        .map(by_this_clock)
        .collect()
}

// === impl Fleet ===

impl Fleet {
    /// Three instances with both limits.
    pub(crate) async fn start() -> Result<Self> {
        Self::on(Redis::start().await?).await
    }

    /// The same, on this Redis.
    pub(crate) async fn on(redis: Redis) -> Result<Self> {
        let upstream = Upstream::start().await?;
        let config = limited(&upstream, &redis.url());
        Self::with(redis, upstream, 3, alike(config)).await
    }
}

impl<R> Fleet<R> {
    /// `count` instances.
    pub(crate) async fn with(
        redis: R,
        upstream: Upstream,
        count: usize,
        setup: Setup,
    ) -> Result<Self> {
        upstream.plan(&[], Act::after(CALL_MS)).await?;
        let mut gateways = Vec::new();
        for index in 0..count {
            gateways.push(Gateway::launch_as(&setup(index)).await?);
        }
        let targets = Targets::default();
        for gateway in &gateways {
            gateway.ready().await?;
            targets.push(gateway.client());
        }
        Ok(Self {
            redis,
            upstream,
            gateways,
            targets,
            setup,
            dispatched: Vec::new(),
        })
    }

    /// A load that saturates the limits: far more clients than slots in a window.
    pub(crate) fn load(&self, name: &str) -> Load {
        Load::start(name, &self.targets, 2 * PACE.limit.min(30))
    }

    /// Waits until tickets wait on an instance, and calls of its are open.
    pub(crate) async fn busy(&self, index: usize) -> Result<()> {
        let gateway = &self.gateways[index];
        let look = || async {
            let waiting = gateway.metric("vorrang_waiting", "").await?;
            Ok((waiting, gateway.metric("vorrang_in_flight", "").await?))
        };
        let busy = |(waiting, open): &(f64, f64)| *waiting > 0.0 && *open > 0.0;
        until_within(PACE.patience(), "a busy instance", look, busy).await?;
        Ok(())
    }

    /// Waits until a window is full: any grant before its end exceeds the limit.
    pub(crate) async fn full(&self) -> Result<()> {
        let used = || self.gateways[0].metric("vorrang_used", "kind=\"requests\"");
        let full = |used: &f64| *used >= PACE.limit as f64;
        until_within(PACE.patience(), "a full window", used, full).await?;
        Ok(())
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self, index: usize) -> Result<()> {
        self.targets.set(index, Target::Down);
        self.gateways[index].kill()
    }

    /// Terminates an instance, as a roll-out does, and starts one in its place. Requests go there until it ends.
    pub(crate) async fn replace(&mut self, index: usize) -> Result<()> {
        let client = self.gateways[index].client().clone();
        self.targets.set(index, Target::Leaving(client));
        self.gateways[index].terminate()?;
        ensure!(self.gateways[index].ended().await?.success());
        self.revive(index).await
    }

    /// Replaces an ended instance; requests go there when it is ready.
    pub(crate) async fn revive(&mut self, index: usize) -> Result<()> {
        self.dispatched.extend(dispatches(&self.gateways[index])?);
        self.gateways[index] = Gateway::launch_as(&(self.setup)(index)).await?;
        self.gateways[index].ready().await?;
        let client = self.gateways[index].client().clone();
        self.targets.set(index, Target::Up(client));
        Ok(())
    }

    /// Ends the load, judges it, and checks that the fleet is empty.
    pub(crate) async fn judge(&self, load: Load, rules: Rules) -> Result<Summary> {
        let records = match load.end().await {
            Ok(records) => records,
            Err(error) => {
                for gateway in &self.gateways {
                    // Its state shows where they are stuck.
                    let page = gateway
                        .client()
                        .get("/metrics")
                        .await
                        .map(|reply| reply.text);
                    let page = page.unwrap_or_else(|error| error.to_string());
                    let lines = page
                        .lines()
                        .filter(|line| !line.starts_with('#') && !line.contains("_bucket"));
                    println!(
                        "{}\n{}",
                        gateway.url(),
                        lines.collect::<Vec<_>>().join("\n")
                    );
                }
                return Err(error);
            }
        };
        let mut dispatched = self.dispatched.clone();
        let mut resyncs = 0.0;
        for (index, gateway) in self.gateways.iter().enumerate() {
            dispatched.extend(dispatches(gateway)?);
            if !self.targets.is_down(index) {
                resyncs += gateway.metric("vorrang_resyncs_total", "").await?;
            }
        }
        // Where the machine was too busy for an instance's heartbeats, the instance was unresponsive with calls open: docs/protocol.md, limits.
        let calls = rules.calls && resyncs == 0.0;
        let rules = Rules { calls, ..rules };
        let dispatched = rules.dispatches.then_some(&*dispatched);
        let summary = judge(&records, &self.upstream.calls().await?, dispatched, rules)?;
        self.empty().await?;
        Ok(summary)
    }

    /// Waits until every instance that runs is ready, nothing waits and no permit is out: nothing has leaked.
    pub(crate) async fn empty(&self) -> Result<()> {
        for (index, gateway) in self.gateways.iter().enumerate() {
            if self.targets.is_down(index) {
                continue;
            }
            gateway.ready().await?;
            for metric in [
                "vorrang_waiting",
                "vorrang_queue_depth",
                "vorrang_in_flight",
            ] {
                until(metric, || gateway.metric(metric, ""), |seen| *seen == 0.0).await?;
            }
            let open = || gateway.metric("vorrang_used", "kind=\"concurrency\"");
            until("no open calls", open, |seen| *seen == 0.0).await?;
        }
        ensure!(!self.gateways.is_empty());
        Ok(())
    }
}
