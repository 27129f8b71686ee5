//! [`Announcer`]: a sentinel that says what a test wants.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, ensure};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufStream},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
    time::Instant,
};

use super::SERVICE;

/// Speaks as a sentinel whose only knowledge is the port of a master on this machine. It stands for a real one with stale knowledge.
/// Ends with its handle.
#[derive(Debug)]
pub struct Announcer {
    port: u16,
    named: watch::Sender<u16>,
    asked: Arc<Mutex<Vec<Instant>>>,
    task: JoinHandle<()>,
}

// === impl Announcer ===

impl Announcer {
    /// Names the master at this port.
    ///
    /// # Errors
    /// No port is free.
    pub async fn of(master: u16) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let (named, name) = watch::channel(master);
        let asked = Arc::<Mutex<Vec<Instant>>>::default();
        let times = asked.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (name, times) = (name.clone(), times.clone());
                // How a client ends its connection is its own affair.
                tokio::spawn(async move { drop(announce(stream, name, &times).await) });
            }
        });
        Ok(Self {
            port,
            named,
            asked,
            task,
        })
    }

    /// Names another master from now on.
    pub fn name(&self, master: u16) {
        self.named.send_replace(master);
    }

    /// Its host and port.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// When it was asked for servers.
    pub fn asked(&self) -> Vec<Instant> {
        let asked = self.asked.lock();
        asked.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Announcer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Answers the commands of one connection.
async fn announce(
    stream: TcpStream,
    named: watch::Receiver<u16>,
    asked: &Mutex<Vec<Instant>>,
) -> Result<()> {
    let mut stream = BufStream::new(stream);
    loop {
        let words = command(&mut stream).await?;
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        if words.first() == Some(&"SENTINEL") {
            let mut asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
            asked.push(Instant::now());
        }
        let port = named.borrow().to_string();
        let fields = [
            ["name", SERVICE],
            ["ip", "127.0.0.1"],
            ["port", &port],
            ["flags", "master"],
            ["config-epoch", "0"],
        ];
        let list = |items: &[&str]| {
            let items = items.iter();
            let texts: String = items
                .clone()
                .map(|item| format!("${}\r\n{item}\r\n", item.len()))
                .collect();
            format!("*{}\r\n{texts}", items.len())
        };
        let answer = match *words {
            ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", ..] => list(&["127.0.0.1", &port]),
            ["SENTINEL", "MASTERS", ..] => format!("*1\r\n{}", list(&fields.concat())),
            ["SENTINEL", "MASTER", ..] => list(&fields.concat()),
            ["SENTINEL", ..] => list(&[]),
            ["ROLE"] => format!("*2\r\n$8\r\nsentinel\r\n{}", list(&[SERVICE])),
            ["PING", ..] => "+PONG\r\n".to_owned(),
            ["CLIENT", ..] => "+OK\r\n".to_owned(),
            _ => "-ERR unknown command\r\n".to_owned(),
        };
        stream.write_all(answer.as_bytes()).await?;
        stream.flush().await?;
    }
}

/// Reads a command: its words in upper case.
async fn command(stream: &mut BufStream<TcpStream>) -> Result<Vec<String>> {
    let count = length(stream, '*').await?;
    let mut words = Vec::new();
    for _ in 0..count {
        let mut word = vec![0; length(stream, '$').await? + 2];
        stream.read_exact(&mut word).await?;
        word.truncate(word.len() - 2);
        words.push(String::from_utf8(word)?.to_uppercase());
    }
    Ok(words)
}

async fn length(stream: &mut BufStream<TcpStream>, kind: char) -> Result<usize> {
    let mut line = String::new();
    ensure!(stream.read_line(&mut line).await? > 0, "the end");
    let number = line.trim_end().strip_prefix(kind);
    Ok(number.context(line.clone())?.parse()?)
}
