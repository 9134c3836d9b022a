//! Starts the built `holdfast` binary and talks to it as a user's client would.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long anything may take before the test gives up: a hang is a failure, slowness is not.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A running server, killed when dropped.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
    pub banner: String,
}

/// The binary with a data folder and a free port, for further arguments.
pub fn command(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    command.args(["--port", "0", "--dir"]).arg(dir).stdin(Stdio::null());
    command
}

impl Server {
    /// Starts a server on a folder.
    pub fn start(dir: &Path) -> Server {
        Self::start_with(dir, &[])
    }

    /// Starts a server on a folder with further arguments.
    pub fn start_with(dir: &Path, args: &[&str]) -> Server {
        let mut child = command(dir).args(args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("spawn");
        let mut banner = String::new();
        let mut lines = BufReader::new(child.stdout.take().expect("stdout"));
        let address = loop {
            let mut line = String::new();
            let count = lines.read_line(&mut line).expect("banner");
            assert!(count > 0, "the server ended before it listened: {banner}");
            banner.push_str(&line);
            if let Some(address) = line.trim().strip_prefix("address") {
                break address.trim().parse().expect("address in the banner");
            }
        };
        // The rest of the banner, up to its last line.
        while !banner.contains("connect") {
            let mut line = String::new();
            assert!(lines.read_line(&mut line).expect("banner") > 0, "the banner was cut: {banner}");
            banner.push_str(&line);
        }
        Server { child, address, banner }
    }

    /// A client of the `redis` crate.
    pub fn connect(&self) -> redis::Connection {
        let client = redis::Client::open(format!("redis://{}", self.address)).expect("address");
        let connection = client.get_connection().expect("connect");
        connection.set_read_timeout(Some(PATIENCE)).expect("timeout");
        connection
    }

    /// A client of the `redis` crate that speaks RESP3.
    pub fn connect_resp3(&self) -> redis::Connection {
        let client = redis::Client::open(format!("redis://{}/?protocol=resp3", self.address)).expect("address");
        client.get_connection().expect("connect")
    }

    /// A bare socket.
    pub fn socket(&self) -> TcpStream {
        let socket = TcpStream::connect(self.address).expect("connect");
        socket.set_read_timeout(Some(PATIENCE)).expect("timeout");
        socket.set_write_timeout(Some(PATIENCE)).expect("timeout");
        socket
    }

    /// Kills the server as a crash would.
    pub fn kill(mut self) {
        self.child.kill().expect("kill");
        self.child.wait().expect("wait");
    }

    /// Asks the server to stop and says how it ended.
    pub fn terminate(mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait()
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status();
        assert!(status.expect("kill").success());
    }

    /// Waits for the end.
    pub fn wait(&mut self) -> ExitStatus {
        wait(&mut self.child)
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for a process that should end.
pub fn wait(child: &mut Child) -> ExitStatus {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("wait") {
            return status;
        }
        assert!(started.elapsed() < PATIENCE, "the process did not end");
        std::thread::yield_now();
    }
}

/// Runs a server that should refuse to start; its exit code and what it said.
pub fn refused(dir: &Path, args: &[&str]) -> (i32, String) {
    let mut child = command(dir).args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("spawn");
    let status = wait(&mut child);
    let mut text = String::new();
    child.stderr.take().expect("stderr").read_to_string(&mut text).expect("text");
    (status.code().unwrap_or(-1), text)
}

/// A fresh folder for data, removed when dropped.
pub fn folder() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("holdfast-test").tempdir_in(target_dir()).expect("folder")
}

/// A folder on a real disk: the build's own.
fn target_dir() -> PathBuf {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    std::fs::create_dir_all(&dir).expect("folder");
    dir
}

/// Sends bytes and reads until `expected` bytes have come or the other side closes.
pub fn exchange(socket: &mut TcpStream, request: &[u8], expected: usize) -> Vec<u8> {
    socket.write_all(request).expect("send");
    let mut reply = vec![0; expected];
    let mut filled = 0;
    while filled < expected {
        match socket.read(&mut reply[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) => panic!("no reply: {e}; so far {:?}", String::from_utf8_lossy(&reply[..filled])),
        }
    }
    reply.truncate(filled);
    reply
}
