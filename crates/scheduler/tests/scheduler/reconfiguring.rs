//! A running group gets another configuration (P20), with tokio's clock paused.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout};
use vorrang_scheduler::{backend::MemoryBackend, *};

const WINDOW: Duration = Duration::from_secs(60);

fn deployment(id: &str, requests: u64) -> Deployment {
    Deployment::new(id).limit(LimitKind::Requests, requests, WINDOW)
}

fn config(deployments: Vec<Deployment>) -> GroupConfig {
    GroupConfig::new(deployments)
}

fn open(config: &GroupConfig) -> Group {
    let scheduler = Scheduler::new(Arc::new(MemoryBackend::new()), "one", Arc::new(NoObserver));
    scheduler.open("group", config)
}

async fn call(group: &Group) -> ActiveCall {
    let permit = group.join(0, 0).granted().await.unwrap();
    permit.dispatch().unwrap()
}

async fn until(group: &Group, holds: impl Fn(&GroupStatus) -> bool) {
    while !holds(&group.status()) {
        sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn higher_limit_is_in_force_at_once_and_waiting_tickets_keep_their_order() {
    let group = open(&config(vec![deployment("a", 1)]));
    drop(call(&group).await);
    let start = Instant::now();
    let mut first = group.join(0, 0);
    assert_eq!(first.ahead().await, Some(0));
    let mut second = group.join(0, 0);
    assert_eq!(second.ahead().await, Some(1));
    group.reconfigure(&config(vec![deployment("a", 2)]));
    let granted = first.granted().await.unwrap();
    assert!(
        start.elapsed() < Duration::from_secs(1),
        "{:?}",
        start.elapsed()
    );
    let _call = granted.dispatch().unwrap();
    // The call from before counts: two are in the window now.
    assert!(timeout(WINDOW / 2, second.granted()).await.is_err());
    assert!(second.granted().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn lower_limit_counts_calls_from_before() {
    let group = open(&config(vec![deployment("a", 3)]));
    for _ in 0..2 {
        drop(call(&group).await);
    }
    group.reconfigure(&config(vec![deployment("a", 2)]));
    let waiting = timeout(WINDOW / 2, group.join(0, 0).granted()).await;
    assert!(waiting.is_err(), "the limit of 2 is used up");
}

#[tokio::test(start_paused = true)]
async fn open_calls_hold_their_slots() {
    let slots = |most| {
        let slot = Deployment::new("a").limit(LimitKind::Concurrency, most, Duration::ZERO);
        config(vec![slot])
    };
    let group = open(&slots(1));
    let open_call = call(&group).await;
    group.reconfigure(&slots(2));
    let second = call(&group).await;
    let mut third = group.join(0, 0);
    assert!(timeout(WINDOW, third.granted()).await.is_err());
    drop(open_call);
    let third = third.granted().await.unwrap();
    drop((second, third));
}

#[tokio::test(start_paused = true)]
async fn deployments_are_known_by_their_ids_whatever_their_order() {
    let group = open(&config(vec![deployment("a", 1), deployment("b", 1)]));
    let used = [call(&group).await, call(&group).await];
    group.reconfigure(&config(vec![deployment("c", 1), deployment("b", 2)]));
    // What was used of b counts there, and c is new.
    let permits = [call(&group).await, call(&group).await];
    let mut ids: Vec<_> = permits
        .iter()
        .map(|call| (call.deployment_id(), call.deployment()))
        .collect();
    ids.sort_unstable();
    assert_eq!(ids, [("b", 1), ("c", 0)]);
    assert_eq!(
        used[0].deployment_id() == "a",
        used[1].deployment_id() == "b"
    );
    assert!(
        timeout(WINDOW / 2, group.join(0, 0).granted())
            .await
            .is_err()
    );
}

#[tokio::test(start_paused = true)]
async fn permit_from_before_is_dispatched_or_keeps_its_arrival() {
    let group = open(&config(vec![deployment("a", 1)]));
    let permit = group.join(0, 0).granted().await.unwrap();
    let arrival = permit.numbers().arrival;
    let behind = group.join(0, 0);
    group.reconfigure(&config(vec![deployment("a", 1), deployment("b", 1)]));
    until(&group, |status| status.deployments.len() == 2).await;
    // Its session has ended.
    let Err(expired) = permit.dispatch() else {
        panic!("it is of another session");
    };
    let again = expired.into_ticket().enter().granted().await.unwrap();
    assert_eq!(again.numbers().arrival, arrival);
    drop((behind, again));
}

#[tokio::test(start_paused = true)]
async fn sleeping_group_wakes_with_the_new_configuration() {
    let group = open(&config(vec![deployment("a", 1)]));
    drop(call(&group).await);
    // Idle for longer than the charge log reaches back.
    sleep(3 * WINDOW).await;
    group.reconfigure(&config(vec![deployment("b", 1)]));
    assert_eq!(call(&group).await.deployment_id(), "b");
}

#[tokio::test(start_paused = true)]
async fn reconfiguring_many_times_in_a_row_ends_with_the_last() {
    let group = open(&config(vec![deployment("a", 1)]));
    for n in 0..50_u64 {
        group.reconfigure(&config(vec![
            deployment("a", 1),
            deployment(&format!("d{n}"), 1),
        ]));
    }
    let permits = [call(&group).await, call(&group).await];
    let mut ids: Vec<_> = permits.iter().map(ActiveCall::deployment_id).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["a", "d49"]);
}
