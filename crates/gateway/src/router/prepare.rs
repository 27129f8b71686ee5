//! Reads what a request asks for, before it queues.

use std::sync::Arc;

use tokio::time::Duration;
use vorrang_scheduler::Claim;

use super::Inner;
use crate::{
    Call, CallInfo, Endpoint,
    config::DeploymentSettings,
    problem::Problem,
    request::{Layout, tenant, terms},
    tokens,
    translate::Untranslatable,
};

/// What a request asks for, and where in its body.
pub(super) struct Prepared {
    pub(super) layout: Layout,
    pub(super) timeout: Duration,
    pub(super) claim: Claim,
    pub(super) input_tokens: u64,
    pub(super) untranslatable: Untranslatable,
}

/// So many deployments a claim can name.
const MOST_TRIED: usize = 52;

/// Reading less than this takes no time that others would notice.
const LARGE_BODY_BYTES: usize = 128 * 1024;

impl Inner {
    /// Reads the request. Large requests are read on separate threads, a few at a time, so that others are not delayed.
    pub(super) async fn prepared(
        self: &Arc<Self>,
        call: &Call,
        info: &mut CallInfo,
    ) -> Result<Prepared, Problem> {
        if call.body.len() < LARGE_BODY_BYTES {
            return self.prepare(call, info);
        }
        // The semaphore is never closed.
        let turn = self.reading.clone().acquire_owned().await;
        let (inner, call) = (self.clone(), call.clone());
        let reading = tokio::task::spawn_blocking(move || {
            // Held until it is done, also where the client has left.
            let _turn = turn;
            let mut info = CallInfo::default();
            (inner.prepare(&call, &mut info), info)
        });
        match reading.await {
            Ok((prepared, read)) => {
                *info = read;
                prepared
            }
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is ending, and this future with it.
                Err(_) => Err(Problem::Closed),
            },
        }
    }

    fn prepare(&self, call: &Call, info: &mut CallInfo) -> Result<Prepared, Problem> {
        let layout = Layout::of(call)?;
        let request = layout.request();
        let (group, model) = self.group(call, &request.model)?;
        info.group.clone_from(&group.settings.name);
        info.streamed = request.stream;
        let priority = terms::priority(call, &request.fields, &group.settings, &self.config)?;
        info.priority = priority.effective;
        info.prioritized = priority.named;
        let timeout = terms::timeout(call, &request.fields, &self.config)?;
        let reserved =
            tokens::reserved(&request, &group.settings, priority.effective, &group.mean)?;
        let untranslatable = Untranslatable::find(&request, &group.settings, model)?;
        let claim = Claim {
            priority: priority.effective,
            tokens: reserved.tokens,
            share: tenant::share(
                &self.tenants,
                call,
                &request.fields,
                &group.settings,
                reserved.tokens.total(),
            ),
            tried: without_endpoint(&group.settings.deployments, call.endpoint, &untranslatable),
            failed: false,
        };
        Ok(Prepared {
            layout,
            timeout,
            claim,
            input_tokens: reserved.input,
            untranslatable,
        })
    }
}

/// Deployments that the queue only grants where no other has room: those without the endpoint.
fn without_endpoint(
    deployments: &[DeploymentSettings],
    endpoint: Endpoint,
    untranslatable: &Untranslatable,
) -> u64 {
    let lacking = deployments
        .iter()
        .take(MOST_TRIED)
        .enumerate()
        .filter(|(index, deployment)| {
            deployment.lacks(endpoint).is_some() || untranslatable.at(*index).is_some()
        });
    lacking.fold(0, |bits, (index, _)| bits | 1 << index)
}
