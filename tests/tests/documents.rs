//! The documents are held to the source: tests that they name exist, links lead somewhere, lines are short.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot be set up fails"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Columns of a line that is neither a table's nor has a long link.
const MAX_COLUMNS: usize = 120;
const MAX_GLOSSARY: usize = 30;
const CONTRACT_LINES: usize = 9;
const RULES: usize = 23;

fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests
        .parent()
        .expect("the tests are in the workspace")
        .into()
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The README and all pages in `docs`, by path.
fn documents() -> Vec<PathBuf> {
    let pages = fs::read_dir(root().join("docs")).expect("docs is there");
    let pages = pages.map(|page| page.unwrap().path());
    let markdown = |path: &PathBuf| path.extension().is_some_and(|e| e == "md");
    let mut found: Vec<PathBuf> = pages.filter(markdown).collect();
    found.push(root().join("README.md"));
    found.sort();
    found
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

fn name_of_function(line: &str) -> Option<&str> {
    let (before, after) = line.split_once("fn ")?;
    let is_declaration = before
        .split_whitespace()
        .all(|word| ["pub", "async", "#[test]"].contains(&word));
    let name = after.split(['(', '<']).next()?;
    is_declaration.then_some(name)
}

/// Names of all test functions in the workspace, and of the scenarios of the simulation, which a macro makes test functions of.
fn tests() -> BTreeSet<String> {
    let mut files = Vec::new();
    rust_files(&root().join("crates"), &mut files);
    rust_files(&root().join("tests/tests"), &mut files);
    let mut found = BTreeSet::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let mut is_test = false;
        for line in text.lines() {
            is_test |= line.contains("#[test]") || line.contains("#[tokio::test");
            if let Some(name) = name_of_function(line).filter(|_| is_test) {
                found.insert(name.to_owned());
                is_test = false;
            }
        }
    }
    let simulation = read("crates/scheduler/tests/simulation/main.rs");
    let (_, scenarios) = simulation
        .split_once("\nscenarios! {")
        .expect("the scenarios");
    let (scenarios, _) = scenarios.split_once('}').expect("the end of the scenarios");
    found.extend(scenarios.split_whitespace().map(str::to_owned));
    found
}

fn cells(row: &str) -> Vec<&str> {
    let row = row.trim().trim_start_matches('|').trim_end_matches('|');
    row.split('|').map(str::trim).collect()
}

/// What stands between backticks.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// The rows of all tables whose last column is `tests`: heading above the table, first cell, tests.
fn rows_with_tests(page: &str) -> Vec<(&str, &str, Vec<&str>)> {
    let (mut heading, mut in_table, mut found) = ("", false, Vec::new());
    for line in page.lines() {
        if line.starts_with('#') {
            heading = line.trim_start_matches('#').trim();
        }
        if !line.starts_with('|') {
            in_table = false;
            continue;
        }
        let cells = cells(line);
        let last = cells.last().copied().unwrap_or_default();
        if last == "tests" {
            in_table = true;
        } else if in_table && !last.starts_with("---") {
            found.push((heading, cells[0], quoted(last)));
        }
    }
    found
}

/// `P1` of `P1 (sessions and replays)`.
fn number_of(name: &str) -> &str {
    name.split_whitespace().next().unwrap_or_default()
}

fn headings<'a>(page: &'a str, level: &str) -> Vec<&'a str> {
    let level = format!("{level} ");
    let found = page.lines().filter_map(|line| line.strip_prefix(&*level));
    found.collect()
}

#[test]
fn evidence_names_existing_tests() {
    let (page, tests) = (read("docs/evidence.md"), tests());
    let rows = rows_with_tests(&page);
    assert!(rows.len() > 100, "the tables were not found");
    let unknown: BTreeSet<&str> = rows
        .iter()
        .flat_map(|(.., named)| named)
        .filter(|name| !tests.contains(**name))
        .copied()
        .collect();
    assert!(unknown.is_empty(), "no such tests: {unknown:#?}");
}

#[test]
fn each_contract_line_and_rule_has_evidence() {
    let page = read("docs/evidence.md");
    let mut tests_by: BTreeMap<&str, usize> = BTreeMap::new();
    for (heading, first, named) in rows_with_tests(&page) {
        let of = if heading == "Contract" {
            first
        } else {
            heading
        };
        *tests_by.entry(number_of(of)).or_default() += named.len();
    }
    let lines = (1..=CONTRACT_LINES).map(|n| format!("A{n}"));
    let rules = (1..=RULES).map(|n| format!("P{n}"));
    for name in lines.chain(rules) {
        let tests = tests_by.get(&*name).copied().unwrap_or_default();
        assert!(tests > 0, "no test is named for {name}");
    }
}

#[test]
fn protocol_and_evidence_have_the_same_rule_headings() {
    let (protocol, evidence) = (read("docs/protocol.md"), read("docs/evidence.md"));
    let rules = |page| -> Vec<String> {
        let is_rule = |heading: &&str| heading.starts_with('P');
        let found = headings(page, "###").into_iter().filter(is_rule);
        found.map(str::to_owned).collect()
    };
    assert_eq!(rules(&protocol), rules(&evidence));
    assert_eq!(rules(&protocol).len(), RULES);
}

#[test]
fn glossary_has_at_most_thirty_words() {
    let page = read("docs/architecture.md");
    let (_, glossary) = page.split_once("\n## Glossary").expect("the glossary");
    let (glossary, _) = glossary.split_once("\n## ").expect("what follows it");
    // Two rows are the head.
    let words = glossary
        .lines()
        .filter(|line| line.starts_with('|'))
        .count()
        - 2;
    assert!((1..=MAX_GLOSSARY).contains(&words), "{words} words");
}

