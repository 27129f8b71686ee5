//! Cooldowns, probes and failures that count (A9).

use crate::*;

/// A9 (health): a reported cooldown may be shorter than the known one, or have no status.
#[test]
fn reported_cooldown_only_extends_and_keeps_its_status() {
    let mut group = Group::new();
    let mut a = Sender::new("a", vec![requests(9)]);
    let granted = a.send(&mut group, joins(1)).grants[0].granted;
    let cool = |left, status| {
        let deployment = "a".into();
        Op::Cool {
            deployment,
            left,
            status,
        }
    };
    a.send(&mut group, vec![failed(granted, 401, 5_000_000)]);
    assert_eq!(
        a.reopen(&mut group, vec![cool(SECOND, 500)]).used[0].cooling,
        5 * SECOND
    );
    let answer = a.reopen(&mut group, vec![cool(6 * SECOND, 0), join(0, 1)]);
    assert_eq!(
        (answer.used[0].cooling, answer.refusals[0].1),
        (6 * SECOND, 401)
    );
}

/// A9 (health): the instance that caused a cooldown reports its status and its exact end. An instance that learned of it from a reply reports no status and a
/// little more time. The longer report may come first, and waiting tickets are refused only if the status is known.
#[test]
fn cooldown_takes_its_status_from_any_report_that_has_it() {
    let mut group = Group::new();
    let [mut a, mut b] = senders(["a", "b"], &[requests(9)]);
    let cool = |left, status| {
        let deployment = "a".into();
        vec![Op::Cool {
            deployment,
            left,
            status,
        }]
    };
    a.send(&mut group, cool(SECOND + Micros(1_000), 0));
    b.send(&mut group, cool(SECOND, 401));
    assert_eq!(b.send(&mut group, joins(1)).refusals[0].1, 401);
}

#[test]
fn failure_count_restarts_after_a_minute_and_at_a_cooldown() {
    let config = GroupConfig {
        allowed_fails: 1,
        ..GroupConfig::new(vec![requests(99)])
    };
    let mut group = Group::new();
    let mut a = Sender::with("a", &config);
    let calls = a.send(&mut group, joins(6)).grants;
    let mut fail = |group: &mut Group, call: usize| {
        a.send(group, vec![failed(calls[call].granted, 0, -1)]).used[0].cooling
    };
    assert_eq!(fail(&mut group, 0), Micros::ZERO);
    group.now += 61 * SECOND;
    assert_eq!(
        fail(&mut group, 1),
        Micros::ZERO,
        "the first failure is older than a minute"
    );
    assert_eq!(fail(&mut group, 2), 5 * SECOND);
    group.now += SECOND;
    assert_eq!(
        fail(&mut group, 3),
        4 * SECOND,
        "one failure is allowed again"
    );
    assert_eq!(fail(&mut group, 4), 5 * SECOND);
}

#[test]
fn only_a_successful_probe_heals_the_deployment() {
    let mut group = Group::new();
    let mut a = Sender::new("a", vec![requests(9)]);
    let calls = a.send(&mut group, joins(2)).grants;
    let succeeded = |granted| Op::Report {
        granted,
        deployment: "a".into(),
        probe: false,
        again: false,
        ok: true,
        status: 0,
        cool: -1,
    };
    a.send(&mut group, vec![failed(calls[0].granted, 429, 1_000_000)]);
    a.send(&mut group, vec![succeeded(calls[1].granted)]);
    group.now += SECOND;
    let probe = a.send(&mut group, joins(2)).grants;
    assert!(probe.len() == 1 && probe[0].probe);
    // Its report frees the probe before the permit returns.
    let answer = a.send(
        &mut group,
        vec![probe_failed(probe[0].granted, 429, 1_000_000)],
    );
    assert_eq!(answer.used[0].cooling, SECOND);
    group.now += SECOND;
    let probe = a.send(&mut group, Vec::new()).grants;
    assert!(probe.len() == 1 && probe[0].probe);
    assert_eq!(
        a.send(
            &mut group,
            vec![probe_succeeded(probe[0].granted), join(0, 1)]
        )
        .grants
        .len(),
        1
    );
}

