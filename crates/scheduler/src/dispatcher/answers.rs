//! How the dispatcher handles replies.

use std::sync::Arc;

use super::core::{Alive, Core, Event, Pending, Permitted, ROUND_TRIPS, TicketId, Waiting};
use crate::{
    claim::Entry,
    grant::HeldGrant,
    message::{Answer, Grant, HELD, NEVER_FITS, Op, Reply, Verdict, reason},
    mutation::{Part, without},
    rules::NONE,
    units::{Micros, Seq, SessionId},
};

impl Core {
    /// P2 (retransmission): the outstanding transmission failed or timed out. The same message is sent again later.
    pub fn on_failure(&mut self, now: Micros) {
        let heartbeat = self.heartbeat();
        if let Some(outstanding) = &mut self.outstanding {
            let backoff = Micros(5_000 << outstanding.attempts.min(10)).min(heartbeat);
            outstanding.resend_at = Some(now + backoff);
            if without(Part::P2SameMessage) {
                self.batch += 1;
                Arc::make_mut(&mut outstanding.message).batch = self.batch;
            }
        }
    }

    /// P2 (retransmission): the reply cannot be decoded, and the same message would get the same reply. The session ends, and another one is opened a heartbeat later.
    pub fn on_undecodable(&mut self, now: Micros) {
        if let Some(outstanding) = self.outstanding.take() {
            self.ask_again(outstanding.asked);
        }
        self.lose_session();
        self.not_before = now + self.rules.heartbeat();
    }

    /// Ends the session for this instance. If its close was refused it opens a session too, because others may need its charge log.
    pub(super) fn lose_session(&mut self) {
        self.session = SessionId::NONE;
        self.alive = Alive::default();
        self.forced = true;
    }

    /// The reply to the outstanding message, whose last transmission was at `sent`.
    pub fn on_reply(&mut self, now: Micros, sent: Micros, reply: Reply) -> Vec<Event> {
        let Some(outstanding) = self.outstanding.take() else {
            return Vec::new();
        };
        let mut events = Vec::new();
        // The first step of an instance may create the state, and its first opening may be refused once. Neither is a loss.
        let known = !self.epoch.is_empty();
        if reply.recovered && known {
            events.push(Event::Recovered);
        }
        self.epoch = reply.epoch;
        let close_session = matches!(
            outstanding.message.ops.last(),
            Some(Op::CloseSession { .. })
        );
        let answer = match (reply.verdict, reply.answer.into_iter().next()) {
            (Verdict::Done, Some(answer)) => answer.bounded(),
            _ => {
                self.ask_again(outstanding.asked);
                self.lose_session();
                if known {
                    events.push(Event::SessionInvalid);
                }
                return events;
            }
        };
        self.session = answer.session;
        if self.in_fallback() {
            // The state of the local fallback knows neither the fleet nor its sequence numbers.
            self.charge_log.learn_cooldowns(now, &answer, &self.ids);
        } else {
            self.learn(now, sent, outstanding.first_sent, &answer);
        }
        // The first copy may be the one that was executed, and a retransmission is no sign of life (P1).
        let from = if without(Part::P9FirstTransmission) {
            sent
        } else {
            outstanding.first_sent
        };
        let until = from + self.rules.dispatch_within();
        self.alive = if close_session {
            Alive::default()
        } else {
            Alive {
                session: answer.session,
                until,
            }
        };
        // A held ticket waits, though not in the queue.
        let refused = answer.refusals.iter().filter(|r| r.1 != HELD);
        let settled: Vec<Seq> = answer
            .grants
            .iter()
            .map(|g| g.arrival)
            .chain(refused.map(|r| r.0))
            .collect();
        self.enter_joined(outstanding.joins, &answer, &settled, &mut events);
        for grant in &answer.grants {
            self.receive_grant(now, grant, &mut events);
        }
        for (arrival, code) in &answer.refusals {
            if *code == HELD {
                self.hold(*arrival);
                continue;
            }
            if let Some(ticket) = self.by_arrival.remove(arrival) {
                if self.in_fallback() && *code == NEVER_FITS {
                    // The ticket is above this instance's part of the limits. It waits for the backend, or for the whole share.
                    self.park(ticket);
                    continue;
                }
                self.tickets.remove(&ticket);
                events.push(Event::Refused {
                    ticket,
                    code: *code,
                });
            }
        }
        self.learn_overrides(&answer);
        self.answer_queries(outstanding.asked, &answer, &mut events);
        if close_session {
            self.session = SessionId::NONE;
            self.asleep = true;
        }
        self.arm(now, &answer);
        self.last = Some((answer, now));
        events
    }

