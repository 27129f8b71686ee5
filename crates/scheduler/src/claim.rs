//! What a ticket asks for.

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::{bounds, cost::Tokens, units::Seq};

/// What a ticket asks for: its priority, its tokens, and its tenant's share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Claim {
    /// Lower is better.
    pub priority: i32,
    /// Tokens to reserve, 0 without a limit of tokens.
    pub tokens: Tokens,
    /// The tenant, and the cost of the service. Used only in a group with [`fair`](crate::GroupConfig::fair) shares.
    pub share: Share,
    /// The number of the caller's key, below 2^52; 0: none. Tickets of a paused key are held ([`Change::PauseKey`](crate::Change::PauseKey)).
    pub key: u64,
    /// Deployments that the step grants only where no other has room (A8): bit n for the n-th of its instance's configuration. Those that the
    /// request has failed on are added here.
    pub tried: u64,
    /// An earlier call of this request has failed: a further failure does not count against the health of its deployment (A9).
    pub failed: bool,
}

/// [`Claim::tried`] covers this many deployments: so many bits are exact in a double.
pub(crate) const MOST_TRIED: usize = 52;

impl Claim {
    /// A claim without a tenant. `tokens`: by kind, or a total ([`Tokens`]).
    #[must_use]
    pub fn new(priority: i32, tokens: impl Into<Tokens>) -> Self {
        Self {
            priority,
            tokens: tokens.into(),
            share: Share::default(),
            key: 0,
            tried: 0,
            failed: false,
        }
    }

    /// A call to the n-th deployment has failed.
    pub(crate) fn has_failed_on(&mut self, deployment: usize) {
        self.failed = true;
        if deployment < MOST_TRIED {
            self.tried |= 1 << deployment;
        }
    }

    /// The claim within the bounds, exact in a double. Tokens above every limit stay above.
    pub(crate) fn bounded(mut self) -> Self {
        self.tokens = self.tokens.bounded();
        bounds::tenant(&mut self.share.tenant);
        bounds::cost(&mut self.share.cost);
        bounds::tenant(&mut self.key);
        bounds::tried(&mut self.tried);
        self
    }
}

/// An entry of the queue: a claim, and the position of a ticket that enters again (A8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Entry {
    /// What the ticket asks for.
    pub claim: Claim,
    /// Sequence number of the first entry; 0 before.
    pub arrival: Seq,
    /// With fair shares, the start tag of its service, if an earlier entry has got it; else 0.
    pub start: u64,
}

impl Entry {
    /// The first entry of a ticket.
    #[must_use]
    pub fn new(claim: Claim) -> Self {
        Self {
            claim,
            arrival: Seq::NONE,
            start: 0,
        }
    }
}

/// The tenant of a ticket, and the cost of its service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord, Serialize)]
pub struct Share {
    /// The tenant's number, below 2^52; 0: no tenant.
    pub tenant: u64,
    /// In ten-thousandths of a request of weight 1, at most [`MAX_COST`].
    pub cost: u64,
}

/// The cost of one request of weight 1: small enough that the sum of all costs stays exact in a double for decades, and large
/// enough for weights up to a hundred.
pub const UNIT_COST: u64 = 10_000;

pub(crate) const MAX_TENANT: u64 = (1 << 52) - 1;

/// The highest cost of a ticket: a hundred thousand requests of weight 1.
pub const MAX_COST: u64 = 100_000 * UNIT_COST;

impl Share {
    /// The share of a ticket of the tenant of this name. `service`: in requests of weight 1, so 1 / weight for a request. It is rounded
    /// to ten-thousandths, at least one, so that a tenant's tickets stay in their order.
    #[must_use]
    pub fn new(tenant: &str, service: f64) -> Self {
        let hash = Sha256::digest(tenant.as_bytes());
        let number = hash
            .iter()
            .take(7)
            .fold(0, |number, byte| number << 8 | u64::from(*byte));
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the conversion saturates, and clamp bounds the result"
        )]
        let cost = ((service * UNIT_COST as f64).round() as u64).clamp(1, MAX_COST);
        Self {
            // In one of ten thousand fleets of a million tenants two have the same number: they then have one tenant queue.
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
    fn claim_is_cut_above_every_limit_and_exact_in_a_double() {
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
    fn tenant_number_depends_on_the_name_and_costs_are_bounded() {
        let share = Share::new("a", 1.0);
        assert_eq!(share, Share::new("a", 1.0));
        assert_ne!(share.tenant, Share::new("b", 1.0).tenant);
        assert!(share.tenant < 1 << 52);
        let cost = |service| Share::new("", service).cost;
        assert_eq!(
            (cost(1.0), cost(0.5), cost(1.0 / 3.0)),
            (10_000, 5_000, 3_333)
        );
        assert_eq!((cost(0.0), cost(f64::NAN), cost(-1.0)), (1, 1, 1));
        assert_eq!((cost(1e9), cost(f64::INFINITY)), (MAX_COST, MAX_COST));
    }
}
