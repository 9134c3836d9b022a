//! Records: beside the keys, in the same generations, and spared by FLUSHALL.

use super::*;
use crate::table::{RECORD_OVERHEAD_BYTES, RecordKey, RowSpace};

fn key(n: u8) -> RecordKey {
    RecordKey { slot: u16::from(n % 4) * 5000, name: [n; 24] }
}

fn put_record(table: &mut Table, n: u8, data: &str) {
    apply(table);
    table.put_record(key(n), data.as_bytes());
}

fn all(table: &Table) -> Vec<(RecordKey, Vec<u8>)> {
    table.records_after(None).map(|(key, data)| (*key, data.to_vec())).collect()
}

fn reopened(store: &MemStore, table: Table, tables: Tables) -> (Tables, Table) {
    drop((table, tables));
    open_on(Box::new(store.clone()), FlusherMode::Inline)
}

#[test]
fn records_are_no_keys_and_come_back_with_the_generation_that_they_were_in() {
    let store = MemStore::persistent();
    let (tables, mut table) = open_on(Box::new(store.clone()), FlusherMode::Inline);
    put(&mut table, "a", "1");
    put_record(&mut table, 1, "one");
    put_record(&mut table, 2, "two");
    flush(&mut table);
    table.delete_record(&key(2));
    put_record(&mut table, 3, "never flushed");
    assert_eq!((len(&mut table), scan_all(&table, 9).len(), table.records_len()), (1, 1, 2));
    let (tables, mut table) = reopened(&store, table, tables);
    assert_eq!(all(&table), [(key(1), b"one".to_vec()), (key(2), b"two".to_vec())]);
    assert_eq!(table.records_bytes(), 2 * (RECORD_OVERHEAD_BYTES + 3));
    // A generation of records alone.
    apply(&mut table);
    table.delete_record(&key(1));
    flush(&mut table);
    let (_tables, table) = reopened(&store, table, tables);
    assert_eq!(table.records_after(Some(key(1))).map(|(key, _)| *key).collect::<Vec<_>>(), [key(2)]);
    assert_eq!(table.record(&key(1)), None);
}

#[test]
fn flushall_leaves_records_where_they_are() {
    let store = MemStore::persistent();
    let (tables, mut table) = open_on(Box::new(store.clone()), FlusherMode::Inline);
    put(&mut table, "a", "1");
    put_record(&mut table, 1, "flushed before");
    flush(&mut table);
    put_record(&mut table, 2, "not yet");
    let index = apply(&mut table);
    table.flush_all(index);
    put_record(&mut table, 3, "after");
    assert_eq!((len(&mut table), table.records_len()), (0, 3));
    let seen = table.view().unwrap().rows(0, u16::MAX).map(Result::unwrap).map(|row| row.space).collect::<Vec<_>>();
    assert_eq!(seen, [RowSpace::Records; 3]);
    flush(&mut table);
    // Whatever swept up the old incarnation spared the new one's.
    flush(&mut table);
    let (_tables, table) = reopened(&store, table, tables);
    assert_eq!(table.records_len(), 3);
    assert_eq!(table.record(&key(1)), Some(b"flushed before".as_slice()));
}

