//! Pacing, reserves and aging (P18), with tokio's clock paused.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::time::{Instant, sleep, sleep_until, timeout};
use vorrang_scheduler::{backend::MemoryBackend, *};

const URGENT: i32 = 0;
const BATCH: i32 = 1000;
const WINDOW: Duration = Duration::from_secs(60);

fn open(config: &GroupConfig) -> Group {
    let scheduler = Scheduler::new(Arc::new(MemoryBackend::new()), "one", Arc::new(NoObserver));
    scheduler.open("group", config)
}

fn requests(limit: u64) -> GroupConfig {
    GroupConfig::new(vec![Deployment::new("a").limit(
        LimitKind::Requests,
        limit,
        WINDOW,
    )])
}

fn paced(limit: u64) -> GroupConfig {
    GroupConfig {
        pace_worse_than: Some(URGENT),
        ..requests(limit)
    }
}

/// Waits for a grant and makes a call of one second. Returns the time of the dispatch.
async fn call(group: &Group, priority: i32, tokens: u64) -> Instant {
    let permit = group.join(priority, tokens).granted().await.unwrap();
    let _call = permit.dispatch().unwrap();
    let at = Instant::now();
    sleep(Duration::from_secs(1)).await;
    at
}

/// A hundred clients that call without pause. Returns the times of their dispatches.
fn backlog(group: &Group, tokens: u64) -> Arc<Mutex<Vec<Instant>>> {
    let dispatches = Arc::new(Mutex::new(Vec::new()));
    for _ in 0..100 {
        let (group, dispatches) = (group.clone(), dispatches.clone());
        tokio::spawn(async move {
            loop {
                let at = call(&group, BATCH, tokens).await;
                dispatches.lock().unwrap().push(at);
            }
        });
    }
    dispatches
}

/// The sorted waits of urgent tickets that arrive every 3.3 s from the fifth window on, for ten windows: 30 % of the limit of 60.
async fn urgent_waits(group: &Group) -> Vec<Duration> {
    let start = Instant::now() + 5 * WINDOW;
    let mut waits = Vec::new();
    for n in 0..180 {
        let group = group.clone();
        let at = start + n * Duration::from_millis(3_333);
        waits.push(tokio::spawn(async move {
            sleep_until(at).await;
            call(&group, URGENT, 1).await - at
        }));
    }
    let mut waited = Vec::new();
    for wait in waits {
        waited.push(wait.await.unwrap());
    }
    waited.sort_unstable();
    waited
}

fn count_within(dispatches: &[Instant], from: Instant, length: Duration) -> usize {
    dispatches
        .iter()
        .filter(|at| **at >= from && **at < from + length)
        .count()
}

/// Without pacing a backlog uses each window at once, and an urgent ticket waits for the next window.
#[tokio::test(start_paused = true)]
async fn urgent_tickets_wait_for_the_next_window_without_pacing() {
    let group = open(&requests(60));
    backlog(&group, 1);
    let waited = urgent_waits(&group).await;
    assert!(waited[90] > WINDOW / 4, "{:?}", waited[90]);
    assert!(waited[178] > WINDOW * 3 / 4, "{:?}", waited[178]);
}

/// Pacing spreads the slots evenly: p99 of the wait is at most 3 x window / N + guard, and 99 % of the limit is used.
#[tokio::test(start_paused = true)]
async fn urgent_tickets_wait_for_the_next_slot_with_pacing_and_no_slot_is_lost() {
    let group = open(&paced(60));
    let (start, dispatches) = (Instant::now(), backlog(&group, 1));
    let waited = urgent_waits(&group).await;
    let bound = 3 * WINDOW / 60 + Duration::from_millis(100);
    assert!(waited[178] <= bound, "{:?}", waited[178]);
    let span = WINDOW + Duration::from_millis(100);
    let (from, length) = (start + 5 * span, 9 * span);
    let dispatches = dispatches.lock().unwrap();
    let urgent = length.as_millis() / 3_333;
    let used = count_within(&dispatches, from, length) + usize::try_from(urgent).unwrap();
    assert!(used >= 9 * 60 * 99 / 100, "{used} of 540");
}

#[tokio::test(start_paused = true)]
async fn tokens_are_paced_like_requests() {
    let tokens = Deployment::new("a").limit(LimitKind::Tokens, 6_000, WINDOW);
    let group = open(&GroupConfig {
        pace_worse_than: Some(URGENT),
        ..GroupConfig::new(vec![tokens])
    });
    let (start, dispatches) = (Instant::now(), backlog(&group, 200));
    sleep(10 * WINDOW).await;
    let dispatches = dispatches.lock().unwrap().clone();
    // 200 of 6,000 tokens are two seconds of the window. The tolerance lets one call go early.
    for three in dispatches.windows(3) {
        assert!(
            three[2] - three[0] >= Duration::from_millis(2_000),
            "{three:?}"
        );
    }
    let used = count_within(&dispatches, start + 5 * WINDOW, 5 * WINDOW);
    assert!(used >= 5 * 30 * 99 / 100, "{used} of 150");
}

