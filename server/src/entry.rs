//! The payload of a log entry: what one turn of a group did.
//!
//! All write commands that a shard thread collects in a turn for a group become one entry; its bytes are encoded once and
//! serve as the WAL's payload, the append frame and the follower's WAL payload. Commands are logged as their arguments
//! under a stable number, and every replica executes the same handler on them.
//!
//! ```text
//!  entry  ┌─────────┬───────┬──────────────┬───────────┬─────────────────────┬────┬────┬───
//!         │ version │ flags │ stamp_ms u64 │ count u32 │ value_bytes_max u32 │ op │ op │ …   integers little-endian
//!         └─────────┴───────┴──────────────┴───────────┴─────────────────────┴────┴────┴───
//!  op     ┌─────────────┬──────────┬─────────────┬────────────────────────────┬───
//!         │ command u16 │ flags u8 │ argc varint │ length varint │ argument   │ …
//!         └─────────────┴──────────┴─────────────┴────────────────────────────┴───
//! ```
//!
//! The stamp is the group's time: the only clock that applying an entry may read. The first argument of a command is its
//! name and is not logged: the number stands for it. An entry with no op only moves the group's time.
//!
//! The largest value that a command may make is a setting of the node that took it. It decides over what an APPEND does, so it is
//! in the entry: replicas with other settings, and this one after a restart with another, do the same. Version 1 has no such
//! field; it was written under the default.

use bytes::Bytes;

/// The version of the payload that this release writes.
const VERSION: u8 = 2;
/// Bytes before the first op.
const HEADER_BYTES: usize = 18;
/// The version without a limit for values, its header, and the limit that it was written under.
const VERSION_UNLIMITED: u8 = 1;
const HEADER_UNLIMITED_BYTES: usize = 14;
const VALUE_BYTES_MAX_UNLIMITED: u32 = 64 << 20;
/// An entry is cut once it holds this many bytes, so that neither a follower's frame nor an apply grows without bound. A
/// single larger command is an entry of its own.
pub const ENTRY_BYTES_MAX: usize = 1 << 20;

/// Encodes a turn's commands.
#[derive(Debug)]
pub struct EntryBuilder {
    bytes: Vec<u8>,
    count: u32,
}

impl Default for EntryBuilder {
    fn default() -> Self {
        EntryBuilder { bytes: vec![0; HEADER_BYTES], count: 0 }
    }
}

impl EntryBuilder {
    /// Adds a command; `args[0]`, its name, is left out.
    pub fn push(&mut self, command: u16, args: &[&[u8]]) {
        put_op(&mut self.bytes, command, args);
        self.count += 1;
    }

    /// How many commands are in.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The size so far, in bytes.
    pub fn len_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Whether the entry should be cut before another command goes in.
    pub fn is_full(&self) -> bool {
        self.bytes.len() >= ENTRY_BYTES_MAX
    }

    /// Seals the entry with the group's time and the largest value that its commands may make, in bytes, and starts the next
    /// one.
    pub fn finish(&mut self, stamp_ms: u64, value_bytes_max: usize) -> Bytes {
        let capacity = self.bytes.len().min(ENTRY_BYTES_MAX);
        let mut next = Vec::with_capacity(capacity);
        next.resize(HEADER_BYTES, 0);
        let mut bytes = std::mem::replace(&mut self.bytes, next);
        bytes[0] = VERSION;
        bytes[2..10].copy_from_slice(&stamp_ms.to_le_bytes());
        bytes[10..14].copy_from_slice(&self.count.to_le_bytes());
        let value_bytes_max = u32::try_from(value_bytes_max).unwrap_or(u32::MAX);
        bytes[14..18].copy_from_slice(&value_bytes_max.to_le_bytes());
        self.count = 0;
        Bytes::from(bytes)
    }
}

/// Why a payload can't be applied. Its checksum held when it was read, so this is a fault of a program, not of a disk.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum EntryError {
    /// Another release wrote it.
    #[error("log entry of version {0}, which this release does not know; run the release that wrote it")]
    Version(u8),
    /// It holds a command that this release does not have.
    #[error("log entry with command number {0}, which this release does not know; run the release that wrote it")]
    Command(u16),
    /// The store failed while it was applied.
    #[error("a log entry could not be applied: {0}")]
    Store(String),
    /// It does not follow the format.
    #[error("malformed log entry: {0}")]
    Malformed(&'static str),
}

