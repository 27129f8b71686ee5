//! Integers that must not be mistaken for each other. All travel as plain integers below 2^53.

use std::{
    fmt,
    ops::{Add, AddAssign, Div, Mul, Sub},
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// A sequence number, which a group draws from its counter (P5): the later drawn, the higher. 0 is never drawn.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Seq(pub u64);

impl Seq {
    /// No number.
    pub const NONE: Self = Self(0);
    /// Higher than all numbers that are drawn.
    pub const MAX: Self = Self(u64::MAX);

    /// The lowest number that is drawn at a time of the group clock.
    pub const fn at(clock: Micros) -> Self {
        Self(clock.0)
    }
}

/// The sequence number that is drawn so many draws later.
impl Add<u64> for Seq {
    type Output = Self;

    fn add(self, later: u64) -> Self {
        Self(self.0 + later)
    }
}

/// The highest number that may have been drawn after so long: numbers grow no faster than the clock (P5).
impl Add<Micros> for Seq {
    type Output = Self;

    fn add(self, time: Micros) -> Self {
        Self(self.0 + time.0)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The id of a session: drawn from the same counter when it opens, and never used again.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct SessionId(pub u64);

impl SessionId {
    /// No session.
    pub const NONE: Self = Self(0);
    /// Higher than all ids.
    pub const MAX: Self = Self(u64::MAX);
}

/// A duration, or a time on a clock, in microseconds.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Micros(pub u64);

impl Micros {
    /// No time at all.
    pub const ZERO: Self = Self(0);
    /// A second.
    pub const SECOND: Self = Self(1_000_000);
    /// A time that never comes.
    pub const MAX: Self = Self(u64::MAX);

    /// Zero where the other one is longer, or later.
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl Add for Micros {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}

impl AddAssign for Micros {
    fn add_assign(&mut self, other: Self) {
        self.0 += other.0;
    }
}

impl Sub for Micros {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self(self.0 - other.0)
    }
}

impl Mul<u64> for Micros {
    type Output = Self;

    fn mul(self, times: u64) -> Self {
        Self(self.0 * times)
    }
}

impl Mul<Micros> for u64 {
    type Output = Micros;

    fn mul(self, time: Micros) -> Micros {
        time * self
    }
}

impl Div<u64> for Micros {
    type Output = Self;

    fn div(self, parts: u64) -> Self {
        Self(self.0 / parts)
    }
}

/// What is too long to be counted is as long as can be.
impl From<Duration> for Micros {
    fn from(duration: Duration) -> Self {
        Self(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
    }
}

impl From<Micros> for Duration {
    fn from(time: Micros) -> Self {
        Self::from_micros(time.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_travel_as_plain_integers() {
        let units = (Seq(7), SessionId(300), Micros(1 << 40));
        let bytes = rmp_serde::to_vec(&units).unwrap();
        assert_eq!(
            bytes,
            rmp_serde::to_vec(&(7_u64, 300_u64, 1_u64 << 40)).unwrap()
        );
        assert_eq!(
            rmp_serde::from_slice::<(Seq, SessionId, Micros)>(&bytes).unwrap(),
            units
        );
    }

    #[test]
    fn longest_duration_is_the_longest_time() {
        assert_eq!(Micros::from(Duration::MAX), Micros::MAX);
        assert_eq!(Micros::from(Duration::from_millis(3)), Micros(3_000));
        assert_eq!(Duration::from(Micros(3_000)), Duration::from_millis(3));
    }
}
