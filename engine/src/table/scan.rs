//! SCAN: walking the keys in an order that every replica shares.
//!
//! The order is (slot, hash, key). A cursor is a slot and the top 50 bits of a hash ([`ScanPosition`]), so that it needs no
//! state anywhere and survives flushes, restarts and fail-over; in return all keys that share those bits are returned
//! together.
//!
//! A [`ScanJob`] reads the store and the memtables that were frozen when it began, on any thread; finishing it on the
//! shard thread lays the memtables of that moment over its rows. Each source is read up to its own limit and so is complete
//! up to some position; the page ends at the first of those.

use super::flush::Frozen;
use super::memtable::Memtable;
use super::node::Shared;
use super::state::Table;
use super::{KeyRef, ObjectKind, SLOTS, rows};
use crate::store::ReadRows;
use crate::{GroupId, Result};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Hash bits below a cursor's resolution.
const FOLD_BITS: u32 = 14;

/// Where a scan goes on: a slot, and the top 50 bits of a hash in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct ScanPosition {
    /// The slot.
    pub slot: u16,
    /// The top 50 bits of the first hash.
    pub hash50: u64,
}

impl ScanPosition {
    /// The position of a key.
    pub fn of(key: KeyRef<'_>) -> Self {
        ScanPosition { slot: key.slot, hash50: key.hash >> FOLD_BITS }
    }

    /// The position right after; `None` after the last slot.
    pub fn next(self) -> Option<Self> {
        if self.hash50 < u64::MAX >> FOLD_BITS {
            return Some(ScanPosition { slot: self.slot, hash50: self.hash50 + 1 });
        }
        (usize::from(self.slot) + 1 < SLOTS).then(|| ScanPosition { slot: self.slot + 1, hash50: 0 })
    }

    fn hash(self) -> u64 {
        self.hash50 << FOLD_BITS
    }
}

/// A key that a scan found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanRow {
    /// The key's slot.
    pub slot: u16,
    /// The key's hash.
    pub hash: u64,
    /// The key.
    pub key: Box<[u8]>,
    /// What it holds.
    pub kind: ObjectKind,
    /// When it expires, in milliseconds since the epoch; 0 for never. Expired keys are among the rows.
    pub deadline_ms: u64,
}

impl ScanRow {
    /// The key, borrowed.
    pub fn key_ref(&self) -> KeyRef<'_> {
        KeyRef { slot: self.slot, hash: self.hash, key: &self.key }
    }
}

/// Keys in (slot, hash, key) order, and where to go on; `None` at the end. A page may be empty and not the last.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ScanPage {
    /// The keys.
    pub rows: Vec<ScanRow>,
    /// Where the next page begins.
    pub next: Option<ScanPosition>,
}

/// A page being read. [`ScanJob::run`] it anywhere, then [`Table::finish_scan`].
#[derive(Debug)]
pub struct ScanJob {
    shared: Arc<Shared>,
    group: GroupId,
    incarnation: u64,
    active_id: u64,
    from: ScanPosition,
    limit: usize,
    /// Whether the store holds anything of the slots in question.
    stored_any: bool,
    frozen: Vec<Arc<Frozen>>,
    /// Slots with rows in the store.
    stored: [u64; SLOTS / 64],
}

/// The rows of a [`ScanJob`], to be finished on the shard thread.
#[derive(Debug)]
pub struct ScanOutcome {
    incarnation: u64,
    active_id: u64,
    from: ScanPosition,
    limit: usize,
    found: Found,
}

type RowKey = (u16, u64, Box<[u8]>);
/// Kind and deadline; `None` for a tombstone.
type RowState = Option<(ObjectKind, u64)>;

/// Rows gathered so far, and the first position that is not complete.
#[derive(Debug, Default)]
struct Found {
    rows: BTreeMap<RowKey, RowState>,
    end: Option<ScanPosition>,
}

impl Found {
    fn limit_to(&mut self, end: Option<ScanPosition>) {
        self.end = match (self.end, end) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }

    /// Lays a memtable over what was found in older sources.
    fn overlay(&mut self, memtable: &Memtable, from: ScanPosition, limit: usize) {
        let mut taken = 0;
        let mut last = None;
        for (slot, map) in memtable.slots_from(from.slot) {
            let start = if slot == from.slot { from.hash() } else { 0 };
            for (hash, entry) in map.iter_from(start) {
                let position = ScanPosition { slot, hash50: hash >> FOLD_BITS };
                if (taken >= limit && last != Some(position)) || self.end.is_some_and(|end| position >= end) {
                    return self.limit_to(Some(position));
                }
                let state = entry.object.as_ref().map(|object| (object.kind, object.deadline_ms));
                self.rows.insert((slot, hash, entry.key.clone()), state);
                taken += 1;
                last = Some(position);
            }
        }
    }

