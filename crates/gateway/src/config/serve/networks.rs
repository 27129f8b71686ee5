//! Networks of IP addresses, as settings name them.

use std::{fmt, net::IpAddr};

use ipnet::IpNet;

use crate::config::{ConfigError, read::Section};

/// Networks of IP addresses; none by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks(Vec<IpNet>);

// === impl Networks ===

impl Networks {
    /// `10.0.0.0/8`, `2001:db8::/32`, or a single address; `None` where a text is none of these.
    ///
    /// An address within a network (`10.0.0.1/8`) could mean either of the two, and is none. Nor is an IPv4 address written as IPv6: it
    /// counts as IPv4 everywhere.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        texts
            .into_iter()
            .map(network)
            .collect::<Option<_>>()
            .map(Self)
    }

    /// Whether an address is in one of them. IPv4 addresses of IPv6 sockets count as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether any of them is all of IPv4 or all of IPv6.
    pub(in crate::config) fn has_everything(&self) -> bool {
        self.0.iter().any(|network| network.prefix_len() == 0)
    }

    /// Each as text.
    pub fn texts(&self) -> Vec<String> {
        self.0.iter().map(IpNet::to_string).collect()
    }
}

/// Separated by commas.
impl fmt::Display for Networks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.texts().join(", "))
    }
}

fn network(text: &str) -> Option<IpNet> {
    let text = text.trim();
    let network = match text.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address),
        Err(_) => text.parse().ok()?,
    };
    let mapped =
        matches!(network.addr(), IpAddr::V6(address) if address.to_ipv4_mapped().is_some());
    (network == network.trunc() && !mapped).then_some(network)
}

/// The networks under a key; `None` where it is absent. A list of none is an error: it could mean all or nobody.
pub(super) fn networks(section: &Section<'_>, key: &str) -> Result<Option<Networks>, ConfigError> {
    const EXPECTED: &str = "expected a list of networks (10.0.0.0/8, 2001:db8::/32) or addresses";
    let Some(texts) = section.texts(key)? else {
        return Ok(None);
    };
    if texts.is_empty() {
        return Err(section.error(key, &format!("{EXPECTED}; leave it out for none")));
    }
    let networks = Networks::parse(texts.iter().map(String::as_str));
    networks
        .map(Some)
        .ok_or_else(|| section.error(key, EXPECTED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found_in_networks_of_their_family() {
        let texts = ["10.0.0.0/8", "192.0.2.7", "2001:db8::/32", "::1"];
        let networks = Networks::parse(texts).unwrap();
        for (address, within) in [
            ("10.255.0.1", true),
            ("::ffff:10.0.0.1", true),
            ("11.0.0.1", false),
            ("192.0.2.7", true),
            ("192.0.2.8", false),
            ("2001:db8:1::5", true),
            ("2001:db9::5", false),
            ("::1", true),
            ("::2", false),
        ] {
            assert_eq!(
                networks.contains(address.parse().unwrap()),
                within,
                "{address}"
            );
        }
        assert!(!networks.has_everything());
        assert!(Networks::parse(["::/0"]).unwrap().has_everything());
        assert!(!Networks::default().contains("10.0.0.1".parse().unwrap()));
    }

    #[test]
    fn ambiguous_and_malformed_networks_are_refused() {
        for text in [
            "",
            "*",
            "localhost",
            "10.0.0.1/8",
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0",
            "2001:db8::1/32",
            "::ffff:10.0.0.1",
            "::ffff:10.0.0.0/104",
            "10.0.0.0/255.0.0.0",
            "[::1]",
            "10.0.0.1:80",
        ] {
            assert_eq!(Networks::parse([text]), None, "{text}");
        }
    }
}
