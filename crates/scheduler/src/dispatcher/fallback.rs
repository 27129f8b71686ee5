//! The local fallback (P21): while the backend is away, the instance continues on a local state, with its part of each limit ([`WhenAway::Share`]).
//!
//! The fallback is one more session: messages, step and snapshot are the same as with the backend, and only the receiver of the messages differs. When the backend replies
//! again, the epoch of the local state is unknown to it. That is a loss (P1), so all instances report what they sent before any ticket is granted.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use super::core::{Core, TicketId, Waiting};
use crate::{
    claim::Entry,
    cost::Cost,
    message::{Answer, Message, Reply, Used},
    mutation::{Part, without},
    rules::{DeploymentRules, MAX_SEEN, NONE, Rules, Window},
    transition::{Environment, State, step},
    units::{Micros, Seq},
};

/// Sequence numbers of local states begin here. No backend draws them, so charges of different instances never have the same number.
const FALLBACK_NUMBERS: Seq = MAX_SEEN;

/// A sequence number of a local state, which the backend does not know.
pub(super) fn is_fallback_number(number: Seq) -> bool {
    number >= FALLBACK_NUMBERS
}

/// The local state while the backend is away.
#[derive(Debug)]
pub(super) struct Fallback {
    /// Always present: a step takes an option.
    state: Option<State>,
    /// The configuration with the part of each limit that the instance may use.
    pub(super) rules: Arc<Rules>,
    /// When all calls that other instances may have sent before have left their windows. From then on the part is the share.
    pub(super) share_at: Option<Micros>,
}

/// The highest use of a deployment by the fleet in its longest window, within the last one or two windows.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Peak {
    since: Micros,
    former: Most,
    current: Most,
}

/// What counted in the longest window, and open calls.
#[derive(Debug, Clone, Copy, Default)]
struct Most {
    cost: Cost,
    open: u64,
}

impl Most {
    fn max(self, other: Self) -> Self {
        Self {
            cost: self.cost.max(other.cost),
            open: self.open.max(other.open),
        }
    }
}

impl Peak {
    fn note(&mut self, now: Micros, window: Micros, used: Most) {
        if self.since + window <= now {
            (self.since, self.former, self.current) = (now, self.current, Most::default());
        }
        self.current = self.current.max(used);
    }

    fn most(self) -> Most {
        self.former.max(self.current)
    }
}

/// The part of a limit that one of `instances` may use. In the `first` phase, before the calls of other instances have left their windows, it is the instance's own use
/// and its part of what was free.
fn part(limit: i64, own: u64, peak: u64, instances: u64, first: bool) -> i64 {
    let Ok(limit) = u64::try_from(limit) else {
        return NONE;
    };
    let share = limit / instances;
    let part = if first && instances > 1 {
        share.min(own + limit.saturating_sub(peak) / instances)
    } else {
        share
    };
    part.cast_signed()
}

impl Core {
    /// The local fallback is active.
    pub fn in_fallback(&self) -> bool {
        self.fallback.is_some()
    }

    /// Notes the use of the fleet, as the backend reports it.
    pub(super) fn note_use(&mut self, now: Micros, answer: &Answer) {
        self.answered_at = now;
        let memory = self.rules.memory;
        self.peaks.resize(self.ids.len(), Peak::default());
        for (peak, &Used { cost, open, .. }) in self.peaks.iter_mut().zip(&answer.used) {
            peak.note(now, memory, Most { cost, open });
        }
    }

    /// Begins the fallback when the backend has been unresponsive for the lease, and continues to the whole share when that is safe.
    pub(super) fn fall_back_where_due(&mut self, now: Micros) {
        let share_at = self.fallback.as_ref().and_then(|own| own.share_at);
        if share_at.is_some_and(|at| at <= now) {
            self.open_fallback_session(now, false);
            return;
        }
        let unresponsive = self
            .unanswered_since()
            .is_some_and(|since| since + self.rules.lease <= now);
        // Without any reply from the backend the number of instances is unknown.
        let knows = self.seen.0 > Seq::NONE || !self.rules.is_limited();
        if self.fallback.is_some() || !self.falls_back || !unresponsive || !knows || self.leaving {
            return;
        }
        let random = self.random(now);
        let environment = environment(now, random);
        // One of the lowest 2^51 of these numbers, so that the following ones stay exact.
        let first = FALLBACK_NUMBERS + (u64::from(random) << 19);
        let state = State::of_one_instance(&environment, first);
        self.outstanding = None;
        self.epoch = state.epoch().clone();
        self.fallback = Some(Fallback {
            state: Some(state),
            rules: self.rules.clone(),
            share_at: None,
        });
        self.open_fallback_session(now, true);
    }

    fn open_fallback_session(&mut self, now: Micros, first: bool) {
        let rules = Arc::new(self.fallback_rules(now, first));
        // Until then other instances may dispatch what the backend granted them (P9), and it counts in their windows.
        let others_end = self.answered_at + self.rules.dispatch_within() + self.rules.memory;
        let alone = self.charge_log.peers.len() < 2;
        if let Some(own) = &mut self.fallback {
            own.rules = rules;
            own.share_at = (first && !alone).then_some(others_end);
        }
        self.lose_session();
    }

