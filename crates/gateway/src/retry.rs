//! What an upstream's failure means: for this request, and for the deployment.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode, header};

/// What to do after a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Another attempt may go better.
    pub(crate) retry: bool,
    /// What the scheduler is told; `None`: the deployment did nothing wrong.
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
    /// The group has other deployments: a wrong key or model here says nothing about them.
    pub(crate) others: bool,
}

impl Verdict {
    /// After an answer that is no success.
    pub(crate) fn of_status(
        status: StatusCode,
        retry_after: Option<Duration>,
        cooling: Cooling,
    ) -> Self {
        let cool = |time: Duration| (!cooling.disabled).then_some(time);
        let failure = |cool| {
            Some(Failure {
                status: status.as_u16(),
                cool,
            })
        };
        match status.as_u16() {
            429 => Self {
                retry: true,
                failure: failure(cool(retry_after.unwrap_or(cooling.time))),
            },
            408 => Self {
                retry: true,
                failure: failure(cool(cooling.time)),
            },
            401 | 404 => Self {
                retry: cooling.others,
                failure: failure(cool(cooling.time)),
            },
            500.. => Self {
                retry: true,
                failure: failure(None),
            },
            // The client's own mistake says nothing about the deployment.
            400..500 => Self {
                retry: false,
                failure: None,
            },
            // Redirects and the like: no OpenAI-compatible server answers a call so.
            _ => Self {
                retry: false,
                failure: failure(None),
            },
        }
    }

    /// After no answer at all: reset, connect failure, attempt time-out.
    pub(crate) const SILENCE: Self = Self {
        retry: true,
        failure: Some(Failure {
            status: 0,
            cool: None,
        }),
    };
}

/// `Retry-After`: seconds, or an HTTP date. A date that is over, or rubbish, says nothing.
pub(crate) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    /// A provider that wants us to stay away for longer than a day has sent something else.
    const LONGEST: Duration = Duration::from_secs(24 * 3600);

    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let time = match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok()?,
        Err(_) => httpdate::parse_http_date(text)
            .ok()?
            .duration_since(now)
            .ok()?,
    };
    (!time.is_zero()).then_some(time.min(LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    const COOLING: Cooling = Cooling {
        disabled: false,
        time: Duration::from_secs(5),
        others: false,
    };

    fn verdict(
        status: u16,
        retry_after: Option<u64>,
        cooling: Cooling,
    ) -> (bool, Option<Option<u64>>) {
        let verdict = Verdict::of_status(
            StatusCode::from_u16(status).unwrap(),
            retry_after.map(Duration::from_secs),
            cooling,
        );
        (
            verdict.retry,
            verdict
                .failure
                .map(|failure| failure.cool.map(|cool| cool.as_secs())),
        )
    }

    // A9: what cools at once, and what only counts.
    #[test]
    fn a_429_cools_for_its_retry_after_and_others_by_the_rules() {
        assert_eq!(verdict(429, Some(60), COOLING), (true, Some(Some(60))));
        assert_eq!(verdict(429, None, COOLING), (true, Some(Some(5))));
        assert_eq!(verdict(408, None, COOLING), (true, Some(Some(5))));
        for status in [500, 502, 503, 504, 529, 599] {
            assert_eq!(
                verdict(status, None, COOLING),
                (true, Some(None)),
                "{status}"
            );
        }
    }

    #[test]
    fn the_clients_own_mistakes_go_straight_back_and_leave_the_deployment_alone() {
        for status in [400, 402, 403, 405, 409, 413, 415, 422] {
            assert_eq!(verdict(status, Some(9), COOLING), (false, None), "{status}");
        }
    }

    #[test]
    fn a_wrong_key_or_model_is_tried_elsewhere_if_there_is_an_elsewhere() {
        for status in [401, 404] {
            assert_eq!(verdict(status, None, COOLING), (false, Some(Some(5))));
            assert_eq!(
                verdict(
                    status,
                    None,
                    Cooling {
                        others: true,
                        ..COOLING
                    }
                ),
                (true, Some(Some(5)))
            );
        }
    }

    #[test]
    fn with_cooldowns_disabled_nothing_cools() {
        for status in [401, 404, 408, 429] {
            assert_eq!(
                verdict(
                    status,
                    Some(60),
                    Cooling {
                        disabled: true,
                        ..COOLING
                    }
                )
                .1,
                Some(None)
            );
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, text.parse().unwrap());
            retry_after(&headers, now)
        };
        assert_eq!(read("7"), Some(Duration::from_secs(7)));
        assert_eq!(read("0.5"), Some(Duration::from_millis(500)));
        assert_eq!(
            read("Sun, 06 Nov 1994 08:49:57 GMT"),
            Some(Duration::from_secs(20))
        );
        assert_eq!(read("1e30"), None);
        assert_eq!(read("999999"), Some(Duration::from_secs(86400)));
        for text in [
            "0",
            "-1",
            "soon",
            "nan",
            "inf",
            "",
            "Sun, 06 Nov 1994 08:49:00 GMT",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
