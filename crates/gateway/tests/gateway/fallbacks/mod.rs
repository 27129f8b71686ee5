//! Fallbacks: when another group takes a call over, which, and what the client learns.

mod requests;

use std::{collections::HashSet, fmt::Write as _, sync::Arc};

use proptest::prelude::*;
use vorrang_gateway::{Call, CallError, Endpoint, FallbackReason, KeyPolicy, Router};

use crate::support::*;

/// A group with one deployment, which is called by the group's name.
fn group(name: &str, base: &str, params: &str) -> String {
    format!(
        "- {{model_name: {name}, litellm_params: {{model: openai/{name}, api_base: '{base}', {params}}}, model_info: {{id: {name}-0}}}}\n"
    )
}

fn file(groups: &[String], settings: &str) -> String {
    format!("model_list:\n{}{settings}\n", groups.concat())
}

/// Groups `a` and `b`, without retries.
fn two(a: &Upstream, b: &Upstream, settings: &str) -> String {
    let groups = [group("a", &a.base, ""), group("b", &b.base, "")];
    file(
        &groups,
        &format!("router_settings: {{num_retries: 0, {settings}}}"),
    )
}

fn ask(rest: &str) -> Call {
    let body = format!(r#"{{"model":"a","messages":[{{"role":"user","content":"hi"}}]{rest}}}"#);
    Call::new(Endpoint::ChatCompletions, body)
}

async fn answered(router: &Router, call: Call) -> Result<(String, String), CallError> {
    let answer = router.call(call).await?;
    let group = answer.headers["x-litellm-model-group"].to_str().unwrap();
    let group = group.to_owned();
    Ok((group, text(answer.body).await.unwrap()))
}

const TO_B: &str = "fallbacks: [{a: [b]}]";

#[tokio::test]
async fn mocks_raise_the_errors_that_lead_to_each_kind_of_fallback() {
    for (mock, settings) in [
        (
            "litellm.ContextWindowExceededError",
            "context_window_fallbacks: [{a: [b]}]",
        ),
        (
            "'Exception: content_filter_policy'",
            "content_policy_fallbacks: [{a: [b]}]",
        ),
        ("litellm.InternalServerError", TO_B),
    ] {
        let groups = [
            group("a", "http://h", &format!("mock_response: {mock}")),
            group("b", "http://h", "mock_response: hi"),
        ];
        let settings = format!("router_settings: {{num_retries: 0, {settings}}}");
        let (router, _) = router(&file(&groups, &settings));
        let (group, _) = answered(&router, ask("")).await.unwrap();
        assert_eq!(group, "b", "{mock}");
    }
}

#[tokio::test]
async fn call_goes_to_its_fallback_after_the_retries() {
    let mut a = Upstream::start([error(500, "{}"), error(503, "{}")]).await;
    let mut b = Upstream::start([ok("{\"id\":\"b\"}")]).await;
    let groups = [
        group("a", &a.base, "num_retries: 1"),
        group("b", &b.base, ""),
    ];
    let settings = format!("router_settings: {{{TO_B}}}");
    let (router, _) = router(&file(&groups, &settings));
    let log = Arc::new(Log::default());
    let events = log.clone();
    let answer = router
        .call(Call {
            events,
            ..ask(r#","x":1.00"#)
        })
        .await
        .unwrap();
    let header = |name: &str| answer.headers[name].to_str().unwrap().to_owned();
    assert_eq!(header("x-litellm-model-group"), "b");
    assert_eq!(header("x-litellm-model-id"), "b-0");
    assert_eq!(header("x-litellm-attempted-fallbacks"), "1");
    assert_eq!(header("x-litellm-attempted-retries"), "1");
    assert_eq!(header("x-vorrang-fallback-from"), "a");
    assert_eq!(answer.info.attempts, 3);
    for _ in 0..2 {
        a.next().await;
    }
    let seen = b.next().await;
    let sent = r#"{"model":"b","messages":[{"role":"user","content":"hi"}],"x":1.00}"#;
    assert_eq!(seen.body, sent);
    let fallbacks = log.fallbacks.lock().unwrap().clone();
    let expected = ("a".into(), "b".into(), FallbackReason::Failure);
    assert_eq!(fallbacks, [expected]);
}

#[tokio::test]
async fn answer_without_a_fallback_says_so() {
    let a = Upstream::start([]).await;
    let b = Upstream::start([]).await;
    let (router, _) = router(&two(&a, &b, TO_B));
    let answer = router.call(ask("")).await.unwrap();
    assert_eq!(answer.headers["x-litellm-attempted-fallbacks"], "0");
    assert!(!answer.headers.contains_key("x-vorrang-fallback-from"));
    assert_eq!(b.pending(), 0);
}

#[tokio::test]
async fn clients_own_mistake_goes_to_no_fallback() {
    for status in [400, 415, 422] {
        let object = r#"{"error":{"message":"bad image","code":"bad_image"}}"#;
        let a = Upstream::start([error(status, object)]).await;
        let b = Upstream::start([]).await;
        let (router, _) = router(&two(&a, &b, TO_B));
        let failed = router.call(ask("")).await.unwrap_err();
        assert_eq!(failed.status().as_u16(), status);
        assert_eq!(b.pending(), 0);
    }
}

#[tokio::test]
async fn request_that_is_too_long_goes_to_its_own_fallbacks_else_to_the_general_ones() {
    let long = || {
        error(
            400,
            r#"{"error":{"message":"no","code":"context_length_exceeded"}}"#,
        )
    };
    for (settings, to) in [
        (
            "fallbacks: [{a: [b]}], context_window_fallbacks: [{a: [c]}]",
            "c",
        ),
        (
            "fallbacks: [{a: [b]}], context_window_fallbacks: [{b: [c]}]",
            "b",
        ),
        (
            "default_fallbacks: [b], content_policy_fallbacks: [{a: [c]}]",
            "b",
        ),
    ] {
        let a = Upstream::start([long()]).await;
        let others = Upstream::start([]).await;
        let groups = [
            group("a", &a.base, ""),
            group("b", &others.base, ""),
            group("c", &others.base, ""),
        ];
        let (router, _) = router(&file(&groups, &format!("router_settings: {{{settings}}}")));
        let (group, _) = answered(&router, ask("")).await.unwrap();
        assert_eq!(group, to, "{settings}");
    }
}

#[tokio::test]
async fn refused_content_goes_to_content_policy_fallbacks() {
    let refused = r#"{"error":{"message":"The response was filtered due to the prompt triggering Azure OpenAI's content management policy.","code":"content_filter"}}"#;
    let a = Upstream::start([error(400, refused)]).await;
    let b = Upstream::start([]).await;
    let (router, _) = router(&two(&a, &b, "content_policy_fallbacks: [{'*': [b]}]"));
    assert_eq!(answered(&router, ask("")).await.unwrap().0, "b");
}

#[tokio::test]
async fn wrong_key_and_exhausted_quota_go_to_the_fallback_while_their_deployments_cool() {
    let quota = r#"{"error":{"message":"no","code":"insufficient_quota"}}"#;
    for reply in [error(401, "{}"), error(404, "{}"), error(429, quota)] {
        let mut a = Upstream::start([reply]).await;
        let b = Upstream::start([]).await;
        let (router, _) = router(&two(&a, &b, TO_B));
        let log = Arc::new(Log::default());
        for _ in 0..2 {
            let events = log.clone();
            let call = Call { events, ..ask("") };
            assert_eq!(answered(&router, call).await.unwrap().0, "b");
        }
        // The second call made no attempt.
        a.next().await;
        assert_eq!(a.pending(), 0);
        let reasons: Vec<_> = log
            .fallbacks
            .lock()
            .unwrap()
            .iter()
            .map(|one| one.2)
            .collect();
        assert_eq!(reasons, [FallbackReason::Failure, FallbackReason::Cooling]);
    }
}

#[tokio::test]
async fn call_does_not_wait_for_a_cooldown_that_a_fallback_bridges() {
    let mut a = Upstream::start([limited("600"), ok("{}")]).await;
    let b = Upstream::start([]).await;
    let (router, _) = router(&two(&a, &b, "fallbacks: [{a: [b]}], num_retries: 2"));
    for _ in 0..2 {
        assert_eq!(answered(&router, ask("")).await.unwrap().0, "b");
    }
    a.next().await;
    assert_eq!(a.pending(), 0);
}

#[tokio::test]
async fn waiting_call_leaves_for_its_fallback_when_every_deployment_begins_to_cool() {
    let (sender, chunks) = tokio::sync::mpsc::channel(1);
    let mut a = Upstream::start([Reply::Stream("text/event-stream", chunks)]).await;
    let mut b = Upstream::start([]).await;
    let groups = [
        group("a", &a.base, "max_parallel_requests: 1"),
        group("b", &b.base, ""),
    ];
    let settings = "router_settings: {num_retries: 0, fallbacks: [{a: [b]}]}";
    let (router, _) = router(&file(&groups, settings));
    let streaming = tokio::spawn({
        let router = router.clone();
        async move { answered(&router, ask(r#","stream":true"#)).await }
    });
    a.next().await;
    let waiting = queued(&router, ask("")).await;
    assert_eq!(b.pending(), 0);
    // The provider turns calls away within the stream that holds the only place.
    let event = "data: {\"id\":\"x\"}\n\ndata: {\"error\":{\"code\":429}}\n\n";
    sender.send(Ok(event.into())).await.unwrap();
    let answer = waiting.await.unwrap().unwrap();
    assert_eq!(answer.headers["x-litellm-model-group"], "b");
    assert_eq!(answer.info.attempts, 1);
    b.next().await;
    drop(sender);
    streaming.await.unwrap().unwrap();
}

#[tokio::test]
async fn full_limit_or_the_end_of_the_time_is_no_reason_for_a_fallback() {
    let a = Upstream::start([]).await;
    let b = Upstream::start([]).await;
    let groups = [group("a", &a.base, "rpm: 1"), group("b", &b.base, "")];
    let (router, _) = router(&file(&groups, &format!("router_settings: {{{TO_B}}}")));
    assert_eq!(answered(&router, ask("")).await.unwrap().0, "a");
    let late = router.call(ask(r#","timeout":0.05"#)).await.unwrap_err();
    assert_eq!(late.status().as_u16(), 408);
    assert_eq!(b.pending(), 0);
}

#[tokio::test]
async fn request_above_every_limit_goes_to_context_window_fallbacks_only() {
    let a = Upstream::start([]).await;
    let b = Upstream::start([]).await;
    for (settings, to) in [
        ("fallbacks: [{a: [b]}]", None),
        ("context_window_fallbacks: [{a: [b]}]", Some("b")),
    ] {
        let groups = [group("a", &a.base, "tpm: 10"), group("b", &b.base, "")];
        let (router, _) = router(&file(&groups, &format!("router_settings: {{{settings}}}")));
        let called = answered(&router, ask(r#","max_tokens":11"#)).await;
        let group = called.as_ref().ok().map(|(group, _)| group.as_str());
        assert_eq!(group, to, "{settings}");
        if let Err(failed) = called {
            assert_eq!(failed.status().as_u16(), 400);
        }
    }
}

#[tokio::test]
async fn error_of_the_first_group_is_returned_when_all_fallbacks_fail() {
    let object = r#"{"error":{"message":"overloaded","type":"server_error"}}"#;
    let a = Upstream::start([error(503, object)]).await;
    let b = Upstream::start([error(401, r#"{"error":{"message":"wrong key"}}"#)]).await;
    let (router, _) = router(&two(&a, &b, TO_B));
    let failed = router.call(ask("")).await.unwrap_err();
    assert_eq!(
        (failed.status().as_u16(), failed.body()),
        (503, object.into())
    );
    let headers = failed.headers();
    assert_eq!(headers["x-litellm-model-group"], "a");
    assert_eq!(headers["x-litellm-model-id"], "a-0");
    assert_eq!(headers["x-litellm-attempted-fallbacks"], "1");
    assert_eq!(headers["x-should-retry"], "false");
}

#[tokio::test]
async fn fallbacks_have_fallbacks_of_their_own_up_to_max_fallbacks() {
    for (most, answers) in [(5, Some("d")), (2, None), (0, None)] {
        let broken = Upstream::start((0..9).map(|_| error(500, "{}"))).await;
        let well = Upstream::start([]).await;
        let groups = [
            group("a", &broken.base, ""),
            group("b", &broken.base, ""),
            group("c", &broken.base, ""),
            group("d", &well.base, ""),
        ];
        let settings = format!(
            "router_settings: {{num_retries: 0, max_fallbacks: {most}, fallbacks: [{{a: [b, d]}}, {{b: [a, c]}}, {{c: [c, b]}}]}}"
        );
        let (router, _) = router(&file(&groups, &settings));
        let called = router.call(ask("")).await;
        let info = match &called {
            Ok(answer) => &answer.info,
            Err(failed) => failed.info(),
        };
        // a, b, c, and d if that is allowed: what stands behind b comes before what stands behind a.
        assert_eq!(
            (info.fallbacks, info.attempts),
            (most.min(3), most.min(3) + 1)
        );
        assert_eq!(
            called.ok().map(|answer| answer.info.group).as_deref(),
            answers
        );
    }
}

#[tokio::test]
async fn alias_names_a_group_and_its_fallbacks() {
    let a = Upstream::start([error(500, "{}")]).await;
    let b = Upstream::start([]).await;
    let settings = "fallbacks: [{other: [name]}], model_group_alias: {other: a, name: b}";
    let (router, _) = router(&two(&a, &b, settings));
    let body = r#"{"model":"other","messages":[]}"#;
    let call = Call::new(Endpoint::ChatCompletions, body);
    assert_eq!(answered(&router, call).await.unwrap().0, "b");
}

#[tokio::test]
async fn wildcards_have_fallbacks_and_are_fallbacks() {
    let a = Upstream::start([error(500, "{}"), error(500, "{}")]).await;
    let mut b = Upstream::start([]).await;
    let entry = |name: &str, base: &str| {
        format!(
            "- {{model_name: '{name}/*', litellm_params: {{model: 'openai/*', api_base: '{base}'}}}}\n"
        )
    };
    let groups = [entry("one", &a.base), entry("two", &b.base)];
    let settings =
        "router_settings: {num_retries: 0, allowed_fails: 99, fallbacks: [{'one/*': [two/x]}]}";
    let (router, _) = router(&file(&groups, settings));
    for model in ["one/any", "one/special"] {
        let body = format!(r#"{{"model":"{model}","messages":[]}}"#);
        let answer = router
            .call(Call::new(Endpoint::ChatCompletions, body))
            .await;
        let info = answer.unwrap().info;
        assert_eq!(
            (info.group.as_str(), info.fallback_from.as_deref()),
            ("two/*", Some("one/*"))
        );
        let seen = b.next().await.body;
        assert_eq!(seen, r#"{"model":"x","messages":[]}"#);
    }
}

#[tokio::test]
async fn fallback_without_the_endpoint_is_passed_over() {
    let a = Upstream::start([error(500, "{}")]).await;
    let c = Upstream::start([]).await;
    let embedding = format!(
        "- {{model_name: b, litellm_params: {{model: openai/b, api_base: '{}'}}, model_info: {{mode: embedding}}}}\n",
        c.base
    );
    let groups = [group("a", &a.base, ""), embedding, group("c", &c.base, "")];
    let settings = "router_settings: {num_retries: 0, fallbacks: [{a: [b, c]}]}";
    let (router, _) = router(&file(&groups, settings));
    let answer = router.call(ask("")).await.unwrap();
    assert_eq!(
        (answer.info.group.as_str(), answer.info.fallbacks),
        ("c", 1)
    );
}

#[tokio::test]
async fn fallback_of_the_file_may_change_fields_of_the_request() {
    let a = Upstream::start([error(500, "{}")]).await;
    let mut b = Upstream::start([]).await;
    let settings = "fallbacks: [{a: [{model: b, temperature: 0, max_tokens: 5}]}]";
    let (router, _) = router(&two(&a, &b, settings));
    router
        .call(ask(r#","temperature":1.0,"n":1"#))
        .await
        .unwrap();
    let sent = String::from_utf8(b.next().await.body.to_vec()).unwrap();
    assert!(
        sent.ends_with(r#""temperature":0,"n":1,"max_tokens":5}"#),
        "{sent}"
    );
}

#[tokio::test]
async fn time_of_the_request_is_one_for_all_groups() {
    let a = Upstream::start([error(500, "{}")]).await;
    let mut b = Upstream::start([Reply::Hang]).await;
    let (router, _) = router(&two(&a, &b, TO_B));
    let failed = router.call(ask(r#","timeout":0.3"#)).await.unwrap_err();
    b.next().await;
    // The first group's error, after the time that both had.
    assert_eq!(failed.status().as_u16(), 500);
    assert_eq!(failed.info().fallbacks, 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_graph_of_fallbacks_ends_and_calls_each_group_at_most_once(
        edges in prop::collection::vec((0..6_usize, 0..6_usize), 0..20),
        default in prop::collection::vec(0..6_usize, 0..4),
        most in 0..8_u32,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut yaml = "model_list:\n".to_owned();
            for index in 0..6 {
                writeln!(yaml, "- {{model_name: g{index}, litellm_params: {{model: m, mock_response: litellm.InternalServerError}}, model_info: {{id: g{index}}}}}").unwrap();
            }
            let lists: Vec<String> = edges.iter().map(|(from, to)| format!("{{g{from}: [g{to}, g{}]}}", (to * from) % 6)).collect();
            let default: Vec<String> = default.iter().map(|index| format!("g{index}")).collect();
            write!(yaml, "router_settings: {{num_retries: 0, max_fallbacks: {most}, fallbacks: [{}], default_fallbacks: [{}]}}", lists.join(", "), default.join(", ")).unwrap();
            let (router, _) = router(&yaml);
            let log = Arc::new(Log::default());
            let body = r#"{"model":"g0","messages":[]}"#;
            let call = Call { events: log.clone(), ..Call::new(Endpoint::ChatCompletions, body) };
            let failed = router.call(call).await.unwrap_err();
            let called = log.upstream.lock().unwrap().clone();
            let groups: HashSet<&String> = called.iter().map(|(id, _)| id).collect();
            assert_eq!(groups.len(), called.len(), "{called:?}");
            assert!(failed.info().fallbacks <= most);
            assert_eq!(called.len() as u32, failed.info().fallbacks + 1);
        });
    }
}
