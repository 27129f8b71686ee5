//! The state in Redis, for a fleet: a function in Lua ([`script`]) executes each message atomically.
//!
//! A step is one FCALL, or EVALSHA on servers without functions, on one of a few shared, long-lived connections ([`connection`]); wakes arrive by pub/sub on a
//! connection of their own ([`wakes`]).
//! Time comes from the Redis server, so instances need no common clock.

mod connection;
mod failure;
#[doc(hidden)]
pub mod script;
mod template;
mod tls;
mod wakes;

use std::{
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use deadpool_redis::{Manager, Pool, Runtime, Timeouts};
use futures_util::{FutureExt, future::BoxFuture};
use redis::{
    AsyncConnectionConfig, IntoConnectionInfo, RedisResult, Script, Value,
    aio::MultiplexedConnection, io::tcp::TcpSettings,
};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Backend, BackendError, UNDECODABLE, Wake};
use crate::message::{Message, Reply};
use connection::Connection;
use failure::Secret;
use script::Library;
pub use tls::{ClientCertificate, TlsOptions};

/// Version of the stored state. Each version has keys of its own, so that gateways with different versions do not share a group by mistake.
const SCHEMA: u32 = 8;

/// Steps that are buffered for one connection; further ones wait for room.
const PIPELINE: usize = 1024;

/// How to reach Redis.
#[derive(Clone)]
pub struct RedisOptions {
    /// `redis://`, `rediss://` (TLS) or `unix://`, with user, password and database as usual.
    pub url: String,
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
            namespace,
            connections,
            response_timeout,
            tls: _,
        } = self;
        f.debug_struct("RedisOptions")
            .field("namespace", namespace)
            .field("connections", connections)
            .field("response_timeout", response_timeout)
            .finish_non_exhaustive()
    }
}

/// What is needed to open a connection, and the secret that errors must not contain.
struct Server {
    client: redis::Client,
    config: AsyncConnectionConfig,
    /// The longest time to open a connection, and to wait for an answer.
    timeout: Duration,
    secret: Secret,
    library: Library,
    script: Script,
}

/// Groups in a Redis server.
pub struct RedisBackend {
    connections: Vec<Connection>,
    admin: Pool,
    server: Arc<Server>,
    /// The prefix of all keys: namespace and schema.
    prefix: String,
    stop: CancellationToken,
    _stopped_on_drop: DropGuard,
}

impl RedisBackend {
    /// Begins to connect, and returns at once: while Redis is unavailable, attempts go on and steps fail. Needs a tokio runtime.
    ///
    /// # Errors
    /// The URL is malformed.
    pub fn connect(options: &RedisOptions) -> Result<Arc<Self>, BackendError> {
        let malformed = |error: &redis::RedisError| BackendError {
            kind: "config",
            // The error's detail could quote the URL.
            message: format!(
                "the Redis URL is malformed ({}); expected redis://[user:password@]host[:port][/database]",
                error.category()
            ),
        };
        // For rediss://; fails if the process has already installed a provider.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let info = options
            .url
            .as_str()
            .into_connection_info()
            .map_err(|e| malformed(&e))?;
        let secret = Secret::new(info.redis_settings().password());
        let info = options.tls.apply(info)?;
        let info = info.set_tcp_settings(TcpSettings::default().set_nodelay(true));
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(options.response_timeout))
            .set_response_timeout(Some(options.response_timeout))
            .set_pipeline_buffer_size(PIPELINE);
        let manager =
            Manager::new_with_config(info.clone(), config.clone()).map_err(|e| malformed(&e))?;
        let timeout = Some(options.response_timeout);
        let admin = Pool::builder(manager)
            .max_size(2)
            .runtime(Runtime::Tokio1)
            .timeouts(Timeouts {
                wait: timeout,
                create: timeout,
                recycle: timeout,
            })
            .build()
            .map_err(|error| BackendError {
                kind: "config",
                message: error.to_string(),
            })?;
        let server = Arc::new(Server {
            client: redis::Client::open(info).map_err(|e| malformed(&e))?,
            config,
            timeout: options.response_timeout,
            secret,
            library: script::library(),
            script: Script::new(&script::script()),
        });
        let stop = CancellationToken::new();
        Ok(Arc::new(Self {
            connections: (0..options.connections.max(1))
                .map(|_| Connection::open(server.clone(), stop.clone()))
                .collect(),
            admin,
            server,
            prefix: format!("{}:{SCHEMA}:", escape(&options.namespace)),
            _stopped_on_drop: stop.clone().drop_guard(),
            stop,
        }))
    }

    /// A group always uses the same connection, so that its steps arrive in order.
    fn connection(&self, group: &str) -> &Connection {
        let mut hasher = DefaultHasher::new();
        group.hash(&mut hasher);
        let count = self.connections.len() as u64;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "below the number of connections"
        )]
        let index = (hasher.finish() % count) as usize;
        &self.connections[index]
    }

    async fn execute(&self, group: &str, message: &Message) -> Result<Reply, BackendError> {
        let message = message.packed().map_err(|e| unexpected(&e))?;
        let tag = escape(group);
        let shared = self.connection(group);
        let mut connection = shared.connection(self.server.timeout).await?;
        let call = Call {
            keys: script::keys()
                .map(|key| format!("{}{{{tag}}}:{key}", self.prefix))
                .collect(),
            message,
            random: fastrand::u32(..),
            wakes: format!("{}wake:", self.prefix),
            group,
        };
        let answer = call.send(&self.server, shared, &mut connection).await;
        let answer = answer.map_err(|error| {
            shared.doubt(&error);
            self.server.secret.explain(&error)
        })?;
        let Some(Value::BulkString(reply)) = answer.into_iter().next() else {
            return Err(unexpected(&"no reply"));
        };
        rmp_serde::from_slice(&reply).map_err(|e| unexpected(&e))
    }

    async fn examine(&self) -> Result<(), BackendError> {
        // The pool pings a connection before it reuses it.
        let mut connection = self.admin.get().await.map_err(|error| match error {
            deadpool_redis::PoolError::Backend(error) => self.server.secret.explain(&error),
            deadpool_redis::PoolError::Timeout(_) => BackendError {
                kind: "timeout",
                message: "no answer in time".into(),
            },
            error => BackendError {
                kind: "other",
                message: self.server.secret.remove_from(&error.to_string()),
            },
        })?;
        // P17 (partial writes): the step detects another master by INFO. Without it a loss of writes could remain undetected.
        let info: Result<String, _> = redis::cmd("INFO")
            .arg("replication")
            .query_async(&mut connection)
            .await;
        info.map_err(|error| match self.server.secret.explain(&error) {
            error if error.kind == "noperm" || error.message.contains("unknown command") => {
                BackendError {
                    kind: "config",
                    message: "Redis refuses the command INFO, without which a change of its master may go unnoticed: allow it to the user (ACL: +info)".into(),
                }
            }
            error => error,
        })?;
        let config: Result<Vec<(String, String)>, _> = redis::cmd("CONFIG")
            .arg("GET")
            .arg("maxmemory-policy")
            .query_async(&mut connection)
            .await;
        let policy = match config {
            Ok(pairs) => pairs.into_iter().next().map(|(_, policy)| policy),
            // Other errors are no refusal by the server, so its setting is unknown.
            Err(error) if error.code().is_none() => return Err(self.server.secret.explain(&error)),
            Err(_) => {
                // Managed servers forbid CONFIG.
                let info: String = redis::cmd("INFO")
                    .arg("memory")
                    .query_async(&mut connection)
                    .await
                    .map_err(|e| self.server.secret.explain(&e))?;
                info.lines()
                    .find_map(|line| line.strip_prefix("maxmemory_policy:"))
                    .map(|policy| policy.trim().to_owned())
            }
        };
        match policy {
            Some(policy) if policy != "noeviction" => Err(BackendError {
                kind: "config",
                message: format!(
                    "Redis may evict the queue: maxmemory-policy is {policy}, set it to noeviction"
                ),
            }),
            _ => Ok(()),
        }
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
        wakes::listen(
            self.server.clone(),
            &self.prefix,
            instance,
            self.stop.clone(),
        )
    }

    fn post<'a>(&'a self, to: &'a str, body: Vec<u8>) -> BoxFuture<'a, Result<(), BackendError>> {
        async move {
            let mut connection = self.connections[0].connection(self.server.timeout).await?;
            let mut publish = redis::cmd("PUBLISH");
            publish.arg(format!("{}post:{to}", self.prefix)).arg(body);
            let published: Result<(), _> = publish.query_async(&mut connection).await;
            published.map_err(|error| self.server.secret.explain(&error))
        }
        .boxed()
    }

    fn check(&self) -> BoxFuture<'_, Result<(), BackendError>> {
        self.examine().boxed()
    }
}

