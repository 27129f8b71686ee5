//! Limits by kind of token: each kind is reserved, corrected and charged separately.

use crate::*;

const MINUTE: Duration = Duration::from_secs(60);

fn limited(limits: &[(LimitKind, u64)]) -> Vec<Deployment> {
    let a = Deployment::new("a");
    let with = |a: Deployment, (kind, limit): &(LimitKind, u64)| a.limit(*kind, *limit, MINUTE);
    vec![limits.iter().fold(a, with)]
}

fn call(input: u64, output: u64) -> Op {
    join(0, Tokens::new(input, output))
}

fn corrected(granted: Seq, tokens: Tokens, excess: Tokens) -> Op {
    Op::Done {
        granted,
        deployment: "a".into(),
        tokens,
        excess,
        ok: true,
    }
}

#[test]
fn each_limit_kind_holds_the_head_and_is_named_as_the_reason() {
    let cases = [
        (LimitKind::Requests, 1, reason::REQUESTS),
        (LimitKind::Tokens, 130, reason::TOKENS),
        (LimitKind::InputTokens, 80, reason::INPUT_TOKENS),
        (LimitKind::OutputTokens, 50, reason::OUTPUT_TOKENS),
    ];
    for (kind, limit, expected) in cases {
        let mut group = Group::new();
        let mut a = Sender::new("a", limited(&[(kind, limit)]));
        let answer = a.send(&mut group, vec![call(50, 30), call(50, 30)]);
        assert_eq!((answer.grants.len(), answer.depth), (1, 1), "{kind:?}");
        assert_eq!(answer.reasons, expected, "{kind:?}");
        assert_eq!(answer.next_free.unsigned_abs(), SPAN.0, "{kind:?}");
        assert_eq!(answer.used[0].cost, Cost::call(Tokens::new(50, 30)));
    }
}

#[test]
fn limits_of_input_and_output_tokens_are_independent() {
    let mut group = Group::new();
    let limits = [(LimitKind::InputTokens, 100), (LimitKind::OutputTokens, 10)];
    let mut a = Sender::new("a", limited(&limits));
    let answer = a.send(&mut group, vec![call(60, 0), call(40, 10), call(0, 1)]);
    assert_eq!(
        (answer.grants.len(), answer.reasons),
        (2, reason::OUTPUT_TOKENS)
    );
    let answer = a.send(&mut group, Vec::new());
    assert_eq!(answer.used[0].cost.amounts(), [2, 110, 100, 10]);
}

#[test]
fn request_above_the_limit_of_one_kind_never_fits() {
    let mut group = Group::new();
    let limits = [(LimitKind::Tokens, 1000), (LimitKind::OutputTokens, 10)];
    let mut a = Sender::new("a", limited(&limits));
    let answer = a.send(&mut group, vec![call(900, 11), call(900, 10), call(995, 6)]);
    let refused: Vec<u16> = answer.refusals.iter().map(|(_, code)| *code).collect();
    assert_eq!((refused, answer.grants.len()), (vec![NEVER_FITS; 2], 1));
}

/// P14 (corrections): an entry shrinks in each kind separately. Tokens above the reservation count from the time of the correction.
#[test]
fn correction_shrinks_one_kind_and_adds_the_excess_of_the_other() {
    let mut group = Group::new();
    let limits = [
        (LimitKind::InputTokens, 100),
        (LimitKind::OutputTokens, 100),
    ];
    let mut a = Sender::new("a", limited(&limits));
    let granted = a.send(&mut group, vec![call(70, 20)]).grants[0].granted;
    group.now += 10 * SECOND;
    let ops = vec![corrected(granted, Tokens::new(30, 20), Tokens::new(0, 50))];
    let answer = a.send(&mut group, ops);
    assert_eq!(answer.used[0].cost, Cost::call(Tokens::new(30, 70)));
    // 70 input tokens and 30 output tokens are free at once. More output tokens are free when the reservation expires.
    let answer = a.send(&mut group, vec![call(70, 30)]);
    assert_eq!(answer.grants.len(), 1);
    let answer = a.send(&mut group, vec![call(0, 20)]);
    let left = Micros(answer.next_free.unsigned_abs());
    assert_eq!(
        (answer.reasons, left),
        (reason::OUTPUT_TOKENS, SPAN - 10 * SECOND)
    );
    group.now += left;
    let answer = a.send(&mut group, Vec::new());
    assert_eq!(answer.grants.len(), 1);
    assert_eq!(
        answer.used[0].cost,
        Cost {
            requests: 2,
            tokens: Tokens::new(70, 100)
        }
    );
}

/// P14 (corrections): a correction never enlarges the reservation.
#[test]
fn correction_above_the_reservation_changes_nothing() {
    let mut group = Group::new();
    let mut a = Sender::new("a", limited(&[(LimitKind::Tokens, 100)]));
    let granted = a.send(&mut group, vec![call(30, 20)]).grants[0].granted;
    let answer = a.send(
        &mut group,
        vec![corrected(granted, Tokens::MAX, Tokens::ZERO)],
    );
    assert_eq!(answer.used[0].cost, Cost::call(Tokens::new(30, 20)));
}

