//! A redis-server that the test starts and ends.

use std::{
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

fn launch(directory: &TempDir) -> Child {
    Command::new("redis-server")
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
        .expect("redis-server is installed")
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
