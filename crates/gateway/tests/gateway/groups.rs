//! `vorrang_settings.groups`: what is accepted, what an error says, what is warned about, and what `vorrang check` makes of it.

use std::{collections::BTreeMap, time::Duration};

use vorrang_gateway::{Config, ConfigError, Loaded};
use vorrang_scheduler::Reserve;

const MODELS: &str = "model_list:
- {model_name: m, litellm_params: {model: gpt, mock_response: hi, rpm: 600}, model_info: {id: d0}}
- {model_name: n, litellm_params: {model: gpt, mock_response: hi}}
";

fn parse(text: &str) -> Result<Loaded, ConfigError> {
    Config::parse(text, "config.yaml", &BTreeMap::<String, String>::new())
}

/// `MODELS` has three lines, the settings begin in the fifth.
fn load(settings: &str) -> Result<Loaded, ConfigError> {
    parse(&format!("{MODELS}vorrang_settings:\n{settings}"))
}

fn error(settings: &str) -> String {
    load(settings).unwrap_err().to_string()
}

#[test]
fn group_settings_reach_the_scheduler() {
    let loaded = load(
        "  pace_worse_than: 7
  groups:
    m: {pace_worse_than: -3, reserve: {priority: 5, share: '0.25'}, aging_seconds: 0.5}
    n: {pace_worse_than: none}
",
    )
    .unwrap();
    assert_eq!(loaded.warnings(), Vec::<String>::new());
    let config = loaded.config;
    let [m, n] = [0, 1].map(|index| config.group_config(&config.groups[index]));
    assert_eq!(m.pace_worse_than, Some(-3));
    let reserve = Reserve {
        priority: 5,
        share: 0.25,
    };
    assert_eq!(m.reserve, Some(reserve));
    assert_eq!(m.aging, Some(Duration::from_millis(500)));
    assert_eq!((n.pace_worse_than, n.reserve, n.aging), (None, None, None));

    let paces = |settings: &str| {
        let groups = load(settings).unwrap().config.groups;
        [groups[0].pace_worse_than, groups[1].pace_worse_than]
    };
    // Null is absent, as everywhere in the file.
    let inherited = paces("  pace_worse_than: 7\n  groups: {m: {pace_worse_than: ~}}\n");
    assert_eq!(inherited, [Some(7), Some(7)]);
    assert_eq!(paces("  pace_worse_than: none\n"), [None, None]);
    assert_eq!(
        paces("  groups: {m: {pace_worse_than: 0}}\n"),
        [Some(0), None]
    );
}

