//! Fair shares: within a priority tenants are served in turns, by start-time fair queueing.
//!
//! A ticket's *start* is where its tenant's turn begins: where the last one of the tenant ended, but not before the turn that is being served (the
//! *floor*). Each turn is as long as the ticket costs. So who comes new is served within one round, and who was away has saved nothing.
//! With aging the clock is the floor, and a turn is worth as much waiting as a level of priority.

use std::collections::{BTreeMap, BTreeSet};

use super::queue::Place;
use crate::{
    claim::TURN,
    message::MAX_DROPS,
    rules::{MAX_HANDICAP, MAX_NUMBER, Rules},
};

/// A priority and a tenant's number: what a tenant asks for at one priority takes nothing from what it asks for at another.
type Key = (i32, u64);

/// In a tenant's place: all of a priority. Above all tenants' numbers.
const ALL: u64 = 1 << 52;

/// A tenant at one priority, or all tenants of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Tenant {
    /// Where the turn of its last ticket ends, and its next one begins. Of a priority: the latest start that was granted since it has had places.
    finish: u64,
    /// The same of those that were granted.
    granted: u64,
    /// Its places, ghosts included.
    waiting: u64,
    /// Number of its last entry.
    entered: u64,
    /// When its last place left the queue.
    since: u64,
}

/// The tenants that have places, and those that lately had.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Fair {
    tenants: BTreeMap<Key, Tenant>,
    /// Those without places, by when they lost the last one.
    idle: BTreeSet<(u64, Key)>,
}

fn key(place: &Place) -> Key {
    (place.priority, place.tenant)
}

/// Where a turn ends that begins at `start`: in doubles, as Lua computes it.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "not negative, and at most what fits"
)]
pub(super) fn end(rules: &Rules, start: u64, cost: u64) -> u64 {
    let length = match rules.aging {
        0 => cost,
        aging => {
            let time = (cost as f64 * aging as f64 / TURN as f64).floor();
            // Tickets of a tenant stay in their order.
            time.clamp(1.0, MAX_HANDICAP as f64) as u64
        }
    };
    (start + length).min(MAX_NUMBER)
}

impl Fair {
    /// Tenants known at each priority, and the priorities themselves; and those of them that have no place.
    pub(super) fn len(&self) -> (usize, usize) {
        (self.tenants.len(), self.idle.len())
    }

    /// How many places a tenant has.
    pub(super) fn waiting(&self, priority: i32, tenant: u64) -> u64 {
        self.tenants
            .get(&(priority, tenant))
            .map_or(0, |of| of.waiting)
    }

    /// The turn that is being served at a priority; `None` where nobody waits.
    pub(super) fn floor(&self, priority: i32) -> Option<u64> {
        let all = self.tenants.get(&(priority, ALL))?;
        (all.waiting > 0).then_some(all.finish)
    }

    /// Where a ticket's turn begins that enters now, if none begins before the floor. What was up to the number `era` does not matter any
    /// more: nobody waited then.
    pub(super) fn start(&self, priority: i32, tenant: u64, floor: u64, era: u64) -> u64 {
        let known = self.tenants.get(&(priority, tenant));
        let known = known.filter(|of| of.waiting > 0 || of.entered > era);
        known.map_or(0, |of| of.finish).max(floor)
    }

    /// A ticket has entered; its turn ends at `end`. `told`: so have others, in no order, and nobody has been served since.
    pub(super) fn enter(&mut self, place: &Place, end: u64, entered: u64, era: u64, told: bool) {
        let of = self.come(key(place));
        if of.waiting == 1 && of.entered <= era {
            (of.finish, of.granted) = (0, 0);
        }
        of.finish = of.finish.max(end);
        of.entered = entered;
        let all = self.come((place.priority, ALL));
        if all.waiting == 1 || told && place.start < all.finish {
            all.finish = place.start;
        }
    }

    fn come(&mut self, key: Key) -> &mut Tenant {
        let of = self.tenants.entry(key).or_default();
        if of.waiting == 0 {
            self.idle.remove(&(of.since, key));
        }
        of.waiting += 1;
        of
    }

    /// A ticket is granted; its turn ends at `end`.
    pub(super) fn serve(&mut self, place: &Place, end: u64) {
        if let Some(of) = self.tenants.get_mut(&key(place)) {
            of.granted = of.granted.max(end);
        }
        if let Some(all) = self.tenants.get_mut(&(place.priority, ALL)) {
            all.finish = all.finish.max(place.start);
        }
    }

    /// A place has left the queue.
    pub(super) fn leave(&mut self, place: &Place, now: u64) {
        if let Some(of) = self.go(key(place), now) {
            // Turns of those that left without a grant were not taken.
            of.finish = of.granted;
        }
        self.go((place.priority, ALL), now);
    }

    /// Returns it if that was its last place.
    fn go(&mut self, key: Key, now: u64) -> Option<&mut Tenant> {
        let of = self.tenants.get_mut(&key)?;
        of.waiting -= 1;
        if of.waiting > 0 {
            return None;
        }
        of.since = now;
        self.idle.insert((now, key));
        Some(of)
    }

    /// Forgets tenants that have had no place since then, at most [`MAX_DROPS`]. Returns how many.
    pub(super) fn forget(&mut self, until: u64) -> usize {
        let old = self.idle.iter().take_while(|(since, _)| *since <= until);
        let old: Vec<_> = old.take(MAX_DROPS).copied().collect();
        for entry in &old {
            self.idle.remove(entry);
            self.tenants.remove(&entry.1);
        }
        old.len()
    }
}
