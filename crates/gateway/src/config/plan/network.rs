//! Over which connections and from where an instance can be reached.

use std::{fmt::Write, time::UNIX_EPOCH};

use serde_json::{Value, json};

use crate::config::{AddressSettings, Config, Networks, diagnostic::shown::Shown};

pub(super) fn write(config: &Config, out: &mut String) -> std::fmt::Result {
    if let Some(tls) = &config.tls {
        let (identity, files) = (&tls.identity, &tls.identity.files);
        let path = files.certificate.display().to_string();
        let until = httpdate::fmt_http_date(identity.expires);
        write!(out, "tls: {}, valid until {until}", Shown(&path))?;
        if files.client_ca.is_some() {
            write!(out, ", clients need a certificate")?;
        }
        if !tls.admin_port {
            write!(out, ", not at the admin port")?;
        }
        writeln!(out)?;
    }
    let addresses = &config.addresses;
    if !addresses.proxy_protocol.is_empty() {
        let from = &addresses.proxy_protocol;
        writeln!(out, "connections from {from} begin with the PROXY protocol")?;
    }
    if !addresses.trusted_proxies.is_empty() {
        let (header, from) = (
            addresses.forwarded_header.name(),
            &addresses.trusted_proxies,
        );
        writeln!(out, "{header} counts from {from}")?;
    }
    if let Some(most) = addresses.max_connections {
        writeln!(out, "connections of one address: {most}")?;
    }
    for (what, from) in [
        ("metrics", &config.exposure.metrics_allowed_from),
        ("the admin API", &config.exposure.admin_allowed_from),
    ] {
        if let Some(from) = from {
            writeln!(out, "{what} only for {from}")?;
        }
    }
    Ok(())
}

/// Null where nothing of it is set.
pub(super) fn json(config: &Config) -> Value {
    let (addresses, exposure) = (&config.addresses, &config.exposure);
    let listed = exposure.metrics_allowed_from.is_some() || exposure.admin_allowed_from.is_some();
    if config.tls.is_none() && *addresses == AddressSettings::default() && !listed {
        return Value::Null;
    }
    let list = |networks: &Option<Networks>| networks.as_ref().map(Networks::texts);
    let tls = config.tls.as_ref().map(|tls| {
        let since = tls.identity.expires.duration_since(UNIX_EPOCH);
        json!({
            "certificate": tls.identity.files.certificate,
            "expires": since.map_or(0, |since| since.as_secs()),
            "client_certificates": tls.identity.files.client_ca.is_some(),
            "admin_port": tls.admin_port,
        })
    });
    json!({
        "tls": tls,
        "proxy_protocol": addresses.proxy_protocol.texts(),
        "trusted_proxies": addresses.trusted_proxies.texts(),
        "forwarded_header": addresses.forwarded_header.name(),
        "max_connections_per_address": addresses.max_connections,
        "metrics_allowed_from": list(&exposure.metrics_allowed_from),
        "admin_allowed_from": list(&exposure.admin_allowed_from),
    })
}
