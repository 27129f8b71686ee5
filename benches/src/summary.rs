//! `summary.md`: the rows that the README shows, as a Markdown table.

use std::fmt::Write as _;

use crate::results::{Figure, Results, number};

/// A row: what it is called, and the figure that it shows.
struct Row {
    name: &'static str,
    part: &'static str,
    point: &'static str,
    contender: &'static str,
    metric: &'static str,
}

const fn row(
    name: &'static str,
    part: &'static str,
    [point, contender, metric]: [&'static str; 3],
) -> Row {
    Row {
        name,
        part,
        point,
        contender,
        metric,
    }
}

const ROWS: [Row; 17] = [
    row(
        "answered in process (`mock_response`), memory: CPU",
        "mock",
        ["c = 64", "memory", "CPU per request"],
    ),
    row(
        "the same with the access line: CPU",
        "mock",
        ["c = 64", "memory, access line", "CPU per request"],
    ),
    row(
        "the same on Redis: CPU",
        "mock",
        ["c = 64", "Redis", "CPU per request"],
    ),
    row(
        "the same on Redis, one connection: p50",
        "mock",
        ["c = 1", "Redis", "p50"],
    ),
    row(
        "the same on Redis, 64 connections: rate",
        "mock",
        ["c = 64", "Redis", "requests"],
    ),
    row(
        "forwarded, 0.2 kB: CPU",
        "forward",
        ["0.2 kB, c = 64", "forwarded", "CPU per request"],
    ),
    row(
        "forwarded, 0.2 kB, one connection: p50",
        "forward",
        ["0.2 kB, c = 1", "forwarded", "p50"],
    ),
    row(
        "forwarded, TLS, 0.2 kB: CPU",
        "forward",
        ["TLS, 0.2 kB, c = 64", "forwarded", "CPU per request"],
    ),
    row(
        "forwarded, 20 kB streamed: CPU",
        "forward",
        ["20 kB streamed, c = 64", "forwarded", "CPU per request"],
    ),
    row(
        "a step of one request",
        "step",
        ["1 request", "step", "time in Redis"],
    ),
    row(
        "a step of eight requests",
        "step",
        ["8 requests", "step", "time in Redis"],
    ),
    row(
        "a step of eight, a million waiting",
        "step",
        ["8 requests, 1000000 waiting", "step", "time in Redis"],
    ),
    row(
        "memory in Redis",
        "traffic",
        ["c = 64", "each request", "memory in Redis"],
    ),
    row(
        "from room to the call upstream, memory: p50",
        "wake",
        ["a call ends", "memory", "p50"],
    ),
    row(
        "the same, another instance on Redis: p50",
        "wake",
        ["a call ends", "Redis, two instances", "p50"],
    ),
    row(
        "memory: a waiting request",
        "memory",
        ["an instance", "memory", "each waiting request"],
    ),
    row(
        "memory: an idle instance",
        "memory",
        ["an instance", "memory", "idle"],
    ),
];

/// Only rows that were measured.
pub(crate) fn markdown(results: &Results) -> String {
    let mut table = String::from(
        "| what | median | least to most | beside the reference |\n| --- | --- | --- | --- |\n",
    );
    for row in &ROWS {
        if let Some(figure) = find(results, row) {
            let unit = figure.metric.unit;
            let spread = figure.spread;
            let ratio = match (&figure.reference, figure.ratio) {
                (Some(reference), Some(ratio)) => format!("{} x {reference}", number(ratio.median)),
                _ => String::new(),
            };
            // Writing to a string cannot fail.
            _ = writeln!(
                table,
                "| {} | {} {unit} | {} to {} | {ratio} |",
                row.name,
                number(spread.median),
                number(spread.least),
                number(spread.most),
            );
        }
    }
    let versions: Vec<String> = results
        .versions
        .iter()
        .map(|(what, version)| format!("{what} {version}"))
        .collect();
    _ = writeln!(
        table,
        "\n`{}` on {}; {}",
        format!("scripts/bench {}", results.command).trim_end(),
        results.machine,
        versions.join("; ")
    );
    table
}

fn find<'a>(results: &'a Results, row: &Row) -> Option<&'a Figure> {
    let part = results.parts.iter().find(|part| part.name == row.part)?;
    part.figures.iter().find(|figure| {
        figure.point == row.point
            && figure.contender == row.contender
            && figure.metric.name == row.metric
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::results::{Metric, Part, Samples};

    #[test]
    fn summary_has_the_measured_rows() {
        let cpu = Metric {
            name: "CPU per request",
            unit: "us",
        };
        let mut samples = Samples::default();
        for (bare, ours) in [(8.0, 16.0), (8.0, 24.0), (8.0, 32.0)] {
            samples.add("c = 64", "bare axum", cpu, bare);
            samples.add("c = 64", "memory", cpu, ours);
        }
        let part = Part {
            name: "mock",
            title: "",
            about: "",
            figures: samples.figures(&[(cpu, "bare axum")]),
        };
        let results = Results {
            started: 0,
            took: 1.0,
            command: "--quick".into(),
            machine: "2 x it".into(),
            versions: BTreeMap::new(),
            parts: vec![part],
        };
        let expected = "| answered in process (`mock_response`), memory: CPU | 24.0 us | 16.0 to 32.0 | 3.00 x bare axum |\n";
        let table = markdown(&results);
        assert!(table.contains(expected), "{table}");
        assert_eq!(
            table.lines().filter(|line| line.starts_with('|')).count(),
            3
        );
    }
}
