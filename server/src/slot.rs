//! From a key to its place: the hash slot of Redis Cluster, and the hash that orders keys within a slot.
//!
//! A slot is CRC16 (the XMODEM polynomial, as the Redis Cluster specification gives it) of the key, modulo 16384. When the
//! key holds a *hash tag*, a non-empty text between the first `{` and the next `}`, only the tag is hashed, so that keys
//! that share a tag share a slot.

use holdfast_engine::table::{KeyRef, OwnedKey};

/// How many hash slots there are.
pub const SLOT_COUNT: u16 = 16384;

const CRC16_TABLES: [[u16; 256]; 2] = crc16_tables();

/// Two tables: the first steps one byte, the second is the first applied twice, so that two bytes go in one step.
const fn crc16_tables() -> [[u16; 256]; 2] {
    let mut tables = [[0u16; 256]; 2];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 != 0 { (crc << 1) ^ 0x1021 } else { crc << 1 };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut byte = 0;
    while byte < 256 {
        let once = tables[0][byte];
        tables[1][byte] = (once << 8) ^ tables[0][(once >> 8) as usize];
        byte += 1;
    }
    tables
}

/// CRC16/XMODEM.
pub fn crc16(bytes: &[u8]) -> u16 {
    let mut crc = 0u16;
    let mut pairs = bytes.chunks_exact(2);
    for pair in &mut pairs {
        let mixed = crc ^ u16::from_be_bytes([pair[0], pair[1]]);
        crc = CRC16_TABLES[1][(mixed >> 8) as usize] ^ CRC16_TABLES[0][(mixed & 0xff) as usize];
    }
    for byte in pairs.remainder() {
        crc = (crc << 8) ^ CRC16_TABLES[0][((crc >> 8) as u8 ^ byte) as usize];
    }
    crc
}

/// The slot of a key, by its hash tag if it has one.
pub fn slot_of(key: &[u8]) -> u16 {
    crc16(hash_tag(key)) % SLOT_COUNT
}

/// The part of a key that chooses its slot.
fn hash_tag(key: &[u8]) -> &[u8] {
    let Some(open) = memchr::memchr(b'{', key) else { return key };
    let tail = &key[open + 1..];
    match memchr::memchr(b'}', tail) {
        None | Some(0) => key,
        Some(close) => &tail[..close],
    }
}

/// A key with its slot and hash.
pub fn key_ref(key: &[u8]) -> KeyRef<'_> {
    KeyRef { slot: slot_of(key), hash: xxhash_rust::xxh3::xxh3_64(key), key }
}

/// A key of its own with its slot and hash.
pub fn owned_key(key: &[u8]) -> OwnedKey {
    let KeyRef { slot, hash, .. } = key_ref(key);
    OwnedKey { slot, hash, key: key.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc16_gives_the_check_value_of_xmodem() {
        assert_eq!(crc16(b"123456789"), 0x31C3);
        assert_eq!(crc16(b""), 0);
        assert_eq!(crc16(b"a"), 0x7C87);
    }

    #[test]
    fn slots_are_those_of_redis_cluster() {
        // What `CLUSTER KEYSLOT` of Redis 7 answers.
        assert_eq!(slot_of(b"foo"), 12182);
        assert_eq!(slot_of(b"bar"), 5061);
        assert_eq!(slot_of(b"somekey"), 11058);
        assert_eq!(slot_of(b""), 0);
    }

    #[test]
    fn a_hash_tag_chooses_the_slot_unless_it_is_empty_or_open() {
        assert_eq!(slot_of(b"{user1000}.following"), slot_of(b"{user1000}.followers"));
        assert_eq!(slot_of(b"foo{bar}{zap}"), slot_of(b"bar"));
        assert_eq!(slot_of(b"foo{{bar}}zap"), slot_of(b"{bar"));
        assert_eq!(slot_of(b"foo{}{bar}"), crc16(b"foo{}{bar}") % SLOT_COUNT);
        assert_eq!(slot_of(b"foo{bar"), crc16(b"foo{bar") % SLOT_COUNT);
    }
}
