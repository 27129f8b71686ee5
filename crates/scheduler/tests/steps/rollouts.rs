//! Configurations that differ while a roll-out is under way.

use crate::*;

fn with_lease(seconds: u64) -> GroupConfig {
    let slot = Deployment::new("a").limit(LimitKind::Concurrency, 4, Duration::ZERO);
    let mut config = GroupConfig::new(vec![slot]);
    config.timing.lease = Duration::from_secs(seconds);
    config
}

fn requests_on(id: &str, limit: u64) -> Deployment {
    Deployment::new(id).limit(LimitKind::Requests, limit, Duration::from_secs(60))
}

/// P20 (roll-outs): a new API key makes a new deployment id. Tickets of either instance go to the deployment that it knows, and none is refused as too large.
#[test]
fn grants_only_use_known_deployments() {
    let mut group = Group::new();
    let mut old = Sender::new("old", vec![requests_on("a", 1)]);
    let mut new = Sender::new("new", vec![requests_on("b", 1)]);
    old.send(&mut group, Vec::new());
    new.send(&mut group, Vec::new());
    let granted = old.send(&mut group, vec![join(0, 1), join(1, 1)]);
    assert_eq!(&*granted.grants[0].deployment, "a");
    let answer = new.send(&mut group, vec![join(-1, 1)]);
    assert_eq!(&*answer.grants[0].deployment, "b");
    // The waiting ticket fits again.
    let granted = granted.grants[0].granted;
    let answer = old.send(&mut group, vec![Op::Unused { granted }, join(2, 1)]);
    assert_eq!(
        (answer.grants.len(), answer.refusals.len(), answer.depth),
        (1, 0, 1)
    );
}

#[test]
fn stricter_limits_hold_until_their_last_session_ends() {
    for (old_limit, new_limit) in [(2, 5), (5, 2)] {
        let mut group = Group::new();
        let mut old = Sender::new("old", vec![requests(old_limit)]);
        let mut new = Sender::new("new", vec![requests(new_limit)]);
        old.send(&mut group, Vec::new());
        let answer = new.send(&mut group, joins(9));
        assert_eq!((answer.grants.len(), answer.configurations), (2, 2));
        assert_eq!(old.send(&mut group, joins(1)).grants, []);
        let (stays, leaves) = if old_limit == 5 {
            (&mut old, &mut new)
        } else {
            (&mut new, &mut old)
        };
        leaves.send(&mut group, vec![Op::CloseSession { clean: true }]);
        let answer = stays.send(&mut group, joins(9));
        assert_eq!(
            (answer.used[0].cost.requests, answer.configurations),
            (5, 1)
        );
    }
}

/// P20 (roll-outs): the windows of all configurations count, each with its own limit.
#[test]
fn windows_of_all_configurations_count() {
    let mut group = Group::new();
    let short = Deployment::new("a").limit(LimitKind::Requests, 2, Duration::from_secs(1));
    let mut old = Sender::new("old", vec![short]);
    let mut new = Sender::new("new", vec![requests(3)]);
    new.send(&mut group, Vec::new());
    assert_eq!(old.send(&mut group, joins(9)).grants.len(), 2);
    group.now += 2 * SECOND;
    let answer = old.send(&mut group, Vec::new());
    assert_eq!((answer.grants.len(), answer.memory), (1, SPAN));
    group.now += 2 * SECOND;
    assert_eq!(old.send(&mut group, Vec::new()).grants, []);
}

/// P20 (roll-outs): otherwise a ticket that needs a raised limit would hold up the queue until the roll-out is over.
#[test]
fn ticket_above_the_stricter_limit_uses_the_newest_configuration() {
    let mut group = Group::new();
    let mut old = Sender::new("old", vec![tokens(100)]);
    let mut new = Sender::new("new", vec![tokens(1000)]);
    old.send(&mut group, Vec::new());
    let answer = new.send(&mut group, vec![join(0, 500), join(1, 90)]);
    assert_eq!((answer.grants.len(), answer.depth), (1, 1));
    assert_eq!(
        old.send(&mut group, vec![join(0, 1001)]).refusals[0].1,
        NEVER_FITS
    );
}

/// P20 (roll-outs): the restarted instance brings no version, but the group knows its configuration as long as another session has it.
#[test]
fn restarted_instance_does_not_make_its_configuration_the_newest() {
    let fair = GroupConfig {
        fair: true,
        ..GroupConfig::new(vec![requests(1)])
    };
    let mut group = Group::new();
    let mut old = Sender::new("old", vec![requests(1)]);
    let mut new = Sender::with("new", &fair);
    old.send(&mut group, Vec::new());
    let version = new.send(&mut group, joins(3)).rules_version;
    let mut restarted = Sender::new("restarted", vec![requests(1)]);
    let reply = restarted.try_send(&mut group, Vec::new());
    let reply = match reply.verdict {
        Verdict::Done => reply,
        _ => restarted.try_send(&mut group, Vec::new()),
    };
    assert!(!reply.recovered, "the queue order does not change");
    assert!(reply.answer[0].rules_version < version);
    // When the last session with the newest configuration ends, the older order is in force again.
    old.send(&mut group, joins(1));
    new.send(&mut group, vec![Op::CloseSession { clean: true }]);
    assert!(old.try_send(&mut group, Vec::new()).recovered);
}

