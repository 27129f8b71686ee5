//! What a ticket asks for.

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::{bounds, cost::Tokens, units::Seq};

/// What a ticket asks for: its priority, its cost, and whose share that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Claim {
    /// Lower is better.
    pub priority: i32,
    /// Tokens to reserve, 0 where they do not matter.
    pub tokens: Tokens,
    /// Whose it is. Matters in a group with [`fair`](crate::GroupConfig::fair) shares only.
    pub share: Share,
    /// Deployments that this request has tried in vain: bit n for the n-th of its instance's configuration. It prefers others.
    pub tried: u64,
}

/// Of this many deployments it is remembered whether a request has tried them: so many bits are exact in a double.
pub(crate) const MOST_TRIED: usize = 52;

impl Claim {
    /// Nobody's in particular. `tokens`: by kind, or a total ([`Tokens`]).
    #[must_use]
    pub fn new(priority: i32, tokens: impl Into<Tokens>) -> Self {
        Self {
            priority,
            tokens: tokens.into(),
            share: Share::default(),
            tried: 0,
        }
    }

    /// Remembers that a call to the n-th deployment has failed.
    pub(crate) fn has_tried(&mut self, deployment: usize) {
        if deployment < MOST_TRIED {
            self.tried |= 1 << deployment;
        }
    }

    /// Cut to what a double tells apart. Tokens above every limit stay above.
    pub(crate) fn bounded(mut self) -> Self {
        self.tokens = self.tokens.bounded();
        bounds::tenant(&mut self.share.tenant);
        bounds::cost(&mut self.share.cost);
        bounds::tried(&mut self.tried);
        self
    }
}

/// A claim on its way into the queue, and where it stood if it was there before (A8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Entry {
    /// What the ticket asks for.
    pub claim: Claim,
    /// Number of the first entry; 0 before.
    pub arrival: Seq,
    /// With fair shares, the start tag of its service, if it has had one; else 0.
    pub start: u64,
}

impl Entry {
    /// Of a ticket that was in no queue yet.
    #[must_use]
    pub fn new(claim: Claim) -> Self {
        Self {
            claim,
            arrival: Seq::NONE,
            start: 0,
        }
    }
}

/// Whose a ticket is, and what it takes of its tenant's share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord, Serialize)]
pub struct Share {
    /// A tenant's number, below 2^52; 0: nobody's in particular.
    pub tenant: u64,
    /// In ten-thousandths of a turn, at most [`MAX_COST`].
    pub cost: u64,
}

/// One turn, the cost of one request at weight 1: small, so that the sum of all costs stays exact in a double for decades, and large
/// enough for weights up to a hundred.
pub const TURN: u64 = 10_000;

pub(crate) const MAX_TENANT: u64 = (1 << 52) - 1;

/// The most that one ticket can cost: a hundred thousand turns.
pub const MAX_COST: u64 = 100_000 * TURN;

impl Share {
    /// A ticket of the tenant of this name that takes so many turns: 1 / weight for a request. Cut to what can be told apart, one
    /// ten-thousandth at least, so that a tenant's tickets stay in their order.
    #[must_use]
    pub fn new(tenant: &str, turns: f64) -> Self {
        let hash = Sha256::digest(tenant.as_bytes());
        let number = hash
            .iter()
            .take(7)
            .fold(0, |number, byte| number << 8 | u64::from(*byte));
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a float is cut to what fits, and then to the most there is"
        )]
        let cost = ((turns * TURN as f64).round() as u64).clamp(1, MAX_COST);
        Self {
            // Two of a million tenants have the same number once in ten thousand such fleets; they share a share then.
            tenant: (number >> 4).max(1),
            cost,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::MAX_LIMIT;

    #[test]
    fn a_claim_stays_below_what_is_exact() {
        let share = Share {
            tenant: u64::MAX,
            cost: u64::MAX,
        };
        let claim = Claim {
            share,
            ..Claim::new(0, Tokens::MAX)
        };
        let Claim { tokens, share, .. } = claim.bounded();
        assert!(tokens.input > MAX_LIMIT && tokens.output > MAX_LIMIT && tokens.total() < 1 << 53);
        assert_eq!((share.tenant, share.cost), (MAX_TENANT, MAX_COST));
        assert_eq!(Claim::new(1, 7).bounded(), Claim::new(1, 7));
    }

    #[test]
    fn names_are_told_apart_and_costs_are_bounded() {
        let one = Share::new("a", 1.0);
        assert_eq!(one, Share::new("a", 1.0));
        assert_ne!(one.tenant, Share::new("b", 1.0).tenant);
        assert!(one.tenant < 1 << 52);
        let cost = |turns| Share::new("", turns).cost;
        assert_eq!(
            (cost(1.0), cost(0.5), cost(1.0 / 3.0)),
            (10_000, 5_000, 3_333)
        );
        assert_eq!((cost(0.0), cost(f64::NAN), cost(-1.0)), (1, 1, 1));
        assert_eq!((cost(1e9), cost(f64::INFINITY)), (MAX_COST, MAX_COST));
    }
}
