//! The states in memory and in Redis side by side.

use std::sync::Arc;

use proptest::test_runner::{TestCaseError, TestCaseResult};
use vorrang_scheduler::{
    Micros, Seq,
    backend::script,
    message::{Message, Op, Reply, Verdict},
    transition::{Environment, State, inspect::Census, step},
};

use crate::{
    coverage::Coverage,
    history::{Event, History},
    instance::Instance,
    server::{Server, has_functions},
};

/// The forms of the step in Lua that execute a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Forms {
    Library,
    Script,
    /// Both by turns, so that what the library keeps is often out of date; and calls that fail come between.
    Mixed,
}

impl Forms {
    pub(crate) const ALL: [Self; 3] = [Self::Library, Self::Script, Self::Mixed];
}

/// The state in Redis, and the step in Lua.
pub(crate) struct Store {
    connection: redis::Connection,
    /// Steps, by a user that may have other rights than the test.
    steps: redis::Connection,
    /// Redis before 7.0 has none: the script is the only form there.
    function: Option<String>,
    script: redis::Script,
    pub(crate) forms: Forms,
}

impl Store {
    pub(crate) fn new(server: &Server) -> Self {
        Self::as_user(server, server.client())
    }

    /// `user`: whose steps are executed.
    pub(crate) fn as_user(server: &Server, user: redis::Client) -> Self {
        let mut steps = user.get_connection().unwrap();
        let library = script::library();
        let has_functions = has_functions(&server.client());
        if has_functions {
            redis::cmd("FUNCTION")
                .arg("LOAD")
                .arg(&library.source)
                .query::<()>(&mut steps)
                .unwrap();
        }
        Self {
            connection: server.client().get_connection().unwrap(),
            steps,
            function: has_functions.then_some(library.name),
            script: redis::Script::new(&script::script()),
            forms: Forms::Library,
        }
    }

    /// Calls one of the forms.
    fn call(
        &mut self,
        environment: &Environment,
        message: &[u8],
        as_script: bool,
    ) -> redis::RedisResult<Vec<Vec<u8>>> {
        let keys: Vec<String> = script::keys()
            .map(|key| format!("test:{{g}}:{key}"))
            .collect();
        let Environment {
            now,
            random,
            replication,
            ..
        } = environment;
        let Some(function) = self.function.as_ref().filter(|_| !as_script) else {
            let mut call = self.script.prepare_invoke();
            keys.iter().for_each(|key| _ = call.key(key));
            call.arg(message).arg(random).arg("").arg("g");
            call.arg(now.0).arg(&**replication);
            return call.invoke(&mut self.steps);
        };
        let mut call = redis::cmd("FCALL");
        call.arg(function).arg(keys.len()).arg(&keys);
        call.arg(message).arg(random).arg("").arg("g");
        call.arg(now.0).arg(&**replication);
        call.query(&mut self.steps)
    }

    /// A call of the library that fails after it has begun to change what it keeps. It writes nothing.
    fn fail(&mut self, environment: &Environment, message: &Message) {
        let ops = vec![Op::Unused { granted: Seq(1) }];
        let mut broken = Message {
            ops,
            ..message.clone()
        }
        .packed()
        .unwrap();
        // An unknown tag, in place of that of the only op: the last three bytes are the tag's length, the tag and the number.
        let tag = broken.len() - 2;
        assert_eq!(broken[tag], b'u');
        broken[tag] = b'?';
        assert!(self.call(environment, &broken, false).is_err());
    }

    fn step(
        &mut self,
        environment: &Environment,
        message: &Message,
    ) -> Result<(Reply, Vec<Arc<str>>), TestCaseError> {
        let as_script = match self.forms {
            Forms::Library => false,
            Forms::Script => true,
            Forms::Mixed => environment.random.is_multiple_of(3),
        };
        let mut parts = self
            .call(environment, &message.packed().unwrap(), as_script)
            .map_err(|error| TestCaseError::fail(format!("the step failed: {error}")))?;
        let wakes = parts
            .split_off(1)
            .into_iter()
            .map(|name| String::from_utf8(name).unwrap().into());
        let reply = rmp_serde::from_slice(&parts[0])
            .map_err(|error| TestCaseError::fail(format!("no reply: {error}")))?;
        Ok((reply, wakes.collect()))
    }

    pub(crate) fn flush(&mut self) {
        redis::cmd("FLUSHDB")
            .query::<()>(&mut self.connection)
            .unwrap();
    }

    fn make_dirty(&mut self) {
        redis::cmd("HSET")
            .arg("test:{g}:meta")
            .arg("dirty")
            .arg(1)
            .query::<()>(&mut self.connection)
            .unwrap();
    }
}

/// The states in memory and in Redis, which execute the same messages.
pub(crate) struct Pair<'a> {
    store: &'a mut Store,
    state: Option<State>,
    replication: Arc<str>,
    pub(crate) now: Micros,
    /// The message is a retransmission.
    repeated: bool,
    coverage: &'a mut Coverage,
}

