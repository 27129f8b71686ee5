//! The step in Lua: the files of `lua/`, one for each module of the transition, with the constants of the Rust transition as numbers.
//!
//! There are two forms of the one source. A library of functions (Redis from 7.0 on, Valkey) is created once, and keeps the groups that it wrote last. A script, for
//! servers without functions, is created anew by each call.

use std::{
    fmt::Write as _,
    hash::{DefaultHasher, Hash, Hasher},
};

use super::template;
use crate::{
    claim::{MAX_COST, MAX_TENANT, MOST_TRIED, UNIT_COST},
    cost::{AMOUNTS, KINDS},
    message::{
        HELD, MAX_DROPS, MAX_GRANTS, MAX_ORPHANS, MAX_OVERRIDES, MAX_RECOUNT, MAX_ROWS,
        MAX_SESSIONS, MAX_SETTLED, MAX_SWEEP, MAX_WALK, NEVER_FITS, QUEUE_FULL, Verdict,
        overridden, reason,
    },
    overrides::CONCURRENCY,
    rules::{
        LATENCY_BASED, LEAST_BUSY, MAX_AMOUNT, MAX_DURATION, MAX_HANDICAP, MAX_LATENCY, MAX_LIMIT,
        MAX_NUMBER, MAX_SEEN, MAX_TOTAL, NONE, PROBE_PACE, THOUSAND, USAGE_BASED, WHOLE,
    },
    transition::shared,
};

/// A group's sorted sets.
const SORTED_SETS: [&str; 6] = ["queue", "windows", "idle", "behind", "by_cost", "calls"];

/// A group's hashes, except `meta`.
const HASHES: [&str; 2] = ["entries", "tenants"];

/// The files, in the order in which they are joined.
const PARTS: [&str; 17] = [
    include_str!("../../../lua/bounds.lua"),
    include_str!("../../../lua/step.lua"),
    include_str!("../../../lua/store.lua"),
    include_str!("../../../lua/group.lua"),
    include_str!("../../../lua/configurations.lua"),
    include_str!("../../../lua/queue.lua"),
    include_str!("../../../lua/fair.lua"),
    include_str!("../../../lua/windows.lua"),
    include_str!("../../../lua/pace.lua"),
    include_str!("../../../lua/calls.lua"),
    include_str!("../../../lua/sessions.lua"),
    include_str!("../../../lua/ending.lua"),
    include_str!("../../../lua/recovery.lua"),
    include_str!("../../../lua/operators.lua"),
    include_str!("../../../lua/ops.lua"),
    include_str!("../../../lua/grants.lua"),
    include_str!("../../../lua/execute.lua"),
];

/// The names of a group's keys, in the order of KEYS.
pub fn keys() -> impl Iterator<Item = &'static str> {
    std::iter::once("meta").chain(SORTED_SETS).chain(HASHES)
}

/// A library of functions with the step as its only function.
pub struct Library {
    /// The name of the library and of its function. It is made from the source, so that gateways of different versions do not replace each other's.
    pub name: String,
    /// For `FUNCTION LOAD`.
    pub source: String,
}

/// The step as a library.
pub fn library() -> Library {
    let step = step(true);
    let mut hasher = DefaultHasher::new();
    step.hash(&mut hasher);
    let name = format!("vorrang_{:016x}", hasher.finish());
    // While a library is loaded it has none of Redis's functions, so the step is created by the first call.
    let source = format!(
        "#!lua name={name}\nlocal run\nlocal function create()\n{step}\nreturn run\nend\nredis.register_function('{name}', function(keys, arguments)\n  run = run or create()\n  return run(keys, arguments)\nend)\n"
    );
    Library { name, source }
}

/// The step as a script.
pub fn script() -> String {
    step(false) + "\nreturn run(KEYS, ARGV)\n"
}

/// `keeps`: the function `run` keeps groups between calls.
fn step(keeps: bool) -> String {
    let mut source = prelude(keeps);
    for part in PARTS {
        source.push('\n');
        source.push_str(&template::filled(part));
    }
    source
}

