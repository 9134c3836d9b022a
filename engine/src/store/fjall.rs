//! fjall, the default checkpoint store: an LSM tree that takes sorted generations as finished files.
//!
//! One keyspace holds everything. A generation is one ingestion: fjall writes its rows straight into tables of the tree,
//! syncs each table and the folder, writes and syncs a new version file that names them, syncs the folder, and swaps the
//! pointer to it with a temporary file, a sync, a rename and a sync of the folder. Only the last step makes any of it visible,
//! so a generation is atomic, and it is durable when `finish` returns. fjall's own journal is never written.
//!
//! NB: no separation of large values: lsm-tree syncs a new blob file but not the folder that names it, before it makes the
//! version that needs it durable.

use super::{CheckpointStore, Durability, ReadRows, RowBytes, RowSink, Rows, StoreView, check_ascending};
use crate::{Error, Result};
use ::fjall::compaction::Leveled;
use ::fjall::config::{BlockSizePolicy, PartitioningPolicy, PinningPolicy};
use ::fjall::{Database, Keyspace, KeyspaceCreateOptions, Readable};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The one keyspace.
const KEYSPACE: &str = "holdfast";

/// Where fjall keeps its keyspaces, each in a folder of its own.
const KEYSPACES_FOLDER: &str = "keyspaces";

/// Tables that fjall keeps open.
const OPEN_FILES: usize = 256;

/// Bytes of one table; a new store's are twice its cache, within these.
const TABLE_BYTES_MIN: u64 = 8 << 20;
const TABLE_BYTES_MAX: u64 = 64 << 20;

/// A store over fjall.
pub struct FjallStore {
    path: PathBuf,
    database: Database,
    keyspace: Keyspace,
    table_bytes: u64,
}

impl fmt::Debug for FjallStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FjallStore").field("path", &self.path).finish_non_exhaustive()
    }
}

impl FjallStore {
    /// Opens or creates the store in a folder, with a bound on the memory of its block cache.
    ///
    /// # Errors
    /// fjall's, as it says them.
    #[allow(clippy::disallowed_methods, reason = "fjall opens its own files, so that our seam has no handle on them")]
    pub fn open(path: &Path, cache_bytes_max: u64) -> Result<Self, ::fjall::Error> {
        let table_bytes = cache_bytes_max.saturating_mul(2).clamp(TABLE_BYTES_MIN, TABLE_BYTES_MAX);
        let database = Database::builder(path)
            .cache_size(cache_bytes_max)
            .max_cached_files(Some(OPEN_FILES))
            // Compaction is the only background work left: no memtable of fjall's is ever filled.
            .worker_threads(1)
            .manual_journal_persist(true)
            .open()?;
        let keyspace = database.keyspace(KEYSPACE, || {
            KeyspaceCreateOptions::default()
                .manual_journal_persist(true)
                .max_memtable_size(1 << 20)
                .data_block_size_policy(BlockSizePolicy::all(4 << 10))
                // NB: while lsm-tree writes a table, it keeps for every block whose place is not written yet the block itself in
                // memory, by way of its last key. So the places are written in parts, and tables are small where memory is.
                .index_block_partitioning_policy(PartitioningPolicy::all(true))
                .compaction_strategy(Arc::new(Leveled::default().with_table_target_size(table_bytes)))
                // Filters decide most lookups of keys that don't exist; keep those of the levels that change.
                .filter_block_pinning_policy(PinningPolicy::new([true, true, false]))
        })?;
        // fjall makes a folder for each keyspace and syncs what is in it, but not the folder that lists them: without this a
        // power cut could take a keyspace with everything that was ever written to it.
        for folder in [path.join(KEYSPACES_FOLDER), path.to_path_buf()] {
            std::fs::File::open(&folder).and_then(|folder| folder.sync_all())?;
        }
        Ok(FjallStore { path: path.to_path_buf(), database, keyspace, table_bytes })
    }

    fn error(&self, error: ::fjall::Error) -> Error {
        store_error(&self.path, &error)
    }
}

