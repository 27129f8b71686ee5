//! Content codings and lengths between upstream and client.

use crate::support::*;
use bytes::Bytes;
use http::{StatusCode, header};
use http_body_util::BodyExt as _;
use vorrang_gateway::{Answer, Call};

const BODY: &[u8] = br#"{"choices":[],"usage":{"total_tokens":70}}"#;

fn coded(coding: &str, body: Bytes) -> Reply {
    let headers = vec![
        ("content-type", "application/json".to_owned()),
        ("content-encoding", coding.to_owned()),
    ];
    Reply::With(StatusCode::OK, headers, body)
}

fn accepting(accept: Option<&str>) -> Call {
    Call {
        codings: accept.map(str::to_owned),
        ..chat("")
    }
}

async fn bytes(answer: Answer) -> Bytes {
    answer.body.collect().await.unwrap().to_bytes()
}

#[tokio::test]
async fn accepted_coding_passes_unchanged_and_its_usage_is_charged() {
    let mut upstream = Upstream::start([coded("gzip", gzip(BODY))]).await;
    let (router, _) = router(&one(&upstream.base, "tpm: 1000", ""));
    let answer = router
        .call(accepting(Some("br;q=0.5, gzip, x")))
        .await
        .unwrap();
    assert_eq!(
        upstream.next().await.headers["accept-encoding"],
        "br;q=0.5, gzip"
    );
    assert_eq!(answer.headers[header::CONTENT_ENCODING], "gzip");
    let coded = gzip(BODY);
    let length = http_body::Body::size_hint(&answer.body).exact();
    assert_eq!(length, Some(coded.len() as u64));
    assert_eq!(bytes(answer).await, coded);
    until(&router, |status| status.deployments[0].tokens.total() == 70).await;
}

#[tokio::test]
async fn unaccepted_coding_is_decoded_for_the_client() {
    for accept in [None, Some("br")] {
        let mut upstream = Upstream::start([coded("gzip", gzip(BODY))]).await;
        let (router, _) = router(&one(&upstream.base, "tpm: 1000", ""));
        let answer = router.call(accepting(accept)).await.unwrap();
        let offered = accept.unwrap_or("identity");
        assert_eq!(upstream.next().await.headers["accept-encoding"], offered);
        assert!(!answer.headers.contains_key(header::CONTENT_ENCODING));
        let length = http_body::Body::size_hint(&answer.body).exact();
        assert_eq!(length, Some(BODY.len() as u64));
        assert_eq!(bytes(answer).await, BODY);
        until(&router, |status| status.deployments[0].tokens.total() == 70).await;
    }
}

#[tokio::test]
async fn answer_in_several_codings_is_a_failed_attempt() {
    let upstream = Upstream::start([coded("gzip, br", gzip(BODY)), ok("{}")]).await;
    let (router, _) = router(&one(&upstream.base, "", ""));
    let answer = router.call(accepting(Some("gzip, br"))).await.unwrap();
    assert_eq!(answer.info.attempts, 2);
}

// RFC 9112, 6.3.
#[tokio::test]
async fn content_length_beside_chunked_encoding_is_ignored() {
    let (base, _) = rude(
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n\
          a\r\n{\"a\":12345\r\n1\r\n}\r\n0\r\n\r\n",
    )
    .await;
    let (router, _) = router(&one(&base, "", ""));
    let answer = router.call(chat("")).await.unwrap();
    let length = http_body::Body::size_hint(&answer.body).exact();
    assert_eq!(length, Some(11));
    assert_eq!(bytes(answer).await, "{\"a\":12345}");
}

#[tokio::test]
async fn accept_encoding_for_streams_is_identity_while_keepalive_is_on() {
    for (settings, offered) in [
        ("", "identity"),
        ("vorrang_settings: {keepalive_seconds: 0}", "gzip"),
    ] {
        let event = ok("data: {}\n\n");
        let mut upstream = Upstream::start([event]).await;
        let (router, _) = router(&one(&upstream.base, "", settings));
        let call = Call {
            codings: Some("gzip".into()),
            ..chat(r#","stream":true"#)
        };
        router.call(call).await.unwrap();
        let seen = upstream.next().await;
        assert_eq!(seen.headers["accept-encoding"], offered, "{settings}");
    }
}
