//! What the tables of a node share: the checkpoint store, the value cache, the memory budget, and the flusher.
//!
//! The flusher is one thread with a queue. It writes generations in the order they were frozen, pauses while the store has
//! too much to merge, sweeps up the rows of incarnations that are over when it has nothing better to do, and frees large
//! memtables so that the shard thread needn't. Its first failed write is its last: from then on every table reports the
//! failure, and the log keeps growing instead of being cut above a hole.

use super::cache::ValueCache;
use super::flush::{Frozen, GroupBase, Outcome, load_base, lock, write_generation};
use super::records::Records;
use super::seal::Sealer;
use super::state::Table;
use super::{SLOTS, rows};
use crate::ledger::{Category, Ledger};
use crate::store::{CheckpointStore, Durability, OPEN_PATIENCE, StoreKind, StoreOptions, open_store};
use crate::vfs::SharedVfs;
use crate::{Error, GroupId, Result};
use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// The flusher pauses while the store has more generations than this to merge.
const BACKLOG_MAX: usize = 16;
/// How long a pause is before the flusher looks again, and how many before it writes on regardless.
const BACKLOG_PAUSE: Duration = Duration::from_millis(20);
const BACKLOG_PAUSES_MAX: usize = 500;
/// Rows that a sweep removes in one generation.
const SWEEP_ROWS_MAX: usize = 8192;

/// Who writes generations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FlusherMode {
    /// A background thread of the node.
    #[default]
    Thread,
    /// Whoever calls [`Table::maintain`]: for tests and simulations, which must be repeatable.
    Inline,
}

/// How a node's tables are kept.
#[derive(Debug, Clone)]
pub struct TablesOptions {
    /// The folder for the store and its sealed snapshots; created if absent.
    pub dir: PathBuf,
    /// The identity of the data folder that the store belongs to; 0 if nobody says.
    pub folder: u128,
    /// Which checkpoint store a new folder gets. An existing folder must agree.
    pub store: StoreKind,
    /// Memory for memtables, active and frozen, of all groups, in bytes.
    pub memtable_bytes_max: u64,
    /// Memory for the value cache, in bytes.
    pub cache_bytes_max: u64,
    /// Memory for the store's own block cache, in bytes.
    pub store_cache_bytes_max: u64,
    /// An entry that waited this long is flushed even if memory is plentiful, in milliseconds.
    pub flush_age_ms: u64,
    /// On a store that does not reach the platters: seal a snapshot once this many bytes were flushed since the last.
    pub seal_bytes: u64,
    /// Distinguishes one run of the operating system from the next (on Linux, `/proc/sys/kernel/random/boot_id`).
    pub boot_id: String,
    /// A secret number, so that chosen keys can't flood the cache's hash table.
    pub hash_seed: u64,
    /// Who writes generations.
    pub flusher: FlusherMode,
    /// How long the store's files may take to open before they count as damaged.
    pub store_open_patience: Duration,
}

impl TablesOptions {
    /// Moderate settings for a folder: 64 MiB each for memtables and values, 32 MiB for the store.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        TablesOptions {
            dir: dir.into(),
            folder: 0,
            store: StoreKind::Fjall,
            memtable_bytes_max: 64 << 20,
            cache_bytes_max: 64 << 20,
            store_cache_bytes_max: 32 << 20,
            flush_age_ms: 30_000,
            seal_bytes: 256 << 20,
            boot_id: String::new(),
            hash_seed: 0,
            flusher: FlusherMode::Thread,
            store_open_patience: OPEN_PATIENCE,
        }
    }
}

/// The tables of a node. Cloning shares them; the flusher stops when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Tables {
    inner: Arc<TablesInner>,
}

#[derive(Debug)]
struct TablesInner {
    shared: Arc<Shared>,
    flusher: Mutex<Option<JoinHandle<()>>>,
}

/// What tables, jobs and the flusher have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) store: Box<dyn CheckpointStore>,
    pub(crate) options: TablesOptions,
    pub(crate) cache: ValueCache,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) sealer: Sealer,
    /// One writer of generations at a time.
    pub(crate) write_turn: Mutex<()>,
    /// What the store holds, by group.
    bases: Mutex<BTreeMap<GroupId, Arc<Mutex<GroupBase>>>>,
    /// Tables that hold an active memtable, for their fair share of the budget.
    pub(crate) tables: AtomicUsize,
    pub(crate) blocking_reads: AtomicU64,
    /// Bytes of values read from the store for tables, ever.
    pub(crate) fetched_bytes: AtomicU64,
    queue: Mutex<Queue>,
    work: Condvar,
    idle: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    jobs: VecDeque<Job>,
    busy: bool,
    stop: bool,
    /// The first failure; nothing is written after it.
    failed: Option<String>,
}

