//! The four moments of a shutdown.

use tokio_util::sync::CancellationToken;

/// The moments follow each other in this order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lifecycle {
    /// Readiness says no; all else goes on, as balancers still have to hear of it.
    pub(crate) leaving: CancellationToken,
    /// No new connections; what is here is served.
    pub(crate) stopping: CancellationToken,
    /// The grace time is over: what waits is answered 503, streams end.
    pub(crate) cut: CancellationToken,
    /// Clients that have not read their answer by now are cut off.
    pub(crate) abort: CancellationToken,
}
