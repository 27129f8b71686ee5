//! [`Redis`]: a redis-server of the test's own.

use std::{
    env::var_os, ffi::OsString, net::TcpListener, path::Path, process::Command, time::Duration,
};

use anyhow::{Context as _, Result, bail};
use redis::{Client, Value, aio::MultiplexedConnection, cmd};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::{
    process::Process,
    wait::{PATIENCE, until},
};

/// Arguments for servers whose replicas are users of their own, so that a master can refuse them and nothing else.
pub(crate) const REPLICATION: &[&str] = &[
    "--user",
    "replica",
    "on",
    ">copy",
    "+psync",
    "+replconf",
    "+ping",
    "--masteruser",
    "replica",
    "--masterauth",
    "copy",
    "--repl-diskless-sync-delay",
    "0",
];

/// A redis-server (`VORRANG_REDIS_SERVER`, or the one of the path) that keeps nothing on disk. Ends with its handle.
#[derive(Debug)]
pub struct Redis {
    process: Option<Process>,
    directory: TempDir,
    port: u16,
    options: Vec<String>,
    /// The user and password that the tests' own connections use.
    user: Option<(String, String)>,
}

impl Redis {
    /// Starts one on a free port and waits until it answers.
    ///
    /// # Errors
    /// There is no redis-server, or it does not start.
    pub async fn start() -> Result<Self> {
        Self::with(&[]).await
    }

    /// The same, with further arguments for its command line.
    ///
    /// # Errors
    /// It does not start.
    pub async fn with(options: &[&str]) -> Result<Self> {
        let mut redis = Self::at(free_port()?, options)?;
        redis.restart().await?;
        Ok(redis)
    }

    /// An address where none runs yet.
    ///
    /// # Errors
    /// No port is free.
    pub fn reserve() -> Result<Self> {
        Self::at(free_port()?, &[])
    }

    /// The same at this port, with further arguments for its command line.
    pub(crate) fn at(port: u16, options: &[&str]) -> Result<Self> {
        Ok(Self {
            process: None,
            directory: tempfile::tempdir()?,
            port,
            options: options.iter().map(ToString::to_string).collect(),
            user: None,
        })
    }

    /// Further arguments for its command line, from the next start on.
    pub fn set(&mut self, options: &[&str]) {
        self.options = options.iter().map(ToString::to_string).collect();
    }

    /// The tests' own connections are those of this user.
    #[must_use]
    pub(crate) fn with_user(self, name: &str, password: &str) -> Self {
        let user = Some((name.to_owned(), password.to_owned()));
        Self { user, ..self }
    }

    /// Starts it at the same address; its data is lost, except what `SAVE` stored.
    ///
    /// # Errors
    /// It does not start.
    pub async fn restart(&mut self) -> Result<()> {
        self.stop()?;
        let mut command = Command::new(program());
        command
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no"])
            .args(["--maxmemory-policy", "noeviction"])
            .arg("--dir")
            .arg(self.directory.path())
            .args(&self.options);
        let mut process = Process::start("redis-server", command, self.directory.path())?;
        process
            .printed(|text| text.contains("Ready to accept connections").then_some(()))
            .await?;
        self.process = Some(process);
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

    /// Stops it from answering, without closing its connections, until [`Redis::thaw`].
    ///
    /// # Errors
    /// It does not run.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Undoes [`Redis::freeze`].
    ///
    /// # Errors
    /// It does not run.
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let process = self.process.as_ref();
        process.context("redis does not run")?.signal(signal)
    }

    /// Whether it was started and not stopped.
    pub fn runs(&self) -> bool {
        self.process.is_some()
    }

    /// Where it is.
    pub fn url(&self) -> String {
        let user = self.user.as_ref();
        let user = user.map(|(name, password)| format!("{name}:{password}@"));
        format!("redis://{}{}", user.unwrap_or_default(), self.address())
    }

