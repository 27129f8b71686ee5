//! Where connections and requests come from: the PROXY protocol, forwarded headers, limits by address, lists of networks.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    time::timeout,
};
use tokio_rustls::TlsConnector;
use vorrang_server::Patience;

use crate::{
    access::listen,
    binary::{Serving, file, until, vorrang},
    support::{AT_MOST, Answer, Gateway, MOCKS, request},
    tls::Tls,
};

/// Another host of this machine: all of 127.0.0.0/8 is.
const OTHER: &str = "127.0.0.2";

async fn connect_from(address: &str, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    let own: IpAddr = address.parse().unwrap();
    socket.bind((own, 0).into()).unwrap();
    socket.connect(to).await.unwrap()
}

/// What is answered to bytes from an address; nothing where the connection only ends.
async fn exchange(gateway: &Gateway, from: &str, bytes: &[u8]) -> Option<Answer> {
    let mut stream = connect_from(from, gateway.address).await;
    // What is refused may be closed before all of it is sent.
    let _ = stream.write_all(bytes).await;
    let mut seen = Vec::new();
    let _ = timeout(AT_MOST, stream.read_to_end(&mut seen))
        .await
        .expect("an end in time");
    if seen.is_empty() {
        return None;
    }
    Some(Answer::read(seen.as_slice()).await)
}

async fn get(gateway: &Gateway, from: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let sent = request("GET", path, headers, "");
    exchange(gateway, from, &sent).await.expect("an answer")
}

/// Version 2, a connection of `client` by TCP over IPv4.
fn proxy_header(client: &str) -> Vec<u8> {
    let client: std::net::Ipv4Addr = client.parse().unwrap();
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x13".to_vec();
    header.extend(client.octets());
    // To 10.0.0.1, ports 80 and 443, and a TLV of four bytes that nobody knows.
    header.extend([10, 0, 0, 1, 0, 80, 1, 187, 0xe0, 0, 4, 1, 2, 3, 4]);
    header
}

const LOCAL_HEADER: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

async fn refused(gateway: &Gateway, from: &str, reason: &str) -> f64 {
    let page = get(gateway, from, "/metrics", &[]).await.text();
    let start = format!("vorrang_connections_refused_total{{reason=\"{reason}\"}} ");
    let line = page.lines().find_map(|line| line.strip_prefix(&start));
    line.unwrap().parse().unwrap()
}

fn with(ours: &str) -> String {
    format!("{MOCKS}vorrang_settings: {{{ours}}}\n")
}

/// A gateway whose readiness needs no look: its proxies' own connections are not served without a header.
async fn begin(config: &str, patience: Patience) -> Gateway {
    let none = std::collections::BTreeMap::new();
    let loaded = vorrang_gateway::Config::parse(config, "test.yaml", &none).unwrap();
    Gateway::begin(loaded.config, patience).await
}

#[tokio::test]
async fn proxy_header_names_the_client_and_only_a_proxy_may_send_it() {
    let config = with(
        "proxy_protocol: [127.0.0.2], metrics_allowed_from: [127.0.0.1, 192.0.2.0/24, 127.0.0.2]",
    );
    let gateway = begin(&config, Patience::default()).await;
    let metrics = request("GET", "/metrics", &[], "");
    let sent = |header: &[u8]| [header, metrics.as_slice()].concat();
    let status = async |from: &str, bytes: Vec<u8>| {
        exchange(&gateway, from, &bytes)
            .await
            .map(|answer| answer.status)
    };
    assert_eq!(
        status(OTHER, sent(&proxy_header("192.0.2.1"))).await,
        Some(200)
    );
    assert_eq!(
        status(OTHER, sent(&proxy_header("198.51.100.1"))).await,
        Some(403)
    );
    let line = b"PROXY TCP4 192.0.2.1 10.0.0.1 80 443\r\n";
    assert_eq!(status(OTHER, sent(line)).await, Some(200));
    // The proxy's own connection.
    assert_eq!(status(OTHER, sent(LOCAL_HEADER)).await, Some(200));
    // A proxy that sends none, or nonsense, is not served: it could be anyone's connection.
    assert_eq!(status(OTHER, metrics.clone()).await, None);
    let mut wrong = proxy_header("192.0.2.1");
    wrong[13] = 0x41;
    assert_eq!(status(OTHER, sent(&wrong)).await, None);
    let mut endless = proxy_header("192.0.2.1");
    endless[14] = 0xff;
    assert_eq!(status(OTHER, endless).await, None);
    assert_eq!(refused(&gateway, "127.0.0.1", "proxy_header").await, 3.0);
    // Who looks whether somebody listens is no fault.
    drop(connect_from(OTHER, gateway.address).await);

    // From any other address it is what it is: no HTTP.
    assert_eq!(
        status("127.0.0.3", sent(&proxy_header("192.0.2.1"))).await,
        Some(400)
    );
    assert_eq!(status("127.0.0.3", sent(line)).await, Some(400));
    assert_eq!(status("127.0.0.3", metrics.clone()).await, Some(403));
    assert_eq!(status("127.0.0.1", metrics.clone()).await, Some(200));
    assert_eq!(refused(&gateway, "127.0.0.1", "proxy_header").await, 3.0);
}

