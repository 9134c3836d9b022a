//! Values read from the checkpoint store, or just written to it, under a byte budget.
//!
//! The cache is shared by every table of the node. It only ever holds what the store holds: a write to a key removes it, and
//! the flusher puts it back when the row has reached the store. That a key is *absent* is worth remembering too, and of a value
//! too large for the cache its head: most of what is asked of such keys needs no more.

use super::KeyRef;
use super::object::Stored;
use crate::GroupId;
use quick_cache::sync::Cache as QuickCache;
use quick_cache::{DefaultHashBuilder, Equivalent, OptionsBuilder, Weighter, sync::DefaultLifecycle};
use std::hash::{Hash, Hasher};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// What an entry costs beyond key and data: key and value structs, two allocations, the cache's own bookkeeping.
const ENTRY_OVERHEAD_BYTES: u64 = 40 + 48 + 2 * 16 + 48;

/// One entry may take at most this part of the budget: a scan of large values must not wipe out everything else.
const ENTRY_SHARE_MAX: u64 = 64;

#[derive(Debug)]
struct CacheKey {
    mixed: u64,
    group: GroupId,
    incarnation: u64,
    key: Box<[u8]>,
}

#[derive(Debug)]
struct CacheKeyRef<'a> {
    mixed: u64,
    group: GroupId,
    incarnation: u64,
    key: &'a [u8],
}

impl Hash for CacheKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.mixed);
    }
}

impl Hash for CacheKeyRef<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.mixed);
    }
}

impl PartialEq for CacheKey {
    fn eq(&self, other: &Self) -> bool {
        (self.mixed, self.group, self.incarnation, &self.key)
            == (other.mixed, other.group, other.incarnation, &other.key)
    }
}

impl Eq for CacheKey {}

impl Equivalent<CacheKey> for CacheKeyRef<'_> {
    fn equivalent(&self, other: &CacheKey) -> bool {
        (self.mixed, self.group, self.incarnation, self.key)
            == (other.mixed, other.group, other.incarnation, other.key.as_ref())
    }
}

#[derive(Debug, Clone)]
struct ByBytes;

impl Weighter<CacheKey, Stored> for ByBytes {
    fn weight(&self, key: &CacheKey, value: &Stored) -> u64 {
        weight(key.key.len(), value.data_bytes())
    }
}

fn weight(key_bytes: usize, data_bytes: u64) -> u64 {
    ENTRY_OVERHEAD_BYTES + key_bytes as u64 + data_bytes
}

/// The node's value cache.
pub(crate) struct ValueCache {
    values: QuickCache<CacheKey, Stored, ByBytes>,
    entry_bytes_max: u64,
    /// Keys' public hashes can be made to collide; with a secret one the cache's own table can't be flooded.
    seed: u64,
}

impl std::fmt::Debug for ValueCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ValueCache").field("entries", &self.values.len()).field("bytes", &self.values.weight()).finish()
    }
}

impl ValueCache {
    pub(crate) fn new(bytes_max: u64, seed: u64) -> Self {
        // Few shards: a shard's share bounds the largest entry, and few threads meet here.
        let options = OptionsBuilder::new()
            .shards(4)
            .estimated_items_capacity(usize::try_from(bytes_max / 512).unwrap_or(usize::MAX).clamp(64, 1 << 22))
            .weight_capacity(bytes_max.max(1))
            .build()
            .expect("capacities are given");
        let values =
            QuickCache::with_options(options, ByBytes, DefaultHashBuilder::default(), DefaultLifecycle::default());
        ValueCache { values, entry_bytes_max: bytes_max / ENTRY_SHARE_MAX, seed }
    }

    fn key_ref<'a>(&self, group: GroupId, incarnation: u64, key: &'a [u8]) -> CacheKeyRef<'a> {
        let seed = self.seed ^ group.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ incarnation.rotate_left(32);
        CacheKeyRef { mixed: xxh3_64_with_seed(key, seed), group, incarnation, key }
    }

    /// What the store holds under the key; `None` when nothing is known.
    pub(crate) fn get(&self, group: GroupId, incarnation: u64, key: KeyRef<'_>) -> Option<Stored> {
        self.values.get(&self.key_ref(group, incarnation, key.key))
    }

    /// Remembers what the store holds; of a value too large for its share, the head.
    pub(crate) fn insert(&self, group: GroupId, incarnation: u64, key: &[u8], value: Stored) {
        let CacheKeyRef { mixed, .. } = self.key_ref(group, incarnation, key);
        let value = if self.takes(key.len(), value.data_bytes()) { value } else { value.without_data() };
        if self.takes(key.len(), value.data_bytes()) {
            self.values.insert(CacheKey { mixed, group, incarnation, key: key.into() }, value);
        } else {
            self.remove(group, incarnation, key);
        }
    }

    /// Whether a value of this length is kept.
    pub(crate) fn takes(&self, key_bytes: usize, data_bytes: u64) -> bool {
        weight(key_bytes, data_bytes) <= self.entry_bytes_max
    }

    /// Forgets a key; what was remembered comes back.
    pub(crate) fn remove(&self, group: GroupId, incarnation: u64, key: &[u8]) -> Option<Stored> {
        self.values.remove(&self.key_ref(group, incarnation, key)).map(|(_, value)| value)
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> u64 {
        self.values.weight()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Object;
    use super::*;
    use bytes::Bytes;

    fn value(data: &[u8]) -> Stored {
        Stored::Value(Object::string(Bytes::copy_from_slice(data)))
    }

    #[test]
    fn cache_stays_under_its_budget() {
        let cache = ValueCache::new(1 << 20, 1);
        for n in 0..20_000u64 {
            let key = n.to_be_bytes();
            cache.insert(1, 1, &key, value(&[0; 500]));
        }
        assert!(cache.bytes() <= 1 << 20);
        assert!(cache.bytes() > 1 << 19, "and uses it: {}", cache.bytes());
    }

    #[test]
    fn groups_and_incarnations_are_apart() {
        let cache = ValueCache::new(1 << 20, 1);
        let key = KeyRef { slot: 0, hash: 1, key: b"k" };
        cache.insert(1, 1, b"k", value(b"v"));
        assert!(cache.get(1, 2, key).is_none());
        assert!(cache.get(2, 1, key).is_none());
        assert_eq!(cache.get(1, 1, key), Some(value(b"v")));
    }

    #[test]
    fn oversized_value_leaves_its_head_and_nothing_stale() {
        let cache = ValueCache::new(1 << 20, 1);
        let key = KeyRef { slot: 0, hash: 1, key: b"k" };
        cache.insert(1, 1, b"k", value(b"v"));
        let large = value(&vec![0; 1 << 18]);
        cache.insert(1, 1, b"k", large.clone());
        assert_eq!(cache.get(1, 1, key), Some(large.without_data()));
        cache.insert(1, 1, b"k", Stored::Absent);
        assert_eq!(cache.get(1, 1, key), Some(Stored::Absent));
    }
}
