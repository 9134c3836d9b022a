//! Clients over real sockets, with the simulator's workload as their minds.
//!
//! ```text
//!   Workload (holdfast-sim): what each client asks, what the answers mean, the history
//!        │ Send, Close                     ▲ receive, lost, tick
//!        ▼                                 │
//!   one thread: poll(2) over the clients' connections ◀── nodes
//! ```
//!
//! One thread does it all, so calls and returns are written down in the order in which they happened: a call before its
//! bytes leave, a return after its bytes came. That makes operations look longer than they were, never shorter.

use std::collections::{BTreeMap, VecDeque};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use holdfast_sim::check::History;
use holdfast_sim::random::Random;
use holdfast_sim::workload::{Action, Loss, Workload, WorkloadCounts, WorkloadSettings};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How long a connection may take to be made; nodes are a bridge away, and never cut off from clients.
const CONNECT_PATIENCE: Duration = Duration::from_millis(200);
/// The longest wait before flags are looked at again.
const LOOK: Duration = Duration::from_millis(20);

#[derive(Debug, Default)]
struct Flags {
    answered: AtomicU64,
    reads_everything: AtomicBool,
    stops: AtomicBool,
    is_done: AtomicBool,
}

/// What the clients asked and heard.
#[derive(Debug)]
pub struct Heard {
    /// Calls and returns; times are microseconds since the load began.
    pub history: History,
    /// How operations ended.
    pub counts: WorkloadCounts,
    /// Replies that should never be.
    pub anomalies: Vec<String>,
}

/// Clients at work.
#[derive(Debug)]
pub struct Load {
    flags: Arc<Flags>,
    thread: JoinHandle<Heard>,
    began: Instant,
    /// Operations that may be under way at a time.
    concurrency: u64,
}

impl Load {
    /// Lets clients begin. `addresses` are those of node 1, 2, …, also of nodes that don't exist yet.
    pub fn start(random: Random, settings: WorkloadSettings, addresses: Vec<SocketAddr>) -> Load {
        let flags = Arc::new(Flags::default());
        let concurrency = u64::from(settings.clients * settings.pipeline_max);
        let began = Instant::now();
        let thread = {
            let flags = Arc::clone(&flags);
            std::thread::spawn(move || Driver::new(&random, settings, addresses, began).run(&flags))
        };
        Load { flags, thread, began, concurrency }
    }

    /// Microseconds since it began: the time of the history.
    pub fn now_us(&self) -> u64 {
        self.began.elapsed().as_micros() as u64
    }

    /// Answers so far.
    pub fn answered(&self) -> u64 {
        self.flags.answered.load(Ordering::Acquire)
    }

