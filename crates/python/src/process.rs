//! What belongs to one process: tokio's threads do not survive a fork.

use std::{
    mem,
    process::id,
    sync::{Mutex, PoisonError},
};

use pyo3::{PyResult, exceptions::PyRuntimeError};
use tokio::runtime::{Builder, Handle, Runtime};

/// More are of no use: they only move bytes.
const MOST_WORKERS: usize = 4;

/// The runtime of the process with this id. Locked only by threads that hold the interpreter's lock, as one that forks
/// does: no child inherits it locked.
static RUNTIME: Mutex<Option<(u32, Runtime)>> = Mutex::new(None);

/// The runtime of this process. It is never shut down: its threads end with the process.
pub(crate) fn runtime() -> PyResult<Handle> {
    let mut current = RUNTIME.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((process, runtime)) = &*current
        && *process == id()
    {
        return Ok(runtime.handle().clone());
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let made = Builder::new_multi_thread()
        .worker_threads(cores.min(MOST_WORKERS))
        .thread_name("vorrang")
        .enable_all()
        .build()?;
    let handle = made.handle().clone();
    // Dropping a parent's runtime would wait for threads that are not in this process.
    mem::forget(current.replace((id(), made)));
    Ok(handle)
}

/// A value whose tasks run in the process that made it. In another one it can be neither used nor dropped.
#[derive(Debug)]
pub(crate) struct OfProcess<T> {
    process: u32,
    inner: Option<(T, Handle)>,
}

impl<T> OfProcess<T> {
    /// Of this process. `runtime` is entered to drop the value.
    pub(crate) fn new(value: T, runtime: Handle) -> Self {
        Self {
            process: id(),
            inner: Some((value, runtime)),
        }
    }

    /// The value and its runtime.
    ///
    /// # Errors
    /// `RuntimeError` in a process that was forked since.
    pub(crate) fn get(&self) -> PyResult<&(T, Handle)> {
        let here = self.inner.as_ref().filter(|_| self.process == id());
        here.ok_or_else(|| {
            PyRuntimeError::new_err(format!(
                "this Router was made in process {}, and this is process {}: a fork does not copy its threads. \
                 Make a Router after the fork",
                self.process,
                id()
            ))
        })
    }
}

impl<T> Drop for OfProcess<T> {
    fn drop(&mut self) {
        match self.inner.take() {
            Some((value, runtime)) if self.process == id() => {
                let _entered = runtime.enter();
                drop(value);
            }
            inherited => mem::forget(inherited),
        }
    }
}
