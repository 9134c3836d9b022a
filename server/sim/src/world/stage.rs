//! Where a [script](crate::script) is played: the world, one step at a time.

use bytes::BytesMut;
use holdfast_client::{Decoder, Limits, Value};
use std::collections::BTreeMap;

use super::{Event, News, Settings, World};
use crate::campaign::Summary;
use crate::check::History;
use crate::network::{NetworkCounts, NetworkWeather, Partition};
use crate::plan::{Crash, Fault, Plan};
use crate::random::Random;
use crate::time::{MILLISECOND, Micros, SECOND, Shown};
use crate::trace::Trace;
use crate::workload::{Action, Loss, WorkloadCounts, WorkloadSettings, encode};

/// The client number of a script's own requests. Each goes over a connection of its own.
pub(super) const ASKER: u32 = u32::MAX;
/// How often the nodes are looked at while time goes on.
const LOOK_EVERY: Micros = 50 * MILLISECOND;
/// How long [`Stage::call`] waits for an answer before it asks again, and how long in all.
const CALL_PATIENCE: Micros = SECOND;
const CALL_MAX: Micros = 20 * SECOND;
/// How long the end may take until every key is read, beside the time to become whole.
const END_MAX: Micros = 30 * SECOND;

/// A request of a script's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Asked(u32);

/// What became of it.
#[derive(Debug, Clone, PartialEq)]
pub enum Heard {
    /// An answer, which may be an error.
    Answer(Value),
    /// The connection broke, or was never made.
    Lost(Loss),
}

impl Heard {
    /// Whether the request did certainly nothing: it was refused, or reached nobody.
    pub fn is_refusal(&self) -> bool {
        match self {
            Heard::Answer(Value::Error(error)) => crate::workload::REFUSED_CODES.contains(&error.code()),
            Heard::Answer(_) => false,
            Heard::Lost(loss) => *loss == Loss::Refused,
        }
    }

    /// The answer, if it is one and no error.
    pub fn success(&self) -> Option<&Value> {
        match self {
            Heard::Answer(value) if !matches!(value, Value::Error(_)) => Some(value),
            _ => None,
        }
    }
}

/// What came of a script.
#[derive(Debug)]
pub struct Report {
    /// As of any run.
    pub summary: Summary,
    /// What the clients asked and heard.
    pub history: History,
    /// What the network did.
    pub network: NetworkCounts,
    /// The longest log that any node had, in bytes.
    pub log_bytes_max: u64,
}

/// A world that a script acts on.
#[derive(Debug)]
pub struct Stage<'world, 'trace> {
    world: &'world mut World<'trace>,
    random: Random,
    connections: u32,
    heard: BTreeMap<Asked, (Micros, Heard)>,
    buffers: BTreeMap<u32, BytesMut>,
    log_bytes_max: u64,
}

impl std::fmt::Debug for World<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "World(at {} s)", Shown(self.events.now()))
    }
}

