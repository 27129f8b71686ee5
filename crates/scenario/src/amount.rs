//! Quantities as people write them: times with a unit, and distributions.

use std::{fmt, str::FromStr, time::Duration};

use rand::{Rng, RngExt as _};
use rand_distr::{Distribution as _, Exp1, StandardNormal};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use thiserror::Error;

/// A length of time: `1.5` (seconds), `300ms`, `10s`, `1m 30s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Time(pub Duration);

/// What cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AmountError {
    /// Not a time.
    #[error("`{0}` is no time: write seconds (1.5) or a unit (300ms, 10s, 2m)")]
    Time(String),
    /// Not a distribution.
    #[error(
        "`{0}` is no distribution: write a value, uniform(LEAST, MOST), exponential(MEAN) or lognormal(MEDIAN, SIGMA)"
    )]
    Spread(String),
}

impl FromStr for Time {
    type Err = AmountError;

    fn from_str(text: &str) -> Result<Self, AmountError> {
        let seconds = text.trim().parse::<f64>().ok();
        let time = match seconds {
            Some(seconds) => Duration::try_from_secs_f64(seconds).ok(),
            None => humantime::parse_duration(text.trim()).ok(),
        };
        time.map(Self)
            .ok_or_else(|| AmountError::Time(text.to_owned()))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

/// How a quantity spreads. Times are in seconds, speeds in tokens per second. No sample is negative.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Spread {
    /// Always the same.
    Constant(f64),
    /// Anything between two values alike.
    Uniform(f64, f64),
    /// By its mean.
    Exponential(f64),
    /// By its median and the sigma of its logarithm.
    LogNormal(f64, f64),
}

impl Spread {
    /// One value.
    pub fn sample(self, random: &mut impl Rng) -> f64 {
        match self {
            Self::Constant(value) => value,
            Self::Uniform(least, most) => least + (most - least) * random.random::<f64>(),
            Self::Exponential(mean) => {
                let unit: f64 = Exp1.sample(random);
                mean * unit
            }
            Self::LogNormal(median, sigma) => {
                let normal: f64 = StandardNormal.sample(random);
                median * (sigma * normal).exp()
            }
        }
    }

    /// One value, as a time. Longer than a day is a day.
    pub fn time(self, random: &mut impl Rng) -> Duration {
        Duration::from_secs_f64(self.sample(random).clamp(0.0, 86_400.0))
    }

    /// One value, as a number of things.
    pub fn count(self, random: &mut impl Rng) -> u64 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "never negative, and saturates"
        )]
        let count = self.sample(random).round() as u64;
        count
    }
}

impl FromStr for Spread {
    type Err = AmountError;

    fn from_str(text: &str) -> Result<Self, AmountError> {
        let wrong = || AmountError::Spread(text.to_owned());
        let value = |text: &str| -> Result<f64, AmountError> {
            let text = text.trim();
            let value = match text.parse::<f64>() {
                Ok(value) => value,
                Err(_) => text.parse::<Time>().map_err(|_| wrong())?.0.as_secs_f64(),
            };
            let sound = value.is_finite() && value >= 0.0;
            sound.then_some(value).ok_or_else(wrong)
        };
        let Some((name, rest)) = text.split_once('(') else {
            return Ok(Self::Constant(value(text)?));
        };
        let inside = rest.trim_end().strip_suffix(')').ok_or_else(wrong)?;
        let values: Vec<f64> = inside.split(',').map(value).collect::<Result<_, _>>()?;
        match (name.trim(), values.as_slice()) {
            ("uniform", &[least, most]) if least <= most => Ok(Self::Uniform(least, most)),
            ("exponential", &[mean]) => Ok(Self::Exponential(mean)),
            ("lognormal", &[median, sigma]) => Ok(Self::LogNormal(median, sigma)),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Constant(value) => write!(f, "{value}"),
            Self::Uniform(least, most) => write!(f, "uniform({least}, {most})"),
            Self::Exponential(mean) => write!(f, "exponential({mean})"),
            Self::LogNormal(median, sigma) => write!(f, "lognormal({median}, {sigma})"),
        }
    }
}

/// A YAML or JSON scalar: a number or a string.
#[derive(Deserialize)]
#[serde(untagged)]
enum Scalar {
    Number(f64),
    Text(String),
}

impl Scalar {
    fn text(self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text,
        }
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Scalar::deserialize(deserializer)?.text();
        text.parse().map_err(D::Error::custom)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.0.as_secs_f64())
    }
}

impl<'de> Deserialize<'de> for Spread {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Scalar::deserialize(deserializer)?.text();
        text.parse().map_err(D::Error::custom)
    }
}

impl Serialize for Spread {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng as _, rngs::StdRng};

    use super::*;

    #[test]
    fn times_and_distributions_parse_from_text() {
        assert_eq!("1.5".parse(), Ok(Time(Duration::from_millis(1500))));
        assert_eq!("300ms".parse(), Ok(Time(Duration::from_millis(300))));
        assert_eq!("1m 30s".parse(), Ok(Time(Duration::from_secs(90))));
        assert_eq!("0.2".parse(), Ok(Spread::Constant(0.2)));
        assert_eq!("uniform(100ms, 2s)".parse(), Ok(Spread::Uniform(0.1, 2.0)));
        for text in [
            "",
            "-1",
            "uniform(2, 1)",
            "uniform(1)",
            "normal(1, 2)",
            "exponential(1",
            "nan",
        ] {
            assert!(text.parse::<Spread>().is_err(), "{text}");
        }
        for text in ["", "-1", "soon", "1e300"] {
            assert!(text.parse::<Time>().is_err(), "{text}");
        }
    }

    #[test]
    fn amounts_round_trip_through_their_text() {
        for text in [
            "0.2",
            "uniform(0.1, 2)",
            "exponential(3)",
            "lognormal(0.2, 0.5)",
        ] {
            let spread: Spread = text.parse().unwrap();
            assert_eq!(spread.to_string(), text);
        }
    }

    #[test]
    fn samples_have_the_configured_mean_or_median() {
        let mut random = StdRng::seed_from_u64(1);
        let mut sorted = |spread: Spread| {
            let mut samples: Vec<f64> = (0..20_001).map(|_| spread.sample(&mut random)).collect();
            samples.sort_by(f64::total_cmp);
            samples
        };
        let mean = |samples: &[f64]| samples.iter().sum::<f64>() / samples.len() as f64;
        assert!((mean(&sorted(Spread::Exponential(2.0))) - 2.0).abs() < 0.1);
        let uniform = sorted(Spread::Uniform(1.0, 3.0));
        assert!((mean(&uniform) - 2.0).abs() < 0.05);
        assert!(uniform[0] >= 1.0 && uniform[20_000] <= 3.0);
        assert!((sorted(Spread::LogNormal(2.0, 0.5))[10_000] - 2.0).abs() < 0.1);
    }
}
