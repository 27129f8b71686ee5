//! P19 (fair shares): the order within a priority, and what tickets and messages report of it. Mock deployments and a
//! paused clock.

use crate::support::*;
use tokio::{task::JoinHandle, time::sleep};
use vorrang_gateway::{Answer, Call, CallError, KeyPolicy, Router};
use vorrang_scheduler::Numbers;

/// One call each minute, with these settings of the group.
fn limited(settings: &str) -> Router {
    let settings = format!("vorrang_settings: {{groups: {{m: {{{settings}}}}}}}");
    router(&mock("rpm: 1", &settings)).0
}

/// A call with a key of this name and weight.
fn of(key: &str, weight: Option<f64>, rest: &str) -> Call {
    let key = KeyPolicy {
        name: key.into(),
        weight,
        ..KeyPolicy::default()
    };
    Call {
        key: Some(key),
        ..chat(rest)
    }
}

/// Calls that wait, by their tenants.
struct Waiting<'a> {
    router: &'a Router,
    tasks: Vec<(&'static str, JoinHandle<Result<Answer, CallError>>)>,
}

impl<'a> Waiting<'a> {
    /// Behind a call without a tenant that has used up the window.
    async fn behind_one(router: &'a Router) -> Self {
        router.call(chat("")).await.unwrap();
        Self {
            router,
            tasks: Vec::new(),
        }
    }

    /// So many more of a tenant's, one after the other.
    async fn more(&mut self, tenant: &'static str, count: usize, call: &Call) {
        for _ in 0..count {
            let task = queued(self.router, call.clone()).await;
            self.tasks.push((tenant, task));
        }
    }

    /// Whose were granted, in order. Within a tenant that is the order in which they came.
    async fn granted(self) -> Vec<&'static str> {
        let mut granted: Vec<(Numbers, &str)> = Vec::new();
        for (tenant, task) in self.tasks {
            let numbers = task.await.unwrap().unwrap().info.numbers.unwrap();
            let before = granted.iter().rfind(|(_, of)| *of == tenant);
            assert!(
                before.is_none_or(|(of, _)| of.granted < numbers.granted),
                "{tenant} is not served in order"
            );
            granted.push((numbers, tenant));
        }
        granted.sort_unstable_by_key(|(numbers, _)| numbers.granted);
        let order = granted
            .iter()
            .map(|(of, _)| (of.score, of.start, of.arrival));
        assert!(order.is_sorted(), "not by what tickets tell: {granted:?}");
        granted.into_iter().map(|(_, tenant)| tenant).collect()
    }
}

