//! A grant on the instance that holds it.

use crate::{
    claim::Entry,
    message::Grant,
    units::{Seq, SessionId},
};

/// A grant on its instance, from the answer that delivers it until the permit returns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldGrant {
    /// The grant as the step made it.
    pub grant: Grant,
    /// The queue entry of its ticket.
    pub entry: Entry,
    /// The sequence number of that entry.
    pub entered: Seq,
    /// Index of the deployment in the instance's configuration.
    pub deployment: usize,
    /// The group has a limit: P9 (dispatch within the session) applies to the call.
    pub limited: bool,
    /// The session of the instance at the grant.
    pub session: SessionId,
}

impl HeldGrant {
    /// The numbers for the header.
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
    /// The priority; with aging the arrival (with fair shares, the start tag) + priority x aging rate, in microseconds.
    pub score: i64,
    /// With fair shares, the start tag of its service: in ten-thousandths of a request of weight 1; with aging in microseconds, like an
    /// arrival.
    pub start: Option<u64>,
}
