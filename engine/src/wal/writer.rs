//! The write path: from a sealed batch to synced bytes. Comes from `log::LogStore::seal`, goes to the file system.

use super::format::{BATCH_HEADER_BYTES, BatchHeader, Statement, batch_len};
use super::segment::{PlacedSegment, Pool, Preparer};
use super::{Durability, WalOptions};
use crate::defects::{self, Defect};
use crate::error::{Error, Result};
use bytes::Bytes;
use std::io::IoSlice;
use std::mem;
use std::sync::Arc;

/// How long `everysec` lets a write wait for its sync, in milliseconds.
const EVERYSEC_MS: u64 = 1000;
/// A busy writer states how far the log is synced so often in a segment's head, too: batches are each other's witnesses, but
/// only as long as one of them is readable.
const STATEMENTS_PER_SEGMENT: u64 = 64;
/// A batch buffer up to this size is handed back for reuse.
const REUSED_BYTES_MAX: usize = 1 << 20;

/// A piece of a batch: bytes copied together, or a payload shared with the entry cache.
#[derive(Debug)]
pub(crate) enum Part {
    Owned(Vec<u8>),
    Shared(Bytes),
}

impl Part {
    fn as_slice(&self) -> &[u8] {
        match self {
            Part::Owned(bytes) => bytes,
            Part::Shared(bytes) => bytes,
        }
    }
}

/// Everything that was staged for all groups, encoded and ready to be written as one unit. May cross to another thread.
#[derive(Debug)]
pub struct SealedBatch {
    /// The first part begins with room for the header.
    pub(crate) parts: Vec<Part>,
    pub(crate) position: u64,
    pub(crate) sequence: u64,
    pub(crate) oldest: u64,
    pub(crate) data_len: u32,
    pub(crate) meta_len: u32,
    pub(crate) meta_crc: u32,
    pub(crate) must_sync: bool,
}

impl SealedBatch {
    /// The batch's length on disk in bytes.
    pub fn bytes(&self) -> u64 {
        batch_len(u64::from(self.data_len), u64::from(self.meta_len))
    }

    /// Whether the batch is synced under any durability (it holds a term, a vote, a membership or a snapshot's position).
    pub fn must_sync(&self) -> bool {
        self.must_sync
    }

    /// The batch's number; batches count up by one.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }
}

/// What the log holds after a write or sync. Hand it to `LogStore::written`.
#[derive(Debug)]
#[must_use = "the log store must learn of it"]
pub struct Written {
    /// The last batch written.
    pub(crate) sequence: u64,
    /// The end of the log.
    pub(crate) end: u64,
    /// The end of what is synced.
    pub(crate) synced_to: u64,
    /// The oldest segment that the synced log needs.
    pub(crate) synced_oldest: u64,
    /// Segments that came into use.
    pub(crate) placed: Vec<PlacedSegment>,
    pub(crate) buffer: Vec<u8>,
    prepare: bool,
}

impl Written {
    /// Whether everything written so far is synced.
    pub fn synced(&self) -> bool {
        self.synced_to == self.end
    }

    /// The number of the last batch written.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Whether a next segment should be made ready ([`WalWriter::prepare_next`] or a [`Preparer`]).
    pub fn wants_prepare(&self) -> bool {
        self.prepare
    }
}

/// What a writer has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WalMetrics {
    /// Bytes of batches written.
    pub bytes: u64,
    /// Batches written.
    pub batches: u64,
    /// Syncs of segment files.
    pub syncs: u64,
    /// Statements written by an idle writer.
    pub idle_statements: u64,
    /// Segments begun.
    pub segments: u64,
    /// Segments begun without one having been prepared: if this grows, call the preparer earlier.
    pub segments_unprepared: u64,
}

/// The log's only writer. Lives on the shard thread or on a thread of its own.
///
/// Invariants: batches are written in sequence, each where the one before ended; everything in segments before the active
/// one is synced; after a failed write or sync nothing is written any more.
#[derive(Debug)]
pub struct WalWriter {
    pool: Arc<Pool>,
    preparer: Preparer,
    durability: Durability,
    active: PlacedSegment,
    /// Where the next batch goes, as a log position.
    end: u64,
    /// The next batch's number.
    sequence: u64,
    synced_to: u64,
    /// The oldest segment needed, as the last batch and as the last synced batch say.
    oldest: u64,
    synced_oldest: u64,
    statement_counter: u64,
    /// The highest position that a synced statement covers.
    stated_to: u64,
    /// Where the log ended when the last statement was written.
    last_stated: u64,
    last_sync_ms: u64,
    poisoned: Option<(std::path::PathBuf, String)>,
    metrics: WalMetrics,
}

