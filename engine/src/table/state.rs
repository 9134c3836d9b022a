//! One group's table, as its shard thread sees it.

use super::flush::{Frozen, GroupBase, lock, read_head, read_object};
use super::memtable::{Memtable, Position, Prior};
use super::node::{Job, Shared};
use super::object::Stored;
use super::pins::{Pinned, Pins};
use super::records::Records;
use super::{Applied, Head, KeyRef, Object, OwnedKey, SLOTS, rows};
use crate::defects::{self, Defect};
use crate::ledger::Category;
use crate::{Error, GroupId, Result};
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

/// Frozen memtables of one group that may wait for the flusher.
const LAYERS_MAX: usize = 8;
/// Below this, a memtable is not frozen for memory's sake.
const FREEZE_BYTES_MIN: u64 = 256 << 10;
/// Last-use times are kept in this many buckets for keys outside the active memtable.
const ACCESS_BUCKETS: usize = 1 << 14;

/// What memory knows of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peek {
    /// The key has this object.
    Found(Object),
    /// The key does not exist.
    Absent,
    /// Only the checkpoint store knows, or memory knows no more than the head.
    Unknown,
}

/// What memory knows of a key, for whoever is about to use it: see [`Table::look`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// What the key holds; `None` when it does not exist.
    pub head: Option<Head>,
    /// Whether all of it is in memory, not just the head.
    pub has_data: bool,
    /// Whether memory may forget it before long: it is not in the memtable that takes writes. See [`Table::hold`].
    pub fleeting: bool,
}

/// A key read from the store, on its way into memory.
#[derive(Debug, Clone)]
pub struct Fetched {
    key: OwnedKey,
    stored: Stored,
    incarnation: u64,
    /// The memtable that was active when the fetch began.
    active_id: u64,
}

impl Fetched {
    /// The key.
    pub fn key(&self) -> KeyRef<'_> {
        self.key.as_ref()
    }

    /// What the store held, without its data.
    pub fn head(&self) -> Option<Head> {
        self.stored.head()
    }

    /// What the store held; `None` also when only the head was fetched.
    pub fn object(&self) -> Option<&Object> {
        self.stored.object().flatten()
    }

    /// Bytes of data that were read.
    pub fn data_bytes(&self) -> u64 {
        self.stored.data_bytes()
    }
}

/// What became of a fetched key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admitted {
    /// The key is resident and pinned until [`Table::unpin`].
    Resident,
    /// It was written, and its write flushed, while the fetch ran: fetch it again. Rare. Nothing was pinned.
    Retry,
}

/// Reads keys from the store on any thread. Get a new one for each round of fetches: it remembers when it was made.
#[derive(Debug, Clone)]
pub struct Fetcher {
    shared: Arc<Shared>,
    group: GroupId,
    incarnation: u64,
    active_id: u64,
}

impl Fetcher {
    /// Reads a key. Blocks on the disk.
    ///
    /// # Errors
    /// When the store fails or its bytes are damaged.
    pub fn fetch(&self, key: OwnedKey) -> Result<Fetched> {
        let object = read_object(&*self.shared.store, self.group, self.incarnation, key.as_ref())
            .map_err(|error| self.shared.locate(error))?;
        Ok(self.fetched(key, object.into()))
    }

    /// Reads what there is to know of a key without its data. Blocks on the disk.
    ///
    /// # Errors
    /// As [`Fetcher::fetch`].
    pub fn fetch_head(&self, key: OwnedKey) -> Result<Fetched> {
        let head = read_head(&*self.shared.store, self.group, self.incarnation, key.as_ref())
            .map_err(|error| self.shared.locate(error))?;
        Ok(self.fetched(key, head.map_or(Stored::Absent, Stored::Head)))
    }

    fn fetched(&self, key: OwnedKey, stored: Stored) -> Fetched {
        self.shared.fetched_bytes.fetch_add(stored.data_bytes(), Ordering::Relaxed);
        Fetched { key, stored, incarnation: self.incarnation, active_id: self.active_id }
    }

