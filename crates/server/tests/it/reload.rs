//! The binary gets other configurations while it runs.

use std::io::Write as _;

use rustix::process::Signal;

use crate::binary::{Serving, file, until, vorrang};

const FIRST: &str = "
model_list:
  - model_name: first
    litellm_params: {model: openai/x, mock_response: hello}
";

fn started(text: &str, options: &[&str]) -> (Serving, tempfile::NamedTempFile) {
    let file = file(text);
    let path = file.path().to_str().unwrap().to_owned();
    let mut arguments = vec!["--config", &path, "--host", "127.0.0.1", "--port", "0"];
    arguments.extend(options);
    let mut command = vorrang(&arguments);
    // Nobody reads the log before the end: lines about each look would fill the pipe.
    command.env("RUST_LOG", "warn");
    (Serving::start(command), file)
}

fn rewrite(file: &tempfile::NamedTempFile, text: &str) {
    let mut to = std::fs::File::create(file.path()).unwrap();
    to.write_all(text.as_bytes()).unwrap();
}

/// How often configurations were put in force, or refused.
fn reloads(serving: &Serving, outcome: &str) -> u64 {
    let page = serving.get("/metrics");
    let start = format!("vorrang_config_reloads_total{{outcome=\"{outcome}\"}} ");
    let line = page.lines().find_map(|line| line.strip_prefix(&start));
    line.unwrap().parse().unwrap()
}

fn version(serving: &Serving) -> String {
    let page = serving.get("/metrics");
    let start = "vorrang_config_version{version=\"";
    let line = page.lines().find_map(|line| line.strip_prefix(start));
    line.unwrap().split('"').next().unwrap().to_owned()
}

#[test]
fn hangup_puts_the_changed_file_in_force() {
    let (serving, file) = started(FIRST, &[]);
    let before = version(&serving);
    rewrite(&file, &FIRST.replace("first", "second"));
    assert!(
        serving.get("/v1/models").contains("first"),
        "not before the signal"
    );
    serving.signal(Signal::HUP);
    until("the second configuration", || {
        serving.get("/v1/models").contains("second")
    });
    assert_eq!(
        (reloads(&serving, "applied"), reloads(&serving, "refused")),
        (1, 0)
    );
    let after = version(&serving);
    assert_ne!(before, after);
    rewrite(&file, FIRST);
    serving.signal(Signal::HUP);
    until("the first configuration", || {
        serving.get("/v1/models").contains("first")
    });
    assert_eq!(
        version(&serving),
        before,
        "the same text is the same version"
    );
}

#[test]
fn wrong_file_changes_nothing_and_the_log_says_why() {
    let (serving, file) = started(FIRST, &[]);
    rewrite(
        &file,
        "model_list:\n- {model_name: second, litellm_params: {model: openai/x, rpm: none}}\n",
    );
    serving.signal(Signal::HUP);
    until("a refusal", || reloads(&serving, "refused") == 1);
    assert!(serving.get("/v1/models").contains("first"));
    serving.signal(Signal::TERM);
    let (code, log) = serving.ended();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("litellm_params.rpm"), "{log}");
    assert!(log.contains("the one from before stays in force"), "{log}");
}

#[test]
fn watched_file_is_put_in_force_when_it_changes() {
    let (serving, file) = started(FIRST, &["--watch"]);
    rewrite(&file, &FIRST.replace("first", "second"));
    until("the second configuration", || {
        serving.get("/v1/models").contains("second")
    });
    // As editors and mounted ConfigMaps do it: another file of the same name.
    let other = self::file(&FIRST.replace("first", "third"));
    std::fs::rename(other.path(), file.path()).unwrap();
    until("the third configuration", || {
        serving.get("/v1/models").contains("third")
    });
}

#[test]
fn reloaded_keys_are_in_force_at_once() {
    let keys = "general_settings: {master_key: sk-first}\n";
    let (serving, file) = started(&format!("{FIRST}{keys}"), &["--require-keys"]);
    let models =
        |key: &str| serving.get_with("/v1/models", &format!("authorization: Bearer {key}\r\n"));
    assert!(models("sk-first").starts_with("HTTP/1.1 200"));
    rewrite(
        &file,
        &format!("{FIRST}{}", keys.replace("first", "second")),
    );
    serving.signal(Signal::HUP);
    until("the second key", || {
        models("sk-second").starts_with("HTTP/1.1 200")
    });
    assert!(models("sk-first").starts_with("HTTP/1.1 401"));
    // What the start would refuse is refused now.
    rewrite(&file, FIRST);
    serving.signal(Signal::HUP);
    let refused = || serving.get_with("/metrics", "authorization: Bearer sk-second\r\n");
    until("a refusal", || refused().contains("outcome=\"refused\"} 1"));
    assert!(models("").starts_with("HTTP/1.1 401"));
}
