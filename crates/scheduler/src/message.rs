//! The messages of the protocol: an instance sends a [`Message`], the step on the group's state returns a [`Reply`].
//!
//! All numbers are integers below 2^53 and all durations are microseconds, because the same messages are read by Lua, whose numbers are
//! doubles. Absent numbers are -1 (or 0 where 0 is no valid value), because a Lua array ends at its first nil. Redis gets and returns MessagePack.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    claim::{Claim, Entry},
    cost::{Cost, KINDS, Tokens},
    overrides::{LimitOverride, Overrides},
    rules::Rules,
    units::{Micros, Seq, SessionId},
};

/// One step of one instance in one group.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Message {
    /// The sender; unique per process start.
    pub instance: Arc<str>,
    /// The epoch of the sender's last reply; empty before its first.
    pub epoch: Arc<str>,
    /// The sender's session; 0 in an open-session message.
    pub session: SessionId,
    /// The number of the message: that of the sender's last message + 1 (P1).
    pub batch: u64,
    /// Opens a session. At most one element: an array, because Lua has no value for an absent element.
    pub open_session: Vec<OpenSession>,
    /// False in all parts of a snapshot but the last (P12).
    pub complete: bool,
    /// The highest sequence number the sender knows (P5).
    pub seen: Seq,
    /// The highest finish tag the sender knows (P5).
    pub highest_finish: u64,
    /// What happened on the sender since its last message; executed in order, before any grant.
    pub ops: Vec<Op>,
}

impl Message {
    /// As the step in Lua takes it: the values of the fields in a row, without a head that says how many.
    ///
    /// # Errors
    /// None is known.
    pub fn packed(&self) -> Result<Vec<u8>, rmp_serde::encode::Error> {
        let Self {
            instance,
            epoch,
            session,
            batch,
            open_session,
            complete,
            seen,
            highest_finish,
            ops,
        } = self;
        let row = (
            instance,
            epoch,
            session,
            batch,
            open_session,
            complete,
            seen,
            highest_finish,
            ops,
        );
        let mut packed = rmp_serde::to_vec_named(&row)?;
        packed.remove(0);
        Ok(packed)
    }
}

/// The head of a snapshot. The rest follows as ops: [`Op::Charge`], [`Op::Hold`], [`Op::Cool`], [`Op::Unused`], [`Op::Join`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OpenSession {
    /// Higher with each open-session message of the instance.
    pub number: u64,
    /// The sender's configuration of the group.
    pub rules: Arc<Rules>,
    /// The version that an earlier session got for these rules, 0 without any.
    pub rules_version: u64,
    /// Instances with a session as of the sender's last reply, itself included.
    pub peers: Vec<Arc<str>>,
    /// Instances that departed within the longest window, and how long ago.
    pub departed: Vec<(Arc<str>, Micros)>,
    /// The usage of all instances, as of the sender's last reply. At most one element.
    pub view: Vec<UsageSnapshot>,
}

/// The usage snapshot of a reply (P13).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UsageSnapshot {
    /// How long ago.
    pub age: Micros,
    /// The last sequence number that was drawn then.
    pub number: Seq,
    /// For each deployment, the sum of the entries in its longest window.
    pub used: Vec<(Arc<str>, Cost)>,
}

