//! Fair shares after a loss (P3, P5, P19).

use crate::*;
use vorrang_scheduler::{Share, TURN};

fn fair() -> GroupConfig {
    GroupConfig {
        fair: true,
        ..GroupConfig::new(vec![requests(1)])
    }
}

fn turn(tenant: u64, arrival: u64, start: u64) -> Op {
    let share = Share { tenant, cost: TURN };
    Op::Join {
        claim: Claim {
            share,
            ..Claim::new(0, 1)
        },
        arrival,
        start,
    }
}

/// P5 for turns: after a loss none begins before what the sender knows, or a retry that was away would come behind all of those.
#[test]
fn turns_begin_above_what_is_known() {
    let mut group = Group::new();
    let mut a = Sender::with("a", &fair());
    let answer = a.send(&mut group, vec![turn(1, 0, 0); 5]);
    assert_eq!(
        answer.starts,
        [1, 1 + TURN, 1 + 2 * TURN, 1 + 3 * TURN, 1 + 4 * TURN]
    );
    assert_eq!(answer.horizon, 1 + 5 * TURN);
    group.state = None;
    a.message.horizon = answer.horizon;
    let again = a.again(&mut group, vec![turn(2, 0, 0)]);
    assert_eq!(again.starts, [answer.horizon]);
}

/// P3 for turns: who told their start have it again, and who comes new then comes to the first of them, not behind all.
#[test]
fn told_starts_are_kept_and_the_first_of_them_is_the_floor() {
    let mut group = Group::new();
    let mut a = Sender::with("a", &fair());
    a.send(&mut group, vec![turn(1, 0, 0)]);
    let waiting = a.send(&mut group, vec![turn(1, 0, 0); 4]);
    group.state = None;
    let told = [2, 0, 3, 1].map(|k: usize| turn(1, waiting.base + k as u64, waiting.starts[k]));
    let answer = a.again(&mut group, told.to_vec());
    assert_eq!(answer.starts, [2, 0, 3, 1].map(|k| waiting.starts[k]));
    let answer = a.send(&mut group, vec![turn(2, 0, 0), turn(1, 0, 0)]);
    assert_eq!(answer.starts, [waiting.starts[0], waiting.starts[3] + TURN]);
}

/// A group whose order becomes another one begins anew, and its tickets with it.
#[test]
fn a_group_becomes_fair_and_its_tickets_join_anew() {
    let mut group = Group::new();
    let mut a = Sender::new("a", vec![requests(1)]);
    let answer = a.send(&mut group, vec![turn(1, 0, 0); 3]);
    assert!(answer.starts.is_empty() && answer.horizon == 0);
    let mut b = Sender::with("b", &fair());
    assert_eq!(b.try_send(&mut group, Vec::new()).verdict, Verdict::Resync);
    b.send(&mut group, Vec::new());
    let again = a.again(
        &mut group,
        vec![turn(1, answer.base + 1, 0), turn(1, answer.base + 2, 0)],
    );
    // Before all that are given turns; in their order.
    assert_eq!(again.starts, [1, 1]);
}
