//! Virtual time: instances, a server, and the network between them.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use vorrang_scheduler::{
    GroupConfig, Seq, Share, Tokens, UNIT_COST,
    dispatcher::TicketId,
    message::{Message, Reply},
    rules::Rules,
    transition::State,
};

use crate::{
    instance::{Client, Instance},
    referee::Referee,
    rollouts::{Rollout, Side},
    scenario::{Fault, MS, SECOND, Scenario},
    scenarios::{NEAR, QUIET},
};

const AFTERWARDS: u64 = 20 * SECOND;
const GIVE_UP: u64 = 3600 * SECOND;

#[derive(Debug, Clone)]
pub(crate) enum Event {
    Arrive(Client, Option<u64>),
    Leave(usize, u64),
    Timer(usize, u64),
    Request(usize, u64, Arc<Message>),
    Reply(usize, u64, Box<Reply>),
    TimedOut(usize, u64),
    Wake(usize),
    Dispatch(usize, Seq),
    Head(usize, Seq),
    End(usize, Seq),
    Fault(Fault),
    Resume(usize),
    ServerBack,
    CheckServer(usize),
    /// The first master replies again, with the state and the replication id that it had.
    Failback(Box<State>, u64),
    Sample,
}

impl Event {
    /// The instance that the event happens to, if it is alive and not stopped.
    fn instance(&self) -> Option<usize> {
        match self {
            Event::Leave(i, _)
            | Event::Timer(i, _)
            | Event::Reply(i, ..)
            | Event::TimedOut(i, _)
            | Event::Wake(i)
            | Event::CheckServer(i)
            | Event::Dispatch(i, _)
            | Event::Head(i, _)
            | Event::End(i, _) => Some(*i),
            _ => None,
        }
    }
}

pub(crate) struct Server {
    pub(crate) state: Option<State>,
    pub(crate) history: VecDeque<State>,
    pub(crate) keep_history: bool,
    pub(crate) replication: u64,
    pub(crate) clock: u64,
    /// Messages that wait until it replies again, while it hangs.
    pub(crate) hanging: Option<Vec<Event>>,
    pub(crate) down: bool,
    /// How long it was up before `up_since`.
    pub(crate) uptime: u64,
    pub(crate) up_since: u64,
}

pub(crate) struct Verdict {
    /// The times of the dispatches.
    pub(crate) at: Vec<u64>,
    /// Messages that the server received.
    pub(crate) received: u64,
    pub(crate) dispatched: usize,
    pub(crate) violations: Vec<String>,
}

pub(crate) struct World {
    pub(crate) scenario: &'static Scenario,
    pub(crate) config: GroupConfig,
    pub(crate) rules: Rules,
    pub(crate) rollout: Option<Rollout>,
    pub(crate) rng: fastrand::Rng,
    pub(crate) now: u64,
    pub(crate) events: BTreeMap<(u64, u64), Event>,
    pub(crate) sequence: u64,
    pub(crate) instances: Vec<Instance>,
    pub(crate) names: Vec<Arc<str>>,
    pub(crate) server: Server,
    pub(crate) referee: Referee,
    /// Executed messages, by sender and batch: the sequence numbers of a replay are not judged again.
    pub(crate) steps: BTreeSet<(usize, u64)>,
    pub(crate) received: u64,
    /// The sequence numbers drawn before and after the losses so far can be compared.
    pub(crate) comparable: bool,
    /// The only faults are deaths and losses of the state, so the referee knows what may be charged conservatively.
    pub(crate) only_deaths: bool,
    /// The scenario has no faults. Its network may still lose messages.
    pub(crate) faultless: bool,
    /// The scenario has no faults, and only wakes are lost.
    pub(crate) calm: bool,
    pub(crate) next_ticket: TicketId,
    pub(crate) next_transmission: u64,
    pub(crate) next_client: u64,
    pub(crate) open_clients: u64,
    pub(crate) verbose: bool,
}

/// Splits tokens into both kinds. The part of the output depends on `n`: 0, 1, 2, 3 or 4 quarters.
pub(crate) fn split(total: u64, n: u64) -> Tokens {
    let output = total * (n % 5) / 4;
    Tokens::new(total - output, output)
}

