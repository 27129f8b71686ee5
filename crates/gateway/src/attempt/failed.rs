//! Attempts without an answer: what that means for the request, and for the deployment.

use std::time::SystemTime;

use http::StatusCode;
use tokio::time::{Duration, Instant};
use vorrang_scheduler::{ActiveCall, Expired, PausedTicket, Permit};

use super::Attempt;
use crate::{
    Endpoint,
    config::DeploymentSettings,
    problem::Problem,
    provider::{
        client::NoAnswer,
        error_body::{self, ErrorBody},
        http::Response,
        retry::{self, Consequence, Cooling, Hints, Retry},
        secrets::Secrets,
    },
};

/// An attempt without an answer. Its permit is back; its ticket can enter the queue again (A8).
pub(crate) struct Failed {
    pub(crate) ticket: PausedTicket,
    pub(crate) problem: Problem,
    pub(crate) retry: Retry,
    /// How long the upstream asked to wait.
    pub(crate) hint: Option<Duration>,
    /// How long the deployment cools; `None` where it does not, or where it only counts.
    pub(crate) cool: Option<Duration>,
    /// Whether it counts for the deployment's health.
    pub(crate) counts: bool,
    /// For the log.
    pub(crate) cause: &'static str,
    pub(crate) detail: Option<String>,
    /// The permit could not be used any more (P9): nothing was tried.
    pub(crate) expired: bool,
    /// The permit is one of a deployment without the endpoint: nothing was tried.
    pub(crate) misplaced: bool,
}

impl Failed {
    pub(super) fn new(
        call: ActiveCall,
        problem: Problem,
        consequence: Consequence,
        cause: &'static str,
    ) -> Self {
        Self::ended(call, ActiveCall::release, problem, consequence, cause)
    }

    /// The same where certainly nothing was sent.
    pub(super) fn unsent(
        call: ActiveCall,
        problem: Problem,
        consequence: Consequence,
        cause: &'static str,
    ) -> Self {
        Self::ended(call, ActiveCall::not_sent, problem, consequence, cause)
    }

    fn ended(
        mut call: ActiveCall,
        end: fn(ActiveCall) -> PausedTicket,
        problem: Problem,
        consequence: Consequence,
        cause: &'static str,
    ) -> Self {
        if let Some(failure) = consequence.failure {
            call.failed(failure.status, failure.cool);
        }
        Self::with(end(call), problem, consequence, cause)
    }

    fn with(
        ticket: PausedTicket,
        problem: Problem,
        consequence: Consequence,
        cause: &'static str,
    ) -> Self {
        Self {
            ticket,
            problem,
            retry: consequence.retry,
            hint: None,
            cool: consequence.failure.and_then(|failure| failure.cool),
            counts: consequence.failure.is_some(),
            cause,
            detail: None,
            expired: false,
            misplaced: false,
        }
    }

    /// P9 (dispatch within the session): nothing was sent. The request queues again, and this does not count as an attempt.
    pub(super) fn expired(expired: Expired) -> Self {
        let consequence = Consequence {
            retry: Retry::Yes,
            failure: None,
        };
        Self {
            expired: true,
            ..Self::with(
                expired.into_ticket(),
                Problem::BackendRecovering,
                consequence,
                "expired",
            )
        }
    }

    /// The deployment does not have the endpoint: nothing was sent, and the charge is refunded.
    pub(super) fn misplaced(permit: Permit, problem: Problem) -> Self {
        let consequence = Consequence {
            retry: Retry::Elsewhere,
            failure: None,
        };
        Self {
            misplaced: true,
            ..Self::with(permit.release(), problem, consequence, "no such endpoint")
        }
    }

    pub(super) fn silent(call: ActiveCall, silence: NoAnswer) -> Self {
        let make = if silence.unsent {
            Self::unsent
        } else {
            Self::new
        };
        let message = silence.cause.message().into();
        Self {
            detail: silence.detail,
            ..make(
                call,
                Problem::Unreachable { message },
                Consequence::SILENCE,
                silence.cause.as_str(),
            )
        }
    }
}

