//! Vertex AI: addresses, and tokens of a service account, which a server of the test's own gives against a signed claim.

mod models;
mod project;

use std::{collections::HashMap, fs, process::Command};

use crate::support::*;
use serde_json::{Value, json};
use tempfile::TempDir;
use vorrang_gateway::{Call, Config, Endpoint, Loaded, config::Target};

fn load(params: &str) -> Result<Loaded, String> {
    let text = format!("model_list:\n- {{model_name: m, litellm_params: {{{params}}}}}\n");
    let env = HashMap::<String, String>::new();
    Config::parse(&text, "config.yaml", &env).map_err(|error| error.to_string())
}

fn openssl(arguments: &[&str]) -> Vec<u8> {
    let output = Command::new("openssl").args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

/// A service account in a folder of its own, whose tokens come from an address.
struct Account {
    folder: TempDir,
}

impl Account {
    fn new(tokens: &str) -> Self {
        let account = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        let key = account.path("key.pem");
        openssl(&[
            "genpkey",
            "-algorithm",
            "RSA",
            "-pkeyopt",
            "rsa_keygen_bits:2048",
            "-out",
            &key,
        ]);
        let json = json!({
            "type": "service_account", "project_id": "project-1", "private_key_id": "id-1",
            "private_key": fs::read_to_string(&key).unwrap(), "client_email": "me@example.com", "token_uri": tokens,
        });
        fs::write(account.path("account.json"), json.to_string()).unwrap();
        account
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// The claims of a JSON web token that this account has signed.
    fn claims(&self, token: &str) -> Value {
        let (signed, signature) = token.rsplit_once('.').unwrap();
        fs::write(self.path("signed"), signed).unwrap();
        fs::write(self.path("signature"), decoded(signature)).unwrap();
        openssl(&[
            "pkey",
            "-in",
            &self.path("key.pem"),
            "-pubout",
            "-out",
            &self.path("public.pem"),
        ]);
        let (public, signature) = (self.path("public.pem"), self.path("signature"));
        openssl(&[
            "dgst",
            "-sha256",
            "-verify",
            &public,
            "-signature",
            &signature,
            &self.path("signed"),
        ]);
        let claims = signed.split('.').nth(1).unwrap();
        serde_json::from_slice(&decoded(claims)).unwrap()
    }
}

/// Base64 for URLs, with or without padding.
fn decoded(text: &str) -> Vec<u8> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'-' => 62,
        b'_' => 63,
        other => panic!("{other} is no digit"),
    };
    let mut bytes = Vec::new();
    let (mut bits, mut count) = (0_u32, 0);
    for byte in text.bytes().filter(|byte| *byte != b'=') {
        (bits, count) = (bits << 6 | u32::from(digit(byte)), count + 6);
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    bytes
}

fn token(text: &str, seconds: i64) -> Reply {
    ok(&json!({"access_token": text, "expires_in": seconds, "token_type": "Bearer"}).to_string())
}

#[tokio::test]
async fn a_service_account_signs_for_tokens_that_are_kept_until_they_expire() {
    // A token of no length is expired at once.
    let mut tokens = Upstream::start([token("tok-1", 0), token("tok-2", 3600)]).await;
    let account = Account::new(&tokens.base);
    let mut upstream = Upstream::start([]).await;
    let host = upstream.base.trim_end_matches("/v1");
    let text = format!(
        "model_list:\n- {{model_name: m, litellm_params: {{model: vertex_ai/gemini-2.5-pro, api_base: '{host}', api_key: sk-none, \
         vertex_location: europe-west1, vertex_credentials: '{}', reasoning_effort: low}}}}\n",
        account.path("account.json")
    );
    let (router, _) = router(&text);
    for expected in ["Bearer tok-1", "Bearer tok-2", "Bearer tok-2"] {
        router.call(chat("")).await.unwrap();
        let seen = upstream.next().await;
        assert_eq!(
            seen.path,
            "/v1/projects/project-1/locations/europe-west1/endpoints/openapi/chat/completions"
        );
        assert_eq!(seen.headers["authorization"], expected);
        assert_eq!(
            seen.body,
            r#"{"model":"google/gemini-2.5-pro","messages":[],"reasoning_effort":"low"}"#
        );
    }
    assert_eq!(tokens.pending(), 2);
    let asked = String::from_utf8(tokens.next().await.body.to_vec()).unwrap();
    let (kind, assertion) = asked.split_once("&assertion=").unwrap();
    assert_eq!(
        kind,
        "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer"
    );
    let claims = account.claims(&assertion.replace("%3D", "="));
    assert_eq!(claims["iss"], "me@example.com");
    assert_eq!(
        claims["scope"],
        "https://www.googleapis.com/auth/cloud-platform"
    );
    assert_eq!(claims["aud"], tokens.base);
}

#[tokio::test]
async fn claude_is_called_raw_with_the_version_in_the_body() {
    const ANSWER: &str = r#"{"id":"msg_1","type":"message","role":"assistant","model":"claude","content":[{"type":"text","text":"hello"}],"stop_reason":"end_turn","usage":{"input_tokens":3,"output_tokens":7}}"#;
    let tokens = Upstream::start([token("tok-1", 3600)]).await;
    let account = Account::new(&tokens.base);
    let start = json!({"type": "message_start", "message": {"id": "msg_1", "model": "claude", "usage": {}}});
    let stop = json!({"type": "message_stop"});
    let stream =
        format!("event: message_start\ndata: {start}\n\nevent: message_stop\ndata: {stop}\n\n");
    let replies = [
        ok(ANSWER),
        ok(ANSWER),
        Reply::Typed("text/event-stream", stream.clone().into()),
    ];
    let mut upstream = Upstream::start(replies).await;
    let host = upstream.base.trim_end_matches("/v1");
    let config = format!(
        "model_list:\n- {{model_name: m, litellm_params: {{model: vertex_ai/claude-sonnet-4@20250514, api_base: '{host}', \
         vertex_location: eu, vertex_credentials: '{}'}}}}\n",
        account.path("account.json")
    );
    let (router, _) = router(&config);
    let message = |rest: &str| {
        let body = format!(r#"{{"model":"m","max_tokens":9,"messages":[]{rest}}}"#);
        Call::new(Endpoint::Messages, body)
    };
    let path =
        "/v1/projects/project-1/locations/eu/publishers/anthropic/models/claude-sonnet-4@20250514";
    let answer = router.call(message("")).await.unwrap();
    assert_eq!(text(answer.body).await.unwrap(), ANSWER);
    let seen = upstream.next().await;
    assert_eq!(seen.path, format!("{path}:rawPredict"));
    assert_eq!(seen.headers["authorization"], "Bearer tok-1");
    assert_eq!(
        seen.body,
        r#"{"anthropic_version":"vertex-2023-10-16","max_tokens":9,"messages":[]}"#
    );
    let answer = router.call(chat("")).await.unwrap();
    assert!(text(answer.body).await.unwrap().contains("chat.completion"));
    let sent: Value = serde_json::from_slice(&upstream.next().await.body).unwrap();
    assert_eq!(sent["max_tokens"], 64_000);
    assert!(sent.get("model").is_none(), "{sent}");
    let answer = router.call(message(r#","stream":true"#)).await.unwrap();
    assert_eq!(text(answer.body).await.unwrap(), stream);
    assert_eq!(
        upstream.next().await.path,
        format!("{path}:streamRawPredict")
    );
}

#[tokio::test]
async fn without_a_token_nothing_is_sent_and_the_error_shows_no_key() {
    let tokens = Upstream::start([error(400, r#"{"error":"invalid_grant"}"#)]).await;
    let account = Account::new(&tokens.base);
    let upstream = Upstream::start([]).await;
    let host = upstream.base.trim_end_matches("/v1");
    let credentials = account.path("account.json");
    let text = format!(
        "model_list:\n- {{model_name: m, litellm_params: {{model: vertex_ai/gemini-x, api_base: '{host}', vertex_credentials: '{credentials}'}}}}\n\
         router_settings: {{num_retries: 0}}\n"
    );
    let (router, _) = router(&text);
    let problem = router.call(chat("")).await.unwrap_err().problem;
    assert_eq!(problem.status().as_u16(), 502);
    assert_eq!(
        problem.to_string(),
        "No token for the upstream could be had"
    );
    assert_eq!(upstream.pending(), 0);
}

#[test]
fn addresses_follow_project_and_location() {
    let base = |params: &str| {
        let config = load(params).unwrap().config;
        let deployment = &config.groups[0].deployments[0];
        match &deployment.target {
            Target::Upstream(server) => (server.api_base.clone(), deployment.model.clone()),
            other => panic!("{other:?}"),
        }
    };
    let gemini = "google/gemini-2.5-flash";
    for (params, expected, model) in [
        (
            "model: vertex_ai/gemini-2.5-flash, vertex_project: p",
            "https://us-central1-aiplatform.googleapis.com/v1/projects/p/locations/us-central1/endpoints/openapi",
            gemini,
        ),
        (
            "model: gemini-2.5-flash, vertex_project: p, vertex_location: europe-west4",
            "https://europe-west4-aiplatform.googleapis.com/v1/projects/p/locations/europe-west4/endpoints/openapi",
            gemini,
        ),
        (
            "model: vertex_ai/gemini-2.5-flash, vertex_project: p, vertex_location: global",
            "https://aiplatform.googleapis.com/v1/projects/p/locations/global/endpoints/openapi",
            gemini,
        ),
        (
            "model: vertex_ai/gemini-2.5-flash, vertex_project: p, vertex_location: eu",
            "https://aiplatform.eu.rep.googleapis.com/v1/projects/p/locations/eu/endpoints/openapi",
            gemini,
        ),
        (
            "model: vertex_ai/meta/llama-4-maas, vertex_project: p, api_base: 'https://gw.example'",
            "https://gw.example/v1/projects/p/locations/us-central1/endpoints/openapi",
            "meta/llama-4-maas",
        ),
        (
            "model: gemini-2.5-flash, api_base: 'https://h/v1/projects/q/locations/eu/publishers/google/models/gemini-2.5-flash'",
            "https://h/v1/projects/q/locations/eu/endpoints/openapi",
            gemini,
        ),
        (
            "model: vertex_ai/claude-sonnet-4-6, vertex_project: p, vertex_location: europe-west1",
            "https://europe-west1-aiplatform.googleapis.com/v1/projects/p/locations/europe-west1/publishers/anthropic/models",
            "claude-sonnet-4-6",
        ),
        (
            "model: vertex_ai/claude-x, api_base: 'https://h/v1/projects/q/locations/eu/publishers/anthropic/models/claude-opus-4-8'",
            "https://h/v1/projects/q/locations/eu/publishers/anthropic/models",
            "claude-opus-4-8",
        ),
    ] {
        assert_eq!(
            base(params),
            (expected.to_owned(), model.to_owned()),
            "{params}"
        );
    }
}

#[test]
fn what_vertex_does_not_serve_in_this_format_is_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("broken.json");
    fs::write(&broken, r#"{"private_key": "sk-secret"}"#).unwrap();
    let broken = broken.display();
    for (params, reason) in [
        (
            "model: 'vertex_ai/*', vertex_project: p",
            "which format its models have",
        ),
        (
            "model: vertex_ai/imagen-4, vertex_project: p",
            "their publisher's name",
        ),
        (
            "model: vertex_ai/gemini-x, vertex_project: p, vertex_credentials: /nowhere.json",
            "the file cannot be read",
        ),
        (
            &format!(
                "model: vertex_ai/gemini-x, vertex_project: p, vertex_credentials: '{broken}'"
            ),
            "expected the JSON of a service account",
        ),
        (
            "model: vertex_ai/gemini-x, vertex_project: 'p/../q'",
            "expected letters",
        ),
    ] {
        let error = load(params).unwrap_err();
        assert!(
            error.contains(reason) && !error.contains("sk-secret"),
            "{params}: {error}"
        );
    }
}