#[test]
fn group_setting_errors_name_line_and_path() {
    let priority = "expected a whole number between -2147483648 and 2147483647";
    let or_none = "expected a whole number between -2147483648 and 2147483647, or none";
    let share = "expected a number above 0 and below 1";
    let seconds = "expected a number of seconds from 0.000001 to 31536000 (a year)";
    let known = "unknown setting; expected one of default_priority, max_queue_depth, pace_worse_than, reserve, aging_seconds, fair_by, fair_cost, spill";
    let fair = "expected key, user or header:NAME";
    let header = "expected the name of an HTTP header after `header:`, for example header:x-team";
    let no_key = "expected a header that carries no key; for shares by key, expected key";
    let cost = "expected requests or tokens";
    let cases = [
        ("pace_worse_than: 0.5", "pace_worse_than", or_none),
        (
            "pace_worse_than: off",
            "pace_worse_than",
            &format!("{or_none}, found a text"),
        ),
        ("pace_worse_than: 3e9", "pace_worse_than", or_none),
        (
            "reserve: 0.2",
            "reserve",
            "expected a mapping (`key: value`), found a number",
        ),
        (
            "reserve: {share: 0.2}",
            "reserve.priority",
            "is missing; expected the worst priority that may use all there is",
        ),
        (
            "reserve: {priority: 0}",
            "reserve.share",
            &format!("is missing; {share}"),
        ),
        (
            "reserve: {priority: x, share: 0.2}",
            "reserve.priority",
            &format!("{priority}, found a text"),
        ),
        ("reserve: {priority: 0, share: 0}", "reserve.share", share),
        ("reserve: {priority: 0, share: 1}", "reserve.share", share),
        (
            "reserve: {priority: 0, share: -0.1}",
            "reserve.share",
            share,
        ),
        ("reserve: {priority: 0, share: 20}", "reserve.share", share),
        (
            "reserve: {priority: 0, share: 'nan'}",
            "reserve.share",
            &format!("{share}, found a text"),
        ),
        (
            "reserve: {priority: 0, share: 'inf'}",
            "reserve.share",
            &format!("{share}, found a text"),
        ),
        (
            "reserve: {priority: 0, share: 20%}",
            "reserve.share",
            &format!("{share}, found a text"),
        ),
        (
            "reserve: {priority: 0, share: 0.2, of: 1}",
            "reserve.of",
            "unknown setting; expected one of priority, share",
        ),
        ("aging_seconds: 0", "aging_seconds", seconds),
        ("aging_seconds: -1", "aging_seconds", seconds),
        ("aging_seconds: 1e-7", "aging_seconds", seconds),
        ("aging_seconds: 31536001", "aging_seconds", seconds),
        (
            "aging_seconds: 'inf'",
            "aging_seconds",
            &format!("{seconds}, found a text"),
        ),
        ("aging: 1", "aging", known),
        ("fair_by: keys", "fair_by", fair),
        ("fair_by: off", "fair_by", fair),
        ("fair_by: 1", "fair_by", fair),
        (
            "fair_by: ''",
            "fair_by",
            "expected a text that is not empty",
        ),
        ("fair_by: [key]", "fair_by", "expected a text, found a list"),
        ("fair_by: 'header:'", "fair_by", header),
        ("fair_by: 'header:x team'", "fair_by", header),
        ("fair_by: 'header:é'", "fair_by", header),
        ("fair_by: header:Authorization", "fair_by", no_key),
        ("fair_by: header:API-Key", "fair_by", no_key),
        ("fair_by: header:x-api-key", "fair_by", no_key),
        ("fair_by: key, fair_cost: seconds", "fair_cost", cost),
        ("fair_by: key, fair_cost: 5", "fair_cost", cost),
        (
            "fair_cost: tokens",
            "fair_cost",
            "expected fair_by beside it",
        ),
        (
            "fair_by: ~, fair_cost: requests",
            "fair_cost",
            "expected fair_by beside it",
        ),
    ];
    for (setting, key, expected) in cases {
        assert_eq!(
            error(&format!("  groups:\n    n: {{}}\n    m: {{{setting}}}\n")),
            format!("config.yaml:7: vorrang_settings.groups.m.{key}: {expected}"),
            "{setting}"
        );
    }
    for (settings, expected) in [
        ("  pace_worse_than: []\n", format!("config.yaml:5: vorrang_settings.pace_worse_than: {or_none}, found a list")),
        ("  groups: {o: {pace_worse_than: 0}}\n", "config.yaml:5: vorrang_settings.groups.o: no deployment of model_list has this model_name".into()),
    ] {
        assert_eq!(error(settings), expected);
    }
    for (key, value) in [("aging_seconds", "1"), ("fair_by", "key")] {
        let top = error(&format!("  {key}: {value}\n"));
        let expected = format!("config.yaml:5: vorrang_settings.{key}: unknown setting");
        assert!(top.starts_with(&expected), "{top}");
    }
}

#[test]
fn aging_rate_times_priority_is_bounded_by_the_schedulers_precision() {
    // 2^52 us are 4503599627.370496 s: with a second a level no i32 comes near, with three some do.
    let worth_more = |path: &str| {
        format!(
            "vorrang_settings.groups.m.aging_seconds: times {path} is more than 2^52 microseconds (142 years); expected less"
        )
    };
    let aging = "aging_seconds: 3";
    let big = 2_000_000_000;
    let keys =
        |of: &str| format!("  keys: [{{name: a, key: sk-a}}, {{name: b, key: sk-b, {of}}}]\n");
    let cases = [
        (
            format!("  groups: {{m: {{{aging}, default_priority: -{big}}}}}\n"),
            "vorrang_settings.groups.m.default_priority",
        ),
        (
            format!("  groups: {{m: {{{aging}, pace_worse_than: {big}}}}}\n"),
            "vorrang_settings.groups.m.pace_worse_than",
        ),
        (
            format!("  pace_worse_than: {big}\n  groups: {{m: {{{aging}}}}}\n"),
            "vorrang_settings.pace_worse_than",
        ),
        (
            format!("  groups: {{m: {{{aging}, reserve: {{priority: {big}, share: 0.1}}}}}}\n"),
            "vorrang_settings.groups.m.reserve.priority",
        ),
        (
            format!(
                "  groups: {{m: {{{aging}}}}}\n{}",
                keys(&format!("default_priority: {big}"))
            ),
            "vorrang_settings.keys[1].default_priority",
        ),
        (
            format!(
                "  groups: {{m: {{{aging}}}}}\n{}",
                keys(&format!("best_priority: -{big}"))
            ),
            "vorrang_settings.keys[1].best_priority",
        ),
        (
            format!("  groups: {{m: {{{aging}}}}}\nrouter_settings: {{default_priority: {big}}}\n"),
            "router_settings.default_priority",
        ),
    ];
    for (settings, path) in cases {
        let text = error(&settings);
        assert!(text.ends_with(&worth_more(path)), "{settings}: {text}");
        assert!(
            load(&settings.replace(aging, "aging_seconds: 2")).is_ok(),
            "{settings}"
        );
    }
    // A key that may not call the group has no priority in it.
    let elsewhere = format!(
        "  groups: {{m: {{{aging}}}}}\n{}",
        keys(&format!("default_priority: {big}, models: [n]"))
    );
    assert!(load(&elsewhere).is_ok());
    // Exactly 2^52 is allowed.
    let at = |seconds: &str| {
        load(&format!(
            "  groups: {{m: {{default_priority: 1048576, aging_seconds: {seconds}}}}}\n"
        ))
    };
    assert!(at("4294.967296").is_ok());
    assert!(at("4294.967297").is_err());
}

