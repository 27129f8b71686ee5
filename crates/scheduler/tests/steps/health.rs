//! Cooldowns (A9), and configurations that differ.

use crate::*;

/// A cooldown that is told may be shorter, or of unknown origin.
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
        a.again(&mut group, vec![cool(SECOND, 500)]).used[0].cooling,
        5 * SECOND
    );
    let told = a.again(&mut group, vec![cool(6 * SECOND, 0), join(0, 1)]);
    assert_eq!(
        (told.used[0].cooling, told.refusals[0].1),
        (6 * SECOND, 401)
    );
}

/// A9: who caused a cooldown knows its status, and tells of the time exactly; who learnt of it tells of a little more, for the answer's way.
/// Fails when that one comes first: the known status of a cooldown that is not longer is dropped, and those who wait are not refused.
#[test]
fn cooldown_takes_its_status_from_any_report_that_has_it() {
    let mut group = Group::new();
    let (mut a, mut b) = (
        Sender::new("a", vec![requests(9)]),
        Sender::new("b", vec![requests(9)]),
    );
    let cool = |left, status| {
        let deployment = "a".into();
        vec![Op::Cool {
            deployment,
            left,
            status,
        }]
    };
    a.send(&mut group, cool(SECOND + 1_000, 0));
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
    assert_eq!(fail(&mut group, 0), 0);
    group.now += 61 * SECOND;
    assert_eq!(fail(&mut group, 1), 0, "the first was too long ago");
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
    // Its report frees the probe, whoever holds the permit and for how long.
    let again = a.send(
        &mut group,
        vec![probe_failed(probe[0].granted, 429, 1_000_000)],
    );
    assert_eq!(again.used[0].cooling, SECOND);
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

/// A deployment that cools for so long after a failure, and nine tickets that wait for it.
fn cooling(cooldown: Duration) -> (Group, Sender) {
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

/// A9: with one probe at a time a single slow answer would hold the group for as long as it takes.
#[test]
fn slow_probe_is_followed_by_another_after_the_cooldown_time() {
    for (cooldown_ms, patience) in [(3_000, 3 * SECOND), (200, SECOND)] {
        let (mut group, mut a) = cooling(Duration::from_millis(cooldown_ms));
        group.now += cooldown_ms * 1_000;
        let answer = a.send(&mut group, Vec::new());
        assert_eq!(answer.grants.len(), 1);
        assert_eq!(answer.reasons, reason::PROBING);
        assert_eq!(answer.next_free, patience.cast_signed());
        group.now += patience - 1;
        assert_eq!(a.send(&mut group, Vec::new()).grants, []);
        group.now += 1;
        let second = a.send(&mut group, Vec::new()).grants;
        assert!(second.len() == 1 && second[0].probe, "one, as a probe");
    }
}

#[test]
fn success_of_any_probe_heals_the_deployment() {
    for which in 0..2 {
        let (mut group, mut a) = cooling(Duration::from_secs(2));
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
    let (mut group, mut a) = cooling(Duration::from_secs(2));
    let rules = Rules {
        allowed_fails: 1,
        ..(*a.rules).clone()
    };
    a.rules = Arc::new(rules);
    a.again(&mut group, joins(9));
    let mut probes = Vec::new();
    for _ in 0..2 {
        group.now += 2 * SECOND;
        probes.extend(a.send(&mut group, Vec::new()).grants);
    }
    a.send(&mut group, vec![probe_succeeded(probes[1].granted)]);
    let late = probe_failed(probes[0].granted, 0, -1);
    assert_eq!(a.send(&mut group, vec![late]).used[0].cooling, 0);
}

#[test]
fn counted_failures_cool_for_the_deployments_cooldown_time() {
    let (mut group, mut a) = cooling(Duration::from_secs(9));
    assert_eq!(a.send(&mut group, Vec::new()).used[0].cooling, 9 * SECOND);
}

/// Deployments a and b, where more than one failure in a minute is too much, and an instance with so many calls that went to a.
fn two(calls: usize) -> (Group, Sender, Vec<u64>) {
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

fn failed_again(granted: u64) -> Op {
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

fn went_well(granted: u64) -> Op {
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
    let (mut group, mut a, calls) = two(5);
    let mut ops = vec![failed(calls[0], 500, -1)];
    ops.extend(calls[1..4].iter().map(|call| failed_again(*call)));
    assert_eq!(a.send(&mut group, ops).used[0].cooling, 0);
    let another = vec![failed(calls[4], 500, -1)];
    assert_eq!(a.send(&mut group, another).used[0].cooling, 5 * SECOND);
}

#[test]
fn upstream_errors_cool_only_when_they_are_half_of_the_calls() {
    let (mut group, mut a, calls) = two(12);
    let fail = |call: usize| failed(calls[call], 500, -1);
    let mut ops = vec![fail(0)];
    ops.extend((1..5).map(|call| went_well(calls[call])));
    ops.extend((5..7).map(fail));
    assert_eq!(
        a.send(&mut group, ops).used[0].cooling,
        0,
        "3 failures of 7"
    );
    let half = vec![fail(7)];
    assert_eq!(a.send(&mut group, half).used[0].cooling, 5 * SECOND);
    // Calls that got no answer count as before.
    let (mut group, mut a, calls) = two(12);
    let mut ops = vec![failed(calls[0], 0, -1)];
    ops.extend((1..9).map(|call| went_well(calls[call])));
    ops.push(failed(calls[9], 0, -1));
    assert_eq!(a.send(&mut group, ops).used[0].cooling, 5 * SECOND);
}

/// One request after the other that its upstream cannot stand must not shut out all the others.
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
    let next = |answer: Answer| {
        assert!(answer.grants.iter().all(|grant| grant.probe));
        answer
            .grants
            .iter()
            .map(|grant| grant.granted)
            .collect::<Vec<_>>()
    };
    let mut ops = vec![failed(call, 500, -1)];
    ops.extend(joins(9));
    let probe = next(a.send(&mut group, ops));
    assert_eq!(probe.len(), 1, "at once");
    group.now += SECOND / 4;
    let answer = a.send(&mut group, vec![probe_failed(probe[0], 500, -1)]);
    assert_eq!(
        (answer.grants.len(), answer.used[0].cooling),
        (0, 3 * SECOND / 4)
    );
    group.now += 3 * SECOND / 4;
    assert_eq!(next(a.send(&mut group, Vec::new())).len(), 1);
    group.now += SECOND;
    let unanswered = next(a.send(&mut group, Vec::new()));
    assert_eq!(unanswered.len(), 1, "though the last one is still out");
    let healed = vec![probe_succeeded(unanswered[0])];
    assert!(a.send(&mut group, healed).grants.len() > 5);
}

#[test]
fn unreachable_last_healthy_deployment_cools() {
    let (mut group, mut a) = cooling(Duration::from_secs(9));
    assert_eq!(a.send(&mut group, Vec::new()).used[0].cooling, 9 * SECOND);
}

#[test]
fn reopened_session_keeps_its_rules_version_and_its_deployments() {
    let mut group = Group::new();
    let mut old = Sender::new("old", vec![requests(3)]);
    old.rules_version = old.send(&mut group, joins(2)).rules_version;
    let b = Deployment::new("b").limit(LimitKind::Requests, 1, Duration::from_secs(60));
    let two = requests(2).limit(LimitKind::Requests, 9, Duration::from_secs(90));
    let mut new = Sender::new("new", vec![two, b]);
    let told = new.send(&mut group, Vec::new());
    assert!(told.rules_version > old.rules_version);
    assert_eq!(
        told.used[0].cost.requests, 2,
        "what was granted under the old rules counts under the new ones"
    );
    let told = old.again(&mut group, joins(1));
    assert_eq!(
        (told.rules_version, told.configurations),
        (old.rules_version, 2),
        "the older version does not become the newest again"
    );
    assert_eq!(
        told.grants,
        [],
        "there is no room but at b, which it does not know"
    );
    assert_eq!(
        &*new.send(&mut group, vec![join(-1, 1)]).grants[0].deployment,
        "b"
    );
}

/// A5: what fitted once may fit nowhere under newer rules.
#[test]
fn head_that_no_longer_fits_is_refused() {
    let mut group = Group::new();
    let mut old = Sender::new("old", vec![tokens(100)]);
    old.send(&mut group, vec![join(0, 90), join(1, 90)]);
    Sender::new("new", vec![tokens(50)]).send(&mut group, Vec::new());
    assert_eq!(old.send(&mut group, Vec::new()).refusals[0].1, NEVER_FITS);
}
