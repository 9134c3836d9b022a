//! One node while it runs: the host, and what the shard of the server does around it.
//!
//! ```text
//!   frames, requests, timers ─▶ Node ─▶ Effects: frames, replies, a batch to write, timers, what was applied
//! ```
//!
//! This is the second driver of the core; the first is `server/src/shard`. It follows that one step by step, without sockets and
//! threads: what a thread does there is an event here, so that anything else can happen before it. Hops by file: requests,
//! turns and replies in `clients.rs`, committed entries in `apply.rs`, members and leadership in `cluster.rs`, snapshots in
//! `transfer.rs`.

mod apply;
mod clients;
mod cluster;
mod transfer;

pub(super) use clients::ConnId;
pub(super) use transfer::Install;

use bytes::Bytes;
use clients::{Asked, Conn, Turn};
use holdfast_engine::wal::{SealedBatch, WalWriter};
use holdfast_raft::{ConfState, Role, RoleState};
use holdfast_server::cluster::{Member, NodeId, Topology};
use holdfast_server::host::{Committed, Host, Opened, Outputs};
use holdfast_server::peer::{JoinReply, JoinRequest, PeerMessage};
use holdfast_server::replica::{DATA_GROUP, internal};
use holdfast_server::resp::{Proto, Reply};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use transfer::Transfers;

use super::held::Held;
use super::settings::Settings;
use crate::random::Random;
use crate::time::{MILLISECOND, Micros};

/// Expired keys that are deleted together: few, so that some have to wait.
const RECLAIM_KEYS_MAX: usize = 4;

/// Something that the node wants to be called for later.
#[derive(Debug)]
pub(super) enum Timer {
    /// The turn has gathered enough.
    Turn,
    /// The log has rested since this many batches.
    Rest(u64),
    /// Sending a snapshot failed a while ago.
    ReportLater(NodeId),
    /// A received snapshot moves a step towards its place.
    Install(Install),
}

/// What a node does to the world, in order.
#[derive(Debug)]
pub(super) enum Effect {
    /// A message for a peer.
    Send { to: NodeId, message: PeerMessage },
    /// The answer to a machine that asked to join.
    Joined { machine: u32, reply: JoinReply },
    /// Bytes for a client.
    Reply { conn: ConnId, bytes: Vec<u8> },
    /// A client's connection is closed.
    Break { conn: ConnId },
    /// A batch waits to be written: [`Node::writing`].
    Write,
    /// Call [`Node::timer`] after a while.
    After { span: Micros, timer: Timer },
    /// An entry was applied.
    Applied { index: u64, term: u64, hash: u64, stamp_ms: u64 },
    /// The membership from an entry on.
    Members { index: u64, conf: ConfState },
    /// What the state is after an entry.
    State { index: u64, hash: u64 },
    /// The clients of an entry are about to be answered. The membership is the one by which it was committed.
    Acknowledged { index: u64, term: u64, conf: ConfState },
    /// A new term, role or leader.
    Role(RoleState),
    /// Something worth counting happened.
    Mark(&'static str),
    /// The node can't go on.
    Halted(String),
}

/// A node that runs.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) host: Host,
    pub(super) writer: WalWriter,
    pub(super) id: NodeId,
    /// What it wants the world to do.
    pub(super) effects: Vec<Effect>,
    /// A batch that is sealed and not written yet.
    pub(super) writing: Option<SealedBatch>,
    /// The log as it is with that batch.
    pub(super) sealed: Held,
    settings: Settings,
    random: Random,
    cluster: u128,
    me: Member,
    mono_ms: u64,
    clock_ms: u64,
    batches: u64,
    outputs: Outputs,
    backlog: VecDeque<Committed>,
    /// The membership before the host was asked what is committed.
    conf: ConfState,
    // Clients.
    conns: BTreeMap<ConnId, Conn>,
    touched: BTreeSet<ConnId>,
    held_back: BTreeSet<ConnId>,
    runnable: VecDeque<ConnId>,
    turn: Turn,
    readers: Vec<ConnId>,
    asked: VecDeque<Asked>,
    next_context: u64,
    sink: Reply,
    // The cluster.
    topology: Topology,
    topology_changed: bool,
    leader_last: Option<NodeId>,
    led: bool,
    joins: Vec<(u128, u32)>,
    member_asked_ms: Option<u64>,
    unlinked: BTreeSet<NodeId>,
    transfers: Transfers,
    is_halted: bool,
}

