//! The network between nodes and clients.
//!
//! The network decides *when* a message arrives, and whether it does; the world keeps the messages. It is asked twice:
//!
//! ```text
//!   send(now, from, to, lane, bytes) ──▶ deliveries: none (lost), one, or two (doubled), each with its time
//!                                              │
//!   the world puts the message into its events │
//!                                              ▼
//!   arrives(delivery) ──▶ false if the connection was reset on the way: then it is dropped
//! ```
//!
//! Between two places there is a connection per direction and *lane* (a peer's control and bulk connection, each connection
//! of a client). A lane keeps its order, as TCP does, but for the messages that the weather makes *late*: they arrive out of
//! order, as when a peer sends over a new connection while the old one still drains. Between nodes a message may come
//! twice, as when a peer sends again what it doesn't know to have arrived. A client's lane keeps its order always and
//! doubles nothing: no client sends a request twice without knowing it.
//!
//! A *cut* stops a direction: what is sent is lost, and so is what was on its way, also if the cut ends before it
//! would have arrived. Partitions cut nodes from each other only; clients reach both sides, which is how a deposed leader
//! that still answers is found out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::RangeInclusive;

use crate::random::Random;
use crate::time::{MILLISECOND, Micros, SECOND, ShownSpan};

/// Somebody with an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// A node, by its number.
    Node(u32),
    /// A client, by its number.
    Client(u32),
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Node(number) => write!(formatter, "n{number}"),
            Place::Client(number) => write!(formatter, "c{number}"),
        }
    }
}

/// How a network misbehaves while nothing is cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkWeather {
    /// The ordinary delay of a message.
    pub delay_us: RangeInclusive<Micros>,
    /// Messages lost, of a thousand.
    pub lost_per_mille: u32,
    /// Messages that arrive twice, of a thousand. Not between a client and a node.
    pub doubled_per_mille: u32,
    /// Messages that are late, and overtaken by others, of a thousand.
    pub late_per_mille: u32,
    /// The delay of those.
    pub late_us: RangeInclusive<Micros>,
    /// What a lane carries in a second; `None` is without limit.
    pub bytes_per_second: Option<u64>,
}

impl LinkWeather {
    /// A local network on a good day.
    pub fn calm() -> LinkWeather {
        LinkWeather {
            delay_us: 50..=500,
            lost_per_mille: 0,
            doubled_per_mille: 0,
            late_per_mille: 0,
            late_us: 0..=0,
            bytes_per_second: None,
        }
    }
}

impl fmt::Display for LinkWeather {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} to {}", ShownSpan(*self.delay_us.start()), ShownSpan(*self.delay_us.end()))?;
        for (per_mille, what) in [(self.lost_per_mille, "lost"), (self.doubled_per_mille, "doubled")] {
            if per_mille > 0 {
                write!(formatter, ", {}.{} % {what}", per_mille / 10, per_mille % 10)?;
            }
        }
        if self.late_per_mille > 0 {
            let (low, high) = (ShownSpan(*self.late_us.start()), ShownSpan(*self.late_us.end()));
            write!(formatter, ", {}.{} % late by {low} to {high}", self.late_per_mille / 10, self.late_per_mille % 10)?;
        }
        if let Some(bytes) = self.bytes_per_second {
            write!(formatter, ", {bytes} B/s")?;
        }
        Ok(())
    }
}

/// The weather of all links.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkWeather {
    /// Between nodes.
    pub peers: LinkWeather,
    /// From clients to nodes.
    pub requests: LinkWeather,
    /// From nodes to clients.
    pub replies: LinkWeather,
}

impl NetworkWeather {
    /// The same everywhere.
    pub fn uniform(weather: LinkWeather) -> NetworkWeather {
        NetworkWeather { peers: weather.clone(), requests: weather.clone(), replies: weather }
    }

    /// A local network on a good day.
    pub fn calm() -> NetworkWeather {
        NetworkWeather::uniform(LinkWeather::calm())
    }

    /// The unreliable network of MIT's course: a delay of up to 26 ms, a tenth lost each way.
    pub fn course_unreliable() -> NetworkWeather {
        NetworkWeather::uniform(LinkWeather {
            delay_us: 0..=26 * MILLISECOND,
            lost_per_mille: 100,
            ..LinkWeather::calm()
        })
    }

