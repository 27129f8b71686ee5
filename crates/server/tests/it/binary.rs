//! The binary itself: what it prints and how it ends.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    process::{Child, ChildStdout, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{AT_MOST, MOCKS, chat, request};

pub(crate) fn vorrang(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vorrang"));
    command
        .args(arguments)
        .env_remove("HOST")
        .env_remove("PORT")
        .env_remove("VORRANG_REDIS_URL")
        .env_remove("RUST_LOG")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// A serving process; killed if the test ends before it does.
pub(crate) struct Serving {
    child: Child,
    stdout: BufReader<ChildStdout>,
    printed: String,
    address: String,
    admin: Option<String>,
}

impl Serving {
    pub(crate) fn start(command: Command) -> Self {
        Self::start_with(command, "http")
    }

    /// Where its URL begins with `scheme`.
    pub(crate) fn start_with(mut command: Command, scheme: &str) -> Self {
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut serving = Self {
            child,
            stdout,
            printed: String::new(),
            address: String::new(),
            admin: None,
        };
        while serving.address.is_empty() {
            let mut line = String::new();
            let read = serving.stdout.read_line(&mut line).unwrap();
            assert_ne!(read, 0, "ended after {}", serving.printed);
            serving.printed.push_str(&line);
            if let Some(url) = line.strip_prefix("health and metrics on http://") {
                serving.admin = Some(url.trim().to_owned());
            }
            if let Some(url) = line.strip_prefix(&format!("listening on {scheme}://")) {
                serving.address = url.split_whitespace().next().unwrap().to_owned();
            }
        }
        serving
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub(crate) fn get(&self, path: &str) -> String {
        self.get_with(path, "")
    }

    /// With more headers, each with its line's end.
    pub(crate) fn get_with(&self, path: &str, headers: &str) -> String {
        let mut stream = std::net::TcpStream::connect(&self.address).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nhost: test\r\n{headers}connection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Sends a whole request and reads until the server closes.
    pub(crate) fn send(&self, bytes: &[u8]) -> String {
        let mut stream = std::net::TcpStream::connect(&self.address).unwrap();
        stream.write_all(bytes).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Of the admin port.
    pub(crate) fn get_admin(&self, path: &str) -> String {
        let mut stream = std::net::TcpStream::connect(self.admin.as_ref().unwrap()).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// What it has written to stdout at its start.
    pub(crate) fn printed(&self) -> &str {
        &self.printed
    }

    /// Waits for the end; gives its code and what it wrote to stderr.
    pub(crate) fn ended(mut self) -> (Option<i32>, String) {
        let mut log = String::new();
        self.child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut log)
            .unwrap();
        self.stdout.read_to_string(&mut self.printed).unwrap();
        (self.child.wait().unwrap().code(), log)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for a state, not for a time.
pub(crate) fn until(state: &str, holds: impl Fn() -> bool) {
    let since = tokio::time::Instant::now();
    while !holds() {
        assert!(since.elapsed() < AT_MOST, "never: {state}");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

pub(crate) fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

#[test]
fn demo_is_ready_at_once_despite_redis_url_and_stops_at_sigterm() {
    let mut command = vorrang(&["--host", "127.0.0.1", "--port", "0"]);
    command.env("REDIS_URL", "redis://127.0.0.1:1");
    let serving = Serving::start(command);
    assert!(
        serving.printed.contains("curl -i http://127.0.0.1:"),
        "{}",
        serving.printed
    );
    // It need not be on the PATH.
    let check = concat!(env!("CARGO_BIN_EXE_vorrang"), " check --config");
    assert!(serving.printed.contains(check), "{}", serving.printed);
    // It waits for no Redis; its sessions are opened while it begins to listen.
    let ready = |_| {
        let is = serving.get("/health/readiness").starts_with("HTTP/1.1 200");
        if !is {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        is
    };
    assert!((0..2000).any(ready), "it does not become ready");
    serving.signal(Signal::TERM);
    let (code, log) = serving.ended();
    assert_eq!(code, Some(0), "{log}");
    // Not a terminal: every line is JSON.
    for line in log.lines() {
        assert!(
            serde_json::from_str::<serde_json::Value>(line).is_ok(),
            "{line}"
        );
    }
    assert!(log.contains("\"sessions closed\""), "{log}");
}

#[test]
fn second_signal_ends_the_process_at_once() {
    let config = file(
        "
model_list: [{model_name: tight, litellm_params: {model: openai/x, mock_response: hello, rpm: 1}}]
vorrang_settings: {grace_seconds: 1000}
",
    );
    let serving = Serving::start(vorrang(&[
        "serve",
        "--config",
        config.path().to_str().unwrap(),
        "--host",
        "127.0.0.1",
        "--port",
        "0",
    ]));
    let body = chat("tight", "");
    let call = request("POST", "/chat/completions", &[], &body);
    // The first uses up the window, the second waits in it.
    let calls = [(); 2].map(|()| {
        let mut stream = std::net::TcpStream::connect(&serving.address).unwrap();
        stream.write_all(&call).unwrap();
        stream
    });
    until("one waits", || {
        let page = serving.get("/metrics");
        page.contains("vorrang_waiting{group=\"tight\"} 1")
    });
    serving.signal(Signal::INT);
    until("nobody listens: it has taken the first signal", || {
        std::net::TcpStream::connect(&serving.address).is_err()
    });
    serving.signal(Signal::INT);
    assert_eq!(serving.ended().0, Some(130));
    drop(calls);
}

/// Under a limit of so many file descriptors.
fn limited(files: usize, arguments: &[&str]) -> Command {
    let binary = vorrang(&[]);
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("ulimit -n {files} && exec \"$0\" \"$@\"")])
        .arg(binary.get_program())
        .args(arguments)
        .env_remove("HOST")
        .env_remove("PORT")
        .env_remove("VORRANG_REDIS_URL")
        .env_remove("RUST_LOG")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

#[test]
fn urgent_request_is_served_while_waiting_ones_use_all_descriptors() {
    let config = file(MOCKS);
    let mut serving = Serving::start(limited(
        256,
        &[
            "--config",
            config.path().to_str().unwrap(),
            "--host",
            "127.0.0.1",
            "--port",
            "0",
            "--admin-port",
            "0",
        ],
    ));
    let body = chat("tight", r#", "priority": 1000"#);
    let call = request("POST", "/chat/completions", &[], &body);
    let batch: Vec<_> = (0..150)
        .map(|_| {
            let mut stream = std::net::TcpStream::connect(&serving.address).unwrap();
            stream.write_all(&call).unwrap();
            stream.set_nonblocking(true).unwrap();
            stream
        })
        .collect();
    let is_refused = |stream: &&std::net::TcpStream| {
        let mut start = [0; 12];
        matches!(stream.peek(&mut start), Ok(12)) && start.ends_with(b"429")
    };
    until("one is turned away", || {
        batch.iter().any(|stream| is_refused(&stream))
    });
    let mut turned_away = batch.iter().find(is_refused).unwrap();
    turned_away.set_nonblocking(false).unwrap();
    let mut refused = String::new();
    turned_away.read_to_string(&mut refused).unwrap();
    assert!(refused.starts_with("HTTP/1.1 429"), "{refused}");
    assert!(refused.contains("\r\nretry-after: "), "{refused}");
    assert!(refused.contains("\r\nconnection: close"), "{refused}");

    let mut urgent = std::net::TcpStream::connect(&serving.address).unwrap();
    urgent.set_read_timeout(Some(AT_MOST)).unwrap();
    let call = request("POST", "/chat/completions", &[], &chat("free", ""));
    urgent.write_all(&call).unwrap();
    let mut answer = String::new();
    urgent.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(
        serving
            .get("/health/liveliness")
            .starts_with("HTTP/1.1 200")
    );
    let page = serving.get("/metrics");
    let counted = "vorrang_refused_total{group=\"tight\",reason=\"turned_away\"}";
    assert!(page.contains(counted), "{page}");
    assert!(
        !page.contains("vorrang_waiting{group=\"tight\"} 0"),
        "{page}"
    );

    serving.address = serving.admin.clone().unwrap();
    for path in ["/health/readiness", "/metrics"] {
        assert!(serving.get(path).starts_with("HTTP/1.1 200"), "{path}");
    }
    let call = serving.get("/v1/models");
    assert!(call.starts_with("HTTP/1.1 404"), "{call}");
}

#[test]
fn server_survives_running_out_of_descriptors() {
    let command = limited(24, &["--host", "127.0.0.1", "--port", "0"]);
    let mut serving = Serving::start(command);
    let many = [(); 40].map(|()| std::net::TcpStream::connect(&serving.address).unwrap());
    let mut log = BufReader::new(serving.child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("cannot accept connections") {
        line.clear();
        assert_ne!(log.read_line(&mut line).unwrap(), 0, "it ended");
    }
    drop(many);
    let answer = serving.get("/health/liveliness");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn start_without_keys_warns_on_public_addresses_or_is_refused() {
    let config = file(
        "model_list: [{model_name: chat, litellm_params: {model: openai/x, api_base: 'http://127.0.0.1:1', api_key: sk-geheim}}]\n",
    );
    let config = ["--config", config.path().to_str().unwrap(), "--port", "0"];
    let log = |host: &str, config: &[&str]| {
        let serving = Serving::start(vorrang(&[config, &["--host", host]].concat()));
        serving.signal(Signal::TERM);
        serving.ended().1
    };
    let loud = |log: &str| log.lines().filter(|line| line.contains("NO KEYS")).count();
    let open = log("0.0.0.0", &config);
    assert_eq!(loud(&open), 1, "{open}");
    assert!(!open.contains("geheim"), "{open}");
    assert_eq!(loud(&log("127.0.0.1", &config)), 0);
    assert_eq!(
        loud(&log("0.0.0.0", &["--port", "0"])),
        0,
        "the demo spends nothing"
    );

    let refused = vorrang(&[&config[..], &["--require-keys"]].concat()).output();
    let refused = refused.unwrap();
    assert_eq!(refused.status.code(), Some(1));
    let error = String::from_utf8(refused.stderr).unwrap();
    assert!(error.contains("--require-keys"), "{error}");
    assert!(refused.stdout.is_empty());
}

#[test]
fn unusable_config_is_reported_by_line_without_secrets() {
    let config = file(
        "model_list: []\nrouter_settings:\n  redis_host; os.environ/REDIS_HOST\n  redis_password: geheim\n",
    );
    let path = config.path().to_str().unwrap();
    for arguments in [
        &["check", "--config", path][..],
        &["--config", path, "--port", "0"],
    ] {
        let output = vorrang(arguments).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(
            stderr.starts_with("error: ") && stderr.contains(":3"),
            "{stderr}"
        );
        assert!(!stderr.contains("geheim"), "{stderr}");
    }
}

#[test]
fn bad_key_is_reported_by_position_and_never_printed() {
    let config = file(
        "
model_list: [{model_name: chat, litellm_params: {model: openai/x, mock_response: hello}}]
vorrang_settings:
  keys:
    - {name: a, key: os.environ/ONE_KEY}
    - {name: b, key: sk-geheim}
",
    );
    let path = config.path().to_str().unwrap();
    for arguments in [
        &["check", "--config", path][..],
        &["--config", path, "--port", "0"],
    ] {
        let output = vorrang(arguments)
            .env("ONE_KEY", "sk-geheim")
            .output()
            .unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(
            stderr.contains(":6: vorrang_settings.keys[1].key: another entry has the same key"),
            "{stderr}"
        );
        assert!(!stderr.contains("geheim"), "{stderr}");
    }
}

#[test]
fn taken_port_is_reported_by_address() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let output = vorrang(&["--host", "127.0.0.1", "--port", &port])
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr.contains(&format!("cannot listen on 127.0.0.1:{port}")),
        "{stderr}"
    );
}
