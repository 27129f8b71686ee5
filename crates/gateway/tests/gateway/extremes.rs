//! Whatever an upstream says, in its head or in its body, with whatever numbers: a call ends, and its group serves the next one.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::support::{chat, router, status, text};
use proptest::{prelude::*, sample::select, test_runner::TestRunner};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use vorrang_gateway::{Call, Router};

/// JSON values for a field that should be a small number.
const VALUES: &[&str] = &[
    "0",
    "1",
    "-1",
    "-0.0",
    "0.5",
    "500.0",
    "1e15",
    "4503599627370496",
    "9007199254740993",
    "9223372036854775807",
    "-9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "1e308",
    "-1e308",
    "1e400",
    "null",
    "true",
    "\"7\"",
    "\"18446744073709551615\"",
    "\"x\"",
    "[]",
    "{}",
];

/// Header values for a number of seconds, of milliseconds, of requests, or for a date.
const HEADER_VALUES: &[&str] = &[
    "0",
    "1",
    "-1",
    "0.5",
    "1e-300",
    "1e300",
    "inf",
    "nan",
    "18446744073709551615",
    "18446744073709551616",
    "9223372036854775807",
    "true",
    "false",
    "",
    " ",
    "6m0s",
    "Fri, 31 Dec 9999 23:59:59 GMT",
    "Thu, 01 Jan 1970 00:00:00 GMT",
    "Thu, 01 Jan 0001 00:00:00 GMT",
    "\u{e9}\u{fc}",
];

const HEADERS: &[&str] = &[
    "retry-after",
    "retry-after-ms",
    "x-should-retry",
    "x-request-id",
    "openai-processing-ms",
    "x-ratelimit-limit-requests",
    "x-ratelimit-remaining-tokens",
    "x-ratelimit-reset-tokens",
    "cache-control",
];

const USAGE: &[&str] = &[
    "total_tokens",
    "prompt_tokens",
    "completion_tokens",
    "input_tokens",
    "output_tokens",
    "cache_read_input_tokens",
];

const STATUSES: &[u16] = &[
    200, 201, 204, 299, 302, 304, 400, 401, 404, 408, 409, 422, 425, 429, 498, 500, 502, 503, 529,
    599, 600, 999,
];

fn number() -> impl Strategy<Value = &'static str> {
    select(VALUES)
}

fn object(keys: &'static [&'static str]) -> impl Strategy<Value = String> {
    proptest::collection::vec((select(keys), number()), 0..6).prop_map(|fields| {
        let fields: Vec<_> = fields
            .iter()
            .map(|(key, value)| format!("\"{key}\": {value}"))
            .collect();
        format!("{{{}}}", fields.join(", "))
    })
}

/// Where some provider or other writes its usage, and errors. ID is any value.
const PLACES: &[&str] = &[
    r#"{"id": ID, "created": ID, "choices": [{"index": ID, "delta": {"content": "a"}}], "usage": USAGE}"#,
    r#"{"choices": [{"usage": USAGE}], "usage": null}"#,
    r#"{"choices": [], "x_groq": {"usage": USAGE}}"#,
    r#"{"usage": USAGE, "usage": USAGE}"#,
    r#"{"error": {"message": ID, "type": ID, "param": ID, "code": ID}}"#,
    r#"{"error": {"message": "busy", "code": ID, "status": ID}}"#,
];

/// A JSON body with usage wherever some provider writes it, or an error.
fn body() -> impl Strategy<Value = String> {
    let usage = (object(USAGE), object(&["cached_tokens", "reasoning_tokens"])).prop_map(|(usage, details)| {
        let comma = if usage == "{}" { "" } else { ", " };
        let open = usage.trim_end_matches('}');
        format!("{open}{comma}\"prompt_tokens_details\": {details}, \"completion_tokens_details\": {details}}}")
    });
    (select(PLACES).prop_map(str::to_owned), usage, number())
        .prop_map(|(place, usage, id)| place.replace("USAGE", &usage).replace("ID", id))
}

/// A whole answer, as bytes on the wire, and whether it is to a call that asked for a stream.
fn answer() -> impl Strategy<Value = (Vec<u8>, bool)> {
    let headers = proptest::collection::vec((select(HEADERS), select(HEADER_VALUES)), 0..5);
    let bodies = proptest::collection::vec(body(), 1..4);
    let length = select(
        &[
            None,
            None,
            None,
            Some("0"),
            Some("18446744073709551615"),
            Some("-1"),
            Some("5, 7"),
        ][..],
    );
    (select(STATUSES), headers, bodies, any::<bool>(), length).prop_map(
        |(status, headers, bodies, stream, length)| {
            let mut head = format!("HTTP/1.1 {status} Said\r\nconnection: close\r\n");
            for (name, value) in headers {
                head += &format!("{name}: {value}\r\n");
            }
            if let Some(length) = length {
                head += &format!("content-length: {length}\r\n");
            }
            let (kind, body) = if stream {
                let events = bodies.iter().map(|body| format!("data: {body}\n\n"));
                (
                    "text/event-stream",
                    events.collect::<String>() + "data: [DONE]\n\n",
                )
            } else {
                ("application/json", bodies[0].clone())
            };
            head += &format!("content-type: {kind}\r\n\r\n{body}");
            (head.into_bytes(), stream)
        },
    )
}

