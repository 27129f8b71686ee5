//! The protocol's client, without I/O.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

use super::{
    charge_log::{ChargeLog, LoggedCharge},
    fallback::{Fallback, Peak, is_own},
};
use crate::{
    claim::Entry,
    config::{GroupConfig, WhenAway},
    cost::Tokens,
    grant::HeldGrant,
    message::{Answer, Message, Op},
    mutation::{Part, without},
    rules::{MAX_DURATION, NONE, Rules},
    units::{Micros, Seq, SessionId},
};

/// A ticket's name on its instance, given by whoever joins it and never used twice.
pub type TicketId = u64;

/// Something that is to be told in the next message.
#[derive(Debug, Clone)]
pub(super) enum Pending {
    Op(Op),
    /// A ticket that is not in the queue yet; skipped if it has left since.
    Join(TicketId),
    /// A charge (its excess), told with its age at that time.
    Charge(Seq, bool),
}

/// A ticket in the queue, or on its way there.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    /// Its arrival is 0 until the first entry is answered.
    pub entry: Entry,
    pub(super) entered: Seq,
}

impl Waiting {
    /// Those that never entered come last.
    pub(super) fn order(&self) -> Seq {
        if self.entry.arrival == Seq::NONE {
            Seq::MAX
        } else {
            self.entry.arrival
        }
    }
}

/// A grant whose permit is out.
#[derive(Debug, Clone)]
pub(super) struct Permitted {
    pub(super) held: HeldGrant,
    /// It probes its deployment, and the outcome is not known yet.
    pub(super) probing: bool,
    /// The deployment answered as it should.
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

    /// What it counts, from a time on.
    pub(super) fn charge(&self, at: Micros) -> LoggedCharge {
        LoggedCharge {
            deployment: self.deployment().clone(),
            tokens: self.tokens(),
            at,
            excess: None,
        }
    }

    /// The outcome of its call, where that matters to the deployment's health.
    fn report(&mut self, ok: bool, status: u16, cool: i64) -> Op {
        self.ok = ok;
        Op::Report {
            granted: self.held.grant.granted,
            deployment: self.deployment().clone(),
            probe: std::mem::take(&mut self.probing),
            again: self.held.entry.claim.tried != 0,
            ok,
            status,
            cool,
        }
    }
}

/// A session and until when its instance may dispatch what it granted (P9), on the local clock. Session 0: there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Alive {
    /// Its number.
    pub session: SessionId,
    /// On the local clock.
    pub until: Micros,
}

/// So many round trips are remembered: the shortest of them is what the network takes, the rest is load.
pub(super) const ROUND_TRIPS: usize = 8;

/// The message that is not answered yet.
#[derive(Debug)]
pub(super) struct Outstanding {
    pub(super) message: Arc<Message>,
    pub(super) joins: Vec<(TicketId, Waiting)>,
    pub(super) first_sent: Micros,
    pub(super) attempts: u32,
    /// When it is to be sent again; `None` while it is under way.
    pub(super) resend_at: Option<Micros>,
}

/// A message to send, and how long to wait for its answer.
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
    /// The ticket may go.
    Granted {
        /// Which.
        ticket: TicketId,
        /// Where, and by which grant.
        held: HeldGrant,
    },
    /// The ticket is in the queue for the first time, and not the head that goes at once.
    Entered {
        /// Which.
        ticket: TicketId,
        /// How many tickets were surely before it.
        ahead: u64,
    },
    /// The ticket will not be granted; a code of the message module.
    Refused {
        /// Which.
        ticket: TicketId,
        /// Why.
        code: u16,
    },
    /// A grant came too late to be used (P9): it goes back, and its ticket enters the queue again.
    Expired,
    /// The session was refused.
    SessionInvalid,
    /// The group's state was found lost.
    Recovered,
}

