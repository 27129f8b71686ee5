//! What operators and clients see of Redis. The scheduler has its own tests on Redis.

use std::{
    collections::BTreeMap,
    net::TcpListener,
    process::{Child, Command, Stdio},
};

use secrecy::SecretString;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _};
use vorrang_gateway::{Config, RedisSettings};
use vorrang_server::{Patience, Server};

use crate::support::{AT_MOST, Gateway, MOCKS, chat};

fn config(url: &str) -> Config {
    let mut config = Config::parse(MOCKS, "test.yaml", &BTreeMap::new())
        .unwrap()
        .config;
    config.redis = Some(RedisSettings::new(SecretString::from(url), "test"));
    config
}

pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// A redis-server of this test, without files; killed with it.
pub(crate) struct Redis(Child);

impl Redis {
    pub(crate) fn start(port: u16, options: &[&str]) -> Self {
        let port = port.to_string();
        let child = Command::new("redis-server")
            .args(["--port", &port, "--bind", "127.0.0.1", "--save", ""])
            .args(options)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    /// Sends one command; its answer's first line.
    async fn command(port: u16, words: &str) -> String {
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", port));
        let mut stream = tokio::io::BufStream::new(stream.await.unwrap());
        stream
            .write_all(format!("{words}\r\n").as_bytes())
            .await
            .unwrap();
        stream.flush().await.unwrap();
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        line
    }

    pub(crate) async fn until_there(port: u16) {
        let there = async {
            while tokio::net::TcpStream::connect(("127.0.0.1", port))
                .await
                .is_err()
            {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(AT_MOST, there).await.unwrap();
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Longer than the lease without Redis: readiness fails, and a time-out is a 503 that names the cause. When Redis
/// starts, service begins without a restart.
#[tokio::test]
async fn instance_waits_for_a_missing_redis_and_names_it() {
    let port = free_port();
    let url = format!("redis://:geheim@127.0.0.1:{port}");
    let gateway = Gateway::begin(config(&url), Patience::default()).await;
    assert_eq!(gateway.get("/health/liveliness").await.status, 200);
    let readiness = gateway.get("/health/readiness").await;
    assert_eq!(readiness.status, 503);
    let reason = readiness.json()["reason"].as_str().unwrap().to_owned();
    assert!(
        reason.contains("free, tight") && !reason.contains("geheim"),
        "{reason}"
    );

    // The lease is 3 s: a shorter silence would be an ordinary 408.
    let call = chat("tight", r#", "timeout": 4"#);
    let (message, _) = gateway
        .post("/chat/completions", &[], &call)
        .await
        .error(503);
    assert!(message.contains("Redis"), "{message}");

    // A group without limits needs no Redis to grant.
    let answer = gateway
        .post("/chat/completions", &[], &chat("free", ""))
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text());

    let _redis = Redis::start(port, &["--requirepass", "geheim"]);
    gateway.until_ready().await;
    let call = chat("tight", "");
    let answer = gateway.post("/chat/completions", &[], &call).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let page = gateway.get("/metrics").await.text();
    let errors = r#"vorrang_redis_errors_total{group="tight",kind=""#;
    assert!(page.contains(errors), "{page}");
}

/// `noeviction` is required and checked.
#[tokio::test]
async fn start_is_refused_if_redis_may_evict_keys() {
    let port = free_port();
    let _redis = Redis::start(port, &["--maxmemory-policy", "allkeys-lru"]);
    Redis::until_there(port).await;
    let url = format!("redis://127.0.0.1:{port}");
    let server = Server::bind(config(&url), "127.0.0.1", 0, Patience::default()).await;
    let error = format!("{:#}", server.err().unwrap());
    assert!(error.contains("noeviction"), "{error}");
}

const EVICTING: [&str; 4] = ["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"];

const UNREADY: &str =
    "Redis may evict the queue: maxmemory-policy is allkeys-lru, set it to noeviction";

pub(crate) async fn reason(gateway: &Gateway) -> String {
    let answer = gateway.get("/health/readiness").await;
    match answer.status {
        200 => "ready".into(),
        _ => answer.json()["reason"].as_str().unwrap().into(),
    }
}

/// Redis starts after the instance, so the start cannot be refused: the instance is not ready instead.
#[tokio::test]
async fn instance_is_not_ready_on_a_late_redis_that_may_evict_keys() {
    let port = free_port();
    let url = format!("redis://127.0.0.1:{port}");
    let gateway = Gateway::begin(config(&url), Patience::default()).await;
    let _redis = Redis::start(port, &EVICTING);
    gateway
        .until("sessions", || async {
            gateway.gauge("vorrang_group_ready", "free").await == 1.0
                && gateway.gauge("vorrang_group_ready", "tight").await == 1.0
        })
        .await;
    assert_ne!(reason(&gateway).await, "ready");
    gateway
        .until("the reason", || async { reason(&gateway).await == UNREADY })
        .await;
    let set = "CONFIG SET maxmemory-policy noeviction";
    assert_eq!(Redis::command(port, set).await, "+OK\r\n");
    gateway.until_ready().await;
}

/// The policy changes in use. Requests are still served: a queue that may be lost is better than none.
#[tokio::test]
async fn readiness_follows_changes_of_the_eviction_policy() {
    let port = free_port();
    let _redis = Redis::start(port, &["--maxmemory-policy", "noeviction"]);
    Redis::until_there(port).await;
    let url = format!("redis://127.0.0.1:{port}");
    let gateway = Gateway::serve(config(&url), Patience::default()).await;
    for (policy, expected) in [("allkeys-lru", UNREADY), ("noeviction", "ready")] {
        for set in [
            "CONFIG SET maxmemory 100mb".to_owned(),
            format!("CONFIG SET maxmemory-policy {policy}"),
        ] {
            assert_eq!(Redis::command(port, &set).await, "+OK\r\n", "{set}");
        }
        gateway
            .until(expected, || async { reason(&gateway).await == expected })
            .await;
        let answer = gateway
            .post("/chat/completions", &[], &chat("free", ""))
            .await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

/// Readiness and the 503s name the actual error.
#[tokio::test]
async fn redis_error_is_named_in_readiness_and_503s() {
    let directory = tempfile::TempDir::new().unwrap();
    let directory = directory.path().display().to_string();
    let master = free_port().to_string();
    for (options, words, detail) in [
        (
            &["--replicaof", "127.0.0.1", &master][..],
            "it is a read-only replica",
            "READONLY",
        ),
        (&["--maxmemory", "100kb"], "it is out of memory", "OOM"),
        (
            &["--requirepass", "geheim"],
            "it refuses the user or the password",
            "NOAUTH",
        ),
        (
            &["--cluster-enabled", "yes", "--dir", &directory],
            "the cluster has no node that serves this group",
            "CLUSTERDOWN",
        ),
    ] {
        let port = free_port();
        let _redis = Redis::start(port, options);
        Redis::until_there(port).await;
        let url = format!("redis://127.0.0.1:{port}");
        let gateway = Gateway::begin(config(&url), Patience::default()).await;
        gateway
            .until(words, || async {
                let reason = reason(&gateway).await;
                reason.contains(words) && reason.to_uppercase().contains(detail)
            })
            .await;
        // Each group has its own last error, and the other one may have had the first.
        let call = chat("free", r#", "timeout": 0.1"#);
        gateway
            .until(words, || async {
                let answer = gateway.post("/chat/completions", &[], &call).await;
                answer.error(503).0.contains(words)
            })
            .await;
    }
}

/// P17 (partial writes): only INFO shows that another master has taken over.
#[tokio::test]
async fn start_is_refused_if_redis_forbids_info() {
    let port = free_port();
    let _redis = Redis::start(port, &[]);
    Redis::until_there(port).await;
    let url = format!("redis://127.0.0.1:{port}");
    let forbid = "ACL SETUSER default -info";
    assert_eq!(Redis::command(port, forbid).await, "+OK\r\n");
    let server = Server::bind(config(&url), "127.0.0.1", 0, Patience::default()).await;
    let error = format!("{:#}", server.err().unwrap());
    assert!(error.contains("INFO") && error.contains("+info"), "{error}");
}

#[tokio::test]
async fn malformed_redis_url_error_contains_no_password() {
    for url in ["http://:geheim@x", "geheim", "redis://:geheim@:nonsense/x"] {
        let server = Server::bind(config(url), "127.0.0.1", 0, Patience::default()).await;
        let error = format!("{:#}", server.err().unwrap());
        assert!(
            error.contains("malformed") && !error.contains("geheim"),
            "{error}"
        );
    }
}
