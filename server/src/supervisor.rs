//! `holdfast cluster`: several nodes of one cluster on this machine, each a process of its own.
//!
//! ```text
//!   supervisor ─┬─ holdfast init            --port P     --dir D/node-1
//!               ├─ holdfast join 127.0.0.1:P+10000 --port P+1 --dir D/node-2
//!               └─ …                                     a thread each reads what it says and puts its name in front
//! ```
//!
//! Nothing is special about these processes: what they are told here, a service manager would tell them on machines of their
//! own. A node that dies is started again after a second, so that `kill -9` shows a fail-over and a return.

use crate::settings::ClusterPlan;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use crate::settings::PEER_PORT_OFFSET;

/// How long a node that died rests before it is started again.
const REST: Duration = Duration::from_secs(1);
/// How often the processes are looked at.
const LOOK: Duration = Duration::from_millis(50);
/// How long one node may take to start before the next is started all the same.
const READY_MAX: Duration = Duration::from_secs(30);
/// How long a node may take to stop before it is killed.
const STOP_MAX: Duration = Duration::from_secs(15);

/// Why the nodes can't be run.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorError {
    /// The ports run out.
    #[error("there are no ports for {0} nodes from {1} on, and as many {PEER_PORT_OFFSET} above")]
    Ports(u16, u16),
    /// A process can't be started.
    #[error("cannot start node {0}: {1}")]
    Spawn(u16, std::io::Error),
    /// A node refused to start.
    #[error("node {0} does not start ({1}); what it said is above")]
    Refused(u16, std::process::ExitStatus),
    /// Signals can't be listened for.
    #[error("cannot listen for signals: {0}")]
    Signals(std::io::Error),
}

/// One node's process.
struct Node {
    number: u16,
    arguments: Vec<OsString>,
    child: Option<Child>,
    started: Instant,
    /// It has said that it serves.
    ready: Arc<AtomicBool>,
    restart_at: Option<Instant>,
}

/// Runs the nodes until SIGINT or SIGTERM; a second signal kills them.
///
/// # Errors
/// When a node can't be started at all, or dies within a moment of its first start.
pub fn run(plan: &ClusterPlan) -> Result<(), SupervisorError> {
    let last = u32::from(plan.base_port) + u32::from(plan.nodes) - 1 + u32::from(PEER_PORT_OFFSET);
    if last > u32::from(u16::MAX) {
        return Err(SupervisorError::Ports(plan.nodes, plan.base_port));
    }
    let program = std::env::current_exe().map_err(|error| SupervisorError::Spawn(1, error))?;
    let signals = count_signals().map_err(SupervisorError::Signals)?;
    let (lines, said) = channel::<String>();
    let fresh = !plan.dir.join("node-1").exists();
    let mut nodes: Vec<Node> = (1..=plan.nodes).map(|number| Node::new(plan, number)).collect();
    for node in &mut nodes {
        node.start(&program, &lines)?;
        // One after the other, so that a new cluster numbers its nodes like their folders. An old one needs a majority.
        let deadline = Instant::now() + READY_MAX;
        while fresh
            && !node.ready.load(Ordering::Relaxed)
            && signals.load(Ordering::Relaxed) == 0
            && Instant::now() < deadline
        {
            print_lines(&said);
            node.look(&program, &lines, false)?;
        }
    }
    let mut stopping_since: Option<Instant> = None;
    loop {
        print_lines(&said);
        let stopping = signals.load(Ordering::Relaxed);
        if stopping > 0 && stopping_since.is_none() {
            stopping_since = Some(Instant::now());
            say("stopping all nodes");
            nodes.iter().for_each(|node| node.signal(rustix::process::Signal::TERM));
        }
        if let Some(since) = stopping_since
            && (stopping > 1 || since.elapsed() > STOP_MAX)
        {
            nodes.iter().for_each(|node| node.signal(rustix::process::Signal::KILL));
        }
        for node in &mut nodes {
            if let Err(error) = node.look(&program, &lines, stopping_since.is_some()) {
                nodes.iter().for_each(|node| node.signal(rustix::process::Signal::TERM));
                // Their last words.
                std::thread::sleep(LOOK);
                print_lines(&said);
                return Err(error);
            }
        }
        if stopping_since.is_some() && nodes.iter().all(|node| node.child.is_none()) {
            print_lines(&said);
            say("all nodes have stopped");
            return Ok(());
        }
    }
}

