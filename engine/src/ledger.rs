//! One account of the memory that the node holds.
//!
//! Whoever keeps bytes (memtables, the value cache, connection buffers, the checkpoint store) posts them here under a
//! [`Category`], so that a budget can be compared with what is really in use, and `INFO memory` can say where it went.
//! The figures are what the owners count: allocator slack and stacks are not in them.
//!
//! Posting is one relaxed atomic addition. Owners on a hot path gather their change locally and post it once a turn.

use std::sync::atomic::{AtomicU64, Ordering};

/// What bytes are held for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum Category {
    /// Memtables that still take writes.
    Memtables,
    /// Memtables that wait to be written to the checkpoint store.
    Frozen,
    /// Hot values read from the checkpoint store.
    Cache,
    /// Keys held in memory for commands that wait for them.
    Pins,
    /// Log entries kept for followers.
    EntryCache,
    /// Bytes waiting in queues between threads.
    Queues,
    /// Input and output buffers of connections.
    Connections,
    /// Exactly-once records of sessions.
    Sessions,
    /// Consistent views held open for snapshots and jobs.
    Views,
    /// The checkpoint store's own caches and buffers.
    Store,
}

impl Category {
    /// Every category, in the order of reports.
    pub const ALL: [Category; 10] = [
        Category::Memtables,
        Category::Frozen,
        Category::Cache,
        Category::Pins,
        Category::EntryCache,
        Category::Queues,
        Category::Connections,
        Category::Sessions,
        Category::Views,
        Category::Store,
    ];

    /// The category's name in reports and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Category::Memtables => "memtables",
            Category::Frozen => "frozen_memtables",
            Category::Cache => "value_cache",
            Category::Pins => "pinned_keys",
            Category::EntryCache => "entry_cache",
            Category::Queues => "queues",
            Category::Connections => "connections",
            Category::Sessions => "sessions",
            Category::Views => "views",
            Category::Store => "checkpoint_store",
        }
    }
}

/// Bytes held, by category, beside a budget.
#[derive(Debug)]
pub struct Ledger {
    budget_bytes: u64,
    held: [AtomicU64; Category::ALL.len()],
}

impl Ledger {
    /// An empty account with a budget in bytes.
    pub fn new(budget_bytes: u64) -> Self {
        Ledger { budget_bytes, held: Default::default() }
    }

    /// What the node was given, in bytes.
    pub fn budget_bytes(&self) -> u64 {
        self.budget_bytes
    }

    /// Posts `bytes` more.
    pub fn add(&self, category: Category, bytes: u64) {
        self.held[category as usize].fetch_add(bytes, Ordering::Relaxed);
    }

    /// Posts `bytes` fewer.
    ///
    /// # Panics
    /// When more is returned than was posted: the owner's books are wrong.
    pub fn sub(&self, category: Category, bytes: u64) {
        let before = self.held[category as usize].fetch_sub(bytes, Ordering::Relaxed);
        assert!(before >= bytes, "{} returned {bytes} bytes to the ledger but held {before}", category.name());
    }

    /// Posts the absolute figure of an owner that has the category to itself.
    pub fn set(&self, category: Category, bytes: u64) {
        self.held[category as usize].store(bytes, Ordering::Relaxed);
    }

    /// Replaces an owner's earlier posting by its present one.
    pub fn adjust(&self, category: Category, posted: &mut u64, now: u64) {
        if now > *posted {
            self.add(category, now - *posted);
        } else if now < *posted {
            self.sub(category, *posted - now);
        }
        *posted = now;
    }

    /// Bytes held under one category.
    pub fn held(&self, category: Category) -> u64 {
        self.held[category as usize].load(Ordering::Relaxed)
    }

    /// Bytes held in all.
    pub fn total(&self) -> u64 {
        Category::ALL.iter().map(|&category| self.held(category)).sum()
    }

    /// Every category with its bytes.
    pub fn report(&self) -> Vec<(&'static str, u64)> {
        Category::ALL.iter().map(|&category| (category.name(), self.held(category))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn postings_add_up_by_category() {
        let ledger = Ledger::new(1000);
        ledger.add(Category::Memtables, 300);
        ledger.add(Category::Cache, 50);
        ledger.sub(Category::Memtables, 100);
        let mut posted = 0;
        ledger.adjust(Category::Queues, &mut posted, 70);
        ledger.adjust(Category::Queues, &mut posted, 20);
        assert_eq!(ledger.held(Category::Memtables), 200);
        assert_eq!(ledger.held(Category::Queues), 20);
        assert_eq!(ledger.total(), 270);
        assert!(ledger.report().contains(&("value_cache", 50)));
    }

    #[test]
    #[should_panic(expected = "returned 2 bytes")]
    fn returning_more_than_held_is_caught() {
        let ledger = Ledger::new(1000);
        ledger.add(Category::Cache, 1);
        ledger.sub(Category::Cache, 2);
    }
}
