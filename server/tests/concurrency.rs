//! Many clients at once: what one was told holds for all others from then on.

mod common;

use common::resp::{Client, Value, encode};
use common::{PATIENCE, Server, folder};
use redis::Commands;
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Instant;

#[test]
fn increments_of_many_clients_sum_exactly() {
    const CLIENTS: i64 = 16;
    const ROUNDS: i64 = 60;
    const DEPTH: i64 = 10;
    let dir = folder();
    let server = Server::start(dir.path());
    let seen = Mutex::new(BTreeSet::new());
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut redis = server.connect();
                let mut mine: Vec<i64> = Vec::new();
                for _ in 0..ROUNDS {
                    let mut pipe = redis::pipe();
                    for _ in 0..DEPTH {
                        pipe.incr("count", 1);
                    }
                    let replies: Vec<i64> = pipe.query(&mut redis).expect("incr");
                    mine.extend(replies);
                }
                assert!(mine.is_sorted(), "a connection's replies are out of order");
                seen.lock().expect("lock").extend(mine);
            });
        }
    });
    let total = CLIENTS * ROUNDS * DEPTH;
    assert_eq!(server.connect().get::<_, i64>("count").expect("get"), total);
    assert!(seen.into_inner().expect("lock").into_iter().eq(1..=total), "each number was given out once");
}

#[test]
fn compare_and_set_loses_no_update() {
    let dir = folder();
    let server = Server::start(dir.path());
    let _: () = server.connect().set("n", 0).expect("set");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut redis = server.connect();
                let mut won = 0;
                while won < 50 {
                    let old: i64 = redis.get("n").expect("get");
                    let answer: i64 = redis::cmd("CAS").arg("n").arg(old).arg(old + 1).query(&mut redis).expect("cas");
                    assert!(answer == 0 || answer == 1, "{answer}");
                    won += answer;
                }
            });
        }
    });
    assert_eq!(server.connect().get::<_, i64>("n").expect("get"), 8 * 50);
}

#[test]
fn lock_has_one_holder_at_a_time() {
    let dir = folder();
    let server = Server::start(dir.path());
    let inside = AtomicI64::new(0);
    std::thread::scope(|scope| {
        for holder in 0..6 {
            let (server, inside) = (&server, &inside);
            scope.spawn(move || {
                let mut redis = server.connect();
                let mut held = 0;
                let started = Instant::now();
                while held < 20 {
                    assert!(started.elapsed() < PATIENCE, "the lock is not given on");
                    let token = format!("{holder}:{held}");
                    if !redis.set_nx::<_, _, bool>("lock", &token).expect("setnx") {
                        continue;
                    }
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two holders");
                    // What the lock protects: a counter that is read and written in two steps.
                    let count: i64 = redis.get::<_, Option<i64>>("protected").expect("get").unwrap_or(0);
                    let _: () = redis.set("protected", count + 1).expect("set");
                    assert_eq!(inside.fetch_sub(1, Ordering::SeqCst), 1);
                    let other = redis::cmd("DELIFEQ").arg("lock").arg("another").query::<i64>(&mut redis);
                    assert_eq!(other.expect("delifeq"), 0, "a lock is not freed by another");
                    let freed = redis::cmd("DELIFEQ").arg("lock").arg(&token).query::<i64>(&mut redis);
                    assert_eq!(freed.expect("delifeq"), 1);
                    held += 1;
                }
            });
        }
    });
    assert_eq!(server.connect().get::<_, i64>("protected").expect("get"), 6 * 20);
}

