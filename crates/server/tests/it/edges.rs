//! Details of the API: `/health`, one model, web pages of other origins, paths with empty segments.

use crate::support::{Answer, Gateway, chat};

const LOCKED: &str = "
model_list:
  - model_name: free
    litellm_params: {model: openai/up, mock_response: hello}
    model_info: {id: free-1}
  - model_name: team/other
    litellm_params: {model: openai/other, mock_response: hello}
    model_info: {id: other-1}
  - model_name: broken
    litellm_params: {model: openai/broken, mock_response: litellm.RateLimitError, num_retries: 0, cooldown_time: 600}
    model_info: {id: broken-1}
router_settings: {model_group_alias: {short: free, secret: {model: free, hidden: true}}}
general_settings: {master_key: sk-1234}
vorrang_settings: {keys: [{name: batch, key: sk-batch, models: [free]}]}
";

const MASTER: (&str, &str) = ("x-litellm-api-key", "Bearer sk-1234");
const BATCH: (&str, &str) = ("authorization", "Bearer sk-batch");
const PAGE: &str = "https://app.example.com";

async fn get(gateway: &Gateway, path: &str, key: (&str, &str)) -> Answer {
    gateway.request("GET", path, &[key], "").await
}

async fn preflight(gateway: &Gateway, path: &str, origin: &str) -> Answer {
    let headers = [
        ("origin", origin),
        ("access-control-request-method", "POST"),
        (
            "access-control-request-headers",
            "authorization,x-vorrang-priority",
        ),
    ];
    gateway.request("OPTIONS", path, &headers, "").await
}

#[tokio::test]
async fn model_is_retrieved_by_its_id() {
    let gateway = Gateway::start(LOCKED).await;
    for prefix in ["", "/v1"] {
        for id in ["free", "short", "team/other", "team%2Fother"] {
            let path = format!("{prefix}/models/{id}");
            let answer = get(&gateway, &path, MASTER).await;
            assert_eq!(answer.status, 200, "{path}: {}", answer.text());
            assert_eq!(answer.json()["id"], id.replace("%2F", "/"));
            assert_eq!(answer.json()["object"], "model");
            gateway.get(&path).await.error(401);
        }
    }
    get(&gateway, "/v1/models/%FF", MASTER).await.error(400);
}