#[test]
fn view_and_install_carry_records_behind_the_keys() {
    let (_source_tables, mut from) = open_on(Box::new(MemStore::persistent()), FlusherMode::Inline);
    for n in 0..20 {
        put(&mut from, &format!("key-{n}"), "value");
        put_record(&mut from, n, "stored");
    }
    flush(&mut from);
    put_record(&mut from, 3, "changed");
    from.delete_record(&key(4));
    put_record(&mut from, 40, "new");
    let view = from.view().unwrap();
    let expected = all(&from);
    put_record(&mut from, 3, "later");
    flush(&mut from);
    let rows: Vec<_> = view.rows(0, u16::MAX).map(Result::unwrap).collect();
    assert!(rows.is_sorted_by_key(|row| row.place()), "keys, then records");
    assert_eq!(rows.len(), 40);
    let of_slot = view.rows(5000, 5000).map(Result::unwrap).filter(|row| row.space == RowSpace::Records);
    assert!(of_slot.map(|row| row.slot).eq([5000; 5]), "a slot's records go with the slot");

    let store = MemStore::persistent();
    let (tables, mut table) = open_on(Box::new(store.clone()), FlusherMode::Inline);
    put_record(&mut table, 99, "of before");
    flush(&mut table);
    put_record(&mut table, 98, "of before, too");
    let target = Applied { index: 1_000, term: 3, stamp_ms: 5_000 };
    let job = table.install(&SnapshotHeader::whole(GROUP, target, 7), 1_000).unwrap();
    let installed = job.run(&mut view.rows(0, u16::MAX)).unwrap();
    table.finish_install(installed);
    assert_eq!(all(&table), expected);
    let (_tables, mut table) = reopened(&store, table, tables);
    assert_eq!((all(&table), len(&mut table)), (expected, 20));
}

#[test]
fn rows_that_are_no_records_are_refused() {
    let (_tables, mut table) = open_on(Box::new(MemStore::persistent()), FlusherMode::Inline);
    let target = Applied { index: 1_000, term: 3, stamp_ms: 5_000 };
    let row = |key: &[u8], bytes: usize| ViewRow {
        space: RowSpace::Records,
        slot: 1,
        hash: 0,
        key: key.into(),
        object: Object::string(vec![0; bytes].into()),
    };
    for row in [row(b"short", 1), row(&[1; 24], (1 << 20) + 1)] {
        let job = table.install(&SnapshotHeader::whole(GROUP, target, 7), 1_000).unwrap();
        assert!(job.run(&mut std::iter::once(Ok(row))).is_err());
    }
}

#[derive(Debug, Clone)]
enum Step {
    Put(u8, u8),
    Delete(u8),
    Key(u8),
    FlushAll,
    Flush,
    Reopen,
    Move,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..12u8, any::<u8>()).prop_map(|(n, value)| Step::Put(n, value)),
        2 => (0..12u8).prop_map(Step::Delete),
        2 => any::<u8>().prop_map(Step::Key),
        1 => Just(Step::FlushAll),
        2 => Just(Step::Flush),
        1 => Just(Step::Reopen),
        1 => Just(Step::Move),
    ]
}

proptest! {
    #[test]
    fn records_are_what_was_put_whatever_happens_below(steps in proptest::collection::vec(step(), 1..60)) {
        let mut model = BTreeMap::new();
        let mut store = MemStore::persistent();
        let (mut tables, mut table) = open_on(Box::new(store.clone()), FlusherMode::Inline);
        for step in steps {
            let index = apply(&mut table);
            match step {
                Step::Put(n, value) => {
                    table.put_record(key(n), &[value]);
                    model.insert(key(n), vec![value]);
                }
                Step::Delete(n) => {
                    table.delete_record(&key(n));
                    model.remove(&key(n));
                }
                Step::Key(n) => table.put(key_of(&n.to_string()).as_ref(), object("v", 0)),
                Step::FlushAll => table.flush_all(index),
                Step::Flush => flush(&mut table),
                Step::Reopen => {
                    flush(&mut table);
                    (tables, table) = reopened(&store, table, tables);
                }
                Step::Move => {
                    let view = table.view().unwrap();
                    store = MemStore::persistent();
                    let (other_tables, mut other) = open_on(Box::new(store.clone()), FlusherMode::Inline);
                    let job = other.install(&view.header(), table.incarnation() + 1).unwrap();
                    let installed = job.run(&mut view.rows(0, u16::MAX)).unwrap();
                    other.finish_install(installed);
                    (tables, table) = (other_tables, other);
                }
            }
            let expected: Vec<_> = model.clone().into_iter().collect();
            prop_assert_eq!(all(&table), expected);
        }
        drop(tables);
    }
}
