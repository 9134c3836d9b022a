//! The cluster on its network and its disks, and the hands that break and mend it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use holdfast_bench::cluster::{Cluster, Site};
use holdfast_bench::process::tail;
use holdfast_sim::random::Random;
use rustix::process::Signal;

use crate::disk::{Disk, Faults, Mount, Survival};
use crate::fault::Fault;
use crate::network::{self, Network, Weather};

/// Every node's port for clients; each has an address of its own.
const CLIENT_PORT: u16 = 7000;
/// And the one for peers.
const PEER_PORT: u16 = 17000;
/// How long a node that is asked to stop may take.
const STOP_PATIENCE: Duration = Duration::from_secs(20);
/// How long the nodes may take to be whole, or equal.
pub const WHOLE_PATIENCE: Duration = Duration::from_secs(90);

/// Small limits, so that segments are cut, memtables flushed and snapshots sent while a campaign watches.
pub const SMALL_LIMITS: [&str; 8] =
    ["--log-segment-bytes", "1MiB", "--log-bytes-max", "8MiB", "--memory-budget", "64MiB", "--value-bytes-max", "1MiB"];

/// What this machine lacks for a stage; none if it has everything.
pub fn missing() -> Option<String> {
    if let Some(missing) = network::missing() {
        return Some(missing);
    }
    let folder = std::env::temp_dir().join(format!("holdfast-blackbox-{}", std::process::id()));
    let mounted = std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()));
    let mounted = mounted.and_then(|()| Mount::new(Disk::new(Random::new(0)), &folder));
    let missing = mounted.map(drop).err();
    let _ = std::fs::remove_dir(&folder);
    missing
}

/// What was done so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct Figures {
    /// Power cuts of single nodes.
    pub cuts: u64,
    /// Requests that disks refused by a fault.
    pub disk_errors: u64,
    /// Syncs that succeeded.
    pub syncs: u64,
    /// Syncs that stalled.
    pub stalls: u64,
    /// Nodes that ended by themselves.
    pub ended: u64,
}

/// Everything that a campaign breaks.
pub struct Stage {
    cluster: Cluster,
    network: Network,
    weather: Weather,
    /// By place; none while a node has none.
    disks: Vec<Option<Mount>>,
    are_disks_lying: bool,
    dir: PathBuf,
    random: Random,
    figures: Figures,
}

