//! The client side of the protocol, without I/O.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

use super::{
    charge_log::{ChargeLog, LoggedCharge},
    fallback::{Fallback, Peak, is_fallback_number},
    queries::{Asked, Query, QueryResult},
    reconfigure::Derived,
};
use crate::{
    claim::Entry,
    config::GroupConfig,
    cost::Tokens,
    grant::HeldGrant,
    message::{Answer, MAX_OPS, Message, Op},
    mutation::{Part, without},
    overrides::Overrides,
    rules::{LATENCY_BASED, MAX_DURATION, NONE, Rules},
    units::{Micros, Seq, SessionId},
};

/// The id of a ticket on its instance. The caller of [`Core::join`] chooses it, and never uses it twice.
pub type TicketId = u64;

/// The id of a query on its instance. The caller of [`Core::ask`] chooses it, and never uses it twice.
pub type QueryId = u64;

/// A part of the next message.
#[derive(Debug, Clone)]
pub(super) enum Pending {
    Op(Op),
    /// A ticket that is not in the queue yet. It is skipped if it has left since.
    Join(TicketId),
    /// A charge, or its excess, which is reported with its age at that time.
    Charge(Seq, bool),
}

/// A ticket that is in the queue, or in a message that joins it.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    /// Its arrival is 0 until the reply to its first entry.
    pub entry: Entry,
    pub(super) entered: Seq,
    /// Its key is paused: it waits on this instance, and not in the queue (P23).
    pub(super) held: bool,
}

impl Waiting {
    /// Tickets that have not entered yet come last.
    pub(super) fn order(&self) -> Seq {
        if self.entry.arrival == Seq::NONE {
            Seq::MAX
        } else {
            self.entry.arrival
        }
    }
}

/// A grant whose permit or call is open.
#[derive(Debug, Clone)]
pub(super) struct Permitted {
    pub(super) held: HeldGrant,
    /// It probes its deployment, and the outcome is not known yet.
    pub(super) probing: bool,
    /// The call has succeeded.
    pub(super) ok: bool,
    pub(super) dispatched: bool,
}

impl Permitted {
    pub(super) fn deployment(&self) -> &Arc<str> {
        &self.held.grant.deployment
    }

    pub(super) fn tokens(&self) -> Tokens {
        self.held.entry.claim.tokens
    }

    /// Its charge, with the time of the dispatch.
    pub(super) fn charge(&self, at: Micros) -> LoggedCharge {
        LoggedCharge {
            deployment: self.deployment().clone(),
            tokens: self.tokens(),
            at,
            excess: None,
        }
    }

    /// Reports the outcome of its call, where it matters to the deployment's health.
    fn report(&mut self, ok: bool, status: u16, cool: i64) -> Op {
        self.ok = ok;
        Op::Report {
            granted: self.held.grant.granted,
            deployment: self.deployment().clone(),
            probe: std::mem::take(&mut self.probing),
            again: self.held.entry.claim.failed,
            ok,
            status,
            cool,
        }
    }
}

/// P9 (dispatch within the session): a session, and until when its instance may dispatch its grants, on the local clock. Session 0: there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Alive {
    /// Its number.
    pub session: SessionId,
    /// On the local clock.
    pub until: Micros,
}

/// How many round trips are kept. The shortest of them is that of the network; longer ones come from load.
pub(super) const ROUND_TRIPS: usize = 8;

/// The message that has no reply yet.
#[derive(Debug)]
pub(super) struct Outstanding {
    pub(super) message: Arc<Message>,
    pub(super) joins: Vec<(TicketId, Waiting)>,
    pub(super) asked: Vec<Asked>,
    pub(super) first_sent: Micros,
    pub(super) attempts: u32,
    /// When it is to be sent again; `None` while a transmission is outstanding.
    pub(super) resend_at: Option<Micros>,
}

