//! The right to make a call by oneself.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use pyo3::{
    exceptions::{PyRuntimeError, PyValueError},
    prelude::*,
};
use vorrang_gateway::CallPermit;

use crate::process::{OfProcess, runtime};

/// The right to make one call now. Without it the call has ended.
#[pyclass(frozen, module = "vorrang._vorrang")]
pub(crate) struct NativePermit {
    call: OfProcess<Mutex<Option<CallPermit>>>,
    #[pyo3(get)]
    deployment: String,
    #[pyo3(get)]
    model: String,
    #[pyo3(get)]
    api_base: Option<String>,
}

impl NativePermit {
    pub(crate) fn new(permit: CallPermit) -> PyResult<Self> {
        Ok(Self {
            deployment: permit.deployment().to_owned(),
            model: permit.model.clone(),
            api_base: permit.api_base.clone(),
            call: OfProcess::new(Mutex::new(Some(permit)), runtime()?),
        })
    }

    /// Takes the call for the end, or something of it.
    fn with<T>(&self, then: impl FnOnce(&mut Option<CallPermit>) -> T) -> PyResult<T> {
        let (call, runtime) = self.call.get()?;
        let _entered = runtime.enter();
        let mut call = call.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(then(&mut call))
    }

    fn open(&self, then: impl FnOnce(&mut CallPermit)) -> PyResult<()> {
        let done = self.with(|call| call.as_mut().map(then))?;
        done.ok_or_else(|| PyRuntimeError::new_err("the permit has ended"))
    }
}

#[pymethods]
impl NativePermit {
    /// The tokens that the call used.
    fn used(&self, input: u64, output: u64) -> PyResult<()> {
        self.open(|call| call.used((input, output)))
    }

    /// The call succeeded.
    fn succeeded(&self) -> PyResult<()> {
        self.open(CallPermit::succeeded)
    }

    /// The call failed with this status; 0: without an answer.
    fn failed(&self, status: u16) -> PyResult<()> {
        self.open(|call| call.failed(status))
    }

    /// The deployment cools for so many seconds.
    fn cooldown(&self, seconds: f64) -> PyResult<()> {
        let time = Duration::try_from_secs_f64(seconds)
            .map_err(|error| PyValueError::new_err(format!("seconds: {error}")))?;
        self.open(|call| call.cooldown(time))
    }

    /// Nothing was sent: the call ends, and its charge is refunded.
    fn not_sent(&self) -> PyResult<()> {
        self.with(|call| {
            if let Some(call) = call.take() {
                call.not_sent();
            }
        })
    }

    /// The call has ended.
    fn end(&self) -> PyResult<()> {
        self.with(|call| drop(call.take()))
    }
}
