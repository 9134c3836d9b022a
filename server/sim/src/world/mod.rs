//! The world: a cluster of whole nodes under virtual time, with everything going wrong that the plan says.
//!
//! ```text
//!   Plan ─▶ faults ─┐                                     ┌─▶ invariants, after every event
//!   Workload ◀──────┼── Events ─▶ World ─▶ Machine ─▶ Node ─▶ effects ─▶ Network ─▶ Events
//!                   └── (one queue, one clock)  │            (the real core: Host, Replica, log, table)
//!                                               └ disk (SimVfs), store, clocks
//! ```
//!
//! # Flow
//! An event is taken, time jumps to it, the machine that it concerns does what it can, and what that causes is put into the
//! network or the queue. Then the invariants look at what was said and done. Once the plan's quiet end has come, everything is
//! mended, clients read every key, the cluster has to become whole, and the checker judges what clients saw.
//!
//! # What is real
//! Everything between bytes that come in and bytes that go out: the codecs of clients and peers, routing, the replica, Raft, the
//! log, recovery, the table with its flushes, snapshots. Not real: sockets, threads, and the store under the table, which is a map
//! in memory that survives (third-party stores open their own files). Keys that only the store knows are read at once, not on
//! another thread while the table goes on.
//!
//! # Caveats
//! - A batch is written and synced at one instant, at the end of its disk's latency. That a crash comes in the middle is drawn when
//!   one happens while a batch waits.
//! - The disk's model is [`holdfast_engine::vfs::SimVfs`]'s: nothing that was synced is lost, no bit flips, no error is returned.

mod held;
mod invariants;
mod machine;
mod marks;
mod node;
mod operator;
mod settings;
mod stage;

pub use marks::Marks;
pub use settings::{ReplicaReads, Settings};
pub use stage::{Asked, Heard, Report, Stage};

use holdfast_raft::{ConfState, Message, MessageBody, Role, RoleState};
use holdfast_server::peer::format::{self, Frame, HEAD_BYTES, Head};
use holdfast_server::peer::{JoinReply, JoinRequest, Lane, PeerMessage};
use holdfast_server::replica::DATA_GROUP;
use holdfast_server::resp::Output;
use invariants::{Broken, Leaders, Leases, Logs, Memberships, States};
use machine::{DiskMood, Machine};
use node::{ConnId, Effect, Node, Timer};
use operator::Operator;
use std::collections::BTreeMap;

use crate::campaign::{Summary, Task};
use crate::check::{STEPS_MAX, Verdict, check};
use crate::events::Events;
use crate::network::{Delivery, Network, Place};
use crate::plan::{self, Crash, Fault, Plan};
use crate::random::Random;
use crate::time::{MILLISECOND, Micros, SECOND};
use crate::trace::Trace;
use crate::workload::{Action, KeyKind, Loss, Workload, WorkloadSettings};

/// Operations on a key before it is retired. Few: many of them stay without an answer when nodes crash, and the checker has to
/// consider that each may have happened at any later time.
const OPERATIONS_PER_KEY_MAX: u32 = 100;
/// A run in which clients got fewer answers than this says little: then they go on for a while in the quiet end.
const ANSWERS_MIN: u64 = 500;
/// The largest frame between nodes.
const FRAME_BYTES_MAX: usize = 16 << 20;
/// How long a process may be busy with one kind of what came while it was paused, in microseconds.
const PAUSE_WORK_US_MAX: Micros = 5 * MILLISECOND;
/// How often a node's timers are looked at, by its own clock.
const TICK: Micros = 20 * MILLISECOND;
/// Every how many ticks a node keeps house.
const TICKS_PER_HOUSE: u64 = 5;
/// How often a machine without a place in the cluster asks for one.
const ASK_AGAIN: Micros = 250 * MILLISECOND;
/// How long the cluster may take to become whole after the clients have read everything.
const CONVERGENCE_MAX: Micros = 15 * SECOND;

/// Something that will happen.
#[derive(Debug)]
enum Event {
    Fault(Fault),
    /// The quiet end begins.
    Quiet,
    /// A machine is switched on.
    Start {
        machine: u32,
    },
    /// A frame arrives at a machine.
    Frame {
        delivery: Delivery,
        from: u32,
        to: u32,
        bytes: Vec<u8>,
    },
    /// A client's bytes arrive at a machine.
    Request {
        delivery: Delivery,
        conn: ConnId,
        to: u32,
        bytes: Vec<u8>,
    },
    /// A client's connection was closed by the client.
    Closed {
        conn: ConnId,
        to: u32,
        boot: u64,
    },
    /// Something arrives at a client.
    Reply {
        delivery: Delivery,
        conn: ConnId,
        sequence: u64,
        news: News,
    },
    Tick {
        machine: u32,
        boot: u64,
        count: u64,
    },
    /// A machine's disk is done with a batch.
    Disk {
        machine: u32,
        boot: u64,
    },
    Timer {
        machine: u32,
        boot: u64,
        timer: Timer,
    },
    /// A machine notices that a peer is gone.
    LinkLost {
        machine: u32,
        peer: u32,
    },
    /// A machine without a place in the cluster asks for one.
    Ask {
        machine: u32,
        boot: u64,
        whom: Option<u32>,
    },
    /// The operator looks whether who shall be gone is gone.
    Operate,
    /// A machine gets an empty disk, if it still is this member.
    Replace {
        machine: u32,
        id: Option<u64>,
    },
}

