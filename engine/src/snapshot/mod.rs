//! The one format for state that travels: to a follower that lags, to another group with a slot range, into a backup, into a
//! batch job.
//!
//! ```text
//!   header  what it is of: group, index, slots, membership          checksum
//!   block   rows, compressed                                        checksums of head and payload
//!   …
//!   footer  counts, checksum over all checksums                     seals the whole
//! ```
//!
//! [`SnapshotEncoder`] turns rows into bytes and [`SnapshotDecoder`] bytes into rows, both a piece at a time and without any
//! I/O, so that the same code serves files and the network. [`write_snapshot`] and [`SnapshotFile`] put them over a
//! [`VfsFile`]. A snapshot without its footer is not one: the decoder says so at the end, and whoever
//! uses rows before the end must be able to give them up.

mod format;

use crate::table::{RowPlace, ViewRow};
use crate::vfs::{SharedVfs, VfsFile};
use crate::{Error, Result};
use format::{
    BLOCK, BLOCK_BYTES, BLOCK_HEAD_BYTES, BlockHead, COMPRESSED_BYTES_MAX, FOOTER, FOOTER_BYTES, Footer, LZ4,
    PREFIX_BYTES, RAW, Reader,
};
use std::collections::VecDeque;
use std::io::IoSlice;
use std::path::{Path, PathBuf};

pub use format::SnapshotHeader;

/// Bytes read from a file at a time.
const READ_BYTES: usize = 256 << 10;

/// Turns rows into the bytes of a snapshot.
#[derive(Debug)]
pub struct SnapshotEncoder {
    /// Rows of the block that is being filled.
    raw: Vec<u8>,
    rows: u32,
    footer: Footer,
    seal: crc32fast::Hasher,
    out: Vec<u8>,
    last: Option<RowPlace>,
    header: SnapshotHeader,
}

impl SnapshotEncoder {
    /// Begins a snapshot.
    pub fn new(header: &SnapshotHeader) -> Self {
        let out = header.encode();
        let mut seal = crc32fast::Hasher::new();
        seal.update(&out[out.len() - 4..]);
        SnapshotEncoder {
            raw: Vec::with_capacity(BLOCK_BYTES),
            rows: 0,
            footer: Footer::default(),
            seal,
            out,
            last: None,
            header: header.clone(),
        }
    }

    /// Adds a row.
    ///
    /// # Panics
    /// When rows don't ascend by (space, slot, hash, key), or a slot is outside the header's ranges: the snapshot would be refused.
    pub fn push(&mut self, row: &ViewRow) {
        let place = row.place();
        assert!(self.last.as_ref().is_none_or(|last| *last < place), "rows of a snapshot must ascend");
        let slot = row.slot;
        assert!(self.header.covers(slot), "slot {slot} is outside the snapshot's ranges");
        let bytes = 27 + row.key.len() + row.object.data.len();
        if self.rows > 0 && self.raw.len() + bytes > BLOCK_BYTES {
            self.close_block();
        }
        format::push_row(&mut self.raw, row);
        self.rows += 1;
        self.last = Some(place);
    }

    /// Takes what bytes there are so far; few or none while a block fills.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    /// Bytes that wait to be taken.
    pub fn pending(&self) -> usize {
        self.out.len()
    }

    /// Seals the snapshot; the last bytes come back.
    pub fn finish(mut self) -> Vec<u8> {
        if self.rows > 0 {
            self.close_block();
        }
        self.footer.seal = self.seal.finalize();
        self.out.extend_from_slice(&self.footer.encode());
        self.out
    }

    fn close_block(&mut self) {
        let packed =
            if self.raw.len() <= COMPRESSED_BYTES_MAX { lz4_flex::block::compress(&self.raw) } else { Vec::new() };
        // Compression that saves nothing costs the reader for nothing.
        let (codec, payload) =
            if !packed.is_empty() && packed.len() < self.raw.len() { (LZ4, &packed) } else { (RAW, &self.raw) };
        let crc = crc32fast::hash(payload);
        let (raw_bytes, stored_bytes) = (self.raw.len(), payload.len());
        let head = BlockHead { codec, rows: self.rows, raw_bytes, stored_bytes, crc };
        self.out.extend_from_slice(&head.encode());
        self.out.extend_from_slice(payload);
        self.seal.update(&crc.to_le_bytes());
        self.footer.rows += u64::from(self.rows);
        self.footer.blocks += 1;
        self.footer.raw_bytes += raw_bytes as u64;
        self.raw.clear();
        self.rows = 0;
    }
}