#[test]
fn unpaced_keys_that_share_a_limited_group_are_warned_about() {
    let keys =
        |of_b: &str| format!("  keys: [{{name: a, key: sk-a}}, {{name: b, key: sk-b{of_b}}}]\n");
    let warnings = |settings: &str| load(settings).unwrap().warnings();
    let expected = "vorrang_settings.keys: keys of different priorities share m without pacing: the better ones can wait up to 60.1s for a window that the others have filled; set pace_worse_than (none, if that is meant) or a reserve";
    for of_b in [", default_priority: 1000", ", best_priority: 500"] {
        assert_eq!(
            warnings(&keys(of_b)),
            [format!("config.yaml:5: {expected}")]
        );
    }
    let batch = keys(", default_priority: 1000");
    for (settings, why) in [
        (keys(""), "the same priorities"),
        (
            keys(", default_priority: 1000, models: [n]"),
            "another group, without limits",
        ),
        (format!("  pace_worse_than: 0\n{batch}"), "paced"),
        (
            format!("  groups: {{m: {{pace_worse_than: 0}}}}\n{batch}"),
            "paced here",
        ),
        (
            format!("  groups: {{m: {{pace_worse_than: none}}}}\n{batch}"),
            "wanted so",
        ),
        (
            format!("  groups: {{m: {{reserve: {{priority: 0, share: 0.1}}}}}}\n{batch}"),
            "a reserve",
        ),
    ] {
        assert_eq!(warnings(&settings), Vec::<String>::new(), "{why}");
    }
    // A key that allows an alias allows the group.
    let alias = keys(", default_priority: 1000, models: [other]");
    let alias = format!("{alias}router_settings: {{model_group_alias: {{other: m}}}}\n");
    assert_eq!(warnings(&alias).len(), 1);
    // An open call that has to end is no window.
    let text = format!("{MODELS}vorrang_settings:\n{batch}");
    let open = text.replace("rpm: 600", "max_parallel_requests: 6");
    assert_eq!(parse(&open).unwrap().warnings(), Vec::<String>::new());
}

#[test]
fn ineffective_reserve_is_warned_about() {
    let settings = "vorrang_settings:\n  groups:\n    m:\n      reserve:\n        priority: 0\n        share: 0.5\n";
    let text = format!("{MODELS}{settings}");
    assert_eq!(parse(&text).unwrap().warnings(), Vec::<String>::new());
    let one = text.replace("rpm: 600", "rpm: 600, max_parallel_requests: 1");
    assert_eq!(
        parse(&one).unwrap().warnings(),
        [
            "config.yaml:9: vorrang_settings.groups.m.reserve.share: keeps nothing of max_parallel_requests at d0: the share would be less than one"
        ]
    );
    let tiny = text.replace("0.5", "0.0000001");
    assert!(parse(&tiny).unwrap().warnings()[0].contains("keeps nothing of rpm at d0"));
}

