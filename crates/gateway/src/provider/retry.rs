//! What an upstream's failure means: for this request, and for the deployment.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode};

/// Whether another attempt may go better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retry {
    No,
    /// On another deployment only: this deployment would fail again.
    Elsewhere,
    Yes,
}

/// What to do after a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Consequence {
    pub(crate) retry: Retry,
    /// What is reported to the scheduler; `None`: this is no failure of the deployment.
    pub(crate) failure: Option<Failure>,
}

/// A failure on the deployment's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The upstream's status, or 0.
    pub(crate) status: u16,
    /// Cool for this long at once; `None`: it counts towards `allowed_fails`.
    pub(crate) cool: Option<Duration>,
}

/// What a deployment's failures cost it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cooling {
    pub(crate) disabled: bool,
    pub(crate) time: Duration,
}

/// How long a deployment cools at least whose quota is exhausted: nothing gives it back within seconds.
const QUOTA_COOLDOWN: Duration = Duration::from_secs(60);

/// The status reported to the scheduler for an exhausted quota: as for a wrong key, no ticket waits for such a deployment.
pub(crate) const EXHAUSTED: u16 = 402;

impl Consequence {
    /// After an answer that is no success.
    pub(crate) fn of_status(status: StatusCode, hints: Hints, cooling: Cooling) -> Self {
        let cool = |time: Duration| (!cooling.disabled).then_some(time);
        let failure = |cool| {
            Some(Failure {
                status: status.as_u16(),
                cool,
            })
        };
        let (retry, failure) = match status.as_u16() {
            429 => (
                Retry::Yes,
                failure(cool(hints.after.unwrap_or(cooling.time))),
            ),
            408 => (Retry::Yes, failure(cool(cooling.time))),
            // 409 and 425 are about this request: they say nothing about the deployment.
            409 | 425 => (Retry::Yes, None),
            401 | 404 => (Retry::Elsewhere, failure(cool(cooling.time))),
            402 => return Self::exhausted(hints, cooling),
            500.. => (Retry::Yes, failure(None)),
            // The client's own mistake says nothing about the deployment.
            400..500 => (Retry::No, None),
            // Redirects and the like: no OpenAI-compatible server answers a call so.
            _ => (Retry::No, failure(None)),
        };
        let retry = match (retry, hints.again) {
            (Retry::Yes, Some(false)) => Retry::No,
            (Retry::No, Some(true)) if status.is_client_error() => Retry::Yes,
            (retry, _) => retry,
        };
        Self { retry, failure }
    }

    /// After an error that says that the deployment's quota is used up: unlike for a busy deployment, a short wait does not help.
    pub(crate) fn exhausted(hints: Hints, cooling: Cooling) -> Self {
        let time = hints.after.unwrap_or_default();
        let time = time.max(cooling.time).max(QUOTA_COOLDOWN);
        Self {
            retry: Retry::Elsewhere,
            failure: Some(Failure {
                status: EXHAUSTED,
                cool: (!cooling.disabled).then_some(time),
            }),
        }
    }

    /// After no answer at all: reset, connect failure, attempt time-out.
    pub(crate) const SILENCE: Self = Self {
        retry: Retry::Yes,
        failure: Some(Failure {
            status: 0,
            cool: None,
        }),
    };
}

/// What an upstream asks of clients that would repeat a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Hints {
    /// `retry-after-ms`, else `Retry-After`.
    pub(crate) after: Option<Duration>,
    /// `x-should-retry`.
    pub(crate) again: Option<bool>,
}

impl Hints {
    pub(crate) fn of(headers: &HeaderMap, now: SystemTime) -> Self {
        let text = |name: &str| Some(headers.get(name)?.to_str().ok()?.trim());
        let milliseconds = text("retry-after-ms").and_then(|text| positive(text, 1000.0));
        let after = milliseconds.or_else(|| retry_after(text("retry-after")?, now));
        let again = match text("x-should-retry") {
            Some(text) if text.eq_ignore_ascii_case("true") => Some(true),
            Some(text) if text.eq_ignore_ascii_case("false") => Some(false),
            _ => None,
        };
        Self { after, again }
    }
}

