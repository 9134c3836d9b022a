//! Heads fetched in the place of values, and keys that must stay resident between being looked at and being applied to.

use super::*;

fn table() -> (Tables, Table) {
    open_on(Box::new(MemStore::persistent()), FlusherMode::Inline)
}

/// As a full cache would.
fn evict(table: &Table, name: &str) {
    table.shared.cache.remove(GROUP, table.incarnation(), name.as_bytes());
}

fn fetch_head(table: &Table, name: &str) -> Fetched {
    table.fetcher().fetch_head(key_of(name)).unwrap()
}

/// A key with a value that only the store knows.
fn cold(table: &mut Table, name: &str, value: &str, deadline_ms: u64) -> OwnedKey {
    let key = key_of(name);
    apply(table);
    table.put(key.as_ref(), object(value, deadline_ms));
    flush(table);
    evict(table, name);
    assert_eq!(table.look(key.as_ref()), None);
    key
}

#[test]
fn head_tells_all_but_the_data() {
    let (_tables, mut table) = table();
    let key = cold(&mut table, "k", "value", 9_000);
    let fetched = fetch_head(&table, "k");
    assert_eq!(fetched.data_bytes(), 0);
    assert_eq!(table.admit(fetched), Admitted::Resident);
    let head = Head { kind: ObjectKind::String, deadline_ms: 9_000, data_bytes: 5 };
    assert_eq!(table.look(key.as_ref()), Some(Look { head: Some(head), has_data: false, fleeting: true }));
    assert_eq!(table.head(key.as_ref()).unwrap(), Some(head));
    assert_eq!(table.peek(key.as_ref()), Peek::Unknown, "whoever wants the data must fetch it");
    assert_eq!(table.stats().blocking_reads, 0);
    assert_eq!(get(&mut table, "k").as_deref(), Some("value"));
    assert_eq!(table.stats().blocking_reads, 1);
    table.unpin(key.as_ref());
}

#[test]
fn head_of_a_long_key_is_found_in_its_bucket() {
    let (_tables, mut table) = table();
    let name = "k".repeat(40 << 10);
    let key = cold(&mut table, &name, "value", 7_000);
    let fetched = fetch_head(&table, &name);
    assert_eq!(fetched.head().map(|head| (head.deadline_ms, head.data_bytes)), Some((7_000, 5)));
    assert_eq!(table.admit(fetched), Admitted::Resident);
    table.unpin(key.as_ref());
    assert_eq!(fetch_head(&table, &"x".repeat(40 << 10)).head(), None);
}

#[test]
fn pinned_head_is_enough_to_delete_and_to_count() {
    let (_tables, mut table) = table();
    for name in ["a", "b", "c"] {
        cold(&mut table, name, "value", 5_000);
    }
    for name in ["a", "b", "absent"] {
        let fetched = fetch_head(&table, name);
        assert_eq!(table.admit(fetched), Admitted::Resident);
        evict(&table, name);
    }
    for name in ["a", "absent"] {
        apply(&mut table);
        table.delete(key_of(name).as_ref());
    }
    assert!(matches!(table.len().unwrap(), Len::Exact(2)), "the heads said what was below");
    for name in ["a", "b", "absent"] {
        table.unpin(key_of(name).as_ref());
    }
    flush(&mut table);
    assert_eq!(len(&mut table), 2);
    assert_eq!(expired(&mut table, 6_000), ["b", "c"], "the deadline of what was deleted went with it");
    let stats = table.stats();
    assert_eq!((stats.blocking_reads, stats.pins, stats.pinned_bytes, stats.fetched_bytes), (0, 0, 0, 0));
    assert_eq!(table.shared.ledger.held(Category::Pins), 0);
}

#[test]
fn slow_head_does_not_bring_back_what_was_overwritten() {
    let (_tables, mut table) = table();
    let key = cold(&mut table, "k", "old", 0);
    let slow = fetch_head(&table, "k");

    put(&mut table, "k", "newer");
    assert_eq!(table.admit(slow.clone()), Admitted::Resident);
    assert_eq!(table.head(key.as_ref()).unwrap().map(|head| head.data_bytes), Some(5));
    table.unpin(key.as_ref());

    flush(&mut table);
    assert_eq!(table.admit(slow), Admitted::Retry, "its overwriting is in no memtable any more");
    evict(&table, "k");
    assert_eq!(fetch_head(&table, "k").head().map(|head| head.data_bytes), Some(5));
}

