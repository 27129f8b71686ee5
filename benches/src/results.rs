//! What was measured: values by round, and what they come to.

use std::{collections::BTreeMap, fmt::Write as _};

use serde::Serialize;

use crate::stats::{Spread, ratios};

/// A whole run.
#[derive(Debug, Serialize)]
pub(crate) struct Results {
    /// Seconds since 1970.
    pub(crate) started: u64,
    /// Seconds.
    pub(crate) took: f64,
    pub(crate) command: String,
    pub(crate) machine: String,
    pub(crate) versions: BTreeMap<String, String>,
    pub(crate) parts: Vec<Part>,
}

/// One part of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Part {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) about: &'static str,
    pub(crate) figures: Vec<Figure>,
}

/// What is measured, and in what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Metric {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
}

/// One metric of one contender at one point.
#[derive(Debug, Serialize)]
pub(crate) struct Figure {
    /// Under what load: `c = 16`.
    pub(crate) point: String,
    /// What was measured.
    pub(crate) contender: String,
    #[serde(flatten)]
    pub(crate) metric: Metric,
    /// By round.
    pub(crate) values: Vec<f64>,
    #[serde(flatten)]
    pub(crate) spread: Spread,
    /// The contender that it is compared with at the same point.
    pub(crate) reference: Option<String>,
    /// Of each round: the value by the reference's.
    pub(crate) ratio: Option<Spread>,
}

/// The values of a part as they come.
#[derive(Debug, Default)]
pub(crate) struct Samples {
    rows: Vec<(String, String, Metric, Vec<f64>)>,
}

impl Samples {
    pub(crate) fn add(&mut self, point: &str, contender: &str, metric: Metric, value: f64) {
        let row = self
            .rows
            .iter_mut()
            .find(|row| row.0 == point && row.1 == contender && row.2 == metric);
        match row {
            Some(row) => row.3.push(value),
            None => {
                let row = (point.into(), contender.into(), metric, vec![value]);
                self.rows.push(row);
            }
        }
    }

    /// `references`: the contender that a metric is compared with.
    pub(crate) fn figures(self, references: &[(Metric, &str)]) -> Vec<Figure> {
        let values = |point: &str, contender: &str, metric: Metric| {
            let row = self
                .rows
                .iter()
                .find(|row| row.0 == point && row.1 == contender && row.2 == metric);
            row.map(|row| &row.3)
        };
        let figure = |row: &(String, String, Metric, Vec<f64>)| {
            let (point, contender, metric, measured) = row;
            let reference = references.iter().find(|(of, _)| of == metric);
            let reference = reference
                .map(|(_, name)| *name)
                .filter(|name| name != contender);
            let ratio = reference
                .and_then(|reference| values(point, reference, *metric))
                .and_then(|reference| ratios(measured, reference));
            Some(Figure {
                point: point.clone(),
                contender: contender.clone(),
                metric: *metric,
                values: measured.clone(),
                spread: Spread::of(measured)?,
                reference: ratio.and(reference).map(Into::into),
                ratio,
            })
        };
        self.rows.iter().filter_map(figure).collect()
    }
}

/// With three digits that count.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 99.95 || value == 0.0 => format!("{value:.0}"),
        size if size >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn cell(figure: &Figure) -> String {
    let Spread {
        median,
        least,
        most,
    } = figure.spread;
    let mut cell = number(median);
    if figure.values.len() > 1 {
        _ = write!(cell, " ({}-{})", number(least), number(most));
    }
    if let Some(ratio) = figure.ratio {
        _ = write!(cell, " x{}", number(ratio.median));
    }
    cell
}

impl Part {
    /// A table: a row for each point and contender, a column for each metric.
    pub(crate) fn text(&self) -> String {
        let mut metrics: Vec<Metric> = Vec::new();
        let mut rows: Vec<(&str, &str)> = Vec::new();
        for figure in &self.figures {
            if !metrics.contains(&figure.metric) {
                metrics.push(figure.metric);
            }
            let row = (figure.point.as_str(), figure.contender.as_str());
            if !rows.contains(&row) {
                rows.push(row);
            }
        }
        // Rounds visit contenders in turns, so a point's rows are apart.
        let points: Vec<&str> = rows.iter().fold(Vec::new(), |mut points, (point, _)| {
            if !points.contains(point) {
                points.push(point);
            }
            points
        });
        rows.sort_by_key(|(point, _)| points.iter().position(|known| known == point));
        let head = metrics.iter().map(|metric| match metric.unit {
            "" => metric.name.into(),
            unit => format!("{}, {unit}", metric.name),
        });
        let mut table = vec![
            ["".to_owned(), "".to_owned()]
                .into_iter()
                .chain(head)
                .collect(),
        ];
        for (point, contender) in rows {
            let cells = metrics.iter().map(|metric| {
                let figure = self.figures.iter().find(|figure| {
                    figure.point == point
                        && figure.contender == contender
                        && figure.metric == *metric
                });
                figure.map(cell).unwrap_or_default()
            });
            table.push(
                [point.to_owned(), contender.to_owned()]
                    .into_iter()
                    .chain(cells)
                    .collect(),
            );
        }
        format!("{}: {}\n{}", self.name, self.title, aligned(&table))
    }
}

/// Columns of equal width, two blanks apart.
fn aligned(table: &[Vec<String>]) -> String {
    let columns = table.first().map_or(0, Vec::len);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            table
                .iter()
                .map(|row| row[column].chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let line = |row: &Vec<String>| {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, &width)| format!("{cell:<width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        format!("  {}\n", line.trim_end())
    };
    table.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CPU: Metric = Metric {
        name: "CPU",
        unit: "us",
    };

    fn part() -> Part {
        let mut samples = Samples::default();
        for (bare, ours) in [(8.0, 16.0), (10.0, 30.0), (9.0, 18.0)] {
            samples.add("c = 1", "bare", CPU, bare);
            samples.add("c = 16", "ours", CPU, 1.0);
            samples.add("c = 1", "ours", CPU, ours);
        }
        Part {
            name: "mock",
            title: "Mock",
            about: "",
            figures: samples.figures(&[(CPU, "bare")]),
        }
    }

    #[test]
    fn figures_are_compared_with_the_reference_of_their_round() {
        let figures = part().figures;
        let ours = figures
            .iter()
            .find(|f| f.point == "c = 1" && f.contender == "ours")
            .unwrap();
        assert_eq!(ours.spread.median, 18.0);
        assert_eq!(ours.ratio.unwrap().median, 2.0);
        assert_eq!(ours.ratio.unwrap().most, 3.0);
        // The reference was not measured at this point.
        let alone = figures.iter().find(|f| f.point == "c = 16").unwrap();
        assert_eq!((&alone.reference, alone.ratio), (&None, None));
    }

    #[test]
    fn table_has_the_rows_of_a_point_together() {
        let expected = "mock: Mock
                CPU, us
  c = 1   bare  9.00 (8.00-10.0)
  c = 1   ours  18.0 (16.0-30.0) x2.00
  c = 16  ours  1.00 (1.00-1.00)
";
        assert_eq!(part().text(), expected);
    }
}
