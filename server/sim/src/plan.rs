//! What goes wrong in a simulation, and when: drawn from the seed before anything runs.
//!
//! A plan is a list of timed [`Fault`]s and the weather of the network. It is drawn in *swarm* style: the seed first
//! decides which kinds of fault there are at all and how dense each is, then draws them. A run with every kind of fault
//! at once explores little, since faults hide each other; runs with a few kinds each, differently mixed, reach more.
//!
//! ```text
//!   0 ─────────── settle ────────────── faults ──────────── quiet from ─────────────────── end
//!   calm enough to elect      partitions, crashes, pauses,     everything is mended here, and within
//!   a first leader            clocks, disks, weather           the quiet end the cluster must converge
//! ```
//!
//! - Whatever begins also ends: who crashes is restarted, a pause is over some time, a disk works again; at the latest where
//!   the quiet end begins.
//! - What nodes can't bear is not drawn: clocks drift within the bound that leases are built on, and wall clocks
//!   stay within the skew that is allowed between nodes. A world that wants more sets it itself.
//! - A plan can be printed and compared, and built by hand for a test: it is plain data.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;

use crate::network::{LinkWeather, NetworkWeather, Partition};
use crate::random::Random;
use crate::time::{MILLISECOND, Micros, SECOND, Shown, ShownSpan};

/// How a node goes down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Crash {
    /// The process dies; what it had written stays, synced or not.
    Kill,
    /// The machine loses power; what was not synced may be lost or torn.
    PowerCut,
}

/// Something that goes wrong, or is mended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Nodes are separated, instead of as before.
    Part(Partition),
    /// Every partition and cut ends.
    Heal,
    /// The weather changes.
    Weather(Box<NetworkWeather>),
    /// A node goes down.
    Crash {
        /// Which.
        node: u32,
        /// How.
        crash: Crash,
    },
    /// All nodes that are up go down at the same moment.
    CrashAll {
        /// How.
        crash: Crash,
    },
    /// A node that is down starts again on what its disk holds; one that is up is left alone.
    Restart {
        /// Which.
        node: u32,
    },
    /// A node does nothing (its process is stopped, its virtual machine moved), though its clocks go on.
    Pause {
        /// Which.
        node: u32,
    },
    /// It goes on, with all that came in meanwhile.
    Resume {
        /// Which.
        node: u32,
    },
    /// A node's monotonic clock gains this many microseconds a second from now on; negative: loses.
    ClockDrift {
        /// Which.
        node: u32,
        /// Parts per million.
        drift_ppm: i64,
    },
    /// A node's wall clock is from now on ahead of true time by this; negative: behind. Where it was otherwise, it jumps.
    ClockSkew {
        /// Which.
        node: u32,
        /// Microseconds.
        offset_us: i64,
    },
    /// Every operation of a node's disk takes this many times as long.
    SlowDisk {
        /// Which.
        node: u32,
        /// How many times.
        factor: u32,
    },
    /// A node's disk finishes nothing until it is mended.
    StallDisk {
        /// Which.
        node: u32,
    },
    /// A node's disk works as it should again, and has room.
    MendDisk {
        /// Which.
        node: u32,
    },
    /// The next write of a node's disk fails.
    FailWrite {
        /// Which.
        node: u32,
    },
    /// The next sync of a node's disk fails.
    FailSync {
        /// Which.
        node: u32,
    },
    /// A node's disk has no more room than this.
    FillDisk {
        /// Which.
        node: u32,
        /// Bytes.
        bytes: u64,
    },
    /// A bit of a node's files is not what it was.
    Rot {
        /// Which.
        node: u32,
        /// The node is down meanwhile, or it is not.
        down: bool,
    },
    /// A node goes down and comes back with an empty disk; the operator has what it was before removed.
    Wipe {
        /// Which.
        node: u32,
    },
    /// The operator removes a node. Once it is out, it comes back with an empty disk.
    Remove {
        /// Which.
        node: u32,
    },
    /// The operator asks for this node to lead.
    HandOver {
        /// Which.
        node: u32,
    },
    /// A node's monotonic clock jumps ahead.
    ClockJump {
        /// Which.
        node: u32,
        /// Microseconds.
        by_us: u64,
    },
    /// A node does nothing, and its monotonic clock stands still: the machine sleeps.
    Suspend {
        /// Which.
        node: u32,
    },
}

