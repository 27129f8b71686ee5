//! Certificates that change while the gateway runs.

use std::{fs, sync::Arc, time::Duration};

use rustix::process::Signal;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use vorrang_server::Patience;

use crate::{
    authority::{Authority, beginning_of},
    binary::{Serving, file, until, vorrang},
    support::{AT_MOST, Answer, MOCKS, chat, request},
    tls::{Tls, connect},
};

const EXPIRY: &str = "vorrang_tls_certificate_expiry_timestamp_seconds";

fn reloads(outcome: &str) -> String {
    format!("vorrang_tls_certificate_reloads_total{{outcome=\"{outcome}\"}}")
}

#[expect(clippy::cast_precision_loss, reason = "years")]
fn year(year: i32) -> f64 {
    beginning_of(year) as f64
}

/// What a renewal does: the files of another certificate under the same names, one after the other.
async fn renew(authority: &Authority, years: (i32, i32)) {
    authority.sign_between("next", years);
    for end in ["crt", "key"] {
        let (from, to) = (format!("next.{end}"), format!("server.{end}"));
        fs::rename(authority.path(&from), authority.path(&to)).unwrap();
        // A look in between sees files that do not belong together.
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
}

/// Connections that come and go, and count those that fail.
async fn load(tls: &Tls, until: &CancellationToken) -> (usize, usize) {
    let (mut served, mut failed) = (0, 0);
    let sent = request("GET", "/health/liveliness", &[], "");
    while !until.is_cancelled() {
        let answered = async {
            let mut stream = connect(&tls.gateway, &tls.client()).await.ok()?;
            stream.write_all(&sent).await.ok()?;
            let mut seen = String::new();
            // An end that is no truncation.
            stream.read_to_string(&mut seen).await.ok()?;
            seen.starts_with("HTTP/1.1 200").then_some(())
        };
        match timeout(AT_MOST, answered).await {
            Ok(Some(())) => served += 1,
            _ => failed += 1,
        }
    }
    (served, failed)
}

/// A stream, a waiting request and an idle connection are there before and after, while others come and go.
#[tokio::test(flavor = "multi_thread")]
async fn renewed_certificate_is_used_and_no_connection_ends() {
    let ours = ", window_seconds: 15, keepalive_seconds: 0.1";
    let tls = Tls::start(MOCKS, ours, Patience::default()).await;
    assert_eq!(tls.metric(EXPIRY).await, year(4096));
    let call = |more: &str| {
        let kept = [("x-vorrang-keepalive", "true")];
        request("POST", "/chat/completions", &kept, &chat("tight", more))
    };
    let first = Answer::read(tls.send(&call("")).await).await;
    assert_eq!(first.status, 200);
    // They wait until the window is over, on connections with the first certificate.
    let mut stream = tls.send(&call(r#", "stream": true"#)).await;
    tls.until_waiting(1.0).await;
    let mut waiting = tls.send(&call("")).await;
    tls.until_waiting(2.0).await;
    let kept = String::from_utf8(request("GET", "/health/liveliness", &[], "")).unwrap();
    let kept = kept.replace("connection: close\r\n", "");
    let mut idle = tls.send(kept.as_bytes()).await;
    let before = idle.get_ref().1.peer_certificates().unwrap()[0].clone();
    let mut comments = vec![0; 4096];
    let mut begun = String::new();
    while !begun.contains("\n: ") {
        let read = timeout(AT_MOST, stream.read(&mut comments)).await.unwrap();
        let read = read.unwrap();
        assert_ne!(read, 0, "{begun}");
        begun.push_str(std::str::from_utf8(&comments[..read]).unwrap());
    }

    let over = CancellationToken::new();
    let renewed = async {
        for (round, until) in [4000, 3000, 2900].into_iter().enumerate() {
            renew(&tls.authority, (1975, until)).await;
            tls.gateway
                .until("the new one is used", || async {
                    tls.metric(EXPIRY).await == year(until)
                })
                .await;
            let applied = tls.metric(&reloads("applied")).await;
            assert_eq!(applied, [1.0, 2.0, 3.0][round]);
        }
        over.cancel();
    };
    let loads = futures_util::future::join_all((0..4).map(|_| load(&tls, &over)));
    let ((), loads) = tokio::join!(renewed, loads);
    let served: usize = loads.iter().map(|(served, _)| served).sum();
    let failed: usize = loads.iter().map(|(_, failed)| failed).sum();
    println!("{served} connections were served meanwhile");
    assert!(
        served > 20 && failed == 0,
        "{served} served, {failed} failed"
    );
    assert_eq!(tls.metric(&reloads("refused")).await, 0.0);
    let new = tls.connect().await;
    assert_ne!(new.get_ref().1.peer_certificates().unwrap()[0], before);

    let mut rest = String::new();
    timeout(AT_MOST, stream.read_to_string(&mut rest))
        .await
        .unwrap()
        .unwrap();
    assert!(begun.starts_with("HTTP/1.1 200"), "{begun}");
    assert!(
        rest.contains("\n: ") && rest.contains("data: [DONE]"),
        "{rest}"
    );
    // It is still there.
    tls.until_waiting(1.0).await;
    waiting.shutdown().await.unwrap();
    idle.write_all(kept.as_bytes()).await.unwrap();
    let mut piece = vec![0; 4096];
    let mut text = String::new();
    while text.matches("HTTP/1.1 200").count() < 2 {
        let read = timeout(AT_MOST, idle.read(&mut piece)).await.unwrap();
        let read = read.unwrap();
        assert_ne!(read, 0, "the idle connection has ended");
        text.push_str(std::str::from_utf8(&piece[..read]).unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_files_keep_the_certificate_and_are_counted_once_each() {
    let tls = Tls::start(MOCKS, "", Patience::default()).await;
    let path = |name: &str| tls.authority.path(name);
    tls.authority.sign("other");
    tls.authority.sign_between("old", (2001, 2002));
    let (right, key) = (fs::read(path("server.crt")), fs::read(path("server.key")));
    let (right, key) = (right.unwrap(), key.unwrap());
    let mut refused = 0.0;
    // A key of another certificate; half a file; no file; a certificate that has expired, with its key.
    let other = fs::read(path("other.key")).unwrap();
    let old = (
        fs::read(path("old.crt")).unwrap(),
        fs::read(path("old.key")).unwrap(),
    );
    for (certificate, key) in [
        (Some(&right), &other),
        (Some(&right[..100].to_vec()), &key),
        (None, &key),
        (Some(&old.0), &old.1),
    ] {
        match certificate {
            Some(certificate) => fs::write(path("server.crt"), certificate).unwrap(),
            None => fs::remove_file(path("server.crt")).unwrap(),
        }
        fs::write(path("server.key"), key).unwrap();
        refused += 1.0;
        tls.gateway
            .until("refused", || async {
                tls.metric(&reloads("refused")).await >= refused
            })
            .await;
        assert_eq!(tls.metric(EXPIRY).await, year(4096), "the first is in use");
    }
    // A look later it is still the same fault.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(tls.metric(&reloads("refused")).await, refused);
    assert_eq!(tls.metric(&reloads("applied")).await, 0.0);
    renew(&tls.authority, (1975, 4000)).await;
    tls.gateway
        .until("the new one is used", || async {
            tls.metric(EXPIRY).await == year(4000)
        })
        .await;
}

/// Tickets of former sessions are worth nothing with another CA of clients.
#[tokio::test(flavor = "multi_thread")]
async fn resumed_sessions_do_not_outlive_the_cas_of_clients() {
    let authority = Authority::new();
    authority.sign("client");
    let ca = authority.path("clients.crt");
    fs::copy(authority.path("ca.crt"), &ca).unwrap();
    let text = format!(
        "{MOCKS}vorrang_settings: {{{}}}\n",
        authority.setting("server", &format!(", client_ca: {ca}"))
    );
    let none = std::collections::BTreeMap::new();
    let config = vorrang_gateway::Config::parse(&text, "test.yaml", &none);
    let gateway = crate::support::Gateway::begin(config.unwrap().config, Patience::default()).await;
    // One configuration for all: it keeps the tickets.
    let client = Arc::new(authority.client(Some((&authority, "client"))));
    let served = async || {
        let mut stream = connect(&gateway, &client).await.ok()?;
        let resumed = stream.get_ref().1.handshake_kind();
        let sent = request("GET", "/health/liveliness", &[], "");
        stream.write_all(&sent).await.ok()?;
        let mut seen = String::new();
        let _ = timeout(AT_MOST, stream.read_to_string(&mut seen)).await;
        seen.starts_with("HTTP/1.1 200").then_some(resumed)
    };
    assert_eq!(served().await, Some(Some(rustls::HandshakeKind::Full)));
    assert_eq!(served().await, Some(Some(rustls::HandshakeKind::Resumed)));
    fs::copy(Authority::new().path("ca.crt"), &ca).unwrap();
    let refused = || async { served().await.is_none() };
    gateway
        .until("the former CA's client is refused", refused)
        .await;
}

#[test]
fn hangup_puts_other_certificate_files_in_force() {
    let authority = Authority::new();
    authority.sign_between("second", (1975, 4000));
    let text = |name: &str| {
        let tls = authority.setting(name, ", admin_port: false");
        format!("{MOCKS}vorrang_settings:\n  admin_port: 0\n  {tls}\n")
    };
    let config = file(&text("server"));
    let path = config.path().to_str().unwrap();
    let mut command = vorrang(&["--config", path, "--host", "127.0.0.1", "--port", "0"]);
    command.env("RUST_LOG", "warn");
    let serving = Serving::start_with(command, "https");
    // The admin port is plain, as the file says.
    let page = || serving.get_admin("/metrics");
    let expiry = |at: i32| format!("{EXPIRY} {}\n", beginning_of(at));
    assert!(page().contains(&expiry(4096)), "{}", page());
    fs::write(path, text("second")).unwrap();
    serving.signal(Signal::HUP);
    until("the second certificate", || page().contains(&expiry(4000)));
    // With a wrong file nothing changes; without TLS neither: that takes a restart.
    fs::write(path, text("nonsense")).unwrap();
    serving.signal(Signal::HUP);
    let refused = "vorrang_config_reloads_total{outcome=\"refused\"} 1\n";
    until("a refusal", || page().contains(refused));
    fs::write(
        path,
        format!("{MOCKS}vorrang_settings: {{admin_port: 0}}\n"),
    )
    .unwrap();
    serving.signal(Signal::HUP);
    let applied = "vorrang_config_reloads_total{outcome=\"applied\"} 2\n";
    until("a reload", || page().contains(applied));
    assert!(page().contains(&expiry(4000)));
    serving.signal(Signal::TERM);
    let (_, log) = serving.ended();
    assert!(
        log.contains("\"settings\":\"tls\"") || log.contains("tls"),
        "{log}"
    );
    assert!(
        log.contains("these settings change with a restart only"),
        "{log}"
    );
}
