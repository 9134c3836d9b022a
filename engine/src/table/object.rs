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

/// What there is to know of an object without its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// What the data is.
    pub kind: ObjectKind,
    /// As [`Object::deadline_ms`].
    pub deadline_ms: u64,
    /// The length of the data in bytes.
    pub data_bytes: u64,
}

impl Head {
    /// Whether the deadline has passed at `now_ms`.
    pub fn is_expired(&self, now_ms: u64) -> bool {
        self.deadline_ms != 0 && self.deadline_ms <= now_ms
    }
}

impl From<&Object> for Head {
    fn from(object: &Object) -> Self {
        Head { kind: object.kind, deadline_ms: object.deadline_ms, data_bytes: object.data.len() as u64 }
    }
}

/// What is known of a key in the checkpoint store: what a fetch brings, a pin keeps and the cache remembers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stored {
    /// The store has no such key.
    Absent,
    /// The key is there; its data was not read, or is too large to be kept.
    Head(Head),
    /// The key is there with all its data.
    Value(Object),
}

impl Stored {
    /// What the key holds, as far as its data doesn't matter.
    pub(crate) fn head(&self) -> Option<Head> {
        match self {
            Stored::Absent => None,
            Stored::Head(head) => Some(*head),
            Stored::Value(object) => Some(Head::from(object)),
        }
    }

    /// The object; `None` when its data isn't here.
    pub(crate) fn object(&self) -> Option<Option<&Object>> {
        match self {
            Stored::Absent => Some(None),
            Stored::Head(_) => None,
            Stored::Value(object) => Some(Some(object)),
        }
    }

    /// The same without data.
    pub(crate) fn without_data(&self) -> Stored {
        self.head().map_or(Stored::Absent, Stored::Head)
    }

    /// Bytes of data held.
    pub(crate) fn data_bytes(&self) -> u64 {
        match self {
            Stored::Value(object) => object.data.len() as u64,
            Stored::Absent | Stored::Head(_) => 0,
        }
    }
}

impl From<Option<Object>> for Stored {
    fn from(object: Option<Object>) -> Self {
        object.map_or(Stored::Absent, Stored::Value)
    }
}
