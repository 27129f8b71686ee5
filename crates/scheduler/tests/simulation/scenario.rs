//! The faults, and what a scenario consists of.

use vorrang_scheduler::GroupConfig;

use crate::{
    operators::Operation,
    rollouts::{OtherConfig, Side},
};

pub(crate) const MS: u64 = 1_000;
pub(crate) const SECOND: u64 = 1_000_000;
/// The windows of the simulated limits.
pub(crate) const WINDOW: u64 = 15 * SECOND;

/// A fault. Durations are microseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Fault {
    /// The server loses its state.
    Flush,
    /// Another master replies, whose state is this many steps old.
    Failover(usize),
    /// The same for this long. Then the first master replies again, with its state unchanged.
    FailoverAndBack(usize, u64),
    /// A partial write (P17).
    PartialWrite(u32),
    /// The server replies to nothing for this long, and then to all messages.
    Hang(u64),
    /// The server is down for this long, and restarts with its state or without.
    Down(u64, bool),
    /// The server's clock jumps by this many seconds.
    Clock(i64),
    /// An instance is stopped for this long.
    Pause(usize, u64),
    /// An instance and the server do not reach each other for this long.
    Cut(usize, u64),
    /// The server receives the messages of an instance, whose replies and wakes are lost for this long.
    LoseReplies(usize, u64),
    /// An instance dies, and its calls end.
    Kill(usize),
    /// An instance shuts down, and another one starts.
    Restart(usize),
    /// The same, and the new instance has the configuration of that side of the roll-out.
    RollOut(usize, Side),
    /// An operator acts.
    Operate(Operation),
    /// A running instance gets the configuration of that side of the roll-out.
    Reload(usize, Side),
}

pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// Probabilities: a message is lost, arrives late or twice, a reply is lost, a wake is lost.
    pub(crate) network: (f64, f64, f64, f64),
    pub(crate) group: fn(&mut fastrand::Rng) -> GroupConfig,
    /// The other configuration of a roll-out.
    pub(crate) roll_out: Option<OtherConfig>,
    pub(crate) faults: fn(&mut fastrand::Rng) -> Vec<(u64, Fault)>,
    /// Probability that a call fails before its response head.
    pub(crate) failing: f64,
    /// Probability that a call never reaches its upstream.
    pub(crate) unsent: f64,
    /// Longest call.
    pub(crate) longest_call: u64,
    /// Arrivals per second.
    pub(crate) rate: f64,
    /// The longest time for which a head with room may wait. [`crate::scenarios`] says where the allowed times come from.
    pub(crate) idle: u64,
    /// Replication ids do not tell masters apart (P17), so a failover is only detected by a batch gap (P1). Until then grants may be forgotten.
    pub(crate) undetected_failover: bool,
    /// How much later than promised entries may expire.
    pub(crate) late: u64,
    /// How far ahead each reading of the server's clock may be, at random.
    pub(crate) jitter: u64,
    /// One-way delays, least and most, of the messages of the first three instances. (0, 0): near the server.
    pub(crate) far: [(u64, u64); 3],
    /// The longest time between a grant and its dispatch, for some calls.
    pub(crate) slow: u64,
    /// Some upstreams report amounts that no call can have used.
    pub(crate) extreme_amounts: bool,
    /// When the last client arrives.
    pub(crate) until: u64,
}
