//! The transition: the one operation on a group's state, pure and deterministic.
//!
//! `step(state, environment, message) -> (state', reply, wakes)`. Time, randomness and the master's replication id are arguments, and the step reads and writes
//! nothing else. The memory backend executes it directly. `lua/` is the same transition for Redis, with one file for each module, and `tests/equality` compares the
//! two. The rules P1 to P23 are explained in docs/protocol.md.
//!
//! Each file of `lua/` has the functions of its module under the same names in the same order. A method of [`State`] has the module's name before the dot there:
//! `begin_recovery` is `recovery.begin`. `lua/execute.lua` and `lua/group.lua` are this module. `expired_until`, `used` (in `lua/grants.lua`), `settle_order` and
//! `wake_all` are no functions of their own there, because they are called once or are one line.
//!
//! **Invariant:** every message is safe to execute late, twice, or never.

mod calls;
mod choice;
mod configurations;
mod ending;
mod fair;
mod grants;
#[doc(hidden)]
pub mod inspect;
mod operators;
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
    message::{ALL_INSTANCES, Answer, Grant, MAX_DROPS, Message, Op, Reply, Used, Verdict},
    mutation::{Part, without},
    overrides::Overrides,
    rules::Rules,
    units::{Micros, Seq, SessionId},
};
use calls::Calls;
use choice::Latency;
use configurations::Configurations;
use ending::Leftover;
use pace::Pace;
use queue::{Queue, QueueEntry};
use recovery::{ConservativeCharges, Recovery};
use sessions::{Admission, InstanceRecord, Session};
use windows::{BLOCK, Windows};

/// A server clock that is further behind than this (1 s) was set back, and its time is the new base (P6).
pub(crate) const CLOCK_SET_BACK: Micros = Micros::SECOND;

/// Constants of the modules that the Lua script needs.
pub(crate) mod shared {
    pub(crate) use super::{
        CLOCK_SET_BACK,
        choice::{MODULUS, MULTIPLIER, SMOOTHING, UNMEASURED},
        fair::ALL,
        grants::HOPELESS,
        ops::FAIL_WINDOW,
        recovery::{EPOCHS, LEAP, MOST_SPANS, STEP},
        windows::BLOCK,
    };
}

/// The arguments of a step besides state and message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// The server's clock; may jump.
    pub now: Micros,
    /// A random number, independent of those of other steps.
    pub random: u32,
    /// The master's replication id: a different one than in the last step means another master (P17). Empty: unknown.
    pub replication: Arc<str>,
    /// The state is made with the process, so that a new state has nothing to recover (P4).
    pub certain: bool,
}

/// A grant or a refusal that waits for delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Item {
    Grant {
        grant: Grant,
        /** When it was made, on the lease clock. */
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
    /// The end of the cooldown; 0: there is none. It stays after that time until a probe succeeds.
    until: Micros,
    /// The status that caused it.
    status: u16,
    /// Failures and successes since `since`.
    fails: u64,
    successes: u64,
    since: Micros,
    /// The newest grant that probes, or 0.
    probe: Seq,
    /// When it was made.
    probed: Micros,
    /// It does not cool because no other deployment is healthy. It is probed once a second instead.
    paced: bool,
}

/// A group's shared state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    epoch: Arc<str>,
    /// Other epochs that messages may still have: former ones of this state, and those of states that its last recovery replaced. Oldest first.
    epochs: VecDeque<Arc<str>>,
    replication: Arc<str>,
    dirty: bool,
    /// The highest time of the server's clock so far, or since it was last set back (P6).
    raw: Micros,
    /// The group clock, which never goes back (P6).
    clock: Micros,
    /// The lease clock, which stands still while no instance steps (P7).
    lease: Micros,
    /// The last sequence number (P5).
    last: Seq,
    configurations: Configurations,
    overrides: Overrides,
    recovery: Option<Recovery>,
    conservative: ConservativeCharges,
    sessions: BTreeMap<SessionId, Session>,
    instances: BTreeMap<Arc<str>, InstanceRecord>,
    departed: BTreeMap<Arc<str>, Micros>,
    peers_version: u64,
    /// No session has to be ended before this time of the lease clock.
    reap_at: Micros,
    /// No grant has to be revoked before this time of the lease clock.
    revoke_at: Micros,
    queue: Queue,
    /// The number of queue entries of each session.
    waiting: BTreeMap<SessionId, u64>,
    /// The number of orphaned entries. They are dropped at the head, and swept.
    orphans: u64,
    /// How far the sweep is: in the queue, and in the tickets behind the first of their tenant queue.
    sweep: (u64, u64),
    calls: Calls,
    leftovers: VecDeque<Leftover>,
    inbox: BTreeMap<SessionId, Vec<Item>>,
    health: BTreeMap<Arc<str>, Health>,
    /// Where deployments are chosen by their latency. A deployment that was not measured lately has none.
    latencies: BTreeMap<Arc<str>, Latency>,
    windows: Windows,
    pace: Pace,
    /// What the head's owner last learned: arrival and session of the head, and `next_free` (P15).
    head_notice: (Seq, SessionId, i64),
}

