//! Starts the built `holdfast` binary and talks to it as a user's client would.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]

pub mod cluster;
pub mod relay;
pub mod resp;

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

/// The binary with a data folder and a free port, for further arguments. `SERVER_UNDER_TEST` names another binary than the
/// one that was just built, such as a release build.
pub fn command(dir: &Path) -> Command {
    let built = || env!("CARGO_BIN_EXE_holdfast").into();
    let mut command = Command::new(std::env::var_os("SERVER_UNDER_TEST").unwrap_or_else(built));
    // The port by the environment, so that a test may choose another by a flag.
    command.env("HOLDFAST_PORT", "0").arg("--dir").arg(dir).stdin(Stdio::null());
    command
}

impl Server {
    /// Starts a server on a folder.
    pub fn start(dir: &Path) -> Server {
        Self::start_with(dir, &[])
    }

    /// Starts a server on a folder with further arguments.
    pub fn start_with(dir: &Path, args: &[&str]) -> Server {
        let mut command = command(dir);
        command.args(args);
        Self::start_command(command)
    }

    /// Starts a server that was prepared otherwise.
    pub fn start_command(mut command: Command) -> Server {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("spawn");
        let (address, banner) = Self::listening(&mut child).expect("the server ended before it listened");
        Server { child, address, banner }
    }

    /// Reads the banner; none if the process ends without it.
    fn listening(child: &mut Child) -> Option<(SocketAddr, String)> {
        let mut banner = String::new();
        let mut address = None;
        let mut lines = BufReader::new(child.stdout.take().expect("stdout"));
        loop {
            let mut line = String::new();
            if lines.read_line(&mut line).expect("banner") == 0 {
                return None;
            }
            banner.push_str(&line);
            let line = line.trim();
            if let Some(text) = line.strip_prefix("address") {
                address = Some(text.trim().parse().expect("address in the banner"));
            }
            // Its last line.
            if line.starts_with("connect") {
                return Some((address.expect("address before the last line"), banner));
            }
        }
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
    let mut command = command(dir);
    command.args(args);
    refused_command(command)
}

/// Runs a command that should refuse to start; its exit code and what it said.
pub fn refused_command(mut command: Command) -> (i32, String) {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("spawn");
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

/// Asks again and again until the answer is yes: for what the server does by itself, in its own time.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < PATIENCE, "never: {what}");
        std::thread::yield_now();
    }
}

/// The memory that a process holds, in bytes.
pub fn resident_bytes(pid: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") * 1024
}

/// Allows this process, and what it starts, as many open files as wanted, as far as the system lets it; says how many.
pub fn raise_open_files(wanted: u64) -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let allowed = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
    if limit.current.is_some_and(|current| current < allowed) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(allowed), maximum: limit.maximum }).expect("setrlimit");
    }
    getrlimit(Resource::Nofile).current.unwrap_or(wanted)
}

/// The checksum of the data folder's files, worked out the long way: nothing here shares code with the server.
pub fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 })
    };
    !bytes.iter().fold(!0, step)
}

/// Starts a server that may also refuse, as in [`refused`].
pub fn started_or_refused(mut command: Command) -> Result<Server, (i32, String)> {
    let said = tempfile::NamedTempFile::new().expect("file");
    let mut child = command.stdout(Stdio::piped()).stderr(said.reopen().expect("file")).spawn().expect("spawn");
    match Server::listening(&mut child) {
        Some((address, banner)) => Ok(Server { child, address, banner }),
        None => {
            let status = wait(&mut child);
            let text = std::fs::read(said.path()).expect("text");
            Err((status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned()))
        }
    }
}
