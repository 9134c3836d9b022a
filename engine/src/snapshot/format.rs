//! The bytes of a snapshot. The page `docs/src/formats/snapshot.md` draws them.
//!
//! All numbers are little-endian. Every length is checked against a limit, and its checksum against the bytes that hold it,
//! before anything is allocated by it.

use crate::GroupId;
use crate::table::{Applied, Object, ObjectKind, RowSpace, SLOTS, ViewRow};
use bytes::Bytes;

/// Begins every snapshot; the last byte is the format's version.
pub(super) const MAGIC: [u8; 8] = *b"HFSNAP\0\x01";

/// A block is closed when its rows reach this many bytes.
pub(super) const BLOCK_BYTES: usize = 256 << 10;
/// Rows larger than a block travel alone and uncompressed, so that a small input can't ask for a large allocation.
pub(super) const COMPRESSED_BYTES_MAX: usize = 1 << 20;
/// The largest block: one row of the largest key and value that a release may ever allow.
pub(super) const BLOCK_BYTES_MAX: usize = (512 << 20) + (1 << 20);
/// The largest header after its fixed part.
pub(super) const HEADER_BYTES_MAX: usize = 1 << 20;

/// Magic and the length of the rest.
pub(super) const PREFIX_BYTES: usize = 12;
/// Marker, codec, rows, bytes raw and stored, checksums of the payload and of the head.
pub(super) const BLOCK_HEAD_BYTES: usize = 2 + 3 * 4 + 2 * 4;
/// Marker and padding, rows, blocks, raw bytes, checksum of checksums, checksum.
pub(super) const FOOTER_BYTES: usize = 2 + 3 * 8 + 2 * 4;

pub(super) const BLOCK: u8 = b'B';
pub(super) const FOOTER: u8 = b'E';
/// The kind of a row that is no key but a record.
pub(super) const RECORD: u8 = 0x80;
pub(super) const RAW: u8 = 0;
pub(super) const LZ4: u8 = 1;

/// What a snapshot is of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SnapshotHeader {
    /// The group.
    pub group: GroupId,
    /// The log index, term and time that the rows show.
    pub applied: Applied,
    /// The group's incarnation at that index.
    pub incarnation: u64,
    /// The slots covered, as ascending, disjoint ranges with both ends included.
    pub ranges: Vec<(u16, u16)>,
    /// The group's membership, in the words of whoever runs consensus.
    pub conf_state: Bytes,
}

impl SnapshotHeader {
    /// A header over all slots.
    pub fn whole(group: GroupId, applied: Applied, incarnation: u64) -> Self {
        SnapshotHeader { group, applied, incarnation, ranges: vec![(0, SLOTS as u16 - 1)], conf_state: Bytes::new() }
    }

    pub(super) fn covers(&self, slot: u16) -> bool {
        self.ranges.iter().any(|&(first, last)| (first..=last).contains(&slot))
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(64 + 4 * self.ranges.len() + self.conf_state.len());
        let Applied { index, term, stamp_ms } = self.applied;
        for number in [self.group, index, term, stamp_ms, self.incarnation] {
            body.extend_from_slice(&number.to_le_bytes());
        }
        body.extend_from_slice(&(self.ranges.len() as u32).to_le_bytes());
        for (first, last) in &self.ranges {
            body.extend_from_slice(&first.to_le_bytes());
            body.extend_from_slice(&last.to_le_bytes());
        }
        body.extend_from_slice(&(self.conf_state.len() as u32).to_le_bytes());
        body.extend_from_slice(&self.conf_state);
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&(body.len() as u32 + 4).to_le_bytes());
        out.extend_from_slice(&body);
        let crc = crc32fast::hash(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    /// The length of the rest of a header, from its prefix.
    pub(super) fn rest_bytes(prefix: &[u8]) -> Result<usize, String> {
        if prefix[..7] != MAGIC[..7] {
            return Err("this is not a snapshot".into());
        }
        if prefix[7] != MAGIC[7] {
            return Err(format!("the snapshot is of format {}; this release reads {}", prefix[7], MAGIC[7]));
        }
        let bytes = Reader(&prefix[8..]).u32()? as usize;
        if bytes > HEADER_BYTES_MAX { Err(format!("a header of {bytes} bytes is over the limit")) } else { Ok(bytes) }
    }

    /// Reads a whole header, prefix included.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let (covered, crc) = bytes.split_at_checked(bytes.len().saturating_sub(4)).ok_or("the header is cut short")?;
        if Reader(crc).u32()? != crc32fast::hash(covered) || covered.len() < PREFIX_BYTES {
            return Err("the header's checksum does not match".into());
        }
        let mut body = Reader(&covered[PREFIX_BYTES..]);
        let group = body.u64()?;
        let applied = Applied { index: body.u64()?, term: body.u64()?, stamp_ms: body.u64()? };
        let incarnation = body.u64()?;
        let mut ranges: Vec<(u16, u16)> = Vec::new();
        for _ in 0..body.u32()? {
            let range = (body.u16()?, body.u16()?);
            let follows = ranges.last().is_none_or(|last| range.0 > last.1);
            if range.0 > range.1 || usize::from(range.1) >= SLOTS || !follows {
                return Err(format!("slot range {}-{} is out of place", range.0, range.1));
            }
            ranges.push(range);
        }
        let conf_bytes = body.u32()? as usize;
        let conf_state = Bytes::copy_from_slice(body.take(conf_bytes)?);
        if !body.0.is_empty() {
            return Err("the header has bytes left over".into());
        }
        Ok(SnapshotHeader { group, applied, incarnation, ranges, conf_state })
    }
}

