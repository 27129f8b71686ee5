//! What the admin API answers, as tables for people.

use serde_json::Value;

/// Groups and instances.
pub(super) fn overview(overview: &Value) -> String {
    let groups = list(&overview["groups"]).map(|group| {
        let state = match (
            group["paused"].as_bool(),
            list(&group["paused_keys"]).count(),
        ) {
            (Some(true), _) => "paused".to_owned(),
            (_, 0) if group["recovering"] == true => "recovering".to_owned(),
            (_, 0) => "running".to_owned(),
            (_, keys) => format!("{keys} keys paused"),
        };
        vec![
            text(&group["name"]),
            state,
            text(&group["depth"]),
            text(&group["open"]),
            time(&group["next_free_ms"]),
            words(&group["reasons"]),
        ]
    });
    let groups = table(
        &[
            "GROUP",
            "STATE",
            "WAITING",
            "OPEN",
            "NEXT GRANT",
            "HEAD WAITS FOR",
        ],
        groups.collect(),
    );
    let instances = list(&overview["instances"]).map(|instance| {
        let state = if instance["answered"] != true {
            "silent"
        } else if instance["draining"] == true {
            "draining"
        } else if instance["ready"] == true {
            "ready"
        } else {
            "not ready"
        };
        vec![
            text(&instance["id"]),
            state.to_owned(),
            text(&instance["waiting"]),
            text(&instance["open"]),
            text(&instance["version"]),
        ]
    });
    let instances = table(
        &["INSTANCE", "STATE", "WAITING", "OPEN", "VERSION"],
        instances.collect(),
    );
    format!("{groups}\n{instances}")
}

/// A page of tickets.
pub(super) fn tickets(page: &Value) -> String {
    let rows: Vec<_> = list(&page["tickets"])
        .map(|ticket| {
            vec![
                text(&ticket["position"]),
                text(&ticket["ticket"]),
                text(&ticket["priority"]),
                time(&ticket["age_ms"]),
                time(&ticket["least_wait_ms"]),
                text(&ticket["tokens"]),
                text(&ticket["key"]),
                text(&ticket["tenant"]),
                text(&ticket["call_id"]),
                text(&ticket["instance"]),
            ]
        })
        .collect();
    let shown = rows.len();
    let names = [
        "POSITION",
        "TICKET",
        "PRIORITY",
        "AGE",
        "LEAST WAIT",
        "TOKENS",
        "KEY",
        "TENANT",
        "CALL",
        "INSTANCE",
    ];
    let table = table(&names, rows);
    format!(
        "{table}\n{shown} shown of {} that wait\n",
        text(&page["total"])
    )
}

/// The limits of a deployment.
pub(super) fn limits(answer: &Value) -> String {
    let rows = list(&answer["limits"]).map(|limit| {
        vec![
            text(&limit["limit"]),
            text(&limit["used"]),
            text(&limit["configured"]),
            text(&limit["in_force"]),
        ]
    });
    table(&["LIMIT", "USED", "CONFIGURED", "IN FORCE"], rows.collect())
}

/// What is paused in a group.
pub(super) fn paused(group: &str, answer: &Value) -> String {
    let state = if answer["paused"] == true {
        "is paused"
    } else {
        "is running"
    };
    match words(&answer["paused_keys"]) {
        keys if keys == NONE => format!("group {group} {state}"),
        keys => format!("group {group} {state}; paused keys: {keys}"),
    }
}

const NONE: &str = "-";

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => NONE.to_owned(),
        // What others send is not to steer the terminal.
        Value::String(text) => text.chars().filter(|char| !char.is_control()).collect(),
        value => value.to_string(),
    }
}

fn words(value: &Value) -> String {
    let words: Vec<_> = list(value).map(text).collect();
    if words.is_empty() {
        NONE.to_owned()
    } else {
        words.join(", ")
    }
}

fn time(ms: &Value) -> String {
    let Some(ms) = ms.as_u64() else {
        return NONE.to_owned();
    };
    match ms {
        0..1000 => format!("{ms} ms"),
        1000..60_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        60_000..3_600_000 => format!("{} min {} s", ms / 60_000, ms % 60_000 / 1000),
        _ => format!("{} h {} min", ms / 3_600_000, ms % 3_600_000 / 60_000),
    }
}

fn table(names: &[&str], rows: Vec<Vec<String>>) -> String {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut widths: Vec<usize> = names.iter().map(|name| name.chars().count()).collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in [names].iter().chain(&rows) {
        let cells = row.iter().zip(&widths);
        let cells: Vec<_> = cells
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_nothing_steers_the_terminal() {
        let page = json!({"total": 7, "tickets": [
            {"position": 1, "ticket": "123", "priority": -5, "age_ms": 61_500, "least_wait_ms": 900, "tokens": 12,
             "key": "k", "tenant": null, "call_id": "a\u{1b}[2Jb", "instance": "i"},
            {"position": null, "ticket": "4", "age_ms": 7_250_000, "least_wait_ms": 1_250},
        ]});
        let text = tickets(&page);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines[0],
            "POSITION  TICKET  PRIORITY  AGE        LEAST WAIT  TOKENS  KEY  TENANT  CALL   INSTANCE"
        );
        assert_eq!(
            lines[1],
            "1         123     -5        1 min 1 s  900 ms      12      k    -       a[2Jb  i"
        );
        assert!(
            lines[2].starts_with("-         4       -         2 h 0 min  1.2 s "),
            "{text}"
        );
        assert_eq!(lines[4], "2 shown of 7 that wait");
    }

    #[test]
    fn group_table_tells_what_is_paused_and_which_instance_is_silent() {
        let text = overview(&json!({
            "groups": [
                {"name": "a", "paused": true, "depth": 3, "open": 1, "reasons": ["paused"]},
                {"name": "b", "paused": false, "paused_keys": ["k"], "depth": 0, "next_free_ms": 5, "reasons": []},
            ],
            "instances": [{"id": "i", "answered": false}, {"id": "j", "answered": true, "ready": true, "draining": true}],
        }));
        for words in [
            "a      paused ",
            "b      1 keys paused",
            "i         silent",
            "j         draining",
        ] {
            assert!(text.contains(words), "no {words} in\n{text}");
        }
    }
}
