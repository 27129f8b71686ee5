//! On what terms a request waits: its priority and its time.

use std::time::Duration;

use crate::{
    Call, Config, GroupSettings,
    call::{LONGEST, Setting, seconds},
    problem::Problem,
    request::{Fields, steering::Steering},
};

/// The effective priority, and whether any source set one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Priority {
    pub(crate) effective: i32,
    pub(crate) named: bool,
    /// What the request itself names.
    pub(crate) asked: Option<i32>,
}

/// Body > call > key > group > router > 0; then no better than the key allows.
pub(crate) fn priority(
    call: &Call,
    fields: &Fields<'_>,
    group: &GroupSettings,
    config: &Config,
) -> Result<Priority, Problem> {
    let bad = || {
        Problem::invalid(
            "priority",
            format!(
                "Invalid value for 'priority': expected an integer between {} and {}",
                i32::MIN,
                i32::MAX
            ),
        )
    };
    // Exactly JSON's integers: `"1"`, `1.0`, `1e3` and `true` are no i32.
    let body = fields
        .get("priority")
        .map(|text| text.parse::<i32>().map_err(|_| bad()))
        .transpose()?;
    if call.priority_required && body.is_none() {
        return Err(Problem::invalid(
            "priority",
            "Missing required parameter: 'priority'.",
        ));
    }
    let beside = match (body, call.priority) {
        (None, Setting::Set(priority)) => Some(priority),
        (None, Setting::Invalid) => return Err(bad()),
        _ => None,
    };
    let key = call.key.as_ref();
    let asked = body.or(beside);
    let named = asked
        .or(key.and_then(|key| key.default_priority))
        .or(group.default_priority)
        .or(config.default_priority);
    let best = key.and_then(|key| key.best_priority).unwrap_or(i32::MIN);
    Ok(Priority {
        effective: named.unwrap_or(0).max(best),
        named: named.is_some(),
        asked,
    })
}

/// Body > call > configuration. `other`: the body's under LiteLLM's other name.
pub(crate) fn timeout(
    call: &Call,
    fields: &Fields<'_>,
    other: Option<Duration>,
    config: &Config,
) -> Result<Duration, Problem> {
    let time = match (fields.get("timeout"), call.timeout) {
        (Some(text), _) => seconds(text),
        (None, _) if other.is_some() => other,
        (None, Setting::Set(time)) => Some(time.min(LONGEST)).filter(|time| !time.is_zero()),
        (None, Setting::Invalid) => None,
        (None, Setting::Unset) => return Ok(config.timeout),
    };
    time.ok_or_else(|| {
        Problem::invalid(
            "timeout",
            "Invalid value for 'timeout': expected a number of seconds above 0",
        )
    })
}

/// How often a group is tried again: body > call; `None`: as the configuration says.
pub(crate) fn num_retries(
    call: &Call,
    steering: Option<&Steering>,
) -> Result<Option<u32>, Problem> {
    let body = steering.and_then(|steering| steering.num_retries);
    either(body, call.num_retries, "num_retries", "a whole number")
}

/// The time for one attempt of a streamed call: body > call; `None`: as the configuration says.
pub(crate) fn stream_timeout(
    call: &Call,
    steering: Option<&Steering>,
) -> Result<Option<Duration>, Problem> {
    let body = steering.and_then(|steering| steering.stream_timeout);
    let expected = "a number of seconds above 0";
    either(body, call.stream_timeout, "stream_timeout", expected)
}

