//! What an instance and a group's state say to each other: one [`Message`], one [`Reply`].
//!
//! All numbers are integers below 2^53 and all durations are microseconds, because the same messages are read by Lua, whose numbers are
//! doubles. Absent numbers are -1 (or 0 where 0 means nothing), because a Lua array ends at its first nil. In Redis both travel as MessagePack arrays.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    claim::{Claim, Entry},
    cost::{Cost, Tokens},
    rules::Rules,
    units::{Micros, Seq, SessionId},
};

/// One step of one instance in one group.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Message {
    /// The sender; unique per process start.
    pub instance: Arc<str>,
    /// The epoch the sender knows; empty before its first answer.
    pub epoch: Arc<str>,
    /// The session the sender has; 0 in an open-session message.
    pub session: SessionId,
    /// Counts the sender's messages: the next one is the last one + 1 (P1).
    pub batch: u64,
    /// Opens a session. At most one element: an array is what Lua can read.
    pub open_session: Vec<OpenSession>,
    /// False while parts of a snapshot are still to come (P12).
    pub complete: bool,
    /// The highest number the sender knows (P5).
    pub seen: Seq,
    /// The highest finish tag the sender knows (P5).
    pub highest_finish: u64,
    /// What happened since the last message; executed in order, before any grant.
    pub ops: Vec<Op>,
}

/// What a session begins with. The rest of the snapshot follows as ops: [`Op::Charge`], [`Op::Hold`], [`Op::Cool`], [`Op::Unused`], [`Op::Join`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OpenSession {
    /// Higher with each open-session message of the instance.
    pub number: u64,
    /// The sender's configuration of the group.
    pub rules: Arc<Rules>,
    /// The version that these rules were once given, 0 if they never were.
    pub rules_version: u64,
    /// Instances the sender believes to be alive, itself included.
    pub peers: Vec<Arc<str>>,
    /// Instances that died lately, and how long ago.
    pub departed: Vec<(Arc<str>, Micros)>,
    /// The sender's last view of what was used. At most one element.
    pub view: Vec<UsageSnapshot>,
}

/// What was used when the sender last looked (P13).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UsageSnapshot {
    /// How long ago.
    pub age: Micros,
    /// The last number that had been drawn then.
    pub number: Seq,
    /// By deployment, what counted in its longest window.
    pub used: Vec<(Arc<str>, Cost)>,
}

/// Something that happened on an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// A ticket enters the queue.
    Join(Entry),
    /// A ticket leaves the queue without a grant.
    Leave {
        /// As joined.
        claim: Claim,
        /// As answered.
        arrival: Seq,
    },
    /// A grant was dispatched: its entry gets its time (P8).
    Sent {
        /// Number of the grant.
        granted: Seq,
        /// How long ago, on the sender's monotonic clock.
        age: Micros,
    },
    /// A permit goes back after its call: concurrency is free again, the charge stays.
    Done {
        /// Number of the grant.
        granted: Seq,
        /// Its deployment.
        deployment: Arc<str>,
        /// What the reservation shrinks to, where that is less.
        tokens: Tokens,
        /// Tokens used above the reservation.
        excess: Tokens,
        /// The deployment answered as it should.
        ok: bool,
    },
    /// A permit goes back and nothing was sent: the charge is undone.
    Unused {
        /// Number of the grant.
        granted: Seq,
    },
    /// A call's outcome, where it matters to the deployment's health.
    Report {
        /// Number of the grant.
        granted: Seq,
        /// Its deployment.
        deployment: Arc<str>,
        /// The call was a probe.
        probe: bool,
        /// The request had failed at another call before.
        again: bool,
        /// The answer has begun as it should.
        ok: bool,
        /// The upstream's status, 0 without one.
        status: u16,
        /// Cool for this long at once; -1: count the failure.
        cool: i64,
    },
    /// Snapshot: a permit in flight.
    Hold {
        /// Number of the grant.
        granted: Seq,
        /// Its deployment.
        deployment: Arc<str>,
        /// It probes the deployment.
        probe: bool,
    },
    /// Snapshot: a charge of the last window.
    Charge {
        /// Number of the grant.
        granted: Seq,
        /// The part above the reservation, which is an entry of its own.
        excess: bool,
        /// Its deployment.
        deployment: Arc<str>,
        /// 1, or 0 for an excess.
        requests: u64,
        /// Tokens charged.
        tokens: Tokens,
        /// How old on the sender's monotonic clock.
        age: Micros,
    },
    /// Snapshot: a cooldown that the sender knows of.
    Cool {
        /// The deployment.
        deployment: Arc<str>,
        /// How long it still lasts.
        left: Micros,
        /// The upstream's status that led to it.
        status: u16,
    },
    /// The session ends.
    CloseSession {
        /// Nothing is forgotten with it: no charge of the sender's counts any more (P11).
        clean: bool,
    },
}

/// The answer to a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// What became of the message.
    pub verdict: Verdict,
    /// The current epoch.
    pub epoch: Arc<str>,
    /// Whether this step found the state lost and made it anew (P3).
    pub recovered: bool,
    /// Present with [`Verdict::Done`]. At most one element.
    pub answer: Vec<Answer>,
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "u8", try_from = "u8")]
pub enum Verdict {
    /// Executed, now or when it first came.
    Done,
    /// Not executed: the session is not known here. Open a session.
    SessionInvalid,
    /// Not executed: overtaken by a later message of the same instance. Open a session.
    Stale,
}

impl From<Verdict> for u8 {
    fn from(verdict: Verdict) -> u8 {
        verdict as u8
    }
}

