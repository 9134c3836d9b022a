//! One replica of one group: Raft, the group's table, and its membership, tied together.
//!
//! ```text
//!   propose ─▶ Raft ─▶ (host: log, disk, peers) ─▶ committed ─▶ begin_apply ─▶ commands on the table ─▶ finish_entry
//!                                                                                                        │
//!   read ─▶ read_gate: lease, or a round of the quorum ◀───────────── applied index ◀────────────────────┘
//! ```
//!
//! The replica holds no socket, file or clock: time is an argument, replies are the caller's, and what goes to disk or to
//! other nodes leaves through the [`Host`](crate::host::Host) that owns it.
//!
//! # Invariants
//! - applied ≤ committed ≤ last index of the log.
//! - A group's time never goes back, whatever stamps the entries carry.
//! - [`Members`] is a function of the log alone and is stored with the applied index.

mod check;
mod keyspace;
mod membership;
mod once;

use check::StateCheck;
pub use check::{CheckReport, CheckStanding, Finding, HashJob, StateHash};
pub use keyspace::GroupKeyspace;
pub(crate) use membership::{CannotLose, MembershipStep};
pub use once::SessionEffect;

use crate::cluster::{Address, Member, Members, NodeId, Start};
use crate::command::Needs;
use crate::defects::{self, Defect};
use crate::slot::key_ref;
use bytes::Bytes;
use holdfast_engine::GroupId;
use holdfast_engine::table::{
    Admitted, Applied, ExpireJob, ExpireOutcome, Fetched, Fetcher, Head, Len, LenOutcome, OwnedKey, ScanJob,
    ScanOutcome, ScanPage, ScanPosition, Table,
};
use holdfast_raft::{ConfState, Entry, ProposeError, Raft, SnapshotMeta, WriteBatch};
use std::collections::VecDeque;

/// Commands that the server itself writes to the log. Numbers from here up are never given to a client's command.
pub mod internal {
    /// Deletes the keys given, those of them whose deadline has passed by the entry's stamp.
    pub const RECLAIM: u16 = 0xFF01;
    /// Adds a node to the cluster's list, or changes the addresses of one: number (0: the next that is free), folder, client
    /// address, peer address. [`Replica::member_args`](super::Replica::member_args) makes them.
    pub const MEMBER: u16 = 0xFF02;
    /// Has a node removed: its number. The list marks it as leaving; whoever leads then takes it out of the group, and with
    /// that the list forgets it. [`Replica::forget_args`](super::Replica::forget_args) makes the argument.
    pub const FORGET: u16 = 0xFF03;
    /// Takes note of a node's start: number, boot number, random number.
    /// [`Replica::start_args`](super::Replica::start_args) makes them.
    pub const START: u16 = 0xFF04;
    /// Every replica hashes its state as of this entry.
    pub const CHECK: u16 = 0xFF05;
    /// What a majority found: index, hash, the numbers of those that have something else.
    pub const VERDICT: u16 = 0xFF06;
    /// A numbered write of a session: its head, then the arguments of the command without the name. See [`crate::once`].
    pub const SESSION_ONCE: u16 = 0xFF10;
    /// Issues a session's id: the limits of the node that was asked.
    pub const SESSION_NEW: u16 = 0xFF11;
    /// Forgets the records given, those of them whose sessions are over by the entry's stamp: slot (little-endian) and name each.
    pub const SESSION_SWEEP: u16 = 0xFF12;
}

/// The group that a single node's data is in.
pub const DATA_GROUP: GroupId = 1;

/// A key that can be judged without the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Resident {
    /// Its deadline is between the group's time and now: the group's time must move before it is read.
    pub(crate) ending: bool,
    /// Memory may forget it before what is proposed now is applied: see [`Replica::hold`].
    pub(crate) fleeting: bool,
    /// The length of its value in bytes; 0 when it does not exist.
    pub(crate) data_bytes: usize,
}

