//! Clients that leave all at once, and clients that read slowly.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, sleep},
};
use vorrang_tests::{Act, Chat, Gateway, Redis, Upstream, config, until, until_within};

use crate::pace::PACE;

/// Two instances with this limit, on a Redis.
async fn pair(limit: &str) -> Result<(Redis, Upstream, [Gateway; 2])> {
    let (redis, upstream) = (Redis::start().await?, Upstream::start().await?);
    let url = format!("redis_url: {}", redis.url());
    // No instance dies here, and a busy process must not be taken for dead.
    let config = config(&upstream.url(), &[limit], &[], &[&url, "lease_seconds: 12"]);
    let pair = [
        Gateway::start(&config).await?,
        Gateway::start(&config).await?,
    ];
    Ok((redis, upstream, pair))
}

/// Sends a chat on a connection of its own, and reads nothing.
async fn ask(gateway: &Gateway, chat: &Chat) -> Result<TcpStream> {
    let address = gateway
        .url()
        .strip_prefix("http://")
        .context("no address")?;
    let mut stream = TcpStream::connect(address).await?;
    let body = chat.body.to_string();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    Ok(stream)
}

async fn depth(gateway: &Gateway, depth: f64) -> Result<()> {
    let look = || gateway.metric("vorrang_queue_depth", "");
    until_within(PACE.patience(), "the queue's depth", look, |seen| {
        *seen == depth
    })
    .await?;
    Ok(())
}

/// A7: 2,000 waiting clients disconnect at once. Their tickets leave the queue within a second, nothing of them is
/// left, and the next request goes at once. The memory of a waiting request is measured.
#[tokio::test]
async fn two_thousand_disconnects_leave_no_tickets() -> Result<()> {
    const CROWD: u32 = 2000;
    /// Measured: 44 KB without optimisations.
    const MOST: u64 = 96 * 1024;
    let (_redis, upstream, [crowded, other]) = pair("max_parallel_requests: 1").await?;
    upstream.plan(&[Act::hold()], Act::default()).await?;
    let running = other.client().send(Chat::new("running"));
    upstream.seen(1).await?;
    let (memory, files) = (crowded.memory()?, crowded.descriptors()?);
    let patient = other.client().send(Chat::new("patient").priority(1000));
    depth(&other, 1.0).await?;
    let mut each = Vec::new();
    for _ in 0..2 {
        let mut crowd = Vec::new();
        for number in 0..CROWD {
            let priority = i32::try_from(number % 7)?;
            crowd.push(ask(&crowded, &Chat::new("crowd").priority(priority)).await?);
        }
        crowded.waiting(CROWD).await?;
        depth(&other, f64::from(CROWD) + 1.0).await?;
        each.push(crowded.memory()?.saturating_sub(memory) / u64::from(CROWD));

        let start = Instant::now();
        drop(crowd);
        depth(&other, 1.0).await?;
        let took = start.elapsed();
        println!("{CROWD} tickets were gone after {took:?}");
        ensure!(took < Duration::from_secs(1), "{took:?}");
        crowded.waiting(0).await?;
    }
    println!("memory per waiting request, of two crowds: {each:?} bytes");
    // The second crowd reuses the memory of the first: it does not grow.
    let grown = each[1].saturating_sub(each[0]);
    ensure!(
        each[0] < MOST && grown < MOST / 8,
        "{each:?} bytes per waiting request"
    );
    upstream.release().await?;
    running.await??.ok()?;
    patient.await??.ok()?;
    upstream.seen(2).await?;
    let open = || async { crowded.descriptors() };
    until("closed connections", open, |open| *open <= files + 8).await?;
    for gateway in [&crowded, &other] {
        let look = || gateway.metric("vorrang_in_flight", "");
        until("no permits", look, |seen| *seen == 0.0).await?;
    }
    Ok(())
}

/// A2: clients that do not read their streams hold their permits, and back-pressure reaches their upstreams: the
/// gateway's memory does not grow with the unread part.
#[tokio::test]
async fn slow_readers_hold_permits_in_bounded_memory() -> Result<()> {
    const READERS: usize = 6;
    /// 64 KiB each; more than the kernel's buffers hold on the way.
    const CHUNKS: u32 = 600;
    /// Measured: 23 MB without optimisations, of 225 MB that no client reads.
    const MOST: u64 = 48 * 1024 * 1024;
    let limit = format!("max_parallel_requests: {READERS}");
    let (_redis, upstream, [gateway, other]) = pair(&limit).await?;
    let long = Act {
        padding: CHUNKS,
        ..Act::default()
    };
    upstream.plan(&vec![long; READERS], Act::default()).await?;
    let before = gateway.memory()?;
    let mut readers = Vec::new();
    for index in 0..READERS {
        let chat = Chat::new(&format!("reader-{index}")).with("stream", true);
        readers.push(ask(&gateway, &chat).await?);
    }
    upstream.seen(READERS).await?;
    let waiting = other.client().send(Chat::new("waiting"));
    other.waiting(1).await?;
    let mut most = 0;
    let watched = Instant::now();
    while watched.elapsed() < PACE.window {
        most = most.max(gateway.memory()?);
        sleep(Duration::from_millis(20)).await;
    }
    let grown = most.saturating_sub(before);
    println!(
        "{READERS} streams of {} MiB that nobody reads: {grown} bytes",
        CHUNKS / 16
    );
    ensure!(grown < MOST, "{grown} bytes for {READERS} readers");
    ensure!(gateway.metric("vorrang_in_flight", "").await? == READERS as f64);
    other.waiting(1).await?;

    // One client reads to the end; then another call may go.
    let mut reader = readers.pop().context("no reader")?;
    let (mut size, mut buffer) = (0, vec![0; 1 << 16]);
    let mut tail = Vec::new();
    while !tail.ends_with(b"0\r\n\r\n") {
        let read = reader.read(&mut buffer).await?;
        ensure!(read > 0, "the stream ended after {size} bytes");
        size += read;
        tail.extend_from_slice(&buffer[..read]);
        tail.drain(..tail.len().saturating_sub(64));
    }
    ensure!(size > CHUNKS as usize * 64 * 1024, "{size} bytes");
    waiting.await??.ok()?;
    drop(readers);
    let look = || gateway.metric("vorrang_in_flight", "");
    until("no permits", look, |seen| *seen == 0.0).await?;
    Ok(())
}
