//! Virtual time: messages and disks take as long as the seed says, and everything repeats exactly.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use holdfast_raft::{ConfState, Config, Message, MessageBody, ReadState};

use super::{
    checker::Checker,
    disk::Disk,
    node::{Node, message_bytes},
};

/// How the network and the disks misbehave.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Faults {
    /// Messages lost, in percent.
    pub(crate) lost_percent: u64,
    /// Messages delivered twice, in percent.
    pub(crate) doubled_percent: u64,
    /// Messages delayed by 200 to 2200 ms, in percent.
    pub(crate) late_percent: u64,
    /// The ordinary delay of a message lies below this, in milliseconds.
    pub(crate) delay_ms: u64,
    /// The delay of a write lies below this, in milliseconds.
    pub(crate) disk_ms: u64,
}

impl Faults {
    pub(crate) const NONE: Faults =
        Faults { lost_percent: 0, doubled_percent: 0, late_percent: 0, delay_ms: 3, disk_ms: 2 };
    pub(crate) const UNRELIABLE: Faults =
        Faults { lost_percent: 10, doubled_percent: 3, late_percent: 0, delay_ms: 26, disk_ms: 10 };
    pub(crate) const REORDERING: Faults = Faults { late_percent: 40, ..Faults::UNRELIABLE };
}

#[derive(Debug)]
enum Due {
    Message(Message),
    /// The node, its run, and the write.
    Write(u64, u64, u64),
}

/// The whole world.
pub(crate) struct Simulation {
    pub(crate) seed: u64,
    random: u64,
    pub(crate) now: u64,
    pub(crate) nodes: BTreeMap<u64, Node>,
    pub(crate) faults: Faults,
    pub(crate) checker: Checker,
    /// Directed links that carry nothing.
    pub(crate) cut: BTreeSet<(u64, u64)>,
    /// Disks that don't finish anything.
    pub(crate) stalled: BTreeSet<u64>,
    /// Nodes whose disk is slow by this factor.
    pub(crate) slow: BTreeMap<u64, u64>,
    due: BTreeMap<(u64, u64), Due>,
    next_number: u64,
    disk_busy_until: BTreeMap<u64, u64>,
    runs: BTreeMap<u64, u64>,
    pub(crate) sent_count: u64,
    pub(crate) sent_bytes: u64,
    /// What was committed when each read was asked for.
    reads: BTreeMap<u64, u64>,
    pub(crate) reads_served: u64,
    pub(crate) trace: u64,
}

impl Simulation {
    /// A group of voters 1 to `count`. Prints its seed: a failing test shows it.
    pub(crate) fn new(count: u64, seed: u64) -> Simulation {
        Simulation::with(count, seed, Faults::NONE, |config| config)
    }

    pub(crate) fn with(count: u64, seed: u64, faults: Faults, adjust: impl Fn(Config) -> Config) -> Simulation {
        println!("seed {seed}");
        let mut simulation = Simulation::empty(seed, faults);
        let voters: Vec<u64> = (1..=count).collect();
        for id in &voters {
            simulation.add(adjust(Config::new(*id)), Disk::founder(&voters));
        }
        simulation
    }

    pub(crate) fn empty(seed: u64, faults: Faults) -> Simulation {
        Simulation {
            seed,
            random: seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x9e37_79b9_7f4a_7c15,
            now: 0,
            nodes: BTreeMap::new(),
            faults,
            checker: Checker::default(),
            cut: BTreeSet::new(),
            stalled: BTreeSet::new(),
            slow: BTreeMap::new(),
            due: BTreeMap::new(),
            next_number: 0,
            disk_busy_until: BTreeMap::new(),
            runs: BTreeMap::new(),
            sent_count: 0,
            sent_bytes: 0,
            reads: BTreeMap::new(),
            reads_served: 0,
            trace: 0,
        }
    }

    /// A number below `bound`.
    pub(crate) fn draw(&mut self, bound: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % bound
    }

    pub(crate) fn add(&mut self, config: Config, disk: Disk) {
        let id = config.id;
        let config = Config { seed: self.seed.wrapping_mul(1_000_003).wrapping_add(id), ..config };
        let mut node = Node::new(config, disk);
        node.start(self.now);
        self.nodes.insert(id, node);
        self.after(id, 0, None);
    }