pub(crate) enum Job {
    Flush(Arc<Frozen>),
    /// Frees memory where nobody waits for it.
    Drop(#[allow(dead_code, reason = "held to be dropped")] Box<dyn Any + Send>),
    /// Removes what incarnations left behind that are over.
    Sweep(GroupId),
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Job::Flush(frozen) => write!(f, "Flush(group {}, index {})", frozen.group, frozen.applied.index),
            Job::Drop(_) => write!(f, "Drop"),
            Job::Sweep(group) => write!(f, "Sweep({group})"),
        }
    }
}

impl Tables {
    /// Opens the node's checkpoint store, which is created if the folder is new.
    ///
    /// A store that cannot be trusted is set aside inside the folder, and replaced by an empty one filled from the newest
    /// sealed snapshots, if there are any; [`Table::check_meets_log`] says whether that and the log make a whole.
    ///
    /// # Errors
    /// When the folder belongs to another store, another data folder or a newer release, another process has it, or it can't be read or written.
    pub fn open(vfs: SharedVfs, options: TablesOptions, ledger: Arc<Ledger>) -> Result<Self> {
        let opened = open_store(
            &vfs,
            &StoreOptions {
                dir: options.dir.clone(),
                folder: options.folder,
                kind: options.store,
                cache_bytes_max: options.store_cache_bytes_max,
                boot_id: options.boot_id.clone(),
                open_patience: options.store_open_patience,
            },
        )?;
        Self::start(vfs, options, ledger, opened.store, opened.set_aside)
    }

    /// As [`Tables::open`], over a store that the caller made: for tests.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn with_store(
        vfs: SharedVfs,
        options: TablesOptions,
        ledger: Arc<Ledger>,
        store: Box<dyn CheckpointStore>,
    ) -> Result<Self> {
        Self::start(vfs, options, ledger, store, None)
    }

    fn start(
        vfs: SharedVfs,
        options: TablesOptions,
        ledger: Arc<Ledger>,
        store: Box<dyn CheckpointStore>,
        set_aside: Option<PathBuf>,
    ) -> Result<Self> {
        let sealer = Sealer::new(vfs, &options.dir, set_aside);
        let shared = Arc::new(Shared {
            cache: ValueCache::new(options.cache_bytes_max, options.hash_seed),
            store,
            options,
            ledger,
            sealer,
            write_turn: Mutex::new(()),
            bases: Mutex::new(BTreeMap::new()),
            tables: AtomicUsize::new(0),
            blocking_reads: AtomicU64::new(0),
            fetched_bytes: AtomicU64::new(0),
            queue: Mutex::new(Queue::default()),
            work: Condvar::new(),
            idle: Condvar::new(),
        });
        assert!(!shared.store.interrupted(), "a store with half a generation is not given to tables");
        let flusher = match shared.options.flusher {
            FlusherMode::Inline => None,
            FlusherMode::Thread => {
                let shared = shared.clone();
                let thread = std::thread::Builder::new().name("holdfast-flush".into()).spawn(move || shared.run());
                Some(thread.map_err(|error| Error::io("start the flusher for", Path::new("tables"), error))?)
            }
        };
        Ok(Tables { inner: Arc::new(TablesInner { shared, flusher: Mutex::new(flusher) }) })
    }

    /// Opens a group's table at what the store holds of it; the log above [`Table::applied`] is to be applied to it.
    ///
    /// # Errors
    /// When the store's rows can't be read.
    pub fn table(&self, group: GroupId) -> Result<Table> {
        let shared = self.inner.shared.clone();
        let base = shared.base(group)?;
        let records = {
            // A table of before may have left a flush behind: what it knows and what it writes belong together.
            let _turn = lock(&shared.write_turn);
            let incarnation = lock(&base).meta.incarnation;
            Records::load(&*shared.store, group, incarnation).map_err(|error| shared.locate(error))?
        };
        shared.submit(Job::Sweep(group));
        Ok(Table::new(shared, group, base, records))
    }

    /// Blocks until the flusher has nothing left to do.
    ///
    /// # Errors
    /// When a flush failed.
    pub fn wait_idle(&self) -> Result<()> {
        let shared = &self.inner.shared;
        let mut queue = lock(&shared.queue);
        while (queue.busy || !queue.jobs.is_empty()) && queue.failed.is_none() {
            queue = shared.idle.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        queue.failed.clone().map_or(Ok(()), |detail| Err(shared.failed(detail)))
    }

    /// Finishes the flushes under way and closes the store. Tables must not be used afterwards.
    ///
    /// # Errors
    /// When a flush failed or the store can't be closed.
    pub fn close(&self) -> Result<()> {
        self.wait_idle()?;
        self.inner.stop();
        self.inner.shared.store.close()
    }

    /// Bytes that the checkpoint store takes on disk, about.
    pub fn disk_bytes(&self) -> u64 {
        self.inner.shared.store.disk_bytes()
    }

    /// Bytes of the value cache in use.
    pub fn cache_bytes(&self) -> u64 {
        self.inner.shared.cache.bytes()
    }

    /// How far a generation's durability reaches with the store in use.
    pub fn durability(&self) -> Durability {
        self.inner.shared.store.durability()
    }
}

