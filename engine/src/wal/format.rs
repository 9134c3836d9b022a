//! The bytes of the write-ahead log: segment header, statements, batch headers, records. `docs/src/formats/wal.md` draws them.
//!
//! All numbers are little-endian. Nothing here does I/O; decoding never panics and never allocates by a length that its
//! input does not back.

use crate::GroupId;
use crate::log::HardState;

/// What the disk is trusted to write whole or not at all, in bytes.
pub(crate) const SECTOR_BYTES: usize = 512;
/// The head of each segment: sector 0 is the segment header, sectors 1 and 2 hold statements, the rest is reserved.
pub(crate) const SEGMENT_HEAD_BYTES: u64 = 4096;
/// A batch header, in bytes.
pub(crate) const BATCH_HEADER_BYTES: usize = 64;
/// Batches begin at multiples of this, so that a search for their headers need not look at every byte.
pub(crate) const BATCH_ALIGN: usize = 8;
/// The format's version.
pub(crate) const VERSION: u32 = 1;
/// The most record bytes in one batch (entry payloads not counted).
pub(crate) const META_BYTES_MAX: usize = 256 << 20;

const SEGMENT_MAGIC: [u8; 8] = *b"HFWALSEG";
const STATEMENT_MAGIC: [u8; 4] = *b"HFST";
const BATCH_MAGIC: [u8; 4] = *b"HFBA";

// Batch headers are looked for at aligned offsets only.
const _: () = assert!((SEGMENT_HEAD_BYTES as usize).is_multiple_of(BATCH_ALIGN));
const _: () = assert!(BATCH_HEADER_BYTES.is_multiple_of(BATCH_ALIGN));

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut part = [0; 4];
    part.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(part)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut part = [0; 8];
    part.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(part)
}

fn u128_at(bytes: &[u8], at: usize) -> u128 {
    let mut part = [0; 16];
    part.copy_from_slice(&bytes[at..at + 16]);
    u128::from_le_bytes(part)
}

/// The first sector of a segment: who wrote it and which segment it is. Written once each time the file is (re)used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    /// The data folder's identity.
    pub(crate) node: u128,
    /// The segment's place in the log; never reused for different contents that were acknowledged.
    pub(crate) number: u64,
    /// Differs each time the file is used, so that what an earlier use left behind is not taken for this one's.
    pub(crate) identity: u64,
    /// The preallocated length in bytes; one huge batch may reach beyond it.
    pub(crate) capacity: u64,
}

/// Why a segment header was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadSegmentHeader {
    Damaged,
    Newer(u32),
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; SECTOR_BYTES] {
        let mut out = [0; SECTOR_BYTES];
        out[0..8].copy_from_slice(&SEGMENT_MAGIC);
        out[8..12].copy_from_slice(&VERSION.to_le_bytes());
        out[16..32].copy_from_slice(&self.node.to_le_bytes());
        out[32..40].copy_from_slice(&self.number.to_le_bytes());
        out[40..48].copy_from_slice(&self.identity.to_le_bytes());
        out[48..56].copy_from_slice(&self.capacity.to_le_bytes());
        let crc = crc32fast::hash(&out);
        out[12..16].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Magic, version and checksum keep their places in every version, so that "newer" is told from "damaged".
    pub(crate) fn decode(sector: &[u8; SECTOR_BYTES]) -> Result<Self, BadSegmentHeader> {
        let mut zeroed = *sector;
        zeroed[12..16].fill(0);
        if sector[0..8] != SEGMENT_MAGIC || crc32fast::hash(&zeroed) != u32_at(sector, 12) {
            return Err(BadSegmentHeader::Damaged);
        }
        match u32_at(sector, 8) {
            VERSION => Ok(Self {
                node: u128_at(sector, 16),
                number: u64_at(sector, 32),
                identity: u64_at(sector, 40),
                capacity: u64_at(sector, 48),
            }),
            version => Err(BadSegmentHeader::Newer(version)),
        }
    }
}

/// A statement in a segment's head: "everything below this log position is synced". It takes no log space; two slots
/// are written in turn, so that a torn one leaves its predecessor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Statement {
    pub(crate) identity: u64,
    /// Grows with each statement in the segment; the larger of the two slots is the newer.
    pub(crate) counter: u64,
    /// The log position below which everything was known synced.
    pub(crate) synced: u64,
    /// The log position of the segment's first batch.
    pub(crate) base: u64,
    /// The last stop was orderly, with nothing unsynced.
    pub(crate) clean: bool,
    /// The log goes on in the next segment, from `synced`.
    pub(crate) sealed: bool,
    /// Batches may have been acknowledged without a sync (durability other than `always`).
    pub(crate) weak: bool,
}