impl TryFrom<u8> for Verdict {
    type Error = &'static str;
    fn try_from(value: u8) -> Result<Self, Self::Error> {
        match value {
            0 => Ok(Verdict::Done),
            1 => Ok(Verdict::SessionInvalid),
            2 => Ok(Verdict::Stale),
            _ => Err("unknown verdict"),
        }
    }
}

/// What an executed step has for its sender.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The sender's session.
    pub session: SessionId,
    /// The k-th [`Op::Join`] of the message entered with number `base + k`.
    pub base: Seq,
    /// The last number drawn.
    pub seen: Seq,
    /// With fair shares, where the last of all turns that were served ends.
    pub highest_finish: u64,
    /// Permits for the sender's tickets.
    pub grants: Vec<Grant>,
    /// Tickets that will not be granted: arrival, and 1 (never fits), 2 (queue full) or the upstream's status.
    pub refusals: Vec<(Seq, u16)>,
    /// How long until the head can be granted if nothing else happens; a lower bound. -1 where only an op can free it, or nothing waits.
    pub next_free: i64,
    /// The head is the sender's.
    pub mine: bool,
    /// Nothing is granted yet, after a loss (P3). `next_free` says when to step again.
    pub recovering: bool,
    /// A bound was reached: step again at once (P16).
    pub more: bool,
    /// Tickets waiting in the group.
    pub depth: u64,
    /// For each deployment of the sender's rules.
    pub used: Vec<Used>,
    /// Version of the sender's rules: the higher, the newer.
    pub rules_version: u64,
    /// All instances with a session; empty: unchanged since the sender was last told.
    pub peers: Vec<Arc<str>>,
    /// Instances that died within the window memory, and how long ago; told with `peers`.
    pub departed: Vec<(Arc<str>, Micros)>,
    /// For the k-th [`Op::Join`]: how many tickets were surely before it when the step began; 0 for one that came again.
    pub ahead: Vec<u64>,
    /// Why the head waits: bits of [`reason`], 0 where nothing waits.
    pub reasons: u64,
    /// For how long grants are to be remembered: for the longest window that counts anywhere (P11).
    pub memory: Micros,
    /// How often each instance has to step: the shortest heartbeat of all configurations.
    pub heartbeat: Micros,
    /// How many different configurations the live sessions have: more than one during a roll-out.
    pub configurations: u64,
}

/// What counts of a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Used {
    /// In its longest window.
    pub cost: Cost,
    /// Open calls.
    pub open: u64,
    /// How long it still cools.
    pub cooling: Micros,
    /// For how long pacing holds up whom it holds.
    pub pace: Micros,
}

/// A permit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The ticket's first number.
    pub arrival: Seq,
    /// The grant's number.
    pub granted: Seq,
    /// Where the call may go.
    pub deployment: Arc<str>,
    /// An entry in the deployment's windows was made: to be remembered.
    pub counted: bool,
    /// The call probes the deployment.
    pub probe: bool,
    /// What the ticket was ordered by first: its priority, or with aging its score.
    pub score: i64,
    /// What it was ordered by then, before its arrival: where its tenant's turn begins; 0 without fair shares.
    pub start: u64,
}

/// Why the head of the queue waits.
pub mod reason {
    use crate::LimitKind;

    /// For room under a limit of requests.
    pub const REQUESTS: u64 = 1;
    /// For room under a limit of tokens of both kinds together.
    pub const TOKENS: u64 = 2;
    /// For an open call to end.
    pub const CONCURRENCY: u64 = 4;
    /// For the end of a cooldown.
    pub const COOLDOWN: u64 = 8;
    /// There is room, but not at the pace of tickets of its priority.
    pub const PACING: u64 = 16;
    /// There is room, but it is kept for better tickets.
    pub const RESERVE: u64 = 32;
    /// For the answer to a probe after a cooldown, or until another may be sent.
    pub const PROBING: u64 = 64;
    /// For room under a limit of input tokens.
    pub const INPUT_TOKENS: u64 = 128;
    /// For room under a limit of output tokens.
    pub const OUTPUT_TOKENS: u64 = 256;

    /// For room under a limit of this kind.
    pub const fn of_limit(kind: LimitKind) -> u64 {
        match kind {
            LimitKind::Requests => REQUESTS,
            LimitKind::Tokens => TOKENS,
            LimitKind::InputTokens => INPUT_TOKENS,
            LimitKind::OutputTokens => OUTPUT_TOKENS,
            LimitKind::Concurrency => CONCURRENCY,
        }
    }
}

/// Refusal code: the cost is above a limit of every deployment.
pub const NEVER_FITS: u16 = 1;
/// Refusal code: the queue is at its cap.
pub const QUEUE_FULL: u16 = 2;
/// Wake for every instance, whoever it is.
pub const EVERYONE: &str = "*";

/// Most ops in one message (P16).
pub const MAX_OPS: usize = 256;
/// Most grants (and most refusals) in one step (P16).
pub const MAX_GRANTS: usize = 64;
/// Most entries expired, and most tenants forgotten, in one step (P16).
pub const MAX_DROPS: usize = 1000;
/// Most orphaned entries dropped in one step, at the head, behind a full queue, and by the sweep (P16).
pub const MAX_ORPHANS: usize = 128;
/// Most entries recounted in one step (P16): some five milliseconds of Redis' time.
pub const MAX_RECOUNT: usize = 200;
/// Most grants and calls of ended sessions settled in one step (P16).
pub const MAX_SETTLED: usize = 200;
/// Most expiries looked at for `next_free` (P16).
pub const MAX_WALK: usize = 64;
/// Most entries looked at in one step for tickets of ended sessions.
pub const MAX_SWEEP: usize = 64;
