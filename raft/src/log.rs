//! The core's view of the log: the host's stored part and the tail that is still in memory.
//!
//! # Picture
//! ```text
//!      base          delivered   persisted    staged      last
//!  ─────┼───────────────┼────────────┼───────────┼──────────┤
//!       │ host's log (LogReader)     │ in writes │ not yet  │
//!       │               │            │ under way │ written  │
//!                    ├─────────── tail (in memory) ─────────┤
//!                 commit moves independently between delivered and last
//! ```
//! # Flow
//! Entries enter at `last` (proposed here, or appended by a leader), are *staged* into a write, become *persisted* when
//! the host reports that write, *committed* when a majority has them, *delivered* when handed out for apply, and
//! *applied* when the host says so. The tail holds at least everything not persisted; what it still holds beyond that
//! spares the host a read.
//!
//! # Invariants
//! `base ≤ applied ≤ delivered ≤ commit ≤ last`, `delivered ≤ persisted ≤ staged ≤ last`. `commit ≤ persisted` need
//! *not* hold on a follower: others may have made the majority. Each is asserted, in release too.

use std::collections::VecDeque;

use crate::{
    defects::{self, Defect},
    entry::Entry,
    error::LogError,
    terms::Terms,
};

/// The host's log, as far as the core may see it: read only.
///
/// The host is the only writer. It must be able to give every entry up to the last one whose write it has reported with
/// [`Raft::persisted`](crate::Raft::persisted); the core never asks for later ones. The host may compact the prefix up to
/// what it reported applied, whenever it likes.
pub trait LogReader {
    /// The index of the first entry that can be had: one after what was compacted (1 for a log never compacted).
    fn first_index(&self) -> u64;

    /// The index of the last stored entry; `first_index() - 1` if there is none.
    fn last_index(&self) -> u64;

    /// The term of the entry at `index`, which lies in `first_index() - 1 ..= last_index()`: the term of the entry just
    /// before the first one is kept when a log is compacted (0 for index 0).
    ///
    /// # Errors
    /// [`LogError`] says why it can't be had.
    fn term(&self, index: u64) -> Result<u64, LogError>;

    /// The entries from `low` up to, not including, `high`: at least one, and as many more as fit into `bytes_max`
    /// (counting [`Entry::size_bytes`]). Fewer are allowed.
    ///
    /// # Errors
    /// [`LogError`] says why they can't be had.
    fn entries(&self, low: u64, high: u64, bytes_max: usize) -> Result<Vec<Entry>, LogError>;
}

/// The core's view of the log.
#[derive(Debug)]
pub(crate) struct Log {
    terms: Terms,
    /// The newest entries, the last one at the back; empty if all is with the host.
    tail: VecDeque<Entry>,
    tail_bytes: usize,
    staged: u64,
    persisted: u64,
    commit: u64,
    delivered: u64,
    applied: u64,
}

/// What an append did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Appended {
    /// The entries were already there.
    Nothing,
    /// Entries were added after the last one.
    Extended,
    /// Entries from this index on were replaced.
    Replaced { from: u64 },
}

impl Log {
    /// The view on a stored log. The caller has checked the order of the indexes.
    pub(crate) fn new(terms: Terms, commit: u64, applied: u64) -> Log {
        let last = terms.last();
        let log = Log {
            terms,
            tail: VecDeque::new(),
            tail_bytes: 0,
            staged: last,
            persisted: last,
            commit,
            delivered: applied,
            applied,
        };
        log.assert_ladder();
        log
    }

    pub(crate) fn base(&self) -> u64 {
        self.terms.base()
    }

    pub(crate) fn last(&self) -> u64 {
        self.terms.last()
    }

    pub(crate) fn last_term(&self) -> u64 {
        self.terms.last_term()
    }

    pub(crate) fn term(&self, index: u64) -> Option<u64> {
        self.terms.term(index)
    }

    pub(crate) fn persisted(&self) -> u64 {
        self.persisted
    }

    pub(crate) fn commit(&self) -> u64 {
        self.commit
    }

    pub(crate) fn delivered(&self) -> u64 {
        self.delivered
    }

    pub(crate) fn applied(&self) -> u64 {
        self.applied
    }

    pub(crate) fn tail_bytes(&self) -> usize {
        self.tail_bytes
    }

    /// See [`Terms::last_at_most`].
    pub(crate) fn last_at_most(&self, index: u64, term: u64) -> (u64, u64) {
        self.terms.last_at_most(index, term)
    }

    /// Whether a log ending in this entry is at least as complete as ours.
    pub(crate) fn is_up_to_date(&self, last_index: u64, last_term: u64) -> bool {
        (last_term, last_index) >= (self.last_term(), self.last()) || defects::has(Defect::VoteWithoutLogCheck)
    }

