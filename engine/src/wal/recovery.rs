//! Reading the log back after a stop, orderly or not.
//!
//! Flow: sync every file (what the page cache holds and the disk does not must not be trusted), check the segment headers,
//! walk the batches from the oldest segment to the first that cannot be accepted, then decide what that one is; and write
//! again what was accepted and nothing says was synced:
//!
//! ```text
//!   ──ok──ok──ok──[bad]········▒▒▒▒····
//!                 ▲ p           ▲ batch headers found behind p, in this file or a later one; statements in the segments' heads
//!   any of them says "synced up to" more than p  →  damage: refuse, name file and offset
//!   none does                                    →  torn: never acknowledged; overwrite what was found, carry on at p
//! ```
//!
//! Caveats: files are read once, in pieces; memory is bounded by the records of one batch. Cutting is idempotent: a crash
//! on the way leaves a log that the next recovery cuts at the same place.

use super::format::{
    BATCH_ALIGN, BATCH_HEADER_BYTES, BadSegmentHeader, BatchHeader, META_BYTES_MAX, Record, SECTOR_BYTES,
    SEGMENT_HEAD_BYTES, SegmentHeader, Statement, decode_records,
};
use super::segment::{PlacedSegment, Pool, Segment, is_spare_name, parse_segment_name, segment_name};
use super::writer::{Resume, WalWriter};
use super::{RecoveryReport, WalOptions};
use crate::defects::{self, Defect};
use crate::error::{Error, Result};
use crate::vfs::{SharedVfs, VfsFile, create_dir_durably, read_exact_at};
use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How much is read at once.
const WINDOW_BYTES: usize = 256 << 10;

/// One accepted batch, for the replay.
pub(crate) struct ReplayedBatch<'a> {
    pub(crate) path: &'a Path,
    pub(crate) offset: u64,
    pub(crate) position: u64,
    pub(crate) records: Vec<Record>,
}

/// The log as found.
pub(crate) struct Recovered {
    pub(crate) writer: WalWriter,
    pub(crate) pool: Arc<Pool>,
    /// Segments with batches, and the active one.
    pub(crate) placed: Vec<PlacedSegment>,
    pub(crate) end: u64,
    /// The next batch's number.
    pub(crate) sequence: u64,
    /// The oldest segment needed.
    pub(crate) oldest: u64,
    pub(crate) report: RecoveryReport,
}

/// A file read through a window, so that walking small batches does not cost a system call each.
struct Window<'a> {
    segment: &'a Segment,
    len: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl<'a> Window<'a> {
    fn new(segment: &'a Segment, len: u64) -> Self {
        Self { segment, len, start: 0, bytes: Vec::new() }
    }

    /// `len` bytes at `offset`, at most a window's worth; `None` beyond the end of the file.
    fn get(&mut self, offset: u64, len: usize) -> Result<Option<&[u8]>> {
        debug_assert!(len <= WINDOW_BYTES);
        if offset.checked_add(len as u64).is_none_or(|end| end > self.len) {
            return Ok(None);
        }
        if offset < self.start || offset + len as u64 > self.start + self.bytes.len() as u64 {
            let size = (self.len - offset).min(WINDOW_BYTES as u64) as usize;
            self.bytes.resize(size, 0);
            self.start = offset;
            read_exact_at(&*self.segment.file, &mut self.bytes, offset).map_err(|e| {
                self.start = 0;
                Error::io("read", &self.segment.path, e)
            })?;
        }
        let from = (offset - self.start) as usize;
        Ok(Some(&self.bytes[from..from + len]))
    }

    /// The checksum of a range that lies within the file.
    fn crc(&mut self, mut offset: u64, mut len: u64) -> Result<u32> {
        let mut hasher = crc32fast::Hasher::new();
        while len > 0 {
            let part = len.min(WINDOW_BYTES as u64) as usize;
            let Some(bytes) = self.get(offset, part)? else { return Ok(!hasher.finalize()) };
            hasher.update(bytes);
            offset += part as u64;
            len -= part as u64;
        }
        Ok(hasher.finalize())
    }
}

/// What a segment's head says.
struct Scanned {
    segment: Segment,
    len: u64,
    /// The newest readable statement.
    statement: Option<Statement>,
}

impl Scanned {
    /// The next counter for a statement, which must go to the slot that does not hold the newest one.
    fn statement_counter(&self) -> u64 {
        self.statement.map_or(0, |statement| statement.counter + 1)
    }
}