/// A fault and its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimedFault {
    /// When.
    pub at: Micros,
    /// What.
    pub fault: Fault,
}

/// How much a plan may ask of the nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// How far any monotonic clock may run fast or slow. Two clocks then differ by up to twice as much, which must lie within
    /// the drift that the leases allow for.
    pub drift_ppm_max: u64,
    /// How far any wall clock may be off.
    pub skew_us_max: Micros,
    /// Time without faults at the beginning.
    pub settle: Micros,
    /// Whether monotonic clocks may jump or stand still: then no lease is safe.
    pub clocks_jump: bool,
    /// Time without faults at the end.
    pub quiet: Micros,
}

impl Default for Limits {
    /// Leases allow for ten percent between two clocks.
    fn default() -> Limits {
        Limits {
            drift_ppm_max: 40_000,
            skew_us_max: 200 * MILLISECOND,
            settle: 3 * SECOND,
            clocks_jump: false,
            quiet: 30 * SECOND,
        }
    }
}

/// A kind of fault that a seed turns on or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Partitions of all forms.
    Partitions,
    /// Processes that die.
    Kills,
    /// Machines that lose power, now and then all at once.
    PowerCuts,
    /// Pauses.
    Pauses,
    /// Clocks that drift and jump.
    Clocks,
    /// Disks that are slow or stall.
    Disks,
    /// Weather that changes.
    Weather,
    /// Disks that return errors or are full.
    Errors,
    /// Bits that flip on disks.
    Rot,
    /// Nodes that are lost, replaced or removed, and leaders that are asked to go.
    Members,
    /// Monotonic clocks that jump or stand still.
    Jumps,
}

const KINDS: [Kind; 7] =
    [Kind::Partitions, Kind::Kills, Kind::PowerCuts, Kind::Pauses, Kind::Clocks, Kind::Disks, Kind::Weather];
/// Kinds that change what a run is more than others do, and how many runs of a thousand have each.
const RARER_KINDS: [(Kind, u32); 4] = [(Kind::Errors, 300), (Kind::Rot, 250), (Kind::Members, 350), (Kind::Jumps, 400)];

/// What goes wrong in one simulation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The nodes are `1..=nodes`.
    pub nodes: u32,
    /// How long the simulation takes.
    pub duration: Micros,
    /// From when on nothing goes wrong any more.
    pub quiet_from: Micros,
    /// The weather at the beginning.
    pub weather: NetworkWeather,
    /// The kinds of fault that are on, with the mean time between two of a kind.
    pub kinds: BTreeMap<Kind, Micros>,
    /// What happens, in the order of time.
    pub faults: Vec<TimedFault>,
}

impl Plan {
    /// Nothing goes wrong.
    pub fn calm(nodes: u32, duration: Micros) -> Plan {
        let weather = NetworkWeather::calm();
        Plan { nodes, duration, quiet_from: duration, weather, kinds: BTreeMap::new(), faults: Vec::new() }
    }

