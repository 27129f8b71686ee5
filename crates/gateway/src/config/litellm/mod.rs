//! LiteLLM's settings that are not served here. Those that ask for something safer than is done here are errors, the others warnings.

pub(super) mod refused;
pub(super) mod unserved;
