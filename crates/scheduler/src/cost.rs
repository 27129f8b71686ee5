//! Amounts by kind: what a call counts against limits.

use std::ops::{Add, AddAssign, SubAssign};

use serde::{Deserialize, Serialize};

use crate::{
    config::LimitKind,
    rules::{MAX_AMOUNT, MAX_TOTAL},
};

/// Tokens by kind. A limit of [`LimitKind::Tokens`] counts the sum of both.
///
/// A single number is a total whose parts are unknown. It counts as input: a limit of the sum counts all of it, a limit of output tokens
/// nothing. With a limit of output tokens both numbers are needed.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(into = "(u64, u64)", from = "(u64, u64)")]
pub struct Tokens {
    /// Tokens of the request: prompt, tools, images.
    pub input: u64,
    /// Tokens of the answer, reasoning included.
    pub output: u64,
}

impl Tokens {
    /// No tokens.
    pub const ZERO: Self = Self::new(0, 0);
    /// The highest number of each kind.
    pub const MAX: Self = Self::new(u64::MAX, u64::MAX);

    /// Tokens of each kind.
    #[must_use]
    pub const fn new(input: u64, output: u64) -> Self {
        Self { input, output }
    }

    /// The sum of both kinds.
    #[must_use]
    pub const fn total(self) -> u64 {
        self.input.saturating_add(self.output)
    }

    /// The lesser of each kind.
    #[must_use]
    pub fn min(self, other: Self) -> Self {
        Self::new(self.input.min(other.input), self.output.min(other.output))
    }

    /// The larger of each kind.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self::new(self.input.max(other.input), self.output.max(other.output))
    }

    /// The part of each kind above that of `other`.
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self::new(
            self.input.saturating_sub(other.input),
            self.output.saturating_sub(other.output),
        )
    }

    /// The amounts within the bounds of one charge.
    pub(crate) fn bounded(self) -> Self {
        self.min(Self::new(MAX_AMOUNT, MAX_AMOUNT))
    }
}

/// A total whose parts are unknown.
impl From<u64> for Tokens {
    fn from(total: u64) -> Self {
        Self::new(total, 0)
    }
}

impl From<(u64, u64)> for Tokens {
    fn from((input, output): (u64, u64)) -> Self {
        Self::new(input, output)
    }
}

impl From<Tokens> for (u64, u64) {
    fn from(Tokens { input, output }: Tokens) -> Self {
        (input, output)
    }
}

impl Add for Tokens {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self::new(self.input + other.input, self.output + other.output)
    }
}

impl AddAssign for Tokens {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl SubAssign for Tokens {
    fn sub_assign(&mut self, other: Self) {
        self.input -= other.input;
        self.output -= other.output;
    }
}

/// The number of kinds that are counted in windows.
pub const KINDS: usize = 4;

/// A [`Cost`] has so many amounts: requests, input and output tokens.
pub(crate) const AMOUNTS: usize = 3;

/// The kinds that are counted in windows, in the order of limits and amounts.
pub const COUNTED: [LimitKind; KINDS] = [
    LimitKind::Requests,
    LimitKind::Tokens,
    LimitKind::InputTokens,
    LimitKind::OutputTokens,
];

/// Requests and tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(into = "(u64, u64, u64)", from = "(u64, u64, u64)")]
pub struct Cost {
    /// Calls.
    pub requests: u64,
    /// Tokens.
    pub tokens: Tokens,
}

impl Cost {
    /// One call of so many tokens.
    #[must_use]
    pub const fn call(tokens: Tokens) -> Self {
        Self {
            requests: 1,
            tokens,
        }
    }

    /// The tokens of a call above its reservation.
    pub(crate) const fn excess(tokens: Tokens) -> Self {
        Self {
            requests: 0,
            tokens,
        }
    }

    /// The amounts that count against limits, in the order of [`COUNTED`].
    #[must_use]
    pub const fn amounts(self) -> [u64; KINDS] {
        let Tokens { input, output } = self.tokens;
        [self.requests, self.tokens.total(), input, output]
    }

    /// The lesser of each kind.
    #[must_use]
    pub fn min(self, other: Self) -> Self {
        Self {
            requests: self.requests.min(other.requests),
            tokens: self.tokens.min(other.tokens),
        }
    }

    /// The larger of each kind.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self {
            requests: self.requests.max(other.requests),
            tokens: self.tokens.max(other.tokens),
        }
    }

    /// The part of each kind above that of `other`.
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(other.requests),
            tokens: self.tokens.saturating_sub(other.tokens),
        }
    }

    /// The highest sum of all charges of a deployment.
    pub(crate) const MAX_TOTAL: Self = Self {
        requests: MAX_TOTAL,
        tokens: Tokens::new(MAX_TOTAL, MAX_TOTAL),
    };

    /// The amounts within the bounds of one charge.
    pub(crate) fn bounded(self) -> Self {
        Self {
            requests: self.requests.min(MAX_AMOUNT),
            tokens: self.tokens.bounded(),
        }
    }
}

impl From<(u64, u64, u64)> for Cost {
    fn from((requests, input, output): (u64, u64, u64)) -> Self {
        let tokens = Tokens::new(input, output);
        Self { requests, tokens }
    }
}

impl From<Cost> for (u64, u64, u64) {
    fn from(Cost { requests, tokens }: Cost) -> Self {
        (requests, tokens.input, tokens.output)
    }
}

impl AddAssign for Cost {
    fn add_assign(&mut self, other: Self) {
        self.requests += other.requests;
        self.tokens += other.tokens;
    }
}

impl SubAssign for Cost {
    fn sub_assign(&mut self, other: Self) {
        self.requests -= other.requests;
        self.tokens -= other.tokens;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn total_alone_counts_as_input() {
        let tokens = Tokens::from(7);
        assert_eq!((tokens.input, tokens.output, tokens.total()), (7, 0, 7));
    }

    #[test]
    fn amounts_are_listed_like_the_kinds_and_saturate() {
        let cost = Cost::call(Tokens::new(20, 3));
        assert_eq!(cost.amounts(), [1, 23, 20, 3]);
        assert_eq!(Tokens::MAX.total(), u64::MAX);
    }

    #[test]
    fn kinds_are_compared_separately() {
        let (a, b) = (Tokens::new(5, 1), Tokens::new(2, 4));
        assert_eq!(a.min(b), Tokens::new(2, 1));
        assert_eq!(a.max(b), Tokens::new(5, 4));
        assert_eq!(a.saturating_sub(b), Tokens::new(3, 0));
    }

    #[test]
    fn sum_of_two_totals_is_exact_in_a_double() {
        assert!(Cost::MAX_TOTAL.tokens.total() < 1 << 53);
    }
}
