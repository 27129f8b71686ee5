//! Pacing, reserves and aging over three instances on one Redis (docs/scheduling.md). How long somebody waits is measured by load tests; here it is
//! what goes when.

use anyhow::{Result, ensure};
use vorrang_tests::referee::{fullest_window, inversions};

use crate::fleet::{Fleet, GUARD, LIMIT, PRIORITIES, WINDOW};

/// What a busy machine may move from one part of a window to the next.
const LATE: usize = 4;

impl Fleet {
    /// When calls were dispatched, microseconds, in order.
    fn dispatched(&self) -> Result<Vec<u64>> {
        let mut times = Vec::new();
        for gateway in &self.gateways {
            times.extend(gateway.dispatches()?);
        }
        times.sort_unstable();
        Ok(times)
    }
}

/// Issue 4, pacing: a backlog goes evenly, and no slot is lost by it; without pacing the whole window goes at once.
#[tokio::test]
async fn a_backlog_is_paced_over_all_instances() -> Result<()> {
    let part = WINDOW / 4;
    let most = LIMIT / 4 + 2 + LATE;
    let at_once = Fleet::with(&[]).await?;
    let replies = at_once.send("r", LIMIT, &[0, 1, 2], &[1000]);
    at_once.judge("r", replies).await?;
    let fullest = fullest_window(&at_once.dispatched()?, part);
    ensure!(fullest > most, "{fullest} without pacing");

    let fleet = Fleet::with(&["pace_worse_than: 0"]).await?;
    let replies = fleet.send("r", 2 * LIMIT, &[0, 1, 2], &[1, 1000]);
    fleet.judge("r", replies).await?;
    let fullest = fullest_window(&fleet.dispatched()?, part);
    ensure!(fullest <= most, "{fullest} in a quarter of a window");
    // Those that are not paced go at once, and the windows stay whole.
    let replies = fleet.send("urgent", LIMIT, &[0, 1, 2], &[-5, 0]);
    fleet.judge("urgent", replies).await?;
    fleet.windows().await?;
    Ok(())
}

/// Issue 4, reserve: of the first window a fifth is left by the batch jobs, and who is urgent finds it.
#[tokio::test]
async fn a_reserve_is_left_by_all_instances() -> Result<()> {
    let fleet = Fleet::with(&["groups: {model: {reserve: {priority: 0, share: 0.2}}}"]).await?;
    let left = LIMIT / 5;
    let jobs = fleet.send("job", 2 * LIMIT, &[0, 1], &[1000]);
    fleet.upstream.seen(LIMIT - left).await?;
    let users = fleet.send("user", left, &[2], &[0]);
    fleet.judge("user", users).await?;
    fleet.judge("job", jobs).await?;
    fleet.windows().await?;
    let calls = fleet.upstream.calls().await?;
    let mut times = Vec::new();
    for call in calls.iter().filter(|call| call.user().starts_with("job")) {
        times.push(call.at);
    }
    let fullest = fullest_window(&times, WINDOW - GUARD);
    ensure!(fullest <= LIMIT - left, "{fullest} jobs in a window");
    Ok(())
}

/// Issue 4, aging; A1: by the score that tickets tell nobody is inverted, by the priority alone some are.
#[tokio::test]
async fn with_aging_the_order_is_that_of_the_scores() -> Result<()> {
    let fleet = Fleet::with(&["groups: {model: {aging_seconds: 0.0001}}"]).await?;
    let used = fleet.send("used", LIMIT, &[0, 1, 2], &[0]);
    fleet.judge("used", used).await?;
    let each = 15;
    let early = fleet.send("early", 3 * each, &[0, 1, 2], &PRIORITIES);
    for gateway in &fleet.gateways {
        gateway.waiting(each as u32).await?;
    }
    // 13 levels are worth 1.3 ms: even those of 3 have come too long before.
    let late = fleet.send("late", LIMIT, &[0, 1, 2], &[-10, 3]);
    let mut passages = Vec::new();
    for reply in early.into_iter().chain(late) {
        passages.push(reply.await??.ok()?.passage()?);
    }
    let inverted = inversions(&passages);
    ensure!(inverted.is_empty(), "{inverted:?}");
    for passage in &mut passages {
        passage.score = passage.priority.into();
    }
    ensure!(!inversions(&passages).is_empty(), "nobody has aged");
    fleet.windows().await?;
    Ok(())
}
