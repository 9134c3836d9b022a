//! The deterministic core of a node: its replicas over one shared log, driven by events.
//!
//! ```text
//!   tick · step(message) · propose · read_index                     (calls, with the clock as an argument)
//!        │
//!        ▼
//!      Host ── process() ─▶ Outputs: messages · committed entries · reads · roles · snapshots wanted · installs
//!        │                     the driver sends, applies, answers, and does what may block
//!        ├─── seal() ────▶ one batch for all groups ─▶ the driver has it written and synced ─▶ written()
//!        └─── maintain() ▶ flushes, compaction, recycling
//! ```
//!
//! There is no thread, socket or clock in here, and files only through [`engine::vfs`](holdfast_engine::vfs): the server
//! drives it with tokio and a writer thread, the simulator with a seed and a simulated disk. Both run the same code between
//! "a message came in" and "these bytes go out".
//!
//! # Flow
//! Call [`Host::process`] until it says that there is nothing more; apply what it hands out, in order, with
//! [`Replica::begin_apply`] and [`Replica::finish_entry`]; then take a batch with [`Host::seal`] unless one is being written.
//! While that batch is on its way to the disk, everything that happens is staged for the next: the slower the disk, the larger the
//! batches.
//!
//! # Invariants
//! 1. Raft learns that a write is durable only from [`Host::written`], after the batch that holds it was synced.
//! 2. After a failed write or sync nothing is promised, voted or acknowledged any more: the host is halted.
//! 3. A snapshot is durable in the store before the log is cut for it.
//! 4. The log is cut only below what the store holds durably.
//!
//! Next on the data path: `engine/src/wal/writer.rs`.

mod alive;
mod differs;
mod open;
mod snapshot;
mod starts;

pub use open::{ClusterIdentity, HostOptions, OpenError, Opened};
pub use snapshot::{ChunkPlace, Incoming, SnapshotChunks, Unacknowledged};

use crate::cluster::{Member, Members, NodeId, Pace};
use crate::defects::{self, Defect};
use crate::replica::{HashJob, MembershipStep, Replica, StateHash};
use alive::Alive;
use differs::DifferenceNote;
use holdfast_engine::folder::DataFolder;
use holdfast_engine::ledger::{Category, Ledger};
use holdfast_engine::log::{HardState, LogEntry, LogStore};
use holdfast_engine::snapshot::SnapshotHeader;
use holdfast_engine::table::{InstallJob, Installed, Tables, View};
use holdfast_engine::vfs::SharedVfs;
use holdfast_engine::wal::{SealedBatch, Written};
use holdfast_engine::{Error, GroupId};
use holdfast_raft::{
    ConfState, Entry, LogError, LogReader, Message, MessageBody, ReadState, RoleState, SnapshotMeta, SnapshotNeed,
    StepError, WriteBatch,
};
use open::{entry_from_disk, kind_to_disk};
use starts::StartBook;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

/// Payload bytes that one housekeeping round may copy forward to let an old segment go.
const REWRITE_BYTES_MAX: usize = 1 << 20;
/// So many times the log's limit the log may take for followers that are being served: with a snapshot, or with entries after
/// one. Cut off at the limit itself, a follower whose snapshot takes as long as the log takes to grow by it would need one snapshot
/// after the other, each of them dearer than the log that it saves.
const SERVED_LOG_FACTOR: u64 = 4;
/// Bits of an incarnation below the entry's index: see [`crate::replica`]'s keyspace.
const INCARNATION_OP_BITS: u32 = 20;

/// An entry to be applied.
#[derive(Debug)]
pub struct Committed {
    /// Its group.
    pub group: GroupId,
    /// The entry.
    pub entry: Entry,
    /// The membership from this entry on, if it changed it.
    pub conf: Option<ConfState>,
}

