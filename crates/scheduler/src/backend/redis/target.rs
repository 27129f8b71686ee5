//! What a URL names: one server, the master that sentinels name, or a cluster.

use percent_encoding::percent_decode_str;
use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, io::tcp::TcpSettings};

use super::{BackendError, tls::TlsOptions};

const SENTINEL_PORT: u16 = 26379;

/// What a URL of Redis names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topology {
    /// One server, by TCP or TLS.
    Server,
    /// One server, by a unix socket.
    Socket,
    /// The master that sentinels name.
    Sentinel,
    /// The nodes of a cluster.
    Cluster,
}

/// A parsed URL.
pub(super) enum Target {
    Server(ConnectionInfo),
    Sentinel {
        sentinels: Vec<ConnectionInfo>,
        service: String,
        /// A server, with the address of a sentinel.
        server: ConnectionInfo,
    },
    /// Nodes to ask for all others. The rest of each applies to all nodes.
    Cluster(Vec<ConnectionInfo>),
}

// === impl Topology ===

impl Topology {
    /// What this URL names.
    ///
    /// # Errors
    /// It is malformed. The error does not quote it, as it may hold a password.
    pub fn of(url: &str) -> Result<Self, BackendError> {
        Ok(match Target::parse(url)? {
            Target::Server(info) => match info.addr() {
                ConnectionAddr::Unix(_) => Self::Socket,
                _ => Self::Server,
            },
            Target::Sentinel { .. } => Self::Sentinel,
            Target::Cluster(_) => Self::Cluster,
        })
    }
}

// === impl Target ===

impl Target {
    pub(super) fn parse(url: &str) -> Result<Self, BackendError> {
        let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
        let scheme = scheme.to_ascii_lowercase();
        let (base, topology) = match scheme.split_once('+') {
            Some((base @ ("redis" | "rediss"), topology @ ("sentinel" | "cluster"))) => {
                (base, topology)
            }
            _ => return Ok(Self::Server(info(url)?)),
        };
        // A `/` or an `@` in a password is percent-encoded, as in all URLs.
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, nodes) = match authority.rsplit_once('@') {
            Some((user, nodes)) => (format!("{user}@"), nodes),
            None => (String::new(), authority),
        };
        let nodes: Vec<&str> = nodes.split(',').collect();
        if !nodes.iter().all(|node| is_node(node)) {
            return Err(malformed(topology));
        }
        if topology == "cluster" {
            if !path.is_empty() {
                return Err(error(
                    "a Redis Cluster has no databases but 0: expected no path in its URL".into(),
                ));
            }
            let seeds = nodes
                .iter()
                .map(|node| info(&format!("{base}://{user}{node}")));
            return Ok(Self::Cluster(seeds.collect::<Result<_, _>>()?));
        }
        let (service, database) = path.split_once('/').unwrap_or((path, ""));
        let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'@' | b'?' | b'#');
        let number = database.bytes().all(|byte| byte.is_ascii_digit());
        if service.is_empty() || !service.bytes().all(plain) || !number {
            return Err(malformed(topology));
        }
        let service = percent_decode_str(service).decode_utf8();
        let service = service.map_err(|_| malformed(topology))?.into_owned();
        let sentinels = nodes.iter().map(|node| {
            // The port of a bracketed address of IPv6 follows its bracket.
            let has_port = node.rsplit(']').next().is_some_and(|end| end.contains(':'));
            let port = if has_port {
                String::new()
            } else {
                format!(":{SENTINEL_PORT}")
            };
            info(&format!("{base}://{node}{port}"))
        });
        Ok(Self::Sentinel {
            sentinels: sentinels.collect::<Result<_, _>>()?,
            service,
            server: info(&format!("{base}://{user}{}/{database}", nodes[0]))?,
        })
    }

    /// With these certificates, at all servers and sentinels.
    pub(super) fn secured(self, tls: &TlsOptions) -> Result<Self, BackendError> {
        let all = |infos: Vec<ConnectionInfo>| {
            let infos = infos.into_iter().map(|info| tls.apply(info));
            infos.collect::<Result<Vec<_>, _>>()
        };
        Ok(match self {
            Self::Server(info) => Self::Server(tls.apply(info)?),
            Self::Sentinel {
                sentinels,
                service,
                server,
            } => Self::Sentinel {
                sentinels: all(sentinels)?,
                service,
                server: tls.apply(server)?,
            },
            Self::Cluster(seeds) => Self::Cluster(all(seeds)?),
        })
    }

    /// A server's settings: user, password and database.
    pub(super) fn server(&self) -> &ConnectionInfo {
        match self {
            Self::Server(info) | Self::Sentinel { server: info, .. } => info,
            // There is at least one: an empty one is malformed.
            Self::Cluster(seeds) => &seeds[0],
        }
    }
}

/// A host, and its port where it has one. What is not meant as either would be an opaque host, which no server has.
fn is_node(node: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._[]:".contains(&byte);
    let port = node.rsplit_once(':').map(|(_, port)| port);
    let no_port = |port: &str| port.is_empty() || port.bytes().all(|byte| byte == b'0');
    !node.is_empty() && node.bytes().all(plain) && !port.is_some_and(no_port)
}

/// One server's URL.
fn info(url: &str) -> Result<ConnectionInfo, BackendError> {
    let info = url.into_connection_info().map_err(|e| {
        // The error's detail could quote the URL.
        error(format!(
            "the Redis URL is malformed ({}); expected redis://[user:password@]host[:port][/database]",
            e.category()
        ))
    })?;
    Ok(info.set_tcp_settings(TcpSettings::default().set_nodelay(true)))
}

fn malformed(topology: &str) -> BackendError {
    let path = if topology == "sentinel" {
        "/SERVICE[/database]"
    } else {
        ""
    };
    error(format!(
        "the Redis URL is malformed; expected redis+{topology}://[user:password@]host[:port],host[:port],...{path}"
    ))
}

pub(super) fn error(message: String) -> BackendError {
    BackendError {
        kind: "config",
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_and_password_are_percent_decoded_and_ports_have_defaults() {
        let url = "Redis+Sentinel://u:p%40%2F@h1,[::1]:2/my%2Fservice/3";
        let Ok(Target::Sentinel {
            sentinels,
            service,
            server,
        }) = Target::parse(url)
        else {
            panic!("no sentinels");
        };
        let at: Vec<String> = sentinels.iter().map(|s| s.addr().to_string()).collect();
        assert_eq!(at, ["h1:26379", "::1:2"]);
        assert_eq!(service, "my/service");
        let settings = server.redis_settings();
        assert_eq!((settings.username(), settings.db()), (Some("u"), 3));
        assert_eq!(settings.password(), Some("p@/"));
        // A sentinel gets no password of a server.
        assert_eq!(sentinels[0].redis_settings().password(), None);
        let Ok(Target::Cluster(seeds)) = Target::parse("redis+cluster://:p@h1,h2:7") else {
            panic!("no cluster");
        };
        assert_eq!(seeds[1].addr().to_string(), "h2:7");
        assert_eq!(seeds[1].redis_settings().password(), Some("p"));
    }
}
