//! What is known of the groups.

use std::time::Duration;

use serde_json::{Map, Value, json};
use vorrang_gateway::{DeploymentLimits, GroupView, Router};

/// An object by the groups' names. Times are in seconds.
pub(crate) fn of(router: &Router) -> Value {
    let groups = router.groups().into_iter();
    let groups = groups.map(|group| (group.name.clone(), of_group(&group)));
    Value::Object(groups.collect::<Map<_, _>>())
}

fn of_group(group: &GroupView) -> Value {
    let status = &group.status;
    let deployments = group.limits.iter().enumerate();
    let deployments = deployments.map(|(index, limits)| of_deployment(group, index, limits));
    json!({
        "ready": status.ready,
        "waiting": status.depth,
        "waiting_here": status.waiting,
        "in_flight_here": status.in_flight,
        "next_free": status.next_free.map(seconds),
        "reasons": status.reasons.words().collect::<Vec<_>>(),
        "deployments": deployments.collect::<Vec<_>>(),
    })
}

fn of_deployment(group: &GroupView, index: usize, limits: &DeploymentLimits) -> Value {
    // Nothing is known before the first answer.
    let used = group.status.deployments.get(index).cloned();
    let used = used.unwrap_or_default();
    let all = limits.limits.iter().map(|limit| {
        let window = limit.is_window().then(|| seconds(limit.length));
        json!({"name": limit.name, "kind": limit.word(), "limit": limit.limit, "window_seconds": window})
    });
    json!({
        "id": limits.id,
        "used": {
            "requests": used.requests,
            "tokens": used.tokens.total(),
            "input_tokens": used.tokens.input,
            "output_tokens": used.tokens.output,
            "concurrency": used.in_flight,
        },
        "limits": all.collect::<Vec<_>>(),
        "cooling": used.cooling.map(seconds),
    })
}

fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}
