//! HTTP below the API: heads, bodies, paths, hosts, connections.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};
use vorrang_server::Patience;

use crate::support::{AT_MOST, Answer, Gateway, MOCKS, chat};

fn impatient() -> Patience {
    Patience {
        head: Duration::from_millis(150),
        body_pause: Duration::from_millis(150),
        ..Patience::default()
    }
}

const SMALL_BODIES: &str = "
model_list: [{model_name: free, litellm_params: {model: openai/free, mock_response: hello}}]
vorrang_settings: {max_body_bytes: 200}
";

#[tokio::test]
async fn connection_with_an_unfinished_head_is_closed() {
    let gateway = Gateway::patient(MOCKS, impatient()).await;
    // No bytes; half a head; the beginning of an HTTP/2 preface; an unfinished second head.
    for start in [
        "",
        "POST /v1/chat/completions HTTP/1.1\r\nhost: te",
        "PRI * HTTP/2.0\r\n",
        "GET /health/liveliness HTTP/1.1\r\nhost: test\r\n\r\nGET /health",
    ] {
        let mut stream = gateway.send(start.as_bytes()).await;
        let mut seen = Vec::new();
        let closed = timeout(AT_MOST, stream.read_to_end(&mut seen)).await;
        assert!(closed.is_ok(), "still open after {start:?}");
    }
}

/// A preface, empty SETTINGS, and on stream 1 a whole `GET /` of indexed header fields.
const HTTP_2_REQUEST: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\
    \0\0\0\x04\0\0\0\0\0\
    \0\0\x03\x01\x05\0\0\0\x01\x82\x84\x86";

#[tokio::test]
async fn idle_http_2_connection_is_closed_with_goaway() {
    let gateway = Gateway::patient(MOCKS, impatient()).await;
    let mut stream = gateway.send(HTTP_2_REQUEST).await;
    let mut seen = Vec::new();
    let closed = timeout(AT_MOST, stream.read_to_end(&mut seen)).await;
    assert!(closed.is_ok(), "still open");
    let mut frames = Vec::new();
    let mut rest = seen.as_slice();
    while let [a, b, c, kind, _, _, _, _, _, payload @ ..] = rest {
        frames.push(*kind);
        rest = &payload[u32::from_be_bytes([0, *a, *b, *c]) as usize..];
    }
    assert!(frames.contains(&1), "no answer in {frames:?}");
    assert_eq!(frames.last(), Some(&7), "no GOAWAY in {frames:?}");
}

#[tokio::test]
async fn request_head_above_16_kib_gets_431_before_its_end() {
    let gateway = Gateway::start(MOCKS).await;
    let head = format!(
        "GET /health/liveliness HTTP/1.1\r\nx-long: {}",
        "x".repeat(20 << 10)
    );
    let stream = gateway.send(head.as_bytes()).await;
    assert_eq!(Answer::read(stream).await.status, 431);
}

#[tokio::test]
async fn head_timeout_does_not_limit_the_wait_of_a_request() {
    let config = format!("{MOCKS}vorrang_settings: {{window_seconds: 1}}\n");
    let gateway = Gateway::patient(&config, impatient()).await;
    let first = Answer::read(gateway.chat("tight").await).await;
    let second = Answer::read(gateway.chat("tight").await).await;
    assert_eq!((first.status, second.status), (200, 200));
    let waited: u64 = second.header("x-vorrang-wait-ms").unwrap().parse().unwrap();
    assert!(
        waited > 150,
        "the second one waited {waited} ms, no longer than a head may take"
    );
}

