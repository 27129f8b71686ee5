//! Which of several deployments with room a ticket is granted: by weight, or the least used.

use std::{sync::Arc, time::Duration};

use vorrang_scheduler::{backend::MemoryBackend, *};

const MINUTE: Duration = Duration::from_secs(60);

fn open(strategy: Strategy, deployments: Vec<Deployment>) -> Group {
    let backend = Arc::new(MemoryBackend::with_seed(1));
    let scheduler = Scheduler::new(backend, "one", Arc::new(NoObserver));
    let config = GroupConfig {
        strategy,
        ..GroupConfig::new(deployments)
    };
    scheduler.open("group", &config)
}

fn weighing(id: &str, weight: f64) -> Deployment {
    Deployment {
        weight: Some(weight),
        ..Deployment::new(id)
    }
}

fn limited(id: &str, kind: LimitKind, limit: u64) -> Deployment {
    Deployment::new(id).limit(kind, limit, MINUTE)
}

/// How many of a thousand tickets go to the first of two deployments. No permit is dispatched, so no limit is reached.
async fn first_of_a_thousand(pair: [Deployment; 2]) -> i32 {
    let group = open(Strategy::SimpleShuffle, pair.into());
    let mut first = 0;
    for _ in 0..1000 {
        let permit = group.join(0, 1).granted().await.unwrap();
        first += i32::from(permit.deployment() == 0);
    }
    first
}

/// Five standard deviations: sqrt(1000 x 1/4 x 3/4) is 13.7, sqrt(1000 x 1/2 x 1/2) is 15.8.
#[track_caller]
fn assert_about(first: i32, expected: i32) {
    let off = if expected == 500 { 79 } else { 68 };
    assert!(
        (first - expected).abs() <= off,
        "{first} instead of {expected}"
    );
}

#[tokio::test(start_paused = true)]
async fn simple_shuffle_spreads_by_weight() {
    let pair = [weighing("a", 1.0), weighing("b", 3.0)];
    assert_about(first_of_a_thousand(pair).await, 250);
}

#[tokio::test(start_paused = true)]
async fn simple_shuffle_spreads_by_rpm_without_weights() {
    let of =
        |id, rpm, tpm| limited(id, LimitKind::Requests, rpm).limit(LimitKind::Tokens, tpm, MINUTE);
    // Limits of tokens are ignored where there are limits of requests.
    let pair = [of("a", 100, 9000), of("b", 300, 1000)];
    assert_about(first_of_a_thousand(pair).await, 250);
}

#[tokio::test(start_paused = true)]
async fn simple_shuffle_spreads_by_tpm_without_weights_and_rpm() {
    let of = |id, tpm| limited(id, LimitKind::Tokens, tpm);
    assert_about(
        first_of_a_thousand([of("a", 1000), of("b", 3000)]).await,
        250,
    );
}

#[tokio::test(start_paused = true)]
async fn simple_shuffle_spreads_by_itpm_or_otpm_without_other_limits() {
    for kind in [LimitKind::InputTokens, LimitKind::OutputTokens] {
        let of = |id, limit| limited(id, kind, limit);
        assert_about(
            first_of_a_thousand([of("a", 1000), of("b", 3000)]).await,
            250,
        );
    }
}

#[tokio::test(start_paused = true)]
async fn simple_shuffle_spreads_evenly_without_weights_and_limits() {
    let pair = [Deployment::new("a"), Deployment::new("b")];
    assert_about(first_of_a_thousand(pair).await, 500);
}

#[tokio::test(start_paused = true)]
async fn weight_takes_precedence_over_rpm() {
    let of = |id, weight, rpm| Deployment {
        weight: Some(weight),
        ..limited(id, LimitKind::Requests, rpm)
    };
    let pair = [of("a", 3.0, 100), of("b", 1.0, 300)];
    assert_about(first_of_a_thousand(pair).await, 750);
    // Where one deployment has a weight, a deployment without weight gets nothing as long as another has room.
    let pair = [limited("a", LimitKind::Requests, 1000), weighing("b", 1.0)];
    assert_eq!(first_of_a_thousand(pair).await, 0);
}

