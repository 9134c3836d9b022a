//! Writes that are not in the checkpoint store yet.
//!
//! A memtable keeps, for each slot, its entries sorted by (hash, key): the order of the store and of SCAN. A slot is a short
//! list of chunks, a chunk two parallel arrays: hashes, searched without touching anything else, and entries.
//!
//! ```text
//!   slots[16384] ─▶ SlotMap ─▶ chunks ─▶ hashes  [h0 h1 h2 … ≤ 64]
//!                                        entries [e0 e1 e2 … ≤ 64]
//! ```
//!
//! Hashes are uniform, so that chunks fill evenly; a million keys are about sixty a slot, one chunk each. All keys behind one
//! hash tag share a slot: then chunks are many, and finding one is a second binary search.
//!
//! Each entry says what lies *below* it (in older memtables and in the store): nothing, a live row with some deadline, or
//! that nobody has looked yet. So blind writes need no read, and yet counts and the deadline index come out exact: the
//! flusher looks up what is still unknown when it writes the row anyway.

use super::{Head, KeyRef, Object, SLOTS};
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// Entries in a chunk; a full one splits in half.
const CHUNK_ENTRIES_MAX: usize = 64;

/// What an entry costs beyond its key and data: the entry, its hash, the headers of two allocations, slack in the chunk.
const ENTRY_OVERHEAD_BYTES: u64 = (size_of::<Entry>() + 8 + 2 * 16 + 24) as u64;

/// What lies below an entry. One word: two values of a deadline that no clock reaches stand for the other cases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Prior(u64);

impl Prior {
    pub(crate) const UNKNOWN: Prior = Prior(u64::MAX);
    pub(crate) const ABSENT: Prior = Prior(u64::MAX - 1);

    /// A live row with this deadline (0 for none).
    pub(crate) fn present(deadline_ms: u64) -> Prior {
        Prior(deadline_ms.min(u64::MAX - 2))
    }

    pub(crate) fn of(object: Option<&Object>) -> Prior {
        object.map_or(Prior::ABSENT, |object| Prior::present(object.deadline_ms))
    }

    pub(crate) fn of_head(head: Option<Head>) -> Prior {
        head.map_or(Prior::ABSENT, |head| Prior::present(head.deadline_ms))
    }

    pub(crate) fn is_unknown(self) -> bool {
        self == Prior::UNKNOWN
    }

    /// The deadline of the live row below, if one is known to be there.
    pub(crate) fn deadline_ms(self) -> Option<u64> {
        (self.0 < u64::MAX - 1).then_some(self.0)
    }
}

/// A key's newest state.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: Box<[u8]>,
    /// `None` is a tombstone.
    pub(crate) object: Option<Object>,
    pub(crate) prior: Prior,
    /// When the key was last used, in seconds of the driver's clock.
    pub(crate) accessed_s: u32,
    /// The second under which the deadline list has this entry; 0 for none.
    listed_s: u32,
}

impl Entry {
    fn bytes(&self) -> u64 {
        ENTRY_OVERHEAD_BYTES + self.key.len() as u64 + self.object.as_ref().map_or(0, |object| object.data.len() as u64)
    }
}

/// Keys that [`Memtable::warm`] looks at together: about as many reads as a processor has under way at once.
pub(crate) const WARM_KEYS_MAX: usize = 16;

#[derive(Debug, Default)]
struct Chunk {
    hashes: Vec<u64>,
    entries: Vec<Entry>,
}

/// Where an entry is, or belongs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Position {
    slot: u16,
    chunk: usize,
    at: usize,
}

#[derive(Debug, Default)]
pub(crate) struct SlotMap {
    chunks: Vec<Chunk>,
    pub(crate) counts: Counts,
}

/// How many keys entries stand for.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Entries that hold an object.
    pub(crate) live: u64,
    /// Entries known to have a live row below.
    pub(crate) covered: u64,
    /// Entries that may have one.
    pub(crate) unknown: u64,
}

impl Counts {
    fn note(&mut self, prior: Prior, add: bool) {
        let count = match prior {
            Prior::UNKNOWN => &mut self.unknown,
            Prior::ABSENT => return,
            _ => &mut self.covered,
        };
        if add { *count += 1 } else { *count -= 1 }
    }

