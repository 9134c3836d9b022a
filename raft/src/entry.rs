//! What the log holds, and what must survive a crash beside it.

use bytes::Bytes;

use crate::membership::ConfState;

/// The name of a replica within its group. Zero is nobody; an id is never used twice, not even after a removal.
pub type ReplicaId = u64;

/// Milliseconds on a monotonic clock of the host. Only differences mean anything.
pub type Millis = u64;

/// What an entry is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// The host's payload, opaque to this crate.
    Normal,
    /// Empty: a leader's first entry, which lets it commit what its predecessors left.
    Noop,
    /// An encoded [`ConfChange`](crate::ConfChange).
    ConfChange,
}

/// One entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The term of the leader that made it.
    pub term: u64,
    /// Its place in the log; the first entry ever has index 1.
    pub index: u64,
    /// What it is for.
    pub kind: EntryKind,
    /// The content. Cloning an entry shares these bytes.
    pub payload: Bytes,
}

/// What an entry is taken to cost on the wire and in memory beside its payload, in bytes.
pub(crate) const ENTRY_OVERHEAD_BYTES: usize = 32;

impl Entry {
    /// The size that limits in bytes count: the payload and a fixed allowance for the rest.
    pub fn size_bytes(&self) -> usize {
        self.payload.len() + ENTRY_OVERHEAD_BYTES
    }
}

/// The promises that a replica must never forget, and a hint.
///
/// `term` and `vote` are promises: they are on disk before any message that depends on them leaves. `commit` is a
/// hint that only spares work after a restart; it rides along with other writes and never causes one. One use is
/// load-bearing: an entry is never written without the commit index known then, so that a restarted replica knows
/// every membership change but the newest (see [`membership`](crate::membership)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HardState {
    /// The newest term that this replica has seen.
    pub term: u64,
    /// Whom it voted for in that term; 0 for nobody.
    pub vote: ReplicaId,
    /// An index known to be committed when this was written.
    pub commit: u64,
}

/// What a snapshot stands for. The data itself travels and is stored by the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotMeta {
    /// The last entry whose effect is in the snapshot.
    pub index: u64,
    /// That entry's term.
    pub term: u64,
    /// The membership as of that entry.
    pub conf_state: ConfState,
}
