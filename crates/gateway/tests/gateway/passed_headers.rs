//! `forward_client_headers_to_llm_api`: which headers of a client reach an upstream.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::support::*;

const SENT: [(&str, &str); 7] = [
    ("x-trace", "one"),
    ("x-trace", "two"),
    ("anthropic-beta", "b"),
    ("x-api-key", "sk-planted"),
    ("x-litellm-api-key", "sk-planted"),
    ("authorization", "Bearer sk-planted"),
    ("cookie", "planted"),
];

/// What the upstream gets of them.
async fn received(params: &str, settings: &str) -> HeaderMap {
    let mut upstream = Upstream::start([]).await;
    let (router, _) = router(&one(&upstream.base, params, settings));
    let headers = SENT.map(|(name, value)| {
        (
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        )
    });
    let mut call = chat("");
    call.pass_headers(&headers.into_iter().collect());
    router.call(call).await.unwrap();
    let seen = upstream.next().await.headers;
    assert!(!format!("{seen:?}").contains("planted"), "{seen:?}");
    assert_eq!(seen["authorization"], "Bearer sk-secret");
    seen
}

fn traces(headers: &HeaderMap) -> Vec<&HeaderValue> {
    headers.get_all("x-trace").into_iter().collect()
}

#[tokio::test]
async fn harmless_headers_reach_the_upstream_where_the_file_says_so() {
    for settings in [
        "general_settings: {forward_client_headers_to_llm_api: true}",
        "litellm_settings: {model_group_settings: {forward_client_headers_to_llm_api: [other, m]}}",
        "litellm_settings: {model_group_settings: {forward_client_headers_to_llm_api: ['*']}}",
    ] {
        let seen = received("", settings).await;
        assert_eq!(traces(&seen), ["one", "two"], "{settings}");
        assert_eq!(seen["anthropic-beta"], "b");
    }
}

#[tokio::test]
async fn no_header_of_a_client_reaches_an_upstream_otherwise() {
    for settings in [
        "",
        "general_settings: {forward_client_headers_to_llm_api: false}",
        "litellm_settings: {model_group_settings: {forward_client_headers_to_llm_api: [other]}}",
    ] {
        let seen = received("", settings).await;
        assert!(
            !seen.contains_key("x-trace") && !seen.contains_key("anthropic-beta"),
            "{settings}"
        );
    }
}

#[tokio::test]
async fn headers_of_the_deployment_replace_those_of_the_client() {
    let settings = "general_settings: {forward_client_headers_to_llm_api: true}";
    let seen = received("extra_headers: {X-Trace: own}", settings).await;
    assert_eq!(traces(&seen), ["own"]);
}
