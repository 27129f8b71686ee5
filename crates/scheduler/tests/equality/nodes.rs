//! Servers at ports: the least cluster, and a server with a sentinel.

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;

use crate::server::program;

/// The name of the master at sentinels.
pub(crate) const SERVICE: &str = "queue";
/// How far a node's port for other nodes is from its own.
const BUS: u16 = 10_000;
const SLOTS: u16 = 16_384;

/// A redis-server at a port, or a sentinel. Ends when dropped.
pub(crate) struct Node {
    process: Child,
    port: u16,
    _directory: TempDir,
}

impl Node {
    /// With these lines of configuration.
    fn start(lines: &[String], is_sentinel: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("redis.conf");
        let port = free_port();
        let text = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\n{}\n",
            directory.path().display(),
            lines.join("\n")
        );
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new(program());
        command.arg(file).stdout(Stdio::null());
        if is_sentinel {
            command.arg("--sentinel");
        }
        let node = Self {
            process: command.spawn().expect("there is a redis-server"),
            port,
            _directory: directory,
        };
        while node.client().get_connection().is_err() {
            std::thread::sleep(Duration::from_millis(5));
        }
        node
    }

    /// A server that keeps nothing.
    pub(crate) fn server(lines: &[&str]) -> Self {
        let own = ["save \"\"", "appendonly no"];
        let lines: Vec<String> = own.iter().chain(lines).map(ToString::to_string).collect();
        Self::start(&lines, false)
    }

    /// A replica of this server.
    pub(crate) fn replica(&self) -> Self {
        Self::server(&[&format!("replicaof 127.0.0.1 {}", self.port)])
    }

    /// A cluster of one node, which serves all slots.
    pub(crate) fn cluster() -> Self {
        let node = Self::server(&["cluster-enabled yes"]);
        let mut slots = redis::cmd("CLUSTER");
        slots.arg("ADDSLOTS").arg((0..SLOTS).collect::<Vec<_>>());
        let mut connection = node.client().get_connection().unwrap();
        slots.query::<()>(&mut connection).unwrap();
        while !node
            .run::<String>(&["CLUSTER", "INFO"])
            .contains("cluster_state:ok")
        {
            std::thread::sleep(Duration::from_millis(5));
        }
        node
    }

    /// A sentinel that watches this server.
    pub(crate) fn sentinel(&self) -> Self {
        let monitor = format!("sentinel monitor {SERVICE} 127.0.0.1 {} 1", self.port);
        Self::start(&[monitor], true)
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) fn client(&self) -> redis::Client {
        redis::Client::open(format!("redis://{}", self.address())).unwrap()
    }

    /// Runs a command as the server's administrator.
    pub(crate) fn run<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        let mut connection = self.client().get_connection().unwrap();
        command.query(&mut connection).unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A port that is free, as is the one for other nodes.
fn free_port() -> u16 {
    loop {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let bus = port.checked_add(BUS);
        if bus.is_some_and(|bus| TcpListener::bind(("127.0.0.1", bus)).is_ok()) {
            return port;
        }
    }
}
