//! What the core wants done: plain data.
//!
//! # Flow
//! ```text
//!   inputs ─▶ Raft ─▶ ready() ─▶ messages ─▶ send now
//!                        │
//!                        ├─────▶ write ────▶ append, sync ─▶ persisted(sequence) ─▶ ready() again
//!                        │
//!                        └─────▶ committed ▶ apply, in order ─▶ applied(index)
//! ```
//! Taking a [`Ready`] hands its content over: nothing is given twice. Messages that promise something on disk stay
//! inside the core until the host has reported the write that makes them true, so whatever is in
//! [`Ready::messages`] may leave at once, and a leader's appends leave before its own disk write ends.
//!
//! Writes are made in the order of their sequence numbers; several may be under way, and may share one sync.

use crate::{
    entry::{Entry, HardState, ReplicaId, SnapshotMeta},
    membership::ConfState,
    message::Message,
};

/// What is to be stored, as one unit: after a crash either all or nothing of a write is there, and no later write
/// without all earlier ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteBatch {
    /// Counts the writes of this run of the replica, from 1. Report it with [`Raft::persisted`](crate::Raft::persisted).
    pub sequence: u64,
    /// The hard state, if it is part of this write.
    pub hard_state: Option<HardState>,
    /// Put this snapshot in place first: its data becomes the applied state.
    pub snapshot: Option<SnapshotInstall>,
    /// Entries for the log. The first one's index says where: whatever the log held from there on is replaced.
    pub entries: Vec<Entry>,
    /// Whether this must reach the disk even where the setting for durability lets data wait: it holds a term, a vote,
    /// a membership change or a snapshot.
    pub must_sync: bool,
}

/// A snapshot to put in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotInstall {
    /// What it stands for.
    pub meta: SnapshotMeta,
    /// `true`: the log's entries after the snapshot's stay (others rely on them). `false`: the log starts empty after it.
    pub keep_log_after: bool,
}

/// Somebody needs a snapshot: make or find one, send its data, and announce it with
/// [`Raft::send_snapshot`](crate::Raft::send_snapshot).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotNeed {
    /// Who needs it.
    pub to: ReplicaId,
    /// The oldest index of use.
    pub index_min: u64,
}

/// A read that may be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadState {
    /// The number that the host gave with the read.
    pub context: u64,
    /// Serve it once this index is applied.
    pub index: u64,
}

/// What a replica does at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Takes what a leader sends.
    Follower,
    /// Asks whether it would win an election.
    PreCandidate,
    /// Asks for votes.
    Candidate,
    /// Leads.
    Leader,
}

/// Who leads, as far as this replica knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoleState {
    /// The current term.
    pub term: u64,
    /// This replica's role.
    pub role: Role,
    /// The leader of the term, once known.
    pub leader: Option<ReplicaId>,
}

/// What the core wants done. See the [module](self).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ready {
    /// To be stored.
    pub write: Option<WriteBatch>,
    /// To be sent, now.
    pub messages: Vec<Message>,
    /// To be applied, in order; durable here and on a majority.
    pub committed: Vec<Entry>,
    /// For each membership change among `committed` that took effect: its index and the state from then on.
    pub conf_states: Vec<(u64, ConfState)>,
    /// Reads that may be served.
    pub reads: Vec<ReadState>,
    /// Reads that won't be served, because leadership was lost: by the host's numbers.
    pub reads_dropped: Vec<u64>,
    /// Snapshots to be sent.
    pub snapshots: Vec<SnapshotNeed>,
    /// Replicas whose disks lost entries that they had acknowledged in this term, this one perhaps among them. Whatever they say
    /// rests on nothing: stop them.
    pub promises_lost: Vec<ReplicaId>,
    /// The new term, role or leader, if any of them changed.
    pub role: Option<RoleState>,
}
