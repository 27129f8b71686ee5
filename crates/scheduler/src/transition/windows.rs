//! Sliding windows: one entry per grant, with the time when it expires, and running totals.
//!
//! Entries are in blocks of [`BLOCK`] numbers, and only blocks are ordered: by the first expiry in them. The grants of one step have numbers of one block, so that
//! Redis stores few blocks instead of many entries. Bounds on the work of a step are reached at the end of a block.
//!
//! `lua/windows.lua` has the same functions in the same order. There `count` is [`Windows::add`] and [`Windows::subtract`], `add` is `insert` for a new key, and
//! `next_free` walks the expiries, so that it reads no more of them than it needs. It has the counts of open calls too (`calls.rs`), and before `expiries` the
//! functions of `windows/recount.rs`.

mod recount;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    cost::{Cost, KINDS, Tokens},
    mutation::{Part, without},
    rules::{self, DeploymentRules, NONE, Rules, WHOLE, Window},
    units::{Micros, Seq},
};

/// The key of an entry: the number of its grant, so that the charge logs of instances can be merged with the entries (P12).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Which kind of entry.
    pub kind: Kind,
    /// The grant's number; a conservative charge has one of its own.
    pub number: Seq,
}

/// How many numbers a block of entries has.
pub(crate) const BLOCK: u64 = 32;

impl Key {
    /// The first key of its block.
    fn block(self) -> Self {
        Self {
            number: Seq(self.number.0 - self.number.0 % BLOCK),
            ..self
        }
    }

    /// The last key of the block that begins with this one.
    fn last_of_block(self) -> Self {
        Self {
            number: Seq(self.number.0 + (BLOCK - 1)),
            ..self
        }
    }
}

/// The kinds of entries, in the order in which they expire at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A grant's reservation.
    Grant,
    /// Tokens above a reservation.
    Excess,
    /// A conservative charge (P13).
    Conservative,
}

/// What a ticket needs, and what it may use of the limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Demand {
    pub tokens: Tokens,
    /// The millionths of each limit that it may fill. The rest is reserved for better tickets.
    pub left: u64,
    /// Pacing holds it.
    pub paced: bool,
}

impl Demand {
    pub(super) fn of(rules: &Rules, priority: i32, tokens: Tokens) -> Self {
        Self {
            tokens,
            left: if priority > rules.reserve_priority && !without(Part::P18Reserve) {
                rules.left
            } else {
                WHOLE
            },
            paced: priority > rules.pace_worse_than,
        }
    }

    /// The part of a limit that it may fill.
    pub(super) fn part_of(&self, limit: i64) -> i64 {
        u64::try_from(limit).map_or(limit, |limit| rules::part(limit, self.left).cast_signed())
    }

    /// The same without a reserve.
    pub(super) fn with_all(self) -> Self {
        Self {
            left: WHOLE,
            ..self
        }
    }
}

/// What the time of a charge is (P8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dispatch {
    /// That of its grant: the dispatch is not reported yet. The charge is *open*: it counts and does not expire.
    Open,
    /// The end of its session, after which it cannot have been dispatched. Its owner may report the time of the dispatch later (P12).
    Assumed,
    /// That of its dispatch, as reported by its owner.
    Reported,
}

/// What a call counts against the limits of its deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Charge {
    pub deployment: Arc<str>,
    pub cost: Cost,
    /// Its time on the group clock.
    pub at: Micros,
    pub dispatch: Dispatch,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WindowEntry {
    pub charge: Charge,
    /// How many of its deployment's windows, the shorter ones, it has left. An open charge has left none.
    pub stage: usize,
    /// When it leaves the next window, or is checked again.
    leaves: Micros,
    /// The generation of the list of windows that counts it; see [`Former`].
    generation: u64,
}

/// A list of windows that was in force up to a generation, with what it counts until that is recounted.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Former {
    generation: u64,
    deployment: Arc<str>,
    spans: Vec<Micros>,
    totals: Vec<Cost>,
}

/// The list of windows that an entry is counted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum List {
    /// The one in force.
    Current,
    /// A former one, by its index.
    Former(usize),
}

/// All entries of a group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Windows {
    /// Blocks by their first expiry.
    order: BTreeSet<(Micros, Key)>,
    /// The first expiry in each block.
    blocks: BTreeMap<Key, Micros>,
    entries: BTreeMap<Key, WindowEntry>,
    totals: BTreeMap<Arc<str>, Vec<Cost>>,
    /// The number of changes of lists of windows.
    generation: u64,
    former: Vec<Former>,
    /// The time in the order from which on entries are still to be recounted; `None`: no recount is under way.
    recount: Option<Micros>,
}

