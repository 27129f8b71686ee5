//! Who reaches the admin API, and what a request learns of its place in the queue.

use crate::support::*;

/// A request of a program that calls the server by this host.
async fn by_host(gateway: &Gateway, host: &str, more: &str) -> Answer {
    let head = format!("GET /admin/overview HTTP/1.1\r\nhost: {host}\r\n{more}");
    let request = format!("{head}connection: close\r\n\r\n");
    Answer::read(gateway.send(request.as_bytes()).await).await
}

/// The page of another site may have its own name point here, so that its browser asks by that name.
#[tokio::test]
async fn admin_api_without_keys_is_for_programs_of_this_machine() {
    let gateway = Gateway::start(MOCKS).await;
    for host in ["localhost", "127.0.0.1:4000", "[::1]:4000"] {
        let answer = by_host(&gateway, host, "").await;
        assert_eq!(answer.status, 200, "{host}: {}", answer.text());
        assert_eq!(answer.json()["instances"][0]["answered"], true);
    }
    for host in ["page.example", "localhost.page.example", "10.0.0.1"] {
        by_host(&gateway, host, "").await.error(403);
    }
    // Nor may a page of another origin read it.
    let answer = by_host(&gateway, "localhost", "origin: http://localhost:5173\r\n").await;
    assert_eq!(answer.header("access-control-allow-origin"), None);
    let preflight = "OPTIONS /admin/groups/free/pause HTTP/1.1\r\nhost: localhost\r\norigin: http://localhost:5173\r\n\
                     access-control-request-method: POST\r\nconnection: close\r\n\r\n";
    let answer = Answer::read(gateway.send(preflight.as_bytes()).await).await;
    assert_eq!(answer.status, 405);
    assert_eq!(answer.header("access-control-allow-origin"), None);
}

#[tokio::test]
async fn timed_out_request_learns_its_last_position_and_least_wait() {
    let gateway = Gateway::start(MOCKS).await;
    assert_eq!(Answer::read(gateway.chat("tight").await).await.status, 200);
    let first = gateway.chat("tight").await;
    gateway.until_waiting("tight", 1.0).await;
    let short = [("x-litellm-timeout", "0.5")];
    let path = "/v1/chat/completions";
    let late = gateway.post(path, &short, &chat("tight", "")).await;
    late.error(408);
    assert_eq!(late.header("x-vorrang-position"), Some("2"));
    let error = &late.json()["error"];
    assert_eq!(error["position"], 2);
    let least = error["least_wait_ms"].as_u64().unwrap();
    assert!(least > 0, "{error}");
    assert_eq!(
        late.header("x-vorrang-least-wait-ms"),
        Some(least.to_string().as_str())
    );
    drop(first);
}

const LIMITED: &str = "
model_list:
  - model_name: tight
    litellm_params: {model: openai/tight, mock_response: hello, rpm: 1, tpm: 6000}
general_settings: {master_key: sk-master}
vorrang_settings:
  keys: [{name: batch, key: sk-batch}, {name: app, key: sk-app}]
";

const MASTER: (&str, &str) = ("authorization", "Bearer sk-master");

async fn look(gateway: &Gateway, path: &str) -> Answer {
    gateway.request("GET", path, &[MASTER], "").await
}

async fn act(gateway: &Gateway, path: &str, body: &str) -> Answer {
    let path = format!("/admin/groups/tight/{path}");
    gateway.post(&path, &[MASTER], body).await
}

