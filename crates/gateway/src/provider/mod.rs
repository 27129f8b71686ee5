//! The providers that deployments are served by: their HTTP client, their errors, their secrets, and the mock.

mod cause;
pub(crate) mod client;
mod connect;
pub(crate) mod error_body;
pub(crate) mod mock;
pub(crate) mod secrets;
