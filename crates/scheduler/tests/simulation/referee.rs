//! The referee: sees what really happens at the upstream, and judges it by the contract.

use std::collections::{BTreeMap, VecDeque};

use vorrang_scheduler::{GroupConfig, LimitKind, Share, Tokens, message::Answer, rules::Rules};

use crate::{
    health::Cooldown,
    scenario::{MS, WINDOW},
};

/// All millionths.
const WHOLE: u64 = 1_000_000;

/// A call is dispatched soon after its grant, and the report it could not know of took a few round trips.
pub(crate) const ON_ITS_WAY: u64 = 100 * MS;

#[derive(Debug, Clone)]
pub(crate) struct Dispatch {
    pub(crate) at: u64,
    pub(crate) instance: usize,
    pub(crate) priority: i32,
    pub(crate) arrival: u64,
    pub(crate) start: u64,
    pub(crate) share: Share,
    pub(crate) entered: u64,
    pub(crate) granted: u64,
    pub(crate) deployment: usize,
    pub(crate) tokens: Tokens,
    pub(crate) probe: bool,
    /// Whether anything reaches the upstream.
    pub(crate) sent: bool,
}

#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) deployment: usize,
    /// When it was dispatched.
    pub(crate) at: u64,
    instance: usize,
    /// Its instance was unresponsive for so long that its permit may have been given to another.
    pub(crate) excused: bool,
    pub(crate) probe: bool,
}

#[derive(Debug)]
struct Spent {
    granted: u64,
    at: u64,
    tokens: Tokens,
    /// From when on how many count, once that is known.
    corrected: Option<(u64, Tokens)>,
}

/// The kinds of limits of tokens.
const TOKENS: [LimitKind; 3] = [
    LimitKind::Tokens,
    LimitKind::InputTokens,
    LimitKind::OutputTokens,
];

/// What tokens count under a limit of a kind.
fn amount(kind: LimitKind, tokens: Tokens) -> u64 {
    match kind {
        LimitKind::InputTokens => tokens.input,
        LimitKind::OutputTokens => tokens.output,
        _ => tokens.input + tokens.output,
    }
}

/// Score, start and arrival.
pub(crate) type Order = (i64, u64, u64);

/// What a ticket is ordered by.
pub(crate) fn order(rules: &Rules, priority: i32, start: u64, arrival: u64) -> Order {
    let from = if rules.fair { start } else { arrival };
    (rules.score(priority, from), start, arrival)
}

/// What may hold all tickets that wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Held {
    /// A part of each limit is kept from some.
    pub(crate) kept: bool,
    /// Some are paced.
    pub(crate) paced: bool,
}

pub(crate) struct Referee {
    pub(crate) config: GroupConfig,
    pub(crate) rules: Rules,
    pub(crate) dispatches: Vec<Dispatch>,
    pub(crate) open: BTreeMap<u64, Open>,
    /// Of each deployment, in order of time.
    spent: Vec<Vec<Spent>>,
    excess: Vec<VecDeque<(u64, Tokens)>>,
    pub(crate) cooldowns: Vec<Cooldown>,
    /// Granted in an answer, when it was last given, and not seen again. Such a charge stays, its call may have gone out (A6).
    pub(crate) undelivered: BTreeMap<u64, u64>,
    /// How much later than promised entries may leave their windows.
    late: u64,
    /// Whether cooldowns are judged to the millisecond, and every charge: only where no message is lost.
    pub(crate) strict: bool,
    /// Nothing goes wrong but what the network does.
    pub(crate) faultless: bool,
    /// Order, limits and slots are not judged: the server forgets grants and nobody can know at once.
    pub(crate) forgets: bool,
    /// Windows may end early: the server's clock jumps ahead (P6).
    pub(crate) hurried: bool,
    /// The most that may be charged for the missing (P13), where that is known.
    pub(crate) chargeable: Option<u64>,
    /// The last number that was drawn, of all.
    highest: u64,
    pub(crate) flushes: u32,
    idle_since: Option<(Held, u64)>,
    pub(crate) hopeless_since: Option<u64>,
    crowded_since: Option<u64>,
    /// Somebody was unresponsive for so long that its session may have ended.
    pub(crate) silence: bool,
    pub(crate) longest_idle: u64,
    pub(crate) violations: Vec<String>,
    /// The order of tickets becomes another one on the way.
    pub(crate) reordered: bool,
}

