//! How figures and states are said. The page says them in the same words.

use super::model::{Group, Limit};

/// A length of time, in at most seven columns.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it is rounded to be read"
)]
pub(crate) fn time(ms: f64) -> String {
    let whole = |value: f64| value.round() as u64;
    match ms {
        ms if ms <= 0.0 => "0".into(),
        ms if ms < 999.5 => format!("{} ms", whole(ms).max(1)),
        ms if ms < 9_950.0 => format!("{:.1} s", ms / 1e3),
        ms if ms < 119_500.0 => format!("{} s", whole(ms / 1e3)),
        ms if ms < 7_170_000.0 => format!("{} min", whole(ms / 6e4)),
        ms if ms < 172_800_000.0 => format!("{} h", whole(ms / 3.6e6)),
        ms => format!("{} d", whole(ms / 8.64e7)),
    }
}

/// The same, or a dash where it is not known.
pub(crate) fn maybe_time(ms: Option<f64>) -> String {
    ms.map_or("-".into(), time)
}

/// What the head waits for.
fn reason(word: &str) -> &str {
    match word {
        "requests" => "room for requests",
        "tokens" => "room for tokens",
        "input_tokens" => "room for input tokens",
        "output_tokens" => "room for output tokens",
        "concurrency" => "an open call to end",
        "cooldown" => "a cooldown to end",
        "probing" => "the probe of a deployment that failed",
        "pacing" => "its pace",
        "reserve" => "room beside what is kept for better priorities",
        "paused" => "the group or its key to be resumed",
        other => other,
    }
}

/// Why the head of a group's queue waits, in one or more sentences.
pub(crate) fn why(group: &Group) -> String {
    if group.backend_answers == Some(false) {
        return "Redis does not answer: nothing is granted by it, and the figures are the last that are known.".into();
    }
    if group.recovering {
        return "The shared state was lost and is being rebuilt: nothing is granted until all instances have reported.".into();
    }
    if group.paused {
        return "The group is paused: nothing is granted until it is resumed (p).".into();
    }
    let held = match group.held {
        0 => String::new(),
        count => {
            let keys: Vec<String> = group.paused_keys.iter().map(|key| plain(key)).collect();
            let keys = keys.join(", ");
            format!("{count} held because of a paused key ({keys}), until it is resumed.")
        }
    };
    if group.depth == 0 {
        return if held.is_empty() {
            "Nothing waits.".into()
        } else {
            held
        };
    }
    let reasons: Vec<&str> = group.reasons.iter().map(|word| reason(word)).collect();
    if reasons.is_empty() {
        return "The head of the queue is about to go.".into();
    }
    let mut said = format!("The head waits for {}.", reasons.join(" and "));
    if let Some(ms) = group.next_free_ms.filter(|ms| *ms > 0.0) {
        said += &format!(" At least {} more.", time(ms));
    }
    for one in &group.deployments {
        if let Some(ms) = one.cooling_ms.filter(|ms| *ms > 0.0) {
            let status = one.cooling_status.filter(|status| *status > 0);
            let status = status.map_or(", it could not be reached".into(), |status| {
                format!(", it answered {status}")
            });
            said += &format!(" {} cools for {} more{status}.", one.id, time(ms));
        }
    }
    if !held.is_empty() {
        said += " ";
        said += &held;
    }
    said
}

/// What is out of the ordinary with a group, in a word.
pub(crate) fn state(group: &Group) -> String {
    let cooling = group
        .deployments
        .iter()
        .filter(|one| one.cooling_ms > Some(0.0));
    let limits = || group.deployments.iter().flat_map(|one| &one.limits);
    let changed = limits().filter(|limit| limit.is_changed()).count();
    let mut words = Vec::new();
    if group.recovering {
        words.push("recovering".to_owned());
    }
    if group.paused {
        words.push("PAUSED".to_owned());
    }
    if !group.paused_keys.is_empty() {
        let keys = group.paused_keys.len();
        words.push(format!(
            "{keys} key{} paused",
            if keys == 1 { "" } else { "s" }
        ));
    }
    match cooling.count() {
        0 => {}
        count => words.push(format!("{count} cooling")),
    }
    if limits().any(Limit::is_full) {
        words.push("full".to_owned());
    }
    if changed > 0 {
        words.push(format!("{changed} changed"));
    }
    words.join(", ")
}

/// Without what a terminal would take for more than text: names come from clients and files.
pub(crate) fn plain(text: &str) -> String {
    let turns = |char: char| matches!(char, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let plain = |char: char| {
        if char.is_control() || turns(char) {
            '\u{fffd}'
        } else {
            char
        }
    };
    text.chars().map(plain).collect()
}

/// An id that is recognised by its beginning.
pub(crate) fn short(text: &str) -> String {
    let text = plain(text);
    match text.char_indices().nth(16) {
        None => text,
        Some(_) => text.chars().take(8).chain(['…']).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_keep_within_seven_columns() {
        for (ms, said) in [
            (0.0, "0"),
            (0.2, "1 ms"),
            (999.0, "999 ms"),
            (1_000.0, "1.0 s"),
            (59_900.0, "60 s"),
            (119_900.0, "2 min"),
            (7_100_000.0, "118 min"),
            (7_200_000.0, "2 h"),
            (1e12, "11574 d"),
        ] {
            assert_eq!(time(ms), said);
            assert!(time(ms).len() <= 7, "{said}");
        }
    }

    #[test]
    fn control_characters_of_names_do_not_reach_the_terminal() {
        assert_eq!(plain("a\u{1b}[2Jb\n"), "a\u{fffd}[2Jb\u{fffd}");
        assert_eq!(short("0123456789abcdef-more"), "01234567…");
    }
}