/// An unused permit gives its advance of the pace back.
#[tokio::test(start_paused = true)]
async fn unused_permits_do_not_advance_the_pace() {
    let group = open(&paced(6));
    for _ in 0..20 {
        drop(
            timeout(Duration::from_millis(1), group.join(BATCH, 0).granted())
                .await
                .unwrap(),
        );
    }
    let start = Instant::now();
    let first = call(&group, BATCH, 0).await;
    let second = call(&group, BATCH, 0).await;
    let third = call(&group, BATCH, 0).await;
    assert!(first - start < Duration::from_millis(5));
    assert!(
        second - first < Duration::from_millis(1_005),
        "the tolerance is one request"
    );
    let pace = (WINDOW + Duration::from_millis(100)) / 6;
    assert!(third - first >= pace, "{:?}", third - first);
    assert!(third - first <= pace + Duration::from_millis(5));
}

/// All grants advance the pace, those that it does not hold too.
#[tokio::test(start_paused = true)]
async fn urgent_calls_advance_the_pace() {
    let group = open(&paced(6));
    let start = Instant::now();
    for _ in 0..4 {
        let urgent = group.join(URGENT, 0).granted().await.unwrap();
        drop(urgent.dispatch().unwrap());
    }
    assert!(start.elapsed() < Duration::from_millis(5));
    // Four intervals, less the ticket's own tolerance of one.
    let paced = call(&group, BATCH, 0).await - start;
    let pace = (WINDOW + Duration::from_millis(100)) / 6;
    assert!(paced >= 3 * pace, "{paced:?}");
    assert!(paced <= 3 * pace + Duration::from_millis(5), "{paced:?}");
}

/// Worse priorities use at most 1 - share of each limit, of open calls too, and a burst of better tickets is granted at once.
#[tokio::test(start_paused = true)]
async fn reserve_is_kept_from_worse_priorities_and_free_for_a_burst() {
    let limited = Deployment::new("a")
        .limit(LimitKind::Requests, 10, WINDOW)
        .limit(LimitKind::Concurrency, 5, Duration::ZERO);
    let group = open(&GroupConfig {
        reserve: Some(Reserve {
            priority: URGENT,
            share: 0.2,
        }),
        ..GroupConfig::new(vec![limited])
    });
    let mut open_calls = Vec::new();
    for _ in 0..4 {
        let permit = group.join(BATCH, 0).granted().await.unwrap();
        open_calls.push(permit.dispatch().unwrap());
    }
    let mut fifth = group.join(BATCH, 0);
    assert!(
        timeout(Duration::from_secs(1), fifth.granted())
            .await
            .is_err()
    );
    let waits_for: Vec<_> = group.status().reasons.words().collect();
    assert_eq!(waits_for, ["concurrency", "reserve"]);
    // The fifth slot is reserved for urgent calls.
    let at_once = Duration::from_millis(5);
    let urgent = timeout(at_once, group.join(URGENT, 0).granted()).await;
    drop(urgent.unwrap().unwrap());
    open_calls.clear();
    let mut more = vec![fifth];
    more.extend((0..8).map(|_| group.join(BATCH, 0)));
    let mut dispatched = 0;
    for ticket in &mut more {
        if let Ok(permit) = timeout(Duration::from_secs(1), ticket.granted()).await {
            drop(permit.unwrap().dispatch().unwrap());
            dispatched += 1;
        }
    }
    assert_eq!(dispatched, 4, "eight of ten in the window");
    for _ in 0..2 {
        let urgent = timeout(at_once, group.join(URGENT, 0).granted()).await;
        drop(urgent.unwrap().unwrap().dispatch().unwrap());
    }
    let third = timeout(at_once, group.join(URGENT, 0).granted()).await;
    assert!(third.is_err(), "the window is full for all priorities");
}

/// A5 (large tickets): a ticket that can never fit into the part that the reserve leaves is refused at once.
#[tokio::test(start_paused = true)]
async fn ticket_above_the_unreserved_part_is_refused() {
    let tokens = Deployment::new("a").limit(LimitKind::Tokens, 100, WINDOW);
    let group = open(&GroupConfig {
        reserve: Some(Reserve {
            priority: URGENT,
            share: 0.2,
        }),
        ..GroupConfig::new(vec![tokens])
    });
    assert_eq!(
        group.join(BATCH, 81).granted().await.unwrap_err(),
        Refused::NeverFits
    );
    drop(group.join(BATCH, 80).granted().await.unwrap());
    drop(group.join(URGENT, 100).granted().await.unwrap());
}

/// A ticket that has aged to the head is not held by pacing while better tickets wait behind it.
#[tokio::test(start_paused = true)]
async fn aged_ticket_goes_first_and_is_not_paced_ahead_of_better_tickets() {
    let group = open(&GroupConfig {
        aging: Some(Duration::from_secs(10)),
        ..paced(2)
    });
    // Sequence numbers begin 10 s above the clock (P5), and until then they do not follow it.
    sleep(Duration::from_secs(11)).await;
    let full = Instant::now();
    let (first, second) = tokio::join!(call(&group, -5, 0), call(&group, -5, 0));
    assert!(first - full < Duration::from_secs(1) && second - full < Duration::from_secs(1));
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = Vec::new();
    for (name, priority, later) in [("old", 3, 0), ("early", 0, 29), ("late", 0, 31)] {
        let (group, order) = (group.clone(), order.clone());
        tasks.push(tokio::spawn(async move {
            sleep(Duration::from_secs(later)).await;
            let at = call(&group, priority, 0).await;
            order.lock().unwrap().push((name, at - full));
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let order = order.lock().unwrap().clone();
    let names: Vec<_> = order.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["early", "old", "late"]);
    // Both are granted when the window has room: pacing does not hold the old ticket, because a better one waits behind it.
    assert!(
        order[1].1 - order[0].1 < Duration::from_secs(1),
        "{order:?}"
    );
}
