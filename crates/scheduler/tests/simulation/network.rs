//! The network: how messages, replies and wakes are delivered, delayed, repeated or lost.

use std::{collections::BTreeSet, sync::Arc};

use vorrang_scheduler::{
    Entry, Micros, Seq, SessionId,
    dispatcher::Event as CoreEvent,
    message::{ALL_INSTANCES, Grant, Message, NEVER_FITS, Op, QUEUE_FULL, Reply, Verdict},
    transition::{Environment, State, step},
};

use crate::{
    instance::{Call, Client, Outcome},
    operators::ordered_by,
    referee::order,
    rollouts::Rollout,
    scenario::{MS, SECOND},
    world::{Event, World},
};

/// How often an instance in the local fallback checks whether the server is reachable again.
const CHECK_INTERVAL: u64 = SECOND / 2;

impl World {
    /// Sends the instance's next message if it has one, and sets its timer otherwise.
    pub(crate) fn pump(&mut self, i: usize) {
        let clock = self.instances[i].clock(self.now);
        if self.instances[i].leaving
            && self.instances[i].calls.is_empty()
            && !self.instances[i].core.is_asleep()
        {
            self.instances[i].core.close_session();
        }
        if let Some(transmission) = self.instances[i].core.poll(clock) {
            self.next_transmission += 1;
            let id = self.next_transmission;
            self.instances[i].transmission = Some((id, clock));
            let message = &transmission.message;
            if let Some(reply) = self.instances[i].core.answer_locally(clock, message) {
                self.after(1, Event::Reply(i, id, Box::new(reply)));
                if !std::mem::replace(&mut self.instances[i].checks_server, true) {
                    self.after(CHECK_INTERVAL, Event::CheckServer(i));
                }
                return;
            }
            self.after(transmission.timeout.0, Event::TimedOut(i, id));
            self.send(i, id, transmission.message);
        } else if let Some(deadline) = self.instances[i].core.deadline() {
            self.instances[i].timer += 1;
            let timer = self.instances[i].timer;
            self.after(
                deadline.saturating_sub(clock).0.max(1),
                Event::Timer(i, timer),
            );
        } else if self.instances[i].leaving && self.instances[i].core.is_asleep() {
            self.instances[i].alive = false;
        }
    }

    /// An instance in the local fallback checks whether the server is reachable again.
    pub(crate) fn check_server(&mut self, i: usize) {
        let instance = &mut self.instances[i];
        let is_up = !self.server.down && self.server.hanging.is_none();
        if instance.core.in_fallback() && !(is_up && instance.reachable(self.now)) {
            self.after(CHECK_INTERVAL, Event::CheckServer(i));
            return;
        }
        instance.checks_server = false;
        instance.core.backend_returned();
        self.pump(i);
    }

    /// The delay of a message, one way.
    fn one_way_delay(&mut self, i: usize, least: u64) -> u64 {
        match self.scenario.far.get(i) {
            Some((from, to)) if *to > 0 => self.rng.u64(*from..=*to),
            _ => self.rng.u64(least..1500),
        }
    }

    pub(crate) fn send(&mut self, i: usize, id: u64, message: Arc<Message>) {
        let (lost, late, ..) = self.scenario.network;
        if self.now < self.instances[i].cut_until || self.chance(lost) {
            return;
        }
        let delay = self.one_way_delay(i, 300);
        if self.chance(late) {
            // Executed long after the sender's time-out. Half of these are second copies.
            let long_delay = self.rng.u64(200 * MS..15 * SECOND);
            self.after(long_delay, Event::Request(i, id, message.clone()));
            if self.rng.bool() {
                return;
            }
        }
        self.after(delay, Event::Request(i, id, message));
    }

