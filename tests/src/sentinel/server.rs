//! [`Sentinel`]: one redis-sentinel.

use std::process::Command;

use anyhow::Result;
use redis::{Value, from_redis_value};
use tempfile::TempDir;

use super::{SERVICE, Setup};
use crate::{
    process::Process,
    redis::{Redis, free_port},
};

/// One redis-sentinel. It keeps its configuration, so what it learnt, while it does not run.
#[derive(Debug)]
pub struct Sentinel {
    /// As a server that does not run: for the test's connections.
    server: Redis,
    port: u16,
    slow: bool,
    process: Option<Process>,
    directory: TempDir,
}

// === impl Sentinel ===

impl Sentinel {
    /// Starts one with these lines of configuration. `port`: where all but the test reach it.
    pub(super) async fn start(port: u16, lines: &[String], setup: Setup<'_>) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let folder = directory.path();
        let tls = setup.tls.map(|tls| tls.settings(port));
        let own = if tls.is_some() { free_port()? } else { port };
        let mut config = format!("port {own}\nbind 127.0.0.1\ndir {}\n", folder.display());
        for (name, value) in tls.iter().flatten() {
            config += &format!("{name} {value}\n");
        }
        config += &lines.join("\n");
        config += "\n";
        std::fs::write(folder.join("sentinel.conf"), config)?;
        let mut server = Redis::at(own, &[])?;
        if let Some(password) = setup.password {
            server = server.with_user("default", password);
        }
        let mut sentinel = Self {
            server,
            port,
            slow: setup.slow,
            process: None,
            directory,
        };
        sentinel.restart().await?;
        Ok(sentinel)
    }

    /// Starts it, or starts it again.
    ///
    /// # Errors
    /// It does not start.
    pub async fn restart(&mut self) -> Result<()> {
        self.stop()?;
        let folder = self.directory.path();
        let mut command = Command::new("redis-server");
        command.arg(folder.join("sentinel.conf")).arg("--sentinel");
        let mut process = Process::start("sentinel", command, folder)?;
        process
            .printed(|text| text.contains("Sentinel ID is").then_some(()))
            .await?;
        self.process = Some(process);
        // Sooner than by default (1 s, 10 s, 2 s). Redis 6.2 has only the defaults. Five of the first are how old the INFO of a replica
        // may be that becomes the master; four of the last are the time until a former master is demoted.
        let publish = if self.slow { "2000" } else { "500" };
        let periods = [
            "SENTINEL",
            "DEBUG",
            "PING-PERIOD",
            "300",
            "INFO-PERIOD",
            "500",
        ];
        let periods = [&periods[..], &["PUBLISH-PERIOD", publish]].concat();
        drop(self.command(&periods).await);
        Ok(())
    }

    /// Kills it.
    ///
    /// # Errors
    /// It cannot be killed.
    pub fn stop(&mut self) -> Result<()> {
        match self.process.take() {
            Some(mut process) => process.kill(),
            None => Ok(()),
        }
    }

    pub(super) fn runs(&self) -> bool {
        self.process.is_some()
    }

    /// Its host and port.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// A command, answered.
    ///
    /// # Errors
    /// It answers with an error, or not at all.
    pub async fn command(&self, words: &[&str]) -> Result<Value> {
        self.server.command(words).await
    }

    /// The port of the master that it names.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn master(&self) -> Result<u16> {
        let named = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE];
        let (_, port): (String, String) = from_redis_value(self.command(&named).await?)?;
        Ok(port.parse()?)
    }

    pub(super) async fn replicas(&self) -> Result<Vec<Vec<String>>> {
        let replicas = self.command(&["SENTINEL", "REPLICAS", SERVICE]).await?;
        Ok(from_redis_value(replicas)?)
    }
}