    /// Keys that these entries add to what is below, unknown ones taken for absent.
    pub(crate) fn delta(&self) -> i64 {
        self.live as i64 - self.covered as i64
    }
}

impl SlotMap {
    /// The last chunk that may hold the hash.
    fn chunk_of(&self, hash: u64) -> Option<&Chunk> {
        match self.chunks.len() {
            0 | 1 => self.chunks.first(),
            _ => {
                let index = self.chunks.partition_point(|chunk| chunk.hashes[0] <= hash).saturating_sub(1);
                self.chunks.get(index)
            }
        }
    }

    fn find(&self, hash: u64, key: &[u8]) -> Result<(usize, usize), (usize, usize)> {
        let before = |chunk: &Chunk| match chunk.hashes[0].cmp(&hash) {
            Ordering::Equal => chunk.entries[0].key.as_ref() <= key,
            order => order == Ordering::Less,
        };
        // The last chunk that starts at or before the key; most slots have one chunk.
        let index = match self.chunks.len() {
            0 => return Err((0, 0)),
            1 => 0,
            _ => self.chunks.partition_point(before).saturating_sub(1),
        };
        let chunk = &self.chunks[index];
        let mut at = chunk.hashes.partition_point(|&other| other < hash);
        while at < chunk.hashes.len() && chunk.hashes[at] == hash {
            match chunk.entries[at].key.as_ref().cmp(key) {
                Ordering::Less => at += 1,
                Ordering::Equal => return Ok((index, at)),
                Ordering::Greater => break,
            }
        }
        Err((index, at))
    }

    fn insert(&mut self, index: usize, mut at: usize, hash: u64, entry: Entry) -> (usize, usize) {
        if self.chunks.is_empty() {
            self.chunks.push(Chunk::default());
        }
        let mut index = index;
        if self.chunks[index].hashes.len() == CHUNK_ENTRIES_MAX {
            let half = CHUNK_ENTRIES_MAX / 2;
            let chunk = &mut self.chunks[index];
            let upper = Chunk { hashes: chunk.hashes.split_off(half), entries: chunk.entries.split_off(half) };
            self.chunks.insert(index + 1, upper);
            if at > half {
                index += 1;
                at -= half;
            }
        }
        let chunk = &mut self.chunks[index];
        if chunk.entries.len() == chunk.entries.capacity() {
            // Grow by a third: doubling would leave a quarter of the budget empty.
            let more = chunk.entries.len() / 3 + 2;
            chunk.entries.reserve_exact(more);
            chunk.hashes.reserve_exact(more);
        }
        chunk.hashes.insert(at, hash);
        chunk.entries.insert(at, entry);
        (index, at)
    }

    /// The entries with hashes of at least `from`, in order.
    pub(crate) fn iter_from(&self, from: u64) -> SlotIter<'_> {
        // Equal hashes may straddle chunks: the first candidate is in the last chunk that starts below `from`.
        let chunk = self.chunks.partition_point(|chunk| chunk.hashes[0] < from).saturating_sub(1);
        let at = self.chunks.get(chunk).map_or(0, |chunk| chunk.hashes.partition_point(|&hash| hash < from));
        SlotIter { map: self, chunk, at }
    }
}

/// Walks a slot's entries with their hashes.
#[derive(Debug, Clone)]
pub(crate) struct SlotIter<'a> {
    map: &'a SlotMap,
    chunk: usize,
    at: usize,
}

impl<'a> Iterator for SlotIter<'a> {
    type Item = (u64, &'a Entry);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let chunk = self.map.chunks.get(self.chunk)?;
            if let Some(entry) = chunk.entries.get(self.at) {
                let hash = chunk.hashes[self.at];
                self.at += 1;
                return Some((hash, entry));
            }
            self.chunk += 1;
            self.at = 0;
        }
    }
}

/// A sorted map of entries.
///
/// Invariants: within a slot, (hash, key) ascends strictly; `counts` is the sum over slots; `bytes` is the sum over entries.
#[derive(Debug, Default)]
pub(crate) struct Memtable {
    slots: Vec<Option<Box<SlotMap>>>,
    /// Second → entries (slot, hash) to look at then. An entry may be listed too early, never too late.
    deadlines: BTreeMap<u32, Vec<(u16, u64)>>,
    counts: Counts,
    entries: u64,
    bytes: u64,
}