    /// What the random stream says, for the nodes `1..=nodes`. A plan too short for its quiet ends is all quiet.
    ///
    /// # Panics
    /// If there are no nodes.
    pub fn draw(random: &Random, nodes: u32, duration: Micros, limits: &Limits) -> Plan {
        assert!(nodes > 0, "a cluster has a node");
        let mut random = random.fork("plan");
        let quiet_from = duration.saturating_sub(limits.quiet).max(limits.settle).min(duration);
        let mut kinds = BTreeMap::new();
        for kind in KINDS {
            // One plan in two has a certain kind; each draws whether it is on and how dense whatever comes out.
            let (on, between) = (random.chance(500), random.range(2 * SECOND..=30 * SECOND));
            if on {
                kinds.insert(kind, between);
            }
        }
        let mut rarer = random.fork("rarer kinds");
        for (kind, per_mille) in RARER_KINDS {
            let (on, between) = (rarer.chance(per_mille), rarer.range(4 * SECOND..=40 * SECOND));
            if on && (kind != Kind::Jumps || limits.clocks_jump) {
                kinds.insert(kind, between);
            }
        }
        let weather = draw_weather(&mut random, kinds.contains_key(&Kind::Weather));
        let mut draft = Draft { nodes, from: limits.settle, until: quiet_from, faults: Vec::new() };
        for (kind, between) in &kinds {
            draft.draw_kind(&mut random.fork(&format!("{kind:?}")), *kind, *between, limits);
        }
        let mut faults = draft.faults;
        faults.retain(|fault| fault.at < quiet_from);
        faults.sort_by_key(|fault| fault.at);
        if quiet_from < duration {
            faults.extend(mending(nodes, &kinds).into_iter().map(|fault| TimedFault { at: quiet_from, fault }));
        }
        Plan { nodes, duration, quiet_from, weather, kinds, faults }
    }

    /// The number of faults, without what mends them.
    pub fn fault_count(&self) -> usize {
        self.faults.iter().filter(|timed| timed.fault.is_harm()).count()
    }
}

impl Fault {
    /// Whether it makes things worse; everything else mends.
    pub fn is_harm(&self) -> bool {
        match self {
            Fault::Heal
            | Fault::Restart { .. }
            | Fault::Resume { .. }
            | Fault::MendDisk { .. }
            | Fault::HandOver { .. } => false,
            Fault::Weather(weather) => **weather != NetworkWeather::calm(),
            Fault::ClockDrift { drift_ppm: amount, .. } | Fault::ClockSkew { offset_us: amount, .. } => *amount != 0,
            _ => true,
        }
    }
}

/// What undoes everything that faults of these kinds may have done, before the cluster is asked to converge.
fn mending(nodes: u32, kinds: &BTreeMap<Kind, Micros>) -> Vec<Fault> {
    let mut faults = Vec::new();
    for kind in kinds.keys() {
        match kind {
            Kind::Partitions => faults.push(Fault::Heal),
            Kind::Weather => faults.push(Fault::Weather(Box::new(NetworkWeather::calm()))),
            Kind::Kills | Kind::PowerCuts => faults.extend((1..=nodes).map(|node| Fault::Restart { node })),
            Kind::Pauses | Kind::Jumps => faults.extend((1..=nodes).map(|node| Fault::Resume { node })),
            Kind::Errors | Kind::Rot | Kind::Members => {
                faults.extend((1..=nodes).flat_map(|node| [Fault::MendDisk { node }, Fault::Restart { node }]));
            }
            Kind::Disks => faults.extend((1..=nodes).map(|node| Fault::MendDisk { node })),
            Kind::Clocks => {
                for node in 1..=nodes {
                    faults.push(Fault::ClockDrift { node, drift_ppm: 0 });
                    faults.push(Fault::ClockSkew { node, offset_us: 0 });
                }
            }
        }
    }
    faults
}

fn draw_weather(random: &mut Random, rough: bool) -> NetworkWeather {
    match random.index(6) {
        _ if !rough => NetworkWeather::calm(),
        0 => NetworkWeather::course_unreliable(),
        1 => NetworkWeather::course_reordering(),
        2 => NetworkWeather::calm(),
        _ => {
            let mut peers = draw_link(random);
            let clients = draw_link(random);
            if random.chance(200) {
                peers.bytes_per_second = Some(random.range(200_000..=5_000_000));
            }
            NetworkWeather { peers, requests: clients.clone(), replies: clients }
        }
    }
}

