//! Servers as child processes: starting them, finding their port, what they cost.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Clock ticks per second in `/proc`; the same on every Linux that Rust's standard library runs on.
const TICKS_PER_SECOND: u64 = 100;

/// A running server; it is killed when this is dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    /// Starts a program that prints a line `address HOST:PORT` on standard output once it listens, as `holdfast` and
    /// `holdfast-echo` do. Standard error goes to the file.
    ///
    /// # Errors
    /// If it can't be started, exits, or has printed no address in time; the text says what it wrote last.
    pub fn start(command: &mut Command, stderr: &Path, patience: Duration) -> Result<Self, String> {
        let program = command.get_program().to_string_lossy().into_owned();
        let log = fs::OpenOptions::new().create(true).append(true).open(stderr);
        let log = log.map_err(|error| format!("cannot open {}: {error}", stderr.display()))?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().map_err(|error| format!("cannot start {program}: {error}"))?;
        let (found, address) = mpsc::channel();
        if let Some(stdout) = child.stdout.take() {
            // Read to the end, so that the server never blocks on a full pipe.
            std::thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    if let Some(address) = printed_address(&line) {
                        let _ = found.send(address);
                    }
                }
            });
        }
        match address.recv_timeout(patience) {
            Ok(address) => Ok(Server { child, address }),
            Err(reason) => {
                let _ = child.kill();
                let status = child.wait();
                let what = match (reason, status) {
                    (mpsc::RecvTimeoutError::Timeout, _) => format!("printed no address within {patience:?}"),
                    (_, Ok(status)) => format!("ended before it listened ({status})"),
                    (_, Err(error)) => format!("ended before it listened ({error})"),
                };
                Err(format!("{program} {what}; it said:\n{}", tail(stderr)))
            }
        }
    }

    /// Starts a program that is told its port and says nothing: it is ready when it takes connections.
    ///
    /// # Errors
    /// If it can't be started or takes no connection in time.
    pub fn start_on_port(command: &mut Command, port: u16, patience: Duration) -> Result<Self, String> {
        let program = command.get_program().to_string_lossy().into_owned();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().map_err(|error| format!("cannot start {program}: {error}"))?;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let mut server = Server { child, address };
        let deadline = Instant::now() + patience;
        while TcpStream::connect_timeout(&address, Duration::from_millis(100)).is_err() {
            if let Ok(Some(status)) = server.child.try_wait() {
                return Err(format!("{program} ended before it listened ({status})"));
            }
            if Instant::now() > deadline {
                return Err(format!("{program} takes no connection on {address} within {patience:?}"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(server)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)))
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// If there is no such process any more.
    pub fn signal(&self, signal: rustix::process::Signal) -> Result<(), String> {
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        let pid = pid.ok_or("a process id that is none")?;
        rustix::process::kill_process(pid, signal).map_err(|error| error.to_string())
    }

    /// Ends it as `kill -9` does, and waits until it is gone.
    pub fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks it to stop (SIGTERM) and waits.
    ///
    /// # Errors
    /// If it is still there after `patience` (then it is killed), or ended with a failure.
    pub fn stop(mut self, patience: Duration) -> Result<(), String> {
        self.signal(rustix::process::Signal::TERM)?;
        let deadline = Instant::now() + patience;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => return Err(format!("the server ended with a failure after SIGTERM: {status}")),
                Ok(None) if Instant::now() > deadline => {
                    return Err(format!("the server was still running {patience:?} after SIGTERM"));
                }
                Ok(None) => std::thread::sleep(Duration::from_millis(5)),
                Err(error) => return Err(error.to_string()),
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn printed_address(line: &str) -> Option<SocketAddr> {
    let mut words = line.split_whitespace();
    (words.next() == Some("address")).then(|| words.next()?.parse().ok()).flatten()
}

/// The last lines of a file, for an error's story.
pub fn tail(path: &Path) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    let start = bytes.len().saturating_sub(4000);
    String::from_utf8_lossy(&bytes[start..]).into_owned()
}

/// A port that nobody listens on right now.
///
/// # Errors
/// If the system has none.
pub fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// The processor time that a process has used so far, all threads together, in steps of 10 ms; `None` if there is no such
/// process.
pub fn cpu_time(pid: u32) -> Option<Duration> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses; it may hold spaces and parentheses.
    let fields: Vec<&str> = text[text.rfind(')')? + 1..].split_whitespace().collect();
    let (user, system): (u64, u64) = (fields.get(11)?.parse().ok()?, fields.get(12)?.parse().ok()?);
    Some(Duration::from_millis((user + system) * 1000 / TICKS_PER_SECOND))
}

/// The memory that a process holds right now, in bytes; `None` if there is no such process.
pub fn resident_bytes(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let kib = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.trim().strip_suffix("kB")?;
    Some(kib.trim().parse::<u64>().ok()? << 10)
}

/// How many processes wanted to run on this machine, on average over the last minute: what else it was doing.
pub fn machine_load() -> Option<f64> {
    fs::read_to_string("/proc/loadavg").ok()?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_is_found_in_the_banner() {
        let expected = "127.0.0.1:7000".parse().ok();
        assert_eq!(printed_address("  address     127.0.0.1:7000"), expected);
        assert_eq!(printed_address("  data        address 127.0.0.1:7000"), None);
        assert_eq!(printed_address("address soon"), None);
    }

    #[test]
    fn own_processor_time_and_memory_are_readable() {
        assert!(cpu_time(std::process::id()).is_some());
        assert!(cpu_time(u32::MAX).is_none());
        assert!(resident_bytes(std::process::id()).is_some_and(|bytes| bytes > 1 << 20));
        assert!(resident_bytes(u32::MAX).is_none());
    }
}