/// Turns the bytes of a snapshot into rows. Feed it bytes in pieces of any size and take out rows in between.
#[derive(Debug)]
pub struct SnapshotDecoder {
    /// Named in errors.
    source: PathBuf,
    /// Bytes not yet decoded, from `offset` of the snapshot on.
    pending: Vec<u8>,
    consumed: usize,
    offset: u64,
    header: Option<SnapshotHeader>,
    rows: VecDeque<ViewRow>,
    footer: Footer,
    seal: crc32fast::Hasher,
    last: Option<RowPlace>,
    sealed: bool,
}

impl SnapshotDecoder {
    /// A decoder of what comes from `source`, a file's path or some other name for errors.
    pub fn new(source: impl Into<PathBuf>) -> Self {
        SnapshotDecoder {
            source: source.into(),
            pending: Vec::new(),
            consumed: 0,
            offset: 0,
            header: None,
            rows: VecDeque::new(),
            footer: Footer::default(),
            seal: crc32fast::Hasher::new(),
            last: None,
            sealed: false,
        }
    }

    /// Takes in more bytes. Memory is bounded by the largest block if rows are taken out after each piece.
    ///
    /// # Errors
    /// [`Error::Damaged`] when the bytes are not those of a snapshot, with the offset where that shows.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<()> {
        self.pending.extend_from_slice(bytes);
        while self.step().map_err(|detail| self.damaged(detail))? {}
        self.pending.drain(..std::mem::take(&mut self.consumed));
        Ok(())
    }

    /// What the snapshot is of, once that much was fed.
    pub fn header(&self) -> Option<&SnapshotHeader> {
        self.header.as_ref()
    }

    /// The next row of what was fed. Until [`SnapshotDecoder::finish`] says `Ok`, rows are provisional.
    pub fn next_row(&mut self) -> Option<ViewRow> {
        self.rows.pop_front()
    }

    /// Whether the footer was read.
    pub fn is_sealed(&self) -> bool {
        self.sealed
    }

    /// Checks, when the source has ended, that the snapshot did too.
    ///
    /// # Errors
    /// [`Error::Damaged`] when bytes are missing.
    pub fn finish(&self) -> Result<()> {
        if self.sealed { Ok(()) } else { Err(self.damaged("it ends before its footer: it is not complete".into())) }
    }

    fn damaged(&self, detail: String) -> Error {
        Error::Damaged { path: self.source.clone(), offset: self.offset, detail }
    }

    /// Decodes the next unit if all its bytes are here.
    fn step(&mut self) -> Result<bool, String> {
        let rest = &self.pending[self.consumed..];
        if self.sealed {
            return if rest.is_empty() { Ok(false) } else { Err("bytes follow the footer".into()) };
        }
        let Some(header) = &self.header else {
            let Some(prefix) = rest.get(..PREFIX_BYTES) else { return Ok(false) };
            let bytes = PREFIX_BYTES + SnapshotHeader::rest_bytes(prefix)?;
            let Some(whole) = rest.get(..bytes) else { return Ok(false) };
            self.header = Some(SnapshotHeader::decode(whole)?);
            self.seal.update(&whole[bytes - 4..]);
            return Ok(self.consume(bytes));
        };
        match rest.first() {
            None => Ok(false),
            Some(&BLOCK) => {
                let Some(head) = rest.get(..BLOCK_HEAD_BYTES) else { return Ok(false) };
                let head = BlockHead::decode(head)?;
                let bytes = BLOCK_HEAD_BYTES + head.stored_bytes;
                let Some(payload) = rest.get(BLOCK_HEAD_BYTES..bytes) else { return Ok(false) };
                if crc32fast::hash(payload) != head.crc {
                    return Err("a block's checksum does not match".into());
                }
                let unpacked;
                let raw = match head.codec {
                    LZ4 => {
                        unpacked = lz4_flex::block::decompress(payload, head.raw_bytes)
                            .map_err(|error| format!("a block can't be decompressed: {error}"))?;
                        if unpacked.len() != head.raw_bytes {
                            return Err("a block is not as long as it says".into());
                        }
                        &unpacked[..]
                    }
                    _ => payload,
                };
                let mut raw = Reader(raw);
                for _ in 0..head.rows {
                    let row = format::read_row(&mut raw)?;
                    let at = row.place();
                    if !header.covers(row.slot) || self.last.as_ref().is_some_and(|last| *last >= at) {
                        return Err(format!("a row of slot {} is out of place", row.slot));
                    }
                    self.last = Some(at);
                    self.rows.push_back(row);
                }
                if !raw.0.is_empty() {
                    return Err("a block has bytes left over".into());
                }
                self.seal.update(&head.crc.to_le_bytes());
                self.footer.rows += u64::from(head.rows);
                self.footer.blocks += 1;
                self.footer.raw_bytes += head.raw_bytes as u64;
                Ok(self.consume(bytes))
            }
            Some(&FOOTER) => {
                let Some(footer) = rest.get(..FOOTER_BYTES) else { return Ok(false) };
                let footer = Footer::decode(footer)?;
                self.footer.seal = self.seal.clone().finalize();
                if footer != self.footer {
                    return Err(format!("the footer seals {footer:?}, but {:?} was read", self.footer));
                }
                self.sealed = true;
                Ok(self.consume(FOOTER_BYTES))
            }
            Some(other) => Err(format!("byte {other:#04x} begins neither a block nor the footer")),
        }
    }

    fn consume(&mut self, bytes: usize) -> bool {
        self.consumed += bytes;
        self.offset += bytes as u64;
        true
    }
}