fn draw_link(random: &mut Random) -> LinkWeather {
    let slowest = [MILLISECOND, 10 * MILLISECOND, 50 * MILLISECOND, 150 * MILLISECOND][random.index(4)];
    LinkWeather {
        delay_us: random.range(20..=slowest / 4)..=slowest,
        lost_per_mille: [0, 0, 5, 50, 150][random.index(5)],
        doubled_per_mille: [0, 0, 10, 100][random.index(4)],
        late_per_mille: [0, 0, 10, 100][random.index(4)],
        late_us: 10 * MILLISECOND..=random.range(100 * MILLISECOND..=3 * SECOND),
        bytes_per_second: None,
    }
}

/// A plan that is being drawn.
struct Draft {
    nodes: u32,
    from: Micros,
    until: Micros,
    faults: Vec<TimedFault>,
}

impl Draft {
    fn add(&mut self, at: Micros, fault: Fault) {
        self.faults.push(TimedFault { at, fault });
    }

    fn node(&self, random: &mut Random) -> u32 {
        random.below(u64::from(self.nodes)) as u32 + 1
    }

    /// Some nodes, but neither none nor all of them; a random minority or majority.
    fn side(&self, random: &mut Random) -> Vec<u32> {
        let mut nodes: Vec<u32> = (1..=self.nodes).collect();
        random.shuffle(&mut nodes);
        nodes.truncate(random.range(1..=u64::from(self.nodes - 1)) as usize);
        nodes.sort_unstable();
        nodes
    }

    /// Draws all faults of a kind, some `between` apart on average.
    fn draw_kind(&mut self, random: &mut Random, kind: Kind, between: Micros, limits: &Limits) {
        let mut at = self.from;
        loop {
            at += random.range(between / 10..=between * 19 / 10);
            if at >= self.until {
                return;
            }
            match kind {
                Kind::Partitions => self.draw_partition(random, at, between),
                Kind::Kills => self.draw_crash(random, at, Crash::Kill),
                Kind::PowerCuts => self.draw_crash(random, at, Crash::PowerCut),
                Kind::Pauses => self.draw_pause(random, at),
                Kind::Clocks => self.draw_clock(random, at, limits),
                Kind::Disks => self.draw_disk(random, at),
                Kind::Errors => self.draw_error(random, at),
                Kind::Rot => {
                    let fault = Fault::Rot { node: self.node(random), down: random.chance(700) };
                    self.add(at, fault);
                }
                Kind::Members => self.draw_member(random, at),
                Kind::Jumps => self.draw_jump(random, at),
                Kind::Weather => {
                    let weather = draw_weather(random, true);
                    self.add(at, Fault::Weather(Box::new(weather)));
                }
            }
        }
    }

    fn draw_partition(&mut self, random: &mut Random, at: Micros, between: Micros) {
        if self.nodes < 2 {
            return;
        }
        let side = self.side(random);
        let (node, other) = (self.node(random), self.node(random));
        let partition = match random.index(5) {
            0 => Partition::OneWay { silent: side },
            1 if self.nodes > 2 => {
                let side = side.into_iter().filter(|member| *member != node).collect();
                Partition::Bridge { bridge: node, side }
            }
            2 => Partition::Isolate { node },
            3 if node != other => Partition::Pair { one: node, other },
            _ => Partition::Split { side },
        };
        self.add(at, Fault::Part(partition));
        // Often the next partition comes before this one is healed.
        self.add(at + span(random, 200 * MILLISECOND..=2 * between), Fault::Heal);
    }

    fn draw_crash(&mut self, random: &mut Random, at: Micros, crash: Crash) {
        let node = self.node(random);
        if random.chance(100) {
            self.add(at, Fault::CrashAll { crash });
            for node in 1..=self.nodes {
                self.add(at + span(random, 10 * MILLISECOND..=5 * SECOND), Fault::Restart { node });
            }
            return;
        }
        self.add(at, Fault::Crash { node, crash });
        let back = at + span(random, MILLISECOND..=20 * SECOND);
        self.add(back, Fault::Restart { node });
        if random.chance(200) {
            // Again while it recovers.
            let again = back + span(random, MILLISECOND..=300 * MILLISECOND);
            self.add(again, Fault::Crash { node, crash });
            self.add(again + span(random, 10 * MILLISECOND..=3 * SECOND), Fault::Restart { node });
        }
    }