fn times(tenant: &'static str, count: usize) -> Vec<&'static str> {
    vec![tenant; count]
}

#[tokio::test(start_paused = true)]
async fn new_tenant_is_served_within_one_round_of_a_backlog() {
    let router = limited("fair_by: key");
    let mut waiting = Waiting::behind_one(&router).await;
    waiting.more("batch", 10, &of("batch", None, "")).await;
    waiting.more("chat", 2, &of("chat", None, "")).await;
    // Another body, another user, another header: still the same key.
    let other = of("batch", None, r#","user":"new""#);
    waiting.more("batch", 1, &other).await;
    let expected = [
        ["batch", "chat", "batch", "chat"].to_vec(),
        times("batch", 9),
    ];
    assert_eq!(waiting.granted().await, expected.concat());
}

#[tokio::test(start_paused = true)]
async fn tenants_are_served_in_proportion_to_their_weight() {
    let router = limited("fair_by: key");
    let mut waiting = Waiting::behind_one(&router).await;
    waiting.more("three", 12, &of("a", Some(3.0), "")).await;
    waiting.more("one", 12, &of("b", None, "")).await;
    let granted = waiting.granted().await;
    for four in granted[..16].chunks(4) {
        let threes = four.iter().filter(|tenant| **tenant == "three").count();
        assert_eq!(threes, 3, "{granted:?}");
    }
    assert_eq!(granted[16..], times("one", 8));
}

#[tokio::test(start_paused = true)]
async fn master_key_is_a_tenant_of_weight_one() {
    let router = limited("fair_by: key");
    let mut waiting = Waiting::behind_one(&router).await;
    waiting.more("batch", 4, &of("batch", Some(2.0), "")).await;
    waiting.more("master", 2, &chat("")).await;
    let granted = waiting.granted().await;
    let expected = ["batch", "master", "batch", "batch", "master", "batch"];
    assert_eq!(granted, expected);
}

// A limit of tokens is not needed: what would be reserved counts.
#[tokio::test(start_paused = true)]
async fn fair_cost_tokens_shares_by_tokens() {
    let router = limited("fair_by: key, fair_cost: tokens");
    let mut waiting = Waiting::behind_one(&router).await;
    let long = of("long", None, r#","max_tokens":3000"#);
    let short = of("short", None, r#","max_tokens":1000"#);
    waiting.more("long", 4, &long).await;
    waiting.more("short", 9, &short).await;
    let round = ["long", "short", "short", "short"];
    let expected = [&round[..], &round, &round, &["long"]];
    assert_eq!(waiting.granted().await, expected.concat());
}

#[tokio::test(start_paused = true)]
async fn users_are_tenants_within_their_key() {
    let router = limited("fair_by: user");
    let mut waiting = Waiting::behind_one(&router).await;
    let a = r#","user":"a""#;
    waiting.more("a", 5, &of("k", None, a)).await;
    waiting.more("a of another key", 2, &of("j", None, a)).await;
    waiting.more("b", 1, &of("k", None, r#","user":"b""#)).await;
    // Without a user, or with an empty one, they are one tenant of their key.
    waiting.more("nobody", 1, &of("k", None, "")).await;
    waiting
        .more("nobody", 1, &of("k", None, r#","user":"""#))
        .await;
    // A `user` that is not a string passes unchanged, and names a tenant, too.
    waiting.more("7", 1, &of("k", None, r#","user":7"#)).await;
    let first = ["a", "a of another key", "b", "nobody", "7"];
    let second = ["a", "a of another key", "nobody"];
    let expected = [&first[..], &second, &["a", "a", "a"]];
    assert_eq!(waiting.granted().await, expected.concat());
}

#[tokio::test(start_paused = true)]
async fn header_value_names_the_tenant() {
    let router = limited("fair_by: 'header:X-Team'");
    let mut waiting = Waiting::behind_one(&router).await;
    let team = |key, name: &'static str| {
        let mut call = of(key, None, r#","user":"u""#);
        call.labels.insert("x-team".into(), name.into());
        call
    };
    waiting.more("red", 4, &team("k", "red")).await;
    waiting.more("blue", 2, &team("k", "blue")).await;
    waiting
        .more("red of another key", 1, &team("j", "red"))
        .await;
    waiting.more("none", 1, &of("k", None, "")).await;
    waiting.more("none", 1, &team("k", "")).await;
    let first = ["red", "blue", "red of another key", "none"];
    let second = ["red", "blue", "none"];
    let expected = [&first[..], &second, &["red", "red"]];
    assert_eq!(waiting.granted().await, expected.concat());
}

#[tokio::test(start_paused = true)]
async fn better_priority_precedes_fair_shares() {
    let router = limited("fair_by: key");
    let mut waiting = Waiting::behind_one(&router).await;
    let batch = |rest| of("batch", None, rest);
    waiting.more("batch", 3, &batch("")).await;
    waiting.more("chat", 1, &of("chat", None, "")).await;
    // What it asks for at one priority takes nothing from what it asks for at another.
    waiting
        .more("urgent batch", 2, &batch(r#","priority":-1"#))
        .await;
    let expected = [
        "urgent batch",
        "urgent batch",
        "batch",
        "chat",
        "batch",
        "batch",
    ];
    assert_eq!(waiting.granted().await, expected);
}

#[tokio::test(start_paused = true)]
async fn group_without_fair_by_is_first_come_first_served_without_start_tags() {
    let router = limited("");
    let mut waiting = Waiting::behind_one(&router).await;
    let a = of("a", Some(100.0), r#","user":"u""#);
    waiting.more("a", 3, &a).await;
    waiting.more("b", 2, &of("b", Some(0.01), "")).await;
    waiting.more("a", 1, &a).await;
    assert_eq!(waiting.granted().await, ["a", "a", "a", "b", "b", "a"]);
    let answer = router.call(chat("")).await.unwrap();
    assert_eq!(answer.info.numbers.unwrap().start, None);
    let ticket = answer.headers["x-vorrang-ticket"].to_str().unwrap();
    assert!(!ticket.contains("start"), "{ticket}");
}

#[tokio::test(start_paused = true)]
async fn ticket_header_reports_start_tag_and_score() {
    for (settings, aging) in [("", 0), (", aging_seconds: 1", 1_000_000)] {
        let router = limited(&format!("fair_by: key{settings}"));
        for _ in 0..2 {
            let answer = router.call(chat(r#","priority":3"#)).await.unwrap();
            let numbers = answer.info.numbers.unwrap();
            let start = numbers.start.unwrap();
            let mut ticket = format!(
                "arrival={}, entered={}, granted={}, start={start}",
                numbers.arrival, numbers.entered, numbers.granted
            );
            if aging > 0 {
                ticket += &format!(", score={}", start + 3 * aging);
            }
            assert_eq!(answer.headers["x-vorrang-ticket"], ticket.as_str());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn status_408_reports_how_many_are_ahead_with_fair_shares() {
    let router = limited("fair_by: key");
    let mut waiting = Waiting::behind_one(&router).await;
    waiting.more("batch", 3, &of("batch", None, "")).await;
    waiting.more("chat", 1, &of("chat", None, "")).await;
    waiting
        .more("better", 1, &of("batch", None, r#","priority":-1"#))
        .await;
    // The better one and its own; tickets of others may come between.
    for (key, before) in [("batch", 4), ("chat", 2), ("new", 1)] {
        let late = router.call(of(key, None, r#","timeout":2"#)).await;
        assert_eq!(
            late.unwrap_err().message(),
            format!(
                "Request timed out while polling queue. It came behind at least {before} in the queue of m, where 6 wait now; the first of them waits for room for requests (rpm)."
            )
        );
        until(&router, |status| status.depth == 5).await;
    }
}

// The backlog of another tenant refuses no call; a refused call may come back at its `retry-after`.
#[tokio::test(start_paused = true)]
async fn refuse_late_retry_after_lets_the_retry_meet_its_timeout() {
    let settings = "vorrang_settings: {refuse_late: true, groups: {m: {fair_by: key}}}";
    let (router, _) = router(&mock("rpm: 1", settings));
    let mut waiting = Waiting::behind_one(&router).await;
    let patient = |key| of(key, None, r#","timeout":1000"#);
    let impatient = || router.call(of("chat", None, r#","timeout":100"#));
    waiting.more("batch", 1, &patient("batch")).await;
    waiting.more("chat", 1, &patient("chat")).await;
    // The next windows are at 60.1 s, 120.2 s and 180.3 s. One of its own is before it.
    let refused = impatient().await.unwrap_err();
    assert_eq!(refused.status().as_u16(), 429);
    sleep(refused.retry_after().unwrap()).await;
    impatient().await.unwrap();
    assert_eq!(waiting.granted().await, ["batch", "chat"]);

    router.call(of("other", None, "")).await.unwrap();
    let mut waiting = Waiting {
        router: &router,
        tasks: Vec::new(),
    };
    waiting.more("batch", 9, &patient("batch")).await;
    let newcomer = queued(&router, of("chat", None, r#","timeout":130"#)).await;
    newcomer.await.unwrap().unwrap();
    assert_eq!(waiting.granted().await, times("batch", 9));
}

// A8: a retry keeps its start tag. A failed attempt does not count as service twice.
#[tokio::test(start_paused = true)]
async fn retry_keeps_its_start_tag() {
    let config = "model_list:\n- {model_name: m, litellm_params: {model: up, mock_response: litellm.InternalServerError, rpm: 1}}\nrouter_settings: {num_retries: 1, allowed_fails: 1000}\nvorrang_settings: {groups: {m: {fair_by: key}}}\n";
    let (router, _) = router(config);
    let used = router.call(of("used", None, "")).await.unwrap_err();
    assert_eq!(used.info().attempts, 2);
    let mut tasks = Vec::new();
    for key in ["a", "a", "b"] {
        tasks.push((key, queued(&router, of(key, None, "")).await));
    }
    let mut last = Vec::new();
    for (key, task) in tasks {
        let failed = task.await.unwrap().unwrap_err();
        assert_eq!(failed.info().attempts, 2);
        let numbers = failed.info().numbers.unwrap();
        last.push((numbers.granted, key, numbers.start.unwrap()));
    }
    last.sort_unstable();
    let keys: Vec<_> = last.iter().map(|(_, key, _)| *key).collect();
    assert_eq!(keys, ["a", "b", "a"]);
    assert!(last.is_sorted_by_key(|(_, _, start)| start), "{last:?}");
}
