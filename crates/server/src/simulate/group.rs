//! One group under one configuration, or under two that are compared.

use std::{collections::HashMap, time::Duration};

use vorrang_gateway::{Config, GroupSettings, RecordedRequest};
use vorrang_scheduler::{
    Tokens,
    simulate::{Ended, Request, Simulator, Usage},
};

use super::{
    Name, Traced,
    figures::{Figures, Series, Waits},
};

/// How many keys, tenants or priorities are told apart; the others are counted together.
const MOST_CALLERS: usize = 2_000;

/// Whose requests are looked at together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Caller {
    /// All of the group.
    All,
    /// By the priority that counts under the configuration to try.
    Priority(i32),
    /// By the key's number.
    Key(Name),
    /// By the tenant's number.
    Tenant(u64),
    /// Those beyond [`MOST_CALLERS`].
    Others,
}

/// What became of the requests of a caller under both configurations.
#[derive(Debug, Default)]
pub(super) struct Compared {
    pub(super) new: Figures,
    pub(super) old: Figures,
    /// As the trace says that they waited.
    pub(super) recorded: Waits,
    /// Requests that waited longer and less under the new configuration.
    pub(super) longer: u64,
    pub(super) less: u64,
    /// The sum of the differences, in seconds.
    pub(super) change: f64,
}

/// Waits of one time.
#[derive(Debug, Clone, Default)]
pub(super) struct Bin {
    /// By configuration, new and old: the sum of the waits, how many there were, and the most that waited at once.
    pub(super) waits: [(f64, u64, u64); 2],
}

impl Bin {
    fn merge(&mut self, other: Self) {
        for (own, other) in self.waits.iter_mut().zip(other.waits) {
            own.0 += other.0;
            own.1 += other.1;
            own.2 = own.2.max(other.2);
        }
    }
}

/// What a request is known by in both simulations.
#[derive(Debug, Clone, Copy)]
struct Tag {
    number: u64,
    at: Duration,
    priority: i32,
    key: Name,
    tenant: u64,
    recorded: Option<Duration>,
}

type Done = (Tag, Duration, Ended);

/// One configuration's side.
struct Side {
    simulator: Simulator<Tag>,
    settings: GroupSettings,
    done: Vec<Done>,
}

impl Side {
    fn new(config: &Config, settings: &GroupSettings, round_trip: Duration, seed: u64) -> Self {
        Self {
            simulator: Simulator::new(&config.group_config(settings), round_trip, seed),
            settings: settings.clone(),
            done: Vec::new(),
        }
    }
}

/// A group that is simulated.
pub(super) struct SimulatedGroup {
    new: Side,
    old: Option<Side>,
    /// Ends under one configuration of requests that have none under the other yet.
    half: HashMap<u64, (bool, Duration, Ended)>,
    numbers: u64,
    pub(super) callers: HashMap<Caller, Compared>,
    pub(super) series: Series<Bin>,
    /// How long the calls took so far, for requests that never had one.
    mean: (f64, u64),
}

impl SimulatedGroup {
    pub(super) fn new(
        new: (&Config, &GroupSettings),
        old: Option<(&Config, &GroupSettings)>,
        round_trip: Duration,
        seed: u64,
    ) -> Self {
        Self {
            new: Side::new(new.0, new.1, round_trip, seed),
            old: old.map(|(config, settings)| Side::new(config, settings, round_trip, seed)),
            half: HashMap::new(),
            numbers: 0,
            callers: HashMap::new(),
            series: Series::new(),
            mean: (0.0, 0),
        }
    }

