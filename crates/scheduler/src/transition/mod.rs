//! The transition: the one operation on a group's state, pure and deterministic.
//!
//! `step(state, environment, message) -> (state', reply, wakes)`. Time, randomness and the master's replication id come in as arguments; nothing is
//! read or written outside. The memory backend runs it as it is; `lua/` is the same transition for Redis, one file for each
//! module, and a property test holds the two together. The rules P1-P21 are explained in docs/protocol.md.
//!
//! **Invariant:** every message is safe to execute late, twice, or never.

mod calls;
mod configurations;
mod ending;
mod fair;
mod grants;
#[doc(hidden)]
pub mod inspect;
mod ops;
mod pace;
mod queue;
mod recovery;
mod sessions;
mod windows;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

pub use windows::{Key, Kind};

use crate::{
    bounds,
    cost::{Cost, Tokens},
    message::{Answer, EVERYONE, Grant, MAX_DROPS, Message, Op, Reply, Used, Verdict},
    mutation::{Part, without},
    rules::Rules,
    units::{Micros, Seq, SessionId},
};
use calls::Calls;
use configurations::Configurations;
use ending::Leftover;
use pace::Pace;
use queue::{Queue, QueueEntry};
use recovery::{ConservativeCharges, Recovery};
use sessions::{Admission, Known, Session};
use windows::Windows;

/// A server clock that is further behind than this (1 s) was set back: its time is the new base (P6).
pub(crate) const CLOCK_SET_BACK: Micros = Micros::SECOND;

/// What the Lua script needs of the modules' constants.
pub(crate) mod shared {
    pub(crate) use super::{
        CLOCK_SET_BACK,
        fair::ALL,
        grants::{HOPELESS, MODULUS, MULTIPLIER},
        ops::FAIL_WINDOW,
        recovery::{EPOCHS, LEAP, MOST_SPANS, STEP},
    };
}

/// What a step is told besides the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// The server's clock; may jump.
    pub now: Micros,
    /// Any number, independent of those of other steps.
    pub random: u32,
    /// Identifies the server's history; another one than last time means another master (P17). Empty: unknown.
    pub replication: Arc<str>,
    /// A state that is not there was never there: made with the process, so there is nothing to recover (P4).
    pub certain: bool,
}

/// Something that waits for its owner to come.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Item {
    Grant {
        grant: Grant,
        /** On the lease clock. */
        since: Micros,
    },
    Refusal {
        arrival: Seq,
        code: u16,
    },
}

/// A deployment that failed lately.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Health {
    /// Cools until then; 0: it does not. When the time is up it stays here until a probe succeeds.
    until: Micros,
    /// The status that led to it.
    status: u16,
    /// Failures counted since `since`, and calls that went well.
    fails: u64,
    successes: u64,
    since: Micros,
    /// The newest grant that probes, or 0.
    probe: Seq,
    /// When it was made.
    probed: Micros,
    /// It does not cool, as no other deployment is healthy: probes go out at a pace.
    paced: bool,
}

/// A group's shared state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    epoch: Arc<str>,
    /// Other epochs that messages may still carry: this state's former ones, and those of states that its last recovery replaced. Oldest first.
    epochs: VecDeque<Arc<str>>,
    replication: Arc<str>,
    dirty: bool,
    /// The highest time of the server's clock so far, or since it was last set back (P6).
    raw: Micros,
    /// The group clock: never goes back (P6).
    clock: Micros,
    /// The lease clock: stands still while nobody steps (P7).
    lease: Micros,
    /// The last number drawn (P5).
    last: Seq,
    configurations: Configurations,
    recovery: Option<Recovery>,
    conservative: ConservativeCharges,
    sessions: BTreeMap<SessionId, Session>,
    instances: BTreeMap<Arc<str>, Known>,
    departed: BTreeMap<Arc<str>, Micros>,
    peers_version: u64,
    /// Lower bound of the lease clock at which a session may have to be ended.
    reap_at: Micros,
    /// Lower bound of the lease clock at which a grant may have to be taken back.
    take_back_at: Micros,
    queue: Queue,
    /// Queue entries of each session.
    waiting: BTreeMap<SessionId, u64>,
    /// Queue entries of sessions that have ended; they are dropped at the head, and swept.
    orphans: u64,
    /// Queue entries looked at, and those behind the first of their line.
    sweep: (u64, u64),
    calls: Calls,
    leftovers: VecDeque<Leftover>,
    inbox: BTreeMap<SessionId, Vec<Item>>,
    health: BTreeMap<Arc<str>, Health>,
    windows: Windows,
    pace: Pace,
    /// The head's arrival, its session, and when it may go, as its owner was last told (P15).
    told: (Seq, SessionId, i64),
}