#[tokio::test]
async fn body_above_the_limit_gets_413_with_length_or_chunked() {
    let gateway = Gateway::start(SMALL_BODIES).await;
    // More than the sockets hold: its client cannot read before it has written all of it.
    let large = chat("free", &format!(r#", "user": "{}""#, "x".repeat(8 << 20)));
    let announced = gateway.post("/v1/chat/completions", &[], &large).await;
    let (message, kind) = announced.error(413);
    assert_eq!(kind, "invalid_request_error");
    assert!(message.contains("200 bytes"), "{message}");

    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: test\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
    let body = format!("{:x}\r\n{large}\r\n0\r\n\r\n", large.len());
    let stream = gateway.send(format!("{head}{body}").as_bytes()).await;
    Answer::read(stream).await.error(413);

    assert_eq!(
        gateway
            .post("/v1/chat/completions", &[], &chat("free", ""))
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn client_that_expects_100_continue_gets_413() {
    let gateway = Gateway::start(SMALL_BODIES).await;
    let stream = gateway
        .send(b"POST /v1/chat/completions HTTP/1.1\r\nhost: test\r\nexpect: 100-continue\r\ncontent-length: 1000000\r\n\r\n")
        .await;
    Answer::read(stream).await.error(413);
}

#[tokio::test]
async fn stalled_body_gets_408_and_malformed_chunks_get_400() {
    let gateway = Gateway::patient(MOCKS, impatient()).await;
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: test\r\n";
    let stalled = gateway
        .send(format!("{head}content-length: 100\r\n\r\n{{").as_bytes())
        .await;
    Answer::read(stalled).await.error(408);

    let malformed = gateway
        .send(format!("{head}transfer-encoding: chunked\r\n\r\nnonsense\r\n").as_bytes())
        .await;
    Answer::read(malformed).await.error(400);
}

#[tokio::test]
async fn invalid_request_body_gets_400_in_the_documented_format() {
    let gateway = Gateway::start(MOCKS).await;
    for body in [
        "",
        "{",
        "[]",
        "null",
        r#"{"model": "free"}"#,
        r#"{"messages": []}"#,
        "\u{0}",
    ] {
        let (_, kind) = gateway
            .post("/v1/chat/completions", &[], body)
            .await
            .error(400);
        assert_eq!(kind, "invalid_request_error", "{body:?}");
    }
}

#[tokio::test]
async fn non_json_content_type_gets_415_without_keys() {
    async fn post(gateway: &Gateway, headers: &str) -> Answer {
        let body = chat("free", "");
        let request = format!(
            "POST /chat/completions HTTP/1.1\r\nhost: test\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n{body}",
            body.len()
        );
        Answer::read(gateway.send(request.as_bytes()).await).await
    }
    let open = Gateway::start(MOCKS).await;
    let (message, _) = post(&open, "content-type: text/plain\r\n").await.error(415);
    assert!(message.contains("application/json"), "{message}");
    post(&open, "origin: https://page.example\r\n")
        .await
        .error(415);
    assert_eq!(post(&open, "").await.status, 200);
    let (message, _) = post(&open, "content-encoding: gzip\r\n").await.error(415);
    assert!(message.contains("content-encoding"), "{message}");

    let config = format!("{MOCKS}general_settings: {{master_key: sk-master}}\n");
    let closed = Gateway::start(&config).await;
    let key = "content-type: text/plain\r\nauthorization: Bearer sk-master\r\n";
    assert_eq!(post(&closed, key).await.status, 200);
}

#[tokio::test]
async fn disallowed_host_gets_421() {
    let config = format!("{MOCKS}vorrang_settings: {{allowed_hosts: [api.example]}}\n");
    let gateway = Gateway::start(&config).await;
    let get = async |host: &str, path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\n{host}connection: close\r\n\r\n");
        Answer::read(gateway.send(request.as_bytes()).await).await
    };
    let allowed = get("host: API.example:4000\r\n", "/v1/models").await;
    assert_eq!(allowed.status, 200);
    // The URI's host counts where it has one.
    let absolute = get("host: api.example\r\n", "http://evil.example/v1/models").await;
    absolute.error(421);
    for path in ["/v1/models", "/metrics", "/nothing"] {
        get("host: evil.example\r\n", path).await.error(421);
        get("host: api.example\r\nhost: evil.example\r\n", path)
            .await
            .error(421);
    }
    // Probes call the instance by its address.
    let probe = get("host: 10.0.0.1\r\n", "/health/readiness").await;
    assert_eq!(probe.status, 200);
}

#[tokio::test]
async fn unknown_paths_and_methods_get_errors_in_the_documented_format() {
    let gateway = Gateway::start(MOCKS).await;
    let (message, _) = gateway
        .post("/v1/nonsense?key=geheim", &[], "{}")
        .await
        .error(404);
    assert!(
        message.contains("/v1/nonsense") && !message.contains("geheim"),
        "{message}"
    );
    let get = gateway.get("/v1/chat/completions").await;
    get.error(405);
    assert_eq!(get.header("allow"), Some("POST"));
    gateway
        .request("DELETE", "/health/readiness", &[], "")
        .await
        .error(405);
}

#[tokio::test]
async fn server_keeps_connections_alive_and_supports_http_2() {
    let gateway = Gateway::start(MOCKS).await;
    let two = "GET /health/liveliness HTTP/1.1\r\nhost: test\r\n\r\nGET /health/liveness HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";
    let mut stream = gateway.send(two.as_bytes()).await;
    let mut seen = String::new();
    timeout(AT_MOST, stream.read_to_string(&mut seen))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(seen.matches("HTTP/1.1 200 OK").count(), 2, "{seen}");
    assert_eq!(seen.matches("I'm alive!").count(), 2, "{seen}");

    // A preface and empty SETTINGS; the server's first frame is SETTINGS (type 4), too.
    let mut stream = gateway
        .send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .await;
    let mut frame = [0; 9];
    timeout(AT_MOST, stream.read_exact(&mut frame))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(frame[3], 4);
    stream.shutdown().await.unwrap();
}
