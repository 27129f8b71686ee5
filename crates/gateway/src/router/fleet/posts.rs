//! What instances ask one another, and how the answers are collected.
//!
//! Posts are a help to operators and nothing else: they may be lost, and no call depends on them.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};
use vorrang_scheduler::Scheduler;

/// How long others have to answer what only reads.
pub(super) const READ: Duration = Duration::from_millis(300);
/// How long they have for what changes something, which may take them a step.
pub(super) const CHANGE: Duration = Duration::from_secs(2);

/// A question, or an answer to one. Instances of other versions may know more fields, or fewer.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Post {
    pub(super) from: String,
    /// The question's, drawn by who asks.
    pub(super) id: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) question: Option<Value>,
    /// It may be null.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "present"
    )]
    pub(super) answer: Option<Value>,
}

/// A value that is there, also where it is null.
fn present<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(value).map(Some)
}

/// What one instance asks others.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub(super) enum Question {
    /// How it is, and what waits there.
    Report,
    /// What it knows of these tickets.
    Labels { group: String, arrivals: Vec<u64> },
    /// Its tickets of a group that are held because their keys are paused.
    Held { group: String },
    /// Its open calls in a group.
    Calls { group: String },
    /// What it knows of a call.
    Life { call_id: String },
    /// Its latest calls.
    Latest { group: Option<String>, most: usize },
    /// To give a ticket of its own another priority.
    Move {
        group: String,
        arrival: u64,
        priority: i32,
    },
    /// To cancel a ticket of its own.
    Cancel {
        group: String,
        arrival: u64,
        reason: String,
    },
    /// To say that it is not ready, or to be ready again.
    Drain { draining: bool },
    /// Whether a question of the instance that is asked is still open.
    Wanted { id: u64 },
}

impl Question {
    /// Whether it asks to change something.
    pub(super) fn changes(&self) -> bool {
        matches!(
            self,
            Self::Move { .. } | Self::Cancel { .. } | Self::Drain { .. }
        )
    }
}

/// What an instance says, and which one it is.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) from: String,
    pub(super) answer: Value,
}

/// What was said to a question.
#[derive(Debug)]
pub(super) struct Answers {
    pub(super) said: Vec<Said>,
    /// All that were expected to answer have.
    pub(super) complete: bool,
}

impl IntoIterator for Answers {
    type Item = Said;
    type IntoIter = std::vec::IntoIter<Said>;

    fn into_iter(self) -> Self::IntoIter {
        self.said.into_iter()
    }
}

/// This instance's part of the exchange.
#[derive(Debug)]
pub(super) struct PostOffice {
    scheduler: Scheduler,
    asked: Mutex<Asked>,
    /// Instances that answer, as far as is known.
    known: Mutex<HashSet<String>>,
    /// Those with a session when the groups were looked at last: they live.
    sessions: Mutex<HashSet<String>>,
}

#[derive(Debug, Default)]
struct Asked {
    last: u64,
    open: HashMap<u64, mpsc::UnboundedSender<Said>>,
}

/// A question that is open. Later answers only tell who lives.
struct OpenQuestion<'a> {
    office: &'a PostOffice,
    id: u64,
}

// === impl PostOffice ===

impl PostOffice {
    pub(super) fn new(scheduler: Scheduler) -> Self {
        Self {
            scheduler,
            asked: Mutex::default(),
            known: Mutex::default(),
            sessions: Mutex::default(),
        }
    }

    pub(super) fn instance(&self) -> &Arc<str> {
        self.scheduler.instance()
    }

    fn asked(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self) -> MutexGuard<'_, HashSet<String>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Instances with a session are expected to answer. `all`: no others have one.
    pub(super) fn live(&self, instances: impl IntoIterator<Item = String>, all: bool) {
        let own = self.instance();
        let others = instances.into_iter().filter(|one| **one != **own);
        let others: Vec<String> = others.collect();
        self.known().extend(others.iter().cloned());
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if all {
            sessions.clear();
        }
        sessions.extend(others);
    }

