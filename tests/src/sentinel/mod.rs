//! [`Service`]: a master and its replicas under three sentinels. [`Announcer`]: a sentinel that says what a test wants.

mod announcer;
mod server;

use std::time::Duration;

use anyhow::{Context as _, Result};

pub use self::{announcer::Announcer, server::Sentinel};
use crate::{
    certificates::Certificates,
    redis::{REPLICATION, Redis, free_port},
    wait::until,
};

/// The name of the master in all sentinels.
pub const SERVICE: &str = "queue";

/// Servers and their sentinels, which are to fail over when two of them agree. Ends with its handle.
#[derive(Debug)]
pub struct Service {
    /// The first one is the master at the start.
    pub servers: Vec<Redis>,
    /// The ports that the sentinels know the servers by: with TLS, others than those of the tests.
    ports: Vec<u16>,
    /// Three.
    pub sentinels: Vec<Sentinel>,
}

/// What a service is made with. The default: one replica, and no server asks for a password.
#[derive(Debug, Clone, Copy)]
pub struct Setup<'a> {
    /// How many.
    pub replicas: usize,
    /// Further arguments for the command line of each server.
    pub options: &'a [&'a str],
    /// A user and its password: of the sentinels at the servers.
    pub watcher: Option<(&'a str, &'a str)>,
    /// A user and its password: of the test at the servers.
    pub tester: Option<(&'a str, &'a str)>,
    /// What all sentinels ask for.
    pub password: Option<&'a str>,
    /// The time after which a sentinel takes a master for down. Its pings are more frequent, so that a busy machine does not look like
    /// a dead master. A replica that has missed ten times as much is not made the master.
    pub down_after: Duration,
    /// Sentinels demote a former master that lives after 8 s, as by default; else after 2 s.
    pub slow: bool,
    /// Servers and sentinels speak TLS with all but the test.
    pub tls: Option<&'a Certificates>,
}

impl Default for Setup<'_> {
    fn default() -> Self {
        Self {
            replicas: 1,
            options: &[],
            watcher: None,
            tester: None,
            password: None,
            down_after: Duration::from_secs(1),
            slow: false,
            tls: None,
        }
    }
}

// === impl Service ===

impl Service {
    /// One replica and three sentinels.
    ///
    /// # Errors
    /// One of them does not start, or they do not come to know each other.
    pub async fn start() -> Result<Self> {
        Self::with(Setup::default()).await
    }

    /// The same, made like this.
    ///
    /// # Errors
    /// One of them does not start, or they do not come to know each other.
    pub async fn with(setup: Setup<'_>) -> Result<Self> {
        let (master, port) = setup.server().await?;
        Self::around(master, port, setup).await
    }

    /// The same with this master, of [`Setup::server`]. `port`: where the others reach it, which may be a relay.
    ///
    /// # Errors
    /// One of them does not start, or they do not come to know each other.
    pub async fn around(master: Redis, port: u16, setup: Setup<'_>) -> Result<Self> {
        let (mut servers, mut ports) = (vec![master], vec![port]);
        for _ in 0..setup.replicas {
            let (server, own) = setup.server().await?;
            let port = port.to_string();
            server.command(&["REPLICAOF", "127.0.0.1", &port]).await?;
            servers.push(server);
            ports.push(own);
        }
        for replica in &servers[1..] {
            replica.linked().await?;
        }
        let addresses = [free_port()?, free_port()?, free_port()?];
        let mut sentinels = Vec::new();
        for (index, own) in addresses.iter().enumerate() {
            let mut lines = setup.lines(port);
            lines.push(format!("sentinel myid {}", id(index)));
            // They would find each other by themselves, within seconds.
            let others = addresses.iter().enumerate();
            let others = others.filter(|(_, other)| *other != own);
            lines.extend(others.map(|(index, other)| {
                let id = id(index);
                format!("sentinel known-sentinel {SERVICE} 127.0.0.1 {other} {id}")
            }));
            sentinels.push(Sentinel::start(*own, &lines, setup).await?);
        }
        let service = Self {
            servers,
            ports,
            sentinels,
        };
        service.settled().await?;
        Ok(service)
    }

    /// Waits until every sentinel knows all others and all replicas: from here on a master that dies is replaced.
    async fn settled(&self) -> Result<()> {
        let replicas = self.servers.len() - 1;
        for sentinel in &self.sentinels {
            let knows = || async {
                let sentinels = sentinel.command(&["SENTINEL", "CKQUORUM", SERVICE]).await;
                Ok((sentinels.is_ok(), sentinel.replicas().await?))
            };
            let all = |(quorum, known): &(bool, Vec<_>)| *quorum && known.len() >= replicas;
            until("a sentinel that knows all others", knows, all).await?;
        }
        Ok(())
    }

    /// A URL of the sentinels. `user`: at the servers, with its password, and an `@`.
    pub fn url(&self, user: &str) -> String {
        url(user, self.sentinels.iter().map(Sentinel::address))
    }

    /// Waits until all sentinels that run name this server as the master, and it is one.
    ///
    /// # Errors
    /// They never do.
    pub async fn led_by(&self, index: usize) -> Result<()> {
        let server = &self.servers[index];
        for sentinel in self.sentinels.iter().filter(|s| s.runs()) {
            let named = || sentinel.master();
            until("another master", named, |port| *port == self.ports[index]).await?;
        }
        until("a master", || server.is_master(), |master| *master).await?;
        Ok(())
    }

