//! Real dispatchers and the step in memory, in virtual time, over a network that loses, delays, repeats and reorders messages, with every fault that the
//! protocol tolerates. A referee that sees the dispatches judges the contract (A1-A9).
//!
//! `VORRANG_SIM_SEEDS=N` runs N seeds of each scenario instead of the default; `VORRANG_SIM_SEED=scenario:seed` replays one and prints its history.

mod away;
mod calls;
mod choice;
mod failovers;
mod far;
mod faults;
mod groups;
mod health;
mod idle;
mod instance;
mod kinds;
mod losses;
mod network;
mod operators;
mod outages;
mod referee;
mod rollouts;
mod sampling;
mod scenario;
mod scenarios;
mod utilisation;
mod verdicts;
mod world;

use std::{
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    thread,
};

use scenario::Scenario;
use world::World;

/// Seeds of each scenario.
const DEFAULT_SEEDS: u64 = 120;

fn run(scenario: &'static Scenario, seeds: u64) {
    if let Some((name, seed)) = replay() {
        if name == scenario.name {
            let verdict = World::new(scenario, seed, true).run();
            assert!(verdict.violations.is_empty(), "{:#?}", verdict.violations);
        }
        return;
    }
    let (next, dispatched, failures) = (AtomicU64::new(0), AtomicUsize::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        return;
                    }
                    let verdict = World::new(scenario, seed, false).run();
                    dispatched.fetch_add(verdict.dispatched, Ordering::Relaxed);
                    if !verdict.violations.is_empty()
                        && failures.fetch_add(1, Ordering::Relaxed) < 3
                    {
                        println!(
                            "VORRANG_SIM_SEED={}:{seed}\n{:#?}",
                            scenario.name, verdict.violations
                        );
                    }
                }
            });
        }
    });
    let (dispatched, failures) = (dispatched.into_inner(), failures.into_inner());
    println!(
        "{}: {seeds} seeds, {dispatched} dispatches, {failures} failed",
        scenario.name
    );
    assert_eq!(
        failures, 0,
        "{}: {failures} of {seeds} seeds broke the contract",
        scenario.name
    );
    // A simulation without dispatches proves nothing.
    assert!(
        dispatched as u64 > seeds * 5,
        "only {dispatched} dispatches"
    );
}

fn all() -> impl Iterator<Item = &'static Scenario> {
    let sets = [
        scenarios::SCENARIOS,
        outages::SCENARIOS,
        losses::SCENARIOS,
        failovers::SCENARIOS,
        far::SCENARIOS,
        rollouts::SCENARIOS,
        away::SCENARIOS,
        kinds::SCENARIOS,
        choice::SCENARIOS,
        operators::SCENARIOS,
    ];
    sets.into_iter().flatten()
}

fn replay() -> Option<(String, u64)> {
    let value = std::env::var("VORRANG_SIM_SEED").ok()?;
    let parts = value.split_once(':');
    let known = |name: &str| all().any(|s| s.name == name);
    match parts.map(|(name, seed)| (name, seed.parse())) {
        Some((name, Ok(seed))) if known(name) => Some((name.into(), seed)),
        _ => panic!("VORRANG_SIM_SEED={value}: expected SCENARIO:SEED"),
    }
}

fn seeds() -> u64 {
    std::env::var("VORRANG_SIM_SEEDS").map_or(DEFAULT_SEEDS, |seeds| {
        seeds
            .parse()
            .unwrap_or_else(|_| panic!("VORRANG_SIM_SEEDS={seeds}: expected a number"))
    })
}

macro_rules! scenarios {
    ($($name:ident)*) => {
        $(#[test] fn $name() {
            let scenario = all().find(|s| s.name == stringify!($name));
            run(scenario.unwrap_or_else(|| panic!("no scenario of this name")), seeds());
        })*
        #[test] fn every_scenario_is_run() {
            let names = [$(stringify!($name)),*];
            assert!(all().all(|s| names.contains(&s.name)));
            assert_eq!(all().count(), names.len());
        }
    };
}

scenarios! {
    calm bad_network flushed paused killed killed_then_flushed failover partial_writes hanging partitioned replies_lost
    concurrency tokens deployments failing clock_back clock_jitter restarts everything
    calm_tokens paused_shortly killed_with_calls short_windows flushed_with_calls flushed_and_cut
    fresh_instances_after_flush flushed_with_clock_back
    tokens_flushed calm_deployments explicit_cooldowns unhealthy_and_flushed unhealthy_and_failed_over
    failover_undetected
    clock_ahead healthy_deployments fair fair_and_flushed
    policies policies_tokens policies_and_flushed policies_everything
    flushed_and_two_cut killed_then_flushed_twice unsent_and_flushed unsent_and_cut explicit_cooldowns_and_flushed
    tokens_failed_over long_window_killed_then_flushed full_long_window_killed_then_flushed
    paused_before_delivery hanging_shortly flushed_and_hanging flushed_without_windows failed_back
    far_one far_all far_wide far_fair far_tokens far_slots far_bad far_short far_killed_then_flushed far_cut_and_flushed
    far_failover far_paused far_everything slow_short slow_and_flushed slow_calm slow_replies_lost
    slow_flushed_then_killed
    rollout_limits rollout_limits_on_one rollout_windows rollout_windows_on_one rollout_ids rollout_lease rollout_order
    rollout_everything
    reload_limits reload_windows reload_everything
    strategies orders strategies_and_everything
    away away_again away_and_killed
    extreme_amounts
    operated operated_and_flushed operated_and_everything
    kinds calm_kinds kinds_killed_then_flushed kinds_failed_over kinds_policies
}