/// Something that happened on an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// A ticket enters the queue.
    Join(Entry),
    /// A ticket leaves the queue without a grant.
    Leave {
        /// The claim of its entry.
        claim: Claim,
        /// Its arrival.
        arrival: Seq,
    },
    /// A grant was dispatched: its window entry gets the time of the dispatch (P8).
    Sent {
        /// Number of the grant.
        granted: Seq,
        /// How long ago, on the sender's monotonic clock.
        age: Micros,
    },
    /// A dispatched call ended: its slot of concurrency is free, its charge stays.
    Done {
        /// Number of the grant.
        granted: Seq,
        /// Its deployment.
        deployment: Arc<str>,
        /// Tokens used, if fewer than reserved; else the reservation.
        tokens: Tokens,
        /// Tokens used above the reservation.
        excess: Tokens,
        /// The call succeeded.
        ok: bool,
    },
    /// A grant was returned and nothing was sent: the charge is removed.
    Unused {
        /// Number of the grant.
        granted: Seq,
    },
    /// The outcome of a call that affects the deployment's health (A9).
    Report {
        /// Number of the grant.
        granted: Seq,
        /// Its deployment.
        deployment: Arc<str>,
        /// The call was a probe.
        probe: bool,
        /// The request has failed at an earlier call.
        again: bool,
        /// The answer of the upstream has begun without an error.
        ok: bool,
        /// The upstream's status, 0 without one.
        status: u16,
        /// The deployment cools for this long; -1: the failure is counted.
        cool: i64,
    },
    /// How long a call's answer took to begin; sent only where deployments are chosen by their latency.
    Measured {
        /// The call's deployment.
        deployment: Arc<str>,
        /// From its dispatch on.
        took: Micros,
    },
    /// Snapshot: a grant that the instance holds.
    Hold {
        /// Number of the grant.
        granted: Seq,
        /// Its deployment.
        deployment: Arc<str>,
        /// The call is a probe.
        probe: bool,
    },
    /// Snapshot: a charge of the last window.
    Charge {
        /// Number of the grant.
        granted: Seq,
        /// Tokens above the reservation, which have a window entry of their own.
        excess: bool,
        /// Its deployment.
        deployment: Arc<str>,
        /// 1, or 0 for an excess.
        requests: u64,
        /// Tokens charged.
        tokens: Tokens,
        /// Time since the dispatch, on the sender's monotonic clock.
        age: Micros,
    },
    /// Snapshot: a cooldown that the sender knows of.
    Cool {
        /// The deployment.
        deployment: Arc<str>,
        /// How long it still lasts.
        left: Micros,
        /// The upstream's status that caused it.
        status: u16,
    },
    /// A waiting ticket of the sender gets another priority, and keeps its arrival (P23).
    Move {
        /// The claim of its entry.
        claim: Claim,
        /// Its arrival.
        arrival: Seq,
        /// Its priority from now on.
        to: i32,
    },
    /// How many tickets are ahead of a ticket.
    Rank {
        /// The claim of its entry.
        claim: Claim,
        /// Its arrival; 0: of a ticket that would come now.
        arrival: Seq,
    },
    /// A part of the queue, and the state of the group, as of the end of the step. Only the first one of a message is answered.
    Look {
        /// How many queue entries are passed over.
        from: u64,
        /// How many queue entries are wanted, at most [`MAX_ROWS`].
        most: u64,
    },
    /// An operator pauses or resumes the group or a key, or changes a limit until further notice (P23).
    Override(Override),
    /// Snapshot: the overrides that the sender knows.
    Overrides(Overrides),
    /// The session ends.
    CloseSession {
        /// No charge of the sender counts any more, so that nothing is lost with it (P11).
        clean: bool,
    },
}

/// One change of the [`Overrides`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Override {
    /// What is changed: [`overridden`].
    pub what: u8,
    /// The key's number; of the group 0.
    pub key: u64,
    /// Of [`overridden::PAUSE`]: it pauses, otherwise it goes on.
    pub paused: bool,
    /// Of [`overridden::LIMIT`]: the limit, or with [`NONE`](crate::rules::NONE) the configured one again.
    pub limit: LimitOverride,
}

/// What an [`Override`] changes.
pub mod overridden {
    /// Whether the group is paused, or a key.
    pub const PAUSE: u8 = 0;
    /// A limit.
    pub const LIMIT: u8 = 1;
}

/// The result of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// Whether the message was executed.
    pub verdict: Verdict,
    /// The current epoch.
    pub epoch: Arc<str>,
    /// Whether this step found the state lost and began a recovery (P3).
    pub recovered: bool,
    /// Present with [`Verdict::Done`]. At most one element.
    pub answer: Vec<Answer>,
}

