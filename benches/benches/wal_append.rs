//! Appending to the log: what one group commit costs, by the number of entries that share it.
//!
//! `sync` writes to a real file and syncs, as the server does; `encode` stops before the disk.
#![allow(missing_docs, reason = "criterion generates the entry point")]
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot run has failed")]

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use holdfast_engine::log::{LogEntry, LogStore, WalOptions, WalWriter};
use holdfast_engine::vfs::{OsVfs, SharedVfs, SimVfs};
use std::hint::black_box;
use std::path::Path;

const GROUPS: u64 = 256;
const PAYLOAD_BYTES: usize = 128;

fn open(vfs: SharedVfs, dir: &Path, segment_bytes: u64) -> (LogStore, WalWriter) {
    let (mut store, mut writer, _) =
        LogStore::open(vfs, dir, WalOptions { segment_bytes, ..WalOptions::new(1, 1) }).unwrap();
    (0..GROUPS).for_each(|group| store.create_group(group));
    let batch = store.seal().unwrap();
    store.written(writer.write(batch, 0).unwrap());
    (store, writer)
}

/// One entry for each of `count` groups, as a turn that served all of them stages them.
fn stage(store: &mut LogStore, count: u64, payload: &Bytes) {
    for group in 0..count {
        let index = store.group(group).unwrap().last_index() + 1;
        // What is applied goes, so that the log stays bounded.
        if index.is_multiple_of(1024) {
            store.compact(group, index - 1);
        }
        store.append(group, &[LogEntry { term: 1, index, kind: 0, payload: payload.clone() }]);
    }
}

fn group_commit(c: &mut Criterion) {
    // Beside the build's output, which is on a real disk where a temporary folder may not be.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let payload = Bytes::from(vec![7; PAYLOAD_BYTES]);
    let mut bench = c.benchmark_group("wal_append/sync");
    for count in [1, 16, 256] {
        let dir = tempfile::tempdir_in(target).unwrap();
        let (mut store, mut writer) = open(OsVfs::shared(), &dir.path().join("wal"), 64 << 20);
        bench.throughput(Throughput::Elements(count));
        bench.bench_function(format!("{count}"), |b| {
            b.iter(|| {
                stage(&mut store, count, &payload);
                store.maintain(1 << 20).unwrap();
                let batch = store.seal().unwrap();
                let written = writer.write(batch, 0).unwrap();
                while written.wants_prepare() && writer.prepare_next().unwrap() {}
                store.written(written);
            });
        });
    }
    bench.finish();
}

fn encode(c: &mut Criterion) {
    let mut bench = c.benchmark_group("wal_append/encode");
    for (name, payload_bytes) in [("128B", PAYLOAD_BYTES), ("64KiB", 64 << 10)] {
        let payload = Bytes::from(vec![7; payload_bytes]);
        bench.throughput(Throughput::Bytes(16 * payload_bytes as u64));
        bench.bench_function(format!("16x{name}"), |b| {
            b.iter_batched_ref(
                || open(SimVfs::new().shared(), Path::new("/wal"), 32 << 10).0,
                |store| {
                    stage(store, 16, &payload);
                    black_box(store.seal());
                },
                BatchSize::PerIteration,
            );
        });
    }
    bench.finish();
}

criterion_group!(benches, group_commit, encode);
criterion_main!(benches);
