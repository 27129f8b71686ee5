//! Fair shares (P19): start-time fair queueing among the tenants of one priority.

mod properties;

use std::{collections::BTreeMap, time::Duration};

use vorrang_scheduler::{
    Claim, Deployment, Entry, GroupConfig, LimitKind, Micros, Seq, Share, UNIT_COST,
    message::{Answer, Op},
};

use crate::sender::Sender;

/// Microseconds between two grants: the window and its guard.
const INTERVAL: Micros = Micros(1_050_000);

/// One request per window.
fn one_per_window() -> GroupConfig {
    let deployment =
        Deployment::new("a").limit(LimitKind::Requests, 1, Duration::from_micros(1_000_000));
    GroupConfig {
        fair: true,
        ..GroupConfig::new(vec![deployment])
    }
}

fn claim_of(tenant: u64, cost: u64) -> Claim {
    Claim {
        share: Share { tenant, cost },
        ..Claim::new(0, 0)
    }
}

fn join(claim: Claim) -> Op {
    Op::Join(Entry::new(claim))
}

/// A group with fair shares, its waiting tickets and its grants.
struct FairGroup {
    sender: Sender,
    /// Waiting tickets by arrival.
    waiting: BTreeMap<Seq, Claim>,
    /// Arrival and claim, in the order of the grants.
    granted: Vec<(Seq, Claim)>,
}

impl FairGroup {
    /// With a full window.
    fn new(config: &GroupConfig) -> Self {
        let mut sender = Sender::new(config);
        // Sequence numbers begin 10 s above the clock (P5).
        sender.now += Micros(11_000_000);
        let mut group = FairGroup {
            sender,
            waiting: BTreeMap::new(),
            granted: Vec::new(),
        };
        group.fill_window();
        group
    }

    /// Another tenant uses the free slot.
    fn fill_window(&mut self) {
        self.join(&[claim_of(99, UNIT_COST)]);
        assert_eq!(self.take_served(), [99]);
    }

    /// In one step.
    fn join(&mut self, claims: &[Claim]) -> Answer {
        let ops = claims.iter().copied().map(join).collect();
        let answer = self.sender.send(ops).expect("an open session");
        for (number, claim) in (answer.base.0..).map(Seq).zip(claims) {
            self.waiting.insert(number, *claim);
        }
        self.note_grants(&answer);
        answer
    }

    fn note_grants(&mut self, answer: &Answer) {
        for grant in &answer.grants {
            let claim = self.waiting.remove(&grant.arrival).expect("it waited");
            self.granted.push((grant.arrival, claim));
        }
    }

    /// Tickets that still wait leave.
    fn leave(&mut self, arrivals: std::ops::Range<Seq>) {
        let left: Vec<Seq> = self
            .waiting
            .range(arrivals)
            .map(|(arrival, _)| *arrival)
            .collect();
        let leave = |arrival: &Seq| Op::Leave {
            claim: self.waiting[arrival],
            arrival: *arrival,
        };
        let ops = left.iter().map(leave).collect();
        for arrival in &left {
            self.waiting.remove(arrival);
        }
        let answer = self.sender.send(ops).expect("an open session");
        self.note_grants(&answer);
    }

    /// Waits until the window has room: the head is granted, if a ticket waits.
    fn serve_next(&mut self) {
        self.sender.now += INTERVAL;
        let answer = self.sender.send(Vec::new()).expect("an open session");
        self.note_grants(&answer);
    }

    /// The tenants of the grants since the last call.
    fn take_served(&mut self) -> Vec<u64> {
        let granted = std::mem::take(&mut self.granted);
        granted
            .into_iter()
            .map(|(_, claim)| claim.share.tenant)
            .collect()
    }

    fn serve(&mut self, count: usize) -> Vec<u64> {
        (0..count).for_each(|_| self.serve_next());
        self.take_served()
    }
}

/// How many of these grants went to a tenant.
fn grants_to(tenant: u64, served: &[u64]) -> usize {
    served.iter().filter(|served| **served == tenant).count()
}

