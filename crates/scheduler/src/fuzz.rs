//! The functions of the fuzz targets and of the tests with inputs near valid ones: they do not panic for any bytes, and return whether
//! they accepted them.

use std::time::Duration;

use crate::{
    Claim, Deployment, Entry, GroupConfig, LimitKind, Micros, Tokens,
    dispatcher::Core,
    message::{Reply, Verdict},
};

/// Decodes a reply from Redis and passes it to a dispatcher: as the reply to an open-session message, and as that to a later message.
pub fn reply(bytes: &[u8]) -> bool {
    let Ok(reply) = rmp_serde::from_slice::<Reply>(bytes) else {
        return false;
    };
    let minute = Duration::from_secs(60);
    let a = Deployment::new("a")
        .limit(LimitKind::Requests, 10, minute)
        .limit(LimitKind::Tokens, 1000, minute)
        .limit(LimitKind::InputTokens, 500, minute)
        .limit(LimitKind::OutputTokens, 500, minute)
        .limit(LimitKind::Concurrency, 3, Duration::ZERO);
    let mut now = Micros::SECOND;
    let mut core = Core::new("one".into(), &GroupConfig::new(vec![a]), now);
    for ticket in 0..3 {
        core.join(ticket, Entry::new(Claim::new(0, 7)));
        core.wake();
        if core.poll(now).is_none() {
            break;
        }
        now += Micros(700_000);
        core.on_reply(now, now - Micros(1000), reply.clone());
        for grant in reply.answer.iter().flat_map(|answer| &answer.grants) {
            let sent = core.dispatch(now, grant.granted);
            core.failed(now, grant.granted, 500, None);
            core.give_back(now, grant.granted, sent, Some(Tokens::MAX));
        }
        let deadline = core.deadline();
        assert!(deadline.is_none_or(|deadline| deadline < now + Micros(1 << 53)));
    }
    reply.verdict == Verdict::Done
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Seq, SessionId,
        message::{Message, Op, OpenSession},
        near::check_near,
        rules::Rules,
        transition::{Environment, State, step},
    };

    /// The replies of three steps that open a session, let two tickets enter, and grant one of them.
    fn replies() -> Vec<Vec<u8>> {
        let a = Deployment::new("a").limit(LimitKind::Requests, 1, Duration::from_secs(60));
        let rules = Rules::from(&GroupConfig::new(vec![a]));
        let mut message = Message {
            instance: "one".into(),
            epoch: "".into(),
            session: SessionId::NONE,
            batch: 1,
            open_session: vec![OpenSession {
                number: 1,
                rules: rules.into(),
                rules_version: 0,
                peers: vec!["two".into()],
                departed: Vec::new(),
                view: Vec::new(),
            }],
            complete: true,
            seen: Seq::NONE,
            highest_finish: 0,
            ops: Vec::new(),
        };
        let environment = Environment {
            now: Micros(10_000_000),
            random: 7,
            replication: "".into(),
            certain: true,
        };
        let (mut state, mut found) = (None::<State>, Vec::new());
        for number in 1..4 {
            let reply = step(&mut state, &environment, &message).reply;
            message.epoch = reply.epoch.clone();
            message.batch = number + 1;
            match reply.answer.first() {
                None => message.open_session[0].number = number + 1,
                Some(answer) => {
                    message.session = answer.session;
                    message.open_session.clear();
                    let join = |tokens: u64| Op::Join(Entry::new(Claim::new(0, tokens)));
                    message.ops = vec![join(1), join(2)];
                }
            }
            found.push(rmp_serde::to_vec(&reply).unwrap());
        }
        found
    }

    #[test]
    fn dispatcher_accepts_any_reply_that_can_be_decoded() {
        let replies = replies();
        let granted = rmp_serde::from_slice::<Reply>(&replies[2]).unwrap();
        assert_eq!(granted.answer[0].grants.len(), 1);
        let done = [&*replies[1], &*replies[2]];
        check_near("reply", &done, 20_000, reply);
    }
}
