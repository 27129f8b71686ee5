//! The providers that deployments are served by: their HTTP client, what their failures mean, and the mock.

pub(crate) mod anthropic;
pub(crate) mod aws;
pub(crate) mod aws_chain;
pub(crate) mod aws_events;
pub(crate) mod cause;
pub(crate) mod claude_models;
pub(crate) mod client;
pub(crate) mod endpoints;
pub(crate) mod entra;
pub(crate) mod error_body;
pub(crate) mod forwarded;
pub(crate) mod gemini_models;
pub(crate) mod hosts;
pub(crate) mod http;
pub(crate) mod in_process;
pub(crate) mod inband;
pub(crate) mod mock;
mod mock_messages;
mod mock_others;
pub(crate) mod openai_models;
pub(crate) mod refusal;
pub(crate) mod retry;
pub(crate) mod secrets;
pub(crate) mod table;
pub(crate) mod tokens;
mod words;
