//! How a deployment is chosen among those with room: `routing_strategy`, in LiteLLM's words.

use std::time::Duration;

use vorrang_scheduler::Strategy;

use crate::config::{ConfigError, GroupSettings, read::Section};

const NAME: &str = "routing_strategy";
const ARGUMENTS: &str = "routing_strategy_args";

/// LiteLLM keeps latencies for an hour after the last one of any deployment. Here each deployment's is forgotten by itself, because nothing else
/// brings a deployment back that was slow.
const FORGET_AFTER: Duration = Duration::from_secs(600);

pub(in crate::config) fn strategy(router: &Section<'_>) -> Result<Strategy, ConfigError> {
    let strategy = match router.name(NAME)?.as_deref() {
        None | Some("simple-shuffle") => Strategy::SimpleShuffle,
        Some("simple") => {
            router.warn(
                NAME,
                "simple is taken as simple-shuffle; LiteLLM refuses it",
            );
            Strategy::SimpleShuffle
        }
        // Both mean the least used deployment; the one counts tokens, and the other requests too.
        Some("usage-based-routing-v2" | "usage-based-routing") => Strategy::UsageBased,
        Some("least-busy") => Strategy::LeastBusy,
        Some("cost-based-routing") => Strategy::CostBased,
        Some("latency-based-routing") => return latency_based(router),
        Some(_) => {
            return Err(router.error(
                NAME,
                "expected simple-shuffle, usage-based-routing-v2, least-busy, latency-based-routing or cost-based-routing",
            ));
        }
    };
    router.not_served(&[(ARGUMENTS, "this strategy takes no arguments")]);
    Ok(strategy)
}

fn latency_based(router: &Section<'_>) -> Result<Strategy, ConfigError> {
    let arguments = router.section(ARGUMENTS)?;
    let expected = "a number of at least 0";
    let buffer = "lowest_latency_buffer";
    let strategy = Strategy::LatencyBased {
        forget_after: arguments.seconds_if_any("ttl")?.unwrap_or(FORGET_AFTER),
        buffer: match arguments.number(buffer, expected)? {
            Some(share) if share < 0.0 => {
                return Err(arguments.error(buffer, &format!("expected {expected}")));
            }
            share => share.unwrap_or(0.0),
        },
    };
    arguments.not_served(&[(
        "max_latency_list_size",
        "a mean is kept, in which each new answer counts an eighth",
    )]);
    arguments.warn_unknown();
    Ok(strategy)
}

/// Its name in LiteLLM.
pub(crate) fn name(strategy: Strategy) -> &'static str {
    match strategy {
        Strategy::SimpleShuffle => "simple-shuffle",
        Strategy::UsageBased => "usage-based-routing-v2",
        Strategy::LeastBusy => "least-busy",
        Strategy::LatencyBased { .. } => "latency-based-routing",
        Strategy::CostBased => "cost-based-routing",
    }
}

/// LiteLLM knows prices of many models. Here only the file does.
pub(in crate::config) fn warn_of_prices(
    router: &Section<'_>,
    strategy: Strategy,
    groups: &[GroupSettings],
) {
    if strategy != Strategy::CostBased {
        return;
    }
    for group in groups.iter().filter(|group| group.deployments.len() > 1) {
        let mut deployments = group.deployments.iter();
        if deployments.any(|deployment| deployment.price.is_none()) {
            let text = format!(
                "cost-based-routing: a deployment of {} has no input_cost_per_token and no output_cost_per_token, and is used after those that have a price; LiteLLM's list of prices is not used",
                group.name
            );
            router.warn(NAME, &text);
        }
    }
}