/// Reads an entry's commands in order.
#[derive(Debug, Clone)]
pub struct EntryReader<'a> {
    stamp_ms: u64,
    value_bytes_max: u32,
    remaining: u32,
    rest: &'a [u8],
}

impl<'a> EntryReader<'a> {
    /// Reads the header.
    ///
    /// # Errors
    /// When the version is unknown or the header is cut short.
    pub fn new(bytes: &'a [u8]) -> Result<Self, EntryError> {
        let length = match bytes.first() {
            Some(&VERSION) => HEADER_BYTES,
            Some(&VERSION_UNLIMITED) => HEADER_UNLIMITED_BYTES,
            Some(&other) => return Err(EntryError::Version(other)),
            None => 1,
        };
        let (header, rest) = bytes.split_at_checked(length).ok_or(EntryError::Malformed("short header"))?;
        let value_bytes_max =
            header.get(14..18).and_then(|b| b.try_into().ok()).map_or(VALUE_BYTES_MAX_UNLIMITED, u32::from_le_bytes);
        let mut stamp = [0; 8];
        stamp.copy_from_slice(&header[2..10]);
        let mut count = [0; 4];
        count.copy_from_slice(&header[10..14]);
        Ok(EntryReader {
            stamp_ms: u64::from_le_bytes(stamp),
            value_bytes_max,
            remaining: u32::from_le_bytes(count),
            rest,
        })
    }

    /// The group's time in milliseconds since the epoch.
    pub fn stamp_ms(&self) -> u64 {
        self.stamp_ms
    }

    /// The largest value that the entry's commands may make, in bytes.
    pub fn value_bytes_max(&self) -> usize {
        self.value_bytes_max as usize
    }

    /// The next command's number, its arguments put behind `name` in `args`; `None` at the end.
    ///
    /// # Errors
    /// When the bytes do not follow the format.
    pub fn next(&mut self, args: &mut Vec<&'a [u8]>) -> Result<Option<u16>, EntryError> {
        args.clear();
        self.next_appended(args)
    }

    /// As [`EntryReader::next`], with the arguments after those that `args` has already.
    ///
    /// # Errors
    /// As [`EntryReader::next`].
    pub fn next_appended(&mut self, args: &mut Vec<&'a [u8]>) -> Result<Option<u16>, EntryError> {
        if self.remaining == 0 {
            return if self.rest.is_empty() { Ok(None) } else { Err(EntryError::Malformed("bytes after the last op")) };
        }
        self.remaining -= 1;
        read_op(&mut self.rest, args).map(Some)
    }
}

/// Appends one op; the name, `args[0]`, is left out.
fn put_op(bytes: &mut Vec<u8>, command: u16, args: &[&[u8]]) {
    let args = args.get(1..).unwrap_or_default();
    bytes.reserve(args.iter().map(|arg| arg.len() + 5).sum::<usize>() + 8);
    bytes.extend_from_slice(&command.to_le_bytes());
    bytes.push(0);
    put_varint(bytes, args.len() as u64);
    for arg in args {
        put_varint(bytes, arg.len() as u64);
        bytes.extend_from_slice(arg);
    }
}

/// Reads one op from the front of `rest`. A placeholder stands for the name.
fn read_op<'a>(rest: &mut &'a [u8], args: &mut Vec<&'a [u8]>) -> Result<u16, EntryError> {
    let (head, tail) = rest.split_at_checked(3).ok_or(EntryError::Malformed("short op"))?;
    *rest = tail;
    let command = u16::from_le_bytes([head[0], head[1]]);
    let argc = take_varint(rest)?;
    if argc > rest.len() as u64 {
        return Err(EntryError::Malformed("more arguments than bytes"));
    }
    args.push(b"");
    for _ in 0..argc {
        let len = usize::try_from(take_varint(rest)?).map_err(|_| EntryError::Malformed("argument length"))?;
        let (arg, tail) = rest.split_at_checked(len).ok_or(EntryError::Malformed("argument past the end"))?;
        *rest = tail;
        args.push(arg);
    }
    Ok(command)
}

