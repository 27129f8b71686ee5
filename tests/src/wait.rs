//! Waiting for a state instead of sleeping.

use std::{fmt::Debug, future::Future, time::Duration};

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep};

/// The longest wait for a state. Far longer than any state takes, so that no test fails on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Looks every 10 ms until `holds` is true of what `look` returns, and returns that.
///
/// # Errors
/// `look` fails, or [`PATIENCE`] is over.
pub async fn until<T, F>(
    what: &str,
    look: impl FnMut() -> F,
    holds: impl Fn(&T) -> bool,
) -> Result<T>
where
    T: Debug,
    F: Future<Output = Result<T>>,
{
    until_within(PATIENCE, what, look, holds).await
}

/// The same, with a patience of its own: for what is due at a known time, and for what takes longer by design.
///
/// # Errors
/// `look` fails, or `patience` is over.
pub async fn until_within<T, F>(
    patience: Duration,
    what: &str,
    mut look: impl FnMut() -> F,
    holds: impl Fn(&T) -> bool,
) -> Result<T>
where
    T: Debug,
    F: Future<Output = Result<T>>,
{
    let start = Instant::now();
    loop {
        let seen = look().await?;
        if holds(&seen) {
            return Ok(seen);
        }
        if start.elapsed() > patience {
            bail!("waited {patience:?} for {what}; last seen: {seen:?}");
        }
        sleep(Duration::from_millis(10)).await;
    }
}