    /// The same with the course's long reordering: two replies of three are late by 200 to 2200 ms. Between nodes, where
    /// half of the messages are replies, that is one message of three.
    pub fn course_reordering() -> NetworkWeather {
        let mut weather = NetworkWeather::course_unreliable();
        for (link, late_per_mille) in [(&mut weather.peers, 333), (&mut weather.replies, 667)] {
            link.late_per_mille = late_per_mille;
            link.late_us = 200 * MILLISECOND..=2200 * MILLISECOND;
        }
        weather
    }

    fn between(&self, from: Place, to: Place) -> &LinkWeather {
        match (from, to) {
            (Place::Client(_), _) => &self.requests,
            (_, Place::Client(_)) => &self.replies,
            _ => &self.peers,
        }
    }
}

impl fmt::Display for NetworkWeather {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.peers == self.requests && self.peers == self.replies {
            return self.peers.fmt(formatter);
        }
        write!(formatter, "peers {}; requests {}; replies {}", self.peers, self.requests, self.replies)
    }
}

/// Which nodes can't talk to which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Partition {
    /// The nodes of one side and all others hear nothing of each other.
    Split {
        /// One side.
        side: Vec<u32>,
    },
    /// What the nodes of one side send does not reach the others; what those send arrives.
    OneWay {
        /// Who is not heard.
        silent: Vec<u32>,
    },
    /// Two sides hear nothing of each other, but both talk with one node between them.
    Bridge {
        /// Who talks with everybody.
        bridge: u32,
        /// One side; the other is everybody else.
        side: Vec<u32>,
    },
    /// One node is alone.
    Isolate {
        /// Which.
        node: u32,
    },
    /// Two nodes hear nothing of each other; everybody else hears both.
    Pair {
        /// One of them.
        one: u32,
        /// The other.
        other: u32,
    },
}

impl Partition {
    /// Whether a message of one node reaches another.
    pub fn separates(&self, from: u32, to: u32) -> bool {
        match self {
            Partition::Split { side } => side.contains(&from) != side.contains(&to),
            Partition::OneWay { silent } => silent.contains(&from) && !silent.contains(&to),
            Partition::Bridge { bridge, side } => {
                from != *bridge && to != *bridge && side.contains(&from) != side.contains(&to)
            }
            Partition::Isolate { node } => (from == *node) != (to == *node),
            Partition::Pair { one, other } => (from, to) == (*one, *other) || (from, to) == (*other, *one),
        }
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Partition::Split { side } => write!(formatter, "split {side:?} from the others"),
            Partition::OneWay { silent } => write!(formatter, "nobody hears {silent:?}"),
            Partition::Bridge { bridge, side } => {
                write!(formatter, "split {side:?} from the others, node {bridge} talks with both")
            }
            Partition::Isolate { node } => write!(formatter, "isolate node {node}"),
            Partition::Pair { one, other } => write!(formatter, "cut nodes {one} and {other} from each other"),
        }
    }
}

/// One connection's direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Lane {
    from: Place,
    to: Place,
    lane: u32,
}

#[derive(Debug, Clone, Copy, Default)]
struct LaneState {
    /// When the last message in order arrives: no later one comes before it.
    last_at: Micros,
    /// Until when the bytes sent so far keep the line busy, where its bandwidth is limited.
    busy_until: Micros,
}

/// A message on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Delivery {
    /// When it arrives.
    pub at: Micros,
    /// Who sent it.
    pub from: Place,
    /// Who gets it.
    pub to: Place,
    /// How often the direction had been reset when it was sent.
    resets: u64,
}

/// What a network has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NetworkCounts {
    /// Messages sent.
    pub sent: u64,
    /// Of those, lost by chance or in a cut. Not counted: what a reset loses on its way.
    pub lost: u64,
    /// Of those, doubled.
    pub doubled: u64,
    /// Of those, late.
    pub late: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// The network.