/// What a step brought forth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// For the sender.
    pub reply: Reply,
    /// Instances to be woken, in order of their names; [`EVERYONE`] comes first.
    pub wakes: Vec<Arc<str>>,
}

/// What one step gathers on its way.
#[derive(Debug, Default)]
struct Step {
    session: SessionId,
    base: Seq,
    grants: Vec<Grant>,
    refusals: Vec<(Seq, u16)>,
    ahead: Vec<u64>,
    wakes: BTreeSet<Arc<str>>,
    more: bool,
    recovered: bool,
    /// By how much the group clock advanced in this step.
    passed: Micros,
    /// Orphaned entries dropped.
    dropped: usize,
    /// Grants and calls that sessions left behind, settled.
    settled: usize,
    random: u64,
}

/// Executes one message. `state` is `None` where there is none (yet, or any more).
pub fn step(state: &mut Option<State>, environment: &Environment, message: &Message) -> Outcome {
    let mut step = Step {
        // A seed of the generator: from 1 to its modulus - 1.
        random: u64::from(environment.random) % ((1 << 31) - 2) + 1,
        ..Step::default()
    };
    let state = match state {
        Some(state) => {
            step.passed = state.advance(environment.now);
            let other_master =
                !environment.replication.is_empty() && state.replication != environment.replication;
            let dirty = state.dirty && !without(Part::P17Dirty);
            let other_master = other_master && !without(Part::P17Master);
            if dirty || other_master {
                state.recover(environment, &mut step);
            }
            state
        }
        None => state.insert(State::new(environment, message, &mut step)),
    };
    let reply = state.execute(environment, message, &mut step);
    state.assert_invariants();
    Outcome {
        reply,
        wakes: step.wakes.into_iter().collect(),
    }
}

impl State {
    fn new(environment: &Environment, message: &Message, step: &mut Step) -> Self {
        let mut state = State {
            raw: environment.now,
            clock: environment.now,
            lease: environment.now,
            ..State::default()
        };
        state.take_back_at = Micros::MAX;
        state.reap_at = Micros::MAX;
        state.last = recovery::first_number(environment.now, bounds::seen(message.seen));
        // The state that the sender knows is lost: that is why there is none.
        state.note_epoch(&message.epoch);
        state.recover(environment, step);
        if environment.certain && !without(Part::P4Certain) {
            state.recovery = None;
            state.queue.fair.recovering = false;
            step.recovered = false;
        }
        state
    }

    /// The state of one instance that nothing else uses, with sequence numbers from `last` on: nothing was there that could be lost.
    pub(crate) fn of_one_instance(environment: &Environment, last: Seq) -> Self {
        let mut state = State {
            raw: environment.now,
            clock: environment.now,
            lease: environment.now,
            last,
            reap_at: Micros::MAX,
            take_back_at: Micros::MAX,
            ..State::default()
        };
        state.epoch = format!("{}-{}", state.clock.0, environment.random).into();
        state
    }

    pub(crate) fn epoch(&self) -> &Arc<str> {
        &self.epoch
    }