/// A tenant with hundreds of waiting tickets does not delay another tenant by more than one service each.
#[test]
fn new_tenant_is_served_within_one_round() {
    let mut group = FairGroup::new(&one_per_window());
    group.join(&[claim_of(1, UNIT_COST); 250]);
    group.join(&[claim_of(2, UNIT_COST); 250]);
    assert_eq!(group.serve(6), [1, 2, 1, 2, 1, 2]);
    group.join(&[claim_of(3, UNIT_COST); 3]);
    let next = group.serve(9);
    assert!(next[..3].contains(&3), "{next:?}");
    assert_eq!(grants_to(3, &next), 3, "{next:?}");
}

/// An idle tenant gains no credit for the time it did not use, and no debt for service while no other tenant waited.
#[test]
fn idle_tenant_earns_no_credit_and_no_debt() {
    let mut group = FairGroup::new(&one_per_window());
    // One tenant alone is served twenty times, then the queue is empty.
    group.join(&[claim_of(1, UNIT_COST); 20]);
    assert_eq!(group.serve(20), [1; 20]);
    group.serve_next();
    group.fill_window();
    group.join(&[claim_of(1, UNIT_COST); 4]);
    group.join(&[claim_of(2, UNIT_COST); 4]);
    assert_eq!(group.serve(8), [1, 2, 1, 2, 1, 2, 1, 2]);
    // Tenant 2 is idle while tenant 1 is served, and does not catch up.
    group.join(&[claim_of(1, UNIT_COST); 30]);
    group.serve(10);
    group.join(&[claim_of(2, UNIT_COST); 6]);
    let next = group.serve(8);
    assert_eq!(grants_to(2, &next), 4, "{next:?}");
}

/// A tenant of three times the weight is served three times as often.
#[test]
fn service_is_proportional_to_weight() {
    let mut group = FairGroup::new(&one_per_window());
    let heavy = Share::new("weight 3", 1.0 / 3.0);
    let light = Share::new("weight 1", 1.0);
    let claims = |share, count| {
        vec![
            Claim {
                share,
                ..Claim::new(0, 0)
            };
            count
        ]
    };
    group.join(&claims(light, 100));
    group.join(&claims(heavy, 200));
    let count = grants_to(heavy.tenant, &group.serve(80));
    assert!((59..=61).contains(&count), "{count} of 80");
    // With one waiting ticket per tenant too: the finish tag of the last service is kept.
    let mut group = FairGroup::new(&one_per_window());
    group.join(&claims(light, 1));
    group.join(&claims(heavy, 1));
    let mut served = Vec::new();
    for _ in 0..80 {
        for tenant in group.serve(1) {
            served.push(tenant);
            let share = if tenant == heavy.tenant { heavy } else { light };
            group.join(&claims(share, 1));
        }
    }
    let count = grants_to(heavy.tenant, &served);
    assert!((58..=62).contains(&count), "{count} of 80");
}

/// With aging a service moves the start tag as far as one level of priority, so a tenant that arrives a little later does not wait for all tickets of another.
#[test]
fn tenants_alternate_with_aging_despite_later_arrival() {
    let mut group = FairGroup::new(&GroupConfig {
        aging: Some(Duration::from_secs(10)),
        ..one_per_window()
    });
    group.join(&[claim_of(1, UNIT_COST); 10]);
    group.sender.now += Micros(1_000);
    group.join(&[claim_of(2, UNIT_COST); 3]);
    assert_eq!(group.serve(6), [1, 2, 1, 2, 1, 2]);
    // A new tenant's start tag is its arrival, which is before the start tags of the other tenants by now.
    group.join(&[claim_of(3, UNIT_COST)]);
    assert_eq!(group.serve(1), [3]);
}

/// With aging too, service while no other tenant waited causes no debt.
#[test]
fn service_without_competition_causes_no_debt_with_aging() {
    let mut group = FairGroup::new(&GroupConfig {
        aging: Some(Duration::from_secs(100)),
        ..one_per_window()
    });
    group.join(&[claim_of(1, UNIT_COST); 20]);
    assert_eq!(group.serve(20), [1; 20]);
    group.serve_next();
    group.fill_window();
    group.join(&[claim_of(1, UNIT_COST); 2]);
    group.sender.now += Micros(1_000);
    group.join(&[claim_of(2, UNIT_COST); 2]);
    assert_eq!(group.serve(4), [1, 2, 1, 2]);
}

