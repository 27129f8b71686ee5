//! The queue: entries in order, and how many there are of each score and priority. `lua/queue.lua` has the same functions.

use std::collections::{BTreeMap, BTreeSet};

use super::{State, Step, fair::Fair};
use crate::{
    claim::Claim,
    cost::Tokens,
    message::{MAX_ORPHANS, MAX_SWEEP},
    rules::Rules,
    units::{Micros, Seq, SessionId},
};

/// A ticket's entry. Ordered by (score, start tag, arrival). The other fields tell entries of an ended session from those of the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct QueueEntry {
    /// The priority, or with aging a time ([`Rules::score`](crate::rules::Rules::score)).
    pub score: i64,
    /// With fair shares, the start tag; else 0.
    pub start: u64,
    pub arrival: Seq,
    pub session: SessionId,
    pub tokens: Tokens,
    pub tenant: u64,
    /// Of its tenant's share.
    pub cost: u64,
    /// See [`Claim::tried`](crate::claim::Claim::tried).
    pub tried: u64,
    pub key: u64,
    pub priority: i32,
}

/// Queue entries, orphaned ones included. With fair shares only the first ticket of each tenant queue has an entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Queue {
    entries: BTreeSet<QueueEntry>,
    by_score: BTreeMap<i64, u64>,
    by_priority: BTreeMap<i32, u64>,
    pub fair: Fair,
}

