//! The referee sees what happens at the upstream, and judges it by the contract.

use std::collections::{BTreeMap, VecDeque};

use vorrang_scheduler::{
    COUNTED, GroupConfig, LimitKind, Micros, Seq, Share, Tokens, message::Answer, rules::Rules,
};

use crate::{health::Cooldown, idle::Held, operators::Operators, scenario::MS};

/// A report reaches the group, and a grant that was made before it is dispatched, within this time: a few round trips.
pub(crate) const PROPAGATION: u64 = 100 * MS;

#[derive(Debug, Clone)]
pub(crate) struct Dispatch {
    pub(crate) at: u64,
    pub(crate) instance: usize,
    pub(crate) priority: i32,
    pub(crate) arrival: Seq,
    pub(crate) start: u64,
    pub(crate) share: Share,
    pub(crate) entered: Seq,
    pub(crate) granted: Seq,
    pub(crate) deployment: usize,
    pub(crate) tokens: Tokens,
    pub(crate) probe: bool,
    /// The call reaches the upstream.
    pub(crate) sent: bool,
}

#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) deployment: usize,
    /// The time of the dispatch.
    pub(crate) at: u64,
    instance: usize,
    /// Its instance was unresponsive for so long that its slot may have been granted to another.
    pub(crate) excused: bool,
    pub(crate) probe: bool,
}

#[derive(Debug)]
struct Spent {
    granted: Seq,
    at: u64,
    tokens: Tokens,
    /// The used tokens, and when they became known.
    corrected: Option<(u64, Tokens)>,
}

/// The kinds of limits that count a call's tokens: all of windows but the one that counts calls.
pub(crate) fn token_kinds() -> impl Iterator<Item = LimitKind> {
    let counted = COUNTED.into_iter();
    counted.filter(|kind| *kind != LimitKind::Requests)
}

/// How much these tokens count under a limit of this kind.
pub(crate) fn amount(kind: LimitKind, tokens: Tokens) -> u64 {
    match kind {
        LimitKind::Tokens => tokens.input + tokens.output,
        LimitKind::InputTokens => tokens.input,
        LimitKind::OutputTokens => tokens.output,
        LimitKind::Requests | LimitKind::Concurrency => panic!("{kind:?} counts no tokens"),
    }
}

/// Score, start tag and arrival.
pub(crate) type Order = (i64, u64, Seq);

/// The order of a ticket in the queue.
pub(crate) fn order(rules: &Rules, priority: i32, start: u64, arrival: Seq) -> Order {
    let from = if rules.fair { start } else { arrival.0 };
    (rules.score(priority, from), start, arrival)
}

pub(crate) struct Referee {
    pub(crate) config: GroupConfig,
    pub(crate) rules: Rules,
    pub(crate) dispatches: Vec<Dispatch>,
    pub(crate) open: BTreeMap<Seq, Open>,
    /// By deployment, in the order of the dispatches.
    spent: Vec<Vec<Spent>>,
    pub(crate) excess: Vec<VecDeque<(u64, Tokens)>>,
    pub(crate) cooldowns: Vec<Cooldown>,
    /// Grants that are not dispatched or returned yet, and when a reply last had them. Their charges stay, because their calls may have been dispatched (A6).
    pub(crate) undelivered: BTreeMap<Seq, u64>,
    /// How much later than promised entries may expire.
    pub(crate) late: u64,
    /// No message is lost, so that cooldowns and charges are judged exactly.
    pub(crate) strict: bool,
    /// The scenario has no faults. Its network may still lose messages.
    pub(crate) faultless: bool,
    /// The server forgets grants and no instance can know at once, so order, limits and slots are not judged.
    pub(crate) undetected_failover: bool,
    /// The server's clock jumps ahead, so windows may end early (P6).
    pub(crate) clock_ahead: bool,
    /// The most that may be charged conservatively (P13), if it is known.
    pub(crate) chargeable: Option<u64>,
    /// The highest sequence number so far.
    highest: Seq,
    pub(crate) flushes: u32,
    pub(crate) idle_since: Option<(Held, u64)>,
    pub(crate) hopeless_since: Option<u64>,
    /// Since when the queue has had more tickets than wait.
    surplus_since: Option<u64>,
    /// An instance was unresponsive for so long that its session may have ended.
    pub(crate) any_unresponsive: bool,
    pub(crate) longest_idle: u64,
    pub(crate) violations: Vec<String>,
    /// The queue order changes during the scenario.
    pub(crate) reordered: bool,
    pub(crate) operators: Operators,
}

