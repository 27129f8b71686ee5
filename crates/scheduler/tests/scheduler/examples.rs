//! The examples run, and what they assert holds.

use std::{
    env,
    process::{Command, Stdio},
};

use crate::processes::server::Server;

#[path = "../../examples/memory.rs"]
mod memory;
#[path = "../../examples/permit.rs"]
mod permit;
#[path = "../../examples/redis.rs"]
mod redis;
#[path = "../../examples/shutdown.rs"]
mod shutdown;

#[test]
fn example_memory_grants_the_better_priority_first() {
    memory::main().unwrap();
}

#[test]
fn example_permit_charges_refunds_and_retries() {
    permit::main().unwrap();
}

#[test]
fn example_shutdown_waits_for_the_call_and_refuses_the_ticket() {
    shutdown::main().unwrap();
}

#[test]
fn example_redis_runs_in_two_processes_at_once() {
    if env::var_os("REDIS_URL").is_some() {
        redis::main().unwrap();
        return;
    }
    let server = Server::start();
    let processes = [0, 1].map(|_| {
        Command::new(env::current_exe().unwrap())
            .args([
                "--exact",
                "examples::example_redis_runs_in_two_processes_at_once",
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
    assert_eq!(granted.len(), 10, "each sequence number is drawn once");
}
