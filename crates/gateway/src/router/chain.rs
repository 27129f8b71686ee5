//! Which group takes a call over that another could not serve, and why.

use http::StatusCode;
use tokio::time::Duration;

use super::Inner;
use crate::{
    Call, Fallback, FallbackLists, FallbackReason,
    config::Spill,
    problem::Problem,
    provider::refusal::{Refusal, refusal},
    request::steering::{Mock, Steering},
};

/// A call's way through the groups. It enters each at most once, so that it ends whatever the file says.
#[derive(Clone)]
pub(super) struct Chain<'a> {
    router: &'a Inner,
    call: &'a Call,
    steering: Option<&'a Steering>,
    /// What is still to try, the next at the end; whether the request asked for it, and not the file.
    pending: Vec<(&'a Fallback, bool)>,
    reason: FallbackReason,
    first: usize,
    later: Vec<usize>,
    /// So many fallbacks may follow.
    left: u32,
}

/// The next group.
pub(super) struct Hop<'a> {
    pub(super) to: &'a Fallback,
    pub(super) group: usize,
    pub(super) reason: FallbackReason,
}

impl<'a> Chain<'a> {
    pub(super) fn new(
        router: &'a Inner,
        call: &'a Call,
        steering: Option<&'a Steering>,
        first: usize,
    ) -> Self {
        let most = router.config.fallbacks.most;
        let wanted = steering.and_then(|steering| steering.max_fallbacks);
        let disabled = steering.is_some_and(|steering| steering.disable_fallbacks);
        Self {
            router,
            call,
            steering,
            pending: Vec::new(),
            reason: FallbackReason::Failure,
            first,
            later: Vec::new(),
            left: if disabled {
                0
            } else {
                wanted.map_or(most, |wanted| wanted.min(most))
            },
        }
    }

    /// What follows a problem in a group that was called by this name: its own fallbacks first, then those that an earlier group has left.
    pub(super) fn next(
        &mut self,
        called: &str,
        group: usize,
        problem: &Problem,
    ) -> Option<Hop<'a>> {
        if self.left == 0 {
            return None;
        }
        match reason(problem) {
            Some(reason) => {
                self.reason = reason;
                self.add(called, group, matches!(problem, Problem::NeverFits { .. }));
            }
            // It cannot enter this group, and the next may be another matter.
            None if matches!(
                problem,
                Problem::QueueFull { .. } | Problem::TooLate { .. } | Problem::Invalid { .. }
            ) => {}
            None => return None,
        }
        while let Some((to, asked)) = self.pending.pop() {
            let checked = asked || self.router.config.fallbacks.checked;
            if let Some(group) = self.enters(&to.model, checked) {
                self.left -= 1;
                self.later.push(group);
                return Some(Hop {
                    to,
                    group,
                    reason: self.reason,
                });
            }
        }
        None
    }

    /// Whether a call would go on elsewhere if every deployment of its group cooled.
    pub(super) fn leads_on(&self, called: &str, group: usize) -> bool {
        let general = &self.router.config.fallbacks.general;
        let none = self.steering.is_none() && general.is_empty() && self.pending.is_empty();
        let cooling = || Problem::AllCooling {
            group: String::new(),
            retry_after: Duration::ZERO,
        };
        !none && self.clone().next(called, group, &cooling()).is_some()
    }

    /// Where a call of this priority may go when it has waited too long in this group's queue. That holds for every key: one that may
    /// call the other group itself would not have to wait.
    pub(super) fn spill(&self, group: usize, priority: i32) -> Option<(usize, &'a Spill)> {
        let spill = self.router.groups[group].settings.spill.as_ref()?;
        let urgent = priority < spill.better_than;
        Some((urgent.then(|| self.enters(&spill.to, false))??, spill))
    }

    /// The call has left for this group.
    pub(super) fn spilled(&mut self, group: usize) {
        self.later.push(group);
    }

    /// Adds a group's fallbacks. `only`: those for requests that are too long, as it is this gateway's limits that are in the way.
    fn add(&mut self, called: &str, group: usize, only: bool) {
        let file = &self.router.config.fallbacks;
        let asked = self.steering;
        let general = (
            &file.general,
            asked.and_then(|asked| asked.fallbacks.as_ref()),
        );
        let special = match self.reason {
            FallbackReason::ContextWindow => Some((
                &file.context_window,
                asked.and_then(|asked| asked.context_window.as_ref()),
            )),
            FallbackReason::ContentPolicy => Some((
                &file.content_policy,
                asked.and_then(|asked| asked.content_policy.as_ref()),
            )),
            FallbackReason::Failure | FallbackReason::Cooling => None,
        };
        let name = &self.router.groups[group].settings.name;
        let list = |(file, asked): (&'a FallbackLists, Option<&'a FallbackLists>)| {
            let list = asked.unwrap_or(file).of(called, name);
            (!list.is_empty()).then_some((list, asked.is_some()))
        };
        let found = special.and_then(list);
        let found = found.or_else(|| if only { None } else { list(general) });
        let Some((list, asked)) = found else { return };
        // A request that wants to see a fallback has not failed.
        let asked = asked
            || self
                .steering
                .is_some_and(|steering| steering.mock.is_some());
        self.pending.extend(list.iter().rev().map(|to| (to, asked)));
    }

    /// The group of this name, if the call can be made there. `checked`: its key has to allow it.
    fn enters(&self, model: &str, checked: bool) -> Option<usize> {
        let index = self.router.group_index(model)?;
        let group = &self.router.groups[index].settings;
        let key = self.call.key.as_ref().filter(|_| checked);
        let entered = self.first == index || self.later.contains(&index);
        let may = key.is_none_or(|key| key.allows(model, &group.name));
        (!entered && may && group.lacks(self.call.endpoint).is_none()).then_some(index)
    }
}