    /// P6, P7: both clocks follow the highest server time, so jitter does not add up; the lease clock counts at most a heartbeat per step.
    /// Returns by how much the group clock advanced.
    fn advance(&mut self, raw: Micros) -> Micros {
        let passed = raw.saturating_sub(self.raw);
        if passed > Micros::ZERO || raw + CLOCK_SET_BACK < self.raw || without(Part::P6HighestTime)
        {
            self.raw = raw;
        }
        self.clock += passed;
        if without(Part::P6NeverBack) {
            self.clock = raw;
        }
        let most = self.rules().map_or(Micros::ZERO, |rules| rules.heartbeat());
        self.lease += if without(Part::P7OneHeartbeat) {
            passed
        } else {
            passed.min(most)
        };
        passed
    }

    /// P5: from one counter, never below the group clock.
    fn draw(&mut self) -> Seq {
        self.last = (self.last + 1).max(Seq::at(self.clock));
        self.last
    }

    fn refuse(&self, verdict: Verdict, step: &Step) -> Reply {
        Reply {
            verdict,
            epoch: self.epoch.clone(),
            recovered: step.recovered,
            answer: Vec::new(),
        }
    }

    fn execute(&mut self, environment: &Environment, message: &Message, step: &mut Step) -> Reply {
        if !without(Part::P5SenderKnows) {
            self.last = self.last.max(bounds::seen(message.seen));
        }
        let highest_finish = &mut self.queue.fair.highest_finish;
        let mut known = message.highest_finish;
        bounds::number(&mut known);
        *highest_finish = (*highest_finish).max(known);
        let session = match self.admit(environment, message, step) {
            Admission::Refused(verdict) => return self.refuse(verdict, step),
            Admission::Replay(answer) => {
                return Reply {
                    verdict: Verdict::Done,
                    epoch: self.epoch.clone(),
                    recovered: step.recovered,
                    answer: vec![*answer],
                };
            }
            Admission::Open(session) => session,
        };
        if self.settle_order(environment, step) {
            return self.refuse(Verdict::SessionInvalid, step);
        }
        let Some(rules) = self.rules().cloned() else {
            return self.refuse(Verdict::SessionInvalid, step);
        };
        step.session = session;
        self.hear(&rules, message);
        if self.queue.len() == 0 {
            self.queue.fair.busy_since = self.last;
        }
        step.ahead = self.ahead(&rules, message);
        self.apply(&rules, message, step);
        self.reap(&rules, step);
        self.take_back(&rules, step);
        self.settle_leftovers(&rules, step);
        let recovering = self.recovery.is_some();
        let until = self.expired_until();
        step.more |= self.windows.recount(&rules, until, recovering);
        self.settle_recovery(&rules, step);
        self.collect(step);
        if self.recovery.is_none() {
            step.more |= self.windows.expire(&rules, self.clock, MAX_DROPS) == MAX_DROPS;
            // Who has had nothing to ask for all this time begins anew.
            let until = self.clock.saturating_sub(rules.memory);
            step.more |= self.queue.fair.forget(until) == MAX_DROPS;
            self.grant(&rules, step);
            self.sweep(&rules, step);
        }
        let answer = self.answer(&rules, message, step);
        if let Some(session) = self.sessions.get_mut(&session) {
            session.answer = Some(Box::new(answer.clone()));
        }
        if let Some(Op::CloseSession { clean }) = message.ops.last() {
            self.end_session(&rules, session, !clean);
            self.settle_leftovers(&rules, step);
            if *clean {
                self.instances.remove(&message.instance);
            }
        }
        Reply {
            verdict: Verdict::Done,
            epoch: self.epoch.clone(),
            recovered: step.recovered,
            answer: vec![answer],
        }
    }