    /// Keeps a ticket out of the queue until the next session.
    pub(super) fn park(&mut self, id: TicketId) {
        if let Some(ticket) = self.tickets.get_mut(&id) {
            ticket.entered = Seq::NONE;
            if is_fallback_number(ticket.entry.arrival) {
                ticket.entry.arrival = Seq::NONE;
            }
        }
    }

    /// The reply of the local state to a message, while the backend is away.
    pub fn answer_locally(&mut self, now: Micros, message: &Message) -> Option<Reply> {
        let random = self.random(now);
        let own = self.fallback.as_mut()?;
        Some(step(&mut own.state, &environment(now, random), message).reply)
    }

    /// The backend replies again: the instance opens a session there.
    pub fn backend_returned(&mut self) {
        if self.fallback.take().is_none() {
            return;
        }
        self.outstanding = None;
        // Tickets enter in their local order, and get new numbers.
        for Waiting { entry, .. } in self.tickets.values_mut() {
            if is_fallback_number(entry.arrival) {
                *entry = Entry::new(entry.claim);
            }
        }
        self.by_arrival
            .retain(|arrival, _| !is_fallback_number(*arrival));
        self.lose_session();
    }

    /// A number that differs by instance and by time.
    fn random(&self, now: Micros) -> u32 {
        let mut hasher = DefaultHasher::new();
        (&self.instance, now).hash(&mut hasher);
        (hasher.finish() >> 32) as u32
    }

    /// The configuration with this instance's part of each limit.
    fn fallback_rules(&self, now: Micros, first: bool) -> Rules {
        let instances = if without(Part::P21Share) {
            1
        } else {
            self.charge_log.peers.len().max(1) as u64
        };
        let mut rules = Rules::clone(&self.rules);
        self.overrides.apply(&mut rules);
        let part_of = |(index, deployment): (usize, &DeploymentRules)| {
            let peak = self.peaks.get(index).copied().unwrap_or_default().most();
            let open = self
                .permits
                .values()
                .filter(|p| *p.deployment() == deployment.id);
            let open = open.count() as u64;
            let windows = deployment.windows.iter().map(|window| {
                let own = self
                    .charge_log
                    .sent_within(&deployment.id, window.span, now);
                let (own, peak) = (own.amounts(), peak.cost.amounts());
                let part_of = |k: usize| part(window.limits[k], own[k], peak[k], instances, first);
                Window {
                    span: window.span,
                    limits: std::array::from_fn(part_of),
                }
            });
            DeploymentRules {
                concurrency: part(deployment.concurrency, open, peak.open, instances, first),
                windows: windows.collect(),
                ..deployment.clone()
            }
        };
        let deployments = rules.deployments.iter().enumerate().map(part_of).collect();
        Rules {
            deployments,
            ..rules
        }
    }
}

/// The clock of the local state begins with the process, so its epoch began before any epoch of a backend.
fn environment(now: Micros, random: u32) -> Environment {
    Environment {
        now: now + Micros::SECOND,
        random,
        replication: "".into(),
        certain: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::Tokens;

    #[test]
    fn sum_of_parts_never_exceeds_the_limit() {
        for limit in 0..40_u64 {
            for own in [0, 3, 7] {
                for others in [0, 5, 33] {
                    let peak = own + others;
                    if peak > limit {
                        continue;
                    }
                    // Two other instances share the rest of the use.
                    let uses = [own, others / 2, others - others / 2];
                    let parts = |first| {
                        let parts = uses.map(|own| part(limit.cast_signed(), own, peak, 3, first));
                        parts.iter().sum::<i64>().unsigned_abs()
                    };
                    assert!(
                        parts(true) <= limit && parts(false) <= limit,
                        "{limit} {uses:?}"
                    );
                }
            }
        }
        assert_eq!(part(NONE, 1, 2, 3, true), NONE);
        assert_eq!(part(10, 0, 10, 1, true), 10, "alone");
        assert_eq!(part(3, 0, 0, 3, false), 1);
        assert_eq!(part(2, 0, 0, 3, false), 0);
    }

    #[test]
    fn peak_covers_at_least_the_last_window() {
        let mut peak = Peak::default();
        let used = |requests| Most {
            cost: Cost {
                requests,
                tokens: Tokens::ZERO,
            },
            open: 0,
        };
        peak.note(Micros(100), Micros(10), used(7));
        peak.note(Micros(105), Micros(10), used(3));
        assert_eq!(peak.most().cost.requests, 7);
        peak.note(Micros(110), Micros(10), used(2));
        assert_eq!(peak.most().cost.requests, 7);
        peak.note(Micros(120), Micros(10), used(1));
        assert_eq!(peak.most().cost.requests, 2);
    }
}