fn either<T>(
    body: Option<T>,
    beside: Setting<T>,
    field: &'static str,
    expected: &str,
) -> Result<Option<T>, Problem> {
    match (body, beside) {
        (Some(value), _) | (None, Setting::Set(value)) => Ok(Some(value)),
        (None, Setting::Unset) => Ok(None),
        (None, Setting::Invalid) => Err(Problem::invalid(
            field,
            format!("Invalid value for '{field}': expected {expected}"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Endpoint, KeyPolicy};

    const BODY: &str = r#"{"model":"demo","messages":[]}"#;

    fn fields(value: &str, key: &str) -> String {
        format!(r#"{{"{key}":{value}}}"#)
    }

    fn config() -> Config {
        Config {
            timeout: Duration::from_secs(600),
            ..Config::demo()
        }
    }

    fn prioritised(call: &Call, body: &str, config: &Config) -> Result<(i32, bool), Problem> {
        let fields = serde_json::from_str(body).unwrap();
        priority(call, &fields, &config.groups[0], config)
            .map(|priority| (priority.effective, priority.named))
    }

    #[test]
    fn most_specific_priority_wins_and_zero_is_a_priority() {
        let mut config = config();
        let mut call = Call::new(Endpoint::ChatCompletions, BODY);
        assert_eq!(prioritised(&call, "{}", &config), Ok((0, false)));
        config.default_priority = Some(5);
        assert_eq!(prioritised(&call, "{}", &config), Ok((5, true)));
        config.groups[0].default_priority = Some(4);
        assert_eq!(prioritised(&call, "{}", &config), Ok((4, true)));
        call.key = Some(KeyPolicy {
            default_priority: Some(3),
            ..KeyPolicy::default()
        });
        assert_eq!(prioritised(&call, "{}", &config), Ok((3, true)));
        call.priority = Setting::Set(-2);
        assert_eq!(prioritised(&call, "{}", &config), Ok((-2, true)));
        assert_eq!(
            prioritised(&call, r#"{"priority":0}"#, &config),
            Ok((0, true))
        );
        assert_eq!(
            prioritised(&call, r#"{"priority":null}"#, &config),
            Ok((-2, true))
        );
    }

    #[test]
    fn priority_is_clamped_to_best_priority_of_the_key() {
        let mut call = Call::new(Endpoint::ChatCompletions, BODY);
        call.key = Some(KeyPolicy {
            best_priority: Some(500),
            ..KeyPolicy::default()
        });
        assert_eq!(
            prioritised(&call, r#"{"priority":-7}"#, &config()),
            Ok((500, true))
        );
        assert_eq!(
            prioritised(&call, r#"{"priority":1000}"#, &config()),
            Ok((1000, true))
        );
        assert_eq!(prioritised(&call, "{}", &config()), Ok((500, false)));
    }

    #[test]
    fn priority_accepts_any_i32_and_nothing_else() {
        let call = Call::new(Endpoint::ChatCompletions, BODY);
        for good in ["2147483647", "-2147483648", "0", "-0"] {
            let expected = good.parse().unwrap();
            assert_eq!(
                prioritised(&call, &fields(good, "priority"), &config()),
                Ok((expected, true))
            );
        }
        for bad in [
            "\"1\"",
            "1.0",
            "1.5",
            "1e0",
            "true",
            "2147483648",
            "-2147483649",
            "[1]",
            "{}",
        ] {
            let problem = prioritised(&call, &fields(bad, "priority"), &config()).unwrap_err();
            assert_eq!(
                (problem.status().as_u16(), problem.param()),
                (400, Some("priority")),
                "{bad}"
            );
        }
        let header = Call {
            priority: Setting::priority("high"),
            ..call
        };
        assert!(prioritised(&header, "{}", &config()).is_err());
    }

    #[test]
    fn required_priority_must_be_in_the_body() {
        let call = Call {
            priority_required: true,
            priority: Setting::priority("1"),
            ..Call::new(Endpoint::ChatCompletions, BODY)
        };
        assert!(prioritised(&call, r#"{"priority":null}"#, &config()).is_err());
        assert_eq!(
            prioritised(&call, r#"{"priority":0}"#, &config()),
            Ok((0, true))
        );
    }

    #[test]
    fn most_specific_timeout_wins() {
        let call = Call::new(Endpoint::ChatCompletions, BODY);
        let header = Call {
            timeout: Setting::seconds("7"),
            ..call.clone()
        };
        let timeout = |call: &Call, body: &str| {
            timeout(call, &serde_json::from_str(body).unwrap(), None, &config())
        };
        assert_eq!(timeout(&call, "{}"), Ok(Duration::from_secs(600)));
        assert_eq!(
            timeout(&header, r#"{"timeout":null}"#),
            Ok(Duration::from_secs(7))
        );
        assert_eq!(
            timeout(&header, r#"{"timeout":0.25}"#),
            Ok(Duration::from_millis(250))
        );
        assert!(timeout(&call, r#"{"timeout":1e300}"#).is_ok());
        for bad in ["0", "-1", "\"3\"", "true", "[]", "1e999", "1e-30"] {
            let result = timeout(&call, &fields(bad, "timeout"));
            assert_eq!(
                result.as_ref().err().map(Problem::param),
                (bad != "1e999").then_some(Some("timeout")),
                "{bad}: {result:?}"
            );
        }
        for bad in ["", "soon", "nan", "-inf", "0"] {
            let call = Call {
                timeout: Setting::seconds(bad),
                ..call.clone()
            };
            assert!(timeout(&call, "{}").is_err(), "{bad}");
        }
    }
}