impl Statement {
    /// Where in the segment the statement with this counter goes.
    pub(crate) fn slot_offset(counter: u64) -> u64 {
        SECTOR_BYTES as u64 * (1 + counter % 2)
    }

    pub(crate) fn encode(&self) -> [u8; SECTOR_BYTES] {
        let mut out = [0; SECTOR_BYTES];
        out[0..4].copy_from_slice(&STATEMENT_MAGIC);
        out[8..16].copy_from_slice(&self.identity.to_le_bytes());
        out[16..24].copy_from_slice(&self.counter.to_le_bytes());
        out[24..32].copy_from_slice(&self.synced.to_le_bytes());
        out[32..40].copy_from_slice(&self.base.to_le_bytes());
        let flags = u32::from(self.clean) | u32::from(self.sealed) << 1 | u32::from(self.weak) << 2;
        out[40..44].copy_from_slice(&flags.to_le_bytes());
        let crc = crc32fast::hash(&out);
        out[4..8].copy_from_slice(&crc.to_le_bytes());
        out
    }

    pub(crate) fn decode(sector: &[u8; SECTOR_BYTES], identity: u64) -> Option<Self> {
        let mut zeroed = *sector;
        zeroed[4..8].fill(0);
        if sector[0..4] != STATEMENT_MAGIC
            || u64_at(sector, 8) != identity
            || crc32fast::hash(&zeroed) != u32_at(sector, 4)
        {
            return None;
        }
        let flags = u32_at(sector, 40);
        Some(Self {
            identity,
            counter: u64_at(sector, 16),
            synced: u64_at(sector, 24),
            base: u64_at(sector, 32),
            clean: flags & 1 != 0,
            sealed: flags & 2 != 0,
            weak: flags & 4 != 0,
        })
    }
}

/// The head of a batch. It has a checksum of its own, so that its lengths are trusted before anything is read or
/// allocated by them; that checksum covers the records' checksum, which covers each payload's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BatchHeader {
    /// The segment's identity.
    pub(crate) identity: u64,
    /// The log position of this header's first byte.
    pub(crate) position: u64,
    /// Batches count up by one.
    pub(crate) sequence: u64,
    /// The log position below which everything was known synced when this was written.
    pub(crate) synced: u64,
    /// The number of the oldest segment that recovery needs once this batch is in the log.
    pub(crate) oldest: u64,
    /// Bytes of entry payloads, which follow the header.
    pub(crate) data_len: u32,
    /// Bytes of records, which follow the payloads.
    pub(crate) meta_len: u32,
    /// Checksum of the records.
    pub(crate) meta_crc: u32,
}

impl BatchHeader {
    pub(crate) fn encode(&self) -> [u8; BATCH_HEADER_BYTES] {
        let mut out = [0; BATCH_HEADER_BYTES];
        out[0..4].copy_from_slice(&BATCH_MAGIC);
        out[8..16].copy_from_slice(&self.identity.to_le_bytes());
        out[16..24].copy_from_slice(&self.position.to_le_bytes());
        out[24..32].copy_from_slice(&self.sequence.to_le_bytes());
        out[32..40].copy_from_slice(&self.synced.to_le_bytes());
        out[40..48].copy_from_slice(&self.oldest.to_le_bytes());
        out[48..52].copy_from_slice(&self.data_len.to_le_bytes());
        out[52..56].copy_from_slice(&self.meta_len.to_le_bytes());
        out[56..60].copy_from_slice(&self.meta_crc.to_le_bytes());
        let crc = crc32fast::hash(&out[8..]);
        out[4..8].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// The header in `bytes`, if it is whole and belongs to the segment. The caller checks the position.
    pub(crate) fn decode(bytes: &[u8], identity: u64) -> Option<Self> {
        if bytes.len() < BATCH_HEADER_BYTES || bytes[0..4] != BATCH_MAGIC {
            return None;
        }
        let bytes = &bytes[..BATCH_HEADER_BYTES];
        if u64_at(bytes, 8) != identity || crc32fast::hash(&bytes[8..]) != u32_at(bytes, 4) {
            return None;
        }
        Some(Self {
            identity,
            position: u64_at(bytes, 16),
            sequence: u64_at(bytes, 24),
            synced: u64_at(bytes, 32),
            oldest: u64_at(bytes, 40),
            data_len: u32_at(bytes, 48),
            meta_len: u32_at(bytes, 52),
            meta_crc: u32_at(bytes, 56),
        })
    }

    /// The whole batch's length in the log, padding included.
    pub(crate) fn batch_len(&self) -> u64 {
        batch_len(u64::from(self.data_len), u64::from(self.meta_len))
    }
}

/// The length in the log of a batch with so many payload and record bytes.
pub(crate) fn batch_len(data_len: u64, meta_len: u64) -> u64 {
    (BATCH_HEADER_BYTES as u64 + data_len + meta_len).next_multiple_of(BATCH_ALIGN as u64)
}

const RECORD_ENTRIES: u8 = 1;
const RECORD_STATE: u8 = 2;
const RECORD_RESET: u8 = 3;
const RECORD_REWRITE: u8 = 4;
const RECORD_REMOVE: u8 = 5;

/// One entry's line in an entries or rewrite record; its payload is in the batch's data, in the same order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EntryMeta {
    pub(crate) kind: u8,
    pub(crate) len: u32,
    pub(crate) crc: u32,
}