    /// The other instances that are expected to answer.
    pub(super) fn others(&self) -> HashSet<String> {
        self.known().clone()
    }

    /// Asks one instance, or all others, and gives what they say within the time: until all that are expected have answered, or one
    /// answer is enough. Those that do not answer and have no session are not expected to answer the next question.
    pub(super) async fn ask(
        &self,
        to: Option<&str>,
        question: &Question,
        time: Duration,
        enough: impl Fn(&Value) -> bool,
    ) -> Answers {
        let deadline = Instant::now() + time;
        let (sender, mut answers) = mpsc::unbounded_channel();
        let id = {
            let mut asked = self.asked();
            asked.last += 1;
            let id = asked.last;
            asked.open.insert(id, sender);
            id
        };
        let _open = OpenQuestion { office: self, id };
        let mut missing = match to {
            Some(one) => HashSet::from([one.to_owned()]),
            None => self.others(),
        };
        self.post(
            to,
            &Post {
                from: self.instance().to_string(),
                id,
                question: serde_json::to_value(question).ok(),
                answer: None,
            },
        );
        let mut said: Vec<Said> = Vec::new();
        while !missing.is_empty() {
            let Ok(Some(one)) = timeout_at(deadline, answers.recv()).await else {
                break;
            };
            if said.iter().any(|known| known.from == one.from) {
                continue;
            }
            missing.remove(&one.from);
            let done = enough(&one.answer);
            said.push(one);
            if done {
                let complete = true;
                return Answers { said, complete };
            }
        }
        let complete = missing.is_empty();
        {
            let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
            missing.retain(|one| !sessions.contains(one));
        }
        let mut known = self.known();
        missing.iter().for_each(|gone| _ = known.remove(gone));
        Answers { said, complete }
    }

    /// Whether a question of this instance is still open.
    pub(super) fn is_open(&self, id: u64) -> bool {
        self.asked().open.contains_key(&id)
    }

    /// Whether who asked still waits for the answer. A post may be old: its receiver may have been stopped, and its operator been told that
    /// nothing was done.
    pub(super) async fn is_wanted(&self, post: &Post) -> bool {
        let question = Question::Wanted { id: post.id };
        let answers = self.ask(Some(&post.from), &question, READ, |_| true).await;
        answers.into_iter().any(|said| said.answer == true)
    }

    /// Answers a question.
    pub(super) fn answer(&self, to: &Post, answer: Value) {
        let post = Post {
            from: self.instance().to_string(),
            id: to.id,
            question: None,
            answer: Some(answer),
        };
        self.post(Some(&to.from), &post);
    }

    fn post(&self, to: Option<&str>, post: &Post) {
        // It has only strings as keys.
        if let Ok(body) = serde_json::to_vec(post) {
            self.scheduler.post(to, body);
        }
    }

    /// A post has come. The question in it, if there is one; what cannot be read, or is of this instance, is ignored.
    pub(super) fn received(&self, body: &[u8]) -> Option<Post> {
        let mut post: Post = serde_json::from_slice(body).ok()?;
        if *post.from == **self.instance() {
            return None;
        }
        self.known().insert(post.from.clone());
        let Some(answer) = post.answer.take() else {
            return Some(post).filter(|post| post.question.is_some());
        };
        let asked = self.asked();
        if let Some(sender) = asked.open.get(&post.id) {
            let from = post.from;
            // Who asked has all it wants.
            drop(sender.send(Said { from, answer }));
        }
        None
    }
}

impl Drop for OpenQuestion<'_> {
    fn drop(&mut self) {
        self.office.asked().open.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_of_an_instance_that_knows_nothing_is_an_answer() {
        let post = |answer| Post {
            from: "a".into(),
            id: 7,
            question: None,
            answer,
        };
        for answer in [None, Some(Value::Null), Some(Value::from(1))] {
            let sent = serde_json::to_string(&post(answer.clone())).unwrap();
            let read: Post = serde_json::from_str(&sent).unwrap();
            assert_eq!(read.answer, answer, "{sent}");
        }
    }
}