/// Opens the log: checks all of it and hands every batch to `replay` in order, then takes it over for writing.
pub(crate) fn recover(
    vfs: &SharedVfs,
    dir: &Path,
    options: &WalOptions,
    replay: &mut dyn FnMut(ReplayedBatch<'_>) -> Result<()>,
) -> Result<Recovered> {
    assert!(options.segment_bytes >= 2 * SEGMENT_HEAD_BYTES, "a segment holds its head and something more");
    create_dir_durably(&**vfs, dir)?;
    let names = vfs.list(dir).map_err(|e| Error::io("list", dir, e))?;
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| parse_segment_name(name)).collect();
    numbers.sort_unstable();
    let spares = reusable_spares(vfs, dir, options, &names)?;
    let Some(&last) = numbers.last() else {
        return create(vfs, dir, options, spares);
    };

    // Segments below a gap are leftovers if the log no longer needs them, which its last batch will tell.
    let gap = numbers.windows(2).rposition(|pair| pair[0] + 1 != pair[1]).map_or(0, |at| at + 1);
    let leftovers = numbers[..gap].to_vec();
    let start = numbers[gap];
    let scanned =
        numbers[gap..].iter().map(|&number| scan_head(vfs, dir, options, number)).collect::<Result<Vec<_>>>()?;

    let mut walk = Walk::new(start);
    for (at, scanned) in scanned.iter().enumerate() {
        if !walk.segment(at, scanned, replay)? {
            break;
        }
    }
    if walk.batches == 0 && start > 1 {
        // A log that begins behind its first segment once had a synced batch which said so.
        return Err(match leftovers.last() {
            Some(_) => missing(dir, start - 1, "the log goes on behind it"),
            None => damaged(&scanned[0].segment.path, SEGMENT_HEAD_BYTES, "the log's first batch is unreadable"),
        });
    }
    let (stopped_at, stopped_offset) = (walk.at, walk.offset);
    let (mut at, mut offset) = (stopped_at, stopped_offset);
    let position = walk.position.unwrap_or(0);
    if start > walk.oldest {
        return Err(missing(dir, start - 1, &format!("the log needs all segments from {}", segment_name(walk.oldest))));
    }
    let evidence = gather_evidence(&scanned, at, offset)?;
    let torn_is_damage = defects::has(Defect::TornTailIsDamage) && !evidence.ends.is_empty();
    if (evidence.synced > position && !defects::has(Defect::DamageIsTornTail)) || torn_is_damage {
        return Err(damaged(
            &scanned[at].segment.path,
            offset,
            &format!(
                "the batch at log position {position} is unreadable, but the log was synced up to {}: acknowledged writes are \
                 lost; restore the file, or rebuild this node from its peers or a backup",
                evidence.synced
            ),
        ));
    }
    let stated = scanned.iter().filter_map(|scanned| scanned.statement).map(|statement| statement.synced).max();
    write_again(&walk.placed, walk.synced.max(stated.unwrap_or(0)), position)?;
    // The log may have gone on in the next segment without any batch of it having survived.
    if scanned[at].statement.is_some_and(|statement| statement.sealed && statement.synced == position) {
        if at + 1 == scanned.len() {
            return Err(missing(dir, last + 1, "its predecessor says that the log goes on there"));
        }
        at += 1;
        offset = SEGMENT_HEAD_BYTES;
        walk.place(at, &scanned[at], position);
    }
    let mut torn_bytes = 0;
    for (found_at, end) in &evidence.ends {
        let from = if *found_at == stopped_at { stopped_offset } else { SEGMENT_HEAD_BYTES };
        if *end > from {
            torn_bytes += *end - from;
            neutralise(&scanned[*found_at], from, *end)?;
        }
    }
    let newest = scanned.iter().rev().find_map(|scanned| scanned.statement);
    let clean = torn_bytes == 0 && newest.is_some_and(|statement| statement.clean && statement.synced == position);
    let weak = newest.is_some_and(|statement| statement.weak);

    // At most one prepared segment follows the active one.
    if scanned.len() > at + 2 {
        return Err(damaged(
            &scanned[at + 2].segment.path,
            SEGMENT_HEAD_BYTES,
            "a segment without a batch follows another one: the log between them is unreadable",
        ));
    }
    let next = scanned.get(at + 1).map(|scanned| scanned.segment.clone());
    let pool = Pool::new(Arc::clone(vfs), dir, options, last + 1, next, spares);
    pool.free(leftovers);
    let active = walk.placed[walk.placed.len() - 1].clone();
    let report = RecoveryReport {
        created: false,
        clean,
        weak,
        torn_bytes,
        torn_at: (torn_bytes > 0).then(|| (scanned[at].segment.path.clone(), offset)),
        batches: walk.batches,
        segments: walk.placed.len(),
        ..RecoveryReport::default()
    };
    let statement_counter = scanned[at].statement_counter();
    let resume = Resume { active, end: position, sequence: walk.sequence, oldest: walk.oldest, statement_counter };
    Ok(Recovered {
        writer: WalWriter::resume(Arc::clone(&pool), options, resume)?,
        pool,
        placed: walk.placed,
        end: position,
        sequence: walk.sequence,
        oldest: walk.oldest,
        report,
    })
}

