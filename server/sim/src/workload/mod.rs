//! Clients that ask, wait, and write down what they heard.
//!
//! Each client is a closed loop: it thinks, sends a few commands on one connection, waits for all replies, thinks again. What
//! it asked and heard goes into a [`History`], which the checker judges.
//!
//! ```text
//!             next_time ◀── the world asks when a client has something to do
//!                  tick ──▶ actions: Send (a connection's bytes to a node), Close (a connection was given up)
//!               receive ◀── bytes of a reply
//!                  lost ◀── a connection broke, or was never made
//! ```
//!
//! - **Unknown outcomes.** Who hears nothing for `timeout_us` gives up: each unanswered command may have been executed, now or
//!   later. The connection is closed, since a late reply on it would be taken for that of a later command.
//! - **Certain failures**: `MOVED`, `CLUSTERDOWN` and the like ([`REFUSED_CODES`]) promise that the command was not
//!   executed. The client follows a `MOVED`; otherwise it tries another node.
//! - **Numbered writes**: some clients send what is unknown again, under the number that it has in their session.
//! - **Readers** only read. They say READONLY and stay with whatever node they are at, leader or not, as long as it answers. Where
//!   replicas may be behind, what they hear must have been true at some time, and must not go back on one connection.
//! - **Values are unique**: nothing is written twice, so every read tells whose write it saw.
//! - **Keys are retired** after some operations and replaced by fresh ones: the checker's work grows with the operations on
//!   one key, and logs must not grow without end.
//! - **Leases** are registers whose values are stored for a while. That a value may go away is part of the history.
//! - **At the end**, [`Workload::read_everything`] lets the clients read every key there ever was until each read is
//!   answered. It shows that the cluster has converged, and that nothing acknowledged was lost.

mod client;
mod commands;
mod reader;
mod session;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use holdfast_client::Address;

pub use commands::{KeyKind, REFUSED_CODES, Reading, Request, Span, encode};

use crate::check::{History, Operation, Outcome};
use crate::random::Random;
use crate::time::{MILLISECOND, Micros, SECOND};
use client::{Client, Habit};

/// Chosen so that the seeds that tests name do without leases, and run as they did when they found something.
const LEASES_SEED_KEEPER: u64 = 3;

/// How many clients there are and what they do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkloadSettings {
    /// Clients, which are numbered from 1.
    pub clients: u32,
    /// Further clients, which number their writes and send those of unknown outcome again.
    pub session_clients: u32,
    /// Further clients, which read from replicas.
    pub reading_clients: u32,
    /// What those hear may be old.
    pub reads_may_be_old: bool,
    /// The nodes that they know: `1..=nodes`.
    pub nodes: u32,
    /// What the names of all keys begin with.
    pub key_prefix: String,
    /// Keys in use at a time, of each kind.
    pub keys: BTreeMap<KeyKind, u32>,
    /// Operations on a key before it is retired.
    pub operations_per_key_max: u32,
    /// Writes of unknown outcome on a key before it is retired: they make the checker's work exponential.
    pub unknown_per_key_max: u32,
    /// How much sooner or later than it should a deadline may be noticed, in microseconds: twice what clocks may be off.
    pub deadline_error_us: Micros,
    /// The most commands that a client sends at once.
    pub pipeline_max: u32,
    /// The pause between the last reply and the next command.
    pub think_us: RangeInclusive<Micros>,
    /// The pause after a failure.
    pub retry_us: RangeInclusive<Micros>,
    /// How long a client waits for its replies.
    pub timeout_us: Micros,
}

impl WorkloadSettings {
    /// Ten clients on a few keys.
    pub fn new(nodes: u32) -> WorkloadSettings {
        WorkloadSettings {
            clients: 10,
            session_clients: 0,
            reading_clients: 0,
            reads_may_be_old: false,
            nodes,
            key_prefix: String::new(),
            keys: BTreeMap::from([(KeyKind::Register, 3), (KeyKind::Counter, 1), (KeyKind::Log, 1)]),
            operations_per_key_max: 1000,
            unknown_per_key_max: 16,
            deadline_error_us: 0,
            pipeline_max: 3,
            think_us: 0..=50 * MILLISECOND,
            retry_us: 5 * MILLISECOND..=100 * MILLISECOND,
            timeout_us: 2 * SECOND,
        }
    }

    /// As the seed says: from one lonely client to a crowd on a single key, with 50 to 1000 operations a second.
    pub fn draw(random: &Random, nodes: u32) -> WorkloadSettings {
        let mut random = random.fork("workload settings");
        let mut keys = BTreeMap::new();
        for (kind, count_max) in [(KeyKind::Register, 6), (KeyKind::Counter, 2), (KeyKind::Log, 2)] {
            let (on, count) = (random.chance(700), random.range(1..=count_max));
            if on {
                keys.insert(kind, count as u32);
            }
        }
        if keys.is_empty() {
            keys.insert(KeyKind::Register, 1);
        }
        let clients = [1, 3, 5, 10, 15][random.index(5)];
        let pipeline_max = [1, 1, 2, 5][random.index(4)];
        // The pace is that of all clients together: a crowd without pauses shows no more and takes long to check.
        let operations_per_second = [50, 200, 1000][random.index(3)];
        let think_mean = u64::from(clients * (1 + pipeline_max) / 2) * SECOND / operations_per_second;
        WorkloadSettings {
            clients,
            keys,
            pipeline_max,
            think_us: 0..=2 * think_mean,
            timeout_us: [500 * MILLISECOND, 2 * SECOND, 5 * SECOND][random.index(3)],
            ..WorkloadSettings::new(nodes)
        }
    }