    pub(crate) fn ids(&self) -> Vec<u64> {
        self.nodes.keys().copied().collect()
    }

    pub(crate) fn node(&mut self, id: u64) -> &mut Node {
        self.nodes.get_mut(&id).expect("there is such a node")
    }

    /// Does something to a replica, then carries out what it wants done.
    pub(crate) fn with_node<T>(&mut self, id: u64, act: impl FnOnce(&mut Node, u64) -> T) -> T {
        let now = self.now;
        let node = self.nodes.get_mut(&id).expect("there is such a node");
        let commit = node.raft.as_ref().map_or(0, |raft| raft.commit_index());
        let led =
            node.raft.as_ref().filter(|raft| raft.is_leader()).map(|raft| (raft.term(), raft.conf_state().clone()));
        let clock = node.clock_at(now);
        let result = act(node, clock);
        self.after(id, commit, led);
        result
    }

    fn after(&mut self, id: u64, commit_before: u64, led_before: Option<(u64, ConfState)>) {
        let node = self.nodes.get_mut(&id).expect("there is such a node");
        let first_write = node.writes.back().map_or(0, |write| write.sequence) + 1;
        // Checked once before and once after the outputs: the log's view is complete only after.
        let messages = node.pump(&mut self.checker, |_| {});
        let new_writes: Vec<u64> =
            node.writes.iter().map(|write| write.sequence).filter(|sequence| *sequence >= first_write).collect();
        let reads: Vec<ReadState> = std::mem::take(&mut node.reads);
        for read in reads {
            let committed = self.reads.remove(&read.context).expect("each read is answered once");
            assert!(
                read.index >= committed,
                "stale read on {id}: {} was committed, it shows {}",
                committed,
                read.index
            );
            self.reads_served += 1;
        }
        let dropped = std::mem::take(&mut self.node(id).reads_dropped);
        for context in dropped {
            self.reads.remove(&context).expect("each read is answered once");
        }
        self.check(id, commit_before, led_before);
        for message in messages {
            self.post(message);
        }
        for sequence in new_writes {
            self.schedule_write(id, sequence);
        }
    }

    fn check(&mut self, id: u64, commit_before: u64, led_before: Option<(u64, ConfState)>) {
        let leads = self.nodes[&id].is_leader();
        if !leads {
            return;
        }
        self.checker.on_step(&self.nodes, id, commit_before, led_before);
        // A lease is never held by a leader whom the group has moved past.
        let node = &self.nodes[&id];
        let index = node.raft.as_ref().and_then(|raft| raft.lease_read(node.clock_at(self.now)));
        if let Some(index) = index {
            assert!(index >= self.checker.committed_last(), "stale lease on {id} at {}", self.now);
        }
    }

    fn schedule(&mut self, at: u64, due: Due) {
        self.next_number += 1;
        self.due.insert((at, self.next_number), due);
    }

    fn schedule_write(&mut self, id: u64, sequence: u64) {
        if self.stalled.contains(&id) {
            return;
        }
        let took = self.draw(self.faults.disk_ms + 1) * self.slow.get(&id).copied().unwrap_or(1);
        let done = (self.now + took).max(self.disk_busy_until.get(&id).copied().unwrap_or(0));
        self.disk_busy_until.insert(id, done);
        let run = self.runs.get(&id).copied().unwrap_or(0);
        self.schedule(done, Due::Write(id, run, sequence));
    }

    fn post(&mut self, message: Message) {
        self.sent_count += 1;
        self.sent_bytes += message_bytes(&message) as u64;
        let copies = if self.draw(100) < self.faults.doubled_percent { 2 } else { 1 };
        // A stream that breaks is noticed, see `deliver`; its announcement isn't lost without that.
        let is_stream = matches!(message.body, MessageBody::Snapshot { .. });
        for _ in 0..copies {
            if self.draw(100) < self.faults.lost_percent && !is_stream {
                continue;
            }
            let late = self.draw(100) < self.faults.late_percent;
            let delay = if late { 200 + self.draw(2000) } else { self.draw(self.faults.delay_ms + 1) };
            self.schedule(self.now + delay, Due::Message(message.clone()));
        }
    }

    /// Ends a disk's stall: what was under way is done now.
    pub(crate) fn unstall(&mut self, id: u64) {
        self.stalled.remove(&id);
        let sequences: Vec<u64> = self.node(id).writes.iter().map(|write| write.sequence).collect();
        for sequence in sequences {
            self.schedule_write(id, sequence);
        }
    }