    /// Whether our log holds this entry. What lies below the base is committed and equal everywhere.
    pub(crate) fn matches(&self, index: u64, term: u64) -> bool {
        index < self.base() || self.term(index) == Some(term)
    }

    /// Adds one entry right after the last.
    pub(crate) fn push(&mut self, entry: Entry) {
        self.terms.push(entry.index, entry.term);
        self.tail_bytes += entry.size_bytes();
        self.tail.push_back(entry);
    }

    /// Adds a leader's entries, which follow an entry that matches. Equal ones are skipped; the first conflicting one
    /// cuts all that follows it.
    ///
    /// # Errors
    /// (index, our term, their term) of a conflict with a committed entry; the log is unchanged then.
    pub(crate) fn append(&mut self, entries: Vec<Entry>) -> Result<Appended, (u64, u64, u64)> {
        let equal = entries.iter().take_while(|entry| self.matches(entry.index, entry.term)).count();
        let Some(first_new) = entries.get(equal) else {
            return Ok(Appended::Nothing);
        };
        let from = first_new.index;
        let mut appended = Appended::Extended;
        if from <= self.last() {
            if from <= self.commit {
                return Err((from, self.term(from).unwrap_or(0), first_new.term));
            }
            self.truncate(from - 1);
            appended = Appended::Replaced { from };
        }
        for entry in entries.into_iter().skip(equal) {
            self.push(entry);
        }
        Ok(appended)
    }

    /// Cuts everything after `last`.
    pub(crate) fn truncate(&mut self, last: u64) {
        assert!(last >= self.commit, "cut after {last} would drop committed entries up to {}", self.commit);
        self.terms.truncate(last);
        while self.tail.back().is_some_and(|entry| entry.index > last) {
            self.pop_tail_back();
        }
        self.staged = self.staged.min(last);
        self.persisted = self.persisted.min(last);
    }

    fn pop_tail_back(&mut self) {
        if let Some(entry) = self.tail.pop_back() {
            self.tail_bytes -= entry.size_bytes();
        }
    }

    fn pop_tail_front(&mut self) -> Option<Entry> {
        let entry = self.tail.pop_front()?;
        self.tail_bytes -= entry.size_bytes();
        Some(entry)
    }

    /// Where the tail begins; one after the last entry if it is empty.
    fn tail_first(&self) -> u64 {
        self.last() + 1 - self.tail.len() as u64
    }

    /// Whether entries wait to be put into a write.
    pub(crate) fn has_unstaged(&self) -> bool {
        self.staged < self.last()
    }

    /// Takes the entries for the next write.
    pub(crate) fn stage(&mut self) -> Vec<Entry> {
        let from = (self.staged + 1 - self.tail_first()) as usize;
        assert!(self.staged + 1 >= self.tail_first(), "an entry left the memory before it was written");
        self.staged = self.last();
        self.tail.range(from..).cloned().collect()
    }

    /// A write that ended in entry `index` is on disk.
    pub(crate) fn set_persisted(&mut self, index: u64) {
        assert!(index <= self.staged, "entry {index} is reported written, but only {} were handed out", self.staged);
        self.persisted = self.persisted.max(index);
    }

    /// Moves the commit index up; never down.
    pub(crate) fn commit_to(&mut self, index: u64) -> bool {
        if index <= self.commit {
            return false;
        }
        assert!(index <= self.last(), "commit {index} beyond the last entry {}", self.last());
        self.commit = index;
        true
    }

    /// The payload bytes of the entries in `low..=high` that are in memory.
    pub(crate) fn bytes_between(&self, low: u64, high: u64) -> usize {
        let first = self.tail_first();
        let from = low.max(first) - first;
        let to = (high + 1).max(first) - first;
        if from >= to { 0 } else { self.tail.range(from as usize..to as usize).map(Entry::size_bytes).sum() }
    }

    /// Whether something can be handed out for apply.
    pub(crate) fn has_deliverable(&self) -> bool {
        self.delivered < self.commit.min(self.persisted)
    }

