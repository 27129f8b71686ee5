//! Why an upstream call brought no answer, in words for the log and for the client.

use std::{error::Error, io, iter::successors};

use crate::provider::http::HttpError;

/// Why there was no answer. The words name no address and no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    Refused,
    NoSuchHost,
    Tls,
    ConnectTimeout,
    Network,
    Connect,
    Reset,
    Closed,
    NotHttp,
    Key,
    Token,
    Other,
}

impl Cause {
    pub(crate) fn of(error: &HttpError) -> Self {
        if let Some(cause) = chain(error).find_map(known) {
            // A close while connecting is no close before an answer.
            return match cause {
                Self::Reset | Self::Closed if error.is_connect() => Self::Connect,
                cause => cause,
            };
        }
        match (error.is_connect(), error.is_timeout()) {
            (true, true) => Self::ConnectTimeout,
            (true, false) => Self::Connect,
            (false, _) => Self::Other,
        }
    }

    /// A short stable word for the log.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "connection refused",
            Self::NoSuchHost => "no such host",
            Self::Tls => "TLS handshake failed",
            Self::ConnectTimeout => "connect time-out",
            Self::Network => "network unreachable",
            Self::Connect => "connect failed",
            Self::Reset => "connection reset",
            Self::Closed => "connection closed",
            Self::NotHttp => "not HTTP",
            Self::Key => "api_key is no header value",
            Self::Token => "no token",
            Self::Other => "call failed",
        }
    }

    /// For the client.
    pub(crate) fn message(self) -> &'static str {
        match self {
            Self::Refused => "The upstream cannot be reached: the connection was refused",
            Self::NoSuchHost => {
                "The upstream cannot be reached: its host name could not be resolved"
            }
            Self::Tls => "The upstream cannot be reached: the TLS handshake failed",
            Self::ConnectTimeout => "The upstream cannot be reached: connecting took too long",
            Self::Network => "The upstream cannot be reached: there is no route to it",
            Self::Connect => "The upstream cannot be reached",
            Self::Reset => "The upstream broke off before its answer: the connection was reset",
            Self::Closed => "The upstream broke off before its answer: the connection was closed",
            Self::NotHttp => "The upstream's answer was not valid HTTP",
            Self::Key => "The deployment's api_key cannot stand in a header",
            Self::Token => "No token for the upstream could be had",
            Self::Other => "The upstream broke off before its answer",
        }
    }
}

/// Whether an idle connection was closed while a request was on its way: the connection ended without an answer.
pub(crate) fn closed_without_answer(error: &HttpError) -> bool {
    let canceled = |error: &(dyn Error + 'static)| {
        error
            .downcast_ref::<hyper::Error>()
            .is_some_and(|error| error.is_canceled() || error.is_closed())
    };
    !error.is_unsent()
        && (matches!(Cause::of(error), Cause::Reset | Cause::Closed) || chain(error).any(canceled))
}

/// An error and all that are below it.
pub(crate) fn chain<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    successors(Some(error), |&error: &&'a (dyn Error + 'static)| {
        error.source()
    })
}

fn known(error: &(dyn Error + 'static)) -> Option<Cause> {
    if error.is::<rustls::Error>() {
        return Some(Cause::Tls);
    }
    // hyper-util has no other sign of it.
    if error.to_string() == "dns error" {
        return Some(Cause::NoSuchHost);
    }
    if let Some(error) = error.downcast_ref::<hyper::Error>() {
        return if error.is_parse() {
            Some(Cause::NotHttp)
        } else if error.is_incomplete_message() {
            Some(Cause::Closed)
        } else {
            None
        };
    }
    let mut error = error.downcast_ref::<io::Error>()?;
    // The source of an io::Error is the source of what it wraps, and not what it wraps.
    while let Some(inner) = error.get_ref() {
        if inner.is::<rustls::Error>() {
            return Some(Cause::Tls);
        }
        match inner.downcast_ref() {
            Some(inner) => error = inner,
            None => break,
        }
    }
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Some(Cause::Refused),
        io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::NetworkDown => Some(Cause::Network),
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => Some(Cause::Reset),
        io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof | io::ErrorKind::NotConnected => {
            Some(Cause::Closed)
        }
        _ => None,
    }
}
