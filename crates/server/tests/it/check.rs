//! `vorrang check`: what it prints, and how it ends.

use serde_json::Value;

use crate::binary::{file, vorrang};

#[test]
fn check_prints_the_plan_and_no_secret() {
    let config = file(
        "
model_list: [{model_name: chat, litellm_params: {model: openai/gpt-4o, api_key: sk-geheim, rpm: 17}}]
general_settings: {master_key: sk-geheim}
litellm_settings: {no_such_setting: 1}
vorrang_settings:
  keys:
    - {name: batch, key: os.environ/BATCH_KEY, default_priority: 9, best_priority: 5, models: [chat]}
",
    );
    let path = config.path().to_str().unwrap();
    let output = vorrang(&[
        "check",
        "--config",
        path,
        "--redis-url",
        "redis://:sk-geheim@localhost:1",
    ])
    .env("BATCH_KEY", "sk-batch-geheim")
    .output()
    .unwrap();
    let (stdout, stderr) = (
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    );
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert!(stdout.contains("chat") && stdout.contains("17"), "{stdout}");
    let key = "key batch: default priority 9, best priority 5, models chat";
    assert!(stdout.lines().any(|line| line == key), "{stdout}");
    assert!(
        stderr.starts_with("difference: ") && stderr.contains("no_such_setting"),
        "{stderr}"
    );
    assert!(
        !format!("{stdout}{stderr}").contains("geheim"),
        "{stdout}{stderr}"
    );
}

#[test]
fn check_prints_the_worst_urgent_wait_and_warns() {
    let check = |settings: &str| {
        let config = file(&format!(
            "
model_list: [{{model_name: chat, litellm_params: {{model: openai/x, mock_response: hello, rpm: 60}}}}]
vorrang_settings:
  keys: [{{name: user, key: sk-user}}, {{name: batch, key: sk-batch, default_priority: 1000}}]
{settings}
"
        ));
        let path = config.path().to_str().unwrap();
        let output = vorrang(&["check", "--config", path]).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (
            output.status.code(),
            text(output.stdout),
            text(output.stderr),
        )
    };
    let worst = "    at worst, while no better request waits, priority 0 or better waits";
    for (settings, line, warned) in [
        ("", "up to 60.1s, a full window", true),
        (
            "  pace_worse_than: 0",
            "up to 2.003s (pacing; 1.002s more for each unpaced call that went just before)",
            false,
        ),
        (
            "  groups: {chat: {reserve: {priority: 0, share: 0.1}}}",
            "not at all as long as the reserve lasts (6 requests a window),\n      then up to 60.1s, a full window",
            false,
        ),
    ] {
        let (code, stdout, stderr) = check(settings);
        assert_eq!(code, Some(0), "{stderr}");
        let line = format!("{worst} {line}");
        assert!(
            stdout.contains(&format!("\n{line}\n")),
            "no {line} in\n{stdout}"
        );
        let warning = "vorrang_settings.keys: keys of different priorities share chat";
        assert_eq!(stderr.contains(warning), warned, "{stderr}");
    }
    // Fair shares are explained, too.
    let (code, stdout, stderr) = check("  groups: {chat: {fair_by: key}}");
    assert_eq!(code, Some(0), "{stderr}");
    let shares = "    fair shares: a tenant is a key; a unit of service is a request; weights: user 1, batch 1";
    assert!(stdout.lines().any(|line| line == shares), "{stdout}");
    let (code, _, stderr) = check("  groups: {chat: {fair_by: keys}}");
    assert_eq!(code, Some(1));
    let expected = ":5: vorrang_settings.groups.chat.fair_by: expected key, user or header:NAME";
    assert!(stderr.contains(expected), "{stderr}");
}

/// Exit code, stdout and stderr.
fn check(text: &str, options: &[&str]) -> (i32, String, String) {
    let config = file(text);
    let path = config.path().to_str().unwrap();
    let arguments = [&["check", "--config", path], options].concat();
    let output = vorrang(&arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap().replace(path, "FILE");
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

const MODEL: &str =
    "model_list: [{model_name: chat, litellm_params: {model: openai/x, mock_response: hello}}]\n";

#[test]
fn strict_fails_for_losses_and_differences_but_not_for_notes() {
    let lost = "- {model_name: lost, litellm_params: {model: watsonx/x}}\n- {model_name: lost, litellm_params: {model: watsonx/x}}\n";
    let listed = "model_list:\n- {model_name: chat, litellm_params: {model: openai/x, mock_response: hello}}\n";
    for (text, level, strict) in [
        (MODEL.to_owned(), "", 0),
        (
            format!("{MODEL}litellm_settings: {{callbacks: [langfuse]}}\n"),
            "note: ",
            0,
        ),
        (
            format!("{MODEL}router_settings: {{num_retires: 3}}\n"),
            "difference: ",
            1,
        ),
        (format!("{listed}{lost}"), "warning: ", 1),
    ] {
        let (code, _, stderr) = check(&text, &[]);
        assert_eq!(code, 0, "{text}{stderr}");
        assert!(stderr.starts_with(level), "{text}{stderr}");
        assert_eq!(check(&text, &["--strict"]).0, strict, "{text}");
        assert_eq!(check(&text, &["--strict", "--json"]).0, strict, "{text}");
    }
    let (code, stdout, stderr) = check(
        &format!("{MODEL}router_settings: {{num_retries: no}}\n"),
        &[],
    );
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert!(
        stderr.starts_with("error: FILE:2: router_settings.num_retries: expected"),
        "{stderr}"
    );
}

#[test]
fn same_message_at_several_places_is_one_line() {
    let entry = "- {model_name: lost, litellm_params: {model: watsonx/x}}\n";
    let text = format!(
        "model_list:\n- {{model_name: chat, litellm_params: {{model: gpt-4o, mock_response: hello}}}}\n{}",
        entry.repeat(3)
    );
    let (_, _, stderr) = check(&text, &[]);
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(
        stderr.ends_with("(3 places: lines 3, 4, 5 of FILE)\n"),
        "{stderr}"
    );
}

#[test]
fn json_has_the_plan_and_the_diagnostics_also_where_there_are_errors() {
    let keys = "general_settings: {master_key: sk-geheim}\nvorrang_settings: {keys: [{name: a, key: sk-geheim-a}]}\n";
    let (code, stdout, stderr) = check(&format!("{MODEL}{keys}\"a\\u009b\": 1\n"), &["--json"]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert!(
        !stdout.contains("geheim") && !stdout.contains('\u{9b}'),
        "{stdout}"
    );
    let report: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(report["version"], 1);
    assert_eq!(report["plan"]["groups"][0]["name"], "chat");
    assert_eq!(report["diagnostics"][0]["code"], "unknown-setting");
    assert_eq!(report["diagnostics"][0]["key"], "a\u{9b}");
    let (code, stdout, _) = check("model_list: 3\nlitellm_settings: 4\n", &["--json"]);
    let report: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(
        (code, &report["plan"], &report["counts"]["error"]),
        (1, &Value::Null, &2.into())
    );
}

#[test]
fn start_with_an_unusable_file_prints_all_errors() {
    let config = file("model_list: 3\nrouter_settings: {timeout: x}\n");
    let path = config.path().to_str().unwrap();
    let output = vorrang(&["--config", path, "--port", "0"])
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stderr.matches("error: ").count(), 2, "{stderr}");
}
