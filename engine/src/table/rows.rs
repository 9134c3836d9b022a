//! How the table's rows look in a checkpoint store. The page `docs/src/formats/table.md` draws them.
//!
//! One ordered key space holds everything, told apart by a first byte, so that a generation is one atomic unit:
//!
//! ```text
//!   'd' group slot incarnation hash 0 key         → value                  data
//!   'd' group slot incarnation hash 1 digest      → bucket of (key, value) data of keys over LONG_KEY_BYTES
//!   's' group incarnation slot name               → data                   records: what sessions remember
//!   'x' group deadline slot incarnation hash …    → (nothing)              deadline index, soonest first
//!   'z' group 'c' slot                            → incarnation, count     how many keys a slot holds
//!   'z' group 'm'                                 → applied index …        written last
//! ```
//!
//! Numbers in keys are big-endian, so that byte order is numeric order. Bytes that come back are checked: a row that cannot
//! be read is an error with the row's key in it, never a panic.

use super::records::{RECORD_NAME_BYTES, RecordKey};
use super::{Head, Object, ObjectKind};
use crate::GroupId;
use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_128;

/// Keys longer than this are stored in a bucket under their digest: stores limit the length of a row's key.
pub(crate) const LONG_KEY_BYTES: usize = 32 << 10;

const DATA: u8 = b'd';
const RECORD: u8 = b's';
const INDEX: u8 = b'x';
const META: u8 = b'z';

const VALUE_VERSION: u8 = 1;
const BUCKET_VERSION: u8 = 2;
const META_VERSION: u8 = 1;
/// As 1, with an attachment.
const META_VERSION_ATTACHED: u8 = 2;
/// The largest attachment, in bytes.
pub(crate) const ATTACHMENT_BYTES_MAX: usize = 1 << 20;
const FLAG_DEADLINE: u8 = 1;

/// Bytes of a data row's key before the hash.
const SCOPE_BYTES: usize = 1 + 8 + 2 + 8;
/// Bytes of an index row's key before the hash.
const INDEX_SCOPE_BYTES: usize = 1 + 8 + 8 + 2 + 8;
/// Bytes of a record row's key.
const RECORD_KEY_BYTES: usize = 1 + 8 + 8 + 2 + RECORD_NAME_BYTES;

/// What the store says about a group: the last row of every generation.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Meta {
    pub(crate) index: u64,
    pub(crate) term: u64,
    pub(crate) stamp_ms: u64,
    pub(crate) incarnation: u64,
    pub(crate) count: u64,
    /// What the host keeps beside the applied index: see [`Table::set_attachment`](super::Table::set_attachment).
    pub(crate) attachment: Bytes,
}

/// Why bytes from a store could not be read.
pub(crate) type Malformed = String;

pub(crate) fn scope(group: GroupId, slot: u16, incarnation: u64) -> Vec<u8> {
    let mut key = Vec::with_capacity(SCOPE_BYTES + 64);
    key.push(DATA);
    key.extend_from_slice(&group.to_be_bytes());
    key.extend_from_slice(&slot.to_be_bytes());
    key.extend_from_slice(&incarnation.to_be_bytes());
    key
}

/// The first possible row at or after a hash; `None` for the end of the slot's incarnation.
pub(crate) fn data_bound(group: GroupId, slot: u16, incarnation: u64, hash: Option<u64>) -> Vec<u8> {
    match hash {
        Some(hash) => {
            let mut key = scope(group, slot, incarnation);
            key.extend_from_slice(&hash.to_be_bytes());
            key
        }
        None => successor(scope(group, slot, incarnation)),
    }
}

/// The smallest key above every key that starts with `prefix`.
pub(crate) fn successor(mut prefix: Vec<u8>) -> Vec<u8> {
    while let Some(last) = prefix.last_mut() {
        if *last < u8::MAX {
            *last += 1;
            return prefix;
        }
        prefix.pop();
    }
    prefix
}

/// Replaces `row` by the key of a data row.
pub(crate) fn data_key(row: &mut Vec<u8>, group: GroupId, slot: u16, incarnation: u64, hash: u64, key: &[u8]) {
    row.clear();
    row.push(DATA);
    row.extend_from_slice(&group.to_be_bytes());
    row.extend_from_slice(&slot.to_be_bytes());
    row.extend_from_slice(&incarnation.to_be_bytes());
    push_suffix(row, hash, key);
}

