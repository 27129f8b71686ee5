//! Fallbacks and spills over HTTP: headers, metrics, LiteLLM's headers of requests.

use crate::support::{Gateway, chat};

const FALLBACKS: &str = "
model_list:
  - model_name: broken
    litellm_params: {model: openai/broken, mock_response: litellm.InternalServerError}
  - model_name: free
    litellm_params: {model: openai/free, mock_response: hello}
    model_info: {id: free-0}
  - model_name: tight
    litellm_params: {model: openai/tight, mock_response: hello, rpm: 1}
router_settings:
  num_retries: 0
  fallbacks: [{broken: [free]}]
vorrang_settings:
  groups: {tight: {spill: {to: free, after: 1s, better_than: 1}}}
";

#[tokio::test]
async fn fallbacks_and_spills_are_seen_in_headers_and_metrics() {
    let gateway = Gateway::start(FALLBACKS).await;
    let body = chat("broken", "");
    let answer = gateway.post("/v1/chat/completions", &[], &body).await;
    assert_eq!(answer.status, 200);
    for (name, value) in [
        ("x-litellm-model-group", "free"),
        ("x-litellm-model-id", "free-0"),
        ("x-litellm-attempted-fallbacks", "1"),
        ("x-litellm-attempted-retries", "0"),
        ("x-vorrang-fallback-from", "broken"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{name}");
    }
    for spilled in [None, Some("tight")] {
        let body = chat("tight", r#", "priority": 0"#);
        let answer = gateway.post("/v1/chat/completions", &[], &body).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("x-vorrang-spilled-from"), spilled);
    }
    let page = gateway.get("/metrics").await.text();
    for line in [
        r#"vorrang_fallbacks_total{group="broken",to="free",reason="failure"} 1"#,
        r#"vorrang_spills_total{group="tight",to="free"} 1"#,
        r#"vorrang_refused_total{group="tight",reason="spilled"} 1"#,
    ] {
        assert!(page.lines().any(|one| one == line), "no {line} in\n{page}");
    }
}

#[tokio::test]
async fn retries_and_stream_timeout_are_read_from_litellms_headers() {
    let gateway = Gateway::start(FALLBACKS).await;
    let body = chat("broken", r#", "disable_fallbacks": true"#);
    let headers = [("x-litellm-num-retries", "1")];
    let answer = gateway.post("/v1/chat/completions", &headers, &body).await;
    assert_eq!(answer.status, 500);
    assert_eq!(answer.header("x-litellm-attempted-retries"), Some("1"));
    for (name, value, field) in [
        ("x-litellm-num-retries", "some", "num_retries"),
        ("x-litellm-stream-timeout", "0", "stream_timeout"),
    ] {
        let headers = [(name, value)];
        let answer = gateway.post("/v1/chat/completions", &headers, &body).await;
        assert_eq!(answer.status, 400, "{name}");
        assert!(answer.text().contains(field));
    }
}