/// Whether a message was executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "u8", try_from = "u8")]
pub enum Verdict {
    /// Executed, by this step or by the step of its first copy (P2).
    Done,
    /// Not executed: the state has no such session. The sender opens a session.
    SessionInvalid,
    /// Not executed: a later message of the same instance was executed before. The sender opens a session.
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

/// What an executed step returns to its sender.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The sender's session.
    pub session: SessionId,
    /// The k-th [`Op::Join`] of the message drew the sequence number `base + k`.
    pub base: Seq,
    /// The last number drawn.
    pub seen: Seq,
    /// With fair shares, the highest finish tag of all granted tickets.
    pub highest_finish: u64,
    /// Permits for the sender's tickets.
    pub grants: Vec<Grant>,
    /// Tickets that will not be granted: arrival, and 1 (never fits), 2 (queue full), 3 (held: its key is paused) or the upstream's status.
    pub refusals: Vec<(Seq, u16)>,
    /// Time until the head can be granted if no op arrives; a lower bound. -1 where only an op can free it, or the queue is empty.
    pub next_free: i64,
    /// The head is the sender's.
    pub mine: bool,
    /// The group is recovering: nothing is granted yet (P3). `next_free` is the time of the next step.
    pub recovering: bool,
    /// A bound on the work of a step was reached: the sender steps again at once (P16).
    pub more: bool,
    /// Tickets waiting in the group.
    pub depth: u64,
    /// For each deployment of the sender's rules.
    pub used: Vec<Used>,
    /// Version of the sender's rules: a higher version is newer.
    pub rules_version: u64,
    /// All instances with a session; empty: unchanged since they were last sent to this instance.
    pub peers: Vec<Arc<str>>,
    /// Instances that departed within the longest window, and how long ago; sent with `peers`.
    pub departed: Vec<(Arc<str>, Micros)>,
    /// For the k-th [`Op::Join`]: how many tickets were certainly ahead of it when the step began; 0 for a ticket that enters again.
    pub ahead: Vec<u64>,
    /// Why the head waits: bits of [`reason`], 0 with an empty queue.
    pub reasons: u64,
    /// How long instances keep charges: the longest window of all configurations, at least the longest lease (P11).
    pub memory: Micros,
    /// How often each instance sends a heartbeat: the shortest period of all configurations.
    pub heartbeat: Micros,
    /// How many different configurations the sessions have: more than 1 during a roll-out.
    pub configurations: u64,
    /// For the k-th [`Op::Rank`] or [`Op::Move`]: how many tickets are ahead; -1: the ticket is not in the queue.
    pub ranks: Vec<i64>,
    /// The overrides, if the sender does not have these yet or has changed them. At most one element.
    pub overrides: Vec<Overrides>,
    /// What the sender's [`Op::Look`] saw. At most one element.
    pub views: Vec<View>,
}

/// A part of a group's queue, and the state of the group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// The group clock.
    pub clock: Micros,
    /// Queue entries in order. With fair shares those of tickets behind the first of their tenant come last, by priority and tenant.
    pub rows: Vec<ViewedEntry>,
    /// How many of all entries are in the order of the grants.
    pub ordered: u64,
    /// The deployments of all configurations, with the limits in force.
    pub deployments: Vec<ViewedDeployment>,
    /// The first [`MAX_SESSIONS`] sessions.
    pub sessions: Vec<ViewedSession>,
}

/// A queue entry in a [`View`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewedEntry {
    /// Its arrival.
    pub arrival: Seq,
    /// Its priority.
    pub priority: i32,
    /// Its tokens.
    pub tokens: Tokens,
    /// Its tenant's number; 0 without fair shares.
    pub tenant: u64,
    /// Its key's number.
    pub key: u64,
    /// Its instance; empty if its session has ended.
    pub instance: Arc<str>,
    /// Its session has ended or is unresponsive.
    pub orphaned: bool,
}

