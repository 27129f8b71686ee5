//! LiteLLM's settings: what each means here, and those that are refused.

pub(super) mod refused;
pub(super) mod settings;
