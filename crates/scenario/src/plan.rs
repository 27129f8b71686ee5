//! Every request of a run, before the first one is sent: what comes back cannot change what is sent when.

use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use rand_distr::{Distribution as _, Exp1, Zipf};

use crate::scenario::{Pattern, Phase, Scenario, ScenarioError, Tenants, Traffic};

/// More would not fit into memory.
const MOST: usize = 5_000_000;

/// One request to be sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Planned {
    /// When, since the run's start.
    pub at: Duration,
    /// Its phase, an index.
    pub phase: usize,
    /// Its traffic, an index.
    pub traffic: usize,
    /// Whose it is, from 1.
    pub tenant: u64,
    /// Whether its answer is streamed.
    pub stream: bool,
    /// Length of its prompt.
    pub prompt_tokens: u64,
    /// The answer's bound.
    pub max_tokens: Option<u64>,
    /// When its client hangs up, after its start.
    pub leave: Option<Duration>,
}

/// All of a run's requests, by time.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// In the order they are sent.
    pub requests: Vec<Planned>,
}

impl Plan {
    /// Draws a scenario's requests. `limit`: requests per second that the provider allows.
    ///
    /// # Errors
    /// A rate is relative to a limit that is not known, or there would be too many requests.
    pub fn new(scenario: &Scenario, limit: Option<f64>, seed: u64) -> Result<Self, ScenarioError> {
        let mut requests = Vec::new();
        for phase in Phases::new(scenario, limit, seed) {
            requests.extend(phase?);
            if requests.len() > MOST {
                let many = format!("more than {MOST} requests");
                return Err(ScenarioError::Senseless(many));
            }
        }
        Ok(Self { requests })
    }
}

/// A scenario's requests, phase by phase: what does not fit into memory as a whole. They are those of [`Plan::new`].
#[derive(Debug)]
pub struct Phases<'a> {
    scenario: &'a Scenario,
    limit: Option<f64>,
    random: StdRng,
    next: usize,
    start: Duration,
}

impl<'a> Phases<'a> {
    /// Before the first one. See [`Plan::new`].
    pub fn new(scenario: &'a Scenario, limit: Option<f64>, seed: u64) -> Self {
        Self {
            scenario,
            limit,
            random: StdRng::seed_from_u64(seed),
            next: 0,
            start: Duration::ZERO,
        }
    }

    fn draw(&mut self, index: usize, phase: &Phase) -> Result<Vec<Planned>, ScenarioError> {
        let rate = phase.rate.per_second(self.limit).ok_or_else(|| {
            let why = "a rate of the limit needs a provider with `rpm`, or its --provider";
            ScenarioError::Senseless(format!("phase {}: {why}", phase.name))
        })?;
        let mut requests: Vec<Planned> = Vec::new();
        let all: f64 = members(self.scenario, phase)
            .map(|(_, one)| one.share)
            .sum();
        for (traffic, kind) in members(self.scenario, phase) {
            let rate = rate * kind.share / all;
            if rate * phase.length.0.as_secs_f64() + requests.len() as f64 > MOST as f64 {
                let many = format!("phase {}: more than {MOST} requests", phase.name);
                return Err(ScenarioError::Senseless(many));
            }
            let times = times(kind.arrivals, rate, phase.length.0, &mut self.random);
            for time in times {
                let place = (index, traffic, self.start + time);
                requests.push(Planned::draw(kind, place, &mut self.random));
            }
        }
        self.start += phase.length.0;
        requests.sort_by_key(|planned| planned.at);
        Ok(requests)
    }
}

impl Iterator for Phases<'_> {
    type Item = Result<Vec<Planned>, ScenarioError>;

    /// The requests of the next phase, by time.
    fn next(&mut self) -> Option<Self::Item> {
        let index = self.next;
        let phase = self.scenario.phases.get(index)?;
        self.next += 1;
        Some(self.draw(index, phase))
    }
}

impl Planned {
    fn draw(
        kind: &Traffic,
        (phase, traffic, at): (usize, usize, Duration),
        random: &mut StdRng,
    ) -> Self {
        let leave = kind
            .leave
            .filter(|leave| random.random::<f64>() < leave.share);
        Self {
            at,
            phase,
            traffic,
            tenant: tenant(&kind.tenants, random),
            stream: random.random::<f64>() < kind.stream,
            prompt_tokens: kind.prompt_tokens.count(random),
            max_tokens: kind.max_tokens.map(|spread| spread.count(random).max(1)),
            leave: leave.map(|leave| leave.after.time(random)),
        }
    }
}

/// A phase's traffics with their indices.
fn members<'a>(
    scenario: &'a Scenario,
    phase: &'a Phase,
) -> impl Iterator<Item = (usize, &'a Traffic)> {
    let all = scenario.traffic.iter().enumerate();
    all.filter(|(_, traffic)| phase.has(traffic))
}

/// The n-th sends 1/n^zipf as much as the first.
fn tenant(tenants: &Tenants, random: &mut StdRng) -> u64 {
    #[expect(clippy::cast_precision_loss, reason = "a number of tenants")]
    let zipf = Zipf::new(tenants.count as f64, tenants.zipf);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 1 and the count"
    )]
    let tenant = zipf.map_or(1, |zipf| zipf.sample(random) as u64);
    tenant
}

