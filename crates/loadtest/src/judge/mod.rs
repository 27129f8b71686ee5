//! Verdicts over a run, from what its clients and its provider saw.

mod estimates;
mod fairness;
mod first_waits;
mod inversions;
mod slots;
mod waits;

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
};

use serde::Serialize;

pub use self::{
    estimates::{Estimates, estimates},
    fairness::{Fairness, Stretch, fairness},
    first_waits::{FirstWaits, first_waits},
    inversions::{inversions, repeated_grants},
    slots::{Slots, guard, slots},
    waits::{Wait, waits},
};
use crate::{
    log::{Ended, Log, Record},
    provider::{Arrival, Outcome},
};

/// One thing that had to hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Its name.
    pub name: &'static str,
    /// Whether it held; none if that cannot be decided.
    pub passed: Option<bool>,
    /// What was counted or measured.
    pub figure: String,
    /// What that means.
    pub detail: String,
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// It was answered.
    Answered,
    /// Its client hung up, as planned.
    Left,
    /// It failed, and its client got an error or knows why.
    Failed(Failure),
    /// It should have been answered and was not; or it was answered without a call to the provider.
    Lost(&'static str),
}

/// How requests fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// An error answer.
    Status(u16),
    /// Its instance was killed by the scenario.
    Killed,
    /// The provider broke its answer off by a fault.
    Broken,
    /// No target took its connection.
    Unreachable,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "{status}"),
            Self::Killed => f.write_str("killed"),
            Self::Broken => f.write_str("broken"),
            Self::Unreachable => f.write_str("unreachable"),
        }
    }
}

/// A log with what was found out about each request.
#[derive(Debug)]
pub struct Judged<'a> {
    log: &'a Log,
    /// One for each record.
    pub fates: Vec<Fate>,
    /// What was used while tickets waited.
    pub slots: Option<Slots>,
    /// How alike tenants were served, by priority.
    pub fairness: Vec<Fairness>,
    /// One for each rule.
    pub verdicts: Vec<Verdict>,
}

impl<'a> Judged<'a> {
    /// Judges a run. `bins`: in how many bins the use of slots is reported.
    pub fn new(log: &'a Log, bins: usize) -> Self {
        let arrivals = log.arrivals();
        let none = Vec::new();
        let fate = |record: &Record| {
            let arrivals = arrivals.get(record.id.as_str()).unwrap_or(&none);
            fate(log, record, arrivals)
        };
        let fates: Vec<Fate> = log.records.iter().map(fate).collect();
        let mut judged = Self {
            log,
            fairness: fairness(log, &fates),
            fates,
            slots: slots(log, bins),
            verdicts: Vec::new(),
        };
        judged.verdicts = vec![
            judged.order(),
            judged.windows(),
            judged.lost(),
            judged.doubled(&arrivals),
            judged.failed(),
            judged.idle(),
        ];
        if let Some(least) = log.scenario.expect.fairness {
            let verdict = fairness::verdict(least, &judged.fairness);
            judged.verdicts.push(verdict);
        }
        judged
    }

    /// Whether no verdict failed.
    pub fn passed(&self) -> bool {
        self.verdicts
            .iter()
            .all(|verdict| verdict.passed != Some(false))
    }

    /// Failures by kind.
    pub fn failures(&self) -> BTreeMap<Failure, u64> {
        let mut failures = BTreeMap::new();
        for fate in &self.fates {
            if let Fate::Failed(failure) = fate {
                *failures.entry(*failure).or_default() += 1;
            }
        }
        failures
    }

    fn order(&self) -> Verdict {
        let tickets = || {
            self.log
                .records
                .iter()
                .filter_map(|one| one.ticket.as_ref())
        };
        let (count, inversions) = (tickets().count(), inversions(tickets()));
        let repeated = repeated_grants(tickets());
        Verdict {
            name: "inversions",
            passed: (count > 0).then_some(inversions + repeated == 0),
            figure: (inversions + repeated).to_string(),
            detail: match (count, repeated) {
                (0, _) => "no answer carried its ticket".into(),
                (_, 0) => format!("among {count} tickets, by their numbers"),
                _ => {
                    format!("{inversions} among {count} tickets; {repeated} numbers granted twice")
                }
            },
        }
    }

    fn windows(&self) -> Verdict {
        let Some(report) = &self.log.provider else {
            return unknown("over the limit");
        };
        let over = report.counts.violations.total();
        let (fullest, limits) = (report.fullest, report.limits);
        let mut detail = String::new();
        for (what, most, limit) in [
            ("requests in a window", fullest.requests, limits.rpm),
            ("tokens in a window", fullest.tokens, limits.tpm),
            ("calls open", fullest.concurrency, limits.concurrency),
        ] {
            if let Some(limit) = limit {
                let comma = if detail.is_empty() { "" } else { ", " };
                // Writing to a `String` cannot fail.
                let _ = write!(detail, "{comma}at most {most} of {limit} {what}");
            }
        }
        if detail.is_empty() {
            detail.push_str("the provider has no limits");
        }
        if over > 0 {
            let held_up = report.held_up as f64 / 1e3;
            let _ = write!(
                detail,
                "; its process did not get to run for up to {held_up:.0} ms"
            );
        }
        Verdict {
            name: "over the limit",
            passed: Some(over == 0),
            figure: over.to_string(),
            detail,
        }
    }