impl TablesInner {
    fn stop(&self) {
        lock(&self.shared.queue).stop = true;
        self.shared.work.notify_all();
        if let Some(thread) = lock(&self.flusher).take() {
            // A panic of the flusher was already turned into a failure; there is nothing to add here.
            let _ = thread.join();
        }
    }
}

impl Drop for TablesInner {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    /// What the store holds of a group, read once.
    pub(crate) fn base(self: &Arc<Self>, group: GroupId) -> Result<Arc<Mutex<GroupBase>>> {
        if let Some(base) = lock(&self.bases).get(&group) {
            return Ok(base.clone());
        }
        self.sealer.restore(self, group).map_err(|error| self.locate(error))?;
        let base = Arc::new(Mutex::new(load_base(&*self.store, group).map_err(|error| self.locate(error))?));
        Ok(lock(&self.bases).entry(group).or_insert(base).clone())
    }

    /// Names the store's folder in an error that only knows the row.
    pub(crate) fn locate(&self, error: Error) -> Error {
        match error {
            Error::Store { path, detail } if path == Path::new("(rows)") => {
                Error::Store { path: self.options.dir.clone(), detail }
            }
            other => other,
        }
    }

    pub(crate) fn failed(&self, detail: String) -> Error {
        Error::Poisoned { path: self.options.dir.clone(), detail }
    }

    pub(crate) fn submit(self: &Arc<Self>, job: Job) {
        lock(&self.queue).jobs.push_back(job);
        if self.options.flusher == FlusherMode::Inline {
            self.drain();
        } else {
            self.work.notify_one();
        }
    }

    /// Whether a flush failed, and with what words.
    pub(crate) fn failure(&self) -> Option<String> {
        lock(&self.queue).failed.clone()
    }

    fn drain(self: &Arc<Self>) {
        loop {
            let Some(job) = lock(&self.queue).jobs.pop_front() else { return };
            self.perform(job);
        }
    }

