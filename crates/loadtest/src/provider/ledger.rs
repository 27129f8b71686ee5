//! The provider's state, behind one lock: arrivals, charges, and the next faults.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rand::{SeedableRng as _, rngs::StdRng};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until, timeout_at},
};

use super::{
    Arrival, Charge, Counts, FaultRule, Faults, Kind, Meter, Outcome, Report, Settings, Violation,
    answer::Wanted,
};

/// So many calls are recorded individually; later ones are only counted.
const LONGEST_MEMORY: usize = 1_000_000;

/// How often it is checked whether this process gets to run.
const WATCH: Duration = Duration::from_millis(5);

#[derive(Debug)]
pub(crate) struct Ledger {
    settings: Settings,
    inner: Mutex<Inner>,
    /// A call has ended.
    ended: Notify,
}

#[derive(Debug)]
struct Inner {
    /// All times count from the last reset.
    start: Instant,
    /// How many resets there were: calls from before a reset are not counted after it.
    resets: u64,
    meter: Meter,
    faults: Faults,
    random: StdRng,
    counts: Counts,
    arrivals: Vec<Arrival>,
    held_up: Duration,
}

/// How one call is answered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    pub(crate) latency: Duration,
    pub(crate) token_speed: f64,
    pub(crate) tokens: u64,
}

/// One call from its arrival to its end; dropped before, its caller has left.
#[derive(Debug)]
pub(crate) struct Call {
    ledger: Arc<Ledger>,
    resets: u64,
    /// Its index among the arrivals, recorded or not.
    index: usize,
    charge: Option<Charge>,
    model: String,
    fault: Option<FaultRule>,
}

// === impl Ledger ===

impl Ledger {
    pub(crate) fn new(settings: Settings) -> Result<Self, String> {
        let faults = Faults::new(settings.faults.clone())?;
        let inner = Inner {
            start: Instant::now(),
            resets: 0,
            meter: Meter::new(settings.limits(), settings.window.0),
            faults,
            random: StdRng::seed_from_u64(settings.seed),
            counts: Counts::default(),
            arrivals: Vec::new(),
            held_up: Duration::ZERO,
        };
        Ok(Self {
            settings,
            inner: Mutex::new(inner),
            ended: Notify::new(),
        })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // No code under the lock leaves it half-changed.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a call that has been read, and whether it is within the windows.
    pub(crate) fn arrive(self: &Arc<Self>, wanted: &Wanted) -> (Call, Result<(), Violation>) {
        let tokens = wanted.prompt_tokens() + wanted.max_tokens().unwrap_or(0);
        let mut inner = self.inner();
        let now = inner.start.elapsed();
        let (charge, within) = inner.meter.arrive(now, tokens);
        let index = inner.note(Arrival {
            id: wanted.id(),
            at: micros(now),
            end: None,
            model: wanted.model.clone(),
            reserved: tokens,
            used: None,
            outcome: Outcome::Open,
            fault: None,
            violated: None,
        });
        let call = Call {
            ledger: self.clone(),
            resets: inner.resets,
            index,
            charge: Some(charge),
            model: wanted.model.clone(),
            fault: None,
        };
        (call, within)
    }

    /// Notes something that is no call.
    pub(crate) fn invalid(&self) {
        let mut inner = self.inner();
        let now = micros(inner.start.elapsed());
        inner.note(Arrival {
            id: String::new(),
            at: now,
            end: Some(now),
            model: String::new(),
            reserved: 0,
            used: None,
            outcome: Outcome::Invalid,
            fault: None,
            violated: None,
        });
        *inner.counts.outcomes.entry(Outcome::Invalid).or_default() += 1;
    }

    /// Waits until no more calls are open than may be; false if that is not so in time.
    pub(crate) async fn settled(&self, patience: Duration) -> bool {
        let end = Instant::now() + patience;
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            // From here on no end is missed.
            ended.as_mut().enable();
            if !self.inner().meter.crowded() {
                return true;
            }
            if timeout_at(end, ended).await.is_err() {
                return !self.inner().meter.crowded();
            }
        }
    }

