//! Integers that must not be mistaken for each other. All travel as plain integers below 2^53.

use std::{fmt, ops::Add};

use serde::{Deserialize, Serialize};

/// A sequence number, which a group draws from its counter (P5): the later drawn, the higher. 0 is never drawn.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Seq(pub u64);

impl Seq {
    /// Where there is none.
    pub const NONE: Self = Self(0);
    /// Above all that are drawn.
    pub const MAX: Self = Self(u64::MAX);
}

/// The number that was drawn, or may be, so many later.
impl Add<u64> for Seq {
    type Output = Self;

    fn add(self, later: u64) -> Self {
        Self(self.0 + later)
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
    /// Where there is none.
    pub const NONE: Self = Self(0);
    /// Above all that there are.
    pub const MAX: Self = Self(u64::MAX);
}
