//! What operators see and change by the public API (P23), with tokio's clock paused.

use std::{sync::Arc, time::Duration};

use vorrang_scheduler::{backend::MemoryBackend, *};

const MINUTE: Duration = Duration::from_secs(60);

fn config(limit: u64) -> GroupConfig {
    GroupConfig::new(vec![Deployment::new("a").limit(
        LimitKind::Requests,
        limit,
        MINUTE,
    )])
}

/// Two instances on one backend.
fn fleet(config: &GroupConfig) -> [(Scheduler, Group); 2] {
    let backend = Arc::new(MemoryBackend::new());
    ["one", "two"].map(|name| {
        let scheduler = Scheduler::new(backend.clone(), name, Arc::new(NoObserver));
        let group = scheduler.open("group", config);
        (scheduler, group)
    })
}

async fn waiting(group: &Group, claim: Claim) -> (Ticket, Seq) {
    let mut ticket = group.join_as(claim);
    ticket.ahead().await.unwrap();
    let arrival = ticket.arrival().unwrap();
    (ticket, arrival)
}

#[tokio::test(start_paused = true)]
async fn operator_sees_all_tickets_and_moves_and_cancels_those_of_an_instance() {
    let [(_first, one), (_second, two)] = fleet(&config(1));
    let permit = one.join(0, 0).granted().await.unwrap();
    let (mut a, first) = waiting(&one, Claim::new(0, 5)).await;
    let (mut b, second) = waiting(&two, Claim::new(0, 0)).await;
    let (mut c, third) = waiting(&two, Claim::new(0, 0)).await;
    let view = one.look(0, 10).await.unwrap();
    let rows: Vec<_> = view
        .rows
        .iter()
        .map(|r| (r.position, r.arrival, &*r.instance))
        .collect();
    assert_eq!(
        rows,
        [
            (Some(0), first, "one"),
            (Some(1), second, "two"),
            (Some(2), third, "two")
        ]
    );
    assert_eq!((view.depth, view.rows[0].tokens), (3, Tokens::new(5, 0)));
    let limit = &view.deployments[0].limits[0];
    assert_eq!(
        (limit.kind, limit.length, limit.used, limit.limit),
        (LimitKind::Requests, MINUTE, 1, 1)
    );

    assert_eq!(two.position(third).await, Ok(Some(2)));
    assert_eq!(two.move_ticket(third, -1).await, Ok(Moved::Ahead(0)));
    assert_eq!(
        one.move_ticket(third, -1).await,
        Ok(Moved::NotHere),
        "another's"
    );
    assert_eq!(one.preview(Claim::new(0, 0)).await, Ok(3));
    assert!(two.cancel(second).await && !two.cancel(second).await);
    assert_eq!(b.granted().await.unwrap_err(), Refused::Cancelled);
    drop(permit);
    let moved = c.granted().await.unwrap();
    assert_eq!(
        two.move_ticket(third, 9).await,
        Ok(Moved::NotHere),
        "it has been granted"
    );
    drop(moved);
    drop(a.granted().await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn tickets_of_a_paused_key_wait_until_it_is_resumed() {
    let [(_first, one), (_second, two)] = fleet(&config(9));
    let paused = two
        .change(Change::PauseKey {
            key: 7,
            paused: true,
        })
        .await
        .unwrap();
    assert_eq!(paused.keys, [7]);
    let of_key = Claim {
        key: 7,
        ..Claim::new(0, 0)
    };
    let (mut held, arrival) = waiting(&one, of_key).await;
    drop(one.join(1, 0).granted().await.unwrap().dispatch().unwrap());
    assert_eq!(one.move_ticket(arrival, 3).await, Ok(Moved::Held));
    assert_eq!(one.position(arrival).await, Ok(None));
    assert_eq!((one.status().waiting, one.status().held), (1, 1));
    let known: Vec<_> = one
        .held()
        .await
        .iter()
        .map(|held| (held.arrival, held.priority, held.key))
        .collect();
    assert_eq!(known, [(arrival, 3, 7)]);
    two.change(Change::PauseKey {
        key: 7,
        paused: false,
    })
    .await
    .unwrap();
    let permit = held.granted().await.unwrap();
    assert_eq!(permit.numbers().arrival, arrival);
}

#[tokio::test(start_paused = true)]
async fn cancelled_ticket_of_a_paused_key_does_not_come_back() {
    let [(_first, one), _] = fleet(&config(9));
    one.change(Change::PauseKey {
        key: 7,
        paused: true,
    })
    .await
    .unwrap();
    let (mut held, arrival) = waiting(
        &one,
        Claim {
            key: 7,
            ..Claim::new(0, 0)
        },
    )
    .await;
    assert!(one.cancel(arrival).await);
    assert_eq!(held.granted().await.unwrap_err(), Refused::Cancelled);
    one.change(Change::PauseKey {
        key: 7,
        paused: false,
    })
    .await
    .unwrap();
    let view = one.look(0, 10).await.unwrap();
    assert_eq!((view.depth, view.deployments[0].open), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn group_is_paused_and_limits_are_changed_for_all_instances() {
    let [(_first, one), (_second, two)] = fleet(&config(1));
    one.change(Change::PauseGroup(true)).await.unwrap();
    let (mut ticket, _) = waiting(&two, Claim::new(0, 0)).await;
    assert!(two.status().overrides.paused);
    assert_eq!(two.status().reasons.words().collect::<Vec<_>>(), ["paused"]);
    let limit = |kind, length, limit| Change::Limit {
        deployment: "a".into(),
        kind,
        length,
        limit,
    };
    two.change(limit(LimitKind::Requests, MINUTE, Some(2)))
        .await
        .unwrap();
    for missing in [
        limit(LimitKind::Tokens, MINUTE, Some(2)),
        limit(LimitKind::Requests, MINUTE * 2, Some(2)),
        limit(LimitKind::Concurrency, Duration::ZERO, Some(2)),
    ] {
        assert_eq!(one.change(missing).await, Err(Unanswered::NoSuchLimit));
    }
    one.change(Change::PauseGroup(false)).await.unwrap();
    drop(ticket.granted().await.unwrap().dispatch().unwrap());
    drop(one.join(0, 0).granted().await.unwrap().dispatch().unwrap());
    let overrides = one
        .change(limit(LimitKind::Requests, MINUTE, None))
        .await
        .unwrap();
    assert_eq!((overrides.paused, overrides.limits.len()), (false, 0));
}

#[tokio::test(start_paused = true)]
async fn group_has_at_most_64_paused_keys() {
    let [(_first, one), _] = fleet(&config(1));
    for key in 1..=64 {
        one.change(Change::PauseKey { key, paused: true })
            .await
            .unwrap();
    }
    let more = one
        .change(Change::PauseKey {
            key: 65,
            paused: true,
        })
        .await;
    assert_eq!(more, Err(Unanswered::TooMany));
}

#[tokio::test]
async fn posts_reach_one_instance_or_all() {
    let [(first, _one), (second, _two)] = fleet(&config(1));
    let (mut one, mut two) = (first.posts(), second.posts());
    first.post(Some("two"), b"a".to_vec());
    assert_eq!(&*two.recv().await.unwrap(), b"a");
    second.post(None, b"b".to_vec());
    assert_eq!(&*one.recv().await.unwrap(), b"b");
    assert_eq!(&*two.recv().await.unwrap(), b"b");
}
