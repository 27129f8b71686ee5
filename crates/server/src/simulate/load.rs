//! The requests of a load scenario, and how its provider would answer them.

use std::{collections::VecDeque, path::Path, time::Duration};

use anyhow::Result;
use rand::{SeedableRng as _, rngs::StdRng};
use secrecy::ExposeSecret as _;
use vorrang_gateway::Config;
use vorrang_scenario::{
    plan::{Phases, Planned},
    scenario::{self, Action, Scenario},
    settings::Settings,
};
use vorrang_scheduler::{Share, Tokens};

use super::{Names, Source, Traced, trace::TraceCounts};

/// A scenario's requests, phase by phase.
pub(super) struct Load {
    scenario: &'static Scenario,
    phases: Phases<'static>,
    next: VecDeque<Planned>,
    random: StdRng,
    /// The name of each traffic's key in the configuration.
    keys: Vec<String>,
    /// The time of a request that names none.
    timeout: Duration,
    requests: u64,
}

impl Load {
    /// `name`: of a file, else of a ready scenario.
    pub(super) fn new(name: &str, seed: u64, config: &Config) -> Result<Self> {
        let path = Path::new(name);
        let scenario = if path.exists() {
            Scenario::load(path)?
        } else {
            Scenario::parse(scenario::ready(name)?, name)?
        };
        let keys = scenario.traffic.iter().map(|traffic| {
            let mut keys = config.keys.iter();
            let sent = traffic.key.as_deref()?;
            let known = keys.find(|settings| settings.key.expose_secret() == sent)?;
            Some(known.policy.name.clone())
        });
        let keys = keys.map(Option::unwrap_or_default).collect();
        // The process simulates one scenario, and ends.
        let scenario: &'static Scenario = Box::leak(Box::new(scenario));
        let provider = &scenario.provider;
        let window = provider.window.0.as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a rate")]
        let limit = provider.rpm.map(|rpm| rpm as f64 / window);
        Ok(Self {
            phases: Phases::new(scenario, limit, seed),
            scenario,
            next: VecDeque::new(),
            random: StdRng::seed_from_u64(seed ^ provider.seed),
            keys,
            timeout: config.timeout,
            requests: 0,
        })
    }

    fn traced(&mut self, planned: &Planned, names: &mut Names) -> Traced {
        let traffic = &self.scenario.traffic[planned.traffic];
        let user = self.scenario.user(planned.traffic, planned.tenant);
        let mut patience = traffic.timeout.map_or(self.timeout, |time| time.0);
        let leaves = self.scenario.events.iter().filter_map(|event| {
            let all = matches!(&event.action, Action::Leave(name) if *name == traffic.name);
            all.then(|| event.at.0.checked_sub(planned.at))?
        });
        if let Some(leave) = leaves.chain(planned.leave).min() {
            patience = patience.min(leave);
        }
        let (took, tokens) = answer(&self.scenario.provider, planned, &mut self.random);
        let output = planned.max_tokens.unwrap_or(tokens);
        Traced {
            at: u64::try_from(planned.at.as_micros()).unwrap_or(u64::MAX),
            group: names.number(&self.scenario.model),
            key: names.number(&self.keys[planned.traffic]),
            tenant: Share::new(&user, 1.0).tenant,
            priority: traffic.priority.unwrap_or(0),
            asked_priority: traffic.priority,
            reserved: Tokens::new(planned.prompt_tokens, output),
            used: Some(Tokens::new(planned.prompt_tokens, tokens)),
            patience,
            calls: 1,
            took: Some(took),
            waited: None,
        }
    }
}

/// How long the provider's answer takes, and how many tokens it has.
fn answer(provider: &Settings, planned: &Planned, random: &mut StdRng) -> (Duration, u64) {
    let tokens = provider.tokens.count(random);
    let tokens = planned.max_tokens.map_or(tokens, |most| tokens.min(most));
    let speed = provider.token_speed.sample(random).max(0.001);
    #[expect(clippy::cast_precision_loss, reason = "a count of tokens")]
    let writing = Duration::from_secs_f64((tokens as f64 / speed).min(86_400.0));
    (provider.latency.time(random) + writing, tokens)
}

impl Source for Load {
    fn next(&mut self, names: &mut Names) -> Result<Option<Traced>> {
        while self.next.is_empty() {
            let Some(phase) = self.phases.next() else {
                return Ok(None);
            };
            self.next = phase?.into();
        }
        let Some(planned) = self.next.pop_front() else {
            return Ok(None);
        };
        self.requests += 1;
        Ok(Some(self.traced(&planned, names)))
    }

    fn counts(&self) -> TraceCounts {
        TraceCounts {
            requests: self.requests,
            ..TraceCounts::default()
        }
    }
}
