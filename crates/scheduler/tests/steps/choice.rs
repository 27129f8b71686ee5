//! Which deployment a ticket is granted where several have room (P22).

use crate::*;

/// A deployment of this order with so many slots.
fn ordered(id: &str, order: Option<i32>, slots: u64) -> Deployment {
    Deployment {
        order,
        ..slots_of(id, slots)
    }
}

fn slots_of(id: &str, slots: u64) -> Deployment {
    Deployment::new(id).limit(LimitKind::Concurrency, slots, Duration::ZERO)
}

fn by(strategy: Strategy, deployments: Vec<Deployment>) -> (Group, Sender) {
    let config = GroupConfig {
        strategy,
        ..GroupConfig::new(deployments)
    };
    (Group::new(), Sender::with("a", &config))
}

fn by_latency(buffer: f64, ids: &[&str]) -> (Group, Sender) {
    let strategy = Strategy::LatencyBased {
        forget_after: Duration::from_secs(600),
        buffer,
    };
    by(
        strategy,
        ids.iter().map(|id| Deployment::new(*id)).collect(),
    )
}

/// The deployments of the grants, in their order.
fn of(answer: &Answer) -> String {
    let ids = answer.grants.iter().map(|grant| &*grant.deployment);
    ids.collect()
}

fn of_joins(group: &mut Group, sender: &mut Sender, count: usize) -> String {
    of(&sender.send(group, joins(count)))
}

fn done_on(deployment: &str, granted: Seq) -> Op {
    Op::Done {
        granted,
        deployment: deployment.into(),
        tokens: Tokens::MAX,
        excess: Tokens::ZERO,
        ok: true,
    }
}

fn measured(deployment: &str, milliseconds: u64) -> Op {
    Op::Measured {
        deployment: deployment.into(),
        took: Micros(1000 * milliseconds),
    }
}

/// A ticket of a request that has failed on these deployments, as bits.
fn retry(tried: u64) -> Op {
    Op::Join(Entry::new(Claim {
        tried,
        ..Claim::new(0, 1)
    }))
}

// === Order ===

#[test]
fn higher_order_gets_calls_only_while_lower_orders_are_full() {
    let all = [("c", None), ("b", Some(2)), ("a", Some(-1))];
    let all = all.map(|(id, order)| ordered(id, order, 2));
    let (mut group, mut one) = by(Strategy::SimpleShuffle, all.into());
    let answer = one.send(&mut group, joins(5));
    assert_eq!(of(&answer), "aabbc");
    let first = answer.grants[0].granted;
    let answer = one.send(&mut group, vec![done_on("a", first), join(0, 1)]);
    assert_eq!(of(&answer), "a");
}

#[test]
fn strategy_chooses_among_the_lowest_order_only() {
    for strategy in [Strategy::LeastBusy, Strategy::UsageBased] {
        let all = [("a", 1), ("b", 1), ("c", 2)];
        let all = all.map(|(id, order)| ordered(id, Some(order), 9));
        let (mut group, mut one) = by(strategy, all.into());
        let chosen = of_joins(&mut group, &mut one, 10);
        assert_eq!(chosen.matches('a').count(), 5, "{chosen}");
        assert_eq!(chosen.matches('b').count(), 5, "{chosen}");
    }
}

/// A8 (retries): what a request has tried comes after what it has not, whatever their orders.
#[test]
fn retry_takes_an_untried_deployment_of_a_higher_order() {
    let all = [("a", 1), ("b", 2)].map(|(id, order)| ordered(id, Some(order), 9));
    let (mut group, mut one) = by(Strategy::SimpleShuffle, all.into());
    assert_eq!(of(&one.send(&mut group, vec![retry(0b01)])), "b");
    assert_eq!(of(&one.send(&mut group, vec![retry(0b11)])), "a");
}

/// Otherwise a deployment that has cooled once would get no call before those of a higher order are full.
#[test]
fn deployment_of_a_lower_order_is_probed_as_soon_as_its_cooldown_is_over() {
    let all = [("a", 1), ("b", 2)].map(|(id, order)| ordered(id, Some(order), 9));
    let (mut group, mut one) = by(Strategy::SimpleShuffle, all.into());
    let first = one.send(&mut group, joins(1)).grants[0].granted;
    let cools = vec![failed(first, 429, 2_000_000), done(first), join(0, 1)];
    assert_eq!(of(&one.send(&mut group, cools)), "b");
    group.now += 2 * SECOND;
    // Not by a request that has just failed there.
    assert_eq!(of(&one.send(&mut group, vec![retry(0b01)])), "b");
    let answer = one.send(&mut group, joins(3));
    assert_eq!(of(&answer), "abb", "one ticket probes");
    assert!(answer.grants[0].probe);
    let healed = probe_succeeded(answer.grants[0].granted);
    one.send(&mut group, vec![healed]);
    assert_eq!(of_joins(&mut group, &mut one, 2), "aa");
}

