//! The examples run, and what they assert holds.

use std::{
    env,
    process::{Command, Stdio},
};

use server::Server;

#[path = "../../examples/custom_upstream.rs"]
mod custom_upstream;
#[path = "../../examples/fleet.rs"]
mod fleet;
#[path = "../../examples/quick_start.rs"]
mod quick_start;
#[path = "../../../scheduler/tests/equality/server.rs"]
#[expect(dead_code, reason = "the equality tests use more of it")]
mod server;
#[path = "../../examples/typed.rs"]
mod typed;

#[test]
fn example_quick_start_answers_one_request_and_gives_up_the_second() {
    quick_start::main().unwrap();
}

#[test]
fn example_custom_upstream_gets_the_calls() {
    custom_upstream::main().unwrap();
}

#[test]
fn example_typed_uses_the_types_of_async_openai() {
    typed::main().unwrap();
}

#[test]
fn example_fleet_shares_one_queue_between_two_processes() {
    if env::var_os("REDIS_URL").is_some() {
        fleet::main().unwrap();
        return;
    }
    let server = Server::start();
    let processes = [0, 1].map(|_| {
        Command::new(env::current_exe().unwrap())
            .args([
                "--exact",
                "examples::example_fleet_shares_one_queue_between_two_processes",
                "--nocapture",
            ])
            .env("REDIS_URL", server.url())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    });
    let mut granted = Vec::new();
    for process in processes {
        let output = process.wait_with_output().unwrap();
        assert!(output.status.success());
        let printed = String::from_utf8(output.stdout).unwrap();
        granted.extend(printed.split("granted ").skip(1).map(|rest| {
            let number = rest.split_whitespace().next().unwrap();
            number.parse::<u64>().unwrap()
        }));
    }
    granted.sort_unstable();
    granted.dedup();
    assert_eq!(granted.len(), 6, "each sequence number is drawn once");
}
