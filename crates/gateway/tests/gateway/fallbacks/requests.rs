//! What a request asks of the gateway, and what its key allows.

use super::*;

#[tokio::test]
async fn fallbacks_of_the_request_replace_those_of_the_file() {
    let a = Upstream::start((0..3).map(|_| error(500, "{}"))).await;
    let others = Upstream::start([]).await;
    let groups = ["b", "c"].map(|name| group(name, &others.base, ""));
    let groups = [vec![group("a", &a.base, "")], groups.to_vec()].concat();
    let settings = "router_settings: {num_retries: 0, allowed_fails: 99, fallbacks: [{a: [b]}]}";
    let (router, _) = router(&file(&groups, settings));
    for (fields, to) in [
        (r#","fallbacks":["c"]"#, Some("c")),
        (r#","fallbacks":[{"a":["c"]}]"#, Some("c")),
        (r#","disable_fallbacks":true"#, None),
    ] {
        let called = answered(&router, ask(fields)).await;
        assert_eq!(
            called.ok().map(|(group, _)| group).as_deref(),
            to,
            "{fields}"
        );
    }
    for (fields, field) in [
        (r#","fallbacks":["nope"]"#, "fallbacks"),
        (
            r#","context_window_fallbacks":[{"a":[3]}]"#,
            "context_window_fallbacks",
        ),
    ] {
        let failed = router.call(ask(fields)).await.unwrap_err();
        assert_eq!(
            (failed.status().as_u16(), failed.param()),
            (400, Some(field))
        );
    }
}

/// A call of a key that may only call `a`.
fn of_key(rest: &str) -> Call {
    Call {
        key: Some(KeyPolicy {
            models: Some(vec!["a".into()]),
            ..KeyPolicy::default()
        }),
        ..ask(rest)
    }
}

#[tokio::test]
async fn fallback_that_the_key_may_not_call_is_passed_over_unless_the_file_allows_it() {
    for (general, to) in [
        ("", None),
        (
            "general_settings: {enforce_fallback_model_access: false}",
            Some("b"),
        ),
    ] {
        let a = Upstream::start([error(500, "{}")]).await;
        let b = Upstream::start([]).await;
        let (router, _) = router(&format!("{}{general}\n", two(&a, &b, TO_B)));
        let called = answered(&router, of_key("")).await;
        assert_eq!(called.ok().map(|(group, _)| group).as_deref(), to);
    }
}

#[tokio::test]
async fn key_may_ask_only_for_fallbacks_that_it_may_call() {
    let a = Upstream::start([]).await;
    let b = Upstream::start([]).await;
    let general = "general_settings: {enforce_fallback_model_access: false}";
    let (router, _) = router(&format!("{}{general}\n", two(&a, &b, TO_B)));
    for (fields, status) in [
        (r#","fallbacks":["b"]"#, 403),
        (r#","fallbacks":["unknown"]"#, 403),
        // It would be a way to a group that it may not call.
        (r#","mock_testing_fallbacks":true"#, 500),
    ] {
        let failed = router.call(of_key(fields)).await.unwrap_err();
        assert_eq!(failed.status().as_u16(), status, "{fields}");
    }
    assert_eq!(a.pending() + b.pending(), 0);
}

#[tokio::test]
async fn mock_testing_fields_show_each_kind_of_fallback() {
    let others = Upstream::start([]).await;
    let groups = ["a", "b", "c", "d"].map(|name| group(name, &others.base, ""));
    let settings = "router_settings: {fallbacks: [{a: [b]}], context_window_fallbacks: [{a: [c]}], content_policy_fallbacks: [{a: [d]}]}";
    let (router, _) = router(&file(&groups, settings));
    for (field, to) in [
        ("mock_testing_fallbacks", "b"),
        ("mock_testing_context_fallbacks", "c"),
        ("mock_testing_content_policy_fallbacks", "d"),
    ] {
        let answer = router
            .call(ask(&format!(r#","{field}":true"#)))
            .await
            .unwrap();
        assert_eq!(answer.info.group, to);
        assert_eq!(answer.info.attempts, 1);
    }
}

#[tokio::test]
async fn num_retries_and_stream_timeout_of_the_request_override_the_deployments() {
    let mut a = Upstream::start((0..9).map(|_| error(500, "{}"))).await;
    let b = Upstream::start([]).await;
    let (router, _) = router(&two(&a, &b, "allowed_fails: 99"));
    for (fields, attempts) in [
        (r#","num_retries":0"#, 1),
        (r#","max_retries":2"#, 3),
        (r#","num_retries":1"#, 2),
    ] {
        let failed = router.call(ask(fields)).await.unwrap_err();
        assert_eq!(failed.info().attempts, attempts, "{fields}");
        for _ in 0..attempts {
            let sent = a.next().await.body;
            assert!(!String::from_utf8_lossy(&sent).contains("retries"));
        }
    }
    let hang = Upstream::start([Reply::Hang]).await;
    let (router, _) = crate::support::router(&two(&hang, &b, ""));
    let streamed = r#","stream":true,"stream_timeout":0.05"#;
    let failed = router.call(ask(streamed)).await.unwrap_err();
    assert_eq!(failed.status().as_u16(), 408);
    assert!(
        failed.message().contains("0.05 seconds"),
        "{}",
        failed.message()
    );
}

#[tokio::test]
async fn fields_that_steer_the_gateway_are_not_forwarded() {
    let mut a = Upstream::start([]).await;
    let b = Upstream::start([]).await;
    let (router, _) = router(&two(&a, &b, ""));
    let fields = r#","tags":["x"],"cache":{"no-cache":true},"litellm_metadata":{},"metadata":{"tags":["x"]},"mock_response":"x","store":true"#;
    router.call(ask(fields)).await.unwrap();
    let sent = String::from_utf8(a.next().await.body.to_vec()).unwrap();
    assert!(sent.ends_with(r#"],"store":true}"#), "{sent}");
    for field in [
        "api_key",
        "api_base",
        "user_config",
        "guardrails",
        "aws_region_name",
    ] {
        let failed = router
            .call(ask(&format!(r#","{field}":"x""#)))
            .await
            .unwrap_err();
        assert_eq!(failed.status().as_u16(), 400, "{field}");
        assert!(failed.message().contains(field));
    }
    assert_eq!(a.pending(), 0);
}

#[tokio::test]
async fn form_may_ask_for_fallbacks_and_none_of_its_fields_that_steer_is_forwarded() {
    const TYPE: &str = "multipart/form-data; boundary=x";
    let a = Upstream::start([error(500, "{}"), error(500, "{}")]).await;
    let mut b = Upstream::start([]).await;
    let (router, _) = router(&two(&a, &b, ""));
    let field = |name: &str, value: &str| {
        format!("--x\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    };
    let sound =
        "--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\nsound\r\n";
    let form = |fields: String| {
        let body = format!("{sound}{}{fields}--x--\r\n", field("model", "a"));
        let mut call = Call::new(Endpoint::Transcriptions, body);
        call.content_type = Some(http::HeaderValue::from_static(TYPE));
        call
    };
    for fallbacks in ["b", r#"["b"]"#] {
        let fields = [
            ("fallbacks", fallbacks),
            ("num_retries", "0"),
            ("tags", "x"),
            ("language", "de"),
        ];
        let fields = fields.map(|(name, value)| field(name, value)).concat();
        let answer = router.call(form(fields)).await.unwrap();
        assert_eq!(answer.info.group, "b");
        let sent = [
            sound,
            &field("model", "b"),
            &field("language", "de"),
            "--x--\r\n",
        ]
        .concat();
        assert_eq!(b.next().await.body, sent);
    }
    for (name, value) in [
        ("num_retries", "two"),
        ("api_key", "sk-1"),
        ("fallbacks", "["),
    ] {
        let failed = router.call(form(field(name, value))).await.unwrap_err();
        assert_eq!(
            (failed.status().as_u16(), failed.param()),
            (400, Some(name))
        );
    }
}