/// The spans of a deployment's windows; `None` if the rules do not name it.
pub(super) fn spans(rules: &Rules, deployment: &str) -> Option<Vec<Micros>> {
    let of = rules.deployments.iter().find(|d| &*d.id == deployment)?;
    Some(of.windows.iter().map(|w| w.span).collect())
}

fn within(limit: i64, used: u64) -> bool {
    limit == NONE || used <= limit.unsigned_abs()
}

/// For each limit of a window, whether a ticket fits under it beside what counts there.
pub(super) fn fits_kinds(window: &Window, mut total: Cost, demand: Demand) -> [bool; KINDS] {
    total += Cost::call(demand.tokens);
    let used = total.amounts();
    std::array::from_fn(|k| within(demand.part_of(window.limits[k]), used[k]))
}

/// Whether a ticket fits under all limits of a window.
pub(super) fn fits(window: &Window, total: Cost, demand: Demand) -> bool {
    fits_kinds(window, total, demand) == [true; KINDS]
}

/// Whether a ticket fits on an idle deployment.
pub(super) fn ever_fits(deployment: &DeploymentRules, demand: Demand) -> bool {
    deployment.concurrency != 0
        && deployment
            .windows
            .iter()
            .all(|w| fits(w, Cost::default(), demand))
}

/// Before all entries of one time.
const FIRST: Key = Key {
    kind: Kind::Grant,
    number: Seq::NONE,
};