/// Whether this replica may answer a linearizable read from its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadGate {
    /// At once.
    Open,
    /// After a round of the quorum: ask with [`Replica::read_index`].
    Ask,
    /// Not here: another replica leads, or nobody.
    NotLeader,
}

/// How often reads found a key, and how often not.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Lookups {
    hits: u64,
    misses: u64,
}

/// A replica. See the module's text.
#[derive(Debug)]
pub struct Replica {
    pub(crate) group: GroupId,
    pub(crate) raft: Raft,
    pub(crate) table: Table,
    members: Members,
    lookups: Lookups,
    pub(crate) checkpoints: u64,
    pub(crate) checkpoint_last_ms: u64,
    /// The group's time: the highest stamp of an applied entry, in milliseconds since the epoch.
    time_ms: u64,
    /// The newest stamp given to an entry, applied or not.
    stamp_ms: u64,
    /// The entry that is being applied.
    applying: u64,
    /// Up to here the log is known to be synced; the table's store may not be ahead of it.
    pub(crate) synced_index: u64,
    /// The last entry that was handed to the log's writer and came back.
    pub(crate) written_index: u64,
    /// The last entry that was staged for the log.
    pub(crate) staged_index: u64,
    /// Raft's writes from the one on that puts a snapshot in place, until it is in place.
    pub(crate) blocked: VecDeque<WriteBatch>,
    /// Whether this replica holds what the others hold.
    pub(crate) check: StateCheck,
}

impl Replica {
    /// A replica over a table that holds the state at Raft's applied index.
    pub(crate) fn new(group: GroupId, raft: Raft, table: Table, members: Members, last_index: u64) -> Self {
        let time_ms = table.applied().stamp_ms;
        let mut check = StateCheck::default();
        check.has_nothing(table.applied().index);
        Replica {
            group,
            raft,
            table,
            members,
            lookups: Lookups::default(),
            checkpoints: 0,
            checkpoint_last_ms: 0,
            time_ms,
            stamp_ms: time_ms,
            applying: 0,
            synced_index: last_index,
            written_index: last_index,
            staged_index: last_index,
            blocked: VecDeque::new(),
            check,
        }
    }

    // ---- the group -------------------------------------------------------------------------------------------------

    /// The group's number.
    pub fn group(&self) -> GroupId {
        self.group
    }

    /// The consensus state, to look at.
    pub fn raft(&self) -> &Raft {
        &self.raft
    }

    /// Who belongs to the cluster and the group, as of the applied index.
    pub fn members(&self) -> &Members {
        &self.members
    }

    /// How far the log is applied.
    pub fn applied(&self) -> Applied {
        self.table.applied()
    }

    /// The group's time in milliseconds since the epoch.
    pub fn time_ms(&self) -> u64 {
        self.time_ms
    }

    /// The stamp for an entry made at `clock_ms`.
    pub fn next_stamp_ms(&mut self, clock_ms: u64) -> u64 {
        self.stamp_ms = self.stamp_ms.max(self.time_ms).max(clock_ms);
        self.stamp_ms
    }

    /// Appends an entry; it is neither durable nor committed yet. Its term and index come back.
    ///
    /// # Errors
    /// When this replica doesn't lead, or takes no proposals now.
    pub fn propose(&mut self, payload: Bytes) -> Result<(u64, u64), ProposeError> {
        self.raft.propose(payload)
    }

    /// Whether a linearizable read may be answered from the table now. Read the clock `now` right before, and the data
    /// right after, without a pause between.
    #[inline]
    pub fn read_gate(&mut self, now: u64) -> ReadGate {
        match self.raft.lease_read(now) {
            Some(index) if index <= self.table.applied().index || defects::has(Defect::ReadBehindCommit) => {
                // NB: a group that is read from is not idle, though nobody else hears of it.
                self.raft.touch(now);
                ReadGate::Open
            }
            _ if self.raft.is_leader() => ReadGate::Ask,
            _ => ReadGate::NotLeader,
        }
    }

