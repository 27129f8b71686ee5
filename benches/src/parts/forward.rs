//! Part 2: a request that is forwarded, beside the same call without a gateway.

use anyhow::Result;

use super::{CPU, Context, MEDIAN, P99, RATE, visit};
use crate::{
    load::Target,
    process::Process,
    results::{Part, Samples},
    rounds::order,
    servers::{CHAT, Launch, Server, Upstream, group},
    upstream::SIZES,
};

const DIRECT: &str = "direct call";
const BARE: &str = "bare axum";
const FORWARDED: &str = "forwarded";
const CONTENDERS: [&str; 3] = [DIRECT, BARE, FORWARDED];

pub(crate) async fn run(context: &Context) -> Result<Part> {
    let directory = context.directory.as_path();
    let upstream = Upstream::start(directory).await?;
    let bare = Server::bare(directory).await?;
    let gateway = Launch {
        name: "forward".into(),
        binary: &context.binary,
        directory,
        config: upstream.forwarding(),
        logs: false,
        counted: None,
    };
    let gateway = gateway.start().await?;
    let mut samples = Samples::default();
    for round in 0..context.rounds {
        for &clients in context.either(&[1, 64][..], &[64]) {
            // Quick: small answers whole, large ones streamed.
            let is_wanted = |(_, size, stream): &(bool, usize, bool)| {
                !context.quick || (*size == SIZES[0]) != *stream
            };
            for (tls, size, stream) in variants().filter(is_wanted) {
                for index in order(CONTENDERS.len(), round) {
                    let name = CONTENDERS[index];
                    let (target, process) = match name {
                        DIRECT => (upstream.direct(tls, size, stream)?, None),
                        BARE => (bare.chat(), Some(&bare.process)),
                        _ => {
                            let model = group(tls, size);
                            let target = Target::chat(gateway.address, CHAT, &model, stream);
                            (target, Some(&gateway.process))
                        }
                    };
                    let measured: Vec<&Process> = process.into_iter().collect();
                    let processes = [(CPU, &measured[..])];
                    let processes = &processes[..measured.len()];
                    let point = point(tls, size, stream, clients);
                    let load = (&[target][..], clients);
                    visit(context, &mut samples, (&point, name), load, processes).await?;
                }
            }
        }
    }
    Ok(Part {
        name: "forward",
        title: "A request that is forwarded",
        about: "CPU: of the gateway alone, beside that of the bare handler, which answers by itself. The client speaks plain HTTP with the gateway; TLS is between the gateway and the upstream.",
        figures: samples.figures(&[(RATE, DIRECT), (MEDIAN, DIRECT), (P99, DIRECT), (CPU, BARE)]),
    })
}

fn variants() -> impl Iterator<Item = (bool, usize, bool)> {
    let both = [false, true];
    both.into_iter().flat_map(move |tls| {
        SIZES
            .into_iter()
            .flat_map(move |size| both.map(|stream| (tls, size, stream)))
    })
}

fn point(tls: bool, size: usize, stream: bool, clients: usize) -> String {
    format!(
        "{}{} kB{}, c = {clients}",
        if tls { "TLS, " } else { "" },
        size as f64 / 1000.0,
        if stream { " streamed" } else { "" },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_say_what_differs() {
        assert_eq!(variants().count(), 8);
        assert_eq!(point(true, 200, true, 64), "TLS, 0.2 kB streamed, c = 64");
        assert_eq!(point(false, 20_000, false, 1), "20 kB, c = 1");
    }
}