    /// Its host and port.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its own directory, which ends with it.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A connection to it.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn connection(&self) -> Result<MultiplexedConnection> {
        let client = Client::open(self.url())?;
        let start = Instant::now();
        loop {
            match client.get_multiplexed_async_connection().await {
                Ok(connection) => return Ok(connection),
                Err(error) if start.elapsed() > PATIENCE => bail!("redis does not answer: {error}"),
                Err(_) => sleep(Duration::from_millis(10)).await,
            }
        }
    }

    /// A command, answered.
    ///
    /// # Errors
    /// It answers with an error, or not within a minute.
    pub async fn command(&self, words: &[&str]) -> Result<Value> {
        let mut connection = self.connection().await?;
        connection.set_response_timeout(Duration::from_secs(60));
        let mut command = cmd(words.first().context("no command")?);
        let asked = command.arg(words.get(1..).unwrap_or_default());
        let answer = asked.query_async(&mut connection).await;
        answer.with_context(|| words.join(" "))
    }

    /// A field of INFO; empty if it is not there.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn info(&self, section: &str, field: &str) -> Result<String> {
        let mut info = self.command(&["INFO", section]).await;
        if info.is_err() {
            // Sentinels end all connections of a server whose role they change.
            info = self.command(&["INFO", section]).await;
        }
        let info: String = redis::from_redis_value(info?)?;
        let value = info.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            (name == field).then(|| value.to_owned())
        });
        Ok(value.unwrap_or_default())
    }

    /// Whether it is a master by its own word.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn is_master(&self) -> Result<bool> {
        Ok(self.info("replication", "role").await? == "master")
    }

    /// How often it has answered with this error, such as `TRYAGAIN`.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn errors(&self, code: &str) -> Result<u64> {
        let field = format!("errorstat_{code}");
        let figure = self.info("errorstats", &field).await?;
        let count = figure.strip_prefix("count=").unwrap_or("0");
        count.parse().context(figure.clone())
    }

    /// Waits until it is linked to its master and has its data.
    ///
    /// # Errors
    /// It never is.
    pub async fn linked(&self) -> Result<()> {
        let look = || self.info("replication", "master_link_status");
        until("a synced replica", look, |link| link == "up").await?;
        Ok(())
    }

    /// Cuts its replicas off: they keep the data that they have, and miss what is written from here on. Only for servers with
    /// `REPLICATION`, as a restart undoes it.
    ///
    /// # Errors
    /// A replica is still linked after a time.
    pub async fn cut_off(&self, replicas: &[&Self]) -> Result<()> {
        self.command(&["ACL", "SETUSER", "replica", "off"]).await?;
        self.command(&["CLIENT", "KILL", "TYPE", "replica"]).await?;
        for replica in replicas {
            let look = || replica.info("replication", "master_link_status");
            until("a replica that is cut off", look, |link| link == "down").await?;
        }
        Ok(())
    }

    /// How many members a key of a group has, a sorted set or a hash (docs/protocol.md names them), without the one that only keeps the key.
    ///
    /// # Errors
    /// There is not exactly one such key: what is looked for under a wrong name would never be found.
    pub async fn members(&self, group: &str, key: &str) -> Result<u64> {
        let key = self.key(group, key).await?;
        let kind: String = redis::from_redis_value(self.command(&["TYPE", &key]).await?)?;
        let count = if kind == "hash" { "HLEN" } else { "ZCARD" };
        let members: u64 = redis::from_redis_value(self.command(&[count, &key]).await?)?;
        members
            .checked_sub(1)
            .with_context(|| format!("{key} is empty"))
    }

    /// How many records of a kind a group has, by the letter of their fields: `S` sessions, `A` answers, `B` inboxes.
    ///
    /// # Errors
    /// The group has no scalars.
    pub async fn records(&self, group: &str, letter: char) -> Result<usize> {
        let key = self.key(group, "meta").await?;
        let fields: Vec<String> = redis::from_redis_value(self.command(&["HKEYS", &key]).await?)?;
        anyhow::ensure!(fields.iter().any(|field| field == "hot"), "{fields:?}");
        Ok(fields
            .iter()
            .filter(|field| field.starts_with(letter))
            .count())
    }

    /// The full name of a key of a group, whatever the version of the schema is.
    async fn key(&self, group: &str, key: &str) -> Result<String> {
        let pattern = format!("vorrang:*:{{{group}}}:{key}");
        let found = self.command(&["KEYS", &pattern]).await?;
        let mut found: Vec<String> = redis::from_redis_value(found)?;
        anyhow::ensure!(found.len() == 1, "{pattern}: {found:?}");
        Ok(found.remove(0))
    }

    /// Takes everything from it.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn flush(&self) -> Result<()> {
        let done: Value = cmd("FLUSHALL")
            .query_async(&mut self.connection().await?)
            .await?;
        anyhow::ensure!(done == Value::Okay, "FLUSHALL answered {done:?}");
        Ok(())
    }

    /// How often it was asked for `command` (by its lower-case name) since it started.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn calls(&self, command: &str) -> Result<u64> {
        let counts = self.counts().await?;
        Ok(counts
            .iter()
            .find_map(|(name, calls)| (name == command).then_some(*calls))
            .unwrap_or(0))
    }

    /// How many commands it has executed since it started, with those inside of scripts.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn commands(&self) -> Result<u64> {
        Ok(self.counts().await?.iter().map(|(_, calls)| calls).sum())
    }

    /// All commands by name, and how often each was executed.
    async fn counts(&self) -> Result<Vec<(String, u64)>> {
        let info: String = cmd("INFO")
            .arg("commandstats")
            .query_async(&mut self.connection().await?)
            .await?;
        let lines = info
            .lines()
            .filter_map(|line| line.strip_prefix("cmdstat_"));
        lines
            .map(|line| {
                let (name, figures) = line.split_once(":calls=").context("no calls")?;
                let calls = figures.split(',').next().unwrap_or_default();
                Ok((name.to_owned(), calls.parse().context("calls")?))
            })
            .collect::<Result<_>>()
            .context("INFO commandstats")
    }
}

fn program() -> OsString {
    var_os("VORRANG_REDIS_SERVER").unwrap_or_else(|| "redis-server".into())
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
