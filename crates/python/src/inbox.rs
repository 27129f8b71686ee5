//! How calls report to Python: to an event loop, which is woken by a socket, or to a thread, which waits.
//!
//! The threads that make calls only push to a queue. They never wait for the interpreter's lock: whoever holds it for
//! long delays no heartbeat.

use std::{
    io::{Read as _, Write as _},
    mem,
    os::{fd::AsRawFd as _, unix::net::UnixStream},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, RecvTimeoutError},
    },
    time::Duration,
};

use bytes::Bytes;
use http::HeaderMap;
use pyo3::{
    exceptions::PyTimeoutError,
    prelude::*,
    types::{PyBytes, PyList, PyTuple},
};
use tokio::time::Instant;
use vorrang_gateway::{CallPermit, EventStream, Response};

use crate::{
    errors::Failure,
    info,
    permit::NativePermit,
    process::{OfProcess, runtime},
    stream::Events,
};

/// How often a thread that waits looks for signals, such as that of Ctrl-C.
const LOOK_FOR_SIGNALS: Duration = Duration::from_millis(100);

/// What a call reports.
pub(crate) enum News {
    /// It waits in a queue.
    Waiting {
        group: String,
        priority: i32,
        ahead: u64,
        least_wait: Duration,
    },
    /// The whole answer, and its provider.
    Answer(Response, Option<&'static str>),
    /// An answer's events can be read. Their provider.
    Stream(EventStream, Option<&'static str>),
    /// The events that had come, and how the stream ended, if it did.
    Events(Vec<Bytes>, Option<End>),
    /// A call can be made.
    Permit(Box<CallPermit>, Option<&'static str>),
    /// It is done, and there is nothing to say.
    Done,
    /// There is no answer.
    Failed(Box<Failure>),
    /// Its task ended without a report.
    Lost,
}

/// How a stream ended.
pub(crate) enum End {
    Whole,
    Failed(Box<Failure>),
}

impl News {
    /// A tuple whose first item is the kind.
    fn into_python(self, py: Python<'_>) -> PyResult<Bound<'_, PyTuple>> {
        match self {
            Self::Waiting {
                group,
                priority,
                ahead,
                least_wait,
            } => ("waiting", group, priority, ahead, least_wait.as_secs_f64()).into_pyobject(py),
            Self::Answer(response, provider) => {
                let Response {
                    bytes,
                    headers,
                    info,
                    ..
                } = response;
                let hidden = info::of_call(py, &info, &headers, provider)?;
                ("answer", PyBytes::new(py, &bytes), hidden).into_pyobject(py)
            }
            Self::Stream(stream, provider) => {
                let hidden = info::of_call(py, &stream.info, &stream.headers, provider)?;
                ("stream", Events::new(stream, provider)?, hidden).into_pyobject(py)
            }
            Self::Events(events, end) => {
                let events = events.iter().map(|event| PyBytes::new(py, event));
                let events = PyList::new(py, events.collect::<Vec<_>>())?;
                let (ended, failure) = match end {
                    None => (false, None),
                    Some(End::Whole) => (true, None),
                    Some(End::Failed(failure)) => (true, Some(failure.into_python(py)?)),
                };
                ("events", events, ended, failure).into_pyobject(py)
            }
            Self::Permit(permit, provider) => {
                let hidden = info::of_call(py, &permit.info, &HeaderMap::new(), provider)?;
                ("permit", NativePermit::new(*permit)?, hidden).into_pyobject(py)
            }
            Self::Done => ("done",).into_pyobject(py),
            Self::Failed(failure) => ("failed", failure.into_python(py)?).into_pyobject(py),
            Self::Lost => ("lost",).into_pyobject(py),
        }
    }
}

/// Where a call reports to.
#[derive(Clone)]
pub(crate) enum To {
    Loop(Arc<Queue>, u64),
    Thread(mpsc::Sender<News>),
}

impl To {
    pub(crate) fn send(&self, news: News) {
        match self {
            Self::Loop(queue, call) => queue.push(*call, news),
            // It has given up waiting otherwise.
            Self::Thread(thread) => drop(thread.send(news)),
        }
    }
}

impl<'py> FromPyObject<'_, 'py> for To {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        if let Ok(waiter) = object.cast::<Waiter>() {
            return Ok(Self::Thread(waiter.get().sender.clone()));
        }
        let (inbox, call): (Bound<'py, Inbox>, u64) = object.extract()?;
        Ok(Self::Loop(inbox.get().queue.get()?.0.clone(), call))
    }
}

/// News for an event loop, by the numbers of their calls.
pub(crate) struct Queue {
    news: Mutex<Vec<(u64, News)>>,
    /// Readable while there are news.
    wake: UnixStream,
    woken: UnixStream,
}

impl Queue {
    fn push(&self, call: u64, news: News) {
        let mut all = self.news.lock().unwrap_or_else(PoisonError::into_inner);
        let wakes = all.is_empty();
        all.push((call, news));
        drop(all);
        if wakes {
            // It is full only if it is readable.
            _ = (&self.wake).write(&[1]);
        }
    }
}

/// What the calls of one event loop report.
#[pyclass(frozen, module = "vorrang._vorrang")]
pub(crate) struct Inbox {
    queue: OfProcess<Arc<Queue>>,
}

#[pymethods]
impl Inbox {
    #[new]
    fn new() -> PyResult<Self> {
        let (wake, woken) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        let news = Mutex::default();
        let queue = Arc::new(Queue { news, wake, woken });
        let queue = OfProcess::new(queue, runtime()?);
        Ok(Self { queue })
    }

    /// A descriptor that is readable while there are news.
    fn fileno(&self) -> PyResult<i32> {
        Ok(self.queue.get()?.0.woken.as_raw_fd())
    }

    /// All news since the last time: pairs of a call's number and a tuple whose first item is their kind.
    fn take<'py>(&self, py: Python<'py>) -> PyResult<Vec<(u64, Bound<'py, PyTuple>)>> {
        let queue = &self.queue.get()?.0;
        let mut bytes = [0; 64];
        while (&queue.woken).read(&mut bytes).is_ok_and(|read| read > 0) {}
        let mut all = queue.news.lock().unwrap_or_else(PoisonError::into_inner);
        let news = mem::take(&mut *all);
        drop(all);
        let news = news.into_iter();
        news.map(|(call, news)| Ok((call, news.into_python(py)?)))
            .collect()
    }
}

/// What one call of a thread reports.
#[pyclass(frozen, module = "vorrang._vorrang")]
pub(crate) struct Waiter {
    sender: mpsc::Sender<News>,
    receiver: Mutex<mpsc::Receiver<News>>,
}

#[pymethods]
impl Waiter {
    #[new]
    fn new() -> Self {
        let (sender, receiver) = mpsc::channel();
        let receiver = Mutex::new(receiver);
        Self { sender, receiver }
    }

    /// The next news. Other threads run meanwhile. Raises what a signal's handler raises, and `TimeoutError` after so
    /// many seconds.
    #[pyo3(signature = (timeout=None))]
    fn wait<'py>(&self, py: Python<'py>, timeout: Option<f64>) -> PyResult<Bound<'py, PyTuple>> {
        let end = timeout.map(|seconds| {
            Instant::now() + Duration::try_from_secs_f64(seconds).unwrap_or_default()
        });
        loop {
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Err(PyTimeoutError::new_err("no news"));
            }
            let look = left.unwrap_or(LOOK_FOR_SIGNALS).min(LOOK_FOR_SIGNALS);
            let received = py.detach(|| {
                let receiver = self.receiver.lock();
                let receiver = receiver.unwrap_or_else(PoisonError::into_inner);
                receiver.recv_timeout(look)
            });
            match received {
                Ok(news) => return news.into_python(py),
                Err(RecvTimeoutError::Disconnected) => return News::Lost.into_python(py),
                Err(RecvTimeoutError::Timeout) => py.check_signals()?,
            }
        }
    }
}