#[test]
fn acknowledged_write_is_seen_on_every_connection() {
    let dir = folder();
    let server = Server::start(dir.path());
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for at in 0..2 {
            let (server, done) = (&server, &done);
            scope.spawn(move || {
                // Others keep the server busy.
                let mut redis = server.connect();
                let mut count = 0;
                while !done.load(Ordering::Relaxed) {
                    count += 1;
                    let _: () = redis.set(format!("noise:{at}"), count).expect("set");
                }
            });
        }
        let mut writer = Client::connect(server.address);
        let mut readers: Vec<Client> = (0..4).map(|_| Client::connect(server.address)).collect();
        for round in 0..200 {
            let value = round.to_string();
            assert!(writer.run(&format!("SET k {value}")).is_ok());
            for reader in &mut readers {
                assert_eq!(reader.run("GET k").bytes(), value.as_bytes());
            }
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn reads_never_go_back() {
    let dir = folder();
    let server = Server::start(dir.path());
    let _: () = server.connect().set("n", 0).expect("set");
    // The largest number that anyone has been told.
    let told = AtomicI64::new(0);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut redis = server.connect();
                while !done.load(Ordering::Relaxed) {
                    let least = told.load(Ordering::SeqCst);
                    let found: i64 = redis.get("n").expect("get");
                    assert!(found >= least, "{found} was read after {least}");
                    told.fetch_max(found, Ordering::SeqCst);
                }
            });
        }
        let mut redis = server.connect();
        for _ in 0..1000 {
            let now: i64 = redis.incr("n", 1).expect("incr");
            told.fetch_max(now, Ordering::SeqCst);
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn mset_is_seen_whole_or_not_at_all() {
    let dir = folder();
    let server = Server::start(dir.path());
    let _: () = server.connect().mset(&[("a", 0), ("b", 0), ("c", 0)]).expect("mset");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut redis = server.connect();
                while !done.load(Ordering::Relaxed) {
                    let found: Vec<i64> = redis.mget(&["a", "b", "c"]).expect("mget");
                    assert!(found.iter().all(|value| *value == found[0]), "{found:?}");
                }
            });
        }
        let mut redis = server.connect();
        for round in 1..500 {
            let _: () = redis.mset(&[("a", round), ("b", round), ("c", round)]).expect("mset");
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn key_once_reported_expired_is_gone_for_everyone() {
    let dir = folder();
    let server = Server::start(dir.path());
    let mut writer = Client::connect(server.address);
    let mut readers: Vec<Client> = (0..3).map(|_| Client::connect(server.address)).collect();
    for round in 0..30 {
        let key = format!("key:{round}");
        assert!(writer.run(&format!("SET {key} v PX 3")).is_ok());
        let get = format!("GET {key}");
        let started = Instant::now();
        let mut at = 0;
        while readers[at].run(&get) != Value::NullBulk {
            assert!(started.elapsed() < PATIENCE, "{key} does not expire");
            at = (at + 1) % readers.len();
        }
        for reader in &mut readers {
            assert_eq!(reader.run(&get), Value::NullBulk, "{key} came back");
        }
        assert_eq!(writer.run(&format!("APPEND {key} x")), Value::Int(1), "{key} still had its value");
    }
}

#[test]
fn turn_of_many_connections_keeps_each_ones_order() {
    let dir = folder();
    let server = Server::start(dir.path());
    let mut clients: Vec<Client> = (0..30).map(|_| Client::connect(server.address)).collect();
    for client in &mut clients {
        assert_eq!(client.run("PING"), Value::Simple("PONG".into()));
    }
    // While the server stands still all of them send; then it finds everything at once.
    server.signal("STOP");
    for (at, client) in clients.iter_mut().enumerate() {
        let key = format!("key:{at}");
        let mut batch = Vec::new();
        for step in 0..20 {
            let value = format!("{at}:{step}");
            batch.extend(encode(&[b"SET", key.as_bytes(), value.as_bytes()]));
            batch.extend(encode(&[b"GET", key.as_bytes()]));
            batch.extend(encode(&[b"INCR", b"shared"]));
        }
        client.send(&batch);
    }
    server.signal("CONT");
    let mut numbers = BTreeSet::new();
    for (at, client) in clients.iter_mut().enumerate() {
        let mut before = 0;
        for step in 0..20 {
            assert!(client.reply().is_ok());
            assert_eq!(client.reply().bytes(), format!("{at}:{step}").as_bytes());
            let number = client.reply().int();
            assert!(number > before, "{number} after {before}");
            before = number;
            numbers.insert(number);
        }
    }
    assert!(numbers.into_iter().eq(1..=600));
}