#[tokio::test]
async fn half_a_proxy_header_ends_in_time() {
    let patience = Patience {
        handshake: Duration::from_millis(300),
        ..Patience::default()
    };
    let gateway = begin(&with("proxy_protocol: [127.0.0.2]"), patience).await;
    let header = proxy_header("192.0.2.1");
    for part in [
        &b""[..],
        &header[..5],
        &header[..14],
        &header[..25],
        b"PROXY TCP4 1",
    ] {
        let since = tokio::time::Instant::now();
        let answer = exchange(&gateway, OTHER, part).await;
        assert!(answer.is_none());
        assert!(since.elapsed() >= Duration::from_millis(300));
    }
    assert_eq!(refused(&gateway, "127.0.0.1", "timed_out").await, 5.0);
}

#[tokio::test]
async fn proxy_header_comes_before_the_handshake() {
    let ours = ", proxy_protocol: [127.0.0.2], admin_allowed_from: [192.0.2.7]";
    let tls = Tls::start(MOCKS, ours, Patience::default()).await;
    let page = async |client: &str| {
        let mut stream = connect_from(OTHER, tls.gateway.address).await;
        stream.write_all(&proxy_header(client)).await.unwrap();
        let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
        let connector = TlsConnector::from(tls.client());
        let mut stream = connector.connect(name, stream).await.unwrap();
        let sent = request("GET", "/ui", &[], "");
        stream.write_all(&sent).await.unwrap();
        Answer::read(stream).await.status
    };
    assert_eq!(page("192.0.2.7").await, 200);
    assert_eq!(page("192.0.2.8").await, 403);
}

/// The lines name who called: by its own address, the PROXY protocol, a trusted proxy's header. Nobody else's header counts.
#[tokio::test]
async fn access_lines_name_the_client() {
    let (lines, _installed) = listen();
    let config = with("trusted_proxies: [127.0.0.1, 10.0.0.0/8], proxy_protocol: [127.0.0.2]");
    let gateway = begin(&config, Patience::default()).await;
    let says = |value: &'static str| [("x-forwarded-for", value)];
    let spoofed = says("192.0.2.66");
    let path = "/v1/models";
    get(&gateway, "127.0.0.3", path, &spoofed).await;
    get(&gateway, "127.0.0.1", path, &[]).await;
    get(
        &gateway,
        "127.0.0.1",
        path,
        &says("192.0.2.66, 192.0.2.1, 10.0.0.9"),
    )
    .await;
    get(
        &gateway,
        "127.0.0.1",
        path,
        &[("forwarded", "for=192.0.2.66")],
    )
    .await;
    get(&gateway, "127.0.0.1", path, &says("192.0.2.66, unknown")).await;
    for (client, header) in [("192.0.2.2", "192.0.2.66"), ("10.0.0.5", "192.0.2.3")] {
        let sent = request("GET", path, &[("x-forwarded-for", header)], "");
        let bytes = [proxy_header(client), sent].concat();
        exchange(&gateway, OTHER, &bytes).await.unwrap();
    }
    gateway
        .until("all lines", || async { lines.access().len() >= 7 })
        .await;
    let clients: Vec<Value> = lines
        .access()
        .iter()
        .map(|line| line["client"].clone())
        .collect();
    let expected = [
        "127.0.0.3",
        "127.0.0.1",
        "192.0.2.1",
        "127.0.0.1",
        "",
        "192.0.2.2",
        "192.0.2.3",
    ];
    let expected = expected.map(|text| match text {
        "" => Value::Null,
        text => text.into(),
    });
    assert_eq!(clients, expected);
}

#[tokio::test]
async fn forwarded_header_counts_where_the_file_says_so() {
    let config = with(
        "trusted_proxies: [127.0.0.1], forwarded_header: Forwarded, metrics_allowed_from: [192.0.2.0/24]",
    );
    let gateway = begin(&config, Patience::default()).await;
    let status = async |from: &str, name: &str, value: &str| {
        get(&gateway, from, "/metrics", &[(name, value)])
            .await
            .status
    };
    assert_eq!(status("127.0.0.1", "forwarded", "for=192.0.2.1").await, 200);
    assert_eq!(status(OTHER, "forwarded", "for=192.0.2.1").await, 403);
    assert_eq!(
        status("127.0.0.1", "x-forwarded-for", "192.0.2.1").await,
        403
    );
    assert_eq!(
        status(
            "127.0.0.1",
            "forwarded",
            r#"for=192.0.2.1;x=", for=10.0.0.1"#
        )
        .await,
        403
    );
}

