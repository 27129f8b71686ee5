//! Every setting that LiteLLM 1.108.7 knows, by the section it stands in, and what it means here.
//!
//! The names were read off that version; the meanings are this gateway's. `docs/migrating-from-litellm.md` lists the same rows.

mod general;
mod litellm;
mod router;
mod top;

use crate::config::{Kind, read::Section, traces::names_only_otel};

/// What settings mean here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) enum Meaning {
    /// Read by other modules. Here so that all names are in one place, and none of them is unknown.
    Served,
    /// It changes nothing for calls: why.
    Idle(&'static str),
    /// It would change how calls are treated, and does not: what is done instead.
    NotDone(&'static str),
    /// Some calls need it: what to use instead.
    NotServed(&'static str),
    /// An error where it asks for anything (`refused.rs`).
    Refused,
    /// Names of callbacks: `otel` is served (`traces.rs`), others change nothing for calls.
    Callbacks,
}

/// Settings that mean the same.
pub(in crate::config) struct Row {
    pub(in crate::config) meaning: Meaning,
    pub(in crate::config) names: &'static [&'static str],
}

/// A section of the file, and all that LiteLLM knows in it.
pub(in crate::config) const SECTIONS: [(&str, &[Row]); 4] = [
    ("", top::ROWS),
    ("router_settings", router::ROWS),
    ("litellm_settings", litellm::ROWS),
    ("general_settings", general::ROWS),
];

const CALLBACKS: &str = "there are no callbacks but otel; use /metrics, the log and traces";
const CACHE: &str = "answers are not cached";
const COSTS: &str = "costs are not counted";
const DATABASE: &str = "there is no database; keys stand in vorrang_settings.keys";
const MODELS_ONLY: &str = "only models are served";
const UI: &str = "there is no web interface";
const HEALTH: &str = "health is seen from the calls";
const AS_THEY_ARE: &str = "requests and answers pass as they are";
const ALERTS: &str = "use /metrics for alerts";
const LOG_LEVEL: &str = "use the environment variable RUST_LOG";

/// Says of each setting of a section that asks for anything what it means here.
pub(in crate::config) fn explain(name: &str, section: &Section<'_>) {
    let rows = SECTIONS.iter().find(|(other, _)| *other == name);
    for row in rows.into_iter().flat_map(|(_, rows)| *rows) {
        for name in row.names {
            let (kind, text) = match row.meaning {
                Meaning::Served | Meaning::Refused => {
                    section.pass_over(name);
                    continue;
                }
                Meaning::Callbacks if section.node(name).is_some_and(names_only_otel) => continue,
                Meaning::Callbacks => (Kind::IDLE, CALLBACKS),
                Meaning::Idle(why) => (Kind::IDLE, why),
                Meaning::NotDone(why) => (Kind::NOT_DONE, why),
                Meaning::NotServed(why) => (Kind::NOT_SERVED, why),
            };
            if section.asks(name).unwrap_or(true) {
                let text = format!("this LiteLLM setting does nothing here: {text}");
                section.tell(kind, name, &text);
            }
            section.pass_over(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fmt::Write as _, fs, path::Path};

    use super::*;

    /// Where the rows are listed for people.
    const PAGE: &str = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../docs/migrating-from-litellm.md"
    );
    const HEADING: &str = "## Every setting\n";

    fn meaning(row: &Row) -> String {
        match row.meaning {
            Meaning::Served => "served".into(),
            Meaning::Idle(why) => format!("changes nothing for calls: {why}"),
            Meaning::NotDone(why) => format!("differs: {why}"),
            Meaning::NotServed(why) => format!("**not served**: {why}"),
            Meaning::Callbacks => {
                "`otel`: traces are sent by OTLP; others change nothing for calls".into()
            }
            Meaning::Refused => "refused where it asks for anything".into(),
        }
    }

    fn tables() -> String {
        let mut out = String::new();
        for (section, rows) in SECTIONS {
            let title = if section.is_empty() {
                "Top of the file".into()
            } else {
                format!("`{section}`")
            };
            write!(out, "\n### {title}\n\n| settings | here |\n| --- | --- |\n").unwrap();
            for row in rows {
                let names: Vec<String> = row.names.iter().map(|name| format!("`{name}`")).collect();
                writeln!(out, "| {} | {} |", names.join(", "), meaning(row)).unwrap();
            }
        }
        out
    }

    /// `VORRANG_RENEW=1` writes them.
    #[test]
    fn migration_page_lists_every_setting_with_its_meaning() {
        let page = fs::read_to_string(Path::new(PAGE)).unwrap();
        let (before, after) = page.split_once(HEADING).unwrap();
        let (introduction, _) = after.split_once("\n### ").unwrap();
        let expected = format!("{before}{HEADING}{introduction}{}", tables());
        if std::env::var_os("VORRANG_RENEW").is_some() {
            fs::write(PAGE, &expected).unwrap();
        }
        let page = fs::read_to_string(Path::new(PAGE)).unwrap();
        assert!(page == expected, "VORRANG_RENEW=1 renews {PAGE}");
    }

    #[test]
    fn each_setting_stands_in_one_row_of_its_section() {
        for (section, rows) in SECTIONS {
            let mut seen = std::collections::HashSet::new();
            for name in rows.iter().flat_map(|row| row.names) {
                assert!(seen.insert(*name), "{section}.{name}");
            }
        }
    }
}