impl Node {
    /// A node over a host that was just opened, once what its log holds is applied.
    ///
    /// # Errors
    /// When the log or the store fails.
    pub(super) fn start(
        opened: Opened,
        me: Member,
        settings: Settings,
        random: Random,
        (mono_ms, clock_ms): (u64, u64),
    ) -> Result<Node, String> {
        let Opened { host, writer, .. } = opened;
        let identity = host.identity().ok_or("a node without a cluster was started")?;
        let mut random = random;
        let transfers = Transfers::new(random.next_u64());
        let mut node = Node {
            host,
            writer,
            id: identity.node,
            effects: Vec::new(),
            writing: None,
            sealed: Held::default(),
            settings,
            random,
            cluster: identity.cluster,
            me,
            mono_ms,
            clock_ms,
            batches: 0,
            outputs: Outputs::default(),
            backlog: VecDeque::new(),
            conf: ConfState::default(),
            conns: BTreeMap::new(),
            touched: BTreeSet::new(),
            held_back: BTreeSet::new(),
            runnable: VecDeque::new(),
            turn: Turn::default(),
            readers: Vec::new(),
            asked: VecDeque::new(),
            next_context: 1,
            sink: Reply::new(Proto::Resp2),
            topology: Topology { cluster: identity.cluster, me: identity.node, nodes: Vec::new(), groups: Vec::new() },
            topology_changed: true,
            leader_last: None,
            led: false,
            joins: Vec::new(),
            member_asked_ms: None,
            unlinked: BTreeSet::new(),
            transfers,
            is_halted: false,
        };
        node.catch_up()?;
        // NB: one that is alone leads by now.
        let role = node.host.data().raft().role_state();
        (node.led, node.leader_last) = (role.role == Role::Leader, role.leader);
        node.publish_topology();
        Ok(node)
    }

    /// Applies what the log holds beyond the table, before anybody is served.
    fn catch_up(&mut self) -> Result<(), String> {
        let mut outputs = Outputs::default();
        loop {
            let progressed = self.host.process(&mut outputs)?;
            for role in outputs.roles.drain(..) {
                self.effects.push(Effect::Role(role.1));
            }
            if !outputs.committed.is_empty() {
                for committed in outputs.committed.drain(..) {
                    self.apply(&committed.entry, committed.conf)?;
                    self.host.maintain(self.clock_ms);
                }
                self.host.data_mut().finished_apply();
            }
            let sealed = self.host.seal();
            let wrote = sealed.is_some();
            self.note_sealed();
            if let Some(batch) = sealed {
                self.write(batch)?;
            }
            if !progressed && !wrote {
                return self.host.fault().map_or(Ok(()), |reason| Err(reason.to_owned()));
            }
        }
    }

    /// What the machine's clocks show: monotonic and wall, in milliseconds.
    pub(super) fn set_clocks(&mut self, (mono_ms, clock_ms): (u64, u64)) {
        (self.mono_ms, self.clock_ms) = (mono_ms, clock_ms);
    }

    // ---- events ----------------------------------------------------------------------------------------------------

    /// The groups' timers, fifty times a second.
    pub(super) fn tick(&mut self) {
        self.host.tick(self.mono_ms);
        self.pump();
    }

    /// What is looked after ten times a second.
    pub(super) fn keep_house(&mut self) {
        self.host.tick(self.mono_ms);
        let stalled = self.maintain();
        self.pump();
        self.keep_cluster();
        if !stalled && self.leads() && !self.turn.is_full() {
            self.look_for_expired();
            self.look_for_old_sessions();
        }
        if !stalled && !self.turn.is_full() {
            let waiting = std::mem::take(&mut self.held_back);
            waiting.into_iter().for_each(|conn| self.release(conn));
        }
        self.pump();
    }

