//! Files, batches and fine-tuning jobs: paths, keys, methods, and what web pages may do.

use axum::{
    Json, Router,
    body::to_bytes,
    extract::Request,
    response::{IntoResponse as _, Response},
};
use serde_json::json;
use tokio::net::TcpListener;

use crate::support::{Gateway, MOCKS, chat};

/// A server that says what reached it. It ends with the test.
async fn upstream() -> String {
    async fn repeat(request: Request) -> Response {
        let (head, body) = request.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap();
        let header = |name: &str| Some(head.headers.get(name)?.to_str().unwrap().to_owned());
        Json(json!({
            "method": head.method.as_str(),
            "path": head.uri.to_string(),
            "headers": head.headers.keys().map(ToString::to_string).collect::<Vec<_>>(),
            "key": header("authorization").or(header("api-key")),
            "body": String::from_utf8_lossy(&body),
        }))
        .into_response()
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = Router::new().fallback(repeat);
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    format!("http://{address}")
}

async fn gateway(more: &str) -> Gateway {
    let root = upstream().await;
    let accounts = format!(
        "
files_settings:
- {{custom_llm_provider: openai, api_base: '{root}/v1', api_key: sk-openai}}
- {{custom_llm_provider: azure, api_base: '{root}', api_key: azure-key, api_version: '1'}}
finetune_settings:
- {{custom_llm_provider: openai, api_base: '{root}/tuning', api_key: sk-tuning}}
"
    );
    Gateway::start(&format!("{MOCKS}{accounts}{more}")).await
}

const NEW_BATCH: &str =
    r#"{"input_file_id":"f","endpoint":"/v1/embeddings","completion_window":"24h"}"#;

#[tokio::test]
async fn every_path_reaches_the_account_of_its_provider() {
    let gateway = gateway("").await;
    for (method, path, body, upstream) in [
        ("GET", "/files", "", "/v1/files"),
        ("GET", "/files/f-1?a=b", "", "/v1/files/f-1?a=b"),
        ("DELETE", "/files/f-1", "", "/v1/files/f-1"),
        ("GET", "/files/f-1/content", "", "/v1/files/f-1/content"),
        ("GET", "/files/a%2Fb", "", "/v1/files/a%2Fb"),
        ("POST", "/batches", NEW_BATCH, "/v1/batches"),
        ("GET", "/batches?limit=1", "", "/v1/batches?limit=1"),
        ("POST", "/batches/b/cancel", "", "/v1/batches/b/cancel"),
        (
            "GET",
            "/fine_tuning/jobs/j",
            "",
            "/tuning/fine_tuning/jobs/j",
        ),
        (
            "POST",
            "/fine_tuning/jobs/j/cancel",
            "",
            "/tuning/fine_tuning/jobs/j/cancel",
        ),
    ] {
        for prefix in ["", "/v1", "/openai/v1", "//v1/"] {
            let answer = gateway
                .request(method, &format!("{prefix}{path}"), &[], body)
                .await;
            assert_eq!(answer.status, 200, "{prefix}{path}: {}", answer.text());
            assert!(answer.header("x-litellm-call-id").is_some());
            let seen = answer.json();
            assert_eq!(
                (&seen["method"], &seen["path"]),
                (&json!(method), &json!(upstream))
            );
            assert_eq!(seen["body"], body);
            let key = if upstream.starts_with("/v1") {
                "openai"
            } else {
                "tuning"
            };
            assert_eq!(seen["key"], format!("Bearer sk-{key}"));
        }
    }
    let azure = [("custom-llm-provider", "azure")];
    for (path, headers) in [
        ("/azure/v1/files", &[][..]),
        ("/v1/files", &azure),
        ("/v1/files?custom_llm_provider=azure", &[]),
        ("/azure/v1/files", &[("custom-llm-provider", "openai")]),
    ] {
        let seen = gateway.request("GET", path, headers, "").await.json();
        assert_eq!(seen["path"], "/openai/files?api-version=1", "{path}");
        assert_eq!(seen["key"], "azure-key");
    }
    // Its end is behind that of the answers.
    let page = gateway.get("/metrics").await.text();
    let counted = "deployment=\"azure\",status=\"200\"";
    let mut lines = page.lines();
    assert!(
        lines.any(|line| line.contains("group=\"files_settings\"") && line.contains(counted)),
        "{page}"
    );
}

#[tokio::test]
async fn provider_without_an_account_and_wrong_methods_are_errors_of_the_documented_shape() {
    let gateway = gateway("vorrang_settings: {max_body_bytes: 200}\n").await;
    let (message, kind) = gateway.get("/mistral/v1/files").await.error(400);
    assert!(
        message.contains("the provider mistral has no account here"),
        "{message}"
    );
    assert_eq!(kind, "invalid_request_error");
    let answer = gateway.get("/anthropic/v1/fine_tuning/jobs").await;
    assert!(answer.error(400).0.contains("finetune_settings"));
    for (method, path) in [
        ("POST", "/v1/files/f"),
        ("DELETE", "/v1/batches/b"),
        ("PUT", "/files"),
    ] {
        gateway.request(method, path, &[], "").await.error(405);
    }
    for path in ["/v1/files/f/other", "/v1/files/f/content/more", "/x/files"] {
        gateway.get(path).await.error(404);
    }
    let large = format!("{NEW_BATCH}{}", " ".repeat(200));
    gateway.post("/v1/batches", &[], &large).await.error(413);
    gateway.get("/v1/files/%FF").await.error(400);
    let coded = [("content-encoding", "gzip")];
    let answer = gateway.post("/v1/batches", &coded, NEW_BATCH).await;
    answer.error(415);
    let timeout = [("x-litellm-timeout", "never")];
    let answer = gateway.request("GET", "/files", &timeout, "").await;
    assert_eq!(answer.json()["error"]["param"], "timeout");
}

#[tokio::test]
async fn files_need_a_key_where_there_are_keys() {
    let keys = "
general_settings: {master_key: sk-master}
vorrang_settings:
  keys: [{name: few, key: sk-few, models: [free]}]
";
    let gateway = gateway(keys).await;
    gateway.get("/v1/files").await.error(401);
    gateway.get("/openai/v1/files").await.error(401);
    let few = [("authorization", "Bearer sk-few")];
    let answer = gateway.request("GET", "/v1/files", &few, "").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = gateway.post("/v1/batches", &few, NEW_BATCH).await;
    assert_eq!(answer.error(403).1, "key_model_access_denied");
    let master = [("authorization", "Bearer sk-master")];
    let answer = gateway.post("/v1/batches", &master, NEW_BATCH).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[tokio::test]
async fn key_in_the_files_own_header_is_taken_and_never_passed_on() {
    let root = upstream().await;
    let config = format!(
        "
model_list:
- {{model_name: m, litellm_params: {{model: openai/m, api_base: '{root}/v1', api_key: k}}}}
general_settings:
  master_key: sk-master
  litellm_key_header_name: X-Caller
  forward_client_headers_to_llm_api: true
"
    );
    let gateway = Gateway::start(&config).await;
    let headers = [("x-caller", "Bearer sk-master"), ("x-other", "a")];
    let answer = gateway
        .post("/v1/chat/completions", &headers, &chat("m", ""))
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let headers = answer.json()["headers"].to_string();
    assert!(
        headers.contains("x-other") && !headers.contains("x-caller"),
        "{headers}"
    );
    let wrong = [
        ("x-caller", "sk-wrong"),
        ("authorization", "Bearer sk-master"),
    ];
    let answer = gateway
        .post("/v1/chat/completions", &wrong, &chat("m", ""))
        .await;
    answer.error(401);
}

#[tokio::test]
async fn web_page_cannot_post_files_without_asking_first() {
    let gateway = gateway("").await;
    let form = [
        ("origin", "https://elsewhere.example"),
        ("sec-fetch-mode", "no-cors"),
    ];
    gateway.post("/v1/files", &form, "").await.error(415);
    let asking = [
        ("origin", "http://localhost:3000"),
        ("access-control-request-method", "DELETE"),
    ];
    let answer = gateway.request("OPTIONS", "/v1/files/f", &asking, "").await;
    let allowed = answer.header("access-control-allow-methods").unwrap();
    assert!(allowed.contains("DELETE"), "{allowed}");
}
