//! A log on a simulated disk, for tests.
#![allow(dead_code, unreachable_pub, reason = "each test file uses some of it")]

use bytes::Bytes;
use holdfast_engine::Result;
use holdfast_engine::log::{Durability, LogEntry, LogStore, RecoveryReport, WalOptions, WalWriter, Written};
use holdfast_engine::vfs::SimVfs;
use std::path::{Path, PathBuf};

/// The log's folder.
pub fn dir() -> &'static Path {
    Path::new("/data/wal")
}

/// The file of a segment.
pub fn segment(number: u64) -> PathBuf {
    dir().join(format!("{number:016x}.wal"))
}

/// Where a segment's first batch begins, and a batch's header's length.
pub const HEAD: u64 = 4096;
pub const HEADER: u64 = 64;

/// An open log.
pub struct Node {
    pub vfs: SimVfs,
    pub store: LogStore,
    pub writer: WalWriter,
    pub report: RecoveryReport,
    pub now_ms: u64,
}

/// Small segments, so that few batches fill several.
pub fn options(boot: u64) -> WalOptions {
    WalOptions {
        segment_bytes: 16 << 10,
        log_bytes_max: 64 << 10,
        cache_bytes_max: 4 << 10,
        ..WalOptions::new(7, boot)
    }
}

pub fn entry(term: u64, index: u64, len: usize) -> LogEntry {
    let payload: Vec<u8> = (0..len).map(|at| (index * 31 + term * 7 + at as u64) as u8).collect();
    LogEntry { term, index, kind: 0, payload: Bytes::from(payload) }
}

impl Node {
    pub fn open_with(vfs: &SimVfs, options: WalOptions) -> Result<Node> {
        let (store, writer, report) = LogStore::open(vfs.shared(), dir(), options)?;
        Ok(Node { vfs: vfs.clone(), store, writer, report, now_ms: 0 })
    }

    pub fn open(vfs: &SimVfs) -> Result<Node> {
        // The disk's count of changes stands for the boot number.
        Self::open_with(vfs, options(vfs.changes()))
    }

    /// A new log with group 1.
    pub fn fresh() -> Node {
        Self::fresh_with(options(0))
    }

    pub fn fresh_with(options: WalOptions) -> Node {
        let mut node = Self::open_with(&SimVfs::new(), options).unwrap();
        node.store.create_group(1);
        node.commit().unwrap();
        node
    }

    /// Seals and writes what is staged.
    pub fn commit(&mut self) -> Result<bool> {
        let Some(batch) = self.store.seal() else { return Ok(true) };
        self.now_ms += 1;
        let written = self.writer.write(batch, self.now_ms)?;
        let synced = written.synced();
        self.took(written);
        Ok(synced)
    }

    pub fn took(&mut self, written: Written) {
        self.store.written(written);
    }

    /// One entry after the last, in a batch of its own.
    pub fn append(&mut self, group: u64, term: u64, len: usize) -> Result<u64> {
        let index = self.store.group(group).unwrap().last_index() + 1;
        self.store.append(group, &[entry(term, index, len)]);
        self.commit()?;
        Ok(index)
    }

    /// Makes segments ready and recycles, as a driver does between turns.
    pub fn prepare(&mut self) {
        while self.writer.prepare_next().unwrap() {}
    }

    pub fn entries(&self, group: u64) -> Vec<LogEntry> {
        let log = self.store.group(group).unwrap();
        log.entries(log.first_index(), log.last_index() + 1, usize::MAX).unwrap()
    }
}

/// The offset of the batch that starts at log position `position` in a log of one segment.
pub fn offset(position: u64) -> u64 {
    HEAD + position
}

pub fn weak(durability: Durability) -> WalOptions {
    WalOptions { durability, ..options(0) }
}
