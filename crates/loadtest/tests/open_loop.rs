//! The generator keeps to its plan, whatever comes back.

use anyhow::{Result, ensure};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use vorrang_load::{
    log::Ended,
    run::{self, Place},
    scenario::Scenario,
};

/// A server that answers nobody until all are there: a generator that waits for answers would wait for ever.
#[tokio::test]
async fn every_request_leaves_although_none_has_been_answered() -> Result<()> {
    const ALL: usize = 100;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let target = format!("http://{}", listener.local_addr()?);
    let server = tokio::spawn(async move {
        let mut waiting = Vec::new();
        while waiting.len() < ALL {
            let (mut stream, _) = listener.accept().await?;
            let read = stream.read(&mut [0; 4096]).await?;
            ensure!(read > 0, "a client has left");
            waiting.push(stream);
        }
        for mut stream in waiting {
            stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
                .await?;
        }
        Ok(())
    });
    let scenario = Scenario::parse(
        "name: open
phases: [{name: all, for: 500ms, rate: 200/s}]
traffic: [{name: all, arrivals: constant}]
",
        "open",
    )?;
    let place = Place {
        targets: vec![target],
        provider: None,
        fleet: None,
        key: None,
    };
    let log = run::run(scenario, 1, place).await?;
    server.await??;
    ensure!(log.records.len() == ALL);
    for record in &log.records {
        ensure!(record.ended == Ended::Answered, "{record:?}");
        ensure!(
            record.sent >= record.meant,
            "nobody leaves early: {record:?}"
        );
    }
    let last_sent = log.records.iter().map(|one| one.sent).max();
    let first_head = log.records.iter().filter_map(|one| one.head).min();
    ensure!(last_sent < first_head);
    // The plan's own steps, in order.
    let gaps = log
        .records
        .windows(2)
        .map(|pair| pair[1].meant - pair[0].meant);
    for gap in gaps {
        ensure!((4999..=5001).contains(&gap), "{gap}");
    }
    Ok(())
}