fn push_suffix(row: &mut Vec<u8>, hash: u64, key: &[u8]) {
    row.extend_from_slice(&hash.to_be_bytes());
    if key.len() <= LONG_KEY_BYTES {
        row.push(0);
        row.extend_from_slice(key);
    } else {
        row.push(1);
        row.extend_from_slice(&xxh3_128(key).to_be_bytes());
    }
}

/// The index row that belongs to a data row.
pub(crate) fn index_key(data_row: &[u8], deadline_ms: u64) -> Vec<u8> {
    let mut row = Vec::with_capacity(data_row.len() + 8);
    row.push(INDEX);
    row.extend_from_slice(&data_row[1..9]);
    row.extend_from_slice(&deadline_ms.to_be_bytes());
    row.extend_from_slice(&data_row[9..]);
    row
}

/// All index rows of a group.
pub(crate) fn index_range(group: GroupId) -> (Vec<u8>, Vec<u8>) {
    let mut from = vec![INDEX];
    from.extend_from_slice(&group.to_be_bytes());
    let to = successor(from.clone());
    (from, to)
}

/// All data rows of a group, every slot and incarnation.
pub(crate) fn group_range(group: GroupId) -> (Vec<u8>, Vec<u8>) {
    let from = scope(group, 0, 0)[..9].to_vec();
    let to = successor(from.clone());
    (from, to)
}

/// The row of a record.
pub(crate) fn record_key(group: GroupId, incarnation: u64, key: &RecordKey) -> Vec<u8> {
    let mut row = record_scope(group, incarnation, key.slot);
    row.extend_from_slice(&key.name);
    row
}

fn record_scope(group: GroupId, incarnation: u64, slot: u16) -> Vec<u8> {
    let mut row = Vec::with_capacity(RECORD_KEY_BYTES);
    row.push(RECORD);
    row.extend_from_slice(&group.to_be_bytes());
    row.extend_from_slice(&incarnation.to_be_bytes());
    row.extend_from_slice(&slot.to_be_bytes());
    row
}

/// The rows of an incarnation's records, of the slots from `first` to `last`.
pub(crate) fn record_bounds(group: GroupId, incarnation: u64, first: u16, last: u16) -> (Vec<u8>, Vec<u8>) {
    (record_scope(group, incarnation, first), successor(record_scope(group, incarnation, last)))
}

/// All record rows of a group, every incarnation.
pub(crate) fn record_range(group: GroupId) -> (Vec<u8>, Vec<u8>) {
    let from = record_scope(group, 0, 0)[..9].to_vec();
    let to = successor(from.clone());
    (from, to)
}

/// Whether a row is a record's.
pub(crate) fn is_record(row: &[u8]) -> bool {
    row.first() == Some(&RECORD)
}

/// A record row's incarnation and the record's key.
pub(crate) fn parse_record_key(row: &[u8]) -> Result<(u64, RecordKey), Malformed> {
    if row.first() != Some(&RECORD) || row.len() != RECORD_KEY_BYTES || u16_at(row, 17) >= super::SLOTS as u16 {
        return Err(malformed_key(row));
    }
    let mut name = [0; RECORD_NAME_BYTES];
    name.copy_from_slice(&row[19..]);
    Ok((u64_at(row, 9), RecordKey { slot: u16_at(row, 17), name }))
}

/// A data row's key, taken apart.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DataKey<'a> {
    pub(crate) slot: u16,
    pub(crate) incarnation: u64,
    pub(crate) hash: u64,
    /// The key, or `None` when the row is a bucket.
    pub(crate) key: Option<&'a [u8]>,
}

pub(crate) fn parse_data_key(row: &[u8]) -> Result<DataKey<'_>, Malformed> {
    if row.first() != Some(&DATA) || row.len() < SCOPE_BYTES {
        return Err(malformed_key(row));
    }
    parse_suffix(row, u16_at(row, 9), &row[SCOPE_BYTES - 8..])
}

/// An index row's deadline, and the data row it stands for.
pub(crate) fn parse_index_key(row: &[u8]) -> Result<(u64, DataKey<'_>), Malformed> {
    if row.first() != Some(&INDEX) || row.len() < INDEX_SCOPE_BYTES {
        return Err(malformed_key(row));
    }
    Ok((u64_at(row, 9), parse_suffix(row, u16_at(row, 17), &row[INDEX_SCOPE_BYTES - 8..])?))
}

