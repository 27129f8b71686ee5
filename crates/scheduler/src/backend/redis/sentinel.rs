//! Which server sentinels name as the master.
//!
//! All sentinels are asked at once, and of their answers the one with the newest configuration counts. *Why not the client library's lookup:* it takes
//! the first sentinel in the list whose master claims to be one. A former master that has restarted claims so until the sentinels demote it, which takes
//! them eight seconds, and one sentinel that has not heard of the failover would lead the fleet there.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _,
    RedisConnectionInfo, RedisError, aio::MultiplexedConnection,
};
use tokio::time::{Instant, timeout_at};

use super::{BackendError, address::Address, failure::Secret, target};

/// How long the answers of most sentinels wait for the others'.
const OTHERS: Duration = Duration::from_millis(100);

/// A sentinel, with a connection to it that may be open.
pub(super) struct Sentinel {
    at: ConnectionAddr,
    open: Mutex<Option<MultiplexedConnection>>,
}

/// Sentinels, and how to talk to the servers that they name.
pub(super) struct Sentinels {
    pub(super) sentinels: Vec<Sentinel>,
    /// The user at the sentinels.
    pub(super) settings: RedisConnectionInfo,
    /// The name of the master.
    pub(super) service: String,
    /// A server, with another address.
    pub(super) server: ConnectionInfo,
}

/// What sentinels said of one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) at: Address,
    /// The newest configuration in which it is the master: each failover makes a new one.
    pub(super) epoch: u64,
    /// How many sentinels name it.
    pub(super) votes: usize,
}

// === impl Sentinels ===

impl Sentinels {
    /// A client of the master. A server that is named and says itself that it is a replica is passed over; one that cannot be reached is not, because
    /// what other sentinels name is older.
    pub(super) async fn master(
        &self,
        limit: Duration,
        secret: &Secret,
    ) -> Result<(Client, Named), BackendError> {
        let service = &self.service;
        let named = self.ask(limit, secret).await?;
        for named in &named {
            let at = &named.at;
            let client = Client::open(at.apply(&self.server)).map_err(|e| secret.explain(&e))?;
            let role = async {
                let mut connection = client
                    .get_multiplexed_async_connection_with_config(&config(limit))
                    .await?;
                let info: String = redis::cmd("INFO")
                    .arg("replication")
                    .query_async(&mut connection)
                    .await?;
                Ok::<_, RedisError>(info.lines().any(|line| line.trim() == "role:master"))
            };
            match role.await {
                Ok(true) => return Ok((client, named.clone())),
                Ok(false) => {}
                Err(error) => {
                    let BackendError { kind, message } = secret.explain(&error);
                    let message =
                        format!("{at}, the master of {service} by its sentinels: {message}");
                    return Err(BackendError { kind, message });
                }
            }
        }
        let at: Vec<String> = named.iter().map(|named| named.at.to_string()).collect();
        Err(BackendError {
            kind: "sentinel",
            message: format!(
                "sentinels name {} as the master of {service}, which is a replica",
                at.join(" and ")
            ),
        })
    }

    /// The servers that are named, the most credible first.
    pub(super) async fn ask(
        &self,
        limit: Duration,
        secret: &Secret,
    ) -> Result<Vec<Named>, BackendError> {
        let asked = self.sentinels.iter().map(|at| self.masters(at, limit));
        let mut asked: FuturesUnordered<_> = asked.collect();
        let (mut answers, mut failure) = (Vec::new(), None);
        let mut until = Instant::now() + limit;
        while let Ok(Some(answer)) = timeout_at(until, asked.next()).await {
            match answer {
                Ok(masters) => answers.push(masters),
                Err(error) => failure = Some(error),
            }
            if answers.len() > self.sentinels.len() / 2 {
                until = until.min(Instant::now() + OTHERS);
            }
        }
        let service = &self.service;
        if answers.is_empty() {
            let BackendError { kind, message } = match failure {
                Some(error) => secret.explain(&error),
                None => BackendError {
                    kind: "timeout",
                    message: "no answer in time".into(),
                },
            };
            return Err(BackendError {
                kind,
                message: format!("no sentinel answers: {message}"),
            });
        }
        let named = rank(answers.into_iter().flatten(), service);
        if named.is_empty() {
            return Err(BackendError {
                kind: "sentinel",
                message: format!("no sentinel knows a master named {service}"),
            });
        }
        Ok(named)
    }

