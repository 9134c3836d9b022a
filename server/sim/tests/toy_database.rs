//! The parts of the simulator together, on a database that is right, and on some that are wrong.
//!
//! The toy is a cluster in name only: one map, which belongs to whichever node leads; a leader that crashes, pauses or is cut
//! off from the others hands it to another. So it is linearizable by construction, and each of its [`Bug`]s is one that
//! real clusters have had. The simulator must pass the first and find every one of the others.

use std::collections::{BTreeMap, BTreeSet};

use bytes::BytesMut;
use clap::Parser;
use holdfast_client::{Decoder, Limits, Value};
use holdfast_sim::args::Arguments;
use holdfast_sim::campaign::{Summary, Task, Totals, run_all};
use holdfast_sim::check::{STEPS_MAX, check};
use holdfast_sim::events::Events;
use holdfast_sim::network::{Delivery, Network, Place};
use holdfast_sim::plan::{self, Fault, Plan};
use holdfast_sim::random::Random;
use holdfast_sim::time::SECOND;
use holdfast_sim::trace::Trace;
use holdfast_sim::workload::{Action, Workload, WorkloadSettings};

/// What is wrong with the toy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bug {
    None,
    /// Nodes that don't lead answer reads from a copy of a second ago.
    StaleReads,
    /// A leader's last writes are gone when it goes down, though they were acknowledged.
    LostWrites,
    /// A request is now and then executed twice.
    AppliedTwice,
    /// A node that goes down says that what it just did was not done.
    DeniedWrites,
    /// Two replies of a pipeline change places.
    CrossedReplies,
    /// The database stops answering after a crash.
    NeverConverges,
}

type Data = BTreeMap<Vec<u8>, Vec<u8>>;

enum Event {
    Fault(Fault),
    Request { delivery: Delivery, client: u32, connection: u32, node: u32, bytes: Vec<u8> },
    Reply { delivery: Delivery, client: u32, connection: u32, bytes: Vec<u8> },
    Copy,
    Quiet,
}

struct Toy {
    bug: Bug,
    random: Random,
    nodes: u32,
    leader: u32,
    down: BTreeSet<u32>,
    data: Data,
    copy: Data,
    broken: bool,
}

impl Toy {
    /// Another node leads, if there is one.
    fn replace(&mut self, node: u32) {
        if node != self.leader {
            return;
        }
        if self.bug == Bug::LostWrites {
            self.data = self.copy.clone();
        }
        self.broken |= self.bug == Bug::NeverConverges;
        self.leader = (1..=self.nodes).find(|node| !self.down.contains(node)).unwrap_or(node);
    }

    /// The replies to a connection's bytes; `None` if nobody answers.
    fn serve(&mut self, node: u32, bytes: &[u8]) -> Option<Vec<u8>> {
        if self.down.contains(&node) || self.broken {
            return None;
        }
        let mut decoder = Decoder::new(Limits::default());
        let mut buffer = BytesMut::from(bytes);
        let mut replies = Vec::new();
        while let Some(value) = decoder.decode(&mut buffer).expect("a command") {
            let Value::Array(words) = value else { panic!("a command is an array") };
            let words: Vec<Vec<u8>> =
                words.into_iter().map(|word| word.into_bytes().expect("a word").to_vec()).collect();
            let reads = matches!(&words[0][..], b"GET" | b"STRLEN");
            if node != self.leader {
                replies.push(if self.bug == Bug::StaleReads && reads {
                    execute(&mut self.copy, &words)
                } else {
                    format!("-MOVED 1 127.0.0.1:{}\r\n", 7000 + self.leader).into_bytes()
                });
                continue;
            }
            if self.bug == Bug::AppliedTwice && self.random.chance(5) {
                execute(&mut self.data, &words);
            }
            let reply = execute(&mut self.data, &words);
            let denied = self.bug == Bug::DeniedWrites && self.random.chance(5);
            replies.push(if denied { b"-CLUSTERDOWN shutting down\r\n".to_vec() } else { reply });
        }
        if self.bug == Bug::CrossedReplies && replies.len() > 1 && self.random.chance(20) {
            replies.swap(0, 1);
        }
        Some(replies.concat())
    }
}

