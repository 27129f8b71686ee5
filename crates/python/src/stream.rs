//! The events of a streamed answer.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};
use pyo3::prelude::*;
use tokio::sync::Mutex;
use vorrang_gateway::EventStream;

use crate::{
    errors::Failure,
    inbox::{End, News, To},
    process::{OfProcess, runtime},
    task::Task,
};

/// Events that have come already are given together, at most so many.
const MOST_AT_ONCE: usize = 256;

/// The events of a streamed answer. Without it the call ends.
#[pyclass(frozen, module = "vorrang._vorrang")]
pub(crate) struct Events {
    stream: OfProcess<Arc<Mutex<Option<EventStream>>>>,
    provider: Option<&'static str>,
}

impl Events {
    pub(crate) fn new(stream: EventStream, provider: Option<&'static str>) -> PyResult<Self> {
        let stream = Arc::new(Mutex::new(Some(stream)));
        let stream = OfProcess::new(stream, runtime()?);
        Ok(Self { stream, provider })
    }
}

#[pymethods]
impl Events {
    /// Reads the next events, and reports them.
    fn next(&self, to: To) -> PyResult<Task> {
        let (stream, runtime) = self.stream.get()?;
        let (stream, provider) = (stream.clone(), self.provider);
        Ok(Task::start(runtime, to, async move {
            match stream.lock().await.as_mut() {
                Some(stream) => read(stream, provider).await,
                None => News::Events(Vec::new(), Some(End::Whole)),
            }
        }))
    }

    /// Ends the call.
    fn close(&self) {
        // In a forked process nothing of it runs.
        if let Ok((stream, runtime)) = self.stream.get() {
            let stream = stream.clone();
            drop(runtime.spawn(async move { drop(stream.lock().await.take()) }));
        }
    }
}

/// Waits for one event, and takes those that have come with it.
async fn read(stream: &mut EventStream, provider: Option<&'static str>) -> News {
    let mut events: Vec<Bytes> = Vec::new();
    let mut next = Some(stream.next().await);
    while let Some(item) = next {
        match item {
            None => return News::Events(events, Some(End::Whole)),
            Some(Err(error)) => {
                let failure = Failure::of(error, &stream.info, provider);
                return News::Events(events, Some(End::Failed(Box::new(failure))));
            }
            Some(Ok(event)) => events.push(event),
        }
        next = if events.len() < MOST_AT_ONCE {
            stream.next().now_or_never()
        } else {
            None
        };
    }
    News::Events(events, None)
}
