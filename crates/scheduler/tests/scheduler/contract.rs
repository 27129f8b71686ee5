//! The contract on the memory backend, with tokio's clock paused.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::time::{Instant, timeout};
use vorrang_scheduler::{backend::MemoryBackend, *};

fn open(deployments: Vec<Deployment>) -> Group {
    let scheduler = Scheduler::new(Arc::new(MemoryBackend::new()), "one", Arc::new(NoObserver));
    scheduler.open("group", &GroupConfig::new(deployments))
}

fn requests(limit: u64) -> Deployment {
    Deployment::new("a").limit(LimitKind::Requests, limit, Duration::from_secs(60))
}

async fn dispatched(group: &Group, priority: i32) -> ActiveCall {
    let permit = group.join(priority, 0).granted().await.unwrap();
    permit.dispatch().unwrap()
}

/// A1 (order), A3 (windows): better priorities first, then by arrival, and at the end of the window with its guard.
#[tokio::test(start_paused = true)]
async fn tickets_are_granted_in_order_exactly_when_the_window_has_room() {
    let group = open(vec![requests(2)]);
    let start = Instant::now();
    drop(dispatched(&group, 0).await);
    drop(dispatched(&group, 0).await);
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = Vec::new();
    for (name, priority) in [("late", 7), ("first", -1), ("second", 0), ("third", 0)] {
        let order = order.clone();
        let mut ticket = group.join(priority, 0);
        tasks.push(tokio::spawn(async move {
            let permit = ticket.granted().await.unwrap();
            drop(permit.dispatch().unwrap());
            order.lock().unwrap().push((name, start.elapsed()));
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let order = order.lock().unwrap().clone();
    assert_eq!(
        order.iter().map(|(name, _)| *name).collect::<Vec<_>>(),
        ["first", "second", "third", "late"]
    );
    for (window, pair) in order.chunks(2).enumerate() {
        for (_, at) in pair {
            let expected = Duration::from_millis(60_100 * (window as u64 + 1));
            assert!(
                *at >= expected && *at <= expected + Duration::from_millis(5),
                "{at:?} instead of {expected:?}"
            );
        }
    }
}

/// A7 (leaving tickets): a ticket that leaves does not hold up the queue, and an unused permit costs nothing.
#[tokio::test(start_paused = true)]
async fn dropped_tickets_and_unused_permits_hold_no_room() {
    let group = open(vec![requests(1)]);
    drop(group.join(0, 0).granted().await.unwrap());
    let first = dispatched(&group, 0).await;
    let left = group.join(-5, 0);
    let mut next = group.join(0, 0);
    drop(left);
    drop(first);
    let soon = Duration::from_millis(60_200);
    let permit = timeout(soon, next.granted()).await.unwrap().unwrap();
    drop(permit);
    let permit = timeout(soon, group.join(0, 0).granted()).await.unwrap();
    drop(permit.unwrap());
}

/// A5 (large tickets): a head that is too large for the free room keeps its queue entry. A ticket above the limit is refused at once.
#[tokio::test(start_paused = true)]
async fn large_head_is_not_overtaken_and_ticket_above_the_limit_is_refused() {
    let group = open(vec![Deployment::new("a").limit(
        LimitKind::Tokens,
        100,
        Duration::from_secs(60),
    )]);
    let permit = group.join(0, 60).granted().await.unwrap();
    let mut used = permit.dispatch().unwrap();
    assert_eq!(
        group.join(0, 101).granted().await.unwrap_err(),
        Refused::NeverFits
    );
    let (mut large, mut small) = (group.join(0, 50), group.join(1, 10));
    let either = async {
        tokio::select! { _ = large.granted() => (), _ = small.granted() => () }
    };
    assert!(timeout(Duration::from_secs(59), either).await.is_err());
    // The correction makes room for both.
    used.used_tokens(20);
    drop(used);
    let large = timeout(Duration::from_millis(100), large.granted())
        .await
        .unwrap()
        .unwrap();
    let small = timeout(Duration::from_millis(100), small.granted())
        .await
        .unwrap()
        .unwrap();
    assert!(large.numbers().granted < small.numbers().granted);
}

/// A2 (atomic grant), A8 (retries): a retry frees its slot and enters with its first arrival.
#[tokio::test(start_paused = true)]
async fn retry_keeps_its_arrival_and_precedes_later_tickets() {
    let group = open(vec![Deployment::new("a").limit(
        LimitKind::Concurrency,
        1,
        Duration::ZERO,
    )]);
    let first = dispatched(&group, 0).await;
    let mut second = group.join(0, 0);
    assert!(
        timeout(Duration::from_secs(5), second.granted())
            .await
            .is_err()
    );
    let arrival = first.numbers().arrival;
    let mut retry = first.retry();
    let permit = retry.granted().await.unwrap();
    assert_eq!(permit.numbers().arrival, arrival);
    drop(permit);
    drop(second.granted().await.unwrap());
}

/// A9 (health): a cooling deployment is not used, and one ticket probes it afterwards.
#[tokio::test(start_paused = true)]
async fn one_ticket_probes_after_a_cooldown() {
    let group = open(vec![Deployment::new("a")]);
    let start = Instant::now();
    let mut first = dispatched(&group, 0).await;
    first.failed(429, Some(Duration::from_secs(7)));
    drop(first);
    let mut probe = dispatched(&group, 0).await;
    assert!(probe.is_probe());
    assert!(
        start.elapsed() >= Duration::from_secs(7) && start.elapsed() < Duration::from_millis(7_100)
    );
    let mut other = group.join(-1, 0);
    assert!(
        timeout(Duration::from_secs(3), other.granted())
            .await
            .is_err()
    );
    probe.succeeded();
    assert!(
        !timeout(Duration::from_secs(1), other.granted())
            .await
            .unwrap()
            .unwrap()
            .is_probe()
    );
}

/// Closing waits for open permits only as long as it is asked to.
#[tokio::test(start_paused = true)]
async fn closing_refuses_waiting_tickets() {
    let scheduler = Scheduler::new(Arc::new(MemoryBackend::new()), "one", Arc::new(NoObserver));
    let group = scheduler.open("group", &GroupConfig::new(vec![requests(1)]));
    let permit = dispatched(&group, 0).await;
    let mut waiting = group.join(0, 0);
    assert!(
        timeout(Duration::from_secs(1), waiting.granted())
            .await
            .is_err()
    );
    let (closed, ()) = tokio::join!(waiting.granted(), scheduler.close(Duration::from_secs(5)));
    assert_eq!(closed.unwrap_err(), Refused::Closed);
    assert_eq!(
        group.join(0, 0).granted().await.unwrap_err(),
        Refused::Closed
    );
    drop(permit);
}

/// Tickets of better priority are ahead, and earlier tickets of the same priority.
#[tokio::test(start_paused = true)]
async fn waiting_ticket_reports_how_many_are_ahead() {
    let group = open(vec![requests(1)]);
    let mut first = group.join(0, 0);
    assert_eq!(first.ahead().await, None);
    let permit = first.granted().await.unwrap();
    let mut waiting = Vec::new();
    for (priority, ahead) in [(5, 0), (5, 1), (-1, 0), (0, 1), (5, 4)] {
        let mut ticket = group.join(priority, 0);
        assert_eq!(ticket.ahead().await, Some(ahead), "priority {priority}");
        waiting.push(ticket);
    }
    drop(permit);
}

/// The waiter runs beside the dispatcher: the first ticket behind a full window must not see the status from before it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_is_current_when_a_ticket_learns_its_position() {
    for _ in 0..200 {
        let group = open(vec![requests(1)]);
        drop(dispatched(&group, 0).await);
        let mut ticket = group.join(0, 0);
        assert_eq!(ticket.ahead().await, Some(0));
        let status = group.status();
        assert_eq!(status.depth, 1);
        assert!(status.next_free.is_some(), "{status:?}");
    }
}

/// P11 (charge log): an instance that has closed its session receives no replies, so it does not keep showing the last state of the group.
#[tokio::test(start_paused = true)]
async fn idle_instance_clears_its_status_after_closing_its_session() {
    let backend = Arc::new(MemoryBackend::new());
    let config = GroupConfig::new(vec![Deployment::new("a").limit(
        LimitKind::Concurrency,
        1,
        Duration::ZERO,
    )]);
    let open =
        |name| Scheduler::new(backend.clone(), name, Arc::new(NoObserver)).open("group", &config);
    let (busy, idle) = (open("busy"), open("idle"));
    let _held = dispatched(&busy, 0).await;
    let _waiting = busy.join(0, 0);
    let leaver = idle.join(1, 0);
    let status_shows = |depth| {
        let idle = idle.clone();
        let shown = async move {
            loop {
                let status = idle.status();
                if status.depth == depth && status.deployments[0].in_flight == depth {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_secs(10), shown)
    };
    drop(leaver);
    status_shows(1).await.unwrap();
    status_shows(0).await.unwrap();
    assert_eq!(busy.status().depth, 1);
}
