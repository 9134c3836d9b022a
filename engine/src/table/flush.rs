//! From a frozen memtable to a generation in the checkpoint store.
//!
//! The flusher walks the memtable in order and pushes its rows. Where an entry does not know what lies below it, the store is
//! asked now: the row is needed to keep counts exact and to remove the old deadline's index row. Index rows, counts and the
//! applied index follow in the same generation, the applied index last.

use super::memtable::{Entry, Memtable, Prior};
use super::node::Shared;
use super::object::{Head, Stored};
use super::records::RecordChanges;
use super::rows::{self, Meta};
use super::{Applied, KeyRef, Object, SLOTS};
use crate::store::{ReadRows, RowSink};
use crate::{Error, GroupId, Result};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Locks a mutex whose holders leave their data whole even when they panic.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the store holds of a group, as of its last generation. Only writers of generations change it.
#[derive(Debug)]
pub(crate) struct GroupBase {
    pub(crate) meta: Meta,
    /// Keys per slot.
    pub(crate) counts: Vec<u32>,
    /// An incarnation that an install is writing; a purge must spare it.
    pub(crate) installing: Option<u64>,
}

impl Default for GroupBase {
    fn default() -> Self {
        GroupBase { meta: Meta::default(), counts: vec![0; SLOTS], installing: None }
    }
}

impl GroupBase {
    pub(crate) fn applied(&self) -> Applied {
        Applied { index: self.meta.index, term: self.meta.term, stamp_ms: self.meta.stamp_ms }
    }
}

/// A memtable that takes no more writes, with what must be known to flush it.
#[derive(Debug)]
pub(crate) struct Frozen {
    pub(crate) group: GroupId,
    pub(crate) id: u64,
    pub(crate) incarnation: u64,
    pub(crate) applied: Applied,
    pub(crate) memtable: Memtable,
    /// Records that changed since the memtable before.
    pub(crate) records: RecordChanges,
    /// The host's words as of `applied`.
    pub(crate) attachment: Bytes,
    pub(crate) base: Arc<Mutex<GroupBase>>,
    /// Seal a snapshot after this, on a store that needs them.
    pub(crate) seal: bool,
    /// The incarnation is over: there is no point in writing this any more.
    pub(crate) superseded: AtomicBool,
    /// Set before the first row may become visible in the store.
    pub(crate) started: AtomicBool,
    outcome: Mutex<Option<Result<Outcome, String>>>,
    finished: Condvar,
}

/// What came of a flush.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outcome {
    /// Change of key counts by slot.
    pub(crate) deltas: Vec<(u16, i64)>,
    /// How far the log may be cut, if that moved.
    pub(crate) durable: Option<Applied>,
    /// The soonest deadline in the generation.
    pub(crate) soonest_deadline_ms: Option<u64>,
}

impl Frozen {
    pub(crate) fn new(
        group: GroupId,
        id: u64,
        incarnation: u64,
        applied: Applied,
        memtable: Memtable,
        base: Arc<Mutex<GroupBase>>,
    ) -> Self {
        Frozen {
            group,
            id,
            incarnation,
            applied,
            memtable,
            records: RecordChanges::new(),
            attachment: Bytes::new(),
            base,
            seal: false,
            superseded: AtomicBool::new(false),
            started: AtomicBool::new(false),
            outcome: Mutex::new(None),
            finished: Condvar::new(),
        }
    }

    pub(crate) fn outcome(&self) -> Option<Result<Outcome, String>> {
        lock(&self.outcome).clone()
    }