pub(super) fn push_row(raw: &mut Vec<u8>, row: &ViewRow) {
    let ViewRow { space, slot, hash, key, object } = row;
    raw.extend_from_slice(&slot.to_le_bytes());
    raw.extend_from_slice(&hash.to_le_bytes());
    raw.push(match space {
        RowSpace::Keys => object.kind as u8,
        RowSpace::Records => RECORD,
    });
    raw.extend_from_slice(&object.deadline_ms.to_le_bytes());
    raw.extend_from_slice(&(key.len() as u32).to_le_bytes());
    raw.extend_from_slice(&(object.data.len() as u32).to_le_bytes());
    raw.extend_from_slice(key);
    raw.extend_from_slice(&object.data);
}

pub(super) fn read_row(raw: &mut Reader<'_>) -> Result<ViewRow, String> {
    let (slot, hash, kind, deadline_ms) = (raw.u16()?, raw.u64()?, raw.take(1)?[0], raw.u64()?);
    let (space, kind) = match kind {
        RECORD => (RowSpace::Records, ObjectKind::String),
        kind => (RowSpace::Keys, ObjectKind::from_u8(kind).ok_or_else(|| format!("value kind {kind} is unknown"))?),
    };
    let (key_bytes, value_bytes) = (raw.u32()? as usize, raw.u32()? as usize);
    let key = raw.take(key_bytes)?.into();
    let data = Bytes::copy_from_slice(raw.take(value_bytes)?);
    Ok(ViewRow { space, slot, hash, key, object: Object { kind, deadline_ms, data } })
}

/// A block's head, checked.
#[derive(Debug, Clone, Copy)]
pub(super) struct BlockHead {
    pub(super) codec: u8,
    pub(super) rows: u32,
    pub(super) raw_bytes: usize,
    pub(super) stored_bytes: usize,
    pub(super) crc: u32,
}

impl BlockHead {
    pub(super) fn encode(&self) -> [u8; BLOCK_HEAD_BYTES] {
        let mut out = [0; BLOCK_HEAD_BYTES];
        out[0] = BLOCK;
        out[1] = self.codec;
        out[2..6].copy_from_slice(&self.rows.to_le_bytes());
        out[6..10].copy_from_slice(&(self.raw_bytes as u32).to_le_bytes());
        out[10..14].copy_from_slice(&(self.stored_bytes as u32).to_le_bytes());
        out[14..18].copy_from_slice(&self.crc.to_le_bytes());
        let crc = crc32fast::hash(&out[..18]);
        out[18..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, String> {
        if Reader(&bytes[18..]).u32()? != crc32fast::hash(&bytes[..18]) {
            return Err("the checksum of a block's head does not match".into());
        }
        let codec = bytes[1];
        let mut numbers = Reader(&bytes[2..18]);
        let (rows, raw_bytes, stored_bytes) = (numbers.u32()?, numbers.u32()? as usize, numbers.u32()? as usize);
        let limit = match codec {
            RAW if raw_bytes == stored_bytes => BLOCK_BYTES_MAX,
            LZ4 if stored_bytes <= raw_bytes => COMPRESSED_BYTES_MAX,
            _ => return Err(format!("a block with codec {codec} of {stored_bytes} for {raw_bytes} bytes")),
        };
        if raw_bytes > limit || rows == 0 {
            return Err(format!("a block of {rows} rows in {raw_bytes} bytes is outside the limits"));
        }
        Ok(BlockHead { codec, rows, raw_bytes, stored_bytes, crc: numbers.u32()? })
    }
}

/// What the end of a snapshot says about the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Footer {
    pub(super) rows: u64,
    pub(super) blocks: u64,
    pub(super) raw_bytes: u64,
    /// Checksum over the header's and every block's checksum, in order.
    pub(super) seal: u32,
}

impl Footer {
    pub(super) fn encode(&self) -> [u8; FOOTER_BYTES] {
        let mut out = [0; FOOTER_BYTES];
        out[0] = FOOTER;
        out[2..10].copy_from_slice(&self.rows.to_le_bytes());
        out[10..18].copy_from_slice(&self.blocks.to_le_bytes());
        out[18..26].copy_from_slice(&self.raw_bytes.to_le_bytes());
        out[26..30].copy_from_slice(&self.seal.to_le_bytes());
        let crc = crc32fast::hash(&out[..30]);
        out[30..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, String> {
        if Reader(&bytes[30..]).u32()? != crc32fast::hash(&bytes[..30]) {
            return Err("the footer's checksum does not match".into());
        }
        let mut numbers = Reader(&bytes[2..30]);
        Ok(Footer { rows: numbers.u64()?, blocks: numbers.u64()?, raw_bytes: numbers.u64()?, seal: numbers.u32()? })
    }
}

/// Reads numbers off the front of bytes.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn take(&mut self, bytes: usize) -> Result<&'a [u8], String> {
        let (head, rest) = self.0.split_at_checked(bytes).ok_or("a field is cut short")?;
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    pub(super) fn u16(&mut self) -> Result<u16, String> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(super) fn u32(&mut self) -> Result<u32, String> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, String> {
        Ok(u64::from_le_bytes(self.array()?))
    }
}