/// Commands kept for later in the same encoding as an entry's, without a header: reads that wait behind writes.
#[derive(Debug, Default)]
pub struct OpArena {
    bytes: Vec<u8>,
}

impl OpArena {
    /// Keeps a command and says where.
    pub fn push(&mut self, command: u16, args: &[&[u8]]) -> usize {
        let at = self.bytes.len();
        put_op(&mut self.bytes, command, args);
        at
    }

    /// The command kept at `at`.
    ///
    /// # Errors
    /// When no command was kept there.
    pub fn get<'a>(&'a self, at: usize, args: &mut Vec<&'a [u8]>) -> Result<u16, EntryError> {
        args.clear();
        let mut rest = self.bytes.get(at..).ok_or(EntryError::Malformed("op past the end"))?;
        read_op(&mut rest, args)
    }

    /// The bytes kept.
    pub fn len_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Forgets all commands; a large buffer is given back.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(ENTRY_BYTES_MAX);
    }
}

fn put_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn take_varint(rest: &mut &[u8]) -> Result<u64, EntryError> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, tail) = rest.split_first().ok_or(EntryError::Malformed("short number"))?;
        *rest = tail;
        value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(EntryError::Malformed("number too long"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn commands_come_back_in_order_behind_a_name() {
        let mut builder = EntryBuilder::default();
        builder.push(7, &[b"SET", b"k", b"v\0\r\n"]);
        builder.push(9, &[b"FLUSHALL"]);
        let bytes = builder.finish(1234, 99);
        assert_eq!(builder.count(), 0);
        let mut reader = EntryReader::new(&bytes).unwrap();
        let mut args = Vec::new();
        assert_eq!((reader.stamp_ms(), reader.value_bytes_max()), (1234, 99));
        assert_eq!(reader.next(&mut args), Ok(Some(7)));
        assert_eq!(args, [&b""[..], b"k", b"v\0\r\n"]);
        assert_eq!(reader.next(&mut args), Ok(Some(9)));
        assert_eq!(args, [&b""[..]]);
        assert_eq!(reader.next(&mut args), Ok(None));
    }

    #[test]
    fn a_newer_version_is_refused() {
        let mut bytes = EntryBuilder::default().finish(0, 0).to_vec();
        bytes[0] = 3;
        assert_eq!(EntryReader::new(&bytes).err(), Some(EntryError::Version(3)));
    }

    #[test]
    fn entries_of_version_one_are_read_under_the_limit_of_their_time() {
        let mut bytes = EntryBuilder::default().finish(5, 0)[..HEADER_UNLIMITED_BYTES].to_vec();
        bytes[0] = VERSION_UNLIMITED;
        let reader = EntryReader::new(&bytes).unwrap();
        assert_eq!((reader.stamp_ms(), reader.value_bytes_max()), (5, 64 << 20));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = bytes;
            if let Some(first) = bytes.first_mut() { *first = VERSION; }
            if let Ok(mut reader) = EntryReader::new(&bytes) {
                let mut args = Vec::new();
                while let Ok(Some(_)) = reader.next(&mut args) {}
            }
        }

        #[test]
        fn any_commands_survive_the_encoding(
            ops in proptest::collection::vec((any::<u16>(), proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..5)), 0..8)
        ) {
            let mut builder = EntryBuilder::default();
            let mut arena = OpArena::default();
            let mut places = Vec::new();
            for (command, args) in &ops {
                let mut slices: Vec<&[u8]> = vec![b"name"];
                slices.extend(args.iter().map(Vec::as_slice));
                builder.push(*command, &slices);
                places.push(arena.push(*command, &slices));
            }
            let bytes = builder.finish(5, 7);
            let mut reader = EntryReader::new(&bytes).unwrap();
            let mut args = Vec::new();
            for (place, (command, expected)) in places.into_iter().zip(&ops) {
                prop_assert_eq!(reader.next(&mut args).unwrap(), Some(*command));
                let expected: Vec<&[u8]> = expected.iter().map(Vec::as_slice).collect();
                prop_assert_eq!(&args[1..], &expected[..]);
                let mut kept = Vec::new();
                prop_assert_eq!(arena.get(place, &mut kept).unwrap(), *command);
                prop_assert_eq!(kept, args.clone());
            }
            prop_assert_eq!(reader.next(&mut args).unwrap(), None);
        }
    }
}
