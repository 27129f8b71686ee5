//! `vorrang queue`: the queue of a running fleet, for hands and scripts, by the admin API of any instance.

mod table;

use std::{
    fmt::Write as _,
    io::{Write as _, stdout},
    process::ExitCode,
};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::remote::{Remote, RemoteError, RemoteOptions, segment};

/// The most that one page of the API has.
const PAGE: u64 = 100;

/// The queue of a running fleet.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no such thing, 4 the ticket does not wait any more"
)]
pub struct Options {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    remote: RemoteOptions,
    /// Print what the instance answers, as JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List groups; with a group, its waiting tickets, the best first
    Ls(Ls),
    /// Give a waiting ticket another priority: lower is better, and its arrival stays
    Move {
        /// The model_name
        group: String,
        /// As `ls` shows it
        ticket: String,
        /// The new priority
        #[arg(allow_negative_numbers = true)]
        priority: i32,
    },
    /// End the wait of a ticket: its client gets 409 with the reason
    Cancel {
        /// The model_name
        group: String,
        /// As `ls` shows it
        ticket: String,
        /// Sent to the client
        #[arg(long)]
        reason: Option<String>,
    },
    /// Grant nothing more of a group, or of one key in it; all of it waits
    Pause(OfKey),
    /// Let a paused group, or a paused key in it, go on
    Resume(OfKey),
    /// Change a limit until further notice
    Limit {
        /// The model_name
        group: String,
        /// The deployment's id
        deployment: String,
        /// As the configuration calls it: rpm, max_parallel_requests, limits[0]
        limit: String,
        /// The new limit, or `configured` for that of the configuration
        #[arg(value_parser = limit)]
        value: Change,
    },
    /// Take an instance out of the rotation: its readiness is 503, and it serves what comes
    Drain {
        /// The instance's id, as `ls` shows it
        instance: String,
        /// Put it back
        #[arg(long)]
        undo: bool,
    },
}

/// What to list.
#[derive(Debug, Args)]
struct Ls {
    /// The model_name; without it all groups and instances are listed
    group: Option<String>,
    /// At most so many tickets; 0: all
    #[arg(long, default_value_t = 20)]
    limit: u64,
    /// Only tickets of this priority
    #[arg(long, allow_negative_numbers = true)]
    priority: Option<i32>,
    /// Only tickets of this key
    #[arg(long = "of-key", value_name = "NAME")]
    of_key: Option<String>,
    /// Only tickets of this tenant
    #[arg(long)]
    tenant: Option<String>,
    /// Only tickets that wait on this instance
    #[arg(long)]
    instance: Option<String>,
}

/// A group, or a key in it.
#[derive(Debug, Args)]
struct OfKey {
    /// The model_name
    group: String,
    /// Only the key of this name
    #[arg(long = "of-key", value_name = "NAME")]
    of_key: Option<String>,
}

/// A limit's new value; `None`: the configured one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Change(Option<u64>);

fn limit(text: &str) -> Result<Change, String> {
    if text == "configured" {
        return Ok(Change(None));
    }
    let value = text.parse().ok().filter(|value| *value > 0);
    let expected = "expected a whole number above 0, or `configured`";
    value
        .map(|value| Change(Some(value)))
        .ok_or(expected.into())
}

/// Runs the command, and prints what comes of it.
///
/// # Errors
/// The client cannot be set up.
pub async fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let remote = Remote::new(&options.remote)?;
    Ok(match act(&remote, options).await {
        Ok(text) => {
            // A closed stdout is how `head` ends what it reads.
            drop(writeln!(stdout().lock(), "{}", text.trim_end()));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(code(&error))
        }
    })
}

fn code(error: &RemoteError) -> u8 {
    match error {
        RemoteError::Refused { status: 404, .. } => 3,
        RemoteError::Refused { status: 409, .. } => 4,
        _ => 1,
    }
}

