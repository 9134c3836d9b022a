//! The nodes of the cluster as processes: starting, breaking, finding out who leads.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::connection::Connection;
use crate::process::{Server, free_port};

/// A node that does not serve by then is taken for hung.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// How long one question to a node may take: a stopped process takes connections and never answers.
const ASK_PATIENCE: Duration = Duration::from_millis(300);
/// How long one probing write may take before the next node is tried.
const PROBE_PATIENCE: Duration = Duration::from_millis(100);
/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(2);

/// What a node says of the group that it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// `leader`, `follower`, `learner` or `none`.
    pub role: String,
    /// Its term.
    pub term: u64,
    /// How far it has applied the log.
    pub applied: u64,
    /// How many nodes have a vote.
    pub voters: usize,
    /// How many nodes it hears from, itself included.
    pub connected: usize,
}

impl Standing {
    /// Reads it from the section `cluster` of INFO.
    fn parse(info: &str) -> Option<Self> {
        let line = info.lines().find_map(|line| line.strip_prefix("cluster_group1:"))?;
        let field = |name: &str| line.split(',').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
        Some(Standing {
            role: field("role")?.to_owned(),
            term: field("term")?.parse().ok()?,
            applied: field("applied")?.parse().ok()?,
            voters: field("voters")?.split('+').count(),
            connected: info.lines().filter(|line| line.ends_with(",connected=1")).count(),
        })
    }
}

/// One node.
#[derive(Debug)]
struct Node {
    command: Vec<String>,
    address: SocketAddr,
    running: Option<Server>,
    stopped: bool,
}

/// All of them.
#[derive(Debug)]
pub struct Nodes {
    server: PathBuf,
    dir: PathBuf,
    flags: Vec<String>,
    nodes: Vec<Node>,
}

impl Nodes {
    /// Starts a new cluster of so many nodes in `dir`, and waits until all have a vote.
    ///
    /// # Errors
    /// If a node doesn't start, or they don't come together.
    pub fn start(server: &Path, dir: &Path, count: usize, flags: &[String]) -> Result<Self, String> {
        let (server, dir) = (server.to_owned(), dir.to_owned());
        let mut nodes = Nodes { server, dir, flags: flags.to_vec(), nodes: Vec::new() };
        let mut founder = 0;
        for place in 0..count {
            let port = || free_port().map_err(|error| error.to_string());
            let (client, peer) = (port()?, port()?);
            let command = match place {
                0 => vec!["init".to_owned()],
                _ => vec!["join".to_owned(), format!("127.0.0.1:{founder}")],
            };
            if place == 0 {
                founder = peer;
            }
            let ports = ["--port".to_owned(), client.to_string(), "--peer-port".to_owned(), peer.to_string()];
            let command = command.into_iter().chain(ports).collect();
            let address = SocketAddr::from(([127, 0, 0, 1], client));
            nodes.nodes.push(Node { command, address, running: None, stopped: false });
            nodes.restart(place)?;
        }
        nodes.wait_whole(START_PATIENCE)?;
        Ok(nodes)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Where a node's clients connect.
    pub fn address(&self, place: usize) -> SocketAddr {
        self.nodes[place].address
    }

    /// Where all their clients connect.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.address).collect()
    }

    /// Where a node's standard error goes.
    pub fn log(&self, place: usize) -> PathBuf {
        self.dir.join(format!("node-{}.log", place + 1))
    }

    /// Starts a node that isn't running, on its folder and ports, and waits until it answers.
    ///
    /// # Errors
    /// If it doesn't start.
    pub fn restart(&mut self, place: usize) -> Result<(), String> {
        let mut command = Command::new(&self.server);
        command.args(&self.nodes[place].command).arg("--dir").arg(self.dir.join(format!("node-{}", place + 1)));
        command.args(&self.flags);
        let started = Server::start(&mut command, &self.log(place), START_PATIENCE)?;
        let node = &mut self.nodes[place];
        node.running = Some(started);
        node.stopped = false;
        Ok(())
    }

    /// Ends a node as `kill -9` does.
    pub fn kill(&mut self, place: usize) {
        if let Some(server) = self.nodes[place].running.take() {
            server.kill();
        }
    }

    /// Freezes a node.
    ///
    /// # Errors
    /// If it is gone.
    pub fn freeze(&mut self, place: usize) -> Result<(), String> {
        self.nodes[place].stopped = true;
        self.signal(place, Signal::STOP)
    }

    /// Lets a frozen node go on.
    ///
    /// # Errors
    /// If it is gone.
    pub fn thaw(&mut self, place: usize) -> Result<(), String> {
        self.nodes[place].stopped = false;
        self.signal(place, Signal::CONT)
    }

