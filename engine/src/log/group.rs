//! One group's entries: where they are, and those that are cached.

use super::{HardState, LogEntry};
use crate::GroupId;
use crate::error::{Error, Result};
use crate::vfs::read_exact_at;
use crate::wal::recovery::damaged;
use crate::wal::segment::PlacedSegment;
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::{Arc, PoisonError, RwLock};

/// What an entry costs on disk besides its payload, about: a batch header, a record header and its line.
pub(crate) const ENTRY_OVERHEAD_BYTES: u64 = 112;
/// How much is read at once when entries are not cached.
const READ_BYTES: usize = 128 << 10;

/// Where an entry's payload is: 16 bytes, since there may be millions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Location {
    /// The log position in the low 56 bits, the entry's kind above.
    packed: u64,
    pub(crate) len: u32,
    pub(crate) crc: u32,
}

impl Location {
    pub(crate) fn new(position: u64, kind: u8, len: u32, crc: u32) -> Self {
        assert!(position < 1 << 56, "64 PiB of log have been written");
        Self { packed: position | u64::from(kind) << 56, len, crc }
    }

    pub(crate) fn position(self) -> u64 {
        self.packed & ((1 << 56) - 1)
    }

    pub(crate) fn kind(self) -> u8 {
        (self.packed >> 56) as u8
    }

    /// What the entry counts for in the log's size.
    pub(crate) fn live_bytes(self) -> u64 {
        u64::from(self.len) + ENTRY_OVERHEAD_BYTES
    }
}

/// The segments that can be read, in log order.
#[derive(Debug, Default)]
pub(crate) struct Segments(RwLock<VecDeque<PlacedSegment>>);

impl Segments {
    pub(crate) fn new(placed: Vec<PlacedSegment>) -> Arc<Self> {
        Arc::new(Self(RwLock::new(placed.into())))
    }

    pub(crate) fn with<T>(&self, look: impl FnOnce(&VecDeque<PlacedSegment>) -> T) -> T {
        look(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut VecDeque<PlacedSegment>) -> T) -> T {
        change(&mut self.0.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// The segment that holds a log position.
    pub(crate) fn holding(&self, position: u64) -> Option<PlacedSegment> {
        self.with(|placed| placed.partition_point(|s| s.base <= position).checked_sub(1).map(|at| placed[at].clone()))
    }
}

impl Segments {
    /// The first segment that begins behind a log position.
    fn after(&self, position: u64) -> Option<PlacedSegment> {
        self.with(|placed| placed.get(placed.partition_point(|s| s.base <= position)).cloned())
    }
}

/// Reads payloads back, neighbours together.
struct PayloadReader<'a> {
    segments: &'a Segments,
    current: Option<PlacedSegment>,
    /// Bytes read ahead, from this log position on.
    start: u64,
    bytes: Vec<u8>,
}

impl PayloadReader<'_> {
    fn read(&mut self, location: Location, ahead: usize) -> Result<Bytes> {
        let (position, len) = (location.position(), location.len as usize);
        if position < self.start || position + len as u64 > self.start + self.bytes.len() as u64 {
            self.fill(position, len, ahead)?;
        }
        let from = (position - self.start) as usize;
        let payload = &self.bytes[from..from + len];
        if crc32fast::hash(payload) != location.crc {
            let (path, offset) = match &self.current {
                Some(placed) => (placed.segment.path.clone(), placed.offset_of(position)),
                None => Default::default(),
            };
            return Err(damaged(&path, offset, "an entry's payload is not what was written"));
        }
        Ok(Bytes::copy_from_slice(payload))
    }

    fn fill(&mut self, position: u64, len: usize, ahead: usize) -> Result<()> {
        let placed = self.segments.holding(position).expect("a live entry's segment is never given up");
        let path = &placed.segment.path;
        let offset = placed.offset_of(position);
        let file_len = placed.segment.file.len().map_err(|e| Error::io("measure", path, e))?;
        if offset + len as u64 > file_len {
            return Err(damaged(path, offset, "the file ends within an entry"));
        }
        // Positions go on in the next segment, not behind this one's last batch.
        let end = self.segments.after(position).map_or(file_len, |next| placed.offset_of(next.base));
        let size = (len.max(ahead.min(READ_BYTES)) as u64).min(end - offset);
        self.bytes.resize(size as usize, 0);
        read_exact_at(&*placed.segment.file, &mut self.bytes, offset).map_err(|e| Error::io("read", path, e))?;
        self.start = position;
        self.current = Some(placed);
        Ok(())
    }
}

