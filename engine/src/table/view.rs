//! A consistent view of a group at one index, for writing snapshots, backups and a batch job's input.
//!
//! A view is the store's own view plus the memtables that were frozen when it was opened; newer memtables win. It can be
//! walked on any thread while the table goes on. It keeps memory and old files: bound its number and age.

use super::flush::{Frozen, GroupBase, store_error};
use super::memtable::SlotIter;
use super::node::Shared;
use super::records::RecordRows;
use super::rows;
use super::state::Table;
use super::{Applied, Object, SLOTS};
use crate::ledger::Category;
use crate::snapshot::SnapshotHeader;
use crate::store::{Rows, StoreView};
use crate::{GroupId, Result};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::iter::Peekable;
use std::sync::Arc;

/// What kind of row it is; keys come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum RowSpace {
    /// A key and what it holds.
    #[default]
    Keys,
    /// One of the host's records: its name, and its data as a string without a deadline.
    Records,
}

/// Where a row stands in the order of a view and of a snapshot: space, slot, hash, key.
pub(crate) type RowPlace = (RowSpace, u16, u64, Box<[u8]>);

/// A key and its object, in a view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewRow {
    /// What the row is.
    pub space: RowSpace,
    /// The key's slot.
    pub slot: u16,
    /// The key's hash; 0 for a record.
    pub hash: u64,
    /// The key, or the record's name.
    pub key: Box<[u8]>,
    /// What it holds.
    pub object: Object,
}

impl ViewRow {
    /// Where it stands in the order of rows.
    pub(crate) fn place(&self) -> RowPlace {
        (self.space, self.slot, self.hash, self.key.clone())
    }
}

/// A consistent view.
#[derive(Debug)]
pub struct View {
    shared: Arc<Shared>,
    group: GroupId,
    incarnation: u64,
    applied: Applied,
    attachment: Bytes,
    store: Box<dyn StoreView>,
    /// Newest first.
    frozen: Vec<Arc<Frozen>>,
    occupied: [u64; SLOTS / 64],
    posted: u64,
}

impl View {
    /// A view of what the store holds, without memtables. The caller has the write turn, or the view shows something in
    /// between.
    pub(super) fn of_store(shared: &Arc<Shared>, group: GroupId, base: &GroupBase) -> Result<View> {
        let mut occupied = [0; SLOTS / 64];
        for (slot, _) in base.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            occupied[slot / 64] |= 1 << (slot % 64);
        }
        Ok(View {
            shared: shared.clone(),
            group,
            incarnation: base.meta.incarnation,
            applied: base.applied(),
            attachment: base.meta.attachment.clone(),
            store: shared.store.view()?,
            frozen: Vec::new(),
            occupied,
            posted: 0,
        })
    }

    /// The group.
    pub fn group(&self) -> GroupId {
        self.group
    }

    /// The index that the view shows.
    pub fn applied(&self) -> Applied {
        self.applied
    }

    /// The incarnation at that index.
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// The header of a snapshot of the whole view.
    pub fn header(&self) -> SnapshotHeader {
        let whole = SnapshotHeader::whole(self.group, self.applied, self.incarnation);
        SnapshotHeader { conf_state: self.attachment.clone(), ..whole }
    }

    /// Every key of the slots from `first` to `last`, in (slot, hash, key) order, then every record in (slot, name) order. An
    /// error ends the walk.
    pub fn rows(&self, first: u16, last: u16) -> impl Iterator<Item = Result<ViewRow>> + Send + '_ {
        let last = last.min(SLOTS as u16 - 1);
        let (from, to) = rows::record_bounds(self.group, self.incarnation, first.min(last), last);
        let changes = self.frozen.iter().map(|frozen| &frozen.records);
        let records = RecordRows::new(self.store.range(&from, &to), changes, first, last);
        let slots = (first..=last).filter(|&slot| self.occupied[usize::from(slot) / 64] & (1 << (slot % 64)) != 0);
        let keys = slots.flat_map(|slot| SlotRows::new(self, slot));
        keys.chain(records).map(|row| row.map_err(|error| self.shared.locate(error)))
    }
}

impl Drop for View {
    fn drop(&mut self) {
        self.shared.ledger.sub(Category::Views, self.posted);
    }
}

