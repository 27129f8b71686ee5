//! What `/metrics` shows.

use crate::support::{Answer, Gateway, MOCKS, chat};

#[tokio::test]
async fn every_documented_metric_is_exported() {
    let gateway = Gateway::start(MOCKS).await;
    for priority in [-5, 0, 5, 50, 500, 5000] {
        let body = chat("free", &format!(r#", "priority": {priority}"#));
        assert_eq!(
            gateway.post("/chat/completions", &[], &body).await.status,
            200
        );
    }
    assert_eq!(Answer::read(gateway.chat("tight").await).await.status, 200);
    let late = chat("tight", r#", "timeout": 0.05"#);
    assert_eq!(
        gateway.post("/chat/completions", &[], &late).await.status,
        408
    );

    let answer = gateway.get("/metrics").await;
    assert!(
        answer
            .header("content-type")
            .unwrap()
            .starts_with("application/openmetrics-text")
    );
    let page = answer.text();
    assert!(page.ends_with("# EOF\n"));
    for line in [
        r#"vorrang_waiting{group="free"} 0"#,
        r#"vorrang_queue_depth{group="tight"} 0"#,
        r#"vorrang_in_flight{group="free"} 0"#,
        r#"vorrang_group_ready{group="free"} 1"#,
        r#"vorrang_granted_total{group="free"} 6"#,
        r#"vorrang_refused_total{group="tight",reason="timed_out"} 1"#,
        r#"vorrang_wait_seconds_count{group="free",priority="<0"} 1"#,
        r#"vorrang_wait_seconds_count{group="free",priority="0"} 1"#,
        r#"vorrang_wait_seconds_count{group="free",priority="1-9"} 1"#,
        r#"vorrang_wait_seconds_count{group="free",priority="10-99"} 1"#,
        r#"vorrang_wait_seconds_count{group="free",priority="100-999"} 1"#,
        r#"vorrang_wait_seconds_count{group="free",priority="1000+"} 1"#,
        r#"vorrang_http_answers_total{status="408"} 1"#,
        r#"vorrang_recoveries_total{group="free"} 0"#,
        // The scrape's own connection.
        r#"vorrang_places_used{kind="connection"} 1"#,
        r#"vorrang_places_used{kind="call"} 0"#,
    ] {
        assert!(page.lines().any(|one| one == line), "no {line} in\n{page}");
    }
    for start in [
        r#"vorrang_used{group="tight",deployment=""#,
        r#"vorrang_limit{group="tight",deployment=""#,
        r#"vorrang_cooling_seconds{group="tight",deployment=""#,
        r#"vorrang_steps_total{group="free"} "#,
        r#"vorrang_resyncs_total{group="free"} "#,
        r#"vorrang_step_ops_count{group="free"} "#,
        r#"vorrang_step_seconds_count{group="free"} "#,
        r#"vorrang_upstream_answers_total{group="free",deployment=""#,
        r#"vorrang_upstream_seconds_count{group="free",deployment=""#,
    ] {
        assert!(
            page.lines().any(|one| one.starts_with(start)),
            "no {start} in\n{page}"
        );
    }
    let value = |start: &str| {
        let mut lines = page.lines().filter(|line| line.starts_with(start));
        let one = lines.find(|line| line.contains(r#"kind="requests""#));
        one.and_then(|line| line.rsplit(' ').next())
            .map(|value| value.parse::<f64>().unwrap())
    };
    assert_eq!(value(r#"vorrang_limit{group="tight""#), Some(1.0));
    assert_eq!(value(r#"vorrang_used{group="tight""#), Some(1.0));
}

#[tokio::test]
async fn metrics_show_limits_by_window_and_use_of_the_longest() {
    let config = "
model_list:
  - model_name: m
    litellm_params: {model: x, mock_response: hello, rpm: 5, rpd: 50, max_parallel_requests: 3}
    model_info: {id: d}
";
    let gateway = Gateway::start(config).await;
    assert_eq!(Answer::read(gateway.chat("m").await).await.status, 200);
    let page = gateway.get("/metrics").await.text();
    for line in [
        r#"vorrang_limit{group="m",deployment="d",kind="requests",window_seconds="60"} 5"#,
        r#"vorrang_limit{group="m",deployment="d",kind="requests",window_seconds="86400"} 50"#,
        r#"vorrang_limit{group="m",deployment="d",kind="concurrency"} 3"#,
        // What is known of the fleet is the use of the longest window.
        r#"vorrang_used{group="m",deployment="d",kind="requests",window_seconds="86400"} 1"#,
    ] {
        assert!(page.lines().any(|one| one == line), "no {line} in\n{page}");
    }
}

#[tokio::test]
async fn private_metrics_need_the_master_key_and_readiness_does_not() {
    let config = format!(
        "{MOCKS}general_settings: {{master_key: sk-master}}
vorrang_settings: {{public_metrics: false, keys: [{{name: chat, key: sk-chat}}]}}\n"
    );
    let gateway = Gateway::start(&config).await;
    let master = [("authorization", "Bearer sk-master")];
    let other = [("authorization", "Bearer sk-chat")];
    gateway.get("/metrics").await.error(401);
    gateway
        .request("GET", "/metrics", &other, "")
        .await
        .error(401);
    let page = gateway.request("GET", "/metrics", &master, "").await;
    assert!(page.text().contains("vorrang_waiting"), "{}", page.text());
    assert_eq!(
        gateway.get("/health/readiness").await.json()["status"],
        "healthy"
    );
}

/// The value of a line of the page.
fn value(page: &str, series: &str) -> f64 {
    let line = page.lines().find_map(|line| line.strip_prefix(series));
    let line = line.unwrap_or_else(|| panic!("no {series} in\n{page}"));
    line.trim().parse().unwrap()
}

#[tokio::test]
async fn gen_ai_metrics_separate_upstream_calls_from_requests_with_their_wait() {
    let config = "
model_list:
  - model_name: fast
    litellm_params: {model: openai/gpt, mock_response: hello}
  - model_name: broken
    litellm_params: {model: openai/bad, mock_response: litellm.InternalServerError, num_retries: 1}
  - model_name: tight
    litellm_params: {model: openai/tight, mock_response: hello, rpm: 1}
";
    let gateway = Gateway::start(config).await;
    assert_eq!(Answer::read(gateway.chat("fast").await).await.status, 200);
    let streamed = chat("fast", r#", "stream": true"#);
    let answer = gateway.post("/chat/completions", &[], &streamed).await;
    assert_eq!(answer.status, 200);
    assert_eq!(Answer::read(gateway.chat("broken").await).await.status, 500);
    assert_eq!(Answer::read(gateway.chat("tight").await).await.status, 200);
    let late = chat("tight", r#", "timeout": 0.05"#);
    let answer = gateway.post("/chat/completions", &[], &late).await;
    assert_eq!(answer.status, 408);

    let page = gateway.get("/metrics").await.text();
    let chat = |of: &str, provider: &str, model: &str, more: &str| {
        let labels = format!(
            r#"gen_ai_operation_name="chat",gen_ai_provider_name="{provider}",gen_ai_request_model="{model}""#
        );
        value(&page, &format!("gen_ai_{of}_count{{{labels}{more}}}"))
    };
    let duration = "client_operation_duration_seconds";
    assert_eq!(chat(duration, "mock", "gpt", r#",error_type="""#), 2.0);
    assert_eq!(chat(duration, "mock", "bad", r#",error_type="500""#), 2.0);
    let first = "client_operation_time_to_first_chunk_seconds";
    assert_eq!(chat(first, "mock", "gpt", ""), 1.0);
    for kind in ["input", "output"] {
        let kind = format!(r#",gen_ai_token_type="{kind}""#);
        assert_eq!(chat("client_token_usage", "mock", "gpt", &kind), 2.0);
    }
    let duration = "server_request_duration_seconds";
    let of_group = |group, error: &str| {
        let error = format!(r#",error_type="{error}""#);
        chat(duration, "vorrang", group, &error)
    };
    assert_eq!(of_group("fast", ""), 2.0);
    assert_eq!(of_group("broken", "500"), 1.0);
    assert_eq!(of_group("tight", "408"), 1.0);
    let first = "server_time_to_first_token_seconds";
    assert_eq!(chat(first, "vorrang", "fast", ""), 1.0);
    // A failed call has used nothing, and says nothing of tokens.
    let used = r#"gen_ai_client_token_usage_count{gen_ai_operation_name="chat",gen_ai_provider_name="mock",gen_ai_request_model="bad""#;
    assert!(!page.contains(used), "{page}");
    let sum = r#"gen_ai_client_token_usage_sum{gen_ai_operation_name="chat",gen_ai_provider_name="mock",gen_ai_request_model="gpt",gen_ai_token_type="output"}"#;
    // "hello" is 2 tokens.
    assert_eq!(value(&page, sum), 4.0);
}

#[tokio::test]
async fn gen_ai_models_are_the_files_under_a_wildcard() {
    let config = "
model_list:
  - model_name: any/*
    litellm_params: {model: openai/*, mock_response: hello}
";
    let gateway = Gateway::start(config).await;
    for model in ["any/one", "any/other"] {
        assert_eq!(Answer::read(gateway.chat(model).await).await.status, 200);
    }
    let page = gateway.get("/metrics").await.text();
    let lines = page.lines().filter(|line| line.starts_with("gen_ai_"));
    assert!(lines.clone().count() > 0);
    for line in lines {
        assert!(line.contains('*'), "{line}");
    }
}
