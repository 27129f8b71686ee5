//! How much of the limits was used while tickets waited (A4).
//!
//! A call takes a slot of `rpm` for the window and its guard, since the gateway counts it so long: all slots are used where the last
//! window + guard holds as many calls as the limit. With several limits the fullest one counts at each moment.

use std::time::Duration;

use super::waits::{Wait, waits};
use crate::{log::Log, provider::Report};

/// The share of the limits that was used, over time.
#[derive(Debug, Clone, PartialEq)]
pub struct Slots {
    /// How long at least one ticket waited, from when on it is judged.
    pub contended: Duration,
    /// The share used then, 0 to 1; none if no ticket ever waited.
    pub used: Option<f64>,
    /// The same by bin of equal length; none where no ticket waited.
    pub bins: Vec<Option<f64>>,
}

/// Something that changes at a time.
#[derive(Debug, Clone, Copy)]
enum Change {
    Waiting(i64),
    Requests(i64),
    Tokens(i64),
    Open(i64),
}

/// How long a call counts beyond the window: the gateway's own rule, unless the scenario sets it.
pub fn guard(log: &Log, report: &Report) -> Duration {
    let set = log.scenario.gateway.vorrang_settings.get("guard_ms");
    let window = Duration::from_secs_f64(report.window_seconds);
    match set.and_then(serde_json::Value::as_f64) {
        Some(milliseconds) => Duration::from_secs_f64(milliseconds.max(0.0) / 1000.0),
        None => (window / 20).min(Duration::from_millis(100)),
    }
}

/// What was used of the provider's limits; none without a provider, or without limits.
pub fn slots(log: &Log, bins: usize) -> Option<Slots> {
    let report = log.provider.as_ref()?;
    let limits = report.limits;
    limits.rpm.or(limits.tpm).or(limits.concurrency)?;
    let mut changes = changes(&waits(log), report, guard(log, report));
    changes.sort_by_key(|&(time, _)| time);

    let length = (log.end() / bins.max(1) as u64).max(1);
    let from = u64::try_from(log.scenario.expect.slots_from.0.as_micros()).unwrap_or(u64::MAX);
    let (mut sums, mut judged) = (vec![(0.0, 0.0); bins], [(0.0, 0.0)]);
    let [mut waiting, mut requests, mut tokens, mut open] = [0_i64; 4];
    let mut last = 0;
    for (time, change) in changes {
        if waiting > 0 {
            let share = |used: i64, limit: Option<u64>| {
                limit.map_or(0.0, |limit| used.max(0) as f64 / limit.max(1) as f64)
            };
            let used = share(requests, limits.rpm)
                .max(share(tokens, limits.tpm))
                .max(share(open, limits.concurrency))
                .min(1.0);
            spread(&mut sums, length, (last, time), used);
            spread(&mut judged, length, (last.max(from), time), used);
        }
        last = time;
        match change {
            Change::Waiting(by) => waiting += by,
            Change::Requests(by) => requests += by,
            Change::Tokens(by) => tokens += by,
            Change::Open(by) => open += by,
        }
    }
    let [(contended, used)] = judged;
    let share = |(time, used): (f64, f64)| (time > 0.0).then(|| used / time);
    Some(Slots {
        contended: Duration::from_secs_f64(contended / 1e6),
        used: share((contended, used)),
        bins: sums.into_iter().map(share).collect(),
    })
}

/// Adds a share over a span to the bins it touches; what is beyond the last one counts to it.
fn spread(sums: &mut [(f64, f64)], length: u64, (mut from, to): (u64, u64), used: f64) {
    let Some(last) = sums.len().checked_sub(1) else {
        return;
    };
    while from < to {
        let bin = usize::try_from(from / length).map_or(last, |bin| bin.min(last));
        let end = if bin == last {
            to
        } else {
            to.min((bin as u64 + 1) * length)
        };
        let time = (end - from) as f64;
        sums[bin].0 += time;
        sums[bin].1 += time * used;
        from = end;
    }
}

fn changes(waits: &[Wait], report: &Report, guard: Duration) -> Vec<(u64, Change)> {
    let hold = Duration::from_secs_f64(report.window_seconds) + guard;
    let hold = u64::try_from(hold.as_micros()).unwrap_or(u64::MAX);
    let mut changes = Vec::new();
    for wait in waits {
        changes.push((wait.from, Change::Waiting(1)));
        changes.push((wait.to, Change::Waiting(-1)));
    }
    let signed = |amount: u64| i64::try_from(amount).unwrap_or(i64::MAX);
    for arrival in &report.arrivals {
        let (at, end) = (arrival.at, arrival.end.unwrap_or(report.now));
        changes.push((at, Change::Requests(1)));
        changes.push((at + hold, Change::Requests(-1)));
        changes.push((at, Change::Open(1)));
        changes.push((end, Change::Open(-1)));
        let (reserved, used) = (arrival.reserved, arrival.used.unwrap_or(arrival.reserved));
        let kept = reserved.min(used);
        let corrected = end.min(at + hold);
        changes.push((at, Change::Tokens(signed(reserved))));
        changes.push((corrected, Change::Tokens(-signed(reserved - kept))));
        changes.push((at + hold, Change::Tokens(-signed(kept))));
        let excess = used - kept;
        changes.push((end, Change::Tokens(signed(excess))));
        changes.push((end + hold, Change::Tokens(-signed(excess))));
    }
    changes
}