    /// Asks for a round of the quorum; see [`Raft::read_index`].
    ///
    /// # Errors
    /// When this replica doesn't lead, or too many reads wait.
    pub fn read_index(&mut self, now: u64, context: u64) -> Result<(), holdfast_raft::ReadError> {
        self.raft.read_index(now, context)
    }

    /// A message to a peer could not be delivered.
    pub fn unreachable(&mut self, id: NodeId) {
        self.raft.report_unreachable(id);
    }

    /// The nodes of which this replica, asleep, must be told when they are gone; none while it is awake.
    pub(crate) fn partners_asleep(&self) -> Vec<NodeId> {
        if !self.raft.is_asleep() {
            return Vec::new();
        }
        let me = self.raft.id();
        match self.raft.role_state().leader {
            Some(leader) if leader != me => vec![leader],
            _ => self.raft.conf_state().members().into_iter().filter(|id| *id != me).collect(),
        }
    }

    /// A node is gone, as far as this one can tell.
    pub(crate) fn peer_lost(&mut self, now: u64, id: NodeId) {
        self.raft.peer_lost(now, id);
    }

    /// Hands leadership to another voter. `false`: not now.
    pub fn transfer_leader(&mut self, target: NodeId) -> bool {
        self.raft.transfer_leader(target).is_ok()
    }

    /// Announces a snapshot whose data `to` has.
    pub fn send_snapshot(&mut self, to: NodeId, meta: SnapshotMeta) {
        self.raft.send_snapshot(to, meta);
    }

    /// How sending a snapshot ended; see [`Raft::report_snapshot`].
    pub fn report_snapshot(&mut self, to: NodeId, delivered: bool) {
        self.raft.report_snapshot(to, delivered);
    }

    /// Whether a follower waits for a snapshot, as far as this leader knows.
    pub fn awaits_snapshot(&self, id: NodeId) -> bool {
        self.raft.status().peers.iter().any(|peer| peer.id == id && peer.awaits_snapshot)
    }

    /// Up to where followers' logs are known to equal this leader's, durably.
    pub fn matched(&self) -> Vec<(NodeId, u64)> {
        self.raft.status().peers.iter().map(|peer| (peer.id, peer.matched)).collect()
    }

    // ---- apply -----------------------------------------------------------------------------------------------------

    /// A deliberate defect, if it is switched on: the group's time is moved by this node's clock.
    pub(crate) fn look_at_clock(&mut self, clock_ms: u64) {
        if defects::has(Defect::TimeByOwnClock) {
            self.time_ms = self.time_ms.max(clock_ms);
        }
    }

    /// Begins to apply an entry: the group's time moves to its stamp.
    pub fn begin_apply(&mut self, index: u64, stamp_ms: u64) {
        self.applying = index;
        self.time_ms = self.time_ms.max(stamp_ms);
    }

    /// Records that an entry's effect is in the table. `conf` is the membership from this entry on, if it changed it.
    pub fn finish_entry(&mut self, entry: &Entry, conf: Option<ConfState>) {
        if let Some(conf) = conf {
            self.members.set_conf(conf);
            self.store_members();
        }
        self.table.set_applied(Applied { index: entry.index, term: entry.term, stamp_ms: self.time_ms });
        self.begin_check(entry.index);
    }

    /// Tells Raft how far the table is. Call it after each round of applied entries.
    pub fn finished_apply(&mut self) {
        self.raft.applied(self.table.applied().index);
    }

    /// Applies a command of the server's own, if it is one.
    pub fn apply_internal(&mut self, command: u16, args: &[&[u8]]) -> InternalEffect {
        match command {
            internal::RECLAIM => InternalEffect::Reclaimed(self.reclaim(args.get(1..).unwrap_or_default())),
            internal::MEMBER | internal::FORGET | internal::START => {
                if self.members.apply(command, args.get(1..).unwrap_or_default()) {
                    self.store_members();
                }
                InternalEffect::Members
            }
            internal::CHECK => {
                self.apply_check();
                InternalEffect::Checks
            }
            internal::VERDICT => {
                self.apply_verdict(args.get(1..).unwrap_or_default());
                InternalEffect::Checks
            }
            _ => InternalEffect::Unknown,
        }
    }