    fn answer(&mut self, rules: &Rules, message: &Message, step: &mut Step) -> Answer {
        let now = self.clock;
        let head = self.queue.first();
        let mine = head.is_some_and(|head| head.session == step.session);
        let at = match (&self.recovery, head) {
            (Some(recovery), _) => Some(now + recovery.next().saturating_sub(self.lease)),
            (None, Some(head)) => self.next_free(rules, head),
            (None, None) => None,
        };
        let reasons = match (&self.recovery, head) {
            (None, Some(head)) => self.reasons(rules, head),
            _ => 0,
        };
        let at_or_none = at.map_or(-1, |at| at.0.cast_signed());
        if let (None, Some(head)) = (&self.recovery, head) {
            let key = (head.arrival, head.session, at_or_none);
            // An owner that knows a time that is too early steps too early, and learns the right one then: it is not woken for a later one.
            let or_never = |at: i64| if at < 0 { i64::MAX } else { at };
            let news = (self.told.0, self.told.1) != (key.0, key.1)
                || or_never(key.2) < or_never(self.told.2);
            if mine || news {
                self.told = key;
            }
            let owner = self.sessions.get(&head.session);
            if let Some(owner) = owner.filter(|_| news && !mine && !without(Part::P15HeadOwner)) {
                step.wakes.insert(owner.instance.clone());
            }
        }
        let reported_before = self
            .sessions
            .get(&step.session)
            .map_or(0, |s| s.peers_reported);
        let (mut peers, mut departed) = (Vec::new(), Vec::new());
        if reported_before != self.peers_version {
            peers = self.sessions.values().map(|s| s.instance.clone()).collect();
            if let Some(recovery) = &self.recovery {
                peers.extend(recovery.expected.iter().cloned());
            }
            peers.sort_unstable();
            peers.dedup();
            departed = self
                .departed
                .iter()
                .map(|(name, at)| (name.clone(), now.saturating_sub(*at)))
                .collect();
        }
        let peers_version = self.peers_version;
        let (mut configuration, mut used) = (Seq::NONE, Vec::new());
        if let Some(session) = self.sessions.get_mut(&step.session) {
            session.peers_reported = peers_version;
            configuration = session.configuration;
            used = session.deployments.clone();
        }
        let used = used.iter().map(|id| self.used(rules, id)).collect();
        debug_assert!(message.session == SessionId::NONE || message.session == step.session);
        Answer {
            session: step.session,
            base: step.base,
            seen: self.last,
            highest_finish: self.queue.fair.highest_finish,
            grants: std::mem::take(&mut step.grants),
            refusals: std::mem::take(&mut step.refusals),
            next_free: at.map_or(-1, |at| at.saturating_sub(now).0.cast_signed()),
            mine,
            recovering: self.recovery.is_some(),
            more: step.more,
            depth: self.depth(),
            used,
            rules_version: self.configurations.version(configuration),
            peers,
            departed,
            ahead: std::mem::take(&mut step.ahead),
            reasons,
            memory: rules.memory,
            heartbeat: self.configurations.heartbeat(),
            configurations: self.configurations.len() as u64,
        }
    }

    /// The time up to which entries have left their windows. While the group recovers none does, so that what is told of them can be held
    /// against the newest view (P13).
    fn expired_until(&self) -> Micros {
        if self.recovery.is_some() && !without(Part::P3NoExpiry) {
            Micros::ZERO
        } else {
            self.clock
        }
    }

    /// Tickets that wait, without those of ended sessions.
    fn depth(&self) -> u64 {
        self.queue.len() - self.orphans
    }

    fn used(&self, rules: &Rules, id: &str) -> Used {
        let Some(deployment) = rules.deployments.iter().find(|d| &*d.id == id) else {
            return Used::default();
        };
        let cost = match deployment.windows.len() {
            0 => Cost::default(),
            n => self.windows.total(deployment, n - 1),
        };
        let cooling = self
            .health
            .get(&deployment.id)
            .map_or(Micros::ZERO, |h| h.until.saturating_sub(self.clock));
        let held_until = self.pace.due(rules, deployment, Tokens::ZERO);
        Used {
            cost,
            open: self.calls.open(&deployment.id),
            cooling,
            pace: held_until.saturating_sub(self.clock),
        }
    }

    fn wake_everyone(step: &mut Step) {
        if without(Part::P3Woken) {
            return;
        }
        step.wakes.insert(EVERYONE.into());
    }
}
