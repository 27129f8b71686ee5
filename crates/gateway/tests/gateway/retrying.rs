//! Failed attempts: which are retried, which cool a deployment, and which error the client gets (A8, A9, P14).

use std::{sync::Arc, time::Duration};

use crate::support::*;
use futures_util::future::join_all;
use http::StatusCode;
use tokio::time::Instant;
use vorrang_gateway::{Call, CallError, Router, WaitOutcome};

async fn call(router: &Router, call: Call) -> Result<String, CallError> {
    let answer = router.call(call).await?;
    Ok(text(answer.body).await.unwrap())
}

fn two(first: &str, second: &str, settings: &str) -> String {
    let entry = |base: &str, id: &str, weight: &str| {
        format!(
            "- {{model_name: m, litellm_params: {{model: openai/up, api_base: '{base}', weight: {weight}}}, model_info: {{id: {id}}}}}\n"
        )
    };
    // Nearly every grant goes to the first as long as it is healthy.
    format!(
        "model_list:\n{}{}{settings}\n",
        entry(first, "d0", "1000000000"),
        entry(second, "d1", "0.000001")
    )
}

// A8: a retry re-enters with its first arrival.
#[tokio::test]
async fn attempt_failed_before_the_first_byte_is_retried_with_the_first_arrival() {
    let mut upstream =
        Upstream::start([error(500, "{}"), error(503, "oops"), ok("{\"id\":\"x\"}")]).await;
    let (router, _) = router(&one(&upstream.base, "rpm: 100", ""));
    let log = Arc::new(Log::default());
    let answer = router
        .call(Call {
            events: log.clone(),
            ..chat("")
        })
        .await
        .unwrap();
    assert_eq!(answer.headers["x-litellm-attempted-retries"], "2");
    assert_eq!(answer.info.attempts, 3);
    let numbers = answer.info.numbers.unwrap();
    assert!(numbers.arrival < numbers.entered, "{numbers:?}");
    assert_eq!(text(answer.body).await.unwrap(), "{\"id\":\"x\"}");
    let bodies = [
        upstream.next().await.body,
        upstream.next().await.body,
        upstream.next().await.body,
    ];
    assert!(bodies.iter().all(|body| *body == bodies[0]));
    let expected = [500, 503, 200].map(|status| ("d0".to_owned(), status));
    assert_eq!(*log.upstream.lock().unwrap(), expected);
    assert_eq!(*log.waits.lock().unwrap(), [(0, WaitOutcome::Granted); 3]);
    // All three were sent: their charges stay (P14).
    until(&router, |status| {
        status.deployments[0].requests == 3 && status.in_flight == 0
    })
    .await;
}

