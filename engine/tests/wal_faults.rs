//! What a disk may do to the log, one by one: then correct data, or a clear refusal; never wrong data.

#![allow(clippy::unwrap_used, reason = "a failed expectation of a test's helper is a failed test")]

mod common;

use common::{HEAD, HEADER, Node, dir, entry, offset, options, segment, weak};
use holdfast_engine::Error;
use holdfast_engine::log::{Durability, HardState, KIND_SYNCED, LogEntry, WalOptions};
use holdfast_engine::vfs::{CrashPlan, SimVfs, Survival, Vfs};
use std::io::IoSlice;
use std::path::Path;

fn damaged(outcome: Result<Node, Error>) -> (std::path::PathBuf, u64, String) {
    match outcome {
        Err(Error::Damaged { path, offset, detail }) => (path, offset, detail),
        Err(other) => panic!("expected damage, got: {other}"),
        Ok(_) => panic!("a damaged log was opened"),
    }
}

/// A log with `count` synced entries of 100 bytes in group 1; returns where (in the file) each entry's batch starts.
fn filled(count: u64) -> (Node, Vec<u64>) {
    let mut node = Node::fresh_with(WalOptions { segment_bytes: 64 << 10, ..options(0) });
    let mut starts = Vec::new();
    for _ in 0..count {
        starts.push(offset(node.store.log_bytes()));
        node.append(1, 1, 100).unwrap();
    }
    (node, starts)
}

#[test]
fn synced_entries_survive_a_power_cut_and_unsynced_ones_may_go() {
    for seed in 0..20 {
        let mut node = Node::fresh_with(weak(Durability::No));
        for _ in 0..20 {
            node.append(1, 1, 300).unwrap();
        }
        let written = node.writer.sync(0).unwrap();
        assert!(written.synced());
        node.took(written);
        for _ in 0..20 {
            node.append(1, 1, 300).unwrap();
        }
        let before = node.entries(1);
        let node = Node::open(&node.vfs.crash(CrashPlan::power_cut(seed))).unwrap();
        let after = node.entries(1);
        assert!(after.len() >= 20, "seed {seed}: {} entries", after.len());
        assert_eq!(after, before[..after.len()], "seed {seed}");
        assert!(node.report.promise_lost());
    }
}

#[test]
fn torn_tail_is_cut_at_every_sector() {
    // One unsynced batch over several sectors: each subset of one missing sector, and of one surviving sector.
    for keep_one in [false, true] {
        for sector in 0..8u64 {
            let mut node = Node::fresh_with(weak(Durability::No));
            node.append(1, 1, 100).unwrap();
            let start = offset(node.store.log_bytes());
            let written = node.writer.sync(0).unwrap();
            node.took(written);
            let before = node.vfs.contents(&segment(1));
            node.append(1, 1, 3000).unwrap();
            let mut torn = node.vfs.contents(&segment(1));
            let first = start / 512;
            for at in 0..8 {
                if (at == sector) != keep_one {
                    let range = ((first + at) * 512) as usize..((first + at + 1) * 512) as usize;
                    torn[range.clone()].copy_from_slice(&before[range]);
                }
            }
            let whole = torn == node.vfs.contents(&segment(1));
            let vfs = node.vfs.crash(CrashPlan::synced_only());
            vfs.replace(&segment(1), &torn);
            let mut node = Node::open(&vfs).unwrap();
            let expected = if whole { 2 } else { 1 };
            assert_eq!(node.entries(1).len(), expected, "sector {sector} keep_one {keep_one}");
            // The log goes on from there, and nothing of the cut batch comes back.
            node.append(1, 2, 50).unwrap();
            let node = Node::open(&node.vfs.crash(CrashPlan::synced_only())).unwrap();
            assert_eq!(node.entries(1).len(), expected + 1);
            assert_eq!(node.report.torn_bytes, 0);
        }
    }
}

