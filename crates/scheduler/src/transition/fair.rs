//! Fair shares (P19): start-time fair queueing among the tenants of one priority.
//!
//! A tenant's tickets of one priority form a *tenant queue*. Only the first of them has an entry in the queue, with a *start tag*: the finish tag of the
//! tenant's last service, but not before the tag that is being served. A service is as long as its ticket costs. So a new tenant is served within one round,
//! an idle tenant gains no credit, and a ticket that leaves has used no service. With aging, tags are times: a service of cost 1 moves the start tag as far as
//! one level of priority.
//!
//! `lua/fair.lua` has the same functions in the same order. It packs tickets and names of tenant queues into members of sorted sets, so `name_of` to `clear`
//! exist only there; `next_behind` exists only here, as Lua reads the next member where it needs it.

use std::collections::{BTreeMap, BTreeSet};

use super::queue::{QueueEntry, one_less};
use crate::{
    claim::UNIT_COST,
    cost::Tokens,
    message::MAX_DROPS,
    mutation::{Part, without},
    rules::{MAX_HANDICAP, MAX_NUMBER, Rules},
    units::{Micros, Seq, SessionId},
};

/// A tenant queue's priority and tenant: service at one priority does not count at another.
type QueueKey = (i32, u64);

/// In place of a tenant: all tenant queues of a priority. Above all tenants' numbers.
pub(crate) const ALL: u64 = 1 << 52;

/// A ticket behind the first of its tenant queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Behind {
    queue: QueueKey,
    arrival: Seq,
    session: SessionId,
    tokens: Tokens,
    cost: u64,
    tried: u64,
    key: u64,
}

/// A tenant queue, or all tenant queues of a priority together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct TenantQueue {
    /// The finish tag of the last service. Of a priority: the highest start tag that was served in this busy period.
    finish: u64,
    /// Its tickets, orphaned ones included.
    waiting: u64,
    /// The cost of all its tickets.
    total: u64,
    /// The sequence number of its last entry.
    entered: Seq,
    /// When its last ticket left.
    idle_since: Micros,
    /// The ticket that has an entry in the queue.
    first: Option<QueueEntry>,
}

/// The tenant queues, and those that lately had tickets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Fair {
    queues: BTreeMap<QueueKey, TenantQueue>,
    behind: BTreeSet<Behind>,
    behind_by_priority: BTreeMap<i32, u64>,
    /// Tenant queues with tickets: priority, cost of all tickets, tenant.
    by_cost: BTreeSet<(i32, u64, u64)>,
    /// Tenant queues without tickets, by the time when the last one left.
    idle: BTreeSet<(Micros, QueueKey)>,
    /// The highest finish tag of all services so far.
    pub highest_finish: u64,
    /// Start tags up to here are equal: they may be from before a loss.
    pub tag_floor: u64,
    /// The last sequence number from before this busy period: services of entries up to it are over.
    pub busy_since: Seq,
    pub recovering: bool,
}

/// How many tickets and tenant queues there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Sizes {
    /// Tickets behind the first of their tenant queue.
    pub behind: u64,
    /// Tenant queues with tickets.
    pub active: u64,
    /// Tenant queues that are known, and their priorities.
    pub known: u64,
    /// Those of them that have no ticket.
    pub idle: u64,
}

fn key(entry: &QueueEntry) -> QueueKey {
    (entry.priority, entry.tenant)
}

/// How far a service moves the start tag: in doubles, as Lua computes it.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "not negative, and at most what fits"
)]
fn service(rules: &Rules, cost: u64) -> u64 {
    match rules.aging {
        Micros::ZERO => cost,
        aging => {
            let time = (cost as f64 * aging.0 as f64 / UNIT_COST as f64).floor();
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
            key: of_key,
            ..
        } = *entry;
        Self {
            queue: key(entry),
            arrival,
            session,
            tokens,
            cost,
            tried,
            key: of_key,
        }
    }

    /// Its queue entry, without score and start tag.
    fn entry(self) -> QueueEntry {
        let Self {
            queue: (priority, tenant),
            arrival,
            session,
            tokens,
            cost,
            tried,
            key,
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
            key,
            priority,
        }
    }
}

impl Fair {
    pub(super) fn sizes(&self) -> Sizes {
        Sizes {
            behind: self.behind.len() as u64,
            active: self.by_cost.len() as u64,
            known: self.queues.len() as u64,
            idle: self.idle.len() as u64,
        }
    }

    /// The tickets behind the first of their tenant queue, in order of the tenant queues.
    pub(super) fn behind(&self) -> impl Iterator<Item = QueueEntry> {
        self.behind.iter().map(|behind| behind.entry())
    }

    pub(super) fn len(&self) -> u64 {
        self.behind.len() as u64
    }

