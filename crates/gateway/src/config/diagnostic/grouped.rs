//! Diagnostics of one kind as one line with their places: a file of sixty deployments has sixty of some.

use std::fmt;

use super::{Diagnostic, Level, shown::Shown};

/// More places than these are counted only.
const PLACES: usize = 12;

/// More keys than these are counted only.
const KEYS: usize = 6;

/// What is said at one or several places.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Grouped<'a> {
    /// How much it matters.
    pub level: Level,
    /// Its kind.
    pub code: &'static str,
    /// At least one, in the order of the file.
    pub places: Vec<&'a Diagnostic>,
}

impl<'a> Grouped<'a> {
    /// The worst first, then in the order of the file.
    pub fn of(diagnostics: impl IntoIterator<Item = &'a Diagnostic>) -> Vec<Self> {
        let mut groups: Vec<Self> = Vec::new();
        for one in diagnostics {
            let same = |group: &&mut Self| {
                let first = group.places.first();
                group.code == one.code && first.is_some_and(|first| first.message == one.message)
            };
            match groups.iter_mut().find(same) {
                Some(group) => group.places.push(one),
                None => groups.push(Self {
                    level: one.level,
                    code: one.code,
                    places: vec![one],
                }),
            }
        }
        groups.sort_by_key(|group| group.level);
        groups
    }

    /// The keys without their numbers in lists, each once.
    fn keys(&self) -> Vec<String> {
        let mut keys: Vec<String> = Vec::new();
        for key in self.places.iter().filter_map(|place| place.key.as_deref()) {
            let key = without_numbers(key);
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        keys
    }

    /// `lines 12, 40 of config.yaml`.
    fn lines(&self) -> String {
        let mut files: Vec<(&str, Vec<u64>)> = Vec::new();
        for place in &self.places {
            let (Some(file), Some(line)) = (place.file.as_deref(), place.line) else {
                continue;
            };
            match files.iter_mut().find(|(name, _)| *name == file) {
                Some((_, lines)) if lines.contains(&line) => {}
                Some((_, lines)) => lines.push(line),
                None => files.push((file, vec![line])),
            }
        }
        let of_file = |(file, lines): (&str, Vec<u64>)| {
            let shown: Vec<String> = lines.iter().take(PLACES).map(u64::to_string).collect();
            let more = match lines.len().saturating_sub(PLACES) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let line = if lines.len() == 1 { "line" } else { "lines" };
            format!("{line} {}{more} of {}", shown.join(", "), Shown(file))
        };
        let files: Vec<String> = files.into_iter().map(of_file).collect();
        files.join("; ")
    }
}

/// Without the level: `config.yaml:12: key: message`, or keys, message and places.
impl fmt::Display for Grouped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(first) = self.places.first() else {
            return Ok(());
        };
        if self.places.len() == 1 {
            return write!(f, "{first}");
        }
        let keys = self.keys();
        for (index, key) in keys.iter().take(KEYS).enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{}", Shown(key))?;
        }
        if keys.len() > KEYS {
            write!(f, " and {} more", keys.len() - KEYS)?;
        }
        let colon = if keys.is_empty() { "" } else { ": " };
        let message = Shown(&first.message);
        write!(
            f,
            "{colon}{message} ({} places: {})",
            self.places.len(),
            self.lines()
        )
    }
}

/// `model_list[12].model_name` as `model_list[].model_name`.
fn without_numbers(key: &str) -> String {
    let mut out = String::with_capacity(key.len());
    for part in key.split_inclusive('[') {
        let rest = part.trim_start_matches(|c: char| c.is_ascii_digit());
        // Only what stands in brackets is a number of a list.
        let numbered = out.ends_with('[') && rest.starts_with(']');
        out.push_str(if numbered { rest } else { part });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{super::Kind, *};

    fn at(kind: Kind, line: u64, key: &str, message: &str) -> Diagnostic {
        Diagnostic {
            file: Some("a.yaml".into()),
            line: Some(line),
            key: Some(key.into()),
            ..Diagnostic::new(kind, message)
        }
    }

    #[test]
    fn same_message_is_one_line_with_its_places_and_worst_come_first() {
        let all = [
            at(Kind::IDLE, 1, "litellm_settings.callbacks", "idle"),
            at(Kind::LEFT_OUT, 5, "model_list[0].model", "left out"),
            at(Kind::IDLE, 7, "litellm_settings.success_callback", "idle"),
            at(Kind::LEFT_OUT, 9, "model_list[12].model", "left out"),
            at(Kind::INVALID, 11, "x[1", "expected a number"),
        ];
        let lines: Vec<String> = Grouped::of(&all)
            .iter()
            .map(|group| format!("{}: {group}", group.level))
            .collect();
        assert_eq!(
            lines,
            [
                "error: a.yaml:11: x[1: expected a number",
                "warning: model_list[].model: left out (2 places: lines 5, 9 of a.yaml)",
                "note: litellm_settings.callbacks, litellm_settings.success_callback: idle (2 places: lines 1, 7 of a.yaml)",
            ]
        );
    }

    #[test]
    fn many_places_and_keys_are_counted() {
        let all: Vec<_> = (1..=20)
            .map(|line| at(Kind::IDLE, line, &format!("k{line}"), "idle"))
            .collect();
        let [group] = &Grouped::of(&all)[..] else {
            panic!("one group");
        };
        assert_eq!(
            group.to_string(),
            "k1, k2, k3, k4, k5, k6 and 14 more: idle (20 places: lines 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 and 8 more of a.yaml)"
        );
    }
}