/// The deployments of consecutive calls. All of the calls stay open if `held`.
async fn deployments_of(group: &Group, count: usize, tokens: u64, held: bool) -> Vec<usize> {
    let mut calls = Vec::new();
    let mut deployments = Vec::new();
    for _ in 0..count {
        let permit = group.join(0, tokens).granted().await.unwrap();
        let call = permit.dispatch().unwrap();
        deployments.push(call.deployment());
        if held {
            calls.push(call);
        }
    }
    deployments
}

#[tokio::test(start_paused = true)]
async fn usage_based_chooses_the_lowest_used_share_of_requests() {
    let of = |id, rpm| limited(id, LimitKind::Requests, rpm);
    let group = open(Strategy::UsageBased, vec![of("a", 10), of("b", 30)]);
    assert_eq!(
        deployments_of(&group, 40, 0, false).await,
        [0, 1, 1, 1].repeat(10),
        "both are full at the same time"
    );
}

#[tokio::test(start_paused = true)]
async fn usage_based_compares_the_most_used_limit_of_each_deployment() {
    let a = limited("a", LimitKind::Requests, 100).limit(LimitKind::Tokens, 100, MINUTE);
    let b = limited("b", LimitKind::Requests, 10);
    let group = open(Strategy::UsageBased, vec![a, b]);
    // One call is a hundredth of a's requests and half of its tokens: as much as five of b's calls.
    assert_eq!(
        deployments_of(&group, 12, 50, false).await,
        [0, 1, 1, 1, 1, 1].repeat(2)
    );
}

#[tokio::test(start_paused = true)]
async fn usage_based_counts_open_calls() {
    let of = |id, calls| limited(id, LimitKind::Concurrency, calls);
    let group = open(Strategy::UsageBased, vec![of("a", 2), of("b", 6)]);
    assert_eq!(
        deployments_of(&group, 8, 0, true).await,
        [0, 1, 1, 1, 0, 1, 1, 1]
    );
    // Without limits the shares are equal, and the deployment with fewer open calls is chosen.
    let pair = vec![Deployment::new("a"), Deployment::new("b")];
    let group = open(Strategy::UsageBased, pair);
    assert_eq!(deployments_of(&group, 4, 0, true).await, [0, 1, 0, 1]);
}

