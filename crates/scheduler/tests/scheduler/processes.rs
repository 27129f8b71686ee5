//! Dispatchers in several processes on one real Redis, judged by the sequence numbers of their tickets (A1, A2, A3).

#[path = "../equality/server.rs"]
#[expect(dead_code, reason = "the equality tests use more of it")]
pub(crate) mod server;

use std::{
    collections::HashSet,
    env,
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use server::Server;
use vorrang_scheduler::{
    backend::{RedisBackend, RedisOptions},
    *,
};

const PROCESSES: usize = 3;
const TICKETS: usize = 120;
const LIMIT: u64 = 60;
const SLOTS: u64 = 12;
const WINDOW: Duration = Duration::from_secs(1);
const ADDRESS: &str = "VORRANG_TEST_REDIS";

/// What a child process prints of each dispatch.
#[derive(Debug, Clone, Copy)]
struct Dispatch {
    priority: i64,
    arrival: u64,
    entered: u64,
    granted: u64,
    /// Microseconds since 1970: the processes share a clock.
    began: u64,
    ended: u64,
}

fn clock() -> u64 {
    u64::try_from(
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_micros(),
    )
    .unwrap()
}

#[test]
fn processes_share_one_queue_and_its_limits() {
    if let Ok(url) = env::var(ADDRESS) {
        tokio::runtime::Runtime::new()
            .unwrap()
            .block_on(child(&url));
        return;
    }
    let server = Server::start();
    let mut children: Vec<Child> = (0..PROCESSES).map(|_| spawn(&server)).collect();
    let mut outputs: Vec<_> = children
        .iter_mut()
        .map(|c| BufReader::new(c.stdout.take().unwrap()).lines())
        .collect();
    for output in &mut outputs {
        output
            .find(|line| line.as_ref().unwrap().ends_with("ready"))
            .unwrap()
            .unwrap();
    }
    for child in &mut children {
        writeln!(child.stdin.take().unwrap(), "go").unwrap();
    }
    let mut dispatches = Vec::new();
    for output in outputs {
        let lines = output
            .map(Result::unwrap)
            .filter(|line| line.starts_with("dispatch "));
        dispatches.extend(lines.map(|line| parse(&line)));
    }
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    judge(&mut dispatches);
}

fn spawn(server: &Server) -> Child {
    Command::new(env::current_exe().unwrap())
        .args([
            "--exact",
            "processes::processes_share_one_queue_and_its_limits",
            "--nocapture",
        ])
        .env(ADDRESS, server.url())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn parse(line: &str) -> Dispatch {
    let numbers: Vec<i64> = line
        .split(' ')
        .skip(1)
        .map(|n| n.parse().unwrap())
        .collect();
    let at = |i: usize| u64::try_from(numbers[i]).unwrap();
    Dispatch {
        priority: numbers[0],
        arrival: at(1),
        entered: at(2),
        granted: at(3),
        began: at(4),
        ended: at(5),
    }
}

fn judge(dispatches: &mut [Dispatch]) {
    let granted: HashSet<u64> = dispatches.iter().map(|d| d.granted).collect();
    let arrivals: HashSet<u64> = dispatches.iter().map(|d| d.arrival).collect();
    let all = PROCESSES * TICKETS;
    assert_eq!(
        (dispatches.len(), granted.len(), arrivals.len()),
        (all, all, all),
        "each granted once"
    );

    for a in dispatches.iter() {
        for b in dispatches.iter() {
            let overtaken = b.entered < a.granted && a.granted < b.granted;
            assert!(
                !overtaken || (b.priority, b.arrival) > (a.priority, a.arrival),
                "{a:?} before {b:?}"
            );
        }
    }

    dispatches.sort_by_key(|d| d.began);
    let window = u64::try_from(WINDOW.as_micros()).unwrap();
    for (i, last) in dispatches.iter().enumerate() {
        let within = dispatches[..=i]
            .iter()
            .rev()
            .take_while(|d| d.began + window > last.began);
        assert!(within.count() as u64 <= LIMIT, "over the limit at {last:?}");
        let open = dispatches[..=i]
            .iter()
            .filter(|d| d.ended > last.began)
            .count() as u64;
        assert!(open <= SLOTS, "{open} calls open at {last:?}");
    }
}

/// One instance with many tickets of mixed priorities, each dispatched by its own task.
async fn child(url: &str) {
    let backend = RedisBackend::connect(&RedisOptions::new(url)).unwrap();
    let scheduler = Scheduler::new(
        backend,
        format!("process-{}", std::process::id()),
        Arc::new(NoObserver),
    );
    let limited = Deployment::new("upstream")
        .limit(LimitKind::Requests, LIMIT, WINDOW)
        .limit(LimitKind::Concurrency, SLOTS, Duration::ZERO);
    let group = scheduler.open("group", &GroupConfig::new(vec![limited]));
    while !scheduler.ready() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    println!("\nready");
    std::io::stdin().lines().next().unwrap().unwrap();

    let mut tasks = Vec::new();
    for i in 0..TICKETS {
        let priority = [0, 5, -1, 1000, 3][i % 5];
        let mut ticket = group.join(priority, 0);
        tasks.push(tokio::spawn(async move {
            let permit = ticket.granted().await.unwrap();
            let began = clock();
            let call = permit.dispatch().unwrap();
            tokio::time::sleep(Duration::from_millis(2 + 5 * (i as u64 % 7))).await;
            let numbers = call.numbers();
            // The slot may be used again as soon as the call is dropped.
            let ended = clock();
            drop(call);
            (priority, numbers, began, ended)
        }));
        if i % 3 == 0 {
            tokio::time::sleep(Duration::from_millis(4)).await;
        }
    }
    let mut lines = String::new();
    for task in tasks {
        let (
            priority,
            Numbers {
                arrival,
                entered,
                granted,
                ..
            },
            began,
            ended,
        ) = task.await.unwrap();
        lines += &format!("\ndispatch {priority} {arrival} {entered} {granted} {began} {ended}");
    }
    println!("{lines}");
    scheduler.close(Duration::from_secs(1)).await;
}
