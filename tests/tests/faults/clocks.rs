//! Clocks that are wrong.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;
use vorrang_tests::{Redis, Upstream};

use crate::{
    fleet::{Fleet, limited},
    load::Rules,
    pace::PACE,
};

/// `libfaketime`, as Debian installs it.
fn library() -> Result<PathBuf> {
    let found = fs::read_dir("/usr/lib")?.filter_map(|entry| {
        let path = entry.ok()?.path().join("faketime/libfaketimeMT.so.1");
        path.is_file().then_some(path)
    });
    found
        .last()
        .context("there is no libfaketime: apt-get install faketime")
}

/// A1, A3, P6, P12: the instances' clocks are an hour apart, and jump by hours in both directions. No rule depends on
/// them, not even on the age of an event when the state is lost.
#[tokio::test]
async fn clock_offsets_and_jumps_of_instances_lose_nothing_and_break_no_limit() -> Result<()> {
    let (redis, upstream) = (Redis::start().await?, Upstream::start().await?);
    let config = limited(&upstream, &redis.url());
    let (library, clocks) = (library()?, TempDir::new()?);
    let clock = |index: usize| clocks.path().join(index.to_string());
    let set = |index: usize, hours: i64| -> Result<()> {
        // Written to another file first: a reader must not see half of it.
        let new = clocks.path().join("new");
        fs::write(&new, format!("{:+}s\n", hours * 3600))?;
        Ok(fs::rename(new, clock(index))?)
    };
    for (index, hours) in [-1, 0, 1].into_iter().enumerate() {
        set(index, hours)?;
    }
    let files: Vec<PathBuf> = (0..3).map(clock).collect();
    let setup = Box::new(move |index: usize| {
        let file = files[index].display().to_string();
        let env = vec![
            ("LD_PRELOAD", library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", file),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            // The test sets only clocks that can be set.
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ];
        (config.clone(), env)
    });
    let fleet = Fleet::with(redis, upstream, 3, setup).await?;
    let load = fleet.load("r");
    load.progress(10).await?;
    for (index, hours) in [(0, 2), (1, -3), (2, -1), (0, -2), (1, 3), (2, 0)] {
        fleet.full().await?;
        set(index, hours)?;
        fleet.redis.flush().await?;
        load.progress(PACE.limit / 2).await?;
    }
    // The logs' times are those of the instances' clocks.
    let rules = Rules {
        dispatches: false,
        standstill: PACE.standstill() + 2 * PACE.window,
        ..Rules::default()
    };
    let summary = fleet.judge(load, rules).await?;
    ensure!(summary.died == 0, "{summary:?}");
    let times: Vec<u64> = fleet.gateways[0].dispatches()?;
    let jumps = times
        .windows(2)
        .filter(|pair| pair[0].abs_diff(pair[1]) > 3_000_000_000);
    ensure!(jumps.count() >= 2, "the clock did not jump");
    Ok(())
}
