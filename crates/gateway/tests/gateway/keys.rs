//! `vorrang_settings.keys`: what is accepted, what an error says, and what a key's holder gets.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::support::*;
use secrecy::ExposeSecret;
use vorrang_gateway::{Call, Config, ConfigError, KeyPolicy, Loaded};
use vorrang_scheduler::GroupStatus;

const MODEL: &str =
    "model_list:\n- model_name: m\n  litellm_params: {model: gpt, mock_response: hi}\n";

/// `MODEL` has three lines, the entries begin in the sixth.
fn load(entries: &str) -> Result<Loaded, ConfigError> {
    let text = format!(
        "{MODEL}vorrang_settings:\n  keys:\n{entries}\
         general_settings: {{master_key: sk-master}}\nrouter_settings: {{model_group_alias: {{alias: m}}}}\n"
    );
    let variables = [("BATCH_KEY", "sk-batch"), ("BROKEN_KEY", "sk-broken\n")];
    let env: BTreeMap<String, String> = variables
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    Config::parse(&text, "config.yaml", &env)
}

#[test]
fn keys_are_parsed_and_check_hides_their_values() {
    let loaded = load(
        "  - {name: batch, key: os.environ/BATCH_KEY, default_priority: 1000, best_priority: 500, models: [m, alias], weight: '0.5', max_waiting: 7}\n  \
         - {name: team-1, key: sk-team, admin: true}\n",
    )
    .unwrap();
    let expected = "config.yaml:6: vorrang_settings.keys[0].weight: has no effect: no group that this key may call has fair_by";
    assert_eq!(loaded.warnings(), [expected]);
    let config = loaded.config;
    let batch = KeyPolicy {
        admin: false,
        name: "batch".into(),
        default_priority: Some(1000),
        best_priority: Some(500),
        models: Some(vec!["m".into(), "alias".into()]),
        weight: Some(0.5),
        max_waiting: Some(7),
        max_waiting_body_bytes: None,
    };
    let team = KeyPolicy {
        admin: true,
        name: "team-1".into(),
        default_priority: None,
        best_priority: None,
        models: None,
        weight: None,
        max_waiting: None,
        max_waiting_body_bytes: None,
    };
    let keys: Vec<_> = config
        .keys
        .iter()
        .map(|key| (key.key.expose_secret(), &key.policy))
        .collect();
    assert_eq!(keys, [("sk-batch", &batch), ("sk-team", &team)]);

    let plan = config.plan();
    for line in [
        "key batch: default priority 1000, best priority 500, weight 0.5, at most 7 waiting, models m, alias",
        "key team-1: may use the admin API, all models",
    ] {
        assert!(plan.lines().any(|one| one == line), "no {line} in\n{plan}");
    }
    for text in [plan, format!("{config:?}")] {
        assert!(!text.contains("sk-"), "{text}");
    }
}

#[test]
fn key_errors_name_line_and_path_but_never_the_value() {
    let visible = "expected visible ASCII characters only (is there a line break at its end?)";
    let name = "expected at most 64 ASCII letters, digits, `-`, `_` and `.`";
    let models = "expected names of model_list or model_group_alias (with at most one `*`); leave it out for all models";
    let number = "expected a whole number between -2147483648 and 2147483647";
    let weight = "expected a number from 0.01 to 100";
    let long = format!("{{name: {}, key: sk-a}}", "n".repeat(65));
    let cases = [
        ("{key: sk-a}", "name", "is missing; expected a text"),
        ("{name: a b, key: sk-a}", "name", name),
        ("{name: 'a\"', key: sk-a}", "name", name),
        (&long, "name", name),
        (
            "{name: first, key: sk-a}",
            "name",
            "another key has the same name; expected one of its own",
        ),
        (
            "{name: a}",
            "key",
            "is missing; expected the key, or os.environ/NAME",
        ),
        (
            "{name: a, key: ''}",
            "key",
            "expected a text that is not empty",
        ),
        (
            "{name: a, key: [sk-a]}",
            "key",
            "expected a text, found a list",
        ),
        (
            "{name: a, key: os.environ/NO_KEY}",
            "key",
            "the environment variable NO_KEY is not set",
        ),
        ("{name: a, key: os.environ/BROKEN_KEY}", "key", visible),
        (
            "{name: a, key: sk-first}",
            "key",
            "another entry has the same key; expected one of its own",
        ),
        (
            "{name: a, key: sk-master}",
            "key",
            "is the master key; expected one of its own",
        ),
        (
            "{name: a, key: sk-a, default_priority: 1.5}",
            "default_priority",
            number,
        ),
        (
            "{name: a, key: sk-a, best_priority: 3000000000}",
            "best_priority",
            number,
        ),
        ("{name: a, key: sk-a, weight: 0}", "weight", weight),
        ("{name: a, key: sk-a, weight: 0.009}", "weight", weight),
        ("{name: a, key: sk-a, weight: 100.1}", "weight", weight),
        ("{name: a, key: sk-a, weight: -1}", "weight", weight),
        (
            "{name: a, key: sk-a, weight: high}",
            "weight",
            &format!("{weight}, found a text"),
        ),
        (
            "{name: a, key: sk-a, weight: 'nan'}",
            "weight",
            &format!("{weight}, found a text"),
        ),
        (
            "{name: a, key: sk-a, models: m}",
            "models",
            "expected a list of texts, found a text",
        ),
        ("{name: a, key: sk-a, models: []}", "models", models),
        ("{name: a, key: sk-a, models: [m, sk-b]}", "models", models),
        (
            "{name: a, key: sk-a, priority: 1}",
            "priority",
            "unknown setting; expected one of name, key, admin, default_priority, best_priority, models, weight, max_waiting, max_waiting_body_bytes",
        ),
    ];
    for (entry, key, expected) in cases {
        let error = load(&format!(
            "  - {{name: first, key: sk-first}}\n  - {entry}\n"
        ));
        let error = error.expect_err(entry).to_string();
        assert_eq!(
            error,
            format!("config.yaml:7: vorrang_settings.keys[1].{key}: {expected}"),
            "{entry}"
        );
    }
}