    /// Whether the cache would keep what was fetched when nobody pins it.
    pub fn is_cacheable(&self, fetched: &Fetched) -> bool {
        self.shared.cache.takes(fetched.key.key.len(), fetched.stored.data_bytes())
    }
}

/// What [`Table::maintain`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Maintained {
    /// The active memtable was frozen.
    pub froze: bool,
    /// Frozen memtables that reached the store and were let go.
    pub retired: usize,
    /// How far the log may be cut: see [`Table::durable`].
    pub durable: Applied,
}

/// Figures for reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TableStats {
    /// Bytes of the active memtable.
    pub active_bytes: u64,
    /// Bytes of frozen memtables.
    pub frozen_bytes: u64,
    /// Frozen memtables.
    pub frozen: usize,
    /// Pinned keys.
    pub pins: usize,
    /// Bytes that pins hold.
    pub pinned_bytes: u64,
    /// Bytes of values that were read from the store, on this node, ever.
    pub fetched_bytes: u64,
    /// Reads that had to block the shard thread, on this node, ever.
    pub blocking_reads: u64,
}

/// One group's applied state. Owned by its shard thread.
///
/// Invariants: `durable <= applied`; a key that a memtable has is not in the cache, except put there by the flusher from a
/// memtable that is still here; an incarnation only grows.
#[derive(Debug)]
pub struct Table {
    pub(super) shared: Arc<Shared>,
    pub(super) group: GroupId,
    pub(super) incarnation: u64,
    applied: Applied,
    durable: Applied,
    attachment: Bytes,
    pub(super) active: Memtable,
    /// Numbers memtables in the order they were begun.
    pub(super) active_id: u64,
    /// The youngest memtable that was let go.
    pub(super) retired_id: u64,
    /// Frozen memtables, oldest first.
    pub(super) layers: VecDeque<Layer>,
    pub(super) base: Arc<Mutex<GroupBase>>,
    /// Keys per slot in the store, as of the memtables let go.
    pub(super) counts: Box<[u32]>,
    pub(super) count: u64,
    pub(super) records: Records,
    pins: Pins,
    accessed: Box<[u32]>,
    opened_s: u32,
    now_s: u32,
    dirty_since_ms: Option<u64>,
    /// The index that the youngest frozen memtable, or the store, is at.
    frozen_index: u64,
    posted_active: u64,
    posted_frozen: u64,
    posted_pins: u64,
    posted_records: u64,
    flush_wanted: bool,
    /// The log wants to be cut: see [`Table::request_flush`].
    seal_wanted: bool,
    /// An incarnation ended; once the next is in the store, the old one's rows can be swept up.
    sweep_wanted: bool,
    /// Where the walk over the store's deadlines goes on, and when it is worth another look.
    pub(super) expire_after: Option<Vec<u8>>,
    pub(super) expire_look_ms: u64,
}

#[derive(Debug)]
pub(super) struct Layer {
    pub(super) frozen: Arc<Frozen>,
    submitted: bool,
}

impl Table {
    pub(super) fn new(shared: Arc<Shared>, group: GroupId, base: Arc<Mutex<GroupBase>>, records: Records) -> Self {
        shared.tables.fetch_add(1, Ordering::Relaxed);
        let (applied, attachment, incarnation, counts, count) = {
            let base = lock(&base);
            let meta = &base.meta;
            let counts = base.counts.clone().into_boxed_slice();
            (base.applied(), meta.attachment.clone(), meta.incarnation, counts, meta.count)
        };
        let durable = shared.sealer.durable(shared.store.durability(), group, applied);
        Table {
            shared,
            group,
            incarnation,
            applied,
            durable,
            attachment,
            active: Memtable::default(),
            active_id: 1,
            retired_id: 0,
            layers: VecDeque::new(),
            base,
            counts,
            count,
            records,
            pins: Pins::default(),
            accessed: vec![0; ACCESS_BUCKETS].into_boxed_slice(),
            opened_s: 0,
            now_s: 0,
            dirty_since_ms: None,
            frozen_index: applied.index,
            posted_active: 0,
            posted_frozen: 0,
            posted_pins: 0,
            posted_records: 0,
            flush_wanted: false,
            seal_wanted: false,
            sweep_wanted: false,
            expire_after: None,
            expire_look_ms: 0,
        }
    }

