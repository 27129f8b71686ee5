//! The access line that each request writes to the log.

use std::{
    io,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::Value;
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::fmt::MakeWriter;

use crate::support::{Answer, Gateway, chat};

#[derive(Clone, Default)]
pub(crate) struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;
    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Lines {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    /// The access lines of what needs a key.
    pub(crate) fn access(&self) -> Vec<Value> {
        let text = self.text();
        let lines = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        let keyed = |path: &str| path.contains("completions") || path.contains("models");
        lines
            .filter(|line| line["path"].as_str().is_some_and(keyed))
            .collect()
    }
}

const CONFIG: &str = "
model_list:
  - model_name: tight
    litellm_params: {model: openai/tight, mock_response: hello, rpm: 1, api_key: sk-upstream}
    model_info: {id: tight-1}
vorrang_settings:
  keys: [{name: batch, key: sk-geheim, default_priority: 10}]
";

/// On one thread: the subscriber is the thread's, other tests do not write into it.
pub(crate) fn listen() -> (Lines, DefaultGuard) {
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_max_level(tracing::Level::TRACE)
        .with_writer(lines.clone())
        .finish();
    (lines, tracing::subscriber::set_default(subscriber))
}

#[tokio::test]
async fn access_line_names_the_key_and_the_clamped_priority() {
    let (lines, _installed) = listen();
    let config = CONFIG.replace(
        "default_priority: 10",
        "best_priority: 500, models: [tight]",
    );
    let gateway = Gateway::start(&config).await;
    let key = [("authorization", "Bearer sk-geheim")];
    let path = "/v1/chat/completions";
    let asks = r#", "priority": -7"#;
    let served = gateway.post(path, &key, &chat("tight", asks)).await;
    assert_eq!(served.status, 200);
    gateway
        .post(path, &key, &chat("other", asks))
        .await
        .error(403);
    let models = gateway.request("GET", "/v1/models", &key, "").await;
    assert_eq!(models.status, 200);
    gateway
        .until("all lines", || async { lines.access().len() >= 3 })
        .await;

    let fields = |line: &Value| ["key", "status", "priority"].map(|name| line[name].clone());
    let found: Vec<_> = lines.access().iter().map(fields).collect();
    let expected = [
        ("batch", 200, Value::from(500)),
        ("batch", 403, Value::Null),
        ("batch", 200, Value::Null),
    ];
    let expected = expected.map(|(key, status, priority)| [key.into(), status.into(), priority]);
    assert_eq!(found, expected);
    assert!(!lines.text().contains("sk-geheim"));
}

#[tokio::test]
async fn every_request_logs_one_access_line_without_secrets() {
    let (lines, _installed) = listen();
    let gateway = Gateway::start(CONFIG).await;
    let key = [
        ("authorization", "Bearer sk-geheim"),
        ("x-litellm-call-id", "one"),
    ];
    let path = "/v1/chat/completions?api_key=sk-geheim";
    assert_eq!(
        gateway
            .post(path, &key, &chat("tight", r#", "user": "prompt-text""#))
            .await
            .status,
        200
    );
    let late = gateway
        .post(path, &key, &chat("tight", r#", "timeout": 0.1"#))
        .await;
    assert_eq!(late.status, 408);
    assert_eq!(
        gateway
            .post(path, &[("api-key", "sk-wrong")], &chat("tight", ""))
            .await
            .status,
        401
    );
    let leaver = gateway
        .send(&crate::support::request(
            "POST",
            path,
            &key,
            &chat("tight", r#", "priority": 3"#),
        ))
        .await;
    gateway.until_waiting("tight", 1.0).await;
    drop(leaver);
    gateway.until_waiting("tight", 0.0).await;
    gateway
        .until("the last line", || async { lines.access().len() >= 4 })
        .await;

    let calls = lines.access();
    assert_eq!(calls.len(), 4, "{calls:#?}");
    let fields = |line: &Value, names: &[&str]| -> Vec<Value> {
        names.iter().map(|name| line[*name].clone()).collect()
    };
    let names = [
        "request_id",
        "method",
        "path",
        "key",
        "group",
        "priority",
        "deployment",
        "status",
    ];
    assert_eq!(
        fields(&calls[0], &names),
        ["one", "POST", "/v1/chat/completions", "batch", "tight"]
            .map(Value::from)
            .into_iter()
            .chain([Value::from(10), Value::from("tight-1"), Value::from(200)])
            .collect::<Vec<_>>()
    );
    assert_eq!(calls[0]["complete"], true);
    assert!(calls[0]["wait_ms"].is_u64() && calls[0]["duration_ms"].is_u64());
    // What `vorrang simulate` needs.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let arrived = Duration::from_micros(calls[0]["arrived_us"].as_u64().unwrap());
    assert!(arrived <= now && arrived + Duration::from_secs(60) > now);
    let names = ["streamed", "asked_priority", "timeout_ms", "tenant"];
    let none = Value::Null;
    assert_eq!(
        fields(&calls[0], &names),
        [false.into(), none.clone(), 6_000_000.into(), none]
    );
    assert!(calls[0]["upstream_ms"].is_u64() && calls[0]["used_output_tokens"].as_u64() > Some(0));
    assert_eq!(calls[0]["input_tokens"], 0, "no limit counts tokens");
    assert_eq!(calls[1]["timeout_ms"], 100);
    assert!(calls[1]["upstream_ms"].is_null() && calls[1]["used_output_tokens"].is_null());
    assert_eq!(calls[3]["asked_priority"], 3);
    assert_eq!(calls[1]["status"], 408);
    assert!(calls[1]["wait_ms"].as_u64().unwrap() >= 100, "{}", calls[1]);
    assert_eq!(
        fields(&calls[2], &["status", "group", "key"]),
        [Value::from(401), Value::Null, Value::Null]
    );
    assert_eq!(
        fields(&calls[3], &["status", "group", "priority", "complete"]),
        [
            Value::from(499),
            Value::from("tight"),
            Value::from(3),
            Value::from(false)
        ]
    );

    for secret in ["sk-geheim", "sk-wrong", "sk-upstream", "prompt-text"] {
        assert!(!lines.text().contains(secret), "{secret} in the log");
    }
    drop(Answer::read(gateway.chat("tight").await).await);
}

#[tokio::test]
async fn lines_say_which_group_takes_over_and_which_was_asked_for() {
    let (lines, _installed) = listen();
    let config = "
model_list:
  - {model_name: broken, litellm_params: {model: m, mock_response: litellm.InternalServerError}}
  - {model_name: free, litellm_params: {model: m, mock_response: hello}}
router_settings: {num_retries: 0, fallbacks: [{broken: [free]}]}
";
    let gateway = Gateway::start(config).await;
    let body = chat("broken", "");
    let answer = gateway.post("/v1/chat/completions", &[], &body).await;
    assert_eq!(answer.status, 200);
    gateway
        .until("the line", || async { !lines.access().is_empty() })
        .await;
    let line = &lines.access()[0];
    assert_eq!(line["group"], "free");
    assert_eq!(
        (&line["fallbacks"], &line["fallback_from"]),
        (&1.into(), &"broken".into())
    );
    let text = lines.text();
    let failed = text.lines().find(|line| line.contains("an attempt failed"));
    let failed: Value = serde_json::from_str(failed.unwrap()).unwrap();
    assert_eq!(
        (&failed["group"], &failed["fallback"]),
        (&"broken".into(), &"free".into())
    );
}
