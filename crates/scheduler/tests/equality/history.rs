//! Random histories. Any part of a history can be left out, and the rest still makes sense: so proptest can shrink it.

use std::sync::Arc;

use proptest::{collection::vec, prelude::*, sample::select};
use vorrang_scheduler::{
    Claim, LimitOverride, Micros, Share, Tokens,
    message::Override,
    rules::{DeploymentRules, NONE, Rules, Window},
};

/// Names that would break unescaped keys, patterns and formats.
const INSTANCES: [&str; 6] = [
    "a",
    "{b} \"c\"",
    "\u{fc}ber|\u{1f680}",
    "*",
    "0001",
    "d'\\\n%s",
];
const DEPLOYMENTS: [&str; 6] = ["gpt", "a b", "{x}|y", "\u{6771}\u{4eac}", "'\"", "%d\\"];

/// Everything about one run.
#[derive(Debug, Clone)]
pub(crate) struct History {
    /// The server's clock at the beginning.
    pub start: Micros,
    /// Configurations that the instances may have.
    pub rules: Vec<Arc<Rules>>,
    /// Names of the instances.
    pub instances: Vec<Arc<str>>,
    /// Events in their order.
    pub events: Vec<Event>,
}

/// An event of a history. `instance` chooses one of the instances, modulo their number.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    /// The server's clock moves.
    Tick(i64),
    /// An instance sends its next message, which opens a session if it has none.
    Send {
        instance: usize,
        ops: Vec<Action>,
        random: u32,
        lost: bool,
    },
    /// An instance opens another session, perhaps with other rules, its snapshot in one part or two.
    OpenSession {
        instance: usize,
        rules: Option<usize>,
        parts: bool,
        random: u32,
        lost: bool,
    },
    /// The retransmission of a former message of an instance: 0 is the last one, 1 the one before.
    Retransmit { instance: usize, back: usize },
    /// A message that no instance would send in this state.
    Misfit { instance: usize, how: Misfit },
    /// A new process of the same name, which knows nothing.
    Restart { instance: usize },
    /// The state is lost.
    Flush,
    /// A partial write (P17).
    Dirty,
    /// Another master replies.
    Failover(u8),
}

/// What is wrong with a message.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Misfit {
    /// A batch gap.
    Gap,
    /// An unknown epoch.
    Epoch,
    /// An unknown session.
    Session,
    /// The opening of a session that a later opening has overtaken.
    OldOpening,
}

/// What an instance does before it sends a message. Numbers choose among its tickets and permits.
#[derive(Debug, Clone)]
pub(crate) enum Action {
    Join(Claim),
    Joins(Claim, usize),
    Leave(usize),
    /// A permit returns after its call: used tokens as hundredths of the reservation.
    Done {
        which: usize,
        used: Option<u64>,
    },
    DoneAll,
    Retry(usize),
    /// A dispatch is reported with its age.
    Sent {
        which: usize,
        age: u64,
    },
    Unused(usize),
    Report {
        which: usize,
        ok: bool,
        status: u16,
        cool: i64,
    },
    /// The answer of an open call took so long to begin.
    Measured {
        which: usize,
        took: u64,
    },
    /// An op about any grant number on any deployment, known or not.
    Noise {
        kind: u8,
        number: u64,
        deployment: usize,
        amount: u64,
    },
    /// A waiting ticket gets another priority.
    Move {
        which: usize,
        to: i32,
    },
    /// How many tickets are ahead of a waiting ticket, or of one that would come now.
    Rank {
        which: Option<usize>,
        claim: Claim,
    },
    Look {
        from: u64,
        most: u64,
    },
    Override(Override),
    CloseSession,
}

