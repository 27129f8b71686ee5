//! Faults of the upstream: 429s, errors, resets, stalls, broken streams, and a deployment that dies.

use anyhow::{Result, ensure};
use vorrang_tests::{Act, Chat, Redis, Seen, Upstream, until, until_within, upstream::Fate};

use crate::{
    fleet::{CALL_MS, Fleet, alike, configured},
    load::Rules,
    pace::{CALLS, PACE},
};

/// LiteLLM's and ours: two retries.
const ATTEMPTS: usize = 3;

/// How long a deployment cools in these tests, microseconds.
const COOLDOWN: u64 = 1_000_000;

/// Three instances; their deployment has these further lines of `litellm_params`.
async fn fleet(more: &[&str]) -> Result<Fleet> {
    let (redis, upstream) = (Redis::start().await?, Upstream::start().await?);
    let mut limits = vec![
        format!("rpm: {}", PACE.limit),
        format!("max_parallel_requests: {CALLS}"),
    ];
    limits.extend(more.iter().map(ToString::to_string));
    let router = [format!("cooldown_time: {}", COOLDOWN as f64 / 1e6)];
    let router: Vec<&str> = router.iter().map(String::as_str).collect();
    let config = configured(&upstream, &redis.url(), &limits, &router, &[]);
    Fleet::with(redis, upstream, 3, alike(config)).await
}

/// Failed attempts are bounded and counted. The client gets a failure only after the last attempt. A cooling deployment
/// is not called.
fn failing(statuses: &'static [u16]) -> Rules {
    Rules {
        attempts: ATTEMPTS,
        statuses,
        standstill: PACE.standstill() + 4 * PACE.window,
        ..Rules::default()
    }
}

fn late(act: Act) -> Act {
    Act {
        delay_ms: CALL_MS,
        ..act
    }
}

/// A8, A9: a storm of 429s. The fleet shares the cooldown: no instance calls while it lasts, and exactly one when it
/// ends.
#[tokio::test]
async fn one_call_probes_for_the_fleet_after_a_storm_of_429s() -> Result<()> {
    let fleet = fleet(&[]).await?;
    let load = fleet.load("r");
    load.progress(10).await?;
    let busy = Act {
        retry_after: Some("1".into()),
        ..Act::fail(429)
    };
    fleet.upstream.plan(&[], late(busy)).await?;
    let stormy = |calls: &[Seen]| -> Vec<Seen> {
        calls
            .iter()
            .filter(|call| call.status == 429)
            .cloned()
            .collect()
    };
    // The calls that were under way, and five probes of one second each.
    let probed = |calls: &Vec<Seen>| {
        let storm = stormy(calls);
        let first = storm.first().and_then(|call| call.ended);
        let probes = storm
            .iter()
            .filter(|call| first.is_some_and(|first| call.at > first + COOLDOWN));
        probes.count() >= 5
    };
    until_within(
        PACE.patience(),
        "five probes",
        || fleet.upstream.calls(),
        probed,
    )
    .await?;
    fleet.upstream.plan(&[], Act::after(CALL_MS)).await?;
    load.progress(20).await?;

    let storm = stormy(&fleet.upstream.calls().await?);
    let first = storm
        .first()
        .and_then(|call| call.ended)
        .unwrap_or_default();
    let told = first + COOLDOWN;
    let early = storm.iter().filter(|call| call.at <= told).count();
    ensure!(
        early <= 2 * CALLS,
        "{early} calls before the fleet knew: {storm:?}"
    );
    let probes: Vec<&Seen> = storm.iter().filter(|call| call.at > told).collect();
    for pair in probes.windows(2) {
        let ended = pair[0].ended.unwrap_or(u64::MAX);
        ensure!(
            pair[1].at >= ended.saturating_add(COOLDOWN),
            "two probes in a cooldown: {pair:?}"
        );
    }
    let summary = fleet.judge(load, failing(&[429])).await?;
    ensure!(summary.died == 0, "{summary:?}");
    Ok(())
}

/// A8, P14: errors and resets before the first byte are retried with the first arrival, at most three attempts for each
/// request.
#[tokio::test]
async fn errors_and_resets_are_retried_with_the_first_arrival() -> Result<()> {
    let fleet = fleet(&[]).await?;
    let load = fleet.load("r");
    load.progress(10).await?;
    let fine = Act::after(CALL_MS);
    let turn = [
        late(Act::fail(500)),
        fine.clone(),
        Act::late_reset(),
        fine.clone(),
        late(Act::fail(503)),
        fine.clone(),
        late(Act::fail(529)),
        fine.clone(),
    ];
    let acts: Vec<Act> = turn.iter().cycle().take(PACE.limit).cloned().collect();
    fleet.upstream.plan(&acts, fine).await?;
    load.progress(PACE.limit).await?;
    let calls = fleet.upstream.calls().await?;
    let retried = calls.iter().filter(|call| call.status != 200).count();
    ensure!(retried >= PACE.limit / 4, "only {retried} failures");
    let summary = fleet.judge(load, failing(&[500, 502, 503, 529])).await?;
    ensure!(
        summary.calls > summary.answered,
        "nothing was retried: {summary:?}"
    );
    Ok(())
}