/// Where recovery left the log.
#[derive(Debug)]
pub(crate) struct Resume {
    pub(crate) active: PlacedSegment,
    pub(crate) end: u64,
    /// The next batch's number.
    pub(crate) sequence: u64,
    pub(crate) oldest: u64,
    pub(crate) statement_counter: u64,
}

impl WalWriter {
    /// Takes over a log of which everything is synced, and says so: from here on the last stop no longer counts as clean.
    pub(crate) fn resume(pool: Arc<Pool>, options: &WalOptions, resume: Resume) -> Result<Self> {
        let mut writer = Self {
            preparer: Preparer::new(Arc::clone(&pool)),
            pool,
            durability: options.durability,
            active: resume.active,
            end: resume.end,
            sequence: resume.sequence,
            synced_to: resume.end,
            oldest: resume.oldest,
            synced_oldest: resume.oldest,
            statement_counter: resume.statement_counter,
            stated_to: 0,
            last_stated: 0,
            last_sync_ms: 0,
            poisoned: None,
            metrics: WalMetrics::default(),
        };
        writer.state(false, false)?;
        writer.sync_active()?;
        writer.stated_to = writer.end;
        Ok(writer)
    }

    /// Writes one batch with one vectored write and, as durability demands, one sync. `now_ms` is any monotonic time in
    /// milliseconds.
    ///
    /// # Errors
    /// [`Error::Io`] for the failure itself, [`Error::Poisoned`] ever after. Whether the batch reached the disk is then
    /// unknown: acknowledge nothing.
    ///
    /// # Panics
    /// When batches are written out of order.
    pub fn write(&mut self, batch: SealedBatch, now_ms: u64) -> Result<Written> {
        self.check()?;
        assert_eq!((batch.position, batch.sequence), (self.end, self.sequence), "batches are written in order");
        let len = batch.bytes();
        let mut placed = Vec::new();
        let offset = self.active.offset_of(self.end);
        if offset + len > self.active.segment.capacity && self.end > self.active.base {
            self.roll()?;
            placed.push(self.active.clone());
        }
        if self.end - self.last_stated >= self.active.segment.capacity / STATEMENTS_PER_SEGMENT {
            // NB: no sync of its own; it goes out with this batch's.
            self.state(false, false)?;
        }
        let mut batch = batch;
        let header = BatchHeader {
            identity: self.active.segment.identity,
            position: batch.position,
            sequence: batch.sequence,
            synced: self.synced_to,
            oldest: batch.oldest,
            data_len: batch.data_len,
            meta_len: batch.meta_len,
            meta_crc: batch.meta_crc,
        };
        match batch.parts.first_mut() {
            Some(Part::Owned(bytes)) => bytes[..BATCH_HEADER_BYTES].copy_from_slice(&header.encode()),
            _ => unreachable!("a sealed batch begins with room for its header"),
        }
        let slices: Vec<IoSlice<'_>> = batch.parts.iter().map(|part| IoSlice::new(part.as_slice())).collect();
        debug_assert_eq!(slices.iter().map(|slice| slice.len() as u64).sum::<u64>(), len);
        let offset = self.active.offset_of(self.end);
        let written = self.active.segment.file.write_all_at(&slices, offset);
        self.poison_on_error("write", written)?;
        self.end += len;
        self.sequence += 1;
        self.oldest = batch.oldest;
        self.metrics.bytes += len;
        self.metrics.batches += 1;
        let due = match self.durability {
            Durability::Always => true,
            Durability::Everysec => now_ms.saturating_sub(self.last_sync_ms) >= EVERYSEC_MS,
            Durability::No => false,
        };
        let forgotten = defects::has(Defect::VoteSyncForgotten) && batch.data_len == 0;
        if forgotten {
            self.synced_to = self.end;
        } else if due || batch.must_sync {
            self.sync_active()?;
            self.last_sync_ms = now_ms;
        }
        let buffer = match batch.parts.swap_remove(0) {
            Part::Owned(bytes) if bytes.capacity() <= REUSED_BYTES_MAX => bytes,
            _ => Vec::new(),
        };
        Ok(Written { placed, buffer, ..self.outcome() })
    }

    /// Syncs what was written and is not synced yet: the periodic sync of `everysec`.
    ///
    /// # Errors
    /// As for [`WalWriter::write`].
    pub fn sync(&mut self, now_ms: u64) -> Result<Written> {
        self.check()?;
        if self.synced_to < self.end {
            self.sync_active()?;
        }
        self.last_sync_ms = now_ms;
        Ok(self.outcome())
    }

