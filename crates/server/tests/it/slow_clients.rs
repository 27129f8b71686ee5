//! Clients that read nothing of their answers.

use std::time::Duration;

use tokio::time::timeout;

use crate::support::{AT_MOST, Gateway, chat, request};

/// A stream of 4 MB, more than all buffers on its way hold.
fn config() -> String {
    let text = format!("{} ", "x".repeat(20_000)).repeat(200);
    format!(
        "
model_list:
  - model_name: long
    litellm_params: {{model: openai/long, mock_response: {text}, max_parallel_requests: 1}}
vorrang_settings: {{client_write_timeout_seconds: 0.3}}
"
    )
}

#[tokio::test]
async fn client_that_reads_nothing_is_cut_off_and_its_permit_returns() {
    let gateway = Gateway::start(&config()).await;
    let body = chat("long", r#", "stream": true"#);
    let lazy = gateway
        .send(&request("POST", "/v1/chat/completions", &[], &body))
        .await;
    gateway
        .until("cut off", || async {
            let page = gateway.get("/metrics").await.text();
            page.contains(r#"vorrang_granted_total{group="long"} 1"#)
                && gateway.gauge("vorrang_in_flight", "long").await == 0.0
        })
        .await;
    drop(lazy);
}

/// A flow-control window that stays at zero resets its stream and keeps the connection.
#[tokio::test]
async fn http_2_stream_with_an_exhausted_flow_control_window_is_reset() {
    let gateway = Gateway::start(&config()).await;
    let socket = gateway.send(b"").await;
    let (client, mut connection) = h2::client::Builder::new()
        .initial_window_size(0)
        .handshake::<_, bytes::Bytes>(socket)
        .await
        .unwrap();
    let mut ping = connection.ping_pong().unwrap();
    let connection = tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();
    for stream in [false, true] {
        let head = http::Request::post(format!("http://{}/v1/chat/completions", gateway.address));
        let head = head.body(()).unwrap();
        let (answer, mut body) = client.send_request(head, false).unwrap();
        let text = chat("long", &format!(r#", "stream": {stream}"#));
        body.send_data(text.into(), true).unwrap();
        let mut answer = timeout(AT_MOST, answer).await.unwrap().unwrap();
        assert_eq!(answer.status(), 200);
        let ended = timeout(AT_MOST, answer.body_mut().data()).await.unwrap();
        let error = ended.unwrap().unwrap_err();
        assert_eq!(error.reason(), Some(h2::Reason::CANCEL), "{error}");
    }
    timeout(Duration::from_secs(5), ping.ping(h2::Ping::opaque()))
        .await
        .unwrap()
        .unwrap();
    connection.abort();
}