#[test]
fn valid_batches_behind_a_torn_one_are_cut_and_do_not_come_back() {
    let mut node = Node::fresh_with(weak(Durability::No));
    node.append(1, 1, 100).unwrap();
    let written = node.writer.sync(0).unwrap();
    node.took(written);
    let start = offset(node.store.log_bytes());
    let lost = node.vfs.contents(&segment(1));
    // Batches of equal length, so that later ones would fit exactly behind a replacement of the first.
    for _ in 0..5 {
        node.append(1, 1, 400).unwrap();
    }
    let mut torn = node.vfs.contents(&segment(1));
    let sector = (start / 512 * 512) as usize;
    torn[sector..sector + 512].copy_from_slice(&lost[sector..sector + 512]);
    let vfs = node.vfs.crash(CrashPlan::synced_only());
    vfs.replace(&segment(1), &torn);
    let mut node = Node::open(&vfs).unwrap();
    assert!(node.report.torn_bytes > 1000, "{:?}", node.report);
    assert_eq!(node.report.torn_at, Some((segment(1), start)));
    assert_eq!(node.entries(1).len(), 1);
    node.append(1, 2, 400).unwrap();
    let node = Node::open(&node.vfs.crash(CrashPlan::synced_only())).unwrap();
    assert_eq!(node.entries(1), [entry(1, 1, 100), entry(2, 2, 400)]);
}

#[test]
fn flipped_bit_in_a_synced_batch_is_damage() {
    let (node, starts) = filled(5);
    let vfs = node.vfs.crash(CrashPlan::synced_only());
    let batch = starts[3] - starts[2];
    for byte in 0..batch {
        vfs.flip_bit(&segment(1), starts[2] + byte, (byte % 8) as u8);
        match Node::open(&vfs) {
            Err(Error::Damaged { path, offset, detail }) => {
                assert_eq!((path, offset), (segment(1), starts[2]), "byte {byte}");
                assert!(detail.contains("synced"), "{detail}");
            }
            // Only padding behind the records may flip unnoticed.
            Ok(node) => assert!(byte >= batch - 7 && node.entries(1).len() == 5, "byte {byte}"),
            Err(other) => panic!("byte {byte}: {other}"),
        }
        vfs.flip_bit(&segment(1), starts[2] + byte, (byte % 8) as u8);
    }
    assert_eq!(Node::open(&vfs).unwrap().entries(1).len(), 5);
}

#[test]
fn flipped_bit_in_the_last_batch_is_torn_before_the_idle_statement_and_damage_after_it() {
    for stated in [false, true] {
        let (mut node, starts) = filled(5);
        if stated {
            assert!(node.writer.idle_statement().unwrap());
            assert!(!node.writer.idle_statement().unwrap(), "nothing new to state");
        }
        let vfs = node.vfs.crash(CrashPlan::synced_only());
        vfs.flip_bit(&segment(1), starts[4] + HEADER + 10, 0);
        match stated {
            true => assert_eq!(damaged(Node::open(&vfs)).1, starts[4]),
            false => {
                let node = Node::open(&vfs).unwrap();
                assert_eq!(node.entries(1).len(), 4);
                assert!(node.report.torn_bytes > 0 && !node.report.clean);
            }
        }
    }
}

#[test]
fn huge_length_in_a_header_is_refused_before_it_is_believed() {
    let (node, starts) = filled(3);
    let vfs = node.vfs.crash(CrashPlan::synced_only());
    let mut bytes = vfs.contents(&segment(1));
    // With the header's checksum wrong, and with it right: the file does not back the length.
    let at = starts[1] as usize;
    bytes[at + 48..at + 52].fill(0xff);
    vfs.replace(&segment(1), &bytes);
    assert_eq!(damaged(Node::open(&vfs)).1, starts[1]);
    let crc = crc32fast::hash(&bytes[at + 8..at + 64]);
    bytes[at + 4..at + 8].copy_from_slice(&crc.to_le_bytes());
    vfs.replace(&segment(1), &bytes);
    assert_eq!(damaged(Node::open(&vfs)).1, starts[1]);
}

