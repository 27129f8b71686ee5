//! Why a call over HTTP has failed.

use std::{error::Error, fmt, io};

use crate::{answer::body::BoxError, provider::cause};

/// Why a call has brought no answer, or why its answer broke off. It names no address.
#[derive(Debug)]
pub(crate) enum HttpError {
    /// No request can be made of it.
    Unsendable,
    /// There is no connection.
    Connect(BoxError),
    /// Connecting took too long.
    ConnectTimeout,
    /// A connection failed.
    Connection(hyper::Error),
    /// A call through a proxy failed.
    Proxied(reqwest::Error),
    /// The bytes of an answer cannot be had for another reason.
    Answer(BoxError),
}

impl HttpError {
    /// Certainly no byte of the request was sent.
    pub(crate) fn is_unsent(&self) -> bool {
        match self {
            Self::Unsendable | Self::Connect(_) | Self::ConnectTimeout => true,
            Self::Proxied(error) => error.is_connect() || error.is_builder(),
            Self::Connection(_) | Self::Answer(_) => false,
        }
    }

    /// There was no connection.
    pub(crate) fn is_connect(&self) -> bool {
        match self {
            Self::Connect(_) | Self::ConnectTimeout => true,
            Self::Proxied(error) => error.is_connect(),
            _ => false,
        }
    }

    pub(crate) fn is_timeout(&self) -> bool {
        let timed_out = |error: &(dyn Error + 'static)| {
            let error = error.downcast_ref::<io::Error>();
            error.is_some_and(|error| error.kind() == io::ErrorKind::TimedOut)
        };
        match self {
            Self::ConnectTimeout => true,
            Self::Proxied(error) => error.is_timeout(),
            error => cause::chain(error).any(timed_out),
        }
    }

    /// The server of an HTTP/2 connection has said that it did not begin with the request (RFC 9113, 8.7).
    pub(super) fn is_refused_stream(&self) -> bool {
        let Self::Connection(error) = self else {
            return false;
        };
        let error = error.source().and_then(|error| error.downcast_ref());
        error.is_some_and(|error: &h2::Error| {
            let reason = error.reason();
            error.is_remote()
                && (error.is_go_away() && reason == Some(h2::Reason::NO_ERROR)
                    || error.is_reset() && reason == Some(h2::Reason::REFUSED_STREAM))
        })
    }
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unsendable => "no request can be made",
            Self::Connect(_) => "no connection",
            Self::ConnectTimeout => "connecting took too long",
            Self::Connection(_) => "the connection failed",
            Self::Proxied(_) => "the call through a proxy failed",
            Self::Answer(_) => "the answer broke off",
        })
    }
}

impl Error for HttpError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Unsendable | Self::ConnectTimeout => None,
            Self::Connect(error) | Self::Answer(error) => Some(&**error),
            Self::Connection(error) => Some(error),
            Self::Proxied(error) => Some(error),
        }
    }
}