pub(super) fn one_less<K: Ord>(counts: &mut BTreeMap<K, u64>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

impl Queue {
    /// The number of tickets, those of ended sessions included.
    pub(super) fn len(&self) -> u64 {
        self.entries.len() as u64 + self.fair.len()
    }

    pub(super) fn first(&self) -> Option<QueueEntry> {
        self.entries.first().copied()
    }

    pub(super) fn last(&self) -> Option<QueueEntry> {
        self.entries.last().copied()
    }

    /// In order.
    pub(super) fn iter(&self) -> impl Iterator<Item = QueueEntry> {
        self.entries.iter().copied()
    }

    /// A ticket enters. `former_start`: with fair shares, the start tag that a retry brings back, or 0. False if it was there.
    pub(super) fn enter(
        &mut self,
        rules: &Rules,
        entry: QueueEntry,
        former_start: u64,
        entered: Seq,
    ) -> bool {
        if !rules.fair {
            return self.insert(entry);
        }
        let moved = self.fair.enter(rules, &entry, former_start, entered);
        moved.is_some_and(|(removed, inserted)| self.exchange(removed, inserted))
    }

    /// A ticket leaves; `granted`: because it is granted. `now`: on the group clock. False if it was not there.
    pub(super) fn leave(
        &mut self,
        rules: &Rules,
        entry: QueueEntry,
        granted: bool,
        now: Micros,
    ) -> bool {
        if !rules.fair {
            return self.remove(entry);
        }
        let moved = self.fair.leave(rules, &entry, granted, now);
        moved.is_some_and(|(removed, inserted)| self.exchange(removed, inserted))
    }

    fn exchange(&mut self, removed: Option<QueueEntry>, inserted: Option<QueueEntry>) -> bool {
        removed.map(|entry| self.remove(entry));
        inserted.map(|entry| self.insert(entry));
        true
    }

    fn insert(&mut self, entry: QueueEntry) -> bool {
        let new = self.entries.insert(entry);
        if new {
            *self.by_score.entry(entry.score).or_default() += 1;
            *self.by_priority.entry(entry.priority).or_default() += 1;
        }
        new
    }

    fn remove(&mut self, entry: QueueEntry) -> bool {
        let found = self.entries.remove(&entry);
        if found {
            one_less(&mut self.by_score, &entry.score);
            one_less(&mut self.by_priority, &entry.priority);
        }
        found
    }

    /// How many entries have this score or a better one.
    pub(super) fn at_least(&self, score: i64) -> u64 {
        self.by_score.range(..=score).map(|(_, count)| count).sum()
    }

    /// How many entries are before this one; `None`: it is not there.
    fn before(&self, entry: QueueEntry) -> Option<u64> {
        let better = entry.score.checked_sub(1);
        let better = better.map_or(0, |score| self.at_least(score));
        let lowest = QueueEntry {
            score: entry.score,
            start: 0,
            arrival: Seq::NONE,
            session: SessionId::NONE,
            tokens: Tokens::ZERO,
            tenant: 0,
            cost: 0,
            tried: 0,
            key: 0,
            priority: i32::MIN,
        };
        let equal = self.entries.range(lowest..entry).count() as u64;
        self.entries.contains(&entry).then_some(better + equal)
    }

    /// Some entries in order, and then tickets behind the first of their tenant queue.
    pub(super) fn part(&self, from: usize, most: usize) -> Vec<QueueEntry> {
        let all = self.entries.iter().copied().chain(self.fair.behind());
        all.skip(from).take(most).collect()
    }

    /// How many entries are in order.
    pub(super) fn ordered(&self) -> u64 {
        self.entries.len() as u64
    }

    /// Whether there is an entry of this priority or a better one.
    pub(super) fn any_as_good(&self, priority: i32) -> bool {
        self.by_priority.range(..=priority).next().is_some()
    }
}

/// Which ticket a full queue refuses when another one joins.
pub(super) enum Overflow {
    /// The ticket that joins: it is the worst itself.
    Refuse,
    /// This one: the last entry, or with fair shares the newest of the longest tenant queue of the worst priority.
    Displace(QueueEntry),
    /// None: more orphaned entries are behind than one step drops, so the ticket enters above the cap.
    Admit,
}

impl State {
    /// How many tickets are ahead of a ticket that comes now; with fair shares, how many are surely ahead.
    pub(super) fn ahead_of_new(&self, rules: &Rules, claim: &Claim) -> u64 {
        let Claim {
            priority, share, ..
        } = *claim;
        let Queue { fair, .. } = &self.queue;
        // Tickets that join now get higher numbers. With fair shares they may still be granted before tickets of other tenants of their priority.
        if rules.fair && rules.aging == Micros::ZERO {
            self.queue.at_least(i64::from(priority) - 1)
                + fair.behind_better_than(priority)
                + fair.waiting(priority, share.tenant)
        } else {
            self.queue.at_least(rules.score(priority, self.last.0))
        }
    }

    /// How many tickets are ahead of a waiting ticket; with fair shares, those of better priorities. `None`: it does not wait.
    pub(super) fn ahead_of(&self, rules: &Rules, entry: QueueEntry) -> Option<u64> {
        let ahead = if !rules.fair {
            self.queue.before(entry)?
        } else if !self.queue.fair.contains(&entry) {
            return None;
        } else if rules.aging == Micros::ZERO {
            self.queue.at_least(i64::from(entry.priority) - 1)
                + self.queue.fair.behind_better_than(entry.priority)
        } else {
            0
        };
        Some(ahead.saturating_sub(self.orphans))
    }

    /// The entry's session has ended or is unresponsive.
    pub(super) fn is_orphaned(&self, entry: QueueEntry) -> bool {
        self.sessions
            .get(&entry.session)
            .is_none_or(|s| s.unresponsive)
    }

    fn drop_orphan(&mut self, rules: &Rules, entry: QueueEntry) {
        self.queue.leave(rules, entry, false, self.clock);
        self.orphans -= 1;
    }

    /// Which ticket a full queue refuses when another one joins. Orphaned entries behind the worst one are dropped, at most [`MAX_ORPHANS`] in one step (P16).
    pub(super) fn overflow(
        &mut self,
        rules: &Rules,
        entry: QueueEntry,
        step: &mut Step,
    ) -> Overflow {
        loop {
            let worst = if rules.fair {
                let (priority, tenant) = self.queue.fair.longest(&entry);
                let newest = self.queue.fair.newest(priority, tenant);
                let own = (priority, tenant) == (entry.priority, entry.tenant);
                newest.map(|newest| (newest, own && newest.arrival < entry.arrival))
            } else {
                self.queue.last().map(|last| (last, last < entry))
            };
            match worst {
                Some((orphan, _)) if self.is_orphaned(orphan) => {
                    if step.dropped == MAX_ORPHANS {
                        step.more = true;
                        return Overflow::Admit;
                    }
                    step.dropped += 1;
                    self.drop_orphan(rules, orphan);
                }
                Some((worst, false)) => return Overflow::Displace(worst),
                Some((_, true)) | None => return Overflow::Refuse,
            }
        }
    }

    /// The first entry that is not orphaned. Orphaned entries before it are dropped, at most [`MAX_ORPHANS`] in one step (P16).
    pub(super) fn head(&mut self, rules: &Rules, step: &mut Step) -> Option<QueueEntry> {
        while let Some(entry) = self.queue.first() {
            if !self.is_orphaned(entry) {
                return Some(entry);
            }
            if step.dropped == MAX_ORPHANS {
                step.more = true;
                return None;
            }
            step.dropped += 1;
            self.drop_orphan(rules, entry);
        }
        None
    }

    /// Drops orphaned entries among some of the queue, and with fair shares among as many tickets behind the first of their tenant queue: behind better tickets they
    /// would never become the head.
    pub(super) fn sweep(&mut self, rules: &Rules, step: &mut Step) {
        if self.orphans == 0 {
            self.sweep = (0, 0);
            return;
        }
        let most = sweep_room(step);
        let entries = entries_from(self.queue.iter(), self.sweep.0, most);
        self.sweep.0 = self.sweep_these(rules, entries, self.sweep.0, most, step);
        let most = sweep_room(step);
        let entries = entries_from(self.queue.fair.behind(), self.sweep.1, most);
        self.sweep.1 = self.sweep_these(rules, entries, self.sweep.1, most, step);
    }

    /// Drops the orphaned entries among these. Returns where the next sweep begins.
    fn sweep_these(
        &mut self,
        rules: &Rules,
        entries: Vec<QueueEntry>,
        from: u64,
        most: usize,
        step: &mut Step,
    ) -> u64 {
        let count = entries.len();
        let orphans: Vec<QueueEntry> = entries
            .into_iter()
            .filter(|entry| self.is_orphaned(*entry))
            .collect();
        for entry in &orphans {
            self.drop_orphan(rules, *entry);
        }
        step.dropped += orphans.len();
        if count < most {
            0
        } else {
            from + (most - orphans.len()) as u64
        }
    }
}

/// How many entries the sweep reads: no more than may be dropped.
fn sweep_room(step: &Step) -> usize {
    MAX_SWEEP.min(MAX_ORPHANS - step.dropped)
}

fn entries_from(
    entries: impl Iterator<Item = QueueEntry>,
    from: u64,
    most: usize,
) -> Vec<QueueEntry> {
    let from = usize::try_from(from).unwrap_or(usize::MAX);
    entries.skip(from).take(most).collect()
}