/// The data row that an index row stands for.
pub(crate) fn data_row_of_index(row: &[u8]) -> Vec<u8> {
    let mut data = Vec::with_capacity(row.len());
    data.push(DATA);
    data.extend_from_slice(&row[1..9]);
    data.extend_from_slice(&row[17..]);
    data
}

/// `rest` begins with the incarnation.
fn parse_suffix<'a>(row: &[u8], slot: u16, rest: &'a [u8]) -> Result<DataKey<'a>, Malformed> {
    if rest.len() < 17 || slot >= super::SLOTS as u16 {
        return Err(malformed_key(row));
    }
    let key = match (rest[16], rest.len() - 17) {
        (0, _) => Some(&rest[17..]),
        (1, 16) => None,
        _ => return Err(malformed_key(row)),
    };
    Ok(DataKey { slot, incarnation: u64_at(rest, 0), hash: u64_at(rest, 8), key })
}

fn malformed_key(row: &[u8]) -> Malformed {
    format!("row key {} is malformed", row[..row.len().min(64)].escape_ascii())
}

/// The part of a value before the data.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ValueHead {
    pub(crate) kind: ObjectKind,
    pub(crate) deadline_ms: u64,
    pub(crate) bytes: usize,
}

/// Replaces `head` by a value's head.
pub(crate) fn value_head(head: &mut Vec<u8>, object: &Object) {
    head.clear();
    push_value_head(head, object);
}

fn push_value_head(head: &mut Vec<u8>, object: &Object) {
    head.extend_from_slice(&[VALUE_VERSION, object.kind as u8]);
    if object.deadline_ms == 0 {
        head.push(0);
    } else {
        head.push(FLAG_DEADLINE);
        head.extend_from_slice(&object.deadline_ms.to_le_bytes());
    }
}

pub(crate) fn parse_value_head(value: &[u8]) -> Result<ValueHead, Malformed> {
    let [version, kind, flags, rest @ ..] = value else {
        return Err(format!("a value of {} bytes is too short", value.len()));
    };
    if *version != VALUE_VERSION {
        return Err(format!("value version {version} is unknown (this release reads {VALUE_VERSION})"));
    }
    let kind = ObjectKind::from_u8(*kind).ok_or_else(|| format!("value kind {kind} is unknown"))?;
    match *flags {
        0 => Ok(ValueHead { kind, deadline_ms: 0, bytes: 3 }),
        FLAG_DEADLINE if rest.len() >= 8 => {
            let deadline_ms =
                u64::from_le_bytes([rest[0], rest[1], rest[2], rest[3], rest[4], rest[5], rest[6], rest[7]]);
            Ok(ValueHead { kind, deadline_ms, bytes: 11 })
        }
        flags => Err(format!("value flags {flags:#x} are unknown, or the value is cut short")),
    }
}

/// Reads a value, copying its data into an exact allocation.
pub(crate) fn parse_value(value: &[u8]) -> Result<Object, Malformed> {
    let head = parse_value_head(value)?;
    Ok(Object { kind: head.kind, deadline_ms: head.deadline_ms, data: Bytes::copy_from_slice(&value[head.bytes..]) })
}

/// Reads what a value says of itself, without its data.
pub(crate) fn parse_head(value: &[u8]) -> Result<Head, Malformed> {
    let head = parse_value_head(value)?;
    Ok(Head { kind: head.kind, deadline_ms: head.deadline_ms, data_bytes: (value.len() - head.bytes) as u64 })
}

/// A long key in its bucket.
pub(crate) type Member = (Box<[u8]>, Object);

/// Encodes a bucket: every long key whose row has this digest.
pub(crate) fn encode_bucket(members: &[Member]) -> Vec<u8> {
    let mut out = vec![BUCKET_VERSION];
    out.extend_from_slice(&(members.len() as u32).to_le_bytes());
    for (key, object) in members {
        let mut head = Vec::with_capacity(11);
        push_value_head(&mut head, object);
        out.extend_from_slice(&(key.len() as u32).to_le_bytes());
        out.extend_from_slice(&((head.len() + object.data.len()) as u32).to_le_bytes());
        out.extend_from_slice(key);
        out.extend_from_slice(&head);
        out.extend_from_slice(&object.data);
    }
    out
}

