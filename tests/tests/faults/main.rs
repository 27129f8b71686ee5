//! Faults on real processes: a fleet under a steady load of mixed priorities at a saturated limit, while parts of it die. The judge
//! is in [`load`]: 0 inversions by the tickets' numbers; no window over the limit, each request exactly once by what the upstream saw.
//! Each test names the lines of the contract (docs/protocol.md) it proves.
//!
//! Windows and leases are short, unless `VORRANG_FAULTS_FULL` is set: `scripts/faults --full`.

mod clients;
mod clocks;
mod cluster;
mod fleet;
mod instances;
mod load;
mod network;
mod overload;
mod pace;
mod redis;
mod sentinel;
mod soak;
mod split;
mod streams;
mod upgrades;
mod upstream;