/// Why another group may take a call over. `None`: it may not.
pub(crate) fn reason(problem: &Problem) -> Option<FallbackReason> {
    match problem {
        Problem::Upstream {
            status,
            message,
            body,
            ..
        } => match refusal(*status, message, body.as_deref()) {
            Some(Refusal::ContextWindow) => Some(FallbackReason::ContextWindow),
            Some(Refusal::ContentPolicy) => Some(FallbackReason::ContentPolicy),
            // The next provider would say the same.
            None if is_clients_mistake(*status) => None,
            None => Some(FallbackReason::Failure),
        },
        Problem::Unreachable { .. } | Problem::TimedOutCalling { .. } => {
            Some(FallbackReason::Failure)
        }
        Problem::Cooling { .. } | Problem::Exhausted { .. } | Problem::AllCooling { .. } => {
            Some(FallbackReason::Cooling)
        }
        Problem::NeverFits { .. } => Some(FallbackReason::ContextWindow),
        // The client's mistake, a limit that is full, or the end of the request's time or of this instance.
        _ => None,
    }
}

fn is_clients_mistake(status: StatusCode) -> bool {
    matches!(status.as_u16(), 400 | 406 | 411..=417 | 422 | 431)
}

/// The problem that a request wants to see in its first group.
pub(super) fn mocked(mock: Mock, group: &str) -> Problem {
    let (status, code) = match mock {
        Mock::Failure => (StatusCode::INTERNAL_SERVER_ERROR, "internal_server_error"),
        Mock::ContextWindow => (StatusCode::BAD_REQUEST, "context_length_exceeded"),
        Mock::ContentPolicy => (StatusCode::BAD_REQUEST, "content_policy_violation"),
    };
    let message =
        format!("This is a mock exception for model={group}, to trigger a fallback ({code})");
    let error = serde_json::json!({"message": message, "type": code, "param": null, "code": code});
    Problem::Upstream {
        status,
        message,
        body: Some(serde_json::json!({ "error": error }).to_string().into()),
        retry_after: None,
        should_retry: Some(false),
    }
}
