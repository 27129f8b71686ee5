//! Aging: by whom a ticket is overtaken, and by whom it is not.

use std::{collections::BTreeMap, time::Duration};

use proptest::prelude::*;
use vorrang_scheduler::{Claim, Deployment, GroupConfig, LimitKind, Share, TURN};

use crate::sender::Sender;

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// The bound: a ticket is only overtaken by tickets that arrive within (difference of priority) x S after it. And it is a bound that is
    /// used: within it the better one goes first. Whatever is paced or kept. With fair shares it is counted from where the ticket's turn begins, its arrival
    /// or where its tenant's last one ended.
    #[test]
    fn overtaking_is_bounded_by_priority_difference_times_aging_rate(
        worth in 1_000_u64..5_000_000,
        arrivals in prop::collection::vec((0_u64..1_500_000, -5_i32..5, 1_u64..4), 2..40),
        fair in any::<bool>(),
        pace_worse_than in prop::option::of(-5_i32..5),
    ) {
        let one_at_a_time = Deployment::new("a").limit(LimitKind::Requests, 1, Duration::from_secs(2));
        let config = GroupConfig {
            aging: Some(Duration::from_micros(worth)),
            pace_worse_than,
            fair,
            ..GroupConfig::new(vec![one_at_a_time])
        };
        let mut sender = Sender::new(&config);
        // A new group draws its first numbers from a clock that is 10 s ahead (P5): until then they stand still, and all who come are alike.
        sender.now += 11_000_000;
        let mut joined: BTreeMap<u64, (u64, i32)> = BTreeMap::new();
        // Number, when it went, where its turn began.
        let mut passed: Vec<(u64, u64, u64)> = Vec::new();
        for (gap, priority, tenant) in &arrivals {
            sender.now += gap;
            let share = Share { tenant: *tenant, cost: TURN };
            let answer = sender.join_as(Claim { share, ..Claim::new(*priority, 0) });
            joined.insert(answer.base, (sender.now, *priority));
            passed.extend(answer.grants.iter().map(|g| (g.arrival, sender.now, g.start)));
        }
        while passed.len() < arrivals.len() {
            sender.now += 100_000;
            let answer = sender.send(Vec::new()).expect("an open session");
            passed.extend(answer.grants.iter().map(|g| (g.arrival, sender.now, g.start)));
        }
        for (i, (first, went, _)) in passed.iter().enumerate() {
            for (second, _, start) in &passed[i + 1..] {
                let ((first_came, better), (second_came, worse)) = (joined[first], joined[second]);
                if second_came > *went {
                    continue;
                }
                let handicap = (i64::from(worse) - i64::from(better)) * worth.cast_signed();
                // Numbers are drawn from the clock, and each is one higher at least where it stands still.
                let from = second_came.max(*start);
                prop_assert!(fair || *start == 0);
                let after = first_came.cast_signed() - from.cast_signed();
                prop_assert!(
                    after <= handicap + 3 * 40,
                    "priority {worse} of {second_came} was overtaken by {better} of {first_came}"
                );
            }
        }
    }
}