#[test]
fn stale_batches_in_a_recycled_segment_are_not_read() {
    let mut node = Node::fresh();
    node.prepare();
    // Every turn one entry, everything compacted: segments go round.
    for _ in 0..300 {
        let index = node.append(1, 1, 400).unwrap();
        node.store.compact(1, index);
        node.store.maintain(1 << 20).unwrap();
        node.prepare();
    }
    assert!(node.writer.metrics().segments > 5, "{:?}", node.writer.metrics());
    let names = node.vfs.list(dir()).unwrap();
    assert!(names.len() <= 6, "the log stays bounded: {names:?}");
    let last = node.store.group(1).unwrap().last_index();
    let node = Node::open(&node.vfs.crash(CrashPlan::synced_only())).unwrap();
    // The compaction was staged after the last entry was synced, so this one entry is there.
    assert_eq!(node.store.group(1).unwrap().last_index(), last);
    assert_eq!(node.entries(1), [entry(1, last, 400)]);
    assert_eq!(node.report.torn_bytes, 0);
}

#[test]
fn misdirected_write_is_damage() {
    let (node, starts) = filled(6);
    let vfs = node.vfs.crash(CrashPlan::synced_only());
    let bytes = vfs.contents(&segment(1));
    // Batch 3 landed on batch 1: whole, of this segment, but not in its place.
    let mut misdirected = bytes.clone();
    let (target, source, len) = (starts[1] as usize, starts[3] as usize, (starts[4] - starts[3]) as usize);
    misdirected[target..target + len].copy_from_slice(&bytes[source..source + len]);
    vfs.replace(&segment(1), &misdirected);
    assert_eq!(damaged(Node::open(&vfs)).1, starts[1]);
}

/// A log over several segments, all of it needed.
fn several_segments() -> (SimVfs, Vec<LogEntry>, u64) {
    let mut node = Node::fresh();
    for _ in 0..100 {
        node.append(1, 1, 500).unwrap();
    }
    let entries = node.entries(1);
    assert!(node.writer.idle_statement().unwrap());
    let last = 1 + node.writer.metrics().segments;
    assert!(last >= 4);
    (node.vfs.crash(CrashPlan::synced_only()), entries, last)
}

#[test]
fn missing_segment_is_named_wherever_it_was() {
    let (vfs, entries, last) = several_segments();
    assert_eq!(Node::open(&vfs).unwrap().entries(1), entries);
    for number in 1..=last {
        let bytes = vfs.contents(&segment(number));
        vfs.vanish(&segment(number));
        let (path, _, detail) = damaged(Node::open(&vfs));
        assert_eq!(path, segment(number), "{detail}");
        assert!(detail.contains("missing"), "{detail}");
        vfs.replace(&segment(number), &bytes);
    }
    assert_eq!(Node::open(&vfs).unwrap().entries(1), entries);
}

#[test]
fn missing_log_is_damage_where_one_is_expected() {
    let expecting = WalOptions { expect_existing: true, ..options(1) };
    assert!(damaged(Node::open_with(&SimVfs::new(), expecting)).2.contains("missing"));
}

#[test]
fn another_nodes_segment_is_refused() {
    let (vfs, _, last) = several_segments();
    let mut other = Node::open_with(&SimVfs::new(), WalOptions { node: 8, ..options(0) }).unwrap();
    other.store.create_group(1);
    other.commit().unwrap();
    for number in [1, 2, last] {
        let bytes = vfs.contents(&segment(number));
        vfs.replace(&segment(number), &other.vfs.contents(&segment(1)));
        match Node::open(&vfs) {
            Err(Error::Foreign { path, detail }) => {
                assert_eq!(path, segment(number));
                assert!(detail.contains("another node"), "{detail}");
            }
            outcome => panic!("{:?}", outcome.map(|node| node.report)),
        }
        vfs.replace(&segment(number), &bytes);
    }
    // Under another's name it is told, too.
    vfs.replace(&segment(2), &vfs.contents(&segment(3)));
    assert!(damaged(Node::open(&vfs)).2.contains("another's name"));
}

#[test]
fn segment_of_a_future_version_is_refused_and_kept() {
    let (vfs, _, _) = several_segments();
    let mut bytes = vfs.contents(&segment(2));
    bytes[8] = 9;
    bytes[12..16].fill(0);
    let crc = crc32fast::hash(&bytes[..512]);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    vfs.replace(&segment(2), &bytes);
    match Node::open(&vfs) {
        Err(Error::Foreign { path, detail }) => {
            assert_eq!(path, segment(2));
            assert!(detail.contains("newer release"), "{detail}");
        }
        outcome => panic!("{:?}", outcome.map(|node| node.report)),
    }
    assert_eq!(vfs.contents(&segment(2)), bytes);
}

