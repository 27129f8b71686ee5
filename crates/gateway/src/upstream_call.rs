//! What becomes of one upstream call, for metrics and traces.

use std::fmt;

use http::HeaderMap;
use vorrang_scheduler::Tokens;

use crate::{Endpoint, config::DeploymentSettings};

/// An upstream call that is about to be made: one attempt of a call.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct UpstreamCall<'a> {
    /// The group's name.
    pub group: &'a str,
    /// Where it goes.
    pub deployment: &'a DeploymentSettings,
    /// What it asks for.
    pub endpoint: Endpoint,
    /// What the upstream calls the model. Under a wildcard any text of a client, where [`DeploymentSettings::model`] is the file's.
    pub model: &'a str,
    /// Whether it asks for an event stream.
    pub streamed: bool,
}

/// How an upstream call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum UpstreamEnd {
    /// All of its answer came.
    Complete,
    /// It failed before its answer had begun, or its event stream said so.
    Failed {
        /// The answer's status, or that of an error in it; 0: no answer came.
        status: u16,
        /// A short stable text.
        cause: &'static str,
    },
    /// Its answer had begun and broke off.
    Broken,
    /// The caller left, or the router was closed.
    Abandoned,
}

/// Receives what becomes of one upstream call. Dropped without [`UpstreamEvents::ended`], it was abandoned before its answer began.
pub trait UpstreamEvents: Send + Sync + fmt::Debug {
    /// Adds headers that the upstream gets beside the gateway's own, for example `traceparent`.
    fn add_headers(&self, _headers: &mut HeaderMap) {}
    /// Its answer has begun: with its first event where it is streamed, else with the whole of it.
    fn began(&mut self, _status: u16) {}
    /// It is over. `used`: what the upstream says that it used; `None` where it says nothing.
    fn ended(&mut self, end: UpstreamEnd, used: Option<Tokens>);
}
