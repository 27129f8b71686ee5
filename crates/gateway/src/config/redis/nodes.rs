//! Lists of nodes: of a cluster, or sentinels.

use serde_json::Value as Json;

use super::{
    address::{bracketed, is_node},
    arguments::Origin,
};
use crate::config::ConfigError;

const EXPECTED: &str = "expected a list of {host: HOST, port: PORT}, [HOST, PORT] or \"HOST:PORT\"";

/// `HOST:PORT` each; `port` is that of nodes that have none.
pub(super) fn nodes(origin: &Origin<'_, '_>, port: u16) -> Result<Vec<String>, ConfigError> {
    let items = origin.list()?;
    let nodes: Option<Vec<String>> = items.iter().map(|item| node(item, port)).collect();
    let nodes = nodes.filter(|nodes| !nodes.is_empty());
    nodes.ok_or_else(|| {
        let secret = |item: &Json| item.get("password").is_some();
        if items.iter().any(secret) {
            return origin
                .error("a node has host and port only: all have the same user and password");
        }
        origin.error(EXPECTED)
    })
}

fn node(item: &Json, default: u16) -> Option<String> {
    let node = match item {
        Json::String(text) => text_node(text.trim(), default),
        Json::Array(pair) => {
            let (host, port) = match pair.as_slice() {
                [host] => (host, None),
                [host, port] => (host, Some(port)),
                _ => return None,
            };
            joined(host, port, default)?
        }
        Json::Object(fields) => {
            // redis-py's `ClusterNode` takes a role, too, which the cluster knows better.
            let known = |key: &String| matches!(key.as_str(), "host" | "port" | "server_type");
            if !fields.keys().all(known) {
                return None;
            }
            joined(fields.get("host")?, fields.get("port"), default)?
        }
        _ => return None,
    };
    is_node(&node).then_some(node)
}

fn joined(host: &Json, port: Option<&Json>, default: u16) -> Option<String> {
    let port = match port {
        None | Some(Json::Null) => default,
        Some(Json::Number(number)) => u16::try_from(number.as_u64()?).ok()?,
        Some(Json::String(text)) => text.trim().parse().ok()?,
        Some(_) => return None,
    };
    Some(format!("{}:{port}", bracketed(host.as_str()?.trim())))
}

/// `HOST:PORT`, `HOST`, or an IPv6 address with brackets or without.
fn text_node(text: &str, default: u16) -> String {
    let address = text.parse::<std::net::Ipv6Addr>().is_ok();
    let has_port = !address && !text.ends_with(']') && text.contains(':');
    if has_port {
        text.to_owned()
    } else {
        format!("{}:{default}", bracketed(text))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nodes_are_read_in_every_form() {
        for (item, expected) in [
            (json!({"host": "h", "port": 7}), Some("h:7")),
            (json!({"host": "h", "port": "7"}), Some("h:7")),
            (json!({"host": "h"}), Some("h:6379")),
            (
                json!({"host": "::1", "port": 7, "server_type": "primary"}),
                Some("[::1]:7"),
            ),
            (json!(["h", 7]), Some("h:7")),
            (json!(["h"]), Some("h:6379")),
            (json!("h:7"), Some("h:7")),
            (json!("h"), Some("h:6379")),
            (json!("[::1]:7"), Some("[::1]:7")),
            (json!("[::1]"), Some("[::1]:6379")),
            (json!("::1"), Some("[::1]:6379")),
            (json!("h:x"), None),
            (json!("u:p@h:7"), None),
            (json!("h1:7,h2:7"), None),
            (json!("redis://h:7"), None),
            (json!(""), None),
            (json!(["h", 0]), None),
            (json!(["h", 65536]), None),
            (json!(["h", 1, 2]), None),
            (json!({"port": 7}), None),
            (json!({"host": "h", "password": "p"}), None),
            (json!(7), None),
        ] {
            assert_eq!(node(&item, 6379).as_deref(), expected, "{item}");
        }
    }
}