/// Whether a status may carry `Retry-After` for the request itself.
pub(crate) fn may_hint(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 409 | 425 | 429 | 500..)
}

/// Whether the words of a 429 say that a quota is used up, and not that the deployment is busy. `hint`: it says when it is free again.
pub(crate) fn quota_exhausted(words: &str, hint: bool) -> bool {
    let words = words.to_ascii_lowercase();
    let any = |phrases: &[&str]| phrases.iter().any(|phrase| words.contains(phrase));
    // Some providers say this of a limit per minute, too, and then when it is over.
    let vague = any(&["exceeded your current quota", "quota_exceeded"]);
    any(&[
        "insufficient_quota",
        "billing_hard_limit_reached",
        "billing_not_active",
        "credit balance is too low",
        "insufficient_credits",
        "insufficient balance",
        "insufficient_balance",
    ]) || (vague && !hint && !words.contains("retrydelay"))
}

/// A provider that wants us to stay away for longer than a day has sent something else.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// A number of such parts of a second. Zero says nothing.
fn positive(text: &str, parts: f64) -> Option<Duration> {
    let number: f64 = text.parse().ok()?;
    let time = Duration::try_from_secs_f64(number / parts).ok()?;
    (!time.is_zero()).then_some(time.min(LONGEST))
}