    /// The flusher thread.
    fn run(self: &Arc<Self>) {
        let mut queue = lock(&self.queue);
        loop {
            if queue.stop {
                return;
            }
            match queue.jobs.pop_front() {
                Some(job) => {
                    queue.busy = true;
                    drop(queue);
                    if matches!(job, Job::Flush(_)) {
                        self.pause_for_backlog();
                    }
                    self.perform(job);
                    queue = lock(&self.queue);
                    queue.busy = false;
                }
                None => {
                    self.idle.notify_all();
                    queue = self.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    fn pause_for_backlog(&self) {
        let mut queue = lock(&self.queue);
        for _ in 0..BACKLOG_PAUSES_MAX {
            if queue.stop || self.store.backlog() <= BACKLOG_MAX {
                return;
            }
            (queue, _) = self.work.wait_timeout(queue, BACKLOG_PAUSE).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Runs one job; a store that panics fails it like a store that errs.
    fn perform(self: &Arc<Self>, job: Job) {
        match job {
            Job::Drop(memory) => drop(memory),
            Job::Flush(frozen) => {
                let outcome = match self.failure() {
                    Some(failed) => Err(failed),
                    None => self.guarded(|| self.flush(&frozen)),
                };
                if let Err(detail) = &outcome {
                    self.fail(detail);
                }
                frozen.finish(outcome);
            }
            Job::Sweep(group) => {
                if self.failure().is_none() {
                    match self.guarded(|| self.sweep(group)) {
                        Ok(true) => self.submit(Job::Sweep(group)),
                        Ok(false) => {}
                        Err(detail) => self.fail(&detail),
                    }
                }
            }
        }
        self.post();
    }

    /// Posts to the ledger what readers change as well.
    pub(crate) fn post(&self) {
        self.ledger.set(Category::Cache, self.cache.bytes());
        self.ledger.set(Category::Store, self.store.memory_bytes());
    }

    fn fail(&self, detail: &str) {
        let mut queue = lock(&self.queue);
        if queue.failed.is_none() {
            tracing::error!(dir = %self.options.dir.display(), detail, "the checkpoint store failed; nothing more is flushed");
            queue.failed = Some(detail.to_owned());
        }
    }

    fn guarded<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T, String> {
        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(self.locate(error).to_string()),
            Err(panic) => Err(format!("the store panicked: {}", panic_text(&*panic))),
        }
    }

    fn flush(self: &Arc<Self>, frozen: &Frozen) -> Result<Outcome> {
        let _turn = lock(&self.write_turn);
        let mut outcome = write_generation(self, frozen)?;
        match self.store.durability() {
            Durability::PowerCut => {}
            Durability::None => outcome.durable = None,
            // NB: what the store holds now may not survive a power cut, so the log stays until a snapshot of ours is sealed.
            Durability::ProcessCrash => outcome.durable = self.sealer.after_flush(self, frozen)?,
        }
        Ok(outcome)
    }

    fn sweep(self: &Arc<Self>, group: GroupId) -> Result<bool> {
        let base = self.base(group)?;
        let _turn = lock(&self.write_turn);
        let (keep, installing) = {
            let base = lock(&base);
            (base.meta.incarnation, base.installing)
        };
        self.sweep_rows(group, keep, installing)
    }

    /// Removes rows of incarnations other than two; true when there may be more. The caller has the write turn.
    pub(crate) fn sweep_rows(&self, group: GroupId, keep: u64, installing: Option<u64>) -> Result<bool> {
        let spared = |incarnation: u64| incarnation == keep || Some(incarnation) == installing;
        let mut dead: Vec<Vec<u8>> = Vec::new();
        let (mut from, to) = rows::group_range(group);
        // Skip over the incarnations that stay instead of reading them: one seek for each slot in use.
        'seek: loop {
            for row in self.store.range(&from, &to) {
                let (key, _) = row?;
                let parsed = rows::parse_data_key(&key).map_err(super::flush::store_error)?;
                if spared(parsed.incarnation) {
                    from = rows::data_bound(group, parsed.slot, parsed.incarnation, None);
                    continue 'seek;
                }
                dead.push(key.to_vec());
                if dead.len() >= SWEEP_ROWS_MAX {
                    break;
                }
            }
            break;
        }
        if dead.is_empty() {
            return self.sweep_records(group, spared);
        }
        // The index rows of what goes; they sort after all data rows.
        let mut index = Vec::new();
        for row in &dead {
            let Some(value) = self.store.get(row)? else { continue };
            if rows::parse_data_key(row).map_err(super::flush::store_error)?.key.is_some() {
                let head = rows::parse_value_head(&value).map_err(super::flush::store_error)?;
                if head.deadline_ms != 0 {
                    index.push(rows::index_key(row, head.deadline_ms));
                }
            } else {
                for (_, object) in rows::parse_bucket(&value).map_err(super::flush::store_error)? {
                    if object.deadline_ms != 0 {
                        index.push(rows::index_key(row, object.deadline_ms));
                    }
                }
            }
        }
        index.sort();
        index.dedup();
        self.store.ingest(&mut |sink| dead.iter().chain(&index).try_for_each(|row| sink.delete(row)))?;
        Ok(true)
    }
}

impl Shared {
    /// As [`Shared::sweep_rows`], for records.
    fn sweep_records(&self, group: GroupId, spared: impl Fn(u64) -> bool) -> Result<bool> {
        let mut dead: Vec<Vec<u8>> = Vec::new();
        let (mut from, to) = rows::record_range(group);
        'seek: loop {
            for row in self.store.range(&from, &to) {
                let (key, _) = row?;
                let (incarnation, _) = rows::parse_record_key(&key).map_err(super::flush::store_error)?;
                if spared(incarnation) {
                    from = rows::record_bounds(group, incarnation, 0, SLOTS as u16 - 1).1;
                    continue 'seek;
                }
                dead.push(key.to_vec());
                if dead.len() >= SWEEP_ROWS_MAX {
                    break;
                }
            }
            break;
        }
        if dead.is_empty() {
            return Ok(false);
        }
        self.store.ingest(&mut |sink| dead.iter().try_for_each(|row| sink.delete(row)))?;
        Ok(true)
    }
}

pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("(no message)")
}
