//! The load, the provider and the judge, by their public interfaces. One binary: each would link all of it.

mod fairness;
mod fleet;
mod open_loop;
mod provider;
mod simulate;
mod verdicts;
