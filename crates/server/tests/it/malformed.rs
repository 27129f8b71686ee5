//! Bodies that are nothing an endpoint reads: each gets an error of the client's, whatever it is, and the server serves on.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
};

use proptest::{
    collection::vec, prelude::*, sample::select, strategy::Union, test_runner::TestRunner,
};
use serde_json::{Value, json};
use vorrang_gateway::Endpoint;

use crate::support::{AT_MOST, Gateway, chat};

const CONFIG: &str = "
model_list:
  - model_name: free
    litellm_params: {model: openai/free, mock_response: hello}
general_settings: {master_key: sk-master}
";

/// JSON where a field should have another.
const VALUES: &[&str] = &[
    "null",
    "true",
    "0",
    "-1",
    "-0",
    "1e400",
    "-1e400",
    "0.1e-999",
    "18446744073709551616",
    "99999999999999999999999999999999999999999999",
    "\"\"",
    "\"\\ud800\"",
    "\"\\u0000\"",
    "\"99999999999999999999\"",
    "[]",
    "{}",
    "[null]",
    "[[[]]]",
    "[-1]",
    "[{}]",
    "[{\"role\":1,\"content\":{}}]",
    "[{\"role\":\"user\",\"content\":[{\"type\":[]}]}]",
    "{\"\":{\"\":[]}}",
];

const FIELDS: &[&str] = &[
    "model",
    "messages",
    "prompt",
    "input",
    "query",
    "documents",
    "max_tokens",
    "priority",
    "timeout",
    "stream",
    "stream_timeout",
    "num_retries",
    "fallbacks",
    "n",
    "best_of",
    "tools",
    "system",
    "user",
    "metadata",
];

const CONTENT_TYPES: &[&str] = &[
    "application/json",
    "multipart/form-data",
    "multipart/form-data; boundary=",
    "multipart/form-data; boundary=\"b",
    "multipart/form-data; boundary=\"b\"",
    "multipart/form-data; boundary=c; boundary=b",
    "multipart/mixed; boundary=b",
    "text/plain",
    "/",
];

/// What takes a body apart.
const PIECES: &[&str] = &[
    "\r\n", "--b", "--b--", "\r\n\r\n", "\n", "\"", "\0", "{", "]",
];

/// A body as it is sent.
#[derive(Debug, Clone)]
struct Sent {
    content_type: String,
    body: Vec<u8>,
}

/// A JSON body that the endpoint reads.
fn good(endpoint: Endpoint) -> Value {
    let mut body = json!({"model": "free"});
    let schema = endpoint.body_schema(false);
    for (name, schema) in schema["properties"].as_object().unwrap() {
        let kinds = schema["type"].as_array();
        let kind = kinds.map_or(&schema["type"], |kinds| &kinds[0]);
        let named = ["model", "priority", "timeout", "stream", "stream_timeout"];
        if named.contains(&name.as_str()) || name == "num_retries" {
            continue;
        }
        body[name] = match kind.as_str() {
            Some("array") => json!([{"role": "user", "content": "hi"}]),
            Some("number") => json!(5),
            _ => json!("hi"),
        };
    }
    body
}

/// A form that the endpoint reads.
fn form(endpoint: Endpoint) -> Vec<u8> {
    let mut form = Vec::new();
    for (name, value) in good(endpoint).as_object().unwrap() {
        let file = if name == "file" || name == "image" {
            "; filename=\"a.bin\""
        } else {
            ""
        };
        let value = value.as_str().unwrap();
        let part = format!(
            "--b\r\ncontent-disposition: form-data; name=\"{name}\"{file}\r\n\r\n{value}\r\n"
        );
        form.extend(part.into_bytes());
    }
    form.extend(b"--b--\r\n");
    form
}

fn content_types(endpoint: Endpoint) -> Union<BoxedStrategy<String>> {
    let usual = if endpoint.is_form() {
        "multipart/form-data; boundary=b"
    } else {
        "application/json"
    };
    Union::new_weighted(vec![
        (4, Just(usual.to_owned()).boxed()),
        (1, select(CONTENT_TYPES).prop_map(str::to_owned).boxed()),
    ])
}

/// Bytes that were put in, taken out and cut off somewhere.
fn spoilt(bytes: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let length = bytes.len();
    let change = (
        0..length,
        0..=length.min(9),
        prop_oneof![
            vec(any::<u8>(), 0..4),
            select(PIECES).prop_map(|piece| piece.as_bytes().to_vec()),
        ],
    );
    (vec(change, 0..4), 0..=length, any::<bool>()).prop_map(move |(changes, cut, cuts)| {
        let mut bytes = bytes.clone();
        for (at, gone, put) in changes {
            let at = at.min(bytes.len());
            let end = (at + gone).min(bytes.len());
            bytes.splice(at..end, put);
        }
        if cuts {
            bytes.truncate(cut);
        }
        bytes
    })
}

