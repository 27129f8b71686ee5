//! What passes between client and upstream, and when the permit goes back.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::support::*;
use bytes::Bytes;
use http::StatusCode;
use http_body_util::BodyExt;
use tokio::sync::mpsc;
use vorrang_gateway::{Call, Endpoint, WaitOutcome};

#[tokio::test]
async fn forwarded_request_differs_only_in_model_priority_and_timeout() {
    let mut upstream = Upstream::start([]).await;
    let (router, _) = router(&one(&upstream.base, "", ""));
    let body = r#"{"z":1.00,"model":"m","messages":[{"role":"user","content":"\u00e9"}],"priority":7,"new_field":{"a":[1,2]},"timeout":9}"#;
    router
        .call(Call::new(Endpoint::ChatCompletions, body))
        .await
        .unwrap();
    let seen = upstream.next().await;
    assert_eq!(seen.path, "/v1/chat/completions");
    assert_eq!(seen.headers["authorization"], "Bearer sk-secret");
    assert_eq!(seen.headers["content-type"], "application/json");
    assert_eq!(
        seen.body,
        r#"{"z":1.00,"model":"up","messages":[{"role":"user","content":"\u00e9"}],"new_field":{"a":[1,2]}}"#
    );

    router
        .call(Call::new(
            Endpoint::Completions,
            r#"{"model":"m","prompt":"hi"}"#,
        ))
        .await
        .unwrap();
    let seen = upstream.next().await;
    assert_eq!(
        (seen.path.as_str(), &seen.body[..]),
        ("/v1/completions", &br#"{"model":"up","prompt":"hi"}"#[..])
    );
}

#[tokio::test]
async fn answer_passes_byte_for_byte_with_allowed_and_gateway_headers() {
    let body = r#"{ "id":"x", "unknown" : 1.0, "usage":{"total_tokens":12} }"#;
    let headers = [
        ("content-type", "application/json; charset=utf-8"),
        ("x-request-id", "up-1"),
        ("x-ratelimit-remaining-requests", "9"),
        ("openai-processing-ms", "3"),
        ("set-cookie", "session=1"),
        ("server", "secret-server"),
    ];
    let headers = headers
        .map(|(name, value)| (name, value.to_owned()))
        .to_vec();
    let upstream = Upstream::start([Reply::With(StatusCode::OK, headers, Bytes::from(body))]).await;
    let (router, _) = router(&one(&upstream.base, "", ""));
    let call = Call {
        call_id: "call-1".into(),
        ..chat(r#","priority":0"#)
    };
    let answer = router.call(call).await.unwrap();
    let expected = [
        ("content-type", "application/json; charset=utf-8"),
        ("x-request-id", "up-1"),
        ("x-ratelimit-remaining-requests", "9"),
        ("openai-processing-ms", "3"),
        ("x-litellm-call-id", "call-1"),
        ("x-litellm-model-id", "d0"),
        ("x-litellm-model-group", "m"),
        ("x-litellm-attempted-retries", "0"),
        ("x-litellm-request-prioritization-used", "True"),
        ("x-litellm-priority", "0"),
        ("x-vorrang-priority", "0"),
    ];
    for (name, value) in expected {
        assert_eq!(answer.headers[name], value, "{name}");
    }
    assert!(answer.headers.contains_key("x-vorrang-wait-ms"));
    let numbers = answer.info.numbers.unwrap();
    let ticket = format!(
        "arrival={}, entered={}, granted={}",
        numbers.arrival, numbers.entered, numbers.granted
    );
    assert_eq!(answer.headers["x-vorrang-ticket"], ticket.as_str());
    assert!(numbers.arrival <= numbers.entered && numbers.entered < numbers.granted);
    assert!(
        ["set-cookie", "server", "connection", "transfer-encoding"]
            .iter()
            .all(|name| !answer.headers.contains_key(*name))
    );
    assert_eq!(
        http_body::Body::size_hint(&answer.body).exact(),
        Some(body.len() as u64)
    );
    assert_eq!(text(answer.body).await.unwrap(), body);

    let unnamed = router.call(chat("")).await.unwrap();
    assert!(
        !unnamed
            .headers
            .contains_key("x-litellm-request-prioritization-used")
    );
    assert_eq!(unnamed.headers["x-vorrang-priority"], "0");
}

#[tokio::test]
async fn stream_passes_chunk_by_chunk_and_holds_its_permit_until_its_end() {
    let (chunks, receiver) = mpsc::channel(1);
    let upstream = Upstream::start([Reply::Stream("text/event-stream", receiver)]).await;
    let (router, _) = router(&one(&upstream.base, "max_parallel_requests: 1", ""));
    let chunk = |number| Bytes::from(format!("data: {{\"n\":{number}}}\n\n"));
    chunks.send(Ok(chunk(0))).await.unwrap();
    let mut answer = router.call(chat(r#","stream":true"#)).await.unwrap();
    for number in 0..3 {
        let chunk = chunk(number);
        if number > 0 {
            chunks.send(Ok(chunk.clone())).await.unwrap();
        }
        // The chunk arrives before the next one is sent.
        assert_eq!(
            answer
                .body
                .frame()
                .await
                .unwrap()
                .unwrap()
                .into_data()
                .unwrap(),
            chunk
        );
    }
    assert_eq!(status(&router).in_flight, 1);
    let second = queued(&router, chat("")).await;
    drop(chunks);
    assert!(answer.body.frame().await.is_none());
    // The permit returned with the last byte, although the body is not dropped yet.
    second.await.unwrap().unwrap();
    drop(answer);
}

#[tokio::test]
async fn permit_of_a_whole_answer_returns_before_the_client_reads() {
    let upstream = Upstream::start([ok(r#"{"id":"x"}"#)]).await;
    let (router, _) = router(&one(&upstream.base, "max_parallel_requests: 1", ""));
    let answer = router.call(chat("")).await.unwrap();
    router.call(chat("")).await.unwrap();
    assert_eq!(text(answer.body).await.unwrap(), r#"{"id":"x"}"#);
}

#[tokio::test]
async fn slow_reader_puts_back_pressure_on_the_upstream() {
    let made = Arc::new(AtomicUsize::new(0));
    let counter = made.clone();
    const CHUNKS: usize = 512;
    let stream = futures_util::stream::iter((0..CHUNKS).map(move |_| {
        counter.fetch_add(1, Ordering::Relaxed);
        Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; 64 * 1024]))
    }));
    let upstream = Upstream::start([Reply::Body(axum::body::Body::from_stream(stream))]).await;
    let (router, _) = router(&one(&upstream.base, "", ""));
    let mut answer = router.call(chat(r#","stream":true"#)).await.unwrap();
    let first = answer
        .body
        .frame()
        .await
        .unwrap()
        .unwrap()
        .into_data()
        .unwrap();
    // The client stops reading: the upstream stops long before its 32 MiB are made.
    let mut before = usize::MAX;
    while before != made.load(Ordering::Relaxed) {
        before = made.load(Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(before < CHUNKS / 2, "{before} chunks of 64 KiB were made");
    assert!(first.len() + text(answer.body).await.unwrap().len() == CHUNKS * 64 * 1024);
}

// A7: the upstream call is cancelled, the permit comes back.
#[tokio::test]
async fn disconnect_within_a_stream_ends_the_upstream_call() {
    let (chunks, receiver) = mpsc::channel(1);
    let mut upstream = Upstream::start([Reply::Stream("text/event-stream", receiver)]).await;
    let (router, _) = router(&one(
        &upstream.base,
        "rpm: 100, max_parallel_requests: 1",
        "",
    ));
    chunks
        .send(Ok(Bytes::from_static(b"data: {}\n\n")))
        .await
        .unwrap();
    let mut answer = router.call(chat(r#","stream":true"#)).await.unwrap();
    answer.body.frame().await.unwrap().unwrap();
    drop(answer);
    upstream.gone().await;
    until(&router, |status| {
        status.in_flight == 0 && status.deployments[0].in_flight == 0
    })
    .await;
    assert_eq!(status(&router).deployments[0].requests, 1);
}

#[tokio::test]
async fn upstream_gets_one_authorization_and_its_secrets_never_reach_the_client() {
    let body = r#"{"error":{"message":"no pa\/ss at http://u:pa%2Fss@h","code":"sk"}}"#;
    let mut upstream = Upstream::start([error(401, body)]).await;
    let base = upstream.base.replace("://", "://user:pa%2Fss@");
    let text = format!(
        "model_list:\n- {{model_name: m, litellm_params: {{model: openai/up, api_base: '{base}', num_retries: 0}}}}\n"
    );
    let (router, _) = router(&text);
    let failed = router.call(chat("")).await.unwrap_err();
    let told = String::from_utf8(failed.body().to_vec()).unwrap();
    assert_eq!(
        told,
        r#"{"error":{"message":"no *** at http://u:***@h","code":"sk"}}"#
    );
    let authorizations = upstream.next().await.headers;
    let authorizations: Vec<_> = authorizations.get_all("authorization").iter().collect();
    assert_eq!(authorizations, ["Basic dXNlcjpwYS9zcw=="]);
}

#[tokio::test]
async fn upstream_header_that_contains_the_api_key_is_masked() {
    let headers = vec![("x-request-id", "of sk-secret".to_owned())];
    let reply = Reply::With(StatusCode::OK, headers, Bytes::from(r#"{"a":1}"#));
    let upstream = Upstream::start([reply]).await;
    let (router, _) = router(&one(&upstream.base, "", ""));
    let answer = router.call(chat("")).await.unwrap();
    assert_eq!(answer.headers["x-request-id"], "***");
}

// A7, before the head: what was sent stays charged.
#[tokio::test]
async fn disconnect_before_the_answer_ends_the_upstream_call() {
    let mut upstream = Upstream::start([Reply::Hang]).await;
    let (router, _) = router(&one(&upstream.base, "rpm: 100", ""));
    let task = tokio::spawn({
        let router = router.clone();
        async move { router.call(chat("")).await }
    });
    upstream.next().await;
    task.abort();
    upstream.gone().await;
    until(&router, |status| {
        status.in_flight == 0 && status.deployments[0].in_flight == 0
    })
    .await;
    assert_eq!(status(&router).deployments[0].requests, 1);
}

// A7: a ticket leaves the queue at once when its client has left.
#[tokio::test]
async fn cancelled_waiting_call_leaves_the_queue() {
    let mut upstream = Upstream::start([Reply::Hang]).await;
    let (router, _) = router(&one(&upstream.base, "max_parallel_requests: 1", ""));
    let first = tokio::spawn({
        let router = router.clone();
        async move { router.call(chat("")).await }
    });
    upstream.next().await;
    let log = Arc::new(Log::default());
    let waiting = queued(
        &router,
        Call {
            events: log.clone(),
            ..chat(r#","priority":3"#)
        },
    )
    .await;
    waiting.abort();
    until(&router, |status| status.waiting == 0 && status.depth == 0).await;
    assert_eq!(*log.waits.lock().unwrap(), [(3, WaitOutcome::Gone)]);
    first.abort();
    upstream.gone().await;
    // It never reached the upstream.
    router.call(chat("")).await.unwrap();
    upstream.next().await;
    assert_eq!(upstream.pending(), 0);
}

// P14: actual < reserved shrinks the entry, actual > reserved adds the excess.
#[tokio::test]
async fn usage_corrects_token_charges_of_streamed_and_whole_answers() {
    let events = "data: {\"choices\":[{}],\"usage\":null}\n\ndata: {\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":29,\"total_tokens\":30}}\n\ndata: [DONE]\n\n";
    let (chunks, receiver) = mpsc::channel(100);
    // In pieces, so that the usage is cut.
    for piece in events.as_bytes().chunks(7) {
        chunks.send(Ok(Bytes::from_static(piece))).await.unwrap();
    }
    drop(chunks);
    let stream = Reply::Stream("text/event-stream; charset=utf-8", receiver);
    let whole =
        ok(r#"{"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2},"choices":[]}"#);
    let upstream = Upstream::start([whole, stream]).await;
    let (router, _) = router(&one(&upstream.base, "tpm: 1000", ""));
    let answer = router.call(chat(r#","max_tokens":500"#)).await.unwrap();
    assert_eq!(status(&router).deployments[0].tokens.total(), 500);
    text(answer.body).await.unwrap();
    until(&router, |status| status.deployments[0].tokens.total() == 2).await;
    let answer = router
        .call(chat(r#","max_tokens":5,"stream":true"#))
        .await
        .unwrap();
    assert_eq!(text(answer.body).await.unwrap(), events);
    until(&router, |status| status.deployments[0].tokens.total() == 32).await;
}

#[tokio::test]
async fn broken_stream_is_an_error_without_a_second_upstream_call() {
    let (chunks, receiver) = mpsc::channel(1);
    let mut upstream = Upstream::start([Reply::Stream("text/event-stream", receiver)]).await;
    let (router, _) = router(&one(&upstream.base, "", ""));
    chunks
        .send(Ok(Bytes::from_static(b"data: {}\n\n")))
        .await
        .unwrap();
    let mut answer = router.call(chat(r#","stream":true"#)).await.unwrap();
    answer.body.frame().await.unwrap().unwrap();
    chunks
        .send(Err(std::io::Error::other("broken")))
        .await
        .unwrap();
    assert!(answer.body.frame().await.unwrap().is_err());
    assert!(answer.body.frame().await.is_none());
    until(&router, |status| status.in_flight == 0).await;
    upstream.next().await;
    assert_eq!(upstream.pending(), 0);
}

#[tokio::test]
async fn request_timeout_ends_a_whole_answer_but_not_a_begun_stream() {
    let (slow, receiver) = mpsc::channel(1);
    let (slower, long) = mpsc::channel(1);
    let (endless, stream) = mpsc::channel(1);
    let upstream = Upstream::start([
        Reply::Stream("application/json", receiver),
        Reply::Stream("application/json", long),
        Reply::Stream("text/event-stream", stream),
    ])
    .await;
    let (router, _) = router(&one(&upstream.base, "", ""));
    slow.send(Ok(Bytes::from_static(b"{"))).await.unwrap();
    let failed = router.call(chat(r#","timeout":0.5"#)).await.unwrap_err();
    assert_eq!(
        (failed.status(), failed.info().attempts),
        (StatusCode::REQUEST_TIMEOUT, 1)
    );

    // Longer than the buffer for whole answers: its beginning passes, and its rest never comes.
    let much = Bytes::from(vec![b' '; 1024 * 1024 + 1]);
    slower.send(Ok(much)).await.unwrap();
    let answer = router.call(chat(r#","timeout":0.5"#)).await.unwrap();
    assert!(text(answer.body).await.is_err());

    let event = || Ok(Bytes::from_static(b"data: {}\n\n"));
    endless.send(event()).await.unwrap();
    let mut answer = router
        .call(chat(r#","timeout":0.5,"stream":true"#))
        .await
        .unwrap();
    answer.body.frame().await.unwrap().unwrap();
    // Longer than the time for its first event.
    tokio::time::sleep(Duration::from_millis(700)).await;
    endless.send(event()).await.unwrap();
    answer.body.frame().await.unwrap().unwrap();
    drop(endless);
    assert!(answer.body.frame().await.is_none());
}
