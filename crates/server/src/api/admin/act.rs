//! What operators do. Each action has a line in the log, also one that is refused.

use std::sync::Arc;

use axum::{
    Json,
    extract::Request,
    response::{IntoResponse as _, Response},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use vorrang_gateway::{FleetError, LimitChange};

use super::{
    Operation,
    access::Operator,
    body::{Asked, json},
};
use crate::{app::App, failure::Failure, record::Record};

/// A reason is sent to the client.
const LONGEST_REASON: usize = 500;

/// A higher limit means nothing.
const HIGHEST_LIMIT: u64 = 1 << 52;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Move {
    priority: i32,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cancel {
    reason: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OfKey {
    key: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Limit {
    deployment: String,
    limit: String,
    /// `null` is another value than none.
    value: Value,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// What an action did, for its line in the log.
#[derive(Debug, Default)]
struct Audit {
    action: &'static str,
    group: Option<String>,
    ticket: Option<String>,
    key: Option<String>,
    deployment: Option<String>,
    limit: Option<String>,
    instance: Option<String>,
    reason: Option<String>,
    old: Option<String>,
    new: Option<String>,
}

pub(super) async fn answer(
    operation: Operation,
    app: &Arc<App>,
    mut request: Request,
    who: &Operator,
) -> Result<Response, Failure> {
    let asked = Asked::of(&mut request).await?;
    let record = request.extensions().get::<Record>().cloned();
    let mut audit = Audit::default();
    let acted = act(operation, app, &asked, request, &mut audit).await;
    audit.action = operation.action();
    let id = record.as_ref().map(|record| &*record.call_id);
    audit.write(acted.as_ref().err(), who, id);
    if acted.is_ok() {
        app.metrics.acted(operation.action());
    }
    acted
}

async fn act(
    operation: Operation,
    app: &Arc<App>,
    asked: &Asked,
    request: Request,
    audit: &mut Audit,
) -> Result<Response, Failure> {
    let fleet = app.router.fleet();
    let group = asked.name("group");
    let named = |name: &str| Some(name.to_owned()).filter(|name| !name.is_empty());
    audit.group = named(group);
    audit.ticket = named(asked.name("ticket"));
    audit.instance = named(asked.name("instance"));
    asked.expects(operation.parameters())?;
    match operation {
        Operation::MoveTicket => {
            let Move { priority } = json(app, request).await?;
            audit.new = Some(priority.to_string());
            let ticket = asked.name("ticket");
            let moved = fleet.move_ticket(group, ticket, priority).await?;
            audit.old = moved.from.map(|from| from.to_string());
            done(
                &json!({"ticket": ticket, "priority": priority, "from": moved.from, "position": moved.position}),
            )
        }
        Operation::CancelTicket => {
            let Cancel { reason } = json(app, request).await?;
            let reason = reason.unwrap_or_else(|| "no reason was given".to_owned());
            if reason.len() > LONGEST_REASON {
                let text = format!("reason: expected at most {LONGEST_REASON} bytes");
                return Err(Failure::invalid(text));
            }
            let ticket = asked.name("ticket");
            audit.reason = Some(reason.clone());
            fleet.cancel_ticket(group, ticket, &reason).await?;
            done(&json!({"ticket": ticket}))
        }
        Operation::Pause | Operation::Resume => {
            let OfKey { key } = json(app, request).await?;
            let paused = operation == Operation::Pause;
            audit.key.clone_from(&key);
            let words = |paused: bool| Some(if paused { "paused" } else { "running" }.to_owned());
            audit.new = words(paused);
            let done_so = fleet.pause(group, key.as_deref(), paused).await?;
            audit.old = words(done_so.was_paused);
            done(&done_so)
        }
        Operation::Limits => {
            let Limit {
                deployment,
                limit,
                value,
            } = json(app, request).await?;
            let value = match &value {
                Value::Null => None,
                value => Some(
                    value
                        .as_u64()
                        .filter(|value| (1..=HIGHEST_LIMIT).contains(value))
                        .ok_or_else(|| {
                            Failure::invalid(
                                "value: expected a whole number above 0, or null for the configured limit",
                            )
                        })?,
                ),
            };
            audit.deployment = Some(deployment.clone());
            audit.limit = Some(limit.clone());
            audit.new =
                Some(value.map_or_else(|| "as configured".into(), |value| value.to_string()));
            let change = LimitChange {
                deployment,
                limit,
                value,
            };
            let changed = fleet.limit(group, &change).await?;
            audit.old = Some(changed.old.to_string());
            done(&json!({"deployment": change.deployment, "limits": changed.limits}))
        }
        Operation::Drain | Operation::ResumeInstance => {
            let Nothing {} = json(app, request).await?;
            let draining = operation == Operation::Drain;
            fleet.drain(asked.name("instance"), draining).await?;
            done(&json!({"draining": draining}))
        }
        _ => Err(Failure::from(FleetError::Invalid("no action".into()))),
    }
}

fn done(body: &impl Serialize) -> Result<Response, Failure> {
    Ok(Json(body).into_response())
}

impl Audit {
    fn write(&self, failure: Option<&Failure>, who: &Operator, request_id: Option<&str>) {
        tracing::info!(
            target: "vorrang::audit",
            action = self.action,
            by = who.0,
            request_id,
            group = self.group,
            ticket = self.ticket,
            key = self.key,
            deployment = self.deployment,
            limit = self.limit,
            instance = self.instance,
            reason = self.reason,
            old = self.old,
            new = self.new,
            status = failure.map_or(200, |failure| failure.status().as_u16()),
            "admin action"
        );
    }
}

impl Operation {
    /// The word of an action for logs and metrics.
    pub(super) fn action(self) -> &'static str {
        match self {
            Self::MoveTicket => "move",
            Self::CancelTicket => "cancel",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Limits => "limit",
            Self::Drain => "drain",
            Self::ResumeInstance => "resume_instance",
            _ => "none",
        }
    }
}