impl Referee {
    pub(crate) fn new(
        config: GroupConfig,
        late: u64,
        strict: bool,
        faultless: bool,
        forgets: bool,
    ) -> Self {
        let n = config.deployments.len();
        Self {
            rules: Rules::from(&config),
            config,
            dispatches: Vec::new(),
            open: BTreeMap::new(),
            spent: (0..n).map(|_| Vec::new()).collect(),
            excess: (0..n).map(|_| VecDeque::new()).collect(),
            cooldowns: (0..n).map(|_| Cooldown::default()).collect(),
            undelivered: BTreeMap::new(),
            late,
            strict,
            faultless,
            forgets,
            hurried: false,
            chargeable: None,
            highest: 0,
            flushes: 0,
            idle_since: None,
            hopeless_since: None,
            crowded_since: None,
            silence: false,
            longest_idle: 0,
            violations: Vec::new(),
            reordered: false,
        }
    }

    /// The server put a grant into an answer, which may never arrive.
    pub(crate) fn told(&mut self, now: u64, granted: u64) {
        if !self.strict && self.dispatches.iter().all(|d| d.granted != granted) {
            self.undelivered.insert(granted, now);
        }
    }

    /// A1: whoever enters later gets a higher number, whatever was lost meanwhile (P5).
    pub(crate) fn numbered(&mut self, now: u64, answer: &Answer) {
        if answer.base > 0 && answer.base <= self.highest {
            self.violations.push(format!(
                "A1: number {} is drawn at {now} after {}",
                answer.base, self.highest
            ));
        }
        self.highest = self.highest.max(answer.seen);
    }

    /// A permit came back unused.
    pub(crate) fn returned(&mut self, granted: u64) {
        self.undelivered.remove(&granted);
    }

    /// Calls that are open on a deployment.
    pub(crate) fn open_on(&self, deployment: usize) -> u64 {
        let open = self.open.values();
        open.filter(|o| o.deployment == deployment && !o.excused)
            .count() as u64
    }

    pub(crate) fn dispatched(&self) -> usize {
        self.dispatches.len()
    }

    /// Limit and length.
    pub(crate) fn limits(
        &self,
        deployment: usize,
        kind: LimitKind,
    ) -> impl Iterator<Item = (u64, u64)> {
        let micros =
            |length: std::time::Duration| u64::try_from(length.as_micros()).unwrap_or(u64::MAX);
        let limits = self.config.deployments[deployment].limits.iter();
        limits
            .filter(move |l| l.kind == kind)
            .map(move |l| (l.limit, micros(l.length)))
    }

    /// Tokens that count at `now` of what was dispatched less than `length` ago (A3: what was reserved, or corrected downwards).
    fn tokens(&self, kind: LimitKind, deployment: usize, now: u64, length: u64) -> u64 {
        self.spent[deployment]
            .iter()
            .rev()
            .take_while(|s| s.at + length > now)
            .map(|s| match s.corrected {
                Some((at, tokens)) if at <= now => tokens.min(s.tokens),
                _ => s.tokens,
            })
            .map(|tokens| amount(kind, tokens))
            .sum()
    }

