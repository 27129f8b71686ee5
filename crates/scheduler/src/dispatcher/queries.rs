//! What operators ask and change (P23). Queries go with the next message, and are asked again after a loss of the session: each may be executed twice.

use super::core::{Core, Event, Pending, QueryId, TicketId};
use crate::{
    claim::{Claim, Entry},
    message::{Answer, MAX_OPS, Op, Override, View},
    overrides::Overrides,
    rules::NONE,
    units::Seq,
};

/// A question about the group, or a change of it.
#[derive(Debug, Clone)]
pub enum Query {
    /// A part of the queue, from this rank on, and at most so many tickets.
    Look(u64, u64),
    /// How many tickets would be ahead of a ticket that comes now.
    Preview(Claim),
    /// How many tickets are ahead of a ticket of this instance.
    Position(Seq),
    /// A ticket of this instance gets another priority.
    Move(Seq, i32),
    /// A change of the overrides.
    Override(Override),
}

/// The answer to a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueryResult {
    /// To [`Query::Look`]; and how many tickets wait.
    View(Box<View>, u64),
    /// To [`Query::Preview`], [`Query::Position`] and [`Query::Move`]: how many tickets are ahead.
    Ahead(u64),
    /// To [`Query::Position`] and [`Query::Move`]: the ticket waits on its instance and not in the queue, because its key is paused.
    Held,
    /// To [`Query::Position`] and [`Query::Move`]: no such ticket waits on this instance.
    NotHere,
    /// To [`Query::Override`].
    Overrides(Overrides),
}

/// A query of the outstanding message, and whether its reply has an answer to it.
pub(super) type Asked = (QueryId, Query, bool);

impl Core {
    /// Asks the group, with the next message.
    pub fn ask(&mut self, id: QueryId, query: Query) {
        self.queries.push_back((id, query));
    }

    /// Forgets queries that are not sent and whose answers nobody waits for.
    pub fn keep_queries(&mut self, waits: impl Fn(QueryId) -> bool) {
        self.queries.retain(|(id, _)| waits(*id));
    }

    /// Puts the queries of a message that was not executed in front of the others.
    pub(super) fn ask_again(&mut self, asked: Vec<Asked>) {
        for (id, query, _) in asked.into_iter().rev() {
            self.queries.push_front((id, query));
        }
    }

    /// Adds the ops of queries to a message.
    pub(super) fn ask_all(&mut self, ops: &mut Vec<Op>) -> Vec<Asked> {
        let mut asked: Vec<Asked> = Vec::new();
        // The local state's numbers are above all others: what it counted as newest would stay for ever.
        let mut deferred = Vec::new();
        // A snapshot is complete before anything is asked.
        while self.snapshot_left == 0
            && ops.len() < MAX_OPS
            && let Some((id, query)) = self.queries.pop_front()
        {
            if self.in_fallback() && matches!(query, Query::Override(_)) {
                deferred.push((id, query));
                continue;
            }
            let is_look = |query: &Query| matches!(query, Query::Look(..));
            if is_look(&query) && asked.iter().any(|(_, query, _)| is_look(query)) {
                // A message gets one view.
                self.queries.push_front((id, query));
                break;
            }
            let op = self.op_of(&query);
            asked.push((id, query, op.is_some()));
            ops.extend(op);
        }
        self.queries.extend(deferred);
        asked
    }