#[derive(Debug)]
pub struct Network {
    random: Random,
    weather: NetworkWeather,
    /// Links with a weather of their own.
    links: BTreeMap<(Place, Place), LinkWeather>,
    cuts: BTreeSet<(Place, Place)>,
    partition: Option<Partition>,
    lanes: BTreeMap<Lane, LaneState>,
    /// How often each direction was reset.
    resets: BTreeMap<(Place, Place), u64>,
    /// How often all directions of a place were.
    place_resets: BTreeMap<Place, u64>,
    counts: NetworkCounts,
    /// Idle lanes are forgotten when there are more than this.
    lanes_swept_above: usize,
}

/// Lanes that are kept without looking for idle ones.
const LANES_KEPT: usize = 1024;

impl Network {
    /// A network in which nothing is cut.
    pub fn new(random: Random, weather: NetworkWeather) -> Network {
        Network {
            random,
            weather,
            links: BTreeMap::new(),
            cuts: BTreeSet::new(),
            partition: None,
            lanes: BTreeMap::new(),
            resets: BTreeMap::new(),
            place_resets: BTreeMap::new(),
            counts: NetworkCounts::default(),
            lanes_swept_above: LANES_KEPT,
        }
    }

    /// Sends a message of `bytes` bytes, and says when it arrives: never, once or twice.
    pub fn send(&mut self, now: Micros, from: Place, to: Place, lane: u32, bytes: usize) -> Vec<Delivery> {
        self.counts.sent += 1;
        self.counts.bytes += bytes as u64;
        if from == to {
            return vec![self.delivery(now, from, to)];
        }
        if self.is_cut(from, to) {
            self.counts.lost += 1;
            return Vec::new();
        }
        let weather = self.links.get(&(from, to)).unwrap_or_else(|| self.weather.between(from, to)).clone();
        // The same number of draws for each message, so that a weather that loses more shifts nothing else.
        let lost = self.random.chance(weather.lost_per_mille);
        let doubled = self.random.chance(weather.doubled_per_mille);
        let late = self.random.chance(weather.late_per_mille);
        let (delay, late_delay) = (self.random.range(weather.delay_us), self.random.range(weather.late_us));
        let second_delay = self.random.below(10 * MILLISECOND);
        if lost {
            self.counts.lost += 1;
            return Vec::new();
        }
        let with_client = matches!((from, to), (Place::Client(_), _) | (_, Place::Client(_)));
        let state = self.lanes.entry(Lane { from, to, lane }).or_default();
        let mut leaves_at = now;
        if let Some(bytes_per_second) = weather.bytes_per_second {
            let span = (bytes as u64).saturating_mul(SECOND) / bytes_per_second.max(1);
            leaves_at = state.busy_until.max(now) + span;
            state.busy_until = leaves_at;
        }
        let at = if late && !with_client {
            leaves_at + late_delay
        } else {
            let at = (leaves_at + if late { late_delay } else { delay }).max(state.last_at);
            state.last_at = at;
            at
        };
        self.counts.late += u64::from(late);
        let mut deliveries = vec![self.delivery(at, from, to)];
        if doubled && !with_client {
            self.counts.doubled += 1;
            deliveries.push(self.delivery(at + second_delay, from, to));
        }
        if self.lanes.len() > self.lanes_swept_above {
            self.lanes.retain(|_, state| state.last_at > now || state.busy_until > now);
            self.lanes_swept_above = LANES_KEPT.max(2 * self.lanes.len());
        }
        deliveries
    }

    fn delivery(&self, at: Micros, from: Place, to: Place) -> Delivery {
        Delivery { at, from, to, resets: self.resets_of(from, to) }
    }

    fn resets_of(&self, from: Place, to: Place) -> u64 {
        let of_place = |place| self.place_resets.get(&place).copied().unwrap_or(0);
        self.resets.get(&(from, to)).copied().unwrap_or(0) + of_place(from) + of_place(to)
    }

    /// Whether a message that is due now arrives, or was lost when its connection was reset.
    pub fn arrives(&self, delivery: &Delivery) -> bool {
        delivery.resets == self.resets_of(delivery.from, delivery.to)
    }

    /// Whether nothing that is sent in this direction arrives.
    pub fn is_cut(&self, from: Place, to: Place) -> bool {
        let parted = match (from, to, &self.partition) {
            (Place::Node(from), Place::Node(to), Some(partition)) => partition.separates(from, to),
            _ => false,
        };
        parted || self.cuts.contains(&(from, to))
    }

