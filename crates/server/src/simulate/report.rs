//! What a simulation found: a table, a JSON document, a page.

use std::{fmt::Write as _, time::Duration};

use serde::Serialize;
use vorrang_gateway::{Config, GroupSettings};
use vorrang_scheduler::simulate::Usage;

use super::{
    Names, Simulate,
    figures::{FigureLine, Percentiles},
    group::{Bin, Caller, Compared, SimulatedGroup},
    run::{Outcome, Outcomes},
    trace::TraceCounts,
};

/// The page; its data goes where this is.
const PAGE: &str = include_str!("page.html");
const PLACE: &str = "/*DATA*/null";

/// So many lines of callers a table has.
const LINES: usize = 12;

/// All that a simulation found. Times are in seconds, shares from 0 to 1.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The configuration that was tried.
    pub config: String,
    /// The one that it is compared with.
    pub against: Option<String>,
    /// Where the requests are from.
    pub traffic: Vec<String>,
    /// What was read.
    pub read: TraceCounts,
    /// From the first arrival to the last.
    pub length: f64,
    /// How long the simulation took.
    pub took: f64,
    /// The round trip that was assumed.
    pub round_trip: f64,
    /// By name.
    pub groups: Vec<GroupReport>,
    /// Groups of the traffic that a configuration does not have, and how many requests they had.
    pub missing: Vec<(String, u64)>,
}

/// One group.
#[derive(Debug, Clone, Serialize)]
pub struct GroupReport {
    /// Its name.
    pub group: String,
    /// All its requests.
    pub all: CallerLine,
    /// By the priority that counts under the new configuration.
    pub priorities: Vec<CallerLine>,
    /// By key.
    pub keys: Vec<CallerLine>,
    /// By tenant, by its number.
    pub tenants: Vec<CallerLine>,
    /// How its limits are used.
    pub usage: UsageLine,
    /// The same under the other configuration.
    pub old_usage: Option<UsageLine>,
    /// Over time.
    pub series: SeriesLine,
}

/// What became of some requests.
#[derive(Debug, Clone, Serialize)]
pub struct CallerLine {
    /// The priority, the key's name, or the tenant's number.
    pub name: String,
    /// How many there were.
    pub requests: u64,
    /// Under the new configuration.
    pub new: FigureLine,
    /// Under the other one.
    pub old: Option<FigureLine>,
    /// As the trace says.
    pub recorded: Option<Percentiles>,
    /// How many would wait longer and less than under the other one.
    pub longer: u64,
    /// See `longer`.
    pub less: u64,
    /// The mean of the differences.
    pub change: Option<f64>,
    /// The percentile curve of their waits: (per cent, seconds), new and old.
    pub curve: Vec<(f64, f64)>,
    /// See `curve`.
    pub old_curve: Vec<(f64, f64)>,
}

/// How limits are used.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct UsageLine {
    /// How long tickets waited.
    pub contended: f64,
    /// The part of the room that was not used in that time.
    pub lost: Option<f64>,
    /// Each limit.
    pub limits: Vec<LimitLine>,
}

/// One limit of a deployment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LimitLine {
    /// The deployment's id.
    pub deployment: String,
    /// What it counts.
    pub kind: &'static str,
    /// The window with its guard; 0 for open calls.
    pub window: f64,
    /// The limit.
    pub limit: u64,
    /// The share that was used over all the time, and while tickets waited.
    pub mean: f64,
    /// See `mean`.
    pub while_waiting: Option<f64>,
    /// The most at once.
    pub most: u64,
}

/// Values over time.
#[derive(Debug, Clone, Serialize)]
pub struct SeriesLine {
    /// How long a bin is.
    pub width: f64,
    /// By the arrivals of each bin: their mean wait, new.
    pub wait: Vec<Option<f64>>,
    /// And old.
    pub old_wait: Vec<Option<f64>>,
    /// The most that waited at once, new.
    pub waiting: Vec<u64>,
    /// And old.
    pub old_waiting: Vec<u64>,
}

/// What a report is made of.
pub(super) struct Simulated<'a> {
    pub(super) configs: (&'a Config, Option<&'a Config>),
    pub(super) outcomes: &'a Outcomes,
    pub(super) names: &'a Names,
    pub(super) counts: TraceCounts,
    pub(super) span: Duration,
    pub(super) took: Duration,
}

pub(super) fn report(options: &Simulate, simulated: Simulated<'_>) -> Report {
    let Simulated {
        configs,
        outcomes,
        names,
        counts,
        span,
        took,
    } = simulated;
    let (mut groups, mut missing) = (Vec::new(), Vec::new());
    for (name, outcome) in outcomes {
        match outcome {
            Outcome::Missing(count) => missing.push((name.to_string(), *count)),
            Outcome::Simulated(group) => groups.push(group_report(name, group, configs, names)),
        }
    }
    let path = |path: &std::path::Path| path.display().to_string();
    Report {
        config: path(&options.config),
        against: options.against.as_deref().map(path),
        traffic: match &options.load {
            Some(scenario) => vec![scenario.clone()],
            None => options.trace.iter().map(|file| path(file)).collect(),
        },
        read: counts,
        length: span.as_secs_f64(),
        took: took.as_secs_f64(),
        round_trip: options.round_trip.as_secs_f64(),
        groups,
        missing,
    }
}

