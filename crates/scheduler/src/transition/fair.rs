//! Fair shares: within a priority tenants are served in turns, by start-time fair queueing.
//!
//! A tenant's tickets of one priority stand in a *line*, and only the first of it has an entry in the queue. Its *start* is where its tenant's turn
//! begins: where the last one ended, but not before the turn that is being served. A turn is as long as its ticket costs. So who comes new is served
//! within one round, who was away has saved nothing, and who leaves has taken nothing.
//! With aging the clock is what is being served, and a turn is worth as much waiting as a level of priority.

use std::collections::{BTreeMap, BTreeSet};

use super::queue::{QueueEntry, one_less};
use crate::{
    claim::TURN,
    cost::Tokens,
    message::MAX_DROPS,
    mutation::{Part, without},
    rules::{MAX_HANDICAP, MAX_NUMBER, Rules},
    units::{Seq, SessionId},
};

/// A priority and a tenant's number: what a tenant asks for at one priority takes nothing from what it asks for at another.
type Key = (i32, u64);

/// In place of a tenant: all of a priority. Above all tenants' numbers.
pub(crate) const ALL: u64 = 1 << 52;

/// A ticket behind the first of its line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Behind {
    line: Key,
    arrival: Seq,
    session: SessionId,
    tokens: Tokens,
    cost: u64,
    tried: u64,
}

/// A line, or all lines of a priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Line {
    /// Where the last turn that was served ends. Of a priority: the latest start that was served since it has had tickets.
    finish: u64,
    /// Its tickets, orphans included.
    waiting: u64,
    /// What they cost together.
    total: u64,
    /// Number of its last entry.
    entered: Seq,
    /// When its last ticket left the queue.
    since: u64,
    /// The one that has an entry in the queue.
    first: Option<QueueEntry>,
}

/// The lines, and those that lately were.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Fair {
    lines: BTreeMap<Key, Line>,
    behind: BTreeSet<Behind>,
    behind_by_priority: BTreeMap<i32, u64>,
    /// Lines with tickets, by what they cost together.
    lengths: BTreeSet<(i32, u64, u64)>,
    /// Lines without tickets, by when they lost the last one.
    idle: BTreeSet<(u64, Key)>,
    /// Where the last of all turns that were served ends (P5).
    pub highest_finish: u64,
    /// Turns up to here are alike: from before a loss.
    pub floor: u64,
    /// The last number that had been drawn when last nobody waited: what was before does not matter any more.
    pub busy_since: Seq,
    pub recovering: bool,
}

/// How many there are of what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Sizes {
    pub behind: u64,
    pub lengths: u64,
    pub known: u64,
    pub idle: u64,
}

fn key(entry: &QueueEntry) -> Key {
    (entry.priority, entry.tenant)
}

/// How long a turn is: in doubles, as Lua computes it.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "not negative, and at most what fits"
)]
fn length(rules: &Rules, cost: u64) -> u64 {
    match rules.aging {
        0 => cost,
        aging => {
            let time = (cost as f64 * aging as f64 / TURN as f64).floor();
            time.min(MAX_HANDICAP as f64) as u64
        }
    }
}

impl Behind {
    fn new(entry: &QueueEntry) -> Self {
        let QueueEntry {
            arrival,
            session,
            tokens,
            cost,
            tried,
            ..
        } = *entry;
        Self {
            line: key(entry),
            arrival,
            session,
            tokens,
            cost,
            tried,
        }
    }

    /// With its entry in the queue still to be found.
    fn entry(self) -> QueueEntry {
        let Self {
            line: (priority, tenant),
            arrival,
            session,
            tokens,
            cost,
            tried,
        } = self;
        QueueEntry {
            score: 0,
            start: 0,
            arrival,
            session,
            tokens,
            tenant,
            cost,
            tried,
            priority,
        }
    }
}

impl Fair {
    pub(super) fn sizes(&self) -> Sizes {
        Sizes {
            behind: self.behind.len() as u64,
            lengths: self.lengths.len() as u64,
            known: self.lines.len() as u64,
            idle: self.idle.len() as u64,
        }
    }

    /// In order of the lines.
    pub(super) fn behind(&self) -> impl Iterator<Item = QueueEntry> {
        self.behind.iter().map(|behind| behind.entry())
    }

