//! A deployment's limits: `rpm` and the like, and `limits` for windows of any length.

use std::{borrow::Cow, fmt, time::Duration};

use vorrang_scheduler::{COUNTED, LimitKind, Timing};

use crate::config::{
    ConfigError, Kind,
    read::{Recorded, Section},
};

type Result<T> = std::result::Result<T, ConfigError>;

const DAY: Duration = Duration::from_secs(86_400);

/// Every call is kept in the shared state and in its instance for as long as its longest window.
const LONGEST: Duration = DAY.saturating_mul(31);

const SHORTEST: Duration = Duration::from_secs(1);

/// Settings that name their window, and its length; `None`: `window_seconds`.
const SHORTHANDS: [(&str, LimitKind, Option<Duration>); 7] = [
    ("rpm", LimitKind::Requests, None),
    ("tpm", LimitKind::Tokens, None),
    ("itpm", LimitKind::InputTokens, None),
    ("otpm", LimitKind::OutputTokens, None),
    ("rps", LimitKind::Requests, Some(SHORTEST)),
    ("rpd", LimitKind::Requests, Some(DAY)),
    ("tpd", LimitKind::Tokens, Some(DAY)),
];

const CONCURRENCY: &str = "max_parallel_requests";

/// The list of limits of any kind and length.
const LIMITS: &str = "limits";

/// Beyond this a window is worth warnings.
pub(in crate::config) const LONG_WINDOW: Duration = Duration::from_secs(3600);

/// More calls than this in a long window are worth a warning.
const MANY: u64 = 100_000;

/// One limit of a deployment, and how the file names it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NamedLimit {
    /// The setting: `rpm`, or `limits[0]`.
    pub name: Cow<'static, str>,
    /// What is counted.
    pub kind: LimitKind,
    /// Requests, tokens, or open calls.
    pub limit: u64,
    /// Of its sliding window; zero for concurrency.
    pub length: Duration,
    /// How long a call counts in it: the window and its guard.
    pub span: Duration,
}

impl NamedLimit {
    /// What metrics, reasons and the setting `limits` call its kind.
    pub fn word(&self) -> &'static str {
        self.kind.word()
    }

    /// Whether it counts in a window; otherwise it counts open calls.
    pub fn is_window(&self) -> bool {
        COUNTED.contains(&self.kind)
    }

    /// The most that it lets through within a time.
    pub(crate) fn most_within(&self, time: Duration) -> u64 {
        let windows = time.as_micros().div_ceil(self.span.as_micros().max(1));
        let windows = u64::try_from(windows).unwrap_or(u64::MAX);
        self.limit.saturating_mul(windows.max(1))
    }

    /// What it lets through in a second, on average.
    pub(crate) fn rate(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a rate, not a count")]
        let limit = self.limit as f64;
        limit / self.span.as_secs_f64().max(1e-6)
    }

    /// The key under which the file has it.
    pub(crate) fn setting(&self) -> &str {
        self.name.split('[').next().unwrap_or_default()
    }

    /// Whether both limit the same in the same window.
    pub(in crate::config) fn same_window(&self, other: &Self) -> bool {
        (self.kind, self.length) == (other.kind, other.length)
    }
}

/// As `vorrang check` shows it.
impl fmt::Display for NamedLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, limit, .. } = self;
        if self.setting() != LIMITS {
            return write!(f, "{name} {limit}");
        }
        if !self.is_window() {
            return write!(f, "{limit} open calls");
        }
        let words = self.word().replace('_', " ");
        write!(f, "{limit} {words} in {:?}", self.length)
    }
}

/// The window of `rpm` and the like, and what all windows are longer by.
#[derive(Debug, Clone, Copy)]
pub(in crate::config) struct Windows {
    pub(in crate::config) length: Duration,
    pub(in crate::config) guard: Duration,
}

impl Default for Windows {
    fn default() -> Self {
        Self {
            length: Duration::from_secs(60),
            guard: Timing::default().guard,
        }
    }
}

impl Windows {
    /// `length`: `None` for that of `window_seconds`.
    pub(in crate::config) fn limit(
        self,
        name: impl Into<Cow<'static, str>>,
        kind: LimitKind,
        limit: u64,
        length: Option<Duration>,
    ) -> NamedLimit {
        let length = if kind == LimitKind::Concurrency {
            Duration::ZERO
        } else {
            length.unwrap_or(self.length)
        };
        NamedLimit {
            name: name.into(),
            kind,
            limit,
            length,
            span: length + self.guard.min(length / 20),
        }
    }
}

/// Open calls.
pub(in crate::config) fn concurrency(limit: u64) -> NamedLimit {
    NamedLimit {
        name: CONCURRENCY.into(),
        kind: LimitKind::Concurrency,
        limit,
        length: Duration::ZERO,
        span: Duration::ZERO,
    }
}

