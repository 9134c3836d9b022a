//! Built servers that are one cluster, three at first, and what a test does to them.

use super::relay::Relay;
use super::resp::{Client, Value};
use super::{PATIENCE, Server, command, folder};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How many nodes there are at first.
pub const NODES: usize = 3;
/// How long one question may take: a process that was stopped takes connections and never answers.
const ASK_PATIENCE: Duration = Duration::from_millis(500);
/// Another name of this machine, where the relays between nodes listen.
const RELAYED_HOST: &str = "127.0.0.2";
/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// Looks again and again until it is so, and leaves the processor to the servers meanwhile.
#[track_caller]
pub fn until(what: &str, is_so: impl FnMut() -> bool) {
    until_within(what, PATIENCE, is_so);
}

/// As [`until`], for what must not take long.
#[track_caller]
pub fn until_within(what: &str, patience: Duration, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < patience, "not within {patience:?}: {what}");
        std::thread::sleep(LOOK);
    }
}

/// A port that nobody listens on, and that nobody will get by chance: below those that the system gives to connections, and each once.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = std::process::id().wrapping_mul(97).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = 22_000 + (number % 10_000) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// What a node says of its group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    pub role: String,
    pub term: u64,
    /// The node's number; 0 for nobody.
    pub leader: u64,
    pub commit: u64,
    pub applied: u64,
    pub voters: usize,
    /// How many nodes it hears from, itself included.
    pub connected: usize,
}

impl Standing {
    fn parse(info: &str) -> Option<Standing> {
        let line = info.lines().find_map(|line| line.strip_prefix("cluster_group1:"))?;
        let field = |name: &str| line.split(',').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
        let number = |name: &str| field(name)?.parse().ok();
        Some(Standing {
            role: field("role")?.to_owned(),
            term: number("term")?,
            leader: number("leader")?,
            commit: number("commit")?,
            applied: number("applied")?,
            voters: field("voters")?.split('+').filter(|id| !id.is_empty()).count(),
            connected: info.lines().filter(|line| line.ends_with(",connected=1")).count(),
        })
    }
}

/// One node: its folder and ports stay, its process comes and goes.
struct Node {
    entry: Vec<String>,
    port: u16,
    peer_port: u16,
    server: Option<Server>,
    frozen: bool,
    /// It was removed: nobody counts on it.
    left: bool,
}

/// The cluster. Everything is killed when it is dropped.
pub struct Cluster {
    dir: tempfile::TempDir,
    flags: Vec<String>,
    nodes: Vec<Node>,
    /// What the nodes' connections to each other go through, if they do.
    relays: Vec<Relay>,
}

impl Cluster {
    /// Starts three nodes and waits until all have a vote.
    pub fn start() -> Cluster {
        Cluster::start_with(&[])
    }

    /// The same with further flags for every node.
    pub fn start_with(flags: &[&str]) -> Cluster {
        Cluster::start_nodes(flags, false)
    }

    /// The same, but what the nodes say to each other goes through relays, whose connections [`Cluster::cut_links_to`] ends.
    pub fn start_behind_relays(flags: &[&str]) -> Cluster {
        Cluster::start_nodes(&[flags, &["--announce-host", RELAYED_HOST]].concat(), true)
    }

    fn start_nodes(flags: &[&str], relayed: bool) -> Cluster {
        let flags = flags.iter().map(|flag| flag.to_string()).collect();
        let mut cluster = Cluster { dir: folder(), flags, nodes: Vec::new(), relays: Vec::new() };
        for place in 0..NODES {
            let (port, peer_port) = (free_port(), free_port());
            let entry = match place {
                0 => vec!["init".to_owned()],
                _ => vec!["join".to_owned(), format!("127.0.0.1:{}", cluster.nodes[0].peer_port)],
            };
            if relayed {
                let host: IpAddr = RELAYED_HOST.parse().expect("an address");
                let to = SocketAddr::from(([127, 0, 0, 1], peer_port));
                cluster.relays.push(Relay::start(SocketAddr::new(host, peer_port), to));
            }
            cluster.nodes.push(Node { entry, port, peer_port, server: None, frozen: false, left: false });
            cluster.restart(place);
        }
        cluster.wait_whole();
        cluster
    }

    /// Ends all connections that others made to a node. They are free to make new ones.
    pub fn cut_links_to(&self, place: usize) {
        self.relays[place].cut();
    }

    /// Starts another node, which asks the one at `via` to be taken in. Its number is its place plus 1, if nodes are added one by one.
    pub fn add(&mut self, via: usize) -> usize {
        let entry = vec!["join".to_owned(), self.peer_address(via)];
        let (port, peer_port) = (free_port(), free_port());
        self.nodes.push(Node { entry, port, peer_port, server: None, frozen: false, left: false });
        self.restart(self.nodes.len() - 1);
        self.nodes.len() - 1
    }

    /// Counts on a node no more: it was removed.
    pub fn forget(&mut self, place: usize) {
        self.nodes[place].left = true;
    }

