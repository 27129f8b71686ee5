//! What happens after a failed attempt: whether another attempt is made, and when.

use std::time::Duration;

use crate::provider::retry::Retry;

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// What is known after a failed attempt.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Situation<'a> {
    /// Attempts made so far, and how many may follow the first.
    pub(crate) attempts: u32,
    pub(crate) retries: u32,
    pub(crate) retry: Retry,
    /// How long the upstream asked to wait.
    pub(crate) hint: Option<Duration>,
    /// How long the deployment cools because of this failure.
    pub(crate) cool: Option<Duration>,
    /// The deployment that failed.
    pub(crate) deployment: usize,
    /// Per deployment: whether this request has tried it, and how long it still cools.
    pub(crate) tried: &'a [bool],
    pub(crate) cooling: &'a [Option<Duration>],
    /// What is left of the request's time.
    pub(crate) left: Duration,
    /// `router_settings.retry_after`: no pause is shorter.
    pub(crate) least: Duration,
}

/// What happens next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// No other attempt; why.
    GiveUp(&'static str),
    /// The request queues again after a pause; what for, in words for the log.
    Again(Duration, &'static str),
}

impl Situation<'_> {
    /// `draw`: a random number, at least 0 and below 1.
    pub(crate) fn next(self, draw: f64) -> Next {
        if self.retry == Retry::No {
            return Next::GiveUp("gives up: it would fail again");
        }
        if self.attempts > self.retries {
            return Next::GiveUp("gives up: no retries are left");
        }
        let others = || {
            let all = self.tried.iter().zip(self.cooling).enumerate();
            all.filter(|(index, _)| *index != self.deployment)
                .map(|(_, (tried, cooling))| (*tried, *cooling))
        };
        if others().any(|other| other == (false, None)) {
            return Next::Again(Duration::ZERO, "tries another deployment");
        }
        // Of the others, each that is untried cools.
        if self.retry == Retry::Elsewhere {
            let untried = others().filter(|(tried, _)| !tried);
            return match untried.filter_map(|(_, cooling)| cooling).min() {
                None => Next::GiveUp("gives up: no other deployment is left to try"),
                Some(wait) if wait >= self.left => {
                    Next::GiveUp("gives up: the other deployments cool for longer than its time")
                }
                Some(_) => Next::Again(Duration::ZERO, "waits for another deployment"),
            };
        }
        let backoff = backoff(self.attempts, draw).max(self.least);
        let wanted = self.hint.map_or(backoff, |hint| hint.max(self.least));
        let another = others().any(|(_, cooling)| cooling.is_none());
        let (pause, words) = match self.cool {
            _ if another => (backoff.min(wanted), "queues again after a pause"),
            // The queue keeps the request until then, in its order.
            Some(cool) if cool >= wanted => (Duration::ZERO, "waits for the cooldown's end"),
            _ => (wanted, "queues again after a pause"),
        };
        let own = if another {
            pause
        } else {
            wanted.max(self.cool.unwrap_or_default())
        };
        let cooled = others().filter_map(|(_, cooling)| cooling).min();
        if cooled.map_or(own, |cooled| cooled.min(own)) >= self.left {
            return Next::GiveUp("gives up: the wait would be longer than the request's time");
        }
        Next::Again(pause, words)
    }
}