    /// Waits until all sentinels that run name another master than this server, and returns its index.
    ///
    /// # Errors
    /// They never do.
    pub async fn successor(&self, of: usize) -> Result<usize> {
        let sentinel = self.sentinels.iter().find(|sentinel| sentinel.runs());
        let sentinel = sentinel.context("no sentinel runs")?;
        let named = || async {
            let port = sentinel.master().await?;
            Ok(self.ports.iter().position(|known| *known == port))
        };
        let other = |named: &Option<usize>| named.is_some_and(|index| index != of);
        let named = until("another master", named, other).await?;
        let index = named.context("none is named")?;
        self.led_by(index).await?;
        Ok(index)
    }

    /// Waits until the sentinels have agreed to make another server the master, which is up and not refused.
    ///
    /// # Errors
    /// They never do.
    pub async fn change_master(&self) -> Result<()> {
        let asked = || async {
            let words = ["SENTINEL", "FAILOVER", SERVICE];
            // Refused as long as no replica is known to be fit.
            Ok(self.sentinels[0].command(&words).await.is_ok())
        };
        until("a failover on request", asked, |begun| *begun).await?;
        Ok(())
    }

    /// Waits until this server is a replica by the word of all sentinels, with the master's data.
    ///
    /// # Errors
    /// It never is.
    pub async fn follows(&self, index: usize) -> Result<()> {
        self.servers[index].linked().await?;
        self.known(index, "flags", "slave").await?;
        self.known(index, "role-reported", "slave").await?;
        self.known(index, "master-link-status", "ok").await
    }

    /// This replica is not to become the master. Returns when all sentinels know.
    ///
    /// # Errors
    /// It is no replica, or they do not learn of it.
    pub async fn forbid(&self, index: usize) -> Result<()> {
        let refuse = ["CONFIG", "SET", "replica-priority", "0"];
        self.servers[index].command(&refuse).await?;
        self.known(index, "slave-priority", "0").await
    }

    /// Waits until all sentinels that run know this of a replica.
    async fn known(&self, index: usize, name: &str, value: &str) -> Result<()> {
        let port = self.ports[index].to_string();
        for sentinel in self.sentinels.iter().filter(|s| s.runs()) {
            let known = |replicas: &Vec<Vec<String>>| {
                let mut replicas = replicas.iter();
                let replica = replicas.find(|replica| field(replica, "port") == port);
                replica.is_some_and(|replica| field(replica, name) == value)
            };
            until("a known replica", || sentinel.replicas(), known).await?;
        }
        Ok(())
    }

    /// Undoes [`Service::forbid`]. The sentinels try it at the latest three seconds later.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn allow(&self, index: usize) -> Result<()> {
        let allow = ["CONFIG", "SET", "replica-priority", "100"];
        self.servers[index].command(&allow).await?;
        Ok(())
    }
}

/// A URL of sentinels at these addresses. `user`: at the servers, with its password, and an `@`.
pub fn url(user: &str, sentinels: impl IntoIterator<Item = String>) -> String {
    let sentinels: Vec<String> = sentinels.into_iter().collect();
    format!("redis+sentinel://{user}{}/{SERVICE}", sentinels.join(","))
}

fn id(index: usize) -> String {
    format!("{:040x}", index + 1)
}

/// A field of what a sentinel tells of a server: names and values in turn.
fn field<'a>(fields: &'a [String], name: &str) -> &'a str {
    let mut pairs = fields.chunks_exact(2);
    let found = pairs.find_map(|pair| (pair[0] == name).then_some(&*pair[1]));
    found.unwrap_or_default()
}

// === impl Setup ===

impl Setup<'_> {
    /// Starts a server. The port is the one for all but the test.
    ///
    /// # Errors
    /// It does not start.
    pub async fn server(&self) -> Result<(Redis, u16)> {
        let (own, encrypted) = (free_port()?, free_port()?);
        let tls = self.tls.map(|tls| tls.settings(encrypted));
        let tls = tls.iter().flatten();
        let tls = tls.flat_map(|(name, value)| [format!("--{name}"), value.clone()]);
        let tls: Vec<String> = tls.collect();
        let tls: Vec<&str> = tls.iter().map(String::as_str).collect();
        let options = [REPLICATION, &tls, self.options].concat();
        let mut server = Redis::at(own, &options)?;
        if let Some((user, password)) = self.tester {
            server = server.with_user(user, password);
        }
        server.restart().await?;
        let port = if self.tls.is_some() { encrypted } else { own };
        Ok((server, port))
    }

    fn lines(&self, master: u16) -> Vec<String> {
        let mut lines = vec![
            format!("sentinel monitor {SERVICE} 127.0.0.1 {master} 2"),
            format!(
                "sentinel down-after-milliseconds {SERVICE} {}",
                self.down_after.as_millis()
            ),
            // A failover that finds no replica is tried again after twice that.
            format!("sentinel failover-timeout {SERVICE} 1500"),
        ];
        if let Some((user, password)) = self.watcher {
            lines.push(format!("sentinel auth-user {SERVICE} {user}"));
            lines.push(format!("sentinel auth-pass {SERVICE} {password}"));
        }
        if let Some(password) = self.password {
            lines.push(format!("requirepass {password}"));
            lines.push(format!("sentinel sentinel-pass {password}"));
        }
        lines
    }
}