fn execute(data: &mut Data, words: &[Vec<u8>]) -> Vec<u8> {
    let key = words[1].clone();
    let old = data.get(&key).cloned();
    let integer = |number: i64| format!(":{number}\r\n").into_bytes();
    let bulk = |value: &Option<Vec<u8>>| match value {
        Some(value) => [format!("${}\r\n", value.len()).as_bytes(), value, b"\r\n"].concat(),
        None => b"$-1\r\n".to_vec(),
    };
    match &words[0][..] {
        b"GET" => bulk(&old),
        b"STRLEN" => integer(old.map_or(0, |value| value.len() as i64)),
        b"SET" => {
            let has = |word: &[u8]| words[3..].iter().any(|option| option == word);
            let met = match words.get(3).map(|word| &word[..]) {
                Some(b"NX") => old.is_none(),
                Some(b"IFEQ") => old.as_ref() == Some(&words[4]),
                _ => true,
            };
            if met {
                data.insert(key, words[2].clone());
            }
            match (has(b"GET"), met) {
                (true, _) => bulk(&old),
                (false, true) => b"+OK\r\n".to_vec(),
                (false, false) => b"$-1\r\n".to_vec(),
            }
        }
        b"CAS" | b"CAD" | b"DELIFEQ" => {
            let met = old.as_ref() == Some(&words[2]);
            match words.get(3) {
                Some(new) if met => drop(data.insert(key, new.clone())),
                None if met => drop(data.remove(&key)),
                _ => {}
            }
            let otherwise = if old.is_none() && words[0] != b"DELIFEQ" { -1 } else { 0 };
            integer(if met { 1 } else { otherwise })
        }
        b"DEL" => integer(i64::from(data.remove(&key).is_some())),
        b"GETDEL" => {
            data.remove(&key);
            bulk(&old)
        }
        b"APPEND" => {
            let value = [&old.unwrap_or_default()[..], &words[2]].concat();
            let length = value.len() as i64;
            data.insert(key, value);
            integer(length)
        }
        name => {
            let text = |word: &[u8]| word.escape_ascii().to_string().parse::<i64>().expect("a number");
            let by = match name {
                b"INCR" => 1,
                b"INCRBY" => text(&words[2]),
                b"DECRBY" => -text(&words[2]),
                _ => panic!("{}", name.escape_ascii()),
            };
            let sum = old.map_or(0, |value| text(&value)) + by;
            data.insert(key, sum.to_string().into_bytes());
            integer(sum)
        }
    }
}

struct World<'trace> {
    trace: &'trace mut Trace,
    events: Events<Event>,
    network: Network,
    workload: Workload,
    toy: Toy,
    summary: Summary,
}

impl World<'_> {
    fn carry_out(&mut self, actions: Vec<Action>) {
        let now = self.events.now();
        for action in actions {
            // The toy keeps no connections, so there is nothing to close.
            let Action::Send { client, connection, node, bytes } = action else { continue };
            self.trace.event(now, "request", &[client.into(), connection.into(), node.into(), bytes.len() as u64]);
            let (from, to) = (Place::Client(client), Place::Node(node));
            for delivery in self.network.send(now, from, to, connection, bytes.len()) {
                let bytes = bytes.clone();
                self.events.push(delivery.at, Event::Request { delivery, client, connection, node, bytes });
            }
        }
    }

    fn happen(&mut self, event: Event) {
        let now = self.events.now();
        match event {
            Event::Fault(fault) => self.inflict(fault),
            Event::Copy => {
                self.toy.copy = self.toy.data.clone();
                self.events.push_after(SECOND, Event::Copy);
            }
            Event::Quiet => self.workload.read_everything(now),
            Event::Request { delivery, client, connection, node, bytes } => {
                let arrives = self.network.arrives(&delivery);
                let Some(reply) = arrives.then(|| self.toy.serve(node, &bytes)).flatten() else { return };
                self.trace.event(now, "reply", &[client.into(), connection.into(), reply.len() as u64]);
                let (from, to) = (Place::Node(node), Place::Client(client));
                for delivery in self.network.send(now, from, to, connection, reply.len()) {
                    let bytes = reply.clone();
                    self.events.push(delivery.at, Event::Reply { delivery, client, connection, bytes });
                }
            }
            Event::Reply { delivery, client, connection, bytes } => {
                if self.network.arrives(&delivery) {
                    let actions = self.workload.receive(now, client, connection, &bytes);
                    self.carry_out(actions);
                }
            }
        }
    }

    fn inflict(&mut self, fault: Fault) {
        let now = self.events.now();
        self.summary.faults += u64::from(fault.is_harm());
        self.trace.say(now, || fault.to_string());
        self.trace.event(now, "fault", &[]);
        let before = self.toy.leader;
        match fault {
            Fault::Crash { node, .. } | Fault::Pause { node } => {
                self.summary.crashes += 1;
                self.toy.down.insert(node);
                self.network.reset_all_of(Place::Node(node));
                self.toy.replace(node);
            }
            Fault::CrashAll { .. } => {
                self.toy.down = (1..=self.toy.nodes).collect();
                self.toy.replace(before);
            }
            Fault::Restart { node } | Fault::Resume { node } => {
                self.toy.down.remove(&node);
                if self.toy.down.contains(&self.toy.leader) {
                    self.toy.replace(self.toy.leader);
                }
            }
            Fault::Part(partition) => {
                self.network.part(&partition, self.toy.nodes);
                self.toy.replace(self.toy.leader);
            }
            Fault::Heal => self.network.heal(),
            Fault::Weather(weather) => self.network.set_weather(*weather),
            _ => {}
        }
        self.summary.elections += u64::from(self.toy.leader != before);
    }
}

