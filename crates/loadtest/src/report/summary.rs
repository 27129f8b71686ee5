//! The report's figures.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use serde::Serialize;

use super::{
    Series,
    figures::{Figures, Percentiles, curve, latency, waited},
    tenants::{self, ShareLine, TenantLine, shares, tenants},
};
use crate::{
    judge::{
        Estimates, Fairness, Fate, FirstWaits, Judged, Verdict, estimates, first_waits, guard,
        waits,
    },
    log::Log,
    provider::{Counts, Limits, Report, Tally},
};

/// In so many pieces a run is shown.
const BINS: usize = 240;

/// All that the report shows. Times are seconds.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// The scenario's name.
    pub name: String,
    /// What it shows.
    pub about: String,
    /// Seconds since 1970.
    pub started: u64,
    /// What it was drawn with.
    pub seed: u64,
    /// Where requests went.
    pub targets: Vec<String>,
    /// From the first request to the last answer.
    pub length: f64,
    /// Whether no verdict failed.
    pub passed: bool,
    /// One for each rule.
    pub verdicts: Vec<Verdict>,
    /// Failures by kind.
    pub failures: BTreeMap<String, u64>,
    /// The sender.
    pub traffic: Vec<TrafficLine>,
    /// When what was sent.
    pub phases: Vec<PhaseLine>,
    /// What happened meanwhile.
    pub events: Vec<EventLine>,
    /// The provider, where it was asked.
    pub provider: Option<ProviderLine>,
    /// All requests together.
    pub total: Figures,
    /// By phase and traffic.
    pub table: Vec<TableLine>,
    /// The tenants that sent most, where there are several.
    pub tenants: Vec<TenantLine>,
    /// All of those, by what they asked for.
    pub shares: Vec<ShareLine>,
    /// How alike they were served, by priority.
    pub fairness: Vec<Fairness>,
    /// How late requests left: above some 50 ms the figures tell of the load generator, not of the gateway.
    pub lateness: Option<Percentiles>,
    /// How good the gateway's estimates of waits were.
    pub estimates: Estimates,
    /// Over time.
    pub series: Series,
}

/// One traffic and its percentile curves.
#[derive(Debug, Clone, Serialize)]
pub struct TrafficLine {
    /// Its name.
    pub name: String,
    /// Its priority; none where the gateway's default counts.
    pub priority: Option<i32>,
    /// (per cent, seconds in the queue), of answered requests.
    pub wait: Vec<(f64, f64)>,
    /// (per cent, seconds from the intended start to the answer's end), of the same.
    pub latency: Vec<(f64, f64)>,
    /// How soon the first request of each of its tenants was served.
    pub first_waits: Option<FirstWaits>,
}

/// One phase.
#[derive(Debug, Clone, Serialize)]
pub struct PhaseLine {
    /// Its name.
    pub name: String,
    /// When it began.
    pub from: f64,
    /// When it ended.
    pub to: f64,
    /// Calls that reached the provider in it.
    pub calls: u64,
    /// The same as a part of what its requests per window allow.
    pub of_limit: Option<f64>,
}

/// One event.
#[derive(Debug, Clone, Serialize)]
pub struct EventLine {
    /// When it was done.
    pub at: f64,
    /// In words.
    pub what: String,
}

/// The provider's side.
#[derive(Debug, Clone, Serialize)]
pub struct ProviderLine {
    /// What it allows.
    pub limits: Limits,
    /// How long a window is.
    pub window: f64,
    /// How much longer a call counts at the gateway.
    pub guard: f64,
    /// The most there was.
    pub fullest: Tally,
    /// What came.
    pub counts: Counts,
}

/// One row: what a traffic sent in a phase.
#[derive(Debug, Clone, Serialize)]
pub struct TableLine {
    /// The phase, an index.
    pub phase: usize,
    /// The traffic, an index.
    pub traffic: usize,
    /// What became of it.
    pub figures: Figures,
}

impl Summary {
    /// Judges a run and sums it up.
    pub fn new(log: &Log) -> Self {
        let judged = Judged::new(log, BINS);
        let seconds = |micros: u64| micros as f64 / 1e6;
        let provider = log.provider.as_ref().map(|report| ProviderLine {
            limits: report.limits,
            window: report.window_seconds,
            guard: guard(log, report).as_secs_f64(),
            fullest: report.fullest,
            counts: report.counts.clone(),
        });
        let used = match &judged.slots {
            Some(slots) => slots.bins.clone(),
            None => vec![None; BINS],
        };
        let late = log
            .records
            .iter()
            .map(|record| seconds(record.sent.saturating_sub(record.meant)));
        Self {
            name: log.scenario.name.clone(),
            about: log.scenario.about.clone(),
            started: log.started,
            seed: log.seed,
            targets: log.targets.clone(),
            length: seconds(log.end()),
            passed: judged.passed(),
            failures: judged
                .failures()
                .into_iter()
                .map(|(failure, count)| (failure.to_string(), count))
                .collect(),
            traffic: curves(log, &judged.fates),
            phases: phases(log),
            events: log
                .events
                .iter()
                .map(|event| EventLine {
                    at: seconds(event.at),
                    what: event.what.clone(),
                })
                .collect(),
            provider,
            total: Figures::of(log.records.iter().zip(&judged.fates)),
            table: table(log, &judged.fates),
            tenants: tenants(log, &judged.fates),
            shares: shares(log, &judged.fates),
            fairness: judged.fairness,
            lateness: Percentiles::of(late.collect()),
            estimates: estimates(log),
            series: Series::new(log, &waits(log), log.window(), used),
            verdicts: judged.verdicts,
        }
    }