#[test]
fn failed_write_poisons_the_writer_for_good() {
    let (mut node, _) = filled(3);
    node.vfs.fail_write_after(0);
    assert!(matches!(node.append(1, 1, 100), Err(Error::Io { operation: "write", .. })));
    for _ in 0..3 {
        assert!(matches!(node.append(1, 1, 100), Err(Error::Poisoned { .. })));
    }
    assert!(matches!(node.writer.sync(9), Err(Error::Poisoned { .. })));
    assert!(matches!(node.writer.idle_statement(), Err(Error::Poisoned { .. })));
    assert!(matches!(node.writer.close(), Err(Error::Poisoned { .. })));
    let node = Node::open(&node.vfs.crash(CrashPlan::power_cut(1))).unwrap();
    assert_eq!(node.entries(1).len(), 3);
}

#[test]
fn failed_sync_is_never_retried_into_a_success() {
    let (mut node, _) = filled(3);
    node.vfs.fail_sync_after(0);
    assert!(matches!(node.append(1, 1, 100), Err(Error::Io { operation: "sync", .. })));
    let syncs = node.vfs.syncs();
    assert!(matches!(node.append(1, 1, 100), Err(Error::Poisoned { .. })));
    assert!(matches!(node.writer.sync(9), Err(Error::Poisoned { .. })));
    assert_eq!(node.vfs.syncs(), syncs, "nothing was synced after the failure");
    // The page cache shows the entry, the disk never had it.
    let node = Node::open(&node.vfs.crash(CrashPlan::killed())).unwrap();
    assert_eq!(node.entries(1).len(), 3);
}

/// The process starts again on a machine that stayed up: its page cache shows an entry whose sync failed. Whoever accepts it
/// must see to it that a power cut later on does not take it, nor make damage of it.
#[test]
fn entry_that_only_the_page_cache_has_is_durable_once_a_start_has_accepted_it() {
    let (mut node, _) = filled(3);
    node.vfs.fail_sync_after(0);
    assert!(node.append(1, 1, 100).is_err());
    let mut node = Node::open(&node.vfs.kill()).unwrap();
    let accepted = node.entries(1);
    assert_eq!(accepted.len(), 4);
    assert_eq!(Node::open(&node.vfs.crash(CrashPlan::synced_only())).unwrap().entries(1), accepted);

    let (mut again, _) = filled(3);
    again.vfs.fail_sync_after(0);
    assert!(again.append(1, 1, 100).is_err());
    node = Node::open(&again.vfs.kill()).unwrap();
    node.append(1, 1, 100).unwrap();
    let before = node.entries(1);
    assert_eq!(Node::open(&node.vfs.crash(CrashPlan::synced_only())).unwrap().entries(1), before);
}

#[test]
fn full_disk_is_met_while_preparing_and_the_rest_of_the_log_stays_usable() {
    let mut node = Node::fresh();
    node.prepare();
    let reserve = node.writer.reserve_bytes();
    assert!(reserve > 16 << 10);
    node.vfs.set_space(Some(0));
    // Compaction can still run: what is prepared is on the disk already.
    let mut written = 0;
    while written < reserve - 3000 {
        let index = node.append(1, 1, 500).unwrap();
        written += 700;
        node.store.compact(1, index);
        node.store.maintain(1 << 20).unwrap();
    }
    // Freed segments are used again, so the log goes on without any new space.
    for _ in 0..100 {
        while let Ok(true) = node.writer.prepare_next() {}
        let index = node.append(1, 1, 500).unwrap();
        node.store.compact(1, index);
        node.store.maintain(1 << 20).unwrap();
    }
    let last = node.store.group(1).unwrap().last_index();
    let node = Node::open(&node.vfs.crash(CrashPlan::synced_only())).unwrap();
    assert_eq!(node.store.group(1).unwrap().last_index(), last);
}

