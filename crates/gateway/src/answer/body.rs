//! An answer's bytes on their way to the client.

use std::{
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream::BoxStream;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};
use vorrang_scheduler::ActiveCall;

use crate::{
    UpstreamEnd, UpstreamEvents,
    answer::watch::Watch,
    tokens::{
        MeanCompletion,
        usage::{Meter, Usage},
    },
};

/// What a broken answer body carries.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// An answer's bytes, chunk by chunk, as fast as they are taken. It holds the permit until its end or drop.
pub(crate) struct AnswerBody {
    chunks: Chunks,
    /// Bytes to come, where known.
    length: Option<u64>,
    usage: Meter,
    watch: Watch,
    bound: Bound,
    /// When it is over. Most answers come without a wait.
    sleep: Option<Pin<Box<Sleep>>>,
    /// The next chunk has been requested from the upstream. Otherwise the stream waits for the client.
    owed: bool,
    /// Ends with the last byte, not with the last reference to the answer.
    call: Option<ActiveCall>,
    mean: Arc<MeanCompletion>,
    watcher: Watcher,
}

/// Where the bytes come from.
pub(crate) enum Chunks {
    /// Nothing more comes.
    End,
    /// All of it is here.
    Whole(Bytes),
    Stream(BoxStream<'static, Result<Bytes, BoxError>>),
}

impl Chunks {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BoxError>>> {
        match self {
            Self::End => Poll::Ready(None),
            Self::Whole(bytes) => {
                let bytes = mem::take(bytes);
                *self = Self::End;
                Poll::Ready(Some(Ok(bytes)))
            }
            Self::Stream(chunks) => chunks.as_mut().poll_next(cx),
        }
    }
}

/// Who learns how the answer ends, and what it learns.
#[derive(Debug, Default)]
struct Watcher {
    /// `None`: there is none, or it has learnt it.
    events: Option<Box<dyn UpstreamEvents>>,
    /// What the upstream says that it used.
    used: Option<Usage>,
    /// The status of an error in the event stream.
    failed: Option<u16>,
    end: Option<UpstreamEnd>,
}

impl Watcher {
    /// The first end counts.
    fn ended(&mut self, end: UpstreamEnd) {
        let end = match self.failed {
            Some(status) => UpstreamEnd::Failed {
                status,
                cause: "error in a stream",
            },
            None => end,
        };
        self.end.get_or_insert(end);
        self.tell();
    }

    fn tell(&mut self) {
        if let Some(end) = self.end
            && let Some(mut events) = self.events.take()
        {
            events.ended(end, self.used.map(Into::into));
        }
    }
}

/// How long an answer may take.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Bound {
    /// Until then as a whole.
    Until(Instant),
    /// Without an end, but not silent for ever while it holds a permit. Time in which the client reads nothing does not count as silence.
    Idle,
}

/// A stream that is silent for so long is taken for dead: OpenAI's own SDKs give up on a silent connection then.
const LONGEST_SILENCE: Duration = Duration::from_secs(600);

impl AnswerBody {
    pub(crate) fn new(
        chunks: Chunks,
        length: Option<u64>,
        usage: Meter,
        watch: Watch,
        bound: Bound,
        call: impl Into<Option<ActiveCall>>,
        mean: Arc<MeanCompletion>,
    ) -> Self {
        Self {
            chunks,
            length,
            usage,
            watch,
            bound,
            sleep: None,
            owed: false,
            call: call.into(),
            mean,
            watcher: Watcher::default(),
        }
    }

    /// `events` learns how the upstream's part ends.
    pub(crate) fn watched_by(&mut self, events: Box<dyn UpstreamEvents>) {
        self.watcher.events = Some(events);
        self.watcher.tell();
    }

    /// What an answer without a report is known to use.
    pub(crate) fn used(&mut self, usage: Usage) {
        self.watcher.used = Some(usage);
    }

