//! Fair shares: what tenants of one priority get of each other's time (issue 4).

use std::{collections::BTreeMap, time::Duration};

use proptest::prelude::*;
use vorrang_scheduler::{
    Claim, Deployment, Entry, GroupConfig, LimitKind, Share, TURN,
    message::{Answer, Op},
};

use crate::sender::Sender;

/// Between two grants.
const INTERVAL: u64 = 1_050_000;

/// One request goes at a time.
fn one_by_one() -> GroupConfig {
    let deployment =
        Deployment::new("a").limit(LimitKind::Requests, 1, Duration::from_micros(1_000_000));
    GroupConfig {
        fair: true,
        ..GroupConfig::new(vec![deployment])
    }
}

fn of(tenant: u64, cost: u64) -> Claim {
    Claim {
        share: Share { tenant, cost },
        ..Claim::new(0, 0)
    }
}

fn join(claim: Claim) -> Op {
    Op::Join(Entry {
        claim,
        arrival: 0,
        start: 0,
    })
}

/// A group, and whose its tickets are.
struct Line {
    sender: Sender,
    claims: BTreeMap<u64, Claim>,
    /// In the order of the grants.
    granted: Vec<(u64, Claim)>,
}

impl Line {
    /// With its only slot taken.
    fn new(config: &GroupConfig) -> Self {
        let mut sender = Sender::new(config);
        sender.now += 11_000_000;
        let mut line = Line {
            sender,
            claims: BTreeMap::new(),
            granted: Vec::new(),
        };
        line.join(&[of(99, TURN)]);
        assert_eq!(line.take().len(), 1);
        line
    }

    /// All at once; where their turns begin.
    fn join(&mut self, claims: &[Claim]) -> Answer {
        let ops = claims.iter().copied().map(join).collect();
        let answer = self.sender.send(ops).expect("an open session");
        for (number, claim) in (answer.base..).zip(claims) {
            self.claims.insert(number, *claim);
        }
        self.collect(&answer);
        answer
    }

    fn collect(&mut self, answer: &Answer) {
        for grant in &answer.grants {
            let claim = self.claims.remove(&grant.arrival).expect("it waited");
            self.granted.push((grant.arrival, claim));
        }
    }

    /// Those of these numbers that still wait give up.
    fn leave(&mut self, numbers: std::ops::Range<u64>) {
        let gone: Vec<u64> = self
            .claims
            .range(numbers)
            .map(|(number, _)| *number)
            .collect();
        let leave = |arrival: &u64| Op::Leave {
            claim: self.claims[arrival],
            arrival: *arrival,
        };
        let ops = gone.iter().map(leave).collect();
        for number in &gone {
            self.claims.remove(number);
        }
        let answer = self.sender.send(ops).expect("an open session");
        self.collect(&answer);
    }

    /// The next one goes, if anyone waits.
    fn serve(&mut self) {
        self.sender.now += INTERVAL;
        let answer = self.sender.send(Vec::new()).expect("an open session");
        self.collect(&answer);
    }

    /// Those that went since this was last asked.
    fn take(&mut self) -> Vec<u64> {
        let all = std::mem::take(&mut self.granted);
        all.into_iter()
            .map(|(_, claim)| claim.share.tenant)
            .collect()
    }

    fn serve_all(&mut self, many: usize) -> Vec<u64> {
        (0..many).for_each(|_| self.serve());
        self.take()
    }
}

/// Issue 4, fair shares: a tenant with a thousand tickets does not keep the others waiting; who comes new is served within one round.
#[test]
fn new_tenant_is_served_within_one_round() {
    let mut line = Line::new(&one_by_one());
    line.join(&[of(1, TURN); 250]);
    line.join(&[of(2, TURN); 250]);
    assert_eq!(line.serve_all(6), [1, 2, 1, 2, 1, 2]);
    line.join(&[of(3, TURN); 3]);
    let next = line.serve_all(9);
    assert!(next[..3].contains(&3), "{next:?}");
    assert_eq!(next.iter().filter(|one| **one == 3).count(), 3, "{next:?}");
    // Its own tickets in order.
    let numbers: Vec<u64> = line.claims.keys().copied().collect();
    assert!(numbers.is_sorted());
}