/// A group whose only deployment cools for this time after a failure, and an instance with nine tickets that wait for it.
fn cooling_group(cooldown: Duration) -> (Group, Sender) {
    let config = GroupConfig {
        allowed_fails: 0,
        ..GroupConfig::new(vec![Deployment {
            cooldown: Some(cooldown),
            ..requests(99)
        }])
    };
    let mut group = Group::new();
    let mut a = Sender::with("a", &config);
    let call = a.send(&mut group, joins(1)).grants[0].granted;
    a.send(&mut group, vec![failed(call, 0, -1)]);
    a.send(&mut group, joins(9));
    (group, a)
}

/// A9 (health): with one probe at a time, one slow answer would hold up the group.
#[test]
fn slow_probe_is_followed_by_another_after_the_cooldown_time() {
    for (cooldown_ms, patience) in [(3_000, 3 * SECOND), (200, SECOND)] {
        let (mut group, mut a) = cooling_group(Duration::from_millis(cooldown_ms));
        group.now += Micros(cooldown_ms * 1_000);
        let answer = a.send(&mut group, Vec::new());
        assert_eq!(answer.grants.len(), 1);
        assert_eq!(answer.reasons, reason::PROBING);
        assert_eq!(answer.next_free, patience.0.cast_signed());
        group.now += patience - Micros(1);
        assert_eq!(a.send(&mut group, Vec::new()).grants, []);
        group.now += Micros(1);
        let second = a.send(&mut group, Vec::new()).grants;
        assert!(
            second.len() == 1 && second[0].probe,
            "one ticket goes, as a probe"
        );
    }
}

#[test]
fn success_of_any_probe_heals_the_deployment() {
    for which in 0..2 {
        let (mut group, mut a) = cooling_group(Duration::from_secs(2));
        let mut probes = Vec::new();
        for _ in 0..2 {
            group.now += 2 * SECOND;
            probes.extend(a.send(&mut group, Vec::new()).grants);
        }
        let healed = probe_succeeded(probes[which].granted);
        assert_eq!(a.send(&mut group, vec![healed]).grants.len(), 7);
    }
}

#[test]
fn slow_probe_that_fails_after_another_succeeded_counts_as_one_failure() {
    let (mut group, mut a) = cooling_group(Duration::from_secs(2));
    let rules = Rules {
        allowed_fails: 1,
        ..(*a.rules).clone()
    };
    a.rules = Arc::new(rules);
    a.reopen(&mut group, joins(9));
    let mut probes = Vec::new();
    for _ in 0..2 {
        group.now += 2 * SECOND;
        probes.extend(a.send(&mut group, Vec::new()).grants);
    }
    a.send(&mut group, vec![probe_succeeded(probes[1].granted)]);
    let late = probe_failed(probes[0].granted, 0, -1);
    assert_eq!(a.send(&mut group, vec![late]).used[0].cooling, Micros::ZERO);
}

/// A group with deployments a and b that allows one failure a minute, and an instance with this many calls to a.
fn two_deployments(calls: usize) -> (Group, Sender, Vec<Seq>) {
    let b = Deployment {
        weight: Some(0.0),
        ..Deployment::new("b")
    };
    let a = Deployment {
        weight: Some(1.0),
        ..requests(99)
    };
    let config = GroupConfig {
        allowed_fails: 1,
        ..GroupConfig::new(vec![a, b])
    };
    let mut group = Group::new();
    let mut sender = Sender::with("a", &config);
    let calls = sender.send(&mut group, joins(calls)).grants;
    assert!(calls.iter().all(|call| &*call.deployment == "a"));
    let calls = calls.iter().map(|call| call.granted).collect();
    (group, sender, calls)
}

