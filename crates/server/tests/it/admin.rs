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