    pub(crate) fn receive(&mut self, i: usize, id: u64, message: Arc<Message>) {
        if self.server.down {
            return;
        }
        if let Some(waiting) = &mut self.server.hanging {
            waiting.push(Event::Request(i, id, message));
            return;
        }
        if self.server.keep_history
            && let Some(state) = &self.server.state
        {
            self.server.history.push_back(state.clone());
            if self.server.history.len() > 12 {
                self.server.history.pop_front();
            }
        }
        let jitter = match self.scenario.jitter {
            0 => 0,
            most => self.rng.u64(0..=most),
        };
        if self.now < self.scenario.until {
            self.received += 1;
        }
        let environment = Environment {
            now: Micros(self.server.clock + self.now + jitter),
            random: self.rng.u32(..),
            replication: match self.scenario.undetected_failover {
                true => "".into(),
                false => format!("r{}", self.server.replication).into(),
            },
            certain: false,
        };
        let outcome = step(&mut self.server.state, &environment, &message);
        if self.verbose {
            println!(
                "             -> {:?} wakes {:?}",
                outcome.reply, outcome.wakes
            );
        }
        if let Some(state) = &self.server.state {
            self.referee
                .judge_conservative_charge(self.now, state.charged());
            if state.session_count() > self.instances.len() as u64 {
                self.referee
                    .violations
                    .push(format!("P1: more sessions than instances at {}", self.now));
            }
            let (depth, cap) = (state.waiting(), self.config.max_queue_depth);
            if cap.is_some_and(|cap| depth > cap) {
                self.referee
                    .violations
                    .push(format!("{depth} tickets wait at {}", self.now));
            }
            self.judge_refusal(&message, &outcome.reply);
        }
        if self.calm && message.session != SessionId::NONE && outcome.reply.verdict != Verdict::Done
        {
            // A heartbeat delivers grants even if their wake is lost, before the delivery deadline (P10).
            let refused = format!("P10: a living session was refused at {}", self.now);
            self.referee.violations.push(refused);
        }
        if let Some(answer) = outcome.reply.answer.first() {
            // A replay is no sign of life (P1).
            if self.instances[i].batch < message.batch {
                self.instances[i].batch = message.batch;
                self.instances[i].executed = self.uptime();
            }
            if self.steps.insert((i, message.batch)) && self.comparable {
                self.referee.judge_numbers(self.now, answer);
            }
            let closes = matches!(message.ops.last(), Some(Op::CloseSession { .. }));
            if let Some(open) = message.open_session.first() {
                self.note_side(i, &open.rules);
            }
            self.note_session(i, !closes, answer.recovering);
            for grant in &answer.grants {
                self.referee.replied(self.now, grant.granted);
            }
        }
        for name in outcome.wakes {
            for j in 0..self.instances.len() {
                if *name == *ALL_INSTANCES || name == self.names[j] {
                    self.send_wake(j);
                }
            }
        }
        let (_, _, lost, _) = self.scenario.network;
        if self.instances[i].receives(self.now) && !self.chance(lost) {
            let delay = self.one_way_delay(i, 300);
            self.after(delay, Event::Reply(i, id, Box::new(outcome.reply)));
        }
    }

    /// Checks which ticket is refused when a single ticket joins. The tickets that it displaces are older.
    fn judge_refusal(&mut self, message: &Message, reply: &Reply) {
        let last = self.server.state.as_ref().and_then(State::last_in_queue);
        if let ([Op::Join(Entry { claim, arrival, .. })], Some(answer)) =
            (&message.ops[..], reply.answer.first())
        {
            let arrival = if *arrival == Seq::NONE {
                answer.base
            } else {
                *arrival
            };
            if answer.refusals.contains(&(arrival, QUEUE_FULL)) {
                // With fair shares the newest ticket of the longest tenant queue is displaced, which other tests judge.
                if !self.rules.fair {
                    let order = order(&self.rules, claim.priority, 0, arrival);
                    self.referee.displaced(order, last);
                }
            }
        }
    }

