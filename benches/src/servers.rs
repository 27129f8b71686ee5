//! The servers that are measured: `vorrang` with generated configurations, and the harness's own.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Duration, Instant, sleep},
};

use crate::{
    answers,
    load::Target,
    process::Process,
    upstream::{Certificates, SIZES},
};

/// For readiness: a recovery of the group in Redis is over by then, also under valgrind.
const PATIENCE: Duration = Duration::from_secs(120);

/// The path of chats.
pub(crate) const CHAT: &str = "/v1/chat/completions";

/// A server, and where it listens.
pub(crate) struct Server {
    pub(crate) process: Process,
    pub(crate) address: SocketAddr,
}

/// How `vorrang` is started.
pub(crate) struct Launch<'a> {
    /// Unique in the run's directory.
    pub(crate) name: String,
    pub(crate) binary: &'a Path,
    pub(crate) directory: &'a Path,
    pub(crate) config: Value,
    /// With the access line of each request, as by default.
    pub(crate) logs: bool,
    /// Counts instructions into this file, with one worker thread.
    pub(crate) counted: Option<PathBuf>,
}

impl Launch<'_> {
    /// Starts it, and waits until it is ready.
    pub(crate) async fn start(self) -> Result<Server> {
        let file = self.directory.join(format!("{}.json", self.name));
        // JSON is YAML.
        fs::write(&file, serde_json::to_vec_pretty(&self.config)?)?;
        let mut command = match &self.counted {
            Some(out) => {
                let mut command = callgrind(out);
                command.arg(self.binary);
                command
            }
            None => Command::new(self.binary),
        };
        clear(&mut command);
        command
            .arg("--config")
            .arg(&file)
            .args(["--host", "127.0.0.1", "--port", "0"])
            .env("RUST_LOG", if self.logs { "info" } else { "warn" });
        if self.counted.is_some() {
            command.env("TOKIO_WORKER_THREADS", "1");
        }
        let mut process = Process::start(&self.name, command, self.directory)?;
        let address = process.printed(listening).await?;
        let server = Server { process, address };
        server.ready().await?;
        Ok(server)
    }
}

impl Server {
    /// Starts the bare handler: this binary as another process.
    pub(crate) async fn bare(directory: &Path) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        clear(&mut command);
        command.arg("bare");
        let mut process = Process::start("bare", command, directory)?;
        let address = process.printed(listening).await?;
        Ok(Self { process, address })
    }

    async fn ready(&self) -> Result<()> {
        let start = Instant::now();
        while get(self.address, "/health/readiness").await?.0 != 200 {
            ensure!(start.elapsed() < PATIENCE, "not ready after {PATIENCE:?}");
            sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }

    /// A short chat with the group of [`mock`] and [`Upstream::forwarding`].
    pub(crate) fn chat(&self) -> Target {
        Target::chat(self.address, CHAT, "bench", false)
    }
}

/// The upstream, and where it speaks TLS.
pub(crate) struct Upstream {
    pub(crate) server: Server,
    pub(crate) tls: SocketAddr,
    pub(crate) certificates: Certificates,
}

impl Upstream {
    pub(crate) async fn start(directory: &Path) -> Result<Self> {
        let certificates = Certificates::make(directory)?;
        let mut command = Command::new(std::env::current_exe()?);
        clear(&mut command);
        command.arg("upstream").arg(directory);
        let mut process = Process::start("upstream", command, directory)?;
        let tls = |text: &str| line(text, "tls on ")?.parse().ok();
        let tls = process.printed(tls).await?;
        let address = process.printed(listening).await?;
        Ok(Self {
            server: Server { process, address },
            tls,
            certificates,
        })
    }

    /// The `api_base` of answers of this size.
    pub(crate) fn base(&self, tls: bool, size: usize) -> String {
        if tls {
            format!("https://localhost:{}/{size}", self.tls.port())
        } else {
            format!("http://{}/{size}", self.server.address)
        }
    }

    /// The same call without a gateway.
    pub(crate) fn direct(&self, tls: bool, size: usize, stream: bool) -> Result<Target> {
        let address = if tls { self.tls } else { self.server.address };
        let path = format!("/{size}/chat/completions");
        let mut target = Target::chat(address, &path, "bench", stream);
        if tls {
            target.tls = Some(self.certificates.client()?);
        }
        Ok(target)
    }

    /// A configuration with one group for each size and connection: see [`group`].
    pub(crate) fn forwarding(&self) -> Value {
        let groups = SIZES
            .into_iter()
            .flat_map(|size| [(false, size), (true, size)]);
        let deployments = groups.map(|(tls, size)| {
            json!({
                "model_name": group(tls, size),
                "litellm_params": {
                    "model": "openai/bench", "api_key": "upstream-key", "api_base": self.base(tls, size),
                    "ssl_verify": self.certificates.ca,
                }
            })
        });
        json!({"model_list": deployments.collect::<Vec<_>>()})
    }
}

/// The group of [`Upstream::forwarding`] for a size and connection.
pub(crate) fn group(tls: bool, size: usize) -> String {
    format!("{}-{size}", if tls { "tls" } else { "plain" })
}

/// A configuration of one group, answered in process. `redis`: its state is there, and it has a limit of requests, high enough for all.
pub(crate) fn mock(redis: Option<&str>) -> Value {
    let mut params = json!({"model": "openai/bench", "mock_response": answers::SHORT});
    let mut settings = json!({});
    if let Some(url) = redis {
        params["rpm"] = json!(1_000_000_000);
        settings["redis_url"] = json!(url);
    }
    json!({
        "model_list": [{"model_name": "bench", "litellm_params": params}],
        "vorrang_settings": settings,
    })
}

/// valgrind, which counts instructions into `out`; what it runs follows.
pub(crate) fn callgrind(out: &Path) -> Command {
    let mut command = Command::new("valgrind");
    command
        .arg("--tool=callgrind")
        .arg(format!("--callgrind-out-file={}", out.display()));
    command
}

/// What is set where the harness runs changes nothing.
pub(crate) fn clear(command: &mut Command) {
    command.env_clear();
    for name in ["PATH", "HOME", "TMPDIR"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
}

fn line<'a>(text: &'a str, start: &str) -> Option<&'a str> {
    let (_, after) = text.split_once(start)?;
    Some(after.split_once('\n')?.0.trim())
}

fn listening(text: &str) -> Option<SocketAddr> {
    line(text, "listening on http://")?.parse().ok()
}

/// The status and body of a GET.
pub(crate) async fn get(address: SocketAddr, path: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let status = answer.split(' ').nth(1).context("no status")?.parse()?;
    let (_, body) = answer.split_once("\r\n\r\n").context("no body")?;
    Ok((status, body.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_is_read_from_a_whole_line() {
        let text = "tls on 127.0.0.1:5\nlistening on http://127.0.0.1:6";
        assert_eq!(line(text, "tls on "), Some("127.0.0.1:5"));
        assert_eq!(listening(text), None);
        assert_eq!(listening(&format!("{text}\n")), "127.0.0.1:6".parse().ok());
    }
}
