//! Inversions: tickets granted before a better one that was waiting (A1).

use std::collections::{BTreeMap, HashSet};

use crate::log::Ticket;

/// How many pairs (a, b) there are where b was inverted by a: E(b) < G(a) < G(b), and (score, start, arrival) of b is less; the
/// score is the priority where there is no aging, the start 0 where there are no fair shares. Only tickets of the same group can be compared. Takes O(n log n) time.
pub fn inversions<'a>(tickets: impl IntoIterator<Item = &'a Ticket>) -> u64 {
    let mut groups: BTreeMap<&str, Vec<&Ticket>> = BTreeMap::new();
    for ticket in tickets {
        groups.entry(&ticket.group).or_default().push(ticket);
    }
    groups.into_values().map(of_group).sum()
}

/// How many numbers were granted more than once in a group: one grant, two answers.
pub fn repeated_grants<'a>(tickets: impl IntoIterator<Item = &'a Ticket>) -> u64 {
    let mut seen = HashSet::new();
    let repeated = tickets
        .into_iter()
        .filter(|ticket| !seen.insert((&ticket.group, ticket.granted)));
    repeated.count() as u64
}

fn of_group(mut tickets: Vec<&Ticket>) -> u64 {
    let mut grants: Vec<u64> = tickets.iter().map(|ticket| ticket.granted).collect();
    grants.sort_unstable();
    // How many grants have a smaller number: its index in the tree.
    let rank = |number: u64| grants.partition_point(|&granted| granted < number);
    // From the worst to the best: when b is asked for, the tree holds exactly the tickets worse than it.
    tickets.sort_by_key(|ticket| std::cmp::Reverse(key(ticket)));
    let mut worse = Tree::new(grants.len());
    let mut inversions = 0;
    for equals in tickets.chunk_by(|a, b| key(a) == key(b)) {
        for b in equals {
            // Grants in (entered, granted).
            let from = rank(b.entered.saturating_add(1));
            let to = rank(b.granted);
            inversions += worse.sum(to).saturating_sub(worse.sum(from.min(to)));
        }
        for b in equals {
            worse.add(rank(b.granted));
        }
    }
    inversions
}

fn key(ticket: &Ticket) -> (i64, u64, u64) {
    let score = ticket.score.unwrap_or(ticket.priority.into());
    (score, ticket.start, ticket.arrival)
}

/// Counts by index, with prefix sums (a Fenwick tree).
struct Tree(Vec<u64>);

impl Tree {
    fn new(size: usize) -> Self {
        Self(vec![0; size + 1])
    }

    fn add(&mut self, index: usize) {
        let mut index = index + 1;
        while index < self.0.len() {
            self.0[index] += 1;
            index += index & index.wrapping_neg();
        }
    }

    /// How many were added at smaller indexes.
    fn sum(&self, index: usize) -> u64 {
        let (mut index, mut sum) = (index, 0);
        while index > 0 {
            sum += self.0[index];
            index &= index - 1;
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Ordering;

    use proptest::prelude::*;

    use super::*;

    fn ticket(priority: i32, arrival: u64, entered: u64, granted: u64) -> Ticket {
        Ticket {
            group: "g".into(),
            priority,
            arrival,
            entered,
            granted,
            start: 0,
            score: None,
            waited: 0,
            least_wait: None,
            retries: 0,
        }
    }

    /// The definition, pair by pair.
    fn brute(tickets: &[Ticket]) -> u64 {
        let pairs = tickets
            .iter()
            .flat_map(|a| tickets.iter().map(move |b| (a, b)));
        let inverted = pairs.filter(|(a, b)| {
            let score = |one: &Ticket| one.score.unwrap_or(i64::from(one.priority));
            let better = match score(b).cmp(&score(a)) {
                Ordering::Equal => (b.start, b.arrival) < (a.start, a.arrival),
                order => order == Ordering::Less,
            };
            a.group == b.group && b.entered < a.granted && a.granted < b.granted && better
        });
        inverted.count() as u64
    }

    #[test]
    fn grant_before_a_better_waiting_ticket_counts_as_an_inversion() {
        let (worse, better) = (ticket(5, 1, 1, 3), ticket(0, 2, 2, 4));
        assert_eq!(inversions([&worse, &better]), 1);
        // It came after the grant; it was granted first; it is in another queue.
        assert_eq!(inversions([&worse, &ticket(0, 4, 4, 5)]), 0);
        assert_eq!(inversions([&ticket(5, 1, 1, 4), &ticket(0, 2, 2, 3)]), 0);
        let elsewhere = Ticket {
            group: "h".into(),
            ..better
        };
        assert_eq!(inversions([&worse, &elsewhere]), 0);
    }

    #[test]
    fn inversions_with_aging_compare_scores() {
        let (worse, better) = (ticket(5, 1, 1, 3), ticket(0, 2, 2, 4));
        let scored = |ticket: &Ticket, score| Ticket {
            score: Some(score),
            ..ticket.clone()
        };
        assert_eq!(inversions([&scored(&worse, 51), &scored(&better, 60)]), 0);
        assert_eq!(inversions([&scored(&worse, 51), &scored(&better, 50)]), 1);
    }

    #[test]
    fn inversions_with_fair_shares_compare_start_tags_within_priority_or_score() {
        let (early, late) = (ticket(5, 1, 1, 3), ticket(5, 2, 2, 4));
        let at = |ticket: &Ticket, start| Ticket {
            start,
            ..ticket.clone()
        };
        // The later one's turn is the earlier one: it should have gone first; and if not, not.
        assert_eq!(inversions([&at(&early, 20), &at(&late, 10)]), 1);
        assert_eq!(inversions([&at(&early, 10), &at(&late, 20)]), 0);
        let worse = |ticket: Ticket| Ticket {
            score: Some(ticket.priority.into()),
            priority: 9,
            ..ticket
        };
        assert_eq!(inversions([&at(&early, 10), &worse(at(&late, 20))]), 0);
        assert_eq!(inversions([&worse(at(&early, 20)), &at(&late, 10)]), 1);
        // A better priority goes before a better start.
        let urgent = ticket(0, 2, 2, 4);
        assert_eq!(inversions([&at(&early, 10), &at(&urgent, 20)]), 1);
    }

    #[test]
    fn duplicate_grant_numbers_are_counted() {
        let tickets = [ticket(0, 1, 1, 3), ticket(0, 2, 2, 3), ticket(0, 4, 4, 5)];
        assert_eq!(repeated_grants(&tickets), 1);
    }

    proptest! {
        #[test]
        fn inversion_count_equals_the_pairwise_count(
            numbers in prop::collection::vec((0_i32..3, 0_u64..4, prop::option::of(0_i64..3), 0_u64..20, 0_u64..20, 0_u64..20, prop::bool::ANY), 0..60),
        ) {
            // Numbers may repeat and be out of order: a doctored log is judged as well.
            let tickets: Vec<Ticket> = numbers.into_iter().map(|(priority, start, score, arrival, entered, granted, other)| {
                let mut ticket = ticket(priority, arrival, entered, granted);
                (ticket.start, ticket.score) = (start, score);
                if other {
                    ticket.group = "h".into();
                }
                ticket
            }).collect();
            prop_assert_eq!(inversions(&tickets), brute(&tickets));
        }
    }
}
