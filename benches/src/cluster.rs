//! Clusters of Holdfast as processes: starting, breaking, calling back, and finding out how they stand.
//!
//! `holdfast cluster` starts its nodes again when they die. Here a node stays away until it is called back, which is what
//! measuring an absence needs.
//!
//! A [`Site`] says where a node lives: its addresses, its folder, and what stands in front of its command, such as another
//! network namespace. Nodes on this machine's own addresses are made by [`Cluster::start`], on ports that are given, and by
//! [`Cluster::start_on_free_ports`].

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::Signal;

use crate::ask::{Asker, figure};
use crate::connection::Connection;
use crate::process::{Server, free_port};

/// Between a node's client port and its port for peers, where nothing else is said.
const PEER_PORT_OFFSET: u16 = 10_000;
/// A key that is written to see that it can be.
const PROBE: &[u8] = b"probe";
/// How long a node may take to start, and a new cluster to become whole.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// How long one question to a node may take: a stopped process takes connections and never answers.
const ASK_PATIENCE: Duration = Duration::from_millis(300);
/// How long one probing write may take before the next node is tried.
const PROBE_PATIENCE: Duration = Duration::from_millis(100);
/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(2);

/// Where a node lives.
#[derive(Debug, Clone)]
pub struct Site {
    /// Where its clients connect.
    pub client: SocketAddr,
    /// Where the other nodes connect.
    pub peer: SocketAddr,
    /// Its data folder.
    pub dir: PathBuf,
    /// Where its standard error goes, over all its starts.
    pub log: PathBuf,
    /// What stands in front of its command; nothing for an ordinary process.
    pub wrapper: Vec<String>,
}

impl Site {
    /// On this machine's own address, with its files in `dir`.
    pub fn local(dir: &Path, number: usize, client: u16, peer: u16) -> Site {
        Site {
            client: SocketAddr::from(([127, 0, 0, 1], client)),
            peer: SocketAddr::from(([127, 0, 0, 1], peer)),
            dir: dir.join(format!("node-{number}")),
            log: dir.join(format!("node-{number}.log")),
            wrapper: Vec::new(),
        }
    }
}

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
            connected: info.lines().filter(|line| line.trim_end().ends_with(",connected=1")).count(),
        })
    }
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

/// A node, running or away.
#[derive(Debug)]
struct Node {
    site: Site,
    /// `init`, or `join` and the peer address of a member. Both just start a node that belongs to a cluster already.
    verb: Vec<String>,
    server: Option<Server>,
    is_frozen: bool,
    is_member: bool,
}

/// A cluster. Its nodes are killed when this is dropped.
#[derive(Debug)]
pub struct Cluster {
    program: PathBuf,
    flags: Vec<String>,
    nodes: Vec<Node>,
}

impl Cluster {
    /// A cluster without nodes. `flags` go to every node.
    pub fn new(program: &Path, flags: &[String]) -> Self {
        Cluster { program: program.to_owned(), flags: flags.to_owned(), nodes: Vec::new() }
    }

    /// Starts `count` nodes of a new cluster on ports from `base_port` on (and 10,000 above), with folders in `dir`, and waits
    /// until all of them are voters that hear each other. A node that was away finds its ports free when it returns if they
    /// lie below those that the system gives to outgoing connections.
    ///
    /// # Errors
    /// If a node doesn't start, or the cluster isn't whole within a minute.
    pub fn start(program: &Path, dir: &Path, base_port: u16, count: u16, flags: &[String]) -> Result<Self, String> {
        let last = base_port.checked_add(count).and_then(|port| port.checked_add(PEER_PORT_OFFSET));
        last.ok_or_else(|| format!("there are no ports for {count} nodes from {base_port} on"))?;
        let ports = (0..count).map(|place| (base_port + place, base_port + place + PEER_PORT_OFFSET));
        Cluster::start_on(program, dir, ports.collect(), flags)
    }