impl Attempt<'_> {
    /// Those of the call's deployment.
    pub(super) fn secrets(&self) -> &Secrets {
        &self.group.secrets[self.index]
    }

    /// The upstream answered, but with no success.
    pub(super) async fn refused(
        &self,
        call: ActiveCall,
        deployment: &DeploymentSettings,
        response: Response,
        until: Instant,
    ) -> Box<Failed> {
        let status = response.status();
        let hints = Hints::of(response.headers(), SystemTime::now());
        if !(status.is_client_error() || status.is_server_error()) {
            let message = format!(
                "The upstream answered {}, which is neither a success nor an error",
                status.as_u16()
            );
            let consequence = Consequence::of_status(status, hints, self.cooling(deployment));
            let problem = Problem::Unreachable { message };
            return Box::new(Failed::new(
                call,
                problem,
                consequence,
                "no success, no error",
            ));
        }
        let error = error_body::read(response, until, self.secrets()).await;
        self.error(call, deployment, status, hints, error)
    }

    /// The upstream answered with an error.
    pub(super) fn error(
        &self,
        call: ActiveCall,
        deployment: &DeploymentSettings,
        status: StatusCode,
        hints: Hints,
        error: ErrorBody,
    ) -> Box<Failed> {
        let cooling = self.cooling(deployment);
        let exhausted = status == StatusCode::TOO_MANY_REQUESTS && {
            let hint = hints.after.is_some();
            let object = String::from_utf8_lossy(error.object.as_deref().unwrap_or_default());
            retry::quota_exhausted(&error.message, hint) || retry::quota_exhausted(&object, hint)
        };
        let consequence = if exhausted {
            Consequence::exhausted(hints, cooling)
        } else {
            Consequence::of_status(status, hints, cooling)
        };
        let consequence = self.without_missing_endpoint(consequence, status);
        let cooled = (status == StatusCode::TOO_MANY_REQUESTS).then_some(cooling.time);
        let hint = hints.after.filter(|_| retry::may_hint(status));
        let problem = Problem::Upstream {
            status,
            message: error.message,
            body: error.object,
            retry_after: hint.or(cooled.filter(|_| !exhausted)),
            should_retry: if exhausted { Some(false) } else { hints.again },
        };
        let cause = if exhausted {
            "quota exhausted"
        } else {
            "error status"
        };
        Box::new(Failed {
            hint,
            ..Failed::new(call, problem, consequence, cause)
        })
    }

    /// A server without the endpoint says 404 or 405, too. Its deployment is well: calls of other endpoints go on. A chat
    /// model that is not there is missed by every call.
    fn without_missing_endpoint(
        &self,
        mut consequence: Consequence,
        status: StatusCode,
    ) -> Consequence {
        let basic = matches!(
            self.request.endpoint,
            Endpoint::ChatCompletions | Endpoint::Completions | Endpoint::Messages
        );
        if !basic && matches!(status.as_u16(), 404 | 405 | 501) {
            consequence.retry = Retry::Elsewhere;
            consequence.failure = None;
        }
        consequence
    }

    /// The time for the attempt is over: the request's own, then that is that, or the deployment's, then another attempt may go better.
    pub(super) fn out_of_time(
        &self,
        mut call: ActiveCall,
        until: Instant,
        own: Option<Duration>,
    ) -> Box<Failed> {
        let requests = until == self.deadline;
        let after = if requests {
            self.timeout
        } else {
            own.unwrap_or(self.timeout)
        };
        let problem = Problem::TimedOutCalling {
            group: self.group.settings.name.clone(),
            after,
        };
        // A short timeout of the request says nothing about the deployment.
        let consequence = if requests {
            Consequence {
                retry: Retry::No,
                failure: None,
            }
        } else {
            call.timed_out();
            Consequence::SILENCE
        };
        Box::new(Failed::new(call, problem, consequence, "time-out"))
    }

    pub(super) fn cooling(&self, deployment: &DeploymentSettings) -> Cooling {
        Cooling {
            disabled: self.config.disable_cooldowns,
            time: deployment
                .cooldown_time
                .unwrap_or(self.config.cooldown_time),
        }
    }
}