/// Makes an empty log.
fn create(vfs: &SharedVfs, dir: &Path, options: &WalOptions, spares: Vec<PathBuf>) -> Result<Recovered> {
    if options.expect_existing {
        return Err(missing(dir, 1, "the folder held a log before, and now no segment of it is there"));
    }
    let pool = Pool::new(Arc::clone(vfs), dir, options, 1, None, spares);
    let segment = pool.create_first()?;
    let active = PlacedSegment { segment, base: 0 };
    let resume = Resume { active: active.clone(), end: 0, sequence: 1, oldest: 1, statement_counter: 0 };
    Ok(Recovered {
        writer: WalWriter::resume(Arc::clone(&pool), options, resume)?,
        pool,
        placed: vec![active],
        end: 0,
        sequence: 1,
        oldest: 1,
        report: RecoveryReport { created: true, clean: true, segments: 1, ..RecoveryReport::default() },
    })
}

/// The spares that are whole; the others, left by a stop while they were being filled, are removed.
fn reusable_spares(vfs: &SharedVfs, dir: &Path, options: &WalOptions, names: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut spares = Vec::new();
    for path in names.iter().filter(|name| is_spare_name(name)).map(|name| dir.join(name)) {
        let len = vfs.open_read(&path).and_then(|file| file.len()).map_err(|e| Error::io("open", &path, e))?;
        if len == options.segment_bytes && spares.len() < options.spares_max {
            spares.push(path);
        } else {
            vfs.remove(&path).map_err(|e| Error::io("remove", &path, e))?;
        }
    }
    Ok(spares)
}

/// Opens, syncs and identifies a segment.
fn scan_head(vfs: &SharedVfs, dir: &Path, options: &WalOptions, number: u64) -> Result<Scanned> {
    let path = dir.join(segment_name(number));
    let file: Arc<dyn VfsFile> = Arc::from(vfs.open(&path, false).map_err(|e| Error::io("open", &path, e))?);
    file.sync_all().map_err(|e| Error::io("sync", &path, e))?;
    let len = file.len().map_err(|e| Error::io("measure", &path, e))?;
    if len < SEGMENT_HEAD_BYTES {
        return Err(damaged(&path, len, "the file ends within its head"));
    }
    let mut head = [0; SEGMENT_HEAD_BYTES as usize];
    read_exact_at(&*file, &mut head, 0).map_err(|e| Error::io("read", &path, e))?;
    let sector = |at: usize| -> &[u8; SECTOR_BYTES] {
        let (sectors, _) = head.as_chunks::<SECTOR_BYTES>();
        &sectors[at]
    };
    let header = match SegmentHeader::decode(sector(0)) {
        Ok(header) => header,
        Err(BadSegmentHeader::Damaged) => return Err(damaged(&path, 0, "the segment header is unreadable")),
        Err(BadSegmentHeader::Newer(version)) => {
            let detail = format!(
                "was written by a newer release (log format {version}; this release reads up to {}); start that release, or a \
                 later one",
                super::format::VERSION
            );
            return Err(Error::Foreign { path, detail });
        }
    };
    if header.node != options.node {
        let detail = format!(
            "belongs to another node's log (folder {:032x}, this one is {:032x}); put the file back where it came from",
            header.node, options.node
        );
        return Err(Error::Foreign { path, detail });
    }
    if header.number != number {
        return Err(damaged(
            &path,
            0,
            &format!("this is segment {}, under another's name", segment_name(header.number)),
        ));
    }
    let statement = [1, 2]
        .into_iter()
        .filter_map(|at| Statement::decode(sector(at), header.identity))
        .max_by_key(|statement| statement.counter);
    let segment = Segment { path, file, number, identity: header.identity, capacity: header.capacity };
    Ok(Scanned { segment, len, statement })
}