fn bodies(endpoint: Endpoint) -> Union<BoxedStrategy<Vec<u8>>> {
    let value = good(endpoint);
    let field = || {
        let known: Vec<_> = good(endpoint)
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect();
        let others = FIELDS.iter().map(|name| (*name).to_owned());
        select(known.into_iter().chain(others).collect::<Vec<_>>())
    };
    let written = move |changes: Vec<(String, String)>| {
        let mut fields = good(endpoint).as_object().unwrap().clone();
        for (name, _) in &changes {
            fields.remove(name);
        }
        let mut fields: Vec<_> = fields
            .into_iter()
            .map(|(name, value)| (name, value.to_string()))
            .collect();
        fields.extend(changes);
        let fields: Vec<_> = fields
            .iter()
            .map(|(name, json)| format!("{name:?}:{json}"))
            .collect();
        format!("{{{}}}", fields.join(",")).into_bytes()
    };
    let wrong = vec((field(), select(VALUES).prop_map(str::to_owned)), 1..4).prop_map(written);
    let deep = (field(), 1..20_000_usize, any::<bool>()).prop_map(move |(name, depth, closed)| {
        let close = if closed {
            "]".repeat(depth)
        } else {
            String::new()
        };
        written(vec![(name, format!("{}{close}", "[".repeat(depth)))])
    });
    let text = value.to_string().into_bytes();
    let mut all = vec![
        (1, vec(any::<u8>(), 0..200).boxed()),
        (2, spoilt(text).boxed()),
        (3, wrong.boxed()),
        (1, deep.boxed()),
    ];
    if endpoint.is_form() {
        all.push((7, spoilt(form(endpoint)).boxed()));
    }
    Union::new_weighted(all)
}

/// Sends it and gives the whole answer.
fn answer(address: SocketAddr, path: &str, sent: &Sent) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(AT_MOST)).unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\nauthorization: Bearer sk-master\r\n\
         content-type: {}\r\ncontent-length: {}\r\n\r\n",
        sent.content_type,
        sent.body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    // It may be answered before all of it is sent.
    let _ = stream.write_all(&sent.body);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// Served, or refused as the client's fault in the endpoint's shape.
fn is_sound(endpoint: Endpoint, answer: &str) -> bool {
    if answer.starts_with("HTTP/1.1 200") {
        return true;
    }
    let Some((_, body)) = answer.split_once("\r\n\r\n") else {
        return false;
    };
    let Ok(body) = serde_json::from_str::<Value>(body) else {
        return false;
    };
    let shaped = body["error"]["message"].is_string() && body["error"]["type"].is_string();
    answer.starts_with("HTTP/1.1 4")
        && shaped
        && (!endpoint.is_anthropic() || body["type"] == "error")
}

#[tokio::test]
async fn malformed_bodies_of_every_endpoint_are_the_clients_fault() {
    let gateway = Gateway::start(CONFIG).await;
    let address = gateway.address;
    let tried = tokio::task::spawn_blocking(move || {
        for endpoint in Endpoint::all() {
            let path = format!("/v1{}", endpoint.path());
            let unspoilt = Sent {
                content_type: if endpoint.is_form() {
                    "multipart/form-data; boundary=b".into()
                } else {
                    "application/json".into()
                },
                body: if endpoint.is_form() {
                    form(endpoint)
                } else {
                    good(endpoint).to_string().into_bytes()
                },
            };
            // Else nothing here would come further than the first check.
            let served = answer(address, &path, &unspoilt);
            let no_mock = served.contains("mock_response");
            assert!(served.starts_with("HTTP/1.1 200") || no_mock, "{served}");
            let all = (content_types(endpoint), bodies(endpoint))
                .prop_map(|(content_type, body)| Sent { content_type, body });
            let mut runner = TestRunner::new(ProptestConfig {
                cases: 150,
                failure_persistence: None,
                ..ProptestConfig::default()
            });
            let outcome = runner.run(&all, |sent| {
                let answer = answer(address, &path, &sent);
                prop_assert!(is_sound(endpoint, &answer), "{path}: {answer}");
                Ok(())
            });
            outcome.unwrap_or_else(|error| panic!("{error}"));
        }
    });
    tried.await.unwrap();
    let key = [("authorization", "Bearer sk-master")];
    let after = gateway
        .post("/v1/chat/completions", &key, &chat("free", ""))
        .await;
    assert_eq!(after.status, 200);
}
