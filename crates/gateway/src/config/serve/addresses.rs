//! Where connections and requests come from, and whose word for it is taken.

use super::networks::{Networks, networks};
use crate::config::{
    ConfigError, Kind,
    read::{Recorded, Section},
};

/// Where connections and requests come from, and whose word for it is taken. By default: their own address, and no proxy's word.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddressSettings {
    /// From here each connection begins with a header of the PROXY protocol (`vorrang_settings.proxy_protocol`).
    pub proxy_protocol: Networks,
    /// What a request from here says in the header counts (`vorrang_settings.trusted_proxies`).
    pub trusted_proxies: Networks,
    /// The header that trusted proxies write.
    pub forwarded_header: ForwardedHeader,
    /// Open connections of one address, or of one /64 of IPv6; `None`: any number.
    pub max_connections: Option<usize>,
}

/// The header in which proxies name the client. Only one is read: a proxy passes on what a client wrote into the other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ForwardedHeader {
    /// `x-forwarded-for`, which most proxies write.
    #[default]
    XForwardedFor,
    /// `forwarded` (RFC 7239).
    Forwarded,
}

impl ForwardedHeader {
    /// In lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::XForwardedFor => "x-forwarded-for",
            Self::Forwarded => "forwarded",
        }
    }
}

pub(in crate::config) fn addresses(ours: &Section<'_>) -> AddressSettings {
    const PROXIES: &str = "trusted_proxies";
    let file = ours.file;
    let trusted_proxies = networks(ours, PROXIES).recorded(file).unwrap_or_default();
    if trusted_proxies.has_everything() {
        let text = "every client may claim any address: name the networks of the proxies only";
        ours.warn(PROXIES, text);
    }
    let header = forwarded_header(ours).recorded(file);
    if header.is_some() && trusted_proxies.is_empty() && !ours.has(PROXIES) {
        let text = "no header is read without trusted_proxies";
        ours.tell(Kind::NO_EFFECT, "forwarded_header", text);
    }
    AddressSettings {
        proxy_protocol: networks(ours, "proxy_protocol")
            .recorded(file)
            .unwrap_or_default(),
        trusted_proxies,
        forwarded_header: header.unwrap_or_default(),
        max_connections: ours
            .whole("max_connections_per_address", 1)
            .recorded(file)
            .map(|most| usize::try_from(most).unwrap_or(usize::MAX)),
    }
}

fn forwarded_header(ours: &Section<'_>) -> Result<Option<ForwardedHeader>, ConfigError> {
    const KEY: &str = "forwarded_header";
    let Some(name) = ours.name(KEY)? else {
        return Ok(None);
    };
    let mut all = [ForwardedHeader::XForwardedFor, ForwardedHeader::Forwarded].into_iter();
    let named = all.find(|one| one.name().eq_ignore_ascii_case(name.trim()));
    named
        .map(Some)
        .ok_or_else(|| ours.error(KEY, "expected x-forwarded-for or forwarded"))
}
