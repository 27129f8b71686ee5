//! Part 1: a request that the gateway answers in process, beside a bare handler.

use anyhow::Result;

use super::{CPU, Context, MEDIAN, P99, RATE, REDIS_CPU, visit};
use crate::{
    redis::Redis,
    results::{Part, Samples},
    rounds::order,
    servers::{Launch, Server, mock},
};

const BARE: &str = "bare axum";

pub(crate) async fn run(context: &Context) -> Result<Part> {
    let directory = context.directory.as_path();
    let redis = Redis::start(directory).await?;
    let launch = |name: &str, redis: Option<&str>, logs| Launch {
        name: name.into(),
        binary: &context.binary,
        directory,
        config: mock(redis),
        logs,
        counted: None,
    };
    let contenders = [
        (BARE, Server::bare(directory).await?),
        ("memory", launch("mock", None, false).start().await?),
        (
            "memory, access line",
            launch("mock-line", None, true).start().await?,
        ),
        (
            "Redis",
            launch("mock-redis", Some(&redis.url()), false)
                .start()
                .await?,
        ),
    ];
    let mut samples = Samples::default();
    for round in 0..context.rounds {
        for &clients in context.either(&[1, 16, 64, 256][..], &[1, 64]) {
            for index in order(contenders.len(), round) {
                let (name, server) = &contenders[index];
                let (server_cpu, redis_cpu) = ([&server.process], [&redis.process]);
                let mut processes = vec![(CPU, &server_cpu[..])];
                if *name == "Redis" {
                    processes.push((REDIS_CPU, &redis_cpu[..]));
                }
                let at = (&*format!("c = {clients}"), *name);
                let load = (&[server.chat()][..], clients);
                visit(context, &mut samples, at, load, &processes).await?;
            }
        }
    }
    Ok(Part {
        name: "mock",
        title: "A request answered in process (mock_response)",
        about: "c: connections, each with one request at a time. On Redis the group has a limit of requests. The access line goes to a file.",
        figures: samples.figures(&[(RATE, BARE), (MEDIAN, BARE), (P99, BARE), (CPU, BARE)]),
    })
}
