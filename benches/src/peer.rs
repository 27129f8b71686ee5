//! An instance that sends the messages of the protocol by itself, without a dispatcher: for the step alone.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use tokio::time::{Duration, sleep};
use vorrang_scheduler::{
    Claim, Entry, GroupConfig, Micros, Seq, SessionId, Tokens,
    backend::{Backend as _, RedisBackend, RedisOptions},
    message::{Answer, Grant, Message, Op, OpenSession, Verdict},
    rules::Rules,
};

/// Opening a session of a group that recovers takes a few steps.
const ATTEMPTS: usize = 100;

/// One instance in one group.
pub(crate) struct Peer {
    backend: Arc<RedisBackend>,
    group: String,
    name: Arc<str>,
    epoch: Arc<str>,
    session: SessionId,
    batch: u64,
    seen: Seq,
    /// What was granted with the last step.
    grants: Vec<Grant>,
}

/// A backend on this Redis. Steps may take long: under valgrind, and with a million tickets.
pub(crate) fn connect(url: &str) -> Result<Arc<RedisBackend>> {
    let options = RedisOptions {
        response_timeout: Duration::from_secs(60),
        ..RedisOptions::new(url)
    };
    Ok(RedisBackend::connect(&options)?)
}

impl Peer {
    /// Opens a session, and waits until the group has recovered.
    pub(crate) async fn enter(
        backend: &Arc<RedisBackend>,
        group: &str,
        name: &str,
        config: &GroupConfig,
    ) -> Result<Self> {
        let mut peer = Self {
            backend: backend.clone(),
            group: group.into(),
            name: name.into(),
            epoch: "".into(),
            session: SessionId::NONE,
            batch: 0,
            seen: Seq::NONE,
            grants: Vec::new(),
        };
        let rules = Arc::new(Rules::from(config));
        let mut opened = None;
        for number in 1..=3 {
            let session = OpenSession {
                number,
                rules: rules.clone(),
                rules_version: 0,
                peers: vec![name.into()],
                departed: Vec::new(),
                view: Vec::new(),
            };
            opened = peer.send(vec![session], Vec::new()).await?;
            if opened.is_some() {
                break;
            }
        }
        let mut answer = opened.context("no session could be opened")?;
        for _ in 0..ATTEMPTS {
            if !answer.recovering {
                return Ok(peer);
            }
            sleep(Duration::from_micros(answer.next_free.unsigned_abs())).await;
            answer = peer.step(Vec::new()).await?;
        }
        anyhow::bail!("the group does not recover")
    }

    /// None where the session is not valid.
    async fn send(
        &mut self,
        open_session: Vec<OpenSession>,
        ops: Vec<Op>,
    ) -> Result<Option<Answer>> {
        self.batch += 1;
        let opens = !open_session.is_empty();
        let message = Message {
            instance: self.name.clone(),
            epoch: self.epoch.clone(),
            session: if opens { SessionId::NONE } else { self.session },
            batch: self.batch,
            open_session,
            complete: true,
            seen: self.seen,
            highest_finish: 0,
            ops,
        };
        let mut reply = self.backend.step(&self.group, &message).await?;
        self.epoch = reply.epoch.clone();
        if reply.verdict != Verdict::Done {
            return Ok(None);
        }
        let answer = reply.answer.pop().context("an answer")?;
        (self.session, self.seen) = (answer.session, answer.seen);
        Ok(Some(answer))
    }

    /// A step with these ops.
    pub(crate) async fn step(&mut self, ops: Vec<Op>) -> Result<Answer> {
        let answer = self.send(Vec::new(), ops).await?;
        answer.context("the session was lost")
    }

    /// A step as under load: the calls of the last one have ended, and `requests` new ones come, which are granted at once.
    pub(crate) async fn turn(&mut self, requests: usize, tokens: u64) -> Result<()> {
        let granted = self.grants_of(requests, tokens).await?;
        ensure!(granted == requests, "{granted} of {requests} were granted");
        Ok(())
    }

    /// The same; returns how many were granted.
    pub(crate) async fn grants_of(&mut self, requests: usize, tokens: u64) -> Result<usize> {
        let mut ops = self.ended();
        let joined = (0..requests).map(|_| Op::Join(Entry::new(Claim::new(0, tokens))));
        ops.extend(joined);
        let answer = self.step(ops).await?;
        self.hold(answer.grants);
        Ok(self.grants.len())
    }

    /// Keeps what was granted; it ends with the next turn.
    pub(crate) fn hold(&mut self, grants: Vec<Grant>) {
        self.grants.extend(grants);
    }

    /// What is to be said of the calls that were granted with the last turn: dispatched, and ended as expected.
    fn ended(&mut self) -> Vec<Op> {
        let of = |grant: Grant| {
            let sent = Op::Sent {
                granted: grant.granted,
                age: Micros(1000),
            };
            let done = Op::Done {
                granted: grant.granted,
                deployment: grant.deployment,
                tokens: Tokens::from(10),
                excess: Tokens::ZERO,
                ok: true,
            };
            [sent, done]
        };
        self.grants.drain(..).flat_map(of).collect()
    }
}
