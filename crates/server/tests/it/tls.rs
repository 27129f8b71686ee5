//! TLS at the gateway's own port.

use std::{
    process::Command,
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use vorrang_gateway::Config;
use vorrang_server::Patience;

use crate::{
    authority::Authority,
    binary::{file, until, vorrang},
    support::{AT_MOST, Answer, Gateway, MOCKS, chat, request},
};

/// A gateway that speaks TLS, and a client that trusts it.
pub(crate) struct Tls {
    pub(crate) gateway: Gateway,
    pub(crate) authority: Authority,
    client: Arc<ClientConfig>,
}

/// The configuration `models` with TLS; `more` are fields of `tls`, `ours` other settings of `vorrang_settings`.
fn config(authority: &Authority, models: &str, more: &str, ours: &str) -> Config {
    let tls = authority.setting("server", more);
    let text = format!("{models}vorrang_settings: {{{tls}{ours}}}\n");
    let loaded = Config::parse(&text, "test.yaml", &std::collections::BTreeMap::new()).unwrap();
    assert_eq!(loaded.warnings(), Vec::<String>::new());
    loaded.config
}

impl Tls {
    pub(crate) async fn start(models: &str, ours: &str, patience: Patience) -> Self {
        let authority = Authority::new();
        let config = config(&authority, models, "", ours);
        let tls = Self {
            gateway: Gateway::begin(config, patience).await,
            client: Arc::new(authority.client(None)),
            authority,
        };
        let ready = || async { tls.get("/health/readiness").await.status == 200 };
        tls.gateway.until("ready", ready).await;
        tls
    }

    /// A client that trusts it.
    pub(crate) fn client(&self) -> Arc<ClientConfig> {
        self.client.clone()
    }

    /// A connection over which nothing has been sent yet.
    pub(crate) async fn connect(&self) -> TlsStream<TcpStream> {
        connect(&self.gateway, &self.client).await.unwrap()
    }

    pub(crate) async fn send(&self, bytes: &[u8]) -> TlsStream<TcpStream> {
        let mut stream = self.connect().await;
        stream.write_all(bytes).await.unwrap();
        stream.flush().await.unwrap();
        stream
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        Answer::read(self.send(&request("GET", path, &[], "")).await).await
    }

    /// The value of a metric with its labels.
    pub(crate) async fn metric(&self, series: &str) -> f64 {
        let page = self.get("/metrics").await.text();
        let mut lines = page.lines();
        let value = lines.find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value
            .unwrap_or_else(|| panic!("no {series} in\n{page}"))
            .parse()
            .unwrap()
    }

    pub(crate) async fn until_waiting(&self, tickets: f64) {
        let series = r#"vorrang_waiting{group="tight"}"#;
        let holds = || async { self.metric(series).await == tickets };
        let state = format!("{tickets} wait");
        self.gateway.until(&state, holds).await;
    }
}

/// A handshake with `localhost`.
pub(crate) async fn connect(
    gateway: &Gateway,
    client: &Arc<ClientConfig>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(gateway.address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    let connector = TlsConnector::from(client.clone());
    timeout(AT_MOST, connector.connect(name, stream))
        .await
        .unwrap()
}

fn refused(reason: &str) -> String {
    format!("vorrang_connections_refused_total{{reason=\"{reason}\"}}")
}

/// A request by curl; its status, the HTTP version and the exit code.
fn curl(tls: &Tls, options: &[&str]) -> String {
    let port = tls.gateway.address.port();
    let output = Command::new("curl")
        .args([
            "--silent",
            "--output",
            "/dev/null",
            "--max-time",
            "20",
            "--noproxy",
            "*",
        ])
        .args(["--write-out", "%{http_code} %{http_version} %{exitcode}"])
        .args(["--cacert", &tls.authority.path("ca.crt")])
        .args(["--resolve", &format!("localhost:{port}:127.0.0.1")])
        .args(options)
        .arg(format!("https://localhost:{port}/health/liveliness"))
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_gets_http_1_and_http_2_over_tls_1_2_and_1_3() {
    let tls = Tls::start(MOCKS, "", Patience::default()).await;
    for (options, seen) in [
        (&["--http2"][..], "200 2 0"),
        (&["--http1.1"], "200 1.1 0"),
        (&["--http2", "--tls-max", "1.2"], "200 2 0"),
        (&["--tlsv1.3", "--http1.1"], "200 1.1 0"),
        (&["--no-alpn"], "200 1.1 0"),
        (&["--http2-prior-knowledge"], "200 2 0"),
        // A refusal of the protocol's version.
        (
            &["--tls-max", "1.1", "--ciphers", "ALL:@SECLEVEL=0"],
            "000 0 35",
        ),
        (&["--cacert", "/etc/hostname"], "000 0 77"),
    ] {
        assert_eq!(curl(&tls, options), seen, "{options:?}");
    }
}

#[tokio::test]
async fn plain_http_on_a_tls_port_is_answered_with_the_reason() {
    let tls = Tls::start(MOCKS, "", Patience::default()).await;
    for body in ["", &"x".repeat(1 << 20)] {
        let sent = request("POST", "/v1/chat/completions", &[], body);
        let answer = Answer::read(tls.gateway.send(&sent).await).await;
        assert_eq!(answer.status, 400);
        let text = answer.json()["error"]["message"].to_string();
        assert!(text.contains("https://"), "{text}");
    }
    tls.gateway
        .until("counted", || async {
            tls.metric(&refused("plain_http")).await == 2.0
        })
        .await;
}

/// A plain port, where TLS is not configured, answers a handshake as it does other nonsense.
#[tokio::test]
async fn handshake_on_a_plain_port_fails_at_once() {
    let gateway = Gateway::start(MOCKS).await;
    let client = Arc::new(Authority::new().client(None));
    assert!(connect(&gateway, &client).await.is_err());
}

#[tokio::test]
async fn slow_handshakes_end_in_time_and_block_no_connection() {
    let patience = Patience {
        handshake: Duration::from_millis(500),
        ..Patience::default()
    };
    let tls = Tls::start(MOCKS, "", patience).await;
    let mut slow = Vec::new();
    // Nothing; the beginning of a handshake; a whole record that says nothing.
    for bytes in [
        &b""[..],
        b"\x16\x03\x01\x02\x00",
        b"\x16\x03\x01\x00\x04\x01\x00\x02\x00",
    ] {
        for _ in 0..20 {
            slow.push(tls.gateway.send(bytes).await);
        }
    }
    // Others are served meanwhile.
    let answer = timeout(Duration::from_secs(5), tls.get("/health/liveliness")).await;
    assert_eq!(answer.unwrap().status, 200);
    for mut stream in slow {
        let mut seen = Vec::new();
        let ended = timeout(AT_MOST, stream.read_to_end(&mut seen)).await;
        assert!(ended.is_ok(), "still open");
    }
    assert_eq!(tls.metric(&refused("timed_out")).await, 60.0);
    // What is no handshake at all does not take that long, and who only looks is no fault.
    let since = SystemTime::now();
    let nonsense = tls.gateway.send(&[0; 64]).await;
    drop(tls.gateway.send(b"").await);
    let mut seen = Vec::new();
    let mut nonsense = nonsense;
    let _ = timeout(AT_MOST, nonsense.read_to_end(&mut seen))
        .await
        .unwrap();
    assert!(since.elapsed().unwrap() < Duration::from_secs(5));
    assert_eq!(tls.metric(&refused("tls_handshake")).await, 1.0);
}

/// They are idle connections: where slots are short, they make room.
#[tokio::test(flavor = "multi_thread")]
async fn half_open_handshakes_do_not_use_up_the_slots() {
    let authority = Authority::new();
    let config = file(&format!(
        "{MOCKS}vorrang_settings: {{{}}}\n",
        authority.setting("server", "")
    ));
    // 64 are kept for others, an eighth of the rest for upstreams: 28 slots.
    let mut command = Command::new("sh");
    let mut serve = vorrang(&["--host", "127.0.0.1", "--port", "0", "--config"]);
    serve.arg(config.path());
    command
        .args(["-c", "ulimit -n 96 && exec \"$0\" \"$@\""])
        .arg(serve.get_program())
        .args(serve.get_args())
        .env("RUST_LOG", "warn")
        .stdout(std::process::Stdio::piped());
    let serving = crate::binary::Serving::start_with(command, "https");
    let half_open: Vec<_> = (0..60)
        .map(|_| std::net::TcpStream::connect(serving.address()).unwrap())
        .collect();
    let port = serving.address().rsplit_once(':').unwrap().1;
    let client = Arc::new(authority.client(None));
    let stream = TcpStream::connect(serving.address()).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let connected = TlsConnector::from(client).connect(name, stream);
    // Each has the 5 s that a first request has.
    let mut stream = timeout(Duration::from_secs(20), connected)
        .await
        .unwrap_or_else(|_| panic!("port {port}: kept out"))
        .unwrap();
    stream
        .write_all(&request("GET", "/health/liveliness", &[], ""))
        .await
        .unwrap();
    assert_eq!(Answer::read(stream).await.status, 200);
    drop(half_open);
}

#[tokio::test]
async fn client_certificates_are_demanded_and_verified() {
    let authority = Authority::new();
    authority.sign("client");
    let strangers = Authority::new();
    strangers.sign("client");
    let ca = format!(", client_ca: {}", authority.path("ca.crt"));
    let config = config(&authority, MOCKS, &ca, "");
    let gateway = Gateway::begin(config, Patience::default()).await;
    let status = async |own, version: &'static rustls::SupportedProtocolVersion| {
        let mut client = authority.client(own);
        if version.version == rustls::ProtocolVersion::TLSv1_2 {
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let older = ClientConfig::builder_with_provider(provider);
            let older = older.with_protocol_versions(&[version]).unwrap();
            let resolver = client.client_auth_cert_resolver.clone();
            let mut roots = rustls::RootCertStore::empty();
            use rustls::pki_types::pem::PemObject as _;
            let root = rustls::pki_types::CertificateDer::from_pem_file(authority.path("ca.crt"));
            roots.add(root.unwrap()).unwrap();
            client = older
                .with_root_certificates(roots)
                .with_client_cert_resolver(resolver);
        }
        // In TLS 1.3 the client learns of a refusal after its handshake.
        let mut stream = connect(&gateway, &Arc::new(client)).await.ok()?;
        let sent = request("GET", "/health/liveliness", &[], "");
        stream.write_all(&sent).await.ok()?;
        let mut seen = Vec::new();
        let _ = timeout(AT_MOST, stream.read_to_end(&mut seen))
            .await
            .unwrap();
        (!seen.is_empty()).then(|| String::from_utf8(seen[9..12].to_vec()).unwrap())
    };
    for version in rustls::ALL_VERSIONS {
        let right = status(Some((&authority, "client")), version).await;
        assert_eq!(right.as_deref(), Some("200"), "{version:?}");
        let wrong = status(Some((&strangers, "client")), version).await;
        assert_eq!(wrong, None, "{version:?}");
        assert_eq!(status(None, version).await, None, "{version:?}");
    }
}

/// A7 over TLS, also where bytes are there that nobody reads, and where the client says nothing before it leaves.
#[tokio::test]
async fn client_that_leaves_over_tls_leaves_the_queue() {
    let tls = Tls::start(MOCKS, "", Patience::default()).await;
    let sent = request("POST", "/chat/completions", &[], &chat("tight", ""));
    assert_eq!(Answer::read(tls.send(&sent).await).await.status, 200);
    let text = String::from_utf8(sent).unwrap();
    let kept = text.replace("connection: close\r\n", "").into_bytes();
    let many = kept.repeat(200);
    for more in [&b""[..], b"\r\n", &kept, &many] {
        for orderly in [true, false] {
            let mut client = tls.send(&kept).await;
            tls.until_waiting(1.0).await;
            client.write_all(more).await.unwrap();
            client.flush().await.unwrap();
            if orderly {
                client.shutdown().await.unwrap();
            }
            drop(client);
            tls.until_waiting(0.0).await;
        }
    }
}

#[tokio::test]
async fn client_that_reads_nothing_over_tls_is_cut_off() {
    let text = format!("{} ", "x".repeat(20_000)).repeat(200);
    let models = format!(
        "model_list: [{{model_name: long, litellm_params: {{model: openai/x, mock_response: {text}, max_parallel_requests: 1}}}}]\n"
    );
    let ours = ", client_write_timeout_seconds: 0.3";
    let tls = Tls::start(&models, ours, Patience::default()).await;
    let body = chat("long", r#", "stream": true"#);
    let lazy = tls
        .send(&request("POST", "/v1/chat/completions", &[], &body))
        .await;
    tls.gateway
        .until("cut off", || async {
            tls.metric(r#"vorrang_granted_total{group="long"}"#).await == 1.0
                && tls.metric(r#"vorrang_in_flight{group="long"}"#).await == 0.0
        })
        .await;
    // Its connection is over, too: beside that of the scrape there is none.
    let connections = r#"vorrang_places_used{kind="connection"}"#;
    tls.gateway
        .until("closed", || async { tls.metric(connections).await == 1.0 })
        .await;
    drop(lazy);
}

/// The last bytes of an answer may wait in TLS: a client that does not take these is cut off as well.
#[tokio::test]
async fn unread_end_of_an_answer_ends_the_connection() {
    let text = "x".repeat(20_000);
    let models = format!(
        "model_list: [{{model_name: long, litellm_params: {{model: openai/x, mock_response: {text}}}}}]\n"
    );
    let ours = ", client_write_timeout_seconds: 0.3";
    let tls = Tls::start(&models, ours, Patience::default()).await;
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&tls.gateway.address.into()).unwrap();
    socket.set_nonblocking(true).unwrap();
    let stream = TcpStream::from_std(socket.into()).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let connector = TlsConnector::from(tls.client.clone());
    let mut lazy = connector.connect(name, stream).await.unwrap();
    // Each answer is less than what buffers take at once; all of them are more.
    let body = chat("long", "");
    let sent = String::from_utf8(request("POST", "/v1/chat/completions", &[], &body)).unwrap();
    let sent = sent.replace("connection: close\r\n", "");
    for _ in 0..20 {
        lazy.write_all(sent.as_bytes()).await.unwrap();
    }
    lazy.flush().await.unwrap();
    let connections = r#"vorrang_places_used{kind="connection"}"#;
    tls.gateway
        .until("served", || async {
            tls.metric(r#"vorrang_granted_total{group="long"}"#).await >= 1.0
        })
        .await;
    tls.gateway
        .until("closed", || async { tls.metric(connections).await == 1.0 })
        .await;
}

#[tokio::test]
async fn refusal_of_a_large_body_reaches_its_client_over_tls() {
    let ours = ", max_body_bytes: 100000";
    let tls = Tls::start(MOCKS, ours, Patience::default()).await;
    let large = "x".repeat(12 << 20);
    let sent = request("POST", "/v1/chat/completions", &[], &large);
    let mut stream = tls.connect().await;
    // It sends everything before it reads, as simple clients do.
    stream.write_all(&sent).await.unwrap();
    let answer = Answer::read(stream).await;
    assert_eq!(answer.status, 413);
    assert!(answer.complete);
}

#[tokio::test]
async fn idle_connections_end_with_tls_own_last_word() {
    let patience = Patience {
        head: Duration::from_millis(150),
        ..Patience::default()
    };
    let tls = Tls::start(MOCKS, "", patience).await;
    let text = String::from_utf8(request("GET", "/health/liveliness", &[], "")).unwrap();
    let kept = text.replace("connection: close\r\n", "");
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x03\x01\x05\0\0\0\x01\x82\x84\x86";
    for sent in [kept.as_bytes(), preface] {
        let mut stream = tls.send(sent).await;
        let mut seen = Vec::new();
        // Without it this is an error: the answer could have been cut.
        timeout(AT_MOST, stream.read_to_end(&mut seen))
            .await
            .expect("an end in time")
            .expect("an end that is no truncation");
        if sent == preface {
            // GOAWAY: type 7, on stream 0.
            let goaway = [0, 0, 8, 7, 0, 0, 0, 0, 0];
            assert!(seen.windows(9).any(|frame| frame == goaway), "{seen:?}");
        }
    }
}

#[test]
fn check_and_start_name_what_is_wrong_with_the_files_and_where() {
    let authority = Authority::new();
    authority.sign("other");
    authority.sign_between("old", (2001, 2002));
    authority.sign_between("new", (4000, 4096));
    let path = |name: &str| authority.path(name);
    std::fs::write(path("empty"), "no pem").unwrap();
    let (right, key) = (path("server.crt"), path("server.key"));
    let checked = |certificate: &str, key: &str, more: &str| {
        let tls = format!("{{certificate: {certificate}, key: {key}{more}}}");
        let config = file(&format!("{MOCKS}vorrang_settings:\n  tls: {tls}\n"));
        let path = config.path().to_str().unwrap().to_owned();
        let output = vorrang(&["check", "--config", &path]).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    };
    let none = path("none");
    let ca = format!(", client_ca: {}", path("empty"));
    // The models take six lines.
    for (certificate, key, more, expected) in [
        (
            none.as_str(),
            &*key,
            "",
            ":8: vorrang_settings.tls.certificate: the file cannot be read",
        ),
        (
            &right,
            &none,
            "",
            ":8: vorrang_settings.tls.key: the file cannot be read",
        ),
        (
            &path("empty"),
            &key,
            "",
            "tls.certificate: expected certificates in PEM format",
        ),
        (
            &right,
            &path("empty"),
            "",
            "tls.key: expected a private key in PEM format",
        ),
        (
            &right,
            &path("other.key"),
            "",
            "tls.key: the key is not that of certificate",
        ),
        (
            &right,
            &right,
            "",
            "tls.key: expected a private key in PEM format",
        ),
        (
            &right,
            &key,
            &ca,
            "tls.client_ca: expected certificates in PEM format",
        ),
        (&right, &key, ", ca: x", "tls.ca: unknown setting"),
        (&right, "", "", "tls.key: is missing"),
    ] {
        let (code, text) = checked(certificate, key, more);
        assert_eq!(code, Some(1), "{text}");
        assert!(text.contains(expected), "no {expected}: {text}");
        assert!(!text.contains("PRIVATE"), "{text}");
    }
    for (name, expected) in [("old", "has expired"), ("new", "is not valid yet")] {
        let (certificate, key) = (path(&format!("{name}.crt")), path(&format!("{name}.key")));
        let (code, text) = checked(&certificate, &key, "");
        assert_eq!(code, Some(0), "{text}");
        assert!(
            text.contains("warning: ") && text.contains(expected),
            "{text}"
        );
    }
    let (code, text) = checked(&right, &key, ", admin_port: false");
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("valid until Sun, 01 Jan 4096 00:00:00 GMT, not at the admin port"),
        "{text}"
    );
}

#[test]
fn litellms_options_and_variables_make_it_speak_tls() {
    let authority = Authority::new();
    let (certificate, key) = (authority.path("server.crt"), authority.path("server.key"));
    let here = ["--host", "127.0.0.1", "--port", "0"];
    let mut by_options = vorrang(&here);
    by_options.args([
        "--ssl_certfile_path",
        &certificate,
        "--ssl_keyfile_path",
        &key,
    ]);
    let mut by_variables = vorrang(&here);
    by_variables
        .env("SSL_CERTFILE_PATH", &certificate)
        .env("SSL_KEYFILE_PATH", &key);
    for command in [by_options, by_variables] {
        let serving = crate::binary::Serving::start_with(command, "https");
        let url = format!("https://{}/health/readiness", serving.address());
        until("served over TLS", || {
            let output = Command::new("curl")
                .args(["--silent", "--insecure", "--noproxy", "*", &url])
                .output()
                .unwrap();
            String::from_utf8(output.stdout)
                .unwrap()
                .contains("healthy")
        });
    }
    // Half of it asks for TLS, which would not be spoken.
    let half = vorrang(&["check", "--ssl_certfile_path", &certificate]).output();
    let half = half.unwrap();
    let text = String::from_utf8(half.stderr).unwrap();
    assert_eq!(half.status.code(), Some(1), "{text}");
    assert!(text.contains("--ssl_keyfile_path: is missing"), "{text}");
}
