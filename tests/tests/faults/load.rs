//! A steady load, and the judge of its outcome.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, timeout_at},
};
use vorrang_tests::{
    Chat, Client, Reply, Seen,
    referee::{Limit, Passage, fullest_window, inversions, longest_gap, most_at_once},
    upstream::Fate,
};

use crate::{
    pace::{CALLS, PACE},
    streams::{self, End, streamed},
};

/// From the best to the worst. Each client takes one after the other, so that all of them wait at any time.
const PRIORITIES: [i32; 6] = [-10, 0, 0, 3, 500, 1000];

/// How long each chunk of a streamed answer takes, milliseconds.
const PIECE_MS: u64 = 20;

/// What clients expect of an instance.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    /// It answers every request.
    Up(Client),
    /// It is being terminated: a request that it refuses succeeds by one retry on another instance.
    Leaving(Client),
    /// It is killed, or about to be: its requests are lost with it, and no new one goes there.
    Down,
}

/// All instances' targets; clients look before each request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Targets {
    targets: Arc<Mutex<Vec<Target>>>,
    /// Addresses of ended instances: their requests may learn of it only now.
    left: Arc<Mutex<HashSet<String>>>,
}

/// The outcome of a request.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// An answer, whatever its status.
    Answered(Reply),
    /// No answer: its instance was killed.
    Died,
}

/// One request.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) user: String,
    pub(crate) outcome: Outcome,
    /// Its first instance was terminated; another one was called.
    moved: bool,
    /// It was streamed, with so many pieces beside its words.
    pieces: Option<usize>,
}

/// Clients that always have one request under way each, until they are stopped.
#[derive(Debug)]
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    counts: Arc<Counts>,
    clients: Vec<JoinHandle<Result<Vec<Record>>>>,
}

#[derive(Debug, Default)]
struct Counts {
    answered: AtomicUsize,
    /// Requests that are under way for the second time.
    moved: AtomicUsize,
}

/// What the judge asks for, beside order.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// Calls upstream that one request may lead to.
    pub(crate) attempts: usize,
    /// Calls in a window.
    pub(crate) limit: usize,
    /// Whether `max_parallel_requests` holds: not while an unresponsive instance has open calls (docs/protocol.md, limits).
    pub(crate) calls: bool,
    /// Whether the instances share one queue: else each has an order of its own, and there is none over all of them.
    pub(crate) order: bool,
    /// Statuses that are answers, beside 200.
    pub(crate) statuses: &'static [u16],
    /// Whether the instances' logs show when calls were dispatched to this upstream; else windows are judged by arrivals alone.
    pub(crate) dispatches: bool,
    /// Attempts may fail before the upstream sees them.
    pub(crate) unseen: bool,
    /// The longest time without a call.
    pub(crate) standstill: Duration,
    /// Calls of users that begin so are the test's own: they count in windows, the test judges their outcome.
    pub(crate) beside: Option<&'static str>,
}

/// What the judge saw.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Summary {
    pub(crate) answered: usize,
    pub(crate) died: usize,
    pub(crate) calls: usize,
    pub(crate) longest_gap: Duration,
}

// === impl Targets ===

impl Targets {
    fn locked(&self) -> MutexGuard<'_, Vec<Target>> {
        self.targets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn push(&self, client: &Client) {
        self.locked().push(Target::Up(client.clone()));
    }

    fn left(&self) -> MutexGuard<'_, HashSet<String>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set(&self, index: usize, target: Target) {
        if let Target::Leaving(client) = &target {
            self.left().insert(client.url().into());
        }
        self.locked()[index] = target;
    }

    fn get(&self, index: usize) -> Target {
        self.locked()[index].clone()
    }

    pub(crate) fn is_down(&self, index: usize) -> bool {
        matches!(self.get(index), Target::Down)
    }

    /// The target at `index`, or the next one that takes requests.
    fn next(&self, index: usize) -> Option<(usize, Client)> {
        let targets = self.locked();
        let turn = (0..targets.len()).map(|step| (index + step) % targets.len());
        let mut open = turn.filter_map(|index| match &targets[index] {
            Target::Up(client) | Target::Leaving(client) => Some((index, client.clone())),
            Target::Down => None,
        });
        open.next()
    }

    /// One that is up, beside this one.
    fn other(&self, than: usize) -> Option<Client> {
        let targets = self.locked();
        let mut others = targets
            .iter()
            .enumerate()
            .filter(|(index, _)| *index != than);
        others.find_map(|(_, target)| match target {
            Target::Up(client) => Some(client.clone()),
            Target::Leaving(_) | Target::Down => None,
        })
    }
}

// === impl Load ===

impl Load {
    /// `clients` clients, in turn over the targets.
    pub(crate) fn start(name: &str, targets: &Targets, clients: usize) -> Self {
        Self::new("model", name, targets, clients, None)
    }

    /// Every third request is streamed, with so many pieces beside its words.
    pub(crate) fn streaming(name: &str, targets: &Targets, clients: usize, pieces: usize) -> Self {
        Self::new("model", name, targets, clients, Some(pieces))
    }