    /// The entry of a member, as arguments of [`internal::MEMBER`]; number 0 for the next that is free.
    pub fn member_args(id: NodeId, member: &Member) -> [Vec<u8>; 4] {
        let text = |address: &Address| address.to_string().into_bytes();
        [id.to_le_bytes().to_vec(), member.folder.to_le_bytes().to_vec(), text(&member.client), text(&member.peer)]
    }

    /// The removal of a node, as the argument of [`internal::FORGET`].
    pub fn forget_args(id: NodeId) -> [Vec<u8>; 1] {
        [id.to_le_bytes().to_vec()]
    }

    /// A node's start, as the arguments of [`internal::START`].
    pub fn start_args(id: NodeId, start: Start) -> [Vec<u8>; 3] {
        [id, start.boot, start.run].map(|number| number.to_le_bytes().to_vec())
    }

    /// The other members are lost: this node is the only one from now on. Their numbers are never given again.
    pub(crate) fn become_alone(&mut self, id: NodeId, me: Member, start: Option<Start>) {
        let last_id = self.members.conf.members().into_iter().chain([self.members.last_id, id]).max().unwrap_or(id);
        self.members = Members {
            conf: ConfState::of_voters([id]),
            nodes: [(id, me)].into(),
            last_id,
            leaving: None,
            starts: start.map(|start| (id, start)).into_iter().collect(),
        };
        self.store_members();
    }

    fn store_members(&mut self) {
        self.table.set_attachment(Bytes::from(self.members.encode()));
    }

    /// Takes over what an installed snapshot says beside its rows.
    pub(crate) fn adopt_snapshot(&mut self, members: Members) {
        self.members = members;
        self.check.state_replaced(self.table.applied().index);
        // NB: never an earlier time, unless this replica's was wrong.
        self.time_ms = self.table.applied().stamp_ms;
        self.stamp_ms = self.time_ms;
    }

    /// Who a node is, if the list has it.
    pub fn member(&self, id: NodeId) -> Option<&Member> {
        self.members.nodes.get(&id)
    }

    // ---- reads -----------------------------------------------------------------------------------------------------

    /// What memory knows of a key at `clock_ms`; `None` when what is needed of it must come from the store.
    pub(crate) fn resident(&self, key: &[u8], clock_ms: u64, needs: Needs) -> Option<Resident> {
        let look = self.table.look(key_ref(key)).filter(|look| look.has_data || needs != Needs::Values)?;
        let ending = look.head.is_some_and(|head| self.ends_by(&head, clock_ms));
        let data_bytes = look.head.map_or(0, |head| usize::try_from(head.data_bytes).unwrap_or(usize::MAX));
        Some(Resident { ending, fleeting: look.fleeting, data_bytes })
    }

    /// Keeps in memory what it knows of a key but might forget, until [`Replica::unpin`]. `false`: there is nothing to keep.
    pub(crate) fn hold(&mut self, key: &[u8]) -> bool {
        let key = key_ref(key);
        self.table.look(key).is_some_and(|look| look.fleeting) && self.table.hold(key)
    }

    /// Has the table made ready for lookups of these keys (slot and hash).
    pub(crate) fn warm(&self, keys: &[(u16, u64)]) {
        self.table.warm(keys);
    }

    /// Reads keys from the store on another thread.
    pub(crate) fn fetcher(&self) -> Fetcher {
        self.table.fetcher()
    }

    /// Takes in what a fetcher read. `true`: the key stays in memory until [`Replica::unpin`]. `false`: it was written
    /// meanwhile and must be looked at again.
    pub(crate) fn admit(&mut self, fetched: Fetched) -> bool {
        self.table.admit(fetched) == Admitted::Resident
    }

