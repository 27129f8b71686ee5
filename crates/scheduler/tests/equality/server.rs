//! A redis-server that the test starts and ends: `VORRANG_REDIS_SERVER`, or the one of the path.

use std::{
    ffi::OsString,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;

/// Listens on a Unix socket in its own directory, and ends when dropped.
pub(crate) struct Server {
    process: Child,
    directory: TempDir,
}

impl Server {
    /// Waits until the server accepts connections.
    pub(crate) fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let process = launch(&directory);
        let server = Self { process, directory };
        server.wait();
        server
    }

    /// The same, unless it has no functions.
    pub(crate) fn with_functions() -> Option<Self> {
        let server = Self::start();
        if !has_functions(&server.client()) {
            println!("skipped: this Redis has no functions");
            return None;
        }
        Some(server)
    }

    fn wait(&self) {
        while self.client().get_connection().is_err() {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Kills the server. It loses its data.
    pub(crate) fn stop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts the server again, without data.
    pub(crate) fn restart(&mut self) {
        self.process = launch(&self.directory);
        self.wait();
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("redis.sock")
    }

    pub(crate) fn url(&self) -> String {
        format!("redis+unix://{}", self.socket().display())
    }

    pub(crate) fn client(&self) -> redis::Client {
        redis::Client::open(self.url()).unwrap()
    }
}

/// Redis before 7.0 has no functions: the step runs as a script there.
pub(crate) fn has_functions(client: &redis::Client) -> bool {
    let mut connection = client.get_connection().unwrap();
    let listed = redis::cmd("FUNCTION")
        .arg("LIST")
        .query::<redis::Value>(&mut connection);
    listed.is_ok()
}

/// What is started.
pub(crate) fn program() -> OsString {
    std::env::var_os("VORRANG_REDIS_SERVER").unwrap_or_else(|| "redis-server".into())
}

fn launch(directory: &TempDir) -> Child {
    Command::new(program())
        .args([
            "--port",
            "0",
            "--save",
            "",
            "--appendonly",
            "no",
            "--unixsocket",
        ])
        .arg(directory.path().join("redis.sock"))
        .arg("--dir")
        .arg(directory.path())
        .stdout(Stdio::null())
        .spawn()
        .expect("there is a redis-server")
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