    /// Has some clients read from replicas.
    pub fn add_readers(&mut self, random: &Random, may_be_old: bool) {
        self.reading_clients = [1, 2, 4][random.fork("readers").index(3)];
        self.reads_may_be_old = may_be_old;
    }

    /// Has clients use keys with deadlines, in half of all seeds. No node's clock is off by more than this.
    pub fn draw_leases(&mut self, random: &Random, skew_us_max: Micros) {
        let mut random = random.fork_numbered("leases", LEASES_SEED_KEEPER);
        let (on, count) = (random.index(2) == 1, random.range(1..=3));
        if on {
            self.keys.insert(KeyKind::Lease, count as u32);
        }
        self.deadline_error_us = 2 * (skew_us_max + MILLISECOND);
    }
}

/// What a client does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Sends bytes. The first of a connection opens it.
    Send {
        /// Which client.
        client: u32,
        /// The client's connection, by a number that it never uses again.
        connection: u32,
        /// To whom.
        node: u32,
        /// One or more whole commands.
        bytes: Vec<u8>,
    },
    /// Gives up a connection; nothing that still comes on it is heard.
    Close {
        /// Which client.
        client: u32,
        /// Which of its connections.
        connection: u32,
        /// Who is at its other end.
        node: u32,
    },
}

/// How a connection came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// It was never made: nothing that was sent on it reached anybody.
    Refused,
    /// It broke: what was not answered may have been executed.
    Broken,
}

/// How the operations ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WorkloadCounts {
    /// An answer came.
    pub answered: u64,
    /// No answer came; or one that makes no sense.
    pub unknown: u64,
    /// It was refused.
    pub failed: u64,
}

/// One key in use.
#[derive(Debug, Clone)]
pub(crate) struct LiveKey {
    pub(crate) kind: KeyKind,
    number: u32,
    generation: u32,
    operations: u32,
    unknown: u32,
    pub(crate) name: Vec<u8>,
}

impl LiveKey {
    fn new(prefix: &str, kind: KeyKind, number: u32, generation: u32) -> LiveKey {
        let kind_name = match kind {
            KeyKind::Register => "register",
            KeyKind::Counter => "counter",
            KeyKind::Log => commands::LOG,
            KeyKind::Pair => commands::PAIR,
            KeyKind::Lease => "lease",
        };
        let name = format!("{prefix}{kind_name}-{number}.{generation}").into_bytes();
        LiveKey { kind, number, generation, operations: 0, unknown: 0, name }
    }
}

/// Says which node has an address.
type NodeOf = Box<dyn Fn(&Address) -> Option<u32>>;

/// What all clients share.
pub(crate) struct Shared {
    pub(crate) settings: WorkloadSettings,
    pub(crate) history: History,
    keys: Vec<LiveKey>,
    retired: Vec<Vec<u8>>,
    /// Keys that are still to be read at the end, once the end has come.
    to_read: Option<Vec<Vec<u8>>>,
    pub(crate) actions: Vec<Action>,
    pub(crate) counts: WorkloadCounts,
    pub(crate) anomalies: Vec<String>,
    pub(crate) node_of: NodeOf,
}

impl Shared {
    /// Counts an operation on one of the keys in use and gives the key.
    pub(crate) fn use_key(&mut self, place: usize) -> LiveKey {
        let key = &mut self.keys[place];
        let settings = &self.settings;
        // Leases live longer, so that there is time for their values to go; and each such value is one thing more that may happen.
        let (operations_max, unknown_max) = match key.kind {
            KeyKind::Lease => (3 * settings.operations_per_key_max, settings.unknown_per_key_max / 2),
            _ => (settings.operations_per_key_max, settings.unknown_per_key_max),
        };
        if key.operations >= operations_max || key.unknown >= unknown_max {
            let next = LiveKey::new(&settings.key_prefix, key.kind, key.number, key.generation + 1);
            self.retired.push(std::mem::replace(key, next).name);
        }
        key.operations += 1;
        key.clone()
    }

    pub(crate) fn key_count(&self) -> usize {
        self.keys.len()
    }

    pub(crate) fn is_ending(&self) -> bool {
        self.to_read.is_some()
    }

    /// The next key to read at the end.
    pub(crate) fn next_to_read(&mut self) -> Option<Vec<u8>> {
        self.to_read.as_mut()?.pop()
    }

