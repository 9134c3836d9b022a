//! The log on a real file system: what goes in comes back after a reopening.

use bytes::Bytes;
use holdfast_engine::log::{HardState, LogEntry, LogStore, WalOptions};
use holdfast_engine::vfs::OsVfs;

fn entry(term: u64, index: u64, payload: &[u8]) -> LogEntry {
    LogEntry { term, index, kind: 0, payload: Bytes::copy_from_slice(payload) }
}

#[test]
fn entries_come_back_after_a_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wal");
    let options = WalOptions { segment_bytes: 64 << 10, cache_bytes_max: 4096, ..WalOptions::new(7, 1) };
    let mut expected = Vec::new();
    {
        let (mut store, mut writer, report) = LogStore::open(OsVfs::shared(), &path, options.clone()).unwrap();
        assert!(report.created);
        store.create_group(3);
        store.set_hard_state(3, HardState { term: 2, vote: 1, commit: 0 });
        for index in 1..=300u64 {
            // Every 50th is large, some beyond a segment.
            let size = if index % 50 == 0 { 1000 * index as usize } else { 100 };
            let entry = entry(2, index, &vec![index as u8; size]);
            store.append(3, std::slice::from_ref(&entry));
            expected.push(entry);
            let written = writer.write(store.seal().unwrap(), index).unwrap();
            assert!(written.synced());
            store.written(written);
            while writer.prepare_next().unwrap() {}
        }
        assert_eq!(store.group(3).unwrap().entries(1, 301, usize::MAX).unwrap(), expected);
        let _ = writer.close().unwrap();
    }
    let (store, _writer, report) = LogStore::open(OsVfs::shared(), &path, WalOptions { nonce: 2, ..options }).unwrap();
    assert!(report.clean && !report.created);
    assert_eq!(report.torn_bytes, 0);
    let log = store.group(3).unwrap();
    assert_eq!(log.hard_state(), HardState { term: 2, vote: 1, commit: 0 });
    assert_eq!(log.entries(1, 301, usize::MAX).unwrap(), expected);
    assert_eq!(log.entries(50, 301, 10).unwrap().len(), 1);
}