pub(crate) fn parse_bucket(value: &[u8]) -> Result<Vec<Member>, Malformed> {
    let cut = || "a bucket of long keys is cut short".to_owned();
    if value.len() < 5 || value[0] != BUCKET_VERSION {
        return Err("a bucket of long keys has an unknown version".to_owned());
    }
    let count = u32_at(value, 1);
    let mut rest = &value[5..];
    let mut members = Vec::new();
    for _ in 0..count {
        if rest.len() < 8 {
            return Err(cut());
        }
        let (key_bytes, value_bytes) = (u32_at(rest, 0) as usize, u32_at(rest, 4) as usize);
        let end = key_bytes.checked_add(value_bytes).filter(|&end| end <= rest.len() - 8).ok_or_else(cut)?;
        let body = &rest[8..8 + end];
        members.push((body[..key_bytes].into(), parse_value(&body[key_bytes..])?));
        rest = &rest[8 + end..];
    }
    if rest.is_empty() { Ok(members) } else { Err("a bucket of long keys has bytes left over".to_owned()) }
}

pub(crate) fn meta_key(group: GroupId) -> Vec<u8> {
    let mut key = vec![META];
    key.extend_from_slice(&group.to_be_bytes());
    key.push(b'm');
    key
}

pub(crate) fn count_key(group: GroupId, slot: u16) -> Vec<u8> {
    let mut key = vec![META];
    key.extend_from_slice(&group.to_be_bytes());
    key.push(b'c');
    key.extend_from_slice(&slot.to_be_bytes());
    key
}

/// The count rows of a group.
pub(crate) fn count_bounds(group: GroupId) -> (Vec<u8>, Vec<u8>) {
    let from = count_key(group, 0)[..10].to_vec();
    let to = successor(from.clone());
    (from, to)
}

pub(crate) fn encode_count(incarnation: u64, count: u32) -> [u8; 12] {
    let mut out = [0; 12];
    out[..8].copy_from_slice(&incarnation.to_le_bytes());
    out[8..].copy_from_slice(&count.to_le_bytes());
    out
}

/// A count row's slot, incarnation and count.
pub(crate) fn parse_count(key: &[u8], value: &[u8]) -> Result<(u16, u64, u32), Malformed> {
    if key.len() != 12 || value.len() != 12 || u16_at(key, 10) >= super::SLOTS as u16 {
        return Err(malformed_key(key));
    }
    let incarnation =
        u64::from_le_bytes([value[0], value[1], value[2], value[3], value[4], value[5], value[6], value[7]]);
    Ok((u16_at(key, 10), incarnation, u32_at(value, 8)))
}

/// Bytes of the state row before its attachment: version and five numbers.
const META_BYTES: usize = 1 + 5 * 8;