fn group_report(
    name: &str,
    group: &SimulatedGroup,
    configs: (&Config, Option<&Config>),
    names: &Names,
) -> GroupReport {
    let compares = configs.1.is_some();
    let lines = |of: &dyn Fn(&Caller) -> Option<String>| -> Vec<CallerLine> {
        let mut found: Vec<_> = group
            .callers
            .iter()
            .filter_map(|(caller, compared)| Some((caller, of(caller)?, compared)))
            .collect();
        found.sort_by_key(|(caller, ..)| **caller);
        let lines = found
            .into_iter()
            .map(|(_, name, compared)| caller_line(name, compared, compares));
        lines.collect()
    };
    let all = lines(&|caller| (*caller == Caller::All).then(|| "all".into()));
    let mut keys = lines(&|caller| match caller {
        Caller::Key(key) => Some(names.name(*key).to_owned()),
        Caller::Others => Some("others".into()),
        _ => None,
    });
    let mut tenants = lines(&|caller| match caller {
        Caller::Tenant(tenant) => Some(tenant.to_string()),
        _ => None,
    });
    for callers in [&mut keys, &mut tenants] {
        // Those whose waits change most come first; without a comparison those that wait longest.
        let weight = |line: &CallerLine| match line.change {
            Some(change) => change.abs(),
            None => line.new.wait.map_or(0.0, |wait| wait.p99),
        };
        callers.sort_by(|a, b| weight(b).total_cmp(&weight(a)));
    }
    let (usage, old_usage) = group.usage();
    let settings = configs.0.group_called(name);
    let old_settings = configs.1.and_then(|old| old.group_called(name));
    GroupReport {
        group: name.to_owned(),
        all: all
            .into_iter()
            .next()
            .unwrap_or_else(|| caller_line("all".into(), &Compared::default(), compares)),
        priorities: lines(&|caller| match caller {
            Caller::Priority(priority) => Some(priority.to_string()),
            _ => None,
        }),
        keys,
        tenants,
        usage: usage_line(&usage, settings),
        old_usage: old_usage.map(|usage| usage_line(&usage, old_settings)),
        series: series_line(group),
    }
}

#[expect(clippy::cast_precision_loss, reason = "means")]
fn caller_line(name: String, compared: &Compared, compares: bool) -> CallerLine {
    let new = compared.new.line();
    let requests = new.granted + new.timed_out + new.refused;
    CallerLine {
        name,
        requests,
        old: compares.then(|| compared.old.line()),
        recorded: compared.recorded.percentiles(),
        longer: compared.longer,
        less: compared.less,
        change: (compares && requests > 0).then(|| compared.change / requests as f64),
        curve: compared.new.waits.curve(),
        old_curve: if compares {
            compared.old.waits.curve()
        } else {
            Vec::new()
        },
        new,
    }
}

fn usage_line(usage: &Usage, settings: Option<&GroupSettings>) -> UsageLine {
    let id = |index: usize| {
        let deployment = settings.and_then(|group| group.deployments.get(index));
        deployment.map_or_else(|| index.to_string(), |one| one.id.clone())
    };
    let limits = usage.limits.iter().map(|limit| LimitLine {
        deployment: id(limit.deployment),
        kind: limit.kind.word(),
        window: limit.span.as_secs_f64(),
        limit: limit.limit,
        mean: limit.mean,
        while_waiting: limit.contended,
        most: limit.most,
    });
    UsageLine {
        contended: usage.contended.as_secs_f64(),
        lost: usage.lost,
        limits: limits.collect(),
    }
}

#[expect(clippy::cast_precision_loss, reason = "means")]
fn series_line(group: &SimulatedGroup) -> SeriesLine {
    let bins = &group.series.bins;
    let mean = |side: usize| {
        let mean = move |bin: &Bin| {
            let (sum, count, _) = bin.waits[side];
            (count > 0).then(|| sum / count as f64)
        };
        bins.iter().map(mean).collect()
    };
    let waiting = |side: usize| bins.iter().map(|bin| bin.waits[side].2).collect();
    SeriesLine {
        width: group.series.width.as_secs_f64(),
        wait: mean(0),
        old_wait: mean(1),
        waiting: waiting(0),
        old_waiting: waiting(1),
    }
}

// === To read ===