    /// Blocks until the flush is over.
    pub(crate) fn wait(&self) -> Result<Outcome, String> {
        let mut outcome = lock(&self.outcome);
        loop {
            if let Some(outcome) = outcome.as_ref() {
                return outcome.clone();
            }
            outcome = self.finished.wait(outcome).unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub(crate) fn finish(&self, outcome: Result<Outcome, String>) {
        *lock(&self.outcome) = Some(outcome);
        self.finished.notify_all();
    }
}

/// Writes a frozen memtable to the store. The caller holds the node's write turn.
pub(crate) fn write_generation(shared: &Shared, frozen: &Frozen) -> Result<Outcome> {
    let (counts, meta_before) = {
        let base = lock(&frozen.base);
        (base.counts.clone(), base.meta.clone())
    };
    if frozen.superseded.load(Ordering::Acquire) || meta_before.incarnation > frozen.incarnation {
        // Its incarnation is over: an outcome without effect.
        return Ok(Outcome::default());
    }
    assert!(
        frozen.applied.index >= meta_before.index,
        "group {}: a generation at index {} after one at {}",
        frozen.group,
        frozen.applied.index,
        meta_before.index
    );
    let fresh = meta_before.incarnation != frozen.incarnation;
    let mut generation =
        Generation { store: &*shared.store, frozen, counts, fresh, deltas: BTreeMap::new(), index: BTreeMap::new() };
    if fresh {
        generation.counts.fill(0);
    }
    let mut meta = Meta::default();
    frozen.started.store(true, Ordering::SeqCst);
    shared.store.ingest(&mut |sink| {
        generation.push_data(sink).and_then(|()| {
            meta = generation.push_rest(sink, if fresh { 0 } else { meta_before.count })?;
            Ok(())
        })
    })?;

    let Generation { deltas, index, counts, .. } = generation;
    let soonest_deadline_ms = index
        .iter()
        .filter(|(_, put)| **put)
        .find_map(|(row, _)| rows::parse_index_key(row).ok().map(|(deadline_ms, _)| deadline_ms));
    let mut base = lock(&frozen.base);
    base.counts = counts;
    base.meta = meta;
    drop(base);
    // What was just written is likely read soon; and what the cache knew of these keys is old.
    for (_, map) in frozen.memtable.slots_from(0) {
        for (_, entry) in map.iter_from(0) {
            match &entry.object {
                Some(object) => {
                    let stored = Stored::Value(object.clone());
                    shared.cache.insert(frozen.group, frozen.incarnation, &entry.key, stored);
                }
                None => drop(shared.cache.remove(frozen.group, frozen.incarnation, &entry.key)),
            }
        }
    }
    Ok(Outcome { deltas: deltas.into_iter().collect(), durable: Some(frozen.applied), soonest_deadline_ms })
}

struct Generation<'a> {
    store: &'a dyn crate::store::CheckpointStore,
    frozen: &'a Frozen,
    counts: Vec<u32>,
    /// The store holds nothing of this incarnation yet.
    fresh: bool,
    deltas: BTreeMap<u16, i64>,
    /// Index rows to put (true) or delete (false).
    index: BTreeMap<Vec<u8>, bool>,
}

impl Generation<'_> {
    fn push_data(&mut self, sink: &mut dyn RowSink) -> Result<()> {
        self.deltas.clear();
        self.index.clear();
        let frozen = self.frozen;
        let (mut row, mut head) = (Vec::new(), Vec::new());
        for (slot, map) in frozen.memtable.slots_from(0) {
            let below = !self.fresh && self.counts[usize::from(slot)] > 0;
            let mut delta = 0;
            let mut entries = map.iter_from(0).peekable();
            while let Some((hash, entry)) = entries.next() {
                if entries.peek().is_none_or(|(next, _)| *next != hash) && entry.key.len() <= rows::LONG_KEY_BYTES {
                    rows::data_key(&mut row, frozen.group, slot, frozen.incarnation, hash, &entry.key);
                    delta += self.push_entry(sink, &row, &mut head, entry, below)?;
                    continue;
                }
                // Rare: several keys with one hash, or a long key. Rows sort short keys first, then long ones by digest.
                let mut short = vec![];
                let mut long: BTreeMap<Vec<u8>, Vec<&Entry>> = BTreeMap::new();
                let mut sort = |entry| {
                    let mut row = Vec::new();
                    let entry: &Entry = entry;
                    rows::data_key(&mut row, frozen.group, slot, frozen.incarnation, hash, &entry.key);
                    if entry.key.len() <= rows::LONG_KEY_BYTES {
                        short.push((row, entry));
                    } else {
                        long.entry(row).or_default().push(entry);
                    }
                };
                sort(entry);
                while let Some((_, entry)) = entries.next_if(|(next, _)| *next == hash) {
                    sort(entry);
                }
                for (row, entry) in short {
                    delta += self.push_entry(sink, &row, &mut head, entry, below)?;
                }
                for (row, members) in long {
                    delta += self.push_bucket(sink, &row, &members, below)?;
                }
            }
            self.note_delta(slot, delta)?;
        }
        Ok(())
    }