impl Windows {
    pub(super) fn get(&self, key: Key) -> Option<&WindowEntry> {
        self.entries.get(&key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Key, &Charge)> {
        let entries = self.entries.iter();
        entries.map(|(key, entry)| (*key, &entry.charge))
    }

    /// All totals are within the numbers that are exact in a double.
    pub(super) fn within_bounds(&self) -> bool {
        let mut totals = self.totals.values().flatten();
        totals.all(|total| *total == total.min(Cost::MAX_TOTAL))
    }

    /// How many charges have a time of this kind.
    pub(super) fn count(&self, dispatch: Dispatch) -> u64 {
        let entries = self.entries.values();
        entries.filter(|e| e.charge.dispatch == dispatch).count() as u64
    }

    /// The list of windows that counts entries of this generation, and its spans.
    fn list(&self, rules: &Rules, deployment: &str, generation: u64) -> (List, Vec<Micros>) {
        let former = self.former.iter().position(|former| {
            former.generation >= generation && *former.deployment == *deployment
        });
        match former {
            Some(index) => (List::Former(index), self.former[index].spans.clone()),
            // An entry of a deployment that the rules do not name is kept for the time of the charge log.
            None => {
                let spans = spans(rules, deployment).unwrap_or_else(|| vec![rules.memory]);
                (List::Current, spans)
            }
        }
    }

    /// The generation of new entries. A deployment that the rules no longer name continues with the list that last counted it.
    fn generation_for(&self, rules: &Rules, deployment: &str) -> u64 {
        if self.former.is_empty() || rules.deployments.iter().any(|d| &*d.id == deployment) {
            return self.generation;
        }
        let mut lists = self.former.iter().rev();
        lists
            .find(|former| &*former.deployment == deployment)
            .map_or(self.generation, |former| former.generation)
    }

    /// What counts in the `index`-th window of a deployment. An entry that is not recounted yet counts as in the next longer window of its former list: too much rather
    /// than too little.
    pub(super) fn total(&self, deployment: &DeploymentRules, index: usize) -> Cost {
        let totals = self.totals.get(&deployment.id).and_then(|t| t.get(index));
        let mut total = totals.copied().unwrap_or_default();
        let Some(Window { span, .. }) = deployment.windows.get(index) else {
            return total;
        };
        for former in self.former.iter().filter(|f| f.deployment == deployment.id) {
            let longer = former.spans.iter().position(|known| known >= span);
            let counted = match longer {
                Some(at) => former.totals.get(at),
                None => former.totals.last(),
            };
            total += counted.copied().unwrap_or_default();
        }
        total
    }

    /// What counts in each window of a deployment.
    pub(super) fn totals(&self, deployment: &DeploymentRules) -> Vec<Cost> {
        let windows = 0..deployment.windows.len();
        windows.map(|index| self.total(deployment, index)).collect()
    }

    fn totals_of(&mut self, list: List, deployment: &Arc<str>) -> &mut Vec<Cost> {
        match list {
            List::Current => self.totals.entry(deployment.clone()).or_default(),
            List::Former(index) => &mut self.former[index].totals,
        }
    }

    fn add(
        &mut self,
        list: List,
        deployment: &Arc<str>,
        cost: Cost,
        stages: std::ops::Range<usize>,
    ) {
        let totals = self.totals_of(list, deployment);
        totals.resize(totals.len().max(stages.end), Cost::default());
        for total in &mut totals[stages] {
            *total += cost;
        }
    }

    fn subtract(
        &mut self,
        list: List,
        deployment: &Arc<str>,
        cost: Cost,
        stages: std::ops::Range<usize>,
    ) {
        let totals = self.totals_of(list, deployment);
        for total in totals.iter_mut().take(stages.end).skip(stages.start) {
            *total -= cost;
        }
    }

    /// The entries of a block.
    fn block(&self, block: Key) -> impl Iterator<Item = (Key, &WindowEntry)> {
        let entries = self.entries.range(block..=block.last_of_block());
        entries.map(|(key, entry)| (*key, entry))
    }

    /// Puts a block, of which an entry has changed, at its place in the order. The recount goes back to a block that moves before its place and has entries that are
    /// still to be recounted.
    fn reorder(&mut self, rules: &Rules, block: Key) {
        let first = self.block(block).map(|(_, entry)| entry.leaves).min();
        if let (Some(first), Some(recount)) = (first, self.recount)
            && first < recount
            && self
                .block(block)
                .any(|(_, entry)| self.is_to_be_recounted(rules, entry))
        {
            self.recount = Some(first);
        }
        let former = match first {
            Some(first) => self.blocks.insert(block, first),
            None => self.blocks.remove(&block),
        };
        if former == first {
            return;
        }
        if let Some(former) = former {
            self.order.remove(&(former, block));
        }
        if let Some(first) = first {
            self.order.insert((first, block));
        }
    }

    /// Removes an entry, if there is one.
    pub(super) fn remove(&mut self, rules: &Rules, key: Key) -> Option<Charge> {
        let WindowEntry {
            charge,
            stage,
            generation,
            ..
        } = self.entries.remove(&key)?;
        self.reorder(rules, key.block());
        let (list, spans) = self.list(rules, &charge.deployment, generation);
        self.subtract(list, &charge.deployment, charge.cost, stage..spans.len());
        Some(charge)
    }

    /// Adds an entry, or replaces the one of the same key.
    pub(super) fn insert(&mut self, rules: &Rules, now: Micros, key: Key, mut charge: Charge) {
        self.remove(rules, key);
        let generation = self.generation_for(rules, &charge.deployment);
        let (list, spans) = self.list(rules, &charge.deployment, generation);
        let left = |span: &&Micros| charge.dispatch != Dispatch::Open && charge.at + **span <= now;
        let stage = spans.iter().take_while(left).count();
        let Some(span) = spans.get(stage) else {
            return;
        };
        let leaves = charge.at + *span;
        // What counts in a shorter window counts in the longest one too.
        let total = self.totals_of(list, &charge.deployment);
        let total = total.get(spans.len() - 1).copied().unwrap_or_default();
        charge.cost = charge.cost.min(Cost::MAX_TOTAL.saturating_sub(total));
        self.add(list, &charge.deployment, charge.cost, stage..spans.len());
        let entry = WindowEntry {
            charge,
            stage,
            leaves,
            generation,
        };
        self.entries.insert(key, entry);
        self.reorder(rules, key.block());
    }

    /// P8 (dispatch report): gives an open charge its time, which is not before its grant.
    pub(super) fn set_dispatch_time(
        &mut self,
        rules: &Rules,
        now: Micros,
        key: Key,
        at: Micros,
        dispatch: Dispatch,
    ) {
        let open = |entry: &&WindowEntry| entry.charge.dispatch == Dispatch::Open;
        let Some(charge) = self.get(key).filter(open).map(|e| e.charge.clone()) else {
            return;
        };
        let at = at.max(charge.at);
        let charge = Charge {
            at,
            dispatch,
            ..charge
        };
        self.insert(rules, now, key, charge);
    }

    /// P14 (corrections): shrinks an entry's tokens in place, each kind separately, and never enlarges them. Returns its deployment, and by how much they shrank.
    pub(super) fn shrink(
        &mut self,
        rules: &Rules,
        key: Key,
        tokens: Tokens,
    ) -> Option<(Arc<str>, Cost)> {
        let entry = self.entries.get_mut(&key)?;
        let less = entry.charge.cost.tokens.saturating_sub(tokens);
        entry.charge.cost.tokens -= less;
        let (deployment, stage) = (entry.charge.deployment.clone(), entry.stage);
        let generation = entry.generation;
        let (list, spans) = self.list(rules, &deployment, generation);
        let less = Cost::excess(less);
        self.subtract(list, &deployment, less, stage..spans.len());
        Some((deployment, less))
    }

    /// Drops the former lists that count nothing any more.
    fn drop_empty(&mut self) {
        let counts = |f: &Former| f.totals.iter().any(|total| *total != Cost::default());
        self.former.retain(counts);
    }

    /// Lets an entry leave all windows whose time has come. Returns how many. An open charge stays, and is checked again later.
    fn leave(&mut self, rules: &Rules, now: Micros, key: Key) -> usize {
        let Some(mut entry) = self.entries.get(&key).cloned() else {
            return 0;
        };
        if entry.charge.dispatch == Dispatch::Open {
            entry.leaves = now + rules.check_again();
            self.entries.insert(key, entry);
            return 1;
        }
        let Charge {
            deployment,
            cost,
            at,
            ..
        } = entry.charge.clone();
        let (list, spans) = self.list(rules, &deployment, entry.generation);
        let mut left = 0;
        while entry.leaves <= now {
            left += 1;
            self.subtract(list, &deployment, cost, entry.stage..entry.stage + 1);
            let Some(span) = spans.get(entry.stage + 1) else {
                self.entries.remove(&key);
                return left;
            };
            (entry.stage, entry.leaves) = (entry.stage + 1, at + *span);
        }
        self.entries.insert(key, entry);
        left
    }

    /// Lets entries leave their windows, block by block until at least `most` have, and returns how many.
    pub(super) fn expire(&mut self, rules: &Rules, now: Micros, most: usize) -> usize {
        let mut expired = 0;
        while expired < most {
            let Some(&(_, block)) = self.order.first().filter(|(at, _)| *at <= now) else {
                break;
            };
            let entries = self.block(block);
            let due = entries.filter(|(_, entry)| entry.leaves <= now);
            let due: Vec<Key> = due.map(|(key, _)| key).collect();
            for key in due {
                expired += self.leave(rules, now, key);
            }
            self.reorder(rules, block);
        }
        if self.is_counted() {
            self.drop_empty();
        }
        expired
    }

    /// A partial write, of the entries or of the totals (P17).
    pub(super) fn tear(&mut self, before: &Self, entries: bool, totals: bool) {
        if entries {
            self.order.clone_from(&before.order);
            self.blocks.clone_from(&before.blocks);
            self.entries.clone_from(&before.entries);
        }
        if totals {
            self.totals.clone_from(&before.totals);
        }
    }

    /// Expiries in order of time: the time, the charge, and the index of the window that it leaves. An entry that leaves a shorter window follows again when it leaves
    /// the next. Open charges leave at this time at the earliest. No index: the entry is not recounted yet.
    pub(super) fn expiries<'a>(
        &'a self,
        rules: &'a Rules,
    ) -> impl Iterator<Item = (Micros, &'a Charge, Option<usize>)> {
        let mut order = self.order.iter().copied().peekable();
        // Of the blocks that were read.
        let mut later: BTreeSet<(Micros, Key, usize)> = BTreeSet::new();
        std::iter::from_fn(move || {
            while let Some((at, block)) = order.peek() {
                if later.first().is_some_and(|first| first.0 < *at) {
                    break;
                }
                let entries = self.block(*block);
                later.extend(entries.map(|(key, entry)| (entry.leaves, key, entry.stage)));
                order.next();
            }
            let (at, key, stage) = later.pop_first()?;
            let entry = &self.entries[&key];
            let charge = &entry.charge;
            let (list, spans) = self.list(rules, &charge.deployment, entry.generation);
            if let Some(span) = spans.get(stage + 1) {
                later.insert(((charge.at + *span).max(at), key, stage + 1));
            }
            Some((at, charge, (list == List::Current).then_some(stage)))
        })
    }
}
