//! Where a request comes from: its connection's address, or what a trusted proxy says of it.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use vorrang_gateway::config::{AddressSettings, ForwardedHeader};

use crate::connection::Peer;

/// The client's address: of those that proxies have noted, the last that is no trusted proxy's. What stands before it is the client's own
/// word.
///
/// `None`: a trusted proxy says what names no address. Nothing is guessed then: it could make a stranger a neighbour.
pub(super) fn of(peer: Peer, headers: &HeaderMap, settings: &AddressSettings) -> Option<IpAddr> {
    let trusted = &settings.trusted_proxies;
    if trusted.is_empty() || !trusted.contains(peer.address) {
        return Some(peer.address);
    }
    let header = settings.forwarded_header;
    let mut values = Vec::new();
    for value in headers.get_all(header.name()) {
        values.push(value.to_str().ok()?);
    }
    let hops = match header {
        ForwardedHeader::XForwardedFor => listed(&values),
        ForwardedHeader::Forwarded => forwarded(&values)?,
    };
    let mut client = peer.address;
    for hop in hops.iter().rev() {
        client = address(hop)?;
        if !trusted.contains(client) {
            break;
        }
    }
    Some(client)
}

/// The elements of all lines of a header that is a list.
fn listed(values: &[&str]) -> Vec<String> {
    let elements = values.iter().flat_map(|value| value.split(','));
    let elements = elements.map(str::trim).filter(|one| !one.is_empty());
    elements.map(str::to_owned).collect()
}

/// An address as proxies write it, with or without a port.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let address = match bare {
        Some(bare) => IpAddr::V6(bare.parse().ok()?),
        None => text
            .parse()
            .or_else(|_| text.parse().map(|with_port: SocketAddr| with_port.ip()))
            .ok()?,
    };
    Some(address.to_canonical())
}

/// What `for` says in each element of `forwarded` (RFC 7239); an element without it says nothing that is an address. `None` where the
/// header is malformed: a quotation mark of the client's could hide what proxies have added.
fn forwarded(values: &[&str]) -> Option<Vec<String>> {
    let mut hops = Vec::new();
    for value in values {
        let mut rest = value.trim();
        while !rest.is_empty() {
            let mut hop = None;
            loop {
                let (name, after) = rest.split_once('=')?;
                let (value, after) = value_of(after)?;
                if name.trim().eq_ignore_ascii_case("for") && hop.replace(value).is_some() {
                    return None;
                }
                rest = after.trim_start();
                match rest.strip_prefix(';') {
                    Some(more) => rest = more.trim_start(),
                    None => break,
                }
            }
            hops.push(hop.unwrap_or_default());
            rest = match rest.strip_prefix(',') {
                Some(more) => more.trim_start(),
                None if rest.is_empty() => rest,
                None => return None,
            };
        }
    }
    Some(hops)
}