fn window() -> impl Strategy<Value = Window> {
    let requests = prop_oneof![2 => Just(NONE), 1 => Just(0), 9 => 1..8_i64, 1 => 60..400_i64];
    let tokens =
        prop_oneof![4 => Just(NONE), 6 => 20..300_i64, 1 => Just(0), 1 => Just(9_000_000_000)];
    let kind = || prop_oneof![8 => Just(NONE), 4 => 20..200_i64, 1 => Just(0)];
    (
        select(vec![1_050_000, 2_100_000, 10_100_000, 60_100_000_u64]),
        requests,
        tokens,
        kind(),
        kind(),
    )
        .prop_map(|(span, requests, tokens, input, output)| Window {
            span: Micros(span),
            limits: [requests, tokens, input, output],
        })
}

fn deployment() -> impl Strategy<Value = DeploymentRules> {
    let windows =
        prop_oneof![1 => vec(window(), 0..1), 4 => vec(window(), 1..2), 3 => vec(window(), 2..4)];
    let concurrency = prop_oneof![4 => Just(NONE), 6 => 1..5_i64, 1 => Just(0), 1 => 300..2000_i64];
    let weight = prop_oneof![1 => Just(0), 2 => Just(1_000_000), 3 => 1..1_000_000_u64];
    let order = prop_oneof![3 => Just(0), 1 => -1..2_i64, 1 => Just(i64::from(i32::MAX) + 1)];
    let cooldown = prop_oneof![1 => 0..1_000_000_u64, 3 => 0..8_000_000_u64];
    (
        select(DEPLOYMENTS.to_vec()),
        (weight, order),
        concurrency,
        cooldown,
        windows,
    )
        .prop_map(
            |(id, (weight, order), concurrency, cooldown, mut windows)| {
                windows.sort_by_key(|window| window.span);
                windows.dedup_by_key(|window| window.span);
                DeploymentRules {
                    id: id.into(),
                    weight,
                    order,
                    concurrency,
                    cooldown: Micros(cooldown),
                    windows,
                }
            },
        )
}

fn rules() -> impl Strategy<Value = Rules> {
    let depth = prop_oneof![3 => Just(0), 1 => 1..6_u64];
    let lease = select(vec![30_000, 600_001, 3_000_000, 3_000_000_u64]);
    (
        prop_oneof![1 => vec(deployment(), 0..1), 20 => vec(deployment(), 1..5)],
        strategy(),
        depth,
        0..3_u64,
        0..8_000_000_u64,
        lease,
        order(),
    )
        .prop_map(
            |(
                mut deployments,
                strategy,
                max_queue_depth,
                allowed_fails,
                cooldown,
                lease,
                order,
            )| {
                let (pace_worse_than, reserve_priority, left, aging, fair) = order;
                deployments.sort_by(|a, b| a.id.cmp(&b.id));
                deployments.dedup_by(|a, b| a.id == b.id);
                deployments.reverse();
                let longest = deployments
                    .iter()
                    .flat_map(|d| &d.windows)
                    .map(|w| w.span)
                    .max();
                let memory = longest.unwrap_or(Micros::ZERO).max(Micros(lease));
                let (strategy, latency_age, latency_buffer) = strategy;
                Rules {
                    strategy,
                    latency_age,
                    latency_buffer,
                    max_queue_depth,
                    allowed_fails,
                    cooldown: Micros(cooldown),
                    lease: Micros(lease),
                    memory,
                    pace_worse_than,
                    reserve_priority,
                    left,
                    aging,
                    fair,
                    deployments,
                }
            },
        )
}

/// `strategy`, `latency_age` and `latency_buffer` of the rules.
fn strategy() -> impl Strategy<Value = (u8, Micros, u64)> {
    let age = select(vec![0, 1_000_000, 60_000_000, 1 << 50]).prop_map(Micros);
    let buffer = select(vec![0, 0, 500, 1_000_000]);
    (0..4_u8, age, buffer)
}

