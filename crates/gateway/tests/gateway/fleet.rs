//! What operators see and do of a fleet: two routers on one memory backend, mock deployments and a paused clock.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::task::JoinSet;
use vorrang_gateway::{
    Fleet, FleetError, KeyPolicy, LimitChange, PreviewOf, Problem, Router, TicketQuery,
};
use vorrang_scheduler::{Observer, Scheduler, backend::MemoryBackend};

use crate::support::*;

/// Counts steps.
#[derive(Debug, Default)]
struct Steps(AtomicUsize);

impl Observer for Steps {
    fn stepped(&self, _: &str, _: usize, _: Duration) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Routers with the same configuration on one backend, with their schedulers.
fn fleet<const SIZE: usize>(text: &str, steps: &Arc<Steps>) -> [(Router, Scheduler, Fleet); SIZE] {
    let backend = Arc::new(MemoryBackend::new());
    std::array::from_fn(|index| {
        let scheduler = Scheduler::new(backend.clone(), format!("i{index}"), steps.clone());
        let router = Router::new(config(text), scheduler.clone());
        let fleet = router.fleet();
        (router, scheduler, fleet)
    })
}

async fn listed(fleet: &Fleet, query: &TicketQuery) -> Vec<(String, i32)> {
    let page = fleet.tickets("m", query).await.unwrap();
    let rows = page.tickets.into_iter();
    rows.map(|row| (row.call_id.unwrap_or_default(), row.priority))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn any_instance_lists_moves_and_cancels_and_ignores_foreign_posts() {
    let [(a, of_a, fleet), (b, ..)] = fleet(&mock("rpm: 1", ""), &Arc::default());
    a.call(chat("")).await.unwrap();
    let mut call = chat(r#","priority":1"#);
    call.call_id = "of-a".into();
    let first = queued(&a, call).await;
    let mut call = chat(r#","priority":2"#);
    call.call_id = "of-b".into();
    call.key = Some(KeyPolicy {
        name: "k".into(),
        ..KeyPolicy::default()
    });
    let second = queued(&b, call).await;

    // What no instance has sent, and what a later version may ask.
    for foreign in [
        &b"nonsense"[..],
        b"{}",
        br#"{"from":"x","id":1,"answer":{}}"#,
        br#"{"from":"x","id":1,"question":{"ask":"of a later version","more":[1]}}"#,
    ] {
        of_a.post(None, foreign.to_vec());
    }
    let all = TicketQuery::default();
    let expected = [("of-a".to_owned(), 1), ("of-b".to_owned(), 2)];
    assert_eq!(listed(&fleet, &all).await, expected);
    let of_key = TicketQuery {
        key: Some("k".into()),
        ..TicketQuery::default()
    };
    assert_eq!(listed(&fleet, &of_key).await, expected[1..]);
    let page = fleet.tickets("m", &of_key).await.unwrap();
    let ticket = &page.tickets[0].ticket;
    assert_eq!(page.tickets[0].key.as_deref(), Some("k"));

    let preview = PreviewOf {
        model: "m".into(),
        priority: Some(2),
        ..PreviewOf::default()
    };
    assert_eq!(fleet.preview(preview).await.unwrap().position, 3);
    let moved = fleet.move_ticket("m", ticket, -3).await.unwrap();
    assert_eq!((moved.from, moved.position), (Some(2), Some(1)));
    let life = fleet.own_request("of-b", Some("k")).await.unwrap();
    assert_eq!(life["priority"], -3);
    assert_eq!(life["instance"], "i1");
    let foreign = fleet.own_request("of-b", None).await.unwrap_err();
    assert!(matches!(foreign, FleetError::NotFound(_)), "{foreign}");
    fleet.cancel_ticket("m", ticket, "why not").await.unwrap();
    let error = second.await.unwrap().unwrap_err();
    let reason = "why not".to_owned();
    assert_eq!(error.problem, Problem::Cancelled { reason });
    assert_eq!(error.status(), 409);
    let late = fleet.cancel_ticket("m", ticket, "").await.unwrap_err();
    assert!(matches!(late, FleetError::Conflict(_)), "{late}");
    for unknown in ["", "1", "-1", "x", "99999999999999999999999"] {
        let error = fleet.move_ticket("m", unknown, 0).await.unwrap_err();
        assert!(matches!(error, FleetError::NotFound(_)), "{error}");
    }
    first.await.unwrap().unwrap();
    // It has the limits of the group in the answer to its change.
    let change = LimitChange {
        deployment: "d0".into(),
        limit: "rpm".into(),
        value: Some(9),
    };
    let changed = fleet.limit("m", &change).await.unwrap();
    assert_eq!((changed.old, changed.limits[0].in_force), (1, 9));
}

#[tokio::test(start_paused = true)]
async fn ended_instance_makes_no_answer_wait_longer_than_once() {
    let [(a, _, fleet), (b, of_b, _)] = fleet(&mock("rpm: 1", ""), &Arc::default());
    a.call(chat("")).await.unwrap();
    let overview = fleet.overview().await;
    let answered = overview.instances.iter().map(|one| one.answered);
    assert_eq!(answered.collect::<Vec<_>>(), [true, true]);
    assert_eq!(overview.groups[0].classes[1].granted_per_minute, 1);
    drop(b);
    of_b.close(Duration::ZERO).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    drop(of_b);
    fleet.overview().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let begun = tokio::time::Instant::now();
    let overview = fleet.overview().await;
    assert_eq!(overview.instances.len(), 1, "{:?}", overview.instances);
    assert!(
        begun.elapsed() < Duration::from_millis(300),
        "{:?}",
        begun.elapsed()
    );
}

/// A page costs one step and about 30 kB, however long the queue is, and a filter looks at a bounded part of it.
#[tokio::test(start_paused = true)]
async fn page_of_ten_thousand_waiting_tickets_costs_one_step() {
    const WAITING: usize = 10_000;
    let steps = Arc::new(Steps::default());
    let [(router, _, fleet)] = fleet(&mock("rpm: 1", ""), &steps);
    router.call(chat("")).await.unwrap();
    let mut calls = JoinSet::new();
    for index in 0..WAITING {
        let call = chat(&format!(r#","priority":{}"#, index % 10));
        let router = router.clone();
        calls.spawn(async move { router.call(call).await.map(drop) });
    }
    until(&router, |status| status.depth as usize == WAITING).await;

    let count = || steps.0.load(Ordering::Relaxed);
    let mut page = TicketQuery::default();
    let mut seen = 0;
    for _ in 0..3 {
        let before = count();
        let tickets = fleet.tickets("m", &page).await.unwrap();
        assert!(count() - before <= 2, "{} steps", count() - before);
        assert_eq!(tickets.total as usize, WAITING);
        assert_eq!(tickets.tickets.len(), 100);
        assert!(tickets.tickets.iter().all(|row| row.call_id.is_some()));
        seen += tickets.tickets.len() as u64;
        assert_eq!(tickets.next, Some(seen));
        page.from = seen;
    }
    // None of the first two thousand has the worst priority.
    let worst = TicketQuery {
        priority: Some(9),
        ..TicketQuery::default()
    };
    let before = count();
    let tickets = fleet.tickets("m", &worst).await.unwrap();
    assert!(count() - before <= 22, "{} steps", count() - before);
    assert_eq!((tickets.tickets.len(), tickets.next), (0, Some(2000)));
    let last = TicketQuery {
        from: 9_000,
        ..worst
    };
    let tickets = fleet.tickets("m", &last).await.unwrap();
    assert_eq!((tickets.tickets.len(), tickets.next), (100, Some(9_100)));

    let before = count();
    let overview = fleet.overview().await;
    assert!(count() - before <= 2, "{} steps", count() - before);
    let waiting: u64 = overview.groups[0].classes.iter().map(|of| of.waiting).sum();
    assert_eq!(waiting as usize, WAITING);
}
