//! Pacing, reserves and aging: the order of grants, and what tickets and messages report of it. Mock deployments and a paused clock.

use std::time::Duration;

use crate::support::*;
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};
use vorrang_gateway::{Answer, CallError, Router};

type Task = JoinHandle<Result<Answer, CallError>>;

fn of_m(settings: &str) -> String {
    format!("vorrang_settings: {{groups: {{m: {{{settings}}}}}}}")
}

/// The same mock, but a streamed answer of it is longer than what is buffered for its client: its call stays open until it is read.
fn open(text: &str) -> String {
    let long = format!("{} ", "x".repeat(200_000)).repeat(3);
    text.replace(
        "mock_response: hello world",
        &format!("mock_response: '{long}'"),
    )
}

/// So many calls of a priority, in tasks of their own; their answers are kept.
fn begin(router: &Router, count: usize, rest: &str) -> Vec<Task> {
    let call = |_| {
        let (router, call) = (router.clone(), chat(rest));
        tokio::spawn(async move { router.call(call).await })
    };
    (0..count).map(call).collect()
}

const BATCH: &str = r#","priority":1000"#;
const USER: &str = r#","priority":0"#;

/// Behind a backlog of batch calls that has filled a window or two: what a user's call waits, asked at many moments of the window.
async fn longest_wait_of_a_user(settings: &str) -> Duration {
    let (router, _) = router(&mock("rpm: 6", settings));
    let _batch = begin(&router, 200, BATCH);
    sleep(Duration::from_secs(150)).await;
    let mut longest = Duration::ZERO;
    for pause in [31, 63, 37, 65, 41, 47, 39, 43, 35, 33] {
        let asked = Instant::now();
        router.call(chat(USER)).await.unwrap();
        longest = longest.max(asked.elapsed());
        sleep(Duration::from_secs(pause)).await;
    }
    longest
}