    /// As [`Cluster::start`], on ports that nobody uses.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub fn start_on_free_ports(program: &Path, dir: &Path, count: usize, flags: &[String]) -> Result<Self, String> {
        let port = || free_port().map_err(|error| error.to_string());
        let ports: Result<Vec<(u16, u16)>, String> = (0..count).map(|_| Ok((port()?, port()?))).collect();
        Cluster::start_on(program, dir, ports?, flags)
    }

    fn start_on(program: &Path, dir: &Path, ports: Vec<(u16, u16)>, flags: &[String]) -> Result<Self, String> {
        let mut cluster = Cluster::new(program, flags);
        for (number, (client, peer)) in (1..).zip(ports) {
            cluster.add(Site::local(dir, number, client, peer))?;
        }
        cluster.wait_whole(START_PATIENCE)?;
        Ok(cluster)
    }

    /// Starts a node: the first founds the cluster, any other joins by a member that runs. Does not wait until it has a vote.
    ///
    /// # Errors
    /// If it doesn't start.
    pub fn add(&mut self, site: Site) -> Result<usize, String> {
        let member = self.nodes.iter().find(|node| node.is_member && node.server.is_some() && !node.is_frozen);
        let verb = match member {
            None => vec!["init".to_owned()],
            Some(member) => vec!["join".to_owned(), member.site.peer.to_string()],
        };
        self.nodes.push(Node { site, verb, server: None, is_frozen: false, is_member: true });
        let place = self.nodes.len() - 1;
        self.restart(place)?;
        Ok(place)
    }

    /// Starts a node that is away, on its folder and ports, and waits until it serves clients.
    ///
    /// # Errors
    /// If it doesn't start.
    pub fn restart(&mut self, place: usize) -> Result<(), String> {
        let node = &mut self.nodes[place];
        let mut words = node.site.wrapper.iter();
        let mut command = match words.next() {
            None => Command::new(&self.program),
            Some(first) => {
                let mut command = Command::new(first);
                command.args(words).arg(&self.program);
                command
            }
        };
        command.args(&node.verb).args(["--port", &node.site.client.port().to_string()]);
        command.args(["--peer-port", &node.site.peer.port().to_string(), "--dir"]).arg(&node.site.dir);
        if !node.site.client.ip().is_loopback() {
            command.args(["--bind", &node.site.client.ip().to_string()]);
        }
        command.args(&self.flags);
        node.server = Some(Server::start(&mut command, &node.site.log, START_PATIENCE)?);
        node.is_frozen = false;
        Ok(())
    }

    /// Ends a node as `kill -9` does. It stays away until [`Cluster::restart`].
    pub fn kill(&mut self, place: usize) {
        self.nodes[place].is_frozen = false;
        if let Some(server) = self.nodes[place].server.take() {
            server.kill();
        }
    }

    /// Asks a node to stop, and waits. It stays away until [`Cluster::restart`].
    ///
    /// # Errors
    /// If it doesn't stop in time, or ends with a failure.
    pub fn stop(&mut self, place: usize, patience: Duration) -> Result<(), String> {
        self.nodes[place].server.take().map_or(Ok(()), |server| server.stop(patience))
    }

    /// Freezes a node.
    ///
    /// # Errors
    /// If it is gone.
    pub fn freeze(&mut self, place: usize) -> Result<(), String> {
        self.signal(place, Signal::STOP)?;
        self.nodes[place].is_frozen = true;
        Ok(())
    }

    /// Lets a frozen node go on.
    ///
    /// # Errors
    /// If it is gone.
    pub fn thaw(&mut self, place: usize) -> Result<(), String> {
        self.nodes[place].is_frozen = false;
        self.signal(place, Signal::CONT)
    }

    /// Sends a node a signal, and does not wait for what it does.
    ///
    /// # Errors
    /// If it is gone.
    pub fn signal(&self, place: usize, signal: Signal) -> Result<(), String> {
        self.nodes[place].server.as_ref().ok_or("the node is not running")?.signal(signal)
    }

    /// Whether a node's process runs; one that ended by itself is away from then on.
    pub fn is_running(&mut self, place: usize) -> bool {
        let node = &mut self.nodes[place];
        if node.server.as_mut().is_some_and(Server::has_ended) {
            node.server = None;
        }
        node.server.is_some()
    }

    /// From now on a node is no member: it may run or not, and nobody waits for it.
    pub fn leave_out(&mut self, place: usize) {
        self.nodes[place].is_member = false;
    }

    /// How many nodes it has or had, those that are away too.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether it has no node.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The nodes that belong to it.
    pub fn members(&self) -> Vec<usize> {
        (0..self.len()).filter(|place| self.nodes[*place].is_member).collect()
    }

    /// Where a node's clients connect.
    pub fn address(&self, place: usize) -> SocketAddr {
        self.nodes[place].site.client
    }

    /// Where all their clients connect.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.site.client).collect()
    }

    /// A node's process, if it runs.
    pub fn pid(&self, place: usize) -> Option<u32> {
        self.nodes[place].server.as_ref().map(Server::pid)
    }

    /// The processes of all nodes that run.
    pub fn pids(&self) -> Vec<u32> {
        (0..self.len()).filter_map(|place| self.pid(place)).collect()
    }

    /// The file that holds what a node logged, over all its starts.
    pub fn log(&self, place: usize) -> &Path {
        &self.nodes[place].site.log
    }

    /// A connection to a node.
    ///
    /// # Errors
    /// If it takes none.
    pub fn asker(&self, place: usize) -> Result<Asker, String> {
        Asker::connect(self.address(place))
    }

    /// What a node says of itself; none if it doesn't answer.
    pub fn standing(&self, place: usize) -> Option<Standing> {
        let node = &self.nodes[place];
        if node.server.is_none() || node.is_frozen {
            return None;
        }
        let mut connection = Connection::open(node.site.client, ASK_PATIENCE).ok()?;
        Standing::parse(&connection.ask(&[b"INFO", b"cluster"]).ok()?)
    }

    /// Who leads, if a node says so of itself: the one with the highest term.
    ///
    /// # Errors
    /// If there isn't one right now.
    pub fn leader(&self) -> Result<usize, String> {
        let standings = self.members().into_iter().filter_map(|place| Some((place, self.standing(place)?)));
        let leaders = standings.filter(|(_, standing)| standing.role == "leader");
        let leader = leaders.max_by_key(|(_, standing)| standing.term).map(|(place, _)| place);
        leader.ok_or_else(|| "no node leads the cluster".to_owned())
    }

    /// Waits for a leader.
    ///
    /// # Errors
    /// If there is none in time.
    pub fn wait_leader(&self, patience: Duration) -> Result<usize, String> {
        let mut found = None;
        wait("somebody leads", patience, || {
            found = self.leader().ok();
            found.is_some()
        })?;
        found.ok_or_else(|| "nobody leads".to_owned())
    }

    /// Waits until every member has a vote, hears all others, and has applied what the leader had when it was asked.
    ///
    /// # Errors
    /// If that doesn't happen in time; the text says how the nodes stand.
    pub fn wait_whole(&self, patience: Duration) -> Result<(), String> {
        let members = self.members();
        let count = members.len();
        let whole = wait("every node votes, hears the others, and has caught up", patience, || {
            let Some(leader) = self.leader().ok().and_then(|place| self.standing(place)) else { return false };
            members.iter().all(|place| {
                self.standing(*place).is_some_and(|node| {
                    node.voters == count && node.connected == count && node.applied + 100 >= leader.applied
                })
            })
        });
        whole.map_err(|story| format!("{story}\n{}", self.describe()))
    }

    /// Waits until every member has applied all that was written before; nothing may be written meanwhile. It writes the key `probe` and
    /// looks for it: what INFO tells is what a node knew a moment ago.
    ///
    /// # Errors
    /// If that doesn't happen in time.
    pub fn wait_equal(&self, patience: Duration) -> Result<(), String> {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let marker = since_epoch.as_nanos().to_string();
        let ask = |place: usize, commands: &[&[&[u8]]]| -> Result<String, String> {
            let mut connection = Connection::open(self.address(place), ASK_PATIENCE)?;
            commands.iter().try_fold(String::new(), |_, command| connection.ask(command))
        };
        wait("the leader takes a write", patience, || {
            let taken = self.leader().and_then(|place| ask(place, &[&[b"SET", PROBE, marker.as_bytes()]]));
            taken.is_ok_and(|reply| reply == "OK")
        })?;
        let has_marker =
            |place: usize| ask(place, &[&[b"READONLY"], &[b"GET", PROBE]]).is_ok_and(|value| value == marker);
        wait("all nodes have applied the same", patience, || self.members().into_iter().all(has_marker))
            .map_err(|story| format!("{story}\n{}", self.describe()))
    }

    /// Asks every member but `except` to write, over and over, until one does: how long that took from `since` on.
    ///
    /// # Errors
    /// If nobody does in time.
    pub fn wait_served(&self, except: Option<usize>, since: Instant, patience: Duration) -> Result<Duration, String> {
        let mut connections: Vec<Option<Connection>> = (0..self.len()).map(|_| None).collect();
        wait("a node takes a write", patience, || {
            self.members().into_iter().filter(|place| Some(*place) != except).any(|place| {
                let connection = &mut connections[place];
                if connection.is_none() {
                    *connection = Connection::open(self.address(place), PROBE_PATIENCE).ok();
                }
                let asked = connection.as_mut().map(|connection| connection.ask(&[b"SET", PROBE, b"x"]));
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

    /// How the nodes stand, for an error's story.
    pub fn describe(&self) -> String {
        let line = |place: &usize| match (&self.nodes[*place].server, self.standing(*place)) {
            (None, _) => format!("node {}: not running", place + 1),
            (Some(_), None) => format!("node {}: does not answer", place + 1),
            (Some(_), Some(standing)) => format!("node {}: {standing:?}", place + 1),
        };
        self.members().iter().map(line).collect::<Vec<_>>().join("\n")
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
