//! The paths that call a model.

use std::time::Duration;

use vorrang_gateway::Config;
use vorrang_server::{Patience, welcome};

use crate::support::{Answer, Gateway, MOCKS, chat};

/// The curl line that the demo prints gets a 200, and priority 0 counts as a priority.
#[tokio::test]
async fn curl_line_of_the_demo_gets_200_with_its_priority() {
    let gateway = Gateway::serve(Config::demo(), Patience::default()).await;
    let tour = welcome::tour(("http", gateway.address), "vorrang", false);
    let line = tour
        .lines()
        .find(|line| line.trim_start().starts_with("curl -i"))
        .unwrap();
    let curl = tokio::process::Command::new("sh")
        .args(["-c", line])
        .output();
    let output = String::from_utf8(curl.await.unwrap().stdout).unwrap();
    let output = output.to_lowercase();
    assert!(output.starts_with("http/1.1 200 ok"), "{line}\n{output}");
    assert!(
        output.contains("x-litellm-request-prioritization-used: true"),
        "{output}"
    );
}

#[tokio::test]
async fn paths_work_with_and_without_v1() {
    let gateway = Gateway::start(MOCKS).await;
    for prefix in ["", "/v1"] {
        for path in ["/chat/completions", "/queue/chat/completions"] {
            let body = chat("free", r#", "priority": 0"#);
            let answer = gateway.post(&format!("{prefix}{path}"), &[], &body).await;
            assert_eq!(answer.status, 200, "{prefix}{path}: {}", answer.text());
            assert_eq!(answer.json()["choices"][0]["message"]["content"], "hello");
            assert_eq!(
                answer.header("x-litellm-request-prioritization-used"),
                Some("True")
            );
            assert_eq!(answer.header("x-litellm-priority"), Some("0"));
            assert_eq!(answer.header("x-vorrang-priority"), Some("0"));
            assert_eq!(answer.header("x-litellm-model-group"), Some("free"));
            let ticket = answer.header("x-vorrang-ticket").unwrap();
            assert!(
                ticket.starts_with("arrival=") && ticket.contains(", granted="),
                "{ticket}"
            );
        }
        let body = r#"{"model": "free", "prompt": "hi"}"#;
        let answer = gateway
            .post(&format!("{prefix}/completions"), &[], body)
            .await;
        assert_eq!(answer.json()["choices"][0]["text"], "hello");
    }
}

/// The name in the path overrides the body's, which may be absent. It is percent-decoded and may contain slashes.
#[tokio::test]
async fn model_in_the_path_overrides_the_body() {
    let named = "
  - model_name: a/b \u{e9}%
    litellm_params: {model: openai/x, mock_response: hello}
";
    let gateway = Gateway::start(&format!("{MOCKS}{named}")).await;
    for prefix in ["/engines", "/openai/deployments"] {
        for (path, group) in [
            ("free", "free"),
            ("a/b%20%C3%A9%25", "a/b \u{e9}%"),
            ("a%2Fb%20%c3%a9%25", "a/b \u{e9}%"),
        ] {
            for body in [
                chat("tight", r#", "priority": 3"#),
                r#"{"messages": [], "priority": 3}"#.into(),
            ] {
                let path = format!("{prefix}/{path}/chat/completions");
                let answer = gateway.post(&path, &[], &body).await;
                assert_eq!(answer.status, 200, "{path}: {}", answer.text());
                assert_eq!(answer.json()["choices"][0]["message"]["content"], "hello");
                assert_eq!(answer.header("x-vorrang-priority"), Some("3"));
                assert_eq!(answer.header("x-litellm-model-group"), Some(group));
            }
            let path = format!("{prefix}/{path}/completions?api-version=2024-02-01");
            for body in [r#"{"prompt": "hi"}"#, r#"{"prompt": "hi", "model": 1}"#] {
                let answer = gateway.post(&path, &[], body).await;
                assert_eq!(answer.status, 200, "{path}: {}", answer.text());
                assert_eq!(answer.json()["choices"][0]["text"], "hello");
            }
        }
        let nope = format!("{prefix}/nope/chat/completions");
        let (message, _) = gateway.post(&nope, &[], &chat("free", "")).await.error(400);
        assert!(
            message.starts_with("/chat/completions: Invalid model name passed in model=nope."),
            "{message}"
        );
        let broken = format!("{prefix}/%FF/chat/completions");
        gateway
            .post(&broken, &[], &chat("free", ""))
            .await
            .error(400);
        for nothing in [
            "/free",
            "/free/nonsense",
            "//chat/completions",
            "/completions",
        ] {
            let path = format!("{prefix}{nothing}");
            gateway.post(&path, &[], &chat("free", "")).await.error(404);
        }
        let get = gateway.get(&format!("{prefix}/free/completions")).await;
        get.error(405);
        assert_eq!(get.header("allow"), Some("POST"));
    }
}

/// A mock answers embeddings, and has nothing for a rerank: what matters here is which endpoint a path means.
#[tokio::test]
async fn endpoints_are_served_at_all_of_their_paths() {
    let gateway = Gateway::start(MOCKS).await;
    let prefixes = ["", "/v1", "/engines/free", "/openai/deployments/free"];
    for prefix in prefixes {
        let path = format!("{prefix}/embeddings");
        let answer = gateway
            .post(
                &path,
                &[],
                r#"{"model": "free", "input": ["a", "b"], "priority": 4}"#,
            )
            .await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        assert_eq!(answer.json()["data"][1]["object"], "embedding");
        assert_eq!(answer.header("x-vorrang-priority"), Some("4"));
        assert_eq!(answer.header("x-litellm-model-group"), Some("free"));
    }
    for path in [
        "/rerank",
        "/v1/rerank",
        "/v2/rerank",
        "/engines/free/rerank",
    ] {
        let body = r#"{"model": "free", "query": "q", "documents": ["d"]}"#;
        let (message, _) = gateway.post(path, &[], body).await.error(400);
        assert!(
            message.starts_with("/rerank: free is answered by mock_response"),
            "{message}"
        );
    }
    // A path that ends like another endpoint's.
    let body = r#"{"model": "free", "input": "hi"}"#;
    let path = "/engines/free/chat/completions";
    let (message, _) = gateway.post(path, &[], body).await.error(400);
    assert!(message.contains("'messages'"), "{message}");
}

#[tokio::test]
async fn forms_are_read_unless_a_page_sends_them_without_a_key() {
    let gateway = Gateway::start(MOCKS).await;
    let file =
        "--X\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\nsound\r\n";
    let kind = ("content-type", "multipart/form-data; boundary=X");
    let path = "/openai/deployments/free/audio/transcriptions";
    let body = format!("{file}--X--");
    let (message, _) = gateway.post(path, &[kind], &body).await.error(400);
    assert!(
        message.starts_with("/audio/transcriptions: free is answered by mock_response"),
        "{message}"
    );
    let page = ("origin", "http://localhost:1");
    gateway.post(path, &[kind, page], &body).await.error(415);
    let key = ("authorization", "Bearer any");
    gateway
        .post(path, &[kind, page, key], &body)
        .await
        .error(400);
    let (message, _) = gateway.post(path, &[kind], "--X--").await.error(400);
    assert!(message.contains("'file'"), "{message}");
}

#[tokio::test]
async fn queue_path_requires_a_priority_in_the_body() {
    let gateway = Gateway::start(MOCKS).await;
    let path = "/queue/chat/completions";
    gateway.post(path, &[], &chat("free", "")).await.error(400);
    let named = gateway
        .post(path, &[], &chat("free", r#", "priority": 7"#))
        .await;
    assert_eq!(
        (named.status, named.header("x-litellm-priority")),
        (200, Some("7"))
    );
}

#[tokio::test]
async fn headers_set_priority_and_timeout() {
    let gateway = Gateway::start(MOCKS).await;
    let path = "/v1/chat/completions";
    let answer = gateway
        .post(path, &[("x-vorrang-priority", "-3")], &chat("free", ""))
        .await;
    assert_eq!(answer.header("x-vorrang-priority"), Some("-3"));
    gateway
        .post(path, &[("x-vorrang-priority", "best")], &chat("free", ""))
        .await
        .error(400);
    gateway
        .post(path, &[("x-vorrang-priority", "\u{e9}")], &chat("free", ""))
        .await
        .error(400);

    assert_eq!(Answer::read(gateway.chat("tight").await).await.status, 200);
    let short = [("x-litellm-timeout", "0.2")];
    let late = gateway.post(path, &short, &chat("tight", "")).await;
    let (message, _) = late.error(408);
    assert!(
        message.contains("Request timed out while polling queue"),
        "{message}"
    );
    assert_eq!(late.header("x-should-retry"), Some("false"));
}

#[tokio::test]
async fn unknown_model_gets_litellms_400() {
    let gateway = Gateway::start(MOCKS).await;
    let (message, kind) = gateway
        .post("/v1/chat/completions", &[], &chat("nope", ""))
        .await
        .error(400);
    assert_eq!(
        message,
        "/chat/completions: Invalid model name passed in model=nope. Call `/v1/models` to view available models for your key."
    );
    assert_eq!(kind, "invalid_request_error");
}

#[tokio::test]
async fn stream_is_server_sent_events_until_done() {
    let gateway = Gateway::start(MOCKS).await;
    let answer = gateway
        .post(
            "/chat/completions",
            &[],
            &chat("free", r#", "stream": true"#),
        )
        .await;
    assert_eq!(answer.status, 200);
    assert!(
        answer
            .header("content-type")
            .unwrap()
            .starts_with("text/event-stream")
    );
    assert!(answer.complete);
    let text = answer.text();
    assert!(
        text.starts_with("data: {") && text.trim_end().ends_with("data: [DONE]"),
        "{text}"
    );
}

#[tokio::test]
async fn call_id_of_the_client_is_returned() {
    let gateway = Gateway::start(MOCKS).await;
    let named = [("x-litellm-call-id", "my-id-1")];
    for path in ["/chat/completions", "/nonsense"] {
        let answer = gateway.post(path, &named, &chat("free", "")).await;
        assert_eq!(
            answer.header("x-litellm-call-id"),
            Some("my-id-1"),
            "{path}"
        );
    }
    let unfit = "x".repeat(129);
    let answer = gateway
        .post(
            "/chat/completions",
            &[("x-litellm-call-id", &unfit)],
            &chat("free", ""),
        )
        .await;
    assert_eq!(
        answer.header("x-litellm-call-id").unwrap().len(),
        36,
        "a new one"
    );
}

/// A2: a request that finds its window full gets no 429; it waits for the next window.
#[tokio::test]
async fn request_beyond_the_limit_waits_for_the_next_window() {
    let config = format!("{MOCKS}vorrang_settings: {{window_seconds: 1}}\n");
    let gateway = Gateway::start(&config).await;
    let started = tokio::time::Instant::now();
    for _ in 0..3 {
        assert_eq!(Answer::read(gateway.chat("tight").await).await.status, 200);
    }
    assert!(
        started.elapsed() >= Duration::from_secs(2),
        "three in {:?}",
        started.elapsed()
    );
}