/// All limits of a deployment, each kind once for each length. `info`: where `rpm` and `tpm` may stand as well.
pub(super) fn limits(
    params: &Section<'_>,
    info: Option<&Section<'_>>,
    windows: Windows,
) -> Result<Vec<NamedLimit>> {
    let file = params.file;
    let mut limits = Vec::new();
    for (name, kind, length) in SHORTHANDS {
        let limit = params.whole(name, 1).recorded(file);
        let of_info = || info.filter(|_| matches!(name, "rpm" | "tpm"));
        let limit = limit.or_else(|| of_info()?.whole(name, 1).recorded(file));
        limits.extend(limit.map(|limit| windows.limit(name, kind, limit, length)));
    }
    limits.extend(params.whole(CONCURRENCY, 1).recorded(file).map(concurrency));
    for (index, entry) in params
        .sections(LIMITS)?
        .unwrap_or_default()
        .iter()
        .enumerate()
    {
        limits.extend(listed(entry, index, windows).recorded_if_any(file));
    }
    for (index, limit) in limits.iter().enumerate() {
        let mut before = limits[..index].iter();
        if let Some(other) = before.find(|other| other.same_window(limit)) {
            let (name, other) = (&limit.name, &other.name);
            let text =
                format!("{name} has the kind and the window of {other}; expected one of them");
            return Err(params.error(limit.setting(), &text));
        }
    }
    warn(params, &limits);
    Ok(limits)
}

/// An entry of `limits`.
fn listed(entry: &Section<'_>, index: usize, windows: Windows) -> Result<NamedLimit> {
    let words = LimitKind::ALL.map(LimitKind::word).join(", ");
    let word = entry.required("kind")?;
    let kind = LimitKind::from_word(word.trim())
        .ok_or_else(|| entry.error("kind", &format!("expected one of {words}")))?;
    let limit = entry.whole("limit", 1)?.ok_or_else(|| {
        let text = "is missing; expected a whole number of at least 1";
        entry.error_of(Kind::MISSING, "limit", text)
    })?;
    let length = if kind == LimitKind::Concurrency {
        if entry.has("seconds") {
            let text = "open calls have no window; expected no seconds beside concurrency";
            return Err(entry.error("seconds", text));
        }
        None
    } else {
        Some(length(entry)?)
    };
    entry.refuse_unknown("kind, limit, seconds");
    Ok(windows.limit(format!("{LIMITS}[{index}]"), kind, limit, length))
}

fn length(entry: &Section<'_>) -> Result<Duration> {
    let expected = format!(
        "a number of seconds from {} to {} (31 days)",
        SHORTEST.as_secs(),
        LONGEST.as_secs()
    );
    let seconds = entry.number("seconds", &expected)?.ok_or_else(|| {
        let text = format!("is missing; expected {expected}");
        entry.error_of(Kind::MISSING, "seconds", &text)
    })?;
    if !(SHORTEST.as_secs_f64()..=LONGEST.as_secs_f64()).contains(&seconds) {
        return Err(entry.error("seconds", &format!("expected {expected}")));
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// Limits that never hold, and windows in which very many calls count.
fn warn(params: &Section<'_>, limits: &[NamedLimit]) {
    for limit in limits.iter().filter(|limit| limit.is_window()) {
        let stricter = limits.iter().find(|other| {
            other.kind == limit.kind && other.length > limit.length && other.limit <= limit.limit
        });
        if let Some(other) = stricter {
            let (name, other) = (&limit.name, &other.name);
            let text = format!("{name} never holds: {other} allows no more in a longer window");
            params.tell(Kind::NO_EFFECT, limit.setting(), &text);
        }
    }
    let Some(longest) = limits.iter().max_by_key(|limit| limit.length) else {
        return;
    };
    let requests = limits
        .iter()
        .filter(|limit| limit.kind == LimitKind::Requests);
    let calls = requests.map(|limit| limit.most_within(longest.span)).min();
    if longest.length > LONG_WINDOW
        && let Some(calls) = calls.filter(|calls| *calls > MANY)
    {
        let text = format!(
            "up to {calls} calls count in this window, and each of them is kept until it leaves: about 25 MB for 100000 of them in Redis, \
             and 5 s of standstill after a loss of its data"
        );
        params.tell(Kind::LONG_WAIT, longest.setting(), &text);
    }
}

/// For tests: `rpm` and the like over a minute.
#[cfg(test)]
pub(crate) fn named(name: &'static str, limit: u64) -> NamedLimit {
    let mut all = SHORTHANDS.into_iter();
    match all.find(|(of, ..)| *of == name) {
        Some((_, kind, length)) => Windows::default().limit(name, kind, limit, length),
        None => concurrency(limit),
    }
}