/// One group's log, to read from. Changes go through [`super::LogStore`].
#[derive(Debug)]
pub struct GroupLog {
    pub(crate) group: GroupId,
    pub(crate) segments: Arc<Segments>,
    pub(crate) hard_state: HardState,
    /// Index and term of the last entry that is no longer needed.
    pub(crate) compacted: (u64, u64),
    /// The live entries, from `compacted.0 + 1` on.
    pub(crate) locations: VecDeque<Location>,
    /// The live entries' terms, as (first index of the run, term).
    pub(crate) terms: VecDeque<(u64, u64)>,
    /// The payloads of the last entries.
    pub(crate) cached: VecDeque<Bytes>,
    /// Bytes that the live entries take on disk, about.
    pub(crate) live_bytes: u64,
    /// Entries above this one lie in the log in the order of their indexes.
    pub(crate) rewritten_up_to: u64,
    /// Where the latest record of hard state and `compacted` is.
    pub(crate) state_position: u64,
}

impl GroupLog {
    pub(crate) fn new(group: GroupId, segments: Arc<Segments>) -> Self {
        Self {
            group,
            segments,
            hard_state: HardState::default(),
            compacted: (0, 0),
            locations: VecDeque::new(),
            terms: VecDeque::new(),
            cached: VecDeque::new(),
            live_bytes: 0,
            rewritten_up_to: 0,
            state_position: 0,
        }
    }

    /// The group's number.
    pub fn id(&self) -> GroupId {
        self.group
    }

    /// The first live entry's index; one more than the last index when there is none.
    pub fn first_index(&self) -> u64 {
        self.compacted.0 + 1
    }

    /// The last entry's index; the compacted index when no entry is live.
    pub fn last_index(&self) -> u64 {
        self.compacted.0 + self.locations.len() as u64
    }

    /// The last entry's term; the compacted term when no entry is live.
    pub fn last_term(&self) -> u64 {
        self.terms.back().map_or(self.compacted.1, |run| run.1)
    }

    /// Index and term of the last entry that is no longer needed: its state is elsewhere.
    pub fn compacted(&self) -> (u64, u64) {
        self.compacted
    }

    /// Term, vote and commit as last set.
    pub fn hard_state(&self) -> HardState {
        self.hard_state
    }

    /// Bytes that the live entries take on disk, about.
    pub fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// The term of the entry at `index`; also known for the compacted index itself. `None` outside of the log.
    pub fn term(&self, index: u64) -> Option<u64> {
        if index == self.compacted.0 {
            return Some(self.compacted.1);
        }
        if index < self.first_index() || index > self.last_index() {
            return None;
        }
        let run = self.terms.partition_point(|run| run.0 <= index).checked_sub(1)?;
        Some(self.terms[run].1)
    }

    /// Entries from `low` up to, but not including, `high`: as many as fit in `bytes_max` of payload, at least one if the
    /// range is not empty. Those that are not cached are read from the file and checked.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read, [`Error::Damaged`] if it does not hold what was written.
    ///
    /// # Panics
    /// When the range is not within `first_index ..= last_index`.
    pub fn entries(&self, low: u64, high: u64, bytes_max: usize) -> Result<Vec<LogEntry>> {
        assert!(
            low >= self.first_index() && low <= high && high <= self.last_index() + 1,
            "entries {low}..{high} are not within {}..={} of group {}",
            self.first_index(),
            self.last_index(),
            self.group
        );
        let mut bytes = 0u64;
        let count = (low..high)
            .take_while(|&index| {
                bytes += u64::from(self.location(index).len);
                index == low || bytes <= bytes_max as u64
            })
            .count() as u64;
        let mut entries = Vec::with_capacity(count as usize);
        let mut reader = PayloadReader { segments: &self.segments, current: None, start: 0, bytes: Vec::new() };
        let ahead = if count > 1 { READ_BYTES } else { 0 };
        let mut run = self.terms.partition_point(|run| run.0 <= low).saturating_sub(1);
        for index in low..low + count {
            while self.terms.get(run + 1).is_some_and(|next| next.0 <= index) {
                run += 1;
            }
            let location = self.location(index);
            let payload = match self.cached_payload(index) {
                Some(payload) => payload.clone(),
                None => reader.read(location, ahead)?,
            };
            entries.push(LogEntry { term: self.terms[run].1, index, kind: location.kind(), payload });
        }
        Ok(entries)
    }