impl World {
    pub(crate) fn new(scenario: &'static Scenario, seed: u64, verbose: bool) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed ^ 0x0005_EED0_FA11);
        let config = (scenario.group)(&mut rng);
        let other = scenario.roll_out.map(|other| other(&mut rng));
        let rollout = other.map(|other| Rollout::new(config.clone(), other));
        let config = rollout.as_ref().map_or(config, Rollout::union);
        let faults = (scenario.faults)(&mut rng);
        let server = Server {
            state: None,
            history: VecDeque::new(),
            keep_history: faults.iter().any(|(_, f)| {
                matches!(
                    f,
                    Fault::Failover(_) | Fault::FailoverAndBack(..) | Fault::PartialWrite(_)
                )
            }),
            replication: 1,
            clock: 1_000_000 * SECOND,
            hanging: None,
            down: false,
            uptime: 0,
            up_since: 0,
        };
        let strict = scenario.network == QUIET
            && scenario.far == NEAR
            && rollout.is_none()
            && faults.iter().all(|(_, f)| *f == Fault::Flush);
        let faultless = faults.is_empty();
        // A new state draws higher numbers than an older state continues with, and the first instance may not know of the former loss yet (P5).
        let flushed = |f: &Fault| matches!(f, Fault::Flush | Fault::Down(_, false));
        let older = |f: &Fault| {
            matches!(
                f,
                Fault::Failover(_) | Fault::FailoverAndBack(..) | Fault::PartialWrite(_)
            )
        };
        let any = |loss: fn(&Fault) -> bool| faults.iter().any(|(_, f)| loss(f));
        let comparable = !(any(flushed) && any(older));
        let any_ahead = any(|f| matches!(f, Fault::Clock(seconds) if *seconds > 0));
        let (lost, late, unanswered, _) = scenario.network;
        let only_deaths = faults
            .iter()
            .all(|(_, f)| matches!(f, Fault::Kill(_) | Fault::Flush));
        let mut world = World {
            scenario,
            rollout,
            rules: Rules::from(&config),
            referee: Referee::new(
                config.clone(),
                scenario.late,
                strict,
                faultless,
                scenario.undetected_failover,
            ),
            config,
            rng,
            now: 0,
            events: BTreeMap::new(),
            sequence: 0,
            instances: Vec::new(),
            names: Vec::new(),
            server,
            comparable,
            steps: BTreeSet::new(),
            received: 0,
            only_deaths,
            faultless,
            calm: faultless && lost + late + unanswered == 0.0,
            next_ticket: 0,
            next_transmission: 0,
            next_client: 0,
            open_clients: 0,
            verbose,
        };
        world.raise_limits();
        world.referee.clock_ahead = any_ahead;
        world.referee.reordered = world.rollout.as_ref().is_some_and(|r| !r.same_order());
        for _ in 0..3 {
            world.start_instance(0);
        }
        for (at, fault) in faults {
            world.at(at, Event::Fault(fault));
        }
        let mut at = 4 * SECOND;
        while at < scenario.until {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "microseconds"
            )]
            let gap = (-(1.0 - world.rng.f64()).ln() / scenario.rate * SECOND as f64) as u64;
            at += gap;
            world.next_client += 1;
            let client = Client {
                priority: [0, 1, 5, -3][world.rng.usize(..4)],
                tokens: split(world.rng.u64(1..60), world.next_client),
                arrival: Seq::NONE,
                start: 0,
                share: Share {
                    tenant: world.rng.u64(1..4),
                    cost: UNIT_COST * world.rng.u64(1..4),
                },
                attempts: 0,
                tried: 0,
                since: 0,
                moved: Vec::new(),
                moved_at: Seq::NONE,
                name: world.next_client,
            };
            let patience = match world.rng.u8(..20) {
                // It leaves before its ticket has entered the queue.
                0 => Some(world.rng.u64(0..3 * MS)),
                1..3 => Some(world.rng.u64(0..8 * SECOND)),
                _ => None,
            };
            world.open_clients += 1;
            world.at(at, Event::Arrive(client, patience));
        }
        world.at(4 * SECOND, Event::Sample);
        world
    }

    pub(crate) fn at(&mut self, time: u64, event: Event) {
        self.sequence += 1;
        self.events.insert((time, self.sequence), event);
    }

    pub(crate) fn after(&mut self, delay: u64, event: Event) {
        self.at(self.now + delay, event);
    }

    pub(crate) fn start_instance(&mut self, side: Side) {
        let index = self.instances.len();
        let name: Arc<str> = format!("i{index}").into();
        let rollout = self.rollout.as_ref();
        let config = rollout
            .map_or(&self.config, |rollout| &rollout.sides[side])
            .clone();
        self.instances
            .push(Instance::new(&name, &config, self.now, &mut self.rng));
        self.instances[index].side = side;
        self.instances[index].executed = self.uptime();
        self.names.push(name);
        let delay = self.rng.u64(0..MS);
        self.after(delay, Event::Timer(index, 0));
    }

    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        self.rng.f64() < probability
    }

    pub(crate) fn uptime(&self) -> u64 {
        let up = if self.server.down || self.server.hanging.is_some() {
            0
        } else {
            self.now - self.server.up_since
        };
        self.server.uptime + up
    }

    /// Runs until every client has its response, and until all charges have expired.
    pub(crate) fn run(mut self) -> Verdict {
        let mut end = None;
        while let Some(((time, _), event)) = self.events.pop_first() {
            self.now = time;
            if end.is_some_and(|end| time > end) || time > GIVE_UP {
                break;
            }
            if self.verbose && !matches!(event, Event::Sample | Event::Timer(..)) {
                println!("{:>12} {event:?}", self.now);
            }
            match event.instance() {
                Some(i) if !self.instances[i].alive => continue,
                Some(i) => {
                    if let Some(missed) = &mut self.instances[i].paused {
                        missed.push(event);
                        continue;
                    }
                }
                None => {}
            }
            self.handle(event);
            if self.open_clients == 0 && end.is_none() && self.now > self.scenario.until {
                // Until the charge logs are empty (P11).
                let charge_log = self.rules.memory.0 + 5 * SECOND;
                end = Some(self.now + charge_log.max(AFTERWARDS));
            }
        }
        self.close()
    }

    fn close(mut self) -> Verdict {
        self.referee.close();
        let mut violations = self.referee.findings();
        if self.open_clients > 0 {
            violations.push(format!(
                "lost: {} clients without a response",
                self.open_clients
            ));
        }
        if let Some(state) = &self.server.state {
            let census = state.census();
            if census.calls
                + census.open
                + census.waiting
                + census.entries
                + census.inbox
                + census.leftovers
                > 0
            {
                violations.push(format!("A6: left behind: {census:?}"));
            }
        }
        let awake = |i: &&Instance| i.alive && !i.core.is_asleep();
        if self.calm && self.open_clients == 0 && self.instances.iter().any(|i| awake(&i)) {
            violations.push("P11: an idle instance does not close its session".into());
        }
        if self.verbose {
            println!("longest idle: {} us", self.referee.longest_idle);
        }
        Verdict {
            at: self.referee.dispatches.iter().map(|d| d.at).collect(),
            received: self.received,
            dispatched: self.referee.dispatched(),
            violations,
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Arrive(client, patience) => self.arrive(client, patience),
            Event::Leave(i, name) => self.client_leaves(i, name),
            Event::Timer(i, timer) => {
                if self.instances[i].timer == timer {
                    self.pump(i);
                }
            }
            Event::Request(i, transmission, message) => self.receive(i, transmission, message),
            Event::Reply(i, transmission, reply) => self.replied(i, transmission, *reply),
            Event::TimedOut(i, transmission) => {
                if self.instances[i]
                    .transmission
                    .is_some_and(|(id, _)| id == transmission)
                {
                    self.instances[i].transmission = None;
                    let clock = self.instances[i].clock(self.now);
                    self.instances[i].core.on_failure(clock);
                    self.pump(i);
                }
            }
            Event::Wake(i) => {
                self.instances[i].core.wake();
                self.pump(i);
            }
            Event::Dispatch(i, granted) => self.dispatch(i, granted),
            Event::Head(i, granted) => self.head(i, granted),
            Event::End(i, granted) => self.end(i, granted),
            Event::Fault(fault) => self.fault(fault),
            Event::Resume(i) => {
                let mut missed = self.instances[i].paused.take().unwrap_or_default();
                self.rng.shuffle(&mut missed);
                for event in missed {
                    let delay = self.rng.u64(0..MS);
                    self.after(delay, event);
                }
            }
            Event::CheckServer(i) => self.check_server(i),
            Event::ServerBack => {
                self.server.down = false;
                // The first step after an outage counts at most a heartbeat of it (P7).
                let outage = self.now - std::mem::replace(&mut self.server.up_since, self.now);
                self.server.uptime += outage.min(self.rules.heartbeat().0);
                for event in self.server.hanging.take().unwrap_or_default() {
                    let delay = self.rng.u64(0..MS);
                    self.after(delay, event);
                }
            }
            Event::Failback(state, replication) => {
                self.server.state = Some(*state);
                self.server.history.clear();
                self.server.replication = replication;
            }
            Event::Sample => self.sample(),
        }
    }
}