/// A better priority is served first, and service at one priority does not count at another.
#[test]
fn service_is_shared_within_each_priority() {
    let mut group = FairGroup::new(&one_per_window());
    let at = |priority, tenant| Claim {
        priority,
        ..claim_of(tenant, UNIT_COST)
    };
    group.join(&[at(7, 1); 100]);
    group.join(&[at(0, 1), at(0, 1), at(0, 2), at(0, 2)]);
    group.join(&[at(7, 2); 2]);
    assert_eq!(group.serve(4), [1, 2, 1, 2]);
    let next = group.serve(4);
    assert_eq!(grants_to(2, &next), 2, "{next:?}");
}

/// Tickets that leave without a grant do not count as service: neither many at once, nor those of a tenant that always asks for more than it gets.
#[test]
fn ticket_that_leaves_uses_no_service() {
    let mut group = FairGroup::new(&one_per_window());
    group.join(&[claim_of(1, UNIT_COST); 40]);
    let answer = group.join(&[claim_of(2, UNIT_COST); 30]);
    group.leave(answer.base..answer.base + 30);
    group.join(&[claim_of(2, UNIT_COST); 2]);
    let next = group.serve(4);
    assert_eq!(grants_to(2, &next), 2, "{next:?}");
    // Ten tickets of tenant 1 arrive for each grant, and leave after five more.
    let mut group = FairGroup::new(&one_per_window());
    let mut served = Vec::new();
    let mut batches = std::collections::VecDeque::new();
    for _ in 0..100 {
        let answer = group.join(&[claim_of(1, UNIT_COST); 10]);
        batches.push_back(answer.base..answer.base + 10);
        group.join(&[claim_of(2, UNIT_COST)]);
        served.extend(group.serve(1));
        if batches.len() > 5 {
            let oldest = batches.pop_front().expect("there are some");
            group.leave(oldest);
        }
    }
    let count = grants_to(1, &served);
    assert!((49..=51).contains(&count), "{count} of 100");
}

/// A8 (retries): a retry has the least arrival of its tenant queue. A full queue displaces the newest ticket of the longest tenant queue.
#[test]
fn retry_precedes_its_tenant_queue_and_a_full_queue_drops_from_the_longest() {
    let config = GroupConfig {
        max_queue_depth: Some(4),
        ..one_per_window()
    };
    let mut group = FairGroup::new(&config);
    let first = group.join(&[claim_of(1, UNIT_COST); 3]);
    group.serve_next();
    assert_eq!(
        group.granted.pop(),
        Some((first.base, claim_of(1, UNIT_COST)))
    );
    let retry = Op::Join(Entry {
        claim: claim_of(1, UNIT_COST),
        arrival: first.base,
        start: 1,
    });
    group.waiting.insert(first.base, claim_of(1, UNIT_COST));
    group.sender.send(vec![retry]).expect("an open session");
    group.join(&[claim_of(2, UNIT_COST)]);
    // The fifth ticket displaces the newest of tenant 1. The sixth is the newest of tenant 1, so it is refused itself.
    let fifth = group.join(&[claim_of(3, UNIT_COST)]);
    assert_eq!(fifth.refusals, [(first.base + 2, 2)]);
    let sixth = group.join(&[claim_of(1, UNIT_COST)]);
    assert_eq!(sixth.refusals, [(sixth.base, 2)]);
    // A tenant queue that is as long as the longest displaces none of another tenant.
    let seventh = group.join(&[claim_of(2, UNIT_COST)]);
    assert_eq!(seventh.refusals, [(seventh.base, 2)]);
    group.serve_next();
    assert_eq!(
        group.granted.last(),
        Some(&(first.base, claim_of(1, UNIT_COST)))
    );
}

/// Tenant queues without tickets are forgotten after the time of the charge log (P11).
#[test]
fn idle_tenants_are_forgotten() {
    let mut group = FairGroup::new(&one_per_window());
    for tenant in 1..=50 {
        group.join(&[claim_of(tenant, UNIT_COST)]);
    }
    // The fifty, the tenant that filled the window, and their priority.
    assert_eq!(group.sender.census().tenants, 52);
    group.serve(50);
    // One tenant continues.
    group.join(&[claim_of(1, UNIT_COST); 9]);
    let census = group.sender.census();
    assert!(
        census.tenants > 1 && census.idle < census.tenants,
        "{census:?}"
    );
    // The lease is longer than the window here: three seconds.
    group.serve(5);
    let census = group.sender.census();
    assert_eq!((census.tenants, census.idle), (2, 0), "{census:?}");
}
