//! An open-loop run: requests leave at their time, whatever became of those before them.

use std::{
    io,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use thiserror::Error;
use tokio::{
    sync::Notify,
    task::JoinSet,
    time::{Instant, sleep_until},
};

use crate::{
    client::{self, Clients},
    fleet::Fleet,
    log::{Happened, Log, Record},
    plan::Plan,
    progress::Progress,
    provider::{FaultRule, Report},
    scenario::{Action, Scenario, ScenarioError},
};

/// Between the provider's reset and the first request: all processes are ready by then.
const PRELUDE: Duration = Duration::from_millis(100);

/// Where a run's requests go.
#[derive(Debug)]
pub struct RunTarget {
    /// Instances, or one balancer: URLs without a path.
    pub targets: Vec<String>,
    /// The provider simulator behind them, if it can be asked.
    pub provider: Option<String>,
    /// The instances, if the run has started them.
    pub fleet: Option<Fleet>,
    /// What clients send as `Authorization: Bearer`, where their traffic has none of its own.
    pub key: Option<String>,
}

/// Why a run ended early.
#[derive(Debug, Error)]
pub enum RunError {
    /// The scenario cannot be run here.
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    /// The provider does not answer.
    #[error("the provider's {path}: {error}")]
    Provider {
        /// What was asked for.
        path: &'static str,
        /// Why there was no answer.
        error: reqwest::Error,
    },
    /// An event names an instance that the run has not started.
    #[error("there is no instance {0} of the run's own: it needs --instances")]
    NoInstance(usize),
    /// A process could not be started or signalled.
    #[error(transparent)]
    Process(#[from] io::Error),
    /// No HTTP client can be made.
    #[error("cannot make an HTTP client: {0}")]
    Http(reqwest::Error),
    /// A fault of this program.
    #[error("a client's task ended early: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// The provider's admin side.
#[derive(Debug, Clone)]
struct Referee {
    http: reqwest::Client,
    url: String,
}

/// Runs a scenario and returns what is left of it.
///
/// # Errors
/// It cannot be run at all. What becomes of single requests is in the log.
pub async fn run(scenario: Scenario, seed: u64, target: RunTarget) -> Result<Log, RunError> {
    open_many_files();
    let scenario = Arc::new(scenario);
    let http = client::http().map_err(RunError::Http)?;
    let RunTarget {
        targets,
        provider,
        mut fleet,
        key,
    } = target;
    let referee = provider.map(|url| Referee {
        http: http.clone(),
        url,
    });
    let limit = match &referee {
        Some(referee) => referee.report().await?.requests_per_second(),
        None => {
            let window = scenario.provider.window.0.as_secs_f64();
            scenario.provider.rpm.map(|rpm| rpm as f64 / window)
        }
    };
    let plan = Plan::new(&scenario, limit, seed)?;
    let instances = fleet.as_ref().map_or(0, Fleet::len);
    let beyond = |instance: &usize| *instance > instances;
    let named = scenario
        .events
        .iter()
        .filter_map(|event| event.action.instance());
    if let Some(instance) = named.filter(beyond).max() {
        return Err(RunError::NoInstance(instance));
    }

    let reset = match &referee {
        Some(referee) => Some(referee.reset().await?),
        None => None,
    };
    let started = SystemTime::now().duration_since(UNIX_EPOCH);
    let started = started.unwrap_or_default().as_secs();
    let start = Instant::now() + PRELUDE;
    let clients = Arc::new(Clients {
        leave: scenario.traffic.iter().map(|_| Notify::new()).collect(),
        scenario: scenario.clone(),
        http,
        targets: targets.clone(),
        key,
        run: format!("{started:x}-{seed:x}"),
        start,
        end: start + scenario.length() + scenario.drain.0,
    });
    let progress = Progress::begin(&scenario, start);
    let (records, events) = tokio::try_join!(
        send(&clients, plan, &progress),
        happen(&clients, referee.as_ref(), fleet.as_mut()),
    )?;
    progress.end();

    let provider = match (&referee, reset) {
        (Some(referee), Some(reset)) => {
            let mut report = referee.report().await?;
            report.shift(start.saturating_duration_since(reset));
            Some(report)
        }
        _ => None,
    };
    // Their connections would keep instances from ending.
    drop(clients);
    if let Some(fleet) = fleet {
        fleet.end().await;
    }
    Ok(Log {
        scenario: (*scenario).clone(),
        seed,
        started,
        targets,
        events,
        records,
        provider,
    })
}

/// Sends the plan's requests, each at its time, and waits for their ends.
async fn send(
    clients: &Arc<Clients>,
    plan: Plan,
    progress: &Progress,
) -> Result<Vec<Record>, RunError> {
    let mut tasks = JoinSet::new();
    for (index, planned) in plan.requests.into_iter().enumerate() {
        sleep_until(clients.start + planned.at).await;
        let (clients, counted) = (clients.clone(), progress.sent(planned.traffic));
        tasks.spawn(async move {
            let record = clients.send(index, &planned).await;
            counted.over(&record);
            (index, record)
        });
    }
    let mut records = Vec::with_capacity(tasks.len());
    while let Some(record) = tasks.join_next().await {
        records.push(record?);
    }
    records.sort_by_key(|(index, _)| *index);
    Ok(records.into_iter().map(|(_, record)| record).collect())
}

/// Makes the scenario's events happen, in order, each at its time.
async fn happen(
    clients: &Clients,
    referee: Option<&Referee>,
    mut fleet: Option<&mut Fleet>,
) -> Result<Vec<Happened>, RunError> {
    let mut events = clients.scenario.events.clone();
    events.sort_by_key(|event| event.at);
    let mut happened = Vec::new();
    for event in events {
        sleep_until(clients.start + event.at.0).await;
        let from = clients.micros(Instant::now());
        let mut killed = None;
        match &event.action {
            Action::Leave(name) => {
                let traffics = clients.scenario.traffic.iter();
                for (traffic, leave) in traffics.zip(&clients.leave) {
                    if traffic.name == *name {
                        leave.notify_waiters();
                    }
                }
            }
            Action::Faults(rules) => match referee {
                Some(referee) => referee.set_faults(rules).await?,
                None => {
                    let message = "faults need a --provider";
                    return Err(ScenarioError::Senseless(message.into()).into());
                }
            },
            action => {
                let number = action.instance().unwrap_or(0);
                let fleet = fleet.as_mut().ok_or(RunError::NoInstance(number))?;
                fleet.act(action).await?;
                // The targets of a run that has a fleet are its instances.
                killed = matches!(action, Action::Kill(_)).then(|| number - 1);
            }
        }
        happened.push(Happened {
            from,
            at: clients.micros(Instant::now()),
            what: event.action.to_string(),
            killed,
        });
    }
    Ok(happened)
}

/// As many as this process may: each waiting request is a connection.
fn open_many_files() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current < maximum || maximum.is_none() {
        let current = maximum.or(Some(1 << 20));
        // Where it is refused the run has fewer, and says which requests found no connection.
        let _ = setrlimit(Resource::Nofile, Rlimit { current, maximum });
    }
}

// === impl Referee ===

impl Referee {
    /// Forgets what came before; returns the moment that its clock starts at.
    async fn reset(&self) -> Result<Instant, RunError> {
        // The first call also makes the connection: the second one's round trip is the shorter one.
        self.post("/reset", &()).await?;
        let before = Instant::now();
        self.post("/reset", &()).await?;
        Ok(before + before.elapsed() / 2)
    }

    async fn set_faults(&self, rules: &Vec<FaultRule>) -> Result<(), RunError> {
        self.post("/faults", rules).await
    }

    async fn post(&self, path: &'static str, body: &impl serde::Serialize) -> Result<(), RunError> {
        let request = self.http.post(format!("{}{path}", self.url)).json(body);
        let answer = request.send().await;
        let answer = answer.and_then(reqwest::Response::error_for_status);
        answer
            .map(drop)
            .map_err(|error| RunError::Provider { path, error })
    }

    async fn report(&self) -> Result<Report, RunError> {
        let fetch = async {
            let answer = self.http.get(format!("{}/report", self.url)).send().await?;
            answer.error_for_status()?.json().await
        };
        fetch.await.map_err(|error| RunError::Provider {
            path: "/report",
            error,
        })
    }
}
