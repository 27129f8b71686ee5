//! Keys.

use serde_json::Value;

use crate::support::{Gateway, chat};

const LOCKED: &str = "
model_list:
  - model_name: free
    litellm_params: {model: openai/free, mock_response: hello}
  - model_name: other
    litellm_params: {model: openai/other, mock_response: hello}
general_settings: {master_key: sk-1234}
vorrang_settings:
  keys:
    - {name: batch, key: sk-batch, default_priority: 1000, best_priority: 500, models: [free]}
    - {name: eager, key: sk-eager, best_priority: 7}
";

#[tokio::test]
async fn requests_without_a_known_key_are_refused() {
    let gateway = Gateway::start(LOCKED).await;
    for (path, body) in calls("free", r#", "priority": 1"#) {
        let (message, kind) = gateway.post(path, &[], &body).await.error(401);
        assert_eq!(message, "Authentication Error, No api key passed in.");
        assert_eq!(kind, "auth_error");
        for wrong in ["Bearer sk-12345", "Bearer sk-batc", "Bearer batch"] {
            let answer = gateway.post(path, &[("authorization", wrong)], &body).await;
            let (message, kind) = answer.error(401);
            assert!(message.starts_with("Authentication Error, "), "{message}");
            assert_eq!(kind, "auth_error");
            assert!(!message.contains("sk-"), "{message}");
        }
    }
    for path in ["/models", "/v1/models"] {
        gateway.get(path).await.error(401);
    }
}

