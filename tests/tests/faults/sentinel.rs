//! Redis under sentinels: failovers, and sentinels that lie or die.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use tokio::time::{Instant, sleep};
use vorrang_tests::{
    Announcer, Certificates, Chat, Gateway, Redis, Relay, Reply, Service, Upstream,
    referee::fullest_window,
    relay::LinkState,
    sentinel::{Sentinel, Setup, url},
    until,
};

use crate::{
    fleet::{Fleet, alike, configured, limited},
    load::Rules,
    pace::{PACE, SLACK},
};

/// The longest time without a call when a state was lost and there was no master for this long.
pub(crate) fn after_an_outage(outage: Duration) -> Rules {
    Rules {
        standstill: PACE.standstill() + PACE.window + PACE.guard + PACE.lease + outage + SLACK,
        ..Rules::default()
    }
}

/// Three instances that ask sentinels at this URL.
async fn fleet<R>(redis: R, url: &str) -> Result<Fleet<R>> {
    let upstream = Upstream::start().await?;
    let config = limited(&upstream, url);
    Fleet::with(redis, upstream, 3, alike(config)).await
}

/// Waits until an instance says why it is not ready.
async fn unready(gateway: &Gateway) -> Result<String> {
    let look = || gateway.client().get("/health/readiness");
    let reply: Reply = until("no readiness", look, |reply| reply.status == 503).await?;
    Ok(reply.text)
}

pub(crate) fn micros(time: SystemTime) -> Result<u64> {
    Ok(u64::try_from(time.duration_since(UNIX_EPOCH)?.as_micros())?)
}

/// A1, A3, P1, P3, P4, P17: the master is killed under load, and the sentinels find no successor for a time, then one. The first
/// sentinel in the list lies all the time: it names the replica, then a dead address. Readiness says that there is no master, and is
/// back when the successor takes steps. Then the sentinels change the master back again, and die themselves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failover_by_sentinels_loses_nothing() -> Result<()> {
    let service = Service::start().await?;
    let liar = Announcer::of(service.servers[1].port()).await?;
    let sentinels = service.sentinels.iter().map(Sentinel::address);
    let url = url("", [liar.address()].into_iter().chain(sentinels));
    let dead = Redis::reserve()?.port();
    let mut fleet = fleet(service, &url).await?;
    let load = fleet.load("r");
    load.progress(PACE.limit).await?;
    ensure!(!liar.asked().is_empty(), "the lying sentinel was not asked");

    fleet.redis.forbid(1).await?;
    let since = Instant::now();
    fleet.redis.servers[0].stop()?;
    liar.name(dead);
    for gateway in &fleet.gateways {
        let reason = unready(gateway).await?;
        ensure!(reason.contains("queue"), "{reason}");
        println!("not ready after {:?}: {reason}", since.elapsed());
    }
    // The sentinels have tried in vain.
    fleet.redis.allow(1).await?;
    fleet.redis.led_by(1).await?;
    let outage = since.elapsed();
    println!("no master for {outage:?}");
    for gateway in &fleet.gateways {
        gateway.ready().await?;
        let sessions = fleet.redis.servers[1].records("model", 'S').await?;
        ensure!(sessions > 0, "ready before the new master took a step");
    }
    load.progress(PACE.limit).await?;

    // Back again: the former master is a replica first.
    fleet.redis.servers[0].restart().await?;
    fleet.redis.follows(0).await?;
    let back = Instant::now();
    fleet.redis.change_master().await?;
    fleet.redis.led_by(0).await?;
    println!("the failover on request took {:?}", back.elapsed());
    // The former master takes steps until then, of instances that have not left it.
    fleet.redis.follows(1).await?;
    println!("the former master was demoted after {:?}", back.elapsed());
    load.progress(2 * PACE.limit).await?;

    // From here on only the lying sentinel answers.
    for sentinel in &mut fleet.redis.sentinels {
        sentinel.stop()?;
    }
    load.progress(2 * PACE.limit).await?;
    // Connections that are lost now find the master, which lives, all the same.
    let master = &fleet.redis.servers[0];
    master
        .command(&["CLIENT", "KILL", "TYPE", "normal"])
        .await?;
    load.progress(2 * PACE.limit).await?;
    let summary = fleet.judge(load, after_an_outage(outage)).await?;
    ensure!(summary.died == 0, "{summary:?}");
    Ok(())
}