    /// States durably how far the log is synced, if a batch was synced since the last such statement. Call it within 10 ms
    /// of the last write: from then on an unreadable last batch is known for damage rather than taken for a torn write.
    /// Returns whether there was something to state.
    ///
    /// # Errors
    /// As for [`WalWriter::write`].
    pub fn idle_statement(&mut self) -> Result<bool> {
        self.check()?;
        if self.stated_to >= self.synced_to {
            return Ok(false);
        }
        let synced_to = self.synced_to;
        self.state(false, false)?;
        // This syncs the batches of a weaker durability along with the statement; the statement does not speak of them.
        self.sync_active()?;
        self.stated_to = synced_to;
        self.metrics.idle_statements += 1;
        Ok(true)
    }

    /// Changes when batches are synced. Everything written so far is synced, and the change is on disk, before this
    /// returns.
    ///
    /// # Errors
    /// As for [`WalWriter::write`].
    pub fn set_durability(&mut self, durability: Durability) -> Result<Written> {
        self.check()?;
        if self.synced_to < self.end {
            self.sync_active()?;
        }
        self.durability = durability;
        self.state(false, false)?;
        self.sync_active()?;
        self.stated_to = self.end;
        Ok(self.outcome())
    }

    /// Syncs everything and records that the stop was orderly. The writer takes no more batches.
    ///
    /// # Errors
    /// As for [`WalWriter::write`].
    pub fn close(&mut self) -> Result<Written> {
        self.check()?;
        if self.synced_to < self.end {
            self.sync_active()?;
        }
        self.state(true, false)?;
        self.sync_active()?;
        self.poisoned = Some((self.active.segment.path.clone(), "the log was closed".to_owned()));
        Ok(self.outcome())
    }

    /// Does one bounded step towards having the next segment ready; `false` when nothing is left to do.
    ///
    /// # Errors
    /// [`Error::Io`] when the disk refuses, which leaves the log as it is: see [`Preparer::step`].
    pub fn prepare_next(&mut self) -> Result<bool> {
        self.preparer.step()
    }

    /// A preparer for a helper thread, to be used instead of [`WalWriter::prepare_next`].
    pub fn preparer(&self) -> Preparer {
        Preparer::new(Arc::clone(&self.pool))
    }

    /// How many bytes can still be written without new disk space.
    pub fn reserve_bytes(&self) -> u64 {
        let segment = &self.active.segment;
        let left = segment.capacity.saturating_sub(self.active.offset_of(self.end));
        left + if self.pool.has_next() { segment.capacity - super::format::SEGMENT_HEAD_BYTES } else { 0 }
    }

    /// When batches are synced.
    pub fn durability(&self) -> Durability {
        self.durability
    }

    /// Whether everything written is synced.
    pub fn is_synced(&self) -> bool {
        self.synced_to == self.end
    }

    /// What the writer has done so far.
    pub fn metrics(&self) -> WalMetrics {
        self.metrics
    }

    fn outcome(&self) -> Written {
        Written {
            sequence: self.sequence - 1,
            end: self.end,
            synced_to: self.synced_to,
            synced_oldest: self.synced_oldest,
            placed: Vec::new(),
            buffer: Vec::new(),
            prepare: !self.pool.has_next(),
        }
    }

    /// Goes on to the next segment.
    fn roll(&mut self) -> Result<()> {
        // Whatever is in a later segment implies that this one is whole, so it is synced first; and only then is it stated
        // that the log goes on elsewhere: statement and data under one sync could survive the one without the other.
        if self.synced_to < self.end {
            self.sync_active()?;
        }
        let prepared = self.pool.has_next();
        // The next segment must be durable before this one says that it is there.
        let next = self.pool.take_next();
        let next = match next {
            Ok(next) => next,
            Err(e) => {
                let path = self.active.segment.path.clone();
                self.poisoned = Some((path, format!("no next segment: {e}")));
                return Err(e);
            }
        };
        self.state(false, true)?;
        self.sync_active()?;
        self.active = PlacedSegment { segment: next, base: self.end };
        self.statement_counter = 0;
        // NB: not synced here; it goes out with the first batch, and nothing is lost if it does not.
        self.state(false, false)?;
        self.metrics.segments += 1;
        self.metrics.segments_unprepared += u64::from(!prepared);
        Ok(())
    }

