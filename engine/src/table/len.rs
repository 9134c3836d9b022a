//! How many keys there are, exactly, although writes never look whether their key exists.
//!
//! Entries that don't know what lies below them make the count uncertain by their number. Mostly there are none: a fresh
//! database, keys that were read or fetched first, keys rewritten in the same memtable. Otherwise a [`LenJob`] looks the
//! unknown ones up, against a view of the store from the moment it began, so that its answer is the count at that moment
//! whatever is written meanwhile.

use super::flush::{Frozen, read_head};
use super::memtable::Prior;
use super::node::Shared;
use super::state::Table;
use super::{Head, KeyRef, OwnedKey};
use crate::store::StoreView;
use crate::{GroupId, Result};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Up to this many unknown entries of the active memtable are copied into the job; beyond, the memtable is frozen instead.
const COPIED_MAX: u64 = 4096;

/// The number of keys, or the way to find out.
#[derive(Debug)]
pub enum Len {
    /// Known from memory.
    Exact(u64),
    /// Run the job on any thread.
    Job(LenJob),
}

/// Looks up what memory doesn't know.
#[derive(Debug)]
pub struct LenJob {
    shared: Arc<Shared>,
    group: GroupId,
    incarnation: u64,
    active_id: u64,
    view: Box<dyn StoreView>,
    /// The count if every unknown entry had nothing below.
    most: i64,
    keys: Vec<OwnedKey>,
    /// Frozen memtables with unknown entries, and whether the view may already hold their rows.
    frozen: Vec<(Arc<Frozen>, bool)>,
}

/// What a [`LenJob`] found.
#[derive(Debug)]
pub struct LenOutcome {
    /// The number of keys when the job began.
    pub len: u64,
    active_id: u64,
    resolved: Vec<(OwnedKey, Option<Head>)>,
}

impl LenJob {
    /// Looks the unknown keys up.
    ///
    /// # Errors
    /// When the store fails or its bytes are damaged.
    pub fn run(self) -> Result<LenOutcome> {
        let mut len = self.most;
        let mut resolved = Vec::with_capacity(self.keys.len());
        let read = |key: KeyRef<'_>| {
            read_head(&*self.view, self.group, self.incarnation, key).map_err(|error| self.shared.locate(error))
        };
        for key in self.keys {
            let head = read(key.as_ref())?;
            len -= i64::from(head.is_some());
            resolved.push((key, head));
        }
        for (frozen, _) in self.frozen.iter().filter(|(_, started)| !started) {
            for (slot, map) in frozen.memtable.slots_from(0).filter(|(_, map)| map.counts.unknown > 0) {
                for (hash, entry) in map.iter_from(0).filter(|(_, entry)| entry.prior.is_unknown()) {
                    len -= i64::from(read(KeyRef { slot, hash, key: &entry.key })?.is_some());
                }
            }
        }
        // NB: the view goes first: on a store without snapshots it is what the flusher waits for.
        drop(self.view);
        for (frozen, _) in self.frozen.into_iter().filter(|(_, started)| *started) {
            let outcome = frozen.wait().map_err(|detail| self.shared.failed(detail))?;
            let assumed = frozen.memtable.counts().delta();
            len += outcome.deltas.iter().map(|(_, delta)| delta).sum::<i64>() - assumed;
        }
        let len = u64::try_from(len).expect("fewer keys than none: an entry was counted twice");
        Ok(LenOutcome { len, active_id: self.active_id, resolved })
    }
}

impl Table {
    /// The number of keys, expired ones that were not reclaimed yet included.
    ///
    /// # Errors
    /// When the store can't give a view.
    pub fn len(&mut self) -> Result<Len> {
        if self.active.counts().unknown > COPIED_MAX {
            self.freeze();
        }
        let counts = self.active.counts();
        let frozen = self.frozen();
        let deltas = frozen.iter().map(|frozen| frozen.memtable.counts().delta()).sum::<i64>();
        let most = self.count as i64 + deltas + counts.delta();
        if counts.unknown == 0 && frozen.iter().all(|frozen| frozen.memtable.counts().unknown == 0) {
            return Ok(Len::Exact(u64::try_from(most).expect("fewer keys than none: an entry was counted twice")));
        }
        let view = self.shared.store.view()?;
        let mut unknown = Vec::new();
        for frozen in frozen.into_iter().filter(|frozen| frozen.memtable.counts().unknown > 0) {
            // Read after the view was opened: not started means that the view holds none of its rows.
            let started = frozen.started.load(Ordering::SeqCst);
            unknown.push((frozen, started));
        }
        let mut keys = Vec::new();
        for (slot, map) in self.active.slots_from(0).filter(|(_, map)| map.counts.unknown > 0) {
            keys.extend(map.iter_from(0).filter(|(_, entry)| entry.prior.is_unknown()).map(|(hash, entry)| OwnedKey {
                slot,
                hash,
                key: entry.key.clone(),
            }));
        }
        Ok(Len::Job(LenJob {
            shared: self.shared.clone(),
            group: self.group,
            incarnation: self.incarnation,
            active_id: self.active_id,
            view,
            most,
            keys,
            frozen: unknown,
        }))
    }

    /// About how many keys there are, from memory alone: as many as [`Table::len`] says, or more, if some that were written
    /// blindly overwrote others. For reports.
    pub fn len_about(&self) -> u64 {
        let frozen = self.frozen().iter().map(|frozen| frozen.memtable.counts().delta()).sum::<i64>();
        u64::try_from(self.count as i64 + frozen + self.active.counts().delta()).unwrap_or(0)
    }

    /// Remembers what a job looked up, so that the next count needn't; the count comes back.
    pub fn finish_len(&mut self, outcome: LenOutcome) -> u64 {
        if outcome.active_id == self.active_id {
            for (key, head) in outcome.resolved {
                if let Ok(position) = self.active.find(key.as_ref())
                    && self.active.entry(position).prior.is_unknown()
                {
                    self.active.resolve(position, Prior::of_head(head));
                }
            }
        }
        outcome.len
    }
}
