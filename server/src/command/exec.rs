//! What a handler works with: keys, arguments, a reply, and the time.

use bytes::Bytes;
use holdfast_engine::table::{Head, Object, ObjectKind};

use super::Failure;
use crate::resp::Reply;

/// Live keys, as a handler sees them: the shard implements it over its table, tests over an ordered map.
///
/// A key whose deadline has passed by the time of the entry is not there, in none of the methods.
pub trait Keyspace {
    /// The value of `key`. Memory first; may block on the store when the caller could not fetch the key beforehand.
    fn get(&mut self, key: &[u8]) -> Option<Object>;

    /// Like [`get`](Self::get), but the table lets go of its own handle, so that the data can be changed in place when
    /// nobody else holds it. The caller puts something back or deletes the key before the command ends.
    fn take(&mut self, key: &[u8]) -> Option<Object>;

    /// What there is to know of `key` without its value: counts as a use of it like [`get`](Self::get), but leaves a value that
    /// is not in memory where it is.
    fn head(&mut self, key: &[u8]) -> Option<Head>;

    /// Whether `key` is there.
    fn exists(&mut self, key: &[u8]) -> bool;

    /// Stores `object` under `key`, in place of what was there.
    fn put(&mut self, key: &[u8], object: Object);

    /// Removes `key`; true if it was there.
    fn delete(&mut self, key: &[u8]) -> bool;

    /// Whole seconds since `key` was last used, as far as it is known; 0 otherwise.
    fn idle_seconds(&mut self, key: &[u8]) -> u64;

    /// Removes every key by starting a new incarnation.
    fn flush_all(&mut self);
}

/// One execution of one command.
pub struct Exec<'a> {
    /// The keys that the command reads and writes.
    pub keys: &'a mut dyn Keyspace,
    /// The request, from the command's name on. The content of `args[0]`, and of `args[1]` for a subcommand, is not
    /// looked at: the log doesn't keep it.
    pub args: &'a [&'a [u8]],
    /// Receives exactly one value.
    pub reply: &'a mut Reply,
    /// The entry's stamp (for a read, group time), in milliseconds since the epoch: the only clock there is.
    pub now_ms: u64,
    /// No value grows beyond this, in bytes. It decides what a write does, so it must be the same on every replica that
    /// applies the entry.
    pub value_bytes_max: usize,
}

/// What a handler ends with.
pub(crate) type Outcome = Result<(), Failure>;

impl Exec<'_> {
    /// The string under `key`.
    ///
    /// # Errors
    /// WRONGTYPE if the key holds something else.
    pub(crate) fn string(&mut self, key: &[u8]) -> Result<Option<Object>, Failure> {
        match self.keys.get(key) {
            Some(object) if object.kind == ObjectKind::String => Ok(Some(object)),
            Some(_) => Err(Failure::WRONG_TYPE),
            None => Ok(None),
        }
    }

    /// The string under `key`, taken out of the keyspace to be changed. It must go back.
    ///
    /// # Errors
    /// WRONGTYPE, with the key left as it was, if it holds something else.
    pub(crate) fn take_string(&mut self, key: &[u8]) -> Result<Option<Object>, Failure> {
        match self.keys.take(key) {
            Some(object) if object.kind == ObjectKind::String => Ok(Some(object)),
            Some(object) => {
                self.keys.put(key, object);
                Err(Failure::WRONG_TYPE)
            }
            None => Ok(None),
        }
    }

    /// Stores a string of `data` with a deadline (0 for none).
    pub(crate) fn put_string(&mut self, key: &[u8], data: Bytes, deadline_ms: u64) {
        self.keys.put(key, Object { kind: ObjectKind::String, deadline_ms, data });
    }

    /// Writes the null, or the string's data.
    pub(crate) fn reply_string(&mut self, object: Option<&Object>) {
        match object {
            Some(object) => self.reply.bulk_shared(&object.data),
            None => self.reply.null(),
        }
    }

    /// Whether a deadline, as clients give it, has passed. Ones before the epoch have.
    pub(crate) fn is_past(&self, deadline_ms: i64) -> bool {
        !u64::try_from(deadline_ms).is_ok_and(|deadline| deadline > self.now_ms)
    }

    /// Group time as the signed number that arithmetic on clients' deadlines needs.
    pub(crate) fn now_signed(&self) -> i64 {
        i64::try_from(self.now_ms).unwrap_or(i64::MAX)
    }
}

/// A value that outlives the request: its own exact allocation, so that a small one can't pin a large read buffer.
pub(crate) fn own(argument: &[u8]) -> Bytes {
    Bytes::copy_from_slice(argument)
}

/// Most slack that a growing value is given beyond what it needs, in bytes.
const SLACK_BYTES_MAX: usize = 1024 * 1024;

/// Turns a stored value into one that can be changed, with room for `bytes_wanted`. In place when nobody else holds it.
///
/// A value that grows gets up to its own length in slack, so that a run of APPENDs costs amortised constant time.
pub(crate) fn editable(data: Bytes, bytes_wanted: usize) -> Vec<u8> {
    match data.try_into_mut() {
        Ok(unique) => {
            let mut bytes = Vec::from(unique);
            if bytes_wanted > bytes.capacity() {
                let slack = bytes.len().min(SLACK_BYTES_MAX);
                bytes.reserve_exact(bytes_wanted - bytes.len() + slack);
            }
            bytes
        }
        Err(shared) => {
            let mut bytes = Vec::with_capacity(bytes_wanted.max(shared.len()));
            bytes.extend_from_slice(&shared);
            bytes
        }
    }
}
