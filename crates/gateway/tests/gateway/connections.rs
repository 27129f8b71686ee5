//! Connections to upstreams: reused ones that have been closed, and why one cannot be made.

use std::{
    io::Write,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::support::*;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

/// Reads one request to the end of its body.
async fn read(socket: &mut TcpStream) -> bool {
    let mut request = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&request).to_lowercase();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.split("content-length: ").nth(1).unwrap();
            let length: usize = length.lines().next().unwrap().parse().unwrap();
            if body.len() >= length {
                return true;
            }
        }
        if socket.read_buf(&mut request).await.unwrap_or(0) == 0 {
            return false;
        }
    }
}

/// A server that answers the first request of each connection; when the second has come it sends `last`, and closes.
async fn forgetful(last: &'static [u8]) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}/v1", listener.local_addr().unwrap());
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = requests.clone();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let counted = counted.clone();
            tokio::spawn(async move {
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
                for bytes in [&answer[..], last] {
                    if !read(&mut socket).await {
                        return;
                    }
                    counted.fetch_add(1, Ordering::Relaxed);
                    socket.write_all(bytes).await.unwrap();
                }
            });
        }
    });
    (base, requests)
}

const STRICT: &str = "router_settings: {num_retries: 0, allowed_fails: 0, cooldown_time: 60}";

#[tokio::test]
async fn stale_reused_connection_is_replaced_without_counting_an_attempt() {
    let (base, requests) = forgetful(b"").await;
    let (router, _) = router(&one(&base, "", STRICT));
    for _ in 0..3 {
        let log = Arc::new(Log::default());
        let call = vorrang_gateway::Call {
            events: log.clone(),
            ..chat("")
        };
        let answer = router.call(call).await.unwrap();
        assert_eq!(answer.info.attempts, 1);
        assert_eq!(*log.upstream.lock().unwrap(), [("d0".to_owned(), 200)]);
    }
    // The second call met the first one's connection, and the third the one that closed.
    assert!(requests.load(Ordering::Relaxed) > 3);
    assert_eq!(status(&router).deployments[0].cooling, None);
}

#[tokio::test]
async fn reused_connection_closed_within_the_answer_is_a_failed_attempt() {
    let (base, requests) = forgetful(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{").await;
    let (router, _) = router(&one(&base, "", STRICT));
    router.call(chat("")).await.unwrap();
    let failed = router.call(chat("")).await.unwrap_err();
    assert_eq!((failed.status().as_u16(), failed.info().attempts), (502, 1));
    assert_eq!(requests.load(Ordering::Relaxed), 2);
    until(&router, |status| status.deployments[0].cooling.is_some()).await;
}

#[tokio::test]
async fn status_502_message_names_the_connection_error() {
    let (closing, _) = rude(b"").await;
    let (garbage, _) = rude(b"SSH-2.0-OpenSSH_9.9\r\n\r\n").await;
    for (base, message) in [
        (
            unused_address().await,
            "The upstream cannot be reached: the connection was refused",
        ),
        (
            "http://no-such-host.invalid/v1".into(),
            "The upstream cannot be reached: its host name could not be resolved",
        ),
        (
            garbage.replace("http://", "https://"),
            "The upstream cannot be reached: the TLS handshake failed",
        ),
        (
            closing,
            "The upstream broke off before its answer: the connection was closed",
        ),
        (garbage, "The upstream's answer was not valid HTTP"),
    ] {
        let (router, _) = router(&one(&base, "num_retries: 0", ""));
        let failed = router.call(chat("")).await.unwrap_err();
        assert_eq!(
            (failed.status().as_u16(), failed.message()),
            (502, message.into())
        );
    }
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn failed_attempts_are_logged_with_cause_and_next_action() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .with_writer(move || writer.clone())
        .finish();
    let guard = tracing::subscriber::set_default(subscriber);
    let base = unused_address().await;
    let (router, _) = router(&one(&base, "num_retries: 1", ""));
    router.call(chat("")).await.unwrap_err();
    drop(guard);
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let failed: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|line: &serde_json::Value| line["fields"]["message"] == "an attempt failed")
        .collect();
    let expected = [
        ("INFO", 1, "queues again after a pause"),
        ("WARN", 2, "gives up: no retries are left"),
    ];
    assert_eq!(failed.len(), expected.len(), "{text}");
    for (line, (level, attempt, next)) in failed.iter().zip(expected) {
        assert_eq!(line["level"], level);
        let fields = &line["fields"];
        assert_eq!(
            (&fields["group"], &fields["deployment"]),
            (&"m".into(), &"d0".into())
        );
        assert_eq!(
            (&fields["attempt"], &fields["next"]),
            (&attempt.into(), &next.into())
        );
        assert_eq!(fields["cause"], "connection refused");
        assert_eq!(fields["status"], 502);
        let detail = fields["detail"].as_str().unwrap();
        assert!(detail.contains("tcp connect error"), "{detail}");
    }
    assert!(!text.contains("sk-secret"));
}

/// Interim answers (1xx) are no sign of an answer: an upstream that sends them without end is cut off like a silent one.
#[tokio::test]
async fn endless_1xx_heads_end_at_the_attempt_timeout() {
    for pause in [Duration::ZERO, Duration::from_millis(5)] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}/v1", listener.local_addr().unwrap());
        let upstream = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            read(&mut socket).await;
            let heads = b"HTTP/1.1 103 Early Hints\r\nlink: </style.css>\r\n\r\n".repeat(100);
            while socket.write_all(&heads).await.is_ok() {
                tokio::time::sleep(pause).await;
            }
        });
        let (router, _) = router(&one(&base, "timeout: 0.3", STRICT));
        let failed = router.call(chat("")).await.unwrap_err();
        assert_eq!((failed.status().as_u16(), failed.info().attempts), (408, 1));
        // Its writes fail: the connection is closed.
        upstream.await.unwrap();
    }
}