/// A typing error is no empty answer, and no other request than the one that was meant.
#[tokio::test]
async fn queries_and_bodies_with_typing_errors_are_refused() {
    let gateway = Gateway::start(LIMITED).await;
    let tickets = "/admin/groups/tight/tickets";
    for (path, status, word) in [
        (format!("{tickets}?from=0&from=1"), 400, "more than once"),
        (format!("{tickets}?form=3"), 400, "from, limit"),
        (format!("{tickets}?tenant=zz"), 400, "no tenants"),
        (
            format!("{tickets}?key=nobody"),
            404,
            "no key of the name nobody",
        ),
        (format!("{tickets}?instance=none"), 404, "no instance none"),
        ("/admin/overview?group=tight".into(), 400, "none is known"),
        ("/admin/requests?gruop=tight".into(), 400, "group, limit"),
        (
            "/v1/queue/preview?model=tight&priorty=3".into(),
            400,
            "priorty",
        ),
    ] {
        let (message, _) = look(&gateway, &path).await.error(status);
        assert!(message.contains(word), "{path}: {message}");
    }
    let overview = look(&gateway, "/admin/overview").await.json();
    let own = overview["answered_by"].as_str().unwrap();
    for filter in ["key=batch", "key=%23abc", &format!("instance={own}")] {
        let page = look(&gateway, &format!("{tickets}?{filter}&limit=9")).await;
        assert_eq!(page.status, 200, "{filter}: {}", page.text());
    }
    for (path, body) in [
        ("pause", r#"["batch"]"#),
        ("pause", "[]"),
        ("limits", r#"["tight", "rpm", 5]"#),
        ("pause?key=batch", "{}"),
    ] {
        act(&gateway, path, body).await.error(400);
    }
    let group = look(&gateway, "/admin/groups/tight").await.json();
    assert_eq!(
        (&group["paused"], &group["paused_keys"]),
        (&false.into(), &serde_json::json!([]))
    );
}

/// A ticket has one name, and who cancels it second learns that it was cancelled.
#[tokio::test]
async fn cancelled_ticket_is_named_as_cancelled_and_leading_zeros_name_none() {
    let gateway = Gateway::start(LIMITED).await;
    let path = "/v1/chat/completions";
    assert_eq!(
        gateway
            .post(path, &[MASTER], &chat("tight", ""))
            .await
            .status,
        200
    );
    let request = request("POST", path, &[MASTER], &chat("tight", ""));
    let waits = gateway.send(&request).await;
    let page = || look(&gateway, "/admin/groups/tight/tickets");
    gateway
        .until("one ticket", || async {
            page().await.json()["tickets"][0]["call_id"].is_string()
        })
        .await;
    let page = page().await.json();
    let ticket = page["tickets"][0]["ticket"].as_str().unwrap();
    for name in [
        format!("0{ticket}"),
        format!("+{ticket}"),
        format!("%20{ticket}"),
    ] {
        act(&gateway, &format!("tickets/{name}/cancel"), "{}")
            .await
            .error(404);
    }
    let cancel = format!("tickets/{ticket}/cancel");
    act(&gateway, &format!("tickets/{ticket}/move"), "[1]")
        .await
        .error(400);
    act(&gateway, &cancel, r#"["a duplicate"]"#)
        .await
        .error(400);
    let done = act(&gateway, &cancel, r#"{"reason": "a duplicate"}"#).await;
    assert_eq!(done.status, 200, "{}", done.text());
    Answer::read(waits).await.error(409);
    let (message, _) = act(&gateway, &cancel, "{}").await.error(409);
    assert!(
        message.ends_with("it was cancelled (a duplicate)"),
        "{message}"
    );
}

#[tokio::test]
async fn preview_of_a_request_that_never_fits_is_refused() {
    let gateway = Gateway::start(LIMITED).await;
    let preview = |tokens: u64| {
        let path = format!("/v1/queue/preview?model=tight&tokens={tokens}");
        let gateway = &gateway;
        async move { look(gateway, &path).await }
    };
    let fits = preview(6000).await;
    assert_eq!(fits.json()["position"], 1, "{}", fits.text());
    let (message, _) = preview(6001).await.error(400);
    assert!(message.contains("more than 6000"), "{message}");
    // As the request itself.
    let body = chat("tight", r#", "max_tokens": 6001"#);
    gateway
        .post("/v1/chat/completions", &[MASTER], &body)
        .await
        .error(400);
    let change = r#"{"deployment": "tight", "limit": "tpm", "value": 500}"#;
    let overview = look(&gateway, "/admin/groups/tight").await.json();
    let id = overview["deployments"][0]["id"].as_str().unwrap();
    let changed = act(&gateway, "limits", &change.replacen("tight", id, 1)).await;
    assert_eq!(changed.status, 200, "{}", changed.text());
    preview(501).await.error(400);
    assert_eq!(preview(500).await.status, 200);
}

/// Nobody knows how long an operator pauses: 0 would say that it is next.
#[tokio::test]
async fn paused_requests_have_no_least_wait() {
    let gateway = Gateway::start(LIMITED).await;
    let of_batch = ("authorization", "Bearer sk-batch");
    let of_app = ("authorization", "Bearer sk-app");
    let preview = |key| {
        let path = "/v1/queue/preview?model=tight";
        let gateway = &gateway;
        async move { gateway.request("GET", path, &[key], "").await.json() }
    };
    let running = preview(of_batch).await;
    assert_eq!(
        (&running["paused"], &running["least_wait_ms"]),
        (&false.into(), &0.into())
    );

    let by_master = act(&gateway, "pause", r#"{"key": "master key"}"#).await;
    let (message, _) = by_master.error(400);
    assert!(message.contains("Pause the group"), "{message}");
    for what in [r#"{"key": "batch"}"#, "{}"] {
        assert_eq!(act(&gateway, "pause", what).await.status, 200);
        let seen = preview(of_batch).await;
        assert_eq!(seen["paused"], true, "{what}: {seen}");
        assert!(seen["least_wait_ms"].is_null(), "{what}: {seen}");
        let others = preview(of_app).await;
        assert_eq!(others["paused"], what == "{}", "{what}: {others}");

        let short = [of_batch, ("x-litellm-timeout", "0.5")];
        let late = gateway
            .post("/v1/chat/completions", &short, &chat("tight", ""))
            .await;
        late.error(408);
        assert_eq!(late.header("x-vorrang-least-wait-ms"), None);
        assert!(
            late.json()["error"]["least_wait_ms"].is_null(),
            "{}",
            late.text()
        );

        let early = [
            of_batch,
            ("x-litellm-timeout", "0.5"),
            ("x-vorrang-keepalive", "true"),
        ];
        let body = chat("tight", r#", "stream": true"#);
        let stream = gateway
            .post("/v1/chat/completions", &early, &body)
            .await
            .text();
        assert!(stream.starts_with(": queued"), "{stream}");
        let least = stream.contains("least_wait_ms=") || stream.contains("least-wait-ms");
        assert!(!least, "{what}: {stream}");
        assert_eq!(act(&gateway, "resume", what).await.status, 200);
    }
}