/// Paths of a table's row that do not exist. A file without a folder stands beside the path before it.
fn missing_paths(row: &str) -> Vec<PathBuf> {
    let (mut folder, mut missing) = (root(), Vec::new());
    for name in quoted(row) {
        let path = if name.contains('/') {
            root().join(name)
        } else if name.ends_with(".rs") {
            folder.join(name)
        } else {
            continue;
        };
        folder = if path.is_dir() {
            path.clone()
        } else {
            path.parent().unwrap().into()
        };
        if !path.exists() {
            missing.push(path);
        }
    }
    missing
}

#[test]
fn architecture_tables_name_existing_paths() {
    let page = read("docs/architecture.md");
    for heading in ["## Code map", "### Where to change what"] {
        let (_, section) = page.split_once(&format!("\n{heading}\n")).expect(heading);
        let (section, _) = section.split_once("\n#").expect("what follows it");
        let rows: Vec<&str> = section
            .lines()
            .filter(|line| line.starts_with('|'))
            .collect();
        assert!(rows.len() > 5, "{heading}: the table was not found");
        let missing: Vec<PathBuf> = rows.into_iter().flat_map(missing_paths).collect();
        assert!(missing.is_empty(), "{heading}: {missing:#?}");
    }
}

#[test]
fn lines_have_at_most_120_columns() {
    let mut long = Vec::new();
    for document in documents() {
        let text = read(&document);
        for (number, line) in text.lines().enumerate() {
            let is_free =
                line.starts_with('|') || line.starts_with("![") || line.contains("](http");
            if !is_free && line.chars().count() > MAX_COLUMNS {
                long.push(format!("{}:{}", document.display(), number + 1));
            }
        }
    }
    assert!(long.is_empty(), "too long: {long:#?}");
}

/// As GitHub makes them of headings.
fn anchor(heading: &str) -> String {
    let kept = heading
        .chars()
        .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

fn anchors(page: &str) -> BTreeSet<String> {
    let titles = page.lines().filter(|line| line.starts_with('#'));
    titles
        .map(|line| anchor(line.trim_start_matches('#').trim()))
        .collect()
}

#[test]
fn links_lead_to_existing_pages_and_headings() {
    let mut broken = Vec::new();
    for document in documents() {
        let text = read(&document);
        let targets = text.split("](").skip(1).filter_map(|rest| {
            let (target, _) = rest.split_once(')')?;
            (!target.contains("://")).then_some(target)
        });
        for target in targets {
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let page = if file.is_empty() {
                document.clone()
            } else {
                document.parent().unwrap().join(file)
            };
            let is_there =
                page.exists() && (heading.is_empty() || anchors(&read(&page)).contains(heading));
            if !is_there {
                broken.push(format!("{}: {target}", document.display()));
            }
        }
    }
    assert!(broken.is_empty(), "broken links: {broken:#?}");
}

/// The texts of a call's arguments, and what follows it.
fn literals(arguments: &str) -> Vec<String> {
    let (mut found, mut depth, mut text, mut escaped) = (Vec::new(), 1, None::<String>, false);
    for c in arguments.chars() {
        match (&mut text, c) {
            (Some(text), _) if escaped => {
                text.push(c);
                escaped = false;
            }
            (Some(_), '\\') => escaped = true,
            (Some(_), '"') => found.extend(text.take()),
            (Some(text), _) => text.push(c),
            (None, '"') => text = Some(String::new()),
            (None, '(') => depth += 1,
            (None, ')') => depth -= 1,
            (None, _) => {}
        }
        if depth == 0 {
            break;
        }
    }
    found
}

/// A message as the table has it: what is filled in is `...`.
fn pattern(message: &str) -> String {
    let mut pattern = String::new();
    for (index, part) in message.split('{').enumerate() {
        let rest = if index == 0 {
            part
        } else {
            pattern.push_str("...");
            part.split_once('}').map_or("", |(_, rest)| rest)
        };
        pattern.push_str(rest);
    }
    pattern
}

/// All that instances log by themselves from the level info on: the messages of the source outside of its tests.
fn logged() -> (BTreeSet<String>, String) {
    let mut files = Vec::new();
    for name in ["scheduler", "gateway", "server"] {
        rust_files(&root().join("crates").join(name).join("src"), &mut files);
    }
    let (mut messages, mut source) = (BTreeSet::new(), String::new());
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let text = text
            .split("#[cfg(test)]\nmod tests {")
            .next()
            .unwrap_or_default();
        source.push_str(text);
        for level in ["error", "warn", "info"] {
            for call in text.split(&format!("tracing::{level}!(")).skip(1) {
                messages.extend(literals(call).last().map(|message| pattern(message)));
            }
        }
    }
    // These are texts of `vorrang check` and of options.
    messages.remove("...");
    (messages, source)
}

#[test]
fn every_log_line_is_documented() {
    let page = read("docs/troubleshooting.md");
    let (_, section) = page.split_once("\n## Log lines\n").expect("the log lines");
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let documented: BTreeSet<String> = rows
        .filter_map(|row| Some(quoted(cells(row)[0]).first()?.to_string()))
        .collect();
    let (logged, source) = logged();
    assert!(logged.len() > 30, "the calls were not found: {logged:#?}");
    let missing: Vec<&String> = logged.difference(&documented).collect();
    assert!(missing.is_empty(), "not in the table: {missing:#?}");
    // A message may be in a variable.
    let unknown: Vec<&String> = documented
        .difference(&logged)
        .filter(|message| !source.contains(&format!("\"{message}\"")))
        .collect();
    assert!(unknown.is_empty(), "not in the source: {unknown:#?}");
}
