//! An instance whose messages are written by hand, and a state in memory that executes them.

use std::sync::Arc;

use vorrang_scheduler::{
    Claim, Entry, GroupConfig, Micros, Seq, SessionId, Tokens,
    message::{Answer, Message, Op, OpenSession},
    rules::Rules,
    transition::{Environment, State, inspect::Census, step},
};

/// The instance and the state of its group.
#[derive(Clone)]
pub(crate) struct Sender {
    state: Option<State>,
    /// The server's clock in microseconds.
    pub(crate) now: Micros,
    session: SessionId,
    epoch: Arc<str>,
    batch: u64,
    rules: Arc<Rules>,
    /// Grants that were dispatched on receipt, and when that was: reported with the next message (P8).
    unreported: Vec<(Seq, Micros)>,
}

impl Sender {
    pub(crate) fn new(config: &GroupConfig) -> Self {
        let rules = Arc::new(Rules::from(config));
        let mut sender = Sender {
            state: None,
            now: Micros(1_000_000),
            session: SessionId::NONE,
            epoch: "".into(),
            batch: 0,
            rules,
            unreported: Vec::new(),
        };
        assert!(
            sender.send(Vec::new()).is_none(),
            "the first message is refused and brings the epoch"
        );
        assert!(sender.send(Vec::new()).is_some());
        sender
    }

    pub(crate) fn send(&mut self, ops: Vec<Op>) -> Option<Answer> {
        self.batch += 1;
        let open_session = (self.session == SessionId::NONE).then(|| OpenSession {
            number: self.batch,
            rules: self.rules.clone(),
            rules_version: 0,
            peers: Vec::new(),
            departed: Vec::new(),
            view: Vec::new(),
        });
        let reports = self.unreported.drain(..).map(|(granted, at)| Op::Sent {
            granted,
            age: self.now - at,
        });
        let ops = reports.chain(ops).collect();
        let message = Message {
            instance: "one".into(),
            epoch: self.epoch.clone(),
            session: self.session,
            batch: self.batch,
            open_session: open_session.into_iter().collect(),
            complete: true,
            seen: Seq::NONE,
            highest_finish: 0,
            ops,
        };
        let environment = Environment {
            now: self.now,
            random: 7,
            replication: "".into(),
            certain: true,
        };
        let reply = step(&mut self.state, &environment, &message).reply;
        self.epoch = reply.epoch;
        let answer = reply.answer.into_iter().next()?;
        self.session = answer.session;
        let counted = answer.grants.iter().filter(|grant| grant.counted);
        self.unreported
            .extend(counted.map(|grant| (grant.granted, self.now)));
        Some(answer)
    }

    pub(crate) fn join(&mut self, priority: i32, tokens: impl Into<Tokens>) -> Answer {
        self.join_as(Claim::new(priority, tokens))
    }

    pub(crate) fn join_as(&mut self, claim: Claim) -> Answer {
        self.send(vec![Op::Join(Entry::new(claim))])
            .expect("an open session")
    }

    /// What the state holds.
    pub(crate) fn census(&self) -> Census {
        self.state.as_ref().map(State::census).unwrap_or_default()
    }

    /// How many grants a step without ops makes at this time.
    pub(crate) fn grants_at(&self, now: Micros) -> usize {
        let mut later = self.clone();
        later.now = now;
        later
            .send(Vec::new())
            .expect("an open session")
            .grants
            .len()
    }
}
