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
use redis::{Client, ConnectionInfo, RedisConnectionInfo, RedisError, aio::MultiplexedConnection};
use tokio::time::{Instant, timeout_at};

use super::{BackendError, address::Address, connection::patient, failure::Secret};

/// How long the answers of most sentinels wait for the others'.
const OTHERS: Duration = Duration::from_millis(100);

/// A sentinel, with a connection to it that may be open.
pub(super) struct Sentinel {
    at: ConnectionInfo,
    open: Mutex<Option<MultiplexedConnection>>,
}

/// Sentinels, and how to talk to the servers that they name.
pub(super) struct Sentinels {
    sentinels: Vec<Sentinel>,
    /// The name of the master.
    service: String,
    /// A server, with another address.
    server: ConnectionInfo,
}

/// What sentinels said of one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) at: Address,
    /// The newest configuration in which it is the master: each failover makes a new one.
    epoch: u64,
    /// How many sentinels name it.
    votes: usize,
}

// === impl Sentinels ===

impl Sentinels {
    /// `username`, `password`: at the sentinels themselves.
    pub(super) fn new(
        sentinels: Vec<ConnectionInfo>,
        service: String,
        server: ConnectionInfo,
        username: Option<&str>,
        password: Option<&str>,
    ) -> Self {
        let mut settings = RedisConnectionInfo::default();
        if let Some(username) = username {
            settings = settings.set_username(username);
        }
        if let Some(password) = password {
            settings = settings.set_password(password);
        }
        let sentinel = |at: ConnectionInfo| Sentinel {
            at: at.set_redis_settings(settings.clone()),
            open: Mutex::new(None),
        };
        Self {
            sentinels: sentinels.into_iter().map(sentinel).collect(),
            service,
            server,
        }
    }

    /// A client of the master. A server that is named and says itself that it is a replica is passed over; one that cannot be reached is not, because
    /// what other sentinels name is older.
    ///
    /// `known`: the master so far. It counts while no sentinel answers, and before one of an older configuration: sentinels that are gone stop no fleet whose
    /// master lives.
    pub(super) async fn master(
        &self,
        known: Option<Named>,
        limit: Duration,
        secret: &Secret,
    ) -> Result<(Client, Named), BackendError> {
        let service = &self.service;
        let named = match (self.ask(limit, secret).await, known) {
            (Ok(named), Some(known)) if named[0].epoch < known.epoch => {
                if let Ok(Some(client)) = self.role(&known.at, limit, secret).await {
                    return Ok((client, known));
                }
                named
            }
            (Ok(named), _) => named,
            (Err(error), Some(known)) => {
                return match self.role(&known.at, limit, secret).await {
                    Ok(Some(client)) => Ok((client, known)),
                    _ => Err(error),
                };
            }
            (Err(error), None) => return Err(error),
        };
        for named in &named {
            let at = &named.at;
            match self.role(at, limit, secret).await {
                Ok(Some(client)) => return Ok((client, named.clone())),
                Ok(None) => {}
                Err(BackendError { kind, message }) => {
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

    /// The server that connections should go to instead of `current`, if the sentinels know a newer configuration.
    pub(super) async fn newer(
        &self,
        current: &Named,
        limit: Duration,
        secret: &Secret,
    ) -> Option<Address> {
        let named = self.ask(limit, secret).await.ok()?.into_iter().next()?;
        // The leader of a failover gives the new number to the former master for a moment: of equal ones that of most sentinels counts.
        let newer = named.epoch > current.epoch
            || named.epoch == current.epoch && named.votes > self.sentinels.len() / 2;
        (newer && named.at != current.at).then_some(named.at)
    }

    /// A client of this server if it is a master.
    async fn role(
        &self,
        at: &Address,
        limit: Duration,
        secret: &Secret,
    ) -> Result<Option<Client>, BackendError> {
        let role = async {
            let client = Client::open(at.apply(&self.server))?;
            let mut connection = client
                .get_multiplexed_async_connection_with_config(&patient(limit))
                .await?;
            let info: String = redis::cmd("INFO")
                .arg("replication")
                .query_async(&mut connection)
                .await?;
            let is_master = info.lines().any(|line| line.trim() == "role:master");
            Ok::<_, RedisError>(is_master.then_some(client))
        };
        role.await.map_err(|error| secret.explain(&error))
    }

    /// The servers that are named, the most credible first; at least one.
    async fn ask(&self, limit: Duration, secret: &Secret) -> Result<Vec<Named>, BackendError> {
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
        let mut connection = Client::open(sentinel.at.clone())?
            .get_multiplexed_async_connection_with_config(&patient(limit))
            .await?;
        let masters = ask(&mut connection).await?;
        *open() = Some(connection);
        Ok(masters)
    }
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