/// P13 (conservative charges): all limits of a deployment are charged for unaccounted instances, the limit of both kinds together too.
#[test]
fn conservative_charge_fills_the_limits_of_all_kinds() {
    for (limits, charged) in [
        (
            vec![(LimitKind::InputTokens, 40), (LimitKind::OutputTokens, 60)],
            [0, 100, 40, 60],
        ),
        (
            vec![(LimitKind::Tokens, 300), (LimitKind::OutputTokens, 60)],
            [0, 300, 240, 60],
        ),
        (
            vec![
                (LimitKind::Tokens, 70),
                (LimitKind::InputTokens, 50),
                (LimitKind::OutputTokens, 60),
            ],
            [0, 110, 50, 60],
        ),
        (vec![(LimitKind::Tokens, 300)], [0, 300, 300, 0]),
    ] {
        let mut group = Group::new();
        let mut a = Sender::new("a", limited(&limits));
        a.send(&mut group, Vec::new());
        group.state = None;
        group.certain = false;
        a.peers.push("unaccounted".into());
        let answer = group.advance(4 * SECOND, &mut a);
        assert_eq!(answer.used[0].cost.amounts(), charged, "{limits:?}");
    }
}

/// P13 (conservative charges): for each kind, what the newest usage snapshot shows is charged as far as no instance reports it.
#[test]
fn charge_from_a_usage_snapshot_is_computed_for_each_kind() {
    let mut group = Group::after_a_loss();
    let limits = [
        (LimitKind::InputTokens, 100),
        (LimitKind::OutputTokens, 100),
    ];
    let mut a = Sender::new("a", limited(&limits));
    a.peers.push("departed".into());
    a.departed.push(("departed".into(), 5 * SECOND));
    a.usage = usage(SECOND, 50, (2, 50, 60));
    // Reported are more input tokens than the usage snapshot shows, and fewer output tokens.
    a.send(
        &mut group,
        vec![log_charge(Seq(7), Tokens::new(55, 20), 2 * SECOND)],
    );
    let answer = group.advance(4 * SECOND, &mut a);
    assert_eq!(answer.used[0].cost.amounts(), [2, 115, 55, 60]);
}

#[test]
fn roll_out_keeps_the_stricter_limit_of_each_kind() {
    let mut group = Group::new();
    let old = [(LimitKind::InputTokens, 100), (LimitKind::OutputTokens, 20)];
    let new = [(LimitKind::InputTokens, 50), (LimitKind::Tokens, 60)];
    let mut old = Sender::new("old", limited(&old));
    let mut new = Sender::new("new", limited(&new));
    old.send(&mut group, Vec::new());
    new.send(&mut group, Vec::new());
    for (tokens, reasons) in [
        ((42, 0), reason::INPUT_TOKENS),
        ((10, 13), reason::OUTPUT_TOKENS),
        ((38, 10), reason::TOKENS),
        (
            (45, 13),
            reason::INPUT_TOKENS | reason::OUTPUT_TOKENS | reason::TOKENS,
        ),
    ] {
        let mut copy = group.clone();
        let (mut old, mut new) = (old.clone(), new.clone());
        old.send(&mut copy, vec![call(10, 8)]);
        let answer = new.send(&mut copy, vec![call(tokens.0, tokens.1)]);
        assert_eq!(
            (answer.grants.len(), answer.reasons),
            (0, reasons),
            "{tokens:?}"
        );
    }
}

/// P18 (pacing, reserve, aging): each limited kind has its own pace.
#[test]
fn each_limit_kind_is_paced_separately() {
    let config = GroupConfig {
        pace_worse_than: Some(0),
        ..GroupConfig::new(limited(&[(LimitKind::OutputTokens, 600)]))
    };
    let mut group = Group::new();
    let mut a = Sender::with("a", &config);
    let paced = |output| join(5, Tokens::new(1000, output));
    let answer = a.send(&mut group, vec![paced(100), paced(100), paced(50)]);
    // A ticket's own cost is its tolerance.
    assert_eq!((answer.grants.len(), answer.reasons), (2, reason::PACING));
    let left = Micros(answer.next_free.unsigned_abs());
    assert_eq!(left, 2 * (SPAN / 6) - SPAN / 12);
}

#[test]
fn least_used_deployment_is_chosen_by_its_fullest_kind() {
    let limited_by_both = |id: &str, input, output| {
        Deployment::new(id)
            .limit(LimitKind::InputTokens, input, MINUTE)
            .limit(LimitKind::OutputTokens, output, MINUTE)
    };
    let config = GroupConfig {
        strategy: Strategy::UsageBased,
        // A call of 10 and 10 tokens is a fifth of a's fullest kind, and a tenth of b's.
        ..GroupConfig::new(vec![
            limited_by_both("a", 50, 1000),
            limited_by_both("b", 100, 100),
        ])
    };
    let mut group = Group::new();
    let mut a = Sender::with("a", &config);
    let answer = a.send(&mut group, vec![call(10, 10); 4]);
    let chosen: Vec<&str> = answer
        .grants
        .iter()
        .map(|grant| &*grant.deployment)
        .collect();
    assert_eq!(chosen, ["a", "b", "b", "a"]);
}