#[test]
fn deployment_of_an_equal_order_is_probed_once_as_soon_as_its_cooldown_is_over() {
    let all = ["a", "b"].map(|id| ordered(id, Some(1), 9));
    let (mut group, mut one) = by(Strategy::SimpleShuffle, all.into());
    let cool = Op::Cool {
        deployment: "a".into(),
        left: SECOND,
        status: 429,
    };
    one.reopen(&mut group, vec![cool]);
    group.now += 2 * SECOND;
    assert_eq!(of_joins(&mut group, &mut one, 3), "abb");
}

#[test]
fn deployment_of_a_higher_order_or_without_weight_is_not_probed_while_others_have_room() {
    let higher = [("a", 2), ("b", 1)].map(|(id, order)| ordered(id, Some(order), 9));
    let spare = ["a", "b"].map(|id| Deployment {
        weight: Some(if id == "a" { 0.0 } else { 1.0 }),
        ..ordered(id, None, 9)
    });
    for all in [higher, spare] {
        let (mut group, mut one) = by(Strategy::SimpleShuffle, all.into());
        let cool = Op::Cool {
            deployment: "a".into(),
            left: SECOND,
            status: 429,
        };
        one.reopen(&mut group, vec![cool]);
        group.now += 2 * SECOND;
        assert_eq!(of_joins(&mut group, &mut one, 3), "bbb");
    }
}

#[test]
fn of_several_cooled_deployments_the_lowest_order_is_probed_first() {
    let all = [("b", 2), ("a", 1)].map(|(id, order)| ordered(id, Some(order), 9));
    let (mut group, mut one) = by(Strategy::SimpleShuffle, all.into());
    let cool = |deployment: &str| Op::Cool {
        deployment: deployment.into(),
        left: SECOND,
        status: 429,
    };
    one.reopen(&mut group, vec![cool("a"), cool("b")]);
    group.now += 2 * SECOND;
    assert_eq!(of_joins(&mut group, &mut one, 2), "ab");
}

/// P20 (roll-outs): the order is the newest configuration's.
#[test]
fn newest_configuration_decides_the_order() {
    let configuration = |a, b| vec![ordered("a", Some(a), 9), ordered("b", Some(b), 9)];
    let mut group = Group::new();
    let mut old = Sender::new("old", configuration(1, 2));
    assert_eq!(of_joins(&mut group, &mut old, 1), "a");
    let mut new = Sender::new("new", configuration(2, 1));
    assert_eq!(of_joins(&mut group, &mut new, 1), "b");
    assert_eq!(of_joins(&mut group, &mut old, 1), "b");
}

// === Cost ===

#[test]
fn cheapest_deployment_of_the_lowest_order_is_chosen() {
    let priced = |id, order, price, slots| Deployment {
        price,
        ..ordered(id, order, slots)
    };
    let all = vec![
        priced("u", Some(1), None, 1),
        priced("x", Some(1), Some(3e-6), 2),
        priced("y", Some(1), Some(1e-7), 1),
        priced("z", Some(1), Some(3e-6), 2),
        priced("0", Some(2), Some(0.0), 1),
        priced("n", Some(1), Some(f64::NAN), 1),
    ];
    let (mut group, mut one) = by(Strategy::CostBased, all);
    let chosen = of_joins(&mut group, &mut one, 8);
    let sorted = |range: std::ops::Range<usize>| {
        let mut part: Vec<char> = chosen[range].chars().collect();
        part.sort_unstable();
        String::from_iter(part)
    };
    assert_eq!(&chosen[..1], "y");
    assert_eq!(sorted(1..5), "xxzz");
    assert_eq!(sorted(5..7), "nu", "without a price");
    assert_eq!(&chosen[7..], "0");
}

// === Open calls ===

#[test]
fn least_busy_counts_the_open_calls_of_all_instances() {
    let all: Vec<Deployment> = ["a", "b", "c"].map(Deployment::new).into();
    let (mut group, mut one) = by(Strategy::LeastBusy, all);
    let mut other = one.clone();
    other.message.instance = "other".into();
    let first = one.send(&mut group, joins(2));
    let second = other.send(&mut group, joins(1));
    let mut chosen: Vec<char> = (of(&first) + &of(&second)).chars().collect();
    chosen.sort_unstable();
    assert_eq!(chosen, ['a', 'b', 'c']);
    let ended = &second.grants[0];
    let again = vec![done_on(&ended.deployment, ended.granted), join(0, 1)];
    assert_eq!(of(&other.send(&mut group, again)), of(&second));
}

#[test]
fn least_busy_follows_weights_where_deployments_are_equally_busy() {
    let weighing = |id: &str, weight| Deployment {
        weight: Some(weight),
        ..Deployment::new(id)
    };
    let all = vec![weighing("a", 0.0), weighing("b", 1.0)];
    let (mut group, mut one) = by(Strategy::LeastBusy, all);
    assert_eq!(of_joins(&mut group, &mut one, 4), "baba");
}