    /// Takes committed entries for apply, at least one and up to about `bytes_max` more. Only what is persisted *here*
    /// is given, so that applied state never runs ahead of this replica's own log. With `keep` the entries stay in
    /// memory as well, for followers that are a little behind.
    pub(crate) fn deliver(
        &mut self,
        reader: &dyn LogReader,
        bytes_max: usize,
        keep: bool,
    ) -> Result<Vec<Entry>, LogError> {
        let end = self.commit.min(self.persisted);
        let low = self.delivered + 1;
        assert!(low <= end, "nothing to deliver");
        let first = self.tail_first();
        let entries = if low < first {
            let entries = reader.entries(low, first.min(end + 1), bytes_max)?;
            check_run(&entries, low, end)?;
            entries
        } else {
            let mut bytes = 0;
            let mut count = 0;
            for entry in self.tail.range((low - first) as usize..) {
                bytes += entry.size_bytes();
                if entry.index > end || (count > 0 && bytes > bytes_max) {
                    break;
                }
                count += 1;
            }
            let from = (low - first) as usize;
            if keep {
                self.tail.range(from..from + count).cloned().collect()
            } else {
                // What precedes `low` was kept for followers and goes too.
                (0..from).for_each(|_| drop(self.pop_tail_front()));
                let mut entries = Vec::with_capacity(count);
                (0..count).for_each(|_| entries.extend(self.pop_tail_front()));
                entries
            }
        };
        let last = entries.last().map_or(self.delivered, |entry| entry.index);
        assert!(last > self.delivered && last <= end, "delivered {last} outside {low}..={end}");
        self.delivered = last;
        Ok(entries)
    }

    /// Entries for a follower from `low` on, up to about `bytes_max`. They come from memory where possible. May end
    /// early at the border between host and memory.
    pub(crate) fn entries(&self, reader: &dyn LogReader, low: u64, bytes_max: usize) -> Result<Vec<Entry>, LogError> {
        let first = self.tail_first();
        if low < first {
            let entries = reader.entries(low, first, bytes_max)?;
            check_run(&entries, low, first - 1)?;
            return Ok(entries);
        }
        let mut bytes = 0;
        let mut entries = Vec::new();
        for entry in self.tail.range((low - first) as usize..) {
            bytes += entry.size_bytes();
            if !entries.is_empty() && bytes > bytes_max {
                break;
            }
            entries.push(entry.clone());
        }
        Ok(entries)
    }

    /// Lets go of persisted entries from the front of the tail until it fits into `bytes_max`.
    pub(crate) fn shrink_tail(&mut self, bytes_max: usize) {
        while self.tail_bytes > bytes_max && self.tail.front().is_some_and(|entry| entry.index <= self.persisted) {
            self.pop_tail_front();
        }
    }

    /// The host applied everything up to `index`.
    pub(crate) fn set_applied(&mut self, index: u64) {
        assert!(
            index <= self.delivered,
            "entry {index} is reported applied, but only {} were handed out",
            self.delivered
        );
        self.applied = self.applied.max(index);
        self.assert_ladder();
    }

    /// The host compacted its log; its first entry is `first_index` now.
    pub(crate) fn follow_compaction(&mut self, first_index: u64) {
        if first_index > self.base() + 1 {
            let base = first_index - 1;
            assert!(base <= self.applied, "the log was compacted to {base}, but only {} is applied", self.applied);
            self.terms.compact(base);
        }
    }

    /// Replaces the whole log by a snapshot.
    pub(crate) fn restore(&mut self, index: u64, term: u64) {
        assert!(index > self.commit, "a snapshot at {index} is older than the commit index {}", self.commit);
        self.terms = Terms::new(index, term);
        self.tail.clear();
        self.tail_bytes = 0;
        self.staged = index;
        self.persisted = index;
        self.commit = index;
        self.delivered = index;
        self.applied = index;
        self.assert_ladder();
    }

    /// Takes over a snapshot of applied state while keeping the log after it, which the snapshot's entry belongs to.
    pub(crate) fn restore_state(&mut self, index: u64, term: u64) {
        assert!(
            index >= self.delivered && index <= self.persisted && self.term(index) == Some(term),
            "the snapshot doesn't fit the log"
        );
        self.commit_to(index);
        self.terms.compact(index);
        while self.tail.front().is_some_and(|entry| entry.index <= index) {
            self.pop_tail_front();
        }
        self.delivered = index;
        self.applied = index;
        self.assert_ladder();
    }

    /// Asserts the order of all indexes. Cheap, and on in release: a broken ladder loses data later.
    pub(crate) fn assert_ladder(&self) {
        assert!(
            self.base() <= self.applied
                && self.applied <= self.delivered
                && self.delivered <= self.commit
                && self.commit <= self.last()
                && self.delivered <= self.persisted
                && self.persisted <= self.staged
                && self.staged <= self.last(),
            "the index ladder is broken: {self:?}"
        );
        assert!(self.tail_first() <= self.persisted + 1, "entries left the memory before they were written: {self:?}");
    }
}

/// Checks that the host gave the run of entries that it was asked for.
fn check_run(entries: &[Entry], low: u64, end: u64) -> Result<(), LogError> {
    let consecutive = entries.iter().zip(low..).all(|(entry, index)| entry.index == index);
    if entries.is_empty() || !consecutive || entries.len() as u64 > end + 1 - low {
        return Err(LogError::Damaged(format!("asked for entries {low}..={end}, got another run")));
    }
    Ok(())
}