/// The walk over accepted batches.
struct Walk {
    /// Where the next batch must begin; `None` until the first one told.
    position: Option<u64>,
    sequence: u64,
    oldest: u64,
    /// The segment in which the walk stands (index among the scanned), and the offset in it.
    at: usize,
    offset: u64,
    placed: Vec<PlacedSegment>,
    batches: u64,
    /// The highest log position that an accepted batch says was synced.
    synced: u64,
}

impl Walk {
    fn new(start: u64) -> Self {
        Self {
            // Only the very first segment's place in the log is known from its number.
            position: (start == 1).then_some(0),
            sequence: 1,
            oldest: 1,
            at: 0,
            offset: SEGMENT_HEAD_BYTES,
            placed: Vec::new(),
            batches: 0,
            synced: 0,
        }
    }

    fn place(&mut self, at: usize, scanned: &Scanned, base: u64) {
        self.at = at;
        self.placed.push(PlacedSegment { segment: scanned.segment.clone(), base });
    }

    /// Walks one segment as far as it can be accepted. Returns whether the next segment is worth a look.
    fn segment(
        &mut self,
        at: usize,
        scanned: &Scanned,
        replay: &mut dyn FnMut(ReplayedBatch<'_>) -> Result<()>,
    ) -> Result<bool> {
        let mut window = Window::new(&scanned.segment, scanned.len);
        let mut offset = SEGMENT_HEAD_BYTES;
        loop {
            let header = window.get(offset, BATCH_HEADER_BYTES)?;
            let Some(header) = header.and_then(|bytes| BatchHeader::decode(bytes, scanned.segment.identity)) else {
                break;
            };
            if self.position.is_none() && offset == SEGMENT_HEAD_BYTES {
                self.position = Some(header.position);
                self.sequence = header.sequence;
            }
            if self.position != Some(header.position) || self.sequence != header.sequence {
                break;
            }
            let Some(records) = read_batch(&mut window, offset, &header)? else { break };
            if offset == SEGMENT_HEAD_BYTES {
                self.place(at, scanned, header.position);
            }
            let path = &scanned.segment.path;
            replay(ReplayedBatch { path, offset, position: header.position, records })?;
            offset += header.batch_len();
            self.position = Some(header.position + header.batch_len());
            self.sequence += 1;
            self.oldest = self.oldest.max(header.oldest);
            self.synced = self.synced.max(header.synced);
            self.batches += 1;
            self.offset = offset;
        }
        if offset == SEGMENT_HEAD_BYTES && self.placed.is_empty() {
            // An empty log.
            if let Some(position) = self.position {
                self.place(at, scanned, position);
            }
            return Ok(false);
        }
        Ok(offset > SEGMENT_HEAD_BYTES)
    }
}

/// The records of the batch at `offset`, if all of it is as it was written.
fn read_batch(window: &mut Window<'_>, offset: u64, header: &BatchHeader) -> Result<Option<Vec<Record>>> {
    let data_at = offset + BATCH_HEADER_BYTES as u64;
    let meta_at = data_at + u64::from(header.data_len);
    let meta_len = header.meta_len as usize;
    // The header's checksum is right, so these are the lengths that were written; the file may yet be shorter.
    if meta_at + u64::from(header.meta_len) > window.len || meta_len > META_BYTES_MAX {
        return Ok(None);
    }
    let mut meta = Vec::with_capacity(meta_len);
    while meta.len() < meta_len {
        let part = (meta_len - meta.len()).min(WINDOW_BYTES);
        match window.get(meta_at + meta.len() as u64, part)? {
            Some(bytes) => meta.extend_from_slice(bytes),
            None => return Ok(None),
        }
    }
    if crc32fast::hash(&meta) != header.meta_crc {
        return Ok(None);
    }
    let records = decode_records(&meta, header.data_len).map_err(|e| damaged(&window.segment.path, meta_at, e))?;
    let mut at = data_at;
    for record in &records {
        let Record::Entries { entries, .. } = record else { continue };
        for entry in entries {
            if window.crc(at, u64::from(entry.len))? != entry.crc {
                return Ok(None);
            }
            at += u64::from(entry.len);
        }
    }
    Ok(Some(records))
}

/// What speaks of the log behind the place where the walk ended.
struct Evidence {
    /// The highest log position that anything says was synced.
    synced: u64,
    /// For each segment in which batch headers were found, how far the furthest batch would reach.
    ends: Vec<(usize, u64)>,
}

fn gather_evidence(scanned: &[Scanned], stopped_at: usize, stopped_offset: u64) -> Result<Evidence> {
    let mut evidence = Evidence { synced: 0, ends: Vec::new() };
    for (at, scanned) in scanned.iter().enumerate() {
        if let Some(statement) = scanned.statement {
            evidence.synced = evidence.synced.max(statement.synced);
        }
        if at < stopped_at {
            continue;
        }
        let mut offset = if at == stopped_at { stopped_offset } else { SEGMENT_HEAD_BYTES };
        let mut window = Window::new(&scanned.segment, scanned.len);
        let mut end = 0;
        while let Some(bytes) = window.get(offset, BATCH_HEADER_BYTES)? {
            if let Some(header) = BatchHeader::decode(bytes, scanned.segment.identity) {
                // A header that is not in its place speaks as truly of what was synced as one that is.
                evidence.synced = evidence.synced.max(header.synced);
                end = end.max(offset.saturating_add(header.batch_len()).min(scanned.len));
            }
            offset += BATCH_ALIGN as u64;
        }
        if end > 0 {
            evidence.ends.push((at, end));
        }
    }
    Ok(evidence)
}

/// Writes what lies between two positions once more, as it is, and syncs it.
///
/// If a sync failed before the process ended, the page cache may show batches that the disk does not have, and take them
/// for written: the sync of every file above did nothing for them, and a power cut would take what this start accepts.
fn write_again(placed: &[PlacedSegment], from: u64, to: u64) -> Result<()> {
    if defects::has(Defect::AcceptedNotWrittenAgain) {
        return Ok(());
    }
    let mut end = to;
    for placed in placed.iter().rev() {
        let PlacedSegment { segment, base } = placed;
        if end <= from {
            break;
        }
        // A segment that nothing says was synced gets its head again as well.
        let mut at = if from > *base { placed.offset_of(from) } else { 0 };
        let last = placed.offset_of(end);
        let mut bytes = vec![0; WINDOW_BYTES];
        while at < last {
            let part = (last - at).min(WINDOW_BYTES as u64) as usize;
            read_exact_at(&*segment.file, &mut bytes[..part], at).map_err(|e| Error::io("read", &segment.path, e))?;
            let again = segment.file.write_all_at(&[IoSlice::new(&bytes[..part])], at);
            again.map_err(|e| Error::io("write", &segment.path, e))?;
            at += part as u64;
        }
        segment.file.sync_data().map_err(|e| Error::io("sync", &segment.path, e))?;
        end = *base;
    }
    Ok(())
}

/// Overwrites what was cut, durably, so that no later recovery takes a batch beyond the cut for one of the batches that
/// will be written from there on.
fn neutralise(scanned: &Scanned, from: u64, end: u64) -> Result<()> {
    if defects::has(Defect::CutNotOverwritten) {
        return Ok(());
    }
    let path = &scanned.segment.path;
    let zeros = vec![0; WINDOW_BYTES];
    let mut at = from;
    while at < end {
        let part = (end - at).min(WINDOW_BYTES as u64) as usize;
        scanned
            .segment
            .file
            .write_all_at(&[IoSlice::new(&zeros[..part])], at)
            .map_err(|e| Error::io("write", path, e))?;
        at += part as u64;
    }
    scanned.segment.file.sync_data().map_err(|e| Error::io("sync", path, e))
}

pub(crate) fn damaged(path: &Path, offset: u64, detail: &str) -> Error {
    Error::Damaged { path: path.to_path_buf(), offset, detail: detail.to_owned() }
}

fn missing(dir: &Path, number: u64, why: &str) -> Error {
    damaged(
        &dir.join(segment_name(number)),
        0,
        &format!("the segment is missing: {why}; restore it, or rebuild this node"),
    )
}
