//! The generator keeps to its plan, independent of answers.

use anyhow::{Result, ensure};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use vorrang_load::{
    log::Ended,
    run::{self, RunTarget},
    scenario::Scenario,
};

/// A server that answers only when all requests have arrived: a generator that waits for answers would wait for ever.
#[tokio::test]
async fn requests_are_sent_without_waiting_for_answers() -> Result<()> {
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
    let target = RunTarget {
        targets: vec![target],
        provider: None,
        fleet: None,
        key: None,
    };
    let log = run::run(scenario, 1, target).await?;
    server.await??;
    ensure!(log.records.len() == ALL);
    for record in &log.records {
        ensure!(record.ended == Ended::Answered, "{record:?}");
        ensure!(
            record.sent >= record.meant,
            "sent before its time: {record:?}"
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

/// A request names its tenant in its body. The key of its traffic overrides the key of the run.
#[tokio::test]
async fn request_carries_its_tenant_and_key() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let target = format!("http://{}", listener.local_addr()?);
    let server = tokio::spawn(async move {
        let mut seen = Vec::new();
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().await?;
            let mut text = String::new();
            while !text.ends_with('}') {
                let mut bytes = [0; 4096];
                let read = stream.read(&mut bytes).await?;
                ensure!(read > 0, "a client has left");
                text.push_str(std::str::from_utf8(&bytes[..read])?);
            }
            stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}")
                .await?;
            seen.push(text);
        }
        Ok(seen)
    });
    let scenario = Scenario::parse(
        "name: open
phases:
  - {name: a, for: 200ms, rate: 5/s, traffic: [old]}
  - {name: b, for: 200ms, rate: 5/s, traffic: [newcomers]}
traffic:
  - {name: old, arrivals: {bursts: 200ms}}
  - {name: newcomers, arrivals: {bursts: 200ms}, key: theirs}
",
        "open",
    )?;
    let target = RunTarget {
        targets: vec![target],
        provider: None,
        fleet: None,
        key: Some("common".into()),
    };
    run::run(scenario, 1, target).await?;
    let seen = server.await??;
    for (text, key, user) in [
        (&seen[0], "Bearer common", "old-1"),
        (&seen[1], "Bearer theirs", "newcomers-1"),
    ] {
        ensure!(text.contains(key), "{text}");
        ensure!(text.contains(&format!("\"user\":\"{user}\"")), "{text}");
    }
    Ok(())
}