#[test]
fn slow_head_from_before_a_flush_all_finds_nothing() {
    let (_tables, mut table) = table();
    let key = cold(&mut table, "k", "old", 0);
    let slow = fetch_head(&table, "k");
    let index = apply(&mut table);
    table.flush_all(index);
    assert_eq!(table.admit(slow), Admitted::Resident);
    assert_eq!(table.head(key.as_ref()).unwrap(), None);
    table.unpin(key.as_ref());
}

#[test]
fn head_does_not_take_the_place_of_a_value() {
    let (_tables, mut table) = table();
    let key = cold(&mut table, "k", "value", 0);
    let head = fetch_head(&table, "k");
    let value = table.fetcher().fetch(key.clone()).unwrap();
    assert_eq!(table.admit(value), Admitted::Resident);
    assert_eq!(table.admit(head.clone()), Admitted::Resident);
    assert_eq!(table.peek(key.as_ref()), Peek::Found(object("value", 0)));
    evict(&table, "k");
    assert_eq!(table.peek(key.as_ref()), Peek::Found(object("value", 0)), "both pins have the data");
    table.unpin(key.as_ref());
    table.unpin(key.as_ref());

    assert_eq!(table.admit(head), Admitted::Resident);
    let value = table.fetcher().fetch(key.clone()).unwrap();
    assert_eq!(table.admit(value), Admitted::Resident);
    evict(&table, "k");
    assert_eq!(table.peek(key.as_ref()), Peek::Found(object("value", 0)), "the value came after the head");
}

#[test]
fn held_key_stays_when_the_cache_forgets_it() {
    let (_tables, mut table) = table();
    let key = cold(&mut table, "k", "value", 0);
    assert!(!table.hold(key.as_ref()), "only the store knows it");
    assert_eq!(get(&mut table, "k").as_deref(), Some("value"));
    let blocking = table.stats().blocking_reads;
    assert!(table.look(key.as_ref()).unwrap().fleeting);
    assert!(table.hold(key.as_ref()));
    evict(&table, "k");
    assert_eq!(table.peek(key.as_ref()), Peek::Found(object("value", 0)));
    assert!(table.stats().pinned_bytes > 5);
    assert_eq!(table.take(key.as_ref()).unwrap(), Some(object("value", 0)));
    assert_eq!(table.stats().blocking_reads, blocking);
    table.unpin(key.as_ref());
    assert_eq!(table.stats().pinned_bytes, 0);
    assert_eq!(table.peek(key.as_ref()), Peek::Absent);
}

#[test]
fn held_key_stays_when_its_memtable_is_let_go() {
    let (_tables, mut table) = table();
    put(&mut table, "k", "value");
    let key = key_of("k");
    assert!(!table.look(key.as_ref()).unwrap().fleeting, "the memtable that takes writes has it");
    table.request_flush();
    table.maintain(1_000, 0).unwrap();
    assert!(table.look(key.as_ref()).unwrap().fleeting);
    assert!(table.hold(key.as_ref()));
    // An absent key of a slot that is empty only until the memtable reaches the store.
    let other = OwnedKey { key: b"other".as_slice().into(), ..key.clone() };
    assert!(table.look(other.as_ref()).unwrap().fleeting);
    assert!(table.hold(other.as_ref()));
    table.maintain(1_000, u64::MAX).unwrap();
    evict(&table, "k");
    assert_eq!(table.peek(key.as_ref()), Peek::Found(object("value", 0)));
    assert_eq!(table.peek(other.as_ref()), Peek::Absent);
    table.unpin(key.as_ref());
    table.unpin(other.as_ref());
    assert_eq!(table.peek(key.as_ref()), Peek::Unknown);
    assert_eq!(table.peek(other.as_ref()), Peek::Unknown);
}

#[test]
fn value_too_large_for_the_cache_leaves_its_head() {
    let (_tables, mut table) = table();
    let large = "x".repeat(100 << 10);
    put(&mut table, "k", &large);
    flush(&mut table);
    let key = key_of("k");
    assert_eq!(table.peek(key.as_ref()), Peek::Unknown);
    assert_eq!(table.head(key.as_ref()).unwrap().map(|head| head.data_bytes), Some(100 << 10));
    apply(&mut table);
    table.delete(key.as_ref());
    assert!(matches!(table.len().unwrap(), Len::Exact(0)));
    assert_eq!(table.stats().blocking_reads, 0);
}
