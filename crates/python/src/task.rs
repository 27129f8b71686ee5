//! A call on its way.

use std::future::Future;

use pyo3::prelude::*;
use tokio::{runtime::Handle, task::AbortHandle};

use crate::{
    inbox::{News, To},
    process::OfProcess,
};

/// A call on its way.
#[pyclass(frozen, module = "vorrang._vorrang")]
pub(crate) struct Task {
    handle: OfProcess<AbortHandle>,
}

#[pymethods]
impl Task {
    /// Ends the call: it leaves its queue, or its upstream call is cut off. Nothing happens where it has ended.
    fn cancel(&self) {
        // In a forked process nothing of it runs.
        if let Ok((handle, _)) = self.handle.get() {
            handle.abort();
        }
    }
}

impl Task {
    /// Runs a call, and reports what it returns.
    pub(crate) fn start(
        runtime: &Handle,
        to: To,
        call: impl Future<Output = News> + Send + 'static,
    ) -> Self {
        let unreported = Unreported(Some(to));
        let task = runtime.spawn(async move {
            let news = call.await;
            unreported.report(news);
        });
        let handle = OfProcess::new(task.abort_handle(), runtime.clone());
        Self { handle }
    }
}

/// Reports also when the call panics: whoever waits for it would wait for ever.
struct Unreported(Option<To>);

impl Unreported {
    fn report(mut self, news: News) {
        if let Some(to) = self.0.take() {
            to.send(news);
        }
    }
}

impl Drop for Unreported {
    fn drop(&mut self) {
        if let Some(to) = self.0.take() {
            to.send(News::Lost);
        }
    }
}
