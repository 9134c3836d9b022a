//! Clusters of Holdfast on this machine: a process for each node, to be killed and started again one by one.
//!
//! `holdfast cluster` starts its nodes again when they die. Here a node stays away until it is called back, which is what
//! measuring an absence needs.
//!
//! Ports are given, not found: a node that is away must find its own free when it returns, so they lie below those that the
//! system gives to outgoing connections.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::ask::{Asker, figure};
use crate::process::Server;

/// Between a node's client port and its port for peers.
const PEER_PORT_OFFSET: u16 = 10_000;
/// How long a node may take to start, and the cluster to become whole.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked whether it is.
const LOOK: Duration = Duration::from_millis(20);

/// A node, running or away.
#[derive(Debug)]
struct Node {
    address: SocketAddr,
    dir: PathBuf,
    stderr: PathBuf,
    server: Option<Server>,
}

/// A cluster. Its nodes are killed when this is dropped.
#[derive(Debug)]
pub struct Cluster {
    program: PathBuf,
    flags: Vec<String>,
    nodes: Vec<Node>,
}

/// What a node says of its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogFigures {
    /// The last entry that is applied.
    pub applied: u64,
    /// The last entry that it knows to be committed.
    pub commit: u64,
    /// The first entry that its log still holds.
    pub first: u64,
}

impl Cluster {
    /// Starts `count` nodes of a new cluster on ports from `base_port` on (and 10,000 above), with folders in `dir`, and waits
    /// until all of them are voters that hear each other. `flags` go to every node.
    ///
    /// # Errors
    /// If a node doesn't start, or the cluster isn't whole within a minute.
    pub fn start(program: &Path, dir: &Path, base_port: u16, count: u16, flags: &[String]) -> Result<Self, String> {
        let last = base_port.checked_add(count).and_then(|port| port.checked_add(PEER_PORT_OFFSET));
        last.ok_or_else(|| format!("there are no ports for {count} nodes from {base_port} on"))?;
        let mut cluster = Cluster { program: program.to_owned(), flags: flags.to_owned(), nodes: Vec::new() };
        for number in 1..=count {
            let address = SocketAddr::from(([127, 0, 0, 1], base_port + number - 1));
            let stderr = dir.join(format!("node-{number}.stderr"));
            cluster.nodes.push(Node { address, dir: dir.join(format!("node-{number}")), stderr, server: None });
            cluster.restart(usize::from(number) - 1)?;
        }
        cluster.wait_until_whole()?;
        Ok(cluster)
    }

    /// Waits until all nodes are voters and the leader hears them.
    ///
    /// # Errors
    /// If that takes longer than a minute; the text says what was seen last.
    pub fn wait_until_whole(&self) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let seen = self.leader().and_then(|leader| self.asker(leader)?.info("replication"));
            let online = seen.as_ref().map_or(0, |text| text.matches("state=online").count());
            if online + 1 >= self.nodes.len() {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(format!("the cluster was not whole within {PATIENCE:?}; last seen: {seen:?}"));
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Starts a node that is away, and waits until it serves clients.
    ///
    /// # Errors
    /// If it doesn't start.
    pub fn restart(&mut self, place: usize) -> Result<(), String> {
        let founder = SocketAddr::from(([127, 0, 0, 1], self.nodes[0].address.port() + PEER_PORT_OFFSET));
        let node = &mut self.nodes[place];
        let mut command = Command::new(&self.program);
        match place {
            0 => command.arg("init"),
            _ => command.arg("join").arg(founder.to_string()),
        };
        command.args(["--port", &node.address.port().to_string(), "--dir"]).arg(&node.dir).args(&self.flags);
        node.server = Some(Server::start(&mut command, &node.stderr, PATIENCE)?);
        Ok(())
    }

    /// Ends a node as `kill -9` does. It stays away until [`Cluster::restart`].
    pub fn kill(&mut self, place: usize) {
        if let Some(server) = self.nodes[place].server.take() {
            server.kill();
        }
    }

    /// How many nodes it has, those that are away too.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether it has no node.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Where a node serves clients.
    pub fn address(&self, place: usize) -> SocketAddr {
        self.nodes[place].address
    }

    /// A node's process, if it runs.
    pub fn pid(&self, place: usize) -> Option<u32> {
        self.nodes[place].server.as_ref().map(Server::pid)
    }

    /// The processes of all nodes that run.
    pub fn pids(&self) -> Vec<u32> {
        (0..self.nodes.len()).filter_map(|place| self.pid(place)).collect()
    }

    /// The file that holds what a node logged, over all its starts.
    pub fn stderr(&self, place: usize) -> &Path {
        &self.nodes[place].stderr
    }

    /// A connection to a node.
    ///
    /// # Errors
    /// If it takes none.
    pub fn asker(&self, place: usize) -> Result<Asker, String> {
        Asker::connect(self.nodes[place].address)
    }

    /// Which node leads: the one that says so of itself.
    ///
    /// # Errors
    /// If there isn't one right now.
    pub fn leader(&self) -> Result<usize, String> {
        let running = (0..self.nodes.len()).filter(|place| self.nodes[*place].server.is_some());
        let leads = |place: &usize| {
            let text = self.asker(*place).and_then(|mut asker| asker.info("replication"));
            text.is_ok_and(|text| figure(&text, "role") == Some("master"))
        };
        running.into_iter().find(leads).ok_or_else(|| "no node leads the cluster".to_owned())
    }
}

/// A node's figures of its log.
///
/// # Errors
/// If it doesn't tell them.
pub fn log_figures(asker: &mut Asker) -> Result<LogFigures, String> {
    let text = asker.info("raft")?;
    let number = |name: &str| {
        let number = figure(&text, name).and_then(|value| value.parse().ok());
        number.ok_or_else(|| format!("INFO raft tells no {name}:\n{text}"))
    };
    Ok(LogFigures {
        applied: number("applied_index")?,
        commit: number("commit_index")?,
        first: number("log_first_index")?,
    })
}