    fn draw_pause(&mut self, random: &mut Random, at: Micros) {
        let node = self.node(random);
        self.add(at, Fault::Pause { node });
        self.add(at + span(random, 20 * MILLISECOND..=15 * SECOND), Fault::Resume { node });
    }

    fn draw_clock(&mut self, random: &mut Random, at: Micros, limits: &Limits) {
        let node = self.node(random);
        if random.chance(500) {
            self.add(at, Fault::ClockDrift { node, drift_ppm: random.within(limits.drift_ppm_max) });
        } else {
            self.add(at, Fault::ClockSkew { node, offset_us: random.within(limits.skew_us_max) });
        }
    }

    fn draw_error(&mut self, random: &mut Random, at: Micros) {
        let node = self.node(random);
        let fault = match random.index(3) {
            0 => Fault::FailWrite { node },
            1 => Fault::FailSync { node },
            _ => Fault::FillDisk { node, bytes: random.below(128 << 10) },
        };
        self.add(at, fault);
        let mended = at + span(random, 100 * MILLISECOND..=20 * SECOND);
        self.add(mended, Fault::MendDisk { node });
        self.add(mended + span(random, MILLISECOND..=5 * SECOND), Fault::Restart { node });
    }

    fn draw_member(&mut self, random: &mut Random, at: Micros) {
        let node = self.node(random);
        let fault = match random.index(5) {
            0 | 1 => Fault::HandOver { node },
            2 => Fault::Remove { node },
            _ => Fault::Wipe { node },
        };
        self.add(at, fault);
    }

    fn draw_jump(&mut self, random: &mut Random, at: Micros) {
        let node = self.node(random);
        if random.chance(500) {
            self.add(at, Fault::ClockJump { node, by_us: span(random, 10 * MILLISECOND..=60 * SECOND) });
        } else {
            self.add(at, Fault::Suspend { node });
            self.add(at + span(random, 20 * MILLISECOND..=15 * SECOND), Fault::Resume { node });
        }
    }

    fn draw_disk(&mut self, random: &mut Random, at: Micros) {
        let node = self.node(random);
        if random.chance(500) {
            self.add(at, Fault::SlowDisk { node, factor: [10, 100, 1000][random.index(3)] });
        } else {
            self.add(at, Fault::StallDisk { node });
        }
        self.add(at + span(random, 50 * MILLISECOND..=20 * SECOND), Fault::MendDisk { node });
    }
}