    /// The same, of another group.
    pub(crate) fn of(group: &str, name: &str, targets: &Targets, clients: usize) -> Self {
        Self::new(group, name, targets, clients, None)
    }

    fn new(
        group: &str,
        name: &str,
        targets: &Targets,
        clients: usize,
        pieces: Option<usize>,
    ) -> Self {
        let (stop, counts) = (Arc::default(), Arc::<Counts>::default());
        let client = |number: usize| {
            let (stop, counts) = (Arc::clone(&stop), Arc::clone(&counts));
            let (name, targets) = (format!("{name}-{number}"), targets.clone());
            let group = group.to_owned();
            tokio::spawn(async move {
                ask(&group, &name, number, &targets, pieces, &stop, &counts).await
            })
        };
        let clients = (0..clients).map(client).collect();
        Self {
            stop,
            counts,
            clients,
        }
    }

    /// How many answers have come.
    pub(crate) fn answered(&self) -> usize {
        self.counts.answered.load(Ordering::Relaxed)
    }

    /// Waits until `count` more requests are answered: the fleet gets on.
    pub(crate) async fn progress(&self, count: usize) -> Result<()> {
        let goal = self.answered() + count;
        let look = || async {
            if let Some(client) = self.clients.iter().position(JoinHandle::is_finished) {
                anyhow::bail!("client {client} gave up: its error comes with the end of the load");
            }
            Ok(self.answered())
        };
        let what = format!("{goal} answers");
        vorrang_tests::until_within(PACE.patience(), &what, look, |seen| *seen >= goal).await?;
        Ok(())
    }

    /// Waits until no request is in its second attempt: the next instance to terminate holds none that was refused before.
    pub(crate) async fn settled(&self) -> Result<()> {
        let moved = || async { Ok(self.counts.moved.load(Ordering::Relaxed)) };
        let what = "moved requests to be answered";
        vorrang_tests::until_within(PACE.patience(), what, moved, |moved| *moved == 0).await?;
        Ok(())
    }

    /// No new requests.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// No new requests; waits for the answers to all that are under way.
    pub(crate) async fn end(self) -> Result<Vec<Record>> {
        self.stop();
        let until = Instant::now() + PACE.patience();
        let (mut records, mut stuck) = (Vec::new(), Vec::new());
        for (number, mut client) in self.clients.into_iter().enumerate() {
            match timeout_at(until, &mut client).await {
                Ok(ended) => records.extend(ended??),
                Err(_) => {
                    client.abort();
                    stuck.push(number);
                }
            }
        }
        ensure!(stuck.is_empty(), "no answer for the clients {stuck:?}");
        Ok(records)
    }
}

async fn ask(
    group: &str,
    name: &str,
    number: usize,
    targets: &Targets,
    pieces: Option<usize>,
    stop: &AtomicBool,
    counts: &Counts,
) -> Result<Vec<Record>> {
    let mut records = Vec::new();
    for turn in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let Some((index, client)) = targets.next(number) else {
            // All are down for a moment.
            sleep(Duration::from_millis(10)).await;
            continue;
        };
        let user = format!("{name}-{turn}");
        let priority = PRIORITIES[(number + turn) % PRIORITIES.len()];
        let chat = Chat::new(&user).with("model", group);
        let chat = chat.priority(priority).team(number % 4);
        let (chat, pieces) = match pieces.filter(|_| turn % 3 == 0) {
            Some(pieces) => (streamed(chat, pieces, PIECE_MS), Some(pieces)),
            None => (chat, None),
        };
        let mut moved = false;
        let outcome = match client.chat(&chat).await {
            Ok(reply) if reply.status != 503 => Outcome::Answered(reply),
            _ if targets.left().contains(client.url()) => {
                moved = true;
                let other = targets.other(index).context("no other instance")?;
                counts.moved.fetch_add(1, Ordering::Relaxed);
                let reply = other.chat(&chat).await.context("the retry elsewhere");
                counts.moved.fetch_sub(1, Ordering::Relaxed);
                Outcome::Answered(reply?)
            }
            failed => match targets.get(index) {
                Target::Up(now) if now.url() == client.url() => {
                    Outcome::Answered(failed.with_context(|| user.clone())?)
                }
                _ => Outcome::Died,
            },
        };
        if matches!(outcome, Outcome::Answered(_)) {
            counts.answered.fetch_add(1, Ordering::Relaxed);
        }
        records.push(Record {
            user,
            outcome,
            moved,
            pieces,
        });
    }
    Ok(records)
}

// === impl Rules ===

impl Default for Rules {
    /// Each request is answered 200 by one call.
    fn default() -> Self {
        Self {
            attempts: 1,
            limit: PACE.limit,
            calls: true,
            order: true,
            statuses: &[],
            dispatches: true,
            unseen: false,
            standstill: PACE.standstill(),
            beside: None,
        }
    }
}