    pub(crate) fn crash(&mut self, id: u64) {
        let pending = self.node(id).writes.len() as u64;
        let done = self.draw(pending + 1) as usize;
        self.node(id).crash(done);
        *self.runs.entry(id).or_default() += 1;
        self.disk_busy_until.remove(&id);
        // What was asked of it gets no answer; which reads those were is unknown, so all stay open.
    }

    pub(crate) fn restart(&mut self, id: u64) {
        let now = self.now;
        self.with_node(id, |node, _| node.start(now));
    }

    pub(crate) fn is_up(&self, id: u64) -> bool {
        self.nodes[&id].raft.is_some()
    }

    /// What hosts do for groups that sleep: each tells its replica of nodes that it does not hear any more. With `alarm_percent`
    /// it is wrong about one that it does hear.
    pub(crate) fn watch_sleepers(&mut self, alarm_percent: u64) {
        for id in self.ids() {
            let Some(raft) = self.nodes[&id].raft.as_ref().filter(|raft| raft.is_asleep()) else { continue };
            let leader = raft.role_state().leader;
            for other in
                self.ids().into_iter().filter(|other| *other != id && (leader == Some(id) || leader == Some(*other)))
            {
                let gone = !self.is_up(other) || self.cut.contains(&(other, id));
                if gone || self.draw(100) < alarm_percent {
                    self.with_node(id, |node, clock| node.raft().peer_lost(clock, other));
                }
            }
        }
    }

    /// Cuts all links of a node.
    pub(crate) fn isolate(&mut self, id: u64) {
        for other in self.ids() {
            self.cut.insert((id, other));
            self.cut.insert((other, id));
        }
    }

    /// Restores a node's links.
    pub(crate) fn reconnect(&mut self, id: u64) {
        self.cut.retain(|(from, to)| *from != id && *to != id);
    }

    pub(crate) fn is_isolated(&self, id: u64) -> bool {
        self.nodes.len() > 1 && self.nodes.keys().all(|other| *other == id || self.cut.contains(&(id, *other)))
    }

    /// Splits the nodes in two.
    pub(crate) fn partition(&mut self, side: &[u64]) {
        self.cut.clear();
        for from in self.ids() {
            for to in self.ids() {
                if side.contains(&from) != side.contains(&to) {
                    self.cut.insert((from, to));
                }
            }
        }
    }

    fn next_time(&self) -> u64 {
        let ticks = self.nodes.values().filter_map(|node| {
            let deadline = node.raft.as_ref()?.next_deadline()?;
            Some(node.time_of(deadline).max(self.now + 1))
        });
        let due = self.due.first_key_value().map(|((at, _), _)| (*at).max(self.now));
        ticks.chain(due).min().unwrap_or(u64::MAX)
    }

    /// Lets the next thing happen, but nothing after `until`. Says whether something did.
    fn advance(&mut self, until: u64) -> bool {
        let next = self.next_time();
        if next > until {
            self.now = until;
            return false;
        }
        self.now = next;
        if let Some(entry) = self.due.first_entry()
            && entry.key().0 <= next
        {
            match entry.remove() {
                Due::Message(message) => self.deliver(message),
                Due::Write(id, run, sequence) => {
                    if self.runs.get(&id).copied().unwrap_or(0) == run && !self.stalled.contains(&id) {
                        self.note(&format!("{} write {id} {sequence}", self.now));
                        self.with_node(id, |node, _| node.persist(sequence, |_| {}));
                    }
                }
            }
            return true;
        }
        for id in self.ids() {
            let node = &self.nodes[&id];
            let clock = node.clock_at(self.now);
            let due = node.raft.as_ref().and_then(|raft| raft.next_deadline()).is_some_and(|at| at <= clock);
            if due {
                self.with_node(id, |node, clock| node.raft().tick(clock));
            }
        }
        true
    }