impl Memtable {
    pub(crate) fn is_empty(&self) -> bool {
        self.entries == 0
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    pub(crate) fn slot(&self, slot: u16) -> Option<&SlotMap> {
        self.slots.get(usize::from(slot))?.as_deref()
    }

    /// The slots that have entries, ascending, from `from` on.
    pub(crate) fn slots_from(&self, from: u16) -> impl Iterator<Item = (u16, &SlotMap)> {
        let from = usize::from(from).min(self.slots.len());
        self.slots[from..].iter().enumerate().filter_map(move |(at, map)| Some(((from + at) as u16, map.as_deref()?)))
    }

    pub(crate) fn get(&self, key: KeyRef<'_>) -> Option<&Entry> {
        let map = self.slot(key.slot)?;
        let (chunk, at) = map.find(key.hash, key.key).ok()?;
        Some(&map.chunks[chunk].entries[at])
    }

    /// Where the key is (`Ok`) or would be put (`Err`).
    pub(crate) fn find(&self, key: KeyRef<'_>) -> Result<Position, Position> {
        let at = |(chunk, at)| Position { slot: key.slot, chunk, at };
        match self.slot(key.slot) {
            None => Err(at((0, 0))),
            Some(map) => map.find(key.hash, key.key).map(at).map_err(at),
        }
    }

    /// Brings what lookups of these keys (slot and hash) will read into the processor's caches.
    ///
    /// A lookup is a chain of reads, each of which waits for memory. Here the same link of all chains is read at once, so that
    /// the processor waits for them together. At most [`WARM_KEYS_MAX`] keys are looked at.
    pub(crate) fn warm(&self, keys: &[(u16, u64)]) {
        let mut chunks: [Option<&Chunk>; WARM_KEYS_MAX] = [None; WARM_KEYS_MAX];
        let mut entries: [Option<&Entry>; WARM_KEYS_MAX] = [None; WARM_KEYS_MAX];
        for (chunk, &(slot, hash)) in chunks.iter_mut().zip(keys) {
            *chunk = self.slot(slot).and_then(|map| map.chunk_of(hash));
        }
        for ((entry, chunk), &(_, hash)) in entries.iter_mut().zip(&chunks).zip(keys) {
            *entry = chunk.and_then(|chunk| {
                let at = chunk.hashes.partition_point(|&other| other < hash);
                chunk.entries.get(at)
            });
        }
        let mut touched = 0u64;
        for entry in entries.iter().take(keys.len()).flatten() {
            touched = touched.wrapping_add(entry.key.len() as u64);
        }
        for entry in entries.iter().take(keys.len()).flatten() {
            let data = entry.object.as_ref().and_then(|object| object.data.first());
            touched = touched.wrapping_add(u64::from(entry.key.first().copied().unwrap_or(0)));
            touched = touched.wrapping_add(u64::from(data.copied().unwrap_or(0)));
        }
        std::hint::black_box(touched);
    }

    fn map_mut(&mut self, slot: u16) -> &mut SlotMap {
        self.slots[usize::from(slot)].as_mut().expect("a position was found in this slot")
    }

    pub(crate) fn entry(&self, position: Position) -> &Entry {
        let map = self.slots[usize::from(position.slot)].as_ref().expect("a position was found in this slot");
        &map.chunks[position.chunk].entries[position.at]
    }

    /// Replaces what an entry holds; what it held comes back.
    pub(crate) fn replace(&mut self, position: Position, object: Option<Object>, now_s: u32) -> Option<Object> {
        let map = self.map_mut(position.slot);
        let chunk = &mut map.chunks[position.chunk];
        let entry = &mut chunk.entries[position.at];
        let bytes_before = entry.bytes();
        let before = std::mem::replace(&mut entry.object, object);
        entry.accessed_s = now_s;
        let bytes_after = entry.bytes();
        let listing = entry.listing(chunk.hashes[position.at]);
        let change = u64::from(entry.object.is_some()).wrapping_sub(u64::from(before.is_some()));
        map.counts.live = map.counts.live.wrapping_add(change);
        self.counts.live = self.counts.live.wrapping_add(change);
        self.bytes = self.bytes + bytes_after - bytes_before;
        self.list(position.slot, listing);
        before
    }

    /// Adds an entry where [`Memtable::find`] said it belongs.
    pub(crate) fn insert(
        &mut self,
        position: Position,
        key: KeyRef<'_>,
        object: Option<Object>,
        prior: Prior,
        now_s: u32,
    ) {
        assert!(usize::from(key.slot) < SLOTS, "slot {} is out of range", key.slot);
        if self.slots.is_empty() {
            self.slots.resize_with(SLOTS, || None);
            self.bytes += (SLOTS * size_of::<usize>()) as u64;
        }
        let map = self.slots[usize::from(key.slot)].get_or_insert_default();
        let mut entry = Entry { key: key.key.into(), object, prior, accessed_s: now_s, listed_s: 0 };
        let live = u64::from(entry.object.is_some());
        let listing = entry.listing(key.hash);
        let bytes = entry.bytes();
        map.insert(position.chunk, position.at, key.hash, entry);
        map.counts.live += live;
        map.counts.note(prior, true);
        self.counts.live += live;
        self.counts.note(prior, true);
        self.entries += 1;
        self.bytes += bytes;
        self.list(key.slot, listing);
    }

    /// Says what is below an entry that did not know.
    pub(crate) fn resolve(&mut self, position: Position, prior: Prior) {
        let map = self.map_mut(position.slot);
        let entry = &mut map.chunks[position.chunk].entries[position.at];
        let before = std::mem::replace(&mut entry.prior, prior);
        map.counts.note(before, false);
        map.counts.note(prior, true);
        self.counts.note(before, false);
        self.counts.note(prior, true);
    }

    /// Notes that a key was used.
    pub(crate) fn touch(&mut self, position: Position, now_s: u32) {
        self.map_mut(position.slot).chunks[position.chunk].entries[position.at].accessed_s = now_s;
    }

    fn list(&mut self, slot: u16, listing: Option<(u32, u64)>) {
        if let Some((second, hash)) = listing {
            self.deadlines.entry(second).or_default().push((slot, hash));
            self.bytes += size_of::<(u16, u64)>() as u64;
        }
    }

    /// Entries whose deadline is at or before `now_ms`, up to `limit`. Each is looked at again a second later in case
    /// nothing came of it.
    pub(crate) fn expired(&mut self, now_ms: u64, limit: usize) -> Vec<(u16, u64, Box<[u8]>)> {
        let now_s = u32::try_from(now_ms / 1000).unwrap_or(u32::MAX - 1);
        let mut found = Vec::new();
        while let Some(bucket) = self.deadlines.first_entry() {
            let second = *bucket.key();
            if second > now_s || found.len() >= limit {
                break;
            }
            let mut listed = bucket.remove();
            // What does not fit this time stays listed.
            let rest = listed.split_off(listed.len().min(limit - found.len()));
            if !rest.is_empty() {
                self.deadlines.insert(second, rest);
            }
            for (slot, hash) in listed {
                self.bytes -= size_of::<(u16, u64)>() as u64;
                let Some(map) = self.slots[usize::from(slot)].as_mut() else { continue };
                let mut again = Vec::new();
                let first = map.chunks.partition_point(|chunk| chunk.hashes[0] < hash).saturating_sub(1);
                for chunk in map.chunks[first..].iter_mut().take_while(|chunk| chunk.hashes[0] <= hash) {
                    for at in chunk.hashes.partition_point(|&other| other < hash)..chunk.hashes.len() {
                        let entry = &mut chunk.entries[at];
                        if chunk.hashes[at] != hash {
                            break;
                        }
                        if entry.listed_s != second {
                            continue;
                        }
                        entry.listed_s = 0;
                        match &entry.object {
                            Some(object) if object.is_expired(now_ms) => {
                                found.push((slot, hash, entry.key.clone()));
                                entry.listed_s = now_s + 1;
                                again.push(now_s + 1);
                            }
                            Some(_) => again.extend(entry.listing(hash).map(|(second, _)| second)),
                            None => {}
                        }
                    }
                }
                for second in again {
                    self.list(slot, Some((second, hash)));
                }
            }
        }
        found
    }
}

impl Entry {
    /// Where the deadline list should have this entry, if it does not have it early enough. Pushing a deadline further out,
    /// the common case, costs nothing: the listing moves when its second comes.
    fn listing(&mut self, hash: u64) -> Option<(u32, u64)> {
        let deadline_ms = self.object.as_ref().map_or(0, |object| object.deadline_ms);
        if deadline_ms == 0 {
            return None;
        }
        let second = u32::try_from(deadline_ms.div_ceil(1000)).unwrap_or(u32::MAX).max(1);
        if self.listed_s != 0 && self.listed_s <= second {
            return None;
        }
        self.listed_s = second;
        Some((second, hash))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;

    fn put(table: &mut Memtable, slot: u16, hash: u64, key: &[u8], object: Option<Object>) {
        let key = KeyRef { slot, hash, key };
        match table.find(key) {
            Ok(position) => drop(table.replace(position, object, 0)),
            Err(position) => table.insert(position, key, object, Prior::ABSENT, 0),
        }
    }

    fn text(value: &str) -> Option<Object> {
        Some(Object::string(Bytes::copy_from_slice(value.as_bytes())))
    }

    proptest! {
        /// Few hashes, so that collisions and runs across chunks happen all the time.
        #[test]
        fn order_and_lookup_agree_with_a_map(keys in proptest::collection::vec((0u16..3, 0u64..12, 0u32..60), 1..600)) {
            let mut table = Memtable::default();
            let mut model = BTreeMap::new();
            for (round, (slot, hash, name)) in keys.into_iter().enumerate() {
                let key = name.to_string().into_bytes();
                let value = round.to_string();
                put(&mut table, slot, hash, &key, text(&value));
                model.insert((slot, hash, key), value);
            }
            let mut rows = Vec::new();
            for (slot, map) in table.slots_from(0) {
                for (hash, entry) in map.iter_from(0) {
                    rows.push((slot, hash, entry.key.to_vec()));
                }
            }
            prop_assert_eq!(&rows, &model.keys().cloned().collect::<Vec<_>>());
            prop_assert_eq!(table.counts().live, model.len() as u64);
            for ((slot, hash, key), value) in &model {
                let entry = table.get(KeyRef { slot: *slot, hash: *hash, key }).expect("present");
                prop_assert_eq!(&entry.object.as_ref().expect("live").data[..], value.as_bytes());
            }
            for from in 0..13 {
                let got = table.slots_from(1).take(1).flat_map(|(slot, map)| {
                    map.iter_from(from).map(move |(hash, entry)| (slot, hash, entry.key.to_vec()))
                }).filter(|row| row.0 == 1).count();
                prop_assert_eq!(got, model.keys().filter(|row| row.0 == 1 && row.1 >= from).count());
            }
        }
    }

    #[test]
    fn moved_deadlines_are_found_when_they_pass() {
        let mut table = Memtable::default();
        let with = |deadline_ms| Some(Object { deadline_ms, ..Object::string(Bytes::new()) });
        put(&mut table, 1, 10, b"later", with(5_000));
        put(&mut table, 1, 10, b"later", with(9_000));
        put(&mut table, 2, 20, b"sooner", with(9_000));
        put(&mut table, 2, 20, b"sooner", with(3_000));
        put(&mut table, 3, 30, b"gone", with(3_000));
        put(&mut table, 3, 30, b"gone", None);
        put(&mut table, 4, 40, b"kept", with(3_000));
        put(&mut table, 4, 40, b"kept", text(""));
        let names = |table: &mut Memtable, now| {
            table.expired(now, 10).into_iter().map(|(_, _, key)| key.to_vec()).collect::<Vec<_>>()
        };
        assert!(names(&mut table, 2_999).is_empty());
        assert_eq!(names(&mut table, 5_500), [b"sooner"]);
        assert!(names(&mut table, 5_600).is_empty(), "not again within the second");
        assert_eq!(names(&mut table, 6_000), [b"sooner"], "again when nothing came of it");
        put(&mut table, 2, 20, b"sooner", None);
        assert_eq!(names(&mut table, 9_000), [b"later"]);
    }

    #[test]
    fn expired_keys_beyond_the_limit_wait() {
        let mut table = Memtable::default();
        for name in 0..100u64 {
            let object = Object { deadline_ms: 1_000, ..Object::string(Bytes::new()) };
            put(&mut table, 5, name, &name.to_be_bytes(), Some(object));
        }
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..10 {
            let found = table.expired(1_500, 10);
            assert!(found.len() <= 10);
            seen.extend(found.into_iter().map(|(_, hash, _)| hash));
        }
        assert_eq!(seen.len(), 100);
    }
}