/// Judges a load by its records and what the upstream saw of it: A1, A3, `max_parallel_requests`, nothing lost, nothing doubled, no
/// standstill while tickets waited.
pub(crate) fn judge(
    records: &[Record],
    calls: &[Seen],
    dispatched: Option<&[u64]>,
    rules: Rules,
) -> Result<Summary> {
    let mut by_user: HashMap<String, Vec<&Seen>> = HashMap::new();
    for call in calls {
        by_user.entry(call.user()).or_default().push(call);
    }
    let mut passages: Vec<Passage> = Vec::new();
    let mut summary = Summary {
        calls: calls.len(),
        ..Summary::default()
    };
    for Record {
        user,
        outcome,
        moved,
        pieces,
    } in records
    {
        let calls = by_user.remove(user).unwrap_or_default();
        let count = calls.len();
        let Outcome::Answered(reply) = outcome else {
            summary.died += 1;
            ensure!(
                count <= rules.attempts,
                "{user} died and came {count} times"
            );
            continue;
        };
        summary.answered += 1;
        ensure!(
            reply.status == 200 || rules.statuses.contains(&reply.status),
            "{user} lost: {reply:?}"
        );
        let retries: usize = reply.header("x-litellm-attempted-retries").parse()?;
        let tried = retries + 1;
        // Calls of the terminated instance that failed before it refused the request: they come first, and its answer does not count them.
        let in_vain = |call: &&&Seen| call.status != 200 || call.fate == Fate::Broken;
        let most = match moved {
            true => calls.iter().take_while(in_vain).count(),
            false => 0,
        };
        let before = count.checked_sub(tried);
        ensure!(
            tried <= rules.attempts
                && (before.is_some_and(|before| before <= most && before < rules.attempts)
                    || rules.unseen && count < tried),
            "{user} came {count} times: {reply:?}"
        );
        if reply.status == 200 {
            let last = calls
                .last()
                .with_context(|| format!("{user} never came: {reply:?}"))?;
            let end = match pieces {
                Some(pieces) => streams::read(&reply.text, *pieces)
                    .with_context(|| format!("{user}: {reply:?}"))?,
                None => End::Complete,
            };
            let fine = match end {
                End::Complete => last.fate == Fate::Answered,
                End::Failed => last.reset,
                End::Cut => false,
            };
            ensure!(fine, "{user}: {end:?}, {calls:?}: {reply:?}");
        }
        let passage = reply
            .passage()
            .with_context(|| format!("{user}: {reply:?}"))?;
        // A8: a retry must keep its arrival. With a new one it would be last in the queue, and no inversion would show that.
        ensure!(
            retries == 0 || passage.arrival < passage.entered,
            "{user} lost its first place: {passage:?}"
        );
        passages.push(passage);
    }
    let own = |user: &str| rules.beside.is_some_and(|beside| user.starts_with(beside));
    let unknown: Vec<_> = by_user.keys().filter(|user| !own(user)).collect();
    ensure!(unknown.is_empty(), "nobody asked for {unknown:?}");

    let inverted = inversions(&passages);
    ensure!(
        !rules.order || inverted.is_empty(),
        "{} inversions: {inverted:?}",
        inverted.len()
    );

    let times: Vec<u64> = calls.iter().map(|call| call.at).collect();
    match dispatched {
        Some(dispatched) => windows(dispatched, &times, rules.limit)?,
        None => {
            // Arrivals alone: what deliveries may take on a busy machine is taken off.
            let fullest = fullest_window(&times, PACE.window - PACE.window / 5);
            ensure!(fullest <= rules.limit, "{fullest} in a window: {times:?}");
        }
    }
    if rules.calls {
        let last = times.iter().max().copied().unwrap_or(0);
        let span = |call: &Seen| (call.at, call.ended.unwrap_or(last + 1));
        let most = most_at_once(&calls.iter().map(span).collect::<Vec<_>>());
        ensure!(most <= CALLS, "{most} calls at once");
    }
    summary.longest_gap = longest_gap(&times);
    ensure!(
        summary.longest_gap < rules.standstill,
        "stood still for {:?}",
        summary.longest_gap
    );
    println!("{summary:?}");
    Ok(summary)
}

/// A3, by when calls were dispatched; where each of them arrived, by that as well.
pub(crate) fn windows(dispatched: &[u64], arrived: &[u64], calls: usize) -> Result<()> {
    if dispatched.len() == arrived.len() {
        let limit = Limit {
            calls,
            window: PACE.window,
            guard: PACE.guard,
        };
        limit.judge(dispatched, arrived)?;
        return Ok(());
    }
    // A dispatch that an instance logged just before it was killed may not have been sent.
    ensure!(
        dispatched.len() > arrived.len(),
        "{} dispatched, {} arrived",
        dispatched.len(),
        arrived.len()
    );
    let fullest = fullest_window(dispatched, PACE.window);
    ensure!(
        fullest <= calls,
        "{fullest} dispatched in a window: {dispatched:?}"
    );
    Ok(())
}
