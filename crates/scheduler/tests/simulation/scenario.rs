//! What can happen, and how likely.

use vorrang_scheduler::GroupConfig;

use crate::rollouts::{Roll, Side};

pub(crate) const MS: u64 = 1_000;
pub(crate) const SECOND: u64 = 1_000_000;
/// The windows of the simulated limits.
pub(crate) const WINDOW: u64 = 15 * SECOND;

/// Something that goes wrong, at a time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Fault {
    /// The state is gone.
    Flush,
    /// The state is an older one, on another master.
    Failover(usize),
    /// For so long an older state answers, on another master; then the first master does, with its state as it was.
    Elsewhere(usize, u64),
    /// A step was cut short.
    Torn(u32),
    /// The server answers nothing for so long, then everything.
    Hang(u64),
    /// The server is down for so long and comes back, with its state or empty.
    Down(u64, bool),
    /// The server's clock jumps by so many seconds.
    Clock(i64),
    /// An instance is stopped for so long.
    Pause(usize, u64),
    /// An instance does not reach the server for so long.
    Cut(usize, u64),
    /// An instance is heard and hears nothing for so long.
    Deafen(usize, u64),
    /// An instance dies; its calls die with it.
    Kill(usize),
    /// An instance closes its session, and another one starts.
    Restart(usize),
    /// The same, and the other one has the configuration of that side of the roll-out.
    Roll(usize, Side),
}

pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// Messages lost, messages that arrive late or again, replies lost, wakes lost.
    pub(crate) network: (f64, f64, f64, f64),
    pub(crate) group: fn(&mut fastrand::Rng) -> GroupConfig,
    /// The other configuration, of a roll-out.
    pub(crate) roll: Option<Roll>,
    pub(crate) faults: fn(&mut fastrand::Rng) -> Vec<(u64, Fault)>,
    /// Calls that fail before their answer's head.
    pub(crate) failing: f64,
    /// Calls that never reach their upstream, besides.
    pub(crate) unsent: f64,
    /// Longest call.
    pub(crate) longest_call: u64,
    /// Arrivals per second.
    pub(crate) rate: f64,
    /// Longest time for which a head with room may wait. What is allowed has a source in the contract; see [`crate::scenarios`].
    pub(crate) idle: u64,
    /// Nothing tells one master from another (P17): who was granted what may be forgotten until somebody misses an answered step (P1).
    pub(crate) forgets: bool,
    /// How much later than promised entries may leave their windows.
    pub(crate) late: u64,
    /// How far ahead each reading of the server's clock may be, at random.
    pub(crate) jitter: u64,
    /// How long each of the first instances' messages take, one way; (0, 0): as usual.
    pub(crate) far: [(u64, u64); 3],
    /// How long some calls take to get ready for their dispatch (connections).
    pub(crate) slow: u64,
    /// Some upstreams report amounts that no call can have used.
    pub(crate) absurd: bool,
    /// Until when clients come.
    pub(crate) until: u64,
}