    /// Proposes to delete keys whose time is over.
    fn look_for_expired(&mut self) {
        let Some(job) = self.host.data_mut().expired(self.clock_ms, RECLAIM_KEYS_MAX) else { return };
        match job.run() {
            Ok(outcome) => {
                let found = self.host.data_mut().finish_expired(outcome);
                if !found.is_empty() {
                    let mut args: Vec<&[u8]> = vec![b""];
                    args.extend(found.iter().map(|key| &key.key[..]));
                    self.push_internal(internal::RECLAIM, &args);
                }
            }
            Err(error) => self.fail(&error.to_string()),
        }
    }

    /// Proposes to forget sessions that are over. There are few: all are looked at each time.
    fn look_for_old_sessions(&mut self) {
        let (_, found) = self.host.data().old_sessions(None, usize::MAX, self.clock_ms);
        if !found.is_empty() {
            let mut args: Vec<&[u8]> = vec![b""];
            args.extend(found.iter().map(Vec::as_slice));
            self.push_internal(internal::SESSION_SWEEP, &args);
        }
    }

    /// A timer of this node is due.
    pub(super) fn timer(&mut self, timer: Timer) {
        match timer {
            Timer::Turn => self.commit_turn(),
            Timer::Rest(batches) if batches == self.batches && self.writing.is_none() => {
                match self.writer.idle_statement() {
                    Ok(true) => self.mark("idle statements"),
                    Ok(false) => {}
                    Err(error) => self.fail(&error.to_string()),
                }
            }
            Timer::Rest(_) => {}
            Timer::ReportLater(to) => self.host.data_mut().report_snapshot(to, false),
            Timer::Install(step) => self.install_step(step),
        }
        self.pump();
    }

    /// The disk comes to the batch that waits: it is written and synced. The node learns of it with [`Node::pump`].
    pub(super) fn disk_write(&mut self) {
        let Some(batch) = self.writing.take() else { return };
        if let Err(reason) = self.write(batch) {
            self.fail(&reason);
        }
    }

    fn write(&mut self, batch: SealedBatch) -> Result<(), String> {
        let written = self.writer.write(batch, self.mono_ms).map_err(|error| error.to_string())?;
        let prepare = written.wants_prepare();
        self.host.written(written);
        if prepare {
            // A next segment that can't be made ready is no failure yet.
            while self.writer.prepare_next().unwrap_or(false) {}
        }
        self.batches += 1;
        self.after(10 * MILLISECOND, Timer::Rest(self.batches));
        Ok(())
    }

    /// A message of a peer.
    pub(super) fn message(&mut self, from: NodeId, message: PeerMessage) {
        self.unlinked.remove(&from);
        match message {
            PeerMessage::Raft { group, message } => {
                if let Err(error) = self.host.step(self.mono_ms, group, message) {
                    self.fail(&format!("a message of node {from} was refused: {error}"));
                }
            }
            PeerMessage::Beat => self.host.beat(self.mono_ms, from),
            PeerMessage::StateHash { group, found } => self.host.learn_hash(from, group, found),
            PeerMessage::SnapshotChunk(chunk) => self.receive_chunk(from, &chunk),
            PeerMessage::SnapshotStatus { transfer, status, .. } => self.snapshot_status(from, transfer, status),
        }
        self.pump();
    }

    /// A peer's connection ended.
    pub(super) fn link_lost(&mut self, peer: NodeId) {
        self.unlinked.insert(peer);
        self.host.data_mut().unreachable(peer);
        self.transfers_lost_link(peer);
        self.pump();
    }

    /// A machine asks for a place in the cluster.
    pub(super) fn join_requested(&mut self, machine: u32, request: &JoinRequest) {
        self.join(machine, request);
        self.pump();
    }

    // ---- the pump --------------------------------------------------------------------------------------------------

    /// Does all that is due: sends, writes, applies, answers.
    pub(super) fn pump(&mut self) {
        let mut outputs = std::mem::take(&mut self.outputs);
        loop {
            if let Err(reason) = self.pump_into(&mut outputs) {
                self.fail(&reason);
            }
            if self.topology_changed {
                self.publish_topology();
            }
            self.flush_touched();
            if self.turn.has_gathered() && self.may_propose() {
                self.schedule_turn();
            }
            // Connections that may go on now do, as their tasks would.
            let Some(conn) = self.runnable.pop_front() else { break };
            self.run_input(conn);
        }
        self.outputs = outputs;
        if let Some(reason) = self.host.fault().map(str::to_owned)
            && !std::mem::replace(&mut self.is_halted, true)
        {
            self.effects.push(Effect::Halted(reason));
        }
    }