    /// The verdicts for a terminal, one a line, and how long each traffic waited.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a `String` cannot fail.
        for phase in &self.phases {
            if let Some(share) = phase.of_limit {
                let (name, calls, share) = (&phase.name, phase.calls, share * 100.0);
                let _ = writeln!(
                    text,
                    "{name:<24} {calls} calls at the provider, {share:.2} % of its limit"
                );
            }
        }
        for line in &self.table {
            let wait = line.figures.wait.map_or_else(
                || "-".into(),
                |wait| format!("{:.3} s, 99 % {:.3} s", wait.p50, wait.p99),
            );
            let _ = writeln!(
                text,
                "{:<24} {:<14} {:>6} sent, {:>6} answered; wait: median {wait}",
                self.phases[line.phase].name,
                self.traffic[line.traffic].name,
                line.figures.sent,
                line.figures.answered,
            );
        }
        text.push_str(&tenants::text(self));
        if let Some(late) = self.lateness {
            let (median, most) = (late.p50 * 1e3, late.p99 * 1e3);
            let _ = writeln!(
                text,
                "requests left late by {median:.1} ms (median), {most:.1} ms (99 %)"
            );
        }
        let Estimates { told, wrong, most } = self.estimates;
        if told > 0 {
            let most = most.as_secs_f64();
            let _ = writeln!(
                text,
                "{told} tickets got an estimate of their wait; {wrong} waited less, by up to {most:.3} s"
            );
        }
        for verdict in &self.verdicts {
            let mark = match verdict.passed {
                Some(true) => "ok    ",
                Some(false) => "FAILED",
                None => "?     ",
            };
            let (name, figure, detail) = (verdict.name, &verdict.figure, &verdict.detail);
            let _ = writeln!(text, "{mark} {name:<15} {figure:>8}  {detail}");
        }
        text
    }
}

fn phases(log: &Log) -> Vec<PhaseLine> {
    let mut start = Duration::ZERO;
    let line = |phase: &crate::scenario::Phase| {
        let (from, length) = (start, phase.length.0);
        start += length;
        let within = |at: u64| (from..start).contains(&Duration::from_micros(at));
        let report = log.provider.as_ref();
        let calls = report.map_or(0, |report| {
            let all = report.arrivals.iter();
            all.filter(|arrival| within(arrival.at)).count()
        });
        let limit = report.and_then(Report::requests_per_second);
        PhaseLine {
            name: phase.name.clone(),
            from: from.as_secs_f64(),
            to: start.as_secs_f64(),
            calls: calls as u64,
            of_limit: limit.map(|limit| calls as f64 / (limit * length.as_secs_f64())),
        }
    };
    log.scenario.phases.iter().map(line).collect()
}

fn curves(log: &Log, fates: &[Fate]) -> Vec<TrafficLine> {
    let of = |traffic: usize| {
        let records = log.records.iter().zip(fates);
        records.filter(move |(record, fate)| record.traffic == traffic && **fate == Fate::Answered)
    };
    let first_waits = first_waits(log, fates);
    let line = |(index, traffic): (usize, &crate::scenario::Traffic)| TrafficLine {
        name: traffic.name.clone(),
        priority: traffic.priority,
        wait: curve(of(index).filter_map(|(record, _)| waited(record)).collect()),
        latency: curve(of(index).map(|(record, _)| latency(record)).collect()),
        first_waits: first_waits[index],
    };
    log.scenario.traffic.iter().enumerate().map(line).collect()
}

fn table(log: &Log, fates: &[Fate]) -> Vec<TableLine> {
    let mut table = Vec::new();
    for phase in 0..log.scenario.phases.len() {
        for traffic in 0..log.scenario.traffic.len() {
            let records = log.records.iter().zip(fates);
            let of =
                records.filter(|(record, _)| record.phase == phase && record.traffic == traffic);
            let figures = Figures::of(of);
            if figures.sent > 0 {
                table.push(TableLine {
                    phase,
                    traffic,
                    figures,
                });
            }
        }
    }
    table
}