// What `vorrang check` says: two parts of the window with pacing, all of it without.
#[tokio::test(start_paused = true)]
async fn pacing_shortens_an_urgent_wait_to_a_part_of_the_window() {
    let guard = Duration::from_millis(150);
    let part = Duration::from_millis(60_100) / 6;
    let paced = longest_wait_of_a_user(&of_m("pace_worse_than: 0")).await;
    assert!(paced <= 2 * part + guard, "{paced:?}");
    assert!(paced > part / 2, "the window was never full: {paced:?}");
    for unpaced in ["", &of_m("pace_worse_than: 1000")] {
        let unpaced = longest_wait_of_a_user(unpaced).await;
        assert!(unpaced > 4 * part, "{unpaced:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn group_pacing_overrides_the_general_setting() {
    let all = |group: &str| {
        format!(
            "vorrang_settings: {{pace_worse_than: 0, groups: {{m: {{pace_worse_than: {group}}}}}}}"
        )
    };
    // Paced, two go at once and the next after a sixth of the window.
    for (settings, at_once) in [
        (all("~"), 2),
        (all("999"), 2),
        (all("none"), 6),
        (all("1000"), 6),
    ] {
        let (router, _) = router(&open(&mock("rpm: 6", &settings)));
        let _batch = begin(&router, 6, &format!(r#"{BATCH},"stream":true"#));
        sleep(Duration::from_secs(5)).await;
        assert_eq!(status(&router).in_flight, at_once, "{settings}");
    }
}

// What the gateway says of a reserve is what the scheduler does.
#[tokio::test(start_paused = true)]
async fn reserve_is_available_to_better_priorities_only() {
    let cases = [
        ("rpm", 10, 0.25, 7),
        ("rpm", 10, 0.1, 9),
        ("rpm", 3, 0.01, 2),
        ("rpm", 1, 0.5, 1),
        ("rpm", 5, 0.999, 1),
        ("max_parallel_requests", 5, 0.3, 3),
        ("tpm", 100, 0.3, 70),
        ("otpm", 100, 0.3, 70),
    ];
    for (kind, limit, share, room) in cases {
        let reserve = of_m(&format!("reserve: {{priority: 5, share: {share}}}"));
        let text = mock(&format!("{kind}: {limit}"), &reserve);
        let group = &config(&text).groups[0];
        assert_eq!(group.room(6, limit), room, "{kind} {limit} {share}");
        assert_eq!(group.room(5, limit), limit);

        let (router, _) = router(&open(&text));
        let count = usize::try_from(limit).unwrap();
        let most = u64::from(kind.ends_with("tpm"));
        let asks =
            |priority| format!(r#","priority":{priority},"max_tokens":{most},"stream":true"#);
        let _worse = begin(&router, count, &asks(6));
        sleep(Duration::from_secs(1)).await;
        assert_eq!(
            status(&router).in_flight as u64,
            room,
            "{kind} {limit} {share}"
        );
        let _better = begin(&router, count, &asks(5));
        sleep(Duration::from_secs(1)).await;
        assert_eq!(status(&router).in_flight, count, "{kind} {limit} {share}");
    }
}

#[tokio::test(start_paused = true)]
async fn reserve_caps_estimates_and_refuses_requests_that_never_fit() {
    let reserve = of_m("reserve: {priority: 0, share: 0.5}");
    let (router, _) = router(&mock("tpm: 100", &reserve));
    let long = "x".repeat(4000);
    let guessed =
        format!(r#","priority":1,"user":"a","messages":[{{"role":"user","content":"{long}"}}]"#);
    router.call(chat(&guessed)).await.unwrap();
    let asks = |priority| chat(&format!(r#","priority":{priority},"max_tokens":51"#));
    let refused = router.call(asks(1)).await.unwrap_err();
    assert_eq!(refused.status().as_u16(), 400);
    assert_eq!(
        refused.message(),
        "The request asks for up to 51 tokens; no deployment of m takes more than 50 from its priority in a window"
    );
    router.call(asks(0)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn aging_limits_overtaking_and_tickets_report_their_score() {
    let (router, _) = router(&mock("rpm: 1", &of_m("aging_seconds: 1")));
    router.call(chat("")).await.unwrap();
    let asks = |priority| chat(&format!(r#","priority":{priority}"#));
    let old = queued(&router, asks(30)).await;
    sleep(Duration::from_secs(20)).await;
    let soon = queued(&router, asks(0)).await;
    sleep(Duration::from_secs(20)).await;
    let late = queued(&router, asks(0)).await;
    let mut granted = Vec::new();
    for (name, task, priority) in [("old", old, 30), ("soon", soon, 0), ("late", late, 0)] {
        let answer = task.await.unwrap().unwrap();
        let numbers = answer.info.numbers.unwrap();
        let score = numbers.arrival.0 + 1_000_000 * priority;
        assert_eq!(numbers.score, score.cast_signed());
        let ticket = format!(
            "arrival={}, entered={}, granted={}, score={score}",
            numbers.arrival, numbers.entered, numbers.granted
        );
        assert_eq!(answer.headers["x-vorrang-ticket"], ticket.as_str());
        granted.push((numbers.granted, name));
    }
    granted.sort_unstable();
    let order: Vec<_> = granted.iter().map(|(_, name)| *name).collect();
    assert_eq!(order, ["soon", "old", "late"]);
}

/// The message of a call whose time is up, behind `before`.
async fn told(router: &Router, before: &str, count: usize, rest: &str) -> String {
    let tasks = begin(router, count, before);
    sleep(Duration::from_secs(1)).await;
    let late = router.call(chat(&format!(r#"{rest},"timeout":2"#))).await;
    let late = late.unwrap_err();
    assert_eq!(
        (late.status().as_u16(), late.kind().as_str()),
        (408, "timeout_error")
    );
    assert_eq!(late.headers()["x-should-retry"], "false");
    drop(tasks);
    late.message()
}

#[tokio::test(start_paused = true)]
async fn status_408_reports_position_and_what_the_queue_waits_for() {
    let none = "";
    let paced = of_m("pace_worse_than: 0");
    let kept = of_m("reserve: {priority: 0, share: 0.5}");
    let tokens = r#","max_tokens":100"#;
    let tools = r#","tools":[{"t":"12345678"}]"#;
    let stream = r#","stream":true"#;
    let cases = [
        ("rpm: 1", none, none, "room for requests (rpm)"),
        ("tpm: 100", none, tokens, "room for tokens (tpm)"),
        ("otpm: 100", none, tokens, "room for output tokens (otpm)"),
        ("itpm: 5", none, tools, "room for input tokens (itpm)"),
        (
            "max_parallel_requests: 1",
            none,
            stream,
            "the end of an open call (max_parallel_requests)",
        ),
        (
            "mock_response: litellm.RateLimitError",
            "router_settings: {num_retries: 0}",
            none,
            "the end of a cooldown",
        ),
        (
            "rpm: 1, max_parallel_requests: 1",
            none,
            stream,
            "room for requests (rpm) and the end of an open call (max_parallel_requests)",
        ),
        (
            "rpm: 2",
            &kept,
            BATCH,
            "room for requests (rpm) and room that is not kept for better priorities (reserve)",
        ),
    ];
    for (params, settings, rest, waited_for) in cases {
        let text = mock(params, settings);
        let text = if params.contains("mock_response") {
            text.replace("mock_response: hello world, ", "")
        } else if rest == stream {
            open(&text)
        } else {
            text
        };
        let (router, _) = router(&text);
        assert_eq!(
            told(&router, rest, 1, rest).await,
            format!(
                "Request timed out while polling queue. It came as number 1 in the queue of m, where 1 waits now; the first of them waits for {waited_for}."
            )
        );
    }
    // Two go at once; the third has room, and waits in front of this one.
    let (router, _) = router(&mock("rpm: 6", &paced));
    assert_eq!(
        told(&router, BATCH, 3, BATCH).await,
        "Request timed out while polling queue. It came as number 2 in the queue of m, where 2 wait now; the first of them waits for the pace of its priority (pacing)."
    );
}

#[tokio::test(start_paused = true)]
async fn retry_after_of_a_full_paced_queue_is_when_it_is_empty() {
    let settings = "vorrang_settings: {pace_worse_than: 0, max_queue_depth: 4}";
    let (router, _) = router(&mock("rpm: 6", settings));
    // Two go at once. All six together would exceed the depth before these two are granted.
    let _first = begin(&router, 2, BATCH);
    sleep(Duration::from_secs(1)).await;
    let _batch = begin(&router, 4, BATCH);
    sleep(Duration::from_secs(1)).await;
    let refused = router.call(chat(BATCH)).await.unwrap_err();
    assert_eq!(refused.status().as_u16(), 429);
    let wait = refused.retry_after().unwrap();
    sleep(wait - Duration::from_secs(5)).await;
    assert_eq!(status(&router).depth, 1);
    sleep(Duration::from_secs(5)).await;
    assert_eq!(status(&router).depth, 0);
}
