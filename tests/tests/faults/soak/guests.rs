//! Clients beside the load: they leave, read long streams, or are too many.

use std::{
    collections::HashMap,
    mem,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, bail, ensure};
use reqwest::RequestBuilder;
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, timeout_at},
};
use vorrang_tests::{Chat, Client, Gateway, Seen, upstream::Fate};

use crate::{
    pace::{PACE, SLACK},
    streams::{self, End, streamed},
};

/// Their users begin so.
pub(super) const PREFIX: &str = "guest-";
/// Calls upstream that one request may lead to.
pub(super) const ATTEMPTS: usize = 3;
/// Answers of requests in a soak, beside 200.
pub(super) const STATUSES: &[u16] = &[408, 429, 500, 502, 503];

/// Clients in a crowd that leaves.
const LEAVERS: usize = 100;
/// Streams that are opened at once: fewer than calls may be open.
const READERS: usize = 3;
/// Requests of an overload: more than an instance has descriptors for, and than may wait.
const CROWD: usize = 300;
/// Worse than those of the load: these are refused, and not the load's.
const WORST: i32 = 2000;
/// Better than most of the load: they begin before long.
const SOON: i32 = -10;
/// How long each piece of a long stream takes, milliseconds.
const PIECE_MS: u64 = 50;
/// Pieces of a long stream: it lasts longer than `grace_seconds`, and than any fault.
const LONG: usize = 80;
/// Pieces of a stream whose reader leaves: it would last far longer than [`gone_within`].
const ENDLESS: usize = 400;

/// How long after its client left a call may still be open: its instance may be stopped meanwhile.
fn gone_within() -> Duration {
    3 * PACE.lease + SLACK
}

#[derive(Default)]
pub(super) struct Guests {
    readers: Vec<Reader>,
    ended: Ended,
}

struct Reader {
    user: String,
    /// The process that it read from.
    instance: u32,
    read: JoinHandle<Result<Text>>,
}

/// What a reader got.
#[derive(Debug)]
struct Text {
    status: u16,
    text: String,
    /// The answer ended as answers do, for all that HTTP says.
    whole: bool,
}

/// All guests, when the last of them has gone.
#[derive(Default)]
pub(super) struct Ended {
    /// By the beginning of their names: when they left, microseconds since 1970.
    left: HashMap<String, u64>,
    read: Vec<Read>,
    refused: usize,
    served: usize,
}

struct Read {
    user: String,
    /// Its instance has ended since.
    bereft: bool,
    text: Result<Text>,
}

/// What became of them.
#[derive(Debug, Default)]
#[expect(dead_code, reason = "it is printed")]
pub(super) struct Summary {
    /// Calls of clients that left, by whether they were over before.
    answered: usize,
    cancelled: usize,
    /// Long streams.
    complete: usize,
    failed: usize,
    cut: usize,
    not_begun: usize,
    /// Of overloads.
    refused: usize,
    served: usize,
}

fn now() -> Result<u64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    Ok(u64::try_from(now.as_micros())?)
}

impl Guests {
    /// A crowd waits and is called, and leaves.
    pub(super) async fn leavers(
        &mut self,
        gateway: &Gateway,
        round: usize,
        pause: Duration,
    ) -> Result<()> {
        // Of their own: their connections go with them.
        let client = Client::new(gateway.url())?;
        let name = format!("{PREFIX}{round}");
        let chat = |number: usize| {
            let priority = i32::try_from(number).unwrap_or(0) % 9 - 4;
            Chat::new(&format!("{name}-{number}")).priority(priority)
        };
        let leavers: Vec<_> = (0..LEAVERS)
            .map(|number| client.send(chat(number)))
            .collect();
        sleep(pause).await;
        leavers.iter().for_each(JoinHandle::abort);
        self.ended.left.insert(name, now()?);
        Ok(())
    }

    /// Some read the beginnings of their streams, and leave.
    pub(super) async fn leaving_readers(
        &mut self,
        gateway: &Gateway,
        round: usize,
        pause: Duration,
    ) -> Result<()> {
        let client = Client::new(gateway.url())?;
        let name = format!("{PREFIX}{round}");
        let mut readers = Vec::new();
        for number in 0..READERS {
            let chat = Chat::new(&format!("{name}-{number}")).priority(SOON);
            let body = streamed(chat, ENDLESS, PIECE_MS).body;
            let request = client.post("/v1/chat/completions").json(&body);
            readers.push(tokio::spawn(async move {
                let mut answer = request.send().await?;
                while answer.chunk().await?.is_some() {}
                anyhow::Ok(())
            }));
        }
        // One window, so that most of them are read.
        sleep(pause + PACE.window).await;
        readers.iter().for_each(JoinHandle::abort);
        self.ended.left.insert(name, now()?);
        Ok(())
    }

    /// Some read long streams, for as long as those last.
    pub(super) fn streams(&mut self, gateway: &Gateway, round: usize) -> Result<()> {
        let client = Client::new(gateway.url())?;
        for number in 0..READERS {
            let user = format!("{PREFIX}{round}-{number}");
            let chat = streamed(Chat::new(&user).priority(SOON), LONG, PIECE_MS);
            let request = client.post("/v1/chat/completions").json(&chat.body);
            self.readers.push(Reader {
                user,
                instance: gateway.id(),
                read: tokio::spawn(Text::of(request)),
            });
        }
        Ok(())
    }

