//! Runs one call: in the group that it names, and where that cannot serve it, in others.

use std::sync::Arc;

use futures_util::FutureExt as _;
use tokio::time::{Duration, Instant, sleep};

use super::{
    Inner, JournaledCall,
    chain::{self, Chain, Hop},
    prepare::{Stop, Terms},
    wait::{self, Leave, NoPermit},
};
use crate::{
    CallInfo, Endpoint, Joined, Stage,
    attempt::{
        Attempt, Begun, Failed,
        backoff::{Next, Situation},
    },
    config::{DeploymentSettings, Spill},
    group::OpenGroup,
    journal::Entered,
    problem::Problem,
    provider::secrets::Secrets,
    request::tenant,
    tokens,
};

/// How soon a request asks again for room that its endpoint can use.
const MISPLACED_PAUSE: Duration = Duration::from_millis(200);

/// A call that is over in one group.
enum Left<'a> {
    /// It could not be served. Where it goes on, if anywhere.
    Failed(Problem, Option<Hop<'a>>),
    /// It waited too long, and enters another queue by this rule.
    Spilled(Box<Stop>, &'a Spill),
}

impl Inner {
    /// Sends a call from group to group until one answers.
    pub(super) async fn run(
        self: &Arc<Self>,
        call: &JournaledCall<'_>,
        info: &mut CallInfo,
    ) -> Result<Begun, Problem> {
        let prepared = self.prepared(call, info).await?;
        let of = &self.groups[prepared.group].name;
        call.life
            .asks_for(of, prepared.layout.model(), info.priority, info.streamed);
        let here = &self.groups[prepared.group].settings;
        if call.endpoint == Endpoint::CountTokens && here.lacks(Endpoint::CountTokens).is_some() {
            // No upstream counts: the estimate needs no permit.
            return Ok(Begun::count(tokens::counted(&prepared.layout.request())));
        }
        let terms = prepared.terms;
        let steering = prepared.layout.steering.as_deref();
        let mut chain = Chain::new(self, call, steering, prepared.group);
        let mut entered = prepared.stop;
        let mut group = prepared.group;
        let mut called = prepared.layout.model();
        let asked_for = &self.groups[group].settings.name;
        if let Some(mock) = steering.and_then(|steering| steering.mock) {
            entered = Err(chain::mocked(mock, asked_for));
        }
        // What the client learns if no group serves it: the error of the model that it asked for.
        let mut first = None;
        loop {
            let left = match entered {
                Ok(stop) => {
                    self.visit(call, stop, called, terms, &mut chain, info)
                        .await
                }
                Err(problem) => {
                    let hop = chain.next(called, group, &problem);
                    Err(Left::Failed(problem, hop))
                }
            };
            match left {
                Ok(begun) => return Ok(begun),
                Err(Left::Spilled(stop, rule)) => {
                    let from = &self.groups[group].settings.name;
                    let to = &self.groups[stop.group].settings.name;
                    info.spilled_from = Some(from.clone());
                    call.events.spilled(from, to);
                    let names = [group, stop.group].map(|index| &self.groups[index].name);
                    call.life.spills(names[0], names[1]);
                    tracing::debug!(group = from, to, "a call spills into another queue");
                    chain.spilled(stop.group);
                    (group, called) = (stop.group, &rule.to);
                    entered = Ok(*stop);
                }
                Err(Left::Failed(problem, hop)) => {
                    let Some(hop) = hop.filter(|_| Instant::now() < terms.deadline) else {
                        return Err(match first {
                            None => problem,
                            Some((problem, known)) => {
                                of_first(info, known);
                                problem
                            }
                        });
                    };
                    first.get_or_insert_with(|| (problem, info.clone()));
                    let from = &self.groups[group].settings.name;
                    let to = &self.groups[hop.group].settings.name;
                    info.fallbacks += 1;
                    info.fallback_from.get_or_insert_with(|| asked_for.clone());
                    call.events.fell_back(from, to, hop.reason);
                    let names = [group, hop.group].map(|index| &self.groups[index].name);
                    call.life.falls_back(names[0], names[1], hop.reason);
                    (group, called) = (hop.group, &hop.to.model);
                    entered = match prepared.layout.for_fallback(hop.to) {
                        Ok(layout) => Box::pin(self.stop(call, Arc::new(layout), group)).await,
                        Err(problem) => Err(problem),
                    };
                }
            }
        }
    }

    /// Waits in one group's queue for a permit, makes an attempt, and queues again where another attempt may succeed.
    async fn visit<'a>(
        self: &Arc<Self>,
        call: &JournaledCall<'_>,
        stop: Stop,
        called: &str,
        terms: Terms,
        chain: &mut Chain<'a>,
        info: &mut CallInfo,
    ) -> Result<Begun, Left<'a>> {
        let group = &self.groups[stop.group];
        let settings = &group.settings;
        let request = stop.layout.request();
        let deadline = terms.deadline;
        let found = self.names.find(&request.model);
        let model = found.map_or(&*request.model, |found| found.model);
        // No comment can be written into a coded event stream.
        let codings = call.codings.as_deref();
        let accept_encoding = codings.filter(|_| !(request.stream && self.keeps_alive(group)));
        info.group.clone_from(&settings.name);
        (info.priority, info.prioritized) = (stop.claim.priority, stop.prioritized);
        (info.numbers, info.position, info.least_wait) = (None, None, None);
        info.deployment.clear();
        let before = info.waited;

        if let Some(fair) = &settings.fair {
            let name = tenant::shown(call, &request.fields, &fair.by);
            call.life.tenant(name);
        }
        let mut claim = stop.claim;
        let mut ticket = group.queue.join_as(claim);
        let rank = self.waiting.rank(stop.claim.priority);
        let mut spill = chain.spill(stop.group, stop.claim.priority);
        let leads_on = chain.leads_on(called, stop.group);
        let mut last = None;
        let mut attempts = 0;
        // Others count as tried: the queue prefers those that have the endpoint.
        let unusable = |deployment: &DeploymentSettings| {
            deployment.lacks(call.endpoint).is_some()
                || stop.untranslatable.at(deployment).is_some()
        };
        let deployments = settings.deployments.iter();
        let without = if leads_on {
            deployments.map(unusable).collect()
        } else {
            Vec::new()
        };
        // Deployments that this request has failed on, by their ids: a reload may put others in their places.
        let mut failed_on: Vec<String> = Vec::new();
        loop {
            let entry = self.waiting.enter(rank);
            if request.stream {
                call.events.stage(Stage::Entering);
            }
            call.events.joined(
                &settings.name,
                &Joined {
                    claim: stop.claim,
                    asked_priority: stop.asked_priority,
                    timeout: terms.timeout,
                    left: deadline.saturating_duration_since(Instant::now()),
                    streamed: request.stream,
                    again: attempts > 0,
                },
            );
            call.life.enters(Entered {
                group: &group.name,
                waits: &group.waits,
                model: called,
                claim,
                streamed: request.stream,
            });
            let leave = Leave {
                deadline,
                cooling: leads_on.then_some(&without),
                spill: spill.map(|(_, spill)| spill.after.saturating_sub(ticket.waited())),
                retry: info.numbers.is_some(),
            };
            let waited = self
                .wait(call, group, &mut ticket, entry, leave, info)
                .await;
            info.waited = before + ticket.waited();
            // An operator may have moved it.
            claim.priority = call.life.priority();
            info.priority = claim.priority;
            let permit = match waited {
                Ok(permit) => permit,
                Err(NoPermit::Refused(refused)) => {
                    let problem = wait::or_last(refused, last.take());
                    let hop = chain.next(called, stop.group, &problem);
                    if let Some(Hop { to, reason, .. }) = &hop {
                        let reason = reason.as_str();
                        let status = problem.status().as_u16();
                        tracing::info!(
                            group = info.group,
                            to = to.model,
                            reason,
                            status,
                            "a call falls back without an attempt"
                        );
                    }
                    return Err(Left::Failed(problem, hop));
                }
                Err(NoPermit::Spills) => {
                    let Some((to, rule)) = spill.take() else {
                        continue;
                    };
                    let layout = Arc::new(stop.layout.renamed(&rule.to));
                    let next = Box::pin(self.stop(call, layout, to)).await;
                    // A grant that has come meanwhile is used.
                    match (ticket.granted().now_or_never(), next) {
                        (Some(Ok(permit)), _) => permit,
                        (_, Ok(next)) => return Err(Left::Spilled(Box::new(next), rule)),
                        // The other group cannot take it.
                        (_, Err(_)) => continue,
                    }
                }
            };
            // A reload may have changed the group meanwhile, and what its deployments are called by.
            let latest = self.latest();
            let (router, group) = match latest.group_of_name(&settings.name) {
                Some(group) => (&latest, group),
                None => (self, group),
            };
            let Some(index) = group.index_of(&permit) else {
                // It has taken the deployment out.
                ticket = permit.retry();
                continue;
            };
            let deployment = &group.settings.deployments[index];
            let attempt = Attempt {
                config: &router.config,
                clients: &router.clients,
                group,
                index,
                request: &request,
                model,
                accept_encoding,
                untranslatable: &stop.untranslatable,
                anthropic_headers: &call.anthropic_headers,
                passed_headers: settings
                    .passes_headers
                    .then_some(&call.passed_headers)
                    .filter(|passed| !passed.is_empty()),
                input_tokens: stop.input_tokens,
                events: &*call.events,
                timeout: terms.timeout,
                stream_timeout: terms.stream_timeout,
                deadline,
            };
            let secrets = &group.secrets[index];
            info.deployment.clone_from(&deployment.id);
            info.numbers = Some(permit.numbers());
            info.keepalive = deployment.keepalive.unwrap_or(router.config.keepalive);
            info.attempts += 1;
            info.retries += u32::from(attempts > 0);
            if request.stream {
                call.events.stage(Stage::Calling);
            }
            call.life.attempts(&group.ids[index], info.attempts);
            // Its future is large, and would be a part of each call's while that waits.
            let made = Box::pin(attempt.make(permit)).await;
            match without_secrets(made, secrets) {
                Ok(begun) => {
                    call.life.begins();
                    return Ok(begun);
                }
                Err(failed) if failed.expired || failed.misplaced => {
                    info.attempts -= 1;
                    info.retries -= u32::from(attempts > 0);
                    if failed.misplaced {
                        // Those that have the endpoint are full. Another request may take the room of those that have not.
                        let left = deadline.saturating_duration_since(Instant::now());
                        sleep(MISPLACED_PAUSE.min(left)).await;
                    }
                    ticket = failed.ticket.enter();
                }
                Err(failed) => {
                    call.life.fails(failed.problem.status());
                    failed_on.push(deployment.state_id.clone());
                    attempts += 1;
                    let deployments = group.settings.deployments.iter();
                    let tried: Vec<bool> = deployments
                        .map(|one| failed_on.contains(&one.state_id) || unusable(one))
                        .collect();
                    let failed = *failed;
                    let retries = terms.num_retries.or(deployment.num_retries);
                    let situation = Situation {
                        attempts,
                        retries: retries.unwrap_or(router.config.num_retries),
                        retry: failed.retry,
                        hint: failed.hint,
                        cool: failed.cool,
                        deployment: index,
                        tried: &tried,
                        cooling: &cooling(group, tried.len()),
                        left: deadline.saturating_duration_since(Instant::now()),
                        least: router.config.retry_after,
                    };
                    let next = situation.next(rand::random());
                    let hop = match next {
                        Next::Again(..) => None,
                        Next::GiveUp(_) => chain.next(called, stop.group, &failed.problem),
                    };
                    log(&failed, deployment, info, next, hop.as_ref());
                    let Next::Again(pause, _) = next else {
                        return Err(Left::Failed(failed.problem, hop));
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
}

/// How long each deployment cools.
fn cooling(group: &OpenGroup, deployments: usize) -> Vec<Option<Duration>> {
    let status = group.queue.status().deployments.into_iter();
    let mut cooling: Vec<_> = status.map(|deployment| deployment.cooling).collect();
    cooling.resize(deployments, None);
    cooling
}

/// The error is that of the first group, and so is what the answer says of it.
fn of_first(info: &mut CallInfo, known: CallInfo) {
    info.group = known.group;
    info.deployment = known.deployment;
    info.priority = known.priority;
    info.prioritized = known.prioritized;
    info.numbers = known.numbers;
    info.position = known.position;
    info.least_wait = known.least_wait;
}

/// A line about a failed attempt, and what happens next.
fn log(
    failed: &Failed,
    deployment: &DeploymentSettings,
    info: &CallInfo,
    next: Next,
    hop: Option<&Hop<'_>>,
) {
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
                fallback = hop.map(|hop| hop.to.model.as_str()),
                pause_ms = pause,
                "an attempt failed"
            )
        };
    }
    match (next, failed.counts) {
        (Next::Again(..), _) => line!(info),
        (Next::GiveUp(_), true) => line!(warn),
        // The client's own mistake, unless another group takes it.
        (Next::GiveUp(_), false) if hop.is_some() => line!(info),
        (Next::GiveUp(_), false) => line!(debug),
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
