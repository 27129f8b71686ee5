//! `vorrang top` in a real terminal (tmux), and its plain output.

use std::{
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use vorrang_tests::{Chat, Gateway, Redis, Upstream, config, gateway, until};

/// A terminal with one program in it. It ends with its handle.
struct Terminal {
    socket: String,
}

impl Terminal {
    /// Runs a shell's command line in a terminal of this size.
    fn start(line: &str, columns: u16, rows: u16) -> Result<Option<Self>> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if Command::new("tmux").arg("-V").output().is_err() {
            eprintln!("SKIPPED: there is no tmux; scripts/test installs it");
            return Ok(None);
        }
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let socket = format!("vorrang-test-{}-{count}", std::process::id());
        let terminal = Self { socket };
        let size = [columns.to_string(), rows.to_string()];
        // No configuration of the machine's own, and the last screen stays.
        terminal.tmux(&[
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-x",
            &size[0],
            "-y",
            &size[1],
            line,
        ])?;
        Ok(Some(terminal))
    }

    fn tmux(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::new("tmux")
            .arg("-L")
            .arg(&self.socket)
            .args(arguments)
            .output()?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "tmux {arguments:?}: {errors}");
        Ok(String::from_utf8(output.stdout)?)
    }

    fn press(&self, keys: &[&str]) -> Result<()> {
        self.tmux(&[&["send-keys", "--"], keys].concat()).map(drop)
    }

    fn screen(&self) -> Result<String> {
        self.tmux(&["capture-pane", "-p"])
    }

    /// Waits until the screen has this text, and returns it.
    async fn shows(&self, text: &str) -> Result<String> {
        let look = || async { self.screen() };
        until(text, look, |screen| screen.contains(text)).await
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        eprintln!("--- the screen:\n{}", self.screen().unwrap_or_default());
        drop(self.tmux(&["kill-server"]));
    }
}

struct Fleet {
    _redis: Redis,
    upstream: Upstream,
    first: Gateway,
    second: Gateway,
}

/// Two instances whose queue holds all: its one slot is used for the next ten minutes.
async fn fleet() -> Result<Fleet> {
    let (redis, upstream) = (Redis::start().await?, Upstream::start().await?);
    let url = format!("redis_url: {}", redis.url());
    let config = config(
        &upstream.url(),
        &["rpm: 1"],
        &[],
        &[&url, "window_seconds: 600"],
    );
    let (first, second) = (
        Gateway::start(&config).await?,
        Gateway::start(&config).await?,
    );
    let used = first.client().chat(&Chat::new("top")).await?;
    ensure!(used.status == 200, "{used:?}");
    Ok(Fleet {
        _redis: redis,
        upstream,
        first,
        second,
    })
}

fn wait(gateway: &Gateway, priority: i32) -> tokio::task::JoinHandle<Result<vorrang_tests::Reply>> {
    let client = gateway.client().clone();
    tokio::spawn(async move {
        client
            .chat(&Chat::new("top").with("priority", priority))
            .await
    })
}

#[tokio::test]
async fn top_shows_moves_cancels_and_pauses_and_restores_the_terminal() -> Result<()> {
    let fleet = fleet().await?;
    let line = |more: &str| -> Result<String> {
        let program = gateway::executable()?.display();
        Ok(format!("{program} top --url {}{more}", fleet.second.url()))
    };
    // What is left of the terminal is looked at by the shell that comes after.
    let ended =
        "; echo \"left $?\"; stty -a | tr -s ' ;' '\\n' | grep -x -e echo -e icanon; sleep 1000";
    let Some(terminal) = Terminal::start(&line(ended)?, 110, 30)? else {
        return Ok(());
    };
    let calls = [wait(&fleet.first, 1000), wait(&fleet.second, 1001)];
    terminal.shows("2 waiting in model").await?;
    terminal.shows("2 of 2 instances ready, 2 waiting").await?;
    terminal
        .shows("The head waits for room for requests")
        .await?;
    terminal.shows("[####################] 1 of 1 FULL").await?;
    // The worse one goes to the head.
    terminal.press(&["Tab", "j", "m"])?;
    terminal.shows("to priority:").await?;
    terminal.press(&["-7", "Enter"])?;
    terminal.shows("Moved to priority -7.").await?;
    terminal.shows("> head   -7").await?;
    // It is cancelled; its client is told why.
    terminal.press(&["c"])?;
    terminal.shows("reason for its client:").await?;
    terminal.press(&["too old", "Enter"])?;
    terminal.shows("1 waiting in model").await?;
    let [first, second] = calls;
    let cancelled = second.await??;
    ensure!(
        cancelled.status == 409 && cancelled.text.contains("too old"),
        "{cancelled:?}"
    );
    terminal.press(&["p"])?;
    terminal.shows("y/n:").await?;
    terminal.press(&["y", "Enter"])?;
    terminal.shows("The group is paused").await?;
    terminal.press(&["p"])?;
    terminal.shows("model goes on.").await?;
    // Another size, and its whole width is used.
    terminal.tmux(&["resize-window", "-x", "60", "-y", "20"])?;
    // Drawn anew: the line ends there.
    terminal.shows("instances ready,\n").await?;
    terminal.press(&["?"])?;
    terminal.shows("Any key closes this").await?;
    terminal.press(&["x", "q"])?;
    let screen = terminal.shows("left 0").await?;
    ensure!(
        !screen.contains("waiting in model"),
        "the display is gone: {screen}"
    );
    terminal.shows("icanon").await?;
    terminal.shows("echo").await?;
    first.abort();
    drop(fleet.upstream);
    Ok(())
}

#[tokio::test]
async fn top_restores_the_terminal_after_a_signal() -> Result<()> {
    let gateway = Gateway::demo(&[]).await?;
    let line = format!(
        "{} top --url {}; echo \"left $?\"; stty -a | tr -s ' ;' '\\n' | grep -x -e echo -e icanon; sleep 1000",
        gateway::executable()?.display(),
        gateway.url()
    );
    let Some(terminal) = Terminal::start(&line, 80, 24)? else {
        return Ok(());
    };
    terminal.shows("Nothing waits.").await?;
    let shell = terminal.tmux(&["list-panes", "-F", "#{pane_pid}"])?;
    let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", shell.trim()))?;
    let id: i32 = children.trim().parse().context("the shell's only child")?;
    let id = rustix::process::Pid::from_raw(id).context("an id")?;
    rustix::process::kill_process(id, rustix::process::Signal::TERM)?;
    terminal.shows("left 0").await?;
    terminal.shows("icanon").await?;
    Ok(())
}

#[tokio::test]
async fn top_once_prints_a_table_or_json_and_names_its_errors() -> Result<()> {
    let gateway = Gateway::demo(&[]).await?;
    let top = |arguments: &[&str]| gateway::run("", &[&["top", "--once"], arguments].concat(), &[]);
    let output = top(&["--url", gateway.url()])?;
    let text = String::from_utf8(output.stdout)?;
    ensure!(text.contains("instances ready: 1 of 1\n"), "{text}");
    ensure!(text.contains("demo-limited: 0 waiting, 0 open"), "{text}");
    let output = top(&["--json", "--url", gateway.url()])?;
    let overview: Value = serde_json::from_slice(&output.stdout)?;
    ensure!(
        overview["groups"][1]["name"] == "demo-limited",
        "{overview}"
    );
    let output = top(&["--url", "http://127.0.0.1:1"])?;
    let said = String::from_utf8(output.stderr)?;
    ensure!(
        output.status.code() == Some(1) && said.contains("does not answer"),
        "{said}"
    );
    Ok(())
}
