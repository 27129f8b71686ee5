//! Endpoints whose body is a form: sound and images to work on.

use crate::support::*;
use http::{HeaderValue, StatusCode};
use vorrang_gateway::{Call, Endpoint, Setting};

const TYPE: &str = "multipart/form-data; boundary=\"a b\"";

fn field(name: &str, value: &str) -> String {
    format!("--a b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
}

fn file(name: &str, content: &str) -> String {
    format!(
        "--a b\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"x\"\r\nContent-Type: audio/mpeg\r\n\r\n{content}\r\n"
    )
}

fn form(endpoint: Endpoint, parts: &[String]) -> Call {
    let mut call = Call::new(endpoint, format!("{}--a b--\r\n", parts.concat()));
    call.content_type = Some(HeaderValue::from_static(TYPE));
    call
}

#[tokio::test]
async fn form_changes_only_in_model_priority_and_timeout_at_every_attempt() {
    let mut upstream = Upstream::start([error(500, "{}")]).await;
    let (router, _) = router(&one(&upstream.base, "", ""));
    // Large enough to be read on a thread of its own.
    let sound = file("file", &"sound\r\n".repeat(100_000));
    let call = form(
        Endpoint::Transcriptions,
        &[
            field("priority", "-4"),
            sound.clone(),
            field("model", "m"),
            field("timeout", "60"),
            field("language", "de"),
        ],
    );
    let answer = router.call(call).await.unwrap();
    assert_eq!((answer.info.priority, answer.info.attempts), (-4, 2));
    let expected = [sound, field("model", "up"), field("language", "de")].concat();
    for _ in 0..2 {
        let seen = upstream.next().await;
        assert_eq!(seen.path, "/v1/audio/transcriptions");
        assert_eq!(seen.headers["content-type"], TYPE);
        let length = seen.body.len().to_string();
        assert_eq!(seen.headers["content-length"], length.as_str());
        assert_eq!(seen.body, format!("{expected}--a b--\r\n"));
    }
}

#[tokio::test]
async fn what_a_form_needs_is_named_where_it_is_missing() {
    let upstream = Upstream::start([]).await;
    let (router, _) = router(&one(&upstream.base, "", ""));
    let model = || field("model", "m");
    for (endpoint, parts, param) in [
        (Endpoint::Transcriptions, vec![model()], Some("file")),
        (
            Endpoint::Translations,
            vec![file("file", "x")],
            Some("model"),
        ),
        (
            Endpoint::ImageEdits,
            vec![model(), field("prompt", "p")],
            Some("image"),
        ),
        (
            Endpoint::ImageEdits,
            vec![model(), file("image[]", "x")],
            Some("prompt"),
        ),
        (
            Endpoint::Transcriptions,
            vec![model(), file("file", "x"), field("priority", "high")],
            Some("priority"),
        ),
        (
            Endpoint::Transcriptions,
            vec![model(), file("file", "x"), field("stream", "maybe")],
            Some("stream"),
        ),
        (Endpoint::Transcriptions, vec!["no form".into()], None),
    ] {
        let problem = router
            .call(form(endpoint, &parts))
            .await
            .unwrap_err()
            .problem;
        assert_eq!(
            (problem.status(), problem.param()),
            (StatusCode::BAD_REQUEST, param),
            "{parts:?}: {problem}"
        );
    }
    let mut json = form(Endpoint::Transcriptions, &[]);
    json.content_type = Some(HeaderValue::from_static("application/json"));
    let problem = router.call(json).await.unwrap_err().problem;
    assert!(
        problem.to_string().contains("multipart/form-data"),
        "{problem}"
    );
    assert_eq!(upstream.pending(), 0);
    let edit = [model(), file("image[]", "x"), field("prompt", "p")];
    router
        .call(form(Endpoint::ImageEdits, &edit))
        .await
        .unwrap();
}

#[tokio::test]
async fn model_of_the_path_and_priority_beside_the_form_count() {
    let mut upstream = Upstream::start([]).await;
    let (router, _) = router(&one(&upstream.base, "temperature: 0.5", ""));
    let mut call = form(Endpoint::Translations, &[file("file", "x")]);
    call.model = Some("m".into());
    call.priority = Setting::Set(9);
    assert_eq!(router.call(call).await.unwrap().info.priority, 9);
    let seen = upstream.next().await;
    let text = std::str::from_utf8(&seen.body).unwrap();
    for added in [
        "name=\"model\"\r\n\r\nup\r\n",
        "name=\"temperature\"\r\n\r\n0.5\r\n",
    ] {
        assert!(text.contains(added), "{text}");
    }
}

#[tokio::test]
async fn transcript_may_be_any_text_and_its_usage_is_read() {
    let usage = r#"{"text":"hi","usage":{"type":"tokens","input_tokens":14,"output_tokens":4,"total_tokens":18}}"#;
    for (kind, answer, tokens) in [
        ("text/plain", "", 0),
        ("text/plain", "{ laughs }", 0),
        ("text/vtt", "WEBVTT\n", 0),
        ("application/json", usage, 18),
    ] {
        let upstream = Upstream::start([Reply::Typed(kind, answer.into())]).await;
        let (router, _) = router(&one(&upstream.base, "tpm: 1000", ""));
        let parts = [field("model", "m"), file("file", "x")];
        let answered = router.call(form(Endpoint::Transcriptions, &parts)).await;
        assert_eq!(text(answered.unwrap().body).await.unwrap(), answer);
        until(&router, |status| {
            let first = status.deployments.first();
            first.is_some_and(|deployment| {
                deployment.requests == 1 && deployment.tokens.total() == tokens
            })
        })
        .await;
    }
}
