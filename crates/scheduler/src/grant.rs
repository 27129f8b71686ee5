//! A grant on the instance that it was made for.

use crate::{
    claim::Entry,
    message::Grant,
    units::{Seq, SessionId},
};

/// A grant on its instance, from the answer that brings it to the permit's return.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldGrant {
    /// As the step made it.
    pub grant: Grant,
    /// The ticket that it was made for, and where that stood.
    pub entry: Entry,
    /// The number of that entry.
    pub entered: Seq,
    /// Index of the deployment in the instance's configuration.
    pub deployment: usize,
    /// There is a limit that the call must not exceed: P9 (dispatch within the session) holds for it.
    pub limited: bool,
    /// The session that it was made in.
    pub session: SessionId,
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
    pub arrival: Seq,
    /// Drawn at this (re-)entry.
    pub entered: Seq,
    /// Drawn at the grant.
    pub granted: Seq,
    /// The priority; with aging the arrival (with fair shares, the start) + priority x what a level is worth, in microseconds.
    pub score: i64,
    /// With fair shares, when its tenant's turn begins: in ten-thousandths of a turn; with aging in microseconds, like an arrival.
    pub start: Option<u64>,
}
