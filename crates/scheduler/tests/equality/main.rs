//! The step in Rust and the step in Lua are equal: on the same random histories, times and random numbers, both give the same replies and wakes.
//!
//! `VORRANG_EQUALITY_CASES` sets how many short histories are tried, `VORRANG_EQUALITY_SEED` the first seed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    unreachable_pub,
    reason = "a test that cannot be set up fails; its modules are private"
)]

mod backend;
mod coverage;
mod history;
mod instance;
mod server;

use std::{cell::RefCell, sync::Arc};

use proptest::{
    strategy::Strategy,
    test_runner::{Config, RngAlgorithm, TestCaseError, TestCaseResult, TestRng, TestRunner},
};
use vorrang_scheduler::{
    Claim, Cost, Tokens,
    backend::script,
    message::{Message, Op, OpenSession, Reply, UsageSnapshot, Used},
    transition::{Environment, State, inspect::Census, step},
};

use coverage::Coverage;
use history::{Action, Event, History, deployment_name};
use instance::Instance;
use server::Server;

/// Enough to reach all that [`Coverage`] counts.
const DEFAULT_CASES: u64 = 400;

/// The state in Redis, and the script that executes the steps.
struct Store {
    connection: redis::Connection,
    script: redis::Script,
}

impl Store {
    fn new(server: &Server) -> Self {
        Self {
            connection: server.client().get_connection().unwrap(),
            script: redis::Script::new(&script::source()),
        }
    }

    fn step(
        &mut self,
        environment: &Environment,
        message: &Message,
    ) -> Result<(Reply, Vec<Arc<str>>), TestCaseError> {
        let mut call = self.script.prepare_invoke();
        for key in script::keys() {
            call.key(format!("t:{{g}}:{key}"));
        }
        call.arg(rmp_serde::to_vec_named(message).unwrap())
            .arg(environment.random)
            .arg("")
            .arg("g");
        call.arg(environment.now).arg(&*environment.replication);
        let mut parts: Vec<Vec<u8>> = call
            .invoke(&mut self.connection)
            .map_err(|error| TestCaseError::fail(format!("the script failed: {error}")))?;
        let wakes = parts
            .split_off(1)
            .into_iter()
            .map(|name| String::from_utf8(name).unwrap().into());
        let reply = rmp_serde::from_slice(&parts[0])
            .map_err(|error| TestCaseError::fail(format!("no reply: {error}")))?;
        Ok((reply, wakes.collect()))
    }

    fn flush(&mut self) {
        redis::cmd("FLUSHDB")
            .query::<()>(&mut self.connection)
            .unwrap();
    }

    fn make_dirty(&mut self) {
        redis::cmd("HSET")
            .arg("t:{g}:meta")
            .arg("dirty")
            .arg(1)
            .query::<()>(&mut self.connection)
            .unwrap();
    }
}

/// The states in memory and in Redis, which execute the same messages.
struct Pair<'a> {
    store: &'a mut Store,
    state: Option<State>,
    replication: Arc<str>,
    now: u64,
    /// The message is a retransmission.
    repeated: bool,
    coverage: &'a mut Coverage,
}

