//! The native half of the Python package `vorrang`: the gateway's [`Router`](vorrang_gateway::Router) for Python.
//!
//! Python's half makes OpenAI's objects of what is given to it here. Calls run on tokio's threads, which never touch
//! Python: what they have to say waits in an `Inbox` until the event loop, or the thread that called, takes
//! it.

mod errors;
mod inbox;
mod info;
mod logging;
mod permit;
mod process;
mod router;
mod status;
mod stream;
mod task;

use pyo3::pymodule;

/// Private: use the package `vorrang`.
#[pymodule]
mod _vorrang {
    #[pymodule_export]
    use crate::{
        inbox::{Inbox, Waiter},
        logging::{forget_records, set_log_level, take_records, wait_for_records},
        permit::NativePermit,
        router::Core,
        stream::Events,
        task::Task,
    };
}