    /// Waits until an operation that began after now is answered.
    ///
    /// # Errors
    /// If there is none in time.
    pub fn wait_success(&self, patience: Duration) -> Result<(), String> {
        let (enough, deadline) = (self.answered() + self.concurrency + 1, Instant::now() + patience);
        while self.answered() < enough {
            if Instant::now() > deadline {
                return Err(format!("no client's operation succeeds within {patience:?}"));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Lets the clients read every key, and gives what they heard.
    ///
    /// # Errors
    /// If not every key could be read in time.
    pub fn finish(self, patience: Duration) -> Result<Heard, (String, Heard)> {
        self.flags.reads_everything.store(true, Ordering::Release);
        let deadline = Instant::now() + patience;
        while !self.flags.is_done.load(Ordering::Acquire) && Instant::now() < deadline && !self.thread.is_finished() {
            std::thread::sleep(Duration::from_millis(2));
        }
        let is_done = self.flags.is_done.load(Ordering::Acquire);
        let heard = self.stop();
        if is_done { Ok(heard) } else { Err((format!("not every key could be read within {patience:?}"), heard)) }
    }

    /// Ends it as it is.
    pub fn stop(self) -> Heard {
        self.flags.stops.store(true, Ordering::Release);
        let empty = |_| {
            let anomalies = vec!["the clients' thread failed".to_owned()];
            Heard { history: History::new(), counts: WorkloadCounts::default(), anomalies }
        };
        self.thread.join().unwrap_or_else(empty)
    }
}

struct Driver {
    workload: Workload,
    addresses: Vec<SocketAddr>,
    began: Instant,
    /// By client: the number of the connection, and the connection.
    streams: BTreeMap<u32, (u32, TcpStream)>,
}

impl Driver {
    fn new(random: &Random, settings: WorkloadSettings, addresses: Vec<SocketAddr>, began: Instant) -> Driver {
        let known = addresses.clone();
        let node_of = move |address: &holdfast_client::Address| {
            let text = address.to_string();
            known.iter().position(|known| known.to_string() == text).map(|place| place as u32 + 1)
        };
        Driver { workload: Workload::new(random, settings, 0, node_of), addresses, began, streams: BTreeMap::new() }
    }

    fn now(&self) -> u64 {
        self.began.elapsed().as_micros() as u64
    }

    fn run(mut self, flags: &Flags) -> Heard {
        let mut buffer = vec![0; 64 << 10];
        let mut reads_everything = false;
        while !flags.stops.load(Ordering::Acquire) {
            if !reads_everything && flags.reads_everything.load(Ordering::Acquire) {
                reads_everything = true;
                self.workload.read_everything(self.now());
            }
            let actions = self.workload.tick(self.now());
            self.act(actions);
            for client in self.wait() {
                self.hear(client, &mut buffer);
            }
            flags.answered.store(self.workload.counts().answered, Ordering::Release);
            if reads_everything && self.workload.is_done() {
                flags.is_done.store(true, Ordering::Release);
                break;
            }
        }
        Heard {
            history: self.workload.history().clone(),
            counts: self.workload.counts(),
            anomalies: self.workload.anomalies().to_vec(),
        }
    }

    /// Waits until a connection has something, or a client has something to do; gives the clients that can hear.
    fn wait(&self) -> Vec<u32> {
        let until = Duration::from_micros(self.workload.next_time().saturating_sub(self.now())).min(LOOK);
        let timeout = Timespec { tv_sec: 0, tv_nsec: until.as_nanos() as _ };
        let mut fds: Vec<PollFd<'_>> =
            self.streams.values().map(|(_, stream)| PollFd::from_borrowed_fd(stream.as_fd(), PollFlags::IN)).collect();
        if poll(&mut fds, Some(&timeout)).is_err() {
            return Vec::new();
        }
        let heard = self.streams.keys().zip(&fds).filter(|(_, fd)| !fd.revents().is_empty());
        heard.map(|(client, _)| *client).collect()
    }

    fn hear(&mut self, client: u32, buffer: &mut [u8]) {
        let Some((connection, stream)) = self.streams.get_mut(&client) else { return };
        let connection = *connection;
        let read = stream.read(buffer);
        let now = self.now();
        let actions = match read {
            Ok(0) => self.lose(now, client, connection, Loss::Broken),
            Ok(length) => self.workload.receive(now, client, connection, &buffer[..length]),
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted) => {
                return;
            }
            Err(_) => self.lose(now, client, connection, Loss::Broken),
        };
        self.act(actions);
    }

    fn lose(&mut self, now: u64, client: u32, connection: u32, loss: Loss) -> Vec<Action> {
        if self.streams.get(&client).is_some_and(|(open, _)| *open == connection) {
            self.streams.remove(&client);
        }
        self.workload.lost(now, client, connection, loss)
    }

    fn act(&mut self, actions: Vec<Action>) {
        let mut actions = VecDeque::from(actions);
        while let Some(action) = actions.pop_front() {
            match action {
                Action::Close { client, connection, .. } => {
                    if self.streams.get(&client).is_some_and(|(open, _)| *open == connection) {
                        self.streams.remove(&client);
                    }
                }
                Action::Send { client, connection, node, bytes } => {
                    if self.streams.get(&client).is_none_or(|(open, _)| *open != connection) {
                        match self.connect(node) {
                            Some(stream) => drop(self.streams.insert(client, (connection, stream))),
                            None => {
                                actions.extend(self.lose(self.now(), client, connection, Loss::Refused));
                                continue;
                            }
                        }
                    }
                    let Some((_, stream)) = self.streams.get_mut(&client) else { continue };
                    // A few small commands fit into the socket's buffer, unless the node takes nothing any more.
                    if stream.write_all(&bytes).is_err() {
                        actions.extend(self.lose(self.now(), client, connection, Loss::Broken));
                    }
                }
            }
        }
    }

    fn connect(&self, node: u32) -> Option<TcpStream> {
        let address = self.addresses.get((node as usize).checked_sub(1)?)?;
        let stream = TcpStream::connect_timeout(address, CONNECT_PATIENCE).ok()?;
        stream.set_nodelay(true).ok()?;
        stream.set_nonblocking(true).ok()?;
        Some(stream)
    }
}