    pub(super) fn len(&self) -> u64 {
        self.behind.len() as u64
    }

    /// How many tickets of these priorities have no entry in the queue.
    pub(super) fn behind_up_to(&self, priority: i64) -> u64 {
        let counts = self.behind_by_priority.iter();
        counts
            .take_while(|(of, _)| i64::from(**of) <= priority)
            .map(|(_, count)| count)
            .sum()
    }

    /// How many tickets a tenant has.
    pub(super) fn waiting(&self, priority: i32, tenant: u64) -> u64 {
        let line = self.lines.get(&(priority, tenant));
        line.map_or(0, |line| line.waiting)
    }

    /// What starts are told as: above 0.
    pub(super) fn told(&self, rules: &Rules, start: u64) -> u64 {
        let floor = if rules.aging == 0 { self.floor } else { 0 };
        start.max(floor).max(1)
    }

    /// A line's first ticket, where its turn begins at `start` unless it says when it was (a retry).
    fn first(
        &self,
        rules: &Rules,
        line: &Line,
        ticket: Behind,
        start: u64,
        told: u64,
    ) -> QueueEntry {
        let entry = ticket.entry();
        let finish = if without(Part::P19LastEnded) {
            0
        } else {
            line.finish
        };
        let mut start = match rules.aging {
            0 => start.max(finish),
            _ => ticket.arrival.0.max(finish),
        };
        if told > 0 && !without(Part::P19Retry) {
            let least = if rules.aging == 0 {
                0
            } else {
                ticket.arrival.0
            };
            start = start.min(told.max(least));
        }
        if without(Part::P19Shares) || rules.aging == 0 && (start <= self.floor || self.recovering)
        {
            start = 0;
        }
        QueueEntry {
            score: rules.score(entry.priority, start),
            start,
            ..entry
        }
    }

    fn stand_behind(&mut self, ticket: Behind) -> bool {
        let new = self.behind.insert(ticket);
        if new {
            *self.behind_by_priority.entry(ticket.line.0).or_default() += 1;
        }
        new
    }

    fn step_forward(&mut self, ticket: &Behind) -> bool {
        let found = self.behind.remove(ticket);
        if found {
            one_less(&mut self.behind_by_priority, &ticket.line.0);
        }
        found
    }

    fn next(&self, line: Key) -> Option<Behind> {
        let from = Behind {
            line,
            arrival: Seq::NONE,
            session: SessionId::NONE,
            tokens: Tokens::ZERO,
            cost: 0,
            tried: 0,
        };
        let next = self.behind.range(from..).next();
        next.filter(|ticket| ticket.line == line).copied()
    }

    /// The last ticket of a line.
    pub(super) fn newest(&self, priority: i32, tenant: u64) -> Option<QueueEntry> {
        let line = (priority, tenant);
        let to = Behind {
            line,
            arrival: Seq::MAX,
            session: SessionId::MAX,
            tokens: Tokens::MAX,
            cost: u64::MAX,
            tried: u64::MAX,
        };
        let last = self.behind.range(..=to).next_back();
        let last = last.filter(|ticket| ticket.line == line);
        last.map(|ticket| ticket.entry())
            .or_else(|| self.lines.get(&line)?.first)
    }

    /// Whose line a ticket that comes should not have made longer: the longest of the worst priority, its own included.
    pub(super) fn longest(&self, entry: &QueueEntry) -> Key {
        let own = self.lines.get(&key(entry)).map_or(0, |line| line.total) + entry.cost;
        match self.lengths.last() {
            Some((priority, total, tenant)) if (entry.priority, own) < (*priority, *total) => {
                (*priority, *tenant)
            }
            _ => key(entry),
        }
    }

