//! Snapshots on their way: cut into chunks on one node, put together and checked on another.
//!
//! ```text
//!   View ─▶ SnapshotChunks ─▶ chunk, chunk, … last ─▶ Incoming ─▶ file, synced and verified ─▶ Host::received
//! ```
//!
//! Both ends do blocking work: the server runs them on threads for that, the simulator inline.

use crate::cluster::NodeId;
use crate::defects::{self, Defect};
use crate::peer::SnapshotChunk;
use holdfast_engine::snapshot::{SnapshotEncoder, SnapshotFile, SnapshotHeader};
use holdfast_engine::table::View;
use holdfast_engine::vfs::{SharedVfs, VfsFile, create_dir_durably};
use holdfast_engine::{Error, Result};
use std::io::IoSlice;
use std::path::{Path, PathBuf};

/// About how many bytes a chunk holds.
const CHUNK_BYTES: usize = 256 << 10;
/// So many bytes of an arriving snapshot are synced together.
const SYNC_BYTES: u64 = 64 << 20;
/// The last slot.
const SLOT_LAST: u16 = crate::slot::SLOT_COUNT - 1;

/// Cuts a view into the chunks of a snapshot.
#[derive(Debug)]
pub struct SnapshotChunks;

impl SnapshotChunks {
    /// Hands the chunks to `send`, each with whether it is the last, until that returns `false`.
    ///
    /// # Errors
    /// When the view can't be read.
    pub fn send_all(view: &View, mut send: impl FnMut(Vec<u8>, bool) -> bool) -> Result<()> {
        let mut encoder = SnapshotEncoder::new(&view.header());
        for row in view.rows(0, SLOT_LAST) {
            let row = row?;
            encoder.push(&row);
            if encoder.pending() >= CHUNK_BYTES && !send(encoder.take(), false) {
                return Ok(());
            }
        }
        send(encoder.finish(), true);
        Ok(())
    }
}

/// Whether a chunk continues a transfer: it comes from the same sender, is of the same transfer, and begins where the last one ended.
/// Chunks of a transfer that was given up may still be on their way when the next has begun.
pub fn is_next_chunk((sender, transfer, offset): (NodeId, u64, u64), from: NodeId, chunk: &SnapshotChunk) -> bool {
    let same = (sender, transfer, offset) == (from, chunk.transfer, chunk.offset);
    same || (defects::has(Defect::StaleSnapshotChunk) && sender == from && chunk.offset > 0)
}

/// A snapshot that is being received.
#[derive(Debug)]
pub struct Incoming {
    vfs: SharedVfs,
    path: PathBuf,
    file: Box<dyn VfsFile>,
    offset: u64,
    synced: u64,
}

impl Incoming {
    /// Begins a file called `name` in `dir`, which is made if need be.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn create(vfs: &SharedVfs, dir: &Path, name: &str) -> Result<Self> {
        create_dir_durably(&**vfs, dir)?;
        let path = dir.join(name);
        let failed = |error| Error::io("create", &path, error);
        let file = vfs.open(&path, true).map_err(failed)?;
        file.set_len(0).map_err(failed)?;
        Ok(Incoming { vfs: vfs.clone(), path, file, offset: 0, synced: 0 })
    }

    /// Bytes written so far.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Adds a chunk behind what there is.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn push(&mut self, bytes: &[u8]) -> Result<()> {
        let written = self.file.write_all_at(&[IoSlice::new(bytes)], self.offset);
        written.map_err(|error| Error::io("write", &self.path, error))?;
        self.offset += bytes.len() as u64;
        if self.offset - self.synced >= SYNC_BYTES {
            // A piece at a time, so that the sync at the end is not of gigabytes.
            self.file.sync_data().map_err(|error| Error::io("sync", &self.path, error))?;
            self.synced = self.offset;
        }
        Ok(())
    }

    /// Syncs the file and checks every byte of it.
    ///
    /// # Errors
    /// When the disk refuses, or the snapshot is damaged or incomplete.
    pub fn finish(self) -> Result<(PathBuf, SnapshotHeader)> {
        self.file.sync_all().map_err(|error| Error::io("sync", &self.path, error))?;
        SnapshotFile::verify(&self.vfs, &self.path)?;
        let header = SnapshotFile::open(&self.vfs, &self.path)?.header().clone();
        Ok((self.path, header))
    }
}
