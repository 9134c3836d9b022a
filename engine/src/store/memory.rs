//! A checkpoint store in memory: for tests, for the simulator, and for a node that is told to keep nothing.
//!
//! A store made with [`MemStore::persistent`] plays the disk: it claims to survive a power cut, and its clones are the same
//! store, so that a test can drop everything else and open the tables on it again.

use super::{CheckpointStore, Durability, ReadRows, Row, RowBytes, RowSink, Rows, StoreView, check_ascending};
use crate::Result;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

type Map = BTreeMap<Bytes, Bytes>;

/// An ordered map in memory. A generation replaces the map in one step; a view is the map that was there.
#[derive(Debug, Default, Clone)]
pub struct MemStore {
    inner: Arc<Inner>,
    persistent: bool,
}

#[derive(Debug, Default)]
struct Inner {
    map: RwLock<Arc<Map>>,
    bytes: AtomicU64,
}

impl MemStore {
    /// An empty store.
    pub fn new() -> Self {
        MemStore::default()
    }

    /// An empty store that outlives, as far as its user is concerned, everything but its last clone.
    pub fn persistent() -> Self {
        MemStore { persistent: true, ..MemStore::default() }
    }

    fn current(&self) -> Arc<Map> {
        self.inner.map.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ReadRows for MemStore {
    fn get(&self, key: &[u8]) -> Result<Option<RowBytes>> {
        Ok(self.current().get(key).cloned().map(RowBytes::Shared))
    }

    fn range<'a>(&'a self, from: &[u8], to: &[u8]) -> Rows<'a> {
        Box::new(MapRange { map: self.current(), next: Some(Bytes::copy_from_slice(from)), to: to.to_vec() })
    }
}

impl CheckpointStore for MemStore {
    fn view(&self) -> Result<Box<dyn StoreView>> {
        Ok(Box::new(MemView(self.current())))
    }

    fn ingest(&self, produce: &mut dyn FnMut(&mut dyn RowSink) -> Result<()>) -> Result<()> {
        let mut sink = MemSink { rows: Vec::new(), last: None };
        produce(&mut sink)?;
        let mut map = self.inner.map.write().unwrap_or_else(PoisonError::into_inner);
        let map = Arc::make_mut(&mut map);
        for (key, value) in sink.rows {
            let (key_bytes, value_bytes) = (key.len() as u64, value.as_ref().map(|value| value.len() as u64));
            let before = match value {
                Some(value) => map.insert(key, value),
                None => map.remove(&key),
            };
            self.inner.bytes.fetch_add(value_bytes.map_or(0, |bytes| bytes + key_bytes), Ordering::Relaxed);
            self.inner.bytes.fetch_sub(before.map_or(0, |value| value.len() as u64 + key_bytes), Ordering::Relaxed);
        }
        Ok(())
    }

    fn durability(&self) -> Durability {
        if self.persistent { Durability::PowerCut } else { Durability::None }
    }

    fn disk_bytes(&self) -> u64 {
        0
    }

    fn memory_bytes(&self) -> u64 {
        self.inner.bytes.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
struct MemView(Arc<Map>);

impl ReadRows for MemView {
    fn get(&self, key: &[u8]) -> Result<Option<RowBytes>> {
        Ok(self.0.get(key).cloned().map(RowBytes::Shared))
    }

    fn range<'a>(&'a self, from: &[u8], to: &[u8]) -> Rows<'a> {
        Box::new(MapRange { map: self.0.clone(), next: Some(Bytes::copy_from_slice(from)), to: to.to_vec() })
    }
}

impl StoreView for MemView {}

/// Walks a shared map without borrowing it.
struct MapRange {
    map: Arc<Map>,
    next: Option<Bytes>,
    to: Vec<u8>,
}

impl Iterator for MapRange {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        let from = self.next.take()?;
        if from.as_ref() >= self.to.as_slice() {
            return None;
        }
        let mut range = self.map.range::<[u8], _>((
            std::ops::Bound::Included(from.as_ref()),
            std::ops::Bound::Excluded(self.to.as_slice()),
        ));
        let (key, value) = range.next()?;
        self.next = range.next().map(|(key, _)| key.clone());
        Some(Ok((RowBytes::Shared(key.clone()), RowBytes::Shared(value.clone()))))
    }
}

struct MemSink {
    rows: Vec<(Bytes, Option<Bytes>)>,
    last: Option<Vec<u8>>,
}

impl RowSink for MemSink {
    fn put(&mut self, key: &[u8], head: &[u8], tail: &[u8]) -> Result<()> {
        check_ascending(&memory_path(), &mut self.last, key)?;
        self.rows.push((Bytes::copy_from_slice(key), Some(Bytes::from([head, tail].concat()))));
        Ok(())
    }

    fn delete(&mut self, key: &[u8]) -> Result<()> {
        check_ascending(&memory_path(), &mut self.last, key)?;
        self.rows.push((Bytes::copy_from_slice(key), None));
        Ok(())
    }
}

fn memory_path() -> PathBuf {
    Path::new("(memory)").to_path_buf()
}
