//! `fair_by`, `fair_cost` and `weight`: what they mean, what is warned about, and what `vorrang check` says.

use std::collections::{BTreeMap, HashSet};

use http::HeaderName;
use vorrang_gateway::{
    Config, GroupSettings, Loaded,
    config::{FairBy, FairCost, FairShares},
};

const MODELS: &str = "model_list:
- {model_name: m, litellm_params: {model: gpt, mock_response: hi, rpm: 600}, model_info: {id: d0}}
- {model_name: n, litellm_params: {model: gpt, mock_response: hi}}
";

/// The settings begin in the fifth line.
fn load(settings: &str) -> Loaded {
    let text = format!("{MODELS}vorrang_settings:\n{settings}");
    let env = BTreeMap::<String, String>::new();
    Config::parse(&text, "config.yaml", &env).unwrap()
}

/// The group `m` with these settings, and the keys that may be in it.
fn of_m(settings: &str, keys: &str) -> Loaded {
    load(&format!("  groups:\n    m: {{{settings}}}\n{keys}"))
}

const TWO_KEYS: &str =
    "  keys: [{name: chat, key: sk-a, weight: 3}, {name: batch, key: sk-b, default_priority: 0}]\n";

#[test]
fn fair_settings_reach_the_scheduler() {
    let team = HeaderName::from_static("x-team");
    let cases = [
        ("fair_by: key", FairBy::Key, FairCost::Requests),
        (
            "fair_by: user, fair_cost: tokens",
            FairBy::User,
            FairCost::Tokens,
        ),
        (
            "fair_by: header:X-Team, fair_cost: requests",
            FairBy::Header(team.clone()),
            FairCost::Requests,
        ),
        (
            "fair_by: 'header: x-team', fair_cost: ~",
            FairBy::Header(team.clone()),
            FairCost::Requests,
        ),
    ];
    for (settings, by, cost) in cases {
        let loaded = of_m(settings, TWO_KEYS);
        let (warnings, config) = (loaded.warnings(), loaded.config);
        assert_eq!(warnings, Vec::<String>::new(), "{settings}");
        let [m, n]: &[GroupSettings; 2] = config.groups.as_slice().try_into().unwrap();
        let headers = match &by {
            FairBy::Header(name) => HashSet::from([name.clone()]),
            _ => HashSet::new(),
        };
        assert_eq!(config.fair_headers(), headers, "{settings}");
        assert_eq!(m.fair, Some(FairShares { by, cost }), "{settings}");
        assert_eq!(n.fair, None);
        let fair = [m, n].map(|group| config.group_config(group).fair);
        assert_eq!(fair, [true, false]);
    }
    assert_eq!(of_m("fair_by: ~", "").config.groups[0].fair, None);
    for weight in [0.01, 100.0] {
        let key = format!("  keys: [{{name: a, key: sk-a, weight: {weight}}}]\n");
        let keys = of_m("fair_by: user", &key).config.keys;
        assert_eq!(keys[0].policy.weight, Some(weight));
    }
}

#[test]
fn ineffective_fair_settings_are_warned_about() {
    let alone = "config.yaml:6: vorrang_settings.groups.m.fair_by: has no effect: fewer than two keys may call the group, so that all its callers are one tenant";
    let weightless = |line, index| {
        format!(
            "config.yaml:{line}: vorrang_settings.keys[{index}].weight: has no effect: no group that this key may call has fair_by"
        )
    };
    let one = "  keys: [{name: a, key: sk-a}]\n";
    let master = "general_settings: {master_key: sk-m}\n";
    let cases = [
        ("fair_by: key", String::new(), vec![alone.to_owned()]),
        ("fair_by: key", master.to_owned(), vec![alone.to_owned()]),
        ("fair_by: key", one.to_owned(), vec![alone.to_owned()]),
        ("fair_by: key", format!("{one}{master}"), vec![]),
        ("fair_by: key", TWO_KEYS.to_owned(), vec![]),
        // The second may call the other group only.
        (
            "fair_by: key",
            TWO_KEYS.replace("default_priority: 0", "models: [n], weight: 1"),
            vec![alone.to_owned(), weightless(7, 1)],
        ),
        ("fair_by: user", String::new(), vec![]),
        ("fair_by: header:x-team", one.to_owned(), vec![]),
        ("", TWO_KEYS.to_owned(), vec![weightless(7, 0)]),
    ];
    for (settings, keys, expected) in cases {
        let warnings = of_m(settings, &keys).warnings();
        assert_eq!(warnings, expected, "{settings} {keys}");
    }
}

#[test]
fn plan_lists_tenants_fair_cost_and_weights() {
    let line = |settings: &str, keys: &str| {
        let plan = of_m(settings, keys).config.plan();
        let found = plan
            .lines()
            .find_map(|line| line.strip_prefix("    fair shares: "));
        found.map(str::to_owned)
    };
    let master = format!("{TWO_KEYS}general_settings: {{master_key: sk-m}}\n");
    let weights = "weights: chat 3, batch 1";
    let cases = [
        ("", TWO_KEYS, None),
        (
            "fair_by: key",
            TWO_KEYS,
            Some(format!("a tenant is a key; a unit of service is a request; {weights}")),
        ),
        (
            "fair_by: key",
            &master,
            Some(format!(
                "a tenant is a key; a unit of service is a request; {weights}, master key 1"
            )),
        ),
        (
            "fair_by: key",
            "",
            Some("a tenant is every caller (there are no keys); a unit of service is a request".into()),
        ),
        (
            "fair_by: user, fair_cost: tokens",
            "",
            Some("a tenant is a `user`; a unit of service is 1000 reserved tokens".into()),
        ),
        (
            "fair_by: user",
            TWO_KEYS,
            Some(format!(
                "a tenant is a `user` of a key; a unit of service is a request; {weights}"
            )),
        ),
        (
            "fair_by: header:X-Team, aging_seconds: 0.5",
            &TWO_KEYS.replace("default_priority: 0", "models: [n]"),
            Some("a tenant is a value of the header x-team of a key; a unit of service is a request; weights: chat 3; a unit of service at weight 1 lasts 500ms (aging)".into()),
        ),
    ];
    for (settings, keys, expected) in cases {
        assert_eq!(line(settings, keys), expected, "{settings} {keys}");
    }
    let plan = of_m("fair_by: key, aging_seconds: 0.5", TWO_KEYS)
        .config
        .plan();
    for line in [
        "key chat: weight 3, all models",
        "key batch: default priority 0, all models",
        "    aging: what comes later than 500ms x (difference of priority) after a request's start tag overtakes it no more",
    ] {
        assert!(plan.lines().any(|one| one == line), "no {line} in\n{plan}");
    }
}
