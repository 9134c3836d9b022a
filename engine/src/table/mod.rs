//! Applied state: what the log says, as keys and values.
//!
//! ```text
//!   apply ──▶ active memtable ──freeze──▶ frozen memtables ──flusher──▶ checkpoint store
//!                  ▲                            ▲                            ▲
//!   read  ─────────┴────────────────────────────┴──▶ value cache ──▶ fetch ──┘ (off the shard thread)
//! ```
//!
//! A [`Table`] is one group's state and belongs to one shard thread. Reads of what is in memory are answered there
//! ([`Table::peek`]); a key that is nowhere in memory is `Unknown`, to be fetched from the store by a [`Fetcher`] on another
//! thread and handed back with [`Table::admit`], which also pins it so that apply finds it later. Writes never look anything
//! up.
//!
//! Who only asks whether a key is there, when it expires or how long its value is, fetches its [`Head`]: the data stay on disk.
//! A head is enough to delete a key, too, since a tombstone only wants to know what was below it.
//!
//! [`Tables`] is what the tables of a node share: the checkpoint store, the value cache, the memory budget, and the flusher
//! thread that writes frozen memtables to the store as *generations*. A generation holds a memtable's rows, their deadlines,
//! the slots' key counts and the applied index, in one atomic unit. [`Table::durable`] moves only when it is safe, so that
//! the log below may go.
//!
//! Longer walks over the data (SCAN, DBSIZE, expiry, export) are *jobs*: begun on the shard thread, run on any thread against
//! a consistent view of the store, finished on the shard thread.
//!
//! Beside the keys a table keeps the host's *records* (`records.rs`): small rows that no command sees.
//!
//! Deadlines are kept, never judged: whether a key is expired is for the caller, who knows the group's time.

mod cache;
mod expire;
mod flush;
mod install;
mod len;
mod memtable;
mod node;
mod object;
mod pins;
mod records;
mod rows;
mod scan;
mod seal;
mod state;
mod view;

#[cfg(test)]
mod tests;

pub(crate) use node::panic_text;

pub use expire::{ExpireJob, ExpireOutcome};
pub use install::{InstallJob, Installed};
pub use len::{Len, LenJob, LenOutcome};
pub use node::{FlusherMode, Tables, TablesOptions};
pub use object::{Head, KeyRef, Object, ObjectKind};
pub use records::{RECORD_BYTES_MAX, RECORD_NAME_BYTES, RECORD_OVERHEAD_BYTES, RecordKey};
pub use scan::{ScanJob, ScanOutcome, ScanPage, ScanPosition, ScanRow};
pub use state::{Admitted, Fetched, Fetcher, Look, Maintained, Peek, Table, TableStats};
pub(crate) use view::RowPlace;
pub use view::{RowSpace, View, ViewRow};

/// Hash slots of the key space.
pub const SLOTS: usize = 16384;

/// How far a group's log is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord)]
pub struct Applied {
    /// Index of the last applied entry; 0 for none.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// The group's time: the stamp of the last applied entry, in milliseconds since the epoch.
    pub stamp_ms: u64,
}

/// A key that owns its bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct OwnedKey {
    /// CRC16 hash slot.
    pub slot: u16,
    /// xxh3-64 of the key.
    pub hash: u64,
    /// The key's bytes.
    pub key: Box<[u8]>,
}

impl OwnedKey {
    /// The key, borrowed.
    pub fn as_ref(&self) -> KeyRef<'_> {
        KeyRef { slot: self.slot, hash: self.hash, key: &self.key }
    }
}

impl From<KeyRef<'_>> for OwnedKey {
    fn from(key: KeyRef<'_>) -> Self {
        OwnedKey { slot: key.slot, hash: key.hash, key: key.key.into() }
    }
}
