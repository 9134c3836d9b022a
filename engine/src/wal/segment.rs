//! Segment files: made ahead of need, recycled after use.
//!
//! A sync of the active file must not wait for the file system to allocate blocks, so a file is filled with zeros once,
//! before it joins the log, and used again and again afterwards. The life of a file:
//!
//! ```text
//!   (none) ──zeros──▶ spare-….tmp ──header, sync, rename, sync folder──▶ N.wal (next) ──▶ N.wal (active) ──▶ N.wal (full)
//!                          ▲                                                                                   │
//!                          └───────────────── rename, once nothing in it is needed ─────────────────────────────┘
//! ```
//!
//! So a file named `N.wal` always has a synced header, and numbers have no gaps. [`Preparer`] does all of this off the
//! writer's path; the writer does it itself only when it arrives at the end of a segment and finds no next one.

use super::WalOptions;
use super::format::{SECTOR_BYTES, SEGMENT_HEAD_BYTES, SegmentHeader};
use crate::error::{Error, Result};
use crate::vfs::{SharedVfs, VfsFile};
use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How many zeros one preparing step writes.
const FILL_STEP_BYTES: u64 = 1 << 20;

/// A segment file in the log.
#[derive(Debug, Clone)]
pub(crate) struct Segment {
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn VfsFile>,
    pub(crate) number: u64,
    pub(crate) identity: u64,
    pub(crate) capacity: u64,
}

/// A segment that holds batches, and where in the log they begin.
#[derive(Debug, Clone)]
pub(crate) struct PlacedSegment {
    pub(crate) segment: Segment,
    /// The log position of the segment's first batch.
    pub(crate) base: u64,
}

impl PlacedSegment {
    /// The offset in the file of a log position.
    pub(crate) fn offset_of(&self, position: u64) -> u64 {
        SEGMENT_HEAD_BYTES + (position - self.base)
    }
}

/// The file name of a segment.
pub(crate) fn segment_name(number: u64) -> String {
    format!("{number:016x}.wal")
}

/// The number in a segment's file name.
pub(crate) fn parse_segment_name(name: &Path) -> Option<u64> {
    let digits = name.to_str()?.strip_suffix(".wal")?;
    let number = u64::from_str_radix(digits, 16).ok()?;
    (segment_name(number) == name.to_str()?).then_some(number)
}

/// Whether this names a file that waits to join the log.
pub(crate) fn is_spare_name(name: &Path) -> bool {
    name.to_str().is_some_and(|name| name.starts_with("spare-") && name.ends_with(".tmp"))
}

#[derive(Debug, Default)]
struct PoolState {
    /// The next segment, ready to take over.
    next: Option<Segment>,
    /// The number that the segment after the last gets.
    next_number: u64,
    /// Files ready to be given a header.
    spares: Vec<PathBuf>,
    spare_serial: u64,
    /// A folder sync failed: which names are durable is unknown, so no number may be given out any more.
    broken: Option<String>,
}

/// The files that are not in the log at the moment, shared by writer, log store and preparer.
#[derive(Debug)]
pub(crate) struct Pool {
    vfs: SharedVfs,
    dir: PathBuf,
    node: u128,
    nonce: u64,
    segment_bytes: u64,
    spares_max: usize,
    /// Held across syncs by the preparer: the write path takes it only when it needs a segment.
    state: Mutex<PoolState>,
    /// Segments that nothing needs any more, still under their log names.
    freed: Mutex<Vec<u64>>,
    /// Whether `state.next` is there.
    next_ready: AtomicBool,
}

impl Pool {
    /// `next_number` follows the last segment in the folder; `spares` are files found there.
    pub(crate) fn new(
        vfs: SharedVfs,
        dir: &Path,
        options: &WalOptions,
        next_number: u64,
        next: Option<Segment>,
        spares: Vec<PathBuf>,
    ) -> Arc<Self> {
        let next_ready = AtomicBool::new(next.is_some());
        let state = PoolState { next, next_number, spares, ..PoolState::default() };
        Arc::new(Self {
            vfs,
            dir: dir.to_path_buf(),
            node: options.node,
            nonce: options.nonce,
            segment_bytes: options.segment_bytes,
            spares_max: options.spares_max,
            state: Mutex::new(state),
            freed: Mutex::default(),
            next_ready,
        })
    }

