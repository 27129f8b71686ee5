//! A gateway on a free port, and a client that sees every byte.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use vorrang_gateway::Config;
use vorrang_server::{Patience, Server};

/// Longer than anything here takes; a test that needs it has failed.
pub(crate) const AT_MOST: Duration = Duration::from_secs(20);

/// A mock model without limits, and one that answers one request in a window of one minute.
pub(crate) const MOCKS: &str = "
model_list:
  - model_name: free
    litellm_params: {model: openai/free, mock_response: hello}
  - model_name: tight
    litellm_params: {model: openai/tight, mock_response: hello, rpm: 1}
";

/// A running server.
pub(crate) struct Gateway {
    pub(crate) address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    run: JoinHandle<()>,
}

impl Gateway {
    pub(crate) async fn start(config: &str) -> Self {
        Self::patient(config, Patience::default()).await
    }

    pub(crate) async fn patient(config: &str, patience: Patience) -> Self {
        let loaded = Config::parse(config, "test.yaml", &BTreeMap::new()).unwrap();
        assert_eq!(loaded.warnings(), Vec::<String>::new());
        Self::serve(loaded.config, patience).await
    }

    pub(crate) async fn serve(config: Config, patience: Patience) -> Self {
        let gateway = Self::begin(config, patience).await;
        gateway.until_ready().await;
        gateway
    }

    /// Serves, ready or not.
    pub(crate) async fn begin(config: Config, patience: Patience) -> Self {
        let server = Server::bind(config, "127.0.0.1", 0, patience)
            .await
            .unwrap();
        let address = server.address();
        let (stop, stopped) = oneshot::channel::<()>();
        let run = tokio::spawn(server.run(async {
            let _ = stopped.await;
        }));
        Self {
            address,
            stop: Some(stop),
            run,
        }
    }

    pub(crate) async fn until_ready(&self) {
        self.until("ready", || async {
            self.get("/health/readiness").await.status == 200
        })
        .await;
    }

    /// What a SIGTERM does.
    pub(crate) fn stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    /// Waits until the server has ended; says how long that took.
    pub(crate) async fn ended(mut self) -> Duration {
        let since = Instant::now();
        timeout(AT_MOST, &mut self.run).await.unwrap().unwrap();
        since.elapsed()
    }

    /// Opens a connection and sends `bytes` as they are.
    pub(crate) async fn send(&self, bytes: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.request("GET", path, &[], "").await
    }

    pub(crate) async fn post(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        self.request("POST", path, headers, body).await
    }

    pub(crate) async fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let stream = self.send(&request(method, path, headers, body)).await;
        Answer::read(stream).await
    }

    /// A chat request on its way.
    pub(crate) async fn chat(&self, model: &str) -> TcpStream {
        self.send(&request(
            "POST",
            "/v1/chat/completions",
            &[],
            &chat(model, ""),
        ))
        .await
    }

    /// The value of a metric without labels other than `group`.
    pub(crate) async fn gauge(&self, name: &str, group: &str) -> f64 {
        let page = self.get("/metrics").await.text();
        let start = format!("{name}{{group=\"{group}\"}} ");
        let line = page.lines().find_map(|line| line.strip_prefix(&start));
        line.unwrap_or_else(|| panic!("no {start}in\n{page}"))
            .parse()
            .unwrap()
    }

    /// Waits until as many tickets wait in the group.
    pub(crate) async fn until_waiting(&self, group: &str, tickets: f64) {
        let state = format!("{tickets} waiting in {group}");
        self.until(&state, || async {
            self.gauge("vorrang_waiting", group).await == tickets
                && self.gauge("vorrang_queue_depth", group).await == tickets
        })
        .await;
    }

    /// Waits for a state, not for a time.
    pub(crate) async fn until<F: Future<Output = bool>>(&self, state: &str, holds: impl Fn() -> F) {
        let waited = timeout(AT_MOST, async {
            while !holds().await {
                sleep(Duration::from_millis(5)).await;
            }
        });
        waited.await.unwrap_or_else(|_| panic!("never: {state}"));
    }
}

/// A request that wants the connection closed after its answer.
pub(crate) fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
    use std::fmt::Write as _;
    let mut text = format!("{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n");
    for (name, value) in headers {
        write!(text, "{name}: {value}\r\n").unwrap();
    }
    if method == "POST" {
        write!(
            text,
            "content-type: application/json\r\ncontent-length: {}\r\n",
            body.len()
        )
        .unwrap();
    }
    write!(text, "\r\n{body}").unwrap();
    text.into_bytes()
}

/// A chat body; `more` is further fields, each with a comma before it.
pub(crate) fn chat(model: &str, more: &str) -> String {
    format!(r#"{{"model": "{model}", "messages": [{{"role": "user", "content": "hi"}}]{more}}}"#)
}

/// An answer as it came.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// The body came to its announced end.
    pub(crate) complete: bool,
}

impl Answer {
    /// Reads until the server closes.
    pub(crate) async fn read(mut stream: impl AsyncRead + Unpin) -> Self {
        let mut bytes = Vec::new();
        // A reset is a way to end, too: what came before it counts.
        let _ = timeout(AT_MOST, stream.read_to_end(&mut bytes))
            .await
            .expect("an answer in time");
        Self::parse(&bytes)
    }

    fn parse(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("no head: {:?}", String::from_utf8_lossy(bytes)));
        let head = std::str::from_utf8(&bytes[..end]).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines
            .next()
            .unwrap()
            .split(' ')
            .nth(1)
            .unwrap()
            .parse()
            .unwrap();
        let headers: Vec<(String, String)> = lines
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        let mut answer = Self {
            status,
            headers,
            body: bytes[end + 4..].to_vec(),
            complete: true,
        };
        if answer.header("transfer-encoding").is_some() {
            (answer.body, answer.complete) = dechunk(&answer.body);
        } else if let Some(length) = answer.header("content-length") {
            answer.complete = answer.body.len() == length.parse::<usize>().unwrap();
        }
        answer
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find_map(|(known, value)| (known == name).then_some(value.as_str()))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {}", self.text()))
    }

    /// Checks that this is an error of the documented shape and gives its `message` and `type`.
    pub(crate) fn error(&self, status: u16) -> (String, String) {
        assert_eq!(self.status, status, "{}", self.text());
        assert_eq!(self.header("content-type"), Some("application/json"));
        assert!(self.header("x-litellm-call-id").is_some(), "{self:?}");
        let body = self.json();
        let fields: Vec<_> = body["error"]
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        // What came too early may learn where it was in the queue.
        let place: &[&str] = match (status, fields.len()) {
            (408 | 429, 6) => &["position", "least_wait_ms"],
            _ => &[],
        };
        assert_eq!(
            fields,
            [&["message", "type", "param", "code"], place].concat()
        );
        assert_eq!(body["error"]["code"], status.to_string());
        let text = |field: &str| body["error"][field].as_str().unwrap().to_owned();
        (text("message"), text("type"))
    }
}

fn dechunk(mut rest: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    loop {
        let Some(line) = rest.windows(2).position(|window| window == b"\r\n") else {
            return (body, false);
        };
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
        rest = &rest[line + 2..];
        if size == 0 {
            return (body, true);
        }
        if rest.len() < size + 2 {
            return (body, false);
        }
        body.extend_from_slice(&rest[..size]);
        rest = &rest[size + 2..];
    }
}
