//! SIGTERM.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use vorrang_server::Patience;

use crate::support::{AT_MOST, Answer, Gateway, MOCKS, chat, request};

/// Longer than a test may take, so that no time-out of a connection ends it.
fn patient() -> Patience {
    Patience {
        close: AT_MOST * 3,
        ..Patience::default()
    }
}

#[tokio::test]
async fn waiting_tickets_are_served_within_the_grace_time() {
    let config = format!("{MOCKS}vorrang_settings: {{window_seconds: 1, grace_seconds: 15}}\n");
    let mut gateway = Gateway::patient(&config, patient()).await;
    assert_eq!(Answer::read(gateway.chat("tight").await).await.status, 200);
    let waiting = gateway.chat("tight").await;
    gateway.until_waiting("tight", 1.0).await;
    let address = gateway.address;
    gateway.stop();
    let answer = Answer::read(waiting).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(
        gateway.ended().await < Duration::from_secs(10),
        "nothing is left to wait for"
    );
    assert!(
        TcpStream::connect(address).await.is_err(),
        "nobody listens any more"
    );
}

#[tokio::test]
async fn readiness_fails_before_the_listener_closes() {
    let config = format!("{MOCKS}vorrang_settings: {{shutdown_delay_seconds: 2}}\n");
    let mut gateway = Gateway::patient(&config, patient()).await;
    let address = gateway.address;
    gateway.stop();
    gateway
        .until("not ready", || async {
            gateway.get("/health/readiness").await.status == 503
        })
        .await;
    // Balancers have not noticed yet, so new connections are served.
    assert_eq!(Answer::read(gateway.chat("tight").await).await.status, 200);
    gateway.ended().await;
    assert!(
        TcpStream::connect(address).await.is_err(),
        "nobody listens any more"
    );
}

#[tokio::test]
async fn calls_that_wait_beyond_the_grace_time_get_503_with_retry_after() {
    let config = format!("{MOCKS}vorrang_settings: {{grace_seconds: 0.3}}\n");
    let mut gateway = Gateway::patient(&config, patient()).await;
    assert_eq!(Answer::read(gateway.chat("tight").await).await.status, 200);
    let waiting = gateway.chat("tight").await;
    gateway.until_waiting("tight", 1.0).await;
    gateway.stop();
    let answer = Answer::read(waiting).await;
    answer.error(503);
    // Refused and counted as a ticket, not as a disconnected client.
    assert_eq!(answer.header("x-litellm-model-group"), Some("tight"));
    assert!(
        answer
            .header("retry-after")
            .unwrap()
            .parse::<u64>()
            .unwrap()
            >= 1
    );
    gateway.ended().await;
}

/// An upstream that never answers, and says when it is called.
async fn silent() -> (String, tokio::sync::mpsc::Receiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}/v1", listener.local_addr().unwrap());
    let (called, calls) = tokio::sync::mpsc::channel(1);
    let app = axum::Router::new().fallback(move || {
        let called = called.clone();
        async move {
            called.send(()).await.unwrap();
            std::future::pending::<()>().await;
        }
    });
    tokio::spawn(async { axum::serve(listener, app).await.unwrap() });
    (base, calls)
}

#[tokio::test]
async fn call_without_an_upstream_answer_within_the_grace_time_gets_503() {
    let (base, mut calls) = silent().await;
    let config = format!(
        "
model_list: [{{model_name: silent, litellm_params: {{model: openai/silent, api_base: '{base}', api_key: sk-x}}}}]
vorrang_settings: {{grace_seconds: 0.3}}
"
    );
    let mut gateway = Gateway::patient(&config, patient()).await;
    let call = gateway.chat("silent").await;
    calls.recv().await.unwrap();
    gateway.stop();
    let answer = Answer::read(call).await;
    answer.error(503);
    assert!(answer.header("retry-after").is_some());
    gateway.ended().await;
}

/// An upstream that sends an event every 20 ms, for ever.
async fn endless() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}/v1", listener.local_addr().unwrap());
    let stream = || async {
        let events = stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            Some((
                Ok::<_, std::io::Error>(Bytes::from("data: {\"choices\": []}\n\n")),
                (),
            ))
        });
        (
            [("content-type", "text/event-stream")],
            axum::body::Body::from_stream(events),
        )
    };
    let app = axum::Router::new().route("/v1/chat/completions", axum::routing::post(stream));
    tokio::spawn(async { axum::serve(listener, app).await.unwrap() });
    base
}

#[tokio::test]
async fn open_stream_is_cut_at_the_end_of_the_grace_time() {
    let config = format!(
        "
model_list: [{{model_name: endless, litellm_params: {{model: openai/endless, api_base: '{}', api_key: sk-x}}}}]
vorrang_settings: {{grace_seconds: 0.3}}
",
        endless().await
    );
    let mut gateway = Gateway::patient(&config, patient()).await;
    let body = chat("endless", r#", "stream": true"#);
    let mut open = gateway
        .send(&request("POST", "/chat/completions", &[], &body))
        .await;
    // The stream has begun.
    let mut head = [0; 12];
    open.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    gateway.stop();
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(AT_MOST, open.read_to_end(&mut rest))
        .await
        .unwrap();
    assert!(
        !rest.ends_with(b"0\r\n\r\n"),
        "a cut stream must not look complete"
    );
    drop(ended);
    gateway.ended().await;
}

#[tokio::test]
async fn idle_connections_do_not_delay_shutdown() {
    let mut gateway = Gateway::patient(MOCKS, patient()).await;
    let mut idle = TcpStream::connect(gateway.address).await.unwrap();
    idle.write_all(b"GET /health/liveliness HTTP/1.1\r\nhost: test\r\n\r\n")
        .await
        .unwrap();
    let mut first = [0; 12];
    idle.read_exact(&mut first).await.unwrap();
    let silent = TcpStream::connect(gateway.address).await.unwrap();
    gateway.stop();
    assert!(
        gateway.ended().await < Duration::from_secs(10),
        "the grace time is 30 s"
    );
    drop((idle, silent));
}