/// Issue 4, fair shares: who was away has saved nothing, and owes nothing for what it took while nobody else asked.
#[test]
fn idle_tenant_earns_no_credit_and_no_debt() {
    let mut line = Line::new(&one_by_one());
    // Alone for twenty turns, then nobody.
    line.join(&[of(1, TURN); 20]);
    assert_eq!(line.serve_all(20), [1; 20]);
    line.serve();
    line.join(&[of(99, TURN)]);
    line.take();
    line.join(&[of(1, TURN); 4]);
    line.join(&[of(2, TURN); 4]);
    assert_eq!(line.serve_all(8), [1, 2, 1, 2, 1, 2, 1, 2]);
    // Away while another one is served: that is not made up for.
    line.join(&[of(1, TURN); 30]);
    line.serve_all(10);
    line.join(&[of(2, TURN); 6]);
    let next = line.serve_all(8);
    assert_eq!(next.iter().filter(|one| **one == 2).count(), 4, "{next:?}");
}

/// Issue 4, fair shares: by weight, and by cost.
#[test]
fn service_is_proportional_to_weight() {
    let mut line = Line::new(&one_by_one());
    let heavy = Share::new("three times", 1.0 / 3.0);
    let light = Share::new("once", 1.0);
    let claims = |share, many| {
        vec![
            Claim {
                share,
                ..Claim::new(0, 0)
            };
            many
        ]
    };
    line.join(&claims(light, 100));
    line.join(&claims(heavy, 200));
    let served = line.serve_all(80);
    let many = served.iter().filter(|one| **one == heavy.tenant).count();
    assert!((59..=61).contains(&many), "{many} of 80");
    // With one ticket at a time, too: what it has had is remembered.
    let mut line = Line::new(&one_by_one());
    line.join(&claims(light, 1));
    line.join(&claims(heavy, 1));
    let mut had = BTreeMap::new();
    for _ in 0..80 {
        line.serve();
        for tenant in line.take() {
            *had.entry(tenant).or_insert(0) += 1;
            let share = if tenant == heavy.tenant { heavy } else { light };
            line.join(&claims(share, 1));
        }
    }
    let many = had[&heavy.tenant];
    assert!((58..=62).contains(&many), "{many} of 80");
}

/// Issue 4, fair shares with aging: a turn is worth as much waiting as a level of priority, so that who comes a little later does not wait for all of
/// another's.
#[test]
fn tenants_alternate_with_aging_despite_later_arrival() {
    let mut line = Line::new(&GroupConfig {
        aging: Some(Duration::from_secs(10)),
        ..one_by_one()
    });
    line.join(&[of(1, TURN); 10]);
    line.sender.now += 1_000;
    line.join(&[of(2, TURN); 3]);
    assert_eq!(line.serve_all(6), [1, 2, 1, 2, 1, 2]);
    // Who comes when the others' turns are further off than that is the next.
    line.join(&[of(3, TURN)]);
    assert_eq!(line.serve_all(1), [3]);
}

/// Issue 4, fair shares with aging: what was taken while nobody else waited is not owed.
#[test]
fn service_without_competition_causes_no_debt_with_aging() {
    let mut line = Line::new(&GroupConfig {
        aging: Some(Duration::from_secs(100)),
        ..one_by_one()
    });
    line.join(&[of(1, TURN); 20]);
    assert_eq!(line.serve_all(20), [1; 20]);
    line.serve();
    line.join(&[of(99, TURN)]);
    line.take();
    line.join(&[of(1, TURN); 2]);
    line.sender.now += 1_000;
    line.join(&[of(2, TURN); 2]);
    assert_eq!(line.serve_all(4), [1, 2, 1, 2]);
}

/// Issue 4, fair shares: priorities come first, and what a tenant asks for at one takes nothing from what it asks for at another.
#[test]
fn service_is_shared_within_each_priority() {
    let mut line = Line::new(&one_by_one());
    let at = |priority, tenant| Claim {
        priority,
        ..of(tenant, TURN)
    };
    line.join(&[at(7, 1); 100]);
    line.join(&[at(0, 1), at(0, 1), at(0, 2), at(0, 2)]);
    line.join(&[at(7, 2); 2]);
    assert_eq!(line.serve_all(4), [1, 2, 1, 2]);
    let next = line.serve_all(4);
    assert_eq!(next.iter().filter(|one| **one == 2).count(), 2, "{next:?}");
}

