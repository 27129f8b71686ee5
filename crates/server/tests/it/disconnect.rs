//! A7: a ticket leaves the queue at once when its client disconnects.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

use crate::support::{AT_MOST, Answer, Gateway, MOCKS, chat, request};

/// A7, HTTP/1: hyper drops the handler when the connection closes, and with it the ticket.
#[tokio::test]
async fn http_1_disconnect_leaves_the_queue() {
    let gateway = Gateway::start(MOCKS).await;
    assert_eq!(Answer::read(gateway.chat("tight").await).await.status, 200);
    let first = gateway.chat("tight").await;
    let second = gateway.chat("tight").await;
    gateway.until_waiting("tight", 2.0).await;
    drop(first);
    gateway.until_waiting("tight", 1.0).await;
    // A reset instead of an orderly end, as from a killed process with unread data.
    second.set_zero_linger().unwrap();
    drop(second);
    gateway.until_waiting("tight", 0.0).await;
    let page = gateway.get("/metrics").await.text();
    assert!(
        page.contains(r#"vorrang_refused_total{group="tight",reason="gone"} 2"#),
        "{page}"
    );
}

/// A7, HTTP/1: bytes after the request do not hide a disconnect, although hyper reads them only after its answer.
#[tokio::test]
async fn disconnect_behind_pipelined_bytes_leaves_the_queue() {
    let gateway = Gateway::start(MOCKS).await;
    assert_eq!(Answer::read(gateway.chat("tight").await).await.status, 200);
    let whole = request("POST", "/chat/completions", &[], &chat("tight", ""));
    let keep = |bytes: &[u8]| {
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        text.replace("connection: close\r\n", "").into_bytes()
    };
    let pipelined = keep(&whole);
    let many = pipelined.repeat(200);
    for more in [b"\r\n".as_slice(), b"P", &pipelined, &many] {
        let mut client = gateway.send(&pipelined).await;
        gateway.until_waiting("tight", 1.0).await;
        client.write_all(more).await.unwrap();
        drop(client);
        gateway.until_waiting("tight", 0.0).await;
    }
}

/// A client that closes its sending side counts as disconnected: both look the same to the server.
#[tokio::test]
async fn half_closed_client_leaves_the_queue_and_gets_no_answer() {
    let gateway = Gateway::start(MOCKS).await;
    assert_eq!(Answer::read(gateway.chat("tight").await).await.status, 200);
    let mut client = gateway.chat("tight").await;
    gateway.until_waiting("tight", 1.0).await;
    client.shutdown().await.unwrap();
    gateway.until_waiting("tight", 0.0).await;
    let mut seen = Vec::new();
    client.read_to_end(&mut seen).await.unwrap();
    assert_eq!(seen, b"");
}

/// Pipelined requests that came while the first one waited are answered after it.
#[tokio::test]
async fn pipelined_requests_behind_a_waiting_one_are_answered() {
    let config = format!("{MOCKS}vorrang_settings: {{window_seconds: 1}}\n");
    let gateway = Gateway::start(&config).await;
    assert_eq!(Answer::read(gateway.chat("tight").await).await.status, 200);
    let text = String::from_utf8(request(
        "POST",
        "/chat/completions",
        &[],
        &chat("tight", ""),
    ))
    .unwrap();
    let mut client = gateway
        .send(text.replace("connection: close\r\n", "").as_bytes())
        .await;
    gateway.until_waiting("tight", 1.0).await;
    let next = b"GET /health/liveliness HTTP/1.1\r\nhost: test\r\n";
    client.write_all(next).await.unwrap();
    client
        .write_all(b"connection: close\r\n\r\n")
        .await
        .unwrap();
    let mut seen = String::new();
    timeout(AT_MOST, client.read_to_string(&mut seen))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(seen.matches("HTTP/1.1 200 OK").count(), 2, "{seen}");
    assert!(seen.ends_with("\"I'm alive!\""), "{seen}");
}

/// A7, HTTP/2: a stream reset counts as a disconnect, also if the connection stays.
#[tokio::test]
async fn http_2_stream_reset_leaves_the_queue() {
    vorrang_gateway::install_crypto();
    let gateway = Gateway::start(MOCKS).await;
    assert_eq!(Answer::read(gateway.chat("tight").await).await.status, 200);
    let client = reqwest::Client::builder().http2_prior_knowledge();
    let client = client.no_proxy().build().unwrap();
    let url = format!("http://{}/v1/chat/completions", gateway.address);
    let call = || client.post(&url).body(chat("tight", "")).send();
    let (stays, leaves) = (tokio::spawn(call()), tokio::spawn(call()));
    gateway.until_waiting("tight", 2.0).await;
    leaves.abort();
    gateway.until_waiting("tight", 1.0).await;
    stays.abort();
    gateway.until_waiting("tight", 0.0).await;
}

/// A7: a client that disconnects before its body is complete never has a ticket.
#[tokio::test]
async fn disconnect_within_the_request_body_never_queues() {
    let gateway = Gateway::start(MOCKS).await;
    let whole = request("POST", "/chat/completions", &[], &chat("tight", ""));
    let mut half = gateway.send(&whole[..whole.len() - 5]).await;
    half.shutdown().await.unwrap();
    drop(half);
    // The only slot of the window is still free.
    assert_eq!(Answer::read(gateway.chat("tight").await).await.status, 200);
}
