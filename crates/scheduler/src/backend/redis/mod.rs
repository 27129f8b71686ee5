//! The state in Redis, for a fleet: a function in Lua ([`script`]) executes each message atomically.
//!
//! A step is one FCALL, or EVALSHA on servers without functions, on one of a few shared, long-lived connections ([`connection`]); wakes arrive by pub/sub on a
//! connection of their own ([`wakes`]).
//! Time comes from the Redis server, so instances need no common clock.

mod address;
mod cluster;
mod connection;
mod examine;
mod failure;
mod node;
#[doc(hidden)]
pub mod script;
mod sentinel;
mod server;
mod step;
mod target;
mod template;
mod tls;
mod wakes;

use std::{fmt, sync::Arc, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use redis::Script;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Backend, BackendError, UNDECODABLE, Wake};
use crate::message::{Message, Reply};
use cluster::Cluster;
use failure::Secret;
use node::Node;
use sentinel::Sentinels;
use server::{Place, Server};
use step::{Call, Step};
use target::Target;
pub use target::Topology;
pub use tls::{ClientCertificate, TlsOptions};

/// Version of the stored state. Each version has keys of its own, so that gateways with different versions do not share a group by mistake.
const SCHEMA: u32 = 8;

/// How to reach Redis.
#[derive(Clone)]
pub struct RedisOptions {
    /// `redis://`, `rediss://` (TLS) or `unix://`, with user, password and database as usual. With sentinels
    /// `redis+sentinel://[user:password@]host[:26379],host,.../SERVICE[/database]`, a cluster
    /// `redis+cluster://[user:password@]host[:6379],host,...`; with TLS to all of them `rediss+sentinel://`, `rediss+cluster://`.
    pub url: String,
    /// The user at the sentinels themselves.
    pub sentinel_username: Option<String>,
    /// The password at the sentinels themselves.
    pub sentinel_password: Option<String>,
    /// Replicas that have to have a step before it counts (WAIT); 0: none. A step waits a round trip more for it.
    pub wait_replicas: u32,
    /// The prefix of all keys and channels: fleets that share a Redis need different ones.
    pub namespace: String,
    /// Connections for steps.
    pub connections: usize,
    /// How long to wait for an answer.
    pub response_timeout: Duration,
    /// For `rediss://`.
    pub tls: TlsOptions,
}

impl RedisOptions {
    /// Namespace `vorrang`, two connections, one second.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            sentinel_username: None,
            sentinel_password: None,
            wait_replicas: 0,
            namespace: "vorrang".into(),
            connections: 2,
            response_timeout: Duration::from_secs(1),
            tls: TlsOptions::default(),
        }
    }
}

impl fmt::Debug for RedisOptions {
    /// Without the URL, which may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            url: _,
            sentinel_username: _,
            sentinel_password: _,
            wait_replicas,
            namespace,
            connections,
            response_timeout,
            tls: _,
        } = self;
        f.debug_struct("RedisOptions")
            .field("namespace", namespace)
            .field("wait_replicas", wait_replicas)
            .field("connections", connections)
            .field("response_timeout", response_timeout)
            .finish_non_exhaustive()
    }
}

/// The servers that hold groups.
enum Servers {
    /// All groups are on one.
    One(Node),
    Cluster(Arc<Cluster>),
}

/// Groups in Redis: a server, the master that sentinels name, or a cluster.
pub struct RedisBackend {
    servers: Servers,
    step: Step,
    secret: Secret,
    timeout: Duration,
    /// The prefix of all keys: namespace and schema.
    prefix: String,
    /// The prefix of all channels. Channels are of no database, so another one than 0 is a part of it: fleets of two databases are apart.
    channels: String,
    stop: CancellationToken,
    _stopped_on_drop: DropGuard,
}