#[tokio::test]
async fn address_has_so_many_connections_and_others_are_served() {
    let gateway = begin(
        &with("max_connections_per_address: 3, trusted_proxies: [127.0.0.9]"),
        Patience::default(),
    )
    .await;
    let mut open = Vec::new();
    for _ in 0..3 {
        let stream = connect_from("127.0.0.1", gateway.address).await;
        open.push(stream);
    }
    // They are accepted in their order: the next one comes after these.
    let alive = request("GET", "/health/liveliness", &[], "");
    for _ in 0..4 {
        assert!(exchange(&gateway, "127.0.0.1", &alive).await.is_none());
    }
    assert_eq!(refused(&gateway, OTHER, "address_limit").await, 4.0);
    // A proxy's connections are those of many clients.
    let mut proxied = Vec::new();
    for _ in 0..10 {
        proxied.push(connect_from("127.0.0.9", gateway.address).await);
    }
    // The last was accepted after all others.
    proxied.reverse();
    for mut stream in proxied {
        stream.write_all(&alive).await.unwrap();
        assert_eq!(Answer::read(stream).await.status, 200);
    }
    open.pop();
    gateway
        .until("there is room again", || async {
            exchange(&gateway, "127.0.0.1", &alive).await.is_some()
        })
        .await;
}

/// Half-open handshakes count, and so do connections that a proxy passes on: for the client's address.
#[tokio::test]
async fn flood_of_half_open_handshakes_is_held_to_the_limit() {
    let ours = ", max_connections_per_address: 8, proxy_protocol: [127.0.0.2]";
    let tls = Tls::start(MOCKS, ours, Patience::default()).await;
    let mut flood = Vec::new();
    for _ in 0..100 {
        let mut stream = connect_from("127.0.0.3", tls.gateway.address).await;
        let _ = stream.write_all(b"\x16\x03\x01").await;
        flood.push(stream);
    }
    let series = "vorrang_connections_refused_total{reason=\"address_limit\"}";
    tls.gateway
        .until("refused", || async { tls.metric(series).await == 92.0 })
        .await;
    let open = tls.metric("vorrang_places_used{kind=\"connection\"}").await;
    assert!(open <= 10.0, "{open} connections are open");
    for _ in 0..20 {
        let mut stream = connect_from(OTHER, tls.gateway.address).await;
        stream.write_all(&proxy_header("192.0.2.1")).await.unwrap();
        flood.push(stream);
    }
    tls.gateway
        .until("refused", || async { tls.metric(series).await == 104.0 })
        .await;
    let mut stream = connect_from(OTHER, tls.gateway.address).await;
    stream.write_all(&proxy_header("192.0.2.2")).await.unwrap();
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let connector = TlsConnector::from(tls.client());
    assert!(
        connector.connect(name, stream).await.is_ok(),
        "another client"
    );
}

#[tokio::test]
async fn lists_of_networks_hold_beside_the_keys() {
    let config = format!(
        "{MOCKS}general_settings: {{master_key: sk-master}}
vorrang_settings: {{public_metrics: false, metrics_allowed_from: [127.0.0.1], admin_allowed_from: [127.0.0.2]}}
"
    );
    let gateway = begin(&config, Patience::default()).await;
    let key = [("authorization", "Bearer sk-master")];
    let (metrics, admin) = ("127.0.0.1", OTHER);
    for (from, path, headers, status) in [
        (metrics, "/metrics", &key[..], 200),
        (metrics, "/metrics", &[], 401),
        (admin, "/metrics", &key, 403),
        ("127.0.0.3", "/metrics", &[], 403),
        (admin, "/admin/overview", &key, 200),
        (admin, "/admin/overview", &[], 401),
        (metrics, "/admin/overview", &key, 403),
        (admin, "/ui", &[], 200),
        (metrics, "/ui", &[], 403),
        (metrics, "/ui/app.js", &[], 403),
        // What clients and probes use.
        ("127.0.0.3", "/health/liveliness", &[], 200),
        ("127.0.0.3", "/v1/models", &key, 200),
        ("127.0.0.3", "/queue/preview?model=free", &key, 200),
        // However the path is written.
        (admin, "//metrics", &key, 403),
        (admin, "/metrics/", &key, 403),
    ] {
        let answer = get(&gateway, from, path, headers).await;
        assert_eq!(
            answer.status,
            status,
            "{path} from {from}: {}",
            answer.text()
        );
        if status == 403 {
            let (message, kind) = answer.error(403);
            assert_eq!(kind, "permission_error");
            assert!(
                message.contains(&format!("The address {from} may not")),
                "{message}"
            );
        }
    }
}