    /// Keys that [`Table::warm`] takes at a time.
    pub const WARM_KEYS_MAX: usize = super::memtable::WARM_KEYS_MAX;

    /// The group whose state this is.
    pub fn group(&self) -> GroupId {
        self.group
    }

    /// How far the log is applied.
    pub fn applied(&self) -> Applied {
        self.applied
    }

    /// How far the log may be cut: the state at this index survives what the log must survive.
    pub fn durable(&self) -> Applied {
        self.durable
    }

    /// The present incarnation: 0 in a new group, later the index of the entry that began it.
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// What the host keeps beside the applied index: the group's membership, in its own words. It reaches the store, sealed
    /// snapshots and views together with the index at which it was set.
    pub fn attachment(&self) -> &Bytes {
        &self.attachment
    }

    /// Changes what [`Table::attachment`] says. Call it while the entry is applied that changes it, before
    /// [`Table::set_applied`].
    ///
    /// # Panics
    /// When it is larger than 1 MiB.
    pub fn set_attachment(&mut self, attachment: Bytes) {
        assert!(attachment.len() <= rows::ATTACHMENT_BYTES_MAX, "an attachment holds at most 1 MiB");
        self.attachment = attachment;
    }

    /// Says that an entry was applied.
    ///
    /// # Panics
    /// When index, term or time would go back.
    pub fn set_applied(&mut self, applied: Applied) {
        let before = self.applied;
        assert!(
            applied.index >= before.index && applied.term >= before.term && applied.stamp_ms >= before.stamp_ms,
            "group {}: applied would go from {before:?} back to {applied:?}",
            self.group
        );
        self.applied = applied;
    }

    /// Checks that the log begins where the durable state ends. Call it when the log is open, before applying from it.
    ///
    /// # Errors
    /// When entries are missing between the two: the store was lost or set aside, and no sealed snapshot meets the log.
    pub fn check_meets_log(&self, log_first_index: u64) -> Result<()> {
        if log_first_index <= self.applied.index + 1 {
            return Ok(());
        }
        let aside = self.shared.sealer.set_aside().map_or(String::new(), |path| {
            format!(" The store that held them could not be opened and was set aside as {}.", path.display())
        });
        Err(Error::Store {
            path: self.shared.options.dir.clone(),
            detail: format!(
                "group {} has applied state up to index {}, but its log begins at {log_first_index}: the entries between \
                 are in neither.{aside} Restore a backup of the data folder, or the folder that was set aside if you know \
                 it to be whole; with other replicas of the group, remove this one and add it again.",
                self.group, self.applied.index
            ),
        })
    }

    fn in_layers(&self, key: KeyRef<'_>) -> Option<Option<&Object>> {
        self.layers
            .iter()
            .rev()
            .filter(|layer| layer.frozen.incarnation == self.incarnation)
            .find_map(|layer| Some(layer.frozen.memtable.get(key)?.object.as_ref()))
    }

    /// What memtables, newest first, say of a key.
    pub(super) fn in_memtables(&self, key: KeyRef<'_>) -> Option<Option<&Object>> {
        match self.active.get(key) {
            Some(entry) => Some(entry.object.as_ref()),
            None if self.layers.is_empty() => None,
            None => self.in_layers(key),
        }
    }

    /// What is known of a key below the memtables.
    fn below(&self, key: KeyRef<'_>) -> Option<Stored> {
        if self.counts[usize::from(key.slot)] == 0 {
            return Some(Stored::Absent);
        }
        let pinned = match self.pins.get(key) {
            Some(Pinned::Below(stored)) => Some(stored),
            Some(Pinned::Layered) | None => None,
        };
        match pinned {
            // The cache may have the data of a key that is pinned for its head alone.
            None | Some(Stored::Head(_)) => {
                self.shared.cache.get(self.group, self.incarnation, key).or_else(|| pinned.cloned())
            }
            Some(stored) => Some(stored.clone()),
        }
    }