#[test]
fn plan_describes_each_setting_and_the_worst_urgent_wait() {
    let lines = |limits: &str, settings: &str| -> Vec<String> {
        let text = MODELS.replace("rpm: 600", limits);
        let text = format!("{text}vorrang_settings: {{groups: {{m: {{{settings}}}}}}}\n");
        let plan = parse(&text).unwrap().config.plan();
        let of_m = plan
            .lines()
            .skip_while(|line| !line.contains(" d0 "))
            .skip(1);
        let of_m = of_m.take_while(|line| line.starts_with("    "));
        let text = of_m.collect::<Vec<_>>().join("\n");
        // What goes on in the next line is indented further.
        let text = text.replace(",\n      ", ", ");
        text.lines().map(|line| line.trim().to_owned()).collect()
    };
    let worst = |priority, text: &str| {
        format!(
            "at worst, while no better request waits, priority {priority} or better waits {text}"
        )
    };
    let pacing = "pacing: worse than 0 goes no faster than limit / window";
    let reserve = "reserve: worse than -1 leaves a share of 0.2 of each limit";
    let paced = "up to 200ms (pacing; 100ms more for each unpaced call that went just before)";
    let cases = [
        ("rpm: 600", "", vec![worst(0, "up to 60.1s, a full window")]),
        ("weight: 1", "", vec![worst(0, "not at all: there is a deployment without limits")]),
        ("max_parallel_requests: 2", "", vec![worst(0, "until an open call ends")]),
        (
            "rpm: 600, max_parallel_requests: 2",
            "",
            vec![worst(0, "up to 60.1s, a full window, and until an open call ends")],
        ),
        ("rpm: 600", "pace_worse_than: 0", vec![pacing.into(), worst(0, paced)]),
        (
            "rpm: 600, tpm: 200000",
            "pace_worse_than: 0",
            vec![
                pacing.into(),
                worst(0, &format!("{paced}, or if longer about 301ms for each 1000 tokens of it and of the two largest others (pacing)")),
            ],
        ),
        (
            "itpm: 400000, otpm: 200000",
            "pace_worse_than: 0",
            vec![
                pacing.into(),
                worst(0, "about 301ms for each 1000 tokens of it and of the two largest others (pacing)"),
            ],
        ),
        (
            "itpm: 1000, otpm: 500",
            "reserve: {priority: -1, share: 0.2}",
            vec![
                reserve.into(),
                worst(-1, "not at all as long as the reserve lasts (200 input tokens a window, 100 output tokens a window), then up to 60.1s, a full window"),
            ],
        ),
        (
            "rpm: 600, tpm: 200000, max_parallel_requests: 12",
            "reserve: {priority: -1, share: 0.2}",
            vec![
                reserve.into(),
                worst(-1, "not at all as long as the reserve lasts (120 requests a window, 40000 tokens a window, 3 open calls), then up to 60.1s, a full window, and until an open call ends"),
            ],
        ),
        (
            "rpm: 600",
            "reserve: {priority: -1, share: 0.2}, pace_worse_than: 0",
            vec![
                pacing.into(),
                reserve.into(),
                worst(-1, &format!("not at all as long as the reserve lasts (120 requests a window), then {paced}")),
            ],
        ),
        // A reserve that keeps nothing of one limit prevents no wait.
        (
            "rpm: 600, max_parallel_requests: 1",
            "reserve: {priority: -1, share: 0.2}",
            vec![reserve.into(), worst(-1, "up to 60.1s, a full window, and until an open call ends")],
        ),
        (
            "rpm: 600",
            "aging_seconds: 0.5",
            vec![
                "aging: what comes later than 500ms x (difference of priority) after a request overtakes it no more".into(),
                worst(0, "up to 60.1s, a full window"),
            ],
        ),
    ];
    for (limits, settings, expected) in cases {
        assert_eq!(lines(limits, settings), expected, "{limits} {settings}");
    }
    // A window of one call: two parts of it are no longer than itself.
    let one = lines("rpm: 1", "pace_worse_than: 0").remove(1);
    assert!(
        one.contains("waits up to 60.1s (pacing; 60.1s more"),
        "{one}"
    );
}

#[test]
fn plan_states_how_long_aging_allows_overtaking() {
    let text = "  groups: {m: {aging_seconds: 0.5, pace_worse_than: 0}}\n  keys: [{name: a, key: sk-a}, {name: b, key: sk-b, default_priority: 1000, best_priority: 500}]\n";
    let plan = load(text).unwrap().config.plan();
    let line = "    aging: what comes later than 500ms x (difference of priority) after a request overtakes it no more; between 0 and 1000: 500s";
    assert!(plan.lines().any(|one| one == line), "{plan}");
}

#[test]
fn worst_urgent_wait_is_that_of_the_best_deployment() {
    let text = "model_list:
- {model_name: m, litellm_params: {model: gpt, mock_response: hi, rpm: 6}}
- {model_name: m, litellm_params: {model: gpt, mock_response: hi, rpm: 60}}
- {model_name: m, litellm_params: {model: gpt, mock_response: hi, max_parallel_requests: 1}}
vorrang_settings: {pace_worse_than: 0}
";
    let plan = parse(text).unwrap().config.plan();
    assert!(
        plan.contains("waits up to 2.003s (pacing; 1.002s more"),
        "{plan}"
    );
}
