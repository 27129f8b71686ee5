//! How much each tenant asked for, and how much it was served.

use std::{collections::BTreeMap, fmt::Write as _};

use serde::Serialize;

use super::{Summary, figures::Figures};
use crate::{
    judge::{Fate, FirstWaits},
    log::{Log, Record},
};

/// The tenants whose figures are shown: those that sent most.
const FIGURES: usize = 12;

/// One tenant.
#[derive(Debug, Clone, Serialize)]
pub struct TenantLine {
    /// What it is called.
    pub name: String,
    /// What became of its requests.
    pub figures: Figures,
}

/// What one tenant asked for in the whole run, and what it was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ShareLine {
    /// What it is called.
    pub name: String,
    /// Its traffic, an index; the first, where it has several.
    pub traffic: usize,
    /// Requests sent.
    pub asked: u64,
    /// Requests answered.
    pub served: u64,
}

/// A record and what became of it.
type Known<'a> = (&'a Record, &'a Fate);

/// By name, of the traffics that have several.
fn by_name<'a>(log: &'a Log, fates: &'a [Fate]) -> BTreeMap<String, Vec<Known<'a>>> {
    let mut tenants: BTreeMap<String, Vec<Known<'_>>> = BTreeMap::new();
    for (record, fate) in log.records.iter().zip(fates) {
        if log.scenario.has_tenants(record.traffic) {
            let name = log.scenario.sharer(record.traffic, record.tenant);
            tenants.entry(name).or_default().push((record, fate));
        }
    }
    tenants
}

/// The tenants that sent most.
pub(super) fn tenants(log: &Log, fates: &[Fate]) -> Vec<TenantLine> {
    let tenants = by_name(log, fates).into_iter();
    let mut tenants: Vec<_> = tenants.collect();
    tenants.sort_by_key(|(_, records)| std::cmp::Reverse(records.len()));
    tenants.truncate(FIGURES);
    let line = |(name, records): (String, Vec<Known<'_>>)| TenantLine {
        name,
        figures: Figures::of(records.into_iter()),
    };
    tenants.into_iter().map(line).collect()
}

/// All, by what they asked for.
pub(super) fn shares(log: &Log, fates: &[Fate]) -> Vec<ShareLine> {
    let line = |(name, records): (String, Vec<Known<'_>>)| ShareLine {
        name,
        traffic: records.first().map_or(0, |(record, _)| record.traffic),
        asked: records.len() as u64,
        served: records
            .iter()
            .filter(|(_, fate)| **fate == Fate::Answered)
            .count() as u64,
    };
    let mut lines: Vec<ShareLine> = by_name(log, fates).into_iter().map(line).collect();
    lines.sort_by_key(|line| std::cmp::Reverse(line.asked));
    lines
}

/// For a terminal: how alike tenants were served, unless a verdict says so, and how soon new tenants were served.
pub(super) fn text(summary: &Summary) -> String {
    let mut text = String::new();
    let told = summary.verdicts.iter().any(|one| one.name == "fairness");
    // Writing to a `String` cannot fail.
    for fairness in summary.fairness.iter().filter(|_| !told) {
        let _ = writeln!(text, "fairness {:.3}: {}", fairness.least, fairness.words());
    }
    for traffic in &summary.traffic {
        let Some(first) = traffic.first_waits else {
            continue;
        };
        let FirstWaits {
            tenants,
            unanswered,
            median,
            most,
        } = first;
        let unanswered = match unanswered {
            0 => String::new(),
            some => format!("; {some} had no answer to it"),
        };
        let _ = writeln!(
            text,
            "{}: the first requests of {tenants} tenants waited {median:.3} s (median), {most:.3} s at most{unanswered}",
            traffic.name
        );
    }
    text
}