/// `pace_worse_than`, `reserve_priority`, `left`, `aging` and `fair` of the rules.
fn order() -> impl Strategy<Value = (i32, i32, u64, Micros, bool)> {
    let threshold = || prop_oneof![4 => Just(i32::MAX), 4 => -2..2_i32, 1 => any::<i32>()];
    let left = prop_oneof![1 => Just(0), 3 => 300_000..1_000_000_u64, 1 => Just(999_999)];
    let aging =
        prop_oneof![4 => Just(0), 2 => 1..10_u64, 4 => 100_000..5_000_000_u64, 1 => Just(1 << 44)];
    let aging = aging.prop_map(Micros);
    (threshold(), threshold(), left, aging, any::<bool>())
}

/// Rules under which hundreds of tickets wait, are granted and expire at once.
fn roomy_rules() -> impl Strategy<Value = Rules> {
    let window = |span, requests, tokens| Window {
        span,
        limits: [requests, tokens, NONE, tokens],
    };
    (
        strategy(),
        select(vec![NONE, 70, 1500]),
        select(vec![NONE, 1000]),
        select(vec![NONE, 1, 3000]),
        prop_oneof![2 => Just((i32::MAX, i32::MAX, 1_000_000, Micros::ZERO, false)), 1 => order()],
    )
        .prop_map(
            move |(strategy, requests, tokens, concurrency, order)| Rules {
                strategy: strategy.0,
                latency_age: strategy.1,
                latency_buffer: strategy.2,
                max_queue_depth: 0,
                allowed_fails: 3,
                cooldown: Micros(5_000_000),
                lease: Micros(3_000_000),
                memory: Micros(4_000_000),
                pace_worse_than: order.0,
                reserve_priority: order.1,
                left: order.2,
                aging: order.3,
                fair: order.4,
                deployments: vec![DeploymentRules {
                    id: "gpt".into(),
                    weight: 1,
                    order: 0,
                    concurrency,
                    cooldown: Micros(5_000_000),
                    windows: vec![
                        window(Micros(2_100_000), requests, NONE),
                        window(Micros(4_000_000), 3000, tokens),
                    ],
                }],
            },
        )
}

fn priority() -> impl Strategy<Value = i32> {
    prop_oneof![6 => -2..3_i32, 1 => Just(i32::MIN), 1 => Just(i32::MAX), 1 => any::<i32>()]
}

fn tokens() -> impl Strategy<Value = Tokens> {
    let amount = || prop_oneof![12 => Just(0), 20 => 0..60_u64, 2 => 60..400_u64, 1 => Just(8_999_999_999), 1 => select(vec![1 << 44, u64::MAX])];
    prop_oneof![
        1 => amount().prop_map(Tokens::from),
        1 => (amount(), amount()).prop_map(Tokens::from),
    ]
}

/// Few tenants, so that each has several tickets.
fn share() -> impl Strategy<Value = Share> {
    let tenant = prop_oneof![1 => Just(0), 6 => 1..4_u64, 1 => (1_u64 << 52) - 2..1 << 52, 1 => 1..1_u64 << 52];
    let cost = prop_oneof![1 => select(vec![0, u64::MAX]), 1 => Just(1), 4 => Just(10_000), 4 => 1..100_000_u64, 1 => Just(1_000_000_000)];
    (tenant, cost).prop_map(|(tenant, cost)| Share { tenant, cost })
}

/// Few keys, so that some are paused.
fn key() -> impl Strategy<Value = u64> {
    prop_oneof![2 => Just(0), 6 => 1..4_u64, 1 => select(vec![(1 << 52) - 1, u64::MAX])]
}

fn override_of() -> impl Strategy<Value = Override> {
    let kind = prop_oneof![6 => 0..5_u8, 1 => any::<u8>()];
    let span = select(vec![0, 1_050_000, 2_100_000, 10_100_000, 60_100_000_u64]);
    let limit = prop_oneof![2 => Just(NONE), 4 => 0..10_i64, 2 => 10..400_i64, 1 => select(vec![i64::MIN, i64::MAX])];
    let what = prop_oneof![4 => Just(0), 5 => Just(1), 1 => any::<u8>()];
    (
        what,
        key(),
        prop::bool::weighted(0.4),
        0..DEPLOYMENTS.len(),
        kind,
        span,
        limit,
    )
        .prop_map(
            |(what, key, paused, deployment, kind, span, limit)| Override {
                what,
                key,
                paused,
                limit: LimitOverride {
                    deployment: deployment_name(deployment),
                    kind,
                    span: Micros(span),
                    limit,
                },
            },
        )
}