#[tokio::test]
async fn last_upstream_error_is_returned_after_the_retries() {
    let object = r#"{"error":{"message":"the engine is overloaded","type":"server_error","param":null,"code":null}}"#;
    let mut upstream =
        Upstream::start([error(500, "{}"), error(500, "{}"), error(503, object)]).await;
    let (router, _) = router(&one(
        &upstream.base,
        "",
        "router_settings: {allowed_fails: 100}",
    ));
    let failed = router.call(chat("")).await.unwrap_err();
    assert_eq!(failed.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(failed.body(), object);
    assert_eq!(
        (failed.info().attempts, failed.info().deployment.as_str()),
        (3, "d0")
    );
    assert_eq!(failed.headers()["x-litellm-attempted-retries"], "2");
    assert_eq!(failed.headers()["x-should-retry"], "false");
    for _ in 0..3 {
        upstream.next().await;
    }

    for _ in 0..3 {
        upstream.then(error(500, "<html>"));
    }
    let failed = router.call(chat("")).await.unwrap_err();
    let body: serde_json::Value = serde_json::from_slice(&failed.body()).unwrap();
    let expected = serde_json::json!({"error": {
        "message": "The upstream answered 500", "type": "internal_server_error", "param": null, "code": "500",
    }});
    assert_eq!((failed.status().as_u16(), body), (500, expected));
}

#[tokio::test]
async fn num_retries_of_a_deployment_overrides_the_settings() {
    for (params, settings, attempts) in [
        ("num_retries: 0", "", 1),
        ("", "litellm_settings: {num_retries: 1}", 2),
        (
            "num_retries: 3",
            "router_settings: {num_retries: 0, allowed_fails: 100}",
            4,
        ),
    ] {
        let mut upstream = Upstream::start((0..10).map(|_| error(500, "{}"))).await;
        let (router, _) = router(&one(&upstream.base, params, settings));
        assert_eq!(
            router.call(chat("")).await.unwrap_err().info().attempts,
            attempts
        );
        for _ in 0..attempts {
            upstream.next().await;
        }
        assert_eq!(upstream.pending(), 0);
    }
}

#[tokio::test]
async fn client_error_is_returned_unchanged_without_retry() {
    let object = r#"{"error":{"message":"bad image","type":"invalid_request_error","param":"messages","code":"bad_image"}}"#;
    let mut upstream = Upstream::start([
        error(400, object),
        error(422, r#"{"detail":"no such field"}"#),
    ])
    .await;
    let (router, _) = router(&one(
        &upstream.base,
        "",
        "router_settings: {allowed_fails: 0}",
    ));
    let failed = router.call(chat("")).await.unwrap_err();
    assert_eq!(
        (failed.status().as_u16(), failed.body()),
        (400, object.into())
    );
    let failed = router.call(chat("")).await.unwrap_err();
    assert_eq!(
        (
            failed.status().as_u16(),
            failed.kind().as_str(),
            failed.message().as_str()
        ),
        (422, "invalid_request_error", "no such field")
    );
    upstream.next().await;
    upstream.next().await;
    assert_eq!(upstream.pending(), 0);
    // A client error does not count as a failure, although no failure is allowed.
    assert_eq!(call(&router, chat("")).await.unwrap(), "{}");
    assert_eq!(status(&router).deployments[0].cooling, None);
}

// A9: a healthy deployment with room is preferred to the one that cools.
#[tokio::test]
async fn deployment_cools_for_retry_after_of_a_429_and_the_retry_takes_another() {
    let mut first = Upstream::start([limited("60")]).await;
    let second = Upstream::start([]).await;
    let (router, _) = router(&two(&first.base, &second.base, ""));
    let answer = router.call(chat("")).await.unwrap();
    assert_eq!(
        (answer.info.deployment.as_str(), answer.info.attempts),
        ("d1", 2)
    );
    first.next().await;
    let cooling = status(&router).deployments[0].cooling.unwrap();
    assert!(
        cooling > Duration::from_secs(50) && cooling <= Duration::from_secs(60),
        "{cooling:?}"
    );
    assert_eq!(router.call(chat("")).await.unwrap().info.deployment, "d1");
}

// A9: when the cooldown ends, the head probes.
#[tokio::test]
async fn call_waits_for_retry_after_of_a_429_from_the_only_deployment() {
    let upstream = Upstream::start([limited("0.5")]).await;
    let (router, _) = router(&one(&upstream.base, "", ""));
    let started = Instant::now();
    let answer = router.call(chat("")).await.unwrap();
    assert_eq!(answer.info.attempts, 2);
    assert!(
        answer.info.waited >= Duration::from_millis(400),
        "{:?}",
        answer.info.waited
    );
    assert!(started.elapsed() >= Duration::from_millis(490));
    until(&router, |status| status.deployments[0].cooling.is_none()).await;
}

// A9: a probe's success is its first event, not the end of its answer.
#[tokio::test]
async fn first_event_of_a_streaming_probe_heals_its_deployment() {
    let (chunks, receiver) = tokio::sync::mpsc::channel(1);
    let event = bytes::Bytes::from_static(b"data: {}\n\n");
    chunks.send(Ok(event)).await.unwrap();
    let stream = Reply::Stream("text/event-stream", receiver);
    let upstream = Upstream::start([limited("0.3"), stream]).await;
    let (router, _) = router(&one(&upstream.base, "", ""));
    let probe = router.call(chat(r#","stream":true"#)).await.unwrap();
    assert_eq!(probe.info.attempts, 2);
    // The probe's stream is still open, and stays so.
    router.call(chat("")).await.unwrap();
    drop((probe, chunks));
}

#[tokio::test]
async fn last_429_after_all_retries_is_returned_with_its_retry_after() {
    let upstream = Upstream::start([limited("0.1"), limited("0.1"), limited("61")]).await;
    let (router, _) = router(&one(&upstream.base, "", ""));
    let failed = router.call(chat("")).await.unwrap_err();
    assert_eq!(
        (
            failed.status().as_u16(),
            failed.headers()["retry-after"].to_str().unwrap()
        ),
        (429, "61")
    );
    assert_eq!(failed.body(), "{\"error\":{\"message\":\"slow down\"}}");
}

#[tokio::test]
async fn disable_cooldowns_prevents_all_cooldowns() {
    let upstream = Upstream::start([limited("0.001"), error(500, ""), error(408, "")]).await;
    let (router, _) = router(&one(
        &upstream.base,
        "",
        "router_settings: {disable_cooldowns: true, num_retries: 5, allowed_fails: 0}",
    ));
    assert_eq!(router.call(chat("")).await.unwrap().info.attempts, 4);
}

// P14: requests are refunded if certainly nothing was sent.
#[tokio::test]
async fn failed_connection_or_tls_handshake_is_not_charged() {
    let (plain, _) = rude(b"HTTP/1.1 200 OK\r\n\r\n").await;
    let cases = [
        (unused_address().await, "the connection was refused"),
        (
            plain.replace("http://", "https://"),
            "the TLS handshake failed",
        ),
    ];
    join_all(cases.map(async |(base, cause)| {
        let (router, _) = router(&one(&base, "rpm: 1, num_retries: 1", ""));
        let failed = router.call(chat("")).await.unwrap_err();
        assert_eq!(failed.status().as_u16(), 502);
        let message = format!("The upstream cannot be reached: {cause}");
        assert_eq!(failed.message(), message);
        // Two attempts under `rpm: 1`, and none counts.
        assert_eq!(failed.info().attempts, 2);
        until(&router, |status| {
            status.deployments[0].requests == 0 && status.in_flight == 0
        })
        .await;
    }))
    .await;
}

#[tokio::test]
async fn connection_lost_after_sending_is_retried_and_stays_charged() {
    let (base, count) = rude(b"").await;
    let (router, _) = router(&one(&base, "rpm: 100, num_retries: 1", ""));
    let failed = router.call(chat("")).await.unwrap_err();
    let message = "The upstream broke off before its answer: the connection was closed";
    assert_eq!(
        (failed.status().as_u16(), failed.message().as_str()),
        (502, message)
    );
    assert_eq!((failed.info().attempts, *count.lock().unwrap()), (2, 2));
    until(&router, |status| {
        status.deployments[0].requests == 2 && status.in_flight == 0
    })
    .await;
}

#[tokio::test]
async fn attempt_beyond_the_deployment_timeout_is_retried() {
    let streamed = r#","stream":true"#;
    let cases = [
        ("timeout: 0.5", "", ""),
        ("timeout: 60, stream_timeout: 0.5", "", streamed),
        (
            "timeout: 60",
            "router_settings: {stream_timeout: 0.5}",
            streamed,
        ),
        ("timeout: 0.5", "", streamed),
    ];
    join_all(cases.map(async |(params, settings, rest)| {
        let mut upstream = Upstream::start([Reply::Hang]).await;
        let (router, _) = router(&one(&upstream.base, params, settings));
        assert_eq!(router.call(chat(rest)).await.unwrap().info.attempts, 2);
        upstream.gone().await;
    }))
    .await;
}

#[tokio::test]
async fn request_timeout_ends_the_call_and_is_no_deployment_failure() {
    let mut upstream = Upstream::start([Reply::Hang]).await;
    let (router, _) = router(&one(
        &upstream.base,
        "",
        "router_settings: {allowed_fails: 0}",
    ));
    let failed = router.call(chat(r#","timeout":0.5"#)).await.unwrap_err();
    assert_eq!(
        (
            failed.status().as_u16(),
            failed.kind().as_str(),
            failed.info().attempts
        ),
        (408, "timeout_error", 1)
    );
    assert_eq!(
        failed.message(),
        "Request timed out: m did not answer within 0.5 seconds"
    );
    upstream.gone().await;
    // No cooldown, although no failure is allowed.
    let next = router.call(chat("")).await.unwrap();
    assert!(
        next.info.waited < Duration::from_secs(2),
        "{:?}",
        next.info.waited
    );
    assert_eq!(status(&router).deployments[0].cooling, None);
}

// A9: waiters of a group whose every deployment cools because of 401/404 get that error at once.
#[tokio::test]
async fn wrong_key_of_the_only_deployment_fails_all_waiting_calls_at_once() {
    let object = r#"{"error":{"message":"Incorrect API key provided: sk-secret","type":"invalid_request_error","param":null,"code":"invalid_api_key"}}"#;
    let (answer, receiver) = tokio::sync::oneshot::channel::<()>();
    let body = axum::body::Body::from_stream(futures_util::stream::once(async move {
        let _ = receiver.await;
        Ok::<_, std::io::Error>(bytes::Bytes::from_static(b"{}"))
    }));
    let upstream = Upstream::start([Reply::Body(body), error(401, object)]).await;
    let (router, _) = router(&one(
        &upstream.base,
        "max_parallel_requests: 1",
        "router_settings: {cooldown_time: 60}",
    ));
    let first = tokio::spawn({
        let router = router.clone();
        async move { router.call(chat("")).await }
    });
    until(&router, |status| status.in_flight == 1).await;
    let second = queued(&router, chat(r#","priority":1"#)).await;
    let third = queued(&router, chat(r#","priority":2"#)).await;
    answer.send(()).unwrap();
    text(first.await.unwrap().unwrap().body).await.unwrap();
    let second = second.await.unwrap().unwrap_err();
    // The upstream's own message, with its key masked.
    assert_eq!(second.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(second.body(), object.replace("sk-secret", "***"));
    assert_eq!(second.info().attempts, 1);
    let third = third.await.unwrap().unwrap_err();
    assert_eq!(
        (third.status(), third.info().attempts),
        (StatusCode::UNAUTHORIZED, 0)
    );
    assert_eq!(
        third.message(),
        "Every deployment of m is cooling down after an upstream 401"
    );
}

#[tokio::test]
async fn status_401_is_retried_on_another_deployment_and_the_last_error_is_returned() {
    let first = Upstream::start([error(401, "{}")]).await;
    let second = Upstream::start([error(404, r#"{"error":{"message":"no such model"}}"#)]).await;
    let (router, _) = router(&two(&first.base, &second.base, ""));
    // Both cool now, for different reasons: the client gets the last error.
    let failed = router.call(chat("")).await.unwrap_err();
    assert_eq!((failed.status().as_u16(), failed.info().attempts), (404, 2));
    assert_eq!(failed.body(), r#"{"error":{"message":"no such model"}}"#);
}

#[tokio::test]
async fn redirect_of_the_upstream_is_a_502_and_not_followed() {
    let other = Upstream::start([]).await;
    let location = vec![("location", format!("{}/chat/completions", other.base))];
    let upstream = Upstream::start([Reply::With(
        StatusCode::TEMPORARY_REDIRECT,
        location,
        bytes::Bytes::new(),
    )])
    .await;
    let (router, _) = router(&one(&upstream.base, "", ""));
    let failed = router.call(chat("")).await.unwrap_err();
    assert_eq!((failed.status().as_u16(), failed.info().attempts), (502, 1));
    assert_eq!(other.pending(), 0);
}

#[tokio::test]
async fn too_many_failures_cool_the_deployment() {
    let failing = Upstream::start((0..3).map(|_| error(500, ""))).await;
    let healthy = Upstream::start([]).await;
    let (router, _) = router(&two(
        &failing.base,
        &healthy.base,
        "router_settings: {allowed_fails: 2, cooldown_time: 60}",
    ));
    let mut calls = 0;
    let cooling = |deployment: usize| {
        let status = status(&router);
        status.deployments.get(deployment).and_then(|d| d.cooling)
    };
    while cooling(0).is_none() {
        router.call(chat("")).await.unwrap();
        calls += 1;
        assert!(calls < 100);
    }
    assert_eq!(cooling(1), None);
}

// Requests that make the upstream fail must not cool the only deployment for all others.
#[tokio::test]
async fn errors_of_the_only_deployment_do_not_cool_it() {
    let upstream = Upstream::start((0..4).map(|_| error(500, ""))).await;
    let (router, _) = router(&one(
        &upstream.base,
        "num_retries: 0",
        "router_settings: {allowed_fails: 0, cooldown_time: 60}",
    ));
    for _ in 0..4 {
        router.call(chat("")).await.unwrap_err();
    }
    // A probe each second.
    let next = router.call(chat("")).await.unwrap();
    assert!(next.info.waited < Duration::from_secs(5));
}