/// What the host wants done. Filled by [`Host::process`]; the driver empties it.
#[derive(Debug, Default)]
pub struct Outputs {
    /// To be sent, now.
    pub messages: Vec<(GroupId, Message)>,
    /// To be applied, in order.
    pub committed: Vec<Committed>,
    /// Reads that may be served once their index is applied.
    pub reads: Vec<(GroupId, ReadState)>,
    /// Reads that won't be served, by their contexts.
    pub reads_dropped: Vec<(GroupId, u64)>,
    /// Snapshots to be sent.
    pub snapshots: Vec<(GroupId, SnapshotNeed)>,
    /// Groups whose received snapshot is to be put in place: [`Host::begin_install`].
    pub installs: Vec<GroupId>,
    /// New terms, roles and leaders.
    pub roles: Vec<(GroupId, RoleState)>,
    /// Nodes that are to be shown that this one lives: [`Host::beat`] over there.
    pub beats: Vec<NodeId>,
    /// Nodes whose disks lost what they had acknowledged, this one perhaps among them.
    pub promises_lost: Vec<(GroupId, NodeId)>,
    /// Hashes of the state, to be sent to the leader.
    pub state_hashes: Vec<(GroupId, NodeId, StateHash)>,
}

/// A write of Raft's that is part of a batch.
#[derive(Debug, Clone, Copy)]
struct StagedWrite {
    place: usize,
    sequence: u64,
    last_index: u64,
}

/// A snapshot that is on this node's disk, whole and sound.
#[derive(Debug)]
struct Received {
    group: GroupId,
    path: PathBuf,
    header: SnapshotHeader,
}

/// What housekeeping found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Upkeep {
    /// Writes must wait for the flusher.
    pub stalled: bool,
    /// Under a weak durability, the flusher waits for the log to be synced.
    pub wants_sync: bool,
}

/// How much of the log is read at a time to look for changes of the list of members.
const MEMBERS_READ_BYTES: usize = 1 << 20;

/// The node's core. See the module's text.
#[derive(Debug)]
pub struct Host {
    vfs: SharedVfs,
    dir: PathBuf,
    log: LogStore,
    /// In the order of their groups.
    replicas: Vec<Replica>,
    tables: Tables,
    ledger: Arc<Ledger>,
    folder: DataFolder,
    identity: Option<ClusterIdentity>,
    /// Above this much log, recent writes are moved to the store so that the log can be cut.
    log_bytes_max: u64,
    /// Bytes given to the log's writer, and how many there were when a flush was last asked for on the log's account.
    sealed_bytes: u64,
    flush_asked_bytes: u64,
    /// Raft's writes in the batch that is being staged, and in those that are being written.
    staged: Vec<StagedWrite>,
    in_flight: VecDeque<(u64, Vec<StagedWrite>)>,
    received: Vec<Received>,
    /// Those of them that are being put in place.
    installing: Vec<Received>,
    /// Indexes of snapshots that are being sent: the log is kept from there on.
    sending: Vec<(GroupId, u64)>,
    /// Stands in for the heartbeats of groups that sleep.
    alive: Alive,
    /// Why nothing is written any more.
    fault: Option<String>,
    /// The node was removed from its cluster.
    retired: bool,
    /// The newest starts of other nodes, and this node's.
    starts: StartBook,
    /// Which replicas hold another state than the majority's.
    differences: DifferenceNote,
    /// What leases rest on.
    pace: Pace,
}

/// A group's log as the Raft core reads it.
#[derive(Debug)]
struct LogView<'a>(&'a LogStore, GroupId);

impl LogReader for LogView<'_> {
    fn first_index(&self) -> u64 {
        self.0.group(self.1).map_or(1, |log| log.first_index())
    }

    fn last_index(&self) -> u64 {
        self.0.group(self.1).map_or(0, |log| log.last_index())
    }

    fn term(&self, index: u64) -> Result<u64, LogError> {
        self.0.group(self.1).and_then(|log| log.term(index)).ok_or(LogError::Compacted)
    }

    fn entries(&self, low: u64, high: u64, bytes_max: usize) -> Result<Vec<Entry>, LogError> {
        let log = self.0.group(self.1).ok_or(LogError::Compacted)?;
        if low < log.first_index() {
            return Err(LogError::Compacted);
        }
        let entries = log.entries(low, high, bytes_max).map_err(|error| LogError::Damaged(error.to_string()))?;
        entries.into_iter().map(entry_from_disk).collect()
    }
}

