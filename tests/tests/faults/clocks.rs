//! Clocks that are wrong.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;
use vorrang_tests::{Redis, Start, Upstream};

use crate::{
    fleet::{Fleet, limited},
    load::Rules,
    pace::PACE,
};

/// Clocks of processes that are wrong, and can be set while they run. Kept for as long as the processes.
#[derive(Debug)]
pub(crate) struct Clocks {
    /// `libfaketime`, as Debian installs it.
    library: PathBuf,
    files: TempDir,
}

impl Clocks {
    pub(crate) fn new() -> Result<Arc<Self>> {
        let found = fs::read_dir("/usr/lib")?.filter_map(|entry| {
            let path = entry.ok()?.path().join("faketime/libfaketimeMT.so.1");
            path.is_file().then_some(path)
        });
        let library = found
            .last()
            .context("there is no libfaketime: apt-get install faketime")?;
        let files = TempDir::new()?;
        Ok(Arc::new(Self { library, files }))
    }

    fn file(&self, index: usize) -> PathBuf {
        self.files.path().join(index.to_string())
    }

    /// Sets a clock to so many hours before or after the right time.
    pub(crate) fn set(&self, index: usize, hours: i64) -> Result<()> {
        // Written to another file first: a reader must not see half of it.
        let new = self.files.path().join("new");
        fs::write(&new, format!("{:+}s\n", hours * 3600))?;
        Ok(fs::rename(new, self.file(index))?)
    }

    /// The environment of a process with this clock.
    pub(crate) fn environment(&self, index: usize) -> Vec<(&'static str, String)> {
        vec![
            ("LD_PRELOAD", self.library.display().to_string()),
            (
                "FAKETIME_TIMESTAMP_FILE",
                self.file(index).display().to_string(),
            ),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            // Tests set only clocks that can be set.
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
    }
}

impl Drop for Clocks {
    /// The library shares memory by files that it leaves where its process is killed.
    fn drop(&mut self) {
        let Ok(files) = fs::read_dir("/dev/shm") else {
            return;
        };
        for file in files.flatten() {
            let name = file.file_name();
            let name = name.to_string_lossy();
            let of = name
                .strip_prefix("faketime_shm_")
                .or_else(|| name.strip_prefix("sem.faketime_sem_"));
            if of.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
                // Another test may have been faster.
                drop(fs::remove_file(file.path()));
            }
        }
    }
}

/// A1, A3, P6, P12: the instances' clocks are an hour apart, and jump by hours in both directions. No rule depends on
/// them, not even on the age of an event when the state is lost.
#[tokio::test]
async fn clock_offsets_and_jumps_of_instances_lose_nothing_and_break_no_limit() -> Result<()> {
    let (redis, upstream) = (Redis::start().await?, Upstream::start().await?);
    let config = limited(&upstream, &redis.url());
    let clocks = Clocks::new()?;
    for (index, hours) in [-1, 0, 1].into_iter().enumerate() {
        clocks.set(index, hours)?;
    }
    let all = clocks.clone();
    let setup = Box::new(move |index: usize| Start {
        config: config.clone(),
        env: all.environment(index),
        ..Start::default()
    });
    let fleet = Fleet::with(redis, upstream, 3, setup).await?;
    let load = fleet.load("r");
    load.progress(10).await?;
    for (index, hours) in [(0, 2), (1, -3), (2, -1), (0, -2), (1, 3), (2, 0)] {
        fleet.full().await?;
        clocks.set(index, hours)?;
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