    fn lost(&self) -> Verdict {
        let mut reasons: BTreeMap<&str, u64> = BTreeMap::new();
        for fate in &self.fates {
            if let Fate::Lost(reason) = fate {
                *reasons.entry(reason).or_default() += 1;
            }
        }
        let lost: u64 = reasons.values().sum();
        let cut = reasons.get(CUT).copied().unwrap_or(0);
        let allowed = self.log.scenario.expect.cut;
        let mut detail = format!("of {} requests sent", self.fates.len());
        for (reason, count) in &reasons {
            let _ = write!(detail, ", {count} {reason}");
        }
        if allowed > 0 {
            let _ = write!(detail, "; {allowed} may be cut off");
        }
        Verdict {
            name: "lost",
            passed: Some(lost - cut == 0 && cut <= allowed),
            figure: lost.to_string(),
            detail,
        }
    }

    fn doubled(&self, arrivals: &BTreeMap<&str, Vec<&Arrival>>) -> Verdict {
        let Some(report) = &self.log.provider else {
            return unknown("doubled");
        };
        // A failure asks for another attempt; a second one that the provider worked on was not asked for.
        let worked = |arrivals: &Vec<&Arrival>| {
            let worked = arrivals.iter().filter(|arrival| match arrival.outcome {
                Outcome::Answered | Outcome::Open => true,
                Outcome::Left => arrival.fault.is_none(),
                Outcome::Refused | Outcome::Failed | Outcome::Invalid => false,
            });
            worked.count() as u64
        };
        let named = || arrivals.iter().filter(|(id, _)| !id.is_empty());
        let doubled: u64 = named().map(|(_, all)| worked(all).saturating_sub(1)).sum();
        let most = named().map(|(_, all)| all.len()).max().unwrap_or(0);
        Verdict {
            name: "doubled",
            passed: Some(doubled == 0),
            figure: doubled.to_string(),
            detail: format!(
                "of {} calls at the provider; at most {most} attempts for a request",
                report.counts.arrived
            ),
        }
    }

    fn failed(&self) -> Verdict {
        let failures = self.failures();
        let expected = &self.log.scenario.expect.failed;
        let is_expected = |failure: &Failure| expected.contains(&failure.to_string());
        let unexpected = failures.keys().any(|failure| !is_expected(failure));
        let all: u64 = failures.values().sum();
        let kinds: Vec<String> = failures
            .iter()
            .map(|(failure, count)| {
                let expected = if is_expected(failure) {
                    "expected"
                } else {
                    "not expected"
                };
                format!("{count} {failure} ({expected})")
            })
            .collect();
        Verdict {
            name: "failed",
            passed: Some(!unexpected),
            figure: all.to_string(),
            detail: if kinds.is_empty() {
                "every request that was not hung up was answered".into()
            } else {
                kinds.join(", ")
            },
        }
    }

    fn idle(&self) -> Verdict {
        let expect = &self.log.scenario.expect;
        let (least, from) = (expect.slots_used, expect.slots_from);
        let after = if from.0.is_zero() {
            String::new()
        } else {
            format!(", from {from} on")
        };
        let Some(slots) = &self.slots else {
            return unknown("slots used");
        };
        match slots.used {
            Some(used) => Verdict {
                name: "slots used",
                passed: Some(used >= least),
                figure: format!("{:.2} %", used * 100.0),
                detail: format!(
                    "in {:.1} s while tickets waited{after}; at least {:.0} %",
                    slots.contended.as_secs_f64(),
                    least * 100.0
                ),
            },
            None => Verdict {
                name: "slots used",
                passed: None,
                figure: "-".into(),
                detail: "no ticket ever waited".into(),
            },
        }
    }
}

fn unknown(name: &'static str) -> Verdict {
    Verdict {
        name,
        passed: None,
        figure: "?".into(),
        detail: "not judged: there was no provider to ask, or it has no limits".into(),
    }
}

const CUT: &str = "cut off";

fn fate(log: &Log, record: &Record, arrivals: &[&Arrival]) -> Fate {
    match record.ended {
        Ended::Answered if log.provider.is_some() && arrivals.is_empty() => {
            Fate::Lost("answered without the provider")
        }
        Ended::Answered => Fate::Answered,
        Ended::Left => Fate::Left,
        Ended::Status(status) => Fate::Failed(Failure::Status(status)),
        Ended::Unreachable => Fate::Failed(Failure::Unreachable),
        Ended::Unanswered => Fate::Lost("without an answer"),
        Ended::Cut => {
            let killed = log.events.iter().any(|event| {
                event.killed == Some(record.target)
                    && record.sent <= event.at
                    && record.end >= event.from
            });
            let last = arrivals.last().map(|arrival| arrival.outcome);
            match (killed, last) {
                (true, _) => Fate::Failed(Failure::Killed),
                (_, Some(Outcome::Failed)) => Fate::Failed(Failure::Broken),
                _ => Fate::Lost(CUT),
            }
        }
    }
}
