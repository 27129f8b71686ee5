//! Keys: authentication, and what one key may use of this process.

pub(crate) mod auth;
pub(crate) mod body_budget;