fn claim() -> impl Strategy<Value = Claim> {
    (priority(), tokens(), share(), key()).prop_map(|(priority, tokens, share, key)| Claim {
        priority,
        tokens,
        share,
        key,
        tried: 0,
        failed: false,
    })
}

fn action() -> impl Strategy<Value = Action> {
    let cool = prop_oneof![3 => Just(-1), 2 => 0..5_000_000_i64, 1 => Just(1 << 50)];
    let extreme = || {
        select(vec![
            1 << 52,
            (1 << 53) - 1,
            1 << 53,
            u64::MAX >> 1,
            u64::MAX,
        ])
    };
    let took = prop_oneof![4 => 0..6_u64, 4 => 1_000..3_000_000_u64, 1 => extreme()];
    let number = prop_oneof![6 => 0..40_u64, 2 => Just((1 << 52) - (1 << 44)), 1 => extreme()];
    let amount = prop_oneof![2 => Just(0), 8 => 0..200_u64, 4 => 0..5_000_000_u64, 2 => Just(1 << 44), 1 => extreme()];
    prop_oneof![
        14 => claim().prop_map(Action::Join),
        2 => (claim(), 2..12_usize).prop_map(|(claim, many)| Action::Joins(claim, many)),
        3 => any::<usize>().prop_map(Action::Leave),
        7 => (any::<usize>(), proptest::option::of(0..250_u64)).prop_map(|(which, used)| Action::Done { which, used }),
        1 => Just(Action::DoneAll),
        2 => any::<usize>().prop_map(Action::Retry),
        2 => (any::<usize>(), prop_oneof![3 => 0..200_000_u64, 1 => Just(1 << 44)]).prop_map(|(which, age)| Action::Sent { which, age }),
        2 => any::<usize>().prop_map(Action::Unused),
        5 => (any::<usize>(), any::<bool>(), select(vec![0, 401, 402, 404, 429, 500]), cool)
            .prop_map(|(which, ok, status, cool)| Action::Report { which, ok, status, cool }),
        5 => (any::<usize>(), took).prop_map(|(which, took)| Action::Measured { which, took }),
        2 => (0..8_u8, number, 0..DEPLOYMENTS.len(), amount)
            .prop_map(|(kind, number, deployment, amount)| Action::Noise { kind, number, deployment, amount }),
        3 => (any::<usize>(), priority()).prop_map(|(which, to)| Action::Move { which, to }),
        2 => (proptest::option::of(any::<usize>()), claim()).prop_map(|(which, claim)| Action::Rank { which, claim }),
        2 => (prop_oneof![8 => 0..12_u64, 1 => any::<u64>()], prop_oneof![8 => 0..20_u64, 1 => any::<u64>()])
            .prop_map(|(from, most)| Action::Look { from, most }),
        3 => override_of().prop_map(Action::Override),
        1 => Just(Action::CloseSession),
    ]
}

fn bulk_action() -> impl Strategy<Value = Action> {
    let many = prop_oneof![1 => 250..450_usize, 2 => 2..30_usize];
    prop_oneof![
        8 => (-1..2_i32, select(vec![0, 10_u64]), share(), many).prop_map(|(priority, tokens, share, many)| {
            Action::Joins(Claim { share, ..Claim::new(priority, tokens) }, many)
        }),
        2 => (-1..2_i32, select(vec![1, 950_u64])).prop_map(|(priority, tokens)| Action::Join(Claim::new(priority, tokens))),
        2 => Just(Action::DoneAll),
        1 => any::<usize>().prop_map(Action::Leave),
        1 => (any::<usize>(), -1..2_i32).prop_map(|(which, to)| Action::Move { which, to }),
        1 => (0..1200_u64).prop_map(|from| Action::Look { from, most: u64::MAX }),
        1 => override_of().prop_map(Action::Override),
    ]
}