    fn pump_into(&mut self, outputs: &mut Outputs) -> Result<(), String> {
        self.apply_backlog()?;
        loop {
            self.conf.clone_from(self.host.data().raft().conf_state());
            let progressed = self.host.process(outputs)?;
            if progressed {
                self.backlog.extend(outputs.committed.drain(..));
                self.apply_backlog()?;
                self.carry_out(outputs);
            }
            let sealed = if self.writing.is_some() { None } else { self.host.seal() };
            let wrote = sealed.is_some();
            if wrote {
                self.note_sealed();
                self.writing = sealed;
                self.effects.push(Effect::Write);
            }
            if !progressed && !wrote {
                return Ok(());
            }
        }
    }

    /// Takes down what the log is with everything that was sealed so far. NB: right after sealing, for the next output may stage more.
    fn note_sealed(&mut self) {
        if let Some(log) = self.host.log().group(DATA_GROUP) {
            self.sealed.follow(log);
        }
    }

    /// Applies what is committed; a follower whose flusher is behind waits.
    fn apply_backlog(&mut self) -> Result<(), String> {
        let mut applied = false;
        while !self.backlog.is_empty() {
            if !self.leads() && self.host.write_stall() {
                break;
            }
            let Some(committed) = self.backlog.pop_front() else { break };
            self.topology_changed |= committed.conf.is_some();
            self.apply(&committed.entry, committed.conf)?;
            applied = true;
        }
        if applied {
            self.host.data_mut().finished_apply();
        }
        Ok(())
    }

    /// Upkeep of the host. `true`: writes must wait.
    fn maintain(&mut self) -> bool {
        let durable = self.host.log().group(DATA_GROUP).map_or(0, |log| log.compacted().0);
        let stalled = self.host.maintain(self.clock_ms).stalled;
        if self.host.log().group(DATA_GROUP).map_or(0, |log| log.compacted().0) > durable {
            self.mark("log cuts");
        }
        stalled
    }

    /// The log or the store failed: nothing is written any more, and nobody who waits can be answered.
    fn fail(&mut self, reason: &str) {
        self.host.halt(reason);
        self.lose_everything();
    }

    fn mark(&mut self, name: &'static str) {
        self.effects.push(Effect::Mark(name));
    }

    fn after(&mut self, span: Micros, timer: Timer) {
        self.effects.push(Effect::After { span, timer });
    }

    /// How the node stands, for people.
    pub(super) fn standing(&self) -> String {
        let replica = self.host.data();
        format!(
            "applied {:?}, {} entries wait to be applied, {} under way, gathered: {}, transferring: {}, asleep: {}, \
             {} connections held back, writes stall: {}, a snapshot waits: {}, writing: {}, {:?}, {:?}",
            replica.applied(),
            self.backlog.len(),
            self.turn.waiting.len(),
            self.turn.has_gathered(),
            replica.raft().is_transferring(),
            replica.raft().is_asleep(),
            self.held_back.len(),
            self.host.write_stall(),
            self.host.wants_install(DATA_GROUP),
            self.writing.is_some(),
            replica.raft().status(),
            self.transfers,
        )
    }

    /// Whether this node leads.
    pub(super) fn leads(&self) -> bool {
        self.host.fault().is_none() && self.host.data().raft().is_leader()
    }
}

/// A hash of bytes, for comparisons.
pub(super) fn hash_bytes(hash: u64, bytes: &[u8]) -> u64 {
    let mixed = bytes.chunks(8).fold(hash ^ bytes.len() as u64, |hash, chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        crate::random::mix(hash.rotate_left(17) ^ u64::from_le_bytes(word))
    });
    crate::random::mix(mixed)
}

/// A payload's hash.
pub(super) fn hash_payload(payload: &Bytes) -> u64 {
    hash_bytes(0, payload)
}