    /// Counts an outcome and writes it down. At the end, a read that was not answered is asked again.
    pub(crate) fn finish(&mut self, now: Micros, id: crate::check::OperationId, outcome: Outcome) {
        match outcome {
            Outcome::Answered(_) => self.counts.answered += 1,
            Outcome::Unknown => {
                self.counts.unknown += 1;
                let (name, call) = self.history.operation(id);
                if call.operation != Operation::Get
                    && let Some(key) = self.keys.iter_mut().find(|key| key.name == name)
                {
                    key.unknown += 1;
                }
            }
            Outcome::Failed => self.counts.failed += 1,
        }
        if !matches!(outcome, Outcome::Answered(_)) && self.to_read.is_some() {
            let key = self.history.operation(id).0.to_vec();
            if let Some(to_read) = self.to_read.as_mut().filter(|to_read| !to_read.contains(&key)) {
                to_read.push(key);
            }
        }
        self.history.finish(now, id, outcome);
    }
}

/// All clients.
pub struct Workload {
    clients: Vec<Client>,
    shared: Shared,
}

impl Workload {
    /// Clients that begin soon after `now`. `node_of` says which node has an address, for those who follow a `MOVED`.
    ///
    /// # Panics
    /// If the settings name no client, no node or no key.
    pub fn new(
        random: &Random,
        settings: WorkloadSettings,
        now: Micros,
        node_of: impl Fn(&Address) -> Option<u32> + 'static,
    ) -> Workload {
        assert!(
            settings.clients + settings.session_clients > 0 && settings.nodes > 0,
            "a workload needs a client and a node"
        );
        let keys: Vec<LiveKey> = settings
            .keys
            .iter()
            .flat_map(|(kind, count)| (0..*count).map(|number| LiveKey::new(&settings.key_prefix, *kind, number, 0)))
            .collect();
        assert!(!keys.is_empty(), "a workload needs a key");
        let calling = settings.clients + settings.session_clients;
        let clients = (1..=calling + settings.reading_clients)
            .map(|number| {
                let random = random.fork_numbered("client", u64::from(number));
                let habit = match number {
                    _ if number <= settings.clients => Habit::Plain,
                    _ if number <= calling => Habit::NumbersWrites,
                    _ => Habit::ReadsReplicas,
                };
                Client::new(random, number, habit, &settings, now)
            })
            .collect();
        let shared = Shared {
            settings,
            history: History::new(),
            keys,
            retired: Vec::new(),
            to_read: None,
            actions: Vec::new(),
            counts: WorkloadCounts::default(),
            anomalies: Vec::new(),
            node_of: Box::new(node_of),
        };
        Workload { clients, shared }
    }

    /// When the next client has something to do. There is always such a time, also when the workload is done.
    pub fn next_time(&self) -> Micros {
        self.clients.iter().map(Client::wakes_at).min().unwrap_or(Micros::MAX)
    }

    /// Lets the clients do what is due.
    pub fn tick(&mut self, now: Micros) -> Vec<Action> {
        for client in &mut self.clients {
            if client.wakes_at() <= now {
                client.wake(now, &mut self.shared);
            }
        }
        std::mem::take(&mut self.shared.actions)
    }

    /// Bytes have come on a connection of a client. Those on a connection that it gave up are not heard.
    pub fn receive(&mut self, now: Micros, client: u32, connection: u32, bytes: &[u8]) -> Vec<Action> {
        if let Some(client) = with_connection(&mut self.clients, client, connection) {
            client.receive(now, bytes, &mut self.shared);
        }
        std::mem::take(&mut self.shared.actions)
    }

    /// A connection of a client has ended from the other side.
    pub fn lost(&mut self, now: Micros, client: u32, connection: u32, loss: Loss) -> Vec<Action> {
        if let Some(client) = with_connection(&mut self.clients, client, connection) {
            client.lose(now, loss, &mut self.shared);
        }
        std::mem::take(&mut self.shared.actions)
    }

    /// From now on the clients write nothing more; they read every key there ever was until each read was answered once.
    pub fn read_everything(&mut self, now: Micros) {
        let mut keys = self.shared.retired.clone();
        keys.extend(self.shared.keys.iter().map(|key| key.name.clone()));
        self.shared.to_read = Some(keys);
        for client in &mut self.clients {
            client.hurry(now);
        }
    }

    /// Whether every key was read after [`Workload::read_everything`], and no client waits for anything.
    pub fn is_done(&self) -> bool {
        self.shared.to_read.as_ref().is_some_and(Vec::is_empty) && self.clients.iter().all(Client::is_idle)
    }

    /// What was asked and heard so far.
    pub fn history(&self) -> &History {
        &self.shared.history
    }

    /// How the operations ended so far.
    pub fn counts(&self) -> WorkloadCounts {
        self.shared.counts
    }

    /// Replies that the commands don't have, with who got them: each is a fault of the server.
    pub fn anomalies(&self) -> &[String] {
        &self.shared.anomalies
    }
}

/// The client, if this is the connection that it listens on.
fn with_connection(clients: &mut [Client], number: u32, connection: u32) -> Option<&mut Client> {
    let place = (number as usize).checked_sub(1)?;
    clients.get_mut(place).filter(|client| client.connection() == connection)
}
