//! The shared write-ahead log: one stream of batches on disk for all groups of a node.
//!
//! Why shared: a disk's sync costs the same for one group's entry as for a hundred groups' entries, so everything that a
//! turn of the shard thread produced goes out in ONE write and ONE sync.
//!
//! ```text
//!   log::LogStore ──seal()──▶ SealedBatch ──▶ WalWriter::write ──▶ Written ──written()──▶ log::LogStore
//!     stages records            may cross        one vectored        what is on disk,       learns where entries are,
//!     encodes once              a thread         write, one sync     what is synced         frees segments
//! ```
//!
//! *Positions.* A batch's place is a *log position*: bytes since the log began. Segments follow one another without gaps
//! in positions, so a position is known when a batch is sealed, whichever file it will land in.
//!
//! *Trust.* A batch is accepted only if its header's checksum, its segment's identity, its position and its sequence
//! number are right, and the checksums of its records and of every payload. What lies below any statement of "synced up
//! to here" (each batch header carries one, and so does each segment's head) was promised to someone: if it cannot be read,
//! that is damage, and opening fails. What lies above was never acknowledged: it is cut.
//!
//! *Failure.* A write or sync that failed poisons the writer for good: after a failed sync the kernel forgets the pages, so
//! a retry would "succeed" without the data.
//!
//! The format is drawn in `docs/src/formats/wal.md`; `format.rs` holds its bytes, `segment.rs` the life of the files,
//! `writer.rs` the write path and `recovery.rs` the way back.

pub(crate) mod format;
pub(crate) mod recovery;
pub(crate) mod segment;
pub(crate) mod writer;

use std::path::PathBuf;

pub use segment::Preparer;
pub use writer::{SealedBatch, WalMetrics, WalWriter, Written};

/// When a batch is synced, in Redis's words. Terms, votes, membership and installed snapshots are always synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// Before [`WalWriter::write`] returns.
    #[default]
    Always,
    /// At most about a second later, by the first write after that second or by [`WalWriter::sync`].
    Everysec,
    /// When the operating system likes.
    No,
}

/// How the log is laid out and bounded.
#[derive(Debug, Clone)]
pub struct WalOptions {
    /// The data folder's identity: segments of another are refused.
    pub node: u128,
    /// Something that differs at each open (random, or the boot counter): what an earlier run left in a recycled file is
    /// told from this run's by it.
    pub nonce: u64,
    /// The length of a segment file. At least 8 KiB.
    pub segment_bytes: u64,
    /// Above this much log, live entries in the oldest segment are copied forward, provided that at least half of the log
    /// is no longer needed. So the log stays below max(this, 2 x live bytes) plus two segments.
    pub log_bytes_max: u64,
    /// The most bytes of entry payloads kept in memory.
    pub cache_bytes_max: usize,
    /// How many recycled files wait for reuse.
    pub spares_max: usize,
    /// When batches are synced.
    pub durability: Durability,
    /// The folder is known to have held a log: finding none is damage rather than a first start.
    pub expect_existing: bool,
}

impl WalOptions {
    /// The defaults for a folder: 64 MiB segments, 512 MiB of log, 64 MiB of cached entries, two spares, `always`.
    pub fn new(node: u128, nonce: u64) -> Self {
        Self {
            node,
            nonce,
            segment_bytes: 64 << 20,
            log_bytes_max: 512 << 20,
            cache_bytes_max: 64 << 20,
            spares_max: 2,
            durability: Durability::Always,
            expect_existing: false,
        }
    }
}

/// What opening the log found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// There was no log: an empty one was made.
    pub created: bool,
    /// The last stop was orderly ([`WalWriter::close`]), and nothing was written since.
    pub clean: bool,
    /// The previous run acknowledged under `everysec` or `no`.
    pub weak: bool,
    /// Bytes cut from the end: from the first unreadable batch, to the end of the last batch header found behind it. 0 also
    /// when nothing of an unsynced batch's header survived. If not 0, the tail was ambiguous.
    pub torn_bytes: u64,
    /// Where the cut was made: file and offset.
    pub torn_at: Option<(PathBuf, u64)>,
    /// Batches read back.
    pub batches: u64,
    /// Live entries found, over all groups.
    pub entries: u64,
    /// Segments that hold batches.
    pub segments: usize,
    /// The log's length in bytes, from the oldest segment needed.
    pub log_bytes: u64,
}

impl RecoveryReport {
    /// Whether acknowledged writes may have been lost: an unclean stop under `everysec` or `no`. A replica must then rejoin
    /// as one that lost its promise.
    pub fn promise_lost(&self) -> bool {
        self.weak && !self.clean
    }
}
