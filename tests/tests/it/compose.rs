//! The local cluster: docker-compose.yml, Dockerfile and scripts/cluster as they are, under load, while an instance is
//! killed.

use std::{
    collections::BTreeSet,
    env::var_os,
    ffi::OsString,
    fmt,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio, id},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;
use vorrang_tests::{Chat, Client, until};

/// A6, A7: only the killed instance's own connections are lost.
#[tokio::test]
async fn local_cluster_streams_scales_and_loses_only_calls_of_a_killed_instance() -> Result<()> {
    let Some(built) = var_os("VORRANG_CLUSTER") else {
        eprintln!(
            "\n!!!! SKIPPED: the local cluster: scripts/test runs it where an engine answers\n"
        );
        return Ok(());
    };
    let cluster = Cluster::up(built)?;
    let client = Client::new(&cluster.url())?;
    cluster.is_closed()?;
    streams_come_piece_by_piece(&cluster, &client).await?;
    a_killed_instance_loses_only_its_own(&cluster, &client).await?;

    // The killed one comes back, and one more beside it.
    cluster.run(&["scale", "4"])?;
    let healthy = |status: &str| status.matches("(healthy)").count();
    let status = cluster.run(&["status"])?;
    // Redis, the provider and the balancer.
    ensure!(healthy(&status) == 4 + 3, "{status}");
    client.chat(&Chat::new("afterwards")).await?.ok()?;
    Ok(())
}

/// The first chunk of an answer arrives minutes before its last one. A client's disconnect ends its call (A7).
async fn streams_come_piece_by_piece(cluster: &Cluster, client: &Client) -> Result<()> {
    let slow = r#"[{"fault": "slow", "factor": 1000, "count": 1}]"#;
    cluster.provider("POST", "/faults", slow)?;
    let chat = Chat::new("slow").with("stream", true);
    let request = client.post("/v1/chat/completions").json(&chat.body);
    let mut answer = request.send().await?;
    // Comments keep a silent stream alive.
    let piece = loop {
        let piece = answer.chunk().await?.context("there is no piece")?;
        let piece = String::from_utf8_lossy(&piece).into_owned();
        if !piece.starts_with(':') {
            break piece;
        }
    };
    ensure!(
        piece.starts_with("data: ") && !piece.contains("[DONE]"),
        "{piece}"
    );
    drop(answer);
    let left = || async {
        let report = cluster.provider("GET", "/report", "")?;
        Ok(report["counts"]["outcomes"]["left"].as_u64())
    };
    until("the provider's client to leave", left, |left| {
        *left == Some(1)
    })
    .await?;
    Ok(())
}

/// Under more load than the provider allows. The verdicts over all else are the load's own.
async fn a_killed_instance_loses_only_its_own(cluster: &Cluster, client: &Client) -> Result<()> {
    let victim = cluster.containers(&["vorrang", "2"])?;
    let address = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    let victim = docker(&["inspect", "--format", address, victim.trim()])?;
    let load = cluster.spawn(&["load"])?;
    // Any instance will do: all have the same load.
    let waiting = || async { Ok(client.get("/metrics").await?.text) };
    let many = |page: &String| {
        let lines = page.lines();
        let waiting = lines.filter(|line| line.starts_with("vorrang_waiting"));
        let counts = waiting.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
        counts.sum::<f64>() > 10.0
    };
    until("tickets to wait", waiting, many).await?;
    cluster.run(&["kill", "2"])?;
    let output = load.wait_with_output()?;
    let text = String::from_utf8(output.stdout)?;
    ensure!(output.status.success(), "{text}");

    let lost = figure(&text, "lost")? + figure(&text, "failed")?;
    ensure!(lost > 0, "nothing was on the killed instance: {text}");
    let log = cluster.balancer_log().await?;
    let own = format!(" address={} ", victim.trim());
    let unfinished = log.lines().filter(|line| is_unfinished(line));
    let (own, of_others): (Vec<&str>, Vec<&str>) = unfinished.partition(|line| line.contains(&own));
    let first: Vec<_> = of_others.iter().take(5).collect();
    ensure!(
        of_others.is_empty(),
        "not of the killed instance ({}): {first:#?} and so on, {} in all; of its own: {}; the load lost {lost}",
        victim.trim(),
        of_others.len(),
        own.len(),
    );
    // A complete error answer comes from an instance, not from a lost connection: it only explains different numbers.
    let failed = |line: &&str| line.contains(" status=5") && line.contains(" ended=--");
    let failed: Vec<_> = log.lines().filter(failed).take(5).collect();
    ensure!(
        own.len() as u64 == lost,
        "the load lost {lost}, the balancer's log has {}; answered with a failure: {failed:#?}",
        own.len(),
    );
    Ok(())
}

/// Whether the balancer reports an answer that broke off, and not because of the client.
fn is_unfinished(line: &str) -> bool {
    let ended = line.split_once(" ended=");
    line.starts_with("POST ") && ended.is_some_and(|(_, ended)| !ended.starts_with(['-', 'C', 'c']))
}

/// What `vorrang-load` counted, by its verdict's name: `ok     lost     4  of 691 requests sent`.
fn figure(text: &str, verdict: &str) -> Result<u64> {
    let mut lines = text.lines().map(str::split_whitespace);
    let figure = lines.find_map(|mut words| (words.nth(1)? == verdict).then(|| words.next()));
    let figure = figure.flatten();
    let figure = figure.with_context(|| format!("no verdict on what is {verdict}: {text}"))?;
    Ok(figure.parse()?)
}

