//! Log lines about what may happen very often.

use std::time::Duration;

use tokio::time::Instant;

/// How often it is logged while it goes on.
pub(super) const LOGGED_EVERY: Duration = Duration::from_secs(10);

/// What has happened since the last log line.
#[derive(Debug, Default)]
pub(super) struct Rarely {
    count: u64,
    logged: Option<Instant>,
}

// === impl Rarely ===

impl Rarely {
    /// Counts one. Where a line is due: how many it stands for.
    pub(super) fn due(&mut self) -> Option<u64> {
        self.count += 1;
        if self
            .logged
            .is_some_and(|logged| logged.elapsed() < LOGGED_EVERY)
        {
            return None;
        }
        self.logged = Some(Instant::now());
        Some(std::mem::take(&mut self.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn repeated_events_are_one_log_line_with_a_count() {
        let mut errors = Rarely::default();
        assert_eq!(errors.due(), Some(1), "the first is logged at once");
        for _ in 0..5 {
            assert_eq!(errors.due(), None);
        }
        tokio::time::advance(LOGGED_EVERY).await;
        assert_eq!(errors.due(), Some(6));
        assert_eq!(errors.due(), None);
    }
}