    /// `None`: the group knows nothing of the ticket.
    fn op_of(&mut self, query: &Query) -> Option<Op> {
        Some(match query {
            Query::Look(from, most) => Op::Look {
                from: *from,
                most: *most,
            },
            Query::Preview(claim) => Op::Rank {
                claim: claim.bounded(),
                arrival: Seq::NONE,
            },
            Query::Position(arrival) => {
                let id = self.by_arrival.get(arrival)?;
                let ticket = self.tickets.get(id).filter(|ticket| !ticket.held)?;
                Op::Rank {
                    claim: ticket.entry.claim,
                    arrival: *arrival,
                }
            }
            Query::Move(arrival, to) => {
                let id = self.by_arrival.get(arrival)?;
                let ticket = self.tickets.get_mut(id)?;
                let claim = ticket.entry.claim;
                ticket.entry.claim.priority = *to;
                let (arrival, to) = (*arrival, *to);
                if ticket.held {
                    return None;
                }
                if ticket.entered == Seq::NONE {
                    // Its join, with the new priority, is an op of this message.
                    let claim = ticket.entry.claim;
                    return Some(Op::Rank { claim, arrival });
                }
                Op::Move { claim, arrival, to }
            }
            Query::Override(change) => Op::Override(change.clone()),
        })
    }

    /// Answers the queries of a message by its reply.
    pub(super) fn answer_queries(
        &self,
        asked: Vec<Asked>,
        answer: &Answer,
        events: &mut Vec<Event>,
    ) {
        let mut ranks = answer.ranks.iter();
        let mut ahead = || {
            let rank = ranks.next().copied().unwrap_or(NONE);
            u64::try_from(rank).ok()
        };
        for (query, asked, sent) in asked {
            let result = match asked {
                Query::Look(..) => match answer.views.first() {
                    Some(view) => QueryResult::View(Box::new(view.clone()), answer.depth),
                    None => continue,
                },
                Query::Preview(_) => QueryResult::Ahead(ahead().unwrap_or(0)),
                Query::Position(arrival) | Query::Move(arrival, _) => {
                    let ahead = if sent { ahead() } else { None };
                    match ahead {
                        _ if !self.by_arrival.contains_key(&arrival) => QueryResult::NotHere,
                        Some(ahead) => QueryResult::Ahead(ahead),
                        None => QueryResult::Held,
                    }
                }
                Query::Override(_) => QueryResult::Overrides(self.overrides.clone()),
            };
            events.push(Event::Answered { query, result });
        }
    }

    /// What operators have changed, as far as this instance knows.
    pub fn overrides(&self) -> &Overrides {
        &self.overrides
    }

    /// P23 (operators): learns newer overrides. Tickets of keys that are no longer paused enter the queue again, with their arrivals.
    pub(super) fn learn_overrides(&mut self, answer: &Answer) {
        let newer = |known: &&Overrides| known.version > self.overrides.version;
        let Some(overrides) = answer.overrides.first().filter(newer) else {
            return;
        };
        self.overrides = overrides.clone();
        let mut free: Vec<(Seq, TicketId)> = Vec::new();
        for (id, ticket) in &mut self.tickets {
            if ticket.held && !self.overrides.holds(ticket.entry.claim.key) {
                ticket.held = false;
                free.push((ticket.order(), *id));
            }
        }
        free.sort_unstable();
        let joins = free.into_iter().map(|(_, id)| Pending::Join(id));
        self.pending.extend(joins);
    }

    /// The tickets of this instance that are held, in order.
    pub fn held(&self) -> Vec<Entry> {
        let held = self.tickets.values().filter(|ticket| ticket.held);
        let mut held: Vec<Entry> = held.map(|ticket| ticket.entry).collect();
        held.sort_unstable_by_key(|entry| (entry.claim.priority, entry.arrival));
        held
    }

    /// How many tickets of this instance are held.
    pub fn held_count(&self) -> usize {
        if self.overrides.keys.is_empty() {
            return 0;
        }
        self.tickets.values().filter(|ticket| ticket.held).count()
    }

    /// P23 (operators): a ticket whose key is paused has left the queue, and waits on its instance.
    pub(super) fn hold(&mut self, arrival: Seq) {
        let id = self.by_arrival.get(&arrival);
        if let Some(ticket) = id.and_then(|id| self.tickets.get_mut(id)) {
            (ticket.held, ticket.entered) = (true, Seq::NONE);
        }
    }
}