/// One instance's side of one group. All times are microseconds on the instance's monotonic clock.
#[derive(Debug)]
pub struct Core {
    pub(super) instance: Arc<str>,
    pub(super) ids: Vec<Arc<str>>,
    pub(super) rules: Arc<Rules>,
    pub(super) rules_version: u64,
    /// Memory (how long charges are kept) and heartbeat that the group asks for; 0 where it has not yet.
    pub(super) asked: (Micros, Micros),
    pub(super) polling_interval: Micros,
    pub(super) alive: Alive,
    /// Grants whose dispatch is still to be reported (P8).
    pub(super) unreported: BTreeSet<Seq>,
    /// A dispatch is reported within this time, so that its window does not end before.
    pub(super) report_within: Micros,
    /// The group is served while the backend is away.
    pub(super) serves_alone: bool,
    pub(super) fallback: Option<Fallback>,
    /// By deployment, in the order of the configuration.
    pub(super) peaks: Vec<Peak>,
    /// When the backend answered last.
    pub(super) answered_at: Micros,
    /// Of the last answers, at most [`ROUND_TRIPS`].
    pub(super) round_trips: VecDeque<Micros>,
    pub(super) epoch: Arc<str>,
    pub(super) session: SessionId,
    pub(super) batch: u64,
    pub(super) open_session_number: u64,
    /// The highest number known, and when it was.
    pub(super) seen: (Seq, Micros),
    /// The highest finish tag known.
    pub(super) highest_finish: u64,
    pub(super) outstanding: Option<Outstanding>,
    pub(super) pending: VecDeque<Pending>,
    /// How many of `pending` still belong to the snapshot.
    pub(super) snapshot_left: usize,
    pub(super) tickets: BTreeMap<TicketId, Waiting>,
    pub(super) by_arrival: HashMap<Seq, TicketId>,
    pub(super) permits: BTreeMap<Seq, Permitted>,
    pub(super) memory: ChargeLog,
    /// A step is due at once, ops or not.
    pub(super) forced: bool,
    pub(super) step_at: Micros,
    /// No message is made before.
    pub(super) not_before: Micros,
    pub(super) busy_at: Micros,
    /// When what counts no more is forgotten next.
    pub(super) forget_at: Micros,
    /// The session is closed; sleeps until there is something to do.
    pub(super) asleep: bool,
    pub(super) leaving: bool,
    pub(super) last: Option<(Answer, Micros)>,
}

impl Core {
    /// An instance's part in a group. Its first message is an open-session message, due at once.
    pub fn new(instance: Arc<str>, config: &GroupConfig, now: Micros) -> Self {
        let rules = Arc::new(Rules::from(config));
        let window = config
            .deployments
            .iter()
            .flat_map(|d| &d.limits)
            .map(|l| Micros::from(l.length))
            .filter(|l| *l > Micros::ZERO)
            .min();
        Self {
            ids: rules.deployments.iter().map(|d| d.id.clone()).collect(),
            polling_interval: Micros::from(config.timing.polling_interval).max(Micros(1000)),
            alive: Alive::default(),
            unreported: BTreeSet::new(),
            report_within: rules.heartbeat().min(window.map_or(Micros::MAX, |w| w / 4)),
            serves_alone: config.when_away == WhenAway::Share || !rules.is_limited(),
            fallback: None,
            peaks: Vec::new(),
            answered_at: now,
            round_trips: VecDeque::new(),
            memory: ChargeLog {
                peers: vec![instance.clone()],
                ..ChargeLog::default()
            },
            instance,
            rules,
            rules_version: 0,
            asked: (Micros::ZERO, Micros::ZERO),
            epoch: "".into(),
            session: SessionId::NONE,
            batch: 0,
            open_session_number: 0,
            seen: (Seq::NONE, now),
            highest_finish: 0,
            outstanding: None,
            pending: VecDeque::new(),
            snapshot_left: 0,
            tickets: BTreeMap::new(),
            by_arrival: HashMap::new(),
            permits: BTreeMap::new(),
            forced: true,
            step_at: now,
            not_before: now,
            busy_at: now,
            forget_at: now,
            asleep: false,
            leaving: false,
            last: None,
        }
    }

    /// Opening messages are numbered from here: above those of a dispatcher that this one takes the place of.
    #[must_use]
    pub fn opening_after(mut self, number: u64) -> Self {
        self.open_session_number = number;
        self
    }

    // === What happens on the instance ===

