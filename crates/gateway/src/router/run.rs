//! Runs one call: waits for a permit, makes an attempt, and queues again where another attempt may succeed.

use std::sync::Arc;

use tokio::time::{Duration, Instant, sleep};

use super::Inner;
use crate::{
    Call, CallInfo, Endpoint, Stage,
    attempt::{
        Attempt, Begun, Failed,
        backoff::{Next, Situation},
    },
    group::OpenGroup,
    problem::Problem,
    provider::secrets::Secrets,
    tokens,
};

/// How soon a request asks again for room that its endpoint can use.
const MISPLACED_PAUSE: Duration = Duration::from_millis(200);

impl Inner {
    pub(super) async fn run(
        self: &Arc<Self>,
        call: &Call,
        info: &mut CallInfo,
    ) -> Result<Begun, Problem> {
        let prepared = self.prepared(call, info).await?;
        let request = prepared.layout.request();
        let (group, model) = self.group(call, &request.model)?;
        if call.endpoint == Endpoint::CountTokens
            && group.settings.lacks(Endpoint::CountTokens).is_some()
        {
            // No upstream counts: the estimate needs no permit.
            return Ok(Begun::count(tokens::counted(&request)));
        }
        let timeout = prepared.timeout;
        let deadline = Instant::now() + timeout;
        let attempt = Attempt {
            config: &self.config,
            clients: &self.clients,
            group,
            request: &request,
            model,
            // No comment can be written into a coded event stream.
            accept_encoding: call
                .codings
                .as_deref()
                .filter(|_| !(request.stream && self.keeps_alive(group))),
            untranslatable: &prepared.untranslatable,
            anthropic_headers: &call.anthropic_headers,
            input_tokens: prepared.input_tokens,
            events: &*call.events,
            timeout,
            deadline,
        };

        let mut ticket = group.queue.join_as(prepared.claim);
        let rank = self.waiting.rank(prepared.claim.priority);
        let mut last = None;
        // Others count as tried: the queue prefers those that have the endpoint.
        let deployments = group.settings.deployments.iter();
        let mut tried: Vec<bool> = deployments
            .enumerate()
            .map(|(index, deployment)| {
                let untranslatable = prepared.untranslatable.at(index);
                deployment.lacks(call.endpoint).is_some() || untranslatable.is_some()
            })
            .collect();
        loop {
            let entry = self.waiting.enter(rank);
            if request.stream {
                call.events.stage(Stage::Entering);
            }
            let waited = self
                .wait(call, group, &mut ticket, entry, deadline, info)
                .await;
            info.waited = ticket.waited();
            let permit = waited.map_err(|refused| refused.or_last(last.take()))?;
            let index = permit.deployment();
            let deployment = &group.settings.deployments[index];
            let secrets = &group.secrets[index];
            info.deployment.clone_from(&deployment.id);
            info.numbers = Some(permit.numbers());
            info.keepalive = deployment.keepalive.unwrap_or(self.config.keepalive);
            info.attempts += 1;
            if request.stream {
                call.events.stage(Stage::Calling);
            }
            match without_secrets(attempt.make(permit).await, secrets) {
                Ok(begun) => return Ok(begun),
                Err(failed) if failed.expired => {
                    info.attempts -= 1;
                    ticket = failed.ticket.enter();
                }
                Err(failed) if failed.misplaced => {
                    info.attempts -= 1;
                    // Those that have the endpoint are full. Another request may take the room of those that have not.
                    sleep(MISPLACED_PAUSE.min(deadline.saturating_duration_since(Instant::now())))
                        .await;
                    ticket = failed.ticket.enter();
                }
                Err(failed) => {
                    tried[index] = true;
                    let failed = *failed;
                    let pause = match self.after(group, index, &failed, &tried, info, deadline) {
                        Next::Again(pause, _) => pause,
                        Next::GiveUp(_) => return Err(failed.problem),
                    };
                    last = Some(failed.problem);
                    // Other tickets may be granted in the meantime; this one keeps its arrival (A8).
                    if !pause.is_zero() {
                        sleep(pause).await;
                    }
                    ticket = failed.ticket.enter();
                }
            }
        }
    }

    /// What happens after a failed attempt, and a line in the log that says so.
    fn after(
        &self,
        group: &OpenGroup,
        index: usize,
        failed: &Failed,
        tried: &[bool],
        info: &CallInfo,
        deadline: Instant,
    ) -> Next {
        let deployment = &group.settings.deployments[index];
        let mut cooling = group.queue.status().deployments.into_iter();
        let cooling: Vec<_> = tried
            .iter()
            .map(|_| cooling.next().and_then(|deployment| deployment.cooling))
            .collect();
        let situation = Situation {
            attempts: info.attempts,
            retries: deployment.num_retries.unwrap_or(self.config.num_retries),
            retry: failed.retry,
            hint: failed.hint,
            cool: failed.cool,
            deployment: index,
            tried,
            cooling: &cooling,
            left: deadline.saturating_duration_since(Instant::now()),
            least: self.config.retry_after,
        };
        let next = situation.next(rand::random());
        let (Next::Again(_, words) | Next::GiveUp(words)) = next;
        let pause = match next {
            Next::Again(pause, _) => Some(pause.as_millis()),
            Next::GiveUp(_) => None,
        };
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    group = info.group,
                    deployment = deployment.id,
                    attempt = info.attempts,
                    status = failed.problem.status().as_u16(),
                    cause = failed.cause,
                    detail = failed.detail,
                    next = words,
                    pause_ms = pause,
                    "an attempt failed"
                )
            };
        }
        match (next, failed.counts) {
            (Next::Again(..), _) => line!(info),
            (Next::GiveUp(_), true) => line!(warn),
            // The client's own mistake.
            (Next::GiveUp(_), false) => line!(debug),
        }
        next
    }
}

/// An attempt's answer or error without its deployment's secrets. The body of an answer that has begun passes as it is.
fn without_secrets(
    made: Result<Begun, Box<Failed>>,
    secrets: &Secrets,
) -> Result<Begun, Box<Failed>> {
    match made {
        Ok(mut begun) => {
            secrets.mask_headers(&mut begun.headers);
            Ok(begun)
        }
        Err(mut failed) => {
            secrets.mask_problem(&mut failed.problem);
            Err(failed)
        }
    }
}