impl Table {
    /// Opens a view of the present state. The active memtable is frozen for it.
    ///
    /// # Errors
    /// When the store can't give a view.
    pub fn view(&mut self) -> Result<View> {
        if !self.active.is_empty() || self.records.is_dirty() {
            self.freeze();
        }
        // NB: the store's view may already hold rows of a memtable that is also among `frozen`: they are the same.
        let store = self.shared.store.view()?;
        let frozen = self.frozen();
        let posted = frozen.iter().map(|frozen| frozen.memtable.bytes()).sum();
        self.shared.ledger.add(Category::Views, posted);
        Ok(View {
            shared: self.shared.clone(),
            group: self.group,
            incarnation: self.incarnation,
            applied: self.applied(),
            attachment: self.attachment().clone(),
            store,
            frozen,
            occupied: self.occupied(),
            posted,
        })
    }
}

/// Merges a slot's rows, one hash at a time: the order within a hash differs between the store and memtables.
struct SlotRows<'a> {
    slot: u16,
    store: Peekable<Rows<'a>>,
    /// Newest first.
    memtables: Vec<Peekable<SlotIter<'a>>>,
    /// The keys of one hash, last first.
    ready: Vec<ViewRow>,
    failed: bool,
}

impl<'a> SlotRows<'a> {
    fn new(view: &'a View, slot: u16) -> Self {
        let from = rows::data_bound(view.group, slot, view.incarnation, Some(0));
        let to = rows::data_bound(view.group, slot, view.incarnation, None);
        let memtables = view.frozen.iter().filter_map(|frozen| frozen.memtable.slot(slot));
        SlotRows {
            slot,
            store: view.store.range(&from, &to).peekable(),
            memtables: memtables.map(|map| map.iter_from(0).peekable()).collect(),
            ready: Vec::new(),
            failed: false,
        }
    }

    fn stored_hash(&mut self) -> Result<Option<u64>> {
        match self.store.peek() {
            None => Ok(None),
            Some(Ok((row, _))) => Ok(Some(rows::parse_data_key(row).map_err(store_error)?.hash)),
            Some(Err(_)) => match self.store.next() {
                Some(Err(error)) => Err(error),
                _ => Ok(None),
            },
        }
    }

    /// Gathers the next hash that has live keys; false at the end.
    fn gather(&mut self) -> Result<bool> {
        loop {
            let stored = self.stored_hash()?;
            let hashes = self.memtables.iter_mut().filter_map(|rows| rows.peek().map(|(hash, _)| *hash)).chain(stored);
            let Some(hash) = hashes.min() else { return Ok(false) };
            let mut keys: BTreeMap<Box<[u8]>, Option<Object>> = BTreeMap::new();
            for rows in &mut self.memtables {
                while let Some((_, entry)) = rows.next_if(|(next, _)| *next == hash) {
                    keys.entry(entry.key.clone()).or_insert_with(|| entry.object.clone());
                }
            }
            while self.stored_hash()? == Some(hash) {
                let Some(row) = self.store.next() else { break };
                let (row, value) = row?;
                match rows::parse_data_key(&row).map_err(store_error)?.key {
                    Some(key) => {
                        if !keys.contains_key(key) {
                            keys.insert(key.into(), Some(rows::parse_value(&value).map_err(store_error)?));
                        }
                    }
                    None => {
                        for (key, object) in rows::parse_bucket(&value).map_err(store_error)? {
                            keys.entry(key).or_insert(Some(object));
                        }
                    }
                }
            }
            let live = keys.into_iter().rev().filter_map(|(key, object)| Some((key, object?)));
            self.ready.extend(live.map(|(key, object)| ViewRow {
                space: RowSpace::Keys,
                slot: self.slot,
                hash,
                key,
                object,
            }));
            if !self.ready.is_empty() {
                return Ok(true);
            }
        }
    }
}

impl Iterator for SlotRows<'_> {
    type Item = Result<ViewRow>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        if self.ready.is_empty() {
            match self.gather() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => {
                    self.failed = true;
                    return Some(Err(error));
                }
            }
        }
        self.ready.pop().map(Ok)
    }
}