    /// Lets a key go that was admitted or held.
    pub(crate) fn unpin(&mut self, key: &[u8]) {
        self.table.unpin(key_ref(key));
    }

    /// Whether a key's deadline is between the group's time and `clock_ms`: then the group's time must move before the key is read. Asks
    /// the store where memory doesn't know.
    ///
    /// # Errors
    /// When the store fails.
    pub fn is_ending(&mut self, key: &[u8], clock_ms: u64) -> holdfast_engine::Result<bool> {
        let head = self.table.head(key_ref(key))?;
        let ending = head.is_some_and(|head| self.ends_by(&head, clock_ms));
        if ending && defects::has(Defect::TimeMovedByReads) {
            self.time_ms = clock_ms;
            return Ok(false);
        }
        if ending && defects::has(Defect::ReadAheadOfTime) {
            self.stamp_ms = self.stamp_ms.max(clock_ms);
            return Ok(false);
        }
        Ok(ending)
    }

    /// The time by which a command finds keys there or not.
    fn time_of_keys_ms(&self, reads: bool) -> u64 {
        if reads && defects::has(Defect::ReadAheadOfTime) { self.time_ms.max(self.stamp_ms) } else { self.time_ms }
    }

    fn ends_by(&self, head: &Head, clock_ms: u64) -> bool {
        head.is_expired(clock_ms) && !head.is_expired(self.time_ms) && !defects::has(Defect::EndingOverlooked)
    }

    /// Begins to look for keys that are expired by the group's time or about to be.
    pub fn expired(&mut self, now_ms: u64, limit: usize) -> Option<ExpireJob> {
        self.table.expired(now_ms, limit)
    }

    /// The keys that a job found.
    pub fn finish_expired(&mut self, outcome: ExpireOutcome) -> Vec<OwnedKey> {
        self.table.finish_expired(outcome)
    }

    /// Begins a page of keys.
    pub(crate) fn scan(&self, from: ScanPosition, limit: usize) -> ScanJob {
        self.table.scan(from, limit)
    }

    /// Completes a page of keys; `None` when it must be begun again.
    pub(crate) fn finish_scan(&self, outcome: ScanOutcome) -> Option<ScanPage> {
        self.table.finish_scan(outcome)
    }

    /// The number of keys, or how to find out.
    pub(crate) fn len(&mut self) -> holdfast_engine::Result<Len> {
        self.table.len()
    }

    /// The number of keys that a job found.
    pub(crate) fn finish_len(&mut self, outcome: LenOutcome) -> u64 {
        self.table.finish_len(outcome)
    }

    /// Hits and misses since the last call.
    pub(crate) fn take_lookups(&mut self) -> (u64, u64) {
        let Lookups { hits, misses } = std::mem::take(&mut self.lookups);
        (hits, misses)
    }

    /// Deletes those of the keys that are expired by the group's time, and says how many.
    pub(crate) fn reclaim(&mut self, keys: &[&[u8]]) -> u64 {
        let mut count = 0;
        for key in keys {
            let key = key_ref(key);
            match self.table.head(key) {
                Ok(Some(head)) if head.is_expired(self.time_ms) || defects::has(Defect::ReclaimUnchecked) => {
                    self.table.delete(key);
                    count += 1;
                }
                Ok(_) => {}
                // Left as it is: nobody can see an expired key, and whoever reads it is told of the damage.
                Err(error) => tracing::error!(%error, slot = key.slot, "an expired key could not be read and is kept"),
            }
        }
        count
    }
}

/// What a command of the server's own did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InternalEffect {
    /// Expired keys were deleted, so many.
    Reclaimed(u64),
    /// The list of members may have changed.
    Members,
    /// A check of the state begins, or came to something.
    Checks,
    /// It is no command of the server's own.
    Unknown,
}
