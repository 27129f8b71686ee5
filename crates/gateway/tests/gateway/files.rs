//! Files as LiteLLM's users have them: `include`, keys that stand twice, times of zero.

use std::{collections::HashMap, fs, time::Duration};

use crate::support::config;
use vorrang_gateway::{Config, ConfigError, Loaded};

fn load(files: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    let path = folder.path().join(files[0].0);
    Config::load(&path, &HashMap::<String, String>::new())
}

fn entry(name: &str) -> String {
    format!(
        "model_list:\n- {{model_name: {name}, litellm_params: {{model: gpt, mock_response: hi}}}}\n"
    )
}

fn names(loaded: &Loaded) -> Vec<&str> {
    let groups = loaded.config.groups.iter();
    groups.map(|group| group.name.as_str()).collect()
}

#[test]
fn included_files_continue_lists_and_replace_sections() {
    let main = entry("a")
        + "include: [b.yaml, c.yaml]\nrouter_settings: {num_retries: 1, retry_after: 3}\n";
    let second = entry("b") + "router_settings: {num_retries: 7}\n";
    // A file is read once, also where files include each other.
    let third = entry("c") + "include: [a.yaml, b.yaml]\n";
    let loaded = load(&[("a.yaml", &main), ("b.yaml", &second), ("c.yaml", &third)]).unwrap();
    assert_eq!(names(&loaded), ["a", "b", "c"]);
    assert_eq!(
        (loaded.config.num_retries, loaded.config.retry_after),
        (7, Duration::ZERO)
    );
    assert_eq!(loaded.warnings(), [""; 0]);
}

#[test]
fn errors_and_warnings_of_an_included_file_name_that_file() {
    let main = entry("a") + "include: [b.yaml, gone.yaml]\n";
    let second =
        "# first line\nmodel_list:\n- model_name: b\n  litellm_params: {model: x/y}\n  extra: 1\n";
    let loaded = load(&[("a.yaml", &main), ("b.yaml", second)]).unwrap();
    let [first, second] = &loaded.warnings()[..] else {
        panic!("{:?}", loaded.warnings())
    };
    assert!(
        first.contains("a.yaml:3: include: ") && first.contains("what it holds is missing"),
        "{first}"
    );
    assert!(
        second.contains("b.yaml:4: model_list[1].litellm_params.model: the deployment is left out"),
        "{second}"
    );
    let broken = "model_list:\n- model_name: b\n  litellm_params: {model: gpt-4, rpm: many}\n";
    let error = load(&[("a.yaml", &main), ("b.yaml", broken)])
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("b.yaml:3: model_list[1].litellm_params.rpm"),
        "{error}"
    );
}

#[test]
fn last_duplicate_key_wins_with_a_warning() {
    let text = entry("a")
        + "general_settings: {master_key: sk-first}\ngeneral_settings:\n  master_key: sk-1\n  master_key: sk-last\n";
    let loaded = load(&[("a.yaml", &text)]).unwrap();
    let (warnings, config) = (loaded.warnings(), loaded.config);
    let lines: Vec<_> = warnings
        .iter()
        .map(|warning| warning.split(".yaml:").nth(1).unwrap())
        .collect();
    let expected = ["4: general_settings: ", "6: general_settings.master_key: "];
    assert_eq!(lines.len(), 2, "{warnings:?}");
    for (line, expected) in lines.iter().zip(expected) {
        assert!(
            line.starts_with(expected) && line.contains("the last counts"),
            "{line}"
        );
    }
    use secrecy::ExposeSecret;
    assert_eq!(config.master_key.unwrap().expose_secret(), "sk-last");
    assert!(!warnings.concat().contains("sk-"), "{warnings:?}");
}

#[test]
fn zero_timeouts_and_cooldown_times_count_as_unset_like_in_litellm() {
    let text = "model_list:\n- {model_name: m, litellm_params: {model: gpt, mock_response: hi, timeout: 0, stream_timeout: 0, cooldown_time: 0}}\n\
                router_settings: {timeout: 0, cooldown_time: 0}\nlitellm_settings: {request_timeout: 7}\n";
    let config = config(text);
    assert_eq!(
        (config.timeout, config.cooldown_time),
        (Duration::from_secs(7), Duration::from_secs(5))
    );
    let deployment = &config.groups[0].deployments[0];
    assert_eq!(
        (
            deployment.timeout,
            deployment.stream_timeout,
            deployment.cooldown_time
        ),
        (None, None, None)
    );
}