    /// How many tickets of better priorities have no entry in the queue.
    pub(super) fn behind_better_than(&self, priority: i32) -> u64 {
        let better = self.behind_by_priority.range(..priority);
        better.map(|(_, count)| count).sum()
    }

    /// How many tickets a tenant queue has.
    pub(super) fn waiting(&self, priority: i32, tenant: u64) -> u64 {
        let queue = self.queues.get(&(priority, tenant));
        queue.map_or(0, |queue| queue.waiting)
    }

    /// Whether a ticket waits.
    pub(super) fn contains(&self, entry: &QueueEntry) -> bool {
        let ticket = Behind::new(entry);
        let queue = self.queues.get(&ticket.queue);
        let first = queue.and_then(|queue| queue.first);
        first.is_some_and(|first| Behind::new(&first) == ticket) || self.behind.contains(&ticket)
    }

    /// A start tag as instances learn it: above 0, and not below the tag floor.
    pub(super) fn reported_start(&self, rules: &Rules, start: u64) -> u64 {
        let floor = if rules.aging == Micros::ZERO {
            self.tag_floor
        } else {
            0
        };
        start.max(floor).max(1)
    }

    /// The queue entry of a tenant queue's first ticket. `former_start`: the start tag that a retry brings back; else 0, and its service begins at `start`.
    fn make_first(
        &self,
        rules: &Rules,
        queue: &TenantQueue,
        ticket: Behind,
        start: u64,
        former_start: u64,
    ) -> QueueEntry {
        let entry = ticket.entry();
        let finish = if without(Part::P19LastEnded) {
            0
        } else {
            queue.finish
        };
        let mut start = match rules.aging {
            Micros::ZERO => start.max(finish),
            _ => ticket.arrival.0.max(finish),
        };
        if former_start > 0 && !without(Part::P19Retry) {
            let least = if rules.aging == Micros::ZERO {
                0
            } else {
                ticket.arrival.0
            };
            start = start.min(former_start.max(least));
        }
        if without(Part::P19Shares)
            || rules.aging == Micros::ZERO && (start <= self.tag_floor || self.recovering)
        {
            start = 0;
        }
        QueueEntry {
            score: rules.score(entry.priority, start),
            start,
            ..entry
        }
    }

    fn add_behind(&mut self, ticket: Behind) -> bool {
        let new = self.behind.insert(ticket);
        if new {
            *self.behind_by_priority.entry(ticket.queue.0).or_default() += 1;
        }
        new
    }

    fn remove_behind(&mut self, ticket: &Behind) -> bool {
        let found = self.behind.remove(ticket);
        if found {
            one_less(&mut self.behind_by_priority, &ticket.queue.0);
        }
        found
    }

    fn next_behind(&self, queue: QueueKey) -> Option<Behind> {
        let from = Behind {
            queue,
            arrival: Seq::NONE,
            session: SessionId::NONE,
            tokens: Tokens::ZERO,
            cost: 0,
            tried: 0,
            key: 0,
        };
        let next = self.behind.range(from..).next();
        next.filter(|ticket| ticket.queue == queue).copied()
    }

    /// The cost of a tenant queue's tickets changes; `waiting`: how many they are then.
    fn change_cost(&mut self, (priority, tenant): QueueKey, from: u64, to: u64, waiting: u64) {
        self.by_cost.remove(&(priority, from, tenant));
        if waiting > 0 {
            self.by_cost.insert((priority, to, tenant));
        }
    }

    /// A ticket has entered. Returns how many there are.
    fn count_entered(&mut self, key: QueueKey) -> u64 {
        let queue = self.queues.entry(key).or_default();
        if queue.waiting == 0 {
            self.idle.remove(&(queue.idle_since, key));
        }
        queue.waiting += 1;
        queue.waiting
    }

    /// A ticket has left.
    fn count_left(&mut self, key: QueueKey, now: Micros) {
        if let Some(queue) = self.queues.get_mut(&key) {
            queue.waiting -= 1;
            if queue.waiting == 0 {
                queue.idle_since = now;
                self.idle.insert((now, key));
            }
        }
    }

    /// The newest ticket of a tenant queue.
    pub(super) fn newest(&self, priority: i32, tenant: u64) -> Option<QueueEntry> {
        let queue = (priority, tenant);
        let to = Behind {
            queue,
            arrival: Seq::MAX,
            session: SessionId::MAX,
            tokens: Tokens::MAX,
            cost: u64::MAX,
            tried: u64::MAX,
            key: u64::MAX,
        };
        let last = self.behind.range(..=to).next_back();
        let last = last.filter(|ticket| ticket.queue == queue);
        last.map(|ticket| ticket.entry())
            .or_else(|| self.queues.get(&queue)?.first)
    }

