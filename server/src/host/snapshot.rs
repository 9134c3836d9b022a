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
use std::collections::VecDeque;
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

/// What a chunk is to a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChunkPlace {
    /// It goes on where the last one ended.
    Next,
    /// It is there already: after a broken link the sender repeats what was not acknowledged.
    Known,
    /// Something between is missing: a link broke, and this came over the next one. The sender repeats what is not acknowledged.
    Ahead,
    /// It is of another transfer: one that was given up may still have chunks on their way when the next has begun.
    Foreign,
}

impl ChunkPlace {
    /// Where a chunk belongs in the transfer of a sender that has come to an offset.
    pub fn of((sender, transfer, offset): (NodeId, u64, u64), from: NodeId, chunk: &SnapshotChunk) -> ChunkPlace {
        let ours = (sender, transfer) == (from, chunk.transfer);
        if ours && chunk.offset == offset {
            return ChunkPlace::Next;
        }
        if ours && chunk.offset.checked_add(chunk.bytes.len() as u64).is_some_and(|end| end <= offset) {
            return ChunkPlace::Known;
        }
        if ours && chunk.offset > offset {
            return ChunkPlace::Ahead;
        }
        let stale = defects::has(Defect::StaleSnapshotChunk) && sender == from && chunk.offset > 0;
        if stale { ChunkPlace::Next } else { ChunkPlace::Foreign }
    }
}

/// The chunks of a transfer that the receiver may not have yet: what must be sent again over a new link.
#[derive(Debug, Default)]
pub struct Unacknowledged {
    chunks: VecDeque<SnapshotChunk>,
}

impl Unacknowledged {
    /// A chunk is sent.
    pub fn push(&mut self, chunk: SnapshotChunk) {
        self.chunks.push_back(chunk);
    }

    /// The receiver has everything up to an offset. NB: the last chunk is kept: that it came shows only when all is complete.
    pub fn acknowledge(&mut self, offset: u64) {
        while self.chunks.front().is_some_and(|chunk| !chunk.last && chunk.offset + chunk.bytes.len() as u64 <= offset)
        {
            self.chunks.pop_front();
        }
    }

    /// What must be sent again, in order.
    pub fn iter(&self) -> impl Iterator<Item = &SnapshotChunk> {
        self.chunks.iter()
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn chunk(transfer: u64, offset: u64, length: usize, last: bool) -> SnapshotChunk {
        SnapshotChunk { group: 1, transfer, term: 1, offset, bytes: Bytes::from(vec![0; length]), last }
    }

    #[test]
    fn chunks_find_their_place() {
        let at = (2, 7, 100);
        assert_eq!(ChunkPlace::of(at, 2, &chunk(7, 100, 10, false)), ChunkPlace::Next);
        assert_eq!(ChunkPlace::of(at, 2, &chunk(7, 0, 100, false)), ChunkPlace::Known);
        assert_eq!(ChunkPlace::of(at, 2, &chunk(7, 90, 20, false)), ChunkPlace::Foreign, "half of it is known");
        assert_eq!(ChunkPlace::of(at, 2, &chunk(7, 101, 10, false)), ChunkPlace::Ahead, "a hole");
        assert_eq!(ChunkPlace::of(at, 2, &chunk(8, 100, 10, false)), ChunkPlace::Foreign, "another transfer");
        assert_eq!(ChunkPlace::of(at, 3, &chunk(7, 100, 10, false)), ChunkPlace::Foreign, "another sender");
        assert_eq!(ChunkPlace::of(at, 2, &chunk(7, u64::MAX, 10, false)), ChunkPlace::Ahead);
    }

    #[test]
    fn only_what_the_receiver_has_is_let_go() {
        let mut sent = Unacknowledged::default();
        for (offset, last) in [(0, false), (10, false), (20, false), (30, true)] {
            sent.push(chunk(7, offset, 10, last));
        }
        let offsets = |sent: &Unacknowledged| sent.iter().map(|chunk| chunk.offset).collect::<Vec<_>>();
        sent.acknowledge(19);
        assert_eq!(offsets(&sent), [10, 20, 30]);
        sent.acknowledge(5);
        sent.acknowledge(30);
        assert_eq!(offsets(&sent), [30]);
        sent.acknowledge(40);
        assert_eq!(offsets(&sent), [30], "its own answer says more than an offset");
    }
}