    /// What memory knows of a key. Never touches the store.
    pub fn peek(&self, key: KeyRef<'_>) -> Peek {
        match self.peek_with(key, |object| object.cloned()) {
            Some(Some(object)) => Peek::Found(object),
            Some(None) => Peek::Absent,
            None => Peek::Unknown,
        }
    }

    /// As [`Table::peek`] without cloning: `read` gets the object, or `None` when the key is absent. Returns `None` without
    /// calling it when memory doesn't know.
    pub fn peek_with<R>(&self, key: KeyRef<'_>, read: impl FnOnce(Option<&Object>) -> R) -> Option<R> {
        match self.in_memtables(key) {
            Some(object) => Some(read(object)),
            None => self.below(key)?.object().map(read),
        }
    }

    /// What memory knows of a key without its data; `None` when only the store knows.
    pub fn look(&self, key: KeyRef<'_>) -> Option<Look> {
        if let Some(entry) = self.active.get(key) {
            return Some(Look { head: entry.object.as_ref().map(Head::from), has_data: true, fleeting: false });
        }
        if let Some(object) = self.in_layers(key) {
            return Some(Look { head: object.map(Head::from), has_data: true, fleeting: true });
        }
        let stored = self.below(key)?;
        // An empty slot stays empty unless a memtable is on its way to the store.
        let fleeting = self.counts[usize::from(key.slot)] != 0 || !self.layers.is_empty();
        Some(Look { head: stored.head(), has_data: stored.object().is_some(), fleeting })
    }

    /// Pins what memory knows of a key, as [`Table::admit`] does: for a command that was proposed and will look at the key
    /// when it is applied, by when a cache could have forgotten it. `false`: memory doesn't know the key, nothing was pinned.
    ///
    /// NB: what is in the active memtable needs no pin unless it may be frozen, flushed and evicted before the command is applied.
    pub fn hold(&mut self, key: KeyRef<'_>) -> bool {
        let value = match self.in_memtables(key) {
            Some(_) => Pinned::Layered,
            None => match self.below(key) {
                Some(stored) => Pinned::Below(stored),
                None => return false,
            },
        };
        self.pins.add(key.into(), value);
        self.post_pins();
        true
    }

    /// Whether memory knows every key: nothing is in the store.
    pub fn is_all_resident(&self) -> bool {
        self.count == 0
    }

    /// Whether a read of the key is answered from memory.
    pub fn is_resident(&self, key: KeyRef<'_>) -> bool {
        self.peek_with(key, |_| ()).is_some()
    }

    /// Says which keys (slot and hash) are about to be looked up, up to [`Table::WARM_KEYS_MAX`] at a time, so that the
    /// lookups needn't wait for memory one after another. Changes nothing.
    pub fn warm(&self, keys: &[(u16, u64)]) {
        self.active.warm(keys);
    }

    /// Notes that a key was used, for [`Table::idle_seconds`].
    pub fn touch(&mut self, key: KeyRef<'_>) {
        match self.active.find(key) {
            Ok(position) => self.active.touch(position, self.now_s),
            Err(_) => self.accessed[(key.hash as usize) % ACCESS_BUCKETS] = self.now_s,
        }
    }

    /// Seconds since the key was last used, about: outside the active memtable, keys that share a bucket share the answer.
    pub fn idle_seconds(&self, key: KeyRef<'_>) -> u64 {
        let used_s = match self.active.get(key) {
            Some(entry) => entry.accessed_s,
            None => self.accessed[(key.hash as usize) % ACCESS_BUCKETS].max(self.opened_s),
        };
        u64::from(self.now_s.saturating_sub(used_s))
    }

    /// Reads keys off this thread.
    pub fn fetcher(&self) -> Fetcher {
        Fetcher {
            shared: self.shared.clone(),
            group: self.group,
            incarnation: self.incarnation,
            active_id: self.active_id,
        }
    }

