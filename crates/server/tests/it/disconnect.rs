//! A7: a ticket leaves the queue at once when its client is gone.

use tokio::io::AsyncWriteExt as _;

use crate::support::{Answer, Gateway, MOCKS, chat, request};

/// A7, HTTP/1: hyper drops the handler when the connection closes, and with it the ticket.
#[tokio::test]
async fn a_client_that_leaves_while_its_ticket_waits_leaves_the_queue() {
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

/// A7, HTTP/2: a stream that is reset is a client that left, also on a connection that stays.
#[tokio::test]
async fn a_stream_that_is_reset_while_its_ticket_waits_leaves_the_queue() {
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

/// A7: who leaves before the body is complete never had a ticket.
#[tokio::test]
async fn a_client_that_leaves_within_its_body_takes_no_place() {
    let gateway = Gateway::start(MOCKS).await;
    let whole = request("POST", "/chat/completions", &[], &chat("tight", ""));
    let mut half = gateway.send(&whole[..whole.len() - 5]).await;
    half.shutdown().await.unwrap();
    drop(half);
    // The only place of the window is still there.
    assert_eq!(Answer::read(gateway.chat("tight").await).await.status, 200);
}
