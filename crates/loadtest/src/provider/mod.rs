//! An OpenAI-compatible provider: limits, latency and faults like a real one's, and a record of its calls.
//!
//! `POST /v1/chat/completions` and `/v1/completions`, streamed or not. Beside them, to control a test:
//! `GET /report` ([`Report`]), `POST /reset` (forget all that came), `POST /faults` ([`FaultRule`]s instead of those in force),
//! `GET /health`.

mod answer;
mod ledger;
mod limits;
mod record;
mod server;

pub use self::{
    limits::{Charge, Kind, Meter, Tally, Violation},
    record::{Arrival, Counts, Outcome, Report},
    server::Provider,
};
pub use vorrang_scenario::{
    faults::{Fault, FaultRule, Faults},
    settings::{Limits, Settings},
};
