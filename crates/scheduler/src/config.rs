//! The configuration of a group: deployments, their limits, and the times of the protocol.

use std::time::Duration;

/// All deployments behind one model name, and how tickets are spread over them.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupConfig {
    /// A permit names its deployment by the index in this list.
    pub deployments: Vec<Deployment>,
    /// How a deployment is chosen among those with room.
    pub strategy: Strategy,
    /// At most this many tickets wait; the worst (priority, arrival) is refused first, with fair shares the newest of the longest tenant
    /// queue of the worst priority. `None`: no cap.
    pub max_queue_depth: Option<u64>,
    /// A deployment cools when it fails more often than this within 60 s; for upstream errors only if they are at least half of the calls.
    pub allowed_fails: u32,
    /// How long a deployment cools that has no cooldown of its own.
    pub cooldown: Duration,
    /// Leases, guards, polling.
    pub timing: Timing,
    /// Tickets with a higher number than this are granted no faster than limit / window. `None`: none are.
    pub pace_worse_than: Option<i32>,
    /// Room that is reserved for better priorities.
    pub reserve: Option<Reserve>,
    /// The waiting time that outweighs one level of priority, in whole microseconds, at most [`MAX_AGING`]. `None`: none does.
    pub aging: Option<Duration>,
    /// What instances do while the backend is unavailable. A group without any limit is served regardless.
    pub when_away: WhenAway,
    /// Within a priority, tenants share the limits by weight (start-time fair queueing over [`Claim::share`](crate::Claim::share));
    /// otherwise tickets are granted by arrival.
    pub fair: bool,
}

/// Tickets worse than `priority` may use at most 1 - `share` of each limit, also of that of open calls; at least one unit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reserve {
    /// The worst priority that may use the whole limit.
    pub priority: i32,
    /// Between 0 and 1.
    pub share: f64,
}

/// The highest aging: one level of priority is worth a year of waiting.
pub const MAX_AGING: Duration = Duration::from_secs(31_536_000);

impl GroupConfig {
    /// A group with LiteLLM's defaults: simple-shuffle, no depth cap, 3 allowed fails, 5 s cooldown, strict priority.
    pub fn new(deployments: Vec<Deployment>) -> Self {
        Self {
            deployments,
            strategy: Strategy::SimpleShuffle,
            max_queue_depth: None,
            allowed_fails: 3,
            cooldown: Duration::from_secs(5),
            timing: Timing::default(),
            pace_worse_than: None,
            reserve: None,
            aging: None,
            fair: false,
            when_away: WhenAway::Wait,
        }
    }
}

impl GroupConfig {
    /// The same with the part of each limit that one of so many instances may use.
    #[must_use]
    pub fn part(&self, instances: usize) -> Self {
        let mut part = self.clone();
        let limits = part.deployments.iter_mut().flat_map(|one| &mut one.limits);
        for limit in limits {
            limit.limit /= instances.max(1) as u64;
        }
        part
    }
}

/// One upstream endpoint with its own limits.
#[derive(Debug, Clone, PartialEq)]
pub struct Deployment {
    /// Unique in the group and the same on every instance.
    pub id: String,
    /// Every limit a grant has to fit under; empty: no limits.
    pub limits: Vec<Limit>,
    /// The share under simple-shuffle. When no deployment of the group has a weight, `rpm` serves as weight, else `tpm`, `itpm`, `otpm`.
    pub weight: Option<f64>,
    /// How long it cools after too many failures. `None`: as long as the group's.
    pub cooldown: Option<Duration>,
    /// Among the deployments with room, only those with the lowest order are chosen from. `None`: after all that have one.
    pub order: Option<i32>,
    /// What a token costs, in any unit, for [`Strategy::CostBased`]. `None`: unknown, after all that are known.
    pub price: Option<f64>,
}

impl Deployment {
    /// A deployment without limits, weight, order or price.
    pub fn new(id: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            limits: Vec::new(),
            weight: None,
            cooldown: None,
            order: None,
            price: None,
        }
    }

    /// Adds a limit.
    #[must_use]
    pub fn limit(mut self, kind: LimitKind, limit: u64, length: Duration) -> Self {
        self.limits.push(Limit {
            kind,
            limit,
            length,
        });
        self
    }
}

/// At most `limit` of `kind` in every sliding window of `length`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// What is counted.
    pub kind: LimitKind,
    /// Requests, tokens, or open calls. Beyond 9e9 it is no limit in practice and is cut to that.
    pub limit: u64,
    /// Length of the sliding window; not used by [`LimitKind::Concurrency`].
    pub length: Duration,
}

/// What a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LimitKind {
    /// Calls (`rpm`).
    Requests,
    /// Tokens of both kinds together (`tpm`).
    Tokens,
    /// Input tokens (`itpm`).
    InputTokens,
    /// Output tokens (`otpm`).
    OutputTokens,
    /// Calls open at the same time (`max_parallel_requests`).
    Concurrency,
}

impl LimitKind {
    /// All kinds.
    pub const ALL: [Self; 5] = [
        Self::Requests,
        Self::Tokens,
        Self::InputTokens,
        Self::OutputTokens,
        Self::Concurrency,
    ];

    /// Its name in settings, metrics, reasons and logs: short and stable.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Tokens => "tokens",
            Self::InputTokens => "input_tokens",
            Self::OutputTokens => "output_tokens",
            Self::Concurrency => "concurrency",
        }
    }

    /// The kind of this name.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }
}

/// What an instance does when the backend has been unresponsive for the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhenAway {
    /// Tickets wait until the backend answers.
    #[default]
    Wait,
    /// Each instance grants locally within its part of each limit: limit / instances last known, including its earlier calls.
    Share,
}

/// How a deployment is chosen among those with room and the lowest [`Deployment::order`]. Where several are equal, at random by weight.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Strategy {
    /// At random, by weight.
    SimpleShuffle,
    /// The one with the least used share of its limits; the first of several.
    UsageBased,
    /// The one with the fewest open calls.
    LeastBusy,
    /// The one whose answers have begun soonest. One that is not measured comes first, for one call at a time.
    LatencyBased {
        /// A deployment that was not measured for this long counts as not measured.
        forget_after: Duration,
        /// Deployments that are slower by this share of the lowest latency count as equal.
        buffer: f64,
    },
    /// The one with the lowest [`Deployment::price`].
    CostBased,
}

/// The times of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// How long the session of an unresponsive instance lasts at most. An instance sends a heartbeat every sixth of it.
    pub lease: Duration,
    /// How much longer than its window an entry counts; at most a twentieth of the window is used.
    pub guard: Duration,
    /// How often the owner of the head polls if no time is known, and how much later other instances poll.
    pub polling_interval: Duration,
}

impl Default for Timing {
    /// Lease 3 s, guard 100 ms, polling every 30 ms (LiteLLM's default).
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(3),
            guard: Duration::from_millis(100),
            polling_interval: Duration::from_millis(30),
        }
    }
}
