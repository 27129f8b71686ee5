//! What operators do.

use serde::Serialize;
use serde_json::Value;
use vorrang_scheduler::{Change, Overrides, Seq, Unanswered, backend::ALL_INSTANCES};

use super::{
    Fleet, FleetError,
    answering::Acted,
    groups::limits,
    no_group,
    overview::LimitOverview,
    posts::{CHANGE, Question},
};
use crate::{config::DeploymentSettings, group::OpenGroup};

/// What is paused in a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Paused {
    /// The group itself.
    pub paused: bool,
    /// Names of keys.
    pub paused_keys: Vec<String>,
    /// What is asked for was paused before.
    #[serde(skip)]
    pub was_paused: bool,
}

/// A ticket with another priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct MovedTicket {
    /// The priority that it had, where its instance says it.
    pub from: Option<i32>,
    /// 1 is the head; `None` where that is not known.
    pub position: Option<u64>,
}

/// A limit that was changed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ChangedLimit {
    /// What was in force before.
    pub old: u64,
    /// All limits of the deployment now.
    pub limits: Vec<LimitOverview>,
}

/// A limit until further notice.
#[derive(Debug, Clone)]
pub struct LimitChange {
    /// The deployment's id.
    pub deployment: String,
    /// The limit as the configuration calls it: `rpm`, or `limits[0]`.
    pub limit: String,
    /// `None`: the configured one again.
    pub value: Option<u64>,
}

impl Fleet {
    /// Gives a waiting ticket another priority; its arrival stays.
    ///
    /// # Errors
    /// There is no such ticket, it does not wait any more, or its instance does not answer.
    pub async fn move_ticket(
        &self,
        group: &str,
        ticket: &str,
        priority: i32,
    ) -> Result<MovedTicket, FleetError> {
        let (arrival, own) = self.named(group, ticket)?;
        let mut acted = own.move_own(group, arrival, priority).await;
        if !acted.done && acted.failed.is_none() {
            let question = Question::Move {
                group: group.to_owned(),
                arrival: arrival.0,
                priority,
            };
            acted = self.elsewhere(acted, &question).await?;
        }
        let acted = settled(acted, ticket)?;
        Ok(MovedTicket {
            from: acted.from,
            position: acted.ahead.map(|ahead| ahead.saturating_add(1)),
        })
    }

    /// Ends the wait of a ticket: its client gets 409 with the reason.
    ///
    /// # Errors
    /// There is no such ticket, it does not wait any more, or its instance does not answer.
    pub async fn cancel_ticket(
        &self,
        group: &str,
        ticket: &str,
        reason: &str,
    ) -> Result<(), FleetError> {
        let (arrival, own) = self.named(group, ticket)?;
        let mut acted = own.cancel_own(group, arrival, reason).await;
        if !acted.done {
            let question = Question::Cancel {
                group: group.to_owned(),
                arrival: arrival.0,
                reason: reason.to_owned(),
            };
            acted = self.elsewhere(acted, &question).await?;
        }
        settled(acted, ticket).map(drop)
    }

    /// Pauses a group, or the key of this name in it: nothing of it is granted, and all of it waits. Or lets it go on.
    ///
    /// # Errors
    /// There is no such group or key, or the backend does not answer.
    pub async fn pause(
        &self,
        group: &str,
        key: Option<&str>,
        paused: bool,
    ) -> Result<Paused, FleetError> {
        let router = self.router.inner();
        let of = router.group_of_name(group).ok_or_else(|| no_group(group))?;
        let change = match key {
            None => Change::PauseGroup(paused),
            Some(key) => {
                let key = self.number_of(of, key)?;
                Change::PauseKey { key, paused }
            }
        };
        let before = of.queue.status().overrides;
        let was_paused = match &change {
            Change::PauseKey { key, .. } => before.keys.contains(key),
            _ => before.paused,
        };
        let overrides = changed(of, change).await;
        self.forget_overview().await;
        let overrides = overrides?;
        Ok(Paused {
            was_paused,
            paused: overrides.paused,
            paused_keys: router.paused_keys(&overrides.keys),
        })
    }

    /// Changes a limit until further notice.
    ///
    /// # Errors
    /// There is no such group, deployment or limit, the value is none, or the backend does not answer.
    pub async fn limit(
        &self,
        group: &str,
        change: &LimitChange,
    ) -> Result<ChangedLimit, FleetError> {
        let router = self.router.inner();
        let of = router.group_of_name(group).ok_or_else(|| no_group(group))?;
        let deployment = deployment(of, &change.deployment)?;
        let mut named = deployment.limits.iter();
        let named = named.find(|named| named.name == change.limit);
        let named = named.ok_or_else(|| {
            FleetError::NotFound(format!(
                "{} has no limit {} in its configuration",
                change.deployment, change.limit
            ))
        })?;
        let before = limits(deployment, None, &of.queue.status().overrides.limits);
        let mut before = before.into_iter();
        let old = before.find(|limit| limit.limit == change.limit);
        let overrides = changed(
            of,
            Change::Limit {
                deployment: deployment.state_id.clone(),
                kind: named.kind,
                length: named.length,
                limit: change.value,
            },
        )
        .await;
        self.forget_overview().await;
        let overrides = overrides?;
        let view = of.queue.look(0, 0).await.ok();
        let mut seen = view.iter().flat_map(|view| &view.deployments);
        let seen = seen.find(|one| *one.id == *deployment.state_id);
        Ok(ChangedLimit {
            old: old.map_or(named.limit, |old| old.in_force),
            limits: limits(deployment, seen, &overrides.limits),
        })
    }