/// P20 (roll-outs): from a lease of 10 s to one of 1 s. The old instance gets the shorter heartbeat, and its session does not end early.
#[test]
fn sessions_end_by_the_longest_lease() {
    let mut group = Group::new();
    let mut old = Sender::with("old", &with_lease(10));
    let mut new = Sender::with("new", &with_lease(1));
    old.send(&mut group, joins(4));
    let answer = new.send(&mut group, joins(1));
    assert_eq!(answer.heartbeat, SECOND / 6);
    let answer = group.advance(6 * SECOND, &mut new);
    assert_eq!((answer.grants.len(), answer.used[0].open), (0, 4));
    // When the last session with the long lease has ended, the short lease is in force.
    old.send(&mut group, vec![Op::CloseSession { clean: true }]);
    let mut other = Sender::with("other", &with_lease(1));
    other.send(&mut group, joins(4));
    // P7 (lease clock): it advances by at most one heartbeat per step.
    let answer = group.advance(4 * SECOND, &mut new);
    let sessions = group.census().sessions;
    assert_eq!((sessions, answer.configurations), (1, 1));
}

/// P20 (roll-outs): `max_queue_depth` protects no provider, so it refuses no ticket that another configuration lets wait.
#[test]
fn largest_max_queue_depth_applies() {
    let capped = |most| GroupConfig {
        max_queue_depth: most,
        ..GroupConfig::new(vec![requests(1)])
    };
    for (smaller, larger, depth) in [(Some(2), None, 5), (Some(2), Some(4), 4)] {
        let mut group = Group::new();
        let mut a = Sender::with("a", &capped(smaller));
        let mut b = Sender::with("b", &capped(larger));
        b.send(&mut group, joins(1));
        assert_eq!(a.send(&mut group, joins(5)).depth, depth);
    }
}

/// P13 (conservative charges): a usage snapshot from before a deployment was added does not show what unaccounted instances used of it.
#[test]
fn deployments_absent_from_the_usage_snapshot_are_charged_their_limits() {
    let mut group = Group::after_a_loss();
    let mut a = Sender::new("a", vec![requests(5)]);
    a.message.seen = Seq(9);
    a.departed = vec![("departed".into(), 5 * SECOND)];
    a.usage = usage(SECOND, 9, (2, 0, 0));
    let mut b = Sender::new("b", vec![requests_on("b", 3)]);
    a.send(&mut group, Vec::new());
    b.send(&mut group, Vec::new());
    group.advance(SECOND, &mut a);
    let charged = |sender: &mut Sender, group: &mut Group| {
        sender.send(group, Vec::new()).used[0].cost.requests
    };
    assert_eq!(charged(&mut a, &mut group), 2);
    assert_eq!(charged(&mut b, &mut group), 3);
}

#[test]
fn reopened_session_keeps_its_rules_version_and_its_deployments() {
    let mut group = Group::new();
    let mut old = Sender::new("old", vec![requests(3)]);
    old.rules_version = old.send(&mut group, joins(2)).rules_version;
    let b = Deployment::new("b").limit(LimitKind::Requests, 1, Duration::from_secs(60));
    let two_windows = requests(2).limit(LimitKind::Requests, 9, Duration::from_secs(90));
    let mut new = Sender::new("new", vec![two_windows, b]);
    let answer = new.send(&mut group, Vec::new());
    assert!(answer.rules_version > old.rules_version);
    assert_eq!(
        answer.used[0].cost.requests, 2,
        "grants under the old rules count under the new ones"
    );
    let answer = old.reopen(&mut group, joins(1));
    assert_eq!(
        (answer.rules_version, answer.configurations),
        (old.rules_version, 2),
        "the older version does not become the newest again"
    );
    assert_eq!(
        answer.grants,
        [],
        "only b has room, and this instance does not know it"
    );
    assert_eq!(
        &*new.send(&mut group, vec![join(-1, 1)]).grants[0].deployment,
        "b"
    );
}

/// A5 (large tickets): a ticket that fitted at its entry may fit nowhere under newer rules.
#[test]
fn head_that_no_longer_fits_is_refused() {
    let mut group = Group::new();
    let mut old = Sender::new("old", vec![tokens(100)]);
    old.send(&mut group, vec![join(0, 90), join(1, 90)]);
    Sender::new("new", vec![tokens(50)]).send(&mut group, Vec::new());
    assert_eq!(old.send(&mut group, Vec::new()).refusals[0].1, NEVER_FITS);
}
