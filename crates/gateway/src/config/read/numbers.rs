//! Numbers as the file writes them: counts, times, priorities.

use std::time::Duration;

use super::{
    Section,
    tree::{Value, octal},
};
use crate::config::{ConfigError, Kind};

/// What a priority is, for messages.
const PRIORITY: &str = "a whole number between -2147483648 and 2147483647";

/// Longer times mean "for ever" here; the clock's arithmetic stays far from its ends.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

type Result<T> = std::result::Result<T, ConfigError>;

/// Numbers of YAML 1.1 that are not what they look like: `010` is 8, `1:30` is 90.
fn is_unexpected(raw: &str) -> bool {
    octal(raw).is_some_and(|number| number.abs() > 7) || raw.contains(':')
}

fn shown(number: &Value) -> String {
    match number {
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        other => other.kind().into(),
    }
}

impl Section<'_> {
    /// A number: written as one, or as a text that is one (environment variables are texts).
    pub(in crate::config) fn number(&self, key: &str, expected: &str) -> Result<Option<f64>> {
        let Some(node) = self.node(key) else {
            return Ok(None);
        };
        if node.raw.as_deref().is_some_and(is_unexpected) {
            let text = format!("is read as {}, as PyYAML reads it", shown(&node.value));
            self.tell(Kind::READ_AS_PYYAML, key, &text);
        }
        let number = match &node.value {
            #[expect(
                clippy::cast_precision_loss,
                reason = "checked by its users to be far below 2^53"
            )]
            Value::Integer(number) => Some(*number as f64),
            Value::Float(number) => Some(*number),
            Value::Text(text) => self
                .resolve(key, text)?
                .trim()
                .replace('_', "")
                .parse()
                .ok(),
            _ => None,
        };
        match number {
            Some(number) if number.is_finite() => Ok(Some(number)),
            _ => Err(self.error(
                key,
                &format!("expected {expected}, found {}", node.value.kind()),
            )),
        }
    }

    /// A positive number.
    pub(in crate::config) fn positive(&self, key: &str) -> Result<Option<f64>> {
        let expected = "a number above 0";
        match self.number(key, expected)? {
            Some(number) if number <= 0.0 => Err(self.error(key, &format!("expected {expected}"))),
            other => Ok(other),
        }
    }

    /// A whole number of at least `least`. `1e6` and `"10"` are whole numbers.
    pub(in crate::config) fn whole(&self, key: &str, least: u64) -> Result<Option<u64>> {
        let expected = format!("a whole number of at least {least}");
        let Some(number) = self.number(key, &expected)? else {
            return Ok(None);
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "checked: whole, not negative, below 2^53"
        )]
        #[expect(clippy::cast_precision_loss, reason = "`least` is a small constant")]
        if number.fract() == 0.0 && number >= least as f64 && number <= 9e15 {
            Ok(Some(number as u64))
        } else {
            Err(self.error(key, &format!("expected {expected}")))
        }
    }

    /// As [`Self::whole`], for counts that are small by nature.
    pub(in crate::config) fn small(&self, key: &str, least: u64) -> Result<Option<u32>> {
        self.whole(key, least)?
            .map(|number| {
                u32::try_from(number)
                    .map_err(|_| self.error(key, "expected a number below 4294967296"))
            })
            .transpose()
    }

    /// A priority: any i32.
    pub(in crate::config) fn priority(&self, key: &str) -> Result<Option<i32>> {
        self.priority_as(key, PRIORITY)
    }

    /// A priority, or `none` for no such thing; where the key is absent, what stands elsewhere. (Null is absent, here as everywhere.)
    pub(in crate::config) fn priority_or_none(
        &self,
        key: &str,
        elsewhere: Option<i32>,
    ) -> Result<Option<i32>> {
        let Some(node) = self.node(key) else {
            return Ok(elsewhere);
        };
        match &node.value {
            Value::Text(text) if self.resolve(key, text)?.trim() == "none" => Ok(None),
            _ => self.priority_as(key, &format!("{PRIORITY}, or none")),
        }
    }

    fn priority_as(&self, key: &str, expected: &str) -> Result<Option<i32>> {
        let Some(number) = self.number(key, expected)? else {
            return Ok(None);
        };
        #[expect(clippy::cast_possible_truncation, reason = "checked: whole and an i32")]
        if number.fract() == 0.0 && (f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&number) {
            Ok(Some(number as i32))
        } else {
            Err(self.error(key, &format!("expected {expected}")))
        }
    }

    /// A time above zero, in units of `unit` seconds.
    fn time(&self, key: &str, unit: f64, expected: &str) -> Result<Option<Duration>> {
        let Some(number) = self.number(key, expected)? else {
            return Ok(None);
        };
        match Duration::try_from_secs_f64(number * unit) {
            Ok(time) if !time.is_zero() => Ok(Some(time.min(LONGEST))),
            Err(_) if number > 0.0 => Ok(Some(LONGEST)),
            _ => Err(self.error(key, &format!("expected {expected}"))),
        }
    }

    /// Seconds above zero.
    pub(in crate::config) fn seconds(&self, key: &str) -> Result<Option<Duration>> {
        self.time(key, 1.0, "a number of seconds above 0")
    }

    /// Seconds, as LiteLLM reads its times: 0 says nothing.
    pub(in crate::config) fn seconds_if_any(&self, key: &str) -> Result<Option<Duration>> {
        let time = self.seconds_or_zero(key)?;
        Ok(time.filter(|time| !time.is_zero()))
    }

    /// Seconds, zero allowed.
    pub(in crate::config) fn seconds_or_zero(&self, key: &str) -> Result<Option<Duration>> {
        match self.number(key, "a number of seconds")? {
            Some(0.0) => Ok(Some(Duration::ZERO)),
            _ => self.time(key, 1.0, "a number of seconds, 0 or more"),
        }
    }

    /// Seconds, or a text with a unit: `2s`, `500ms`, `1m`. Zero is allowed.
    pub(in crate::config) fn time_with_unit(&self, key: &str) -> Result<Option<Duration>> {
        let Some(text) = self.text(key)? else {
            return Ok(None);
        };
        let text = text.trim();
        let units = [("ms", 0.001), ("s", 1.0), ("m", 60.0), ("", 1.0)];
        let seconds = units.iter().find_map(|(unit, seconds)| {
            let number = text.strip_suffix(unit)?.trim_end().parse::<f64>().ok()?;
            Some(number * seconds)
        });
        match seconds.map(Duration::try_from_secs_f64) {
            Some(Ok(time)) => Ok(Some(time.min(LONGEST))),
            _ => Err(self.error(
                key,
                "expected a time, for example 2s, 500ms or 2.5 (seconds)",
            )),
        }
    }

    /// Milliseconds above zero.
    pub(in crate::config) fn milliseconds(&self, key: &str) -> Result<Option<Duration>> {
        self.time(key, 0.001, "a number of milliseconds above 0")
    }
}
