//! `--once`: what is shown, as plain text.

use std::fmt::Write as _;

use super::{
    model::{Class, Group, Limit, Overview},
    words::{maybe_time, plain, state, why},
};

/// A line for each group, and below it why its head waits, its classes and its limits.
pub(crate) fn table(overview: &Overview) -> String {
    let ready = overview
        .instances
        .iter()
        .filter(|one| one.ready && one.answered);
    let mut text = format!(
        "instances ready: {} of {}\n",
        ready.count(),
        overview.instances.len()
    );
    for group in &overview.groups {
        // Writing to a string does not fail.
        let _ = one(&mut text, group);
    }
    text
}

fn one(text: &mut String, group: &Group) -> std::fmt::Result {
    let (name, depth, open) = (plain(&group.name), group.depth, group.open);
    writeln!(
        text,
        "\n{name}: {depth} waiting, {open} open  {}",
        state(group)
    )?;
    writeln!(text, "  {}", plain(&why(group)))?;
    let used = |class: &&Class| {
        class.waiting > 0 || class.granted_per_minute > Some(0.0) || class.waits.p50_ms.is_some()
    };
    let classes: Vec<&Class> = group.classes.iter().filter(used).collect();
    if !classes.is_empty() {
        let names = ["PRIORITY", "WAITING", "GRANTED/MIN", "WAIT P50", "WAIT P99"];
        let [class, waiting, granted, p50, p99] = names;
        writeln!(
            text,
            "  {class:<10}{waiting:>9}{granted:>13}{p50:>10}{p99:>10}"
        )?;
    }
    for class in classes {
        let granted = class
            .granted_per_minute
            .map_or("-".into(), |granted| format!("{granted:.1}"));
        let (p50, p99) = (
            maybe_time(class.waits.p50_ms),
            maybe_time(class.waits.p99_ms),
        );
        writeln!(
            text,
            "  {:<10}{:>9}{granted:>13}{p50:>10}{p99:>10}",
            plain(&class.class),
            class.waiting
        )?;
    }
    for deployment in &group.deployments {
        for limit in &deployment.limits {
            writeln!(
                text,
                "  {} {}: {}",
                plain(&deployment.id),
                plain(&limit.limit),
                use_of(limit)
            )?;
        }
    }
    Ok(())
}

fn use_of(limit: &Limit) -> String {
    let known = |limit: Option<u64>| limit.map_or("-".into(), |limit| limit.to_string());
    let mut said = format!("{} of {}", known(limit.used), known(limit.in_force));
    if limit.is_full() {
        said += ", full";
    }
    if limit.is_changed() {
        said += &format!(
            ", until further notice (configured: {})",
            known(limit.configured)
        );
    }
    said
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn table_says_what_waits_why_and_which_limits_are_changed() {
        let overview = json!({
            "instances": [{"ready": true, "answered": true}],
            "groups": [{
                "name": "gpt", "depth": 1, "open": 2, "reasons": ["tokens"],
                "classes": [{"class": "0", "waiting": 1, "granted_per_minute": 2.25, "waits": {"p50_ms": 3.0, "p99_ms": null}}],
                "deployments": [{"id": "eu", "limits": [{"limit": "tpm", "used": 5, "configured": 9, "in_force": 5}]}],
            }],
        });
        let text = table(&serde_json::from_value(overview).unwrap());
        for line in [
            "instances ready: 1 of 1",
            "gpt: 1 waiting, 2 open  full, 1 changed",
            "  The head waits for room for tokens.",
            "  0                 1          2.2      3 ms         -",
            "  eu tpm: 5 of 5, full, until further notice (configured: 9)",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line} in\n{text}");
        }
    }
}