impl fmt::Debug for RedisBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisBackend")
            .field("prefix", &self.prefix)
            .field("connections", &self.connections.len())
            .finish_non_exhaustive()
    }
}

/// The arguments of one step.
struct Call<'a> {
    keys: Vec<String>,
    message: Vec<u8>,
    random: u32,
    wakes: String,
    group: &'a str,
}

impl Call<'_> {
    /// Calls the library, or the script on a server without functions. A server that does not have it yet gets it, and the call is repeated.
    async fn send(
        &self,
        server: &Server,
        shared: &Connection,
        connection: &mut MultiplexedConnection,
    ) -> RedisResult<Vec<Value>> {
        if shared.has_functions() {
            let answer = self.function(server, connection).await;
            let Err(error) = &answer else {
                return answer;
            };
            let lacks_functions = if failure::is_unknown_function(error) {
                let mut load = redis::cmd("FUNCTION");
                load.arg("LOAD").arg(&server.library.source);
                match load.query_async::<Value>(connection).await {
                    Ok(_) => return self.function(server, connection).await,
                    // Another connection was faster.
                    Err(error) if failure::is_known_library(&error) => {
                        return self.function(server, connection).await;
                    }
                    Err(error) if failure::is_refused_command(&error) => true,
                    Err(error) => return Err(error),
                }
            } else {
                failure::is_refused_command(error)
            };
            if !lacks_functions {
                return answer;
            }
            shared.use_script();
        }
        let mut step = server.script.prepare_invoke();
        self.keys.iter().for_each(|key| _ = step.key(key));
        step.arg(&self.message)
            .arg(self.random)
            .arg(&self.wakes)
            .arg(self.group);
        step.invoke_async(connection).await
    }

    async fn function(
        &self,
        server: &Server,
        connection: &mut MultiplexedConnection,
    ) -> RedisResult<Vec<Value>> {
        let mut step = redis::cmd("FCALL");
        step.arg(&server.library.name).arg(self.keys.len());
        self.keys.iter().for_each(|key| _ = step.arg(key));
        step.arg(&self.message)
            .arg(self.random)
            .arg(&self.wakes)
            .arg(self.group);
        step.query_async(connection).await
    }
}

fn unexpected(error: &dyn fmt::Display) -> BackendError {
    BackendError {
        kind: UNDECODABLE,
        message: format!("unexpected answer: {error}"),
    }
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