impl RedisBackend {
    /// Begins to connect, and returns at once: while Redis is unavailable, attempts go on and steps fail. Needs a tokio runtime.
    ///
    /// # Errors
    /// The URL is malformed, or a certificate cannot be used.
    pub fn connect(options: &RedisOptions) -> Result<Arc<Self>, BackendError> {
        // For rediss://; fails if the process has already installed a provider.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let target = Target::parse(&options.url)?.secured(&options.tls)?;
        let settings = target.server().redis_settings();
        let password = settings.password().map(str::to_owned);
        let passwords = password
            .into_iter()
            .chain(options.sentinel_password.clone());
        let secret = Secret::new(passwords.collect());
        let timeout = options.response_timeout;
        let stop = CancellationToken::new();
        let one = |place: Place| {
            let server = Arc::new(Server::new(place, timeout, secret.clone()));
            let (followed, until) = (server.clone(), stop.clone());
            tokio::spawn(async move { until.run_until_cancelled(followed.follow()).await });
            Servers::One(Node::open(server, options.connections, &stop))
        };
        let prefix = format!("{}:{SCHEMA}:", escape(&options.namespace));
        let channels = match settings.db() {
            0 => prefix.clone(),
            database => format!("{prefix}db{database}:"),
        };
        let servers = match target {
            Target::Server(info) => one(Place::At(info)),
            Target::Sentinel {
                sentinels,
                service,
                server,
            } => one(Place::Named(Sentinels::new(
                sentinels,
                service,
                server,
                options.sentinel_username.as_deref(),
                options.sentinel_password.as_deref(),
            ))),
            Target::Cluster(seeds) => Servers::Cluster(Cluster::connect(
                seeds,
                timeout,
                secret.clone(),
                options.connections,
                stop.clone(),
            )),
        };
        Ok(Arc::new(Self {
            servers,
            step: Step {
                library: script::library(),
                script: Script::new(&script::script()),
                wait_replicas: options.wait_replicas,
                // The reply has to come before the connection is given up.
                wait_ms: u64::try_from(timeout.as_millis() / 2)
                    .unwrap_or(u64::MAX)
                    .max(1),
            },
            secret,
            timeout,
            prefix,
            channels,
            _stopped_on_drop: stop.clone().drop_guard(),
            stop,
        }))
    }

    async fn execute(&self, group: &str, message: &Message) -> Result<Reply, BackendError> {
        let message = message.packed().map_err(|e| unexpected(&e))?;
        let call = Call {
            keys: self.keys(group),
            message,
            random: fastrand::u32(..),
            wakes: match &self.servers {
                Servers::One(_) => format!("{}wake:", self.channels),
                Servers::Cluster(_) => channel(&self.channels, group, ""),
            },
            group,
        };
        let answer = match &self.servers {
            Servers::Cluster(cluster) => cluster.send(&self.step, &call).await?,
            Servers::One(node) => {
                let shared = node.connection(group);
                let mut connection = shared.connection(self.timeout).await?;
                let answer = call.send(&self.step, shared, &mut connection, false).await;
                answer.map_err(|error| {
                    shared.doubt(&error);
                    self.secret.explain(&error)
                })?
            }
        };
        // P1 (retransmission): the message is sent again, and the stored reply counts once enough replicas have it.
        if !answer.confirmed {
            return Err(BackendError {
                kind: "noreplicas",
                message: format!(
                    "fewer than {} replicas have the step",
                    self.step.wait_replicas
                ),
            });
        }
        let redis::Value::BulkString(reply) = answer.reply else {
            return Err(unexpected(&"no reply"));
        };
        rmp_serde::from_slice(&reply).map_err(|e| unexpected(&e))
    }

    fn keys(&self, group: &str) -> Vec<String> {
        let tag = escape(group);
        script::keys()
            .map(|key| format!("{}{{{tag}}}:{key}", self.prefix))
            .collect()
    }
}