    /// Far too many requests at once, the worst of all. Some of them are refused; the others leave after a while.
    pub(super) async fn overload(
        &mut self,
        gateways: &[Gateway],
        round: usize,
        pause: Duration,
    ) -> Result<()> {
        let clients: Result<Vec<Client>> = gateways
            .iter()
            .map(|gateway| Client::new(gateway.url()))
            .collect();
        let clients = clients?;
        let name = format!("{PREFIX}{round}");
        let send = |number: usize| {
            let chat = Chat::new(&format!("{name}-{number}")).priority(WORST);
            clients[number % clients.len()].send(chat)
        };
        let crowd: Vec<_> = (0..CROWD).map(send).collect();
        sleep(pause + PACE.window).await;
        let left = now()?;
        let mut refused = 0;
        for request in crowd {
            if !request.is_finished() {
                request.abort();
                continue;
            }
            let reply = request.await??;
            if reply.status == 200 {
                self.ended.served += 1;
                continue;
            }
            ensure!(STATUSES.contains(&reply.status), "{reply:?}");
            reply.error()?;
            if reply.status == 429 {
                let after: u64 = reply.header("retry-after").parse()?;
                ensure!(after > 0, "{reply:?}");
                refused += 1;
            }
        }
        ensure!(refused > 0, "none of {CROWD} was refused");
        self.ended.refused += refused;
        self.ended.left.insert(name, left);
        Ok(())
    }

    /// Waits for those that read. `alive`: the instances that still run.
    pub(super) async fn end(&mut self, alive: &[u32]) -> Result<Ended> {
        let until = Instant::now() + PACE.patience();
        for mut reader in self.readers.drain(..) {
            let text = timeout_at(until, &mut reader.read).await;
            let text = text.with_context(|| format!("{} reads for ever", reader.user))??;
            self.ended.read.push(Read {
                user: reader.user,
                bereft: !alive.contains(&reader.instance),
                text,
            });
        }
        Ok(mem::take(&mut self.ended))
    }
}

impl Text {
    /// All that comes, also of an answer that breaks off.
    async fn of(request: RequestBuilder) -> Result<Self> {
        let mut answer = request.send().await?;
        let status = answer.status().as_u16();
        let mut bytes = Vec::new();
        let whole = loop {
            match answer.chunk().await {
                Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
                Ok(None) => break true,
                Err(_) => break false,
            }
        };
        Ok(Self {
            status,
            text: String::from_utf8(bytes)?,
            whole,
        })
    }
}

impl Ended {
    /// No call of a client that left began after it or went on for long; no event of a long stream was lost or doubled; and no request
    /// came more often than it was tried.
    pub(super) fn judge(&self, calls: &[Seen]) -> Result<Summary> {
        let mut summary = Summary {
            refused: self.refused,
            served: self.served,
            ..Summary::default()
        };
        let mut by_user: HashMap<String, Vec<&Seen>> = HashMap::new();
        for call in calls {
            let user = call.user();
            if user.starts_with(PREFIX) {
                by_user.entry(user).or_default().push(call);
            }
        }
        for (user, calls) in &by_user {
            let good = calls
                .iter()
                .filter(|call| call.fate == Fate::Answered && call.status == 200);
            let good = good.count();
            ensure!(calls.len() <= ATTEMPTS && good <= 1, "{user}: {calls:?}");
            let left = user
                .rsplit_once('-')
                .and_then(|(name, _)| self.left.get(name));
            let Some(left) = left else { continue };
            let last = left + u64::try_from(gone_within().as_micros())?;
            for call in calls {
                let ended = call
                    .ended
                    .with_context(|| format!("{user} is open: {call:?}"))?;
                ensure!(ended <= last, "{user} left at {left}: {call:?}");
            }
            summary.answered += good;
            summary.cancelled += usize::from(good == 0);
        }
        for read in &self.read {
            let calls = by_user.get(&read.user).map_or(&[][..], Vec::as_slice);
            let end = read
                .end(calls.last().copied())
                .with_context(|| format!("{}: {:?}, {calls:?}", read.user, read.text))?;
            match end {
                None => summary.not_begun += 1,
                Some(End::Complete) => summary.complete += 1,
                Some(End::Failed) => summary.failed += 1,
                Some(End::Cut) => summary.cut += 1,
            }
        }
        Ok(summary)
    }
}

impl Read {
    /// How it ended; `None`: it did not begin. Only what the upstream breaks off ends with an error, and only what an ended instance
    /// held is cut, which its reader sees: an instance that is terminated cuts what lasts longer than its grace time.
    fn end(&self, call: Option<&Seen>) -> Result<Option<End>> {
        let text = match &self.text {
            Ok(text) => text,
            Err(_) if self.bereft => return Ok(None),
            Err(error) => bail!("no answer: {error:#}"),
        };
        if text.status != 200 {
            ensure!(STATUSES.contains(&text.status));
            return Ok(None);
        }
        let call = call.context("it never came")?;
        let end = streams::read(&text.text, LONG)?;
        let fine = match end {
            End::Complete => call.fate == Fate::Answered,
            End::Failed => call.reset,
            End::Cut => self.bereft && !text.whole,
        };
        ensure!(fine, "{end:?}");
        Ok(Some(end))
    }
}
