//! A network of our own: each node in its own namespace, joined by a bridge, with rules that break it.
//!
//! ```text
//!   clients, this process ── bridge 10.213.S.254 ─┬─ veth ─ node 1: 10.213.S.1   iptables: who is not heard, what is lost
//!                                                 ├─ veth ─ node 2: 10.213.S.2   tc tbf: how slow it sends
//!                                                 └─ …
//! ```
//!
//! A rule stands at the receiver and names the sender, so a link can be cut in one direction alone. Clients are never cut
//! off: a node that only its peers don't hear is where stale reads would come from.
//!
//! S is a slot that this process holds by a lock on a file. What an earlier process left behind in a slot is removed when
//! the next one takes it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use holdfast_sim::random::Random;
use rustix::process::{Pid, Signal, kill_process};

use crate::delay::{Delay, QUEUE};

/// Slots that are tried.
const SLOTS: u8 = 200;
/// The burst that a slow link lets through at once, and how long it holds what it can't send yet.
const SLOW_BURST: &str = "16kb";
const SLOW_LATENCY: &str = "400ms";

/// What is wrong with the network. Nodes are numbered from 1.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Weather {
    /// Sender and receiver: nothing gets through.
    pub cut: BTreeSet<(usize, usize)>,
    /// Of what a node is sent by its peers, so many packets in a thousand are lost.
    pub loss: BTreeMap<usize, u32>,
    /// How many kilobits a node sends in a second.
    pub slow: BTreeMap<usize, u32>,
    /// What a node is sent by its peers comes up to so many milliseconds late, in another order.
    pub delay: BTreeMap<usize, u32>,
    /// What peers send to a node is answered with the end of the connection, in the middle of whatever it carries.
    pub reset: BTreeSet<usize>,
}

/// A network of so many nodes. It is taken down when this is dropped.
#[derive(Debug)]
pub struct Network {
    slot: u8,
    nodes: usize,
    weather: Weather,
    /// By node.
    delays: BTreeMap<usize, Delay>,
    random: Random,
    _lock: File,
}

/// What this machine lacks for a [`Network`]; none if it has everything.
pub fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("only root may make network namespaces and mounts".to_owned());
    }
    for tool in ["ip", "tc", "iptables-restore", "nsenter", "setsid"] {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let paths = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
        if !paths.into_iter().any(|folder: std::path::PathBuf| folder.join(tool).exists()) {
            return Some(format!("there is no `{tool}` (packages iproute2, iptables, util-linux)"));
        }
    }
    let network = Network::new(1).and_then(|mut network| {
        let weather = Weather {
            cut: BTreeSet::from([(2, 1)]),
            loss: BTreeMap::from([(1, 100)]),
            slow: BTreeMap::from([(1, 1000)]),
            delay: BTreeMap::from([(1, 10)]),
            reset: BTreeSet::from([1]),
        };
        network.set(&weather)
    });
    network.err()
}

impl Network {
    /// Makes a network.
    ///
    /// # Errors
    /// If the system doesn't let us.
    pub fn new(nodes: usize) -> Result<Network, String> {
        let (slot, lock) = take_slot()?;
        let mut network = Network {
            slot,
            nodes: 0,
            weather: Weather::default(),
            delays: BTreeMap::new(),
            random: Random::new(u64::from(slot)),
            _lock: lock,
        };
        network.tear_down();
        let bridge = network.bridge();
        run(&["ip", "link", "add", &bridge, "type", "bridge"])?;
        run(&["ip", "address", "add", &format!("10.213.{slot}.254/24"), "dev", &bridge])?;
        run(&["ip", "link", "set", &bridge, "up"])?;
        for _ in 0..nodes {
            network.add()?;
        }
        Ok(network)
    }

    /// Adds a namespace for one more node.
    ///
    /// # Errors
    /// If the system doesn't let us.
    pub fn add(&mut self) -> Result<(), String> {
        self.nodes += 1;
        let (node, bridge, slot) = (self.nodes, self.bridge(), self.slot);
        let (space, outer) = (self.space(node), format!("hfv{slot}-{node}"));
        run(&["ip", "netns", "add", &space])?;
        run(&["ip", "link", "add", &outer, "type", "veth", "peer", "name", "eth0", "netns", &space])?;
        run(&["ip", "link", "set", &outer, "master", &bridge, "up"])?;
        let address = format!("{}/24", self.address(node));
        for words in [&["address", "add", &address, "dev", "eth0"][..], &["link", "set", "eth0", "up"]] {
            run(&[&["ip", "-n", &space], words].concat())?;
        }
        run(&["ip", "-n", &space, "link", "set", "lo", "up"])
    }

