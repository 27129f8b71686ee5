//! What the dispatcher sends, and when.

use std::sync::Arc;

use super::core::{Alive, Core, Outstanding, Pending, Transmission};
use crate::message::{MAX_OPS, Message, Op};
use crate::mutation::{Part, without};
use crate::units::{Micros, Seq, SessionId};

impl Core {
    /// The next thing to send, if it is time. To be called after anything happened, and at [`Core::deadline`].
    pub fn poll(&mut self, now: Micros) -> Option<Transmission> {
        self.fall_back_where_due(now);
        if self.outstanding.is_none() {
            if now < self.not_before {
                return None;
            }
            if self.asleep && (self.pending.is_empty() || self.leaving) {
                return None;
            }
            if self.pending.is_empty() && !self.forced && now < self.step_at {
                return None;
            }
            self.compose(now);
        }
        let heartbeat = self.heartbeat();
        let outstanding = self.outstanding.as_mut()?;
        if outstanding.resend_at.is_none_or(|at| now < at) {
            return None;
        }
        outstanding.resend_at = None;
        // A lost message costs a heartbeat. More time than two of them helps nobody: what is granted so late cannot be used (P9).
        let timeout = heartbeat * if outstanding.attempts < 2 { 1 } else { 2 };
        outstanding.attempts += 1;
        Some(Transmission {
            message: outstanding.message.clone(),
            timeout,
        })
    }

    /// When to poll again if nothing happens; `None` while a message is under way or nothing is to be done.
    pub fn deadline(&self) -> Option<Micros> {
        match &self.outstanding {
            Some(outstanding) => outstanding.resend_at,
            None if self.asleep => None,
            None if self.forced || !self.pending.is_empty() => Some(self.not_before),
            None => {
                let share_at = self.fallback.as_ref().and_then(|own| own.share_at);
                let at = self.step_at.min(share_at.unwrap_or(Micros::MAX));
                Some(at.max(self.not_before))
            }
        }
    }

    fn compose(&mut self, now: Micros) {
        self.forced = false;
        // Who is never idle has to forget as well. An entry is looked at some eight times in its life.
        if self.forget_at <= now {
            let memory = self.remember_for();
            self.memory.forget(now, memory);
            self.forget_at = now + memory / 8;
        }
        if !self.tickets.is_empty() || !self.permits.is_empty() {
            self.busy_at = now;
        }
        let open_session = if self.session == SessionId::NONE {
            if self.asleep {
                self.asleep = false;
                self.busy_at = now;
            }
            self.take_snapshot(now);
            vec![self.open_session(now)]
        } else {
            Vec::new()
        };
        let mut ops = Vec::new();
        let mut joins = Vec::new();
        if open_session.is_empty() && !without(Part::P8Report) {
            // Before what happened since: `Done` of the same grant implies that it was dispatched, but not when.
            while ops.len() < MAX_OPS
                && let Some(granted) = self.unreported.pop_first()
            {
                if let Some(charge) = self.memory.charges.get(&granted) {
                    let age = now.saturating_sub(charge.at);
                    ops.push(Op::Sent { granted, age });
                }
            }
        } else {
            // The snapshot has them.
            self.unreported.clear();
        }
        while ops.len() < MAX_OPS {
            let Some(next) = self.pending.pop_front() else {
                break;
            };
            self.snapshot_left = self.snapshot_left.saturating_sub(1);
            match next {
                Pending::Op(op) => ops.push(op),
                Pending::Charge(granted, excess) => {
                    ops.extend(self.remembered(now, granted, excess))
                }
                Pending::Join(id) => {
                    let Some(ticket) = self.tickets.get_mut(&id) else {
                        continue;
                    };
                    ticket.entered = Seq::NONE;
                    joins.push((id, ticket.clone()));
                    ops.push(Op::Join(ticket.entry));
                }
            }
        }
        if open_session.is_empty() && ops.is_empty() && self.is_idle(now) {
            ops.push(Op::CloseSession {
                clean: self.memory.charges.is_empty() || without(Part::P11Clean),
            });
        }
        if matches!(ops.last(), Some(Op::CloseSession { .. })) {
            self.alive = Alive::default();
        }
        self.batch += 1;
        let message = Message {
            instance: self.instance.clone(),
            epoch: self.epoch.clone(),
            session: self.session,
            batch: self.batch,
            open_session,
            complete: self.snapshot_left == 0,
            seen: self.highest_number(now),
            highest_finish: self.highest_finish,
            ops,
        };
        self.outstanding = Some(Outstanding {
            message: Arc::new(message),
            joins,
            first_sent: now,
            attempts: 0,
            resend_at: Some(now),
        });
    }

    /// P5: numbers grow with time, so those drawn elsewhere since are no higher than this, even if the server has lost its state and its clock
    /// has gone back.
    fn highest_number(&self, now: Micros) -> Seq {
        match self.seen {
            (Seq::NONE, _) => Seq::NONE,
            (number, _) if without(Part::P5GrowsWithTime) => number,
            (number, at) => number + now.saturating_sub(at),
        }
    }

    /// P11: nothing waiting, in flight, or worth remembering.
    fn is_idle(&mut self, now: Micros) -> bool {
        let memory = self.remember_for();
        self.memory.forget(now, memory);
        let nothing = self.tickets.is_empty()
            && self.permits.is_empty()
            && self.memory.charges.is_empty()
            && self.memory.cooldowns.is_empty();
        // The others count an instance with a session when each takes its part of the limits.
        let counts = self.serves_alone && self.rules.is_limited();
        if without(Part::P11ClosesAfter) && self.tickets.is_empty() && self.permits.is_empty() {
            return true;
        }
        self.leaving || !counts && nothing && self.busy_at + memory <= now
    }
}