    fn signal(&self, place: usize, signal: Signal) -> Result<(), String> {
        self.nodes[place].running.as_ref().ok_or("the node is not running")?.signal(signal)
    }

    /// What a node says of itself; none if it doesn't answer.
    pub fn standing(&self, place: usize) -> Option<Standing> {
        let node = &self.nodes[place];
        if node.running.is_none() || node.stopped {
            return None;
        }
        let mut connection = Connection::open(node.address, ASK_PATIENCE).ok()?;
        Standing::parse(&connection.ask(&[b"INFO", b"cluster"]).ok()?)
    }

    /// Who leads, if a node says so of itself: the one with the highest term.
    pub fn leader(&self) -> Option<usize> {
        let standings = (0..self.len()).filter_map(|place| Some((place, self.standing(place)?)));
        let leaders = standings.filter(|(_, standing)| standing.role == "leader");
        leaders.max_by_key(|(_, standing)| standing.term).map(|(place, _)| place)
    }

    /// Waits for a leader.
    ///
    /// # Errors
    /// If there is none in time.
    pub fn wait_leader(&self, patience: Duration) -> Result<usize, String> {
        let mut found = None;
        wait("somebody leads", patience, || {
            found = self.leader();
            found.is_some()
        })?;
        found.ok_or_else(|| "nobody leads".to_owned())
    }

    /// Waits until every node has a vote, hears all others, and has applied what the leader had when it was asked.
    ///
    /// # Errors
    /// If that doesn't happen in time.
    pub fn wait_whole(&self, patience: Duration) -> Result<(), String> {
        let count = self.len();
        wait("every node votes, hears the others, and has caught up", patience, || {
            let Some(leader) = self.leader().and_then(|place| self.standing(place)) else { return false };
            (0..count)
                .filter_map(|place| self.standing(place))
                .all(|node| node.voters == count && node.connected == count && node.applied + 100 >= leader.applied)
                && (0..count).all(|place| self.nodes[place].running.is_some())
        })
    }

    /// Waits until all nodes have applied the same; nothing may be written meanwhile.
    ///
    /// # Errors
    /// If that doesn't happen in time.
    pub fn wait_equal(&self, patience: Duration) -> Result<(), String> {
        wait("all nodes have applied the same", patience, || {
            let applied: Vec<u64> = (0..self.len()).filter_map(|place| Some(self.standing(place)?.applied)).collect();
            applied.len() == self.len() && applied.iter().all(|index| *index == applied[0])
        })
    }

    /// Asks every node but `except` to write, over and over, until one does: how long that took from `since` on.
    ///
    /// # Errors
    /// If nobody does in time.
    pub fn wait_served(&self, except: Option<usize>, since: Instant, patience: Duration) -> Result<Duration, String> {
        let mut connections: Vec<Option<Connection>> = (0..self.len()).map(|_| None).collect();
        wait("a node takes a write", patience, || {
            (0..self.len()).filter(|place| Some(*place) != except).any(|place| {
                let connection = &mut connections[place];
                if connection.is_none() {
                    *connection = Connection::open(self.nodes[place].address, PROBE_PATIENCE).ok();
                }
                let asked = connection.as_mut().map(|connection| connection.ask(&[b"SET", b"probe", b"x"]));
                match asked {
                    Some(Ok(reply)) => reply == "OK",
                    Some(Err(_)) => {
                        *connection = None;
                        false
                    }
                    None => false,
                }
            })
        })?;
        Ok(since.elapsed())
    }
}

/// Looks again and again until something holds.
fn wait(what: &str, patience: Duration, mut holds: impl FnMut() -> bool) -> Result<(), String> {
    let deadline = Instant::now() + patience;
    while !holds() {
        if Instant::now() > deadline {
            return Err(format!("not within {patience:?}: {what}"));
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standing_is_read_from_info() {
        let info = "# Cluster\r\ncluster_enabled:1\r\ncluster_node1:client=127.0.0.1:1,peer=127.0.0.1:2,connected=1\r\n\
                    cluster_node2:client=127.0.0.1:3,peer=127.0.0.1:4,connected=0\r\n\
                    cluster_group1:role=leader,term=7,leader=1,commit=9,applied=8,voters=1+2,learners=\r\n";
        let expected = Standing { role: "leader".into(), term: 7, applied: 8, voters: 2, connected: 1 };
        assert_eq!(Standing::parse(info), Some(expected));
        assert_eq!(Standing::parse("cluster_enabled:0\r\n"), None);
    }
}
