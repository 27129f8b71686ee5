//! Who may see the fleet and steer it.

use std::net::IpAddr;

use axum::extract::Request;
use http::header;

use crate::{api::hosts, app::App, connection::Peer, failure::Failure, record::Record};

/// Extension of a request that has come to the admin port.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OnAdminPort;

/// Who an operator is, for the audit log.
pub(super) struct Operator(pub(super) String);

/// The operator who sends a request.
///
/// Without any configured key only this machine's own programs may: the page of another site could have its name point here, so the
/// host has to be this machine's, too.
pub(super) fn operator(app: &App, request: &Request) -> Result<Operator, Failure> {
    let Some(record) = request.extensions().get::<Record>() else {
        // The access layer is around every route.
        return Err(Failure::internal());
    };
    let live = app.live();
    if live.open {
        let peer = request.extensions().get::<Peer>();
        let own_port = request.extensions().get::<OnAdminPort>().is_some();
        // Both: loopback in a proxy's words is the proxy's own machine.
        let from_here = |peer: &Peer| peer.socket.is_loopback();
        let client = record.client;
        let local = peer.is_some_and(from_here)
            && client.is_some_and(|address| address.is_loopback())
            && names_this_machine(request);
        if !own_port && !local {
            return Err(Failure::forbidden(
                "Without a configured key, the admin API is for programs of this machine only (http://localhost, http://127.0.0.1). \
                 Set general_settings.master_key, or a key with `admin: true`.",
            ));
        }
        let from = client.map_or_else(String::new, |address| format!(" ({address})"));
        return Ok(Operator(format!("no key{from}")));
    }
    match live.authenticate(request.headers(), record)? {
        None => Ok(Operator("master key".to_owned())),
        Some(key) if key.admin => Ok(Operator(key.name)),
        Some(key) => Err(Failure::forbidden(format!(
            "The key {} may not: the admin API needs the master key, or a key with `admin: true`.",
            key.name
        ))),
    }
}

fn names_this_machine(request: &Request) -> bool {
    let Some(authority) = hosts::authority(request) else {
        // HTTP/1.0 names none.
        return !request.headers().contains_key(header::HOST);
    };
    let host = authority.host();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || address
            .parse()
            .is_ok_and(|address: IpAddr| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    #[test]
    fn only_loopback_names_are_this_machine() {
        for (host, local) in [
            ("localhost:4000", true),
            ("LOCALHOST", true),
            ("127.0.0.1:4000", true),
            ("[::1]:4000", true),
            ("page.example", false),
            ("localhost.page.example", false),
            ("10.0.0.1", false),
            ("bad host", false),
        ] {
            let request = Request::get("/admin/overview").header("host", host);
            let request = request.body(Body::empty()).unwrap();
            assert_eq!(names_this_machine(&request), local, "{host}");
        }
    }
}
