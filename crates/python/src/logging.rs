//! Events of `tracing` on their way to Python's `logging`.
//!
//! A thread of Python's takes them: the threads that log never wait for the interpreter's lock.

use std::{
    collections::VecDeque,
    fmt::{self, Write as _},
    mem,
    sync::{
        Arc, Condvar, LazyLock, Mutex, Once, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
};

use arc_swap::ArcSwap;
use pyo3::prelude::*;
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
    subscriber::Interest,
};
use tracing_subscriber::{
    Layer,
    layer::{Context, SubscriberExt as _},
};

/// More are dropped: the oldest first.
const MOST: usize = 10_000;

/// Level as a number of `logging`, logger, message.
type Record = (u8, String, String);

#[derive(Default)]
struct Records {
    queue: Mutex<VecDeque<Record>>,
    arrived: Condvar,
}

/// Those of this process: a child gets others, as a fork may copy a lock that is held.
static RECORDS: LazyLock<ArcSwap<Records>> = LazyLock::new(ArcSwap::default);

/// The least level, as a number of `logging`.
static LEVEL: AtomicU8 = AtomicU8::new(WARNING);

const WARNING: u8 = 30;

/// Waits until there are records.
#[pyfunction]
pub(crate) fn wait_for_records(py: Python<'_>) {
    let records = RECORDS.load_full();
    py.detach(|| {
        let queue = records.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = records.arrived.wait_while(queue, |queue| queue.is_empty());
        drop(waited);
    });
}

/// Takes the records that are there: levels, loggers, messages.
#[pyfunction]
pub(crate) fn take_records() -> Vec<Record> {
    let records = RECORDS.load_full();
    let mut queue = records.queue.lock().unwrap_or_else(PoisonError::into_inner);
    mem::take(&mut *queue).into()
}

/// In a child, after a fork: its parent's records are not its own.
#[pyfunction]
pub(crate) fn forget_records() {
    mem::forget(RECORDS.swap(Arc::default()));
}

/// From now on records of this level (a number of `logging`) and above are kept.
#[pyfunction]
pub(crate) fn set_log_level(level: u32) {
    static SUBSCRIBED: Once = Once::new();
    LEVEL.store(u8::try_from(level).unwrap_or(u8::MAX), Ordering::Relaxed);
    SUBSCRIBED.call_once(|| {
        let subscriber = tracing_subscriber::registry().with(ToPython);
        // This library has a `tracing` of its own: no other library can have set one.
        _ = tracing::subscriber::set_global_default(subscriber);
    });
}

struct ToPython;

impl<S: Subscriber> Layer<S> for ToPython {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if is_ours(metadata) {
            Interest::sometimes()
        } else {
            Interest::never()
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        is_ours(metadata) && number(*metadata.level()) >= LEVEL.load(Ordering::Relaxed)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::TRACE)
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut text = Text::default();
        event.record(&mut text);
        let metadata = event.metadata();
        let logger = metadata.target().replacen('_', ".", 1).replace("::", ".");
        let record = (
            number(*metadata.level()),
            logger,
            text.message + &text.fields,
        );
        let records = RECORDS.load();
        let mut queue = records.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.len() == MOST {
            queue.pop_front();
        }
        queue.push_back(record);
        drop(queue);
        records.arrived.notify_one();
    }
}

fn is_ours(metadata: &Metadata<'_>) -> bool {
    metadata.is_event() && metadata.target().starts_with("vorrang_")
}

/// As `logging` counts; its numbers have none for what is below `DEBUG`.
fn number(level: Level) -> u8 {
    match level {
        Level::ERROR => 40,
        Level::WARN => WARNING,
        Level::INFO => 20,
        Level::DEBUG => 10,
        Level::TRACE => 5,
    }
}

/// An event's message, and its other fields as ` name=value`.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // A String takes everything.
        _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}
