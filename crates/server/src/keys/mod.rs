//! Keys: who may call, and what one key may take of this process.

pub(crate) mod auth;
pub(crate) mod body_budget;
