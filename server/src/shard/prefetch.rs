//! What a follower reads from its store before it applies an entry.
//!
//! The node that proposes an entry has seen to it that the keys which its commands look at are in memory (see
//! [`super::dispatch`]); only if a memtable was let go since need it look again. Other replicas apply the same entry without having seen its commands: they look at it when its turn comes,
//! and have what is missing read on a reader thread, so that applying never waits for the store and heartbeats never wait for
//! either. Entries behind it wait; a bounded number of them, since Raft hands out no more.

use super::jobs::on_reader;
use super::{AbortOnPanic, Shard};
use crate::command::{self, Needs};
use crate::entry::EntryReader;
use crate::once;
use crate::slot::owned_key;
use holdfast_engine::table::Fetched;
use holdfast_raft::{Entry, EntryKind};
use std::mem;
use tokio::task::spawn_local;

/// Keys read for one entry in one visit of a reader thread.
const KEYS_MAX: usize = 4096;

/// What is being read, or was, for the entry that is next.
#[derive(Debug, Default)]
pub(super) struct Prefetch {
    /// The entry that keys are being read for.
    under_way: Option<u64>,
    /// The entry that is ready: what it needs is pinned, or can't be had, and then applying it meets the error.
    ready: Option<u64>,
    pinned: Vec<Vec<u8>>,
}

/// Keys that an entry's commands need and memory does not have.
type Missing = Vec<(Vec<u8>, Needs)>;

impl Shard {
    /// Whether a committed entry may be applied now. `false`: it can be when what it needs has been read.
    pub(super) fn is_prefetched(&mut self, entry: &Entry) -> bool {
        if self.prefetch.under_way == Some(entry.index) {
            return false;
        }
        if self.prefetch.ready == Some(entry.index)
            || entry.kind != EntryKind::Normal
            || self.turn.is_prepared(entry.index, self.host.data().checkpoints)
            || self.host.data().table.is_all_resident()
        {
            return true;
        }
        let missing = self.missing_keys(entry);
        if missing.is_empty() {
            return true;
        }
        self.prefetch(entry.index, missing);
        false
    }

    fn missing_keys(&self, entry: &Entry) -> Missing {
        let mut missing = Missing::new();
        // What is malformed is found again, and reported, when the entry is applied.
        let Ok(mut reader) = EntryReader::new(&entry.payload) else { return missing };
        let mut args = Vec::new();
        let replica = self.host.data();
        while let Ok(Some(number)) = reader.next(&mut args) {
            let Some((spec, args)) = once::inner(number, &args) else { continue };
            let needs = spec.needs(args);
            if needs == Needs::Nothing {
                continue;
            }
            for key in command::keys_of(spec, args).map(|position| args[position]) {
                if replica.resident(key, 0, needs).is_none() {
                    missing.push((key.to_vec(), needs));
                }
            }
            if missing.len() >= KEYS_MAX {
                // The rest is looked at once these are there.
                break;
            }
        }
        missing
    }

    /// Reads keys for an entry, then goes on with it.
    fn prefetch(&mut self, index: u64, missing: Missing) {
        let Some(shard) = self.me.upgrade() else { return };
        self.prefetch.under_way = Some(index);
        let fetcher = self.host.data().fetcher();
        spawn_local(async move {
            let _guard = AbortOnPanic;
            let read = move || -> holdfast_engine::Result<Vec<Fetched>> {
                let read = |(key, needs): (Vec<u8>, Needs)| match needs {
                    Needs::Values => fetcher.fetch(owned_key(&key)),
                    Needs::Heads | Needs::Nothing => fetcher.fetch_head(owned_key(&key)),
                };
                missing.into_iter().map(read).collect()
            };
            let fetched = on_reader(read).await;
            let mut this = shard.borrow_mut();
            this.read_clock();
            if this.prefetch.under_way != Some(index) {
                // A snapshot took the entry's place.
                return;
            }
            this.prefetch.under_way = None;
            match fetched {
                Ok(all) => {
                    for fetched in all {
                        let name = fetched.key().key.to_vec();
                        // A key that is not taken in was flushed meanwhile: it is looked at again.
                        if this.host.data_mut().admit(fetched) {
                            this.prefetch.pinned.push(name);
                        }
                    }
                }
                Err(error) => {
                    tracing::error!(%error, index, "a key that an entry needs could not be read from the store");
                    this.prefetch.ready = Some(index);
                }
            }
            this.pump();
        });
    }

    /// The entry is applied, or never will be: lets go of what was read for it.
    pub(super) fn forget_prefetched(&mut self) {
        self.prefetch.ready = None;
        for key in mem::take(&mut self.prefetch.pinned) {
            self.host.data_mut().unpin(&key);
        }
    }

    /// A snapshot takes the place of what waits to be applied.
    pub(super) fn give_up_prefetch(&mut self) {
        self.prefetch.under_way = None;
        self.forget_prefetched();
    }
}
