//! The table: what a write and a read cost where they run, on the shard thread.

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use holdfast_engine::ledger::Ledger;
use holdfast_engine::table::{Applied, FlusherMode, KeyRef, Object, OwnedKey, Table, Tables, TablesOptions};
use holdfast_engine::vfs::OsVfs;
use std::hint::black_box;
use std::sync::Arc;

const KEYS: usize = 100_000;

/// Keys with a uniform hash. The slot is taken from the hash: CRC16 is the router's cost, not the table's.
fn keys(count: usize) -> Vec<OwnedKey> {
    (0..count as u64)
        .map(|n| {
            let mut hash = n.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            hash = (hash ^ (hash >> 31)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            hash ^= hash >> 29;
            OwnedKey { slot: (hash % 16384) as u16, hash, key: format!("key:{n:012}").into_bytes().into() }
        })
        .collect()
}

fn value() -> Object {
    Object::string(Bytes::from(vec![b'x'; 64]))
}

struct Fixture {
    table: Table,
    _tables: Tables,
    _dir: tempfile::TempDir,
    keys: Vec<OwnedKey>,
    next: usize,
}

impl Fixture {
    /// A table with every key in its active memtable, or all in the store.
    fn new(count: usize, stored: bool, cache_bytes_max: u64) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let options = TablesOptions {
            memtable_bytes_max: 1 << 30,
            cache_bytes_max,
            flusher: FlusherMode::Inline,
            ..TablesOptions::new(dir.path())
        };
        let tables = Tables::open(OsVfs::shared(), options, Arc::new(Ledger::new(2 << 30))).expect("tables open");
        let mut table = tables.table(1).expect("a table opens");
        let keys = keys(count);
        for key in &keys {
            table.put(key.as_ref(), value());
        }
        if stored {
            table.set_applied(Applied { index: 1, term: 1, stamp_ms: 1 });
            table.request_flush();
            table.maintain(1_000, u64::MAX).expect("a flush");
        }
        Fixture { table, _tables: tables, _dir: dir, keys, next: 0 }
    }

    /// The next key, in an order that no cache of the processor's can foresee.
    fn key(&mut self) -> KeyRef<'static> {
        self.next = (self.next + 7919) % self.keys.len();
        let key = &self.keys[self.next];
        // The keys live as long as the fixture; leaking the few bytes keeps the borrow out of the measured loop.
        KeyRef { slot: key.slot, hash: key.hash, key: Box::leak(key.key.clone()) }
    }
}

fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("table");
    group.throughput(Throughput::Elements(1));

    let mut memory = Fixture::new(KEYS, false, 1 << 20);
    let order: Vec<_> = (0..KEYS).map(|_| memory.key()).collect();
    let mut at = 0;
    let mut next = || {
        at = (at + 1) % order.len();
        order[at]
    };
    group.bench_function("put_existing_64B", |bencher| {
        bencher.iter_batched(value, |object| memory.table.put(next(), object), BatchSize::SmallInput);
    });
    group.bench_function("get_memtable", |bencher| {
        bencher.iter(|| memory.table.peek_with(next(), |object| object.map(|object| black_box(object.data.len()))));
    });
    group.bench_function("get_memtable_cloned", |bencher| bencher.iter(|| black_box(memory.table.peek(next()))));
    drop(memory);

    let mut fresh = Fixture::new(0, false, 1 << 20);
    let new_keys = keys(4_000_000);
    let mut at = 0;
    group.bench_function("put_new_64B", |bencher| {
        bencher.iter_batched(
            value,
            |object| {
                at = (at + 1) % new_keys.len();
                fresh.table.put(new_keys[at].as_ref(), object);
            },
            BatchSize::SmallInput,
        );
    });
    drop((fresh, new_keys));

    let mut stored = Fixture::new(KEYS, true, 256 << 20);
    let order: Vec<_> = (0..KEYS).map(|_| stored.key()).collect();
    let mut at = 0;
    group.bench_function("get_cached", |bencher| {
        bencher.iter(|| {
            at = (at + 1) % order.len();
            black_box(stored.table.peek(order[at]))
        });
    });
    drop(stored);

    // A cache of next to nothing: every read is of the store, in the system's page cache.
    let mut cold = Fixture::new(KEYS, true, 1 << 10);
    let order: Vec<_> = (0..KEYS).map(|_| cold.key()).collect();
    let mut at = 0;
    group.bench_function("get_cold", |bencher| {
        bencher.iter(|| {
            at = (at + 1) % order.len();
            black_box(cold.table.get(order[at]).expect("a read"))
        });
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