/// A message to send, and how long to wait for its reply.
#[derive(Debug, Clone)]
pub struct Transmission {
    /// To be executed by the backend.
    pub message: Arc<Message>,
    /// How long its answer is waited for.
    pub timeout: Micros,
}

/// What a reply means for the instance's tickets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The ticket is granted.
    Granted {
        /// The ticket.
        ticket: TicketId,
        /// Its grant.
        held: HeldGrant,
    },
    /// The ticket has entered the queue for the first time, and waits.
    Entered {
        /// The ticket.
        ticket: TicketId,
        /// How many tickets were surely ahead of it.
        ahead: u64,
        /// Its arrival.
        arrival: Seq,
    },
    /// The ticket will not be granted.
    Refused {
        /// The ticket.
        ticket: TicketId,
        /// The reason: a refusal code of the message module.
        code: u16,
    },
    /// The answer to a query.
    Answered {
        /// The query.
        query: QueryId,
        /// The answer.
        result: QueryResult,
    },
    /// A grant was received too late to be dispatched (P9). It returns unused, and its ticket enters the queue again.
    Expired,
    /// The session has ended.
    SessionInvalid,
    /// The group's state was found lost, and recovers.
    Recovered,
}

/// One instance's side of one group. All times are microseconds on the instance's monotonic clock.
#[derive(Debug)]
pub struct Core {
    pub(super) instance: Arc<str>,
    pub(super) ids: Vec<Arc<str>>,
    pub(super) rules: Arc<Rules>,
    pub(super) rules_version: u64,
    /// The time of the charge log and the heartbeat that the group's last reply asks for; 0 before the first reply.
    pub(super) requested: (Micros, Micros),
    pub(super) polling_interval: Micros,
    /// A configuration that the next session is to have.
    pub(super) next_config: Option<Box<Derived>>,
    pub(super) alive: Alive,
    /// Grants whose dispatch is not reported yet (P8).
    pub(super) unreported: BTreeSet<Seq>,
    /// By deployment, how long the last answer took to begin that is not reported yet. The backend keeps a mean, so one of many is enough.
    pub(super) measured: BTreeMap<Arc<str>, Micros>,
    /// A dispatch is reported within this time, so that its window does not end before.
    pub(super) report_within: Micros,
    /// The local fallback serves the group while the backend is away (P21).
    pub(super) falls_back: bool,
    pub(super) fallback: Option<Fallback>,
    /// The highest use of each deployment, in the order of the configuration.
    pub(super) peaks: Vec<Peak>,
    /// When the backend replied last.
    pub(super) answered_at: Micros,
    /// Those of the last replies, at most [`ROUND_TRIPS`].
    pub(super) round_trips: VecDeque<Micros>,
    pub(super) epoch: Arc<str>,
    pub(super) session: SessionId,
    pub(super) batch: u64,
    pub(super) open_session_number: u64,
    /// The highest known sequence number, and when it was learned.
    pub(super) seen: (Seq, Micros),
    /// The highest known finish tag.
    pub(super) highest_finish: u64,
    pub(super) outstanding: Option<Outstanding>,
    pub(super) pending: VecDeque<Pending>,
    /// What operators ask, in order; not a part of snapshots.
    pub(super) queries: VecDeque<(QueryId, Query)>,
    /// What operators have changed in the group (P23).
    pub(super) overrides: Overrides,
    /// How many of `pending` still belong to the snapshot.
    pub(super) snapshot_left: usize,
    pub(super) tickets: BTreeMap<TicketId, Waiting>,
    pub(super) by_arrival: HashMap<Seq, TicketId>,
    pub(super) permits: BTreeMap<Seq, Permitted>,
    pub(super) charge_log: ChargeLog,
    /// A step is due at once, with ops or without.
    pub(super) forced: bool,
    /// Until when ends of calls that free nothing wait for another message; `None` while there are none.
    pub(super) lingers_until: Option<Micros>,
    pub(super) step_at: Micros,
    /// No message is composed before this time.
    pub(super) not_before: Micros,
    pub(super) busy_at: Micros,
    /// When expired charges are dropped from the log next.
    pub(super) forget_at: Micros,
    /// The session is closed, and the dispatcher sleeps until a ticket joins or the group recovers.
    pub(super) asleep: bool,
    pub(super) leaving: bool,
    pub(super) last: Option<(Answer, Micros)>,
}

