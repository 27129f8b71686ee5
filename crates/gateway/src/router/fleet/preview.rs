//! Where a request would be in the queue if it came now.

use serde::Serialize;
use vorrang_scheduler::{Claim, Tokens};

use super::{Fleet, FleetError};
use crate::{
    Call, Endpoint, KeyPolicy, Problem, Setting,
    request::{Fields, tenant, terms},
    tokens,
    waiting::estimates,
};

/// The request that might come.
#[derive(Debug, Clone, Default)]
pub struct PreviewOf {
    /// The model's name or alias.
    pub model: String,
    /// As its body would name it.
    pub priority: Option<i32>,
    /// What it would ask for; 0 where that does not matter.
    pub tokens: u64,
    /// Whose it would be.
    pub key: Option<KeyPolicy>,
}

/// What a request would meet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Preview {
    /// As it was asked for.
    pub model: String,
    /// The group that it leads to.
    pub group: String,
    /// As it would be in force.
    pub priority: i32,
    /// 1 is the head; with fair shares, the best that it may be.
    pub position: u64,
    /// How long it would surely wait; `None`: it would be paused, and nobody knows for how long.
    pub least_wait_ms: Option<u64>,
    /// An operator has paused the group or the key: it would wait until that ends.
    pub paused: bool,
}

impl Fleet {
    /// Where a request would be in the queue if it came now. Nothing enters the queue.
    ///
    /// # Errors
    /// There is no such model, the key may not call it, no deployment ever takes so many tokens, or the backend does not answer.
    pub async fn preview(&self, of: PreviewOf) -> Result<Preview, FleetError> {
        let router = self.router.inner();
        let call = Call {
            priority: of.priority.map_or(Setting::Unset, Setting::Set),
            key: of.key,
            ..Call::new(Endpoint::ChatCompletions, "")
        };
        let refused = |problem: Problem| match problem {
            Problem::ModelNotAllowed { .. } => FleetError::Forbidden(problem.to_string()),
            problem => FleetError::Invalid(problem.to_string()),
        };
        let index = router.existing(&call, &of.model);
        let group = &router.groups[index.map_err(refused)?];
        let settings = &group.settings;
        let fields = Fields::default();
        let priority = terms::priority(&call, &fields, settings, &router.config);
        let priority = priority.map_err(refused)?.effective;
        let in_force = estimates::in_force(settings, &group.queue.status());
        let largest = tokens::largest(&in_force, priority);
        if of.tokens > largest {
            return Err(FleetError::Invalid(format!(
                "The request asks for {} tokens; no deployment of {} takes more than {largest} at once",
                of.tokens, settings.name
            )));
        }
        let tokens = Tokens::from(of.tokens);
        let claim = Claim {
            share: tenant::share(&router.tenants, &call, &fields, settings, tokens.total()),
            key: router.tenants.key(call.key.as_ref()),
            ..Claim::new(priority, tokens)
        };
        let ahead = group.queue.preview(claim).await;
        let ahead = ahead.map_err(|error| FleetError::Unavailable(error.to_string()))?;
        Ok(Preview {
            model: of.model,
            group: settings.name.clone(),
            priority,
            position: ahead.saturating_add(1),
            least_wait_ms: group.least_wait_ms(ahead, priority, claim.key),
            paused: group.pauses(claim.key),
        })
    }
}