    /// Takes an instance out of the balancers' rotation, or puts it back: its readiness says so. It goes on serving what comes.
    ///
    /// # Errors
    /// There is no such instance, or it does not answer.
    pub async fn drain(&self, instance: &str, draining: bool) -> Result<(), FleetError> {
        let done = self.drain_one(instance, draining).await;
        self.forget_overview().await;
        done
    }

    async fn drain_one(&self, instance: &str, draining: bool) -> Result<(), FleetError> {
        if instance == ALL_INSTANCES {
            return Err(FleetError::NotFound(format!(
                "There is no instance {instance}"
            )));
        }
        let own = self.member.office.instance();
        if **own == *instance {
            self.member.drain(draining);
            return Ok(());
        }
        let known = self.instances(&self.router.inner()).await;
        let question = Question::Drain { draining };
        let office = &self.member.office;
        // One that has no session yet, or none any more, may answer as well.
        let said = office
            .ask(Some(instance), &question, CHANGE, |_| true)
            .await;
        match said.said.first() {
            Some(said) if said.answer["draining"] == draining => Ok(()),
            None if !known.contains(instance) => Err(FleetError::NotFound(format!(
                "There is no instance {instance}"
            ))),
            _ => Err(FleetError::Unavailable(format!(
                "The instance {instance} does not answer"
            ))),
        }
    }

    /// This instance, and the arrival of the ticket that an action names.
    fn named(&self, group: &str, ticket: &str) -> Result<(Seq, &super::Member), FleetError> {
        self.known(&self.router.inner(), group)?;
        // A ticket has one name: no leading zeros, no sign.
        let arrival = ticket.parse();
        let arrival = arrival
            .ok()
            .filter(|number: &u64| number.to_string() == ticket);
        let arrival = arrival.ok_or_else(|| no_ticket(ticket))?;
        Ok((Seq(arrival), &self.member))
    }

    /// Asks the other instances to do what this one could not, as it is not the ticket's.
    async fn elsewhere(&self, own: Acted, question: &Question) -> Result<Acted, FleetError> {
        let expected = self.instances(&self.router.inner()).await;
        let of = |answer: &Value| serde_json::from_value(answer.clone()).unwrap_or_default();
        let done = |acted: &Acted| acted.done || acted.left || acted.failed.is_some();
        let office = &self.member.office;
        let said = office
            .ask(None, question, CHANGE, |answer| done(&of(answer)))
            .await;
        let answers: Vec<Acted> = said.said.iter().map(|said| of(&said.answer)).collect();
        if let Some(acted) = answers.into_iter().find(done) {
            return Ok(acted);
        }
        let silent = expected
            .iter()
            .find(|one| !said.said.iter().any(|said| said.from == **one));
        match silent {
            // It may be the one that knows.
            Some(silent) if !own.left => Err(FleetError::Unavailable(format!(
                "The instance {silent} does not answer, and no other knows the ticket"
            ))),
            _ => Ok(own),
        }
    }

    /// The number of a key: of the configuration, or of `#` and its number, as it is shown where no configuration has it any more.
    fn number_of(&self, group: &OpenGroup, key: &str) -> Result<u64, FleetError> {
        let router = self.router.inner();
        let config = &router.config;
        if config.keys.iter().any(|known| known.policy.name == key) {
            return Ok(router.tenants.key_of(key));
        }
        if key == "master key" || key == "#0" {
            return Err(FleetError::Invalid(
                "Requests with the master key cannot be paused apart from others: they have no key of `keys`. \
                 Pause the group, or give their program a key of its own."
                    .into(),
            ));
        }
        let digits = key.strip_prefix('#');
        let number = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
        let paused = group.queue.status().overrides.keys;
        let known = number.filter(|number| paused.contains(number));
        known.ok_or_else(|| FleetError::NotFound(format!("There is no key of the name {key}")))
    }
}

async fn changed(group: &OpenGroup, change: Change) -> Result<Overrides, FleetError> {
    let changed = group.queue.change(change).await;
    changed.map_err(|error| match error {
        Unanswered::Late => FleetError::Unavailable(error.to_string()),
        Unanswered::NoSuchLimit => FleetError::NotFound(error.to_string()),
        Unanswered::TooMany => FleetError::Conflict(error.to_string()),
    })
}

fn deployment<'a>(group: &'a OpenGroup, id: &str) -> Result<&'a DeploymentSettings, FleetError> {
    let mut deployments = group.settings.deployments.iter();
    let found = deployments.find(|one| one.id == id);
    found.ok_or_else(|| {
        let name = &group.settings.name;
        FleetError::NotFound(format!("The group {name} has no deployment {id}"))
    })
}

fn settled(acted: Acted, ticket: &str) -> Result<Acted, FleetError> {
    if acted.done {
        return Ok(acted);
    }
    Err(if let Some(failed) = acted.failed {
        FleetError::Unavailable(failed)
    } else if acted.left {
        let how = acted
            .how
            .as_deref()
            .unwrap_or("it was granted, or has left");
        FleetError::Conflict(format!("The ticket {ticket} does not wait any more: {how}"))
    } else {
        no_ticket(ticket)
    })
}

fn no_ticket(ticket: &str) -> FleetError {
    FleetError::NotFound(format!("No ticket {ticket} waits in this group"))
}
