//! Sliding windows: one entry per grant, ordered by the time when it stops counting, with running totals.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::rules::{self, DeploymentRules, MAX_TOTAL, NONE, Rules, WHOLE, Window};

/// What an entry is known by: the number of its grant, so that what instances remember can be merged with what is there (P12).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Which kind of entry.
    pub kind: Kind,
    /// The grant's number; a phantom has one of its own.
    pub number: u64,
}

/// The kinds of entries, in the order in which they leave when they leave together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A grant's reservation.
    Grant,
    /// Tokens used above it.
    Excess,
    /// What a dead instance must be assumed to have been granted (P13).
    Phantom,
}

/// Requests and tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cost {
    /// Calls.
    pub requests: u64,
    /// Tokens.
    pub tokens: u64,
}

/// What a ticket needs, and what it may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Demand {
    pub tokens: u64,
    /// Millionths of each limit that it may fill; the rest is kept for the better ones.
    pub left: u64,
    /// It goes no faster than the limits' rates.
    pub paced: bool,
}

impl Demand {
    pub(super) fn of(rules: &Rules, priority: i32, tokens: u64) -> Self {
        Self {
            tokens,
            left: if priority > rules.reserve_priority {
                rules.left
            } else {
                WHOLE
            },
            paced: priority > rules.pace_worse_than,
        }
    }

    /// What it may fill of a limit.
    pub(super) fn part_of(&self, limit: i64) -> i64 {
        u64::try_from(limit).map_or(limit, |limit| rules::part(limit, self.left).cast_signed())
    }

    /// The same with nothing kept from it.
    pub(super) fn with_all(self) -> Self {
        Self {
            left: WHOLE,
            ..self
        }
    }
}

/// Whether a charge's time is that of its dispatch (P8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dispatch {
    /// Not reported yet. The charge is *open*: it counts and does not expire; its time is that of its grant.
    Open,
    /// Never reported: the end of its session, after which it was not dispatched. Its owner may report the time later (P12).
    Assumed,
    /// Reported by its owner.
    Reported,
}

/// What a call counts against its deployment's limits, and since when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Charge {
    pub deployment: Arc<str>,
    pub cost: Cost,
    /// On the group clock.
    pub at: u64,
    pub dispatch: Dispatch,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub charge: Charge,
    /// How many of its deployment's windows, the shorter ones, it has left already. An open one has left none.
    pub stage: usize,
    /// When it leaves the next one, or is looked at again: its time in the order.
    leaves: u64,
}

/// All entries of a group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Windows {
    order: BTreeSet<(u64, Key)>,
    entries: BTreeMap<Key, Entry>,
    totals: BTreeMap<Arc<str>, Vec<Cost>>,
}

/// The spans an entry passes through. An entry of a deployment that the rules do not name is kept for as long as any.
fn spans(rules: &Rules, deployment: &str) -> Vec<u64> {
    match rules.deployments.iter().find(|d| &*d.id == deployment) {
        Some(d) => d.windows.iter().map(|w| w.span).collect(),
        None => vec![rules.memory],
    }
}