/// When requests come within a phase.
fn times(pattern: Pattern, rate: f64, length: Duration, random: &mut StdRng) -> Vec<Duration> {
    let end = length.as_secs_f64();
    let seconds: Vec<f64> = match pattern {
        Pattern::Constant => {
            // Traffics of one rate are not in step with each other.
            let offset = random.random::<f64>() / rate;
            let steps = (0_u32..).map(|step| offset + f64::from(step) / rate);
            steps.take_while(|&time| time < end).collect()
        }
        Pattern::Poisson => {
            let mut time = 0.0;
            let steps = std::iter::repeat_with(|| {
                let unit: f64 = Exp1.sample(random);
                time += unit / rate;
                time
            });
            steps.take_while(|&time| time < end).collect()
        }
        Pattern::Bursts(every) => {
            let every = every.0.as_secs_f64();
            let starts = (0_u32..).map(|burst| f64::from(burst) * every);
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "bounded by the plan's size"
            )]
            let size = |start: f64| (rate * every.min(end - start)).round() as usize;
            starts
                .take_while(|&start| start < end)
                .flat_map(|start| std::iter::repeat_n(start, size(start)))
                .collect()
        }
    };
    seconds.into_iter().map(Duration::from_secs_f64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(phases: &str, traffic: &str, limit: Option<f64>) -> Result<Plan, ScenarioError> {
        let text = format!("name: x\nphases: {phases}\ntraffic: {traffic}\n");
        Plan::new(&Scenario::parse(&text, "x").unwrap(), limit, 7)
    }

    #[test]
    fn constant_arrivals_are_even_and_poisson_arrivals_match_rate_and_variance() {
        let phases = "[{name: a, for: 100s, rate: 1x}]";
        let even = plan(phases, "[{name: t, arrivals: constant}]", Some(10.0)).unwrap();
        assert_eq!(even.requests.len(), 1000);
        for pair in even.requests.windows(2) {
            let gap = pair[1].at - pair[0].at;
            assert!(gap.abs_diff(Duration::from_millis(100)) < Duration::from_micros(1));
        }
        let poisson = plan(phases, "[{name: t}]", Some(10.0)).unwrap().requests;
        assert!((900..1100).contains(&poisson.len()), "{}", poisson.len());
        // Independent arrivals: the squared gaps have twice the square of the mean.
        let gaps: Vec<f64> = poisson
            .windows(2)
            .map(|pair| (pair[1].at - pair[0].at).as_secs_f64())
            .collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let square = gaps.iter().map(|gap| gap * gap).sum::<f64>() / gaps.len() as f64;
        assert!((1.7..2.3).contains(&(square / mean / mean)));
    }

    #[test]
    fn bursts_arrive_at_once_at_the_mean_rate() {
        let phases = "[{name: a, for: 5s, rate: 10/s}]";
        let plan = plan(phases, "[{name: t, arrivals: {bursts: 2s}}]", None).unwrap();
        let count = |second| {
            let at = Duration::from_secs(second);
            plan.requests.iter().filter(|one| one.at == at).count()
        };
        assert_eq!((count(0), count(2), count(4)), (20, 20, 10));
        assert_eq!(plan.requests.len(), 50);
    }

    #[test]
    fn phases_follow_each_other_and_shares_split_the_rate() {
        let phases =
            "[{name: a, for: 100s, rate: 10/s}, {name: b, for: 100s, rate: 2x, traffic: [u]}]";
        let traffic =
            "[{name: t, share: 3, arrivals: constant}, {name: u, arrivals: constant, stream: 0.5}]";
        let requests = plan(phases, traffic, Some(10.0)).unwrap().requests;
        let count = |phase, traffic| {
            let of = requests
                .iter()
                .filter(|one| (one.phase, one.traffic) == (phase, traffic));
            of.count()
        };
        assert_eq!((count(0, 0), count(0, 1)), (750, 250));
        assert_eq!((count(1, 0), count(1, 1)), (0, 2000));
        let boundary = Duration::from_secs(100);
        assert!(
            requests
                .iter()
                .all(|one| (one.at >= boundary) == (one.phase == 1))
        );
        let streams = requests.iter().filter(|one| one.stream).count();
        assert!((1000..1250).contains(&streams), "{streams}");
    }

    #[test]
    fn tenant_rates_follow_zipf() {
        let phases = "[{name: a, for: 1000s, rate: 20/s}]";
        let of = |zipf: &str| {
            let traffic = format!("[{{name: t, tenants: {{count: 10, zipf: {zipf}}}}}]");
            let requests = plan(phases, &traffic, None).unwrap().requests;
            let mut counts = [0_u32; 11];
            for one in &requests {
                counts[one.tenant as usize] += 1;
            }
            assert_eq!(counts[0], 0);
            f64::from(counts[1]) / f64::from(counts[10])
        };
        assert!((0.9..1.1).contains(&of("0")));
        assert!((8.0..12.5).contains(&of("1")));
    }

    #[test]
    fn same_seed_draws_the_same_plan_and_an_unknown_limit_is_an_error() {
        let phases = "[{name: a, for: 10s, rate: 1x}]";
        let traffic = "[{name: t, leave: {share: 0.5, after: 'exponential(1)'}}]";
        let draw = || plan(phases, traffic, Some(50.0)).unwrap();
        assert_eq!(draw(), draw());
        assert!(draw().requests.iter().any(|one| one.leave.is_some()));
        let error = plan(phases, traffic, None).unwrap_err().to_string();
        assert!(error.contains("--provider"), "{error}");
    }
}