    /// The nodes that the cluster should have.
    pub fn places(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|place| !self.nodes[*place].left).collect()
    }

    /// Where a node's data is.
    pub fn dir(&self, place: usize) -> std::path::PathBuf {
        self.dir.path().join(format!("node-{}", place + 1))
    }

    /// What a node logged since the cluster began.
    pub fn log(&self, place: usize) -> std::path::PathBuf {
        self.dir(place).with_extension("log")
    }

    /// Where a node's clients connect.
    pub fn address(&self, place: usize) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.nodes[place].port))
    }

    /// Where its peers connect.
    pub fn peer_address(&self, place: usize) -> String {
        format!("127.0.0.1:{}", self.nodes[place].peer_port)
    }

    /// A connection to a node.
    pub fn client(&self, place: usize) -> Client {
        Client::connect(self.address(place))
    }

    /// A node's process.
    pub fn server(&self, place: usize) -> &Server {
        self.nodes[place].server.as_ref().expect("the node runs")
    }

    /// Starts a node on its folder and ports.
    pub fn restart(&mut self, place: usize) {
        self.restart_with(place, &[]);
    }

    /// The same with further flags for this once.
    pub fn restart_with(&mut self, place: usize, flags: &[&str]) {
        let dir = self.dir(place);
        let node = &mut self.nodes[place];
        let log = dir.with_extension("log");
        let mut command = command(&dir);
        command.arg("--log-file").arg(log);
        command.args(["--port", &node.port.to_string(), "--peer-port", &node.peer_port.to_string()]);
        command.args(&self.flags).args(flags);
        // The subcommand comes first.
        let mut whole = std::process::Command::new(command.get_program());
        whole.args(&node.entry).args(command.get_args());
        node.server = Some(Server::start_command(whole));
        node.frozen = false;
    }

    /// Gives a node that isn't running other ports.
    pub fn move_ports(&mut self, place: usize) {
        (self.nodes[place].port, self.nodes[place].peer_port) = (free_port(), free_port());
    }

    /// Ends a node as a crash would.
    pub fn kill(&mut self, place: usize) {
        self.nodes[place].server.take().expect("the node runs").kill();
    }

    /// Asks a node to stop, and waits for it.
    pub fn terminate(&mut self, place: usize) -> std::process::ExitStatus {
        self.nodes[place].server.take().expect("the node runs").terminate()
    }

    /// Stops a node in the middle of whatever it does.
    pub fn freeze(&mut self, place: usize) {
        self.server(place).signal("STOP");
        self.nodes[place].frozen = true;
    }

    /// Lets it go on.
    pub fn thaw(&mut self, place: usize) {
        self.server(place).signal("CONT");
        self.nodes[place].frozen = false;
    }

    /// What a node says of its group; none if it doesn't run.
    pub fn standing(&self, place: usize) -> Option<Standing> {
        let node = &self.nodes[place];
        if node.server.is_none() || node.frozen {
            return None;
        }
        let mut client = Client::try_connect(self.address(place), ASK_PATIENCE).ok()?;
        Standing::parse(&client.try_run("INFO cluster").ok()?.text())
    }

    /// Who leads, if somebody says so of itself: the one with the highest term.
    pub fn leader_now(&self) -> Option<usize> {
        let standings = self.places().into_iter().filter_map(|place| Some((place, self.standing(place)?)));
        let leaders = standings.filter(|(_, standing)| standing.role == "leader");
        leaders.max_by_key(|(_, standing)| standing.term).map(|(place, _)| place)
    }

    /// Waits for a leader.
    #[track_caller]
    pub fn leader(&self) -> usize {
        let mut leader = None;
        until("somebody leads", || {
            leader = self.leader_now();
            leader.is_some()
        });
        leader.expect("a leader")
    }

    /// The nodes that are not this one.
    pub fn others(&self, place: usize) -> Vec<usize> {
        self.places().into_iter().filter(|other| *other != place).collect()
    }

    /// Waits until every node has a vote, hears the others, follows one leader, and has applied what that one had.
    #[track_caller]
    pub fn wait_whole(&self) {
        until("all nodes are one cluster", || {
            let places = self.places();
            let standings: Vec<Standing> = places.iter().filter_map(|place| self.standing(*place)).collect();
            let Some(leader) = standings.iter().find(|standing| standing.role == "leader") else { return false };
            standings.len() == places.len()
                && standings.iter().all(|standing| {
                    (standing.voters, standing.connected) == (places.len(), places.len())
                        && (standing.term, standing.leader) == (leader.term, leader.leader)
                        && standing.applied == leader.commit
                })
        });
    }

    /// Runs a command where it is taken, as a client does that goes on until it has an answer: after an error of the cluster,
    /// or a connection that ended, it asks the next node. For what may happen twice.
    #[track_caller]
    pub fn run(&self, line: &str) -> Value {
        let mut answer = None;
        let mut place = 0;
        until(line, || {
            place = (place + 1) % self.nodes.len();
            if self.nodes[place].server.is_none() || self.nodes[place].frozen || self.nodes[place].left {
                return false;
            }
            let Ok(mut client) = Client::try_connect(self.address(place), PATIENCE) else { return false };
            answer = client.try_run(line).ok().filter(|reply| !is_elsewhere(reply));
            answer.is_some()
        });
        answer.expect("an answer")
    }
}

/// Whether a reply says: not here, or not now. Nothing was done.
pub fn is_elsewhere(reply: &Value) -> bool {
    ["MOVED", "CLUSTERDOWN", "READONLY", "TRYAGAIN"].iter().any(|code| reply.is_error(code))
}