#[test]
fn full_disk_without_compaction_stops_the_writer_with_the_systems_words() {
    let mut node = Node::fresh();
    node.prepare();
    node.vfs.set_space(Some(1000));
    let error = loop {
        let _ = node.writer.prepare_next();
        if let Err(e) = node.append(1, 1, 500) {
            break e;
        }
    };
    assert!(matches!(&error, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull), "{error}");
    assert!(matches!(node.append(1, 1, 500), Err(Error::Poisoned { .. })));
    let acknowledged = node.writer.metrics().batches - 1;
    let vfs = node.vfs.crash(CrashPlan::power_cut(3));
    vfs.set_space(None);
    assert_eq!(Node::open(&vfs).unwrap().entries(1).len() as u64, acknowledged);
}

#[test]
fn read_only_disk_stops_writes_and_loses_nothing() {
    let (mut node, _) = filled(3);
    node.vfs.set_read_only(true);
    assert!(matches!(node.append(1, 1, 100), Err(Error::Io { .. })));
    let node = Node::open(&node.vfs.crash(CrashPlan::power_cut(1))).unwrap();
    assert_eq!(node.entries(1).len(), 3);
}

#[test]
fn unsynced_segment_contents_are_not_trusted_at_open() {
    // The process died, the page cache survived; what is then read back must be synced before it counts.
    let mut node = Node::fresh_with(weak(Durability::No));
    for _ in 0..10 {
        node.append(1, 1, 300).unwrap();
    }
    let node = Node::open(&node.vfs.crash(CrashPlan::killed())).unwrap();
    let seen = node.entries(1);
    assert_eq!(seen.len(), 10);
    let node = Node::open(&node.vfs.crash(CrashPlan::synced_only())).unwrap();
    assert_eq!(node.entries(1), seen);
}

#[test]
fn votes_and_membership_are_synced_under_any_durability() {
    let mut node = Node::fresh_with(weak(Durability::No));
    node.append(1, 1, 10).unwrap();
    assert!(!node.writer.is_synced());
    node.store.set_hard_state(1, HardState { term: 3, vote: 2, commit: 0 });
    assert!(node.commit().unwrap());
    node.store.set_hard_state(1, HardState { term: 3, vote: 2, commit: 1 });
    assert!(!node.commit().unwrap(), "a commit index alone need not be synced");
    let change = LogEntry { kind: KIND_SYNCED, ..entry(3, 2, 10) };
    node.store.append(1, &[change]);
    assert!(node.commit().unwrap());
    let node = Node::open(&node.vfs.crash(CrashPlan::synced_only())).unwrap();
    assert_eq!(node.store.group(1).unwrap().hard_state(), HardState { term: 3, vote: 2, commit: 1 });
    assert_eq!(node.store.group(1).unwrap().last_index(), 2);
}

#[test]
fn everysec_syncs_about_once_a_second() {
    let mut node = Node::fresh_with(weak(Durability::Everysec));
    node.now_ms = 10_000;
    node.append(1, 1, 10).unwrap();
    assert!(node.writer.is_synced(), "the first is due");
    let syncs = node.vfs.syncs();
    for _ in 0..900 {
        node.append(1, 1, 1).unwrap();
    }
    let rolled = 2 * node.writer.metrics().segments + 20;
    assert!(node.vfs.syncs() - syncs <= rolled, "{} syncs", node.vfs.syncs() - syncs);
    node.now_ms += 200;
    node.append(1, 1, 1).unwrap();
    assert!(node.writer.is_synced());
}

#[test]
fn clean_stop_is_told_from_an_unclean_one() {
    let mut node = Node::fresh_with(weak(Durability::Everysec));
    node.append(1, 1, 10).unwrap();
    let written = node.writer.close().unwrap();
    assert!(written.synced());
    assert!(matches!(node.append(1, 1, 10), Err(Error::Poisoned { .. })), "closed");
    let node = Node::open_with(&node.vfs.crash(CrashPlan::synced_only()), weak(Durability::Everysec)).unwrap();
    assert!(node.report.clean && node.report.weak && !node.report.promise_lost());
    // Opened again without writing a thing: from now on batches might have been lost without a trace.
    let mut node = Node::open(&node.vfs.crash(CrashPlan::synced_only())).unwrap();
    assert!(!node.report.clean && node.report.promise_lost());
    // This one ran under `always`.
    node.append(1, 1, 10).unwrap();
    let node = Node::open(&node.vfs.crash(CrashPlan::synced_only())).unwrap();
    assert!(!node.report.clean && !node.report.promise_lost());
}

