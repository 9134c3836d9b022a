//! One replica of one group: Raft, the group's log, and its table, tied together.
//!
//! The replica carries plain structs between the Raft core and the engine and holds the order that makes a write durable:
//! entries and hard state reach the WAL first ([`Replica::persist`]), then Raft is told, then what it calls committed is
//! handed out to be applied. It holds no socket and reads no clock: time is an argument, and replies are the shard's.
//!
//! # Invariants
//! - applied ≤ committed ≤ last index of the log; with one voter, committed ≤ what is synced (for `always`).
//! - A group's time never goes back: an entry's stamp is at least the stamp before it.
//! - After a failed write or sync no write is taken any more, whatever later calls would return.

mod keyspace;
mod open;

pub(crate) use keyspace::GroupKeyspace;

use crate::command::Needs;
use crate::slot::key_ref;
use bytes::Bytes;
use holdfast_engine::GroupId;
use holdfast_engine::folder::DataFolder;
use holdfast_engine::ledger::{Category, Ledger};
use holdfast_engine::log::{HardState, LogEntry, LogStore};
use holdfast_engine::table::{
    Admitted, Applied, ExpireJob, ExpireOutcome, Fetched, Fetcher, Len, LenOutcome, OwnedKey, ScanJob, ScanOutcome,
    ScanPage, ScanPosition, Table, Tables,
};
use holdfast_engine::wal::{Durability, WalMetrics, WalWriter, Written};
use holdfast_raft::{Entry, Raft};
use open::{View, kind_to_disk};
use std::sync::{Arc, mpsc};

/// Commands that the server itself writes to the log. Numbers from here up are never given to a client's command.
pub(crate) mod internal {
    /// Deletes the keys given, those of them whose deadline has passed by the entry's stamp.
    pub(crate) const RECLAIM: u16 = 0xFF01;
}

/// The group that a single node's data is in.
pub(crate) const DATA_GROUP: GroupId = 1;
/// Payload bytes that one housekeeping round may copy forward to let an old segment go.
const REWRITE_BYTES_MAX: usize = 1 << 20;

/// A key that can be judged without the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Resident {
    /// Its deadline is between the group's time and now: the group's time must move before it is read.
    pub(crate) ending: bool,
    /// Memory may forget it before what is proposed now is applied: see [`Replica::hold`].
    pub(crate) fleeting: bool,
    /// The length of its value in bytes; 0 when it does not exist.
    pub(crate) data_bytes: usize,
}

/// How often reads found a key, and how often not.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Lookups {
    hits: u64,
    misses: u64,
}

/// A replica's figures for reports.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figures {
    pub(crate) keys: u64,
    pub(crate) memory_bytes: u64,
    pub(crate) memtable_bytes: u64,
    pub(crate) frozen_bytes: u64,
    pub(crate) cache_bytes: u64,
    pub(crate) store_disk_bytes: u64,
    pub(crate) store_blocking_reads: u64,
    pub(crate) store_fetched_bytes: u64,
    pub(crate) pinned_bytes: u64,
    pub(crate) applied_index: u64,
    pub(crate) durable_index: u64,
    pub(crate) log_bytes: u64,
    pub(crate) log_live_bytes: u64,
    pub(crate) checkpoints: u64,
    pub(crate) checkpoint_last_ms: u64,
    pub(crate) wal: WalMetrics,
    /// Term, commit, applied, first and last index, leader.
    pub(crate) raft: [u64; 6],
}

/// A replica. See the module's text.
#[derive(Debug)]
pub(crate) struct Replica {
    raft: Raft,
    log: LogStore,
    wal: WalWriter,
    table: Table,
    tables: Tables,
    ledger: Arc<Ledger>,
    lookups: Lookups,
    checkpoints: u64,
    checkpoint_last_ms: u64,
    /// The group's time: the stamp of the last applied entry, in milliseconds since the epoch.
    time_ms: u64,
    /// The newest stamp given to an entry, applied or not.
    stamp_ms: u64,
    /// The entry that is being applied.
    applying: u64,
    /// Up to here the log is known to be synced; the table's store may not be ahead of it.
    synced_index: u64,
    /// When the log was last synced because a second had passed.
    everysec_ms: u64,
    /// The setting: above this much log, recent writes are moved to the store so that the log can be cut.
    log_bytes_max: u64,
    /// Bytes written to the log when a flush was last asked for on its account.
    flush_asked_bytes: u64,
    /// Why no write is taken any more.
    fault: Option<String>,
    /// Asks the helper thread to make the next segment ready.
    prepare: mpsc::SyncSender<()>,
    /// Held for its lock.
    _folder: DataFolder,
}

