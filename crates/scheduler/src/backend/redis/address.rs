//! Addresses that servers and sentinels tell.

use std::fmt;

use redis::{ConnectionAddr, ConnectionInfo, Value, from_redis_value};

/// How a node is reached.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
}

// === impl Address ===

impl Address {
    pub(super) fn of(info: &ConnectionInfo) -> Option<Self> {
        match info.addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                Some(Self {
                    host: host.clone(),
                    port: *port,
                })
            }
            _ => None,
        }
    }

    /// `host:port` of a redirection that `from` sent. Without a host it is that of the sender.
    pub(super) fn parse(text: &str, from: &Self) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let host = if host.is_empty() { &from.host } else { host };
        Some(Self {
            host: host.to_owned(),
            port: port.parse().ok()?,
        })
    }

    /// A node of CLUSTER SLOTS. An empty or missing host is that of the node that answers; `?` is unknown.
    pub(super) fn read(node: Value, answering: &Self) -> Option<Self> {
        let node: Vec<Value> = from_redis_value(node).ok()?;
        let mut node = node.into_iter();
        let host: Option<String> = from_redis_value(node.next()?).ok()?;
        let port = from_redis_value(node.next()?).ok()?;
        match host.as_deref() {
            Some("?") => None,
            None | Some("") => Some(Self {
                host: answering.host.clone(),
                port,
            }),
            Some(host) => Some(Self {
                host: host.to_owned(),
                port,
            }),
        }
    }

    /// A seed's connection settings, with this address.
    pub(super) fn apply(&self, seed: &ConnectionInfo) -> ConnectionInfo {
        let address = match seed.addr().clone() {
            ConnectionAddr::TcpTls {
                insecure,
                tls_params,
                ..
            } => ConnectionAddr::TcpTls {
                host: self.host.clone(),
                port: self.port,
                insecure,
                tls_params,
            },
            _ => ConnectionAddr::Tcp(self.host.clone(), self.port),
        };
        seed.clone().set_addr(address)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') {
            write!(f, "[{host}]:{port}")
        } else {
            write!(f, "{host}:{port}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_of_a_redirection_may_lack_its_host() {
        let sender = Address {
            host: "sender".into(),
            port: 1,
        };
        let address = |text: &str| Address::parse(text, &sender).unwrap();
        assert_eq!(address("10.0.0.1:6379").to_string(), "10.0.0.1:6379");
        assert_eq!(address("::1:6379"), address("[::1]:6379"));
        assert_eq!(address(":6380").to_string(), "sender:6380");
        assert_eq!(Address::parse("nothing", &sender), None);
    }
}
