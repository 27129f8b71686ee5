//! The waiting tickets of a group, page by page.

use std::{collections::HashMap, time::Duration};

use futures_util::future::join_all;
use serde::Serialize;
use vorrang_scheduler::{GroupView, Row, Seq, Tokens};

use super::{
    Fleet, FleetError,
    answering::HeldRow,
    list, never, no_group,
    posts::{Question, READ},
};
use crate::{
    group::OpenGroup,
    journal::{TicketLabel, milliseconds},
    router::Inner,
};

/// The most tickets of one look, and so of a page.
const MOST: u64 = 100;
/// With a filter so many looks are made for a page at most; the next page goes on there.
const MOST_LOOKS: usize = 20;

/// Which tickets are wanted.
#[derive(Debug, Clone, Default)]
pub struct TicketQuery {
    /// The rank in the queue to begin with; 0 is the head.
    pub from: u64,
    /// At most so many, up to 100; `None`: 100.
    pub limit: Option<u64>,
    /// Of this priority.
    pub priority: Option<i32>,
    /// Of the key of this name, or of `#` and its number.
    pub key: Option<String>,
    /// Of the tenant who is shown by this text, or of `#` and its number.
    pub tenant: Option<String>,
    /// Of this instance.
    pub instance: Option<String>,
}

/// A part of a group's queue.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct TicketPage {
    /// All tickets that wait in the queue, whatever is asked for.
    pub total: u64,
    /// The tickets that are held because their keys are paused, whatever is asked for: at most 100 of each instance.
    pub held: u64,
    /// The rank that the page begins with.
    pub from: u64,
    /// Where the next page begins; `None`: there is none.
    pub next: Option<u64>,
    /// In their order. Those that are held come last, on the last page.
    pub tickets: Vec<TicketRow>,
}

/// A waiting ticket.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct TicketRow {
    /// What actions name it by: the digits of its arrival.
    pub ticket: String,
    /// 1 is the head. `None`: with fair shares it is behind another ticket of its tenant, or the ticket's instance has ended.
    pub position: Option<u64>,
    /// Lower is better.
    pub priority: i32,
    /// Since its call came; by the group clock, which may be less, where its instance does not say.
    pub age_ms: u64,
    /// The tokens that it asks for.
    pub tokens: u64,
    /// Of these, input.
    pub input_tokens: u64,
    /// Of these, output.
    pub output_tokens: u64,
    /// With fair shares.
    pub tenant: Option<String>,
    /// The name of its key; `None` for the master key, and without keys.
    pub key: Option<String>,
    /// Where it waits; empty where that has ended.
    pub instance: String,
    /// `None` where its instance does not say.
    pub call_id: Option<String>,
    /// As the request named it.
    pub model: Option<String>,
    /// How long it surely waits yet.
    pub least_wait_ms: Option<u64>,
    /// Its instance has ended or does not answer: it is dropped soon.
    pub orphaned: bool,
    /// It waits on its instance, and not in the queue, because its key is paused.
    pub held: bool,
}

/// A query as rows can be compared with it.
struct Filter {
    priority: Option<i32>,
    keys: Option<Vec<u64>>,
    tenants: Option<Vec<u64>>,
    instance: Option<String>,
}

impl Filter {
    fn of(query: &TicketQuery, router: &Inner) -> Self {
        let hex = |text: &String| {
            let digits = text.strip_prefix('#')?;
            u64::from_str_radix(digits, 16).ok()
        };
        let tenants = &router.tenants;
        Self {
            priority: query.priority,
            keys: query.key.as_ref().map(|key| {
                let own = [tenants.key_of(key)].into_iter();
                own.chain(hex(key)).collect()
            }),
            tenants: query.tenant.as_ref().map(|tenant| {
                let own = tenants.shown_as(tenant).into_iter();
                own.chain(hex(tenant)).collect()
            }),
            instance: query.instance.clone(),
        }
    }

    fn takes_all(&self) -> bool {
        self.priority.is_none()
            && self.keys.is_none()
            && self.tenants.is_none()
            && self.instance.is_none()
    }

    fn takes(&self, row: &Row) -> bool {
        let among = |numbers: &Option<Vec<u64>>, number: u64| {
            numbers.as_ref().is_none_or(|all| all.contains(&number))
        };
        let instance = self.instance.as_deref();
        self.priority
            .is_none_or(|priority| row.priority == priority)
            && among(&self.keys, row.key)
            && among(&self.tenants, row.tenant)
            && instance.is_none_or(|instance| *row.instance == *instance)
    }
}