/// Issue 4, fair shares: turns of those that left without a grant were not taken: not of a crowd that leaves at once, nor of a tenant that asks for more than
/// it gets for ever, whose tickets give up one after the other.
#[test]
fn ticket_that_leaves_uses_no_service() {
    let mut line = Line::new(&one_by_one());
    line.join(&[of(1, TURN); 40]);
    let answer = line.join(&[of(2, TURN); 30]);
    line.leave(answer.base..answer.base + 30);
    line.join(&[of(2, TURN); 2]);
    let next = line.serve_all(4);
    assert_eq!(next.iter().filter(|one| **one == 2).count(), 2, "{next:?}");
    // Ten come for each turn; each waits for five turns, then gives up.
    let mut line = Line::new(&one_by_one());
    let mut served = Vec::new();
    let mut crowd = std::collections::VecDeque::new();
    for _ in 0..100 {
        let answer = line.join(&[of(1, TURN); 10]);
        crowd.push_back(answer.base..answer.base + 10);
        line.join(&[of(2, TURN)]);
        line.serve();
        served.extend(line.take());
        if crowd.len() > 5 {
            let old = crowd.pop_front().expect("there are some");
            line.leave(old);
        }
    }
    let many = served.iter().filter(|one| **one == 1).count();
    assert!((49..=51).contains(&many), "{many} of 100");
}

/// A8 with fair shares: a retry comes before its tenant's others. And a full queue turns the newest of the longest line away, whoever comes.
#[test]
fn retry_precedes_its_tenant_queue_and_a_full_queue_drops_from_the_longest() {
    let config = GroupConfig {
        max_queue_depth: Some(4),
        ..one_by_one()
    };
    let mut line = Line::new(&config);
    let first = line.join(&[of(1, TURN); 3]);
    line.serve();
    assert_eq!(line.granted.pop(), Some((first.base, of(1, TURN))));
    let again = Op::Join(Entry {
        claim: of(1, TURN),
        arrival: first.base,
        start: 1,
    });
    line.claims.insert(first.base, of(1, TURN));
    line.sender.send(vec![again]).expect("an open session");
    line.join(&[of(2, TURN)]);
    // The fifth displaces the newest of tenant 1, not itself; the next one of tenant 1 itself.
    let fifth = line.join(&[of(3, TURN)]);
    assert_eq!(fifth.refusals, [(first.base + 2, 2)]);
    let sixth = line.join(&[of(1, TURN)]);
    assert_eq!(sixth.refusals, [(sixth.base, 2)]);
    // One as long as the longest does not displace another's.
    let seventh = line.join(&[of(2, TURN)]);
    assert_eq!(seventh.refusals, [(seventh.base, 2)]);
    line.serve();
    assert_eq!(line.granted.last(), Some(&(first.base, of(1, TURN))));
}

