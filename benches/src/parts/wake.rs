//! Part 6: how soon a waiting request goes when there is room: from the room to the call upstream, as the upstream sees it.

use anyhow::{Context as _, Result, ensure};
use futures_util::future::try_join_all;
use serde_json::{Value, json};

use super::Context;
use crate::{
    load::{Clients, Target},
    redis::Redis,
    results::{Metric, Part, Samples},
    rounds::order,
    servers::{Launch, Server, Upstream, get},
    stats::percentile,
    upstream::{SIZES, TIMED, TIMES, Times},
};

const MEDIAN: Metric = Metric {
    name: "p50",
    unit: "us",
};
const P99: Metric = Metric {
    name: "p99",
    unit: "us",
};

/// Requests within a window of the deployment that has one.
const RPM: usize = 25;
/// A window of a second and its guard, a twentieth of it: microseconds.
const WINDOW: u64 = 1_050_000;

/// What room comes from.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Room {
    /// The one call that may be open has ended.
    Call,
    /// An entry has left the window.
    Window,
}

struct Contender {
    name: &'static str,
    servers: Vec<Server>,
}

pub(crate) async fn run(context: &Context) -> Result<Part> {
    let mut samples = Samples::default();
    for room in [Room::Call, Room::Window] {
        let upstream = Upstream::start(&context.directory).await?;
        let redis = Redis::start(&context.directory).await?;
        // At once, as a new group on Redis takes its lease.
        let start =
            |name, redis, instances| start(context, room, &upstream, name, redis, instances);
        let contenders: [Contender; 3] = tokio::try_join!(
            start("memory", None, 1),
            start("Redis, one instance", Some(redis.url()), 1),
            start("Redis, two instances", Some(redis.url()), 2),
        )?
        .into();
        // A window's rooms take seconds to come.
        let rounds = if room == Room::Window {
            context.either(context.rounds, 1)
        } else {
            context.rounds
        };
        for round in 0..rounds {
            for index in order(contenders.len(), round) {
                let gaps = measure(context, room, &upstream, &contenders[index]).await?;
                let name = contenders[index].name;
                for (metric, part) in [(MEDIAN, 0.5), (P99, 0.99)] {
                    let value = percentile(&gaps, part).context("no room came")?;
                    samples.add(room.point(), name, metric, value as f64);
                }
            }
        }
    }
    Ok(Part {
        name: "wake",
        title: "From room to the call upstream",
        about: "A call ends: max_parallel_requests is 1, and two clients take turns; from the answer's departure upstream to the next call's arrival there, with both ways through the gateway. With two instances the next call is always the other one's. An entry leaves its window: from the first moment when it does not count any more (a window of 1 s and its guard of 50 ms after the call that it stands for) to the arrival of the call that takes its room.",
        figures: samples.figures(&[(MEDIAN, "memory"), (P99, "memory")]),
    })
}

impl Room {
    fn point(self) -> &'static str {
        match self {
            Self::Call => "a call ends",
            Self::Window => "an entry leaves its window",
        }
    }

    fn config(self, base: &str, redis: Option<&str>, namespace: &str) -> Value {
        let mut params =
            json!({"model": "openai/bench", "api_key": "upstream-key", "api_base": base});
        let mut settings = json!({"redis_namespace": namespace});
        match self {
            Self::Call => params["max_parallel_requests"] = json!(1),
            Self::Window => {
                params["rpm"] = json!(RPM);
                settings["window_seconds"] = json!(1);
            }
        }
        if let Some(url) = redis {
            settings["redis_url"] = json!(url);
        }
        json!({
            "model_list": [{"model_name": "bench", "litellm_params": params}],
            "vorrang_settings": settings,
        })
    }

    /// How long each room was free before a call took it, in ascending order.
    fn gaps(self, times: &[Times]) -> Vec<u64> {
        let mut times = times.to_vec();
        times.sort_unstable();
        let pairs = |by: usize| times.iter().zip(times.iter().skip(by));
        let mut gaps: Vec<u64> = match self {
            Self::Call => pairs(1)
                .map(|(last, next)| next.0.saturating_sub(last.1))
                .collect(),
            Self::Window => pairs(RPM)
                .map(|(first, next)| next.0.saturating_sub(first.0 + WINDOW))
                .collect(),
        };
        gaps.sort_unstable();
        gaps
    }
}

async fn start(
    context: &Context,
    room: Room,
    upstream: &Upstream,
    name: &'static str,
    redis: Option<String>,
    instances: usize,
) -> Result<Contender> {
    let base = format!("http://{}{TIMED}/{}", upstream.server.address, SIZES[0]);
    let launches = (0..instances).map(|index| {
        let launch = Launch {
            name: format!("wake-{room:?}-{instances}-{index}-{}", redis.is_some()),
            binary: &context.binary,
            directory: &context.directory,
            config: room.config(&base, redis.as_deref(), &format!("of-{instances}")),
            logs: false,
            counted: None,
        };
        launch.start()
    });
    let servers = try_join_all(launches).await?;
    Ok(Contender { name, servers })
}

async fn measure(
    context: &Context,
    room: Room,
    upstream: &Upstream,
    contender: &Contender,
) -> Result<Vec<u64>> {
    let targets: Vec<Target> = contender.servers.iter().map(Server::chat).collect();
    let (clients, length) = match room {
        Room::Call => (2, context.visit()),
        // So many that a request waits for each room, also while all of a window's have just been answered; and long enough for rooms
        // that were taken within this visit.
        Room::Window => (3 * RPM, context.visit() + std::time::Duration::from_secs(2)),
    };
    let mut clients = Clients::connect(&targets, clients).await?;
    times(upstream).await?;
    clients.time(length).await?;
    let gaps = room.gaps(&times(upstream).await?);
    ensure!(!gaps.is_empty(), "{} had no calls", contender.name);
    Ok(gaps)
}

/// Of all calls since this was asked last.
async fn times(upstream: &Upstream) -> Result<Vec<Times>> {
    let (_, body) = get(upstream.server.address, TIMES).await?;
    Ok(serde_json::from_str(&body)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_of_a_call_is_from_its_end_to_the_next_call() {
        let times = [(500, 700), (0, 100), (130, 400)];
        assert_eq!(Room::Call.gaps(&times), [30, 100]);
    }

    #[test]
    fn room_of_a_window_is_from_the_end_of_its_entry() {
        let mut times: Vec<Times> = (0..RPM as u64).map(|n| (n * 10, n * 10 + 5)).collect();
        times.push((WINDOW + 300, WINDOW + 400));
        times.push((WINDOW + 310, WINDOW + 410));
        assert_eq!(Room::Window.gaps(&times), [300, 300]);
    }
}