async fn act(remote: &Remote, options: &Options) -> Result<String, RemoteError> {
    let of_group = |group: &str, rest: &str| format!("/admin/groups/{}/{rest}", segment(group));
    let of_ticket = |group: &str, ticket: &str, what: &str| {
        of_group(group, &format!("tickets/{}/{what}", segment(ticket)))
    };
    let (answer, text) = match &options.action {
        Action::Ls(ls) => match &ls.group {
            None => {
                let overview = remote.get("/admin/overview").await?;
                let text = table::overview(&overview);
                (overview, text)
            }
            Some(group) => {
                let page = tickets(remote, &of_group(group, "tickets"), ls).await?;
                let text = table::tickets(&page);
                (page, text)
            }
        },
        Action::Move {
            group,
            ticket,
            priority,
        } => {
            let path = of_ticket(group, ticket, "move");
            let moved = remote.post(&path, &json!({"priority": priority})).await?;
            let mut text = format!("ticket {ticket} has priority {priority}");
            if let Some(position) = moved["position"].as_u64() {
                // Writing to a `String` cannot fail.
                let _ = write!(text, " and position {position}");
            }
            (moved, text)
        }
        Action::Cancel {
            group,
            ticket,
            reason,
        } => {
            let path = of_ticket(group, ticket, "cancel");
            let answer = remote.post(&path, &json!({"reason": reason})).await?;
            (answer, format!("ticket {ticket} is cancelled"))
        }
        Action::Pause(of) => pause(remote, of, &of_group(&of.group, "pause")).await?,
        Action::Resume(of) => pause(remote, of, &of_group(&of.group, "resume")).await?,
        Action::Limit {
            group,
            deployment,
            limit,
            value,
        } => {
            let change = json!({"deployment": deployment, "limit": limit, "value": value.0});
            let answer = remote.post(&of_group(group, "limits"), &change).await?;
            let text = table::limits(&answer);
            (answer, text)
        }
        Action::Drain { instance, undo } => {
            let what = if *undo { "resume" } else { "drain" };
            let path = format!("/admin/instances/{}/{what}", segment(instance));
            let answer = remote.post(&path, &json!({})).await?;
            let state = if *undo { "is back in" } else { "is out of" };
            (answer, format!("instance {instance} {state} the rotation"))
        }
    };
    Ok(if options.json {
        answer.to_string()
    } else {
        text
    })
}

async fn pause(remote: &Remote, of: &OfKey, path: &str) -> Result<(Value, String), RemoteError> {
    let body = match &of.of_key {
        Some(key) => json!({"key": key}),
        None => json!({}),
    };
    let answer = remote.post(path, &body).await?;
    let text = table::paused(&of.group, &answer);
    Ok((answer, text))
}

/// As many tickets as are wanted, page by page.
async fn tickets(remote: &Remote, path: &str, ls: &Ls) -> Result<Value, RemoteError> {
    let most = if ls.limit == 0 { u64::MAX } else { ls.limit };
    let mut query = String::new();
    let filters = [
        ("priority", ls.priority.map(|priority| priority.to_string())),
        ("key", ls.of_key.clone()),
        ("tenant", ls.tenant.clone()),
        ("instance", ls.instance.clone()),
    ];
    for (name, value) in filters {
        if let Some(value) = value {
            // Writing to a `String` cannot fail.
            let _ = write!(query, "&{name}={}", segment(&value));
        }
    }
    let mut all = json!({"total": 0, "from": 0, "next": null, "tickets": []});
    let (mut from, mut count) = (0, 0);
    loop {
        let limit = PAGE.min(most - count);
        let page = format!("{path}?from={from}&limit={limit}{query}");
        let mut page = remote.get(&page).await?;
        all["total"] = page["total"].take();
        all["next"] = page["next"].clone();
        if let (Value::Array(tickets), Some(all)) =
            (page["tickets"].take(), all["tickets"].as_array_mut())
        {
            count += tickets.len() as u64;
            all.extend(tickets);
        }
        match page["next"].as_u64() {
            Some(next) if count < most => from = next,
            _ => return Ok(all),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_whole_numbers_or_the_word_configured() {
        assert_eq!(limit("100"), Ok(Change(Some(100))));
        assert_eq!(limit("configured"), Ok(Change(None)));
        for text in ["0", "-1", "1.5", "", "null"] {
            assert!(limit(text).is_err(), "{text}");
        }
    }

    #[test]
    fn exit_codes_tell_what_is_missing_from_what_is_late() {
        let refused = |status| RemoteError::Refused {
            status,
            message: String::new(),
        };
        for (status, expected) in [(404, 3), (409, 4), (403, 1), (503, 1)] {
            assert_eq!(code(&refused(status)), expected);
        }
    }
}