    /// An answer that is here as a whole: its permit goes back at once, however slowly the client reads.
    pub(crate) fn whole(
        bytes: Bytes,
        usage: Meter,
        call: ActiveCall,
        mean: Arc<MeanCompletion>,
    ) -> Self {
        let length = Some(bytes.len() as u64);
        let watch = Watch::default();
        let mut body = Self::new(Chunks::End, length, usage, watch, Bound::Idle, call, mean);
        body.read(&bytes);
        body.end_call(UpstreamEnd::Complete);
        body.usage = Meter::known();
        body.chunks = Chunks::Whole(bytes);
        body
    }

    /// An answer that no upstream has given.
    pub(crate) fn ours(bytes: Bytes) -> Self {
        let length = Some(bytes.len() as u64);
        let (usage, watch) = (Meter::known(), Watch::default());
        Self::new(
            Chunks::Whole(bytes),
            length,
            usage,
            watch,
            Bound::Idle,
            None,
            Arc::default(),
        )
    }

    fn passed(&mut self, chunk: &Bytes) {
        if let Some(length) = &mut self.length {
            *length = length.saturating_sub(chunk.len() as u64);
        }
        self.read(chunk);
        // The client may never read beyond the announced length.
        if self.length == Some(0) {
            self.end_call(UpstreamEnd::Complete);
        }
    }

    /// Reads usage and errors in passing bytes.
    fn read(&mut self, chunk: &Bytes) {
        if let Some(failure) = self.watch.passed(chunk)
            && let Some(call) = &mut self.call
        {
            call.failed(failure.status, failure.cool);
            self.watcher.failed = Some(failure.status);
        }
        if let (Some(usage), Some(call)) = (self.usage.feed(chunk), &mut self.call) {
            // At once: a client that leaves before the end has still used them.
            call.used_tokens(usage);
            self.watcher.used = Some(usage);
            self.mean.record(usage.output);
        }
    }
}

