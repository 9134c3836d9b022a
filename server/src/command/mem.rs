//! A keyspace in an ordered map: the smallest that is right. Tests run handlers on it, and a model of the database can.

use std::collections::BTreeMap;

use holdfast_engine::table::{Head, Object};

use super::{CommandSpec, Exec, Keyspace, VALUE_BYTES_MAX_DEFAULT, resolve};
use crate::resp::{Proto, Reply};

/// Keys in memory, with a clock that the owner moves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemKeyspace {
    objects: BTreeMap<Vec<u8>, Object>,
    /// Keys whose deadline isn't after this are not there. Milliseconds since the epoch.
    pub now_ms: u64,
}

impl MemKeyspace {
    /// No keys, at this time.
    pub fn new(now_ms: u64) -> Self {
        MemKeyspace { objects: BTreeMap::new(), now_ms }
    }

    /// The keys that are there, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &Object)> {
        self.objects
            .iter()
            .filter(|(_, object)| !object.is_expired(self.now_ms))
            .map(|(key, object)| (key.as_slice(), object))
    }

    /// Runs one request from the name on, and answers the bytes of its reply. Requests that don't act on keys are
    /// answered if the command table can, and refused otherwise.
    pub fn run(&mut self, proto: Proto, args: &[&[u8]]) -> Vec<u8> {
        let mut reply = Reply::new(proto);
        match resolve(args) {
            Err(rejection) => reply.error(rejection.failure(args).text()),
            Ok(spec) => self.run_resolved(spec, args, &mut reply),
        }
        reply.output().to_vec()
    }

    fn run_resolved(&mut self, spec: &CommandSpec, args: &[&[u8]], reply: &mut Reply) {
        if matches!(spec.handler, super::Handler::Table(_)) {
            return spec.answer(args, reply);
        }
        let now_ms = self.now_ms;
        spec.execute(&mut Exec { keys: self, args, reply, now_ms, value_bytes_max: VALUE_BYTES_MAX_DEFAULT });
    }
}

impl Keyspace for MemKeyspace {
    fn get(&mut self, key: &[u8]) -> Option<Object> {
        self.objects.get(key).filter(|object| !object.is_expired(self.now_ms)).cloned()
    }

    fn take(&mut self, key: &[u8]) -> Option<Object> {
        self.objects.remove(key).filter(|object| !object.is_expired(self.now_ms))
    }

    fn head(&mut self, key: &[u8]) -> Option<Head> {
        self.get(key).as_ref().map(Head::from)
    }

    fn exists(&mut self, key: &[u8]) -> bool {
        self.objects.get(key).is_some_and(|object| !object.is_expired(self.now_ms))
    }

    fn put(&mut self, key: &[u8], object: Object) {
        self.objects.insert(key.to_vec(), object);
    }

    fn delete(&mut self, key: &[u8]) -> bool {
        self.take(key).is_some()
    }

    fn idle_seconds(&mut self, _key: &[u8]) -> u64 {
        0
    }

    fn flush_all(&mut self) {
        self.objects.clear();
    }
}