    /// Enters its line. Returns what has to leave the queue, and what has to come into it; `None` if it was there.
    pub(super) fn enter(
        &mut self,
        rules: &Rules,
        entry: &QueueEntry,
        told: u64,
        entered: Seq,
    ) -> Option<(Option<QueueEntry>, Option<QueueEntry>)> {
        let ticket = Behind::new(entry);
        let served = self.lines.get(&(entry.priority, ALL));
        let served = served.filter(|all| all.waiting > 0);
        // Where nobody waits all that was is over.
        let mut served = served.map_or(self.highest_finish, |all| all.finish);
        if without(Part::P19BeingServed) {
            served = 0;
        }
        let mut line = self.lines.get(&ticket.line).copied().unwrap_or_default();
        let (mut leaves, mut comes) = (None, None);
        match line.first {
            None => {
                if line.entered <= self.busy_since {
                    line.finish = 0;
                }
                comes = Some(self.first(rules, &line, ticket, served, told));
            }
            Some(first) if ticket < Behind::new(&first) => {
                self.stand_behind(Behind::new(&first));
                leaves = Some(first);
                comes = Some(self.first(rules, &line, ticket, first.start, told));
            }
            Some(first) => {
                if Behind::new(&first) == ticket || !self.stand_behind(ticket) {
                    return None;
                }
            }
        }
        self.change_length(
            ticket.line,
            line.total,
            line.total + entry.cost,
            line.waiting + 1,
        );
        line.first = comes.or(line.first);
        line.total += entry.cost;
        line.entered = entered;
        self.lines.insert(ticket.line, line);
        let served = if self.recovering { 0 } else { served };
        if self.come((entry.priority, ALL)) == 1
            && let Some(all) = self.lines.get_mut(&(entry.priority, ALL))
        {
            all.finish = served;
        }
        self.come(ticket.line);
        Some((leaves, comes))
    }

    /// A ticket leaves its line; `served`: it was granted. Returns what has to leave the queue, and what has to come into it; `None` if it was not there.
    pub(super) fn leave(
        &mut self,
        rules: &Rules,
        entry: &QueueEntry,
        served: bool,
        now: u64,
    ) -> Option<(Option<QueueEntry>, Option<QueueEntry>)> {
        let ticket = Behind::new(entry);
        let mut line = self.lines.get(&ticket.line).copied()?;
        let (mut leaves, mut comes) = (None, None);
        match line.first {
            Some(first) if Behind::new(&first) == ticket => {
                let mut start = first.start;
                if served {
                    let began = self.told(rules, start);
                    line.finish = line
                        .finish
                        .max((began + length(rules, entry.cost)).min(MAX_NUMBER));
                    self.highest_finish = self.highest_finish.max(line.finish);
                    if let Some(all) = self.lines.get_mut(&(entry.priority, ALL)) {
                        all.finish = all.finish.max(began);
                        start = all.finish;
                    }
                }
                leaves = Some(first);
                if let Some(next) = self.next(ticket.line) {
                    self.step_forward(&next);
                    comes = Some(self.first(rules, &line, next, start, 0));
                }
                line.first = comes;
            }
            _ => {
                if !self.step_forward(&ticket) {
                    return None;
                }
            }
        }
        let total = line.total - entry.cost;
        self.change_length(ticket.line, line.total, total, line.waiting - 1);
        line.total = total;
        self.lines.insert(ticket.line, line);
        self.go(ticket.line, now);
        self.go((entry.priority, ALL), now);
        Some((leaves, comes))
    }

    fn change_length(&mut self, (priority, tenant): Key, from: u64, to: u64, left: u64) {
        self.lengths.remove(&(priority, from, tenant));
        if left > 0 {
            self.lengths.insert((priority, to, tenant));
        }
    }

    /// One more; returns how many there are.
    fn come(&mut self, key: Key) -> u64 {
        let line = self.lines.entry(key).or_default();
        if line.waiting == 0 {
            self.idle.remove(&(line.since, key));
        }
        line.waiting += 1;
        line.waiting
    }

    fn go(&mut self, key: Key, now: u64) {
        if let Some(line) = self.lines.get_mut(&key) {
            line.waiting -= 1;
            if line.waiting == 0 {
                line.since = now;
                self.idle.insert((now, key));
            }
        }
    }

    /// Forgets lines that have had no ticket since then, at most [`MAX_DROPS`]. Returns how many.
    pub(super) fn forget(&mut self, until: u64) -> usize {
        let old = self.idle.iter().take_while(|(since, _)| *since <= until);
        let old: Vec<_> = old.take(MAX_DROPS).copied().collect();
        for entry in &old {
            self.idle.remove(entry);
            self.lines.remove(&entry.1);
        }
        old.len()
    }
}