impl Core {
    /// A dispatcher without a session. Its first message opens one, and is due at once.
    pub fn new(instance: Arc<str>, config: &GroupConfig, now: Micros) -> Self {
        let Derived {
            ids,
            rules,
            polling_interval,
            report_within,
            falls_back,
        } = Derived::from(config);
        Self {
            ids,
            polling_interval,
            next_config: None,
            alive: Alive::default(),
            unreported: BTreeSet::new(),
            measured: BTreeMap::new(),
            report_within,
            falls_back,
            fallback: None,
            peaks: Vec::new(),
            answered_at: now,
            round_trips: VecDeque::new(),
            charge_log: ChargeLog {
                peers: vec![instance.clone()],
                ..ChargeLog::default()
            },
            instance,
            rules,
            rules_version: 0,
            requested: (Micros::ZERO, Micros::ZERO),
            epoch: "".into(),
            session: SessionId::NONE,
            batch: 0,
            open_session_number: 0,
            seen: (Seq::NONE, now),
            highest_finish: 0,
            outstanding: None,
            pending: VecDeque::new(),
            queries: VecDeque::new(),
            overrides: Overrides::default(),
            snapshot_left: 0,
            tickets: BTreeMap::new(),
            by_arrival: HashMap::new(),
            permits: BTreeMap::new(),
            forced: true,
            lingers_until: None,
            step_at: now,
            not_before: now,
            busy_at: now,
            forget_at: now,
            asleep: false,
            leaving: false,
            last: None,
        }
    }

    /// Numbers the openings of sessions from here on: above those of the dispatcher that this one replaces.
    #[must_use]
    pub fn opening_after(mut self, number: u64) -> Self {
        self.open_session_number = number;
        self
    }

    // === What happens on the instance ===

    /// A ticket enters the queue, for the first time or again (A8).
    pub fn join(&mut self, id: TicketId, entry: Entry) {
        let claim = entry.claim.bounded();
        // The backend does not know numbers that the local fallback drew.
        let foreign = is_fallback_number(entry.arrival) && !self.in_fallback();
        let entry = if foreign || without(Part::A8Arrival) {
            Entry::new(claim)
        } else {
            Entry { claim, ..entry }
        };
        self.enter(
            id,
            Waiting {
                entry,
                entered: Seq::NONE,
                held: false,
            },
        );
    }

    pub(super) fn enter(&mut self, id: TicketId, waiting: Waiting) {
        self.tickets.insert(id, waiting);
        self.pending.push_back(Pending::Join(id));
    }

    /// A7 (leaving tickets): a ticket's client has disconnected, or its time is up.
    pub fn leave(&mut self, id: TicketId) {
        let Some(ticket) = self.tickets.remove(&id) else {
            return;
        };
        let Entry { claim, arrival, .. } = ticket.entry;
        self.by_arrival.remove(&arrival);
        if without(Part::A7Leave) {
            return;
        }
        // A join that is not sent yet is skipped when the message is composed. A join without a reply is handled when the reply arrives.
        if ticket.entered != Seq::NONE {
            self.pending
                .push_back(Pending::Op(Op::Leave { claim, arrival }));
        }
    }

    /// P9 (dispatch within the session): whether a grant's call may be dispatched now. If so, it counts as dispatched.
    pub fn dispatch(&mut self, now: Micros, granted: Seq) -> bool {
        let Some(permit) = self.permits.get(&granted) else {
            return false;
        };
        let alive = permit.held.session == self.alive.session && now <= self.alive.until;
        if permit.held.limited && !alive && !without(Part::P9InSession) {
            return false;
        }
        self.dispatched(now, granted);
        true
    }

