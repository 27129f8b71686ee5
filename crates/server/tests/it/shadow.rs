//! The shadow: another configuration's decisions beside the real ones, in the metrics.

use std::{fs, path::Path, thread};

use rustix::process::Signal;

use crate::binary::{Serving, until, vorrang};

fn config(limit: u64, shadow: &str) -> String {
    format!(
        "
model_list:
  - model_name: chat
    litellm_params: {{model: openai/x, mock_response: hello, rpm: {limit}}}
vorrang_settings: {{window_seconds: 2, guard_ms: 50{shadow}}}
"
    )
}

fn started(folder: &Path, shadow: u64) -> Serving {
    let main = folder.join("config.yaml");
    fs::write(&main, config(4, ", shadow: shadow.yaml")).unwrap();
    fs::write(folder.join("shadow.yaml"), config(shadow, "")).unwrap();
    let main = main.to_str().unwrap();
    let mut command = vorrang(&["--config", main, "--host", "127.0.0.1", "--port", "0"]);
    command.env("RUST_LOG", "warn");
    Serving::start(command)
}

/// Sends so many requests at once; all are answered.
fn send(serving: &Serving, count: usize) {
    let body = r#"{"model":"chat","messages":[]}"#;
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    thread::scope(|scope| {
        for _ in 0..count {
            scope.spawn(|| {
                let answer = serving.send(request.as_bytes());
                assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            });
        }
    });
}

/// The sum of a metric's values with these labels.
fn value(serving: &Serving, metric: &str, labels: &str) -> f64 {
    let page = serving.get("/metrics");
    let lines = page.lines().filter(|line| {
        let rest = line.strip_prefix(metric);
        rest.is_some_and(|rest| rest.starts_with(['{', ' '])) && line.contains(labels)
    });
    lines
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

#[test]
fn shadow_with_more_room_grants_earlier_and_with_less_room_later() {
    let folder = tempfile::tempdir().unwrap();
    let serving = started(folder.path(), 100);
    let grants = |than: &str| value(&serving, "vorrang_shadow_grants_total", than);
    send(&serving, 8);
    until("eight comparisons", || {
        grants("earlier") + grants("same") + grants("later") >= 8.0
    });
    assert_eq!((grants("earlier"), grants("later")), (4.0, 0.0));
    let granted = value(&serving, "vorrang_shadow_outcomes_total", "granted");
    assert_eq!(granted, 8.0);
    let waits = |metric: &str| value(&serving, metric, "priority=\"0\"");
    assert!(
        waits("vorrang_wait_seconds_sum") > 4.0,
        "four waited for two seconds"
    );
    assert!(waits("vorrang_shadow_wait_seconds_sum") < 1.0);
    assert_eq!(waits("vorrang_shadow_wait_seconds_count"), 8.0);

    // A reload reads the shadow's file, too.
    fs::write(folder.path().join("shadow.yaml"), config(1, "")).unwrap();
    serving.signal(Signal::HUP);
    until("the other shadow", || {
        value(&serving, "vorrang_config_reloads_total", "applied") >= 1.0
    });
    let later = grants("later");
    send(&serving, 3);
    until("later grants", || grants("later") >= later + 1.0);
    assert_eq!(value(&serving, "vorrang_shadow_lost_total", ""), 0.0);
}

#[test]
fn errors_of_the_shadows_file_are_errors_at_the_start_and_of_check() {
    let folder = tempfile::tempdir().unwrap();
    let main = folder.path().join("config.yaml");
    fs::write(&main, config(4, ", shadow: shadow.yaml")).unwrap();
    let main = main.to_str().unwrap();
    let bad = config(4, "").replace("rpm: 4", "rpm: many");
    for text in [None, Some(bad)] {
        if let Some(text) = &text {
            fs::write(folder.path().join("shadow.yaml"), text).unwrap();
        }
        for arguments in [
            vec!["check", "--config", main],
            vec!["--config", main, "--host", "127.0.0.1", "--port", "0"],
        ] {
            let output = vorrang(&arguments).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(!output.status.success(), "{said}");
            assert!(said.contains("shadow.yaml"), "{said}");
        }
    }
}

#[test]
fn requests_do_not_report_without_a_shadow() {
    let folder = tempfile::tempdir().unwrap();
    let main = folder.path().join("config.yaml");
    fs::write(&main, config(4, "")).unwrap();
    let main = main.to_str().unwrap();
    let mut command = vorrang(&["--config", main, "--host", "127.0.0.1", "--port", "0"]);
    command.env("RUST_LOG", "warn");
    let serving = Serving::start(command);
    send(&serving, 2);
    assert_eq!(value(&serving, "vorrang_wait_seconds_count", ""), 2.0);
    assert_eq!(value(&serving, "vorrang_shadow_outcomes_total", ""), 0.0);
}