impl Meta {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let attached = !self.attachment.is_empty();
        let mut out = vec![if attached { META_VERSION_ATTACHED } else { META_VERSION }];
        for number in [self.index, self.term, self.stamp_ms, self.incarnation, self.count] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.attachment);
        let crc = crc32fast::hash(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    pub(crate) fn decode(value: &[u8]) -> Result<Meta, Malformed> {
        if value.first().is_some_and(|&version| version > META_VERSION_ATTACHED) {
            return Err(format!("group state of version {} comes from a newer release", value[0]));
        }
        let damaged = || "the row with the group's applied index is damaged".to_owned();
        let body = value.len().checked_sub(4).filter(|&end| end >= META_BYTES).ok_or_else(damaged)?;
        let attached = value[0] == META_VERSION_ATTACHED;
        if crc32fast::hash(&value[..body]) != u32_at(value, body) || attached != (body > META_BYTES) {
            return Err(damaged());
        }
        let attachment = Bytes::copy_from_slice(&value[META_BYTES..body]);
        let at = |n: usize| u64::from(u32_at(value, 1 + 8 * n)) | u64::from(u32_at(value, 5 + 8 * n)) << 32;
        Ok(Meta { index: at(0), term: at(1), stamp_ms: at(2), incarnation: at(3), count: at(4), attachment })
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut out = [0; 8];
    out.copy_from_slice(&bytes[at..at + 8]);
    u64::from_be_bytes(out)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rows_of_a_hash_sort_by_slot_incarnation_and_hash() {
        let mut rows = Vec::new();
        for (slot, incarnation, hash, key) in
            [(1, 1, 5, b"b".as_slice()), (1, 1, 5, b"a"), (1, 1, 4, b"z"), (0, 9, 9, b"q"), (1, 0, u64::MAX, b"r")]
        {
            let mut row = Vec::new();
            data_key(&mut row, 7, slot, incarnation, hash, key);
            rows.push(row);
        }
        rows.sort();
        let order: Vec<_> = rows.iter().map(|row| parse_data_key(row).unwrap().key.unwrap().to_vec()).collect();
        assert_eq!(order, [b"q", b"r", b"z", b"a", b"b"]);
        let end = data_bound(7, 1, 1, None);
        assert!(rows.iter().all(|row| row < &end));
        assert!(data_bound(7, 1, 1, Some(5)) <= rows[3]);
    }

    #[test]
    fn index_row_leads_back_to_its_data_row() {
        let mut row = Vec::new();
        data_key(&mut row, 3, 16383, 12, 77, b"key");
        let index = index_key(&row, 1_700_000_000_000);
        let (deadline, parsed) = parse_index_key(&index).unwrap();
        assert_eq!(
            (deadline, parsed.slot, parsed.hash, parsed.key),
            (1_700_000_000_000, 16383, 77, Some(b"key".as_slice()))
        );
        assert_eq!(data_row_of_index(&index), row);
        let (from, to) = index_range(3);
        assert!(from <= index && index < to);
    }

    #[test]
    fn bucket_keeps_every_member() {
        let members = vec![
            (vec![1; 40_000].into_boxed_slice(), Object::string(Bytes::from_static(b"one"))),
            (vec![2; 50_000].into_boxed_slice(), Object { deadline_ms: 9, ..Object::string(Bytes::new()) }),
        ];
        let bucket = encode_bucket(&members);
        assert_eq!(parse_bucket(&bucket).unwrap(), members);
        for cut in [0, 4, 12, 40_020, bucket.len() - 1] {
            assert!(parse_bucket(&bucket[..cut]).is_err());
        }
    }

    /// What older releases wrote must be read for ever: a change of these bytes is a change of the format.
    #[test]
    fn bytes_are_as_documented() {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let mut row = Vec::new();
        data_key(&mut row, 7, 0x1234, 9, 0xABCD, b"key");
        assert_eq!(hex(&row), "64000000000000000712340000000000000009000000000000abcd006b6579");
        assert_eq!(
            hex(&index_key(&row, 0x0102)),
            "78000000000000000700000000000001021234000000000000000900000000 0000abcd006b6579".replace(' ', "")
        );
        let record = record_key(7, 9, &RecordKey { slot: 0x1234, name: *b"twenty-four-byte-of-name" });
        assert_eq!(
            hex(&record),
            "7300000000000000070000000000000009 1234 7477656e74792d666f75722d627974652d6f662d6e616d65".replace(' ', "")
        );
        assert_eq!(parse_record_key(&record).unwrap().0, 9);
        let mut head = Vec::new();
        value_head(&mut head, &Object { deadline_ms: 0x0102, ..Object::string(Bytes::new()) });
        assert_eq!(hex(&head), "0100010201000000000000");
        assert_eq!(hex(&encode_count(3, 4)), "030000000000000004000000");
        assert_eq!(hex(&count_key(7, 5)), "7a0000000000000007630005");
        let plain = Meta { index: 1, term: 2, stamp_ms: 3, incarnation: 4, count: 5, attachment: Bytes::new() };
        let meta = plain.encode();
        assert_eq!(
            hex(&meta[..41]),
            format!("01{}", (1..=5).map(|n| format!("{n:02x}00000000000000")).collect::<String>())
        );
        assert_eq!(hex(&meta[41..]), "9264d4d5");
        let attached = Meta { attachment: Bytes::from_static(b"who"), ..plain }.encode();
        assert_eq!((hex(&attached[..1]), hex(&attached[41..44])), ("02".to_owned(), hex(b"who")));
    }

    #[test]
    fn damaged_meta_is_refused() {
        for attachment in [Bytes::new(), Bytes::from_static(b"members")] {
            let meta = Meta { index: 1, term: 2, stamp_ms: 3, incarnation: 4, count: 5, attachment };
            let bytes = meta.encode();
            assert_eq!(Meta::decode(&bytes).unwrap(), meta);
            for at in 0..bytes.len() {
                let mut flipped = bytes.clone();
                flipped[at] ^= 0x10;
                assert!(Meta::decode(&flipped).is_err(), "byte {at}");
            }
        }
    }

    proptest! {
        #[test]
        fn parsing_arbitrary_bytes_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = parse_data_key(&bytes);
            let _ = parse_index_key(&bytes);
            let _ = parse_record_key(&bytes);
            let _ = parse_value(&bytes);
            let _ = parse_bucket(&bytes);
            let _ = Meta::decode(&bytes);
            let _ = parse_count(&bytes, &bytes);
        }
    }
}