impl Replica {
    /// The group's time in milliseconds since the epoch.
    pub(crate) fn time_ms(&self) -> u64 {
        self.time_ms
    }

    /// The stamp for an entry made at `clock_ms`.
    pub(crate) fn next_stamp_ms(&mut self, clock_ms: u64) -> u64 {
        self.stamp_ms = self.stamp_ms.max(self.time_ms).max(clock_ms);
        self.stamp_ms
    }

    /// Begins to apply an entry: the group's time moves to its stamp.
    pub(crate) fn begin_apply(&mut self, index: u64, stamp_ms: u64) {
        self.applying = index;
        self.time_ms = self.time_ms.max(stamp_ms);
    }

    /// Why writes are refused, if they are.
    pub(crate) fn write_refusal(&self) -> Option<&str> {
        self.fault.as_deref()
    }

    /// Takes no more writes. The first reason stays.
    pub(crate) fn stop_writes(&mut self, reason: &str) {
        if self.fault.is_none() {
            tracing::error!(reason, "this node takes no more writes; mend the cause and restart it");
            self.fault = Some(format!("Holdfast takes no more writes, restart it once the cause is mended: {reason}"));
        }
    }

    /// Appends an entry; it is neither durable nor committed yet.
    pub(crate) fn propose(&mut self, payload: Bytes) -> Result<(u64, u64), String> {
        if let Some(fault) = &self.fault {
            return Err(fault.clone());
        }
        self.raft.propose(payload).map_err(|error| error.to_string())
    }

    /// Makes durable all that Raft asks for and hands out what is committed by it, to be applied in order.
    ///
    /// # Errors
    /// When the log failed: then nothing that was proposed since the last call may be acknowledged.
    pub(crate) fn persist(&mut self, now_ms: u64) -> Result<Vec<Entry>, String> {
        let mut committed = Vec::new();
        loop {
            let ready = self.raft.ready(&View(&self.log)).map_err(|error| error.to_string())?;
            assert!(ready.messages.is_empty(), "a group of one voter has nobody to write to");
            let mut progressed = false;
            if let Some(write) = ready.write {
                progressed = true;
                assert!(write.snapshot.is_none(), "a group of one voter is sent no snapshot");
                if !write.entries.is_empty() {
                    let entries: Vec<LogEntry> = write.entries.into_iter().map(log_entry).collect();
                    self.log.append(DATA_GROUP, &entries);
                }
                if let Some(state) = write.hard_state {
                    self.log.set_hard_state(
                        DATA_GROUP,
                        HardState { term: state.term, vote: state.vote, commit: state.commit },
                    );
                }
                if write.must_sync {
                    self.log.require_sync();
                }
                self.write_log(now_ms)?;
                self.raft.persisted(write.sequence);
            }
            if !ready.committed.is_empty() {
                progressed = true;
                committed.extend(ready.committed);
            }
            if !progressed {
                return Ok(committed);
            }
        }
    }

    fn write_log(&mut self, now_ms: u64) -> Result<(), String> {
        let Some(batch) = self.log.seal() else { return Ok(()) };
        let written = self.wal.write(batch, now_ms).map_err(|error| error.to_string())?;
        if written.wants_prepare() {
            // A full queue means that the helper is about to look anyway.
            let _ = self.prepare.try_send(());
        }
        self.learn(written);
        Ok(())
    }

    /// Takes in what the writer did.
    fn learn(&mut self, written: Written) {
        self.log.written(written);
        self.note_synced();
    }

    fn note_synced(&mut self) {
        if self.wal.is_synced()
            && let Some(log) = self.log.group(DATA_GROUP)
        {
            self.synced_index = log.last_index();
        }
    }

    /// Records that an entry's effect is in the table.
    pub(crate) fn set_applied(&mut self, index: u64, term: u64) {
        self.table.set_applied(Applied { index, term, stamp_ms: self.time_ms });
    }

    /// Tells Raft how far the table is.
    pub(crate) fn finished_apply(&mut self) {
        self.raft.applied(self.table.applied().index);
    }