impl Stage {
    /// Starts a cluster of so many nodes with its files in `dir`, which must be empty but for what an earlier campaign left.
    ///
    /// # Errors
    /// If the machine lacks something, or the cluster does not come together.
    pub fn start(program: &Path, dir: &Path, nodes: usize, flags: &[String], random: Random) -> Result<Stage, String> {
        let program = program.canonicalize().map_err(|error| format!("{}: {error}", program.display()))?;
        std::fs::create_dir_all(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        let mut stage = Stage {
            cluster: Cluster::new(&program, flags),
            network: Network::new(0)?,
            weather: Weather::default(),
            disks: Vec::new(),
            are_disks_lying: false,
            dir: dir.to_owned(),
            random,
            figures: Figures::default(),
        };
        for _ in 0..nodes {
            stage.add()?;
        }
        stage.cluster.wait_whole(WHOLE_PATIENCE)?;
        Ok(stage)
    }

    /// Adds a node, which joins the cluster if there is one.
    ///
    /// # Errors
    /// If it doesn't start.
    pub fn add(&mut self) -> Result<usize, String> {
        let number = self.cluster.len() + 1;
        self.network.add()?;
        let folder = self.dir.join(format!("disk-{number}"));
        // Left by a campaign that was killed.
        let _ = rustix::mount::unmount(&folder, rustix::mount::UnmountFlags::DETACH);
        std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let disk = Disk::new(self.random.fork_numbered("disk", number as u64));
        self.disks.push(Some(Mount::new(disk, &folder)?));
        let address = |port| SocketAddr::from((self.network.address(number), port));
        let site = Site {
            client: address(CLIENT_PORT),
            peer: address(PEER_PORT),
            dir: folder.join("data"),
            log: self.dir.join(format!("node-{number}.log")),
            wrapper: self.network.wrapper(number),
        };
        self.cluster.add(site)
    }

    /// The processes.
    pub fn cluster(&mut self) -> &mut Cluster {
        &mut self.cluster
    }

    /// Where clients of nodes 1 to `nodes` connect, also of those that don't exist yet.
    pub fn addresses(&self, nodes: usize) -> Vec<SocketAddr> {
        (1..=nodes).map(|node| SocketAddr::from((self.network.address(node), CLIENT_PORT))).collect()
    }

    /// From now on syncs do nothing, on any disk.
    pub fn let_disks_lie(&mut self) {
        self.are_disks_lying = true;
        self.disks.iter().flatten().for_each(Mount::set_lying);
    }

    /// What was done so far.
    pub fn figures(&self) -> Figures {
        let mut figures = self.figures;
        for counts in self.disks.iter().flatten().map(Mount::counts) {
            figures.disk_errors += counts.errors;
            figures.syncs += counts.syncs;
            figures.stalls += counts.stalls;
        }
        figures
    }

    /// Begins a fault. Nodes are numbered from 1.
    ///
    /// # Errors
    /// If it can't be done.
    pub fn begin(&mut self, fault: Fault, victims: &BTreeSet<usize>) -> Result<(), String> {
        let nodes = self.cluster.len();
        match fault {
            Fault::Kill => {
                // All at once; then it is waited for them.
                for node in victims {
                    self.cluster.signal(node - 1, Signal::KILL)?;
                }
                victims.iter().for_each(|node| self.cluster.kill(node - 1));
            }
            Fault::Stop => {
                // All are asked at once: none can count on another.
                for node in victims {
                    self.cluster.signal(node - 1, Signal::TERM)?;
                }
                for node in victims {
                    self.wait_ended(*node)?;
                }
            }
            Fault::Freeze => victims.iter().try_for_each(|node| self.cluster.freeze(node - 1))?,
            Fault::Power => self.cut_power(victims)?,
            Fault::Split => {
                for (a, b) in pairs(nodes).filter(|(a, b)| victims.contains(a) != victims.contains(b)) {
                    self.weather.cut.insert((a, b));
                }
            }
            Fault::Bridge => {
                let mut order: Vec<usize> = (1..=nodes).collect();
                self.random.shuffle(&mut order);
                let (bridge, left) = (order[0], order[1..].len() / 2);
                let left: BTreeSet<usize> = order[1..=left].iter().copied().collect();
                for (a, b) in pairs(nodes) {
                    if a != bridge && b != bridge && left.contains(&a) != left.contains(&b) {
                        self.weather.cut.insert((a, b));
                    }
                }
            }
            Fault::OneWay => {
                let deaf = self.random.chance(500);
                for (source, target) in pairs(nodes) {
                    let (inside, outside) = if deaf { (target, source) } else { (source, target) };
                    if victims.contains(&inside) && !victims.contains(&outside) {
                        self.weather.cut.insert((source, target));
                    }
                }
            }
            Fault::Loss => {
                let loss = self.random.range(50..=400) as u32;
                self.weather.loss.extend(victims.iter().map(|node| (*node, loss)));
            }
            Fault::Slow => {
                let rate = self.random.range(64..=2000) as u32;
                self.weather.slow.extend(victims.iter().map(|node| (*node, rate)));
            }
            Fault::Delay => {
                let delay = [5, 30, 100, 300][self.random.index(4)];
                self.weather.delay.extend(victims.iter().map(|node| (*node, delay)));
            }
            Fault::Reset => self.weather.reset.extend(victims),
            Fault::SyncError => self.disk_faults(victims, &Faults { sync_errors: true, ..Faults::default() }),
            Fault::WriteError => self.disk_faults(victims, &Faults { write_errors: true, ..Faults::default() }),
            Fault::ReadError => self.disk_faults(victims, &Faults { read_errors: true, ..Faults::default() }),
            Fault::Full => self.disk_faults(victims, &Faults { full: true, ..Faults::default() }),
            Fault::Stall => {
                let stall = Duration::from_millis(self.random.range(100..=3000));
                self.disk_faults(victims, &Faults { sync_stall: Some(stall), ..Faults::default() });
            }
        }
        self.network.set(&self.weather)
    }

    /// Mends a fault, and calls nodes back.
    ///
    /// # Errors
    /// If it can't be done, or a node doesn't start again.
    pub fn mend(&mut self, fault: Fault, victims: &BTreeSet<usize>) -> Result<(), String> {
        match fault {
            Fault::Kill | Fault::Stop | Fault::Power => {}
            Fault::Freeze => victims.iter().try_for_each(|node| self.cluster.thaw(node - 1))?,
            fault if fault.is_network() => {
                self.weather = Weather::default();
                self.network.set(&self.weather)?;
            }
            Fault::Stall => self.disk_faults(victims, &Faults::default()),
            // A node whose disk failed takes no more writes until it is started again, as its manual says. That the machine
            // lost power meanwhile shows what only seemed to be written.
            _ => {
                self.disk_faults(victims, &Faults::default());
                if self.random.chance(500) {
                    self.cut_power(victims)?;
                } else {
                    victims.iter().for_each(|node| self.cluster.kill(node - 1));
                }
            }
        }
        for node in victims {
            if !self.cluster.is_running(node - 1) {
                self.cluster.restart(node - 1).map_err(|story| format!("node {node} does not start: {story}"))?;
            }
        }
        Ok(())
    }

    /// Starts whoever ended by itself, and waits until all nodes are well and have applied the same; nothing may be written.
    ///
    /// # Errors
    /// If that doesn't happen in time.
    pub fn settle(&mut self) -> Result<(), String> {
        for place in self.cluster.members() {
            if !self.cluster.is_running(place) {
                self.figures.ended += 1;
                self.cluster.restart(place)?;
            }
        }
        self.cluster.wait_whole(WHOLE_PATIENCE)?;
        self.cluster.wait_equal(WHOLE_PATIENCE)
    }

    /// What the nodes wrote last.
    pub fn last_words(&self) -> String {
        let words = |place| format!("--- node {} wrote last:\n{}", place + 1, tail(self.cluster.log(place)));
        (0..self.cluster.len()).map(words).collect::<Vec<_>>().join("\n")
    }

    fn wait_ended(&mut self, node: usize) -> Result<(), String> {
        let deadline = Instant::now() + STOP_PATIENCE;
        while self.cluster.is_running(node - 1) {
            if Instant::now() > deadline {
                return Err(format!("node {node} was still running {STOP_PATIENCE:?} after SIGTERM"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn disk_faults(&self, victims: &BTreeSet<usize>, faults: &Faults) {
        for disk in victims.iter().filter_map(|node| self.disks[node - 1].as_ref()) {
            disk.set_faults(faults.clone());
        }
    }

    /// The disks stop first, all of them; then the processes are killed; then it is decided what the disks have.
    fn cut_power(&mut self, victims: &BTreeSet<usize>) -> Result<(), String> {
        for disk in victims.iter().filter_map(|node| self.disks[node - 1].as_ref()) {
            disk.power_off();
        }
        for node in victims {
            // NB: no waiting here. The process can't end before its disk lets go of its requests.
            let _ = self.cluster.signal(node - 1, Signal::KILL);
        }
        for node in victims {
            self.figures.cuts += 1;
            let Some(mount) = self.disks[node - 1].take() else { continue };
            mount.release_the_dead();
            self.cluster.kill(node - 1);
            let counts = mount.counts();
            self.figures.disk_errors += counts.errors;
            self.figures.syncs += counts.syncs;
            self.figures.stalls += counts.stalls;
            let mut disk = mount.take().ok_or("a disk is gone")?;
            let mut draw = || match self.random.below(5) {
                0 => Survival::Nothing,
                1 => Survival::Everything,
                2 => Survival::Pages(self.random.range(100..=900) as u32),
                _ => Survival::Sectors(self.random.range(100..=900) as u32),
            };
            let (data, names) = (draw(), draw());
            disk.cut(data, names, &mut self.random);
            let folder = self.dir.join(format!("disk-{node}"));
            let mount = Mount::new(disk, &folder)?;
            if self.are_disks_lying {
                mount.set_lying();
            }
            self.disks[node - 1] = Some(mount);
        }
        Ok(())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // Processes first: they wait for their disks.
        for place in 0..self.cluster.len() {
            let _ = self.cluster.signal(place, Signal::KILL);
        }
        self.disks.clear();
        for place in 0..self.cluster.len() {
            self.cluster.kill(place);
        }
    }
}

/// All pairs of different nodes, in both orders.
fn pairs(nodes: usize) -> impl Iterator<Item = (usize, usize)> {
    (1..=nodes).flat_map(move |a| (1..=nodes).map(move |b| (a, b))).filter(|(a, b)| a != b)
}
