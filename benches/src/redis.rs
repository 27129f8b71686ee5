//! A redis-server of the run's own, and what it says of its commands.

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result};
use redis::{FromRedisValue, aio::MultiplexedConnection, cmd};

use crate::{
    commandstats::{Commands, parse},
    process::{Process, free_port},
};

/// Keeps nothing on disk, and ends with its handle.
pub(crate) struct Redis {
    pub(crate) process: Process,
    port: u16,
    connection: MultiplexedConnection,
}

impl Redis {
    pub(crate) async fn start(directory: &Path) -> Result<Self> {
        Self::under(Command::new("redis-server"), directory).await
    }

    /// Starts it by a command that takes its arguments: `redis-server`, or valgrind with it.
    pub(crate) async fn under(mut command: Command, directory: &Path) -> Result<Self> {
        let port = free_port()?;
        command
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no"])
            .args(["--maxmemory-policy", "noeviction", "--dir"])
            .arg(directory);
        let mut process = Process::start(&format!("redis-{port}"), command, directory)?;
        let is_ready = |text: &str| text.contains("Ready to accept connections").then_some(());
        process.printed(is_ready).await?;
        let client = redis::Client::open(format!("redis://127.0.0.1:{port}"))?;
        // A queue of a million tickets takes Redis a while to report on.
        let config = redis::AsyncConnectionConfig::new()
            .set_response_timeout(Some(std::time::Duration::from_secs(120)));
        let connection = client
            .get_multiplexed_async_connection_with_config(&config)
            .await?;
        Ok(Self {
            process,
            port,
            connection,
        })
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) async fn run<T: FromRedisValue>(&self, words: &[&str]) -> Result<T> {
        let mut command = cmd(words.first().context("no command")?);
        command.arg(&words[1..]);
        let answer = command.query_async(&mut self.connection.clone()).await;
        answer.with_context(|| words.join(" "))
    }

    pub(crate) fn connection(&self) -> MultiplexedConnection {
        self.connection.clone()
    }

    pub(crate) async fn commands(&self) -> Result<Commands> {
        let info: String = self.run(&["INFO", "commandstats"]).await?;
        parse(&info).context("INFO commandstats")
    }

    /// Bytes of all that is stored.
    pub(crate) async fn stored(&self) -> Result<u64> {
        let keys: Vec<String> = self.run(&["KEYS", "*"]).await?;
        let mut sum = 0;
        for key in keys {
            // All elements of a key are looked at, instead of some.
            let of: Option<u64> = self.run(&["MEMORY", "USAGE", &key, "SAMPLES", "0"]).await?;
            sum += of.unwrap_or(0);
        }
        Ok(sum)
    }

    /// Bytes that it has received and sent so far. This answer itself counts as sent only afterwards: its length comes last.
    pub(crate) async fn network(&self) -> Result<[u64; 3]> {
        let info: String = self.run(&["INFO", "stats"]).await?;
        let (received, sent) = (
            figure(&info, "total_net_input_bytes")?,
            figure(&info, "total_net_output_bytes")?,
        );
        Ok([received, sent, info.len() as u64])
    }

    pub(crate) async fn version(&self) -> Result<String> {
        let info: String = self.run(&["INFO", "server"]).await?;
        let line = info
            .lines()
            .find_map(|line| line.strip_prefix("redis_version:"));
        Ok(line.context("redis_version")?.trim().into())
    }
}

/// `NAME:123` of an INFO.
fn figure(info: &str, name: &str) -> Result<u64> {
    let mut lines = info.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = lines
        .find(|(known, _)| *known == name)
        .with_context(|| name.to_owned())?;
    Ok(value.trim().parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figure_of_info_is_found_by_its_whole_name() {
        let info = "# Stats\r\ntotal_calls:5\r\ncalls:7\r\n";
        assert_eq!(figure(info, "calls").unwrap(), 7);
        assert!(figure(info, "total").is_err());
    }
}