/// A8: an upstream that does not answer ends its attempt at the deployment's `timeout`, not at the request's.
#[tokio::test]
async fn stalled_attempts_time_out_and_are_retried() -> Result<()> {
    let fleet = fleet(&["timeout: 0.4"]).await?;
    let load = fleet.load("r");
    load.progress(10).await?;
    let fine = Act::after(CALL_MS);
    let acts: Vec<Act> = [Act::hold(), fine.clone(), fine.clone()]
        .into_iter()
        .cycle()
        .take(PACE.limit)
        .collect();
    fleet.upstream.plan(&acts, fine).await?;
    load.progress(PACE.limit).await?;
    let broken = |calls: &Vec<Seen>| {
        calls
            .iter()
            .filter(|call| call.fate == Fate::Broken)
            .count()
            >= 3
    };
    until("stalled calls to be cut", || fleet.upstream.calls(), broken).await?;
    // On a busy machine other calls take as long, and the upstream notices a cut call later.
    let rules = Rules {
        calls: false,
        ..failing(&[408])
    };
    let summary = fleet.judge(load, rules).await?;
    ensure!(
        summary.calls > summary.answered,
        "nothing was retried: {summary:?}"
    );
    Ok(())
}

/// A2: a stream that is reset in the middle breaks for its client, too. It is not called again, and its permit returns.
#[tokio::test]
async fn reset_stream_fails_once_and_returns_its_permit() -> Result<()> {
    let fleet = fleet(&[]).await?;
    let streams = PACE.limit / 2;
    // Only after the first chunk was read: else the head may be missing, and the call is retried.
    let torn = Act {
        hold: true,
        ..Act::reset()
    };
    for index in 0..streams {
        fleet
            .upstream
            .plan(std::slice::from_ref(&torn), Act::after(CALL_MS))
            .await?;
        let chat = Chat::new(&format!("stream-{index}")).with("stream", true);
        let client = fleet.gateways[index % 3].client();
        let asked = client.post("/v1/chat/completions").json(&chat.body);
        // A permit that was not returned would block this call.
        let asked = asked.timeout(PACE.patience());
        let mut answer = asked.send().await?;
        ensure!(answer.status() == 200, "{answer:?}");
        ensure!(answer.chunk().await?.is_some());
        fleet.upstream.release().await?;
        let end = loop {
            match answer.chunk().await {
                Ok(Some(_)) => {}
                end => break end,
            }
        };
        ensure!(end.is_err(), "half an answer looks whole: {end:?}");
    }
    let calls = fleet.upstream.seen(streams).await?;
    ensure!(
        calls.iter().all(|call| call.fate == Fate::Broken),
        "{calls:?}"
    );
    fleet.empty().await?;
    // Failures in the middle of a stream cool no deployment and keep no permit.
    let load = fleet.load("r");
    load.progress(CALLS).await?;
    fleet
        .judge(
            load,
            Rules {
                beside: Some("stream-"),
                ..Rules::default()
            },
        )
        .await?;
    Ok(())
}

/// A9, P14: one of two deployments dies under load. Requests succeed on the other one, whose limit holds. The dead one
/// gets no calls after a few attempts, and these cost only retries.
#[tokio::test]
async fn dead_deployment_costs_retries_but_loses_no_request() -> Result<()> {
    let (redis, upstream, dying) = (
        Redis::start().await?,
        Upstream::start().await?,
        Upstream::start().await?,
    );
    dying.plan(&[], Act::after(CALL_MS)).await?;
    let limits = [
        format!("rpm: {}", PACE.limit),
        format!("max_parallel_requests: {CALLS}"),
    ];
    let router = ["num_retries: 5", "cooldown_time: 300"];
    let config = configured(&upstream, &redis.url(), &limits, &router, &[]);
    let second = format!(
        "  - model_name: model
    litellm_params: {{model: openai/other, api_base: {}, api_key: k, {}}}
    model_info: {{id: dying}}
",
        dying.url(),
        limits.join(", "),
    );
    let end = config.find("router_settings").unwrap_or(config.len());
    let config = format!("{}{second}{}", &config[..end], &config[end..]);
    let fleet = Fleet::with(redis, upstream, 3, alike(config)).await?;
    let load = fleet.load("r");
    load.progress(PACE.limit).await?;
    let survived = dying.calls().await?;
    ensure!(!survived.is_empty(), "it was never called");
    drop(dying);
    load.progress(2 * PACE.limit).await?;
    let failed = async || -> Result<f64> {
        let mut failed = 0.0;
        for gateway in &fleet.gateways {
            let labels = "deployment=\"dying\",status=\"0\"";
            failed += gateway
                .metric("vorrang_upstream_answers_total", labels)
                .await?;
        }
        Ok(failed)
    };
    let tried = failed().await?;
    ensure!(tried > 0.0, "nobody noticed");
    ensure!(
        tried <= 3.0 * CALLS as f64,
        "{tried} attempts on a dead deployment"
    );
    load.progress(PACE.limit).await?;
    ensure!(failed().await? == tried, "it is called while it cools");
    // Answers of the failing deployment are not judged.
    let records = load.end().await?;
    let mut calls = fleet.upstream.calls().await?;
    let times: Vec<u64> = calls.iter().map(|call| call.at).collect();
    let fullest = vorrang_tests::referee::fullest_window(&times, PACE.window - PACE.window / 5);
    ensure!(fullest <= PACE.limit, "{fullest} in a window");
    calls.extend(survived);
    let mut lost = Vec::new();
    let mut passages = Vec::new();
    for record in records {
        let crate::load::Outcome::Answered(reply) = record.outcome else {
            anyhow::bail!("{} died", record.user);
        };
        if reply.status == 200 {
            passages.push(reply.passage()?);
        } else {
            lost.push(reply);
        }
    }
    ensure!(lost.is_empty(), "{lost:?}");
    let inverted = vorrang_tests::referee::inversions(&passages);
    ensure!(inverted.is_empty(), "{inverted:?}");
    fleet.empty().await
}