/// A token or a quoted text, and what follows it.
fn value_of(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([';', ',', ' ', '\t']).unwrap_or(text.len());
        let (token, rest) = text.split_at(end);
        return (!token.is_empty() && !token.contains('"')).then(|| (token.to_owned(), rest));
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(chars.next()?.1),
            char => value.push(char),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use vorrang_gateway::config::Networks;

    use super::*;

    fn settings(header: ForwardedHeader) -> AddressSettings {
        AddressSettings {
            trusted_proxies: Networks::parse(["10.0.0.0/8", "2001:db8::/32"]).unwrap(),
            forwarded_header: header,
            ..AddressSettings::default()
        }
    }

    fn client(
        peer: &str,
        settings: &AddressSettings,
        lines: &[(&'static str, &str)],
    ) -> Option<String> {
        let address: IpAddr = peer.parse().unwrap();
        let peer = Peer {
            socket: address,
            address,
        };
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        of(peer, &headers, settings).map(|address| address.to_string())
    }

    #[test]
    fn last_address_that_is_no_trusted_proxy_is_the_client() {
        let settings = settings(ForwardedHeader::XForwardedFor);
        for (peer, lines, expected) in [
            ("203.0.113.9", &["10.0.0.1"][..], Some("203.0.113.9")),
            ("10.0.0.2", &[], Some("10.0.0.2")),
            ("10.0.0.2", &[""], Some("10.0.0.2")),
            ("10.0.0.2", &["203.0.113.9"], Some("203.0.113.9")),
            ("10.0.0.2", &["127.0.0.1, 203.0.113.9"], Some("203.0.113.9")),
            (
                "10.0.0.2",
                &["127.0.0.1", "203.0.113.9"],
                Some("203.0.113.9"),
            ),
            ("10.0.0.2", &["203.0.113.9, 10.0.0.3"], Some("203.0.113.9")),
            ("10.0.0.2", &["10.9.9.9,10.0.0.3"], Some("10.9.9.9")),
            ("10.0.0.2", &["203.0.113.9:5000"], Some("203.0.113.9")),
            ("10.0.0.2", &["::ffff:203.0.113.9"], Some("203.0.113.9")),
            (
                "2001:db8::1",
                &["[2001:db9::5]:70, 2001:db8::2"],
                Some("2001:db9::5"),
            ),
            ("10.0.0.2", &["[2001:db9::5]"], Some("2001:db9::5")),
            // Not what stands before it: a client could have written that.
            ("10.0.0.2", &["10.0.0.7, unknown"], None),
            ("10.0.0.2", &["203.0.113.9, é"], None),
            ("10.0.0.2", &["é, 203.0.113.9"], None),
        ] {
            let named: Vec<_> = lines
                .iter()
                .map(|line| ("x-forwarded-for", *line))
                .collect();
            let found = client(peer, &settings, &named);
            assert_eq!(found.as_deref(), expected, "{peer} {lines:?}");
            // The other header is not read.
            let other: Vec<_> = lines.iter().map(|line| ("forwarded", *line)).collect();
            assert_eq!(client(peer, &settings, &other).as_deref(), Some(peer));
        }
        let nobody = AddressSettings::default();
        let lines = [("x-forwarded-for", "203.0.113.9")];
        assert_eq!(
            client("10.0.0.2", &nobody, &lines).as_deref(),
            Some("10.0.0.2")
        );
    }

    #[test]
    fn forwarded_header_is_read_as_rfc_7239_says_or_not_at_all() {
        let settings = settings(ForwardedHeader::Forwarded);
        for (line, expected) in [
            ("for=203.0.113.9", Some("203.0.113.9")),
            (
                "FOR=203.0.113.9;proto=https;by=10.0.0.2",
                Some("203.0.113.9"),
            ),
            (r#"proto=https; for="203.0.113.9:80""#, Some("203.0.113.9")),
            (
                r#"for=127.0.0.1, for="[2001:db9::5]:80";proto=http"#,
                Some("2001:db9::5"),
            ),
            (r#"for=203.0.113.9, for="\10.0.0.3""#, Some("203.0.113.9")),
            (
                r#"for="a, for=127.0.0.1;x=\"", for=203.0.113.9"#,
                Some("203.0.113.9"),
            ),
            ("for=unknown", None),
            ("for=127.0.0.1, for=_hidden", None),
            ("for=127.0.0.1, proto=https", None),
            // A quotation mark that a client left open would hide what the proxy has added.
            (r#"for=127.0.0.1;x=", for=203.0.113.9"#, None),
            (r#"for=127.0.0.1;x=", for="[2001:db9::5]:80""#, None),
            ("for=127.0.0.1;for=203.0.113.9", None),
            ("127.0.0.1", None),
            ("for=, for=203.0.113.9", None),
            ("for=127.0.0.1 x, for=203.0.113.9", None),
        ] {
            let found = client("10.0.0.2", &settings, &[("forwarded", line)]);
            assert_eq!(found.as_deref(), expected, "{line}");
        }
    }
}
