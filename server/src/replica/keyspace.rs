//! The table as command handlers see it: live keys at the group's time.

use super::{Lookups, Replica};
use crate::command::Keyspace;
use crate::slot::key_ref;
use holdfast_engine::Error;
use holdfast_engine::table::{Head, KeyRef, Object, Table};

/// Bits of an incarnation below the entry's index: the place of the command in the entry. An entry of at most
/// [`crate::entry::ENTRY_BYTES_MAX`] holds fewer commands than that.
const INCARNATION_OP_BITS: u32 = 20;

/// Runs one command's reads and writes against a replica's table.
///
/// A handler can't fail for the store's sake: the first failure is kept here, the key looks absent, and whoever ran the
/// handler must ask for [`GroupKeyspace::take_fault`] before trusting what it did.
#[derive(Debug)]
pub struct GroupKeyspace<'a> {
    table: &'a mut Table,
    /// Keys whose deadline is not after this are not there.
    time_ms: u64,
    /// What a new incarnation would be called, if this command may begin one.
    incarnation: u64,
    /// Whether lookups count as hits and misses: those of reads do.
    counted: bool,
    lookups: &'a mut Lookups,
    /// Whether reads count as uses of their keys.
    touch: bool,
    fault: Option<Error>,
}

impl<'a> GroupKeyspace<'a> {
    /// The keyspace for a command; `op` is its place in the entry that is being applied.
    pub fn new(replica: &'a mut Replica, counted: bool, touch: bool, op: u32) -> Self {
        let incarnation = (replica.applying << INCARNATION_OP_BITS) | u64::from(op);
        GroupKeyspace {
            time_ms: replica.time_of_keys_ms(counted),
            incarnation,
            table: &mut replica.table,
            counted,
            touch,
            lookups: &mut replica.lookups,
            fault: None,
        }
    }

    /// The store's failure, if it failed.
    pub fn take_fault(&mut self) -> Option<Error> {
        self.fault.take()
    }

    fn count(&mut self, found: bool) {
        if self.counted {
            self.lookups.hits += u64::from(found);
            self.lookups.misses += u64::from(!found);
        }
    }

    fn kept<T>(&mut self, result: Result<Option<T>, Error>) -> Option<T> {
        result.unwrap_or_else(|error| {
            self.fault.get_or_insert(error);
            None
        })
    }

    /// The object under the key, expired or not, without touching the store if memory knows.
    fn raw(&mut self, key: KeyRef<'_>) -> Option<Object> {
        let result = self.table.get(key);
        self.kept(result)
    }

    /// As [`GroupKeyspace::raw`], without the data.
    fn raw_head(&mut self, key: KeyRef<'_>) -> Option<Head> {
        let result = self.table.head(key);
        self.kept(result)
    }
}

impl Keyspace for GroupKeyspace<'_> {
    fn get(&mut self, key: &[u8]) -> Option<Object> {
        let key = key_ref(key);
        let object = self.raw(key).filter(|object| !object.is_expired(self.time_ms));
        if object.is_some() && self.touch {
            self.table.touch(key);
        }
        self.count(object.is_some());
        object
    }

    fn take(&mut self, key: &[u8]) -> Option<Object> {
        let key = key_ref(key);
        let result = self.table.take(key);
        self.kept(result).filter(|object| !object.is_expired(self.time_ms))
    }

    fn head(&mut self, key: &[u8]) -> Option<Head> {
        let key = key_ref(key);
        let head = self.raw_head(key).filter(|head| !head.is_expired(self.time_ms));
        if head.is_some() && self.touch {
            self.table.touch(key);
        }
        self.count(head.is_some());
        head
    }

    fn exists(&mut self, key: &[u8]) -> bool {
        let found = self.raw_head(key_ref(key)).is_some_and(|head| !head.is_expired(self.time_ms));
        self.count(found);
        found
    }

    fn put(&mut self, key: &[u8], object: Object) {
        self.table.put(key_ref(key), object);
    }

    fn delete(&mut self, key: &[u8]) -> bool {
        let key = key_ref(key);
        let Some(head) = self.raw_head(key) else { return false };
        // An expired key is removed too, though the client is told that it was not there.
        self.table.delete(key);
        !head.is_expired(self.time_ms)
    }

    fn idle_seconds(&mut self, key: &[u8]) -> u64 {
        self.table.idle_seconds(key_ref(key))
    }

    fn flush_all(&mut self) {
        self.table.flush_all(self.incarnation);
    }
}
