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
mod fixed;
mod history;
mod instance;
mod nodes;
mod pair;
mod rights;
mod server;

use std::cell::RefCell;

use proptest::{
    strategy::Strategy,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use vorrang_scheduler::{
    Claim, Cost, Micros, Seq, SessionId, Tokens,
    message::{Message, Op, OpenSession, UsageSnapshot, Used},
};

use coverage::Coverage;
use history::{Action, History, deployment_name};
use instance::Instance;
use pair::{Forms, Pair, Store, play};
use server::Server;

/// Enough to reach all that [`Coverage`] counts.
const DEFAULT_CASES: u64 = 400;

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
        store.borrow_mut().forms = Forms::ALL[seed as usize % Forms::ALL.len()];
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
            fixed::many_orphaned_entries(),
            fixed::recount_in_parts(),
            fixed::usage_summed_in_parts(),
            fixed::sessions_settled_in_parts(),
        ] {
            for forms in Forms::ALL {
                store.forms = forms;
                play(&bounded, &mut store, &mut coverage).unwrap();
            }
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
        let mut pair = Pair::new(&mut store, &mut coverage, fixed::START);
        let mut instance = Instance::new("a".into(), fixed::weighted(&weights));
        let mut random = fastrand::Rng::with_seed(7);
        let mut chosen = Vec::new();
        while chosen.len() < 1_000 {
            let join = Action::Joins(Claim::new(0, 0), joins);
            let message = instance.send(pair.now, &[Action::DoneAll, join]);
            let reply = pair.step(&message, random.u32(..)).unwrap();
            instance.receive(pair.now, &reply);
            let grants = reply.answer.iter().flat_map(|answer| &answer.grants);
            chosen.extend(grants.map(|grant| grant.deployment.clone()));
            pair.now += Micros(100_000);
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
    play(&fixed::many_expiries(), &mut store, &mut coverage).unwrap();
    play(&fixed::many_orphaned_entries(), &mut store, &mut coverage).unwrap();
    play(&fixed::many_entries_expire(), &mut store, &mut coverage).unwrap();
    assert!(coverage.seen.contains_key("bound on drops or expiries"));
}

/// P13 (conservative charges): the newest usage snapshot, less the reported charges of that time, is charged for unaccounted instances.
#[test]
fn both_backends_charge_the_unreported_use_of_the_usage_snapshot() {
    let server = Server::start();
    let (mut store, mut coverage) = (Store::new(&server), Coverage::default());
    store.flush();
    let mut pair = Pair::new(&mut store, &mut coverage, fixed::START);
    let excess = |granted, input: u64, output, age| Op::Charge {
        granted: Seq(granted),
        excess: true,
        deployment: "gpt".into(),
        requests: 0,
        tokens: Tokens::new(input, output),
        age: Micros(age),
    };
    let mut message = Message {
        instance: "a".into(),
        epoch: "".into(),
        session: SessionId::NONE,
        batch: 1,
        open_session: vec![OpenSession {
            number: 1,
            rules: fixed::simple_rules(1000, -1),
            rules_version: 0,
            peers: vec!["a".into()],
            departed: vec![("b".into(), Micros(5_000_000))],
            view: vec![UsageSnapshot {
                age: Micros(1_000_000),
                number: Seq(9),
                used: vec![("gpt".into(), Cost::from((5, 70, 30)))],
            }],
        }],
        complete: true,
        seen: Seq(9),
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
        pair.now += Micros(500_000);
        used = pair.step(&message, 0).unwrap().answer[0].used.clone();
    }
    // The usage snapshot shows 70 and 30, of which 40 and 10 are reported. 20 and 5 were used later.
    let cost = Cost::from((5, 90, 35));
    let (open, cooling, pace) = (0, Micros::ZERO, Micros::ZERO);
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
