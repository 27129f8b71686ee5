//! When a dispatcher ends, and what happens when it panics.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, watch};
use vorrang_scheduler::{
    Deployment, Group, GroupConfig, LimitKind, Observer, Refused, Scheduler,
    backend::{Backend, BackendError, MemoryBackend, Wake},
    message::{Message, Op, Reply},
};

/// A backend that panics once on request, and shows when a session is closed.
#[derive(Debug)]
struct PanickingBackend {
    inner: MemoryBackend,
    panics: AtomicBool,
    closed: watch::Sender<bool>,
}

impl PanickingBackend {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            inner: MemoryBackend::new(),
            panics: false.into(),
            closed: watch::Sender::new(false),
        })
    }
}

impl Backend for PanickingBackend {
    fn step<'a>(
        &'a self,
        group: &'a str,
        message: &'a Message,
    ) -> BoxFuture<'a, Result<Reply, BackendError>> {
        assert!(
            !self.panics.swap(false, Ordering::SeqCst),
            "the test asked for a panic"
        );
        let closes = matches!(message.ops.last(), Some(Op::CloseSession { .. }));
        let reply = self.inner.step(group, message);
        self.closed
            .send_if_modified(|closed| std::mem::replace(closed, closes) != closes);
        reply
    }

    fn wakes(&self, instance: &str) -> mpsc::UnboundedReceiver<Wake> {
        self.inner.wakes(instance)
    }

    fn check(&self) -> BoxFuture<'_, Result<(), BackendError>> {
        self.inner.check()
    }
}

#[derive(Debug, Default)]
struct CountReplaced(AtomicU64);

impl Observer for CountReplaced {
    fn dispatcher_replaced(&self, _: &str) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn config() -> GroupConfig {
    let limited = Deployment::new("a").limit(LimitKind::Requests, 2, Duration::from_secs(60));
    GroupConfig::new(vec![limited])
}

async fn ready(group: &Group) {
    while !group.status().ready {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn dispatcher_closes_its_session_and_ends_when_all_handles_are_dropped() {
    let backend = PanickingBackend::new();
    let scheduler = Scheduler::new(backend.clone(), "one", Arc::new(CountReplaced::default()));
    let group = scheduler.open("g", &config());
    ready(&group).await;
    let permit = group.join(0, 0).granted().await.unwrap();
    let call = permit.dispatch().unwrap();
    let mut closed = backend.closed.subscribe();
    drop((scheduler, group));
    let early = tokio::time::timeout(Duration::from_secs(30), closed.changed());
    assert!(early.await.is_err(), "the call needs the dispatcher");
    drop(call);
    closed.changed().await.unwrap();
    // The dispatcher holds the other reference until it ends.
    while Arc::strong_count(&backend) > 1 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn panicked_dispatcher_is_replaced_and_keeps_its_tickets() {
    let backend = PanickingBackend::new();
    let observer = Arc::new(CountReplaced::default());
    let scheduler = Scheduler::new(backend.clone(), "one", observer.clone());
    let group = scheduler.open("g", &config());
    ready(&group).await;
    let permit = group.join(0, 0).granted().await.unwrap();
    let call = permit.dispatch().unwrap();
    let lost = group.join(0, 0).granted().await.unwrap();
    let mut ticket = group.join(0, 0);
    assert!(
        tokio::time::timeout(Duration::from_secs(2), ticket.granted())
            .await
            .is_err()
    );
    backend.panics.store(true, Ordering::SeqCst);
    while observer.0.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(!group.status().ready);
    // The slot of the replaced dispatcher's grant may have been granted to another instance.

    assert!(lost.dispatch().is_err());
    drop(call);
    ready(&group).await;
    let permit = ticket.granted().await.unwrap();
    assert_eq!(permit.deployment(), 0);
    assert_eq!(observer.0.load(Ordering::SeqCst), 1);
    drop(permit);
    scheduler.close(Duration::from_secs(1)).await;
    assert_eq!(
        group.join(0, 0).granted().await.err(),
        Some(Refused::Closed)
    );
}