    /// Resets the connections of a direction: what is on its way is lost.
    pub fn reset(&mut self, from: Place, to: Place) {
        *self.resets.entry((from, to)).or_default() += 1;
        self.lanes.retain(|lane, _| (lane.from, lane.to) != (from, to));
    }

    /// Resets all connections of a place in both directions: it crashed.
    pub fn reset_all_of(&mut self, place: Place) {
        *self.place_resets.entry(place).or_default() += 1;
        self.lanes.retain(|lane, _| lane.from != place && lane.to != place);
    }

    /// Cuts a direction.
    pub fn cut(&mut self, from: Place, to: Place) {
        self.cuts.insert((from, to));
        self.reset(from, to);
    }

    /// Ends the cut of a direction, unless a partition separates the two as well.
    pub fn mend(&mut self, from: Place, to: Place) {
        self.cuts.remove(&(from, to));
    }

    /// Separates the nodes `1..=nodes` as told, instead of as before.
    pub fn part(&mut self, partition: &Partition, nodes: u32) {
        for from in 1..=nodes {
            for to in 1..=nodes {
                if from != to && partition.separates(from, to) {
                    self.reset(Place::Node(from), Place::Node(to));
                }
            }
        }
        self.partition = Some(partition.clone());
    }

    /// Ends the partition, every cut, and the weather of single links.
    pub fn heal(&mut self) {
        self.partition = None;
        self.cuts.clear();
        self.links.clear();
    }

    /// The weather of all links that have none of their own.
    pub fn weather(&self) -> &NetworkWeather {
        &self.weather
    }

    /// Changes the weather. What is on its way arrives as it would have.
    pub fn set_weather(&mut self, weather: NetworkWeather) {
        self.weather = weather;
    }

    /// Gives one direction a weather of its own; `None` takes it away.
    pub fn set_link_weather(&mut self, from: Place, to: Place, weather: Option<LinkWeather>) {
        match weather {
            Some(weather) => self.links.insert((from, to), weather),
            None => self.links.remove(&(from, to)),
        };
    }