/// A1, A3, P1, P3, P5, P12, P17: the master is stopped (SIGSTOP) when its replica has missed the calls of a window, and goes on when the
/// replica is the master: until it is demoted, it executes what was sent before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failover_by_sentinels_to_a_lagging_replica_loses_nothing() -> Result<()> {
    let service = Service::with(Setup {
        down_after: (PACE.window / 5).max(Duration::from_secs(1)),
        ..Setup::default()
    })
    .await?;
    let url = service.url("");
    let fleet = fleet(service, &url).await?;
    let load = fleet.load("r");
    load.progress(10).await?;
    let [master, replica] = &*fleet.redis.servers else {
        anyhow::bail!("not two servers");
    };
    master.cut_off(&[replica]).await?;
    load.progress(PACE.limit).await?;
    fleet.full().await?;
    let stopped = micros(SystemTime::now())?;
    let since = Instant::now();
    fleet.redis.servers[0].freeze()?;
    fleet.redis.led_by(1).await?;
    let outage = since.elapsed();
    println!("another master after {outage:?}");
    load.progress(PACE.limit).await?;
    fleet.redis.servers[0].thaw()?;
    let former = || fleet.redis.servers[0].is_master();
    until("a former master", former, |master| !master).await?;
    load.progress(PACE.limit).await?;
    let calls = fleet.upstream.calls().await?;
    let after = calls
        .iter()
        .map(|call| call.at)
        .filter(|at| *at > stopped + 1_000_000);
    let first = Duration::from_micros(after.min().context("no call")? - stopped);
    println!("the first call came {first:?} after the stop");
    let summary = fleet.judge(load, after_an_outage(outage)).await?;
    ensure!(summary.died == 0, "{summary:?}");
    Ok(())
}

/// A3: a sentinel with stale knowledge is first in the list and names the former master, which is back as a master of nothing until
/// the others demote it. No instance goes there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stale_sentinel_leads_no_instance_to_a_former_master() -> Result<()> {
    let service = Service::start().await?;
    let stale = Announcer::of(service.servers[0].port()).await?;
    let sentinels = service.sentinels.iter().map(Sentinel::address);
    let url = url("", [stale.address()].into_iter().chain(sentinels));
    let mut fleet = fleet(service, &url).await?;
    let load = fleet.load("r");
    load.progress(10).await?;
    let since = Instant::now();
    fleet.redis.servers[0].stop()?;
    fleet.redis.led_by(1).await?;
    let outage = since.elapsed();
    load.progress(10).await?;
    fleet.redis.servers[0].restart().await?;
    // Instances that connect anew ask the sentinels again.
    fleet.redis.servers[1]
        .command(&["CLIENT", "KILL", "TYPE", "normal"])
        .await?;
    load.progress(PACE.limit).await?;
    fleet.redis.servers[0].linked().await?;
    let steps = fleet.redis.servers[0].calls("fcall").await?;
    ensure!(steps == 0, "{steps} steps at the former master");
    let summary = fleet.judge(load, after_an_outage(outage)).await?;
    ensure!(summary.died == 0, "{summary:?}");
    Ok(())
}

