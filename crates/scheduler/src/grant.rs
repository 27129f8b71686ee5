//! A grant on the instance that it was made for.

use crate::{claim::Entry, message::Grant};

/// A grant on its instance, from the answer that brings it to the permit's return.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldGrant {
    /// As the step made it.
    pub grant: Grant,
    /// The ticket that it was made for, and where that stood.
    pub entry: Entry,
    /// The number of that entry.
    pub entered: u64,
    /// Index of the deployment in the instance's configuration.
    pub deployment: usize,
    /// There is a limit that the call must not exceed: P9 (dispatch within the session) holds for it.
    pub limited: bool,
    /// The session that it was made in.
    pub session: u64,
}

impl HeldGrant {
    /// As a header shows them.
    pub fn numbers(&self) -> Numbers {
        Numbers {
            arrival: self.grant.arrival,
            entered: self.entered,
            granted: self.grant.granted,
            score: self.grant.score,
            start: (self.grant.start > 0).then_some(self.grant.start),
        }
    }
}

/// The numbers of a grant: `x-vorrang-ticket: arrival=A, entered=E, granted=G`, with fair shares `start=T`, with aging `score=S`.
///
/// Ticket b was inverted by a iff `entered(b) < granted(a) < granted(b)` and (score, start, arrival) of b is less.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numbers {
    /// Drawn at the first entry; orders.
    pub arrival: u64,
    /// Drawn at this (re-)entry.
    pub entered: u64,
    /// Drawn at the grant.
    pub granted: u64,
    /// The priority; with aging the arrival (with fair shares, the start) + priority x what a level is worth, in microseconds.
    pub score: i64,
    /// With fair shares, when its tenant's turn begins: in ten-thousandths of a turn; with aging in microseconds, like an arrival.
    pub start: Option<u64>,
}