/// What comes to a client on a connection.
#[derive(Debug)]
enum News {
    Bytes(Vec<u8>),
    Lost(Loss),
}

/// A connection, as both ends see it together.
#[derive(Debug, Default)]
struct Wire {
    /// The machine and its start with which it was made, once bytes have arrived.
    at: Option<(u32, u64)>,
    /// What the node has sent on it, and what the client has got: what comes after a gap is never delivered.
    sent: u64,
    got: u64,
}

/// A run.
struct World<'trace> {
    trace: &'trace mut Trace,
    random: Random,
    settings: Settings,
    events: Events<Event>,
    network: Network,
    workload: Workload,
    machines: Vec<Machine>,
    /// Which machine has which place in the cluster.
    machine_of: BTreeMap<u64, u32>,
    wires: BTreeMap<ConnId, Wire>,
    leaders: Leaders,
    leases: Leases,
    logs: Logs,
    states: States,
    memberships: Memberships,
    operator: Operator,
    marks: Marks,
    summary: Summary,
    duration: Micros,
    is_quiet: bool,
    encoder: Output,
    /// What a script's own requests were answered.
    heard: Vec<(Micros, u32, News)>,
}

/// Simulates one seed.
pub fn simulate(task: &Task, trace: &mut Trace) -> Summary {
    let random = Random::new(task.seed);
    let nodes = task.nodes.unwrap_or_else(|| draw_nodes(&random));
    let settings = Settings::draw(&random);
    // No lease is safe where clocks jump.
    let limits = plan::Limits { clocks_jump: !settings.lease_reads, ..plan::Limits::default() };
    let plan = Plan::draw(&random, nodes, task.duration, &limits);
    let mut workload = WorkloadSettings::draw(&random, nodes);
    workload.session_clients = [0, 1, 2, 4][random.fork("session clients").index(4)];
    workload.operations_per_key_max = OPERATIONS_PER_KEY_MAX;
    let mut pairs = random.fork("pairs");
    if pairs.chance(400) {
        workload.keys.insert(KeyKind::Pair, pairs.range(1..=2) as u32);
    }
    workload.draw_leases(&random, limits.skew_us_max);
    if settings.replica_reads != ReplicaReads::Unused {
        workload.add_readers(&random, settings.replica_reads == ReplicaReads::Stale);
    }
    run(&plan, settings, workload, &random, trace)
}

/// Mostly three or five, now and then any other number up to seven.
fn draw_nodes(random: &Random) -> u32 {
    [3, 5, 1, 2, 4, 7][random.fork("nodes").weighted(&[680, 220, 20, 30, 30, 20])]
}

/// Simulates a plan.
pub fn run(plan: &Plan, settings: Settings, workload: WorkloadSettings, random: &Random, trace: &mut Trace) -> Summary {
    let mut world = World::new(plan, settings, workload, random, trace);
    world.events.push(plan.quiet_from, Event::Quiet);
    world.live();
    world.judge()
}

impl<'trace> World<'trace> {
    /// A world in which nothing has happened yet; the faults of the plan and the starts of its nodes will.
    fn new(
        plan: &Plan,
        settings: Settings,
        workload: WorkloadSettings,
        random: &Random,
        trace: &'trace mut Trace,
    ) -> World<'trace> {
        let notes = format!("{plan}{settings:?}\n{workload:?}");
        trace.say(0, || notes.clone());
        let node_of = |address: &holdfast_client::Address| address.port.checked_sub(7000).map(u32::from);
        let mut world = World {
            trace,
            random: random.fork("world"),
            settings,
            events: Events::new(),
            network: Network::new(random.fork("network"), plan.weather.clone()),
            workload: Workload::new(random, workload, SECOND, node_of),
            machines: (1..=plan.nodes).map(|number| Machine::new(number, random)).collect(),
            machine_of: BTreeMap::new(),
            wires: BTreeMap::new(),
            leaders: Leaders::default(),
            leases: Leases::default(),
            logs: Logs::default(),
            states: States::default(),
            memberships: Memberships::default(),
            operator: Operator::default(),
            marks: Marks::default(),
            summary: Summary { notes, ..Summary::default() },
            duration: plan.duration,
            is_quiet: false,
            encoder: Output::new(),
            heard: Vec::new(),
        };
        for timed in &plan.faults {
            world.events.push(timed.at, Event::Fault(timed.fault.clone()));
        }
        for machine in 1..=plan.nodes {
            let at = world.random.below(500 * MILLISECOND);
            world.events.push(at, Event::Start { machine });
        }
        world
    }
}