    /// Takes in a fetched key unless it was overwritten meanwhile, and pins it: it stays resident until [`Table::unpin`],
    /// which must follow once for each call that returned [`Admitted::Resident`].
    pub fn admit(&mut self, fetched: Fetched) -> Admitted {
        let key = fetched.key.as_ref();
        let value = if self.in_memtables(key).is_some() {
            Pinned::Layered
        } else if fetched.incarnation != self.incarnation {
            // The incarnation was over before the fetch was; nothing of the new one has reached the store.
            if self.counts[usize::from(key.slot)] != 0 {
                return Admitted::Retry;
            }
            Pinned::Below(Stored::Absent)
        } else if self.retired_id >= fetched.active_id {
            // A memtable that took writes after the fetch began is gone: the key may have been in it.
            return Admitted::Retry;
        } else {
            match (fetched.stored, self.below(key)) {
                // A head says nothing new about a key whose data are here already.
                (Stored::Head(_), Some(known @ Stored::Value(_))) => Pinned::Below(known),
                (stored, _) => {
                    self.shared.cache.insert(self.group, self.incarnation, key.key, stored.clone());
                    Pinned::Below(stored)
                }
            }
        };
        self.pins.add(fetched.key, value);
        self.post_pins();
        Admitted::Resident
    }

    /// Takes back one pin of [`Table::admit`] or [`Table::hold`].
    ///
    /// # Panics
    /// When the key is not pinned.
    pub fn unpin(&mut self, key: KeyRef<'_>) {
        self.pins.remove(key);
        self.post_pins();
    }

    /// The key's object, expired or not; `None` when it does not exist. Reads the store on this thread when memory doesn't
    /// know, which is counted: callers should have fetched the key before.
    ///
    /// # Errors
    /// When the store fails or its bytes are damaged.
    pub fn get(&mut self, key: KeyRef<'_>) -> Result<Option<Object>> {
        loop {
            match self.peek(key) {
                Peek::Found(object) => return Ok(Some(object)),
                Peek::Absent => return Ok(None),
                Peek::Unknown => {}
            }
            self.shared.blocking_reads.fetch_add(1, Ordering::Relaxed);
            let fetched = self.fetcher().fetch(key.into())?;
            let object = fetched.object().cloned();
            if self.admit(fetched) == Admitted::Resident {
                self.unpin(key);
                return Ok(object);
            }
        }
    }

    /// As [`Table::get`], without the data.
    ///
    /// # Errors
    /// As [`Table::get`].
    pub fn head(&mut self, key: KeyRef<'_>) -> Result<Option<Head>> {
        loop {
            if let Some(look) = self.look(key) {
                return Ok(look.head);
            }
            self.shared.blocking_reads.fetch_add(1, Ordering::Relaxed);
            let fetched = self.fetcher().fetch_head(key.into())?;
            let head = fetched.head();
            if self.admit(fetched) == Admitted::Resident {
                self.unpin(key);
                return Ok(head);
            }
        }
    }

    /// As [`Table::get`], but gives up the table's own handle on the data, so that it can be changed in place while no frozen
    /// memtable or reader shares it. Until the caller puts something back, the key does not exist.
    ///
    /// # Errors
    /// As [`Table::get`].
    pub fn take(&mut self, key: KeyRef<'_>) -> Result<Option<Object>> {
        if let Ok(position) = self.active.find(key) {
            return Ok(self.active.replace(position, None, self.now_s));
        }
        let object = self.get(key)?;
        if object.is_some() {
            self.write(key, None);
        }
        Ok(object)
    }

    /// Sets a key, replacing what it had.
    pub fn put(&mut self, key: KeyRef<'_>, object: Object) {
        self.write(key, Some(object));
    }

    /// Removes a key, present or not.
    pub fn delete(&mut self, key: KeyRef<'_>) {
        self.write(key, None);
    }

    fn write(&mut self, key: KeyRef<'_>, object: Option<Object>) {
        match self.active.find(key) {
            Ok(position) => drop(self.active.replace(position, object, self.now_s)),
            Err(position) => self.write_new(position, key, object),
        }
    }

