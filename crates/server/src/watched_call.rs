//! What becomes of one upstream call goes to the metrics, to the request's trace, and to its line.

use std::sync::Arc;

use http::HeaderMap;
use tokio::time::Instant;
use vorrang_gateway::{UpstreamCall, UpstreamEnd, UpstreamEvents};
use vorrang_scheduler::Tokens;

use crate::{
    metrics::{Metrics, gen_ai::UpstreamMeter},
    record::Record,
    traces::UpstreamSpan,
};

/// One upstream call of a request.
#[derive(Debug)]
pub(crate) struct WatchedCall {
    record: Record,
    dispatched: Instant,
    metrics: Arc<Metrics>,
    meter: UpstreamMeter,
    span: Option<UpstreamSpan>,
    ended: bool,
}

impl WatchedCall {
    pub(crate) fn new(record: &Record, call: &UpstreamCall<'_>) -> Self {
        let trace = record.known().trace.clone();
        Self {
            record: record.clone(),
            dispatched: Instant::now(),
            metrics: record.metrics.clone(),
            meter: record.metrics.gen_ai.calls(call, record.came),
            span: trace.map(|trace| trace.calls(call)),
            ended: false,
        }
    }
}

impl UpstreamEvents for WatchedCall {
    fn add_headers(&self, headers: &mut HeaderMap) {
        if let Some(span) = &self.span {
            span.add_headers(headers);
        }
    }

    fn began(&mut self, status: u16) {
        self.metrics.gen_ai.began(&self.meter);
        if let Some(span) = &mut self.span {
            span.began(status);
        }
    }

    fn ended(&mut self, end: UpstreamEnd, used: Option<Tokens>) {
        self.ended = true;
        self.record.called(self.dispatched.elapsed(), used);
        self.metrics.gen_ai.ended(&self.meter, end, used);
        if let Some(span) = &mut self.span {
            span.ended(end, used);
        }
    }
}

impl Drop for WatchedCall {
    fn drop(&mut self) {
        if !self.ended {
            self.ended(UpstreamEnd::Abandoned, None);
        }
    }
}
