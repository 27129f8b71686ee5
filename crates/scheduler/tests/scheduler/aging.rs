//! Aging (P18): how much later a ticket may arrive and still be granted first.

use std::{collections::BTreeMap, time::Duration};

use proptest::prelude::*;
use vorrang_scheduler::{Claim, Deployment, GroupConfig, LimitKind, Micros, Seq, Share, UNIT_COST};

use crate::sender::Sender;

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// A ticket is overtaken only by tickets that arrive at most (difference of priorities) x aging rate later, with pacing too. With fair shares the bound
    /// counts from the ticket's start tag.
    #[test]
    fn overtaking_is_bounded_by_priority_difference_times_aging_rate(
        aging_rate in 1_000_u64..5_000_000,
        arrivals in prop::collection::vec((0_u64..1_500_000, -5_i32..5, 1_u64..4), 2..40),
        fair in any::<bool>(),
        pace_worse_than in prop::option::of(-5_i32..5),
    ) {
        let one_at_a_time = Deployment::new("a").limit(LimitKind::Requests, 1, Duration::from_secs(2));
        let config = GroupConfig {
            aging: Some(Duration::from_micros(aging_rate)),
            pace_worse_than,
            fair,
            ..GroupConfig::new(vec![one_at_a_time])
        };
        let mut sender = Sender::new(&config);
        // Sequence numbers begin 10 s above the clock (P5), and until then they do not follow it.
        sender.now += Micros(11_000_000);
        let mut joined: BTreeMap<Seq, (Micros, i32)> = BTreeMap::new();
        // Arrival, time of the grant, start tag.
        let mut grants: Vec<(Seq, Micros, u64)> = Vec::new();
        for (gap, priority, tenant) in &arrivals {
            sender.now += Micros(*gap);
            let share = Share { tenant: *tenant, cost: UNIT_COST };
            let answer = sender.join_as(Claim { share, ..Claim::new(*priority, 0) });
            joined.insert(answer.base, (sender.now, *priority));
            grants.extend(answer.grants.iter().map(|g| (g.arrival, sender.now, g.start)));
        }
        while grants.len() < arrivals.len() {
            sender.now += Micros(100_000);
            let answer = sender.send(Vec::new()).expect("an open session");
            grants.extend(answer.grants.iter().map(|g| (g.arrival, sender.now, g.start)));
        }
        for (i, (first, granted_at, _)) in grants.iter().enumerate() {
            for (second, _, start) in &grants[i + 1..] {
                let ((first_joined, better), (second_joined, worse)) = (joined[first], joined[second]);
                if second_joined > *granted_at {
                    continue;
                }
                let bound = (i64::from(worse) - i64::from(better)) * aging_rate.cast_signed();
                // Sequence numbers follow the clock, and each is at least one higher than the last.
                let from = second_joined.0.max(*start);
                prop_assert!(fair || *start == 0);
                let after = first_joined.0.cast_signed() - from.cast_signed();
                prop_assert!(
                    after <= bound + 3 * 40,
                    "priority {worse} of {second_joined:?} was overtaken by {better} of {first_joined:?}"
                );
            }
        }
    }
}