#[tokio::test]
async fn names_that_a_wildcard_stands_for_are_models_that_are_not_listed() {
    let wild = LOCKED.replace("model_name: team/other", "model_name: team/*");
    let gateway = Gateway::start(&wild).await;
    let answer = get(&gateway, "/v1/models/team/any/one", MASTER).await;
    assert_eq!(answer.json()["id"], "team/any/one");
    get(&gateway, "/v1/models/teams", MASTER).await.error(404);
    get(&gateway, "/v1/models/team/any", BATCH).await.error(404);
    let list = get(&gateway, "/v1/models", MASTER).await.json();
    let ids = list["data"].as_array().unwrap().iter();
    let ids: Vec<_> = ids.map(|model| model["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["free", "team/*", "broken", "short"]);
}

#[tokio::test]
async fn forbidden_model_gets_404_like_an_unknown_one() {
    let gateway = Gateway::start(LOCKED).await;
    assert_eq!(get(&gateway, "/v1/models/short", BATCH).await.status, 200);
    for id in ["team/other", "nope", "secret"] {
        let answer = get(&gateway, &format!("/v1/models/{id}"), BATCH).await;
        let (message, kind) = answer.error(404);
        let expected = format!("The model `{id}` does not exist or you do not have access to it.");
        assert_eq!(
            (message, kind.as_str()),
            (expected, "invalid_request_error")
        );
        assert_eq!(answer.json()["error"]["param"], "model");
    }
}

#[tokio::test]
async fn health_lists_the_deployments_that_the_key_may_call() {
    let gateway = Gateway::start(LOCKED).await;
    gateway.get("/health").await.error(401);
    let page = get(&gateway, "/health", MASTER).await.json();
    assert_eq!(page["healthy_count"], 3);
    assert_eq!(page["unhealthy_count"], 0);
    assert_eq!(page["unhealthy_endpoints"], serde_json::json!([]));

    let page = get(&gateway, "/health", BATCH).await.json();
    let free = serde_json::json!([{"model": "up", "model_name": "free", "model_id": "free-1"}]);
    assert_eq!(page["healthy_endpoints"], free);

    for (query, healthy) in [("short", 1), ("team/other", 1), ("nope", 0)] {
        let page = get(&gateway, &format!("/health?model={query}"), MASTER).await;
        assert_eq!(page.json()["healthy_count"], healthy, "{query}");
    }
    get(&gateway, "/health?model=%FF&model=b", MASTER)
        .await
        .error(400);
}

#[tokio::test]
async fn health_shows_a_cooling_deployment_as_unhealthy() {
    let gateway = Gateway::start(LOCKED).await;
    let body = chat("broken", "");
    let refused = gateway.post("/chat/completions", &[MASTER], &body).await;
    refused.error(429);
    let unhealthy =
        || async { get(&gateway, "/health", MASTER).await.json()["unhealthy_count"] == 1 };
    gateway.until("one unhealthy deployment", unhealthy).await;
    let page = get(&gateway, "/health", MASTER).await.json();
    assert_eq!(page["healthy_count"], 2);
    let broken = &page["unhealthy_endpoints"][0];
    assert_eq!(broken["model_id"], "broken-1");
    let error = broken["error"].as_str().unwrap();
    assert!(error.starts_with("cooling down"), "{error}");
}

#[tokio::test]
async fn web_pages_of_any_origin_may_call_the_api_with_a_key() {
    let gateway = Gateway::start(LOCKED).await;
    for path in [
        "/v1/chat/completions",
        "/models",
        "/engines/free/completions",
        "/health",
    ] {
        let answer = preflight(&gateway, path, PAGE).await;
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
        assert_eq!(answer.header("access-control-allow-credentials"), None);
        let allowed = answer.header("access-control-allow-headers").unwrap();
        assert!(allowed.contains("authorization"), "{allowed}");
        let methods = answer.header("access-control-allow-methods").unwrap();
        assert!(methods.contains("POST"), "{methods}");
    }
    // A page can read answers and refusals, with our headers.
    let page = ("origin", PAGE);
    for (key, status) in [(BATCH, 200), (("authorization", "wrong"), 401)] {
        let answer = gateway
            .post("/v1/chat/completions", &[page, key], &chat("free", ""))
            .await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
        assert_eq!(answer.header("access-control-expose-headers"), Some("*"));
    }
    // No key protects these.
    for path in ["/metrics", "/health/readiness"] {
        let answer = gateway.request("GET", path, &[page], "").await;
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.header("access-control-allow-origin"), None, "{path}");
    }
}

#[tokio::test]
async fn without_keys_only_local_web_pages_may_call_the_api() {
    let open = LOCKED.split("general_settings").next().unwrap();
    let gateway = Gateway::start(open).await;
    let path = "/v1/chat/completions";
    let local = "http://localhost:5173";
    let allowed = preflight(&gateway, path, local).await;
    assert_eq!(allowed.header("access-control-allow-origin"), Some(local));
    let foreign = preflight(&gateway, path, PAGE).await;
    assert_eq!(foreign.header("access-control-allow-origin"), None);

    let gateway = Gateway::start(&format!(
        "{open}vorrang_settings: {{cors_origins: ['{PAGE}']}}\n"
    ))
    .await;
    for (origin, allowed) in [(PAGE, Some(PAGE)), (local, None)] {
        let answer = preflight(&gateway, path, origin).await;
        assert_eq!(answer.header("access-control-allow-origin"), allowed);
    }
}

#[tokio::test]
async fn empty_path_segments_and_trailing_slash_are_ignored() {
    let gateway = Gateway::start(LOCKED).await;
    for path in [
        "//v1/chat/completions",
        "/v1//chat/completions",
        "/v1/chat/completions/",
        "//chat/completions/?api-version=1",
        "//engines/free/chat/completions/",
    ] {
        let answer = gateway.post(path, &[MASTER], &chat("free", "")).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    }
    for path in [
        "//v1/models/",
        "/v1//models/free/",
        "//health",
        "/health/readiness/",
    ] {
        assert_eq!(get(&gateway, path, MASTER).await.status, 200, "{path}");
    }
    get(&gateway, "//nope/", MASTER).await.error(404);
}