    pub(crate) fn send_wake(&mut self, i: usize) {
        let (.., lost) = self.scenario.network;
        if !self.instances[i].receives(self.now) || self.chance(lost) {
            return;
        }
        let delay = if self.chance(lost) {
            self.rng.u64(0..300 * MS)
        } else {
            self.one_way_delay(i, 200)
        };
        self.after(delay, Event::Wake(i));
    }

    pub(crate) fn replied(&mut self, i: usize, transmission: u64, reply: Reply) {
        let clock = self.instances[i].clock(self.now);
        let Some((_, sent)) = self.instances[i]
            .transmission
            .filter(|(id, _)| *id == transmission)
        else {
            return;
        };
        self.instances[i].transmission = None;
        let mut unused: BTreeSet<Seq> = reply
            .answer
            .iter()
            .flat_map(|a| a.grants.iter().map(|g| g.granted))
            .collect();
        for event in self.instances[i].core.on_reply(clock, sent, reply) {
            match event {
                CoreEvent::Answered { query, result } => self.answered(i, query, &result),
                CoreEvent::Granted { ticket, held } => {
                    let Grant {
                        arrival,
                        granted,
                        score,
                        start,
                        probe,
                        deployment,
                        ..
                    } = held.grant;
                    let entered = held.entered;
                    unused.remove(&granted);
                    let Some(client) = self.instances[i].waiting.remove(&ticket) else {
                        self.referee
                            .violations
                            .push(format!("A2: ticket {ticket} was granted and does not wait"));
                        continue;
                    };
                    // Arrivals of the local fallback (P21) are replaced by those of the backend.
                    let numbered = client.arrival != Seq::NONE && client.arrival < Seq(1 << 52);
                    if numbered && client.arrival != arrival {
                        self.referee
                            .violations
                            .push(format!("A8: {} became {arrival}", client.arrival));
                    }
                    let deployment = self.referee_index(&deployment);
                    let mut client = client;
                    if let Some(by) = ordered_by(&self.rules, &client.moved, client.priority, score)
                    {
                        client.priority = by;
                    }
                    let entered = entered.max(std::mem::take(&mut client.moved_at));
                    let same_order = self.rollout.as_ref().is_none_or(Rollout::same_order);
                    if same_order && score != order(&self.rules, client.priority, start, arrival).0
                    {
                        let found = format!("A1: {client:?} was ordered by {score}");
                        self.referee.violations.push(found);
                    }
                    let client = Client {
                        arrival,
                        start,
                        ..client
                    };
                    let outcome = Outcome::Success;
                    let call = Call {
                        client,
                        deployment,
                        probe,
                        entered,
                        dispatched: false,
                        outcome,
                    };
                    self.instances[i].calls.insert(granted, call);
                    let delay = if self.scenario.slow > 0 && self.rng.u8(..3) == 0 {
                        self.rng.u64(0..self.scenario.slow)
                    } else if self.rng.u8(..50) == 0 {
                        self.rng.u64(0..90 * MS)
                    } else {
                        self.rng.u64(0..200)
                    };
                    self.after(delay, Event::Dispatch(i, granted));
                }
                CoreEvent::Refused { ticket, code } => {
                    let capped = self.rollout.as_ref().is_some_and(Rollout::capped);
                    if self.rollout.is_some()
                        && (code == NEVER_FITS || code == QUEUE_FULL && !capped)
                    {
                        let found = format!("A5: ticket {ticket} is refused for {code}");
                        self.referee.violations.push(found);
                    }
                    if ![NEVER_FITS, QUEUE_FULL].contains(&code) && self.rollout.is_none() {
                        self.referee.refused(self.now, code);
                    }
                    if self.instances[i].waiting.remove(&ticket).is_some() {
                        self.open_clients -= 1;
                    }
                }
                CoreEvent::Entered {
                    ticket, arrival, ..
                } => _ = self.instances[i].arrivals.insert(ticket, arrival),
                CoreEvent::Expired | CoreEvent::SessionInvalid | CoreEvent::Recovered => {}
            }
        }
        for granted in unused {
            self.referee.returned(granted);
        }
        self.pump(i);
    }
}
