//! What a URL names: one server, the master that sentinels name, or a cluster.

use redis::{ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo, io::tcp::TcpSettings};

use super::{
    BackendError, RedisOptions,
    sentinel::{Sentinel, Sentinels},
};

const SENTINEL_PORT: u16 = 26379;

/// A parsed URL, with certificates.
pub(super) enum Target {
    Server(ConnectionInfo),
    Sentinel(Sentinels),
    /// Nodes to ask for all others. The rest of each applies to all nodes.
    Cluster(Vec<ConnectionInfo>),
}

// === impl Target ===

impl Target {
    pub(super) fn parse(options: &RedisOptions) -> Result<Self, BackendError> {
        let url = options.url.as_str();
        let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
        let (base, topology) = match scheme.split_once('+') {
            Some((base @ ("redis" | "rediss"), topology @ ("sentinel" | "cluster"))) => {
                (base, topology)
            }
            _ => return Ok(Self::Server(info(url, options)?)),
        };
        // What follows a `/` in a password is percent-encoded, as in all URLs.
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, hosts) = match authority.rsplit_once('@') {
            Some((user, hosts)) => (format!("{user}@"), hosts),
            None => (String::new(), authority),
        };
        let hosts: Vec<&str> = hosts.split(',').map(str::trim).collect();
        if hosts.iter().any(|host| host.is_empty()) || path.contains(['?', '#']) {
            return Err(malformed(topology));
        }
        if topology == "cluster" {
            if !matches!(path, "" | "0") {
                return Err(error(
                    "a Redis Cluster has no databases but 0: expected no path in its URL".into(),
                ));
            }
            let seeds = hosts
                .iter()
                .map(|host| info(&format!("{base}://{user}{host}"), options));
            return Ok(Self::Cluster(seeds.collect::<Result<_, _>>()?));
        }
        let (service, database) = path.split_once('/').unwrap_or((path, "0"));
        let database = if database.is_empty() { "0" } else { database };
        if service.is_empty() || database.parse::<u32>().is_err() {
            return Err(malformed(topology));
        }
        let server = info(&format!("{base}://{user}{}/{database}", hosts[0]), options)?;
        let sentinels = hosts.iter().map(|host| {
            // The port of a bracketed address of IPv6 follows its bracket.
            let has_port = host.rsplit(']').next().is_some_and(|end| end.contains(':'));
            let port = if has_port {
                String::new()
            } else {
                format!(":{SENTINEL_PORT}")
            };
            let info = info(&format!("{base}://{host}{port}"), options)?;
            Ok(Sentinel::new(info.addr().clone()))
        });
        let mut settings = RedisConnectionInfo::default();
        if let Some(username) = &options.sentinel_username {
            settings = settings.set_username(username);
        }
        if let Some(password) = &options.sentinel_password {
            settings = settings.set_password(password);
        }
        Ok(Self::Sentinel(Sentinels {
            sentinels: sentinels.collect::<Result<_, BackendError>>()?,
            settings,
            service: service.to_owned(),
            server,
        }))
    }

    /// The number of the database.
    pub(super) fn database(&self) -> i64 {
        match self {
            Self::Server(info) => info.redis_settings().db(),
            Self::Sentinel(sentinels) => sentinels.server.redis_settings().db(),
            Self::Cluster(_) => 0,
        }
    }

    /// What must not be in errors.
    pub(super) fn passwords(&self) -> Vec<String> {
        let of = |settings: &RedisConnectionInfo| settings.password().map(str::to_owned);
        match self {
            Self::Server(info) => of(info.redis_settings()).into_iter().collect(),
            Self::Sentinel(sentinels) => of(sentinels.server.redis_settings())
                .into_iter()
                .chain(of(&sentinels.settings))
                .collect(),
            Self::Cluster(seeds) => seeds
                .iter()
                .filter_map(|seed| of(seed.redis_settings()))
                .collect(),
        }
    }
}

/// One server's URL, with certificates.
fn info(url: &str, options: &RedisOptions) -> Result<ConnectionInfo, BackendError> {
    let info = url.into_connection_info().map_err(|e| {
        // The error's detail could quote the URL.
        error(format!(
            "the Redis URL is malformed ({}); expected redis://[user:password@]host[:port][/database]",
            e.category()
        ))
    })?;
    let info = options.tls.apply(info)?;
    Ok(info.set_tcp_settings(tcp()))
}

pub(super) fn tcp() -> TcpSettings {
    TcpSettings::default().set_nodelay(true)
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