/// What a batch says, besides payloads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Record {
    /// Entries of one term from `first` on. `rewrite`: a copy of live entries, which does not cut what follows them;
    /// otherwise everything of the group from `first` on is replaced.
    Entries { group: GroupId, first: u64, term: u64, rewrite: bool, entries: Vec<EntryMeta> },
    /// A group's whole state besides its entries.
    State { group: GroupId, hard_state: HardState, compacted: (u64, u64) },
    /// A snapshot was installed: no entries; the log starts after `index`.
    Reset { group: GroupId, index: u64, term: u64 },
    /// The group is gone.
    Remove { group: GroupId },
}

/// Begins an entries record; `count` lines follow.
pub(crate) fn put_entries(out: &mut Vec<u8>, group: GroupId, first: u64, term: u64, count: u32, rewrite: bool) {
    out.push(if rewrite { RECORD_REWRITE } else { RECORD_ENTRIES });
    out.extend_from_slice(&group.to_le_bytes());
    out.extend_from_slice(&first.to_le_bytes());
    out.extend_from_slice(&term.to_le_bytes());
    out.extend_from_slice(&count.to_le_bytes());
}

pub(crate) fn put_entry(out: &mut Vec<u8>, entry: EntryMeta) {
    out.push(entry.kind);
    out.extend_from_slice(&entry.len.to_le_bytes());
    out.extend_from_slice(&entry.crc.to_le_bytes());
}

pub(crate) fn put_state(out: &mut Vec<u8>, group: GroupId, hard_state: HardState, compacted: (u64, u64)) {
    out.push(RECORD_STATE);
    for number in [group, hard_state.term, hard_state.vote, hard_state.commit, compacted.0, compacted.1] {
        out.extend_from_slice(&number.to_le_bytes());
    }
}

pub(crate) fn put_reset(out: &mut Vec<u8>, group: GroupId, index: u64, term: u64) {
    out.push(RECORD_RESET);
    for number in [group, index, term] {
        out.extend_from_slice(&number.to_le_bytes());
    }
}

pub(crate) fn put_remove(out: &mut Vec<u8>, group: GroupId) {
    out.push(RECORD_REMOVE);
    out.extend_from_slice(&group.to_le_bytes());
}

struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(head)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|b| b[0])
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4).map(|b| u32_at(b, 0))
    }

    fn u64(&mut self) -> Option<u64> {
        self.take(8).map(|b| u64_at(b, 0))
    }
}

