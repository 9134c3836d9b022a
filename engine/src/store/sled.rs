//! sled 0.34, the other checkpoint store: slower and larger, and its word does not reach the platters.
//!
//! What must be known about it: `flush` leaves bytes in the device's cache and metadata in the system's; an old page may be
//! overwritten once its copy is "stable" in that sense, so that a power cut can damage what was safe before; iterators see
//! writes made beside them; `apply_batch` stops every other reader for its duration. So:
//!
//! - the store says [`Durability::ProcessCrash`], and the log above it is cut only below a sealed snapshot of our own;
//! - a generation goes in as bounded batches, the applied index in the last; a first row marks it as begun, so that a crash
//!   in between is noticed at open ([`CheckpointStore::interrupted`]): the store is then thrown away and filled from the last
//!   sealed snapshot, above which the log still holds everything;
//! - a view holds back the next generation, for want of a snapshot;
//! - sled's background thread is left on: it is what reclaims space;
//! - it panics where its files make no sense to it, also long after they were opened: reads turn that into an error;
//! - over such files it may wait for ever in a flush, and dropping it flushes: both run on threads of their own, and whoever
//!   waits for them gives up in the end. A thread that was given up stays behind with its file handles until the process ends.

use super::{CheckpointStore, Durability, ReadRows, RowBytes, RowSink, Rows, StoreView, check_ascending};
use crate::{Error, Result};
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

/// A batch stops readers while it is applied: keep it to some milliseconds.
const BATCH_BYTES_MAX: usize = 256 << 10;
const BATCH_ROWS_MAX: usize = 512;

/// Present while a generation is under way. Sorts before every row of the table.
const BEGUN: &[u8] = b"!begun";

/// How long a flush may take. What takes this long waits for something that will not come.
const FLUSH_PATIENCE: Duration = Duration::from_secs(120);
/// How long closing may take. Nothing is lost when it is given up: every generation was flushed when it was written.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);

/// sled, closed on a thread of its own.
#[derive(Debug)]
struct Handle {
    /// Taken when it is closed.
    db: Option<::sled::Db>,
    path: PathBuf,
}

impl Deref for Handle {
    type Target = ::sled::Db;

    fn deref(&self) -> &::sled::Db {
        self.db.as_ref().expect("the handle is whole until it is dropped")
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let db = self.db.take();
        if elsewhere(CLOSE_PATIENCE, move || drop(db)).is_none() {
            tracing::warn!(path = %self.path.display(), "sled did not close within {CLOSE_PATIENCE:?}: it is left behind");
        }
    }
}

/// Runs what may never come back on a thread of its own; `None` when it did not come back in time, or panicked.
fn elsewhere<T: Send + 'static>(patience: Duration, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (sender, receiver) = mpsc::channel();
    let thread = std::thread::Builder::new().name("holdfast-sled".into()).spawn(move || {
        // The receiver is gone only when it has given up on us.
        let _ = sender.send(work());
    });
    thread.ok()?;
    receiver.recv_timeout(patience).ok()
}

/// A store over sled.
#[derive(Debug)]
pub struct SledStore {
    path: PathBuf,
    db: Arc<Handle>,
    gate: Arc<Gate>,
    interrupted: bool,
    cache_bytes_max: u64,
}

impl SledStore {
    /// Opens or creates the store in a folder, with a bound on the memory of its page cache.
    ///
    /// # Errors
    /// sled's, as it says them. It may panic on a damaged folder: the caller catches that.
    pub fn open(path: &Path, cache_bytes_max: u64) -> Result<Self, ::sled::Error> {
        let db = ::sled::Config::new()
            .path(path)
            .cache_capacity(cache_bytes_max)
            .mode(::sled::Mode::HighThroughput)
            .flush_every_ms(Some(1_000))
            .open()?;
        let db = Arc::new(Handle { db: Some(db), path: path.to_path_buf() });
        let interrupted = db.contains_key(BEGUN)?;
        Ok(SledStore { path: path.to_path_buf(), db, gate: Arc::default(), interrupted, cache_bytes_max })
    }

    fn error(&self, error: ::sled::Error) -> Error {
        store_error(&self.path, &error)
    }

    /// Makes everything durable as far as sled can and, since that is not far, syncs its files ourselves.
    ///
    /// # Errors
    /// When a file can't be synced.
    #[allow(clippy::disallowed_methods, reason = "sled opens its own files, so that our seam has no handle on them")]
    fn sync(&self) -> Result<()> {
        let db = self.db.clone();
        let flushed = elsewhere(FLUSH_PATIENCE, move || db.flush()).unwrap_or_else(|| {
            Err(::sled::Error::ReportableBug(format!("a flush panicked or did not end within {FLUSH_PATIENCE:?}")))
        });
        flushed.map_err(|error| self.error(error))?;
        let io = |error| Error::io("sync", &self.path, error);
        for entry in std::fs::read_dir(&self.path).map_err(io)? {
            let entry = entry.map_err(io)?;
            if entry.file_type().map_err(io)?.is_file() {
                match std::fs::File::open(entry.path()) {
                    Ok(file) => file.sync_all().map_err(io)?,
                    // sled replaces its snapshot files from another thread.
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    Err(error) => return Err(io(error)),
                }
            }
        }
        std::fs::File::open(&self.path).and_then(|dir| dir.sync_all()).map_err(io)
    }
}

fn store_error(path: &Path, error: &::sled::Error) -> Error {
    Error::Store { path: path.to_path_buf(), detail: error.to_string() }
}