    /// Pushes an entry's row; returns the change in the number of keys.
    fn push_entry(
        &mut self,
        sink: &mut dyn RowSink,
        row: &[u8],
        head: &mut Vec<u8>,
        entry: &Entry,
        below: bool,
    ) -> Result<i64> {
        let prior = match entry.prior {
            Prior::UNKNOWN if below => match self.store.get(row)? {
                None => Prior::ABSENT,
                Some(value) => Prior::present(rows::parse_value_head(&value).map_err(store_error)?.deadline_ms),
            },
            Prior::UNKNOWN => Prior::ABSENT,
            known => known,
        };
        let deadline_before = prior.deadline_ms().unwrap_or(0);
        let deadline_after = entry.object.as_ref().map_or(0, |object| object.deadline_ms);
        if deadline_before != deadline_after {
            if deadline_before != 0 {
                self.index.insert(rows::index_key(row, deadline_before), false);
            }
            if deadline_after != 0 {
                self.index.insert(rows::index_key(row, deadline_after), true);
            }
        }
        let present = prior != Prior::ABSENT;
        match &entry.object {
            Some(object) => {
                rows::value_head(head, object);
                sink.put(row, head, &object.data)?;
            }
            None if present => sink.delete(row)?,
            None => {}
        }
        Ok(i64::from(entry.object.is_some()) - i64::from(present))
    }

    fn push_bucket(&mut self, sink: &mut dyn RowSink, row: &[u8], entries: &[&Entry], below: bool) -> Result<i64> {
        let mut members: BTreeMap<Box<[u8]>, Object> = match below {
            true => match self.store.get(row)? {
                Some(value) => rows::parse_bucket(&value).map_err(store_error)?.into_iter().collect(),
                None => BTreeMap::new(),
            },
            false => BTreeMap::new(),
        };
        let deadlines = |members: &BTreeMap<Box<[u8]>, Object>| {
            members.values().map(|object| object.deadline_ms).filter(|&at| at != 0).collect::<BTreeSet<u64>>()
        };
        let (count_before, deadlines_before) = (members.len(), deadlines(&members));
        for entry in entries {
            match &entry.object {
                Some(object) => drop(members.insert(entry.key.clone(), object.clone())),
                None => drop(members.remove(&entry.key)),
            }
        }
        let deadlines_after = deadlines(&members);
        for &gone in deadlines_before.difference(&deadlines_after) {
            self.index.insert(rows::index_key(row, gone), false);
        }
        for &new in deadlines_after.difference(&deadlines_before) {
            self.index.insert(rows::index_key(row, new), true);
        }
        let delta = members.len() as i64 - count_before as i64;
        if !members.is_empty() {
            sink.put(row, &rows::encode_bucket(&members.into_iter().collect::<Vec<_>>()), &[])?;
        } else if count_before > 0 {
            sink.delete(row)?;
        }
        Ok(delta)
    }

    fn note_delta(&mut self, slot: u16, delta: i64) -> Result<()> {
        if delta != 0 {
            let count = i64::from(self.counts[usize::from(slot)]) + delta;
            self.counts[usize::from(slot)] = u32::try_from(count)
                .map_err(|_| store_error(format!("slot {slot} would hold {count} keys: its count is damaged")))?;
            self.deltas.insert(slot, delta);
        }
        Ok(())
    }

