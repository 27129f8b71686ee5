//! How long the server waits for its clients.

use std::time::Duration;

/// How patient the server is with its clients.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For a request's head; an idle connection is kept as long.
    pub head: Duration,
    /// For what comes before the first request: a header of the PROXY protocol and the handshake of TLS.
    pub handshake: Duration,
    /// Between two pieces of a request's body.
    pub body_pause: Duration,
    /// For a whole request body.
    pub body: Duration,
    /// For clients to read the last answers after the grace time, and for closing the sessions with the backend.
    pub close: Duration,
}

impl Default for Patience {
    /// 75 s (above the 60 s for which load balancers keep their connections), 10 s, 30 s, 10 minutes, 2 s.
    fn default() -> Self {
        Self {
            head: Duration::from_secs(75),
            handshake: Duration::from_secs(10),
            body_pause: Duration::from_secs(30),
            body: Duration::from_secs(600),
            close: Duration::from_secs(2),
        }
    }
}