    /// How a call is answered.
    pub(crate) fn terms(&self, wanted: &Wanted) -> Terms {
        let settings = &self.settings;
        let random = &mut self.inner().random;
        let tokens = settings.tokens.count(random);
        Terms {
            latency: settings.latency.time(random),
            token_speed: settings.token_speed.sample(random),
            tokens: tokens.min(wanted.max_tokens().unwrap_or(u64::MAX)),
        }
    }

    pub(crate) fn set_faults(&self, faults: Faults) {
        self.inner().faults = faults;
    }

    /// Forgets all that came; what is open ends unheard.
    pub(crate) fn reset(&self) {
        let mut inner = self.inner();
        inner.resets += 1;
        inner.start = Instant::now();
        inner.meter = Meter::new(self.settings.limits(), self.settings.window.0);
        inner.random = StdRng::seed_from_u64(self.settings.seed);
        inner.counts = Counts::default();
        inner.arrivals = Vec::new();
        inner.held_up = Duration::ZERO;
    }

    pub(crate) fn report(&self) -> Report {
        let inner = self.inner();
        Report {
            now: micros(inner.start.elapsed()),
            window_seconds: self.settings.window.0.as_secs_f64(),
            limits: self.settings.limits(),
            counts: inner.counts.clone(),
            fullest: inner.meter.fullest(),
            arrivals: inner.arrivals.clone(),
            held_up: micros(inner.held_up),
        }
    }

    /// Measures how long this process is held up, for ever.
    pub(crate) async fn watch(&self) -> Infallible {
        loop {
            let due = Instant::now() + WATCH;
            sleep_until(due).await;
            let late = due.elapsed();
            let mut inner = self.inner();
            inner.held_up = inner.held_up.max(late);
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

// === impl Inner ===

impl Inner {
    fn note(&mut self, arrival: Arrival) -> usize {
        let index = usize::try_from(self.counts.arrived).unwrap_or(usize::MAX);
        self.counts.arrived += 1;
        if index < LONGEST_MEMORY {
            self.arrivals.push(arrival);
        }
        index
    }
}

// === impl Call ===

impl Call {
    /// One for each call since the last reset.
    pub(crate) fn number(&self) -> u64 {
        self.index as u64
    }

    /// What goes wrong with it.
    pub(crate) fn fault(&self) -> Option<&FaultRule> {
        self.fault.as_ref()
    }

    fn with(&self, change: impl FnOnce(&mut Inner)) {
        let mut inner = self.ledger.inner();
        if inner.resets == self.resets {
            change(&mut inner);
        }
    }

    /// It may be made.
    pub(crate) fn admitted(&mut self) {
        let mut fault = None;
        self.with(|inner| {
            inner.meter.settle();
            let Inner { faults, random, .. } = inner;
            fault = faults.next(&self.model, random);
            if let Some(arrival) = inner.arrivals.get_mut(self.index) {
                arrival.fault = fault.as_ref().map(|rule| rule.fault);
            }
        });
        self.fault = fault;
    }

    /// It should not have been made.
    pub(crate) fn refused(&mut self, kind: Kind) {
        self.with(|inner| {
            inner.meter.settle();
            inner.counts.violations.count(kind);
            if let Some(arrival) = inner.arrivals.get_mut(self.index) {
                arrival.violated = Some(kind);
            }
        });
        self.end(Outcome::Refused, Some(0));
    }

    /// It is over. `used`: its tokens; where unknown, what was reserved stays.
    pub(crate) fn end(&mut self, outcome: Outcome, used: Option<u64>) {
        let Some(charge) = self.charge.take() else {
            return;
        };
        self.with(|inner| {
            let now = inner.start.elapsed();
            inner.meter.end(now, &charge, used);
            *inner.counts.outcomes.entry(outcome).or_default() += 1;
            if let Some(arrival) = inner.arrivals.get_mut(self.index) {
                arrival.end = Some(micros(now));
                arrival.used = used;
                arrival.outcome = outcome;
            }
        });
        self.ledger.ended.notify_waiters();
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.end(Outcome::Left, None);
    }
}