/// Twice as long after each attempt, and up to a quarter longer, so that requests that failed together do not come back together.
fn backoff(attempts: u32, draw: f64) -> Duration {
    let doublings = attempts.saturating_sub(1).min(8);
    let pause = FIRST_PAUSE * 2u32.pow(doublings);
    pause.mul_f64(1.0 + draw / 4.0).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(time: u64) -> Duration {
        Duration::from_millis(time)
    }

    /// One deployment, and more time than is ever needed.
    const ALONE: Situation<'_> = Situation {
        attempts: 1,
        retries: 2,
        retry: Retry::Yes,
        hint: None,
        cool: None,
        deployment: 0,
        tried: &[true],
        cooling: &[None],
        left: ms(60_000),
        least: ms(0),
    };

    fn pause(situation: Situation<'_>) -> Option<u64> {
        match situation.next(0.0) {
            Next::Again(pause, _) => Some(u64::try_from(pause.as_millis()).unwrap()),
            Next::GiveUp(_) => None,
        }
    }

    #[test]
    fn back_off_doubles_with_jitter_up_to_eight_seconds() {
        let pauses = |draw| [1, 2, 3, 4, 5, 6, u32::MAX].map(|attempts| backoff(attempts, draw));
        let even = [500, 1000, 2000, 4000, 8000, 8000, 8000].map(ms);
        assert_eq!(pauses(0.0), even);
        let late = [600, 1200, 2400, 4800, 8000, 8000, 8000].map(ms);
        assert_eq!(pauses(0.8), late);
    }

    #[test]
    fn retry_after_replaces_the_back_off_but_not_the_minimum_pause() {
        let hint = |hint| Some(ms(hint));
        assert_eq!(pause(ALONE), Some(500));
        assert_eq!(
            pause(Situation {
                hint: hint(7000),
                ..ALONE
            }),
            Some(7000)
        );
        assert_eq!(
            pause(Situation {
                hint: hint(10),
                ..ALONE
            }),
            Some(10)
        );
        let least = Situation {
            least: ms(900),
            ..ALONE
        };
        assert_eq!(pause(least), Some(900));
        assert_eq!(
            pause(Situation {
                hint: hint(10),
                ..least
            }),
            Some(900)
        );
        assert_eq!(
            pause(Situation {
                hint: hint(1000),
                ..least
            }),
            Some(1000)
        );
    }

    #[test]
    fn request_gives_up_without_retries_or_time_for_the_pause() {
        assert_eq!(
            pause(Situation {
                attempts: 3,
                ..ALONE
            }),
            None
        );
        assert_eq!(
            pause(Situation {
                retry: Retry::No,
                ..ALONE
            }),
            None
        );
        assert_eq!(
            pause(Situation {
                left: ms(500),
                ..ALONE
            }),
            None
        );
        assert_eq!(
            pause(Situation {
                left: ms(501),
                ..ALONE
            }),
            Some(500)
        );
        let hint = Some(ms(60_000));
        assert_eq!(pause(Situation { hint, ..ALONE }), None);
        assert_eq!(
            pause(Situation {
                hint,
                cool: hint,
                ..ALONE
            }),
            None
        );
    }

    #[test]
    fn retry_waits_in_the_queue_for_a_cooldown_that_covers_its_pause() {
        let cool = |cool| Situation {
            cool: Some(ms(cool)),
            ..ALONE
        };
        assert_eq!(pause(cool(5000)), Some(0));
        // A shorter cooldown does not cover the pause.
        assert_eq!(pause(cool(100)), Some(500));
        let hint = Some(ms(2000));
        assert_eq!(pause(Situation { hint, ..cool(2000) }), Some(0));
    }

    #[test]
    fn retry_goes_at_once_to_an_untried_healthy_deployment() {
        let hint = Some(ms(90_000));
        let two = |tried, cooling: &'static [Option<Duration>]| Situation {
            tried,
            cooling,
            hint,
            cool: hint,
            ..ALONE
        };
        assert_eq!(pause(two(&[true, false], &[None, None])), Some(0));
        // It has failed as well: the hint of one deployment does not apply to the other.
        assert_eq!(pause(two(&[true, true], &[None, None])), Some(500));
        // The queue waits for a cooling deployment, if its cooldown ends in time.
        const SOON: &[Option<Duration>] = &[None, Some(ms(9000))];
        const LATE: &[Option<Duration>] = &[None, Some(ms(90_000))];
        assert_eq!(pause(two(&[true, true], SOON)), Some(0));
        assert_eq!(pause(two(&[true, false], LATE)), None);
    }

    #[test]
    fn elsewhere_only_retry_never_repeats_on_the_same_deployment() {
        let elsewhere = |tried, cooling| Situation {
            retry: Retry::Elsewhere,
            tried,
            cooling,
            ..ALONE
        };
        assert_eq!(pause(elsewhere(&[true], &[None])), None);
        assert_eq!(pause(elsewhere(&[true, false], &[None, None])), Some(0));
        assert_eq!(pause(elsewhere(&[true, true], &[None, None])), None);
        const SOON: &[Option<Duration>] = &[None, Some(ms(9))];
        const LATE: &[Option<Duration>] = &[None, Some(ms(60_000))];
        assert_eq!(pause(elsewhere(&[true, false], SOON)), Some(0));
        assert_eq!(pause(elsewhere(&[true, false], LATE)), None);
    }
}
