//! What a key holds, and how a key is addressed.

use bytes::Bytes;

/// A key with its slot and hash, computed once where the command is parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyRef<'a> {
    /// CRC16 hash slot, 0..16384.
    pub slot: u16,
    /// xxh3-64 of the whole key; orders keys within a slot.
    pub hash: u64,
    /// The key's bytes.
    pub key: &'a [u8],
}

/// What kind of value an object is. The numbers are on disk: never reuse one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ObjectKind {
    /// A binary-safe string.
    String = 0,
}

impl ObjectKind {
    /// The kind that a stored number stands for.
    pub fn from_u8(number: u8) -> Option<Self> {
        match number {
            0 => Some(ObjectKind::String),
            _ => None,
        }
    }
}

/// The value of a key. Cloning shares the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// What `data` is.
    pub kind: ObjectKind,
    /// When the key expires, in milliseconds since the epoch by group time; 0 for never.
    pub deadline_ms: u64,
    /// The value. Exactly allocated, unless large enough to be adopted whole from where it arrived.
    pub data: Bytes,
}

impl Object {
    /// A string that never expires.
    pub fn string(data: Bytes) -> Self {
        Object { kind: ObjectKind::String, deadline_ms: 0, data }
    }

    /// Whether the deadline has passed at `now_ms`.
    pub fn is_expired(&self, now_ms: u64) -> bool {
        self.deadline_ms != 0 && self.deadline_ms <= now_ms
    }
}