    /// The tenant queue that a ticket which joins a full queue takes room from: the longest of the worst priority, its own with it included.
    pub(super) fn longest(&self, entry: &QueueEntry) -> QueueKey {
        let own = self.queues.get(&key(entry));
        let own = own.map_or(0, |queue| queue.total) + entry.cost;
        match self.by_cost.last() {
            Some((priority, total, tenant)) if (entry.priority, own) < (*priority, *total) => {
                (*priority, *tenant)
            }
            _ => key(entry),
        }
    }

    /// A ticket enters its tenant queue. Returns the entries to be removed from the queue and inserted into it; `None` if it was there.
    pub(super) fn enter(
        &mut self,
        rules: &Rules,
        entry: &QueueEntry,
        former_start: u64,
        entered: Seq,
    ) -> Option<(Option<QueueEntry>, Option<QueueEntry>)> {
        let ticket = Behind::new(entry);
        let served = self.queues.get(&(entry.priority, ALL));
        let served = served.filter(|all| all.waiting > 0);
        // If no ticket of the priority waits, all former services are over.
        let mut served = served.map_or(self.highest_finish, |all| all.finish);
        if without(Part::P19BeingServed) {
            served = 0;
        }
        let mut queue = self.queues.get(&ticket.queue).copied().unwrap_or_default();
        let (mut removed, mut inserted) = (None, None);
        match queue.first {
            None => {
                if queue.entered <= self.busy_since {
                    queue.finish = 0;
                }
                inserted = Some(self.make_first(rules, &queue, ticket, served, former_start));
            }
            Some(first) if ticket < Behind::new(&first) => {
                self.add_behind(Behind::new(&first));
                removed = Some(first);
                inserted = Some(self.make_first(rules, &queue, ticket, first.start, former_start));
            }
            Some(first) => {
                if Behind::new(&first) == ticket || !self.add_behind(ticket) {
                    return None;
                }
            }
        }
        let total = queue.total + entry.cost;
        self.change_cost(ticket.queue, queue.total, total, queue.waiting + 1);
        queue.first = inserted.or(queue.first);
        queue.total = total;
        queue.entered = entered;
        self.queues.insert(ticket.queue, queue);
        let served = if self.recovering { 0 } else { served };
        if self.count_entered((entry.priority, ALL)) == 1
            && let Some(all) = self.queues.get_mut(&(entry.priority, ALL))
        {
            all.finish = served;
        }
        self.count_entered(ticket.queue);
        Some((removed, inserted))
    }

    /// A ticket leaves its tenant queue; `granted`: its service begins. Returns the entries to be removed from the queue and inserted into it; `None` if it was not
    /// there.
    pub(super) fn leave(
        &mut self,
        rules: &Rules,
        entry: &QueueEntry,
        granted: bool,
        now: Micros,
    ) -> Option<(Option<QueueEntry>, Option<QueueEntry>)> {
        let ticket = Behind::new(entry);
        let mut queue = self.queues.get(&ticket.queue).copied()?;
        let (mut removed, mut inserted) = (None, None);
        match queue.first {
            Some(first) if Behind::new(&first) == ticket => {
                let mut start = first.start;
                if granted {
                    let tag = self.reported_start(rules, start);
                    queue.finish = queue
                        .finish
                        .max((tag + service(rules, entry.cost)).min(MAX_NUMBER));
                    self.highest_finish = self.highest_finish.max(queue.finish);
                    if let Some(all) = self.queues.get_mut(&(entry.priority, ALL)) {
                        all.finish = all.finish.max(tag);
                        start = all.finish;
                    }
                }
                removed = Some(first);
                if let Some(next) = self.next_behind(ticket.queue) {
                    self.remove_behind(&next);
                    inserted = Some(self.make_first(rules, &queue, next, start, 0));
                }
                queue.first = inserted;
            }
            _ => {
                if !self.remove_behind(&ticket) {
                    return None;
                }
            }
        }
        let total = queue.total - entry.cost;
        self.change_cost(ticket.queue, queue.total, total, queue.waiting - 1);
        queue.total = total;
        self.queues.insert(ticket.queue, queue);
        self.count_left(ticket.queue, now);
        self.count_left((entry.priority, ALL), now);
        Some((removed, inserted))
    }

    /// Forgets tenant queues that have had no ticket since then, at most [`MAX_DROPS`]. Returns how many.
    pub(super) fn forget(&mut self, until: Micros) -> usize {
        let old = self.idle.iter().take_while(|(since, _)| *since <= until);
        let old: Vec<_> = old.take(MAX_DROPS).copied().collect();
        for entry in &old {
            self.idle.remove(entry);
            self.queues.remove(&entry.1);
        }
        old.len()
    }
}