    /// A node's address.
    pub fn address(&self, node: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, 213, self.slot, node as u8)
    }

    /// What stands in front of a command that is to run where a node is.
    pub fn wrapper(&self, node: usize) -> Vec<String> {
        let space = format!("--net=/run/netns/{}", self.space(node));
        ["setsid", "nsenter", &space].map(str::to_owned).to_vec()
    }

    /// Makes the network as it should be.
    ///
    /// # Errors
    /// If the rules are not taken.
    pub fn set(&mut self, weather: &Weather) -> Result<(), String> {
        for node in 1..=self.nodes {
            let delay = weather.delay.get(&node);
            if let (Some(delay), None) = (delay, self.delays.get(&node)) {
                let space = format!("/run/netns/{}", self.space(node));
                let (most, random) = (Duration::from_millis(u64::from(*delay)), self.random.fork("delay"));
                self.delays.insert(node, Delay::new(Path::new(&space), most, random)?);
            }
            let rules = self.rules(node, weather);
            if rules != self.rules(node, &self.weather) {
                self.restore(node, &rules)?;
            }
            if delay.is_none() {
                // Once nothing more comes into the queue.
                self.delays.remove(&node);
            }
            let slow = weather.slow.get(&node);
            if slow != self.weather.slow.get(&node) {
                let space = self.space(node);
                let at = ["tc", "-n", &space, "qdisc"];
                match slow {
                    None => run(&[&at[..], &["del", "dev", "eth0", "root"]].concat())?,
                    Some(rate) => {
                        let rate = format!("{rate}kbit");
                        let how = ["rate", &rate, "burst", SLOW_BURST, "latency", SLOW_LATENCY];
                        run(&[&at[..], &["replace", "dev", "eth0", "root", "tbf"], &how[..]].concat())?;
                    }
                }
            }
        }
        self.weather = weather.clone();
        Ok(())
    }

    fn rules(&self, node: usize, weather: &Weather) -> String {
        let mut rules = String::from("*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n");
        for (source, _) in weather.cut.iter().filter(|(_, target)| *target == node) {
            rules += &format!("-A INPUT -s {} -j DROP\n", self.address(*source));
        }
        if let Some(loss) = weather.loss.get(&node) {
            let chance = f64::from(*loss) / 1000.0;
            for peer in (1..=self.nodes).filter(|peer| *peer != node) {
                let address = self.address(peer);
                rules += &format!("-A INPUT -s {address} -m statistic --mode random --probability {chance} -j DROP\n");
            }
        }
        for peer in (1..=self.nodes).filter(|peer| *peer != node) {
            let address = self.address(peer);
            if weather.reset.contains(&node) {
                rules += &format!("-A INPUT -p tcp -s {address} -j REJECT --reject-with tcp-reset\n");
            }
            if weather.delay.contains_key(&node) {
                rules += &format!("-A INPUT -s {address} -j NFQUEUE --queue-num {QUEUE} --queue-bypass\n");
            }
        }
        rules + "COMMIT\n"
    }

    fn restore(&self, node: usize, rules: &str) -> Result<(), String> {
        let space = format!("--net=/run/netns/{}", self.space(node));
        let mut command = Command::new("nsenter");
        command.args([&space, "iptables-restore", "-w"]).env("PATH", path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let failed = |error: std::io::Error| format!("iptables-restore: {error}");
        let mut child = command.spawn().map_err(failed)?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(rules.as_bytes()).map_err(failed)?;
        }
        let output = child.wait_with_output().map_err(failed)?;
        if output.status.success() {
            return Ok(());
        }
        Err(format!("iptables-restore: {}\n{rules}", String::from_utf8_lossy(&output.stderr).trim()))
    }

    fn bridge(&self) -> String {
        format!("hfb{}", self.slot)
    }

    fn space(&self, node: usize) -> String {
        format!("hfn{}-{node}", self.slot)
    }

    /// Removes everything that there may be in this slot, whoever left it.
    fn tear_down(&self) {
        let prefix = format!("hfn{}-", self.slot);
        let spaces = output(&["ip", "netns", "list"]).unwrap_or_default();
        for space in spaces.lines().filter_map(|line| line.split_whitespace().next()) {
            if !space.starts_with(&prefix) {
                continue;
            }
            for pid in output(&["ip", "netns", "pids", space]).unwrap_or_default().split_whitespace() {
                if let Some(pid) = pid.parse().ok().and_then(Pid::from_raw) {
                    let _ = kill_process(pid, Signal::KILL);
                }
            }
            let _ = run(&["ip", "netns", "delete", space]);
        }
        // A namespace goes some time after it is deleted, and takes its links along only then.
        let prefix = format!("hfv{}-", self.slot);
        let links = output(&["ip", "-o", "link", "show", "type", "veth"]).unwrap_or_default();
        for link in links.lines().filter_map(|line| line.split_whitespace().nth(1)?.split(['@', ':']).next()) {
            if link.starts_with(&prefix) {
                let _ = run(&["ip", "link", "delete", link]);
            }
        }
        let _ = run(&["ip", "link", "delete", &self.bridge()]);
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.tear_down();
    }
}

fn take_slot() -> Result<(u8, File), String> {
    for slot in 0..SLOTS {
        let path = format!("/run/holdfast-blackbox-{slot}.lock");
        let file = File::create(&path).map_err(|error| format!("cannot make {path}: {error}"))?;
        if file.try_lock().is_ok() {
            return Ok((slot, file));
        }
    }
    Err("every network of this kind is in use".to_owned())
}

/// The folders where these tools are, also for those whose own list lacks them.
fn path() -> String {
    format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default())
}

fn output(words: &[&str]) -> Result<String, String> {
    let mut command = Command::new(words[0]);
    let output = command.args(&words[1..]).env("PATH", path()).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("`{}`: {error}", words.join(" ")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("`{}`: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}

fn run(words: &[&str]) -> Result<(), String> {
    output(words).map(drop)
}
