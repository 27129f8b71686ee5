//! Order of grants, and how a wait ends. Mock deployments and a paused clock: waits of minutes take no time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::support::*;
use futures_util::future::BoxFuture;
use tokio::{sync::mpsc, time::Instant};
use vorrang_gateway::{Bounds, Call, KeyPolicy, Room, Router, Setting, WaitOutcome};
use vorrang_scheduler::{
    NoObserver, Scheduler,
    backend::{Backend, BackendError, MemoryBackend, Wake},
    message::{Message, Reply},
};

// A1, A2, A3, A4: strictly by (priority, arrival), two in each window, and every window full.
#[tokio::test(start_paused = true)]
async fn calls_are_served_by_priority_and_arrival_and_fill_each_window() {
    let (router, _) = router(&mock("rpm: 2", ""));
    for _ in 0..2 {
        router.call(chat("")).await.unwrap();
    }
    let filled = Instant::now();
    let priorities = [5, 0, -3, 5, 0, 1000, i32::MIN, 0];
    let mut calls = Vec::new();
    for (index, priority) in priorities.into_iter().enumerate() {
        let call = chat(&format!(r#","priority":{priority}"#));
        calls.push((priority, index, queued(&router, call).await));
    }
    let mut granted = Vec::new();
    for (priority, index, task) in calls {
        let answer = task.await.unwrap().unwrap();
        assert_eq!(
            answer.headers["x-vorrang-priority"],
            priority.to_string().as_str()
        );
        granted.push((
            answer.info.numbers.unwrap().granted,
            priority,
            index,
            answer.info.waited,
        ));
    }
    granted.sort_unstable();
    let order: Vec<(i32, usize)> = granted
        .iter()
        .map(|(_, priority, index, _)| (*priority, *index))
        .collect();
    let mut expected: Vec<(i32, usize)> = priorities.into_iter().zip(0..).collect();
    expected.sort_unstable();
    assert_eq!(order, expected);
    // Windows of 60 s and 100 ms guard: two calls each.
    for (place, (_, _, _, waited)) in granted.iter().enumerate() {
        let windows = u32::try_from(place / 2 + 1).unwrap();
        let due = Duration::from_millis(60_100) * windows;
        assert!(
            *waited <= due + Duration::from_secs(1) && *waited + Duration::from_secs(1) >= due,
            "{place}: {waited:?}"
        );
    }
    assert!(filled.elapsed() < Duration::from_millis(60_100) * 4 + Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn wait_beyond_the_timeout_gets_408_and_leaves_the_queue() {
    let (router, _) = router(&mock("rpm: 1", "router_settings: {timeout: 20}"));
    router.call(chat("")).await.unwrap();
    let header = Call {
        timeout: Setting::seconds("5"),
        ..chat("")
    };
    for (call, seconds) in [
        (chat(""), 20),
        (header.clone(), 5),
        (
            Call {
                body: chat(r#","timeout":2.5"#).body,
                ..header
            },
            2,
        ),
    ] {
        let started = Instant::now();
        let log = Arc::new(Log::default());
        let failed = router
            .call(Call {
                events: log.clone(),
                ..call
            })
            .await
            .unwrap_err();
        assert_eq!(started.elapsed().as_secs(), seconds);
        assert_eq!(
            (failed.status().as_u16(), failed.message().as_str()),
            (
                408,
                "Request timed out while polling queue. It came as number 1 in the queue of m, where 1 waits now; the first of them waits for room for requests (rpm)."
            )
        );
        assert_eq!(failed.headers()["x-should-retry"], "false");
        assert_eq!(failed.info().waited.as_secs(), seconds);
        assert_eq!(*log.waits.lock().unwrap(), [(0, WaitOutcome::TimedOut)]);
        // A7
        until(&router, |status| status.waiting == 0 && status.depth == 0).await;
    }
}

#[tokio::test(start_paused = true)]
async fn full_queue_refuses_the_worst_with_an_accurate_retry_after() {
    let (router, _) = router(&mock("rpm: 1", "vorrang_settings: {max_queue_depth: 2}"));
    router.call(chat("")).await.unwrap();
    let first = queued(&router, chat(r#","priority":1"#)).await;
    let second = queued(&router, chat(r#","priority":2"#)).await;
    let refused = router.call(chat(r#","priority":3"#)).await.unwrap_err();
    assert_eq!(
        (refused.status().as_u16(), refused.kind().as_str()),
        (429, "throttling_error")
    );
    assert!(
        refused
            .message()
            .starts_with("No deployments available for selected model, Try again in "),
        "{refused}"
    );
    let wait = refused.retry_after().unwrap();
    assert_eq!(
        refused.headers()["retry-after"],
        wait.as_secs().to_string().as_str()
    );
    // A better one displaces the worst that waits.
    let best = queued_instead(&router, chat(r#","priority":0"#)).await;
    assert_eq!(second.await.unwrap().unwrap_err().status().as_u16(), 429);
    // By then the queue has been served: a retry finds room in it.
    tokio::time::sleep(wait).await;
    until(&router, |status| status.depth == 0).await;
    assert!(best.await.unwrap().is_ok() && first.await.unwrap().is_ok());
}

/// With `refuse_late` a wait that is surely longer than the request's time is refused at once, with a Retry-After that is true; without,
/// it ends in 408 at its time.
#[tokio::test(start_paused = true)]
async fn refuse_late_refuses_waits_longer_than_the_timeout_at_once() {
    let (router, _) = router(&mock("rpm: 1", "vorrang_settings: {refuse_late: true}"));
    router.call(chat("")).await.unwrap();
    let first = queued(&router, chat(r#","timeout":100"#)).await;
    // The next windows are at 60.1 s and 120.2 s: the second of those that wait cannot be served within 100 s.
    let start = Instant::now();
    let refused = router.call(chat(r#","timeout":100"#)).await.unwrap_err();
    assert_eq!(
        (refused.status().as_u16(), refused.kind().as_str()),
        (429, "throttling_error")
    );
    assert!(
        start.elapsed() < Duration::from_millis(100),
        "{:?}",
        start.elapsed()
    );
    let wait = refused.retry_after().unwrap();
    // Better ones are before it: this one can be served in time.
    let better = queued_instead(&router, chat(r#","timeout":100,"priority":-1"#)).await;
    let answer = better.await.unwrap().unwrap();
    assert!(answer.info.waited >= answer.info.least_wait.unwrap());
    assert_eq!(first.await.unwrap().unwrap_err().status().as_u16(), 408);
    // A retry at that time is served within its timeout.
    tokio::time::sleep(wait.saturating_sub(start.elapsed())).await;
    router.call(chat(r#","timeout":100"#)).await.unwrap();
}

/// As `queued`, where another ticket leaves for it.
async fn queued_instead(
    router: &Router,
    call: Call,
) -> tokio::task::JoinHandle<Result<vorrang_gateway::Answer, vorrang_gateway::CallError>> {
    let router = router.clone();
    tokio::spawn(async move { router.call(call).await })
}

#[tokio::test(start_paused = true)]
async fn request_above_every_limit_is_refused_at_once() {
    for limits in [
        "tpm: 100",
        "otpm: 100",
        "otpm: 100, tpm: 5000",
        "tpm: 100, otpm: 5000",
    ] {
        let (router, _) = router(&mock(limits, ""));
        refuses_more_than_a_hundred(&router).await;
    }
}

async fn refuses_more_than_a_hundred(router: &Router) {
    let refused = router.call(chat(r#","max_tokens":101"#)).await.unwrap_err();
    assert_eq!(
        (refused.status().as_u16(), refused.kind().as_str()),
        (400, "invalid_request_error")
    );
    assert_eq!(
        refused.message(),
        "The request asks for up to 101 tokens; no deployment of m takes more than 100 in a window"
    );
    router.call(chat(r#","max_tokens":100"#)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn shutdown_answers_503_with_retry_after() {
    let (router, scheduler) = router(&mock("rpm: 1", ""));
    router.call(chat("")).await.unwrap();
    let waiting = queued(&router, chat("")).await;
    scheduler.close(Duration::from_secs(1)).await;
    for failed in [
        waiting.await.unwrap().unwrap_err(),
        router.call(chat("")).await.unwrap_err(),
    ] {
        assert_eq!(
            (
                failed.status().as_u16(),
                failed.headers()["retry-after"].to_str().unwrap()
            ),
            (503, "1")
        );
    }
}

#[tokio::test]
async fn unknown_and_forbidden_models_get_litellm_error_messages() {
    let (router, _) = router(&mock(
        "",
        "router_settings: {model_group_alias: {other: m, hush: {model: m, hidden: true}}}",
    ));
    let named = |model: &str| Call {
        body: format!(r#"{{"model":"{model}","messages":[]}}"#).into(),
        ..chat("")
    };
    let refused = router.call(named("nope")).await.unwrap_err();
    let expected = "/chat/completions: Invalid model name passed in model=nope. Call `/v1/models` to view available models for your key.";
    assert_eq!(
        (
            refused.status().as_u16(),
            refused.kind().as_str(),
            refused.param()
        ),
        (400, "invalid_request_error", Some("model"))
    );
    assert_eq!(refused.message(), expected);
    for model in ["other", "hush"] {
        let answer = router.call(named(model)).await.unwrap();
        assert_eq!(answer.headers["x-litellm-model-group"], "m");
    }
    assert_eq!(router.models(None), ["m", "other"]);

    let allowed = |models: &[&str]| {
        let models = Some(models.iter().map(|model| (*model).to_owned()).collect());
        Call {
            key: Some(KeyPolicy {
                models,
                ..KeyPolicy::default()
            }),
            ..named("other")
        }
    };
    assert!(
        router.call(allowed(&["other"])).await.is_ok()
            && router.call(allowed(&["m"])).await.is_ok()
    );
    assert_eq!(
        router
            .call(allowed(&["x"]))
            .await
            .unwrap_err()
            .status()
            .as_u16(),
        403
    );
}

#[tokio::test(start_paused = true)]
async fn mock_error_is_retried_like_an_upstream_error() {
    let config = "model_list:\n- {model_name: m, litellm_params: {model: up, mock_response: litellm.RateLimitError}}\n- {model_name: n, litellm_params: {model: up, mock_response: litellm.InternalServerError}}\n";
    let (router, _) = router(config);
    let started = Instant::now();
    let limited = router.call(chat("")).await.unwrap_err();
    assert_eq!(
        (
            limited.status().as_u16(),
            limited.info().attempts,
            limited.retry_after()
        ),
        (429, 3, Some(Duration::from_secs(5)))
    );
    // Twice it waited for the cooldown to end and probed.
    assert!(
        started.elapsed() >= Duration::from_secs(10),
        "{:?}",
        started.elapsed()
    );
    let broken = router
        .call(Call {
            body: r#"{"model":"n","messages":[]}"#.into(),
            ..chat("")
        })
        .await
        .unwrap_err();
    assert_eq!(
        (
            broken.status().as_u16(),
            broken.info().attempts,
            broken.kind().as_str()
        ),
        (500, 3, "internal_server_error")
    );
}

#[tokio::test]
async fn mock_answers_whole_and_streamed() {
    let (router, _) = router(&mock("", ""));
    let whole = router.call(chat("")).await.unwrap();
    assert_eq!(whole.headers["content-type"], "application/json");
    let body: serde_json::Value = serde_json::from_str(&text(whole.body).await.unwrap()).unwrap();
    assert_eq!(body["choices"][0]["message"]["content"], "hello world");
    let streamed = router.call(chat(r#","stream":true"#)).await.unwrap();
    assert_eq!(
        streamed.headers["content-type"],
        "text/event-stream; charset=utf-8"
    );
    assert!(
        text(streamed.body)
            .await
            .unwrap()
            .ends_with("data: [DONE]\n\n")
    );
    assert!(router.ready());
}

#[tokio::test(start_paused = true)]
async fn refused_mock_call_is_not_charged() {
    let (router, _) = router(&mock("rpm: 1", ""));
    assert_eq!(
        router
            .call(chat(r#","n":0"#))
            .await
            .unwrap_err()
            .status()
            .as_u16(),
        400
    );
    let answer = router.call(chat("")).await.unwrap();
    assert!(
        answer.info.waited < Duration::from_secs(1),
        "{:?}",
        answer.info.waited
    );
}

// Without a maximum in the request, the mean of the group's answers is reserved.
#[tokio::test(start_paused = true)]
async fn mean_usage_of_answers_is_reserved_for_the_next_call() {
    let (router, _) = router(&mock("tpm: 1000", ""));
    text(router.call(chat("")).await.unwrap().body)
        .await
        .unwrap();
    // "hello world" in tokens of four bytes.
    until(&router, |status| status.deployments[0].tokens.total() == 3).await;
    let open = router.call(chat("")).await.unwrap();
    assert_eq!(status(&router).deployments[0].tokens.total(), 6);
    drop(open);
}

/// The memory backend behind a connection that can be cut.
#[derive(Debug)]
struct Cut {
    backend: MemoryBackend,
    cut: AtomicBool,
}

impl Backend for Cut {
    fn step<'a>(
        &'a self,
        group: &'a str,
        message: &'a Message,
    ) -> BoxFuture<'a, Result<Reply, BackendError>> {
        if self.cut.load(Ordering::Relaxed) {
            Box::pin(std::future::ready(Err(BackendError {
                kind: "io",
                message: "cut".into(),
            })))
        } else {
            self.backend.step(group, message)
        }
    }

    fn wakes(&self, instance: &str) -> mpsc::UnboundedReceiver<Wake> {
        self.backend.wakes(instance)
    }

    fn check(&self) -> BoxFuture<'_, Result<(), BackendError>> {
        self.backend.check()
    }
}

#[tokio::test(start_paused = true)]
async fn unresponsive_redis_is_named_in_the_error_and_calls_survive_a_short_outage() {
    let backend = Arc::new(Cut {
        backend: MemoryBackend::new(),
        cut: AtomicBool::new(false),
    });
    let scheduler = Scheduler::new(backend.clone(), "instance", Arc::new(NoObserver));
    let router = Router::new(config(&mock("rpm: 100", "")), scheduler);
    router.call(chat("")).await.unwrap();

    backend.cut.store(true, Ordering::Relaxed);
    let failed = router.call(chat(r#","timeout":10"#)).await.unwrap_err();
    assert_eq!(
        (failed.status().as_u16(), failed.kind().as_str()),
        (503, "service_unavailable_error")
    );
    assert_eq!(
        failed.message(),
        "Redis has not answered for 10 s: nothing can be granted until it does"
    );
    assert!(!router.ready());

    let waiting = tokio::spawn({
        let router = router.clone();
        async move { router.call(chat(r#","timeout":60"#)).await }
    });
    tokio::time::sleep(Duration::from_secs(5)).await;
    backend.cut.store(false, Ordering::Relaxed);
    assert!(waiting.await.unwrap().is_ok());
}

/// Reports one call too many when the test sets it.
#[derive(Debug, Default)]
struct Full(AtomicBool);

impl Room for Full {
    fn excess(&self, _: i32) -> usize {
        usize::from(self.0.swap(false, Ordering::Relaxed))
    }
}

/// When the process is short of room, the worst waiting call ends with a 429, whichever call came last.
#[tokio::test(start_paused = true)]
async fn worst_waiting_call_gets_429_when_the_process_has_no_room() {
    let room = Arc::new(Full::default());
    let backend = Arc::new(MemoryBackend::new());
    let scheduler = Scheduler::new(backend, "instance", Arc::new(NoObserver));
    let bounds = Bounds {
        room: room.clone(),
        ..Bounds::default()
    };
    let router = Router::bounded(config(&mock("rpm: 1", "")), scheduler, bounds);
    router.call(chat("")).await.unwrap();
    let events = Arc::new(Log::default());
    let batch = Call {
        events: events.clone(),
        ..chat(r#","priority":1000"#)
    };
    let better = queued(&router, chat(r#","priority":500"#)).await;
    let batch = queued(&router, batch).await;

    room.0.store(true, Ordering::Relaxed);
    let urgent = tokio::spawn({
        let router = router.clone();
        async move { router.call(chat(r#","priority":0"#)).await }
    });
    let refused = batch.await.unwrap().unwrap_err();
    assert_eq!(refused.status(), 429);
    assert!(refused.retry_after().is_some(), "{refused}");
    assert!(refused.message().contains("no room"), "{refused}");
    assert_eq!(
        *events.waits.lock().unwrap(),
        [(1000, WaitOutcome::TurnedAway)]
    );
    assert!(urgent.await.unwrap().is_ok());
    assert!(better.await.unwrap().is_ok());
}