/// A span that is about as likely to be of each order of magnitude: faults of a moment and long ones.
fn span(random: &mut Random, range: RangeInclusive<Micros>) -> Micros {
    let (low, high) = range.into_inner();
    let doublings = (high / low.max(1)).max(1).ilog2();
    let scale = low << random.below(u64::from(doublings) + 1);
    random.range(scale..=(2 * scale).min(high).max(scale))
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Part(partition) => partition.fmt(formatter),
            Fault::Heal => write!(formatter, "heal the network"),
            Fault::Weather(weather) => write!(formatter, "weather: {weather}"),
            Fault::Crash { node, crash: Crash::Kill } => write!(formatter, "kill node {node}"),
            Fault::Crash { node, crash: Crash::PowerCut } => write!(formatter, "cut the power of node {node}"),
            Fault::CrashAll { crash: Crash::Kill } => write!(formatter, "kill all nodes"),
            Fault::CrashAll { crash: Crash::PowerCut } => write!(formatter, "cut the power of all nodes"),
            Fault::Restart { node } => write!(formatter, "restart node {node}"),
            Fault::Pause { node } => write!(formatter, "pause node {node}"),
            Fault::Resume { node } => write!(formatter, "resume node {node}"),
            Fault::ClockDrift { node, drift_ppm } => {
                write!(formatter, "clock of node {node} drifts by {drift_ppm} ppm")
            }
            Fault::ClockSkew { node, offset_us } => {
                write!(formatter, "wall clock of node {node} is off by {offset_us} us")
            }
            Fault::SlowDisk { node, factor } => write!(formatter, "disk of node {node} is slower by {factor}"),
            Fault::StallDisk { node } => write!(formatter, "disk of node {node} stalls"),
            Fault::MendDisk { node } => write!(formatter, "disk of node {node} is mended"),
            Fault::FailWrite { node } => write!(formatter, "the next write of node {node} fails"),
            Fault::FailSync { node } => write!(formatter, "the next sync of node {node} fails"),
            Fault::FillDisk { node, bytes } => write!(formatter, "disk of node {node} has room for {bytes} bytes"),
            Fault::Rot { node, down: true } => {
                write!(formatter, "a bit flips on the disk of node {node}, which is down")
            }
            Fault::Rot { node, down: false } => write!(formatter, "a bit flips on the disk of node {node}"),
            Fault::Wipe { node } => write!(formatter, "node {node} loses its disk and is replaced"),
            Fault::Remove { node } => write!(formatter, "node {node} is removed, and joins anew"),
            Fault::HandOver { node } => write!(formatter, "node {node} shall lead"),
            Fault::ClockJump { node, by_us } => write!(formatter, "clock of node {node} jumps ahead by {by_us} us"),
            Fault::Suspend { node } => write!(formatter, "suspend node {node}"),
        }
    }
}

