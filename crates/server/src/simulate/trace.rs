//! Traces: logs of one or several instances, as one sequence of requests by their arrival.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    fs::File,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::{
    Names, Source, Traced,
    line::{self, Read},
};

/// So many bad lines are shown.
const SHOWN: usize = 10;

/// A longer line is no access line.
const LONGEST_LINE: u64 = 1 << 20;

/// What was read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct TraceCounts {
    /// Lines of all files.
    pub lines: u64,
    /// Requests that entered a queue.
    pub requests: u64,
    /// Access lines that could not be read, or came too late to be sorted.
    pub bad: u64,
    /// The first of them: file, line, and what is wrong.
    pub errors: Vec<String>,
}

impl TraceCounts {
    fn bad(&mut self, file: &str, line: u64, error: &str) {
        self.bad += 1;
        if self.errors.len() < SHOWN {
            self.errors.push(format!("{file}:{line}: {error}"));
        }
    }
}

/// A request in order of its arrival, then of its line.
#[derive(Debug, PartialEq)]
struct Sorted(Traced, u64);

impl Eq for Sorted {}

impl PartialOrd for Sorted {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Sorted {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0.at, self.1).cmp(&(other.0.at, other.1))
    }
}

/// One log. Its lines are in order of the requests' ends.
struct Trace {
    name: String,
    input: Box<dyn BufRead>,
    line: u64,
    ended: bool,
    /// The latest end so far.
    latest: u64,
    longest: u64,
    waiting: BinaryHeap<Reverse<Sorted>>,
    /// The last arrival that was given out.
    given: u64,
    buffer: Vec<u8>,
}

impl Trace {
    fn open(path: &Path, longest: Duration) -> Result<Self> {
        let name = path.display().to_string();
        let input: Box<dyn BufRead> = if name == "-" {
            Box::new(BufReader::new(io::stdin()))
        } else {
            let file = File::open(path).with_context(|| format!("cannot read {name}"))?;
            Box::new(BufReader::with_capacity(1 << 18, file))
        };
        Ok(Self {
            name,
            input,
            line: 0,
            ended: false,
            latest: 0,
            longest: u64::try_from(longest.as_micros()).unwrap_or(u64::MAX),
            waiting: BinaryHeap::new(),
            given: 0,
            buffer: Vec::new(),
        })
    }

    /// Reads until the next request is surely the next one by its arrival. It then is the first that waits.
    fn fill(&mut self, names: &mut Names, counts: &mut TraceCounts) -> Result<()> {
        loop {
            let next = self.waiting.peek().map(|Reverse(next)| next.0.at);
            let sure = |at: u64| at <= self.latest.saturating_sub(self.longest);
            if self.ended || next.is_some_and(sure) {
                return Ok(());
            }
            self.buffer.clear();
            let mut limited = io::Read::take(&mut self.input, LONGEST_LINE);
            let read = limited.read_until(b'\n', &mut self.buffer);
            let read = read.with_context(|| format!("cannot read {}", self.name))?;
            self.ended = read == 0;
            if self.ended {
                continue;
            }
            self.line += 1;
            counts.lines += 1;
            let text = String::from_utf8_lossy(&self.buffer);
            match line::read(&text, names) {
                Ok(Read::Other) => {}
                Ok(Read::Request(traced, end)) => {
                    self.latest = self.latest.max(end);
                    if traced.at < self.given {
                        let late = "came longer before the lines around it than a request takes at most: give a longer --longest";
                        counts.bad(&self.name, self.line, late);
                        continue;
                    }
                    self.waiting.push(Reverse(Sorted(*traced, self.line)));
                }
                Err(error) => counts.bad(&self.name, self.line, &error),
            }
        }
    }
}

/// Several logs.
pub(super) struct Traces {
    traces: Vec<Trace>,
    counts: TraceCounts,
}

impl Traces {
    /// Opens them all.
    pub(super) fn open(paths: &[PathBuf], longest: Duration) -> Result<Self> {
        let traces = paths.iter().map(|path| Trace::open(path, longest));
        Ok(Self {
            traces: traces.collect::<Result<_>>()?,
            counts: TraceCounts::default(),
        })
    }
}

impl Source for Traces {
    fn next(&mut self, names: &mut Names) -> Result<Option<Traced>> {
        let mut first: Option<(u64, usize)> = None;
        for (index, trace) in self.traces.iter_mut().enumerate() {
            trace.fill(names, &mut self.counts)?;
            if let Some(Reverse(next)) = trace.waiting.peek() {
                let next = (next.0.at, index);
                first = Some(first.map_or(next, |first| first.min(next)));
            }
        }
        let Some((at, index)) = first else {
            return Ok(None);
        };
        let trace = &mut self.traces[index];
        trace.given = at;
        self.counts.requests += 1;
        Ok(trace.waiting.pop().map(|Reverse(next)| next.0))
    }

    fn counts(&self) -> TraceCounts {
        self.counts.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn line(at_seconds: u64, duration_ms: u64) -> String {
        let at = at_seconds * 1_000_000;
        format!(
            r#"{{"target":"vorrang::access","group":"g","priority":0,"timeout_ms":1000,"arrived_us":{at},"wait_ms":1,"status":200,"upstream_ms":1,"duration_ms":{duration_ms}}}"#
        )
    }

    fn read(files: &[Vec<String>], longest: Duration) -> (Vec<u64>, TraceCounts) {
        let directory = tempfile::tempdir().unwrap();
        let write = |(index, lines): (usize, &Vec<String>)| {
            let path = directory.path().join(format!("{index}.log"));
            let mut file = File::create(&path).unwrap();
            file.write_all(lines.join("\n").as_bytes()).unwrap();
            path
        };
        let paths: Vec<PathBuf> = files.iter().enumerate().map(write).collect();
        let mut traces = Traces::open(&paths, longest).unwrap();
        let mut names = Names::new();
        let mut found = Vec::new();
        while let Some(traced) = traces.next(&mut names).unwrap() {
            found.push(traced.at / 1_000_000);
        }
        (found, traces.counts())
    }

    #[test]
    fn logs_in_order_of_ends_are_merged_by_arrival() {
        let one = vec![line(5, 1000), line(1, 9000), line(12, 100)];
        let two = vec![line(3, 100), line(2, 4000), line(11, 100)];
        let (found, counts) = read(&[one, two], Duration::from_secs(10));
        assert_eq!(found, [1, 2, 3, 5, 11, 12]);
        assert_eq!((counts.lines, counts.requests, counts.bad), (6, 6, 0));
    }

    #[test]
    fn bad_and_late_lines_are_counted_with_their_numbers() {
        let lines = vec![
            line(1, 100),
            line(100, 100),
            "{\"target\":\"vorrang::access\",".into(),
            line(50, 100),
            line(200, 100),
            line(20, 10),
        ];
        let (found, counts) = read(&[lines], Duration::from_secs(60));
        assert_eq!(found, [1, 50, 100, 200]);
        assert_eq!((counts.lines, counts.requests, counts.bad), (6, 4, 2));
        assert!(counts.errors[0].contains("0.log:3: "), "{counts:?}");
        assert!(counts.errors[1].contains("0.log:6: ") && counts.errors[1].contains("--longest"));
    }
}