/// The names of the keys, a set, and what else the forms need, as local variables of Lua.
fn prelude(keeps: bool) -> String {
    let names: Vec<String> = keys().map(str::to_uppercase).collect();
    let names = names.join(", ");
    let mut lua = format!(
        "-- Generated from the constants of the transition.\nlocal {names}\nlocal function name_keys(keys) {names} = unpack(keys) end\n"
    );
    let mut line = |name: &str, value: String| _ = writeln!(lua, "local {name} = {value}");
    line("KEEPS", keeps.to_string());
    line("SORTED_SETS", format!("{}", SORTED_SETS.len()));
    let hopeless = shared::HOPELESS.map(|status| format!("[{status}] = true"));
    line("HOPELESS", format!("{{ {} }}", hopeless.join(", ")));
    lua
}

/// Constants, which are written into the files as numbers: a variable would cost each step what it takes to share it with the functions that use it.
pub(super) fn integers() -> Vec<(&'static str, i64)> {
    let of = u64::cast_signed;
    let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    vec![
        ("NONE", NONE),
        ("KINDS", count(KINDS)),
        ("AMOUNTS", count(AMOUNTS)),
        // A time after all times.
        ("NEVER", of(MAX_NUMBER + 1)),
        ("MAX_NUMBER", of(MAX_NUMBER)),
        ("MAX_SEEN", of(MAX_SEEN.0)),
        ("MAX_LIMIT", of(MAX_LIMIT)),
        ("MAX_AMOUNT", of(MAX_AMOUNT)),
        ("MAX_TOTAL", of(MAX_TOTAL)),
        ("MAX_DURATION", of(MAX_DURATION.0)),
        ("MAX_LATENCY", of(MAX_LATENCY.0)),
        ("MAX_TENANT", of(MAX_TENANT)),
        ("MAX_COST", of(MAX_COST)),
        ("MOST_TRIED", count(MOST_TRIED)),
        ("MAX_HANDICAP", MAX_HANDICAP),
        ("UNIT_COST", of(UNIT_COST)),
        // Instead of a tenant's number: all tenants of a priority.
        ("ALL", of(shared::ALL)),
        ("MIN_PRIORITY", i32::MIN.into()),
        // The worst priority: no ticket is paced.
        ("NOT_PACED", i32::MAX.into()),
        ("WHOLE", of(WHOLE)),
        ("DONE", Verdict::Done as i64),
        ("SESSION_INVALID", Verdict::SessionInvalid as i64),
        ("STALE", Verdict::Stale as i64),
        ("NEVER_FITS", NEVER_FITS.into()),
        ("QUEUE_FULL", QUEUE_FULL.into()),
        ("HELD", HELD.into()),
        ("PAUSES", overridden::PAUSE.into()),
        ("LIMITS", overridden::LIMIT.into()),
        ("OPEN_CALLS", CONCURRENCY.into()),
        ("MAX_OVERRIDES", count(MAX_OVERRIDES)),
        ("MAX_ROWS", of(MAX_ROWS)),
        ("MAX_SESSIONS", count(MAX_SESSIONS)),
        ("USAGE_BASED", USAGE_BASED.into()),
        ("LEAST_BUSY", LEAST_BUSY.into()),
        ("LATENCY_BASED", LATENCY_BASED.into()),
        ("THOUSAND", of(THOUSAND)),
        ("UNMEASURED", of(shared::UNMEASURED)),
        ("SMOOTHING", of(shared::SMOOTHING)),
        ("BLOCK", of(shared::BLOCK)),
        ("MAX_GRANTS", count(MAX_GRANTS)),
        ("MAX_DROPS", count(MAX_DROPS)),
        ("MAX_ORPHANS", count(MAX_ORPHANS)),
        ("MAX_RECOUNT", count(MAX_RECOUNT)),
        ("MAX_SETTLED", count(MAX_SETTLED)),
        ("MAX_WALK", count(MAX_WALK)),
        ("MAX_SWEEP", count(MAX_SWEEP)),
        ("PROBE_PACE", of(PROBE_PACE.0)),
        ("FAIL_WINDOW", of(shared::FAIL_WINDOW.0)),
        ("CLOCK_SET_BACK", of(shared::CLOCK_SET_BACK.0)),
        ("LEAP", of(shared::LEAP.0)),
        ("STEP", of(shared::STEP.0)),
        ("MOST_SPANS", of(shared::MOST_SPANS)),
        ("EPOCHS", count(shared::EPOCHS)),
        ("MODULUS", of(shared::MODULUS)),
        ("MULTIPLIER", of(shared::MULTIPLIER)),
        ("WAITS_FOR_REQUESTS", of(reason::REQUESTS)),
        ("WAITS_FOR_TOKENS", of(reason::TOKENS)),
        ("WAITS_FOR_INPUT", of(reason::INPUT_TOKENS)),
        ("WAITS_FOR_OUTPUT", of(reason::OUTPUT_TOKENS)),
        ("WAITS_FOR_CONCURRENCY", of(reason::CONCURRENCY)),
        ("WAITS_FOR_COOLDOWN", of(reason::COOLDOWN)),
        ("WAITS_FOR_PROBE", of(reason::PROBING)),
        ("WAITS_FOR_PACE", of(reason::PACING)),
        ("WAITS_FOR_RESERVE", of(reason::RESERVE)),
        ("WAITS_FOR_OPERATOR", of(reason::PAUSED)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Integers in the Lua files that are not constants of the protocol: positions and widths of digits, sizes of buffers, arguments of one
    /// command, and expiry times of keys.
    const OTHERS: [&str; 10] = [
        "16",
        "64",
        "128",
        "100",
        "5000",
        "3999",
        "4000",
        "604800",
        "86400000000",
        "1000000",
    ];

    #[test]
    fn constants_are_written_once() {
        for part in PARTS {
            for line in part
                .lines()
                .filter(|line| !line.trim_start().starts_with("--"))
            {
                // Not in strings, where they are formats.
                let code: String = line.split('\'').step_by(2).collect::<Vec<_>>().join(" ");
                let words =
                    code.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '.'));
                for word in words.filter(|word| word.len() > 2 && word.parse::<u64>().is_ok()) {
                    assert!(
                        OTHERS.contains(&word) || is_position(line),
                        "{word}: {line}"
                    );
                }
                for (name, _) in integers() {
                    assert!(
                        !code.contains(&format!("local {name} ")),
                        "{name} comes from Rust: {line}"
                    );
                }
            }
        }
    }

    /// Whether a line cuts a member of a sorted set by position.
    fn is_position(line: &str) -> bool {
        ["digits(", ":sub("].iter().any(|cut| line.contains(cut))
    }

    #[test]
    fn every_constant_is_used() {
        let parts = PARTS.concat() + &template::bounds();
        let words: std::collections::BTreeSet<&str> = parts
            .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
            .collect();
        for (name, _) in integers() {
            assert!(words.contains(name), "{name}");
        }
        for key in keys().skip(1) {
            assert!(words.contains(&*key.to_uppercase()), "{key}");
        }
    }

    #[test]
    fn every_placeholder_of_the_wire_layout_is_known() {
        let source = script();
        let code = source
            .lines()
            .filter(|line| !line.trim_start().starts_with("--"));
        for word in
            code.flat_map(|line| line.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')))
        {
            let prefixes = ["TAG_", "FIELD_", "FIELDS_", "OP_", "LIMIT_"];
            assert!(
                prefixes.iter().all(|prefix| !word.starts_with(prefix)),
                "{word} is no tag, field or table of wire.rs"
            );
        }
    }

    /// Checks the joined script, because a file uses names that other files define. `scripts/test` sets the path of luacheck.
    #[test]
    fn luacheck_finds_nothing_in_the_script() {
        let Some(luacheck) = std::env::var_os("VORRANG_LUACHECK").filter(|name| !name.is_empty())
        else {
            println!("skipped: VORRANG_LUACHECK names no luacheck");
            return;
        };
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), script()).unwrap();
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
        let mut command = std::process::Command::new(luacheck);
        let command = command
            .current_dir(root)
            .args(["--no-color", "--config", ".luacheckrc"]);
        let found = command.arg(file.path()).output().unwrap();
        let findings = String::from_utf8_lossy(&found.stdout);
        assert!(found.status.success(), "{findings}");
    }
}