fn store_error(path: &Path, error: &dyn fmt::Display) -> Error {
    Error::Store { path: path.to_path_buf(), detail: error.to_string() }
}

impl ReadRows for FjallStore {
    fn get(&self, key: &[u8]) -> Result<Option<RowBytes>> {
        Ok(self.keyspace.get(key).map_err(|error| self.error(error))?.map(RowBytes::Fjall))
    }

    fn range<'a>(&'a self, from: &[u8], to: &[u8]) -> Rows<'a> {
        rows(&self.path, self.keyspace.range(from..to))
    }
}

fn rows(path: &Path, iter: ::fjall::Iter) -> Rows<'_> {
    Box::new(iter.map(move |guard| {
        let (key, value) = guard.into_inner().map_err(|error| store_error(path, &error))?;
        Ok((RowBytes::Fjall(key), RowBytes::Fjall(value)))
    }))
}

struct FjallView {
    path: PathBuf,
    keyspace: Keyspace,
    snapshot: ::fjall::Snapshot,
}

impl fmt::Debug for FjallView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FjallView").field("path", &self.path).finish_non_exhaustive()
    }
}

impl ReadRows for FjallView {
    fn get(&self, key: &[u8]) -> Result<Option<RowBytes>> {
        let value = self.snapshot.get(&self.keyspace, key).map_err(|error| store_error(&self.path, &error))?;
        Ok(value.map(RowBytes::Fjall))
    }

    fn range<'a>(&'a self, from: &[u8], to: &[u8]) -> Rows<'a> {
        rows(&self.path, self.snapshot.range(&self.keyspace, from..to))
    }
}

impl StoreView for FjallView {}

type WriteRow<'a> = dyn FnMut(&[u8], Option<&[u8]>) -> Result<(), ::fjall::Error> + 'a;

/// fjall does not export its ingestion's type, so a closure stands for it: a row with a value is written, one without removed.
struct FjallSink<'a> {
    path: &'a Path,
    write: &'a mut WriteRow<'a>,
    last: Option<Vec<u8>>,
    value: Vec<u8>,
}

impl RowSink for FjallSink<'_> {
    fn put(&mut self, key: &[u8], head: &[u8], tail: &[u8]) -> Result<()> {
        // NB: lsm-tree panics on keys that don't ascend and cuts the length of long ones silently; we refuse both.
        check_ascending(self.path, &mut self.last, key)?;
        self.value.clear();
        self.value.extend_from_slice(head);
        self.value.extend_from_slice(tail);
        (self.write)(key, Some(&self.value)).map_err(|error| store_error(self.path, &error))
    }

    fn delete(&mut self, key: &[u8]) -> Result<()> {
        check_ascending(self.path, &mut self.last, key)?;
        (self.write)(key, None).map_err(|error| store_error(self.path, &error))
    }
}

impl CheckpointStore for FjallStore {
    fn view(&self) -> Result<Box<dyn StoreView>> {
        Ok(Box::new(FjallView {
            path: self.path.clone(),
            keyspace: self.keyspace.clone(),
            snapshot: self.database.snapshot(),
        }))
    }

    fn ingest(&self, produce: &mut dyn FnMut(&mut dyn RowSink) -> Result<()>) -> Result<()> {
        let mut ingestion = self.keyspace.start_ingestion().map_err(|error| self.error(error))?;
        let mut write = |key: &[u8], value: Option<&[u8]>| match value {
            Some(value) => ingestion.write(key, value),
            None => ingestion.write_tombstone(key),
        };
        produce(&mut FjallSink { path: &self.path, write: &mut write, last: None, value: Vec::new() })?;
        ingestion.finish().map_err(|error| self.error(error))
    }

    fn durability(&self) -> Durability {
        Durability::PowerCut
    }

    fn backlog(&self) -> usize {
        self.keyspace.l0_table_count()
    }

    fn disk_bytes(&self) -> u64 {
        self.keyspace.disk_space()
    }

    fn memory_bytes(&self) -> u64 {
        // A compaction may have as much as a table in memory: see `FjallStore::open`.
        self.database.cache_size() + self.database.active_compactions() as u64 * self.table_bytes
    }
}