/// Answers every request with the bytes that are set, and closes.
struct Wire {
    base: String,
    bytes: Arc<Mutex<Vec<u8>>>,
}

impl Wire {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}/v1", listener.local_addr().unwrap());
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let shared = bytes.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let bytes = shared.lock().unwrap().clone();
                tokio::spawn(serve(stream, bytes));
            }
        });
        Self { base, bytes }
    }

    fn says(&self, bytes: &[u8]) {
        *self.bytes.lock().unwrap() = bytes.to_vec();
    }
}

/// Reads a request to the end of its small body.
async fn serve(mut stream: TcpStream, answer: Vec<u8>) {
    let mut request = Vec::new();
    while !request.ends_with(b"}") {
        if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
            return;
        }
    }
    // The gateway may close before it has read all of it.
    let _ = stream.write_all(&answer).await;
}

/// A group of its own for each kind of limit.
fn config(base: &str, settings: &str) -> String {
    let entry = |name: &str, limit: &str| {
        format!(
            "- {{model_name: {name}, litellm_params: {{model: openai/up, api_base: '{base}', {limit}}}}}\n"
        )
    };
    format!(
        "model_list:\n{}{}{}router_settings: {{num_retries: 0, {settings}}}\n",
        entry("m", "rpm: 1000000"),
        entry("tokens", "tpm: 1000000"),
        entry("kinds", "itpm: 1000000, otpm: 1000000"),
    )
}

fn call(model: &str, more: &str) -> Call {
    let mut call = chat(more);
    let body = String::from_utf8(call.body.to_vec()).unwrap();
    call.body = body
        .replace(r#""model":"m""#, &format!(r#""model":"{model}""#))
        .into();
    call
}

/// The call comes to an end, whatever it is, and what it says is bounded.
async fn ends(router: &Router, call: Call) {
    let call = async {
        match router.call(call).await {
            Ok(answer) => {
                assert!(answer.status.is_success());
                // A broken answer is an end as well.
                let _ = text(answer.body).await;
            }
            Err(error) => {
                assert!(error.status().as_u16() >= 400, "{error}");
                assert!(error.body().len() < 100_000, "{error}");
                let wait = error.retry_after().unwrap_or_default();
                assert!(wait <= Duration::from_secs(86_400), "{wait:?}");
                error.headers();
            }
        }
    };
    timeout(Duration::from_secs(20), call).await.unwrap();
}

const PLAIN: &[u8] = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 14\r\ncontent-type: application/json\r\n\r\n{\"choices\":[]}";

/// The group goes on: the next call is served, or waits for room or for the end of a cooldown.
async fn goes_on(router: &Router, wire: &Wire, model: &str) {
    wire.says(PLAIN);
    let next = router.call(call(model, r#","timeout":0.02"#)).await;
    let status = next
        .as_ref()
        .map_or_else(|error| error.status(), |answer| answer.status);
    let expected = [200, 408, 401, 404];
    assert!(expected.contains(&status.as_u16()), "{model}: {next:?}");
}

#[test]
fn group_keeps_serving_after_extreme_upstream_numbers() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let (wire, lasting) = runtime.block_on(async {
        let wire = Wire::start().await;
        // Without cooldowns, so that what is said adds up.
        let (lasting, _) = router(&config(&wire.base, "disable_cooldowns: true"));
        (wire, lasting)
    });
    let mut runner = TestRunner::new(ProptestConfig::with_cases(48));
    let property = |(bytes, stream): (Vec<u8>, bool)| {
        runtime.block_on(async {
            let (cooling, _) = router(&config(&wire.base, "allowed_fails: 0"));
            let more = if stream {
                r#","stream":true,"timeout":0.5"#
            } else {
                r#","timeout":0.5"#
            };
            for model in ["m", "tokens", "kinds"] {
                wire.says(&bytes);
                ends(&cooling, call(model, more)).await;
                goes_on(&cooling, &wire, model).await;
            }
            wire.says(&bytes);
            ends(&lasting, call("m", more)).await;
            // Its only limit is one of requests: it has room.
            wire.says(PLAIN);
            let next = lasting.call(call("m", r#","timeout":20"#)).await;
            prop_assert!(next.is_ok(), "{next:?}");
            let tokens = status(&lasting).deployments[0].tokens;
            prop_assert!(tokens.total() <= 1 << 53, "{tokens:?}");
            Ok(())
        })
    };
    runner.run(&answer(), property).unwrap();
}