/// The larger `calm` is, the rarer are losses and messages that no instance would send.
fn event(action: BoxedStrategy<Action>, most: usize, calm: u32) -> impl Strategy<Value = Event> {
    let instance = 0..INSTANCES.len();
    let misfit = select(vec![
        Misfit::Gap,
        Misfit::Epoch,
        Misfit::Session,
        Misfit::OldOpening,
    ]);
    let tick = prop_oneof![
        40 => 0..2_000_i64,
        60 => 2_000..200_000_i64,
        40 => 200_000..1_500_000_i64,
        8 => 1_500_000..20_000_000_i64,
        4 => -5_000_000..0_i64,
        4 => -5_000..0_i64,
        6 => select(vec![-(1_i64 << 50), 1 << 36, 60_100_000, 60_000_000, 1_050_000]),
    ];
    prop_oneof![
        30 * calm => tick.prop_map(Event::Tick),
        60 * calm => (instance.clone(), vec(action, 0..=most), any::<u32>(), prop::bool::weighted(0.1))
            .prop_map(|(instance, ops, random, lost)| Event::Send { instance, ops, random, lost }),
        4 + calm => (instance.clone(), proptest::option::of(0..4_usize), any::<bool>(), any::<u32>(), prop::bool::weighted(0.1))
            .prop_map(|(instance, rules, parts, random, lost)| Event::OpenSession { instance, rules, parts, random, lost }),
        4 * calm => (instance.clone(), prop_oneof![3 => Just(0), 1 => 1..4_usize])
            .prop_map(|(instance, back)| Event::Retransmit { instance, back }),
        2 => (instance.clone(), misfit).prop_map(|(instance, how)| Event::Misfit { instance, how }),
        1 => instance.prop_map(|instance| Event::Restart { instance }),
        1 => Just(Event::Flush),
        1 => Just(Event::Dirty),
        1 => (0..3_u8).prop_map(Event::Failover),
    ]
}

fn history(
    rules: BoxedStrategy<Rules>,
    action: BoxedStrategy<Action>,
    ops: usize,
    most: usize,
) -> impl Strategy<Value = History> {
    let start = prop_oneof![1 => Just(1), 4 => Just(1_795_000_000_123_456)].prop_map(Micros);
    let instances = (1..5_usize).prop_flat_map(|many| {
        Just(INSTANCES.to_vec())
            .prop_shuffle()
            .prop_map(move |names| names[..many].to_vec())
    });
    let events = prop_oneof![
        vec(event(action.clone(), ops, 1), 1..most),
        vec(event(action, ops, 12), 1..most),
    ];
    (start, vec(rules, 1..4), instances, events).prop_map(|(start, rules, instances, events)| {
        History {
            start,
            rules: rules.into_iter().map(Arc::new).collect(),
            instances: instances.into_iter().map(Arc::from).collect(),
            events,
        }
    })
}

/// Short histories: many of them make a good search.
pub(crate) fn short() -> impl Strategy<Value = History> {
    history(rules().boxed(), action().boxed(), 6, 80)
}

/// Long histories, which reach what takes time.
pub(crate) fn long() -> impl Strategy<Value = History> {
    history(rules().boxed(), action().boxed(), 12, 1200)
}

/// Histories with hundreds of tickets, which reach the bounds of a step.
pub(crate) fn bulky() -> impl Strategy<Value = History> {
    history(roomy_rules().boxed(), bulk_action().boxed(), 2, 120)
}

/// The name of the n-th deployment.
pub(crate) fn deployment_name(n: usize) -> Arc<str> {
    DEPLOYMENTS[n % DEPLOYMENTS.len()].into()
}
