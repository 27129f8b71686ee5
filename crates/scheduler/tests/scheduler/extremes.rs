//! Extreme values from upstreams, other instances and Redis: nothing overflows, and totals stay within their bound.

use std::time::Duration;

use crate::sender::Sender;
use proptest::{collection::vec, prelude::*, sample::select};
use vorrang_scheduler::{
    Claim, Cost, Deployment, Entry, GroupConfig, LimitKind, Micros, Seq, SessionId, Share, Tokens,
    dispatcher::Core,
    message::{Answer, Grant, Op, Reply, Used, Verdict},
    rules::MAX_TOTAL,
};

/// Integers above this are not exact in a double.
const EXACT: u64 = (1 << 53) - 1;

fn extreme() -> impl Strategy<Value = u64> {
    let edges = vec![
        0,
        1,
        9_000_000_000,
        9_000_000_001,
        1 << 50,
        (1 << 52) - 1,
        1 << 52,
        EXACT,
        EXACT + 1,
        u64::MAX >> 1,
        u64::MAX,
    ];
    prop_oneof![4 => select(edges), 1 => any::<u64>()]
}

fn seq() -> impl Strategy<Value = Seq> {
    extreme().prop_map(Seq)
}

fn micros() -> impl Strategy<Value = Micros> {
    extreme().prop_map(Micros)
}

fn signed() -> impl Strategy<Value = i64> {
    let extremes = extreme().prop_map(u64::cast_signed);
    prop_oneof![extremes, Just(i64::MIN), Just(i64::MAX), -2..2_i64]
}

fn tokens() -> impl Strategy<Value = Tokens> {
    (extreme(), extreme()).prop_map(Tokens::from)
}

fn claim() -> impl Strategy<Value = Claim> {
    let numbers = (extreme(), extreme(), extreme());
    (any::<i32>(), tokens(), numbers).prop_map(|(priority, tokens, (tenant, cost, tried))| Claim {
        priority,
        tokens,
        tried,
        failed: tried != 0,
        key: tenant,
        share: Share { tenant, cost },
    })
}

fn op() -> impl Strategy<Value = Op> {
    let granted = || prop_oneof![1_000_000..1_000_040_u64, extreme()].prop_map(Seq);
    let a = || "a".into();
    prop_oneof![
        (claim(), seq(), extreme()).prop_map(|(claim, arrival, start)| Op::Join(Entry {
            claim,
            arrival,
            start
        })),
        Just(Op::Join(Entry::new(Claim::new(0, 1)))),
        (claim(), seq()).prop_map(|(claim, arrival)| Op::Leave { claim, arrival }),
        (granted(), micros()).prop_map(|(granted, age)| Op::Sent { granted, age }),
        (granted(), tokens(), tokens(), any::<bool>()).prop_map(
            move |(granted, tokens, excess, ok)| Op::Done {
                granted,
                deployment: a(),
                tokens,
                excess,
                ok,
            }
        ),
        granted().prop_map(|granted| Op::Unused { granted }),
        (granted(), any::<[bool; 3]>(), any::<u16>(), signed()).prop_map(
            move |(granted, [probe, again, ok], status, cool)| Op::Report {
                granted,
                deployment: a(),
                probe,
                again,
                ok,
                status,
                cool
            }
        ),
        (granted(), any::<bool>()).prop_map(move |(granted, probe)| Op::Hold {
            granted,
            deployment: a(),
            probe
        }),
        (granted(), any::<bool>(), extreme(), tokens(), micros()).prop_map(
            move |(granted, excess, requests, tokens, age)| Op::Charge {
                granted,
                excess,
                deployment: a(),
                requests,
                tokens,
                age
            }
        ),
        (micros(), any::<u16>()).prop_map(move |(left, status)| Op::Cool {
            deployment: a(),
            left,
            status
        }),
    ]
}

fn config(fair: bool, aging: bool) -> GroupConfig {
    let minute = Duration::from_secs(60);
    let a = Deployment::new("a")
        .limit(LimitKind::Requests, u64::MAX, minute)
        .limit(LimitKind::Tokens, 9_000_000_000, Duration::from_secs(10))
        .limit(
            LimitKind::OutputTokens,
            8_000_000_000,
            Duration::from_secs(10),
        )
        .limit(LimitKind::Concurrency, 3, Duration::ZERO);
    GroupConfig {
        fair,
        aging: aging.then_some(Duration::MAX),
        pace_worse_than: Some(0),
        ..GroupConfig::new(vec![a])
    }
}