impl Pair<'_> {
    /// Replies do not show whether old parts of the state are removed, so the sizes are compared. The placeholder member of each key is not counted.
    fn compare_sizes(&mut self) -> TestCaseResult {
        let Some(census) = self.state.as_ref().map(State::census) else {
            return Ok(());
        };
        let mut sizes = redis::pipe();
        for key in ["queue", "lines", "lengths", "idle", "calls"] {
            sizes.zcard(format!("t:{{g}}:{key}"));
        }
        for key in ["tenants", "sessions", "answers", "deployments"] {
            sizes.hlen(format!("t:{{g}}:{key}"));
        }
        let mut stored: Vec<u64> = sizes.query(&mut self.store.connection).unwrap();
        stored.iter_mut().for_each(|size| *size -= 1);
        let Census {
            entries,
            behind,
            lines,
            idle,
            tenants,
            calls,
            sessions,
            ..
        } = census;
        let first = entries - behind;
        if stored
            != [
                first, behind, lines, idle, calls, tenants, sessions, sessions, sessions,
            ]
        {
            return Err(TestCaseError::fail(format!(
                "{census:?} in memory, {stored:?} in Redis"
            )));
        }
        Ok(())
    }

    fn step(&mut self, message: &Message, random: u32) -> Result<Reply, TestCaseError> {
        let environment = Environment {
            now: self.now,
            random,
            replication: self.replication.clone(),
            certain: false,
        };
        let outcome = step(&mut self.state, &environment, message);
        let (reply, wakes) = self.store.step(&environment, message)?;
        if (&reply, &wakes) != (&outcome.reply, &outcome.wakes) {
            return Err(TestCaseError::fail(format!(
                "at {} {message:#?}\nmemory: {:#?} {:?}\nredis:  {reply:#?} {wakes:?}",
                self.now, outcome.reply, outcome.wakes
            )));
        }
        self.coverage
            .see(message, &outcome, self.state.as_ref(), self.repeated);
        self.compare_sizes()?;
        Ok(reply)
    }
}

fn play(history: &History, store: &mut Store, coverage: &mut Coverage) -> TestCaseResult {
    store.flush();
    let rules = |n: usize| history.rules[n % history.rules.len()].clone();
    let mut instances: Vec<Instance> = history
        .instances
        .iter()
        .enumerate()
        .map(|(n, name)| Instance::new(name.clone(), rules(n / 2)))
        .collect();
    let count = instances.len();
    let mut pair = Pair {
        store,
        state: None,
        replication: "".into(),
        now: history.start,
        repeated: false,
        coverage,
    };
    for event in &history.events {
        let now = pair.now;
        pair.repeated = matches!(event, Event::Retransmit { .. });
        match event {
            Event::Tick(by) => pair.now = pair.now.saturating_add_signed(*by),
            Event::Send {
                instance,
                ops,
                random,
                lost,
            } => {
                let instance = &mut instances[instance % count];
                let reply = pair.step(&instance.send(now, ops), *random)?;
                if !lost {
                    instance.receive(now, &reply);
                }
            }
            Event::OpenSession {
                instance,
                rules: other,
                parts,
                random,
                lost,
            } => {
                let instance = &mut instances[instance % count];
                let message = instance.open_session(now, other.map(rules), *parts);
                let reply = pair.step(&message, *random)?;
                if !lost {
                    instance.receive(now, &reply);
                }
            }
            Event::Retransmit { instance, back } => {
                let instance = &mut instances[instance % count];
                if let Some(message) = instance.former_message(*back) {
                    let reply = pair.step(&message, 0)?;
                    if *back == 0 {
                        instance.receive(now, &reply);
                    }
                }
            }
            Event::Misfit { instance, how } => {
                pair.step(&instances[instance % count].misfit(*how), 0)?;
            }
            Event::Restart { instance } => {
                let restarted = &mut instances[instance % count];
                *restarted = Instance::new(restarted.name(), rules(*instance));
            }
            Event::Flush => {
                pair.state = None;
                pair.store.flush();
            }
            Event::Dirty => {
                if let Some(state) = &mut pair.state {
                    state.make_dirty();
                    pair.store.make_dirty();
                }
            }
            Event::Failover(which) => pair.replication = format!("{which}").replace('0', "").into(),
        }
    }
    Ok(())
}