impl World<'_> {
    // ---- the run ---------------------------------------------------------------------------------------------------

    fn live(&mut self) {
        let end = self.duration + CONVERGENCE_MAX;
        while self.summary.violations.is_empty() && self.events.now() < end {
            if self.is_quiet
                && self.workload.is_done()
                && invariants::has_converged(&self.machines, &self.settings)
                && self.compare_states()
            {
                return;
            }
            self.advance(end);
        }
    }

    /// Lets the next thing happen, if something does until then.
    fn advance(&mut self, end: Micros) {
        let until = if self.workload.is_done() { end } else { self.workload.next_time().min(end) };
        match self.events.pop_until(until) {
            Some((_, event)) => self.happen(event),
            None => {
                let actions = self.workload.tick(self.events.now());
                self.carry_out(actions);
            }
        }
    }

    /// Compares the state of all nodes, which have applied the same. `true`, so that it reads as a condition.
    fn compare_states(&mut self) -> bool {
        for place in 0..self.machines.len() {
            let Some(node) = self.machines[place].node.as_mut() else { continue };
            let index = node.host.data().applied().index;
            let outcome =
                node.state_hash().and_then(|hash| self.states.state_is(self.machines[place].number, index, hash));
            self.expect(outcome);
        }
        true
    }

    fn judge(mut self) -> Summary {
        self.summary.simulated = self.events.now();
        self.summary.operations = self.workload.counts();
        let anomalies = self.workload.anomalies().to_vec();
        self.summary.violations.extend(anomalies);
        if self.summary.violations.is_empty() {
            if !self.workload.is_done() {
                self.summary.violations.push("clients could not read every key in the quiet end".to_owned());
            }
            if let Some(what) = invariants::what_is_not_converged(&self.machines, &self.settings) {
                self.summary.violations.push(format!("the cluster did not become whole: {what}"));
            }
            if !self.summary.violations.is_empty() {
                self.summary.violations.push(invariants::standing(&self.machines));
            }
        }
        let mut verdict = check(self.workload.history(), STEPS_MAX);
        if let Verdict::Violation(violation) = &mut verdict {
            violation.shorten(self.workload.history());
        }
        if !verdict.is_pass() {
            self.summary.violations.push(verdict.to_string());
        }
        self.summary.marks = std::mem::take(&mut self.marks);
        self.summary
    }

    /// Notes what is broken.
    fn expect(&mut self, outcome: Result<(), Broken>) {
        if let Err(broken) = outcome {
            let now = self.events.now();
            self.trace.say(now, || format!("BROKEN: {broken}"));
            self.summary.violations.push(format!("at {} s: {broken}", crate::time::Shown(now)));
        }
    }

    fn machine(&mut self, number: u32) -> &mut Machine {
        &mut self.machines[number as usize - 1]
    }

    // ---- events ----------------------------------------------------------------------------------------------------

    fn happen(&mut self, event: Event) {
        let (machine, boot) = match &event {
            Event::Frame { to, .. } | Event::Request { to, .. } => (*to, None),
            Event::LinkLost { machine, .. } => (*machine, None),
            Event::Closed { to, boot, .. } => (*to, Some(*boot)),
            Event::Tick { machine, boot, .. }
            | Event::Disk { machine, boot }
            | Event::Timer { machine, boot, .. }
            | Event::Ask { machine, boot, .. } => (*machine, Some(*boot)),
            Event::Fault(_)
            | Event::Quiet
            | Event::Start { .. }
            | Event::Reply { .. }
            | Event::Operate
            | Event::Replace { .. } => (0, None),
        };
        if machine > 0 {
            let machine = self.machine(machine);
            if boot.is_some_and(|boot| boot != machine.boot || !machine.is_up) {
                return;
            }
            if let Some(stopped) = &mut machine.stopped {
                stopped.push(event);
                return;
            }
        }
        self.handle(event);
    }

    fn handle(&mut self, event: Event) {
        let now = self.events.now();
        match event {
            Event::Fault(fault) => self.inflict(fault),
            Event::Quiet if self.workload.counts().answered < ANSWERS_MIN && now < self.duration => {
                self.events.push((now + SECOND).min(self.duration), Event::Quiet);
            }
            Event::Quiet => {
                self.is_quiet = true;
                self.trace.say(now, || "the quiet end begins".to_owned());
                self.workload.read_everything(now);
            }
            Event::Start { machine } => {
                if self.machine(machine).boot == 0 {
                    self.start(machine);
                }
            }
            Event::Frame { delivery, from, to, bytes } => {
                if self.network.arrives(&delivery) {
                    self.trace.event(now, "frame", &[from.into(), to.into(), bytes.len() as u64]);
                    self.frame(from, to, &bytes);
                }
            }
            Event::Request { delivery, conn, to, bytes } => {
                if self.network.arrives(&delivery) {
                    self.trace.event(now, "request", &[conn.client.into(), conn.connection.into(), to.into()]);
                    self.request(conn, to, &bytes);
                }
            }
            Event::Closed { conn, to, .. } => {
                if let Some(node) = &mut self.machine(to).node {
                    node.closed(conn);
                }
            }
            Event::Reply { delivery, conn, sequence, news } => {
                if self.network.arrives(&delivery) {
                    self.reply(conn, sequence, news);
                }
            }
            Event::Tick { machine, count, .. } => self.tick(machine, count),
            Event::Disk { machine, .. } => self.disk(machine),
            Event::Timer { machine, timer, .. } => {
                self.trace.event(now, "timer", &[machine.into()]);
                self.with_node(machine, |node| node.timer(timer));
            }
            Event::LinkLost { machine, peer } => {
                let peer = self.id_of(peer);
                self.with_node(machine, |node| peer.into_iter().for_each(|peer| node.link_lost(peer)));
            }
            Event::Ask { machine, whom, .. } => self.ask_for_a_place(machine, whom),
            Event::Operate => self.operate(),
            // NB: it may have been replaced meanwhile for another reason.
            Event::Replace { machine, id } if self.id_of(machine) == id => self.replace(machine),
            Event::Replace { .. } => {}
        }
    }

    fn id_of(&self, machine: u32) -> Option<u64> {
        self.machine_of.iter().find(|(_, number)| **number == machine).map(|(id, _)| *id)
    }

    /// Lets a node do something, if it is up, then does what it wants done.
    fn with_node(&mut self, number: u32, act: impl FnOnce(&mut Node)) {
        let now = self.events.now();
        let machine = self.machine(number);
        let clocks = machine.clocks(now);
        let Some(node) = &mut machine.node else { return };
        node.set_clocks(clocks);
        act(node);
        self.settle(number);
    }

    fn tick(&mut self, number: u32, count: u64) {
        let now = self.events.now();
        let machine = self.machine(number);
        let at = machine.clock.true_time_of(now, machine.clock.monotonic(now) + TICK);
        let boot = machine.boot;
        self.events.push(at, Event::Tick { machine: number, boot, count: count + 1 });
        let keeps_house = count.is_multiple_of(TICKS_PER_HOUSE);
        self.with_node(number, |node| if keeps_house { node.keep_house() } else { node.tick() });
    }

    fn disk(&mut self, number: u32) {
        let now = self.events.now();
        let machine = self.machine(number);
        if machine.disk == DiskMood::Stalled {
            machine.write_due = true;
            return;
        }
        if !machine.write(now) {
            return;
        }
        self.trace.event(now, "disk", &[number.into()]);
        self.with_node(number, Node::pump);
    }

    // ---- machines --------------------------------------------------------------------------------------------------

    fn start(&mut self, number: u32) {
        let now = self.events.now();
        if self.machine(number).is_up {
            return;
        }
        let place = number as usize - 1;
        let outcome = self.machines[place].start(now, &self.settings, &mut self.marks);
        self.trace.event(now, "start", &[number.into()]);
        self.trace.say(now, || format!("node {number} starts"));
        match outcome {
            Ok(()) => self.started(number),
            Err(reason) => self.cannot_start(number, &reason),
        }
    }

    fn started(&mut self, number: u32) {
        let now = self.events.now();
        let machine = self.machine(number);
        let boot = machine.boot;
        match &machine.node {
            Some(node) => {
                let id = node.id;
                self.machine_of.insert(id, number);
                self.events.push(now, Event::Tick { machine: number, boot, count: 1 });
                self.settle(number);
            }
            None => {
                self.events.push(now, Event::Ask { machine: number, boot, whom: None });
            }
        }
    }

    fn ask_for_a_place(&mut self, number: u32, whom: Option<u32>) {
        let now = self.events.now();
        let machine = self.machine(number);
        let Some(folder) = machine.waiting_folder() else { return };
        let boot = machine.boot;
        let member = machine.member(folder);
        if whom.is_none() {
            self.events.push(now + ASK_AGAIN, Event::Ask { machine: number, boot, whom });
        }
        let nodes = self.machines.len() as u64;
        let whom = whom.unwrap_or_else(|| self.random.range(1..=nodes) as u32);
        if whom != number {
            let request = JoinRequest { folder, client: member.client, peer: member.peer };
            self.send_frame(number, whom, 2, &Frame::JoinRequest(request));
        }
    }

    fn crash(&mut self, number: u32, crash: Crash) {
        let now = self.events.now();
        let place = number as usize - 1;
        if !self.machines[place].is_up {
            return;
        }
        self.trace.event(now, "crash", &[number.into()]);
        self.summary.crashes += 1;
        self.machines[place].crash(crash, &self.settings, &mut self.marks);
        self.logs.crashed(number);
        // What was on its way is lost; of a process that died, others hear at once, of a machine without power nothing.
        self.network.reset_all_of(Place::Node(number));
        if crash == Crash::PowerCut {
            return;
        }
        for peer in 1..=self.machines.len() as u32 {
            let span = self.random.below(20 * MILLISECOND);
            if peer != number {
                self.events.push(now + span, Event::LinkLost { machine: peer, peer: number });
            }
        }
        let boot = self.machines[place].boot;
        let broken: Vec<ConnId> =
            self.wires.iter().filter(|(_, wire)| wire.at == Some((number, boot))).map(|(conn, _)| *conn).collect();
        for conn in broken {
            self.tell_client(number, conn, News::Lost(Loss::Broken));
        }
    }

    /// Whether a fault does harm now. What the operator may put off counts where it is done.
    fn takes_effect(&self, fault: &Fault) -> bool {
        match fault {
            Fault::Crash { node, .. }
            | Fault::Pause { node }
            | Fault::Suspend { node }
            | Fault::FailWrite { node }
            | Fault::FailSync { node } => self.machines[*node as usize - 1].is_up,
            Fault::CrashAll { .. } => self.machines.iter().any(|machine| machine.is_up),
            Fault::Rot { .. } | Fault::Wipe { .. } | Fault::Remove { .. } => false,
            fault => fault.is_harm(),
        }
    }

    fn inflict(&mut self, fault: Fault) {
        let now = self.events.now();
        self.summary.faults += u64::from(self.takes_effect(&fault));
        self.trace.say(now, || fault.to_string());
        self.trace.event(now, "fault", &[]);
        match fault {
            Fault::Part(partition) => self.network.part(&partition, self.machines.len() as u32),
            Fault::Heal => self.network.heal(),
            Fault::Weather(weather) => self.network.set_weather(*weather),
            Fault::Crash { node, crash } => self.crash(node, crash),
            Fault::CrashAll { crash } => (1..=self.machines.len() as u32).for_each(|node| self.crash(node, crash)),
            Fault::Restart { node } => {
                if self.machine(node).node.as_ref().is_some_and(|node| node.host.fault().is_some()) {
                    self.crash(node, Crash::Kill);
                }
                self.start(node);
            }
            Fault::Pause { node } => {
                let machine = self.machine(node);
                if machine.is_up && machine.stopped.is_none() {
                    machine.stopped = Some(Vec::new());
                }
            }
            Fault::Suspend { node } => {
                let machine = self.machine(node);
                if machine.is_up && machine.stopped.is_none() {
                    machine.stopped = Some(Vec::new());
                    machine.suspended_at = Some(now);
                    self.marks.hit("machines suspended");
                }
            }
            Fault::ClockJump { node, by_us } => {
                self.marks.hit("clocks that jumped");
                self.machine(node).clock.jump(by_us);
            }
            Fault::Resume { node } => {
                let machine = self.machine(node);
                if let Some(then) = machine.suspended_at.take() {
                    machine.clock.stood_still_since(then, now);
                }
                let (first, rest) = self.after_a_pause(node);
                for event in first {
                    self.happen(event);
                }
                if !rest.is_empty() && self.machine(node).is_up {
                    // NB: what comes meanwhile queues up behind it, as in a socket.
                    self.machine(node).stopped = Some(rest);
                    let later = now + self.random.range(1..=PAUSE_WORK_US_MAX);
                    self.events.push(later, Event::Fault(Fault::Resume { node }));
                }
            }
            Fault::ClockDrift { node, drift_ppm } => self.machine(node).clock.set_drift(now, drift_ppm),
            Fault::ClockSkew { node, offset_us } => self.machine(node).clock.set_wall_offset(offset_us),
            Fault::SlowDisk { node, factor } => self.machine(node).disk = DiskMood::Slow(factor),
            Fault::StallDisk { node } => self.machine(node).disk = DiskMood::Stalled,
            Fault::MendDisk { node } => {
                let machine = self.machine(node);
                machine.mend();
                if std::mem::take(&mut machine.write_due) {
                    let boot = machine.boot;
                    self.happen(Event::Disk { machine: node, boot });
                }
            }
            Fault::FailWrite { node } => self.machine(node).fail_next(false),
            Fault::FailSync { node } => self.machine(node).fail_next(true),
            Fault::FillDisk { node, bytes } => self.machine(node).fill(bytes),
            Fault::Rot { node, down } => self.rot(node, down),
            Fault::Wipe { node } => self.wipe(node),
            Fault::Remove { node } => self.remove(node),
            Fault::HandOver { node } => self.hand_over(node),
        }
    }

    /// What came to a machine while it was paused, in the order in which its process comes to it: sockets keep theirs, but whether it
    /// looks at them first or at its timers is open. Sometimes it has come to one kind only, and comes to the others in a moment.
    fn after_a_pause(&mut self, number: u32) -> (Vec<Event>, Vec<Event>) {
        let mut events = self.machine(number).stopped.take().unwrap_or_default();
        let mut order = [0, 1, 2, 3];
        self.random.shuffle(&mut order);
        let rank = |event: &Event| match event {
            Event::Request { .. } | Event::Closed { .. } => order[0],
            Event::Frame { .. } | Event::LinkLost { .. } => order[1],
            Event::Disk { .. } => order[2],
            _ => order[3],
        };
        events.sort_by_key(rank);
        let of_first_kind =
            events.first().map_or(0, |first| events.partition_point(|event| rank(event) == rank(first)));
        let rest = if self.random.chance(500) { events.split_off(of_first_kind) } else { Vec::new() };
        (events, rest)
    }

    // ---- what nodes do ---------------------------------------------------------------------------------------------

    /// Does what a node wants done, and looks at it.
    fn settle(&mut self, number: u32) {
        let now = self.events.now();
        let machine = self.machine(number);
        let Some(node) = &mut machine.node else { return };
        let effects = std::mem::take(&mut node.effects);
        let commit = node.host.data().raft().commit_index();
        let leads = node.host.data().raft().is_leader();
        let committed = node.host.log().group(DATA_GROUP).and_then(|log| log.term(commit)).filter(|_| leads);
        let led = leads.then(|| node.host.data().raft().term());
        if let Some(term) = committed {
            self.leaders.committed(commit, term);
        }
        let outcome = self.leaders.stands(number, led, commit, committed);
        self.expect(outcome);
        let outcome = self.logs.commit_is(number, commit);
        self.expect(outcome);
        let outcome = self.leases.look(&self.machines, number, commit, now);
        self.expect(outcome);
        let boot = self.machine(number).boot;
        for effect in effects {
            match effect {
                Effect::Send { to, message } => self.send(number, to, message),
                Effect::Joined { machine, reply } => self.send_frame(number, machine, 2, &Frame::JoinReply(reply)),
                Effect::Reply { conn, bytes } => self.tell_client(number, conn, News::Bytes(bytes)),
                Effect::Break { conn } => self.tell_client(number, conn, News::Lost(Loss::Broken)),
                Effect::Write => {
                    let place = number as usize - 1;
                    match self.machines[place].disk_span(&self.settings) {
                        Some(span) => drop(self.events.push(now + span, Event::Disk { machine: number, boot })),
                        None => self.machines[place].write_due = true,
                    }
                }
                Effect::After { span, timer } => {
                    self.events.push(now + span, Event::Timer { machine: number, boot, timer });
                }
                Effect::Applied { index, term, hash, stamp_ms } => {
                    self.trace.event(now, "apply", &[number.into(), index, term, hash]);
                    let outcome = self.logs.applied(number, index, term, hash);
                    self.expect(outcome);
                    let outcome = self.states.time_is(number, index, stamp_ms);
                    self.expect(outcome);
                    self.leaders.committed(index, term);
                }
                Effect::State { index, hash } => {
                    self.trace.event(now, "state", &[number.into(), index, hash]);
                    let outcome = self.states.state_is(number, index, hash);
                    self.expect(outcome);
                }
                Effect::Acknowledged { index, term, conf } => self.acknowledged(index, term, &conf),
                Effect::Role(role) => self.role(number, role),
                Effect::Mark(name) => self.marks.hit(name),
                Effect::Members { index, conf } => {
                    self.trace.event(now, "members", &[number.into(), index]);
                    self.trace.say(now, || format!("node {number}, entry {index}: {conf:?}"));
                    let outcome = self.memberships.changed(number, (index, commit), &conf, &mut self.marks);
                    self.expect(outcome);
                }
                Effect::Halted(reason) => self.gave_up(number, &reason),
            }
        }
    }

    fn role(&mut self, number: u32, role: RoleState) {
        let now = self.events.now();
        self.trace.event(now, "role", &[number.into(), role.term, role.leader.unwrap_or(0)]);
        self.trace.say(now, || format!("node {number}: {role:?}"));
        if role.role != Role::Leader {
            return;
        }
        self.summary.elections += 1;
        if !self.is_quiet && self.random.chance(self.settings.fall_per_mille) {
            // Who has just been elected is the one whose fall is the hardest.
            self.marks.hit("leaders that fell at once");
            let down = now + self.random.range(MILLISECOND..=100 * MILLISECOND);
            let up = down + self.random.range(50 * MILLISECOND..=2 * SECOND);
            let crash = if self.random.chance(500) { Crash::Kill } else { Crash::PowerCut };
            self.events.push(down, Event::Fault(Fault::Crash { node: number, crash }));
            self.events.push(up, Event::Fault(Fault::Restart { node: number }));
        }
        let machine = &self.machines[number as usize - 1];
        if let Some(log) = machine.node.as_ref().and_then(|node| node.host.log().group(DATA_GROUP)) {
            let outcome = self.leaders.elected(role.term, number, log);
            self.expect(outcome);
        }
        let machine = &self.machines[number as usize - 1];
        if let Some(node) = &machine.node {
            // NB: not what it has applied by now, but by when it was elected.
            let outcome = self.memberships.elected(node.id, self.logs.applied_by(number));
            self.expect(outcome);
        }
    }

    fn acknowledged(&mut self, index: u64, term: u64, conf: &ConfState) {
        let disk = |id: u64| {
            let here = self.machine_of.get(&id).map(|number| &self.machines[*number as usize - 1].synced);
            here.or_else(|| self.operator.held(id))
        };
        let mut outcome = invariants::check_acknowledged((index, term), conf, disk);
        if let Some(before) = self.memberships.before(index)
            && outcome.is_err()
        {
            // NB: a change counts from when it is handed out. What was committed by then was counted by the membership before, which
            // shares its majorities with this one.
            outcome = invariants::check_acknowledged((index, term), before, disk);
        }
        self.expect(outcome);
    }

    /// A node sends to another.
    fn send(&mut self, number: u32, to: u64, message: PeerMessage) {
        let Some(receiver) = self.machine_of.get(&to).copied() else { return };
        if let PeerMessage::Raft { message, .. } = &message {
            self.look_at(number, message);
        }
        let lane = match message.lane() {
            Lane::Control => 0,
            Lane::Bulk => 1,
        };
        self.send_frame(number, receiver, lane, &Frame::Message(message));
    }

    fn look_at(&mut self, number: u32, message: &Message) {
        let machine = &self.machines[number as usize - 1];
        let Some(node) = &machine.node else { return };
        let promised = invariants::check_promise(message, &machine.synced, &node.sealed);
        let log = node.host.log().group(DATA_GROUP);
        let proposed = self.memberships.proposed(message, |index| log.and_then(|log| log.term(index)));
        self.expect(promised);
        self.expect(proposed);
        match &message.body {
            MessageBody::Append { previous_term, entries, .. } => {
                let outcome = self.logs.sent(*previous_term, entries);
                self.expect(outcome);
            }
            MessageBody::PreVoteReply { granted: false, .. } => self.marks.hit("pre-votes refused"),
            MessageBody::VoteReply { granted: false, .. } => self.marks.hit("votes refused"),
            MessageBody::VoteReply { granted: true, .. } => self.marks.hit("votes given"),
            MessageBody::AppendRejected { .. } => self.marks.hit("appends rejected"),
            MessageBody::StaleTerm => self.marks.hit("old leaders told"),
            MessageBody::TimeoutNow => self.marks.hit("campaigns asked for"),
            _ => {}
        }
    }

    fn send_frame(&mut self, from: u32, to: u32, lane: u32, frame: &Frame) {
        let now = self.events.now();
        self.encoder.clear();
        if let Err(error) = format::encode(frame, FRAME_BYTES_MAX, &mut self.encoder) {
            return self.expect(Err(format!("a message of node {from} can't be sent: {error}")));
        }
        let bytes = self.encoder.to_vec();
        for delivery in self.network.send(now, Place::Node(from), Place::Node(to), lane, bytes.len()) {
            self.events.push(delivery.at, Event::Frame { delivery, from, to, bytes: bytes.clone() });
        }
    }

    fn frame(&mut self, from: u32, to: u32, bytes: &[u8]) {
        let decoded = bytes.split_first_chunk::<HEAD_BYTES>().and_then(|(head, body)| {
            let head = Head::decode(head, FRAME_BYTES_MAX).ok()?;
            format::decode_borrowed(head, body).ok()
        });
        match decoded {
            Some(Frame::Message(message)) => {
                let Some(from) = self.id_of(from) else { return };
                self.with_node(to, |node| node.message(from, message));
            }
            Some(Frame::JoinRequest(request)) => {
                self.with_node(to, |node| node.join_requested(from, &request));
            }
            Some(Frame::JoinReply(reply)) => self.join_answered(to, reply),
            _ => self.expect(Err(format!("node {to} can't read what node {from} sent"))),
        }
    }

    fn join_answered(&mut self, number: u32, reply: JoinReply) {
        let now = self.events.now();
        let place = number as usize - 1;
        if self.machines[place].waiting_folder().is_none() {
            return;
        }
        let boot = self.machines[place].boot;
        match reply {
            JoinReply::Welcome { cluster, node, .. } => {
                self.trace.event(now, "welcome", &[number.into(), node]);
                self.trace.say(now, || format!("machine {number} becomes node {node}"));
                let outcome = self.machines[place].welcome(now, (cluster, node), &self.settings, &mut self.marks);
                match outcome {
                    Ok(()) => self.started(number),
                    Err(reason) => self.cannot_start(number, &reason),
                }
            }
            JoinReply::Redirect { leader } => {
                let whom = leader.port.checked_sub(17_000).map(u32::from);
                self.events.push(now, Event::Ask { machine: number, boot, whom });
            }
            JoinReply::Retry { .. } => {}
            JoinReply::Refused { reason } => self.expect(Err(format!("machine {number} was refused: {reason}"))),
        }
    }

    // ---- clients ---------------------------------------------------------------------------------------------------

    fn carry_out(&mut self, actions: Vec<Action>) {
        let now = self.events.now();
        for action in actions {
            match action {
                Action::Send { client, connection, node, bytes } => {
                    self.trace.event(now, "ask", &[client.into(), connection.into(), node.into(), bytes.len() as u64]);
                    let conn = ConnId { client, connection };
                    self.wires.entry(conn).or_default();
                    let (from, to) = (Place::Client(client), Place::Node(node));
                    for delivery in self.network.send(now, from, to, connection, bytes.len()) {
                        let bytes = bytes.clone();
                        self.events.push(delivery.at, Event::Request { delivery, conn, to: node, bytes });
                    }
                }
                Action::Close { client, connection, node } => {
                    let conn = ConnId { client, connection };
                    let at = self.wires.remove(&conn).and_then(|wire| wire.at);
                    if let Some((_, boot)) = at {
                        let span = self.random.below(5 * MILLISECOND);
                        self.events.push(now + span, Event::Closed { conn, to: node, boot });
                    }
                }
            }
        }
    }

    /// A client's bytes arrive.
    fn request(&mut self, conn: ConnId, to: u32, bytes: &[u8]) {
        let machine = &self.machines[to as usize - 1];
        let (boot, serves) = (machine.boot, machine.node.is_some());
        let Some(wire) = self.wires.get_mut(&conn) else { return };
        if !serves {
            let loss = if wire.at.is_some() { Loss::Broken } else { Loss::Refused };
            return self.tell_client(to, conn, News::Lost(loss));
        }
        if *wire.at.get_or_insert((to, boot)) != (to, boot) {
            return self.tell_client(to, conn, News::Lost(Loss::Broken));
        }
        self.with_node(to, |node| node.request(conn, bytes));
    }

    fn tell_client(&mut self, number: u32, conn: ConnId, news: News) {
        let now = self.events.now();
        let Some(wire) = self.wires.get_mut(&conn) else { return };
        wire.sent += 1;
        let sequence = wire.sent;
        let length = match &news {
            News::Bytes(bytes) => bytes.len(),
            News::Lost(_) => 0,
        };
        let (from, to) = (Place::Node(number), Place::Client(conn.client));
        if let Some(delivery) = self.network.send(now, from, to, conn.connection, length).into_iter().next() {
            self.events.push(delivery.at, Event::Reply { delivery, conn, sequence, news });
        }
    }

    fn reply(&mut self, conn: ConnId, sequence: u64, news: News) {
        let now = self.events.now();
        let ConnId { client, connection } = conn;
        let Some(wire) = self.wires.get_mut(&conn) else { return };
        if sequence != wire.got + 1 {
            // A stream has no gaps: what comes behind lost bytes is never seen.
            return;
        }
        wire.got = sequence;
        if client == stage::ASKER {
            return self.heard.push((now, connection, news));
        }
        let actions = match news {
            News::Bytes(bytes) => {
                self.trace.event(now, "reply", &[client.into(), connection.into(), bytes.len() as u64]);
                self.workload.receive(now, client, connection, &bytes)
            }
            News::Lost(loss) => {
                self.trace.event(now, "lost", &[client.into(), connection.into()]);
                self.wires.remove(&conn);
                self.workload.lost(now, client, connection, loss)
            }
        };
        self.carry_out(actions);
    }
}
