//! The log of the binary.

use rustix::process::Signal;

use crate::binary::{Serving, vorrang};

#[test]
fn every_request_before_sigterm_has_its_line() {
    const REQUESTS: usize = 200;
    let serving = Serving::start(vorrang(&["--host", "127.0.0.1", "--port", "0"]));
    for number in 0..REQUESTS {
        serving.get(&format!("/health/liveliness/{number}"));
    }
    serving.signal(Signal::TERM);
    let (code, log) = serving.ended();
    assert_eq!(code, Some(0), "{log}");
    let lines = log.lines().map(|line| {
        let line = serde_json::from_str::<serde_json::Value>(line);
        line.unwrap_or_else(|error| panic!("{error} in {log}"))
    });
    let access = lines.filter(|line| line["target"] == "vorrang::access");
    let paths: Vec<String> = access
        .map(|line| line["path"].as_str().unwrap().to_owned())
        .collect();
    let expected = (0..REQUESTS).map(|number| format!("/health/liveliness/{number}"));
    assert!(paths.iter().cloned().eq(expected), "{paths:?}");
}