    /// Writes a statement into the active segment's head.
    fn state(&mut self, clean: bool, sealed: bool) -> Result<()> {
        let statement = Statement {
            identity: self.active.segment.identity,
            counter: self.statement_counter,
            synced: self.synced_to,
            base: self.active.base,
            clean,
            sealed,
            weak: self.durability != Durability::Always,
        };
        let offset = Statement::slot_offset(self.statement_counter);
        self.statement_counter += 1;
        self.last_stated = self.end;
        let written = self.active.segment.file.write_all_at(&[IoSlice::new(&statement.encode())], offset);
        self.poison_on_error("write", written)
    }

    fn sync_active(&mut self) -> Result<()> {
        let file = &self.active.segment.file;
        let synced = match file.sync_data() {
            _ if defects::has(Defect::SyncForgotten) => Ok(()),
            Err(_) if defects::has(Defect::SyncRetried) => file.sync_data(),
            synced => synced,
        };
        self.poison_on_error("sync", synced)?;
        self.metrics.syncs += 1;
        self.synced_to = self.end;
        self.synced_oldest = self.oldest;
        Ok(())
    }

    fn check(&self) -> Result<()> {
        match &self.poisoned {
            Some((path, detail)) => Err(Error::Poisoned { path: path.clone(), detail: detail.clone() }),
            None => Ok(()),
        }
    }

    fn poison_on_error(&mut self, operation: &'static str, outcome: std::io::Result<()>) -> Result<()> {
        outcome.map_err(|e| {
            let path = self.active.segment.path.clone();
            self.poisoned = Some((path.clone(), format!("{operation}: {e}")));
            Error::io(operation, path, e)
        })
    }
}

/// Staged bytes of the batch to come: payloads first, so that their positions are known at once, records collected beside.
#[derive(Debug)]
pub(crate) struct Stage {
    parts: Vec<Part>,
    /// The part being filled.
    tail: Vec<u8>,
    pub(crate) data_len: u64,
    pub(crate) meta: Vec<u8>,
    pub(crate) must_sync: bool,
}

/// Payloads up to this size are copied beside the header; larger ones are written from where they are.
const COPIED_BYTES_MAX: usize = 4096;

impl Stage {
    pub(crate) fn new(buffer: Vec<u8>) -> Self {
        let mut stage = Self { parts: Vec::new(), tail: buffer, data_len: 0, meta: Vec::new(), must_sync: false };
        stage.begin();
        stage
    }

    fn begin(&mut self) {
        self.tail.clear();
        self.tail.resize(BATCH_HEADER_BYTES, 0);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.meta.is_empty()
    }

    /// Adds a payload; returns its offset among the batch's data.
    pub(crate) fn put_payload(&mut self, payload: &Bytes) -> u64 {
        let offset = self.data_len;
        self.data_len += payload.len() as u64;
        if payload.len() <= COPIED_BYTES_MAX {
            self.tail.extend_from_slice(payload);
        } else {
            if !self.tail.is_empty() {
                self.parts.push(Part::Owned(mem::take(&mut self.tail)));
            }
            self.parts.push(Part::Shared(payload.clone()));
        }
        offset
    }

    /// Ends the batch and begins the next one.
    pub(crate) fn seal(&mut self, position: u64, sequence: u64, oldest: u64) -> SealedBatch {
        assert!(self.data_len <= u64::from(u32::MAX), "a batch holds at most 4 GiB of entries");
        assert!(self.meta.len() <= super::format::META_BYTES_MAX, "a batch holds at most 256 MiB of records");
        let meta_crc = crc32fast::hash(&self.meta);
        let len = batch_len(self.data_len, self.meta.len() as u64);
        let padding = len - (BATCH_HEADER_BYTES as u64 + self.data_len + self.meta.len() as u64);
        self.tail.extend_from_slice(&self.meta);
        self.tail.resize(self.tail.len() + padding as usize, 0);
        let mut parts = mem::take(&mut self.parts);
        parts.push(Part::Owned(mem::take(&mut self.tail)));
        let batch = SealedBatch {
            parts,
            position,
            sequence,
            oldest,
            data_len: self.data_len as u32,
            meta_len: self.meta.len() as u32,
            meta_crc,
            must_sync: mem::take(&mut self.must_sync),
        };
        self.data_len = 0;
        self.meta.clear();
        self.begin();
        batch
    }

    /// Takes back a buffer for the next batch.
    pub(crate) fn reuse(&mut self, mut buffer: Vec<u8>) {
        if self.is_empty() && self.parts.is_empty() && buffer.capacity() > self.tail.capacity() {
            mem::swap(&mut self.tail, &mut buffer);
            self.begin();
        }
    }
}