    /// A ticket enters the queue, for the first time or again (A8).
    pub fn join(&mut self, id: TicketId, entry: Entry) {
        let claim = entry.claim.bounded();
        // What was granted while the backend was away has a number that says nothing to it.
        let foreign = is_own(entry.arrival) && !self.stands_in();
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
            },
        );
    }

    pub(super) fn enter(&mut self, id: TicketId, waiting: Waiting) {
        self.tickets.insert(id, waiting);
        self.pending.push_back(Pending::Join(id));
    }

    /// A ticket's client is gone, or its time is up (A7).
    pub fn leave(&mut self, id: TicketId) {
        let Some(ticket) = self.tickets.remove(&id) else {
            return;
        };
        let Entry { claim, arrival, .. } = ticket.entry;
        self.by_arrival.remove(&arrival);
        if without(Part::A7Leave) {
            return;
        }
        // Not sent yet: skipped when the message is made. Sent and not answered: seen to when the answer comes.
        if ticket.entered != Seq::NONE {
            self.pending
                .push_back(Pending::Op(Op::Leave { claim, arrival }));
        }
    }

    /// P9 (dispatch within the session): whether a grant's call may be dispatched now. If so it counts as dispatched from now on.
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

    /// The same where P9 was looked at already.
    pub fn dispatched(&mut self, now: Micros, granted: Seq) {
        let Some(permit) = self.permits.get_mut(&granted) else {
            return;
        };
        permit.dispatched = true;
        if permit.held.grant.counted {
            self.memory.charges.insert(granted, permit.charge(now));
            self.unreported.insert(granted);
            self.step_at = self.step_at.min(now + self.report_within);
        }
    }

    /// The session whose grants may be dispatched, and until when (P9).
    pub fn alive(&self) -> Alive {
        self.alive
    }

    /// Whether the next message may end the session or open another one. Nothing is dispatched from before it is made until it is answered.
    pub fn session_ends(&self) -> bool {
        self.session == SessionId::NONE || self.leaving
    }

    /// The shortest of the last round trips, once there are as many as are remembered.
    pub fn round_trip(&self) -> Option<Micros> {
        let enough = self.round_trips.len() == ROUND_TRIPS;
        self.round_trips.iter().min().copied().filter(|_| enough)
    }

    /// Whether the backend is farther away than the protocol can do with.
    pub fn too_far(&self) -> bool {
        let most = self.rules.max_round_trip();
        self.round_trip().is_some_and(|time| time > most)
    }

    /// A permit comes back. `sent`: something may have reached the upstream; `used`: its real tokens, where known (P14).
    pub fn give_back(&mut self, now: Micros, granted: Seq, sent: bool, used: Option<Tokens>) {
        let Some(permit) = self.permits.remove(&granted) else {
            return;
        };
        if !sent {
            self.refund(now, granted);
            return;
        }
        // Of each kind on its own: the reservation shrinks to what was used, and what is above it counts from now on.
        let reserved = permit.tokens();
        let used = used.map_or(reserved, Tokens::bounded);
        let (tokens, excess) = if permit.held.grant.counted {
            (used.min(reserved), used.saturating_sub(reserved))
        } else {
            (reserved, Tokens::ZERO)
        };
        if let Some(charge) = self.memory.charges.get_mut(&granted) {
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
        self.memory.charges.remove(&granted);
        self.unreported.remove(&granted);
        self.memory.refunds.insert(granted, now);
        self.pending.push_back(Pending::Op(Op::Unused { granted }));
    }

    /// The answer has begun as it should: weighs against failures, and ends a probe (A9).
    pub fn succeeded(&mut self, granted: Seq) {
        let Some(permit) = self.permits.get_mut(&granted) else {
            return;
        };
        permit.ok = true;
        if permit.probing {
            let report = permit.report(true, 0, NONE);
            self.memory.cooldowns.remove(permit.deployment());
            self.pending.push_back(Pending::Op(report));
        }
    }

    /// The call failed. `cool`: the deployment cools for this long; `None`: the failure is counted.
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
                .memory
                .cooldowns
                .entry(permit.deployment().clone())
                .or_insert((Micros::ZERO, status));
            if now + cool > known.0 {
                *known = (now + cool, status);
            }
        }
        self.pending.push_back(Pending::Op(report));
    }

    /// Something happened elsewhere (P15). Who has no session is woken only when the group recovers, and opens a session: others may still expect it.
    pub fn wake(&mut self) {
        self.asleep &= self.leaving;
        self.forced = true;
    }

    /// Wakes may have been lost: steps, unless there is nothing to look for.
    pub fn look(&mut self) {
        self.forced |= !self.asleep;
    }

    /// Ends the session for good, as soon as what is to be told has been told.
    pub fn close_session(&mut self) {
        self.forced = true;
        self.leaving = true;
    }

    // === What the instance knows ===

    /// A session is open (or was closed for want of work) and the group grants.
    pub fn is_ready(&self) -> bool {
        self.asleep
            || self.session != SessionId::NONE
                && self
                    .last
                    .as_ref()
                    .is_some_and(|(answer, _)| !answer.recovering)
    }

    /// The session is closed.
    pub fn is_asleep(&self) -> bool {
        self.asleep
    }

    /// Since when the backend owes an answer.
    pub fn unanswered_since(&self) -> Option<Micros> {
        self.outstanding.as_ref().map(|o| o.first_sent)
    }

    /// Tickets waiting here.
    pub fn waiting(&self) -> usize {
        self.tickets.len()
    }

    /// Permits out here.
    pub fn in_flight(&self) -> usize {
        self.permits.len()
    }

    /// The last answer, and when it came.
    pub fn last_answer(&self) -> Option<&(Answer, Micros)> {
        self.last.as_ref()
    }

    /// Grants remembered here: those that were used, and those that were given back.
    pub fn grants_in_mind(&self) -> usize {
        self.memory.charges.len() + self.memory.refunds.len()
    }

    pub(super) fn remember_for(&self) -> Micros {
        if without(Part::P11ChargeLog) {
            return Micros::ZERO;
        }
        // Half a second more than anything counts: clocks of different machines run differently fast.
        self.rules.memory.max(self.asked.0) + Micros::SECOND / 2
    }

    /// How often this instance steps at least: other instances may have a shorter lease.
    pub(super) fn heartbeat(&self) -> Micros {
        let own = self.rules.heartbeat();
        match self.asked.1 {
            Micros::ZERO => own,
            // That of the shortest lease there can be.
            asked => own.min(asked.max(Micros(5_000))),
        }
    }
}