#[test]
fn key_equal_to_the_master_key_of_the_environment_is_refused() {
    let text = format!("{MODEL}vorrang_settings:\n  keys: [{{name: a, key: sk-env}}]\n");
    let env = BTreeMap::from([("LITELLM_MASTER_KEY".to_owned(), "sk-env".to_owned())]);
    let error = Config::parse(&text, "config.yaml", &env).unwrap_err();
    let expected =
        "config.yaml:5: vorrang_settings.keys[0].key: is the master key; expected one of its own";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn default_priority_above_its_own_clamp_is_warned_about() {
    let entry = |default| {
        format!("  - {{name: a, key: sk-a, default_priority: {default}, best_priority: 5}}\n")
    };
    assert_eq!(load(&entry(5)).unwrap().warnings(), Vec::<String>::new());
    let expected = "config.yaml:6: vorrang_settings.keys[0].default_priority: is better than best_priority, which wins";
    assert_eq!(load(&entry(4)).unwrap().warnings(), [expected]);
}

fn with_key(call: Call, policy: KeyPolicy) -> Call {
    Call {
        key: Some(policy),
        ..call
    }
}

#[tokio::test(start_paused = true)]
async fn clamped_call_queues_at_its_keys_best_priority() {
    let (router, _) = router(&mock("rpm: 1", ""));
    router.call(chat("")).await.unwrap();
    let batch = KeyPolicy {
        best_priority: Some(500),
        ..KeyPolicy::default()
    };
    let log = Arc::new(Log::default());
    let pushy = Call {
        events: log.clone(),
        ..with_key(chat(r#","priority":-100"#), batch)
    };
    let pushy = queued(&router, pushy).await;
    let user = queued(&router, chat(r#","priority":499"#)).await;
    let granted = |answer: &vorrang_gateway::Answer| answer.info.numbers.unwrap().granted;
    let (pushy, user) = (pushy.await.unwrap().unwrap(), user.await.unwrap().unwrap());
    assert!(granted(&user) < granted(&pushy), "it passed a better one");
    assert_eq!(pushy.info.priority, 500);
    assert_eq!(pushy.headers["x-vorrang-priority"], "500");
    assert_eq!(log.waits.lock().unwrap()[0].0, 500, "what metrics are told");
}

#[tokio::test(start_paused = true)]
async fn max_waiting_caps_only_its_own_key() {
    let (router, _) = router(&mock("rpm: 1", ""));
    let key = |name: &str| KeyPolicy {
        name: name.into(),
        max_waiting: Some(1),
        ..KeyPolicy::default()
    };
    // A call that does not wait does not count.
    router.call(with_key(chat(""), key("a"))).await.unwrap();
    let first = queued(&router, with_key(chat(""), key("a"))).await;
    let second = router.call(with_key(chat(""), key("a"))).await;
    let second = second.unwrap_err();
    assert_eq!(second.status().as_u16(), 429, "{}", second.message());
    assert!(second.message().contains("of this key are waiting already"));
    assert!(second.retry_after().unwrap() > Duration::from_secs(60));
    let one_waits = |status: &GroupStatus| status.waiting == 1 && status.depth == 1;
    until(&router, one_waits).await;
    let other = queued(&router, with_key(chat(""), key("b"))).await;
    first.await.unwrap().unwrap();
    until(&router, one_waits).await;
    let third = queued(&router, with_key(chat(""), key("a"))).await;
    other.await.unwrap().unwrap();
    third.await.unwrap().unwrap();
}

type Names = &'static [&'static str];

#[tokio::test]
async fn key_lists_only_models_that_it_may_call() {
    let config = "model_list:\n- {model_name: m, litellm_params: {model: up, mock_response: hi}}\n- {model_name: n, litellm_params: {model: up, mock_response: hi}}\n\
                  router_settings: {model_group_alias: {m-alias: m, n-alias: n, m-hidden: {model: m, hidden: true}}}\n";
    let (router, _) = router(config);
    let every = ["m", "n", "m-alias", "n-alias", "m-hidden", "nope"];
    let cases: [(Option<Names>, Names, Names); 3] = [
        (
            None,
            &["m", "n", "m-alias", "n-alias"],
            &["m", "n", "m-alias", "n-alias", "m-hidden"],
        ),
        // A group's name allows its aliases, an alias nothing else.
        (
            Some(&["m"]),
            &["m", "m-alias"],
            &["m", "m-alias", "m-hidden"],
        ),
        (Some(&["n-alias"]), &["n-alias"], &["n-alias"]),
    ];
    for (models, listed, callable) in cases {
        let key = KeyPolicy {
            models: models.map(|models| models.iter().map(|name| (*name).into()).collect()),
            ..KeyPolicy::default()
        };
        assert_eq!(router.models(Some(&key)), listed);
        for name in every {
            let call = Call {
                model: Some(name.into()),
                ..with_key(chat(""), key.clone())
            };
            let status = router
                .call(call)
                .await
                .map_or_else(|error| error.status().as_u16(), |_| 200);
            let expected = match models {
                _ if callable.contains(&name) => 200,
                None => 400,
                // Also for unknown models: the error does not reveal which other models exist.
                Some(_) => 403,
            };
            assert_eq!(status, expected, "{name} with {models:?}");
        }
    }
}