    fn lock(&self) -> MutexGuard<'_, PoolState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn freed(&self) -> MutexGuard<'_, Vec<u64>> {
        self.freed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives up segments: the caller vouches that a synced statement names a later one as the oldest needed.
    pub(crate) fn free(&self, numbers: impl IntoIterator<Item = u64>) {
        self.freed().extend(numbers);
    }

    /// Whether a next segment is ready.
    pub(crate) fn has_next(&self) -> bool {
        self.next_ready.load(Ordering::Acquire)
    }

    /// The next segment, made on the spot (without zeros) if none is ready.
    pub(crate) fn take_next(&self) -> Result<Segment> {
        let mut state = self.lock();
        if let Some(next) = state.next.take() {
            self.next_ready.store(false, Ordering::Release);
            return Ok(next);
        }
        self.check(&state)?;
        self.reclaim(&mut state)?;
        let spare = match state.spares.pop() {
            Some(spare) => spare,
            None => self.create_spare(&mut state)?.0,
        };
        self.join(&mut state, spare)
    }

    fn check(&self, state: &PoolState) -> Result<()> {
        match &state.broken {
            Some(detail) => Err(Error::Poisoned { path: self.dir.clone(), detail: detail.clone() }),
            None => Ok(()),
        }
    }

    /// The first segment of a new log, filled with zeros.
    pub(crate) fn create_first(&self) -> Result<Segment> {
        let mut state = self.lock();
        let (path, file) = self.create_spare(&mut state)?;
        let mut filled = 0;
        while filled < self.segment_bytes {
            filled = self.fill(&path, &*file, filled)?;
        }
        self.join(&mut state, path)
    }

    fn create_spare(&self, state: &mut PoolState) -> Result<(PathBuf, Box<dyn VfsFile>)> {
        let path = self.unused_spare_name(state)?;
        let file = self.vfs.open(&path, true).map_err(|e| Error::io("create", &path, e))?;
        Ok((path, file))
    }

    fn unused_spare_name(&self, state: &mut PoolState) -> Result<PathBuf> {
        loop {
            let path = self.dir.join(format!("spare-{:016x}.tmp", state.spare_serial));
            state.spare_serial += 1;
            if !self.vfs.exists(&path).map_err(|e| Error::io("look for", &path, e))? {
                return Ok(path);
            }
        }
    }

    /// Writes the zeros from `filled` on, one step; returns how far the file is filled.
    fn fill(&self, path: &Path, file: &dyn VfsFile, filled: u64) -> Result<u64> {
        let len = FILL_STEP_BYTES.min(self.segment_bytes - filled);
        let zeros = vec![0; len as usize];
        file.write_all_at(&[IoSlice::new(&zeros)], filled).map_err(|e| Error::io("preallocate", path, e))?;
        // Synced step by step, so that no large write-back stands in the way of the active segment's syncs.
        file.sync_data().map_err(|e| Error::io("sync", path, e))?;
        Ok(filled + len)
    }

    /// Gives a spare the next number and a header, durably, and its name in the log.
    fn join(&self, state: &mut PoolState, spare: PathBuf) -> Result<Segment> {
        let number = state.next_number;
        let mut hash = [0; 32];
        hash[0..16].copy_from_slice(&self.node.to_le_bytes());
        hash[16..24].copy_from_slice(&number.to_le_bytes());
        hash[24..32].copy_from_slice(&self.nonce.to_le_bytes());
        let identity = xxhash_rust::xxh3::xxh3_64(&hash);
        let capacity = self.segment_bytes;
        let mut head = vec![0; SEGMENT_HEAD_BYTES as usize];
        let header = SegmentHeader { node: self.node, number, identity, capacity };
        head[..SECTOR_BYTES].copy_from_slice(&header.encode());
        let file = self.vfs.open(&spare, false).map_err(|e| Error::io("open", &spare, e))?;
        file.write_all_at(&[IoSlice::new(&head)], 0).map_err(|e| Error::io("write", &spare, e))?;
        file.sync_all().map_err(|e| Error::io("sync", &spare, e))?;
        let path = self.dir.join(segment_name(number));
        self.vfs.rename(&spare, &path).map_err(|e| Error::io("rename", &spare, e))?;
        state.next_number += 1;
        if let Err(e) = self.vfs.sync_dir(&self.dir) {
            state.broken = Some(format!("sync of the folder: {e}"));
            return Err(Error::io("sync", &self.dir, e));
        }
        Ok(Segment { path, file: Arc::from(file), number, identity, capacity })
    }

    /// Takes a segment out of the log: renames it, if it is to be kept, or removes it.
    fn retire(&self, state: &mut PoolState, number: u64, kept: bool) -> Result<Option<PathBuf>> {
        let path = self.dir.join(segment_name(number));
        let len = self.vfs.open_read(&path).and_then(|file| file.len()).map_err(|e| Error::io("open", &path, e))?;
        // A segment that one huge batch stretched is not worth keeping.
        if kept && len == self.segment_bytes {
            let spare = self.unused_spare_name(state)?;
            self.vfs.rename(&path, &spare).map_err(|e| Error::io("rename", &path, e))?;
            return Ok(Some(spare));
        }
        self.vfs.remove(&path).map_err(|e| Error::io("remove", &path, e))?;
        Ok(None)
    }

    /// Turns freed segments into spares, or removes them when there are enough. Returns whether there were any.
    fn reclaim(&self, state: &mut PoolState) -> Result<bool> {
        let freed = std::mem::take(&mut *self.freed());
        if freed.is_empty() {
            return Ok(false);
        }
        let mut renamed = Vec::new();
        for (done, &number) in freed.iter().enumerate() {
            let kept = state.spares.len() + renamed.len() < self.spares_max;
            match self.retire(state, number, kept) {
                Ok(spare) => renamed.extend(spare),
                Err(e) => {
                    self.freed().extend_from_slice(&freed[done..]);
                    return Err(e);
                }
            }
        }
        // The old name must be gone for good before the file gets a new header.
        self.vfs.sync_dir(&self.dir).map_err(|e| Error::io("sync", &self.dir, e))?;
        state.spares.append(&mut renamed);
        Ok(true)
    }
}

/// Makes the next segment ready and recycles those no longer needed, away from the write path.
///
/// Call [`Preparer::step`] after each [`super::Written`] that wants a segment (from a helper thread, or between turns)
/// until it answers `false`. A failure leaves the log untouched: it says that disk space will run out once the active
/// segment is full.
#[derive(Debug)]
pub struct Preparer {
    pool: Arc<Pool>,
    filling: Option<(PathBuf, Box<dyn VfsFile>, u64)>,
}

impl Preparer {
    pub(crate) fn new(pool: Arc<Pool>) -> Self {
        Self { pool, filling: None }
    }