impl fmt::Display for TimedFault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} s  {}", Shown(self.at), self.fault)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (duration, quiet_from) = (ShownSpan(self.duration), ShownSpan(self.quiet_from));
        writeln!(formatter, "{} nodes, {duration}, quiet from {quiet_from}", self.nodes)?;
        writeln!(formatter, "weather: {}", self.weather)?;
        if self.kinds.is_empty() {
            return writeln!(formatter, "no faults");
        }
        let kinds: Vec<String> = self
            .kinds
            .iter()
            .map(|(kind, between)| format!("{} every {} ms", format!("{kind:?}").to_lowercase(), between / MILLISECOND))
            .collect();
        writeln!(formatter, "{} faults: {}", self.fault_count(), kinds.join(", "))?;
        self.faults.iter().try_for_each(|fault| writeln!(formatter, "  {fault}"))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::time::MINUTE;

    fn plans() -> impl Iterator<Item = Plan> {
        (0..300).map(|seed| {
            let nodes = [1, 2, 3, 5, 7][seed as usize % 5];
            let limits = Limits { clocks_jump: seed % 3 == 0, ..Limits::default() };
            Plan::draw(&Random::new(seed), nodes, 2 * MINUTE, &limits)
        })
    }

    #[test]
    fn same_seed_draws_the_same_plan() {
        let draw = |seed| Plan::draw(&Random::new(seed), 3, MINUTE, &Limits::default());
        assert_eq!(draw(5), draw(5));
        assert_eq!(draw(5).to_string(), draw(5).to_string());
        assert_ne!(draw(5), draw(6));
    }

    #[test]
    fn swarm_mixes_kinds_and_densities() {
        let mixes: BTreeSet<Vec<Kind>> = plans().map(|plan| plan.kinds.into_keys().collect()).collect();
        assert!(mixes.len() > 80, "{}", mixes.len());
        assert!(plans().any(|plan| plan.fault_count() > 50));
        assert!(plans().any(|plan| (1..5).contains(&plan.fault_count())));
        assert!(plans().any(|plan| plan.weather == NetworkWeather::course_reordering()));
    }

    #[test]
    fn every_fault_is_drawn_by_some_seed() {
        let mut seen = BTreeSet::new();
        for timed in plans().flat_map(|plan| plan.faults) {
            let debug = format!("{:?}", timed.fault);
            let words: Vec<&str> = debug.split(|c: char| !c.is_alphabetic()).collect();
            seen.insert(if words[0] == "Part" { words[1].to_owned() } else { words[0].to_owned() });
        }
        for name in ["Split", "OneWay", "Bridge", "Isolate", "Pair", "Heal", "Weather", "Crash", "CrashAll", "Restart"]
        {
            assert!(seen.contains(name), "{name}");
        }
        for name in ["Pause", "Resume", "ClockDrift", "ClockSkew", "SlowDisk", "StallDisk", "MendDisk"] {
            assert!(seen.contains(name), "{name}");
        }
        for name in ["FailWrite", "FailSync", "FillDisk", "Rot", "Wipe", "Remove", "HandOver", "ClockJump", "Suspend"] {
            assert!(seen.contains(name), "{name}");
        }
    }

    #[test]
    fn end_is_quiet_and_everything_is_mended_there() {
        for plan in plans() {
            assert_eq!(plan.quiet_from, plan.duration - 30 * SECOND);
            assert!(plan.faults.is_sorted_by_key(|fault| fault.at));
            assert!(plan.faults.iter().filter(|fault| fault.fault.is_harm()).all(|fault| fault.at < plan.quiet_from));
            assert!(plan.faults.iter().all(|fault| fault.at >= 3 * SECOND && fault.at <= plan.quiet_from));
            let mended: Vec<&Fault> =
                plan.faults.iter().filter(|fault| fault.at == plan.quiet_from).map(|fault| &fault.fault).collect();
            let has = |kind| plan.kinds.contains_key(&kind);
            assert!(!has(Kind::Partitions) || mended.contains(&&Fault::Heal));
            for node in 1..=plan.nodes {
                let crashes = has(Kind::Kills) || has(Kind::PowerCuts);
                assert!(!crashes || mended.contains(&&Fault::Restart { node }));
                assert!(!has(Kind::Pauses) || mended.contains(&&Fault::Resume { node }));
                assert!(!has(Kind::Disks) || mended.contains(&&Fault::MendDisk { node }));
                assert!(!has(Kind::Clocks) || mended.contains(&&Fault::ClockDrift { node, drift_ppm: 0 }));
            }
        }
    }

    #[test]
    fn clocks_stay_within_their_limits() {
        let limits = Limits::default();
        for timed in plans().flat_map(|plan| plan.faults) {
            match timed.fault {
                Fault::ClockDrift { drift_ppm, .. } => assert!(drift_ppm.unsigned_abs() <= limits.drift_ppm_max),
                Fault::ClockSkew { offset_us, .. } => assert!(offset_us.unsigned_abs() <= limits.skew_us_max),
                _ => {}
            }
        }
    }

    #[test]
    fn plan_too_short_for_faults_has_none() {
        let plan = Plan::draw(&Random::new(1), 3, SECOND, &Limits::default());
        assert!(plan.faults.is_empty());
        assert_eq!(
            Plan::calm(3, SECOND).to_string(),
            "3 nodes, 1 s, quiet from 1 s\nweather: 50 us to 500 us\nno faults\n"
        );
    }

    #[test]
    fn plan_reads_as_a_list() {
        let mut plan = Plan::calm(3, MINUTE);
        plan.kinds.insert(Kind::Kills, 2 * SECOND);
        plan.faults.push(TimedFault { at: 1_500_000, fault: Fault::Crash { node: 2, crash: Crash::Kill } });
        plan.faults.push(TimedFault { at: 2_000_001, fault: Fault::Restart { node: 2 } });
        assert_eq!(
            plan.to_string(),
            "3 nodes, 60 s, quiet from 60 s\nweather: 50 us to 500 us\n1 faults: kills every 2000 ms\n  \
             1.500000 s  kill node 2\n  2.000001 s  restart node 2\n"
        );
    }
}