    fn write_new(&mut self, position: Position, key: KeyRef<'_>, object: Option<Object>) {
        let prior = match self.in_layers(key) {
            Some(object) => Prior::of(object),
            None if self.counts[usize::from(key.slot)] == 0 => Prior::ABSENT,
            None => {
                let pinned = match self.pins.get(key) {
                    Some(Pinned::Below(stored)) => Some(Prior::of_head(stored.head())),
                    Some(Pinned::Layered) | None => None,
                };
                // The cache must not outlive what it knows: the key is the memtable's from here on.
                let cached = self.shared.cache.remove(self.group, self.incarnation, key.key);
                pinned.or(cached.map(|stored| Prior::of_head(stored.head()))).unwrap_or(Prior::UNKNOWN)
            }
        };
        self.pins.written(key);
        // Also remembered when nothing is known to be below: a fetch that began before may yet return.
        self.active.insert(position, key, object, prior, self.now_s);
    }

    /// Removes every key by beginning a new incarnation; the old one's rows are swept up later. Records stay.
    ///
    /// # Panics
    /// When the incarnation is not above the present one.
    pub fn flush_all(&mut self, incarnation: u64) {
        assert!(
            incarnation > self.incarnation,
            "group {}: incarnation {incarnation} does not come after {}",
            self.group,
            self.incarnation
        );
        let old = std::mem::take(&mut self.active);
        self.begin_incarnation(incarnation);
        self.records.all_changed();
        self.shared.submit(Job::Drop(Box::new(old)));
    }

    pub(super) fn begin_incarnation(&mut self, incarnation: u64) {
        for layer in &self.layers {
            layer.frozen.superseded.store(true, Ordering::Release);
        }
        self.active_id += 1;
        self.incarnation = incarnation;
        self.counts.fill(0);
        self.count = 0;
        self.pins.reset(|| Pinned::Below(Stored::Absent));
        self.expire_after = None;
        // An empty memtable is frozen too, so that the new incarnation reaches the store.
        self.flush_wanted = true;
        self.sweep_wanted = true;
    }

    /// Asks for a flush at the next [`Table::maintain`], whatever memory and age say: when the log below is what hurts. On a
    /// store that does not reach the platters this also seals a snapshot, so ask in proportion to the log's growth.
    pub fn request_flush(&mut self) {
        self.flush_wanted = true;
        self.seal_wanted = true;
    }

    /// Writers should wait: memtables fill faster than the flusher empties them.
    pub fn write_stall(&self) -> bool {
        let ledger = &self.shared.ledger;
        let held = ledger.held(Category::Memtables) + ledger.held(Category::Frozen);
        // A lone active memtable over the budget is about to be frozen: waiting would help nobody.
        let waiting = ledger.held(Category::Frozen) > 0;
        (waiting && held > self.shared.options.memtable_bytes_max) || self.layers.len() >= LAYERS_MAX
    }

    /// Upkeep, once a turn or at least a few times a second: takes the clock, freezes the active memtable by memory, age or
    /// request, hands frozen ones to the flusher once the log holds what they apply, lets go of those that reached the store.
    ///
    /// `log_synced` is the last index that this node's own log holds durably: nothing above it may reach the store.
    ///
    /// # Errors
    /// When a flush failed; every later call fails too. The log must not be cut any more.
    pub fn maintain(&mut self, now_ms: u64, log_synced: u64) -> Result<Maintained> {
        let now_s = u32::try_from(now_ms / 1000).unwrap_or(u32::MAX);
        if self.opened_s == 0 {
            self.opened_s = now_s;
        }
        self.now_s = self.now_s.max(now_s);
        let mut done = Maintained::default();
        self.post();
        if self.should_freeze(now_ms) {
            self.freeze();
            done.froze = true;
        }
        self.submit(log_synced);
        done.retired = self.collect()?;
        self.post();
        self.shared.post();
        done.durable = self.durable;
        Ok(done)
    }

    fn should_freeze(&mut self, now_ms: u64) -> bool {
        if self.applied.index == self.frozen_index && self.active.is_empty() && !self.records.is_dirty() {
            self.dirty_since_ms = None;
            self.flush_wanted = false;
            return false;
        }
        let since = *self.dirty_since_ms.get_or_insert(now_ms);
        if self.layers.len() >= LAYERS_MAX {
            return false;
        }
        let options = &self.shared.options;
        let held = self.shared.ledger.held(Category::Memtables);
        let tables = self.shared.tables.load(Ordering::Relaxed).max(1) as u64;
        // The largest memtable is always at least the average.
        let share = (held / tables).max(FREEZE_BYTES_MIN.min(options.memtable_bytes_max / 2));
        self.flush_wanted
            || now_ms.saturating_sub(since) >= options.flush_age_ms
            || (held >= options.memtable_bytes_max / 2 && self.active.bytes() >= share)
    }