#[tokio::test]
async fn health_and_metrics_are_open() {
    let gateway = Gateway::start(LOCKED).await;
    for path in [
        "/health/liveliness",
        "/health/liveness",
        "/health/readiness",
        "/metrics",
    ] {
        assert_eq!(gateway.get(path).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn master_key_calls_every_model_at_any_priority() {
    let gateway = Gateway::start(LOCKED).await;
    let key = [("authorization", "Bearer sk-1234")];
    for model in ["free", "other"] {
        for (path, body) in calls(model, r#", "priority": -5"#) {
            let answer = gateway.post(path, &key, &body).await;
            assert_eq!(answer.status, 200, "{path}: {}", answer.text());
            assert_eq!(answer.header("x-vorrang-priority"), Some("-5"), "{path}");
        }
    }
    assert_eq!(models(&gateway, "sk-1234").await, ["free", "other"]);
}

/// Each path that calls a model, and a body for it; `more` is further fields, each with a comma before it.
fn calls(model: &str, more: &str) -> [(&'static str, String); 4] {
    let text = format!(r#"{{"model": "{model}", "prompt": "hi"{more}}}"#);
    let stream = format!(r#"{more}, "stream": true"#);
    [
        ("/v1/chat/completions", chat(model, more)),
        ("/chat/completions", chat(model, &stream)),
        ("/queue/chat/completions", chat(model, more)),
        ("/v1/completions", text),
    ]
}

#[tokio::test]
async fn path_model_requires_a_key_that_allows_it() {
    let gateway = Gateway::start(LOCKED).await;
    let key = [("authorization", "Bearer sk-batch")];
    for prefix in ["/engines", "/openai/deployments"] {
        let (free, other) = ["free", "other"]
            .map(|model| format!("{prefix}/{model}/chat/completions"))
            .into();
        gateway.post(&free, &[], &chat("free", "")).await.error(401);
        let (_, kind) = gateway
            .post(&other, &key, &chat("free", ""))
            .await
            .error(403);
        assert_eq!(kind, "key_model_access_denied");
        let answer = gateway.post(&free, &key, &chat("other", "")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

#[tokio::test]
async fn best_priority_of_a_key_holds_for_every_endpoint_and_header() {
    let gateway = Gateway::start(LOCKED).await;
    // No header or field of a request changes its key, or makes it better than its key.
    let headers = [
        ("authorization", "Bearer sk-batch"),
        ("x-api-key", "sk-1234"),
        ("x-vorrang-priority", "-9"),
    ];
    let asks = r#", "priority": -5, "user": "master", "key": "sk-1234", "best_priority": -5"#;
    for (path, body) in calls("free", asks) {
        let answer = gateway.post(path, &headers, &body).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        for header in ["x-vorrang-priority", "x-litellm-priority"] {
            assert_eq!(answer.header(header), Some("500"), "{path}");
        }
        assert_eq!(
            answer.text().starts_with("data: "),
            body.contains("stream"),
            "{path}"
        );
    }
    let header = gateway
        .post("/v1/chat/completions", &headers, &chat("free", ""))
        .await;
    assert_eq!(header.header("x-vorrang-priority"), Some("500"));
    let worse = gateway
        .post(
            "/v1/chat/completions",
            &headers,
            &chat("free", r#", "priority": 501"#),
        )
        .await;
    assert_eq!(worse.header("x-vorrang-priority"), Some("501"));
    // Metrics count the clamped priority, not the requested one.
    let page = gateway.get("/metrics").await.text();
    let mut waits = page
        .lines()
        .filter(|line| line.starts_with("vorrang_wait_seconds_count"));
    assert_eq!(
        waits.next(),
        Some(r#"vorrang_wait_seconds_count{group="free",priority="100-999"} 6"#)
    );
    assert_eq!(waits.next(), None);
}

#[tokio::test]
async fn default_priority_of_a_key_applies_to_requests_without_priority() {
    let gateway = Gateway::start(LOCKED).await;
    let key = [("x-api-key", "sk-batch")];
    for (path, body) in calls("free", "") {
        let answer = gateway.post(path, &key, &body).await;
        if path.starts_with("/queue") {
            // This path requires a priority in the body.
            answer.error(400);
        } else {
            assert_eq!(answer.header("x-vorrang-priority"), Some("1000"), "{path}");
        }
    }
    let eager = [("x-api-key", "sk-eager")];
    let answer = gateway
        .post("/v1/chat/completions", &eager, &chat("other", ""))
        .await;
    assert_eq!(
        answer.header("x-vorrang-priority"),
        Some("7"),
        "the clamp holds for requests without a priority, too"
    );
}

#[tokio::test]
async fn key_calls_and_lists_only_its_own_models() {
    let gateway = Gateway::start(LOCKED).await;
    let key = [("authorization", "Bearer sk-batch")];
    for model in ["other", "nope"] {
        for (path, body) in calls(model, r#", "priority": 600"#) {
            let answer = gateway.post(path, &key, &body).await;
            let (message, kind) = answer.error(403);
            let expected = format!(
                r#"key not allowed to access model. This key can only access models=["free"]. Tried to access {model}"#
            );
            assert_eq!(
                (message, kind.as_str()),
                (expected, "key_model_access_denied")
            );
            assert_eq!(answer.json()["error"]["param"], "model");
        }
    }
    assert_eq!(models(&gateway, "sk-batch").await, ["free"]);
    assert_eq!(models(&gateway, "sk-eager").await, ["free", "other"]);
}

#[tokio::test]
async fn configured_keys_work_without_a_master_key() {
    let config = LOCKED.replace("general_settings: {master_key: sk-1234}\n", "");
    let gateway = Gateway::start(&config).await;
    for (key, status) in [("sk-batch", 200), ("sk-1234", 401), ("", 401)] {
        let answer = gateway
            .post(
                "/v1/chat/completions",
                &[("x-api-key", key)],
                &chat("free", ""),
            )
            .await;
        assert_eq!(answer.status, status, "{key}");
    }
}

async fn models(gateway: &Gateway, key: &str) -> Vec<String> {
    let list = gateway
        .request("GET", "/models", &[("api-key", key)], "")
        .await
        .json();
    let name = |model: &Value| {
        assert_eq!(model["object"], "model");
        model["id"].as_str().unwrap().to_owned()
    };
    list["data"].as_array().unwrap().iter().map(name).collect()
}