impl Backend for RedisBackend {
    fn step<'a>(
        &'a self,
        group: &'a str,
        message: &'a Message,
    ) -> BoxFuture<'a, Result<Reply, BackendError>> {
        self.execute(group, message).boxed()
    }

    fn wakes(&self, instance: &str) -> mpsc::UnboundedReceiver<Wake> {
        match &self.servers {
            Servers::One(node) => wakes::listen(
                node.server.clone(),
                &self.channels,
                instance,
                self.stop.clone(),
            ),
            Servers::Cluster(cluster) => cluster.wakes(&self.channels, instance),
        }
    }

    fn post<'a>(&'a self, to: &'a str, body: Vec<u8>) -> BoxFuture<'a, Result<(), BackendError>> {
        async move {
            let mut connection = match &self.servers {
                Servers::One(node) => node.connections[0].connection(self.timeout).await?,
                Servers::Cluster(cluster) => cluster.any().await?.1,
            };
            let mut publish = redis::cmd("PUBLISH");
            publish
                .arg(format!("{}{to}", wakes::posts(&self.channels)))
                .arg(body);
            let published: Result<(), _> = publish.query_async(&mut connection).await;
            published.map_err(|error| self.secret.explain(&error))
        }
        .boxed()
    }

    fn check(&self) -> BoxFuture<'_, Result<(), BackendError>> {
        async move {
            match &self.servers {
                Servers::One(node) => node.server.examine().await,
                Servers::Cluster(cluster) => cluster.examine().await,
            }
        }
        .boxed()
    }

    fn check_group<'a>(&'a self, group: &'a str) -> BoxFuture<'a, Result<(), BackendError>> {
        async move {
            match &self.servers {
                Servers::One(node) => node.server.examine().await,
                Servers::Cluster(cluster) => {
                    let node = cluster.node_of(&self.keys(group)[0]).await?;
                    node.server.examine().await
                }
            }
        }
        .boxed()
    }
}

impl fmt::Debug for RedisBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisBackend")
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

fn unexpected(error: &dyn fmt::Display) -> BackendError {
    BackendError {
        kind: UNDECODABLE,
        message: format!("unexpected answer: {error}"),
    }
}

/// In a cluster: the channel of a group's wakes to an instance, in the group's slot.
fn channel(prefix: &str, group: &str, instance: &str) -> String {
    format!("{prefix}{{{}}}:wake:{instance}", escape(group))
}

/// A name as part of a key: without braces, which would move the hash tag, never empty, which would be no tag, and unique.
fn escape(name: &str) -> String {
    use fmt::Write;
    if name.is_empty() {
        return "%".into();
    }
    name.bytes()
        .fold(String::with_capacity(name.len()), |mut escaped, byte| {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'/' | b':' => {
                    escaped.push(byte.into())
                }
                // Writing to a string cannot fail.
                _ => _ = write!(escaped, "%{byte:02X}"),
            }
            escaped
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_names_are_unique_and_contain_no_braces() {
        let names = [
            "",
            "%",
            "%7B",
            "{",
            "}",
            "{}",
            "a}b",
            "a{b",
            "a b",
            "ab",
            "\u{fc}",
            "gpt-4o/mini:1",
        ];
        let mut escaped: Vec<String> = names.iter().map(|name| escape(name)).collect();
        assert!(
            escaped
                .iter()
                .all(|name| !name.is_empty() && !name.contains(['{', '}']))
        );
        assert_eq!(escaped.last().map(String::as_str), Some("gpt-4o/mini:1"));
        escaped.sort();
        escaped.dedup();
        assert_eq!(escaped.len(), names.len());
    }

    #[tokio::test]
    async fn malformed_url_is_an_error_without_the_password() {
        for url in [
            "",
            "localhost",
            "http://u:hunter2@localhost",
            "redis://u:hunter2@localhost/x",
            "redis://u:hunter2@:99999",
            "redis+sentinel://u:hunter2@localhost",
            "redis+sentinel://u:hunter2@localhost/name/x",
            "redis+sentinel://u:hunter2@a,,b/name",
            "redis+sentinel://u:hunter2@a:x/name",
            "redis+cluster://u:hunter2@",
            "redis+cluster://u:hunter2@a,b:99999",
            "redis+raft://u:hunter2@localhost",
        ] {
            let error = RedisBackend::connect(&RedisOptions::new(url))
                .err()
                .map(|e| e.to_string())
                .unwrap_or_default();
            assert!(
                error.contains("malformed") && !error.contains("hunter2"),
                "{url}: {error}"
            );
        }
        let options = RedisOptions::new("redis://u:hunter2@localhost");
        let backend = RedisBackend::connect(&options).unwrap();
        assert!(!format!("{options:?} {backend:?}").contains("hunter2"));
    }
}