impl Referee {
    pub(crate) fn new(
        config: GroupConfig,
        late: u64,
        strict: bool,
        faultless: bool,
        undetected_failover: bool,
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
            undetected_failover,
            clock_ahead: false,
            chargeable: None,
            highest: Seq::NONE,
            flushes: 0,
            idle_since: None,
            hopeless_since: None,
            surplus_since: None,
            any_unresponsive: false,
            longest_idle: 0,
            violations: Vec::new(),
            reordered: false,
            operators: Operators::default(),
        }
    }

    /// A grant is in a reply, which may be lost.
    pub(crate) fn replied(&mut self, now: u64, granted: Seq) {
        if !self.strict && self.dispatches.iter().all(|d| d.granted != granted) {
            self.undelivered.insert(granted, now);
        }
    }

    /// A1 (order): later entries get higher sequence numbers, across losses too (P5).
    pub(crate) fn judge_numbers(&mut self, now: u64, answer: &Answer) {
        if answer.base > Seq::NONE && answer.base <= self.highest {
            self.violations.push(format!(
                "A1: number {} is drawn at {now} after {}",
                answer.base, self.highest
            ));
        }
        self.highest = self.highest.max(answer.seen);
    }

    /// The highest sequence number that an answer has shown.
    pub(crate) fn highest(&self) -> Seq {
        self.highest
    }

    /// A permit returns unused.
    pub(crate) fn returned(&mut self, granted: Seq) {
        self.undelivered.remove(&granted);
    }

    /// The number of open calls on a deployment.
    pub(crate) fn open_on(&self, deployment: usize) -> u64 {
        let open = self.open.values();
        open.filter(|o| o.deployment == deployment && !o.excused)
            .count() as u64
    }

    pub(crate) fn dispatched(&self) -> usize {
        self.dispatches.len()
    }

    /// Limits and lengths of their windows.
    pub(crate) fn limits(
        &self,
        deployment: usize,
        kind: LimitKind,
    ) -> impl Iterator<Item = (u64, u64)> {
        let limits = self.config.deployments[deployment].limits.iter();
        limits
            .filter(move |l| l.kind == kind)
            .map(move |l| (l.limit, Micros::from(l.length).0))
    }

    /// Tokens of calls that were dispatched less than `length` ago: as reserved, or less after a correction (A3).
    pub(crate) fn tokens(&self, kind: LimitKind, deployment: usize, now: u64, length: u64) -> u64 {
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
        let limits: Vec<_> = token_kinds().flat_map(of_kind).collect();
        for (kind, limit, length) in limits {
            let tokens = self.tokens(kind, d.deployment, d.at, length);
            if d.sent && tokens > limit {
                self.violations.push(format!(
                    "A3: {tokens} of {kind:?} within {length} us before {}, limit {limit}",
                    d.at
                ));
            }
            // Tokens above a reservation count from the time when they are known. Their report may arrive after a grant.
            let known = |at: u64| at + PROPAGATION < d.at && d.at < at + length;
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
        self.judge_overrides(&d);
        self.judge_health(&d);
        self.dispatches.push(d);
    }

    pub(crate) fn corrected(&mut self, deployment: usize, granted: Seq, now: u64, used: Tokens) {
        let mut spent = self.spent[deployment].iter_mut().rev();
        if let Some(spent) = spent.find(|s| s.granted == granted) {
            spent.corrected = Some((now, used));
            let above = used.saturating_sub(spent.tokens);
            if above != Tokens::ZERO {
                self.excess[deployment].push_back((now, above));
            }
        }
    }

    /// A full queue displaces its last ticket, which need not be the one that joins.
    pub(crate) fn displaced(&mut self, ticket: Order, last: Option<Order>) {
        // A replay may come when the queue has changed.
        if self.strict && last.is_some_and(|last| ticket < last) {
            self.violations
                .push(format!("{ticket:?} was refused and {last:?} stays"));
        }
    }

    /// A5 (large tickets): a ticket above the limits of every deployment is refused at once. `tokens` are those of a ticket that has waited for a while.
    pub(crate) fn judge_large_ticket(&mut self, now: u64, tokens: Tokens) {
        if !self.strict {
            return;
        }
        let under = |deployment, kind| {
            let mut limits = self.limits(deployment, kind);
            limits.all(|(limit, _)| amount(kind, tokens) <= limit)
        };
        let all = |deployment| token_kinds().all(|kind| under(deployment, kind));
        if !(0..self.config.deployments.len()).any(all) {
            self.violations.push(format!(
                "A5: at {now} a ticket of {tokens:?} still waits and fits nowhere"
            ));
        }
    }

    /// A7 (leaving tickets): the queue has no tickets that have left, apart from the time of the report.
    pub(crate) fn judge_queue(&mut self, now: u64, queued: u64, waiting: u64) {
        if !self.strict || queued <= waiting {
            self.surplus_since = None;
            return;
        }
        let since = *self.surplus_since.get_or_insert(now);
        if now - since > PROPAGATION {
            self.violations.push(format!(
                "A7: since {since} {queued} tickets are in the queue and {waiting} wait"
            ));
        }
    }

    /// P13 (conservative charges): where the grants of unaccounted instances are known, no more is charged.
    pub(crate) fn judge_conservative_charge(&mut self, now: u64, requests: u64) {
        if let Some(most) = self.chargeable.filter(|most| *most < requests) {
            self.violations.push(format!(
                "P13: {requests} requests are charged at {now} for {most}"
            ));
        }
    }

    pub(crate) fn longest_window(&self) -> u64 {
        let limits = self.config.deployments.iter().flat_map(|d| &d.limits);
        let windows = limits.map(|limit| Micros::from(limit.length).0);
        windows.max().unwrap_or(0)
    }

    /// How many calls an instance has made since then.
    pub(crate) fn made(&self, instance: usize, since: u64) -> u64 {
        let recent = self.dispatches.iter().rev().take_while(|d| d.at >= since);
        recent.filter(|d| d.instance == instance).count() as u64
    }

    pub(crate) fn end(&mut self, granted: Seq) {
        self.open.remove(&granted);
    }

    /// The head of the response has arrived, so the call is no probe any more.
    pub(crate) fn head(&mut self, granted: Seq) {
        if let Some(open) = self.open.get_mut(&granted) {
            open.probe = false;
        }
    }

    pub(crate) fn killed(&mut self, instance: usize) {
        self.open.retain(|_, o| o.instance != instance);
    }

    /// The slots of this instance's open calls may be granted to others from now on.
    pub(crate) fn excuse(&mut self, instance: usize) {
        self.any_unresponsive = true;
        for open in self.open.values_mut().filter(|o| o.instance == instance) {
            open.excused = true;
        }
    }
}