/// Asks sled for something to read; a panic is an error too.
fn read<T>(path: &Path, ask: impl FnOnce() -> Result<T, ::sled::Error>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(ask)) {
        Ok(answer) => answer.map_err(|error| store_error(path, &error)),
        Err(panic) => {
            let detail = format!("sled panicked: {}", crate::table::panic_text(&*panic));
            Err(Error::Store { path: path.to_path_buf(), detail })
        }
    }
}

impl ReadRows for SledStore {
    fn get(&self, key: &[u8]) -> Result<Option<RowBytes>> {
        Ok(read(&self.path, || self.db.get(key))?.map(RowBytes::Sled))
    }

    fn range<'a>(&'a self, from: &[u8], to: &[u8]) -> Rows<'a> {
        rows(&self.path, &self.db, from, to)
    }
}

fn rows<'a>(path: &'a Path, db: &::sled::Db, from: &[u8], to: &[u8]) -> Rows<'a> {
    if from >= to {
        return Box::new(std::iter::empty());
    }
    let mut rows = db.range(from.to_vec()..to.to_vec());
    let mut failed = false;
    Box::new(std::iter::from_fn(move || {
        if failed {
            return None;
        }
        let row = read(path, || rows.next().transpose());
        failed = row.is_err();
        row.map(|row| row.map(|(key, value)| (RowBytes::Sled(key), RowBytes::Sled(value)))).transpose()
    }))
}

/// Views and generations take turns.
#[derive(Debug, Default)]
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct GateState {
    views: usize,
    writing: bool,
}

impl Gate {
    fn lock(&self) -> MutexGuard<'_, GateState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&'a self, closed: impl Fn(&GateState) -> bool) -> MutexGuard<'a, GateState> {
        let mut state = self.lock();
        while closed(&state) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state
    }
}

#[derive(Debug)]
struct SledView {
    path: PathBuf,
    db: Arc<Handle>,
    gate: Arc<Gate>,
}

impl Drop for SledView {
    fn drop(&mut self) {
        self.gate.lock().views -= 1;
        self.gate.changed.notify_all();
    }
}

impl ReadRows for SledView {
    fn get(&self, key: &[u8]) -> Result<Option<RowBytes>> {
        Ok(read(&self.path, || self.db.get(key))?.map(RowBytes::Sled))
    }

    fn range<'a>(&'a self, from: &[u8], to: &[u8]) -> Rows<'a> {
        rows(&self.path, &self.db, from, to)
    }
}

impl StoreView for SledView {}

/// Closes the gate for as long as it lives.
struct Writing<'a>(&'a Gate);

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.0.lock().writing = false;
        self.0.changed.notify_all();
    }
}

struct SledSink<'a> {
    store: &'a SledStore,
    batch: ::sled::Batch,
    rows: usize,
    bytes: usize,
    last: Option<Vec<u8>>,
    begun: bool,
}

impl SledSink<'_> {
    fn room_for(&mut self, key: &[u8], value_bytes: usize) -> Result<()> {
        check_ascending(&self.store.path, &mut self.last, key)?;
        if self.rows >= BATCH_ROWS_MAX || self.bytes + key.len() + value_bytes > BATCH_BYTES_MAX && self.rows > 0 {
            if !self.begun {
                self.store.db.insert(BEGUN, b"").map_err(|error| self.store.error(error))?;
                self.begun = true;
            }
            self.apply()?;
        }
        self.rows += 1;
        self.bytes += key.len() + value_bytes;
        Ok(())
    }

    fn apply(&mut self) -> Result<()> {
        (self.rows, self.bytes) = (0, 0);
        self.store.db.apply_batch(std::mem::take(&mut self.batch)).map_err(|error| self.store.error(error))
    }
}

impl RowSink for SledSink<'_> {
    fn put(&mut self, key: &[u8], head: &[u8], tail: &[u8]) -> Result<()> {
        self.room_for(key, head.len() + tail.len())?;
        self.batch.insert(key, [head, tail].concat());
        Ok(())
    }

    fn delete(&mut self, key: &[u8]) -> Result<()> {
        self.room_for(key, 0)?;
        self.batch.remove(key);
        Ok(())
    }
}

impl CheckpointStore for SledStore {
    fn view(&self) -> Result<Box<dyn StoreView>> {
        self.gate.wait(|state| state.writing).views += 1;
        Ok(Box::new(SledView { path: self.path.clone(), db: self.db.clone(), gate: self.gate.clone() }))
    }

    fn ingest(&self, produce: &mut dyn FnMut(&mut dyn RowSink) -> Result<()>) -> Result<()> {
        self.gate.wait(|state| state.writing || state.views > 0).writing = true;
        let writing = Writing(&self.gate);
        let mut sink =
            SledSink { store: self, batch: ::sled::Batch::default(), rows: 0, bytes: 0, last: None, begun: false };
        produce(&mut sink)?;
        if sink.begun {
            sink.batch.remove(BEGUN);
        }
        sink.apply()?;
        drop(writing);
        self.sync()
    }

    fn interrupted(&self) -> bool {
        self.interrupted
    }

    fn durability(&self) -> Durability {
        Durability::ProcessCrash
    }

    fn disk_bytes(&self) -> u64 {
        self.db.size_on_disk().unwrap_or(0)
    }

    fn memory_bytes(&self) -> u64 {
        // NB: sled does not say, and takes more: it looks at its bound once in 64 uses of the pages of each of 256 shards.
        self.cache_bytes_max
    }

    fn close(&self) -> Result<()> {
        self.sync()
    }
}