impl Node {
    fn new(plan: &ClusterPlan, number: u16) -> Self {
        let port = plan.base_port + number - 1;
        let first_peer = plan.base_port + PEER_PORT_OFFSET;
        let mut arguments: Vec<OsString> = match number {
            1 => vec!["init".into()],
            _ => vec!["join".into(), format!("127.0.0.1:{first_peer}").into()],
        };
        let dir: PathBuf = plan.dir.join(format!("node-{number}"));
        arguments.extend(["--port".into(), port.to_string().into(), "--dir".into(), dir.into_os_string()]);
        arguments.extend(plan.flags.iter().cloned());
        Node { number, arguments, child: None, started: Instant::now(), ready: Arc::default(), restart_at: None }
    }

    fn start(&mut self, program: &std::path::Path, lines: &Sender<String>) -> Result<(), SupervisorError> {
        let spawned = Command::new(program)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A group of its own, so that Ctrl-C reaches it through us, in order.
            .process_group(0)
            .spawn();
        let mut child = spawned.map_err(|error| SupervisorError::Spawn(self.number, error))?;
        say(&format!("node {} is process {}", self.number, child.id()));
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        for stream in [stdout.map(|s| Box::new(s) as Box<dyn Read + Send>), stderr.map(|s| Box::new(s) as _)] {
            let Some(stream) = stream else { continue };
            let (lines, number, ready) = (lines.clone(), self.number, Arc::clone(&self.ready));
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    // The last line of the banner.
                    ready.fetch_or(line.trim_start().starts_with("connect "), Ordering::Relaxed);
                    if lines.send(format!("[node {number}] {line}")).is_err() {
                        return;
                    }
                }
            });
        }
        self.child = Some(child);
        self.started = Instant::now();
        self.restart_at = None;
        Ok(())
    }

    /// Notices a node that ended, and starts it again when it is time.
    fn look(
        &mut self,
        program: &std::path::Path,
        lines: &Sender<String>,
        stopping: bool,
    ) -> Result<(), SupervisorError> {
        if let Some(child) = &mut self.child
            && let Ok(Some(status)) = child.try_wait()
        {
            self.child = None;
            if stopping {
                return Ok(());
            }
            // A refusal is final; a node that was killed comes back.
            if status.code().is_some() && !status.success() {
                return Err(SupervisorError::Refused(self.number, status));
            }
            say(&format!("node {} ended after {:?} ({status})", self.number, self.started.elapsed()));
            self.restart_at = Some(Instant::now() + REST);
        }
        if !stopping && self.restart_at.is_some_and(|at| at <= Instant::now()) {
            self.start(program, lines)?;
        }
        Ok(())
    }

    fn signal(&self, signal: rustix::process::Signal) {
        if let Some(child) = &self.child
            && let Some(pid) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw)
        {
            // It may have ended by itself.
            let _ = rustix::process::kill_process(pid, signal);
        }
    }
}

/// Prints what the nodes said, and waits a moment for more.
fn print_lines(said: &Receiver<String>) {
    match said.recv_timeout(LOOK) {
        Ok(first) => {
            let mut out = std::io::stdout().lock();
            // A closed standard output is no reason to stop the nodes.
            let _ = writeln!(out, "{first}");
            for line in said.try_iter() {
                let _ = writeln!(out, "{line}");
            }
        }
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
    }
}

fn say(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "[cluster] {text}");
}

/// Counts SIGINT and SIGTERM from now on.
fn count_signals() -> std::io::Result<Arc<AtomicUsize>> {
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("holdfast-signals".into()).spawn(move || {
        runtime.block_on(async move {
            use tokio::signal::unix::{SignalKind, signal};
            let (Ok(mut terminate), Ok(mut interrupt)) =
                (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
            else {
                return;
            };
            loop {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                counter.fetch_add(1, Ordering::Relaxed);
            }
        });
    })?;
    Ok(count)
}