#[test]
fn least_busy_knows_open_calls_after_a_loss_and_forgets_those_of_dead_instances() {
    let all: Vec<Deployment> = ["a", "b"].map(Deployment::new).into();
    let (mut group, mut one) = by(Strategy::LeastBusy, all);
    let mut dies = one.clone();
    dies.message.instance = "dies".into();
    let hold = |number| Op::Hold {
        granted: Seq(number),
        deployment: "a".into(),
        probe: false,
    };
    one.reopen(&mut group, vec![hold(1), hold(2)]);
    dies.reopen(&mut group, vec![hold(3), hold(4), hold(5), hold(6)]);
    assert_eq!(of_joins(&mut group, &mut one, 3), "bbb");
    group.advance(3 * SECOND, &mut one);
    // Two calls of a are left, and three of b.
    assert_eq!(of_joins(&mut group, &mut one, 1), "a");
}

// === Latency ===

#[test]
fn fastest_deployment_is_chosen() {
    let (mut group, mut one) = by_latency(0.0, &["a", "b", "c"]);
    let times = vec![measured("a", 30), measured("b", 20), measured("c", 40)];
    one.send(&mut group, Vec::new());
    one.send(&mut group, times);
    assert_eq!(of_joins(&mut group, &mut one, 3), "bbb");
    // A mean moves by an eighth: 20 ms become 30 ms at the second answer of 65 ms.
    one.send(&mut group, vec![measured("b", 65)]);
    assert_eq!(of_joins(&mut group, &mut one, 1), "b");
    one.send(&mut group, vec![measured("b", 65)]);
    assert_eq!(of_joins(&mut group, &mut one, 1), "a");
}

#[test]
fn deployment_that_is_not_measured_comes_first_with_one_call() {
    let (mut group, mut one) = by_latency(0.0, &["a", "b", "c"]);
    let answer = one.send(&mut group, joins(3));
    let mut chosen: Vec<char> = of(&answer).chars().collect();
    chosen.sort_unstable();
    assert_eq!(chosen, ['a', 'b', 'c']);
    let slow = one.send(&mut group, vec![measured("a", 900), join(0, 1)]);
    assert_eq!(of(&slow), "a", "the calls of b and c are still open");
    let of_b = answer.grants.iter().find(|g| &*g.deployment == "b");
    let ended = done_on("b", of_b.unwrap().granted);
    assert_eq!(of(&one.send(&mut group, vec![ended, join(0, 1)])), "b");
}

#[test]
fn slow_deployment_is_tried_again_after_a_time() {
    let (mut group, mut one) = by_latency(0.0, &["a", "b"]);
    one.send(&mut group, Vec::new());
    one.send(&mut group, vec![measured("a", 900), measured("b", 20)]);
    group.advance(599 * SECOND, &mut one);
    one.send(&mut group, vec![measured("b", 20)]);
    assert_eq!(of_joins(&mut group, &mut one, 1), "b");
    group.advance(2 * SECOND, &mut one);
    assert_eq!(of_joins(&mut group, &mut one, 2), "ab");
    // What was forgotten does not count.
    one.send(&mut group, vec![measured("a", 10)]);
    assert_eq!(of_joins(&mut group, &mut one, 1), "a");
}

#[test]
fn deployments_within_the_buffer_are_equal() {
    let (mut group, mut one) = by_latency(0.5, &["a", "b", "c"]);
    one.send(&mut group, Vec::new());
    let times = vec![measured("a", 30), measured("b", 20), measured("c", 31)];
    one.send(&mut group, times);
    let chosen = of_joins(&mut group, &mut one, 60);
    assert!(!chosen.contains('c'), "{chosen}");
    assert!(chosen.contains('a') && chosen.contains('b'), "{chosen}");
}

#[test]
fn extreme_latencies_are_bounded() {
    let (mut group, mut one) = by_latency(1e9, &["a", "b"]);
    one.send(&mut group, Vec::new());
    let took = Micros(u64::MAX);
    let deployment = "a".into();
    let longest = Op::Measured { deployment, took };
    one.send(&mut group, vec![longest, measured("b", 0)]);
    let chosen = of_joins(&mut group, &mut one, 30);
    // The buffer is bounded too, and the longest latency is above it.
    assert_eq!(chosen, "b".repeat(30));
}

#[test]
fn latencies_count_only_where_deployments_are_chosen_by_them() {
    let (mut group, mut one) = by(Strategy::SimpleShuffle, vec![Deployment::new("a")]);
    one.send(&mut group, Vec::new());
    one.send(&mut group, vec![measured("a", 900)]);
    assert_eq!(group.census().measured, 0);
    let (mut group, mut one) = by_latency(0.0, &["a"]);
    one.send(&mut group, Vec::new());
    one.send(
        &mut group,
        vec![measured("a", 900), measured("unknown", 900)],
    );
    assert_eq!(group.census().measured, 1);
}

/// P3 (one recovery for all losses): a state that was not lost keeps what it has measured.
#[test]
fn recovery_keeps_latencies() {
    let (mut group, mut one) = by_latency(0.0, &["a", "b"]);
    one.send(&mut group, Vec::new());
    one.send(&mut group, vec![measured("a", 900), measured("b", 20)]);
    group.make_dirty();
    one.send(&mut group, Vec::new());
    group.advance(4 * SECOND, &mut one);
    assert_eq!(of_joins(&mut group, &mut one, 2), "bb");
}
