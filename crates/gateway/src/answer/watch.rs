//! What happens to an answer after it has begun still counts for its deployment's health.

use std::sync::LazyLock;

use memchr::memmem::Finder;

use crate::provider::inband::error_in;
use crate::{
    codec::{
        coding::{self, Coding},
        sse::EventDecoder,
    },
    provider::retry::{Consequence, Cooling, Failure, Hints},
};

/// What each error has in its name or its data.
static ERROR: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("error"));

/// Watches the rest of one answer. By default it sees nothing.
#[derive(Debug, Default)]
pub(crate) struct Watch(Option<Watching>);

#[derive(Debug)]
struct Watching {
    deployment: String,
    cooling: Cooling,
    /// `None`: the answer is no event stream.
    events: Option<EventStream>,
    /// A time-out is the deployment's failure, and not only the end of the request's time.
    own_time: bool,
}

#[derive(Debug)]
struct EventStream {
    coding: Option<coding::Decoder>,
    decoder: EventDecoder,
}

impl Watch {
    /// `events`: the answer is an event stream, and passes in this coding.
    pub(crate) fn new(
        deployment: &str,
        cooling: Cooling,
        events: Option<Option<Coding>>,
        own_time: bool,
    ) -> Self {
        Self(Some(Watching {
            deployment: deployment.to_owned(),
            cooling,
            events: events.map(|coding| EventStream {
                coding: coding.map(coding::Decoder::new),
                decoder: EventDecoder::default(),
            }),
            own_time,
        }))
    }

    /// Takes the next bytes; gives the failure that they report. At most one failure is counted for an answer.
    pub(crate) fn passed(&mut self, bytes: &[u8]) -> Option<Failure> {
        let watching = self.0.as_mut()?;
        let mut error = None;
        let EventStream { coding, decoder } = watching.events.as_mut()?;
        let mut each = |bytes: &[u8]| {
            decoder.feed_with(&ERROR, bytes, |event| {
                if error.is_none() {
                    error = error_in(&event.data, event.name == b"error");
                }
            });
        };
        match coding {
            None => each(bytes),
            Some(coding) => {
                let read = coding.feed(bytes, |bytes| {
                    each(bytes);
                    Ok(())
                });
                if read.is_err() {
                    // The client finds out when it decodes the answer.
                    watching.events = None;
                }
            }
        }
        let status = error?.status;
        let watching = self.0.take()?;
        tracing::warn!(
            deployment = watching.deployment,
            status = status.as_u16(),
            "the upstream reported an error after its answer had begun"
        );
        Consequence::of_status(status, Hints::default(), watching.cooling).failure
    }

    /// The answer broke off, or the upstream was silent for too long.
    pub(crate) fn broken(&mut self) -> Option<Failure> {
        self.0.take()?;
        Consequence::SILENCE.failure
    }

    /// The time for the answer is over.
    pub(crate) fn timed_out(&mut self) -> Option<Failure> {
        self.0.take_if(|watching| watching.own_time)?;
        Consequence::SILENCE.failure
    }
}
