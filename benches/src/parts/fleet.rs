//! Part 4: fleets of several sizes on one Redis.

use anyhow::Result;
use futures_util::future::try_join_all;

use super::{CPU, Context, REDIS_CPU, STEPS, visit};
use crate::{
    commandstats::{between, steps},
    load::Target,
    process::Process,
    redis::Redis,
    results::{Metric, Part, Samples},
    rounds::order,
    servers::{Launch, Server, mock},
};

/// While nothing is asked for.
const IDLE: Metric = Metric {
    name: "Redis CPU when idle",
    unit: "ms/s",
};
/// Connections of all instances together.
const CLIENTS: usize = 64;
const FLEET: &str = "fleet";

pub(crate) async fn run(context: &Context) -> Result<Part> {
    let sizes = context.either(&[1, 4, 16, 32][..], &[1, 4]);
    let mut samples = Samples::default();
    for round in 0..context.rounds {
        // One fleet at a time: others would take processor time by their heartbeats.
        for index in order(sizes.len(), round) {
            fleet(context, &mut samples, sizes[index]).await?;
        }
    }
    Ok(Part {
        name: "fleet",
        title: "A fleet on one Redis",
        about: "64 connections over all instances, requests answered in process, one group with a limit of requests. All of it, the load and Redis included, shares one machine: more instances show what the fleet costs, not what it could do on more machines.",
        figures: samples.figures(&[]),
    })
}

async fn fleet(context: &Context, samples: &mut Samples, instances: usize) -> Result<()> {
    let redis = Redis::start(&context.directory).await?;
    let config = mock(Some(&redis.url()));
    let launches = (0..instances).map(|index| {
        let launch = Launch {
            name: format!("fleet-{index}"),
            binary: &context.binary,
            directory: &context.directory,
            config: config.clone(),
            logs: false,
            counted: None,
        };
        launch.start()
    });
    let servers: Vec<Server> = try_join_all(launches).await?;
    let point = format!(
        "{instances} instance{}",
        if instances == 1 { "" } else { "s" }
    );
    let targets: Vec<Target> = servers.iter().map(Server::chat).collect();
    let processes: Vec<&Process> = servers.iter().map(|server| &server.process).collect();
    let measured = [(CPU, &processes[..]), (REDIS_CPU, &[&redis.process][..])];
    let before = redis.commands().await?;
    let done = visit(
        context,
        samples,
        (&point, FLEET),
        (&targets, CLIENTS),
        &measured,
    )
    .await?;
    let since = between(&before, &redis.commands().await?);
    // With those that open the connections.
    let requests = done.requests() + CLIENTS as f64;
    samples.add(&point, FLEET, STEPS, steps(&since).calls as f64 / requests);
    let cpu = redis.process.cpu()?;
    tokio::time::sleep(context.visit()).await;
    let used = redis.process.cpu()?.saturating_sub(cpu);
    let part = used.as_secs_f64() / context.visit().as_secs_f64();
    samples.add(&point, FLEET, IDLE, part * 1000.0);
    Ok(())
}