    /// Pushes records, index rows, counts and, last, the group's state.
    fn push_rest(&mut self, sink: &mut dyn RowSink, count_before: u64) -> Result<Meta> {
        let frozen = self.frozen;
        for (key, data) in &frozen.records {
            let row = rows::record_key(frozen.group, frozen.incarnation, key);
            match data {
                Some(data) => sink.put(&row, &[], data)?,
                None => sink.delete(&row)?,
            }
        }
        for (row, put) in &self.index {
            if *put { sink.put(row, &[], &[])? } else { sink.delete(row)? }
        }
        for slot in self.deltas.keys() {
            let count = rows::encode_count(frozen.incarnation, self.counts[usize::from(*slot)]);
            sink.put(&rows::count_key(frozen.group, *slot), &count, &[])?;
        }
        let delta: i64 = self.deltas.values().sum();
        let meta = Meta {
            index: frozen.applied.index,
            term: frozen.applied.term,
            stamp_ms: frozen.applied.stamp_ms,
            incarnation: frozen.incarnation,
            count: count_before
                .checked_add_signed(delta)
                .ok_or_else(|| store_error(format!("group {}: the count of keys is damaged", frozen.group)))?,
            attachment: frozen.attachment.clone(),
        };
        sink.put(&rows::meta_key(frozen.group), &meta.encode(), &[])?;
        Ok(meta)
    }
}

pub(crate) fn store_error(detail: String) -> Error {
    Error::Store { path: std::path::PathBuf::from("(rows)"), detail }
}

/// Reads what the store holds of a group.
pub(crate) fn load_base(store: &dyn ReadRows, group: GroupId) -> Result<GroupBase> {
    let mut base = GroupBase::default();
    let Some(value) = store.get(&rows::meta_key(group))? else { return Ok(base) };
    base.meta = Meta::decode(&value).map_err(store_error)?;
    let (from, to) = rows::count_bounds(group);
    for row in store.range(&from, &to) {
        let (key, value) = row?;
        let (slot, incarnation, count) = rows::parse_count(&key, &value).map_err(store_error)?;
        // NB: counts of an incarnation that is over stay behind until the slot is written again.
        if incarnation == base.meta.incarnation {
            base.counts[usize::from(slot)] = count;
        }
    }
    let total: u64 = base.counts.iter().map(|&count| u64::from(count)).sum();
    if total != base.meta.count {
        return Err(store_error(format!(
            "group {group} says it holds {} keys, its slots add up to {total}",
            base.meta.count
        )));
    }
    Ok(base)
}

/// Reads a key's object from the store.
pub(crate) fn read_object(
    store: &dyn ReadRows,
    group: GroupId,
    incarnation: u64,
    key: KeyRef<'_>,
) -> Result<Option<Object>> {
    read_row(store, group, incarnation, key, rows::parse_value, rows::parse_bucket)
}

/// Reads what the store holds of a key apart from its data.
pub(crate) fn read_head(
    store: &dyn ReadRows,
    group: GroupId,
    incarnation: u64,
    key: KeyRef<'_>,
) -> Result<Option<Head>> {
    // Keys that share a bucket are longer than most values: what is spared by not copying theirs is little.
    let heads = |bucket: &[u8]| {
        let members = rows::parse_bucket(bucket)?;
        Ok(members.into_iter().map(|(key, object)| (key, Head::from(&object))).collect())
    };
    read_row(store, group, incarnation, key, rows::parse_head, heads)
}

fn read_row<T>(
    store: &dyn ReadRows,
    group: GroupId,
    incarnation: u64,
    key: KeyRef<'_>,
    parse: impl Fn(&[u8]) -> Result<T, rows::Malformed>,
    parse_bucket: impl Fn(&[u8]) -> Result<Vec<(Box<[u8]>, T)>, rows::Malformed>,
) -> Result<Option<T>> {
    let KeyRef { slot, hash, key } = key;
    let mut row = Vec::with_capacity(64 + key.len().min(rows::LONG_KEY_BYTES));
    rows::data_key(&mut row, group, slot, incarnation, hash, key);
    let Some(value) = store.get(&row)? else { return Ok(None) };
    let read = if key.len() <= rows::LONG_KEY_BYTES {
        parse(&value).map(Some)
    } else {
        parse_bucket(&value)
            .map(|members| members.into_iter().find(|(member, _)| member.as_ref() == key).map(|(_, found)| found))
    };
    read.map_err(|detail| {
        store_error(format!("slot {slot}, key {}: {detail}", key[..key.len().min(64)].escape_ascii()))
    })
}