#[test]
fn weaker_durability_is_on_disk_before_it_counts() {
    let mut node = Node::fresh();
    let written = node.writer.set_durability(Durability::No).unwrap();
    node.took(written);
    node.append(1, 1, 10).unwrap();
    assert!(Node::open(&node.vfs.crash(CrashPlan::synced_only())).unwrap().report.promise_lost());
}

#[test]
fn sleeping_groups_do_not_pin_the_log_and_keep_everything() {
    let mut node = Node::fresh();
    for group in 2..6 {
        node.store.create_group(group);
        node.store.set_hard_state(group, HardState { term: group, vote: 1, commit: 0 });
        node.commit().unwrap();
        for _ in 0..5 {
            node.append(group, group, 100).unwrap();
        }
    }
    // Group 5 is idle and fully applied: hard state and position only.
    node.store.compact(5, 5);
    node.commit().unwrap();
    let before: Vec<_> = (2..6).map(|group| node.entries(group)).collect();
    let mut most = 0;
    for _ in 0..800 {
        let index = node.append(1, 1, 500).unwrap();
        node.store.compact(1, index);
        node.store.maintain(4096).unwrap();
        node.prepare();
        most = most.max(node.store.log_bytes());
    }
    assert!(most < (64 << 10) + 3 * (16 << 10), "{most}");
    assert!(node.vfs.list(dir()).unwrap().len() < 12);
    let check = |node: &Node| {
        for (group, before) in (2..6).zip(&before) {
            assert_eq!(node.entries(group), *before, "group {group}");
            assert_eq!(node.store.group(group).unwrap().hard_state().term, group);
        }
        assert_eq!(node.store.group(5).unwrap().compacted(), (5, 5));
    };
    check(&node);
    check(&Node::open(&node.vfs.crash(CrashPlan::synced_only())).unwrap());
}

#[test]
fn copied_entries_do_not_reappear_above_a_later_truncation() {
    let mut node = Node::fresh();
    node.store.create_group(2);
    for _ in 0..10 {
        node.append(2, 1, 100).unwrap();
    }
    let round = |node: &mut Node, turns: usize| {
        for _ in 0..turns {
            let index = node.append(1, 1, 500).unwrap();
            node.store.compact(1, index);
            node.store.maintain(4096).unwrap();
            node.prepare();
        }
    };
    round(&mut node, 400);
    // Entries 6..=10 are replaced by one, after they were copied forward; the copies may outlive the originals.
    node.store.append(2, &[entry(2, 6, 50)]);
    node.commit().unwrap();
    let expected: Vec<_> = (1..=5).map(|index| entry(1, index, 100)).chain([entry(2, 6, 50)]).collect();
    assert_eq!(node.entries(2), expected);
    for _ in 0..6 {
        assert_eq!(Node::open(&node.vfs.crash(CrashPlan::synced_only())).unwrap().entries(2), expected);
        node = Node::open(&node.vfs.crash(CrashPlan::synced_only())).unwrap();
        round(&mut node, 60);
        assert_eq!(node.entries(2), expected);
    }
}

#[test]
fn batch_larger_than_a_segment_gets_a_segment_of_its_size() {
    let mut node = Node::fresh();
    node.append(1, 1, 100).unwrap();
    node.append(1, 1, 100_000).unwrap();
    node.append(1, 1, 100).unwrap();
    let before = node.entries(1);
    let mut node = Node::open(&node.vfs.crash(CrashPlan::synced_only())).unwrap();
    assert_eq!(node.entries(1), before);
    // Once not needed it is not kept as a spare.
    node.store.compact(1, 3);
    for _ in 0..100 {
        let index = node.append(1, 1, 500).unwrap();
        node.store.compact(1, index);
        node.store.maintain(4096).unwrap();
        node.prepare();
    }
    let largest = node.vfs.list(dir()).unwrap().iter().map(|name| node.vfs.contents(&dir().join(name)).len()).max();
    assert_eq!(largest, Some(16 << 10));
}

