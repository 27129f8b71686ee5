//! `vorrang top`: the fleet's queues in a terminal.

mod model;
mod once;
mod state;
mod view;
mod words;

use std::{
    io::{IsTerminal as _, stdout},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc::{UnboundedSender, unbounded_channel},
    time::{MissedTickBehavior, interval},
};

use self::{
    model::{Overview, Tickets},
    state::{Action, Effect, State},
    view::Look,
};
use crate::remote::{Remote, RemoteError, RemoteOptions};

/// How often the fleet is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What to show, and of which fleet.
#[derive(Debug, Args)]
pub struct Options {
    /// Which instance to ask.
    #[command(flatten)]
    pub remote: RemoteOptions,
    /// Print a plain table and end
    #[arg(long)]
    pub once: bool,
    /// With --once: print the admin API's JSON instead
    #[arg(long, requires = "once")]
    pub json: bool,
}

/// What the display hears of.
enum Message {
    Terminal(std::io::Result<Event>),
    Overview(Result<Value, RemoteError>),
    /// For which path, and what came.
    Tickets(String, Result<Value, RemoteError>),
    Acted(Result<String, RemoteError>),
}

/// Shows the fleet until the user quits or a signal comes.
///
/// # Errors
/// The instance does not answer at the start, or there is no terminal.
pub async fn run(options: &Options) -> Result<()> {
    let remote = Arc::new(Remote::new(&options.remote)?);
    let first = remote.get("/admin/overview").await?;
    if options.once {
        let text = match options.json {
            true => format!("{first:#}\n"),
            false => once::table(&read(first)?),
        };
        // A closed stdout is how `head` ends what it reads.
        drop(std::io::Write::write_all(
            &mut stdout().lock(),
            text.as_bytes(),
        ));
        return Ok(());
    }
    ensure!(
        stdout().is_terminal(),
        "stdout is no terminal; for scripts there is --once, with or without --json"
    );
    let mut state = State::default();
    state.take_overview(read(first)?);
    live(&remote, state).await
}

/// Gives the terminal back as it was, however the display ends.
struct Restore;

impl Drop for Restore {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

async fn live(remote: &Arc<Remote>, mut state: State) -> Result<()> {
    let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let listen = |kind| signal(kind).context("cannot listen for signals");
    let (mut terminate, mut interrupt, mut hangup) = (
        listen(SignalKind::terminate())?,
        listen(SignalKind::interrupt())?,
        listen(SignalKind::hangup())?,
    );
    // It also restores it after a panic.
    let mut terminal = ratatui::try_init().context("cannot use the terminal")?;
    let _restore = Restore;
    let (sender, mut messages) = unbounded_channel();
    let keys = sender.clone();
    // It blocks until a key comes, and ends with the process.
    std::thread::spawn(move || {
        loop {
            let event = event::read();
            let ends = event.is_err();
            if keys.send(Message::Terminal(event)).is_err() || ends {
                return;
            }
        }
    });
    let mut times = interval(LOOK_EVERY);
    times.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looks = Looks {
        remote: remote.clone(),
        sender,
        fleet: false,
        tickets: None,
    };
    loop {
        terminal.draw(|frame| view::draw(frame, &state, remote.url(), Look { colour }))?;
        let message = tokio::select! {
            message = messages.recv() => message,
            _ = times.tick() => { looks.look(&state); continue; }
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = hangup.recv() => return Ok(()),
        };
        match message.context("the display's own channel")? {
            Message::Terminal(Err(error)) => bail!("the terminal is gone: {error}"),
            Message::Terminal(Ok(Event::Key(key))) if key.kind != KeyEventKind::Release => {
                match state.key(key) {
                    Effect::None => {}
                    Effect::Quit => return Ok(()),
                    Effect::Look => looks.tickets(&state),
                    Effect::Act(action) => looks.act(action),
                }
            }
            // The next drawing has the new size.
            Message::Terminal(Ok(_)) => {}
            Message::Overview(answer) => {
                looks.fleet = false;
                match answer
                    .map_err(anyhow::Error::from)
                    .and_then(read::<Overview>)
                {
                    Ok(overview) => state.take_overview(overview),
                    Err(error) => state.lost = Some(error.to_string()),
                }
            }
            Message::Tickets(path, answer) => {
                if looks.tickets.as_ref() == Some(&path) {
                    looks.tickets = None;
                }
                if let Ok(tickets) = answer
                    .map_err(anyhow::Error::from)
                    .and_then(read::<Tickets>)
                {
                    state.take_tickets(&path, tickets);
                }
            }
            Message::Acted(answer) => {
                state.said = answer.unwrap_or_else(|error| said(&error));
                looks.look(&state);
            }
        }
    }
}

/// An action that failed, in words.
fn said(error: &RemoteError) -> String {
    match error {
        RemoteError::Refused {
            status: 409,
            message,
        } => format!("Too late, it has left the queue: {message}"),
        RemoteError::Refused {
            status: 404,
            message,
        } => format!("It is not there any more: {message}"),
        error => error.to_string(),
    }
}

/// What is asked for, one question of each kind at a time.
struct Looks {
    remote: Arc<Remote>,
    sender: UnboundedSender<Message>,
    fleet: bool,
    /// The path that is asked for.
    tickets: Option<String>,
}

impl Looks {
    fn look(&mut self, state: &State) {
        if !std::mem::replace(&mut self.fleet, true) {
            let (remote, sender) = (self.remote.clone(), self.sender.clone());
            tokio::spawn(async move {
                let answer = remote.get("/admin/overview").await;
                sender.send(Message::Overview(answer))
            });
        }
        self.tickets(state);
    }

    fn tickets(&mut self, state: &State) {
        let Some(path) = state
            .tickets_path()
            .filter(|path| self.tickets.as_ref() != Some(path))
        else {
            return;
        };
        self.tickets = Some(path.clone());
        let (remote, sender) = (self.remote.clone(), self.sender.clone());
        tokio::spawn(async move {
            let answer = remote.get(&path).await;
            sender.send(Message::Tickets(path, answer))
        });
    }

    fn act(&self, action: Action) {
        let (remote, sender) = (self.remote.clone(), self.sender.clone());
        tokio::spawn(async move {
            let answer = remote.post(&action.path, &action.body).await;
            sender.send(Message::Acted(answer.map(|_| action.done)))
        });
    }
}

fn read<T: DeserializeOwned>(value: Value) -> Result<T> {
    serde_json::from_value(model::without_nulls(value))
        .context("this instance's admin API is another than this program knows")
}