impl Windows {
    pub(super) fn get(&self, key: Key) -> Option<&Entry> {
        self.entries.get(&key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Key, &Charge)> {
        let entries = self.entries.iter();
        entries.map(|(key, entry)| (*key, &entry.charge))
    }

    /// No total has left what is exact.
    pub(super) fn within_bounds(&self) -> bool {
        let mut totals = self.totals.values().flatten();
        totals.all(|total| total.requests <= MAX_TOTAL && total.tokens <= MAX_TOTAL)
    }

    /// How many charges have a time of this kind.
    pub(super) fn count(&self, dispatch: Dispatch) -> u64 {
        let entries = self.entries.values();
        entries.filter(|e| e.charge.dispatch == dispatch).count() as u64
    }

    /// What counts now in the `index`-th window of a deployment.
    pub(super) fn total(&self, deployment: &str, index: usize) -> Cost {
        self.totals
            .get(deployment)
            .and_then(|t| t.get(index))
            .copied()
            .unwrap_or_default()
    }

    fn add(&mut self, deployment: &Arc<str>, cost: Cost, stages: std::ops::Range<usize>) {
        let totals = self.totals.entry(deployment.clone()).or_default();
        totals.resize(totals.len().max(stages.end), Cost::default());
        for total in &mut totals[stages] {
            total.requests += cost.requests;
            total.tokens += cost.tokens;
        }
    }

    fn subtract(&mut self, deployment: &str, cost: Cost, stages: std::ops::Range<usize>) {
        if let Some(totals) = self.totals.get_mut(deployment) {
            for total in totals.iter_mut().take(stages.end).skip(stages.start) {
                total.requests -= cost.requests;
                total.tokens -= cost.tokens;
            }
        }
    }

    /// Adds an entry, or replaces the one of the same key.
    pub(super) fn insert(&mut self, rules: &Rules, now: u64, key: Key, mut charge: Charge) {
        self.remove(rules, key);
        let spans = spans(rules, &charge.deployment);
        let left = |span: &&u64| charge.dispatch != Dispatch::Open && charge.at + **span <= now;
        let stage = spans.iter().take_while(left).count();
        let Some(span) = spans.get(stage) else {
            return;
        };
        let leaves = charge.at + span;
        // All that counts in a shorter window counts in the longest one, too.
        let total = self.total(&charge.deployment, spans.len() - 1);
        let cost = &mut charge.cost;
        cost.requests = cost.requests.min(MAX_TOTAL - total.requests);
        cost.tokens = cost.tokens.min(MAX_TOTAL - total.tokens);
        self.order.insert((leaves, key));
        self.add(&charge.deployment, charge.cost, stage..spans.len());
        let entry = Entry {
            charge,
            stage,
            leaves,
        };
        self.entries.insert(key, entry);
    }

    /// Takes an entry out; nothing happens if there is none.
    pub(super) fn remove(&mut self, rules: &Rules, key: Key) -> Option<Charge> {
        let Entry {
            charge,
            stage,
            leaves,
        } = self.entries.remove(&key)?;
        self.order.remove(&(leaves, key));
        let stages = stage..spans(rules, &charge.deployment).len();
        self.subtract(&charge.deployment, charge.cost, stages);
        Some(charge)
    }

    /// P8 (the dispatch is reported): an open charge gets its time, which is not before its grant.
    pub(super) fn date(&mut self, rules: &Rules, now: u64, key: Key, at: u64, dispatch: Dispatch) {
        let open = |entry: &&Entry| entry.charge.dispatch == Dispatch::Open;
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

    /// Shrinks an entry's tokens in place; never grows them (P14). Returns by how many, and whose they were.
    pub(super) fn shrink(
        &mut self,
        rules: &Rules,
        key: Key,
        tokens: u64,
    ) -> Option<(Arc<str>, Cost)> {
        let entry = self.entries.get_mut(&key)?;
        let less = entry.charge.cost.tokens.checked_sub(tokens)?;
        entry.charge.cost.tokens = tokens;
        let (deployment, stage) = (entry.charge.deployment.clone(), entry.stage);
        let spans = spans(rules, &deployment);
        let less = Cost {
            requests: 0,
            tokens: less,
        };
        self.subtract(&deployment, less, stage..spans.len());
        Some((deployment, less))
    }

    /// Lets at most `most` entries leave a window whose time is up; returns how many it looked at. Open ones stay, and are looked at again later.
    pub(super) fn expire(&mut self, rules: &Rules, now: u64, most: usize) -> usize {
        let mut expired = 0;
        while expired < most {
            let Some(&(at, key)) = self.order.first() else {
                break;
            };
            if at > now {
                break;
            }
            expired += 1;
            self.order.pop_first();
            let Some(entry) = self.entries.get_mut(&key) else {
                continue;
            };
            if entry.charge.dispatch == Dispatch::Open {
                entry.leaves = now + rules.look_again();
                self.order.insert((entry.leaves, key));
                continue;
            }
            let Charge {
                deployment,
                cost,
                at,
                ..
            } = entry.charge.clone();
            let stage = entry.stage;
            match spans(rules, &deployment).get(stage + 1) {
                Some(span) => {
                    (entry.stage, entry.leaves) = (stage + 1, at + span);
                    self.order.insert((entry.leaves, key));
                }
                None => {
                    self.entries.remove(&key);
                }
            }
            self.subtract(&deployment, cost, stage..stage + 1);
        }
        expired
    }

    /// A write cut short: between entries and totals, too (P17).
    pub(super) fn tear(&mut self, before: &Self, entries: bool, totals: bool) {
        if entries {
            self.order.clone_from(&before.order);
            self.entries.clone_from(&before.entries);
        }
        if totals {
            self.totals.clone_from(&before.totals);
        }
    }

    /// Takes out the open charges. The totals are to be counted anew.
    pub(super) fn forget_open(&mut self) {
        self.entries
            .retain(|_, entry| entry.charge.dispatch != Dispatch::Open);
    }

    /// Counts everything anew under other rules.
    pub(super) fn rebuild(&mut self, rules: &Rules, now: u64) {
        let entries = std::mem::take(self).entries;
        for (key, entry) in entries {
            self.insert(rules, now, key, entry.charge);
        }
    }

    /// Expiries in order of time: when, of which deployment, which cost leaves its window of which index.
    /// An entry that leaves a shorter window comes again when it leaves the next. Open ones leave at the earliest then.
    pub(super) fn expiries<'a>(
        &'a self,
        rules: &'a Rules,
    ) -> impl Iterator<Item = (u64, &'a Charge, usize)> {
        let mut order = self.order.iter().copied().peekable();
        let mut again: BTreeSet<(u64, Key, usize)> = BTreeSet::new();
        std::iter::from_fn(move || {
            let next = match (order.peek(), again.first()) {
                (Some(a), Some(b)) if (b.0, b.1) < *a => again.pop_first(),
                (None, Some(_)) => again.pop_first(),
                (Some(_), _) => order
                    .next()
                    .map(|(at, key)| (at, key, self.entries[&key].stage)),
                (None, None) => None,
            };
            let (at, key, stage) = next?;
            let charge = &self.entries[&key].charge;
            if let Some(span) = spans(rules, &charge.deployment).get(stage + 1) {
                again.insert(((charge.at + span).max(at), key, stage + 1));
            }
            Some((at, charge, stage))
        })
    }
}

/// Whether a ticket fits under a window's limits on top of what counts there.
pub(super) fn fits(window: &Window, total: Cost, demand: Demand) -> bool {
    fits_requests(window, total, demand) && fits_tokens(window, total, demand)
}

pub(super) fn fits_requests(window: &Window, total: Cost, demand: Demand) -> bool {
    within(demand.part_of(window.requests), total.requests + 1)
}

pub(super) fn fits_tokens(window: &Window, total: Cost, demand: Demand) -> bool {
    within(demand.part_of(window.tokens), total.tokens + demand.tokens)
}

fn within(limit: i64, used: u64) -> bool {
    limit == NONE || used <= limit.unsigned_abs()
}

/// Whether a ticket fits on an idle deployment.
pub(super) fn ever_fits(deployment: &DeploymentRules, demand: Demand) -> bool {
    deployment.concurrency != 0
        && deployment
            .windows
            .iter()
            .all(|w| fits(w, Cost::default(), demand))
}