    pub(crate) fn dispatch(&mut self, d: Dispatch) {
        self.undelivered.remove(&d.granted);
        if self
            .dispatches
            .iter()
            .any(|other| other.granted == d.granted)
        {
            self.violations
                .push(format!("A2: grant {} was dispatched twice", d.granted));
        }
        if d.sent {
            self.open.insert(
                d.granted,
                Open {
                    deployment: d.deployment,
                    at: d.at,
                    instance: d.instance,
                    excused: false,
                    probe: d.probe,
                },
            );
            self.spent[d.deployment].push(Spent {
                granted: d.granted,
                at: d.at,
                tokens: d.tokens,
                corrected: None,
            });
        }
        let limits: Vec<_> = self.limits(d.deployment, LimitKind::Concurrency).collect();
        for (limit, _) in limits {
            let open = self
                .open
                .values()
                .filter(|o| o.deployment == d.deployment && !o.excused)
                .count() as u64;
            if open > limit {
                self.violations
                    .push(format!("A2: {open} calls open at {}, limit {limit}", d.at));
            }
        }
        let of_kind = |kind: LimitKind| {
            let limits = self.limits(d.deployment, kind);
            limits.map(move |(limit, length)| (kind, limit, length))
        };
        let limits: Vec<_> = TOKENS.into_iter().flat_map(of_kind).collect();
        for (kind, limit, length) in limits {
            let tokens = self.tokens(kind, d.deployment, d.at, length);
            if d.sent && tokens > limit {
                self.violations.push(format!(
                    "A3: {tokens} of {kind:?} within {length} us before {}, limit {limit}",
                    d.at
                ));
            }
            // What was used above its reservation counts from when it is known; its report and a grant may pass each other.
            let known = |at: u64| at + ON_ITS_WAY < d.at && d.at < at + length;
            let excess = self.excess[d.deployment].iter();
            let excess = excess.filter(|e| known(e.0));
            let excess: u64 = excess.map(|e| amount(kind, e.1)).sum();
            if d.sent && self.strict && excess > 0 && tokens + excess > limit {
                self.violations.push(format!(
                    "A3: {tokens} of {kind:?} and {excess} above reservations within {length} us before {}, limit {limit}",
                    d.at
                ));
            }
        }
        self.judge_health(&d);
        self.dispatches.push(d);
    }

    pub(crate) fn corrected(&mut self, deployment: usize, granted: u64, now: u64, used: Tokens) {
        let mut spent = self.spent[deployment].iter_mut().rev();
        if let Some(spent) = spent.find(|s| s.granted == granted) {
            spent.corrected = Some((now, used));
            let above = used.saturating_sub(spent.tokens);
            if above != Tokens::ZERO {
                self.excess[deployment].push_back((now, above));
            }
        }
    }

    /// A full queue turns the last ticket away, not the one that comes.
    pub(crate) fn turned_away(&mut self, ticket: Order, last: Option<Order>) {
        // Where answers are repeated the queue may be another one by then.
        if self.strict && last.is_some_and(|last| ticket < last) {
            self.violations
                .push(format!("{ticket:?} was turned away and {last:?} stays"));
        }
    }

    /// A5: what fits nowhere even when all is idle is refused at once. `tokens`: of a ticket that has waited for a while.
    pub(crate) fn impossible(&mut self, now: u64, tokens: Tokens) {
        if !self.strict {
            return;
        }
        let under = |deployment, kind| {
            let mut limits = self.limits(deployment, kind);
            limits.all(|(limit, _)| amount(kind, tokens) <= limit)
        };
        let all = |deployment| TOKENS.iter().all(|kind| under(deployment, *kind));
        if !(0..self.config.deployments.len()).any(all) {
            self.violations.push(format!(
                "A5: at {now} a ticket of {tokens:?} still waits and fits nowhere"
            ));
        }
    }

    /// A7: the queue holds nobody who has left, but for the time it takes to tell.
    pub(crate) fn crowd(&mut self, now: u64, queued: u64, waiting: u64) {
        if !self.strict || queued <= waiting {
            self.crowded_since = None;
            return;
        }
        let since = *self.crowded_since.get_or_insert(now);
        if now - since > ON_ITS_WAY {
            self.violations.push(format!(
                "A7: since {since} {queued} tickets are in the queue and {waiting} wait"
            ));
        }
    }

    /// P13: what is charged for the missing is no more than they were granted.
    pub(crate) fn charged(&mut self, now: u64, requests: u64) {
        if let Some(most) = self.chargeable.filter(|most| *most < requests) {
            self.violations.push(format!(
                "P13: {requests} requests are charged at {now} for {most}"
            ));
        }
    }

    /// How many calls an instance made since then.
    pub(crate) fn made(&self, instance: usize, since: u64) -> u64 {
        let recent = self.dispatches.iter().rev().take_while(|d| d.at >= since);
        recent.filter(|d| d.instance == instance).count() as u64
    }

    pub(crate) fn end(&mut self, granted: u64) {
        self.open.remove(&granted);
    }