/// Issue 4, fair shares: tenants are forgotten when they have had nothing to ask for as long as anything is remembered.
#[test]
fn idle_tenants_are_forgotten() {
    let mut line = Line::new(&one_by_one());
    for tenant in 1..=50 {
        line.join(&[of(tenant, TURN)]);
    }
    // Each, the one that went first, and their priority.
    assert_eq!(line.sender.census().tenants, 52);
    line.serve_all(50);
    // One of them goes on.
    line.join(&[of(1, TURN); 9]);
    let census = line.sender.census();
    assert!(
        census.tenants > 1 && census.idle < census.tenants,
        "{census:?}"
    );
    // The lease is the longest time here: three seconds.
    line.serve_all(5);
    let census = line.sender.census();
    assert_eq!((census.tenants, census.idle), (2, 0), "{census:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Issue 4, fair shares: of two tenants that have tickets of one priority all the time, neither gets more than the other but for what
    /// their largest tickets cost, from any moment to any other. And each tenant's own tickets go in their order.
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
        let mut line = Line::new(&one_by_one());
        let mut entered: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
        // Moments are counted by events.
        let mut waits: Vec<(u64, u64, usize, usize)> = Vec::new();
        let mut last_of: BTreeMap<u64, u64> = BTreeMap::new();
        let mut note = |line: &mut Line, moment: usize, entered: &BTreeMap<u64, (u64, u64)>| {
            for (number, claim) in std::mem::take(&mut line.granted) {
                let Share { tenant, cost } = claim.share;
                let former = last_of.insert(tenant, number);
                assert!(former < Some(number), "of one tenant {former:?} went before {number}");
                let (from, _) = entered[&number];
                waits.push((tenant, cost, usize::try_from(from).unwrap(), moment));
            }
        };
        for (moment, event) in events.iter().enumerate() {
            match event {
                Some((tenant, cost, many)) => {
                    let claims = vec![of(*tenant, *cost); *many];
                    let answer = line.join(&claims);
                    for number in (answer.base..).take(*many) {
                        entered.insert(number, (moment as u64, *tenant));
                    }
                }
                None => line.serve(),
            }
            note(&mut line, moment, &entered);
        }
        let mut moment = events.len();
        while !line.claims.is_empty() {
            line.serve();
            note(&mut line, moment, &entered);
            moment += 1;
        }
        let end = moment;
        for a in 1..5 {
            for b in a + 1..5 {
                let backlogged = |tenant, at| waits.iter().any(|w| w.0 == tenant && w.2 < at && at <= w.3);
                let largest = |tenant| waits.iter().filter(|w| w.0 == tenant).map(|w| w.1).max().unwrap_or(0);
                let bound = largest(a) + largest(b);
                let (mut ahead, mut most, mut least) = (0_i64, 0_i64, 0_i64);
                for at in 0..=end {
                    if !(backlogged(a, at) && backlogged(b, at)) {
                        (ahead, most, least) = (0, 0, 0);
                        continue;
                    }
                    for (tenant, cost, _, to) in &waits {
                        let sign = i64::from(*tenant == a) - i64::from(*tenant == b);
                        if *to == at {
                            ahead += sign * cost.cast_signed();
                        }
                    }
                    (most, least) = (most.max(ahead), least.min(ahead));
                    prop_assert!(
                        (most - least).unsigned_abs() <= bound,
                        "{a} and {b} are {} apart, {bound} at most: {waits:?}", most - least
                    );
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// A1 with fair shares, A8: the numbers of a ticket alone tell that nobody was inverted: no b with entered(b) < granted(a) < granted(b) has a lesser
    /// (start, arrival) than a. Whoever comes again.
    #[test]
    fn grants_follow_start_tag_and_arrival_without_inversion(
        events in prop::collection::vec(
            prop_oneof![
                3 => (1_u64..5, 1_u64..4, 1_usize..4).prop_map(|(tenant, cost, many)| (Some((tenant, cost * TURN, many)), 0)),
                4 => Just((None, 0)),
                2 => (1_usize..6).prop_map(|back| (None, back)),
            ],
            1..120,
        ),
    ) {
        let mut sender = Sender::new(&one_by_one());
        sender.now += 11_000_000;
        // Arrival -> its claim, and the number of its last entry.
        let mut tickets: BTreeMap<u64, (Claim, u64)> = BTreeMap::new();
        let mut passed: Vec<(u64, u64, u64, u64)> = Vec::new();
        let drain = vec![(None, 0); 500];
        for (joins, back) in events.into_iter().chain(drain) {
            let mut ops = Vec::new();
            let mut entering = Vec::new();
            if let Some((tenant, cost, many)) = joins {
                ops = vec![join(of(tenant, cost)); many];
                entering = vec![(of(tenant, cost), 0); many];
            } else if back > 0 && back <= passed.len() {
                // One that had its turn lately comes again, unless it waits again already.
                let (_, granted, start, arrival) = passed[passed.len() - back];
                let (claim, entered) = tickets[&arrival];
                if entered < granted && passed.iter().all(|p| p.3 != arrival || p.1 <= granted) {
                    ops = vec![Op::Join(Entry { claim, arrival, start })];
                    entering = vec![(claim, arrival)];
                }
            }
            if ops.is_empty() {
                sender.now += INTERVAL;
            }
            let answer = sender.send(ops).expect("an open session");
            for (number, (claim, arrival)) in (answer.base..).zip(entering) {
                let arrival = if arrival == 0 { number } else { arrival };
                tickets.insert(arrival, (claim, number));
            }
            for grant in &answer.grants {
                let (_, entered) = tickets[&grant.arrival];
                passed.push((entered, grant.granted, grant.start, grant.arrival));
            }
        }
        for a in &passed {
            for b in &passed {
                let waited = b.0 < a.1 && a.1 < b.1;
                prop_assert!(!waited || (a.2, a.3) < (b.2, b.3), "{a:?} went before {b:?}");
            }
        }
    }
}
