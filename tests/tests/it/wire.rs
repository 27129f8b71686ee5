//! The bytes that the upstream and the client receive.

use anyhow::{Context as _, Result, ensure};
use vorrang_tests::{Act, Chat, Gateway, Reply, Upstream, config, until, upstream::Fate};

/// The request changes only in `model`, `priority` and `timeout`; unknown fields survive in order; the answer's bytes pass.
#[tokio::test]
async fn requests_and_answers_pass_byte_for_byte() -> Result<()> {
    let upstream = Upstream::start().await?;
    let gateway = Gateway::start(&config(&upstream.url(), &[], &[], &[])).await?;
    let body = r#"{"zeta":1.00,"model":"model","messages":[{"role":"user","content":"\u00e9 \/ é"}],"priority":0,"big":123456789012345678901234567890,"timeout":30,"nested":{"b":[1, 2 ,3],"priority":7},"alpha":null}"#;
    let sent = r#"{"zeta":1.00,"model":"upstream-model","messages":[{"role":"user","content":"\u00e9 \/ é"}],"big":123456789012345678901234567890,"nested":{"b":[1, 2 ,3],"priority":7},"alpha":null}"#;
    let request = gateway.client().post("/v1/chat/completions").body(body);
    let request = request
        .header("content-type", "application/json")
        .header("authorization", "Bearer the-clients-own")
        .header("x-vorrang-priority", "5");
    let reply = Reply::of(request).await?.ok()?;
    let calls = upstream.seen(1).await?;
    ensure!(calls[0].body == sent, "{}", calls[0].body);
    ensure!(calls[0].path == "/v1/chat/completions");
    // The deployment's key and not the client's, and no header of the gateway.
    ensure!(calls[0].header("authorization") == Some("Bearer upstream-key"));
    let ours = |name: &str| name.contains("vorrang-") || name.contains("litellm");
    ensure!(
        !calls[0].headers.iter().any(|(name, _)| ours(name)),
        "{:?}",
        calls[0].headers
    );

    let answer = reply.text.as_str();
    ensure!(answer.contains(r#""x_unknown":"passes""#), "{answer}");
    ensure!(reply.header("x-request-id") == "upstream-0", "{reply:?}");
    ensure!(reply.header("x-litellm-model-id") == "first", "{reply:?}");
    ensure!(
        reply.header("x-vorrang-priority") == "0",
        "the body's priority counts: {reply:?}"
    );
    Ok(())
}

/// The client receives a stream's first chunk while the upstream still holds the others, and the last one ends the answer.
#[tokio::test]
async fn stream_arrives_chunk_by_chunk() -> Result<()> {
    let upstream = Upstream::start().await?;
    upstream.plan(&[], Act::hold()).await?;
    let gateway = Gateway::start(&config(&upstream.url(), &[], &[], &[])).await?;
    let chat = Chat::new("streamed").priority(0).with("stream", true);
    let request = gateway
        .client()
        .post("/v1/chat/completions")
        .json(&chat.body);
    let mut answer = request.send().await?;
    ensure!(answer.status() == 200);
    ensure!(answer.headers()["content-type"] == "text/event-stream");
    let first = answer.chunk().await?.context("no first chunk")?;
    ensure!(std::str::from_utf8(&first)?.contains("right"), "{first:?}");
    ensure!(upstream.seen(1).await?[0].fate == Fate::Open);
    ensure!(
        gateway.metric("vorrang_in_flight", "").await? > 0.0,
        "the permit is out until the stream ends"
    );
    upstream.release().await?;
    let mut rest = String::new();
    while let Some(chunk) = answer.chunk().await? {
        rest.push_str(std::str::from_utf8(&chunk)?);
    }
    ensure!(rest.ends_with("data: [DONE]\n\n"), "{rest}");
    ensure!(!upstream.seen(1).await?[0].body.contains("stream_options"));
    let back = || gateway.metric("vorrang_in_flight", "");
    until("the permit back", back, |out| *out == 0.0).await?;
    Ok(())
}

/// A stream that breaks in the middle is an error for the client, never a complete answer, and is not retried.
#[tokio::test]
async fn broken_stream_ends_with_an_error() -> Result<()> {
    let upstream = Upstream::start().await?;
    let breaking = Act {
        hold: true,
        ..Act::reset()
    };
    upstream.plan(&[], breaking).await?;
    let gateway = Gateway::start(&config(&upstream.url(), &[], &[], &[])).await?;
    let chat = Chat::new("broken").with("stream", true);
    let request = gateway
        .client()
        .post("/v1/chat/completions")
        .json(&chat.body);
    let mut answer = request.send().await?;
    ensure!(answer.status() == 200);
    answer.chunk().await?.context("no first chunk")?;
    upstream.release().await?;
    ensure!(answer.text().await.is_err());
    upstream.seen(1).await?;
    Ok(())
}
