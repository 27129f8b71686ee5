//! `spill`: urgent calls leave a queue that is too long, and others never do.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use tokio::sync::mpsc;
use vorrang_gateway::{Call, Config, Router, WaitOutcome};

use crate::support::*;

fn group(name: &str, base: &str, params: &str) -> String {
    format!(
        "- {{model_name: {name}, litellm_params: {{model: openai/{name}, api_base: '{base}', {params}}}, model_info: {{id: {name}-0}}}}\n"
    )
}

/// Groups `m` and `y`; `m` spills.
fn file(m: &str, y: &str, spill: &str, more: &str) -> String {
    format!(
        "model_list:\n{m}{y}vorrang_settings:\n  groups:\n    m: {{spill: {{{spill}}}}}\n{more}\n"
    )
}

fn mocks(m: &str, y: &str, spill: &str, more: &str) -> String {
    let mock = |name: &str, params: &str| {
        format!(
            "- {{model_name: {name}, litellm_params: {{model: up, mock_response: {name}, {params}}}, model_info: {{id: {name}-0}}}}\n"
        )
    };
    file(&mock("m", m), &mock("y", y), spill, more)
}

async fn group_of(router: &Router, call: Call) -> String {
    router.call(call).await.unwrap().info.group
}

#[tokio::test(start_paused = true)]
async fn urgent_call_leaves_a_queue_that_is_surely_too_long_and_batch_waits() {
    let yaml = mocks("rpm: 1", "", "to: y, after: 2s, better_than: 1", "");
    let (router, _) = router(&yaml);
    assert_eq!(group_of(&router, chat("")).await, "m");
    let batch = queued(&router, chat(r#","priority":1"#)).await;
    let log = Arc::new(Log::default());
    let events = log.clone();
    let urgent = Call {
        events,
        ..chat(r#","priority":0"#)
    };
    let answer = router.call(urgent).await.unwrap();
    assert_eq!(answer.headers["x-litellm-model-group"], "y");
    assert_eq!(answer.headers["x-vorrang-spilled-from"], "m");
    assert_eq!(answer.headers["x-litellm-attempted-fallbacks"], "0");
    let spills = log.spills.lock().unwrap().clone();
    assert_eq!(spills, [("m".to_owned(), "y".to_owned())]);
    let outcomes: Vec<_> = log
        .waits
        .lock()
        .unwrap()
        .iter()
        .map(|wait| wait.1)
        .collect();
    assert_eq!(outcomes, [WaitOutcome::Spilled, WaitOutcome::Granted]);
    // The slot that it did not take is the next one's.
    assert_eq!(batch.await.unwrap().unwrap().info.group, "m");
}

#[tokio::test]
async fn urgent_call_leaves_after_its_wait_where_no_wait_is_known() {
    let (sender, chunks) = mpsc::channel(1);
    let mut m = Upstream::start([Reply::Stream("text/event-stream", chunks)]).await;
    let y = Upstream::start([]).await;
    let groups = [
        group("m", &m.base, "max_parallel_requests: 1"),
        group("y", &y.base, ""),
    ];
    let spill = "to: y, after: 50ms, better_than: 1";
    let (router, _) = router(&file(&groups[0], &groups[1], spill, ""));
    let streaming = tokio::spawn({
        let router = router.clone();
        async move { router.call(chat(r#","stream":true"#)).await }
    });
    m.next().await;
    assert_eq!(group_of(&router, chat("")).await, "y");
    sender.send(Ok("data: {}\n\n".into())).await.unwrap();
    drop(sender);
    let answer = streaming.await.unwrap().unwrap();
    text(answer.body).await.unwrap();
    // The queue is as it was without the call that left.
    assert_eq!(group_of(&router, chat("")).await, "m");
}

#[tokio::test(start_paused = true)]
async fn call_that_is_granted_in_time_stays() {
    let yaml = mocks("rpm: 1", "", "to: y, after: 2m, better_than: 1", "");
    let (router, _) = router(&yaml);
    for _ in 0..2 {
        assert_eq!(group_of(&router, chat("")).await, "m");
    }
}

#[tokio::test(start_paused = true)]
async fn call_that_the_other_group_cannot_take_waits_on() {
    for y in ["tpm: 5", "mode: none"] {
        let (params, info) = if y.starts_with("tpm") {
            (y, "")
        } else {
            ("", ", mode: embedding")
        };
        let yaml = mocks("rpm: 1", params, "to: y, after: 1, better_than: 1", "")
            .replace("id: y-0", &format!("id: y-0{info}"));
        let (router, _) = router(&yaml);
        for _ in 0..2 {
            let call = chat(r#","max_tokens":6"#);
            assert_eq!(group_of(&router, call).await, "m", "{y}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn chain_of_spills_enters_each_group_once() {
    let more = "    y: {spill: {to: m, after: 1s, better_than: 1}}";
    let yaml = mocks("rpm: 1", "rpm: 1", "to: y, after: 1s, better_than: 1", more);
    let (router, _) = router(&yaml);
    for expected in ["m", "y"] {
        assert_eq!(group_of(&router, chat("")).await, expected);
    }
    let late = router.call(chat(r#","timeout":30"#)).await.unwrap_err();
    assert_eq!(late.status().as_u16(), 408);
    assert_eq!(late.info().group, "y");
    assert_eq!(late.info().spilled_from.as_deref(), Some("m"));
}

#[tokio::test]
async fn race_of_spills_and_grants_neither_loses_nor_doubles_a_call() {
    const CALLS: usize = 300;
    let mut upstream = Upstream::start([]).await;
    let base = &upstream.base;
    let groups = [
        group("m", base, "max_parallel_requests: 2"),
        group("y", base, "max_parallel_requests: 2"),
    ];
    let spill = "to: y, after: 3ms, better_than: 1";
    let (router, _) = router(&file(&groups[0], &groups[1], spill, ""));
    let calls = (0..CALLS).map(|_| group_of(&router, chat("")));
    let answered = join_all(calls).await;
    assert_eq!(answered.len(), CALLS);
    for _ in 0..CALLS {
        upstream.next().await;
    }
    assert_eq!(upstream.pending(), 0);
    for name in ["m", "y"] {
        assert!(answered.iter().any(|group| group == name), "none in {name}");
    }
    let quiet = || {
        let mut groups = router.groups().into_iter();
        groups.all(|group| group.status.waiting == 0 && group.status.in_flight == 0)
    };
    while !quiet() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(group_of(&router, chat("")).await, "m");
}

#[tokio::test(start_paused = true)]
async fn failure_after_a_spill_goes_to_the_fallbacks_of_that_group() {
    let mock = |name: &str, response: &str, params: &str| {
        format!(
            "- {{model_name: {name}, litellm_params: {{model: up, mock_response: {response}, {params}}}}}\n"
        )
    };
    let groups = [
        mock("m", "m", "rpm: 1"),
        mock("y", "litellm.InternalServerError", "num_retries: 0"),
        mock("z", "z", ""),
    ];
    let more = "router_settings: {fallbacks: [{y: [m, z]}]}";
    let spill = "to: y, after: 2s, better_than: 1";
    let (router, _) = router(&file(&groups[..2].concat(), &groups[2], spill, more));
    assert_eq!(group_of(&router, chat("")).await, "m");
    let info = router.call(chat("")).await.unwrap().info;
    // The queue of m is not entered again.
    assert_eq!((info.group.as_str(), info.fallbacks), ("z", 1));
    assert_eq!(info.spilled_from.as_deref(), Some("m"));
    assert_eq!(info.fallback_from.as_deref(), Some("m"));
}

#[test]
fn errors_of_spill_name_their_key_and_what_was_expected() {
    for (spill, error) in [
        ("after: 2s, better_than: 1", "m.spill.to: is missing"),
        (
            "to: y, better_than: 1",
            "m.spill.after: is missing; expected a time",
        ),
        (
            "to: y, after: 2s",
            "m.spill.better_than: is missing; expected a priority",
        ),
        (
            "to: y, after: soon, better_than: 1",
            "m.spill.after: expected a time",
        ),
        (
            "to: y, after: -1, better_than: 1",
            "m.spill.after: expected a time",
        ),
        (
            "to: no, after: 2s, better_than: 1",
            "m.spill.to: expected a model_name",
        ),
        (
            "to: m, after: 2s, better_than: 1",
            "m.spill.to: expected another group",
        ),
        (
            "to: y, after: 2s, better_than: 1, x: 1",
            "m.spill.x: unknown setting",
        ),
    ] {
        let yaml = mocks("", "", spill, "");
        let env = std::collections::HashMap::<String, String>::new();
        let failed = Config::parse(&yaml, "config.yaml", &env).unwrap_err();
        let message = failed.to_string();
        assert!(
            message.contains(&format!("groups.{error}")),
            "{spill}: {message}"
        );
    }
    let spill = |after: &str| {
        let yaml = mocks(
            "",
            "",
            &format!("to: y, after: {after}, better_than: -3"),
            "",
        );
        let spill = config(&yaml).groups[0].spill.clone().unwrap();
        assert_eq!((spill.to.as_str(), spill.better_than), ("y", -3));
        spill.after
    };
    for (text, ms) in [
        ("2", 2000),
        ("2s", 2000),
        ("'0.5 s'", 500),
        ("250ms", 250),
        ("1m", 60_000),
        ("0", 0),
    ] {
        assert_eq!(spill(text), Duration::from_millis(ms), "{text}");
    }
}