    /// All masters that a sentinel watches.
    async fn masters(
        &self,
        sentinel: &Sentinel,
        limit: Duration,
    ) -> Result<Vec<HashMap<String, String>>, RedisError> {
        let ask = async |connection: &mut MultiplexedConnection| {
            let mut masters = redis::cmd("SENTINEL");
            masters.arg("MASTERS").query_async(connection).await
        };
        let open = || sentinel.open.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever uses a connection has it alone, and gives it back if it is good.
        let kept = open().take();
        if let Some(mut connection) = kept
            && let Ok(masters) = ask(&mut connection).await
        {
            *open() = Some(connection);
            return Ok(masters);
        }
        let info = sentinel.at.clone().into_connection_info()?;
        let info = info
            .set_redis_settings(self.settings.clone())
            .set_tcp_settings(target::tcp());
        let mut connection = Client::open(info)?
            .get_multiplexed_async_connection_with_config(&config(limit))
            .await?;
        let masters = ask(&mut connection).await?;
        *open() = Some(connection);
        Ok(masters)
    }
}

// === impl Sentinel ===

impl Sentinel {
    pub(super) fn new(at: ConnectionAddr) -> Self {
        Self {
            at,
            open: Mutex::new(None),
        }
    }
}

fn config(limit: Duration) -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(limit))
        .set_response_timeout(Some(limit))
}

/// The newest configuration first; of two with the same that which more sentinels know.
fn rank(masters: impl Iterator<Item = HashMap<String, String>>, service: &str) -> Vec<Named> {
    let mut named: Vec<Named> = Vec::new();
    for master in masters {
        let field = |name: &str| master.get(name).map(String::as_str);
        let (Some(host), Some(Ok(port))) = (field("ip"), field("port").map(str::parse)) else {
            continue;
        };
        if field("name") != Some(service) {
            continue;
        }
        let host = host.to_owned();
        let at = Address { host, port };
        let epoch = field("config-epoch")
            .and_then(|epoch| epoch.parse().ok())
            .unwrap_or(0);
        match named.iter_mut().find(|known| known.at == at) {
            Some(known) => {
                known.epoch = known.epoch.max(epoch);
                known.votes += 1;
            }
            None => named.push(Named {
                at,
                epoch,
                votes: 1,
            }),
        }
    }
    named.sort_by_key(|named| std::cmp::Reverse((named.epoch, named.votes)));
    named
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn master_of_the_newest_configuration_comes_first_then_that_of_most_sentinels() {
        let master = |name: &str, ip: &str, epoch: &str| {
            let fields = [
                ("name", name),
                ("ip", ip),
                ("port", "6379"),
                ("config-epoch", epoch),
            ];
            fields
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .into_iter()
                .collect::<HashMap<_, _>>()
        };
        let said = [
            master("queue", "former", "2"),
            master("queue", "former", "2"),
            master("queue", "new", "3"),
            master("other", "unrelated", "9"),
            master("queue", "rare", "0"),
            master("queue", "common", "0"),
            master("queue", "common", "0"),
        ];
        let ranked = rank(said.into_iter(), "queue");
        let hosts: Vec<&str> = ranked.iter().map(|named| named.at.host.as_str()).collect();
        assert_eq!(hosts, ["new", "former", "common", "rare"]);
        assert_eq!(rank(std::iter::empty(), "queue"), []);
    }
}