    fn deliver(&mut self, message: Message) {
        let (from, to) = (message.from, message.to);
        let is_stream = matches!(message.body, MessageBody::Snapshot { .. });
        let broken = is_stream && self.draw(100) < self.faults.lost_percent;
        if broken || self.cut.contains(&(from, to)) || !self.nodes.contains_key(&to) || !self.is_up(to) {
            if is_stream && self.is_up(from) {
                self.with_node(from, |node, _| node.raft().report_snapshot(to, false));
            }
            return;
        }
        self.note(&format!("{} {message:?}", self.now));
        self.with_node(to, |node, clock| node.raft().step(clock, message).expect("replicas keep the protocol"));
        if is_stream && self.is_up(from) {
            self.with_node(from, |node, _| node.raft().report_snapshot(to, true));
        }
    }

    fn note(&mut self, line: &str) {
        for byte in line.bytes() {
            self.trace = (self.trace ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    pub(crate) fn run_for(&mut self, time_ms: u64) {
        let until = self.now + time_ms;
        while self.advance(until) {}
    }

    /// Runs until the condition holds.
    ///
    /// # Panics
    /// If it doesn't within `limit_ms`.
    pub(crate) fn run_until(&mut self, what: &str, limit_ms: u64, mut condition: impl FnMut(&mut Simulation) -> bool) {
        let until = self.now + limit_ms;
        while !condition(self) {
            if !self.advance(until) {
                assert!(condition(self), "no {what} within {limit_ms} ms\n{}", self.describe());
                return;
            }
        }
    }

    /// The leader that a majority can hear: of those that lead, the one of the newest term.
    pub(crate) fn leader(&self) -> Option<u64> {
        self.nodes
            .values()
            .filter(|node| node.is_leader() && !self.is_isolated(node.id))
            .max_by_key(|node| node.raft.as_ref().map(|raft| raft.term()))
            .map(|node| node.id)
    }

    /// Waits for a leader.
    pub(crate) fn elect(&mut self) -> u64 {
        self.run_until("leader", 20_000, |simulation| simulation.leader().is_some());
        self.leader().expect("just seen")
    }

    /// Proposes at `id`. The term and index, if it leads.
    pub(crate) fn propose(&mut self, id: u64, value: &str) -> Option<(u64, u64)> {
        let payload = bytes::Bytes::copy_from_slice(value.as_bytes());
        if !self.is_up(id) {
            return None;
        }
        self.with_node(id, |node, _| node.raft().propose(payload).ok())
    }

    /// Asks for a read at `id`.
    pub(crate) fn read(&mut self, id: u64) -> bool {
        self.next_number += 1;
        let (context, committed) = (self.next_number, self.checker.committed_last());
        if !self.is_up(id) {
            return false;
        }
        self.reads.insert(context, committed);
        let taken = self.with_node(id, |node, clock| node.raft().read_index(clock, context).is_ok());
        if !taken {
            self.reads.remove(&context);
        }
        taken
    }

    /// How many reads were asked and neither served nor given back.
    pub(crate) fn reads_open(&self) -> usize {
        self.reads.len()
    }

    /// How many nodes have applied entry `index`.
    pub(crate) fn applied_count(&self, index: u64) -> usize {
        self.nodes.values().filter(|node| node.raft.is_some() && node.applied >= index).count()
    }

    /// Gets `value` committed and applied by `count` nodes, trying again where a leader is lost. Returns its index.
    pub(crate) fn agree(&mut self, value: &str, count: usize) -> u64 {
        let until = self.now + 60_000;
        while self.now < until {
            let leader = self.elect();
            let Some((term, index)) = self.propose(leader, value) else {
                self.run_for(50);
                continue;
            };
            let deadline = self.now + 5_000;
            while self.now < deadline {
                let lost = self.checker.committed.get(&index).is_some_and(|entry| entry.term != term);
                if lost {
                    break;
                }
                if self.checker.committed.contains_key(&index) && self.applied_count(index) >= count {
                    return index;
                }
                if !self.advance(deadline) {
                    break;
                }
            }
        }
        panic!("no agreement on {value} by {count} nodes\n{}", self.describe());
    }

    /// One line a node, for failures.
    pub(crate) fn describe(&self) -> String {
        let mut text = format!("seed {} at {} ms, cut {:?}\n", self.seed, self.now, self.cut);
        for node in self.nodes.values() {
            match &node.raft {
                None => writeln!(text, "  {}: down, log ends {}", node.id, node.disk.log.last()),
                Some(raft) => writeln!(text, "  {}: {:?} conf {:?}", node.id, raft.status(), raft.conf_state()),
            }
            .expect("writing to a string works");
        }
        text
    }
}
