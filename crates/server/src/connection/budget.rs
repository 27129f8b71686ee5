//! How many file descriptors this process uses for what.

/// How many slots there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Budget {
    /// For connections and calls.
    pub(crate) total: usize,
    /// Of these the last are only for accepting, and for the calls that then displace others.
    pub(crate) reserve: usize,
    /// Idle upstream connections, beside the total.
    pub(crate) idle_upstream: usize,
}

// === impl Budget ===

impl Budget {
    /// Of so many file descriptors.
    pub(crate) fn of(files: usize) -> Self {
        /// Redis, logs, listeners and the admin port's connections, what libraries open, connections being set up.
        const OTHERS: usize = 64;
        let free = files.saturating_sub(OTHERS).max(32);
        let idle_upstream = (free / 8).min(1024);
        let total = free - idle_upstream;
        Self {
            total,
            reserve: (total / 8).clamp(4, 1024),
            idle_upstream,
        }
    }

    /// So many connections and calls may be there before a new connection waits: the rest is for the calls of those that were accepted last.
    pub(super) fn acceptable(self) -> usize {
        self.total - self.reserve / 2
    }
}
