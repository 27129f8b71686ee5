//! `next_free` is exact if nothing else happens (A4): the head is refused just before it and granted at it.

use std::time::Duration;

use proptest::prelude::*;
use vorrang_scheduler::{
    COUNTED, Deployment, GroupConfig, LimitKind, Micros, Reserve, Tokens, message::Op,
};

use crate::sender::Sender;

fn deployment(id: usize, limits: &[(LimitKind, u64, u64)]) -> Deployment {
    limits.iter().fold(
        Deployment::new(format!("d{id}")),
        |d, (kind, limit, length)| {
            let units = if *kind == LimitKind::Requests { 1 } else { 20 };
            d.limit(*kind, limit * units, Duration::from_millis(*length))
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// With several limits, windows and deployments, cooldowns, pacing, a reserve and aging, and tickets of any size and priority.
    #[test]
    fn head_is_granted_exactly_at_next_free(
        limits in prop::collection::vec(
            prop::collection::vec((prop::sample::select(COUNTED.to_vec()), 1_u64..6, prop::sample::select(vec![1_000_u64, 3_000, 60_000])), 1..4),
            1..4,
        ),
        earlier in prop::collection::vec((0_u64..900_000, (0_u64..25, 0_u64..25), 0_i32..3, prop::option::weighted(0.1, 0_u64..9_000_000)), 1..40),
        pace_worse_than in prop::option::of(0_i32..3),
        reserve in prop::option::of((0_i32..3, 0.0..1.0)),
        aging in prop::option::of(1_u64..2_000),
    ) {
        let config = GroupConfig {
            pace_worse_than,
            reserve: reserve.map(|(priority, share)| Reserve { priority, share }),
            aging: aging.map(Duration::from_millis),
            ..GroupConfig::new(limits.iter().enumerate().map(|(i, l)| deployment(i, l)).collect())
        };
        let mut sender = Sender::new(&config);
        let (mut checked, mut cooled) = (false, false);
        for (gap, tokens, priority, cool) in earlier {
            sender.now += Micros(gap);
            let answer = sender.join(priority, tokens);
            if let (Some(grant), Some(cool)) = (answer.grants.first(), cool) {
                let (granted, deployment) = (grant.granted, grant.deployment.clone());
                let ops = vec![
                    Op::Report { granted, deployment: deployment.clone(), probe: grant.probe, again: false, ok: false, status: 429, cool: i64::try_from(cool).unwrap() },
                    Op::Done { granted, deployment, tokens: Tokens::MAX, excess: Tokens::ZERO, ok: false },
                ];
                sender.send(ops).expect("an open session");
                cooled = true;
                continue;
            }
            if answer.depth == 0 {
                continue;
            }
            // The time is unknown only while a probe is open.
            let Ok(wait) = u64::try_from(answer.next_free).map(Micros) else {
                prop_assert!(cooled, "next_free is unknown, though only time can make room");
                continue;
            };
            prop_assert!(wait > Micros::ZERO, "the head waits though there is room");
            prop_assert_eq!(sender.grants_at(sender.now + wait - Micros(1)), 0, "granted before next_free");
            prop_assert!(sender.grants_at(sender.now + wait) > 0, "not granted at next_free");
            checked = true;
        }
        prop_assume!(checked);
    }
}