/// Where no key is configured: programs of this machine, and nobody in the words of a proxy on this machine.
#[tokio::test]
async fn proxy_on_this_machine_makes_no_client_local() {
    let config = with("trusted_proxies: [127.0.0.1], proxy_protocol: [127.0.0.2]");
    let gateway = begin(&config, Patience::default()).await;
    let path = "/admin/overview";
    let sent = |value: &str| {
        let text = String::from_utf8(request("GET", path, &[("x-forwarded-for", value)], ""));
        text.unwrap()
            .replace("host: test", "host: localhost")
            .into_bytes()
    };
    for (from, bytes, status) in [
        ("127.0.0.1", sent(""), 200),
        ("127.0.0.1", sent("127.0.0.5"), 200),
        ("127.0.0.1", sent("192.0.2.1"), 403),
        ("127.0.0.1", sent("unknown"), 403),
        (OTHER, [proxy_header("192.0.2.1"), sent("")].concat(), 403),
    ] {
        let answer = exchange(&gateway, from, &bytes).await.unwrap();
        let shown = String::from_utf8_lossy(&bytes).into_owned();
        assert_eq!(answer.status, status, "{shown}");
    }
}

#[test]
fn lists_hold_on_the_admin_port_and_are_reloaded() {
    let text = |networks: &str| {
        format!(
            "{MOCKS}vorrang_settings: {{admin_port: 0, metrics_allowed_from: [{networks}], admin_allowed_from: [{networks}]}}\n"
        )
    };
    let config = file(&text("127.0.0.1"));
    let path = config.path().to_str().unwrap();
    let mut command = vorrang(&["--config", path, "--host", "127.0.0.1", "--port", "0"]);
    command.env("RUST_LOG", "warn");
    let serving = Serving::start(command);
    let status = |answer: String| answer[9..12].to_owned();
    for path in ["/metrics", "/ui", "/admin/overview"] {
        assert_eq!(status(serving.get_admin(path)), "200", "{path}");
    }
    std::fs::write(path, text("192.0.2.0/24")).unwrap();
    serving.signal(rustix::process::Signal::HUP);
    until("the new list", || status(serving.get("/metrics")) == "403");
    for path in ["/metrics", "/ui", "/admin/overview"] {
        assert_eq!(status(serving.get_admin(path)), "403", "{path}");
    }
    for path in ["/health/liveliness", "/health/readiness"] {
        assert_eq!(status(serving.get_admin(path)), "200", "{path}");
    }
}

#[test]
fn check_names_what_is_wrong_with_addresses() {
    for (ours, expected) in [
        (
            "proxy_protocol: [10.0.0.1/8]",
            ":8: vorrang_settings.proxy_protocol: expected a list of networks",
        ),
        (
            "trusted_proxies: []",
            "vorrang_settings.trusted_proxies: expected a list of networks",
        ),
        (
            "trusted_proxies: 10.0.0.0/8",
            "trusted_proxies: expected a list of texts",
        ),
        (
            "metrics_allowed_from: [localhost]",
            "metrics_allowed_from: expected a list of networks",
        ),
        (
            "admin_allowed_from: [\"::ffff:10.0.0.1\"]",
            "admin_allowed_from: expected a list of networks",
        ),
        (
            "max_connections_per_address: 0",
            "max_connections_per_address: expected",
        ),
        (
            "forwarded_header: x-real-ip, trusted_proxies: [10.0.0.1]",
            "forwarded_header: expected x-forwarded-for or forwarded",
        ),
    ] {
        let config = file(&format!("{MOCKS}vorrang_settings:\n  {{{ours}}}\n"));
        let path = config.path().to_str().unwrap();
        let output = vorrang(&["check", "--config", path]).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{ours}: {text}");
        assert!(text.contains(expected), "{ours}: {text}");
    }
    let config = file(&with(
        "proxy_protocol: [10.0.0.0/8], trusted_proxies: [0.0.0.0/0], max_connections_per_address: 9, admin_allowed_from: [\"::1\"]",
    ));
    let path = config.path().to_str().unwrap();
    let output = vorrang(&["check", "--config", path]).output().unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    for line in [
        "connections from 10.0.0.0/8 begin with the PROXY protocol",
        "x-forwarded-for counts from 0.0.0.0/0",
        "connections of one address: 9",
        "the admin API only for ::1/128",
        "every client may claim any address",
    ] {
        assert!(text.contains(line), "no {line}: {text}");
    }
}
