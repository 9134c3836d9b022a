//! Keys that must stay resident: those of commands that wait for a fetch, or were proposed and not applied yet.
//!
//! A pin keeps what the store holds of its key, data or only a head, beside the cache, which may evict at any time. While a
//! memtable has the key the pin keeps nothing; when the memtable is let go it takes over what that said.
//!
//! Invariant: `bytes` is the sum over pins.

use super::object::Stored;
use super::{KeyRef, OwnedKey};
use std::collections::HashMap;

/// What a pin costs beyond key and data: the pin, its place in the map, the headers of two allocations.
const PIN_OVERHEAD_BYTES: u64 = (size_of::<Pin>() + size_of::<(u64, Vec<Pin>)>() * 8 / 7 + 2 * 16) as u64;

/// An empty map is let go above this capacity: a command of a million keys must not cost its memory for ever.
const KEPT_CAPACITY_MAX: usize = 1024;

/// What a pin knows.
#[derive(Debug)]
pub(super) enum Pinned {
    /// What the store holds.
    Below(Stored),
    /// A memtable has the key.
    Layered,
}

#[derive(Debug)]
struct Pin {
    slot: u16,
    key: Box<[u8]>,
    count: usize,
    value: Pinned,
}

impl Pin {
    fn bytes(&self) -> u64 {
        let data_bytes = match &self.value {
            Pinned::Below(stored) => stored.data_bytes(),
            Pinned::Layered => 0,
        };
        PIN_OVERHEAD_BYTES + self.key.len() as u64 + data_bytes
    }
}

/// A table's pins.
#[derive(Debug, Default)]
pub(super) struct Pins {
    by_hash: HashMap<u64, Vec<Pin>>,
    len: usize,
    bytes: u64,
}

impl Pins {
    /// Pinned keys.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Memory held, in bytes. Data that the cache holds as well counts here too.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What the key's pin knows.
    pub(super) fn get(&self, key: KeyRef<'_>) -> Option<&Pinned> {
        if self.by_hash.is_empty() {
            return None;
        }
        self.by_hash.get(&key.hash)?.iter().find(|pin| *pin.key == *key.key).map(|pin| &pin.value)
    }

    /// Pins a key once more; `value` is what is known of it now.
    pub(super) fn add(&mut self, key: OwnedKey, value: Pinned) {
        let OwnedKey { slot, hash, key } = key;
        let pins = self.by_hash.entry(hash).or_insert_with(|| Vec::with_capacity(1));
        match pins.iter_mut().find(|pin| pin.key == key) {
            Some(pin) => {
                self.bytes -= pin.bytes();
                pin.count += 1;
                pin.value = value;
                self.bytes += pin.bytes();
            }
            None => {
                let pin = Pin { slot, key, count: 1, value };
                self.bytes += pin.bytes();
                self.len += 1;
                pins.push(pin);
            }
        }
    }

    /// Takes back one pin of a key.
    ///
    /// # Panics
    /// When the key is not pinned.
    pub(super) fn remove(&mut self, key: KeyRef<'_>) {
        let pins = self.by_hash.get_mut(&key.hash).expect("an unpinned key was pinned before");
        let at = pins.iter().position(|pin| *pin.key == *key.key).expect("an unpinned key was pinned before");
        pins[at].count -= 1;
        if pins[at].count > 0 {
            return;
        }
        self.bytes -= pins.swap_remove(at).bytes();
        self.len -= 1;
        if pins.is_empty() {
            self.by_hash.remove(&key.hash);
            if self.by_hash.is_empty() && self.by_hash.capacity() > KEPT_CAPACITY_MAX {
                self.by_hash = HashMap::new();
            }
        }
    }

    /// A memtable has the key from here on.
    pub(super) fn written(&mut self, key: KeyRef<'_>) {
        if self.by_hash.is_empty() {
            return;
        }
        let pins = self.by_hash.get_mut(&key.hash);
        if let Some(pin) = pins.and_then(|pins| pins.iter_mut().find(|pin| *pin.key == *key.key)) {
            self.bytes -= pin.bytes();
            pin.value = Pinned::Layered;
            self.bytes += pin.bytes();
        }
    }

    /// Offers every pin that knows nothing itself to `known`, and remembers what that says.
    pub(super) fn take_over(&mut self, known: impl Fn(KeyRef<'_>) -> Option<Stored>) {
        for (&hash, pins) in &mut self.by_hash {
            for pin in pins.iter_mut().filter(|pin| matches!(pin.value, Pinned::Layered)) {
                if let Some(stored) = known(KeyRef { slot: pin.slot, hash, key: &pin.key }) {
                    self.bytes -= pin.bytes();
                    pin.value = Pinned::Below(stored);
                    self.bytes += pin.bytes();
                }
            }
        }
    }

    /// What all pins know is over.
    pub(super) fn reset(&mut self, value: impl Fn() -> Pinned) {
        self.bytes = 0;
        for pin in self.by_hash.values_mut().flatten() {
            pin.value = value();
            self.bytes += pin.bytes();
        }
    }
}