/// Writes a snapshot file so that it is there whole and durable, or not at all: temporary name, sync, rename, sync of the
/// folder. Its length in bytes comes back.
///
/// # Errors
/// What `rows` returned, or the file system's failure; a temporary file may stay behind.
pub fn write_snapshot(
    vfs: &SharedVfs,
    path: &Path,
    header: &SnapshotHeader,
    rows: &mut dyn Iterator<Item = Result<ViewRow>>,
) -> Result<u64> {
    let temporary = path.with_extension("tmp");
    let failed = |operation| move |error| Error::io(operation, path, error);
    let file = vfs.open(&temporary, true).map_err(failed("create"))?;
    file.set_len(0).map_err(failed("create"))?;
    let mut encoder = SnapshotEncoder::new(header);
    let mut offset = 0;
    let mut write = |bytes: &[u8]| {
        file.write_all_at(&[IoSlice::new(bytes)], offset).map_err(failed("write"))?;
        offset += bytes.len() as u64;
        Ok::<_, Error>(())
    };
    for row in rows {
        let row = row?;
        encoder.push(&row);
        if encoder.pending() >= BLOCK_BYTES {
            write(&encoder.take())?;
        }
    }
    write(&encoder.finish())?;
    file.sync_all().map_err(failed("sync"))?;
    drop(file);
    vfs.rename(&temporary, path).map_err(failed("rename"))?;
    vfs.sync_dir(path.parent().unwrap_or(Path::new("."))).map_err(failed("sync the folder of"))?;
    Ok(offset)
}

/// A snapshot file being read: an iterator over its rows, which are provisional until it ends without an error.
#[derive(Debug)]
pub struct SnapshotFile {
    path: PathBuf,
    file: Box<dyn VfsFile>,
    offset: u64,
    decoder: SnapshotDecoder,
    buffer: Vec<u8>,
    failed: bool,
}

impl SnapshotFile {
    /// Opens a file and reads its header.
    ///
    /// # Errors
    /// When the file can't be read, or does not begin like a snapshot.
    pub fn open(vfs: &SharedVfs, path: &Path) -> Result<Self> {
        let file = vfs.open_read(path).map_err(|error| Error::io("open", path, error))?;
        let decoder = SnapshotDecoder::new(path);
        let mut snapshot = SnapshotFile {
            path: path.to_path_buf(),
            file,
            offset: 0,
            decoder,
            buffer: vec![0; READ_BYTES],
            failed: false,
        };
        while snapshot.decoder.header().is_none() {
            if !snapshot.fill()? {
                return Err(snapshot.decoder.damaged("it ends within its header".into()));
            }
        }
        Ok(snapshot)
    }

    /// What the snapshot is of.
    pub fn header(&self) -> &SnapshotHeader {
        self.decoder.header().expect("open read the header")
    }

    /// Reads the whole file and checks every byte; the number of rows comes back.
    ///
    /// # Errors
    /// When any of it can't be read or is damaged.
    pub fn verify(vfs: &SharedVfs, path: &Path) -> Result<u64> {
        let mut rows = 0;
        for row in Self::open(vfs, path)? {
            row?;
            rows += 1;
        }
        Ok(rows)
    }

    fn fill(&mut self) -> Result<bool> {
        let read = loop {
            match self.file.read_at(&mut self.buffer, self.offset) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                read => break read.map_err(|error| Error::io("read", &self.path, error))?,
            }
        };
        self.offset += read as u64;
        self.decoder.feed(&self.buffer[..read])?;
        Ok(read > 0)
    }

    fn advance(&mut self) -> Result<Option<ViewRow>> {
        loop {
            if let Some(row) = self.decoder.next_row() {
                return Ok(Some(row));
            }
            if !self.fill()? {
                self.decoder.finish()?;
                return Ok(None);
            }
        }
    }
}

impl Iterator for SnapshotFile {
    type Item = Result<ViewRow>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let row = self.advance().transpose();
        self.failed = matches!(row, Some(Err(_)));
        row
    }
}

#[cfg(test)]
mod tests;
