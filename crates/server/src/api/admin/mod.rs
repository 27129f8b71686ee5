//! The admin API: the whole fleet from any instance, and what operators do (`docs/admin.md`).

mod access;
mod act;
mod body;
mod queue;
mod schemas;
mod show;

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    response::{IntoResponse as _, Response},
    routing::{MethodFilter, MethodRouter, on},
};
use http::Method;
use vorrang_gateway::FleetError;

pub(crate) use self::access::OnAdminPort;
pub(super) use self::schemas::{described, schemas};
use crate::{app::App, failure::Failure};

/// One operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Overview,
    Events,
    Group,
    Tickets,
    Calls,
    Requests,
    RequestLife,
    MoveTicket,
    CancelTicket,
    Pause,
    Resume,
    Limits,
    Drain,
    ResumeInstance,
    /// For clients.
    Preview,
    /// For clients.
    OwnRequest,
}

impl Operation {
    /// What operators do.
    pub(super) const ADMIN: [Self; 14] = [
        Self::Overview,
        Self::Events,
        Self::Group,
        Self::Tickets,
        Self::Calls,
        Self::Requests,
        Self::RequestLife,
        Self::MoveTicket,
        Self::CancelTicket,
        Self::Pause,
        Self::Resume,
        Self::Limits,
        Self::Drain,
        Self::ResumeInstance,
    ];

    /// What any client may ask.
    pub(super) const CLIENTS: [Self; 2] = [Self::Preview, Self::OwnRequest];

    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Overview => "/admin/overview",
            Self::Events => "/admin/events",
            Self::Group => "/admin/groups/{group}",
            Self::Tickets => "/admin/groups/{group}/tickets",
            Self::Calls => "/admin/groups/{group}/calls",
            Self::Requests => "/admin/requests",
            Self::RequestLife => "/admin/requests/{call_id}",
            Self::MoveTicket => "/admin/groups/{group}/tickets/{ticket}/move",
            Self::CancelTicket => "/admin/groups/{group}/tickets/{ticket}/cancel",
            Self::Pause => "/admin/groups/{group}/pause",
            Self::Resume => "/admin/groups/{group}/resume",
            Self::Limits => "/admin/groups/{group}/limits",
            Self::Drain => "/admin/instances/{instance}/drain",
            Self::ResumeInstance => "/admin/instances/{instance}/resume",
            Self::Preview => "/queue/preview",
            Self::OwnRequest => "/queue/requests/{call_id}",
        }
    }

    pub(super) fn method(self) -> Method {
        match self {
            Self::MoveTicket
            | Self::CancelTicket
            | Self::Pause
            | Self::Resume
            | Self::Limits
            | Self::Drain
            | Self::ResumeInstance => Method::POST,
            _ => Method::GET,
        }
    }

    /// The names of the parameters that a query may have.
    fn parameters(self) -> &'static [&'static str] {
        match self {
            Self::Tickets => &["from", "limit", "priority", "key", "tenant", "instance"],
            Self::Requests => &["group", "limit"],
            Self::Preview => &["model", "priority", "tokens"],
            _ => &[],
        }
    }

    pub(super) fn is_admins(self) -> bool {
        !Self::CLIENTS.contains(&self)
    }

    pub(super) fn handler(self) -> MethodRouter<Arc<App>> {
        let filter = match self.method() {
            Method::POST => MethodFilter::POST,
            _ => MethodFilter::GET,
        };
        on(
            filter,
            move |State(app): State<Arc<App>>, request: Request| async move {
                match self.answer(&app, request).await {
                    Ok(response) => response,
                    Err(failure) => failure.into_response(),
                }
            },
        )
    }

    async fn answer(self, app: &Arc<App>, request: Request) -> Result<Response, Failure> {
        if !self.is_admins() {
            return queue::answer(self, app, request).await;
        }
        let who = access::operator(app, &request)?;
        if self.method() == Method::POST {
            act::answer(self, app, request, &who).await
        } else {
            show::answer(self, app, request).await
        }
    }
}

impl From<FleetError> for Failure {
    fn from(error: FleetError) -> Self {
        let message = error.to_string();
        match error {
            FleetError::Forbidden(_) => Self::forbidden(message),
            FleetError::NotFound(_) => Self::no_such(message),
            FleetError::Conflict(_) => Self::conflict(message),
            FleetError::Unavailable(_) => Self::unanswered(message),
            // Also what a later version may have.
            _ => Self::invalid(message),
        }
    }
}
