//! When each request waited in the queue, as far as its client and the provider can tell.

use crate::{
    log::{Ended, Log, Record},
    provider::Arrival,
};

/// A shorter wait is the way through the gateway, not a wait for a slot.
const SHORTEST: u64 = 10_000;

/// A time in the queue, microseconds of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    /// The traffic, an index.
    pub traffic: usize,
    /// When it began.
    pub from: u64,
    /// When it ended: with a grant, or without.
    pub to: u64,
}

/// All waits of a run that can be told.
pub fn waits(log: &Log) -> Vec<Wait> {
    let arrivals = log.arrivals();
    let none = Vec::new();
    let wait = |record: &Record| {
        let arrivals = arrivals.get(record.id.as_str()).unwrap_or(&none);
        let (from, to) = span(record, arrivals)?;
        (to - from >= SHORTEST).then_some(Wait {
            traffic: record.traffic,
            from,
            to,
        })
    };
    log.records.iter().filter_map(wait).collect()
}

/// The same of any request, short or long: from when it came until its first call, where more is not known.
pub(super) fn queued(record: &Record, arrivals: &[&Arrival]) -> Option<(u64, u64)> {
    let (from, to) = match (span(record, arrivals), arrivals.first(), &record.ticket) {
        (Some(span), _, _) => span,
        (None, Some(first), _) => (record.sent, first.at),
        (None, None, Some(ticket)) => (record.sent, record.sent.saturating_add(ticket.waited)),
        (None, None, None) => return None,
    };
    (from <= to).then_some((from, to))
}

fn span(record: &Record, arrivals: &[&Arrival]) -> Option<(u64, u64)> {
    match (arrivals, &record.ticket) {
        // It was granted a moment before it arrived.
        ([arrival], Some(ticket)) => Some((arrival.at.saturating_sub(ticket.waited), arrival.at)),
        // It never was: it waited as long as it was there.
        ([], None) if record.ended != Ended::Unreachable => Some((record.sent, record.end)),
        // Several waits with calls in between: their times are not known one by one.
        _ => None,
    }
}
