//! The queue: places in order, and how many there are of each score and priority.

use std::collections::{BTreeMap, BTreeSet};

use super::fair::Fair;

/// A ticket's place. Ordered by (score, start, arrival); the rest tells places of an ended session from those of the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// The priority, or with aging what that and the arrival make ([`Rules::score`](crate::rules::Rules::score)).
    pub score: i64,
    /// With fair shares, where its tenant's turn begins: above 0; else 0.
    pub start: u64,
    pub arrival: u64,
    pub session: u64,
    pub tokens: u64,
    pub tenant: u64,
    /// Of its tenant's share.
    pub cost: u64,
    pub priority: i32,
}

/// Places, ghosts included.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Queue {
    places: BTreeSet<Place>,
    by_score: BTreeMap<i64, u64>,
    by_priority: BTreeMap<i32, u64>,
    pub fair: Fair,
}

fn one_less<K: Ord>(counts: &mut BTreeMap<K, u64>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

impl Queue {
    pub(super) fn len(&self) -> u64 {
        self.places.len() as u64
    }

    pub(super) fn first(&self) -> Option<Place> {
        self.places.first().copied()
    }

    pub(super) fn last(&self) -> Option<Place> {
        self.places.last().copied()
    }

    /// In order.
    pub(super) fn iter(&self) -> impl Iterator<Item = Place> {
        self.places.iter().copied()
    }

    /// False if it was there.
    pub(super) fn insert(&mut self, place: Place) -> bool {
        let new = self.places.insert(place);
        if new {
            *self.by_score.entry(place.score).or_default() += 1;
            *self.by_priority.entry(place.priority).or_default() += 1;
        }
        new
    }

    /// False if it was not there. `now`: on the group clock.
    pub(super) fn remove(&mut self, place: Place, now: u64) -> bool {
        let found = self.places.remove(&place);
        if found {
            if place.start > 0 {
                self.fair.leave(&place, now);
            }
            one_less(&mut self.by_score, &place.score);
            one_less(&mut self.by_priority, &place.priority);
        }
        found
    }

    /// How many places are of this score or a better one.
    pub(super) fn at_least(&self, score: i64) -> u64 {
        self.by_score.range(..=score).map(|(_, count)| count).sum()
    }

    /// Whether there is a place of this priority or a better one.
    pub(super) fn any_as_good(&self, priority: i32) -> bool {
        self.by_priority.range(..=priority).next().is_some()
    }
}