    /// Has the state written to the store although no entry may have changed it: for an attachment that no entry set.
    pub fn flush_unchanged(&mut self) {
        self.seal_wanted = true;
        self.freeze();
    }

    /// Freezes the active memtable, empty or not.
    pub(super) fn freeze(&mut self) {
        let memtable = std::mem::take(&mut self.active);
        let mut frozen =
            Frozen::new(self.group, self.active_id, self.incarnation, self.applied, memtable, self.base.clone());
        frozen.seal = std::mem::take(&mut self.seal_wanted);
        frozen.attachment = self.attachment.clone();
        frozen.records = self.records.take_changes();
        self.layers.push_back(Layer { frozen: Arc::new(frozen), submitted: false });
        self.active_id += 1;
        self.frozen_index = self.applied.index;
        self.dirty_since_ms = None;
        self.flush_wanted = false;
        self.post();
    }

    fn submit(&mut self, log_synced: u64) {
        for layer in self.layers.iter_mut().filter(|layer| !layer.submitted) {
            if defects::has(Defect::AppliedAheadOfData) {
                // Waits for a while, and is then written as if it held what was applied meanwhile.
                match Arc::get_mut(&mut layer.frozen) {
                    Some(frozen) if frozen.applied.index + 10 < self.applied.index => frozen.applied = self.applied,
                    _ => break,
                }
            }
            // What is flushed is at most what this node's log holds: a store ahead of its log could not be explained.
            if layer.frozen.applied.index > log_synced {
                break;
            }
            layer.submitted = true;
            self.shared.submit(Job::Flush(layer.frozen.clone()));
        }
    }

    /// Lets go of memtables that reached the store.
    fn collect(&mut self) -> Result<usize> {
        let mut retired = 0;
        while let Some(outcome) = self.layers.front().and_then(|layer| layer.frozen.outcome()) {
            let outcome = outcome.map_err(|detail| self.shared.failed(detail))?;
            let Some(Layer { frozen, .. }) = self.layers.pop_front() else { break };
            retired += 1;
            self.retired_id = frozen.id;
            // A flush that ended while a snapshot was put in place is older than that.
            if let Some(durable) = outcome.durable.filter(|durable| *durable > self.durable) {
                assert!(durable <= self.applied, "durable {durable:?} out of order");
                self.durable = durable;
            }
            if frozen.incarnation == self.incarnation {
                for &(slot, delta) in &outcome.deltas {
                    let count = &mut self.counts[usize::from(slot)];
                    *count = count.checked_add_signed(delta as i32).expect("the flusher checked the slot's count");
                    self.count = self.count.wrapping_add_signed(delta);
                }
                if let Some(deadline_ms) = outcome.soonest_deadline_ms {
                    self.expire_look_ms = self.expire_look_ms.min(deadline_ms);
                    self.expire_after = None;
                }
                self.keep_pins(&frozen);
                if std::mem::take(&mut self.sweep_wanted) {
                    self.shared.submit(Job::Sweep(self.group));
                }
            }
            self.shared.submit(Job::Drop(Box::new(frozen)));
        }
        Ok(retired)
    }

    /// Pinned keys that only the memtable had which is let go now: remember what it said.
    fn keep_pins(&mut self, frozen: &Frozen) {
        if self.pins.len() == 0 {
            return;
        }
        let mut pins = std::mem::take(&mut self.pins);
        pins.take_over(|key| match self.in_memtables(key) {
            Some(_) => None,
            None => frozen.memtable.get(key).map(|entry| entry.object.clone().into()),
        });
        self.pins = pins;
    }

