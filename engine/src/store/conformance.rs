//! What every checkpoint store is held to.

use super::*;
use crate::Result;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;

type Open<'a> = &'a dyn Fn() -> Box<dyn CheckpointStore>;

/// Runs `suite` over each store in a folder of its own. `open` opens the same store again.
fn over_every_store(suite: impl Fn(Open<'_>)) {
    let memory = MemStore::persistent();
    suite(&|| Box::new(memory.clone()));
    let dir = tempfile::tempdir().unwrap();
    suite(&|| Box::new(FjallStore::open(dir.path(), 1 << 20).unwrap()));
    let dir = tempfile::tempdir().unwrap();
    suite(&|| Box::new(SledStore::open(dir.path(), 1 << 20).unwrap()));
}

fn ingest(store: &dyn CheckpointStore, rows: &[(&str, Option<&str>)]) -> Result<()> {
    store.ingest(&mut |sink| {
        rows.iter().try_for_each(|(key, value)| match value {
            Some(value) => sink.put(key.as_bytes(), &value.as_bytes()[..1], &value.as_bytes()[1..]),
            None => sink.delete(key.as_bytes()),
        })
    })
}

fn all(rows: &dyn ReadRows) -> Vec<(String, String)> {
    let text = |bytes: &RowBytes| String::from_utf8(bytes.to_vec()).unwrap();
    rows.range(b"a", b"zz").map(|row| row.unwrap()).map(|(key, value)| (text(&key), text(&value))).collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn newest_generation_wins() {
    over_every_store(|open| {
        let store = open();
        ingest(&*store, &[("a", Some("1")), ("b", Some("1")), ("c", Some("1"))]).unwrap();
        ingest(&*store, &[("b", Some("two")), ("c", None), ("d", None), ("e", Some("3"))]).unwrap();
        assert_eq!(all(&*store), pairs(&[("a", "1"), ("b", "two"), ("e", "3")]));
        assert_eq!(store.get(b"b").unwrap().unwrap()[..], b"two"[..]);
        assert!(store.get(b"c").unwrap().is_none());
        assert_eq!(store.range(b"b", b"e").count(), 1, "the end is excluded");
        assert_eq!(store.range(b"e", b"b").count(), 0);
    });
}

#[test]
fn generations_are_there_when_the_store_is_opened_again() {
    over_every_store(|open| {
        ingest(&*open(), &[("a", Some("1"))]).unwrap();
        ingest(&*open(), &[("b", Some("2"))]).unwrap();
        assert_eq!(all(&*open()), pairs(&[("a", "1"), ("b", "2")]));
    });
}

#[test]
fn view_does_not_change() {
    over_every_store(|open| {
        let store = open();
        ingest(&*store, &[("a", Some("1")), ("b", Some("1"))]).unwrap();
        let view = store.view().unwrap();
        std::thread::scope(|scope| {
            // On a store without snapshots the generation waits for the view; on others it goes in beside it.
            let writer = scope.spawn(|| ingest(&*store, &[("a", Some("2")), ("b", None), ("c", Some("2"))]));
            if store.durability() == Durability::PowerCut {
                while store.get(b"c").unwrap().is_none() {}
            }
            assert_eq!(all(&*view), pairs(&[("a", "1"), ("b", "1")]));
            assert!(view.get(b"c").unwrap().is_none());
            drop(view);
            writer.join().unwrap().unwrap();
        });
        assert_eq!(all(&*store), pairs(&[("a", "2"), ("c", "2")]));
    });
}

#[test]
fn rows_out_of_order_are_refused() {
    over_every_store(|open| {
        let store = open();
        for rows in [[("b", Some("1")), ("a", Some("1"))], [("b", Some("1")), ("b", None)]] {
            let error = ingest(&*store, &rows).unwrap_err().to_string();
            assert!(error.contains("does not come after"), "{error}");
        }
        assert_eq!(all(&*store), [], "and nothing of the generation is there");
        ingest(&*store, &[("a", Some("1"))]).unwrap();
    });
}

#[test]
fn too_long_key_is_refused() {
    over_every_store(|open| {
        let store = open();
        let longest = "k".repeat(ROW_KEY_BYTES_MAX);
        ingest(&*store, &[(&longest, Some("1"))]).unwrap();
        assert!(store.get(longest.as_bytes()).unwrap().is_some());
        assert!(ingest(&*store, &[(&"k".repeat(ROW_KEY_BYTES_MAX + 1), Some("1"))]).is_err());
    });
}

#[test]
fn failed_generation_leaves_the_store_usable() {
    over_every_store(|open| {
        let store = open();
        let failure = || crate::Error::Locked { path: Path::new("x").to_path_buf() };
        let failed = store.ingest(&mut |sink| sink.put(b"a", b"1", b"").and(Err(failure())));
        assert!(matches!(failed, Err(crate::Error::Locked { .. })));
        assert!(store.get(b"a").unwrap().is_none());
        ingest(&*store, &[("a", Some("2"))]).unwrap();
        assert_eq!(all(&*store), pairs(&[("a", "2")]));
    });
}

#[test]
fn large_values_and_empty_ones_come_back() {
    over_every_store(|open| {
        let store = open();
        let large: Vec<u8> = (0..3 << 20).map(|n: u32| (n % 251) as u8).collect();
        store
            .ingest(&mut |sink| {
                sink.put(b"empty", b"", b"")?;
                sink.put(b"large", b"head", &large)
            })
            .unwrap();
        drop(store);
        let store = open();
        assert_eq!(store.get(b"empty").unwrap().unwrap().len(), 0);
        let value = store.get(b"large").unwrap().unwrap();
        assert!(value[..4] == *b"head" && value[4..] == large[..]);
    });
}

#[test]
fn empty_generation_is_fine() {
    over_every_store(|open| {
        let store = open();
        ingest(&*store, &[]).unwrap();
        assert_eq!(all(&*store), []);
    });
}

#[test]
fn reading_while_producing_sees_the_store_before() {
    over_every_store(|open| {
        let store = open();
        ingest(&*store, &[("a", Some("1"))]).unwrap();
        store
            .ingest(&mut |sink| {
                sink.put(b"a", b"2", b"")?;
                assert_eq!(store.get(b"a")?.unwrap()[..], b"1"[..]);
                sink.put(b"b", b"2", b"")
            })
            .unwrap();
        assert_eq!(all(&*store), pairs(&[("a", "2"), ("b", "2")]));
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10, max_shrink_iters: 50, ..ProptestConfig::default() })]
    #[test]
    fn stores_agree_with_a_map(generations in proptest::collection::vec(
        proptest::collection::btree_map("[a-f]{1,4}", proptest::option::of("[0-9]{1,40}"), 0..60), 1..8)
    ) {
        over_every_store(|open| {
            let mut model = BTreeMap::new();
            for generation in &generations {
                let rows: Vec<_> = generation.iter().map(|(key, value)| (key.as_str(), value.as_deref())).collect();
                ingest(&*open(), &rows).unwrap();
                for (key, value) in generation {
                    match value {
                        Some(value) => drop(model.insert(key.clone(), value.clone())),
                        None => drop(model.remove(key)),
                    }
                }
            }
            assert_eq!(all(&*open()), model.clone().into_iter().collect::<Vec<_>>());
        });
    }
}