    /// The same if P9 is checked already.
    pub fn dispatched(&mut self, now: Micros, granted: Seq) {
        let Some(permit) = self.permits.get_mut(&granted) else {
            return;
        };
        permit.dispatched = true;
        if permit.held.grant.counted {
            self.charge_log.charges.insert(granted, permit.charge(now));
            self.unreported.insert(granted);
            self.step_at = self.step_at.min(now + self.report_within);
        }
    }

    /// P9 (dispatch within the session): the session whose grants may be dispatched, and until when.
    pub fn alive(&self) -> Alive {
        self.alive
    }

    /// The next message may end the session or open another one. No call is dispatched from before it is composed until its reply.
    pub fn session_ends(&self) -> bool {
        self.session == SessionId::NONE || self.leaving || self.reconfigures()
    }

    /// The shortest of the last round trips, once there are enough of them.
    pub fn round_trip(&self) -> Option<Micros> {
        let enough = self.round_trips.len() == ROUND_TRIPS;
        self.round_trips.iter().min().copied().filter(|_| enough)
    }

    /// The round trip is longer than the protocol supports.
    pub fn too_far(&self) -> bool {
        let most = self.rules.max_round_trip();
        self.round_trip().is_some_and(|time| time > most)
    }

    /// A permit or call returns. `sent`: the call may have reached the upstream; `used`: its actual tokens, if known (P14).
    pub fn give_back(&mut self, now: Micros, granted: Seq, sent: bool, used: Option<Tokens>) {
        let Some(permit) = self.permits.remove(&granted) else {
            return;
        };
        if !sent {
            self.refund(now, granted);
            return;
        }
        // Another ticket may wait for the outcome of the probe.
        self.forced |= permit.probing;
        // For each kind separately, the reservation shrinks to the used tokens, and tokens above it count from now on.
        let reserved = permit.tokens();
        let used = used.map_or(reserved, Tokens::bounded);
        let (tokens, excess) = if permit.held.grant.counted {
            (used.min(reserved), used.saturating_sub(reserved))
        } else {
            (reserved, Tokens::ZERO)
        };
        if let Some(charge) = self.charge_log.charges.get_mut(&granted) {
            charge.tokens = tokens;
            charge.excess = (excess != Tokens::ZERO).then_some((excess, now));
        }
        self.pending.push_back(Pending::Op(Op::Done {
            granted,
            deployment: permit.held.grant.deployment,
            tokens,
            excess,
            ok: permit.ok,
        }));
    }

    pub(super) fn refund(&mut self, now: Micros, granted: Seq) {
        self.charge_log.charges.remove(&granted);
        self.unreported.remove(&granted);
        self.charge_log.refunds.insert(granted, now);
        self.pending.push_back(Pending::Op(Op::Unused { granted }));
    }

    /// A9 (health): the response has begun well. That weighs against failures, and heals the deployment if the call is a probe.
    pub fn succeeded(&mut self, granted: Seq) {
        let Some(permit) = self.permits.get_mut(&granted) else {
            return;
        };
        permit.ok = true;
        if permit.probing {
            let report = permit.report(true, 0, NONE);
            self.charge_log.cooldowns.remove(permit.deployment());
            self.pending.push_back(Pending::Op(report));
        }
    }

    /// Whether deployments are chosen by how long their answers take to begin.
    pub fn measures(&self) -> bool {
        self.rules.strategy == LATENCY_BASED
    }

    /// The answer of a call took so long to begin, which goes with the next message, at the latest a heartbeat later.
    pub fn measured(&mut self, now: Micros, granted: Seq, took: Micros) {
        let Some(permit) = self.permits.get(&granted).filter(|_| self.measures()) else {
            return;
        };
        self.measured.insert(permit.deployment().clone(), took);
        self.step_at = self.step_at.min(now + self.report_within);
    }