/// A deployment in a [`View`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewedDeployment {
    /// Its id.
    pub id: Arc<str>,
    /// Open calls.
    pub open: u64,
    /// Most open calls, -1 without a limit.
    pub concurrency: i64,
    /// For each window its span, its limits (-1: none), and what counts in it.
    pub windows: Vec<(Micros, [i64; KINDS], Cost)>,
    /// Time until its cooldown ends.
    pub cooling: Micros,
    /// The upstream's status that caused it, 0 without one.
    pub status: u16,
    /// Time until pacing admits a paced ticket of one request.
    pub pace: Micros,
}

/// A session in a [`View`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewedSession {
    /// Its instance.
    pub instance: Arc<str>,
    /// Its queue entries.
    pub waiting: u64,
    /// Its open calls.
    pub open: u64,
    /// It has not fetched a grant in time (P10).
    pub unresponsive: bool,
}

/// The usage of a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Used {
    /// The sum of the entries in its longest window.
    pub cost: Cost,
    /// Open calls.
    pub open: u64,
    /// Time until its cooldown ends.
    pub cooling: Micros,
    /// Time until pacing admits a paced ticket of one request.
    pub pace: Micros,
}

/// A grant: the right of a ticket to one call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The ticket's arrival.
    pub arrival: Seq,
    /// The grant's sequence number.
    pub granted: Seq,
    /// The deployment of the call.
    pub deployment: Arc<str>,
    /// The grant has a window entry, which the instance keeps in its charge log.
    pub counted: bool,
    /// The call is a probe of the deployment.
    pub probe: bool,
    /// The first key of the queue's order: the ticket's priority, or with aging its score.
    pub score: i64,
    /// The second key, before the arrival: the start tag of the ticket's service; 0 without fair shares.
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
    /// For pacing: there is room, but tickets of its priority are granted at limit / window.
    pub const PACING: u64 = 16;
    /// For room that is not reserved for better priorities.
    pub const RESERVE: u64 = 32;
    /// For the answer to a probe after a cooldown, or until the next probe may be sent.
    pub const PROBING: u64 = 64;
    /// For room under a limit of input tokens.
    pub const INPUT_TOKENS: u64 = 128;
    /// For room under a limit of output tokens.
    pub const OUTPUT_TOKENS: u64 = 256;
    /// An operator has paused the group.
    pub const PAUSED: u64 = 512;

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
/// Refusal code: the ticket's key is paused. The ticket leaves the queue, and its instance keeps it (P23).
pub const HELD: u16 = 3;
/// A wake for all instances.
pub const ALL_INSTANCES: &str = "*";

/// Most ops in one message (P16).
pub const MAX_OPS: usize = 256;
/// Most grants (and most refusals) in one step (P16).
pub const MAX_GRANTS: usize = 64;
/// Most window entries expired, and most idle tenants removed, in one step (P16).
pub const MAX_DROPS: usize = 1000;
/// Most orphaned entries dropped in one step, at the head, behind a full queue, and by the sweep (P16).
pub const MAX_ORPHANS: usize = 128;
/// Most queue entries recounted in one step (P16): about five milliseconds of Redis' time.
pub const MAX_RECOUNT: usize = 200;
/// Most grants and calls of ended sessions settled in one step (P16).
pub const MAX_SETTLED: usize = 200;
/// Most expiries read for `next_free` (P16).
pub const MAX_WALK: usize = 64;
/// Most queue entries that the sweep reads in one step.
pub const MAX_SWEEP: usize = 64;
/// Most queue entries in one view.
pub const MAX_ROWS: u64 = 100;
/// Most sessions in one view.
pub const MAX_SESSIONS: usize = 100;
/// Most paused keys, and most changed limits, of a group.
pub const MAX_OVERRIDES: usize = 64;