    /// What was sent and what became of it.
    pub fn counts(&self) -> NetworkCounts {
        self.counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Place = Place::Node(1);
    const TWO: Place = Place::Node(2);
    const THREE: Place = Place::Node(3);

    fn network(weather: LinkWeather) -> Network {
        Network::new(Random::new(1), NetworkWeather::uniform(weather))
    }

    fn times(network: &mut Network, from: Place, to: Place, lane: u32, count: u64) -> Vec<Micros> {
        (0..count).flat_map(|now| network.send(now, from, to, lane, 100)).map(|delivery| delivery.at).collect()
    }

    #[test]
    fn lane_keeps_its_order_and_lanes_do_not_wait_for_each_other() {
        let weather = LinkWeather { delay_us: 0..=10_000, ..LinkWeather::calm() };
        let mut network = network(weather);
        let arrivals = times(&mut network, ONE, TWO, 0, 500);
        assert_eq!(arrivals.len(), 500);
        assert!(arrivals.is_sorted());
        let other = network.send(0, ONE, TWO, 1, 100)[0].at;
        assert!(other <= 10_000);
    }

    #[test]
    fn late_messages_are_overtaken_but_not_on_the_way_to_a_client() {
        let weather = LinkWeather { late_per_mille: 300, late_us: 200_000..=2_200_000, ..LinkWeather::calm() };
        let mut network = network(weather);
        assert!(!times(&mut network, ONE, TWO, 0, 100).is_sorted());
        assert!(times(&mut network, ONE, Place::Client(1), 0, 100).is_sorted());
        assert!(network.counts().late > 20);
    }

    #[test]
    fn chances_are_kept() {
        let weather = LinkWeather { lost_per_mille: 100, doubled_per_mille: 50, ..LinkWeather::calm() };
        let mut network = network(weather);
        let arrived = times(&mut network, ONE, TWO, 0, 10_000).len() as u64;
        let counts = network.counts();
        assert!((800..1200).contains(&counts.lost), "{counts:?}");
        assert!((350..550).contains(&counts.doubled), "{counts:?}");
        assert_eq!(arrived, counts.sent - counts.lost + counts.doubled);
        let requests = times(&mut network, Place::Client(1), ONE, 0, 10_000).len();
        assert!(requests < 9_200, "a request was doubled: {requests}");
    }

    #[test]
    fn cut_loses_what_is_on_its_way_in_its_direction_only() {
        let mut network = network(LinkWeather::calm());
        let there = network.send(0, ONE, TWO, 0, 1)[0];
        let back = network.send(0, TWO, ONE, 0, 1)[0];
        network.cut(ONE, TWO);
        assert!(network.send(1, ONE, TWO, 0, 1).is_empty());
        network.mend(ONE, TWO);
        assert!(!network.arrives(&there), "it was lost although the cut is over");
        assert!(network.arrives(&back));
        let again = network.send(2, ONE, TWO, 0, 1)[0];
        assert!(network.arrives(&again));
    }

    #[test]
    fn crash_resets_every_connection_of_a_node() {
        let mut network = network(LinkWeather::calm());
        let lost =
            [(ONE, TWO), (TWO, ONE), (Place::Client(1), TWO)].map(|(from, to)| network.send(0, from, to, 0, 1)[0]);
        let kept = network.send(0, ONE, THREE, 0, 1)[0];
        network.reset_all_of(TWO);
        assert!(lost.iter().all(|delivery| !network.arrives(delivery)));
        assert!(network.arrives(&kept));
    }

    #[test]
    fn partitions_separate_whom_they_say() {
        let all = [(1, 2), (1, 3), (2, 1), (2, 3), (3, 1), (3, 2)];
        let separated = |partition: Partition| -> Vec<(u32, u32)> {
            all.into_iter().filter(|(from, to)| partition.separates(*from, *to)).collect()
        };
        assert_eq!(separated(Partition::Split { side: vec![1] }), [(1, 2), (1, 3), (2, 1), (3, 1)]);
        assert_eq!(separated(Partition::Isolate { node: 1 }), [(1, 2), (1, 3), (2, 1), (3, 1)]);
        assert_eq!(separated(Partition::OneWay { silent: vec![1] }), [(1, 2), (1, 3)]);
        assert_eq!(separated(Partition::Bridge { bridge: 2, side: vec![1] }), [(1, 3), (3, 1)]);
        assert_eq!(separated(Partition::Pair { one: 2, other: 3 }), [(2, 3), (3, 2)]);
    }

    #[test]
    fn partition_spares_clients_and_ends_when_healed() {
        let mut network = network(LinkWeather::calm());
        let lost = network.send(0, ONE, TWO, 0, 1)[0];
        network.part(&Partition::Isolate { node: 1 }, 3);
        assert!(!network.arrives(&lost));
        assert!(network.is_cut(ONE, TWO) && network.is_cut(THREE, ONE) && !network.is_cut(TWO, THREE));
        assert!(!network.is_cut(Place::Client(1), ONE));
        network.part(&Partition::Isolate { node: 2 }, 3);
        assert!(!network.is_cut(ONE, THREE), "a partition replaces the one before");
        network.heal();
        assert!(!network.is_cut(ONE, TWO));
    }

    #[test]
    fn bandwidth_makes_messages_queue() {
        let weather = LinkWeather { bytes_per_second: Some(1_000_000), delay_us: 0..=0, ..LinkWeather::calm() };
        let mut network = network(weather);
        let arrivals = [100, 100, 1000].map(|bytes| network.send(0, ONE, TWO, 0, bytes)[0].at);
        assert_eq!(arrivals, [100, 200, 1200]);
        assert_eq!(network.send(5000, ONE, TWO, 0, 100)[0].at, 5100);
    }

    #[test]
    fn idle_lanes_are_forgotten() {
        let mut network = network(LinkWeather::calm());
        for number in 0..100_000 {
            network.send(u64::from(number) * 1000, Place::Client(1), ONE, number, 1);
        }
        assert!(network.lanes.len() <= LANES_KEPT + 1, "{}", network.lanes.len());
    }

    #[test]
    fn weather_is_said_in_words() {
        assert_eq!(NetworkWeather::calm().to_string(), "50 us to 500 us");
        assert_eq!(NetworkWeather::course_unreliable().to_string(), "0 s to 26 ms, 10.0 % lost");
        assert!(NetworkWeather::course_reordering().to_string().ends_with("66.7 % late by 200 ms to 2200 ms"));
    }
}
