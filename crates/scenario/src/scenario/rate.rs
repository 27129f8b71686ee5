//! Rates as people write them.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Arrivals in a second: `20/s`, or `0.9x` of what the provider's requests per window allow.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rate {
    /// In a second.
    PerSecond(f64),
    /// Times the limit.
    OfLimit(f64),
}

impl Rate {
    /// In a second; `limit` is what the provider allows.
    pub fn per_second(self, limit: Option<f64>) -> Option<f64> {
        match self {
            Self::PerSecond(rate) => Some(rate),
            Self::OfLimit(times) => limit.map(|limit| limit * times),
        }
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no rate: write 20/s, or 0.9x for a part of the limit");
        let (number, make): (_, fn(f64) -> Self) = match text.trim() {
            text if text.ends_with("/s") => (&text[..text.len() - 2], Self::PerSecond),
            text if text.ends_with('x') => (&text[..text.len() - 1], Self::OfLimit),
            _ => return Err(wrong()),
        };
        let number: f64 = number.trim().parse().map_err(|_| wrong())?;
        let sound = number.is_finite() && number > 0.0;
        sound.then(|| make(number)).ok_or_else(wrong)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PerSecond(rate) => write!(f, "{rate}/s"),
            Self::OfLimit(times) => write!(f, "{times}x"),
        }
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