impl Stage<'_, '_> {
    /// Plays a script on a world made for it, once it is whole, up to the end that every run has.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn play(
        plan: &Plan,
        settings: Settings,
        workload: WorkloadSettings,
        random: &Random,
        weather: NetworkWeather,
        trace: &mut Trace,
        act: impl FnOnce(&mut Stage<'_, '_>),
    ) -> Report {
        let mut world = World::new(plan, settings, workload, random, trace);
        let mut stage = Stage {
            world: &mut world,
            random: random.fork("script"),
            connections: 0,
            heard: BTreeMap::new(),
            buffers: BTreeMap::new(),
            log_bytes_max: 0,
        };
        stage.wait_until_whole();
        stage.weather(weather);
        act(&mut stage);
        stage.mend_everything();
        let log_bytes_max = stage.log_bytes_max;
        let now = world.events.now();
        // NB: the end comes now, however few answers there were: a script looks itself whether they were enough.
        world.duration = now;
        world.handle(Event::Quiet);
        world.duration = now + END_MAX;
        world.live();
        let (history, network) = (world.workload.history().clone(), world.network.counts());
        Report { summary: world.judge(), history, network, log_bytes_max }
    }

    // ---- time ------------------------------------------------------------------------------------------------------

    /// The present.
    pub fn now(&self) -> Micros {
        self.world.events.now()
    }

    /// A source of randomness of the script's own.
    pub fn random(&mut self) -> &mut Random {
        &mut self.random
    }

    /// Time goes on, and everything with it.
    ///
    /// # Panics
    /// If something is broken: then the rest of the script means nothing.
    pub fn run_for(&mut self, span: Micros) {
        let end = self.now() + span;
        self.go_on(end, |_| false);
    }

    /// Time goes on until something is so; says when it was.
    ///
    /// # Panics
    /// If it is not so after `longest`, or something is broken.
    #[track_caller]
    pub fn run_until(&mut self, longest: Micros, what: &str, is_so: impl FnMut(&mut Stage<'_, '_>) -> bool) -> Micros {
        let end = self.now() + longest;
        let was_so = self.go_on(end, is_so);
        assert!(was_so, "at {} s, still not: {what}\n{}", Shown(self.now()), self.standing());
        self.now()
    }

    /// Goes on until the condition holds, which is looked at every millisecond, or until the end.
    fn go_on(&mut self, end: Micros, mut is_so: impl FnMut(&mut Stage<'_, '_>) -> bool) -> bool {
        let mut look_at = self.now();
        loop {
            self.hear();
            if self.now() >= look_at {
                self.look();
                look_at = self.now() + LOOK_EVERY;
            }
            let violations = &self.world.summary.violations;
            assert!(violations.is_empty(), "{}\n{}", violations.join("\n"), self.world.summary.notes);
            let found = is_so(self);
            if found || self.now() >= end {
                return found;
            }
            let until = end.min(self.now() + MILLISECOND);
            while self.now() < until {
                self.world.advance(until);
            }
        }
    }

    /// Time goes on until some node leads and serves; says which.
    ///
    /// # Panics
    /// If none does within ten seconds.
    #[track_caller]
    pub fn wait_for_leader(&mut self) -> u32 {
        self.run_until(10 * SECOND, "a leader", |stage| stage.leader().is_some());
        self.leader().unwrap_or_default()
    }

    /// Time goes on until every machine runs a node that has applied what is committed, and knows of itself and all others as voters.
    ///
    /// # Panics
    /// If they are not so within twenty seconds.
    #[track_caller]
    pub fn wait_until_whole(&mut self) {
        self.run_until(20 * SECOND, "every node a voter that has applied everything", |stage| {
            let machines = &stage.world.machines;
            let nodes: Vec<_> = machines.iter().filter_map(|machine| machine.node.as_ref()).collect();
            let commit = nodes.iter().map(|node| node.host.data().raft().commit_index()).max().unwrap_or(0);
            stage.leader().is_some()
                && nodes.len() == machines.len()
                && nodes.iter().all(|node| {
                    // NB: a node counts by the membership that it knows; and while clients go on, the last entries are always under way.
                    let (replica, conf) = (node.host.data(), node.host.data().raft().conf_state());
                    conf.voters.len() == machines.len() && !conf.is_joint() && replica.applied().index + 20 >= commit
                })
        });
    }

    // ---- what goes wrong -------------------------------------------------------------------------------------------

    /// Does what a plan's fault does, now.
    pub fn inflict(&mut self, fault: Fault) {
        self.world.inflict(fault);
    }

    /// Nodes of one side and all others hear nothing of each other, instead of as before.
    pub fn split(&mut self, side: &[u32]) {
        self.inflict(Fault::Part(Partition::Split { side: side.to_vec() }));
    }

    /// The same with sides drawn at random, as the partitioner of MIT's course does every second.
    pub fn split_at_random(&mut self) {
        let nodes = self.nodes();
        let side: Vec<u32> = (1..=nodes).filter(|_| self.random.chance(500)).collect();
        self.split(&side);
    }

    /// Every partition ends.
    pub fn heal(&mut self) {
        self.inflict(Fault::Heal);
    }

    /// The network is from now on like this.
    pub fn weather(&mut self, weather: NetworkWeather) {
        self.inflict(Fault::Weather(Box::new(weather)));
    }

    /// A node goes down.
    pub fn crash(&mut self, node: u32, crash: Crash) {
        self.inflict(Fault::Crash { node, crash });
    }

    /// A node that is down starts.
    pub fn restart(&mut self, node: u32) {
        self.inflict(Fault::Restart { node });
    }

    /// All nodes go down at the same moment.
    pub fn crash_all(&mut self, crash: Crash) {
        self.inflict(Fault::CrashAll { crash });
    }

    /// All nodes that are down start.
    pub fn restart_all(&mut self) {
        (1..=self.nodes()).for_each(|node| self.restart(node));
    }

    fn mend_everything(&mut self) {
        self.heal();
        self.weather(NetworkWeather::calm());
        for node in 1..=self.nodes() {
            self.inflict(Fault::Resume { node });
            self.inflict(Fault::MendDisk { node });
            self.inflict(Fault::ClockDrift { node, drift_ppm: 0 });
            self.inflict(Fault::ClockSkew { node, offset_us: 0 });
            self.restart(node);
        }
    }

    // ---- requests of the script's own ------------------------------------------------------------------------------

    /// Sends a command to a node, on a connection of its own. The network's weather goes for it as for any other.
    pub fn ask(&mut self, node: u32, words: &[&str]) -> Asked {
        let words: Vec<Vec<u8>> = words.iter().map(|word| word.as_bytes().to_vec()).collect();
        let mut bytes = Vec::new();
        encode(&words, &mut bytes);
        self.connections += 1;
        let connection = self.connections;
        self.world.carry_out(vec![Action::Send { client: ASKER, connection, node, bytes }]);
        Asked(connection)
    }

    /// What a request of the script's own was answered, and when; `None` while it is not.
    pub fn heard(&mut self, asked: Asked) -> Option<(Micros, Heard)> {
        self.hear();
        self.heard.get(&asked).cloned()
    }

    /// Sends a command to whoever leads until it is answered, and gives the answer: so it may be executed twice.
    ///
    /// # Panics
    /// If there is no answer within twenty seconds, or it is an error that promises nothing.
    #[track_caller]
    pub fn call(&mut self, words: &[&str]) -> Value {
        let end = self.now() + CALL_MAX;
        while self.now() < end {
            let leader = self.wait_for_leader();
            let asked = self.ask(leader, words);
            let patience = self.now() + CALL_PATIENCE;
            self.go_on(patience, |stage| stage.heard(asked).is_some());
            match self.heard(asked) {
                Some((_, Heard::Answer(Value::Error(error)))) => {
                    assert!(
                        crate::workload::REFUSED_CODES.contains(&error.code()),
                        "{words:?} was answered with {error:?}"
                    );
                }
                Some((_, Heard::Answer(value))) => return value,
                _ => {}
            }
            self.run_for(20 * MILLISECOND);
        }
        panic!("{words:?} was not answered within {CALL_MAX} us\n{}", self.standing());
    }

    /// Takes what came for the script.
    fn hear(&mut self) {
        for (at, connection, news) in std::mem::take(&mut self.world.heard) {
            let heard = match news {
                News::Lost(loss) => Heard::Lost(loss),
                News::Bytes(bytes) => {
                    let buffer = self.buffers.entry(connection).or_default();
                    buffer.extend_from_slice(&bytes);
                    match Decoder::new(Limits::default()).decode(buffer) {
                        Ok(Some(value)) => Heard::Answer(value),
                        Ok(None) => continue,
                        Err(error) => panic!("what a node answered is no reply: {error}"),
                    }
                }
            };
            self.buffers.remove(&connection);
            // NB: what comes behind the answer, such as the end of the connection, tells nothing more.
            self.heard.entry(Asked(connection)).or_insert((at, heard));
        }
    }

    // ---- what there is ---------------------------------------------------------------------------------------------

    /// The number of machines.
    pub fn nodes(&self) -> u32 {
        self.world.machines.len() as u32
    }

    /// The node that leads, as far as anybody can tell: of several, the one of the highest term.
    pub fn leader(&self) -> Option<u32> {
        self.world.leading()
    }

    /// All machines but this one.
    pub fn others(&self, node: u32) -> Vec<u32> {
        (1..=self.nodes()).filter(|other| *other != node).collect()
    }

    /// The term of a node that runs.
    pub fn term(&mut self, node: u32) -> Option<u64> {
        self.world.machine(node).node.as_ref().map(|node| node.host.data().raft().term())
    }

    /// The last entry that a node which runs has applied.
    pub fn applied(&mut self, node: u32) -> Option<u64> {
        self.world.machine(node).node.as_ref().map(|node| node.host.data().applied().index)
    }

    /// The first entry that is still in the log of a node which runs: those before it are only in its table.
    pub fn first_in_log(&mut self, node: u32) -> Option<u64> {
        let log = self.world.machine(node).node.as_ref()?.host.log().group(super::DATA_GROUP)?;
        Some(log.compacted().0 + 1)
    }

    /// The last entry in the log of a node which runs, committed or not.
    pub fn last_in_log(&mut self, node: u32) -> Option<u64> {
        Some(self.world.machine(node).node.as_ref()?.host.log().group(super::DATA_GROUP)?.last_index())
    }

    /// Whether a machine runs a node that belongs to the cluster.
    pub fn is_up(&mut self, node: u32) -> bool {
        self.world.machine(node).node.is_some()
    }

    /// How a machine is called as a member; another whenever its disk is replaced.
    pub fn member(&self, node: u32) -> Option<u64> {
        self.world.id_of(node)
    }

    /// The members of the newest membership that anybody has applied.
    pub fn members(&self) -> Vec<u64> {
        self.world.memberships.newest().map(holdfast_raft::ConfState::members).unwrap_or_default().into_iter().collect()
    }

    /// How the clients' operations ended so far.
    pub fn counts(&self) -> WorkloadCounts {
        self.world.workload.counts()
    }

    /// How often the run came by a place so far.
    pub fn mark(&self, name: &str) -> u64 {
        self.world.marks.count(name)
    }

    /// What the network has done so far.
    pub fn network(&self) -> NetworkCounts {
        self.world.network.counts()
    }

    /// Looks at what may only be so long, or so full.
    fn look(&mut self) {
        let logs = self.world.machines.iter().filter_map(|machine| machine.node.as_ref());
        let longest = logs.map(|node| node.host.log().log_bytes()).max().unwrap_or(0);
        self.log_bytes_max = self.log_bytes_max.max(longest);
    }

    fn standing(&self) -> String {
        super::invariants::standing(&self.world.machines)
    }
}
