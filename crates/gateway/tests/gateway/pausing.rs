//! Pauses before retries: back-off, Retry-After and x-should-retry of the upstream, and which of these the client gets.

use std::time::Duration;

use crate::support::*;
use http::StatusCode;
use tokio::time::Instant;

fn two(first: &str, second: &str) -> String {
    let entry = |base: &str, id: &str, weight: &str| {
        format!(
            "- {{model_name: m, litellm_params: {{model: openai/up, api_base: '{base}', weight: {weight}}}, model_info: {{id: {id}}}}}\n"
        )
    };
    // Nearly every grant goes to the first as long as it is healthy.
    format!(
        "model_list:\n{}{}",
        entry(first, "d0", "1000000000"),
        entry(second, "d1", "0.000001")
    )
}

#[tokio::test(start_paused = true)]
async fn back_off_doubles_but_not_below_the_retry_after_setting() {
    for (settings, shortest, longest) in [("", 1.5, 1.9), ("retry_after: 3, ", 6.0, 6.1)] {
        let settings = format!("router_settings: {{{settings}allowed_fails: 100}}");
        let text = mock("", &settings).replace("hello world", "litellm.InternalServerError");
        let (router, _) = router(&text);
        let started = Instant::now();
        let failed = router.call(chat("")).await.unwrap_err();
        assert_eq!((failed.status().as_u16(), failed.info().attempts), (500, 3));
        let took = started.elapsed().as_secs_f64();
        assert!((shortest..longest).contains(&took), "{took} s");
    }
}

#[tokio::test]
async fn retry_waits_for_retry_after_of_any_retryable_status() {
    for (status, name, hint) in [
        (503, "retry-after", "0.2"),
        (409, "retry-after", "0.2"),
        (425, "retry-after-ms", "200"),
        (500, "retry-after-ms", "200"),
    ] {
        let upstream = Upstream::start([hinting(status, &[(name, hint)], "{}")]).await;
        let (router, _) = router(&one(&upstream.base, "", ""));
        let started = Instant::now();
        assert_eq!(router.call(chat("")).await.unwrap().info.attempts, 2);
        let took = started.elapsed();
        // The back-off would be longer.
        assert!(took >= Duration::from_millis(200), "{status}: {took:?}");
    }
}

#[tokio::test]
async fn retry_after_beyond_the_timeout_is_returned_at_once() {
    for (status, after) in [(503, "60"), (429, "60"), (408, "60")] {
        let hints = [("retry-after", after)];
        let mut upstream = Upstream::start([hinting(status, &hints, "{}")]).await;
        let settings = "router_settings: {cooldown_time: 60}";
        let (router, _) = router(&one(&upstream.base, "", settings));
        let failed = router.call(chat(r#","timeout":30"#)).await.unwrap_err();
        assert_eq!(
            (failed.status().as_u16(), failed.info().attempts),
            (status, 1)
        );
        assert_eq!(failed.headers()["retry-after"], "60");
        assert!(!failed.headers().contains_key("x-should-retry"));
        upstream.next().await;
        assert_eq!(upstream.pending(), 0);
    }
}

// A8: the ticket keeps its arrival, and others may use the slot in the meantime.
#[tokio::test]
async fn retry_pause_holds_no_permit_and_keeps_the_arrival() {
    let busy = hinting(503, &[("retry-after", "0.3")], "{}");
    let mut upstream = Upstream::start([busy]).await;
    let (router, _) = router(&one(&upstream.base, "max_parallel_requests: 1", ""));
    let first = tokio::spawn({
        let router = router.clone();
        async move { router.call(chat("")).await }
    });
    upstream.next().await;
    let second = router.call(chat("")).await.unwrap();
    assert!(!first.is_finished());
    let first = first.await.unwrap().unwrap();
    assert_eq!((first.info.attempts, second.info.attempts), (2, 1));
    let (first, second) = (first.info.numbers.unwrap(), second.info.numbers.unwrap());
    assert!(first.arrival < second.arrival && first.granted > second.granted);
}

#[tokio::test]
async fn retry_on_another_deployment_is_immediate() {
    let busy = hinting(503, &[("retry-after", "60")], "{}");
    let first = Upstream::start([busy]).await;
    let second = Upstream::start([]).await;
    // The first one cools with its first failure: the retry goes to the other.
    let settings = "router_settings: {allowed_fails: 0, cooldown_time: 60}\n";
    let (router, _) = router(&format!("{}{settings}", two(&first.base, &second.base)));
    let answer = router.call(chat(r#","timeout":30"#)).await.unwrap();
    assert_eq!(
        (answer.info.deployment.as_str(), answer.info.attempts),
        ("d1", 2)
    );
}

#[tokio::test]
async fn x_should_retry_false_is_obeyed_and_passed_on() {
    for status in [429, 500, 503] {
        let hints = [("x-should-retry", "false"), ("retry-after", "2")];
        let mut upstream = Upstream::start([hinting(status, &hints, "{}")]).await;
        let (router, _) = router(&one(&upstream.base, "", ""));
        let failed = router.call(chat("")).await.unwrap_err();
        assert_eq!(
            (failed.status().as_u16(), failed.info().attempts),
            (status, 1)
        );
        assert_eq!(failed.headers()["x-should-retry"], "false");
        assert_eq!(failed.headers()["retry-after"], "2");
        upstream.next().await;
        assert_eq!(upstream.pending(), 0);
    }
}

const EXHAUSTED: &str = r#"{"error":{"message":"You exceeded your current quota","type":"insufficient_quota","code":"insufficient_quota"}}"#;

#[tokio::test]
async fn exhausted_quota_cools_its_deployment_and_the_retry_takes_another() {
    let first = Upstream::start([hinting(429, &[], EXHAUSTED)]).await;
    let second = Upstream::start([]).await;
    let (router, _) = router(&two(&first.base, &second.base));
    let answer = router.call(chat("")).await.unwrap();
    assert_eq!(
        (answer.info.deployment.as_str(), answer.info.attempts),
        ("d1", 2)
    );
    let cooling = status(&router).deployments[0].cooling.unwrap();
    assert!(cooling > Duration::from_secs(50), "{cooling:?}");
}

#[tokio::test]
async fn exhausted_quota_of_the_only_deployment_fails_all_waiting_calls_at_once() {
    let mut upstream = Upstream::start([hinting(429, &[], EXHAUSTED)]).await;
    let (router, _) = router(&one(&upstream.base, "", ""));
    let failed = router.call(chat("")).await.unwrap_err();
    assert_eq!(
        (failed.status(), failed.info().attempts),
        (StatusCode::TOO_MANY_REQUESTS, 1)
    );
    assert_eq!(failed.body(), EXHAUSTED);
    assert_eq!(failed.headers()["x-should-retry"], "false");
    upstream.next().await;
    // A later request does not wait for a certain failure.
    until(&router, |status| status.deployments[0].cooling.is_some()).await;
    let later = router.call(chat("")).await.unwrap_err();
    assert_eq!(
        (later.status(), later.kind().as_str(), later.info().attempts),
        (StatusCode::TOO_MANY_REQUESTS, "insufficient_quota", 0)
    );
    assert_eq!(later.headers()["x-should-retry"], "false");
    assert_eq!(upstream.pending(), 0);
}