    pub(crate) fn location(&self, index: u64) -> Location {
        self.locations[(index - self.first_index()) as usize]
    }

    /// The index of the first cached entry; one more than the last if there is none.
    pub(crate) fn cached_first(&self) -> u64 {
        self.last_index() + 1 - self.cached.len() as u64
    }

    fn cached_payload(&self, index: u64) -> Option<&Bytes> {
        self.cached.get(index.checked_sub(self.cached_first())? as usize)
    }

    /// Adds an entry behind the last. `payload` is cached unless it is `None`.
    pub(crate) fn push(&mut self, term: u64, location: Location, payload: Option<Bytes>) {
        assert!(
            term >= self.last_term(),
            "terms do not fall: {term} after {} in group {}",
            self.last_term(),
            self.group
        );
        let index = self.last_index() + 1;
        if self.terms.back().is_none_or(|run| run.1 != term) {
            self.terms.push_back((index, term));
        }
        self.locations.push_back(location);
        self.live_bytes += location.live_bytes();
        match payload {
            Some(payload) => self.cached.push_back(payload),
            None => debug_assert!(self.cached.is_empty(), "the cache holds the log's end"),
        }
    }

    /// Drops the entries from `index` on; returns the cached bytes dropped and their number.
    pub(crate) fn truncate(&mut self, index: u64) -> (usize, usize) {
        let mut dropped = (0, 0);
        while self.last_index() >= index && !self.locations.is_empty() {
            if let Some(location) = self.locations.pop_back() {
                self.live_bytes -= location.live_bytes();
            }
            if let Some(payload) = self.cached.pop_back() {
                dropped = (dropped.0 + payload.len(), dropped.1 + 1);
            }
        }
        while self.terms.back().is_some_and(|run| run.0 >= index) {
            self.terms.pop_back();
        }
        self.rewritten_up_to = self.rewritten_up_to.min(index.saturating_sub(1));
        dropped
    }

    /// Drops the entries up to `index`; returns the cached bytes dropped and their number.
    pub(crate) fn compact(&mut self, index: u64) -> (usize, usize) {
        let mut dropped = (0, 0);
        let Some(term) = self.term(index) else { return dropped };
        let count = (index - self.compacted.0) as usize;
        let uncached = self.locations.len() - self.cached.len();
        for payload in self.cached.drain(..count.saturating_sub(uncached)) {
            dropped = (dropped.0 + payload.len(), dropped.1 + 1);
        }
        for location in self.locations.drain(..count) {
            self.live_bytes -= location.live_bytes();
        }
        self.compacted = (index, term);
        while self.terms.get(1).is_some_and(|run| run.0 <= index + 1) {
            self.terms.pop_front();
        }
        if self.locations.is_empty() {
            self.terms.clear();
        }
        // Millions of entries may have gone: their room goes too.
        if self.locations.capacity() > 1024 && self.locations.len() < self.locations.capacity() / 4 {
            self.locations.shrink_to(self.locations.len() * 2);
        }
        dropped
    }

    /// The oldest log position that a live entry needs.
    pub(crate) fn oldest_entry(&self) -> Option<(u64, u64)> {
        let (first, last) = (self.first_index(), self.last_index());
        let in_order = first.max(self.rewritten_up_to + 1);
        // Copies of old entries lie anywhere behind; the others lie in order, so that their first is their oldest.
        (first..=self.rewritten_up_to.min(last))
            .chain((in_order <= last).then_some(in_order))
            .map(|index| (self.location(index).position(), index))
            .min()
    }
}