/// The records of a batch, or what is wrong with them. The payload lengths must add up to `data_len`.
pub(crate) fn decode_records(meta: &[u8], data_len: u32) -> Result<Vec<Record>, &'static str> {
    const SHORT: &str = "a record ends before its end";
    let mut cursor = Cursor(meta);
    let mut records = Vec::new();
    let mut data = 0u64;
    while let Some(kind) = cursor.u8() {
        let group = cursor.u64().ok_or(SHORT)?;
        records.push(match kind {
            RECORD_ENTRIES | RECORD_REWRITE => {
                let first = cursor.u64().ok_or(SHORT)?;
                let term = cursor.u64().ok_or(SHORT)?;
                let count = cursor.u32().ok_or(SHORT)?;
                if first == 0 || first.checked_add(u64::from(count)).is_none() {
                    return Err("an entry's index is out of range");
                }
                // The lines must be there before room is made for them.
                let mut lines = Cursor(cursor.take(count as usize * 9).ok_or(SHORT)?);
                let mut entries = Vec::with_capacity(count as usize);
                while let (Some(kind), Some(len), Some(crc)) = (lines.u8(), lines.u32(), lines.u32()) {
                    data += u64::from(len);
                    entries.push(EntryMeta { kind, len, crc });
                }
                Record::Entries { group, first, term, rewrite: kind == RECORD_REWRITE, entries }
            }
            RECORD_STATE => {
                let mut numbers = [0; 5];
                for number in &mut numbers {
                    *number = cursor.u64().ok_or(SHORT)?;
                }
                let [term, vote, commit, index, index_term] = numbers;
                Record::State { group, hard_state: HardState { term, vote, commit }, compacted: (index, index_term) }
            }
            RECORD_RESET => {
                let index = cursor.u64().ok_or(SHORT)?;
                Record::Reset { group, index, term: cursor.u64().ok_or(SHORT)? }
            }
            RECORD_REMOVE => Record::Remove { group },
            _ => return Err("a record of a kind that this release does not know"),
        });
    }
    if data != u64::from(data_len) { Err("the entries do not add up to the batch") } else { Ok(records) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_survive_a_round_trip_and_no_flipped_bit() {
        let segment = SegmentHeader { node: 7, number: 3, identity: 99, capacity: 1 << 20 };
        let statement =
            Statement { identity: 99, counter: 5, synced: 800, base: 64, clean: true, sealed: false, weak: true };
        let batch = BatchHeader {
            identity: 99,
            position: 800,
            sequence: 4,
            synced: 720,
            oldest: 2,
            data_len: 10,
            meta_len: 38,
            meta_crc: 1,
        };
        assert_eq!(SegmentHeader::decode(&segment.encode()), Ok(segment));
        assert_eq!(Statement::decode(&statement.encode(), 99), Some(statement));
        assert_eq!(BatchHeader::decode(&batch.encode(), 99), Some(batch));
        for bit in 0..SECTOR_BYTES * 8 {
            let flip = |mut sector: [u8; SECTOR_BYTES]| {
                sector[bit / 8] ^= 1 << (bit % 8);
                sector
            };
            assert!(SegmentHeader::decode(&flip(segment.encode())).is_err(), "bit {bit}");
            assert!(Statement::decode(&flip(statement.encode()), 99).is_none(), "bit {bit}");
        }
        for bit in 0..BATCH_HEADER_BYTES * 8 {
            let mut bytes = batch.encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(BatchHeader::decode(&bytes, 99).is_none(), "bit {bit}");
        }
        assert!(BatchHeader::decode(&batch.encode(), 98).is_none(), "another segment's");
    }

    #[test]
    fn a_newer_version_is_told_from_damage() {
        let mut sector = SegmentHeader { node: 7, number: 3, identity: 99, capacity: 1 << 20 }.encode();
        sector[8] = 2;
        sector[12..16].fill(0);
        let crc = crc32fast::hash(&sector);
        sector[12..16].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(SegmentHeader::decode(&sector), Err(BadSegmentHeader::Newer(2)));
    }

    #[test]
    fn records_survive_a_round_trip_and_every_truncation_is_refused() {
        let mut meta = Vec::new();
        let lines = [EntryMeta { kind: 0, len: 5, crc: 1 }, EntryMeta { kind: 9, len: 7, crc: 2 }];
        put_entries(&mut meta, 1, 10, 3, 2, false);
        lines.iter().for_each(|line| put_entry(&mut meta, *line));
        let entries_end = meta.len();
        let hard_state = HardState { term: 3, vote: 2, commit: 9 };
        put_state(&mut meta, 1, hard_state, (8, 2));
        put_reset(&mut meta, 2, 50, 3);
        put_remove(&mut meta, 3);
        let records = decode_records(&meta, 12).unwrap();
        assert_eq!(
            records,
            vec![
                Record::Entries { group: 1, first: 10, term: 3, rewrite: false, entries: lines.to_vec() },
                Record::State { group: 1, hard_state, compacted: (8, 2) },
                Record::Reset { group: 2, index: 50, term: 3 },
                Record::Remove { group: 3 },
            ]
        );
        assert!(decode_records(&meta, 11).is_err());
        for cut in (1..meta.len()).filter(|cut| ![entries_end, entries_end + 49, entries_end + 74].contains(cut)) {
            assert!(decode_records(&meta[..cut], 12).is_err(), "cut at {cut}");
        }
        // A count that the bytes do not back is refused without making room for it.
        let mut hostile = Vec::new();
        put_entries(&mut hostile, 1, 10, 3, u32::MAX, false);
        assert!(decode_records(&hostile, 0).is_err());
        assert!(decode_records(&[77; 9], 0).is_err());
    }
}