impl<'a> Pair<'a> {
    /// Without a state in memory; the store has to be empty.
    pub(crate) fn new(store: &'a mut Store, coverage: &'a mut Coverage, now: Micros) -> Self {
        Self {
            store,
            state: None,
            replication: "".into(),
            now,
            repeated: false,
            coverage,
        }
    }

    /// Replies do not show whether old parts of the state are removed, so the sizes are compared. The placeholder member of each key is not counted.
    fn compare_sizes(&mut self) -> TestCaseResult {
        let Some(census) = self.state.as_ref().map(State::census) else {
            return Ok(());
        };
        let mut sizes = redis::pipe();
        for key in ["queue", "behind", "by_cost", "idle", "calls"] {
            sizes.zcard(format!("test:{{g}}:{key}"));
        }
        sizes.hlen("test:{g}:tenants");
        let mut stored: Vec<u64> = sizes.query(&mut self.store.connection).unwrap();
        stored.iter_mut().for_each(|size| *size -= 1);
        let fields: Vec<String> = redis::cmd("HKEYS")
            .arg("test:{g}:meta")
            .query(&mut self.store.connection)
            .unwrap();
        // Sessions, answers, and the deployments of sessions.
        for letter in ["S", "A", "D"] {
            stored.push(
                fields
                    .iter()
                    .filter(|field| field.starts_with(letter))
                    .count() as u64,
            );
        }
        let Census {
            entries,
            behind,
            tenant_queues,
            idle,
            tenants,
            calls,
            sessions,
            ..
        } = census;
        let first = entries - behind;
        if stored
            != [
                first,
                behind,
                tenant_queues,
                idle,
                calls,
                tenants,
                sessions,
                sessions,
                sessions,
            ]
        {
            return Err(TestCaseError::fail(format!(
                "{census:?} in memory, {stored:?} in Redis"
            )));
        }
        Ok(())
    }

    pub(crate) fn step(&mut self, message: &Message, random: u32) -> Result<Reply, TestCaseError> {
        let environment = Environment {
            now: self.now,
            random,
            replication: self.replication.clone(),
            certain: false,
        };
        let outcome = step(&mut self.state, &environment, message);
        // Only a message that is executed fails at its ops.
        let executed = message.open_session.is_empty()
            && !self.repeated
            && outcome.reply.verdict == Verdict::Done;
        if self.store.forms == Forms::Mixed && executed && random.is_multiple_of(5) {
            self.store.fail(&environment, message);
        }
        let (reply, wakes) = self.store.step(&environment, message)?;
        if (&reply, &wakes) != (&outcome.reply, &outcome.wakes) {
            return Err(TestCaseError::fail(format!(
                "at {} {message:#?}\nmemory: {:#?} {:?}\nredis:  {reply:#?} {wakes:?}",
                self.now.0, outcome.reply, outcome.wakes
            )));
        }
        self.coverage
            .see(message, &outcome, self.state.as_ref(), self.repeated);
        self.compare_sizes()?;
        Ok(reply)
    }
}

/// Plays a history on both, from an empty state.
pub(crate) fn play(
    history: &History,
    store: &mut Store,
    coverage: &mut Coverage,
) -> TestCaseResult {
    store.flush();
    let rules = |n: usize| history.rules[n % history.rules.len()].clone();
    let mut instances: Vec<Instance> = history
        .instances
        .iter()
        .enumerate()
        .map(|(n, name)| Instance::new(name.clone(), rules(n / 2)))
        .collect();
    let count = instances.len();
    let mut pair = Pair::new(store, coverage, history.start);
    for event in &history.events {
        let now = pair.now;
        pair.repeated = matches!(event, Event::Retransmit { .. });
        match event {
            Event::Tick(by) => pair.now = Micros(pair.now.0.saturating_add_signed(*by)),
            Event::Send {
                instance,
                ops,
                random,
                lost,
            } => {
                let instance = &mut instances[instance % count];
                let reply = pair.step(&instance.send(now, ops), *random)?;
                if !lost {
                    instance.receive(now, &reply);
                }
            }
            Event::OpenSession {
                instance,
                rules: other,
                parts,
                random,
                lost,
            } => {
                let instance = &mut instances[instance % count];
                let message = instance.open_session(now, other.map(rules), *parts);
                let reply = pair.step(&message, *random)?;
                if !lost {
                    instance.receive(now, &reply);
                }
            }
            Event::Retransmit { instance, back } => {
                let instance = &mut instances[instance % count];
                if let Some(message) = instance.former_message(*back) {
                    let reply = pair.step(&message, 0)?;
                    if *back == 0 {
                        instance.receive(now, &reply);
                    }
                }
            }
            Event::Misfit { instance, how } => {
                pair.step(&instances[instance % count].misfit(*how), 0)?;
            }
            Event::Restart { instance } => {
                let restarted = &mut instances[instance % count];
                *restarted = Instance::new(restarted.name(), rules(*instance));
            }
            Event::Flush => {
                pair.state = None;
                pair.store.flush();
            }
            Event::Dirty => {
                if let Some(state) = &mut pair.state {
                    state.make_dirty();
                    pair.store.make_dirty();
                }
            }
            Event::Failover(which) => pair.replication = format!("{which}").replace('0', "").into(),
        }
    }
    Ok(())
}