    /// Lets Raft's timers run.
    pub(crate) fn tick(&mut self, now_ms: u64) {
        self.raft.tick(now_ms);
    }

    /// The log rests: it states how far it is synced.
    pub(crate) fn idle_statement(&mut self) {
        if self.fault.is_some() {
            return;
        }
        match self.wal.idle_statement() {
            Ok(_) => self.note_synced(),
            Err(error) => self.stop_writes(&error.to_string()),
        }
    }

    /// Freezes, flushes, compacts and recycles as far as is due. `true`: writes must wait for the flusher.
    ///
    /// `mono_ms` is a clock that never jumps. After a failure nothing is moved any more: the table may hold half of an entry.
    pub(crate) fn maintain(&mut self, now_ms: u64, mono_ms: u64) -> bool {
        if self.fault.is_some() {
            return false;
        }
        if self.log_wants_flush() {
            self.flush_asked_bytes = self.wal.metrics().bytes;
            self.table.request_flush();
        }
        match self.table.maintain(now_ms, self.synced_index) {
            Ok(upkeep) => {
                if upkeep.retired > 0 {
                    self.checkpoints += upkeep.retired as u64;
                    self.checkpoint_last_ms = now_ms;
                }
                if upkeep.durable.index > 0 {
                    self.log.compact(DATA_GROUP, upkeep.durable.index);
                }
            }
            Err(error) => self.stop_writes(&error.to_string()),
        }
        if self.fault.is_none() {
            let kept = self.keep_log(mono_ms);
            if let Err(reason) = kept {
                self.stop_writes(&reason);
            }
        }
        self.write_stall()
    }

    /// Whether the log has grown by so much that the memtables above it should go to the store, small as they may be: keys
    /// that are overwritten again and again take little memory and much log. Half the limit at a time, since the log
    /// goes on growing while the store takes what it holds.
    pub(crate) fn log_wants_flush(&self) -> bool {
        let step = self.log_bytes_max / 2;
        self.wal.metrics().bytes - self.flush_asked_bytes >= step && self.log.log_bytes() >= step
    }

    fn keep_log(&mut self, now_ms: u64) -> Result<(), String> {
        self.log.maintain(REWRITE_BYTES_MAX).map_err(|error| error.to_string())?;
        if self.log.has_staged() {
            self.write_log(now_ms)?;
        }
        let due = match self.wal.durability() {
            Durability::Always => false,
            Durability::Everysec => now_ms.saturating_sub(self.everysec_ms) >= 1000,
            // Nobody waits for this sync but the flusher, which may not move to the store what the log could still lose.
            Durability::No => self.table.stats().frozen > 0,
        };
        if due && !self.wal.is_synced() {
            self.everysec_ms = now_ms;
            let written = self.wal.sync(now_ms).map_err(|error| error.to_string())?;
            self.learn(written);
        }
        Ok(())
    }

    /// Whether writes must wait for the flusher.
    pub(crate) fn write_stall(&self) -> bool {
        self.fault.is_none() && self.table.write_stall()
    }

    /// What memory knows of a key at `clock_ms`; `None` when what is needed of it must come from the store.
    pub(crate) fn resident(&self, key: &[u8], clock_ms: u64, needs: Needs) -> Option<Resident> {
        let look = self.table.look(key_ref(key)).filter(|look| look.has_data || needs != Needs::Values)?;
        let ending = look.head.is_some_and(|head| head.is_expired(clock_ms) && !head.is_expired(self.time_ms));
        let data_bytes = look.head.map_or(0, |head| usize::try_from(head.data_bytes).unwrap_or(usize::MAX));
        Some(Resident { ending, fleeting: look.fleeting, data_bytes })
    }

    /// Keeps in memory what it knows of a key but might forget, until [`Replica::unpin`]. `false`: there is nothing to keep.
    pub(crate) fn hold(&mut self, key: &[u8]) -> bool {
        let key = key_ref(key);
        self.table.look(key).is_some_and(|look| look.fleeting) && self.table.hold(key)
    }

    /// Has the table made ready for lookups of these keys (slot and hash).
    pub(crate) fn warm(&self, keys: &[(u16, u64)]) {
        self.table.warm(keys);
    }

    /// Reads keys from the store on another thread.
    pub(crate) fn fetcher(&self) -> Fetcher {
        self.table.fetcher()
    }