fn simulate(bug: Bug, task: &Task, trace: &mut Trace) -> Summary {
    let random = Random::new(task.seed);
    let nodes = task.nodes.unwrap_or_else(|| random.fork("nodes").range(1..=5) as u32);
    let plan = Plan::draw(&random, nodes, task.duration, &plan::Limits::default());
    let settings = WorkloadSettings::draw(&random, nodes);
    let node_of = |address: &holdfast_client::Address| address.port.checked_sub(7000).map(u32::from);
    let mut world = World {
        trace,
        events: Events::new(),
        network: Network::new(random.fork("network"), plan.weather.clone()),
        workload: Workload::new(&random, settings, 0, node_of),
        toy: Toy {
            bug,
            random: random.fork("toy"),
            nodes,
            leader: 1,
            down: BTreeSet::new(),
            data: Data::new(),
            copy: Data::new(),
            broken: false,
        },
        summary: Summary { notes: plan.to_string(), ..Summary::default() },
    };
    for timed in &plan.faults {
        world.events.push(timed.at, Event::Fault(timed.fault.clone()));
    }
    world.events.push(plan.quiet_from, Event::Quiet);
    world.events.push(0, Event::Copy);
    while world.events.now() < plan.duration && !world.workload.is_done() {
        let until = world.workload.next_time().min(plan.duration);
        match world.events.pop_until(until) {
            Some((_, event)) => world.happen(event),
            None => {
                let actions = world.workload.tick(world.events.now());
                world.carry_out(actions);
            }
        }
    }
    let World { events, workload, mut summary, .. } = world;
    summary.simulated = events.now();
    summary.operations = workload.counts();
    summary.violations = workload.anomalies().to_vec();
    let verdict = check(workload.history(), STEPS_MAX);
    if !verdict.is_pass() {
        summary.violations.push(verdict.to_string());
    }
    if !workload.is_done() {
        summary.violations.push("the cluster did not converge in its quiet end".to_owned());
    }
    summary
}

fn campaign(bug: Bug, words: &[&str]) -> (Totals, String) {
    let arguments = Arguments::try_parse_from(std::iter::once("sim").chain(words.iter().copied())).expect("arguments");
    let mut output = Vec::new();
    let run = |task: &Task, trace: &mut Trace| simulate(bug, task, trace);
    let totals = run_all(&arguments, &run, &mut output).expect("a vector takes all");
    (totals, String::from_utf8(output).expect("text"))
}

#[test]
fn right_database_passes_and_every_run_repeats() {
    let (totals, output) = campaign(Bug::None, &["--seeds", "0..40", "--sim-minutes", "1", "--twice"]);
    assert_eq!(totals.exit_code(), 0, "{output}");
    let operations = totals.operations;
    assert!(operations.answered > 10_000 && operations.unknown > 100 && operations.failed > 100, "{output}");
    assert!(totals.elections > 20 && totals.crashes > 20 && totals.faults > 100, "{output}");
}

/// Says how many of some seeds find a bug, and that the findings read like this.
#[track_caller]
fn finds(bug: Bug, words: &str) {
    let (totals, output) = campaign(bug, &["--seeds", "0..40", "--sim-minutes", "1", "--nodes", "3"]);
    assert!(totals.failed_seeds.len() >= 10, "{bug:?} was found by {:?} only", totals.failed_seeds);
    assert!(output.contains(words), "{output}");
}

#[test]
fn stale_reads_are_found() {
    finds(Bug::StaleReads, "not linearizable");
}

#[test]
fn lost_writes_are_found() {
    finds(Bug::LostWrites, "not linearizable");
}

#[test]
fn writes_applied_twice_are_found() {
    finds(Bug::AppliedTwice, "not linearizable");
}

#[test]
fn denied_writes_are_found() {
    finds(Bug::DeniedWrites, "not linearizable");
}

#[test]
fn crossed_replies_are_found() {
    finds(Bug::CrossedReplies, "VIOLATION");
}

#[test]
fn database_that_never_converges_is_found() {
    finds(Bug::NeverConverges, "did not converge");
}