    /// The call has failed. `cool`: the deployment cools for this long; `None`: the failure is counted.
    pub fn failed(&mut self, now: Micros, granted: Seq, status: u16, cool: Option<Micros>) {
        let Some(permit) = self.permits.get_mut(&granted) else {
            return;
        };
        let cool = cool.map(|cool| cool.min(MAX_DURATION));
        let report = permit.report(
            false,
            status,
            cool.map_or(NONE, |cool| cool.0.cast_signed()),
        );
        if let Some(cool) = cool {
            let known = self
                .charge_log
                .cooldowns
                .entry(permit.deployment().clone())
                .or_insert((Micros::ZERO, status));
            if now + cool > known.0 {
                *known = (now + cool, status);
            }
        }
        self.pending.push_back(Pending::Op(report));
    }

    /// P15 (wakes): another instance's step has news. An instance without a session is woken only by a recovery, and opens a session because others may expect it.
    pub fn wake(&mut self) {
        self.asleep &= self.leaving;
        self.forced = true;
    }

    /// P15 (wakes): wakes may have been lost. An instance with a session polls.
    pub fn wakes_lost(&mut self) {
        self.forced |= !self.asleep;
    }

    /// Closes the session for good, as soon as all pending ops are sent.
    pub fn close_session(&mut self) {
        self.forced = true;
        self.leaving = true;
    }

    // === What the instance knows ===

    /// A session is open, or was closed because the instance is idle, and the group does not recover.
    pub fn is_ready(&self) -> bool {
        self.asleep
            || self.session != SessionId::NONE
                && self
                    .last
                    .as_ref()
                    .is_some_and(|(answer, _)| !answer.recovering)
    }

    /// The next message would only free room, or nothing, and no ticket waits: a decision of the step is the same if it goes with a later
    /// message.
    pub(crate) fn may_idle(&self) -> bool {
        let few = self.pending.len() + self.unreported.len() < MAX_OPS / 2;
        self.tickets.is_empty() && few && !self.forced && !self.session_ends()
    }

    /// The session is closed.
    pub fn is_asleep(&self) -> bool {
        self.asleep
    }

    /// The ticket of this instance that waits with this arrival.
    pub fn ticket_of(&self, arrival: Seq) -> Option<TicketId> {
        self.by_arrival.get(&arrival).copied()
    }

    /// When the outstanding message was first sent.
    pub fn unanswered_since(&self) -> Option<Micros> {
        self.outstanding.as_ref().map(|o| o.first_sent)
    }

    /// The number of waiting tickets of this instance.
    pub fn waiting(&self) -> usize {
        self.tickets.len()
    }

    /// How many instances have a session, this one included.
    pub(crate) fn instances(&self) -> usize {
        self.charge_log.peers.len().max(1)
    }

    /// The number of open permits and calls of this instance.
    pub fn in_flight(&self) -> usize {
        self.permits.len()
    }

    /// The last answer, and when it was received.
    pub fn last_answer(&self) -> Option<&(Answer, Micros)> {
        self.last.as_ref()
    }

    /// The number of grants in the charge log, used and refunded ones.
    pub fn logged_grants(&self) -> usize {
        self.charge_log.charges.len() + self.charge_log.refunds.len()
    }

    /// P11 (charge log): how long charges are kept.
    pub(super) fn log_time(&self) -> Micros {
        if without(Part::P11ChargeLog) {
            return Micros::ZERO;
        }
        // Half a second longer than any charge counts, because the clocks of machines run at different rates.
        self.rules.memory.max(self.requested.0) + Micros::SECOND / 2
    }

    /// How often this instance steps at least: other instances may have a shorter lease.
    pub(super) fn heartbeat(&self) -> Micros {
        let own = self.rules.heartbeat();
        match self.requested.1 {
            Micros::ZERO => own,
            // That of the shortest lease there can be.
            requested => own.min(requested.max(Micros(5_000))),
        }
    }
}