/// A cluster of the test's own. Ends with its handle.
struct Cluster {
    project: String,
    port: u16,
    built: OsString,
    reports: TempDir,
}

/// What a container printed. Too long to be shown.
struct Log(String);

impl fmt::Debug for Log {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} lines", self.0.lines().count())
    }
}

// === impl Cluster ===

impl Cluster {
    fn up(built: OsString) -> Result<Self> {
        let cluster = Self {
            project: format!("vorrang-test-{}", id()),
            // Free a moment ago; the engine says so if it is not any more.
            port: TcpListener::bind("127.0.0.1:0")?.local_addr()?.port(),
            built,
            reports: tempfile::tempdir()?,
        };
        cluster.run(&["up"])?;
        Ok(cluster)
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn spawn(&self, args: &[&str]) -> Result<Child> {
        let mut script = Command::new(root().join("scripts/cluster"));
        script
            .args(args)
            .env("COMPOSE_PROJECT_NAME", &self.project)
            .env("VORRANG_PORT", self.port.to_string())
            .env("BUILT", &self.built)
            .env("OUT", self.reports.path())
            .env_remove("VORRANG_INSTANCES");
        let piped = script.stdin(Stdio::null()).stdout(Stdio::piped());
        Ok(piped.spawn()?)
    }

    /// `scripts/cluster` with these arguments; what it printed.
    fn run(&self, args: &[&str]) -> Result<String> {
        let output = self.spawn(args)?.wait_with_output()?;
        let text = String::from_utf8(output.stdout)?;
        ensure!(output.status.success(), "scripts/cluster {args:?}: {text}");
        Ok(text)
    }

    /// The ids of a service's containers, or of the one with this number; of all without.
    fn containers(&self, of: &[&str]) -> Result<String> {
        let labels = ["project", "service", "container-number"];
        let values = [&[self.project.as_str()], of].concat();
        let labels = labels.iter().zip(values);
        let filters: Vec<String> = labels
            .map(|(name, value)| format!("label=com.docker.compose.{name}={value}"))
            .collect();
        let mut args = vec!["ps", "--all", "--quiet"];
        for filter in &filters {
            args.extend(["--filter", filter]);
        }
        docker(&args)
    }

    /// All that the balancer has logged until now. Its lines come to the engine in their order, but a little later.
    async fn balancer_log(&self) -> Result<String> {
        const MARK: &[u8] = b"mark\r\n\r\n";
        const LOGGED: &str = "\n<BADREQ> ";
        let balancer = self.containers(&["balancer"])?;
        let read = || docker(&["logs", balancer.trim()]);
        let before = read()?.matches(LOGGED).count();
        let mut connection = TcpStream::connect(("127.0.0.1", self.port))?;
        connection.write_all(MARK)?;
        let mut answer = Vec::new();
        connection.read_to_end(&mut answer)?;
        until(
            "the balancer's log to be whole",
            || async { Ok(Log(read()?)) },
            |log| log.0.matches(LOGGED).count() > before,
        )
        .await
        .map(|log| log.0)
    }

    /// Only the balancer's port is open, on loopback; nothing runs as root.
    fn is_closed(&self) -> Result<()> {
        let open = "{{range $port, $to := .NetworkSettings.Ports}}{{range $to}}{{.HostIp}}:{{.HostPort}} {{end}}{{end}}";
        let mut ports = BTreeSet::new();
        for container in self.containers(&[])?.lines() {
            ports.extend(words(&docker(&["inspect", "--format", open, container])?));
            let user = docker(&["exec", container, "bash", "-c", "echo $UID"])?;
            ensure!(user.trim() != "0", "{container} runs as root");
        }
        let expected = BTreeSet::from([format!("127.0.0.1:{}", self.port)]);
        ensure!(ports == expected, "open: {ports:?}");
        Ok(())
    }

    /// Asks the provider, which only containers reach, and in whose image is no HTTP client.
    fn provider(&self, method: &str, path: &str, body: &str) -> Result<Value> {
        let exchange = "exec 3<>/dev/tcp/127.0.0.1/8000 && cat >&3 && cat <&3";
        let container = self.containers(&["provider"])?;
        let mut command = Command::new("docker");
        let mut asking = command
            .args(["exec", "--interactive", container.trim()])
            .args(["bash", "-c", exchange])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.0\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        let mut stdin = asking.stdin.take().context("it is piped")?;
        stdin.write_all(request.as_bytes())?;
        drop(stdin);
        let answer = String::from_utf8(asking.wait_with_output()?.stdout)?;
        ensure!(answer.starts_with("HTTP/1.0 200"), "{path}: {answer}");
        let (_, body) = answer.split_once("\r\n\r\n").context("no body")?;
        Ok(serde_json::from_str(body).unwrap_or(Value::Null))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Err(error) = self.run(&["down", "--images"]) {
            eprintln!("the cluster {} is left behind: {error:#}", self.project);
        }
    }
}

/// Runs `docker`; what it printed, to both outputs.
fn docker(args: &[&str]) -> Result<String> {
    let output = Command::new("docker").args(args).output()?;
    let text = String::from_utf8([output.stdout, output.stderr].concat())?;
    ensure!(output.status.success(), "docker {args:?}: {text}");
    Ok(text)
}

fn words(text: &str) -> impl Iterator<Item = String> {
    text.split_whitespace().map(str::to_owned)
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