    fn read_store(&mut self, store: &dyn ReadRows, job: &ScanJob) -> Result<()> {
        let mut taken = 0;
        let mut last = None;
        for slot in job.from.slot..SLOTS as u16 {
            if job.stored[usize::from(slot) / 64] & (1 << (slot % 64)) == 0 {
                continue;
            }
            let start = if slot == job.from.slot { job.from.hash() } else { 0 };
            let from = rows::data_bound(job.group, slot, job.incarnation, Some(start));
            let to = rows::data_bound(job.group, slot, job.incarnation, None);
            for row in store.range(&from, &to) {
                let (row, value) = row?;
                let parsed = rows::parse_data_key(&row).map_err(super::flush::store_error)?;
                let position = ScanPosition { slot, hash50: parsed.hash >> FOLD_BITS };
                if taken >= job.limit && last != Some(position) {
                    self.limit_to(Some(position));
                    return Ok(());
                }
                let malformed = super::flush::store_error;
                match parsed.key {
                    Some(key) => {
                        let head = rows::parse_value_head(&value).map_err(malformed)?;
                        self.rows.insert((slot, parsed.hash, key.into()), Some((head.kind, head.deadline_ms)));
                        taken += 1;
                    }
                    None => {
                        for (key, object) in rows::parse_bucket(&value).map_err(malformed)? {
                            self.rows.insert((slot, parsed.hash, key), Some((object.kind, object.deadline_ms)));
                            taken += 1;
                        }
                    }
                }
                last = Some(position);
            }
        }
        Ok(())
    }
}

impl ScanJob {
    /// Whether running the job reads the store, and so may block on the disk.
    pub fn needs_store(&self) -> bool {
        self.stored_any
    }

    /// Reads the page's rows from the store and the frozen memtables.
    ///
    /// # Errors
    /// When the store fails or its bytes are damaged.
    pub fn run(self) -> Result<ScanOutcome> {
        let mut found = Found::default();
        if self.stored_any {
            // NB: no view is needed. Whatever a flush adds meanwhile comes from a memtable that is laid over these rows, now
            // or when the page is finished, or else finishing it fails.
            found.read_store(&*self.shared.store, &self).map_err(|error| self.shared.locate(error))?;
        }
        for frozen in self.frozen.iter().rev() {
            found.overlay(&frozen.memtable, self.from, self.limit);
        }
        Ok(ScanOutcome {
            incarnation: self.incarnation,
            active_id: self.active_id,
            from: self.from,
            limit: self.limit,
            found,
        })
    }
}

impl Table {
    /// Begins a page of about `limit` keys from a position on.
    ///
    /// # Panics
    /// When the slot is out of range.
    pub fn scan(&self, from: ScanPosition, limit: usize) -> ScanJob {
        assert!(usize::from(from.slot) < SLOTS, "slot {} is out of range", from.slot);
        let mut stored = [0u64; SLOTS / 64];
        for (slot, _) in self.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            stored[slot / 64] |= 1 << (slot % 64);
        }
        let stored_any = self.counts[usize::from(from.slot)..].iter().any(|&count| count > 0);
        ScanJob {
            shared: self.shared.clone(),
            group: self.group,
            incarnation: self.incarnation,
            active_id: self.active_id,
            from,
            limit: limit.max(1),
            stored_any,
            frozen: self.frozen(),
            stored,
        }
    }

    /// Completes a page with what is in memory now. Every key that existed from the job's beginning until now is in the
    /// page if its position is. Returns `None` when a flush came between: scan again from the same position.
    pub fn finish_scan(&self, outcome: ScanOutcome) -> Option<ScanPage> {
        // What was active when the job began has left memory since: the job didn't see it, and neither would we.
        if self.incarnation != outcome.incarnation || self.retired_id >= outcome.active_id {
            return None;
        }
        let ScanOutcome { from, limit, mut found, .. } = outcome;
        for frozen in self.frozen().iter().rev() {
            found.overlay(&frozen.memtable, from, limit);
        }
        found.overlay(&self.active, from, limit);
        let mut page = ScanPage { rows: Vec::new(), next: found.end };
        let mut last = None;
        for ((slot, hash, key), state) in found.rows {
            let position = ScanPosition { slot, hash50: hash >> FOLD_BITS };
            if found.end.is_some_and(|end| position >= end) {
                break;
            }
            if page.rows.len() >= limit && last != Some(position) {
                page.next = Some(position);
                break;
            }
            last = Some(position);
            if let Some((kind, deadline_ms)) = state {
                page.rows.push(ScanRow { slot, hash, key, kind, deadline_ms });
            }
        }
        Some(page)
    }

    /// The first slot from `from` on that may hold keys.
    pub fn next_occupied_slot(&self, from: u16) -> Option<u16> {
        let bits = self.occupied();
        (from..SLOTS as u16).find(|&slot| bits[usize::from(slot) / 64] & (1 << (slot % 64)) != 0)
    }
}