impl Host {
    // ---- looking around --------------------------------------------------------------------------------------------

    /// The replica of the group that holds the data.
    #[inline]
    pub fn data(&self) -> &Replica {
        &self.replicas[0]
    }

    /// As [`Host::data`], to change.
    #[inline]
    pub fn data_mut(&mut self) -> &mut Replica {
        &mut self.replicas[0]
    }

    /// The replica of a group.
    pub fn replica(&self, group: GroupId) -> Option<&Replica> {
        self.place(group).map(|place| &self.replicas[place])
    }

    /// As [`Host::replica`], to change.
    pub fn replica_mut(&mut self, group: GroupId) -> Option<&mut Replica> {
        self.place(group).map(|place| &mut self.replicas[place])
    }

    fn place(&self, group: GroupId) -> Option<usize> {
        self.replicas.binary_search_by_key(&group, Replica::group).ok()
    }

    /// The node's place in its cluster, if it has one.
    pub fn identity(&self) -> Option<ClusterIdentity> {
        self.identity
    }

    /// The data folder.
    pub fn folder(&self) -> &DataFolder {
        &self.folder
    }

    /// The memory accounts.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// What the node's tables share.
    pub(crate) fn tables(&self) -> &Tables {
        &self.tables
    }

    /// The list of members as of a committed entry: the table's, and what the log says after it.
    ///
    /// # Errors
    /// When the log can't be read.
    pub(crate) fn members_at(&self, group: GroupId, index: u64) -> Result<Members, LogError> {
        let Some(replica) = self.replica(group) else { return Ok(Members::default()) };
        let (mut members, mut next) = (replica.members().clone(), replica.applied().index + 1);
        while next <= index {
            let entries = LogView(&self.log, group).entries(next, index + 1, MEMBERS_READ_BYTES)?;
            let Some(last) = entries.last() else { break };
            next = last.index + 1;
            entries.iter().for_each(|entry| members.follow(entry));
        }
        Ok(members)
    }

    /// The shared log.
    pub fn log(&self) -> &LogStore {
        &self.log
    }

