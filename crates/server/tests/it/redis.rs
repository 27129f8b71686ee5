//! Redis as seen from outside. What the scheduler does on it has tests of its own.

use std::{
    collections::BTreeMap,
    net::TcpListener,
    process::{Child, Command, Stdio},
};

use secrecy::SecretString;
use vorrang_gateway::{Config, RedisSettings};
use vorrang_server::{Patience, Server};

use crate::support::{AT_MOST, Gateway, MOCKS, chat};

fn config(url: &str) -> Config {
    let mut config = Config::parse(MOCKS, "test.yaml", &BTreeMap::new())
        .unwrap()
        .config;
    config.redis = Some(RedisSettings {
        url: SecretString::from(url),
        namespace: "test".into(),
    });
    config
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// A redis-server of this test, without files; killed with it.
struct Redis(Child);

impl Redis {
    fn start(port: u16, options: &[&str]) -> Self {
        let port = port.to_string();
        let child = Command::new("redis-server")
            .args(["--port", &port, "--bind", "127.0.0.1", "--save", ""])
            .args(options)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// "When things break": longer than the lease without Redis: readiness says no, a time-out is a 503 that names the cause; and when
/// it comes, everything goes on by itself.
#[tokio::test]
async fn a_redis_that_is_not_there_is_waited_for_and_named() {
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
    let call = chat("free", r#", "timeout": 4"#);
    let (message, _) = gateway
        .post("/chat/completions", &[], &call)
        .await
        .error(503);
    assert!(message.contains("Redis"), "{message}");

    let _redis = Redis::start(port, &["--requirepass", "geheim"]);
    gateway.until_ready().await;
    let call = chat("free", "");
    let answer = gateway.post("/chat/completions", &[], &call).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let page = gateway.get("/metrics").await.text();
    let errors = r#"vorrang_redis_errors_total{group="free",kind=""#;
    assert!(page.contains(errors), "{page}");
}

/// `noeviction` is required and checked.
#[tokio::test]
async fn a_redis_that_may_evict_tickets_is_refused() {
    let port = free_port();
    let _redis = Redis::start(port, &["--maxmemory-policy", "allkeys-lru"]);
    let address = format!("127.0.0.1:{port}");
    let there = async {
        while tokio::net::TcpStream::connect(&address).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(AT_MOST, there).await.unwrap();
    let url = format!("redis://{address}");
    let server = Server::bind(config(&url), "127.0.0.1", 0, Patience::default()).await;
    let error = format!("{:#}", server.err().unwrap());
    assert!(error.contains("noeviction"), "{error}");
}

#[tokio::test]
async fn a_malformed_url_is_an_error_without_the_password() {
    for url in ["http://:geheim@x", "geheim", "redis://:geheim@:nonsense/x"] {
        let server = Server::bind(config(url), "127.0.0.1", 0, Patience::default()).await;
        let error = format!("{:#}", server.err().unwrap());
        assert!(
            error.contains("malformed") && !error.contains("geheim"),
            "{error}"
        );
    }
}
