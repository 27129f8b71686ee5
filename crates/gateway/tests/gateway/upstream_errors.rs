//! How errors of an upstream reach the client.

use crate::support::*;
use bytes::Bytes;
use http::StatusCode;
use serde_json::Value;

/// The client's error body, where the upstream answers 400 with this one.
async fn refused(headers: Vec<(&'static str, String)>, body: Bytes) -> Value {
    let upstream = Upstream::start([Reply::With(StatusCode::BAD_REQUEST, headers, body)]).await;
    let (router, _) = router(&one(&upstream.base, "", ""));
    let error = router.call(chat("")).await.unwrap_err();
    assert_eq!(error.status(), StatusCode::BAD_REQUEST);
    serde_json::from_slice(&error.body()).unwrap()
}

#[tokio::test]
async fn gzipped_error_is_decoded_bounded_and_masked() {
    let coded = || vec![("content-encoding", "gzip".to_owned())];
    let object = br#"{"error":{"message":"bad key sk-secret","type":"t"}}"#;
    let body = refused(coded(), gzip(object)).await;
    assert_eq!(body["error"]["message"], "bad key ***");
    assert_eq!(body["error"]["type"], "t");

    // A megabyte of zeros behind the words does not take a megabyte of answer.
    let bomb = [b"too long: ".as_slice(), &[b'0'; 4 << 20]].concat();
    let body = refused(coded(), gzip(&bomb)).await;
    let message = body["error"]["message"].as_str().unwrap();
    assert!(message.starts_with("The upstream answered 400: too long: 000"));
    assert!(message.len() < 2200);

    let body = refused(coded(), Bytes::from_static(b"not gzip")).await;
    assert_eq!(body["error"]["message"], "The upstream answered 400");
}

#[tokio::test]
async fn upstream_error_in_another_format_keeps_its_message() {
    let body = refused(vec![], Bytes::from_static(b"max_tokens is too large")).await;
    assert_eq!(
        body["error"]["message"],
        "The upstream answered 400: max_tokens is too large"
    );
    let list = br#"[{"error":{"code":400,"message":"bad"}}]"#;
    let body = refused(vec![], Bytes::from_static(list)).await;
    assert_eq!(body["error"]["message"], "bad");
}

#[tokio::test]
async fn truncated_upstream_error_keeps_its_received_part_without_a_partial_key() {
    let (base, _) = rude(
        b"HTTP/1.1 400 Bad Request\r\ncontent-length: 1000\r\n\r\n{\"error\":{\"message\":\"too long, sk-sec",
    )
    .await;
    let (router, _) = router(&one(&base, "", ""));
    let error = router.call(chat("")).await.unwrap_err();
    let body: Value = serde_json::from_slice(&error.body()).unwrap();
    assert_eq!(
        body["error"]["message"],
        "The upstream answered 400: {\"error\":{\"message\":\"too long,"
    );
}