impl std::fmt::Debug for AnswerBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AnswerBody")
            .field("length", &self.length)
            .field("call", &self.call)
            .finish_non_exhaustive()
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let mut late = false;
        let next = match this.chunks.poll_next(cx) {
            Poll::Pending => {
                let end = match this.bound {
                    Bound::Until(end) => end,
                    Bound::Idle => Instant::now() + LONGEST_SILENCE,
                };
                let sleep = match &mut this.sleep {
                    Some(sleep) => {
                        if !this.owed && matches!(this.bound, Bound::Idle) {
                            sleep.as_mut().reset(end);
                        }
                        sleep
                    }
                    none => none.insert(Box::pin(tokio::time::sleep_until(end))),
                };
                this.owed = true;
                ready!(sleep.as_mut().poll(cx));
                late = true;
                Some(Err("the upstream took too long for its answer".into()))
            }
            Poll::Ready(next) => {
                this.owed = false;
                next
            }
        };
        Poll::Ready(match next {
            Some(Ok(chunk)) => {
                this.passed(&chunk);
                Some(Ok(Frame::data(chunk)))
            }
            // The head has been sent: an error breaks the connection, so that no client takes half an answer for a whole one.
            Some(Err(error)) => {
                let failure = match this.bound {
                    Bound::Until(_) if late => this.watch.timed_out(),
                    _ => this.watch.broken(),
                };
                if let (Some(failure), Some(call)) = (failure, &mut this.call) {
                    call.failed(failure.status, failure.cool);
                }
                this.end(UpstreamEnd::Broken);
                Some(Err(error))
            }
            None => {
                this.end(UpstreamEnd::Complete);
                None
            }
        })
    }

    fn size_hint(&self) -> SizeHint {
        self.length
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl AnswerBody {
    /// All of the answer, where it is here. It has ended then.
    pub(crate) fn take_whole(&mut self) -> Option<Bytes> {
        let Chunks::Whole(bytes) = &mut self.chunks else {
            return None;
        };
        let bytes = mem::take(bytes);
        self.passed(&bytes);
        self.end(UpstreamEnd::Complete);
        Some(bytes)
    }

    /// Done when the time for the whole answer is up, where there is one.
    pub(crate) fn time_up(&self) -> impl Future<Output = ()> + use<> {
        let bound = self.bound;
        async move {
            match bound {
                Bound::Until(end) => tokio::time::sleep_until(end).await,
                Bound::Idle => std::future::pending().await,
            }
        }
    }

    /// The upstream call is over: its connection and the permit go back now, whenever the body is dropped.
    fn end(&mut self, end: UpstreamEnd) {
        self.chunks = Chunks::End;
        self.end_call(end);
    }

    /// The permit goes back. An answer that did not report its usage counts by its text.
    fn end_call(&mut self, end: UpstreamEnd) {
        let whole = end == UpstreamEnd::Complete;
        if let Some(mut call) = self.call.take()
            && let Some(usage) = self.usage.estimate(whole)
        {
            call.used_tokens(usage);
            if whole {
                self.mean.record(usage.output);
            }
        }
        self.watcher.ended(end);
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        self.end_call(UpstreamEnd::Abandoned);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{StreamExt as _, stream};
    use http_body_util::BodyExt as _;
    use tokio::{sync::mpsc, time::sleep};
    use vorrang_scheduler::{
        Deployment, GroupConfig, NoObserver, Scheduler, backend::MemoryBackend,
    };

    use super::*;

    async fn streaming(chunks: mpsc::UnboundedReceiver<Bytes>) -> AnswerBody {
        let scheduler = Scheduler::new(Arc::new(MemoryBackend::new()), "one", Arc::new(NoObserver));
        let group = scheduler.open("group", &GroupConfig::new(vec![Deployment::new("a")]));
        let permit = group.join(0, 0).granted().await.unwrap();
        let call = permit.dispatch().unwrap();
        let chunks = stream::unfold(chunks, |mut chunks| async {
            let chunk = chunks.recv().await?;
            Some((Ok(chunk), chunks))
        });
        let mean = Arc::new(MeanCompletion::default());
        AnswerBody::new(
            Chunks::Stream(chunks.boxed()),
            None,
            Meter::known(),
            Watch::default(),
            Bound::Idle,
            call,
            mean,
        )
    }

    async fn next(body: &mut AnswerBody) -> Result<Bytes, String> {
        let frame = body.frame().await.unwrap();
        frame
            .map(|frame| frame.into_data().unwrap())
            .map_err(|error| error.to_string())
    }

    /// The next chunk, sent after a time.
    async fn after(time: Duration, upstream: &mpsc::UnboundedSender<Bytes>, body: &mut AnswerBody) {
        let send = async {
            sleep(time).await;
            upstream.send(Bytes::from_static(b"chunk")).unwrap();
        };
        let ((), chunk) = tokio::join!(send, next(body));
        assert_eq!(chunk.unwrap(), "chunk");
    }

    #[tokio::test(start_paused = true)]
    async fn silence_limit_excludes_pauses_of_the_reader() {
        const SECOND: Duration = Duration::from_secs(1);
        let (upstream, chunks) = mpsc::unbounded_channel();
        let mut body = streaming(chunks).await;
        after(LONGEST_SILENCE - SECOND, &upstream, &mut body).await;
        after(LONGEST_SILENCE - SECOND, &upstream, &mut body).await;

        // The reader pauses; then the next chunk takes a moment.
        sleep(2 * LONGEST_SILENCE).await;
        after(SECOND, &upstream, &mut body).await;

        sleep(LONGEST_SILENCE / 2).await;
        let since = Instant::now();
        let error = next(&mut body).await.unwrap_err();
        assert_eq!(error, "the upstream took too long for its answer");
        let silent = since.elapsed();
        assert!(
            silent >= LONGEST_SILENCE && silent < LONGEST_SILENCE + SECOND,
            "cut after {silent:?}"
        );
        assert!(body.call.is_none(), "the call has ended");
    }
}
