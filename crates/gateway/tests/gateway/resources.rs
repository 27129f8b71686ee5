//! Files, batches and fine-tuning jobs at the accounts of the configuration.

use std::{sync::Arc, time::Duration};

use crate::support::*;
use http::{HeaderValue, Method, StatusCode};
use vorrang_gateway::{ErrorKind, KeyPolicy, Resource, ResourceCall, Router, Setting};

const TYPE: &str = "multipart/form-data; boundary=b";

/// Accounts at OpenAI, at Azure by version and at Azure's `/openai/v1`, all of them at one server.
fn accounts(base: &str) -> String {
    let root = base.trim_end_matches("/v1");
    mock("", "")
        + &format!(
            "
files_settings:
- {{custom_llm_provider: openai, api_base: '{base}', api_key: sk-secret, organization: org-1}}
- {{custom_llm_provider: azure, api_base: '{root}', api_key: azure-secret, api_version: 2025-04-01-preview}}
- {{custom_llm_provider: hosted_vllm, api_base: '{root}/vllm/v1'}}
finetune_settings:
- {{custom_llm_provider: azure, api_base: '{root}/', api_key: azure-secret, api_version: latest}}
"
        )
}

fn started(base: &str) -> Router {
    router(&accounts(base)).0
}

fn call(resource: Resource, method: Method, id: &str, action: &'static str) -> ResourceCall {
    let mut call = ResourceCall::new(resource, method);
    call.id = (!id.is_empty()).then(|| id.to_owned());
    call.action = action;
    call
}

fn list() -> ResourceCall {
    ResourceCall::new(Resource::Files, Method::GET)
}

fn at(provider: &str, mut call: ResourceCall) -> ResourceCall {
    call.provider = Some(provider.into());
    call
}

fn field(name: &str, value: &str) -> String {
    format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
}

fn file(content: &str) -> String {
    format!(
        "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.jsonl\"\r\n\r\n{content}\r\n"
    )
}

fn upload(parts: &[String]) -> ResourceCall {
    let mut call = ResourceCall::new(Resource::Files, Method::POST);
    call.body = format!("{}--b--\r\n", parts.concat()).into();
    call.content_type = Some(HeaderValue::from_static(TYPE));
    call
}

fn batch(body: &str) -> ResourceCall {
    let mut call = ResourceCall::new(Resource::Batches, Method::POST);
    call.body = body.to_owned().into();
    call
}

const NEEDED: &str =
    r#""input_file_id":"f","endpoint":"/v1/chat/completions","completion_window":"24h""#;

#[tokio::test]
async fn each_call_reaches_its_account_by_path_query_and_key() {
    let mut upstream = Upstream::start([]).await;
    let router = started(&upstream.base);
    let batch = || batch(&format!("{{{NEEDED}}}"));
    let mut job = ResourceCall::new(Resource::FineTuningJobs, Method::POST);
    job.body = r#"{"model":"gpt","training_file":"f"}"#.into();
    let version = Some("api-version=2025-04-01-preview");
    let bearer = ("authorization", "Bearer sk-secret");
    let key = ("api-key", "azure-secret");
    for (call, path, query, (name, value)) in [
        (list(), "/v1/files", None, bearer),
        (
            call(Resource::Files, Method::GET, "file-1", ""),
            "/v1/files/file-1",
            None,
            bearer,
        ),
        (
            call(Resource::Files, Method::DELETE, "file-1", ""),
            "/v1/files/file-1",
            None,
            bearer,
        ),
        (
            call(Resource::Files, Method::GET, "file-1", "/content"),
            "/v1/files/file-1/content",
            None,
            bearer,
        ),
        (
            call(Resource::Files, Method::GET, "a/../b?c", ""),
            "/v1/files/a%2F..%2Fb%3Fc",
            None,
            bearer,
        ),
        (batch(), "/v1/batches", None, bearer),
        (
            call(Resource::Batches, Method::POST, "batch-1", "/cancel"),
            "/v1/batches/batch-1/cancel",
            None,
            bearer,
        ),
        (at("azure", list()), "/openai/files", version, key),
        (at("azure", batch()), "/openai/batches", version, key),
        (at("azure", job), "/openai/v1/fine_tuning/jobs", None, key),
    ] {
        let method = call.method.clone();
        let answer = router.call_resource(call).await.unwrap();
        assert_eq!(answer.status, StatusCode::OK);
        let seen = upstream.next().await;
        assert_eq!(
            (seen.method, &*seen.path, seen.query.as_deref()),
            (method, path, query)
        );
        assert_eq!(seen.headers[name], value, "{path}");
        assert_eq!(
            seen.headers.contains_key("openai-organization"),
            name == "authorization"
        );
    }
    router
        .call_resource(at("hosted_vllm", list()))
        .await
        .unwrap();
    let seen = upstream.next().await;
    assert_eq!(seen.path, "/vllm/v1/files");
    assert!(
        !seen.headers.contains_key("authorization"),
        "an account without a key"
    );
}

