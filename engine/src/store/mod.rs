//! The durable base below the log.
//!
//! A checkpoint store is an ordered map of bytes to bytes that takes *generations*: sorted streams of rows which become
//! visible, and durable, together. Everything the table knows (data, deadlines, counts, the applied index) travels in the
//! same generation, so that after a crash the base is exactly the state at one index and the log above it says the rest.
//!
//! ```text
//!   frozen memtable ──▶ ingest(sorted rows … meta row last) ──▶ one atomic unit ──▶ durable ──▶ log below may go
//! ```
//!
//! The trait is narrow on purpose: it is what [`FjallStore`], [`SledStore`] and [`MemStore`] can all be held to, by one
//! conformance suite. How far a store's durability reaches is part of its contract ([`Durability`]): sled's does not reach
//! the platters, so the log above it is only cut below a sealed snapshot of our own.

mod fjall;
mod memory;
mod open;
mod sled;

#[cfg(test)]
mod conformance;

use crate::Result;
use std::fmt;
use std::ops::Deref;

pub use fjall::FjallStore;
pub use memory::MemStore;
pub use open::{OPEN_PATIENCE, OpenedStore, StoreKind, StoreOptions, open_store};
pub use sled::SledStore;

/// The longest row key that every store takes, in bytes. lsm-tree keeps key lengths in 16 bits and does not check.
pub const ROW_KEY_BYTES_MAX: usize = 60 << 10;

/// How far a store's promise reaches when [`CheckpointStore::ingest`] returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Files and folder entries are synced: a power cut keeps the generation.
    PowerCut,
    /// The operating system has the bytes: a killed process keeps the generation, a power cut may damage even older data.
    ProcessCrash,
    /// Nothing outlives the process.
    None,
}

/// Receives the rows of a generation in strictly ascending key order.
pub trait RowSink {
    /// Writes a row; its value is the two parts one after the other.
    ///
    /// # Errors
    /// When the store fails, the key is too long, or keys do not ascend.
    fn put(&mut self, key: &[u8], head: &[u8], tail: &[u8]) -> Result<()>;
    /// Removes a row, present or not.
    ///
    /// # Errors
    /// As [`RowSink::put`].
    fn delete(&mut self, key: &[u8]) -> Result<()>;
}

/// Rows of a store, in ascending key order.
pub type Rows<'a> = Box<dyn Iterator<Item = Result<Row>> + Send + 'a>;

/// Something rows can be read from: the store itself, or a view of it.
pub trait ReadRows: Send + Sync {
    /// The value of a row.
    ///
    /// # Errors
    /// When the store fails or its bytes are damaged.
    fn get(&self, key: &[u8]) -> Result<Option<RowBytes>>;
    /// The rows with `from <= key < to`.
    fn range<'a>(&'a self, from: &[u8], to: &[u8]) -> Rows<'a>;
}

/// A consistent view: what it returns does not change while generations go in beside it. Hold it briefly: it keeps old
/// files alive, and on a store without snapshots it holds back the next generation.
pub trait StoreView: ReadRows + fmt::Debug {}

/// An ordered map on disk that takes generations. All methods may be called from any thread; [`CheckpointStore::ingest`] is
/// called by one at a time.
pub trait CheckpointStore: ReadRows + fmt::Debug + 'static {
    /// Opens a consistent view.
    ///
    /// # Errors
    /// When the store fails.
    fn view(&self) -> Result<Box<dyn StoreView>>;
    /// Writes one generation. `produce` pushes rows in strictly ascending order and may read the store meanwhile; it never
    /// sees its own rows. When this returns `Ok`, the generation is there as far as [`CheckpointStore::durability`] says.
    /// After an error none of it is visible, except on a store whose generations are not atomic
    /// ([`CheckpointStore::interrupted`]).
    ///
    /// # Errors
    /// What `produce` returned, or the store's failure.
    fn ingest(&self, produce: &mut dyn FnMut(&mut dyn RowSink) -> Result<()>) -> Result<()>;
    /// Whether the last generation before this store was opened may be there in part: some of its rows, without the index
    /// that they belong to. Such a store is of no use: the log can't be applied over it, since an INCR would count twice. Only
    /// a store without atomic generations ever says yes.
    fn interrupted(&self) -> bool {
        false
    }
    /// How far a generation's durability reaches.
    fn durability(&self) -> Durability;
    /// Generations that wait to be merged; the flusher pauses when they are many.
    fn backlog(&self) -> usize {
        0
    }
    /// Bytes on disk, about.
    fn disk_bytes(&self) -> u64;
    /// Bytes of memory held by the store's own caches and buffers, about.
    fn memory_bytes(&self) -> u64;
    /// Says that the process stops on purpose and that no generation follows.
    ///
    /// # Errors
    /// When the store fails.
    fn close(&self) -> Result<()> {
        Ok(())
    }
}

/// A row: key and value.
pub type Row = (RowBytes, RowBytes);

/// Bytes handed out by a store, shared with it where it can.
#[derive(Clone)]
pub enum RowBytes {
    /// In memory.
    Shared(bytes::Bytes),
    /// A slice of one of fjall's blocks.
    Fjall(::fjall::Slice),
    /// sled's.
    Sled(::sled::IVec),
}

impl Deref for RowBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            RowBytes::Shared(bytes) => bytes,
            RowBytes::Fjall(slice) => slice,
            RowBytes::Sled(bytes) => bytes,
        }
    }
}

impl fmt::Debug for RowBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.escape_ascii())
    }
}

/// Checks what every store demands of the next key of a generation, and remembers it.
pub(crate) fn check_ascending(path: &std::path::Path, last: &mut Option<Vec<u8>>, key: &[u8]) -> Result<()> {
    let refuse = |detail: String| Err(crate::Error::Store { path: path.to_path_buf(), detail });
    if key.len() > ROW_KEY_BYTES_MAX {
        return refuse(format!("a row key of {} bytes is over the limit of {ROW_KEY_BYTES_MAX}", key.len()));
    }
    match last {
        Some(last) if key <= last.as_slice() => {
            return refuse(format!("row {} does not come after {}", key.escape_ascii(), last.escape_ascii()));
        }
        Some(last) => {
            last.clear();
            last.extend_from_slice(key);
        }
        None => *last = Some(key.to_vec()),
    }
    Ok(())
}
