//! Records: small rows beside the keys, which no command sees and FLUSHALL leaves alone.
//!
//! The host keeps in them what must be as durable as the data and change in the same entry, but is no key: what exactly-once
//! sessions remember. A record belongs to a slot, so that it can move with it.
//!
//! ```text
//!   apply ──▶ put_record ──▶ map (all records)                 read ◀── map, always: the store is never asked
//!                              │  dirty: changed since the last freeze
//!                              └──freeze──▶ changes of the frozen memtable ──▶ the same generation as its keys
//! ```
//!
//! All records are in memory; the store's copy is only read when a table is opened and when a view is walked. The host bounds
//! their number and length, by [`Table::records_bytes`].
//!
//! Rows carry the incarnation, as keys do, so that installing a snapshot replaces all of them at once. An incarnation that
//! FLUSHALL begins takes the records along: all count as changed then, and the next generation writes them anew.

use super::flush::store_error;
use super::state::Table;
use super::view::{RowSpace, ViewRow};
use super::{Object, SLOTS, rows};
use crate::store::{ReadRows, Rows};
use crate::{GroupId, Result};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, btree_map};
use std::iter::Peekable;
use std::ops::{Bound, Deref};
use std::sync::Arc;

/// The length of a record's name, in bytes.
pub const RECORD_NAME_BYTES: usize = 24;
/// The longest record, in bytes.
pub const RECORD_BYTES_MAX: usize = 1 << 20;
/// What a record takes beside its data: its share of the map's nodes, and the head of an allocation if it is long. Measured by a test of the server.
pub const RECORD_OVERHEAD_BYTES: u64 = 96;
/// All records together, as a snapshot may bring them. What the host allows is much less.
const RECORDS_BYTES_MAX: u64 = 4 << 30;

/// Where a record belongs and what it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordKey {
    /// Its slot, 0..16384.
    pub slot: u16,
    /// Its name.
    pub name: [u8; RECORD_NAME_BYTES],
}

/// A record's data of so many bytes lies in the map itself: most sessions remember one short reply.
const SHORT_BYTES: usize = 30;

/// A record's data: cheap to clone, and in the map without an allocation of its own where it is short.
#[derive(Debug, Clone)]
pub(crate) enum RecordData {
    Short { length: u8, bytes: [u8; SHORT_BYTES] },
    Long(Arc<[u8]>),
}

impl From<&[u8]> for RecordData {
    fn from(data: &[u8]) -> RecordData {
        let mut bytes = [0; SHORT_BYTES];
        match bytes.get_mut(..data.len()) {
            Some(place) => {
                place.copy_from_slice(data);
                RecordData::Short { length: data.len() as u8, bytes }
            }
            None => RecordData::Long(data.into()),
        }
    }
}

impl Deref for RecordData {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            RecordData::Short { length, bytes } => &bytes[..usize::from(*length)],
            RecordData::Long(data) => data,
        }
    }
}

/// Records that changed, in ascending order; `None` for one that is gone.
pub(crate) type RecordChanges = Vec<(RecordKey, Option<RecordData>)>;

/// All records of a group.
///
/// Invariant: `bytes` is the sum over `map` of [`RECORD_OVERHEAD_BYTES`] and the data's length.
#[derive(Debug, Default)]
pub(crate) struct Records {
    map: BTreeMap<RecordKey, RecordData>,
    /// Changed since the last freeze.
    dirty: BTreeSet<RecordKey>,
    bytes: u64,
}

/// What a record counts for.
fn cost(data: &[u8]) -> u64 {
    RECORD_OVERHEAD_BYTES + data.len() as u64
}

/// Refuses what no correct node stores: a record, or with it all records together.
fn check_limits(key: RecordKey, data: &[u8], bytes: u64) -> Result<()> {
    if data.len() > RECORD_BYTES_MAX || bytes > RECORDS_BYTES_MAX {
        return Err(store_error(format!("a record of slot {} is beyond the limits", key.slot)));
    }
    Ok(())
}

impl Records {
    /// Reads what the store has of an incarnation.
    pub(crate) fn load(store: &dyn ReadRows, group: GroupId, incarnation: u64) -> Result<Self> {
        let (from, to) = rows::record_bounds(group, incarnation, 0, SLOTS as u16 - 1);
        let mut all: Vec<(RecordKey, RecordData)> = Vec::new();
        let mut bytes = 0;
        for row in store.range(&from, &to) {
            let (row, data) = row?;
            let (_, key) = rows::parse_record_key(&row).map_err(store_error)?;
            bytes += cost(&data);
            check_limits(key, &data, bytes)?;
            all.push((key, RecordData::from(data.as_ref())));
        }
        // NB: at once: a map that grows by one after the other leaves nearly half of its nodes empty, and memory in pieces.
        Ok(Records { map: all.into_iter().collect(), dirty: BTreeSet::new(), bytes })
    }

    /// Gives back the room that inserting in order leaves in the map's nodes: nearly half.
    pub(crate) fn pack(&mut self) {
        self.map = std::mem::take(&mut self.map).into_iter().collect();
    }