    /// Takes in what a fetcher read. `true`: the key stays in memory until [`Replica::unpin`]. `false`: it was written
    /// meanwhile and must be looked at again.
    pub(crate) fn admit(&mut self, fetched: Fetched) -> bool {
        self.table.admit(fetched) == Admitted::Resident
    }

    /// Lets a key go that was admitted or held.
    pub(crate) fn unpin(&mut self, key: &[u8]) {
        self.table.unpin(key_ref(key));
    }

    /// Begins to look for keys that are expired by the group's time or about to be.
    pub(crate) fn expired(&mut self, now_ms: u64, limit: usize) -> Option<ExpireJob> {
        self.table.expired(now_ms, limit)
    }

    /// The keys that a job found.
    pub(crate) fn finish_expired(&mut self, outcome: ExpireOutcome) -> Vec<OwnedKey> {
        self.table.finish_expired(outcome)
    }

    /// Begins a page of keys.
    pub(crate) fn scan(&self, from: ScanPosition, limit: usize) -> ScanJob {
        self.table.scan(from, limit)
    }

    /// Completes a page of keys; `None` when it must be begun again.
    pub(crate) fn finish_scan(&self, outcome: ScanOutcome) -> Option<ScanPage> {
        self.table.finish_scan(outcome)
    }

    /// The number of keys, or how to find out.
    pub(crate) fn len(&mut self) -> holdfast_engine::Result<Len> {
        self.table.len()
    }

    /// The number of keys that a job found.
    pub(crate) fn finish_len(&mut self, outcome: LenOutcome) -> u64 {
        self.table.finish_len(outcome)
    }

    /// Hits and misses since the last call.
    pub(crate) fn take_lookups(&mut self) -> (u64, u64) {
        let Lookups { hits, misses } = std::mem::take(&mut self.lookups);
        (hits, misses)
    }

    /// Figures for reports. `client_bytes` is what connections hold.
    pub(crate) fn figures(&mut self, client_bytes: u64) -> Figures {
        self.ledger.set(Category::Connections, client_bytes);
        self.ledger.set(Category::EntryCache, self.log.memory_bytes() as u64);
        let stats = self.table.stats();
        let status = self.raft.status();
        Figures {
            keys: self.table.len_about(),
            memory_bytes: self.ledger.total(),
            memtable_bytes: stats.active_bytes,
            frozen_bytes: stats.frozen_bytes,
            cache_bytes: self.tables.cache_bytes(),
            store_disk_bytes: self.tables.disk_bytes(),
            store_blocking_reads: stats.blocking_reads,
            store_fetched_bytes: stats.fetched_bytes,
            pinned_bytes: stats.pinned_bytes,
            applied_index: self.table.applied().index,
            durable_index: self.table.durable().index,
            log_bytes: self.log.log_bytes(),
            log_live_bytes: self.log.live_bytes(),
            checkpoints: self.checkpoints,
            checkpoint_last_ms: self.checkpoint_last_ms,
            wal: self.wal.metrics(),
            raft: [
                status.role.term,
                status.commit,
                status.applied,
                status.first,
                status.last,
                status.role.leader.unwrap_or(0),
            ],
        }
    }

    /// Deletes those of the keys that are expired by the group's time, and says how many.
    pub(crate) fn reclaim(&mut self, keys: &[&[u8]]) -> u64 {
        let mut count = 0;
        for key in keys {
            let key = key_ref(key);
            match self.table.head(key) {
                Ok(Some(head)) if head.is_expired(self.time_ms) => {
                    self.table.delete(key);
                    count += 1;
                }
                Ok(_) => {}
                // Left as it is: nobody can see an expired key, and whoever reads it is told of the damage.
                Err(error) => tracing::error!(%error, slot = key.slot, "an expired key could not be read and is kept"),
            }
        }
        count
    }

    /// Stops in order: the log says so, and the next start has nothing in doubt.
    pub(crate) fn close(&mut self) -> holdfast_engine::Result<()> {
        self.tables.close()?;
        if self.fault.is_none() {
            let written = self.wal.close()?;
            self.learn(written);
        }
        Ok(())
    }
}

fn log_entry(entry: Entry) -> LogEntry {
    LogEntry { term: entry.term, index: entry.index, kind: kind_to_disk(entry.kind), payload: entry.payload }
}