/// The results of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The reply to the sender.
    pub reply: Reply,
    /// Instances to be woken, in order of their names; [`ALL_INSTANCES`] comes first.
    pub wakes: Vec<Arc<str>>,
}

/// The instances with a session, and the departed ones with how long ago that was.
type Peers = (Vec<Arc<str>>, Vec<(Arc<str>, Micros)>);

/// Collected during one step.
#[derive(Debug, Default)]
struct Step {
    session: SessionId,
    base: Seq,
    grants: Vec<Grant>,
    refusals: Vec<(Seq, u16)>,
    ahead: Vec<u64>,
    ranks: Vec<i64>,
    /// How many queue entries the sender passes over, and how many it wants to see.
    look: Option<(u64, u64)>,
    wakes: BTreeSet<Arc<str>>,
    more: bool,
    recovered: bool,
    /// By how much the group clock advanced in this step.
    elapsed: Micros,
    /// Orphaned entries that this step has dropped.
    dropped: usize,
    /// Grants and calls of ended sessions that this step has settled.
    settled: usize,
    /// It has drawn the number of a grant.
    drawn: bool,
    random: u64,
}

/// Executes one message. `state` is `None` if the group is new or has lost its state.
pub fn step(state: &mut Option<State>, environment: &Environment, message: &Message) -> Outcome {
    let mut step = Step {
        // A seed of the generator: from 1 to its modulus - 1.
        random: u64::from(environment.random) % ((1 << 31) - 2) + 1,
        ..Step::default()
    };
    let state = match state {
        Some(state) => {
            step.elapsed = state.advance(environment.now);
            let other_master =
                !environment.replication.is_empty() && state.replication != environment.replication;
            let dirty = state.dirty && !without(Part::P17Dirty);
            let other_master = other_master && !without(Part::P17Master);
            if dirty || other_master {
                state.begin_recovery(environment, &mut step);
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
        state.revoke_at = Micros::MAX;
        state.reap_at = Micros::MAX;
        state.last = recovery::first_number(environment.now, bounds::seen(message.seen));
        // The state of the sender's epoch is lost.
        state.note_epoch(&message.epoch);
        state.begin_recovery(environment, step);
        if environment.certain && !without(Part::P4Certain) {
            state.recovery = None;
            state.queue.fair.recovering = false;
            step.recovered = false;
        }
        state
    }

    /// The state of a local fallback (P21), with sequence numbers from `last` on. No other instance uses it, so there is nothing to recover.
    pub(crate) fn of_one_instance(environment: &Environment, last: Seq) -> Self {
        let mut state = State {
            raw: environment.now,
            clock: environment.now,
            lease: environment.now,
            last,
            reap_at: Micros::MAX,
            revoke_at: Micros::MAX,
            ..State::default()
        };
        state.epoch = format!("{}-{}", state.clock.0, environment.random).into();
        state
    }

    /// Whether tickets wait, and for each deployment of the rules in force its open calls, and what counts in each of its windows.
    pub(crate) fn in_use(&self) -> (bool, Vec<(u64, Vec<Cost>)>) {
        let deployments = self
            .rules()
            .into_iter()
            .flat_map(|rules| &rules.deployments);
        let used = deployments.map(|d| (self.calls.open(&d.id), self.windows.totals(d)));
        (self.depth() > 0, used.collect())
    }

    pub(crate) fn epoch(&self) -> &Arc<str> {
        &self.epoch
    }

    /// P6 (group clock), P7 (lease clock): both follow the highest server time, so jitter does not accumulate. The lease clock counts at most a heartbeat per step.
    /// Returns by how much the group clock advanced.
    fn advance(&mut self, raw: Micros) -> Micros {
        let elapsed = raw.saturating_sub(self.raw);
        if elapsed > Micros::ZERO || raw + CLOCK_SET_BACK < self.raw || without(Part::P6HighestTime)
        {
            self.raw = raw;
        }
        self.clock += elapsed;
        if without(Part::P6NeverBack) {
            self.clock = raw;
        }
        let most = self.rules().map_or(Micros::ZERO, |rules| rules.heartbeat());
        self.lease += if without(Part::P7OneHeartbeat) {
            elapsed
        } else {
            elapsed.min(most)
        };
        elapsed
    }

    /// P5 (sequence numbers): drawn from one counter, and never below the group clock.
    fn draw(&mut self) -> Seq {
        self.last = (self.last + 1).max(Seq::at(self.clock));
        self.last
    }

    /// The number of a grant. Grants of one step have numbers of one block (`windows.rs`), as far as it has room.
    fn draw_granted(&mut self, step: &mut Step) -> Seq {
        let number = self.draw();
        if !step.drawn {
            step.drawn = true;
            self.last = Seq(number.0.next_multiple_of(BLOCK));
        }
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
        self.receive_overrides(session, message, step);
        if self.settle_order(environment, step) {
            return self.refuse(Verdict::SessionInvalid, step);
        }
        let Some(rules) = self.rules().cloned() else {
            return self.refuse(Verdict::SessionInvalid, step);
        };
        step.session = session;
        self.receive_report(&rules, message);
        if self.queue.len() == 0 {
            self.queue.fair.busy_since = self.last;
        }
        step.ahead = self.count_ahead(&rules, message);
        self.apply(&rules, message, step);
        self.reap(&rules, step);
        self.revoke_undelivered(&rules, step);
        self.settle_leftovers(&rules, step);
        let recovering = self.recovery.is_some();
        let until = self.expired_until();
        step.more |= self.windows.recount(&rules, until, recovering);
        self.settle_recovery(&rules, step);
        self.deliver_inbox(step);
        if self.recovery.is_none() {
            step.more |= self.windows.expire(&rules, self.clock, MAX_DROPS) >= MAX_DROPS;
            let until = self.clock.saturating_sub(rules.memory);
            step.more |= self.queue.fair.forget(until) == MAX_DROPS;
            self.grant_heads(&rules, step);
            self.sweep(&rules, step);
        }
        let answer = self.answer(&rules, message, step);
        if let Some(session) = self.sessions.get_mut(&session) {
            session.answer = Some(Box::new(answer.clone()));
        }
        if let Some(Op::CloseSession { clean }) = message.ops.last() {
            self.close_session(&rules, &message.instance, *clean, step);
        }
        Reply {
            verdict: Verdict::Done,
            epoch: self.epoch.clone(),
            recovered: step.recovered,
            answer: vec![answer],
        }
    }

    /// P15 (wakes): the head's owner is woken when the head is another ticket, or when `next_free` is earlier than what the owner last learned. An owner whose time
    /// is too early steps too early, and learns the right time then.
    fn notify_head_owner(
        &mut self,
        head: QueueEntry,
        at: Option<Micros>,
        mine: bool,
        step: &mut Step,
    ) {
        let notice = (
            head.arrival,
            head.session,
            at.map_or(-1, |at| at.0.cast_signed()),
        );
        let or_never = |at: i64| if at < 0 { i64::MAX } else { at };
        let (arrival, session, known_at) = self.head_notice;
        let news =
            (arrival, session) != (notice.0, notice.1) || or_never(notice.2) < or_never(known_at);
        if mine || news {
            self.head_notice = notice;
        }
        let owner = self.sessions.get(&head.session);
        if let Some(owner) = owner.filter(|_| news && !mine && !without(Part::P15HeadOwner)) {
            step.wakes.insert(owner.instance.clone());
        }
    }

    /// The instances with a session and those that departed lately: reported when they have changed.
    fn peers_and_departed(&mut self, session: SessionId) -> Peers {
        let version = self.peers_version;
        let own = self.sessions.get_mut(&session);
        let known = own.map_or(0, |own| std::mem::replace(&mut own.peers_reported, version));
        if known == version {
            return (Vec::new(), Vec::new());
        }
        let mut peers: Vec<Arc<str>> = self.sessions.values().map(|s| s.instance.clone()).collect();
        if let Some(recovery) = &self.recovery {
            peers.extend(recovery.expected.iter().cloned());
        }
        peers.sort_unstable();
        peers.dedup();
        let ages = self.departed.iter();
        let ages = ages.map(|(name, at)| (name.clone(), self.clock.saturating_sub(*at)));
        (peers, ages.collect())
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
        if let (None, Some(head)) = (&self.recovery, head) {
            self.notify_head_owner(head, at, mine, step);
        }
        let (peers, departed) = self.peers_and_departed(step.session);
        let (mut configuration, mut used) = (Seq::NONE, Vec::new());
        if let Some(session) = self.sessions.get(&step.session) {
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
            ranks: std::mem::take(&mut step.ranks),
            overrides: self.unreported_overrides(step.session),
            views: step
                .look
                .map(|look| self.view(rules, look))
                .into_iter()
                .collect(),
        }
    }

    /// The time up to which entries have expired. While the group recovers none does, so that reports of them can be compared with the newest usage snapshot (P13).
    fn expired_until(&self) -> Micros {
        if self.recovery.is_some() && !without(Part::P3NoExpiry) {
            Micros::ZERO
        } else {
            self.clock
        }
    }

    /// The number of waiting tickets, without those of ended sessions.
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

    fn wake_all(step: &mut Step) {
        if without(Part::P3Woken) {
            return;
        }
        step.wakes.insert(ALL_INSTANCES.into());
    }
}