    /// Posts memory to the ledger.
    fn post(&mut self) {
        let frozen: u64 = self.layers.iter().map(|layer| layer.frozen.memtable.bytes()).sum();
        self.shared.ledger.adjust(Category::Memtables, &mut self.posted_active, self.active.bytes());
        self.shared.ledger.adjust(Category::Frozen, &mut self.posted_frozen, frozen);
        self.shared.ledger.adjust(Category::Sessions, &mut self.posted_records, self.records.bytes());
        self.post_pins();
    }

    fn post_pins(&mut self) {
        self.shared.ledger.adjust(Category::Pins, &mut self.posted_pins, self.pins.bytes());
    }

    /// Keys in a slot, if memory knows; [`Table::len`] on how it may not.
    pub fn slot_len(&self, slot: u16) -> Option<u64> {
        let mut count = i64::from(self.counts[usize::from(slot)]);
        let layers = self.layers.iter().filter(|layer| layer.frozen.incarnation == self.incarnation);
        for memtable in layers.map(|layer| &layer.frozen.memtable).chain([&self.active]) {
            let Some(map) = memtable.slot(slot) else { continue };
            if map.counts.unknown > 0 {
                return None;
            }
            count += map.counts.delta();
        }
        u64::try_from(count).ok()
    }

    /// Figures for reports.
    pub fn stats(&self) -> TableStats {
        TableStats {
            active_bytes: self.active.bytes(),
            frozen_bytes: self.layers.iter().map(|layer| layer.frozen.memtable.bytes()).sum(),
            frozen: self.layers.len(),
            pins: self.pins.len(),
            pinned_bytes: self.pins.bytes(),
            fetched_bytes: self.shared.fetched_bytes.load(Ordering::Relaxed),
            blocking_reads: self.shared.blocking_reads.load(Ordering::Relaxed),
        }
    }

    /// Slots that may hold keys, one bit each.
    pub(super) fn occupied(&self) -> [u64; SLOTS / 64] {
        let mut bits = [0; SLOTS / 64];
        for (slot, _) in self.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            bits[slot / 64] |= 1 << (slot % 64);
        }
        let layers = self.layers.iter().filter(|layer| layer.frozen.incarnation == self.incarnation);
        for memtable in layers.map(|layer| &layer.frozen.memtable).chain([&self.active]) {
            for (slot, _) in memtable.slots_from(0) {
                bits[usize::from(slot) / 64] |= 1 << (slot % 64);
            }
        }
        bits
    }

    /// Frozen memtables of this incarnation, newest first.
    pub(super) fn frozen(&self) -> Vec<Arc<Frozen>> {
        let layers = self.layers.iter().rev().filter(|layer| layer.frozen.incarnation == self.incarnation);
        layers.map(|layer| layer.frozen.clone()).collect()
    }

    /// Adopts the state that an install put into the store.
    pub(super) fn adopt(&mut self, applied: Applied, durable: Applied, records: Records) {
        let (incarnation, counts, count) = {
            let base = lock(&self.base);
            (base.meta.incarnation, base.counts.clone(), base.meta.count)
        };
        let old = std::mem::take(&mut self.active);
        self.begin_incarnation(incarnation);
        self.shared.submit(Job::Drop(Box::new(old)));
        self.records = records;
        self.counts.copy_from_slice(&counts);
        self.count = count;
        self.set_applied(applied);
        self.durable = self.durable.max(durable);
        self.frozen_index = applied.index;
        self.flush_wanted = false;
        self.sweep_wanted = false;
        self.expire_look_ms = 0;
        // What pins said is over; they are fetched again when they are needed.
        self.pins.reset(|| Pinned::Layered);
        self.shared.submit(Job::Sweep(self.group));
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        self.shared.tables.fetch_sub(1, Ordering::Relaxed);
        self.shared.ledger.adjust(Category::Memtables, &mut self.posted_active, 0);
        self.shared.ledger.adjust(Category::Frozen, &mut self.posted_frozen, 0);
        self.shared.ledger.adjust(Category::Pins, &mut self.posted_pins, 0);
        self.shared.ledger.adjust(Category::Sessions, &mut self.posted_records, 0);
    }
}