/// The only sentinel lies, from the start: it names a replica, a dead address, and at last the master. Readiness says so, nothing is
/// granted before, and a request that waits is served then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinel_that_lies_alone_grants_nothing() -> Result<()> {
    let (master, replica) = (Redis::start().await?, Redis::start().await?);
    let port = master.port().to_string();
    replica.command(&["REPLICAOF", "127.0.0.1", &port]).await?;
    replica.linked().await?;
    let sentinel = Announcer::of(replica.port()).await?;
    let upstream = Upstream::start().await?;
    let config = limited(&upstream, &url("", [sentinel.address()]));
    let gateway = Gateway::launch(&config, &[]).await?;
    let patient = gateway.client().send(Chat::new("patient"));
    for lie in [replica.port(), Redis::reserve()?.port()] {
        sentinel.name(lie);
        // Asked again after the lie: the cause is that of this one.
        let asked = sentinel.asked().len();
        let again = || async { Ok(sentinel.asked().len()) };
        until("further questions", again, |seen| *seen > asked + 3).await?;
        let reason = unready(&gateway).await?;
        println!("{reason}");
        ensure!(reason.contains("queue"), "{reason}");
    }
    ensure!(upstream.count().await? == 0, "granted without a master");
    sentinel.name(master.port());
    gateway.ready().await?;
    patient.await??.ok()?;
    let steps = replica.calls("fcall").await?;
    ensure!(steps == 0, "{steps} steps at the replica");
    Ok(())
}

/// The user that docs/redis.md shows, as an option of redis-server.
fn documented_rights() -> Result<String> {
    let page = include_str!("../../../docs/redis.md");
    let (_, user) = page.split_once("ACL SETUSER ").context("no user")?;
    let (user, _) = user.split_once("\n\n").context("no end")?;
    let words: Vec<&str> = user.split_whitespace().collect();
    Ok(format!("--user {}", words.join(" ")))
}

/// A1, A3: servers and sentinels speak TLS alone. The sentinels have a password, the fleet's user only the rights that are documented.
/// The sentinels are asked to change the master under load: the former one lives and takes steps for 8 s more, and no instance stays there.
/// An instance with a wrong password for the sentinels says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failover_with_tls_passwords_and_least_rights_loses_nothing() -> Result<()> {
    let tls = Certificates::new()?;
    let documented = documented_rights()?;
    let users = [
        "--user default off",
        "--user tests on >tests ~* &* +@all",
        &documented,
        // As the documentation of Redis says.
        "--user watcher on >watch &* +multi +slaveof +ping +exec +subscribe +config|rewrite +role +publish +info +client|setname +client|kill +script|kill",
    ];
    let options: Vec<&str> = users.iter().flat_map(|user| user.split(' ')).collect();
    let service = Service::with(Setup {
        options: &options,
        watcher: Some(("watcher", "watch")),
        tester: Some(("tests", "tests")),
        password: Some("guard"),
        slow: true,
        tls: Some(&tls),
        ..Setup::default()
    })
    .await?;
    let url = service
        .url("vorrang:PASSWORD@")
        .replace("redis+", "rediss+");
    let upstream = Upstream::start().await?;
    let authority = format!("redis_ssl_ca_certs: {}", tls.authority().display());
    let config = |password: &str| {
        let password = format!("redis_sentinel_password: {password}");
        let limit = [format!("rpm: {}", PACE.limit)];
        configured(&upstream, &url, &limit, &[], &[&authority, &password])
    };
    let (right, wrong) = (config("guard"), config("guess"));
    let fleet = Fleet::with(service, upstream, 2, alike(right)).await?;
    let wrong = Gateway::launch(&wrong, &[]).await?;
    let reason = unready(&wrong).await?;
    println!("{reason}");
    ensure!(reason.contains("sentinel"), "{reason}");
    ensure!(
        reason.contains("refuses the user or the password"),
        "{reason}"
    );
    ensure!(!reason.contains("guess"), "{reason}");
    drop(wrong);

    let load = fleet.load("r");
    load.progress(PACE.limit).await?;
    let since = Instant::now();
    fleet.redis.change_master().await?;
    fleet.redis.led_by(1).await?;
    let outage = since.elapsed();
    // The former master takes steps, of any instance that has not left it.
    load.progress(PACE.limit).await?;
    let former = &fleet.redis.servers[0];
    let steps = former.calls("fcall").await?;
    load.progress(PACE.limit).await?;
    ensure!(
        former.calls("fcall").await? == steps,
        "steps at the former master"
    );
    let rules = Rules {
        calls: false,
        ..after_an_outage(outage)
    };
    let summary = fleet.judge(load, rules).await?;
    ensure!(summary.died == 0, "{summary:?}");
    Ok(())
}