#[test]
fn crash_while_a_segment_is_begun_loses_nothing() {
    // The machine stops at each change around the place where one segment follows another.
    for halt in 0..40 {
        for seed in 0..4 {
            let mut node = Node::fresh();
            let mut acknowledged = 0;
            for _ in 0..15 {
                acknowledged = node.append(1, 1, 700).unwrap();
            }
            node.vfs.halt_after(halt);
            for _ in 0..10 {
                let _ = node.writer.prepare_next();
                match node.append(1, 1, 700) {
                    Ok(index) => acknowledged = index,
                    Err(_) => break,
                }
            }
            let node = Node::open(&node.vfs.crash(CrashPlan::power_cut(seed)))
                .unwrap_or_else(|e| panic!("halt {halt} seed {seed}: {e}"));
            let last = node.store.group(1).unwrap().last_index();
            assert!(last >= acknowledged, "halt {halt} seed {seed}: {last} < {acknowledged}");
            assert_eq!(node.entries(1), (1..=last).map(|index| entry(1, index, 700)).collect::<Vec<_>>());
        }
    }
}

#[test]
fn damaged_segment_head_is_named() {
    let (vfs, _, _) = several_segments();
    vfs.flip_bit(&segment(2), 20, 3);
    let (path, offset, _) = damaged(Node::open(&vfs));
    assert_eq!((path, offset), (segment(2), 0));
    vfs.replace(&segment(2), &[0; 100]);
    assert_eq!(damaged(Node::open(&vfs)).0, segment(2));
}

#[test]
fn damaged_entry_is_found_when_it_is_read_back_from_a_running_log() {
    let (node, starts) = filled(60);
    // More than the cache holds: the first entries are read from the file.
    node.vfs.flip_bit(&segment(1), starts[1] + HEADER + 3, 1);
    let log = node.store.group(1).unwrap();
    match log.entries(2, 3, 1000) {
        Err(Error::Damaged { path, offset, .. }) => {
            assert_eq!((path, offset), (segment(1), starts[1] + HEADER));
        }
        outcome => panic!("{outcome:?}"),
    }
    assert_eq!(log.entries(60, 61, 1000).unwrap(), [entry(1, 60, 100)]);
}

#[test]
fn reset_starts_the_log_after_the_snapshot() {
    let mut node = Node::fresh_with(weak(Durability::No));
    for _ in 0..5 {
        node.append(1, 1, 100).unwrap();
    }
    node.store.reset(1, 50, 4);
    assert!(node.commit().unwrap(), "always synced");
    let log = node.store.group(1).unwrap();
    assert_eq!((log.first_index(), log.last_index(), log.last_term(), log.term(50)), (51, 50, 4, Some(4)));
    node.store.append(1, &[entry(4, 51, 20), LogEntry { kind: KIND_SYNCED, ..entry(5, 52, 20) }]);
    node.commit().unwrap();
    let node = Node::open(&node.vfs.crash(CrashPlan::synced_only())).unwrap();
    let log = node.store.group(1).unwrap();
    assert_eq!((log.compacted(), log.term(51), log.term(52), log.term(53)), ((50, 4), Some(4), Some(5), None));
    assert_eq!(log.hard_state().commit, 50);
    assert_eq!(log.entries(51, 53, 1000).unwrap().len(), 2);
}

#[test]
fn removed_group_stays_removed_and_frees_the_log() {
    let mut node = Node::fresh();
    node.store.create_group(2);
    node.append(2, 1, 100).unwrap();
    node.store.remove_group(2);
    node.commit().unwrap();
    let node = Node::open(&node.vfs.crash(CrashPlan::synced_only())).unwrap();
    assert_eq!(node.store.groups().collect::<Vec<_>>(), [1]);
}