fn failed_again(granted: Seq) -> Op {
    Op::Report {
        granted,
        deployment: "a".into(),
        probe: false,
        again: true,
        ok: false,
        status: 500,
        cool: -1,
    }
}

fn done_successfully(granted: Seq) -> Op {
    Op::Done {
        granted,
        deployment: "a".into(),
        tokens: Tokens::MAX,
        excess: Tokens::ZERO,
        ok: true,
    }
}

#[test]
fn request_that_fails_on_every_deployment_counts_once() {
    let (mut group, mut a, calls) = two_deployments(5);
    let mut ops = vec![failed(calls[0], 500, -1)];
    ops.extend(calls[1..4].iter().map(|call| failed_again(*call)));
    assert_eq!(a.send(&mut group, ops).used[0].cooling, Micros::ZERO);
    let second = vec![failed(calls[4], 500, -1)];
    assert_eq!(a.send(&mut group, second).used[0].cooling, 5 * SECOND);
}

#[test]
fn upstream_errors_cool_only_when_they_are_half_of_the_calls() {
    let (mut group, mut a, calls) = two_deployments(12);
    let fail = |call: usize| failed(calls[call], 500, -1);
    let mut ops = vec![fail(0)];
    ops.extend((1..5).map(|call| done_successfully(calls[call])));
    ops.extend((5..7).map(fail));
    assert_eq!(
        a.send(&mut group, ops).used[0].cooling,
        Micros::ZERO,
        "3 failures of 7"
    );
    let fourth = vec![fail(7)];
    assert_eq!(a.send(&mut group, fourth).used[0].cooling, 5 * SECOND);
    // Failures without a status are not weighed against successes.
    let (mut group, mut a, calls) = two_deployments(12);
    let mut ops = vec![failed(calls[0], 0, -1)];
    ops.extend((1..9).map(|call| done_successfully(calls[call])));
    ops.push(failed(calls[9], 0, -1));
    assert_eq!(a.send(&mut group, ops).used[0].cooling, 5 * SECOND);
}

/// A9 (health): requests that their upstream always fails must not shut out all others.
#[test]
fn last_healthy_deployment_is_probed_once_a_second_instead_of_cooling() {
    let config = GroupConfig {
        allowed_fails: 0,
        cooldown: Duration::from_secs(60),
        ..GroupConfig::new(vec![requests(99)])
    };
    let mut group = Group::new();
    let mut a = Sender::with("a", &config);
    let call = a.send(&mut group, joins(1)).grants[0].granted;
    let probes = |answer: Answer| {
        assert!(answer.grants.iter().all(|grant| grant.probe));
        answer
            .grants
            .iter()
            .map(|grant| grant.granted)
            .collect::<Vec<_>>()
    };
    let mut ops = vec![failed(call, 500, -1)];
    ops.extend(joins(9));
    let probe = probes(a.send(&mut group, ops));
    assert_eq!(probe.len(), 1, "at once");
    group.now += SECOND / 4;
    let answer = a.send(&mut group, vec![probe_failed(probe[0], 500, -1)]);
    assert_eq!(
        (answer.grants.len(), answer.used[0].cooling),
        (0, 3 * SECOND / 4)
    );
    group.now += 3 * SECOND / 4;
    assert_eq!(probes(a.send(&mut group, Vec::new())).len(), 1);
    group.now += SECOND;
    let unanswered = probes(a.send(&mut group, Vec::new()));
    assert_eq!(unanswered.len(), 1, "the former probe is still open");
    let healed = vec![probe_succeeded(unanswered[0])];
    assert!(a.send(&mut group, healed).grants.len() > 5);
}

/// A9 (health): failures without a status are not weighed, and the time is the deployment's own.
#[test]
fn unreachable_last_healthy_deployment_cools_for_its_cooldown_time() {
    let (mut group, mut a) = cooling_group(Duration::from_secs(9));
    assert_eq!(a.send(&mut group, Vec::new()).used[0].cooling, 9 * SECOND);
}