/// Seconds, or an HTTP date. A date that is over, or rubbish, says nothing.
fn retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    if text.parse::<f64>().is_ok() {
        return positive(text, 1.0);
    }
    let time = httpdate::parse_http_date(text).ok()?;
    let time = time.duration_since(now).ok()?;
    (!time.is_zero()).then_some(time.min(LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    const COOLING: Cooling = Cooling {
        disabled: false,
        time: Duration::from_secs(5),
    };

    /// Whether it is retried, and how long it cools if it counts at all.
    fn consequence(
        status: u16,
        retry_after: Option<u64>,
        cooling: Cooling,
    ) -> (Retry, Option<Option<u64>>) {
        let hints = Hints {
            after: retry_after.map(Duration::from_secs),
            again: None,
        };
        let consequence =
            Consequence::of_status(StatusCode::from_u16(status).unwrap(), hints, cooling);
        let failure = consequence.failure;
        (
            consequence.retry,
            failure.map(|failure| failure.cool.map(|cool| cool.as_secs())),
        )
    }

    // A9: what cools at once, and what only counts.
    #[test]
    fn status_429_cools_for_retry_after_and_5xx_counts_as_a_failure() {
        let cools = |time| (Retry::Yes, Some(Some(time)));
        assert_eq!(consequence(429, Some(60), COOLING), cools(60));
        assert_eq!(consequence(429, None, COOLING), cools(5));
        assert_eq!(consequence(408, None, COOLING), cools(5));
        for status in [500, 502, 503, 504, 529, 599] {
            let counts = (Retry::Yes, Some(None));
            assert_eq!(consequence(status, None, COOLING), counts, "{status}");
        }
    }

    #[test]
    fn client_errors_are_not_retried_and_do_not_count_as_failures() {
        for status in [400, 403, 405, 413, 415, 422] {
            let back = (Retry::No, None);
            assert_eq!(consequence(status, Some(9), COOLING), back, "{status}");
        }
        for status in [409, 425] {
            assert_eq!(consequence(status, None, COOLING), (Retry::Yes, None));
        }
    }

    #[test]
    fn statuses_401_402_404_and_exhausted_quota_retry_only_on_another_deployment() {
        for (status, time) in [(401, 5), (404, 5), (402, 60)] {
            let elsewhere = (Retry::Elsewhere, Some(Some(time)));
            assert_eq!(consequence(status, None, COOLING), elsewhere);
        }
        let hints = Hints {
            after: Some(Duration::from_secs(90)),
            again: Some(false),
        };
        let consequence = Consequence::exhausted(hints, COOLING);
        assert_eq!(consequence.retry, Retry::Elsewhere);
        let failure = consequence.failure.unwrap();
        assert_eq!((failure.status, failure.cool), (402, hints.after));
    }

    #[test]
    fn x_should_retry_overrides_retries_on_the_same_deployment() {
        let retry = |status: u16, again| {
            let hints = Hints {
                after: None,
                again: Some(again),
            };
            Consequence::of_status(StatusCode::from_u16(status).unwrap(), hints, COOLING).retry
        };
        for status in [408, 409, 429, 500, 503] {
            assert_eq!(retry(status, false), Retry::No, "{status}");
            assert_eq!(retry(status, true), Retry::Yes, "{status}");
        }
        assert_eq!(retry(400, true), Retry::Yes);
        // Where to is another server.
        assert_eq!(retry(401, false), Retry::Elsewhere);
        // A redirect is not followed, whatever it says.
        assert_eq!(retry(307, true), Retry::No);
    }

    #[test]
    fn disable_cooldowns_prevents_all_cooldowns() {
        let cooling = Cooling {
            disabled: true,
            ..COOLING
        };
        for status in [401, 402, 404, 408, 429] {
            assert_eq!(consequence(status, Some(60), cooling).1, Some(None));
        }
    }

    #[test]
    fn insufficient_quota_errors_differ_from_rate_limit_errors() {
        let openai = r#"{"error":{"message":"You exceeded your current quota, please check your plan and billing details.","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}"#;
        for hint in [false, true] {
            assert!(quota_exhausted(openai, hint));
            assert!(quota_exhausted("code: billing_hard_limit_reached", hint));
            assert!(!quota_exhausted("Rate limit reached for requests", hint));
        }
        let vague = "You exceeded your current quota";
        assert!(quota_exhausted(vague, false));
        assert!(!quota_exhausted(vague, true));
        let minute = r#"{"error":{"message":"You exceeded your current quota","details":[{"retryDelay":"23s"}]}}"#;
        assert!(!quota_exhausted(minute, false));
    }

    #[test]
    fn retry_after_accepts_seconds_fractions_milliseconds_and_dates() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        let read = |name: &'static str, text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, text.parse().unwrap());
            Hints::of(&headers, now)
        };
        let after = |text: &str| read("retry-after", text).after;
        assert_eq!(after("7"), Some(Duration::from_secs(7)));
        assert_eq!(after("0.5"), Some(Duration::from_millis(500)));
        assert_eq!(
            after("Sun, 06 Nov 1994 08:49:57 GMT"),
            Some(Duration::from_secs(20))
        );
        assert_eq!(after("1e30"), None);
        assert_eq!(after("999999"), Some(LONGEST));
        for text in [
            "0",
            "-1",
            "soon",
            "nan",
            "inf",
            "",
            "Sun, 06 Nov 1994 08:49:00 GMT",
        ] {
            assert_eq!(after(text), None, "{text}");
            assert_eq!(read("retry-after-ms", text).after, None, "{text}");
        }
        let milliseconds = |text| read("retry-after-ms", text).after;
        assert_eq!(milliseconds("250"), Some(Duration::from_millis(250)));
        assert_eq!(milliseconds("0.5"), Some(Duration::from_micros(500)));
        assert_eq!(milliseconds("1e30"), None);

        let mut both = HeaderMap::new();
        both.insert("retry-after-ms", "1500".parse().unwrap());
        both.insert("retry-after", "2".parse().unwrap());
        let hints = Hints::of(&both, now);
        assert_eq!(hints.after, Some(Duration::from_millis(1500)));
        assert_eq!(hints.again, None);
        let again = |text| read("x-should-retry", text).again;
        assert_eq!(
            ["true", "False", "yes", ""].map(again),
            [Some(true), Some(false), None, None]
        );
    }
}
