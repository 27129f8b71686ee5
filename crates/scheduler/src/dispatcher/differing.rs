//! Warns when the configurations of a group differ for longer than a roll-out should take: two fleets may share a namespace by mistake.

use std::time::Duration;

use tokio::time::Instant;

/// Longer than a rolling restart of instances takes.
const FIRST: Duration = Duration::from_secs(60);
const AGAIN: Duration = Duration::from_secs(600);

/// When the next warning is due, while configurations differ.
#[derive(Debug, Default)]
pub(super) struct Differing {
    next: Option<Instant>,
}

impl Differing {
    /// Whether to warn now.
    pub(super) fn is_due(&mut self, now: Instant, configurations: u64) -> bool {
        if configurations < 2 {
            self.next = None;
            return false;
        }
        let next = *self.next.get_or_insert(now + FIRST);
        let due = now >= next;
        if due {
            self.next = Some(now + AGAIN);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warning_is_due_after_a_minute_and_then_every_ten_minutes() {
        let (start, mut differing) = (Instant::now(), Differing::default());
        let due = |differing: &mut Differing, seconds, configurations| {
            differing.is_due(start + Duration::from_secs(seconds), configurations)
        };
        let seen = [0, 59, 60, 61, 659, 660, 661].map(|at| due(&mut differing, at, 2));
        assert_eq!(seen, [false, false, true, false, false, true, false]);
        assert!(!due(&mut differing, 2000, 1));
        assert!(!due(&mut differing, 2001, 3), "the time starts again");
    }
}