    /// Why writes are refused, if they are.
    pub fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }

    /// Takes no more writes, and takes no more part in any group. The first reason stays.
    pub fn halt(&mut self, reason: &str) {
        if self.fault.is_none() {
            tracing::error!(reason, "this node takes no more writes; mend the cause and restart it");
            self.fault = Some(format!("Holdfast takes no more writes, restart it once the cause is mended: {reason}"));
        }
    }

    /// Stands for no election and hears no leader any more: the node was removed from its cluster, or its folder is not the one that
    /// made its promises.
    pub fn retire(&mut self) {
        self.retired = true;
    }

    // ---- inputs ----------------------------------------------------------------------------------------------------

    /// Lets the groups' timers run. `now` is a clock in milliseconds that never jumps.
    pub fn tick(&mut self, now: u64) {
        if self.fault.is_some() {
            return;
        }
        for replica in &mut self.replicas {
            // NB: one that still leads notices by its timers that nobody follows it any more.
            if self.retired && !replica.raft.is_leader() {
                continue;
            }
            replica.raft.tick(now);
            replica.tick_checks(now);
            // NB: what is under way already refuses these; they are looked at again with the next tick.
            match replica.membership_step() {
                Some(MembershipStep::Change(change)) => {
                    let _ = replica.raft.propose_conf_change(&change);
                }
                Some(MembershipStep::HandOver(target)) => {
                    let _ = replica.raft.transfer_leader(target);
                }
                None => {}
            }
        }
        if !self.retired {
            self.alive.tick(now, &mut self.replicas);
        }
        self.note_differences();
    }

    /// Keeps over a restart which replicas differ.
    fn note_differences(&mut self) {
        for replica in &self.replicas {
            if let Err(error) = self.differences.keep(replica.group, replica.differs()) {
                let reason = format!("whether group {} differs can't be noted: {error}", replica.group);
                return self.halt(&reason);
            }
        }
    }

    /// Another node shows that it lives.
    pub fn beat(&mut self, now: u64, from: NodeId) {
        self.alive.heard(now, from);
    }

    /// A message of a peer arrived. Read the clock for `now` after it came.
    ///
    /// # Errors
    /// When no correct peer would send it; it changed nothing then.
    pub fn step(&mut self, now: u64, group: GroupId, message: Message) -> Result<(), StepError> {
        if self.fault.is_some() || self.retired {
            return Ok(());
        }
        let Some(place) = self.place(group) else { return Ok(()) };
        if let MessageBody::Snapshot { meta } = &message.body {
            let at = (group, meta.index, meta.term);
            let any = defects::has(Defect::SnapshotOfAnotherIndex) && self.received.iter().any(|r| r.group == group);
            let is_at = |r: &Received| (r.group, r.header.applied.index, r.header.applied.term) == at;
            let here = any || self.received.iter().any(is_at);
            if !here {
                // Its data got lost on the way; the sender finds out and sends another.
                return Ok(());
            }
        }
        self.alive.heard(now, message.from);
        let stepped = self.replicas[place].raft.step(now, message);
        if let Err(error @ StepError::Diverged { .. }) = &stepped {
            self.halt(&format!("group {group} differs from its leader: {error}"));
        }
        stepped
    }

    /// Stands for election now in a group, without waiting for a timeout: for a replica that is alone.
    pub fn campaign(&mut self, group: GroupId) {
        if let Some(replica) = self.replica_mut(group) {
            replica.raft.campaign();
        }
    }

    // ---- outputs ---------------------------------------------------------------------------------------------------

    /// Gathers what is to be done. `false`: nothing new.
    ///
    /// # Errors
    /// When a group's log is damaged; the host is halted then.
    pub fn process(&mut self, outputs: &mut Outputs) -> Result<bool, String> {
        if self.fault.is_some() {
            return Ok(false);
        }
        let mut progressed = self.alive.is_due();
        outputs.beats.extend(self.alive.take_due());
        for place in 0..self.replicas.len() {
            let replica = &mut self.replicas[place];
            for (to, hash) in replica.check.outbox.drain(..) {
                outputs.state_hashes.push((replica.group, to, hash));
                progressed = true;
            }
            if !self.replicas[place].raft.has_ready() {
                continue;
            }
            progressed = true;
            if let Err(error) = self.process_group(place, outputs) {
                let reason = format!("group {}: {error}", self.replicas[place].group);
                self.halt(&reason);
                return Err(reason);
            }
        }
        Ok(progressed)
    }

    fn process_group(&mut self, place: usize, outputs: &mut Outputs) -> Result<(), LogError> {
        let replica = &mut self.replicas[place];
        let group = replica.group;
        let ready = replica.raft.ready(&LogView(&self.log, group))?;
        outputs.messages.extend(ready.messages.into_iter().map(|message| (group, message)));
        let mut confs = ready.conf_states.into_iter().peekable();
        for entry in ready.committed {
            let conf = confs.next_if(|(index, _)| *index == entry.index).map(|(_, conf)| conf);
            outputs.committed.push(Committed { group, entry, conf });
        }
        outputs.reads.extend(ready.reads.into_iter().map(|read| (group, read)));
        outputs.reads_dropped.extend(ready.reads_dropped.into_iter().map(|context| (group, context)));
        outputs.snapshots.extend(ready.snapshots.into_iter().map(|need| (group, need)));
        outputs.roles.extend(ready.role.map(|role| (group, role)));
        outputs.promises_lost.extend(ready.promises_lost.into_iter().map(|node| (group, node)));
        if let Some(write) = ready.write {
            if write.snapshot.is_some() {
                outputs.installs.push(group);
            }
            let replica = &mut self.replicas[place];
            if write.snapshot.is_some() || !replica.blocked.is_empty() {
                replica.blocked.push_back(write);
            } else {
                self.stage(place, write);
            }
        }
        Ok(())
    }

    /// Puts a write of Raft's into the batch to come.
    fn stage(&mut self, place: usize, write: WriteBatch) {
        let group = self.replicas[place].group;
        if let Some(last) = write.entries.last() {
            self.replicas[place].staged_index = last.index;
        }
        if !write.entries.is_empty() {
            let entries: Vec<LogEntry> = write.entries.into_iter().map(entry_to_disk).collect();
            self.log.append(group, &entries);
        }
        if let Some(state) = write.hard_state {
            self.log.set_hard_state(group, HardState { term: state.term, vote: state.vote, commit: state.commit });
        }
        if write.must_sync {
            self.log.require_sync();
        }
        let last_index = self.replicas[place].staged_index;
        self.staged.push(StagedWrite { place, sequence: write.sequence, last_index });
    }

    /// Makes one batch of everything staged, for all groups, to be written and synced; `None` if there is nothing. Batches
    /// are written in the order in which they were sealed.
    pub fn seal(&mut self) -> Option<SealedBatch> {
        if self.fault.is_some() {
            return None;
        }
        let Some(batch) = self.log.seal() else {
            // NB: a write that changes nothing in the log has nothing to wait for but the writes before it.
            if self.in_flight.is_empty() {
                let writes = std::mem::take(&mut self.staged);
                self.report(&writes);
            }
            return None;
        };
        self.sealed_bytes += batch.bytes();
        self.in_flight.push_back((batch.sequence(), std::mem::take(&mut self.staged)));
        Some(batch)
    }

    /// Learns what the log's writer did: what it wrote is durable (as durable as the setting demands).
    pub fn written(&mut self, written: Written) {
        let (sequence, synced) = (written.sequence(), written.synced());
        self.log.written(written);
        while self.in_flight.front().is_some_and(|(batch, _)| *batch <= sequence) {
            if let Some((_, writes)) = self.in_flight.pop_front() {
                self.report(&writes);
            }
        }
        if synced {
            self.all_synced();
        }
    }

    /// All that was written is synced: what is applied of it may go to the store.
    pub fn all_synced(&mut self) {
        for replica in &mut self.replicas {
            replica.synced_index = replica.written_index;
        }
    }

    fn report(&mut self, writes: &[StagedWrite]) {
        for write in writes {
            let replica = &mut self.replicas[write.place];
            replica.raft.persisted(write.sequence);
            replica.written_index = write.last_index;
        }
    }

    /// Whether a batch is on its way to the disk.
    pub fn is_writing(&self) -> bool {
        !self.in_flight.is_empty()
    }

    // ---- snapshots -------------------------------------------------------------------------------------------------

    /// Opens a view of a group's applied state, to be sent as a snapshot. The log is kept from there on until
    /// [`Host::finish_sending`].
    ///
    /// # Errors
    /// When the store can't give a view.
    pub fn begin_sending(&mut self, group: GroupId) -> Result<Option<(View, SnapshotMeta)>, Error> {
        let Some(place) = self.place(group) else { return Ok(None) };
        let replica = &mut self.replicas[place];
        let view = replica.table.view()?;
        let applied = view.applied();
        let meta =
            SnapshotMeta { index: applied.index, term: applied.term, conf_state: replica.members().conf.clone() };
        self.sending.push((group, meta.index));
        Ok(Some((view, meta)))
    }

    /// A snapshot was sent, or given up. `index` is its last entry's.
    pub fn finish_sending(&mut self, group: GroupId, index: u64) {
        if let Some(at) = self.sending.iter().position(|sent| *sent == (group, index)) {
            self.sending.swap_remove(at);
        }
    }

    /// A snapshot arrived whole and was checked. It takes the place of one that arrived before, whose file's path comes back.
    ///
    /// # Errors
    /// Its path, if it is not kept: the one before is newer, or was announced already and waits to be put in place.
    pub fn received(
        &mut self,
        group: GroupId,
        path: PathBuf,
        header: SnapshotHeader,
    ) -> Result<Option<PathBuf>, PathBuf> {
        let postponed = self.replica(group).and_then(|replica| replica.raft.postponed_snapshot());
        let old = self.received.iter().position(|received| received.group == group);
        if let Some(old) = old.map(|at| &self.received[at])
            && (old.header.applied > header.applied || postponed == Some(old.header.applied.index))
        {
            // What was late must not take the place of what is announced next, or was announced.
            return Err(path);
        }
        let old = old.map(|at| self.received.swap_remove(at).path);
        self.received.push(Received { group, path, header });
        Ok(old)
    }

    /// Forgets snapshots that arrived and were never announced, once the log has led further. Their files' paths come back.
    pub fn outdated(&mut self) -> Vec<PathBuf> {
        let replicas = &self.replicas;
        let is_outdated = |received: &mut Received| {
            let replica = replicas.iter().find(|replica| replica.group == received.group);
            replica.is_none_or(|replica| {
                replica.blocked.is_empty() && received.header.applied.index < replica.applied().index
            })
        };
        self.received.extract_if(.., is_outdated).map(|received| received.path).collect()
    }

    /// Begins to put the group's received snapshot in place: run the job over the rows of the file anywhere, then call
    /// [`Host::finish_install`].
    ///
    /// # Errors
    /// When there is none that fits; the host is halted then.
    pub fn begin_install(&mut self, group: GroupId) -> Result<(InstallJob, PathBuf), String> {
        let begun = self.try_begin_install(group);
        if let Err(reason) = &begun {
            self.halt(reason);
        }
        begun
    }

    fn try_begin_install(&mut self, group: GroupId) -> Result<(InstallJob, PathBuf), String> {
        let place = self.place(group).ok_or_else(|| format!("there is no group {group}"))?;
        let replica = &mut self.replicas[place];
        let install = replica.blocked.front().and_then(|write| write.snapshot.as_ref());
        let meta = &install.ok_or_else(|| format!("group {group} waits for no snapshot"))?.meta;
        let at = self
            .received
            .iter()
            .position(|received| {
                let same = received.header.applied.index == meta.index;
                received.group == group && (same || defects::has(Defect::SnapshotOfAnotherIndex))
            })
            .ok_or_else(|| format!("the snapshot of group {group} at {} is gone", meta.index))?;
        let received = &self.received[at];
        let members = Members::decode(&received.header.conf_state).map_err(|error| error.to_string())?;
        if members.conf != meta.conf_state {
            return Err(format!("a snapshot of group {group} names another membership than its leader"));
        }
        // NB: above every incarnation that an entry up to the snapshot's began, below any that a later one will.
        // The state that is replaced may be of the same index.
        let incarnation = (meta.index << INCARNATION_OP_BITS).max(replica.table.incarnation() + 1);
        let job = replica.table.install(&received.header, incarnation).map_err(|error| error.to_string())?;
        let path = received.path.clone();
        if defects::has(Defect::LogCutBeforeSnapshot) {
            self.log.reset(group, meta.index, meta.term);
        }
        // NB: from here on the next one that arrives leaves it alone.
        self.installing.push(self.received.swap_remove(at));
        Ok((job, path))
    }

    /// The rows are in the store, durably: the log starts anew after the snapshot, and what waited is staged. The file's path
    /// comes back, to be removed.
    ///
    /// # Errors
    /// When the job failed; the host is halted then.
    pub fn finish_install(
        &mut self,
        group: GroupId,
        done: Result<Installed, Error>,
    ) -> Result<Option<PathBuf>, String> {
        let finished = self.try_finish_install(group, done);
        if let Err(reason) = &finished {
            self.halt(reason);
        }
        finished
    }

    fn try_finish_install(
        &mut self,
        group: GroupId,
        done: Result<Installed, Error>,
    ) -> Result<Option<PathBuf>, String> {
        let installed = done.map_err(|error| format!("a snapshot of group {group} can't be put in place: {error}"))?;
        let place = self.place(group).ok_or_else(|| format!("there is no group {group}"))?;
        let replica = &mut self.replicas[place];
        replica.table.finish_install(installed);
        let (applied, durable) = (replica.table.applied(), replica.table.durable());
        if durable.index < applied.index {
            return Err(format!("the snapshot of group {group} at {} is not durable in the store", applied.index));
        }
        let members = Members::decode(replica.table.attachment()).map_err(|error| error.to_string())?;
        replica.adopt_snapshot(members);
        let mut writes = std::mem::take(&mut replica.blocked);
        let first = writes.pop_front();
        let keep_log = first.as_ref().and_then(|write| write.snapshot.as_ref()).is_some_and(|s| s.keep_log_after);
        if keep_log {
            self.log.compact(group, applied.index);
        } else {
            self.log.reset(group, applied.index, applied.term);
            self.replicas[place].staged_index = applied.index;
        }
        if let Some(write) = first {
            self.stage(place, write);
        }
        // Another snapshot may have come meanwhile; what follows it waits for it in turn.
        while let Some(write) = writes.pop_front() {
            if write.snapshot.is_some() {
                writes.push_front(write);
                self.replicas[place].blocked = writes;
                break;
            }
            self.stage(place, write);
        }
        let at = self.installing.iter().position(|installing| installing.group == group);
        Ok(at.map(|at| self.installing.swap_remove(at).path))
    }

    /// Whether another snapshot of the group waits to be put in place after [`Host::finish_install`].
    pub fn wants_install(&self, group: GroupId) -> bool {
        self.replica(group).is_some_and(|replica| replica.blocked.front().is_some_and(|write| write.snapshot.is_some()))
    }

    /// The folder for snapshots on their way in.
    pub fn incoming_dir(&self) -> PathBuf {
        self.dir.join("incoming")
    }

    /// The file system.
    pub fn vfs(&self) -> &SharedVfs {
        &self.vfs
    }

    // ---- checks of the state ---------------------------------------------------------------------------------------

    /// A state to be hashed, if a check began: run it anywhere, then call [`Host::finish_hash`]. Newer ones take the place of older ones.
    pub fn take_hash_job(&mut self) -> Option<HashJob> {
        self.replicas.iter_mut().find_map(Replica::take_hash_job)
    }

    /// A state was hashed.
    pub fn finish_hash(&mut self, group: GroupId, index: u64, done: Result<u128, Error>) {
        if let Some(replica) = self.replica_mut(group) {
            replica.finish_hash(index, done);
        }
    }

    /// A replica says what it found.
    pub fn learn_hash(&mut self, from: NodeId, group: GroupId, found: StateHash) {
        if let Some(replica) = self.replica_mut(group) {
            replica.learn_hash(from, found);
        }
    }

    // ---- recovery --------------------------------------------------------------------------------------------------

    /// Makes this node the only one that its group and its list of members know, durably: the others are lost. Everything that the log
    /// holds must be applied.
    ///
    /// # Errors
    /// When the store fails.
    pub fn become_alone(&mut self, me: Member) -> Result<(), Error> {
        let id = self.data().raft().id();
        let start = self.starts().present();
        let replica = self.data_mut();
        replica.become_alone(id, me, start);
        let synced_index = replica.synced_index;
        replica.table.flush_unchanged();
        replica.table.maintain(0, synced_index)?;
        self.tables.wait_idle()?;
        self.data_mut().table.maintain(0, synced_index)?;
        let left = self.data().table.stats().frozen_bytes;
        if left > 0 {
            let detail = format!("{left} bytes did not reach the store");
            return Err(Error::Store { path: self.dir.clone(), detail });
        }
        Ok(())
    }

    /// The folder, to change what it says of itself.
    pub fn folder_mut(&mut self) -> &mut DataFolder {
        &mut self.folder
    }

    // ---- upkeep ----------------------------------------------------------------------------------------------------

    /// Freezes, flushes, compacts and recycles as far as is due. `clock_ms` is the wall clock.
    ///
    /// After a failure nothing is moved any more: a table may hold half of an entry.
    pub fn maintain(&mut self, clock_ms: u64) -> Upkeep {
        if self.fault.is_some() {
            return Upkeep::default();
        }
        let flush = self.log_wants_flush();
        if flush {
            self.flush_asked_bytes = self.sealed_bytes;
        }
        let mut upkeep = Upkeep::default();
        for place in 0..self.replicas.len() {
            let replica = &mut self.replicas[place];
            if !replica.blocked.is_empty() {
                // NB: the table is not to be touched while a snapshot is put in place.
                continue;
            }
            if flush {
                replica.table.request_flush();
            }
            replica.look_at_clock(clock_ms);
            match replica.table.maintain(clock_ms, replica.synced_index) {
                Ok(done) => {
                    if done.retired > 0 {
                        replica.checkpoints += done.retired as u64;
                        replica.checkpoint_last_ms = clock_ms;
                    }
                    let keep = self.kept_from(place, done.durable.index);
                    if keep > 0 {
                        self.log.compact(self.replicas[place].group, keep);
                    }
                }
                Err(error) => {
                    let reason = error.to_string();
                    self.halt(&reason);
                    return Upkeep::default();
                }
            }
            let table = &self.replicas[place].table;
            upkeep.wants_sync |= table.stats().frozen > 0;
            upkeep.stalled |= table.write_stall();
        }
        if let Err(error) = self.log.maintain(REWRITE_BYTES_MAX) {
            let reason = error.to_string();
            self.halt(&reason);
        }
        upkeep
    }

    /// Up to where a group's log may go, so that followers can still catch up by entries: while the log is short all of them,
    /// beyond that those that are being served, and at last none.
    fn kept_from(&self, place: usize, durable: u64) -> u64 {
        let replica = &self.replicas[place];
        let log_bytes = self.log.log_bytes();
        let ahead = defects::has(Defect::LogCutAheadOfStore);
        let mut keep = if ahead { replica.applied().index } else { durable };
        if log_bytes < self.log_bytes_max / 2 {
            keep = keep.min(replica.raft.slowest_matched());
        }
        if log_bytes < self.log_bytes_max.saturating_mul(SERVED_LOG_FACTOR) {
            let sending = self.sending.iter().filter(|sent| sent.0 == replica.group).map(|sent| sent.1);
            keep = sending.chain([replica.raft.slowest_streamed(), keep]).min().unwrap_or(keep);
        }
        keep
    }

    /// Whether the log has grown by so much that the memtables above it should go to the store, small as they may be: keys
    /// that are overwritten again and again take little memory and much log. Half the limit at a time, since the log
    /// goes on growing while the store takes what it holds.
    pub fn log_wants_flush(&self) -> bool {
        let step = self.log_bytes_max / 2;
        self.sealed_bytes - self.flush_asked_bytes >= step && self.log.log_bytes() >= step
    }

    /// Whether writes must wait: for the flusher, for followers that are behind, or for leadership to be handed over.
    pub fn write_stall(&self) -> bool {
        self.fault.is_none() && self.replicas.iter().any(|replica| replica.table.write_stall())
    }

    /// Posts the memory that the log holds.
    pub fn post_memory(&self, client_bytes: u64) {
        self.ledger.set(Category::Connections, client_bytes);
        self.ledger.set(Category::EntryCache, self.log.memory_bytes() as u64);
    }

    /// Ends flushes under way and closes the store, for an orderly stop. The log's writer is the driver's to close.
    ///
    /// # Errors
    /// When the store can't be closed.
    pub fn close(&mut self) -> holdfast_engine::Result<()> {
        self.tables.close()
    }
}

fn entry_to_disk(entry: Entry) -> LogEntry {
    LogEntry { term: entry.term, index: entry.index, kind: kind_to_disk(entry.kind), payload: entry.payload }
}