    /// The head and its answer are in: it is no probe any more.
    pub(crate) fn head(&mut self, granted: u64) {
        if let Some(open) = self.open.get_mut(&granted) {
            open.probe = false;
        }
    }

    pub(crate) fn killed(&mut self, instance: usize) {
        self.open.retain(|_, o| o.instance != instance);
    }

    /// From here on this instance's open calls may be doubled.
    pub(crate) fn excuse(&mut self, instance: usize) {
        self.silence = true;
        for open in self.open.values_mut().filter(|o| o.instance == instance) {
            open.excused = true;
        }
    }

    /// Whether a ticket of this cost could go now, as far as the upstream's side tells.
    pub(crate) fn room(
        &self,
        deployment: usize,
        now: u64,
        tokens: Tokens,
        granted: &[(usize, Tokens)],
    ) -> bool {
        self.part_free(deployment, now, tokens, granted, false)
    }

    /// What a limit leaves to those from whom a part is kept.
    pub(crate) fn part(&self, limit: u64, kept: bool) -> u64 {
        if kept && limit > 0 {
            (limit * self.rules.left / WHOLE).max(1)
        } else {
            limit
        }
    }

    fn part_free(
        &self,
        deployment: usize,
        now: u64,
        tokens: Tokens,
        granted: &[(usize, Tokens)],
        kept: bool,
    ) -> bool {
        let margin = 5 * MS + self.late;
        let counted = |length: u64| length + (length / 20).min(100 * MS) + margin;
        let of_window = |at: u64, length: u64| at + counted(length) > now;
        let granted: Vec<Tokens> = granted
            .iter()
            .filter(|(d, _)| *d == deployment)
            .map(|(_, tokens)| *tokens)
            .collect();
        let open = self.open.values().filter(|o| o.deployment == deployment);
        let busy = (open.count() + granted.len()) as u64;
        self.limits(deployment, LimitKind::Concurrency)
            .all(|(limit, _)| busy < self.part(limit, kept))
            && self
                .limits(deployment, LimitKind::Requests)
                .all(|(limit, length)| {
                    let recent = self
                        .dispatches
                        .iter()
                        .rev()
                        .take_while(|d| of_window(d.at, length))
                        .filter(|d| d.deployment == deployment);
                    let undelivered = self
                        .undelivered
                        .values()
                        .filter(|at| of_window(**at, length));
                    ((recent.count() + undelivered.count() + granted.len()) as u64)
                        < self.part(limit, kept)
                })
            && TOKENS.into_iter().all(|kind| {
                let mut limits = self.limits(deployment, kind);
                limits.all(|(limit, length)| {
                    let excess = self.excess[deployment].iter();
                    let excess = excess.filter(|(at, _)| of_window(*at, length));
                    let more = excess.map(|(_, tokens)| tokens).chain(&granted);
                    let more: u64 = more.map(|tokens| amount(kind, *tokens)).sum();
                    let known = self.tokens(kind, deployment, now, counted(length));
                    known + more + amount(kind, tokens) <= self.part(limit, kept)
                })
            })
    }

    /// A4: called again and again; `waiting` is the largest cost of each kind that waits on an instance that can be reached, `granted` the
    /// costs that were granted and are about to be dispatched. What is paced may wait for a window, and another one's time: bursts of the better ones
    /// are made up for. Where nothing cools.
    pub(crate) fn watch(
        &mut self,
        now: u64,
        waiting: Option<Tokens>,
        held: Held,
        granted: &[(usize, Tokens)],
        allowed: u64,
    ) {
        let free = |tokens| {
            (0..self.config.deployments.len())
                .any(|d| self.part_free(d, now, tokens, granted, held.kept))
        };
        if !waiting.is_some_and(free) {
            self.idle_since = None;
            return;
        }
        let since = self.idle_since.filter(|(then, _)| *then == held);
        let (_, since) = *self.idle_since.insert(since.unwrap_or((held, now)));
        let idle = now - since;
        let allowed = allowed + if held.paced { 2 * WINDOW } else { 0 };
        self.longest_idle = self.longest_idle.max(idle);
        if idle > allowed {
            self.violations.push(format!(
                "A4: room and a ticket for it since {}, at {now}",
                now - idle
            ));
            self.idle_since = Some((held, now));
        }
    }
}
