//! Each group's view of the write-ahead log.
//!
//! All groups of a node share one stream of batches ([`crate::wal`]); consensus wants a log per group: entries by index,
//! terms, a hard state, a suffix that can be replaced and a prefix that can go. [`LogStore`] owns both ends: it stages what
//! a turn did to any group, seals it into one batch, and remembers for each live entry where it is.
//!
//! ```text
//!   append / set_hard_state / compact / reset      (memory only; payloads are not copied)
//!        │
//!      seal() ─▶ SealedBatch ─▶ WalWriter::write ─▶ Written ─▶ written()
//!        │                                                        │
//!   entries are readable at once, from the cache            from now on they may be evicted from the cache
//!                                                           and read back from the file
//! ```
//!
//! *Bounded disk.* A segment can go once no group needs anything in it: no live entry, and no group's latest state. Idle
//! groups' states and lagging groups' entries are copied forward by [`LogStore::maintain`]. Copies go into the same stream
//! as everything else. Since the stream is replayed strictly in order, and a copy is taken from what is live at
//! its place in the stream, a copied entry can never reappear above a truncation that came later; recovery checks that a
//! copy agrees with the entry that it is a copy of.
//!
//! *Bounded memory.* Payloads are cached up to a node-wide budget, oldest out first; an entry that is not cached costs 16 B.
//!
//! Invariants of a group: `compacted ≤ last`; live entries are exactly `compacted + 1 ..= last`, without gaps; terms do not
//! fall; the hard state's term and commit never fall.

mod group;
mod replay;
mod store;

use crate::GroupId;
use bytes::Bytes;

pub use crate::wal::{Durability, Preparer, RecoveryReport, SealedBatch, WalMetrics, WalOptions, WalWriter, Written};
pub use group::GroupLog;
pub use store::LogStore;

/// An entry whose kind has this bit is synced whatever the durability (a change of membership, for instance).
pub const KIND_SYNCED: u8 = 0x80;

/// The largest payload of an entry, in bytes.
pub const ENTRY_BYTES_MAX: usize = 1 << 30;

/// One entry of a group's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// The term in which a leader proposed it.
    pub term: u64,
    /// Its place in the group's log, from 1.
    pub index: u64,
    /// What the payload is: the caller's business, except for [`KIND_SYNCED`].
    pub kind: u8,
    /// What is replicated.
    pub payload: Bytes,
}

/// What a group must not forget, besides its entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HardState {
    /// The latest term seen.
    pub term: u64,
    /// Whom it voted for in that term; 0 for nobody.
    pub vote: u64,
    /// The highest index known committed. A hint: the true value may be higher.
    pub commit: u64,
}

/// What pins the oldest segment of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogPin {
    /// The group with the oldest live entry.
    pub group: GroupId,
    /// That entry's index.
    pub index: u64,
    /// How many bytes of log there are from it on.
    pub bytes: u64,
}
