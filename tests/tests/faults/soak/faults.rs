//! What can go wrong in a soak.

use vorrang_tests::relay::LinkState;

/// The faults of a soak.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fault {
    // Of instances.
    Kill,
    KillAndFlush,
    Restart,
    Stop,
    /// Its clock jumps by days.
    Clock,
    /// Replaced by one with other limits.
    RollOut,
    /// Reads other limits while it runs.
    Reload,
    // Of Redis.
    Flush,
    EmptyRedis,
    Scripts,
    Connections,
    Memory,
    Sleep,
    Snapshot,
    /// The master dies, and its replica takes over.
    Failover,
    /// The replica has missed the last writes.
    LaggingFailover,
    /// The instances' user loses a right, and gets it back.
    Right(&'static [&'static str], &'static [&'static str]),
    /// It gets another password for a while, and its connections are killed.
    Password,
    /// It is deleted for a while, and its connections with it.
    User,
    // Of the network.
    CutOff(LinkState),
    CutAllOff(LinkState),
    Reset,
    // Of the upstream.
    Storm,
    Errors,
    Stalls,
    // Of clients.
    Leavers,
    /// They leave in the middle of their streams.
    LeavingReaders,
    /// Long streams, during the faults that follow.
    Streams,
    /// More requests than one instance has descriptors for, or the queue has room for.
    Overload,
    Quiet,
}

pub(super) const FAULTS: [Fault; 51] = [
    Fault::Kill,
    Fault::Kill,
    Fault::KillAndFlush,
    Fault::Restart,
    Fault::Stop,
    Fault::Stop,
    Fault::Clock,
    Fault::Clock,
    Fault::RollOut,
    Fault::RollOut,
    Fault::Reload,
    Fault::Reload,
    Fault::Flush,
    Fault::Flush,
    Fault::EmptyRedis,
    Fault::Scripts,
    Fault::Connections,
    Fault::Memory,
    Fault::Sleep,
    Fault::Snapshot,
    Fault::Failover,
    Fault::Failover,
    Fault::LaggingFailover,
    Fault::LaggingFailover,
    Fault::Right(&["resetkeys"], &["~vorrang:*"]),
    Fault::Right(&["resetchannels"], &["&vorrang:*"]),
    Fault::Right(&["-info"], &["+info"]),
    // In the middle of a step.
    Fault::Right(&["-zadd"], &["+zadd"]),
    Fault::Right(&["-fcall"], &["+fcall"]),
    Fault::Right(&["-hdel", "-publish"], &["+hdel", "+publish"]),
    Fault::Password,
    Fault::User,
    Fault::CutOff(LinkState::Cut),
    Fault::CutOff(LinkState::RepliesHeld),
    Fault::CutOff(LinkState::RequestsHeld),
    Fault::CutOff(LinkState::Resetting),
    Fault::CutAllOff(LinkState::Cut),
    Fault::CutAllOff(LinkState::Resetting),
    Fault::Reset,
    Fault::Storm,
    Fault::Errors,
    Fault::Stalls,
    Fault::Leavers,
    Fault::LeavingReaders,
    Fault::LeavingReaders,
    Fault::Streams,
    Fault::Streams,
    Fault::Streams,
    Fault::Overload,
    Fault::Overload,
    Fault::Quiet,
];

impl Fault {
    pub(super) fn ends_an_instance(self) -> bool {
        matches!(
            self,
            Self::Restart | Self::RollOut | Self::Kill | Self::KillAndFlush
        )
    }
}