/// Reconnecting never storms: without a master, what each instance tries is bounded, and instances do not try in step.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_without_a_master_neither_storm_nor_connect_in_step() -> Result<()> {
    /// Attempts of an instance in a second at the master's address, and questions to a sentinel. Measured: 4 and 7 in most, 8 and 12 in
    /// the fullest one; 24 attempts where pauses do not grow.
    const MOST: usize = 20;
    const OUTAGE: Duration = Duration::from_secs(8);
    let (redis, upstream) = (Redis::start().await?, Upstream::start().await?);
    let (mut relays, mut sentinels) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let relay = Relay::to(redis.port()).await?;
        sentinels.push(Announcer::of(relay.port()).await?);
        relays.push(relay);
    }
    let config = |sentinel: &Announcer| limited(&upstream, &url("", [sentinel.address()]));
    let configs: Vec<String> = sentinels.iter().map(config).collect();
    let setup = Box::new(move |index: usize| configs[index].clone().into());
    let fleet = Fleet::with(redis, upstream, 3, setup).await?;
    let load = fleet.load("r");
    load.progress(10).await?;

    let since = Instant::now();
    relays
        .iter()
        .for_each(|relay| relay.set(LinkState::Resetting));
    for gateway in &fleet.gateways {
        unready(gateway).await?;
    }
    sleep(OUTAGE.saturating_sub(since.elapsed())).await;
    let until = Instant::now();
    relays.iter().for_each(|relay| relay.set(LinkState::Up));

    let within = |times: Vec<Instant>| -> Vec<u64> {
        let times = times.into_iter().filter(|at| (since..until).contains(at));
        let times = times.map(|at| (at - since).as_micros());
        times
            .map(|at| u64::try_from(at).unwrap_or(u64::MAX))
            .collect()
    };
    let second = Duration::from_secs(1);
    let mut attempts = Vec::new();
    for (relay, sentinel) in relays.iter().zip(&sentinels) {
        let tried = within(relay.accepted());
        let asked = within(sentinel.asked());
        let (server, names) = (
            fullest_window(&tried, second),
            fullest_window(&asked, second),
        );
        println!(
            "{} attempts and {} questions in {OUTAGE:?}; in the fullest second {server} and {names}",
            tried.len(),
            asked.len(),
        );
        ensure!(server <= MOST && names <= MOST, "a storm");
        ensure!(!asked.is_empty(), "no sentinel was asked");
        attempts.push(tried);
    }
    // When all have had time to drift apart.
    let late = |times: &&u64| **times > 3_000_000;
    let mut together = (0, 0);
    for (index, own) in attempts.iter().enumerate() {
        let others = &attempts[(index + 1) % attempts.len()];
        for at in own.iter().filter(late) {
            let near = others.iter().any(|other| other.abs_diff(*at) < 5_000);
            together = (together.0 + usize::from(near), together.1 + 1);
        }
    }
    println!(
        "{} of {} late attempts with one of another instance within 5 ms",
        together.0, together.1
    );
    // Without jitter: more than half of them.
    ensure!(together.0 * 4 < together.1, "{together:?}");
    load.progress(10).await?;
    let summary = fleet.judge(load, after_an_outage(OUTAGE)).await?;
    ensure!(summary.died == 0, "{summary:?}");
    Ok(())
}