    /// Learns what the backend's answer says about the group.
    fn learn(&mut self, now: Micros, sent: Micros, first_sent: Micros, answer: &Answer) {
        if answer.seen > self.seen.0 {
            // A replay may be a second old. Counting from the first transmission would accumulate: known numbers would run ahead of time by half a second with each lost
            // message.
            self.seen = (answer.seen, now);
        }
        self.highest_finish = self.highest_finish.max(answer.highest_finish);
        if self.round_trips.len() == ROUND_TRIPS {
            self.round_trips.pop_front();
        }
        self.round_trips.push_back(now.saturating_sub(sent));
        if answer.rules_version > 0 {
            self.rules_version = answer.rules_version;
        }
        self.requested = (answer.memory, answer.heartbeat);
        // A replay is as old as the first copy that was executed.
        let late = first_sent + 2 * self.heartbeat() < now;
        self.charge_log.learn(now, late, answer, &self.ids);
        self.note_use(now, answer);
    }

    /// Gives joined tickets their numbers. Tickets that have left meanwhile leave the queue too, unless the reply grants or refuses them.
    fn enter_joined(
        &mut self,
        joins: Vec<(TicketId, Waiting)>,
        answer: &Answer,
        settled: &[Seq],
        events: &mut Vec<Event>,
    ) {
        let ahead = answer.ahead.iter().copied().chain(std::iter::repeat(0));
        for ((number, (id, sent)), ahead) in (answer.base.0..).map(Seq).zip(joins).zip(ahead) {
            let first = sent.entry.arrival == Seq::NONE;
            let arrival = if first { number } else { sent.entry.arrival };
            let waits = !settled.contains(&arrival);
            if let Some(ticket) = self.tickets.get_mut(&id) {
                (ticket.entry.arrival, ticket.entered) = (arrival, number);
                self.by_arrival.insert(arrival, id);
                if first && waits {
                    events.push(Event::Entered {
                        ticket: id,
                        ahead,
                        arrival,
                    });
                }
            } else if waits {
                let op = Op::Leave {
                    claim: sent.entry.claim,
                    arrival,
                };
                self.pending.push_back(Pending::Op(op));
            }
        }
    }

    fn receive_grant(&mut self, now: Micros, grant: &Grant, events: &mut Vec<Event>) {
        let Some(id) = self.by_arrival.remove(&grant.arrival) else {
            self.refund(now, grant.granted);
            return;
        };
        let Some(ticket) = self.tickets.remove(&id) else {
            return;
        };
        let deployment = self.ids.iter().position(|known| *known == grant.deployment);
        let of = deployment.and_then(|index| self.rules.deployments.get(index));
        let limited = grant.counted || of.is_some_and(|of| of.concurrency != NONE);
        let usable = !limited || now <= self.alive.until;
        let (Some(deployment), true) = (deployment, usable) else {
            events.push(Event::Expired);
            self.refund(now, grant.granted);
            let entry = Entry {
                start: grant.start,
                ..ticket.entry
            };
            self.enter(id, Waiting { entry, ..ticket });
            return;
        };
        let held = HeldGrant {
            grant: grant.clone(),
            entry: Entry {
                start: grant.start,
                ..ticket.entry
            },
            entered: ticket.entered,
            deployment,
            limited,
            session: self.session,
        };
        let permit = Permitted {
            held: held.clone(),
            probing: grant.probe,
            ok: false,
            dispatched: false,
        };
        self.permits.insert(grant.granted, permit);
        events.push(Event::Granted { ticket: id, held });
    }

    /// Exact sleeps: until the next heartbeat, or the time at which the head can be granted.
    fn arm(&mut self, now: Micros, answer: &Answer) {
        let mut sleep = self.heartbeat();
        if !self.tickets.is_empty() || answer.recovering {
            match u64::try_from(answer.next_free).map(Micros) {
                Ok(free) if answer.mine => sleep = sleep.min(free.max(Micros(200))),
                Ok(free) => {
                    let rank = self
                        .charge_log
                        .peers
                        .iter()
                        .position(|p| *p == self.instance)
                        .unwrap_or(0) as u64;
                    sleep = sleep.min(free + self.polling_interval * (1 + rank));
                }
                // All sessions are woken when the group goes on.
                Err(_) if answer.reasons & reason::PAUSED != 0 => {}
                Err(_) if answer.mine && !without(Part::P15Poll) => {
                    sleep = sleep.min(self.polling_interval)
                }
                Err(_) => {}
            }
        }
        if !self.unreported.is_empty() {
            sleep = sleep.min(self.report_within);
        }
        self.step_at = now + sleep;
        self.forced |= answer.more && !without(Part::P16More);
    }
}