fn grant() -> impl Strategy<Value = Grant> {
    (
        seq(),
        seq(),
        any::<bool>(),
        any::<bool>(),
        signed(),
        extreme(),
    )
        .prop_map(|(arrival, granted, counted, probe, score, start)| Grant {
            arrival,
            granted,
            deployment: "a".into(),
            counted,
            probe,
            score,
            start,
        })
}

fn answer() -> impl Strategy<Value = Answer> {
    let head = (1..3_u64, seq(), seq(), extreme(), extreme());
    let used = (extreme(), tokens(), extreme(), micros(), micros());
    let used = used.prop_map(|(requests, tokens, open, cooling, pace)| Used {
        cost: Cost { requests, tokens },
        open,
        cooling,
        pace,
    });
    (
        head,
        vec(grant(), 0..3),
        vec((seq(), any::<u16>()), 0..2),
        signed(),
        any::<[bool; 3]>(),
        used,
        vec(extreme(), 0..2),
        micros(),
    )
        .prop_map(
            |(
                (session, base, seen, highest_finish, depth),
                grants,
                refusals,
                next_free,
                flags,
                used,
                ahead,
                age,
            )| Answer {
                session: SessionId(session),
                base,
                seen,
                highest_finish,
                grants,
                refusals,
                next_free,
                mine: flags[0],
                recovering: flags[1],
                more: flags[2],
                depth,
                used: vec![used],
                rules_version: session,
                peers: vec!["one".into()],
                departed: vec![("two".into(), age)],
                ahead,
                reasons: depth,
                memory: age,
                heartbeat: Micros(highest_finish),
                configurations: depth,
                ranks: vec![next_free],
                overrides: Vec::new(),
                views: Vec::new(),
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    /// Debug builds check the sums after each step, and arithmetic that overflows panics.
    #[test]
    fn step_keeps_totals_within_their_bound(messages in vec((vec(op(), 0..8), 0..70_000_000_u64), 1..12), fair: bool, aging: bool) {
        let mut sender = Sender::new(&config(fair, aging));
        for (ops, passed) in messages {
            sender.now += Micros(passed);
            let answer = sender.send(ops).expect("an open session");
            for Used { cost, .. } in &answer.used {
                prop_assert!(cost.amounts().iter().all(|amount| *amount <= EXACT));
                prop_assert!(cost.requests.max(cost.tokens.input).max(cost.tokens.output) <= MAX_TOTAL);
            }
            prop_assert!(answer.seen <= Seq(EXACT) && answer.highest_finish <= EXACT && answer.next_free <= EXACT.cast_signed());
        }
        // All charges expire, except open ones.
        for _ in 0..40 {
            sender.now += Micros(70_000_000);
            sender.send(Vec::new()).expect("an open session");
        }
        let answer = sender.send(Vec::new()).expect("an open session");
        let open = sender.census().open_charges;
        prop_assert!(answer.used[0].cost.requests == 0 || open > 0, "{:?}", answer.used);
    }

    #[test]
    fn dispatcher_accepts_any_reply(answers in vec((answer(), 0..3_u8, any::<Option<u64>>(), proptest::option::of(tokens())), 1..12)) {
        let mut now = Micros::SECOND;
        let mut core = Core::new("one".into(), &config(true, false), now);
        for (k, (answer, kind, cool, used)) in answers.into_iter().enumerate() {
            now += Micros(700_000);
            core.join(k as u64, Entry::new(Claim::new(0, Tokens::new(7, 5))));
            core.wake();
            let Some(_) = core.poll(now) else { continue };
            let granted: Vec<Seq> = answer.grants.iter().map(|grant| grant.granted).collect();
            let verdict = if kind == 0 { Verdict::SessionInvalid } else { Verdict::Done };
            let reply = Reply { verdict, epoch: "e".into(), recovered: false, answer: vec![answer] };
            core.on_reply(now, now - Micros(1000), reply);
            for granted in granted {
                let sent = core.dispatch(now, granted);
                core.failed(now, granted, 500, cool.map(Micros));
                core.give_back(now, granted, sent, used);
            }
            if let Some(deadline) = core.deadline() {
                prop_assert!(deadline < now + Micros(1 << 53));
            }
        }
    }
}
