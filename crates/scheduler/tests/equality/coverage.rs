//! Which cases the histories have reached: a search that reaches nothing proves nothing.

use std::collections::{BTreeMap, BTreeSet};

use vorrang_scheduler::{
    Micros, Seq,
    message::{
        ALL_INSTANCES, Grant, HELD, MAX_GRANTS, Message, NEVER_FITS, Op, QUEUE_FULL, Verdict,
        reason,
    },
    transition::{Outcome, State, inspect::Census},
};

/// How often each kind of reply, and each kind of state, was seen.
#[derive(Default)]
pub(crate) struct Coverage {
    pub(crate) seen: BTreeMap<&'static str, u64>,
    last: Census,
}

/// What has to be seen.
const ALL: [&str; 58] = [
    "moved",
    "moved to better tickets",
    "move of a ticket that is gone",
    "view of several tickets",
    "view with orphaned entries",
    "held ticket",
    "paused by an operator",
    "limit changed",
    "overrides learned after a loss",
    "another instance woken",
    "assumed dispatch",
    "behind the first of a tenant queue",
    "deployment cooling",
    "displaced",
    "done",
    "all instances woken",
    "orphaned entries in the queue",
    "orphaned entries swept past",
    "departed instances reported",
    "held by pacing",
    "held by a reserve",
    "pace reported",
    "aging score",
    "grant",
    "grant delivered from the inbox",
    "grant or refusal for another instance",
    "held by input tokens",
    "held by output tokens",
    "held by requests",
    "held by tokens",
    "latency measured",
    "latency forgotten",
    "more",
    "more of one kind and less of the other",
    "bound on drops or expiries",
    "bound on grants",
    "never fits",
    "next free known",
    "next free unknown",
    "open charge",
    "peers reported",
    "conservative charge",
    "probe",
    "queue full",
    "recovery started",
    "recovering",
    "recovery ended",
    "refused for 401 or 404",
    "replay with grants",
    "session invalid",
    "several configurations",
    "unresponsive session",
    "several start tags in a step",
    "stale",
    "steps",
    "usage summed in parts",
    "tenant forgotten",
    "tenant idle",
];

impl Coverage {
    fn count(&mut self, what: &'static str, whether: bool) {
        if whether {
            *self.seen.entry(what).or_default() += 1;
        }
    }