#[tokio::test]
async fn provider_is_that_of_path_or_headers_then_of_query_then_of_body_then_openai() {
    let mut upstream = Upstream::start([]).await;
    let router = started(&upstream.base);
    let form = || {
        upload(&[
            field("purpose", "batch"),
            file("{}"),
            field("custom_llm_provider", "azure"),
        ])
    };
    let with = |query: &str, mut call: ResourceCall| {
        call.query = Some(query.into());
        call
    };
    let json = batch(&format!(r#"{{{NEEDED},"custom_llm_provider":"azure"}}"#));
    for (call, path, query) in [
        (form(), "/openai/files", "api-version=2025-04-01-preview"),
        (
            with("custom_llm_provider=hosted_vllm&x=1", form()),
            "/vllm/v1/files",
            "x=1",
        ),
        (
            at("openai", with("custom_llm_provider=azure", form())),
            "/v1/files",
            "",
        ),
        (json, "/openai/batches", "api-version=2025-04-01-preview"),
        (
            with(
                "limit=2&custom_llm_provider=azure&after=a%26b&api-version=1",
                list(),
            ),
            "/openai/files",
            "api-version=2025-04-01-preview&limit=2&after=a%26b",
        ),
    ] {
        router.call_resource(call).await.unwrap();
        let seen = upstream.next().await;
        assert_eq!(
            (&*seen.path, seen.query.unwrap_or_default().as_str()),
            (path, query)
        );
        let body = String::from_utf8_lossy(&seen.body);
        assert!(!body.contains("custom_llm_provider"), "{body}");
    }
}

#[tokio::test]
async fn body_passes_but_for_fields_that_steer_the_gateway() {
    let mut upstream = Upstream::start([]).await;
    let router = started(&upstream.base);
    // Large enough to be read on a thread of its own.
    let content = file(&"{\"a\": 1}\r\n".repeat(100_000));
    let kept = [
        field("purpose", "batch"),
        content,
        field("expires_after[seconds]", "3600"),
    ];
    let [purpose, content, expires] = kept.clone();
    let form = upload(&[
        purpose,
        field("custom_llm_provider", "openai"),
        content,
        field("no-log", "true"),
        expires,
    ]);
    router.call_resource(form).await.unwrap();
    let seen = upstream.next().await;
    assert_eq!(seen.body, format!("{}--b--\r\n", kept.concat()));
    assert_eq!(seen.headers["content-type"], TYPE);
    assert_eq!(
        seen.headers["content-length"],
        seen.body.len().to_string().as_str()
    );

    let json = format!(
        r#"{{ {NEEDED}, "metadata": {{"a":"b"}}, "custom_llm_provider":"openai","x":1.0,"cache":true}}"#
    );
    router.call_resource(batch(&json)).await.unwrap();
    let seen = upstream.next().await;
    assert_eq!(
        seen.body,
        format!(r#"{{{NEEDED},"metadata":{{"a":"b"}},"x":1.0}}"#)
    );
    assert_eq!(seen.headers["content-type"], "application/json");

    router
        .call_resource(call(Resource::Batches, Method::POST, "b", "/cancel"))
        .await
        .unwrap();
    let seen = upstream.next().await;
    assert_eq!(
        (seen.body.len(), seen.headers.contains_key("content-type")),
        (0, false)
    );
}

#[tokio::test]
async fn wrong_request_is_a_400_and_no_call() {
    let upstream = Upstream::start([]).await;
    let router = started(&upstream.base);
    let query = |query: &str| {
        let mut call = list();
        call.query = Some(query.into());
        call
    };
    for (call, words, param) in [
        (
            at("mistral", list()),
            "/files: the provider mistral has no account here: files_settings",
            Some("custom_llm_provider"),
        ),
        (
            ResourceCall::new(Resource::FineTuningJobs, Method::GET),
            "the provider openai has no account here: finetune_settings",
            Some("custom_llm_provider"),
        ),
        (
            upload(&[field("purpose", "batch")]),
            "Missing required parameter: 'file'.",
            Some("file"),
        ),
        (
            upload(&[file("x")]),
            "Missing required parameter: 'purpose'.",
            Some("purpose"),
        ),
        (
            upload(&[file("x"), field("purpose", "a"), field("model", "m")]),
            "'model' is not served here",
            Some("model"),
        ),
        (
            upload(&[file("x"), field("purpose", "a"), field("api_key", "k")]),
            "'api_key' is not allowed",
            Some("api_key"),
        ),
        (
            query("target_model_names=m"),
            "'target_model_names' is not served",
            Some("target_model_names"),
        ),
        (
            batch("{}"),
            "Missing required parameter: 'input_file_id'.",
            Some("input_file_id"),
        ),
        (batch("[]"), "expected a JSON object", None),
        (
            batch(&format!(r#"{{{NEEDED},"custom_llm_provider":1}}"#)),
            "expected a string",
            Some("custom_llm_provider"),
        ),
        (
            batch(&format!(r#"{{{NEEDED},"api_base":"http://x"}}"#)),
            "'api_base' is not allowed",
            Some("api_base"),
        ),
        (
            call(Resource::Files, Method::GET, "..", "/content"),
            "the path names no id",
            None,
        ),
    ] {
        let error = router.call_resource(call).await.unwrap_err();
        assert_eq!(
            (error.status(), error.param()),
            (StatusCode::BAD_REQUEST, param),
            "{words}"
        );
        assert!(error.message().contains(words), "{}", error.message());
    }
    let mut form = upload(&[file("x"), field("purpose", "a")]);
    form.content_type = None;
    let error = router.call_resource(form).await.unwrap_err();
    assert!(error.message().contains("multipart/form-data"), "{error}");
    let mut late = list();
    late.timeout = Setting::seconds("0");
    assert_eq!(
        router.call_resource(late).await.unwrap_err().param(),
        Some("timeout")
    );
    assert_eq!(upstream.pending(), 0);
}

#[tokio::test]
async fn key_with_models_may_use_files_and_neither_batches_nor_fine_tuning() {
    let upstream = Upstream::start([]).await;
    let router = started(&upstream.base);
    let key = || KeyPolicy {
        models: Some(vec!["m".into()]),
        ..KeyPolicy::default()
    };
    for resource in [Resource::Batches, Resource::FineTuningJobs] {
        let mut call = ResourceCall::new(resource, Method::GET);
        call.key = Some(key());
        let error = router.call_resource(call).await.unwrap_err();
        assert_eq!(
            (error.status(), error.kind()),
            (StatusCode::FORBIDDEN, ErrorKind::ModelAccessDenied)
        );
    }
    assert_eq!(upstream.pending(), 0);
    let mut call = list();
    call.key = Some(key());
    router.call_resource(call).await.unwrap();
}

#[tokio::test]
async fn answer_passes_with_its_status_headers_and_bytes_and_is_counted() {
    let headers = vec![
        ("content-type", "application/octet-stream".to_owned()),
        ("content-disposition", "attachment; filename=a".to_owned()),
        ("x-request-id", "for sk-secret".to_owned()),
        ("set-cookie", "a=b".to_owned()),
    ];
    let content = bytes::Bytes::from("\u{0}line\n".repeat(200_000));
    let coded = vec![("content-encoding", "gzip".to_owned())];
    let upstream = Upstream::start([
        Reply::With(StatusCode::CREATED, headers, content.clone()),
        Reply::With(StatusCode::OK, coded, gzip(b"plain")),
    ])
    .await;
    let router = started(&upstream.base);
    let log = Arc::new(Log::default());
    let mut call = call(Resource::Files, Method::GET, "f", "/content");
    call.events = log.clone();
    call.call_id = "id-1".into();
    let answer = router.call_resource(call).await.unwrap();
    assert_eq!(answer.status, StatusCode::CREATED);
    assert_eq!(
        answer.headers["content-disposition"],
        "attachment; filename=a"
    );
    assert_eq!(
        (
            &answer.headers["x-request-id"],
            &answer.headers["x-litellm-call-id"]
        ),
        (&"***".parse().unwrap(), &"id-1".parse().unwrap())
    );
    assert!(!answer.headers.contains_key("set-cookie"));
    assert_eq!(
        http_body::Body::size_hint(&answer.body).exact(),
        Some(content.len() as u64)
    );
    assert_eq!(text(answer.body).await.unwrap(), content);
    assert_eq!(*log.upstream.lock().unwrap(), [("openai".to_owned(), 201)]);
    // A client that names no coding gets none.
    let answer = router.call_resource(list()).await.unwrap();
    assert!(!answer.headers.contains_key("content-encoding"));
    assert_eq!(text(answer.body).await.unwrap(), "plain");
}

#[tokio::test]
async fn upstream_error_passes_without_secrets_and_is_not_tried_again() {
    let body = r#"{"error":{"message":"no sk-secret of org","type":"t","param":null,"code":"c"}}"#;
    let mut upstream = Upstream::start([
        hinting(
            429,
            &[("retry-after", "7"), ("x-should-retry", "true")],
            body,
        ),
        error(404, "<html><title>nothing</title></html>"),
        Reply::With(
            StatusCode::FOUND,
            vec![("location", "http://elsewhere".into())],
            "".into(),
        ),
    ])
    .await;
    let router = started(&upstream.base);
    let refused = router.call_resource(list()).await.unwrap_err();
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.body(), body.replace("sk-secret", "***"));
    assert_eq!(
        (
            &refused.headers()["retry-after"],
            &refused.headers()["x-should-retry"]
        ),
        (&"7".parse().unwrap(), &"true".parse().unwrap())
    );
    let missing = router.call_resource(list()).await.unwrap_err();
    assert_eq!(missing.status(), StatusCode::NOT_FOUND);
    assert!(missing.message().contains("nothing"), "{missing}");
    let moved = router.call_resource(list()).await.unwrap_err();
    assert_eq!(moved.status(), StatusCode::BAD_GATEWAY);
    for _ in 0..3 {
        upstream.next().await;
    }
    assert_eq!(upstream.pending(), 0);
}

#[tokio::test]
async fn upstream_that_is_silent_or_away_is_named() {
    let mut upstream = Upstream::start([Reply::Hang]).await;
    let away = unused_address().await;
    let text = accounts(&upstream.base).replace(
        "files_settings:",
        &format!(
            "files_settings:\n- {{custom_llm_provider: groq, api_base: '{away}', api_key: k}}"
        ),
    );
    let (router, _) = router(&text);
    let mut call = list();
    call.timeout = Setting::Set(Duration::from_millis(50));
    let error = router.call_resource(call).await.unwrap_err();
    assert_eq!(
        (error.status(), error.kind()),
        (StatusCode::REQUEST_TIMEOUT, ErrorKind::Timeout)
    );
    assert!(error.message().contains("openai did not answer"), "{error}");
    upstream.gone().await;
    let error = router.call_resource(at("groq", list())).await.unwrap_err();
    assert_eq!(error.status(), StatusCode::BAD_GATEWAY);
    assert!(!error.message().contains("127.0.0.1"), "{error}");
}

#[tokio::test]
async fn accounts_own_time_bounds_the_beginning_of_an_answer() {
    let upstream = Upstream::start([Reply::Hang]).await;
    let text = accounts(&upstream.base).replace("organization: org-1", "timeout: 0.05");
    let error = router(&text).0.call_resource(list()).await.unwrap_err();
    assert_eq!(error.status(), StatusCode::REQUEST_TIMEOUT);
}

#[tokio::test]
async fn reload_puts_other_accounts_in_force() {
    let mut upstream = Upstream::start([]).await;
    let (router, _) = router(&mock("", ""));
    let error = router.call_resource(list()).await.unwrap_err();
    assert_eq!(error.status(), StatusCode::BAD_REQUEST);
    router.reload(config(&accounts(&upstream.base)));
    router.call_resource(list()).await.unwrap();
    assert_eq!(upstream.next().await.path, "/v1/files");
}