#[test]
fn entries_leave_memory_above_the_budget_and_are_read_back() {
    let mut node = Node::fresh();
    for _ in 0..200 {
        node.append(1, 1, 100).unwrap();
    }
    assert!(node.store.memory_bytes() < 64 << 10, "{}", node.store.memory_bytes());
    assert_eq!(node.entries(1), (1..=200).map(|index| entry(1, index, 100)).collect::<Vec<_>>());
    // What is not written yet stays, whatever the budget.
    for index in 201..=300 {
        node.store.append(1, &[entry(1, index, 100)]);
    }
    let sealed = node.store.seal().unwrap();
    assert_eq!(node.entries(1).len(), 300);
    let written = node.writer.write(sealed, 0).unwrap();
    node.took(written);
    assert_eq!(node.entries(1), (1..=300).map(|index| entry(1, index, 100)).collect::<Vec<_>>());
}

#[test]
#[should_panic(expected = "does not follow")]
fn gap_in_a_groups_log_is_refused() {
    let mut node = Node::fresh();
    node.store.append(1, &[entry(1, 2, 10)]);
}

#[test]
#[should_panic(expected = "is committed")]
fn committed_entry_is_never_replaced() {
    let mut node = Node::fresh();
    node.append(1, 1, 10).unwrap();
    node.store.set_hard_state(1, HardState { term: 1, vote: 0, commit: 1 });
    node.store.append(1, &[entry(2, 1, 10)]);
}

#[test]
#[should_panic(expected = "voted twice")]
fn second_vote_in_a_term_is_refused() {
    let mut node = Node::fresh();
    node.store.set_hard_state(1, HardState { term: 1, vote: 1, commit: 0 });
    node.store.set_hard_state(1, HardState { term: 1, vote: 2, commit: 0 });
}

#[test]
fn crash_during_recovery_is_recovered_from() {
    // An unsynced tail is torn; the machine then stops at each change of the recovery, and again.
    for seed in 0..6 {
        let mut node = Node::fresh_with(weak(Durability::No));
        for _ in 0..10 {
            node.append(1, 1, 300).unwrap();
        }
        let written = node.writer.sync(0).unwrap();
        node.took(written);
        for _ in 0..10 {
            node.append(1, 1, 300).unwrap();
        }
        let mut vfs = node.vfs.crash(CrashPlan::power_cut(seed));
        for halt in 0..8 {
            vfs.halt_after(halt);
            let opened = Node::open(&vfs);
            if vfs.halted() {
                assert!(opened.is_err());
            }
            vfs = vfs.crash(CrashPlan { seed: seed + halt, data: Survival::Chance(50), names: Survival::Nothing });
        }
        let node = Node::open(&vfs).unwrap();
        let entries = node.entries(1);
        assert!(entries.len() >= 10);
        assert_eq!(entries, (1..=entries.len() as u64).map(|index| entry(1, index, 300)).collect::<Vec<_>>());
    }
}

#[test]
fn garbage_in_a_segment_is_refused_without_harm() {
    let (vfs, _, last) = several_segments();
    for number in [1, last] {
        let bytes = vfs.contents(&segment(number));
        for fill in [0u8, 0xff, b'H'] {
            let mut garbage = bytes.clone();
            garbage[HEAD as usize..].fill(fill);
            vfs.replace(&segment(number), &garbage);
            damaged(Node::open(&vfs));
            vfs.replace(&segment(number), &vec![fill; 1000]);
            damaged(Node::open(&vfs));
        }
        vfs.replace(&segment(number), &bytes);
    }
}

#[test]
fn foreign_files_in_the_folder_are_left_alone() {
    let (vfs, entries, _) = several_segments();
    for name in ["notes.txt", "1.wal", "zzzzzzzzzzzzzzzz.wal"] {
        vfs.replace(&dir().join(name), b"mine");
    }
    let file = vfs.open(Path::new("/data/wal/spare-0000000000000099.tmp"), true).unwrap();
    file.write_all_at(&[IoSlice::new(b"half filled")], 0).unwrap();
    assert_eq!(Node::open(&vfs).unwrap().entries(1), entries);
    assert_eq!(vfs.contents(&dir().join("notes.txt")), b"mine");
    assert!(!vfs.exists(&dir().join("spare-0000000000000099.tmp")).unwrap(), "a half-filled spare goes");
}