    pub(crate) fn see(
        &mut self,
        message: &Message,
        outcome: &Outcome,
        state: Option<&State>,
        repeated: bool,
    ) {
        let reply = &outcome.reply;
        self.count("steps", true);
        self.count("done", reply.verdict == Verdict::Done);
        self.count("session invalid", reply.verdict == Verdict::SessionInvalid);
        self.count("stale", reply.verdict == Verdict::Stale);
        self.count("recovery started", reply.recovered);
        self.count(
            "all instances woken",
            outcome.wakes.iter().any(|w| &**w == ALL_INSTANCES),
        );
        self.count(
            "another instance woken",
            outcome
                .wakes
                .iter()
                .any(|w| &**w != ALL_INSTANCES && *w != message.instance),
        );
        let census = state.map(State::census).unwrap_or_default();
        let last = std::mem::replace(&mut self.last, census);
        self.count("unresponsive session", census.unresponsive > 0);
        self.count(
            "orphaned entries in the queue",
            census.entries > census.waiting,
        );
        self.count("orphaned entries swept past", census.swept > 0);
        self.count(
            "grant or refusal for another instance",
            census.inbox > last.inbox,
        );
        self.count("tenant idle", census.idle > 0);
        self.count(
            "tenant forgotten",
            census.tenants < last.tenants && census.entries > 0 && !census.recovering,
        );
        self.count("latency measured", census.measured > 0);
        self.count("latency forgotten", census.measured < last.measured);
        self.count("conservative charge", census.conservative > 0);
        self.count("usage summed in parts", census.summing);
        self.count("open charge", census.open_charges > 0);
        self.count("assumed dispatch", census.assumed > 0);
        self.count(
            "recovery ended",
            last.recovering && !census.recovering && !reply.answer.is_empty(),
        );
        let Some(answer) = reply.answer.first() else {
            return;
        };
        let joins = message
            .ops
            .iter()
            .filter(|op| matches!(op, Op::Join(_)))
            .count() as u64;
        self.count("replay with grants", repeated && !answer.grants.is_empty());
        self.count(
            "displaced",
            !repeated
                && answer
                    .refusals
                    .iter()
                    .any(|r| r.1 == QUEUE_FULL && r.0 < answer.base.max(Seq(1))),
        );
        let idle = joins == 0 && answer.grants.is_empty() && census.inbox == last.inbox;
        self.count(
            "bound on drops or expiries",
            !repeated && idle && answer.more,
        );
        self.count(
            "grant delivered from the inbox",
            !repeated && last.inbox > census.inbox && !answer.grants.is_empty(),
        );
        self.count("recovering", answer.recovering);
        self.count("grant", !answer.grants.is_empty());
        let large = |g: &Grant| g.score.unsigned_abs() > 1 << 40;
        self.count("aging score", answer.grants.iter().any(large));
        let start_tags: BTreeSet<u64> = answer.grants.iter().map(|g| g.start).collect();
        self.count("several start tags in a step", start_tags.len() > 2);
        self.count("behind the first of a tenant queue", census.behind > 0);
        for (bit, what) in [
            (reason::REQUESTS, "held by requests"),
            (reason::TOKENS, "held by tokens"),
            (reason::INPUT_TOKENS, "held by input tokens"),
            (reason::OUTPUT_TOKENS, "held by output tokens"),
        ] {
            self.count(what, answer.reasons & bit > 0);
        }
        let shifted = |op: &Op| match op {
            Op::Done { excess, .. } => (excess.input > 0) != (excess.output > 0),
            _ => false,
        };
        self.count(
            "more of one kind and less of the other",
            message.ops.iter().any(shifted),
        );
        self.count("held by pacing", answer.reasons & reason::PACING > 0);
        self.count("held by a reserve", answer.reasons & reason::RESERVE > 0);
        self.count(
            "pace reported",
            answer.used.iter().any(|u| u.pace > Micros::ZERO),
        );
        self.count("probe", answer.grants.iter().any(|g| g.probe));
        let refused = |code: u16| answer.refusals.iter().any(|r| r.1 == code);
        self.count("never fits", refused(NEVER_FITS));
        self.count("queue full", refused(QUEUE_FULL));
        self.count("refused for 401 or 404", refused(401) || refused(404));
        self.count("bound on grants", answer.grants.len() >= MAX_GRANTS);
        self.count("more", answer.more);
        self.count("next free known", answer.next_free > 0);
        self.count(
            "next free unknown",
            answer.next_free == -1 && answer.depth > 0,
        );
        self.count("peers reported", !answer.peers.is_empty());
        self.count("departed instances reported", !answer.departed.is_empty());
        self.count(
            "deployment cooling",
            answer.used.iter().any(|u| u.cooling > Micros::ZERO),
        );
        let mut ranks = answer.ranks.iter();
        for op in &message.ops {
            let rank = match op {
                Op::Move { .. } | Op::Rank { .. } if !repeated => ranks.next(),
                _ => None,
            };
            if let (Op::Move { .. }, Some(rank)) = (op, rank) {
                self.count("moved", *rank >= 0);
                self.count("moved to better tickets", *rank > 0);
                self.count("move of a ticket that is gone", *rank < 0);
            }
        }
        let rows = answer.views.iter().flat_map(|view| &view.rows);
        self.count("view of several tickets", rows.clone().count() > 1);
        self.count(
            "view with orphaned entries",
            rows.clone().any(|row| row.orphaned),
        );
        self.count("held ticket", refused(HELD));
        self.count("paused by an operator", answer.reasons == reason::PAUSED);
        let mut overrides = answer.overrides.iter();
        self.count(
            "limit changed",
            overrides.clone().any(|known| !known.limits.is_empty()),
        );
        let newer = message.ops.iter().any(|op| match op {
            Op::Overrides(known) => overrides.any(|new| new.version == known.version),
            _ => false,
        });
        self.count("overrides learned after a loss", newer && answer.recovering);
        self.count("several configurations", answer.configurations > 1);
    }

    /// Fails unless all of it was seen.
    pub(crate) fn assert_complete(&self) {
        println!("{:#?}", self.seen);
        let missing: Vec<_> = ALL
            .iter()
            .filter(|what| !self.seen.contains_key(*what))
            .collect();
        assert!(missing.is_empty(), "never reached: {missing:?}");
    }
}