fn seconds(time: f64) -> String {
    match time {
        time if time < 0.9995 => format!("{:.0} ms", time * 1000.0),
        time if time < 99.95 => format!("{time:.2} s"),
        time => format!("{time:.0} s"),
    }
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn figures(line: &FigureLine) -> String {
    let waits = match &line.wait {
        None => format!("{:>9} {:>9} {:>9} {:>9}", "-", "-", "-", "-"),
        Some(wait) => format!(
            "{:>9} {:>9} {:>9} {:>9}",
            seconds(wait.p50),
            seconds(wait.p90),
            seconds(wait.p99),
            seconds(wait.max)
        ),
    };
    format!(
        "{:>10} {waits} {:>9} {:>8}",
        line.granted, line.timed_out, line.refused
    )
}

impl Report {
    /// As JSON.
    ///
    /// # Errors
    /// Never in practice: all of it is plain data.
    pub fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self)
    }

    /// As a page without anything from outside.
    ///
    /// # Errors
    /// Never in practice: all of it is plain data.
    pub fn html(&self) -> serde_json::Result<String> {
        // A name with `</script>` in it must not end the script.
        let data = serde_json::to_string(self)?.replace('<', "\\u003c");
        Ok(PAGE.replacen(PLACE, &data, 1))
    }

    /// As tables for a terminal.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a `String` cannot fail.
        let _ = writeln!(
            text,
            "{} requests over {} of {}, simulated in {}",
            self.read.requests,
            seconds(self.length),
            self.traffic.join(", "),
            seconds(self.took)
        );
        if self.read.bad > 0 {
            let _ = writeln!(text, "{} lines could not be used:", self.read.bad);
            for error in &self.read.errors {
                let _ = writeln!(text, "  {error}");
            }
        }
        for (group, requests) in &self.missing {
            let _ = writeln!(
                text,
                "{group}: {requests} requests left out: a configuration has no such group"
            );
        }
        for group in &self.groups {
            group.write(&mut text, self);
        }
        text
    }
}

impl GroupReport {
    fn write(&self, text: &mut String, report: &Report) {
        let _ = writeln!(text, "\n{}: {} requests", self.group, self.all.requests);
        let _ = writeln!(
            text,
            "  {:<22} {:>10} {:>9} {:>9} {:>9} {:>9} {:>9} {:>8}",
            "waits", "granted", "p50", "p90", "p99", "max", "timed out", "refused"
        );
        let all = std::iter::once(&self.all);
        for line in all.chain(&self.priorities) {
            let name = match line.name.as_str() {
                "all" => "all".to_owned(),
                priority => format!("priority {priority}"),
            };
            let _ = writeln!(text, "  {name:<22} {}", figures(&line.new));
            if let Some(old) = &line.old {
                let _ = writeln!(text, "  {:<22} {}", "  against", figures(old));
            }
        }
        for (what, lines) in [("key", &self.keys), ("tenant", &self.tenants)] {
            write_callers(text, what, lines);
        }
        write_usage(text, &report.config, &self.usage);
        if let (Some(usage), Some(against)) = (&self.old_usage, &report.against) {
            write_usage(text, against, usage);
        }
    }
}

fn write_callers(text: &mut String, what: &str, lines: &[CallerLine]) {
    for line in lines.iter().take(LINES) {
        let name = format!("{what} {}", line.name);
        let _ = write!(text, "  {name:<22.22} {}", figures(&line.new));
        if let Some(change) = line.change {
            let sign = if change < 0.0 { "-" } else { "+" };
            let _ = write!(
                text,
                "   {sign}{} on average: {} longer, {} less",
                seconds(change.abs()),
                line.longer,
                line.less
            );
        }
        text.push('\n');
    }
    if lines.len() > LINES {
        let _ = writeln!(text, "  ... {} more", lines.len() - LINES);
    }
}

fn write_usage(text: &mut String, config: &str, usage: &UsageLine) {
    let lost = usage.lost.map_or_else(String::new, |lost| {
        format!(", {} of the room was not used meanwhile", percent(lost))
    });
    let _ = writeln!(
        text,
        "  {config}: requests waited for {}{lost}",
        seconds(usage.contended)
    );
    for limit in &usage.limits {
        let window = match limit.window {
            0.0 => String::new(),
            window => format!(" in {window} s"),
        };
        let waiting = limit.while_waiting.map_or_else(|| "-".into(), percent);
        let _ = writeln!(
            text,
            "    {} {} {}{window}: {} used, {waiting} while requests waited, at most {}",
            limit.deployment,
            limit.limit,
            limit.kind,
            percent(limit.mean),
            limit.most
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_of_a_simulation_embeds_its_data_and_needs_no_network() {
        assert_eq!(PAGE.matches(PLACE).count(), 1);
        for outside in ["http:", "https:", "src=", "@import", "fetch("] {
            let allowed = PAGE.matches("http://www.w3.org/2000/svg").count();
            let found = PAGE.matches(outside).count();
            let expected = if outside == "http:" { allowed } else { 0 };
            assert_eq!(found, expected, "{outside}");
        }
    }
}
