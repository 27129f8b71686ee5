//! Properties of fair shares on random arrivals (A1, P19).

use std::collections::BTreeMap;

use proptest::prelude::*;
use vorrang_scheduler::{Claim, Entry, Micros, Seq, Share, UNIT_COST, message::Op};

use super::{FairGroup, INTERVAL, claim_of, join, one_per_window};
use crate::sender::Sender;

/// A ticket that was granted. Times are counted by events.
#[derive(Debug)]
struct Served {
    tenant: u64,
    cost: u64,
    entered: usize,
    granted: usize,
}

/// The sequence numbers and the start tag of a grant.
#[derive(Debug)]
struct Numbers {
    entered: Seq,
    granted: Seq,
    start: u64,
    arrival: Seq,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// In any period in which two tenants of one priority always have waiting tickets, their services differ by at most the sum of their largest tickets.
    /// Tickets of one tenant are granted in their order.
    #[test]
    fn service_of_backlogged_tenants_differs_by_at_most_their_largest_tickets(
        events in prop::collection::vec(
            prop_oneof![
                3 => (1_u64..5, 1_u64..40_000, 1_usize..6).prop_map(Some),
                5 => Just(None),
            ],
            1..150,
        ),
    ) {
        let mut group = FairGroup::new(&one_per_window());
        let mut entered: BTreeMap<Seq, usize> = BTreeMap::new();
        let mut all: Vec<Served> = Vec::new();
        let mut last_of: BTreeMap<u64, Seq> = BTreeMap::new();
        let mut note_grants = |group: &mut FairGroup, now: usize, entered: &BTreeMap<Seq, usize>| {
            for (arrival, claim) in std::mem::take(&mut group.granted) {
                let Share { tenant, cost } = claim.share;
                let former = last_of.insert(tenant, arrival);
                assert!(former < Some(arrival), "tenant {tenant}: {former:?} was granted before {arrival}");
                all.push(Served { tenant, cost, entered: entered[&arrival], granted: now });
            }
        };
        for (now, event) in events.iter().enumerate() {
            match event {
                Some((tenant, cost, count)) => {
                    let answer = group.join(&vec![claim_of(*tenant, *cost); *count]);
                    entered.extend((answer.base.0..).map(Seq).take(*count).map(|arrival| (arrival, now)));
                }
                None => group.serve_next(),
            }
            note_grants(&mut group, now, &entered);
        }
        let mut end = events.len();
        while !group.waiting.is_empty() {
            group.serve_next();
            note_grants(&mut group, end, &entered);
            end += 1;
        }
        for a in 1..5 {
            for b in a + 1..5 {
                let of = |tenant| all.iter().filter(move |served| served.tenant == tenant);
                let backlogged = |tenant, at| of(tenant).any(|s| s.entered < at && at <= s.granted);
                let largest = |tenant| of(tenant).map(|served| served.cost).max().unwrap_or(0);
                let bound = largest(a) + largest(b);
                // How far a is ahead of b, and its extremes since both have been backlogged.
                let (mut ahead, mut most, mut least) = (0_i64, 0_i64, 0_i64);
                for at in 0..=end {
                    if !(backlogged(a, at) && backlogged(b, at)) {
                        (ahead, most, least) = (0, 0, 0);
                        continue;
                    }
                    for served in all.iter().filter(|served| served.granted == at) {
                        let sign = i64::from(served.tenant == a) - i64::from(served.tenant == b);
                        ahead += sign * served.cost.cast_signed();
                    }
                    (most, least) = (most.max(ahead), least.min(ahead));
                    prop_assert!(
                        (most - least).unsigned_abs() <= bound,
                        "{a} and {b} are {} apart, {bound} at most: {all:?}", most - least
                    );
                }
            }
        }
    }

    /// A1 (order), A8 (retries): no b with entered(b) < granted(a) < granted(b) has a lesser (start tag, arrival) than a. So the numbers of the grants alone
    /// show whether their order was right, with retries too.
    #[test]
    fn grants_follow_start_tag_and_arrival_without_inversion(
        events in prop::collection::vec(
            prop_oneof![
                3 => (1_u64..5, 1_u64..4, 1_usize..4).prop_map(|(tenant, cost, count)| (Some((tenant, cost * UNIT_COST, count)), 0)),
                4 => Just((None, 0)),
                2 => (1_usize..6).prop_map(|back| (None, back)),
            ],
            1..120,
        ),
    ) {
        let mut sender = Sender::new(&one_per_window());
        sender.now += Micros(11_000_000);
        // By arrival: the claim, and the number of the last entry.
        let mut tickets: BTreeMap<Seq, (Claim, Seq)> = BTreeMap::new();
        let mut grants: Vec<Numbers> = Vec::new();
        let drain = vec![(None, 0); 500];
        for (joins, back) in events.into_iter().chain(drain) {
            let mut ops = Vec::new();
            let mut entering = Vec::new();
            if let Some((tenant, cost, count)) = joins {
                ops = vec![join(claim_of(tenant, cost)); count];
                entering = vec![(claim_of(tenant, cost), Seq::NONE); count];
            } else if back > 0 && back <= grants.len() {
                // A recently granted ticket is retried, unless its retry waits already.
                let Numbers { granted, start, arrival, .. } = grants[grants.len() - back];
                let (claim, entered) = tickets[&arrival];
                let is_last = grants.iter().all(|g| g.arrival != arrival || g.granted <= granted);
                if entered < granted && is_last {
                    ops = vec![Op::Join(Entry { claim, arrival, start })];
                    entering = vec![(claim, arrival)];
                }
            }
            if ops.is_empty() {
                sender.now += INTERVAL;
            }
            let answer = sender.send(ops).expect("an open session");
            for (number, (claim, arrival)) in (answer.base.0..).map(Seq).zip(entering) {
                let arrival = if arrival == Seq::NONE { number } else { arrival };
                tickets.insert(arrival, (claim, number));
            }
            for grant in &answer.grants {
                let (_, entered) = tickets[&grant.arrival];
                let (granted, start, arrival) = (grant.granted, grant.start, grant.arrival);
                grants.push(Numbers { entered, granted, start, arrival });
            }
        }
        for a in &grants {
            for b in &grants {
                let waited = b.entered < a.granted && a.granted < b.granted;
                prop_assert!(!waited || (a.start, a.arrival) < (b.start, b.arrival), "{a:?} was granted before {b:?}");
            }
        }
    }
}