fn identical(count: usize) -> Vec<Deployment> {
    ["a", "b", "c"][..count]
        .iter()
        .map(|id| Deployment::new(*id))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn simultaneous_calls_are_spread_over_deployments() {
    let group = open(Strategy::SimpleShuffle, identical(2));
    let mut first = 0;
    for _ in 0..50 {
        let tickets: Vec<Ticket> = (0..20).map(|_| group.join(0, 1)).collect();
        let mut batch = 0;
        for mut ticket in tickets {
            batch += i32::from(ticket.granted().await.unwrap().deployment() == 0);
        }
        // All twenty on one deployment is less likely than 1 : 50,000.
        assert!((1..20).contains(&batch), "{batch} of 20");
        first += batch;
    }
    assert_about(first, 500);
}

/// The deployments of a request whose calls fail, and which is retried twice.
async fn path_of_retries(group: &Group) -> [usize; 3] {
    let mut ticket = group.join(0, 1);
    let mut path = [0; 3];
    for deployment in &mut path {
        let mut call = ticket.granted().await.unwrap().dispatch().unwrap();
        *deployment = call.deployment();
        call.failed(500, None);
        ticket = call.retry();
    }
    path
}

#[tokio::test(start_paused = true)]
async fn retry_prefers_untried_deployments() {
    for strategy in [Strategy::SimpleShuffle, Strategy::UsageBased] {
        let config = GroupConfig {
            strategy,
            allowed_fails: u32::MAX,
            ..GroupConfig::new(identical(3))
        };
        let backend = Arc::new(MemoryBackend::with_seed(1));
        let scheduler = Scheduler::new(backend, "one", Arc::new(NoObserver));
        let group = scheduler.open("group", &config);
        for _ in 0..30 {
            let mut path = path_of_retries(&group).await;
            path.sort_unstable();
            assert_eq!(path, [0, 1, 2]);
        }
    }
}

/// A4 (no idle room): room is used even if the request has tried its deployment.
#[tokio::test(start_paused = true)]
async fn retry_takes_a_tried_deployment_where_no_other_has_room() {
    let one_slot = |id| limited(id, LimitKind::Concurrency, 1);
    let group = open(Strategy::SimpleShuffle, vec![one_slot("a"), one_slot("b")]);
    let first = group.join(0, 1).granted().await.unwrap();
    let mut first = first.dispatch().unwrap();
    let _other = group.join(0, 1).granted().await.unwrap();
    let tried = first.deployment();
    first.failed(500, None);
    assert_eq!(first.retry().granted().await.unwrap().deployment(), tried);
}

#[tokio::test(start_paused = true)]
async fn least_busy_chooses_the_fewest_open_calls() {
    let group = open(Strategy::LeastBusy, identical(3));
    let mut calls = Vec::new();
    for _ in 0..6 {
        let permit = group.join(0, 1).granted().await.unwrap();
        calls.push(permit.dispatch().unwrap());
    }
    let of = |deployment| move |call: &ActiveCall| call.deployment() == deployment;
    for deployment in 0..3 {
        let open = calls.iter().filter(|call| of(deployment)(call));
        assert_eq!(open.count(), 2);
    }
    calls.retain(|call| call.deployment() != 1);
    assert_eq!(deployments_of(&group, 5, 1, false).await, [1; 5]);
}

/// One call whose answer begins after this time. Returns its deployment.
async fn answered_after(group: &Group, times: &[u64]) -> usize {
    let permit = group.join(0, 1).granted().await.unwrap();
    let mut call = permit.dispatch().unwrap();
    tokio::time::sleep(Duration::from_millis(times[call.deployment()])).await;
    call.succeeded();
    // Only the beginning counts.
    tokio::time::sleep(Duration::from_secs(5)).await;
    call.deployment()
}

#[tokio::test(start_paused = true)]
async fn latency_based_chooses_the_soonest_answers_and_tries_slow_deployments_again() {
    let strategy = Strategy::LatencyBased {
        forget_after: Duration::from_secs(600),
        buffer: 0.0,
    };
    let group = open(strategy, identical(3));
    let mut chosen = Vec::new();
    for _ in 0..50 {
        chosen.push(answered_after(&group, &[300, 100, 200]).await);
    }
    // Each is measured once, and then the fastest is chosen.
    assert_eq!(chosen[3..], [1; 47]);
    chosen.truncate(3);
    chosen.sort_unstable();
    assert_eq!(chosen, [0, 1, 2]);
    // Another is faster now, which shows when the others are tried again.
    let mut chosen = Vec::new();
    for _ in 0..120 {
        chosen.push(answered_after(&group, &[300, 100, 50]).await);
    }
    assert_eq!(chosen[119], 2);
    assert!(
        chosen.iter().filter(|chosen| **chosen == 0).count() <= 2,
        "{chosen:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn call_that_timed_out_counts_as_slow() {
    let strategy = Strategy::LatencyBased {
        forget_after: Duration::from_secs(600),
        buffer: 0.0,
    };
    for status in [408, 0] {
        let group = open(strategy, identical(2));
        let mut call = group
            .join(0, 1)
            .granted()
            .await
            .unwrap()
            .dispatch()
            .unwrap();
        let slow = call.deployment();
        if status == 0 {
            call.timed_out();
        }
        call.failed(status, None);
        drop(call);
        for _ in 0..5 {
            let times = [3000, 3000];
            assert_ne!(answered_after(&group, &times).await, slow);
        }
    }
}