    /// Takes in a record that the store has.
    pub(crate) fn insert(&mut self, key: RecordKey, data: &[u8]) -> Result<()> {
        self.set(key, Some(data));
        check_limits(key, data, self.bytes)
    }

    fn set(&mut self, key: RecordKey, data: Option<&[u8]>) {
        let before = match data {
            Some(data) => {
                self.bytes += cost(data);
                self.map.insert(key, data.into())
            }
            None => self.map.remove(&key),
        };
        self.bytes -= before.map_or(0, |data| cost(&data));
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// An incarnation begins that takes the records along.
    pub(crate) fn all_changed(&mut self) {
        // What went since the last freeze needn't go again: nothing of the new incarnation is in the store.
        self.dirty = self.map.keys().copied().collect();
    }

    /// What changed since this was last asked.
    pub(crate) fn take_changes(&mut self) -> RecordChanges {
        std::mem::take(&mut self.dirty).into_iter().map(|key| (key, self.map.get(&key).cloned())).collect()
    }
}

impl Table {
    /// A record's data.
    pub fn record(&self, key: &RecordKey) -> Option<&[u8]> {
        self.records.map.get(key).map(|data| &**data)
    }

    /// Sets a record.
    ///
    /// # Panics
    /// When it is longer than [`RECORD_BYTES_MAX`], or its slot out of range: the store would refuse to open.
    pub fn put_record(&mut self, key: RecordKey, data: &[u8]) {
        assert!(data.len() <= RECORD_BYTES_MAX && usize::from(key.slot) < SLOTS, "a record is within its limits");
        self.records.set(key, Some(data));
        self.records.dirty.insert(key);
    }

    /// Removes a record, present or not.
    pub fn delete_record(&mut self, key: &RecordKey) {
        self.records.set(*key, None);
        self.records.dirty.insert(*key);
    }

    /// The records after one, in ascending order; from the first for `None`.
    pub fn records_after(&self, after: Option<RecordKey>) -> impl Iterator<Item = (&RecordKey, &[u8])> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.records.map.range((from, Bound::Unbounded)).map(|(key, data)| (key, &**data))
    }

    /// How many records there are.
    pub fn records_len(&self) -> usize {
        self.records.map.len()
    }

    /// What records take in memory, in bytes, about: a function of their number and length alone, the same on every replica.
    pub fn records_bytes(&self) -> u64 {
        self.records.bytes
    }
}

/// A view's records: the store's, under what changed since.
pub(super) struct RecordRows<'a> {
    store: Peekable<Rows<'a>>,
    changes: Peekable<btree_map::IntoIter<RecordKey, Option<RecordData>>>,
    failed: bool,
}

impl<'a> RecordRows<'a> {
    /// The records of the slots from `first` to `last`; `changes` are newest first.
    pub(super) fn new(
        store: Rows<'a>,
        changes: impl Iterator<Item = &'a RecordChanges>,
        first: u16,
        last: u16,
    ) -> RecordRows<'a> {
        let mut newest = BTreeMap::new();
        for (key, data) in changes.flatten().filter(|(key, _)| (first..=last).contains(&key.slot)) {
            newest.entry(*key).or_insert_with(|| data.clone());
        }
        RecordRows { store: store.peekable(), changes: newest.into_iter().peekable(), failed: false }
    }

    fn advance(&mut self) -> Result<Option<ViewRow>> {
        loop {
            let stored = match self.store.peek() {
                Some(Ok((row, _))) => Some(rows::parse_record_key(row).map_err(store_error)?.1),
                Some(Err(_)) | None => None,
            };
            match (stored, self.changes.peek()) {
                (Some(stored), Some((changed, _))) if stored == *changed => drop(self.store.next()),
                (None, Some((changed, data))) if self.store.peek().is_none() => {
                    let row = data.as_ref().map(|data| row_of(changed, data));
                    self.changes.next();
                    if row.is_some() {
                        return Ok(row);
                    }
                }
                (Some(stored), Some((changed, data))) if *changed < stored => {
                    let row = data.as_ref().map(|data| row_of(changed, data));
                    self.changes.next();
                    if row.is_some() {
                        return Ok(row);
                    }
                }
                _ => {
                    let Some(row) = self.store.next() else { return Ok(None) };
                    let (row, data) = row?;
                    let (_, key) = rows::parse_record_key(&row).map_err(store_error)?;
                    return Ok(Some(row_of(&key, &data)));
                }
            }
        }
    }
}

fn row_of(key: &RecordKey, data: &[u8]) -> ViewRow {
    let object = Object::string(Bytes::copy_from_slice(data));
    ViewRow { space: RowSpace::Records, slot: key.slot, hash: 0, key: key.name.as_slice().into(), object }
}

impl Iterator for RecordRows<'_> {
    type Item = Result<ViewRow>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let row = self.advance().transpose();
        self.failed = matches!(row, Some(Err(_)));
        row
    }
}
