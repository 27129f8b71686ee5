//! What becomes of one upstream call goes to the metrics.

use std::sync::Arc;

use vorrang_gateway::{UpstreamCall, UpstreamEnd, UpstreamEvents};
use vorrang_scheduler::Tokens;

use crate::{
    metrics::{Metrics, gen_ai::UpstreamMeter},
    record::Record,
};

/// One upstream call of a request.
#[derive(Debug)]
pub(crate) struct WatchedCall {
    metrics: Arc<Metrics>,
    meter: UpstreamMeter,
    ended: bool,
}

impl WatchedCall {
    pub(crate) fn new(record: &Record, call: &UpstreamCall<'_>) -> Self {
        Self {
            metrics: record.metrics.clone(),
            meter: record.metrics.gen_ai.calls(call, record.came),
            ended: false,
        }
    }
}

impl UpstreamEvents for WatchedCall {
    fn began(&mut self, _: u16) {
        self.metrics.gen_ai.began(&self.meter);
    }

    fn ended(&mut self, end: UpstreamEnd, used: Option<Tokens>) {
        self.ended = true;
        self.metrics.gen_ai.ended(&self.meter, end, used);
    }
}

impl Drop for WatchedCall {
    fn drop(&mut self) {
        if !self.ended {
            self.ended(UpstreamEnd::Abandoned, None);
        }
    }
}