    /// The next request. `at`: since the first request of all.
    pub(super) fn arrive(
        &mut self,
        at: Duration,
        traced: &Traced,
        key: &str,
        configs: (&Config, Option<&Config>),
    ) {
        let recorded = RecordedRequest {
            key: Some(key).filter(|key| !key.is_empty()),
            asked_priority: traced.asked_priority,
            priority: traced.priority,
            tenant: traced.tenant,
            tokens: traced.reserved,
        };
        let calls = traced.calls.max(1);
        let took = match traced.took {
            Some(took) => {
                self.mean.0 += took.as_secs_f64();
                self.mean.1 += 1;
                took / calls
            }
            None => self.mean_call(),
        };
        let request = |claim| Request {
            claim,
            patience: traced.patience,
            calls,
            took,
            used: traced.used.filter(|used| *used != Tokens::ZERO),
        };
        let claim = configs.0.claim_of(&self.new.settings, &recorded);
        self.numbers += 1;
        let tag = Tag {
            number: self.numbers,
            at,
            priority: claim.priority,
            key: traced.key,
            tenant: traced.tenant,
            recorded: traced.waited,
        };
        let done = &mut self.new.done;
        let mut note = |tag, waited, ended| done.push((tag, waited, ended));
        self.new
            .simulator
            .arrive(at, request(claim), tag, &mut note);
        if let (Some(old), Some(config)) = (&mut self.old, configs.1) {
            let claim = config.claim_of(&old.settings, &recorded);
            let done = &mut old.done;
            let mut note = |tag, waited, ended| done.push((tag, waited, ended));
            old.simulator.arrive(at, request(claim), tag, &mut note);
        }
        let waiting = [
            self.new.simulator.waiting(),
            self.old.as_ref().map_or(0, |old| old.simulator.waiting()),
        ];
        let bin = self.series.at(at, Bin::merge);
        for (known, now) in bin.waits.iter_mut().zip(waiting) {
            known.2 = known.2.max(now as u64);
        }
        self.settle();
    }

    /// No request follows.
    pub(super) fn finish(&mut self) {
        for side in [Some(&mut self.new), self.old.as_mut()]
            .into_iter()
            .flatten()
        {
            let done = &mut side.done;
            let mut note = |tag, waited, ended| done.push((tag, waited, ended));
            side.simulator.finish(&mut note);
        }
        self.settle();
    }

    /// How the limits were used, under the new configuration and the old one.
    pub(super) fn usage(&self) -> (Usage, Option<Usage>) {
        let old = self.old.as_ref().map(|old| old.simulator.usage());
        (self.new.simulator.usage(), old)
    }

    #[expect(clippy::cast_precision_loss, reason = "a mean")]
    fn mean_call(&self) -> Duration {
        match self.mean {
            (_, 0) => Duration::from_secs(1),
            (sum, count) => Duration::from_secs_f64(sum / count as f64),
        }
    }

    fn settle(&mut self) {
        let done = std::mem::take(&mut self.new.done);
        self.note(&done, true);
        self.new.done = empty(done);
        if let Some(old) = &mut self.old {
            let done = std::mem::take(&mut old.done);
            self.note(&done, false);
            if let Some(old) = &mut self.old {
                old.done = empty(done);
            }
        }
    }

    fn note(&mut self, done: &[Done], new: bool) {
        for (tag, waited, ended) in done {
            let bin = self.series.at(tag.at, Bin::merge);
            let (sum, count, _) = &mut bin.waits[usize::from(!new)];
            *sum += waited.as_secs_f64();
            *count += 1;
            let other = match &self.old {
                None => None,
                Some(_) => match self.half.remove(&tag.number) {
                    Some((_, waited, _)) => Some(waited),
                    None => {
                        self.half.insert(tag.number, (new, *waited, *ended));
                        None
                    }
                },
            };
            for caller in [
                Caller::All,
                Caller::Priority(tag.priority),
                Caller::Key(tag.key),
                Caller::Tenant(tag.tenant),
            ] {
                if matches!(caller, Caller::Key(0) | Caller::Tenant(0)) {
                    continue;
                }
                let known = self.callers.len() < MOST_CALLERS || self.callers.contains_key(&caller);
                let caller = if known { caller } else { Caller::Others };
                let compared = self.callers.entry(caller).or_default();
                compared.note(*waited, *ended, new);
                if new && let Some(recorded) = tag.recorded {
                    compared.recorded.add(recorded);
                }
                if let Some(other) = other {
                    let (after, before) = if new {
                        (*waited, other)
                    } else {
                        (other, *waited)
                    };
                    compared.compare(after, before);
                }
            }
        }
    }
}

fn empty(mut done: Vec<Done>) -> Vec<Done> {
    done.clear();
    done
}

impl Compared {
    fn note(&mut self, waited: Duration, ended: Ended, new: bool) {
        let figures = if new { &mut self.new } else { &mut self.old };
        match ended {
            Ended::Granted => figures.waits.add(waited),
            Ended::TimedOut => figures.timed_out += 1,
            Ended::Refused(_) => figures.refused += 1,
        }
    }

    /// A difference of a hundredth, or of five milliseconds, is none.
    fn compare(&mut self, after: Duration, before: Duration) {
        let tolerance = Duration::from_millis(5).max(before / 100);
        if after > before + tolerance {
            self.longer += 1;
        } else if after + tolerance < before {
            self.less += 1;
        }
        self.change += after.as_secs_f64() - before.as_secs_f64();
    }
}