/// Plays one history for each seed and panics with the smallest failing one.
fn search<S: Strategy<Value = History>>(
    kind: &str,
    histories: S,
    cases: u64,
    store: &mut Store,
    coverage: &mut Coverage,
) {
    let first: u64 = std::env::var("VORRANG_EQUALITY_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(0);
    let (store, coverage) = (RefCell::new(store), RefCell::new(coverage));
    for seed in first..first + cases {
        let config = Config {
            failure_persistence: None,
            max_shrink_iters: 20_000,
            max_shrink_time: 30_000,
            ..Config::default()
        };
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let mut runner =
            TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
        let tree = histories.new_tree(&mut runner).unwrap();
        let played = runner.run_one(tree, |history| {
            play(
                &history,
                &mut store.borrow_mut(),
                &mut coverage.borrow_mut(),
            )
        });
        if let Err(error) = played {
            panic!(
                "{kind} history of seed {seed} (VORRANG_EQUALITY_SEED={seed} VORRANG_EQUALITY_CASES=1): {error}"
            );
        }
    }
}

/// All rules of the step: the script is the same step as the transition in Rust.
#[test]
fn memory_and_redis_give_equal_replies() {
    let cases: u64 = std::env::var("VORRANG_EQUALITY_CASES")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(DEFAULT_CASES);
    let server = Server::start();
    let (mut store, mut coverage) = (Store::new(&server), Coverage::default());
    search("short", history::short(), cases, &mut store, &mut coverage);
    search(
        "long",
        history::long(),
        cases.div_ceil(50),
        &mut store,
        &mut coverage,
    );
    search(
        "bulky",
        history::bulky(),
        cases.div_ceil(20),
        &mut store,
        &mut coverage,
    );
    if cases >= DEFAULT_CASES {
        // Random histories reach the bounds of a step in some seeds only.
        for bounded in [
            history::many_orphaned_entries(),
            history::recount_in_parts(),
            history::usage_summed_in_parts(),
            history::sessions_settled_in_parts(),
        ] {
            play(&bounded, &mut store, &mut coverage).unwrap();
        }
        coverage.assert_complete();
    }
}

/// A sequence of two choices is balanced, uncorrelated and without long runs: within four standard deviations. The seeds are fixed.
fn assert_unbiased(sequence: &[bool]) {
    let n = sequence.len() as f64;
    let signs: Vec<f64> = sequence
        .iter()
        .map(|a| if *a { 1.0 } else { -1.0 })
        .collect();
    let sum: f64 = signs.iter().sum();
    assert!(
        sum.abs() < 4.0 * n.sqrt(),
        "the counts of the two choices differ by {sum}"
    );
    for lag in 1..=25 {
        let pairs = signs.iter().zip(&signs[lag..]);
        let correlation: f64 = pairs.map(|(a, b)| a * b).sum();
        assert!(
            correlation.abs() < 4.0 * n.sqrt(),
            "lag {lag}: {correlation}"
        );
    }
    let mut longest = 0;
    for run in sequence.chunk_by(|a, b| a == b) {
        longest = longest.max(run.len());
    }
    // Runs of n / 2^k are to be expected.
    assert!((7..=20).contains(&longest), "longest run {longest}");
}

/// Choices are independent from step to step and within a step, and as frequent as the weights say. This holds in both backends, because their replies are
/// equal.
#[test]
fn choices_are_independent_and_unbiased() {
    let server = Server::start();
    let (mut store, mut coverage) = (Store::new(&server), Coverage::default());
    for (weights, joins) in [([1, 1, 0], 1), ([1, 1, 0], 20), ([1, 2, 5], 10)] {
        store.flush();
        let mut pair = Pair {
            store: &mut store,
            state: None,
            replication: "".into(),
            now: 1_795_000_000_123_456,
            repeated: false,
            coverage: &mut coverage,
        };
        let mut instance = Instance::new("a".into(), history::weighted(&weights));
        let mut random = fastrand::Rng::with_seed(7);
        let mut chosen = Vec::new();
        while chosen.len() < 1_000 {
            let join = Action::Joins(Claim::new(0, 0), joins);
            let message = instance.send(pair.now, &[Action::DoneAll, join]);
            let reply = pair.step(&message, random.u32(..)).unwrap();
            instance.receive(pair.now, &reply);
            let grants = reply.answer.iter().flat_map(|answer| &answer.grants);
            chosen.extend(grants.map(|grant| grant.deployment.clone()));
            pair.now += 100_000;
        }
        if weights[2] == 0 {
            let sequence: Vec<bool> = chosen
                .iter()
                .map(|id| **id == *deployment_name(0))
                .collect();
            assert_unbiased(&sequence);
        }
        let total: u64 = weights.iter().sum();
        let chi_square: f64 = (0..3)
            .filter(|n| weights[*n] > 0)
            .map(|n| {
                let expected = (chosen.len() as u64 * weights[n]) as f64 / total as f64;
                let seen = chosen
                    .iter()
                    .filter(|id| ***id == *deployment_name(n))
                    .count();
                (seen as f64 - expected).powi(2) / expected
            })
            .sum();
        // 1 : 10,000 with two degrees of freedom.
        assert!(chi_square < 18.4, "{weights:?}: {chi_square}");
    }
}

/// P16 (bounds of a step): where more than 64 entries must expire before the head fits, both backends stop at the same expiry. Of more than 1,000 orphaned
/// entries at the head, both drop equally many in one step.
#[test]
fn both_backends_keep_the_bounds_of_a_step() {
    let server = Server::start();
    let (mut store, mut coverage) = (Store::new(&server), Coverage::default());
    play(&history::many_expiries(), &mut store, &mut coverage).unwrap();
    play(&history::many_orphaned_entries(), &mut store, &mut coverage).unwrap();
    assert!(coverage.seen.contains_key("bound on drops or expiries"));
}

/// P13 (conservative charges): the newest usage snapshot, less the reported charges of that time, is charged for unaccounted instances.
#[test]
fn both_backends_charge_the_unreported_use_of_the_usage_snapshot() {
    let server = Server::start();
    let (mut store, mut coverage) = (Store::new(&server), Coverage::default());
    store.flush();
    let mut pair = Pair {
        store: &mut store,
        state: None,
        replication: "".into(),
        now: 1_795_000_000_123_456,
        repeated: false,
        coverage: &mut coverage,
    };
    let excess = |granted, input: u64, output, age| Op::Charge {
        granted,
        excess: true,
        deployment: "gpt".into(),
        requests: 0,
        tokens: Tokens::new(input, output),
        age,
    };
    let mut message = Message {
        instance: "a".into(),
        epoch: "".into(),
        session: 0,
        batch: 1,
        open_session: vec![OpenSession {
            number: 1,
            rules: history::simple_rules(1000, -1),
            rules_version: 0,
            peers: vec!["a".into()],
            departed: vec![("b".into(), 5_000_000)],
            view: vec![UsageSnapshot {
                age: 1_000_000,
                number: 9,
                used: vec![("gpt".into(), Cost::from((5, 70, 30)))],
            }],
        }],
        complete: true,
        seen: 9,
        highest_finish: 0,
        // One excess is older than the usage snapshot, and one newer.
        ops: vec![excess(7, 40, 10, 2_000_000), excess(8, 20, 5, 500_000)],
    };
    message.epoch = pair.step(&message, 0).unwrap().epoch;
    message.session = pair.step(&message, 0).unwrap().answer[0].session;
    (message.open_session, message.ops) = (Vec::new(), Vec::new());
    let mut used = Vec::new();
    for _ in 0..3 {
        message.batch += 1;
        pair.now += 500_000;
        used = pair.step(&message, 0).unwrap().answer[0].used.clone();
    }
    // The usage snapshot shows 70 and 30, of which 40 and 10 are reported. 20 and 5 were used later.
    let cost = Cost::from((5, 90, 35));
    let (open, cooling, pace) = (0, 0, 0);
    assert_eq!(
        used,
        [Used {
            cost,
            open,
            cooling,
            pace
        }]
    );
}