impl Fleet {
    /// Waiting tickets of a group, the best first.
    ///
    /// # Errors
    /// There is no such group, or the backend does not answer.
    pub async fn tickets(&self, name: &str, query: &TicketQuery) -> Result<TicketPage, FleetError> {
        let router = self.router.inner();
        let group = router.group_of_name(name).ok_or_else(|| no_group(name))?;
        let filter = Filter::of(query, &router);
        let limit = query.limit.unwrap_or(MOST).clamp(1, MOST);
        let look = if filter.takes_all() { limit } else { MOST };
        let (mut rows, mut total, mut from) = (Vec::new(), 0, query.from);
        let mut next = None;
        for looks in 1.. {
            let begun = from;
            let view = self.look(group, from, look).await?;
            total = view.depth;
            let end = from + view.rows.len() as u64;
            for row in view.rows {
                from += 1;
                if filter.takes(&row) {
                    rows.push(row);
                }
                if rows.len() as u64 == limit {
                    break;
                }
            }
            let more = from < end || end - begun == look;
            if !more {
                break;
            }
            if rows.len() as u64 == limit || looks == MOST_LOOKS {
                next = Some(from);
                break;
            }
        }
        let labels = self.labels(name, &rows).await;
        let held = match group.queue.status().overrides.keys.is_empty() {
            true => Vec::new(),
            false => self.held(name).await,
        };
        let last = next.is_none();
        if rows.is_empty() && held.is_empty() && last && query.from == 0 {
            self.could_match(group, query).await?;
        }
        let held_tickets = held.iter().filter(|one| last && filter.takes(&one.row()));
        let held_tickets = held_tickets.map(|one| router.held_ticket(group, one));
        let tickets = rows.iter();
        Ok(TicketPage {
            total,
            held: held.len() as u64,
            from: query.from,
            next,
            tickets: tickets
                .map(|row| router.ticket(group, row, labels.get(&row.arrival.0)))
                .chain(held_tickets)
                .collect(),
        })
    }

    async fn look(&self, group: &OpenGroup, from: u64, most: u64) -> Result<GroupView, FleetError> {
        let view = group.queue.look(from, most).await;
        let view = view.map_err(|error| FleetError::Unavailable(error.to_string()))?;
        self.member.learn(&view);
        Ok(view)
    }

    /// Held tickets of all instances, the best first.
    async fn held(&self, group: &str) -> Vec<HeldRow> {
        let question = Question::Held {
            group: group.to_owned(),
        };
        let office = &self.member.office;
        let said = office.ask(None, &question, READ, never).await;
        let others = said.into_iter().flat_map(|said| list(Some(said.answer)));
        let others = others.filter_map(|row| serde_json::from_value(row).ok());
        let mut held = self.member.held(group).await;
        held.extend(others);
        held.sort_by_key(|one| (one.priority, one.arrival));
        held
    }

    /// What the instances of these tickets know of them, by arrival.
    async fn labels(&self, group: &str, rows: &[Row]) -> HashMap<u64, TicketLabel> {
        let mut by_instance: HashMap<&str, Vec<u64>> = HashMap::new();
        for row in rows.iter().filter(|row| !row.orphaned) {
            let of = by_instance.entry(&row.instance).or_default();
            of.push(row.arrival.0);
        }
        let own = self.member.office.instance();
        let asked = by_instance.into_iter().map(async |(instance, arrivals)| {
            if *instance == **own {
                return self.member.labels(group, &arrivals);
            }
            let question = Question::Labels {
                group: group.to_owned(),
                arrivals,
            };
            let office = &self.member.office;
            let said = office.ask(Some(instance), &question, READ, |_| true).await;
            let answers = said.into_iter().flat_map(|said| list(Some(said.answer)));
            answers
                .filter_map(|label| serde_json::from_value(label).ok())
                .collect()
        });
        let labels = join_all(asked).await.into_iter().flatten();
        labels.map(|label| (label.arrival, label)).collect()
    }
}

impl HeldRow {
    /// As a row of the queue, in which it is not.
    fn row(&self) -> Row {
        Row {
            position: None,
            arrival: Seq(self.arrival),
            priority: self.priority,
            tokens: Tokens::new(self.input_tokens, self.output_tokens),
            tenant: 0,
            key: self.key,
            instance: self.instance.as_str().into(),
            orphaned: false,
            age: Duration::ZERO,
        }
    }
}

impl Inner {
    fn ticket(&self, group: &OpenGroup, row: &Row, label: Option<&TicketLabel>) -> TicketRow {
        let number = |number: u64| (number != 0).then(|| format!("#{number:x}"));
        let known = self.tenants.key_name(row.key).map(str::to_owned);
        let key = label.and_then(|label| label.key.clone()).or(known);
        let tenant = label.and_then(|label| label.tenant.clone());
        let least = |ahead| group.least_wait_ms(ahead, row.priority, row.key);
        TicketRow {
            ticket: row.arrival.to_string(),
            position: row.position.map(|ahead| ahead.saturating_add(1)),
            priority: row.priority,
            // Sequence numbers may be ahead of the group clock, so that an age by them is too short.
            age_ms: label
                .and_then(|label| label.age_ms)
                .unwrap_or_else(|| milliseconds(row.age)),
            tokens: row.tokens.total(),
            input_tokens: row.tokens.input,
            output_tokens: row.tokens.output,
            tenant: tenant.or_else(|| number(row.tenant)),
            key: key.or_else(|| number(row.key)),
            instance: row.instance.to_string(),
            call_id: label.map(|label| label.call_id.clone()),
            model: label.map(|label| label.model.clone()),
            least_wait_ms: row.position.and_then(least),
            orphaned: row.orphaned,
            held: false,
        }
    }

    fn held_ticket(&self, group: &OpenGroup, held: &HeldRow) -> TicketRow {
        let row = held.row();
        TicketRow {
            held: true,
            ..self.ticket(group, &row, held.label.as_ref())
        }
    }
}