    /// Does one bounded piece of work (at most a mebibyte of zeros); `false` when there is nothing left to do.
    ///
    /// # Errors
    /// [`Error::Io`] when the disk refuses (no space, for instance); may be called again later.
    pub fn step(&mut self) -> Result<bool> {
        {
            let mut state = self.pool.lock();
            if self.pool.reclaim(&mut state)? {
                return Ok(true);
            }
            if state.next.is_some() {
                return Ok(false);
            }
            self.pool.check(&state)?;
            if let Some(spare) = state.spares.pop() {
                state.next = Some(self.pool.join(&mut state, spare)?);
                self.pool.next_ready.store(true, Ordering::Release);
                return Ok(true);
            }
        }
        let (path, file, filled) = match self.filling.take() {
            Some(filling) => filling,
            None => {
                let (path, file) = self.pool.create_spare(&mut self.pool.lock())?;
                (path, file, 0)
            }
        };
        match self.pool.fill(&path, &*file, filled) {
            Ok(filled) if filled == self.pool.segment_bytes => self.pool.lock().spares.push(path),
            Ok(filled) => self.filling = Some((path, file, filled)),
            Err(e) => {
                // Give the space back: what is left of it is for the log.
                drop(file);
                let _ = self.pool.vfs.remove(&path);
                return Err(e);
            }
        }
        Ok(true)
    }
}
