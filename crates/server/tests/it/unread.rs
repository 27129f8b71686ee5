//! Answers that are sent before the request's body was read, and the next request on the connection.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::support::{AT_MOST, Gateway, chat, request};

const KEYED: &str = "
model_list: [{model_name: free, litellm_params: {model: openai/free, mock_response: hello}}]
vorrang_settings: {max_body_bytes: 100000, keys: [{name: a, key: ka}]}
";

/// Method and path, key, and the status that comes before the body is read.
const REFUSED: [(&str, &str, &str, u16); 4] = [
    ("POST", "/v1/chat/completions", "wrong", 401),
    ("POST", "/v1/nonsense", "ka", 404),
    ("POST", "/v1/models", "ka", 405),
    ("POST", "/v1/chat/completions", "ka", 413),
];

fn kept_alive(path: &str, key: &str, body: &str) -> Vec<u8> {
    let headers = [("authorization", format!("Bearer {key}"))];
    let headers = headers
        .each_ref()
        .map(|(name, value)| (*name, value.as_str()));
    let text = String::from_utf8(request("POST", path, &headers, body)).unwrap();
    text.replace("connection: close\r\n", "").into_bytes()
}

/// Sends everything before it reads, as simple clients do; returns all bytes until the end.
async fn exchange(mut stream: TcpStream, bytes: &[u8]) -> String {
    stream.write_all(bytes).await.unwrap();
    read(stream).await
}

async fn read(mut stream: TcpStream) -> String {
    let mut seen = String::new();
    timeout(AT_MOST, stream.read_to_string(&mut seen))
        .await
        .expect("an end in time")
        .expect("no reset");
    seen
}

#[tokio::test]
async fn connection_serves_the_next_request_after_an_early_refusal() {
    let gateway = Gateway::start(KEYED).await;
    let large = "x".repeat(200_000);
    let headers = [("authorization", "Bearer ka")];
    let good = request("POST", "/v1/chat/completions", &headers, &chat("free", ""));
    for (_, path, key, status) in REFUSED {
        let mut stream = gateway.send(&kept_alive(path, key, &large)).await;
        // Like a client that reads its first answer before it sends again.
        let mut head = [0; 12];
        stream.read_exact(&mut head).await.unwrap();
        assert_eq!(&head, format!("HTTP/1.1 {status}").as_bytes());
        let seen = exchange(stream, &good).await;
        assert!(!seen[..300].contains("connection: close"), "{seen}");
        assert_eq!(seen.matches("HTTP/1.1 200 OK").count(), 1, "{seen}");
    }
}

#[tokio::test]
async fn early_refusal_announces_the_close_and_reaches_the_client_of_a_large_body() {
    let gateway = Gateway::start(KEYED).await;
    // More than the sockets hold.
    let large = "x".repeat(12 << 20);
    for (_, path, key, status) in REFUSED {
        let stream = gateway.send(b"").await;
        let seen = exchange(stream, &kept_alive(path, key, &large)).await;
        assert!(seen.starts_with(&format!("HTTP/1.1 {status} ")), "{seen}");
        assert!(seen.contains("\r\nconnection: close\r\n"), "{seen}");
        assert_eq!(seen.matches("HTTP/1.1").count(), 1, "{seen}");
    }
}

#[tokio::test]
async fn refusal_of_an_endless_or_malformed_body_announces_the_close() {
    let gateway = Gateway::start(KEYED).await;
    let head = "POST /v1/nonsense HTTP/1.1\r\nhost: test\r\n";
    let endless = format!("{head}transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n");
    let malformed = format!("{head}transfer-encoding: chunked\r\n\r\nnonsense\r\n");
    // Whether its body follows is the client's choice.
    let waiting = format!("{head}expect: 100-continue\r\ncontent-length: 9\r\n\r\n");
    for bytes in [endless, malformed, waiting] {
        let stream = gateway.send(bytes.as_bytes()).await;
        // The end comes from the server: this client sends nothing more.
        let seen = read(stream).await;
        assert!(seen.starts_with("HTTP/1.1 404 "), "{bytes}: {seen}");
        assert!(
            seen.contains("\r\nconnection: close\r\n"),
            "{bytes}: {seen}"
        );
    }
}

#[tokio::test]
async fn malformed_head_is_answered_while_the_client_sends() {
    let gateway = Gateway::start(KEYED).await;
    let mut bytes = b"POST /v1/models HTTP/1.1\r\nno header at all\r\n\r\n".to_vec();
    bytes.resize(8 << 20, b'x');
    let stream = gateway.send(b"").await;
    let seen = exchange(stream, &bytes).await;
    assert!(seen.starts_with("HTTP/1.1 400 "), "{seen}");
}

#[tokio::test]
async fn http_2_connection_survives_early_refusals() {
    vorrang_gateway::install_crypto();
    let gateway = Gateway::start(KEYED).await;
    let client = reqwest::Client::builder().http2_prior_knowledge();
    let client = client.no_proxy().build().unwrap();
    let call = |path: &str, key: &str, body: String| {
        let url = format!("http://{}{path}", gateway.address);
        client.post(url).bearer_auth(key).body(body).send()
    };
    for (_, path, key, status) in REFUSED {
        let refused = call(path, key, "x".repeat(200_000)).await.unwrap();
        assert_eq!(refused.status().as_u16(), status);
        let good = call("/v1/chat/completions", "ka", chat("free", "")).await;
        assert_eq!(good.unwrap().status().as_u16(), 200);
    }
}
