//! Slots of a group for calls that are made outside of the gateway.

use std::sync::Arc;

use tokio::time::{Duration, Instant};
use vorrang_scheduler::{ActiveCall, Claim, Tokens};

use super::{
    Inner, JournaledCall,
    wait::{Leave, NoPermit},
};
use crate::{
    Call, CallError, CallInfo, Router,
    config::Target,
    journal::{Ended, Entered, LiveCall},
    problem::Problem,
    request::{Fields, tenant, terms},
};

/// The status that [`CallPermit::cooldown`] stands for.
const TOO_MANY_REQUESTS: u16 = 429;

/// The right to make one call now, on one deployment. The charge counts from the moment in which it was given, as the call is to be made at
/// once. The call has ended when this is dropped: its concurrency is free then, and what it was charged stays charged.
#[derive(Debug)]
#[must_use = "dropped, the call counts as ended"]
pub struct CallPermit {
    /// What is known of the wait: group, deployment, priority, numbers.
    pub info: CallInfo,
    /// What the upstream calls the model.
    pub model: String,
    /// The deployment's base URL without anything secret; `None` for a mock.
    pub api_base: Option<String>,
    call: ActiveCall,
    cools: bool,
    /// Its entry in the journal, until it is returned.
    live: Option<LiveCall>,
}

impl CallPermit {
    /// The deployment's id (`model_info.id`, else a hash): which of your clients is to make the call.
    pub fn deployment(&self) -> &str {
        &self.info.deployment
    }

    /// The tokens that the call used, by kind or as a total, as they were reserved. Limits of tokens are corrected when the call ends.
    pub fn used(&mut self, tokens: impl Into<Tokens>) {
        self.call.used_tokens(tokens);
    }

    /// The call succeeded: weighs against failures, and ends the probe of a deployment that cooled (A9).
    pub fn succeeded(&mut self) {
        self.call.succeeded();
    }

    /// The upstream asked to wait, as with a 429: the deployment cools for this long, for the whole fleet. Does nothing with
    /// `disable_cooldowns`.
    pub fn cooldown(&mut self, time: Duration) {
        if self.cools {
            self.call.failed(TOO_MANY_REQUESTS, Some(time));
        }
    }

    /// The call failed with this status, 0 where there was no answer: counts towards `allowed_fails`. Does nothing with
    /// `disable_cooldowns`.
    pub fn failed(&mut self, status: u16) {
        if self.cools {
            self.call.failed(status, None);
        }
    }

    /// Certainly nothing was sent: the call ends, and what it was charged is refunded.
    pub fn not_sent(self) {
        drop(self.call.not_sent());
    }
}

impl Router {
    /// Waits in the queue of a model's group. `call` has the terms of the wait; its body is not looked at.
    pub(crate) async fn acquire(
        &self,
        call: Call,
        model: &str,
        tokens: Tokens,
    ) -> Result<CallPermit, CallError> {
        let mut info = CallInfo::default();
        let inner = self.inner();
        let live = inner.begin(&call);
        let journaled = JournaledCall {
            call: &call,
            life: &live,
        };
        let acquired = inner.acquire(&journaled, model, tokens, &mut info).await;
        match acquired {
            Ok(mut permit) => {
                permit.live = Some(live.ending_as(Ended::Returned));
                Ok(permit)
            }
            Err(problem) => {
                live.ends(Ended::Failed(problem.status()));
                Err(CallError {
                    problem,
                    info: Box::new(info),
                    call_id: call.call_id,
                    endpoint: Some(call.endpoint),
                })
            }
        }
    }
}

impl Inner {
    async fn acquire(
        self: &Arc<Self>,
        call: &JournaledCall<'_>,
        model: &str,
        tokens: Tokens,
        info: &mut CallInfo,
    ) -> Result<CallPermit, Problem> {
        let group = &self.groups[self.existing(call, model)?];
        let settings = &group.settings;
        let fields = Fields::default();
        let priority = terms::priority(call, &fields, settings, &self.config)?;
        let deadline = Instant::now() + terms::timeout(call, &fields, None, &self.config)?;
        info.group.clone_from(&settings.name);
        (info.priority, info.prioritized) = (priority.effective, priority.named);
        let share = tenant::share(&self.tenants, call, &fields, settings, tokens.total());
        if let Some(fair) = &settings.fair {
            call.life.tenant(tenant::shown(call, &fields, &fair.by));
        }
        let mut claim = Claim {
            share,
            key: self.tenants.key(call.key.as_ref()),
            ..Claim::new(priority.effective, tokens)
        };
        let mut ticket = group.queue.join_as(claim);
        let rank = self.waiting.rank(priority.effective);
        loop {
            let entry = self.waiting.enter(rank);
            call.life.enters(Entered {
                group: &group.name,
                waits: &group.waits,
                model,
                claim,
                streamed: false,
            });
            let leave = Leave {
                deadline,
                cooling: None,
                spill: None,
                retry: info.numbers.is_some(),
            };
            let waited = self.wait(call, group, &mut ticket, entry, leave, info);
            let waited = waited.await;
            info.waited = ticket.waited();
            // An operator may have moved it.
            claim.priority = call.life.priority();
            info.priority = claim.priority;
            let permit = match waited {
                Ok(permit) => permit,
                Err(NoPermit::Refused(problem)) => return Err(problem),
                // It has no other group to go to.
                Err(NoPermit::Spills) => continue,
            };
            info.numbers = Some(permit.numbers());
            let latest = self.latest();
            let (router, group) = match latest.group_of_name(&settings.name) {
                Some(group) => (&latest, group),
                None => (self, group),
            };
            let Some(index) = group.index_of(&permit) else {
                // A reload has taken the deployment out.
                ticket = permit.retry();
                continue;
            };
            // P9 (dispatch within the session): one that has expired queues again.
            let active = match permit.dispatch() {
                Ok(active) => active,
                Err(expired) => {
                    ticket = expired.into_ticket().enter();
                    continue;
                }
            };
            let deployment = &group.settings.deployments[index];
            info.deployment.clone_from(&deployment.id);
            info.attempts = 1;
            call.life.attempts(&group.ids[index], 1);
            let found = self.names.find(model);
            let called = found.map_or(model, |found| found.model);
            return Ok(CallPermit {
                info: info.clone(),
                model: group.settings.model_at(deployment, called).into_owned(),
                api_base: match &deployment.target {
                    Target::Upstream(upstream) => Some(upstream.public_base()),
                    Target::Mock { .. } => None,
                },
                call: active,
                cools: !router.config.disable_cooldowns,
                live: None,
            });
        }
    }
}
