//! Upstreams behind a proxy of the environment. The environment is that of a process: this test starts itself in another one.

use std::{env, process::Command, thread};

use crate::support::*;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

/// Where the other process finds the upstream that is called without a proxy.
const DIRECT: &str = "VORRANG_TEST_DIRECT";

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}";

/// Reads a request; one that wants a tunnel has no body.
async fn read(stream: &mut TcpStream) -> String {
    let mut read = Vec::new();
    while !(read.ends_with(b"}") || read.starts_with(b"CONNECT") && read.ends_with(b"\r\n\r\n")) {
        let length = stream.read_buf(&mut read).await.unwrap();
        assert_ne!(length, 0, "a request was cut");
    }
    String::from_utf8(read).unwrap()
}

/// A server that answers everything but wishes for tunnels, and tells what it was sent.
async fn server() -> (String, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (tells, told) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let request = read(&mut stream).await;
            let tunnel = request.starts_with("CONNECT");
            let _ = tells.send(request);
            if !tunnel {
                stream.write_all(ANSWER).await.unwrap();
            }
        }
    });
    (address, told)
}

#[tokio::test]
async fn proxy_of_the_environment_gets_calls_but_not_those_of_no_proxy() {
    let (proxy, mut at_proxy) = server().await;
    let (direct, mut at_direct) = server().await;
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args([
            "--exact",
            "--ignored",
            "proxies::calls_of_the_other_process",
        ])
        .env(DIRECT, direct)
        .env("HTTP_PROXY", format!("http://me:secret@{proxy}"))
        .env("HTTPS_PROXY", format!("http://{proxy}"))
        .env("NO_PROXY", "127.0.0.1");
    for other in ["http_proxy", "https_proxy", "no_proxy", "REQUEST_METHOD"] {
        command.env_remove(other);
    }
    let other = thread::spawn(move || command.output().unwrap());

    let seen = at_proxy.recv().await.unwrap();
    let line = "POST http://upstream.invalid/v1/chat/completions HTTP/1.1\r\n";
    assert!(seen.starts_with(line), "{seen}");
    for header in [
        "proxy-authorization: Basic bWU6c2VjcmV0\r\n",
        "authorization: Bearer sk-secret\r\n",
        "host: upstream.invalid\r\n",
    ] {
        assert!(seen.contains(header), "{seen}");
    }
    let seen = at_direct.recv().await.unwrap();
    let line = "POST /v1/chat/completions HTTP/1.1\r\n";
    assert!(seen.starts_with(line), "{seen}");
    assert!(!seen.contains("proxy-authorization"), "{seen}");
    let seen = at_proxy.recv().await.unwrap();
    assert!(seen.starts_with("CONNECT upstream.invalid:443"), "{seen}");

    let output = tokio::task::spawn_blocking(|| other.join().unwrap());
    let output = output.await.unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{printed}");
    assert!(printed.contains("1 passed"), "{printed}");
}

#[tokio::test]
#[ignore = "the test above starts it, with proxies in its environment"]
async fn calls_of_the_other_process() {
    let direct = format!("http://{}/v1", env::var(DIRECT).unwrap());
    for (base, answered) in [
        ("http://upstream.invalid/v1", true),
        (&direct, true),
        // The proxy makes no tunnel: the call has not gone past it.
        ("https://upstream.invalid/v1", false),
    ] {
        let (router, _) = router(&one(base, "num_retries: 0", ""));
        let answer = router.call(chat("")).await;
        assert_eq!(answer.is_ok(), answered, "{base}");
    }
}
