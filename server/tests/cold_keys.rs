//! Keys whose large values are on disk only: asking about them does not load them, and loading has bounds.

mod common;

use common::resp::{Client, Value, encode};
use common::{Server, folder};
use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;

const KEYS: usize = 40;
const VALUE_BYTES: usize = 1_000_000;
/// The least memory, so that most values are on disk only, and replies of at most four values.
const ARGS: [&str; 6] = ["--memory-budget", "32MiB", "--value-bytes-max", "1MiB", "--output-bytes-max", "4MiB"];

fn key(at: usize) -> Vec<u8> {
    format!("key:{at}").into_bytes()
}

fn value(at: usize) -> Vec<u8> {
    format!("{at};").into_bytes().into_iter().cycle().take(VALUE_BYTES).collect()
}

/// A server that has just started over large values, of which most are in its store.
fn cold_server(dir: &Path) -> Server {
    let server = Server::start_with(dir, &ARGS);
    let mut client = Client::connect(server.address);
    for at in 0..KEYS {
        assert!(client.call(&[b"SET", &key(at), &value(at), b"PXAT", b"4102444800000"]).is_ok());
    }
    assert!(server.terminate().success());
    let server = Server::start_with(dir, &ARGS);
    let mut client = Client::connect(server.address);
    assert_eq!(fetched_bytes(&mut client), 0);
    server
}

fn figure(client: &mut Client, name: &str) -> usize {
    let info = client.run("INFO engine").text();
    let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("{name} in {info}")).parse().expect("a number")
}

/// Bytes of values that the server has read from its store.
fn fetched_bytes(client: &mut Client) -> usize {
    figure(client, "store_fetched_bytes")
}

fn on_all_keys(command: &str) -> Vec<Vec<u8>> {
    std::iter::once(command.as_bytes().to_vec()).chain((0..KEYS).map(key)).collect()
}

fn call(client: &mut Client, args: &[Vec<u8>]) -> Value {
    client.call(&args.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

#[test]
fn asking_about_cold_values_does_not_load_them() {
    let dir = folder();
    let server = cold_server(dir.path());
    let mut client = Client::connect(server.address);
    assert_eq!(call(&mut client, &on_all_keys("EXISTS")), Value::Int(KEYS as i64));
    assert_eq!(call(&mut client, &on_all_keys("TOUCH")), Value::Int(KEYS as i64));
    // Pipelined, so that later commands' keys are looked up along with the first's.
    let mut batch = Vec::new();
    for at in 0..KEYS {
        for command in [&b"STRLEN"[..], b"PEXPIRETIME", b"TYPE"] {
            batch.extend(encode(&[command, &key(at)]));
        }
        batch.extend(encode(&[b"SETNX", &key(at), b"other"]));
        batch.extend(encode(&[b"SET", &key(at), b"other", b"NX"]));
    }
    client.socket().write_all(&batch).expect("send");
    for _ in 0..KEYS {
        assert_eq!(client.reply(), Value::Int(VALUE_BYTES as i64));
        assert_eq!(client.reply(), Value::Int(4_102_444_800_000));
        assert_eq!(client.reply().text(), "string");
        assert_eq!(client.reply(), Value::Int(0));
        assert_eq!(client.reply(), Value::NullBulk);
    }
    let mut names = on_all_keys("DEL");
    names.extend((0..KEYS).map(|at| format!("absent:{at}").into_bytes()));
    let kept = names.remove(1);
    assert_eq!(call(&mut client, &names), Value::Int(KEYS as i64 - 1));
    assert_eq!(client.run("DBSIZE"), Value::Int(1));
    assert_eq!(fetched_bytes(&mut client), 0, "no value was read");
    assert_eq!(figure(&mut client, "store_blocking_reads"), 0);
    assert_eq!(figure(&mut client, "pinned_bytes"), 0);
    assert!(client.call(&[b"GET", &kept]).bytes() == value(0));
    assert!(fetched_bytes(&mut client) >= VALUE_BYTES, "the value was cold");

    server.kill();
    let server = Server::start_with(dir.path(), &ARGS);
    let mut client = Client::connect(server.address);
    assert_eq!(call(&mut client, &on_all_keys("EXISTS")), Value::Int(1), "what was deleted stays so");
    assert_eq!(client.run("DBSIZE"), Value::Int(1));
}

#[test]
fn loading_more_than_a_reply_may_hold_is_refused_early() {
    let dir = folder();
    let server = cold_server(dir.path());
    let mut client = Client::connect(server.address);
    let refusal = call(&mut client, &on_all_keys("MGET"));
    assert!(matches!(&refusal, Value::Error(_)) && refusal.to_string().contains("output-bytes-max"), "{refusal}");
    let fetched = fetched_bytes(&mut client);
    assert!(fetched < 12 * VALUE_BYTES, "{fetched} bytes were loaded for nothing");
    assert_eq!(figure(&mut client, "pinned_bytes"), 0);
    // The same with a pipeline around it, and with a write.
    let mut batch = encode(&[b"SET", b"small", b"v"]);
    batch.extend(encode(&on_all_keys("MGET").iter().map(Vec::as_slice).collect::<Vec<_>>()));
    let mut bitop = on_all_keys("BITOP");
    bitop.splice(1..1, [b"OR".to_vec(), b"target".to_vec()]);
    batch.extend(encode(&bitop.iter().map(Vec::as_slice).collect::<Vec<_>>()));
    batch.extend(encode(&[b"MGET", &key(0), b"small", &key(1)]));
    client.socket().write_all(&batch).expect("send");
    assert!(client.reply().is_ok());
    assert!(matches!(client.reply(), Value::Error(_)));
    assert!(matches!(client.reply(), Value::Error(_)));
    let Value::Array(found) = client.reply() else { panic!("no array") };
    assert!(found[0].bytes() == value(0) && found[1].text() == "v" && found[2].bytes() == value(1));
    assert_eq!(client.run("EXISTS target"), Value::Int(0));
    assert_eq!(figure(&mut client, "pinned_bytes"), 0);
    // One that is in memory altogether and too much for a reply.
    let mut many = vec![b"MGET".to_vec()];
    many.extend(std::iter::repeat_n(b"medium".to_vec(), 1000));
    assert!(client.call(&[b"SET", b"medium", &vec![b'm'; 10_000]]).is_ok());
    assert!(matches!(call(&mut client, &many), Value::Error(_)));
    assert_eq!(client.run("GET small").text(), "v", "the connection goes on");
}

#[test]
fn cold_keys_are_deleted_once_and_overwritten_for_good() {
    const CLIENTS: usize = 4;
    let dir = folder();
    let server = cold_server(dir.path());
    let (overwritten, deleted) = (0..KEYS / 2, KEYS / 2..KEYS);
    std::thread::scope(|scope| {
        let writer = {
            let (address, overwritten) = (server.address, overwritten.clone());
            scope.spawn(move || {
                let mut client = Client::connect(address);
                for at in overwritten {
                    assert!(client.call(&[b"SET", &key(at), b"new"]).is_ok());
                }
            })
        };
        let readers = (0..CLIENTS).map(|_| {
            let (address, overwritten) = (server.address, overwritten.clone());
            scope.spawn(move || {
                let mut client = Client::connect(address);
                let mut done = BTreeSet::new();
                while done.len() < overwritten.len() {
                    for at in overwritten.clone() {
                        match client.call(&[b"STRLEN", &key(at)]).int() {
                            3 => drop(done.insert(at)),
                            len => {
                                assert_eq!(len, VALUE_BYTES as i64);
                                assert!(!done.contains(&at), "key {at} became what it had been");
                            }
                        }
                    }
                }
            })
        });
        let readers: Vec<_> = readers.collect();
        let deleters = (0..CLIENTS).map(|first| {
            let (address, deleted) = (server.address, deleted.clone());
            scope.spawn(move || {
                let mut client = Client::connect(address);
                // Each begins somewhere else, and some ask for several keys at once.
                let mut names: Vec<Vec<u8>> = deleted.map(key).collect();
                names.rotate_left(first * 3);
                let mut count = 0;
                for names in names.chunks(1 + first * 2) {
                    let args: Vec<Vec<u8>> = std::iter::once(b"DEL".to_vec()).chain(names.iter().cloned()).collect();
                    count += call(&mut client, &args).int();
                }
                count
            })
        });
        let deleters: Vec<_> = deleters.collect();
        let count: i64 = deleters.into_iter().map(|thread| thread.join().expect("deleter")).sum();
        assert_eq!(count, deleted.len() as i64, "each key is deleted by one client");
        writer.join().expect("writer");
        readers.into_iter().for_each(|thread| thread.join().expect("reader"));
    });
    let mut client = Client::connect(server.address);
    assert_eq!(client.run("DBSIZE"), Value::Int(overwritten.len() as i64));
    assert_eq!(fetched_bytes(&mut client), 0);
}

#[test]
fn writes_of_keys_that_the_cache_forgets_do_not_block_on_the_store() {
    // Values that the cache takes, but not all of them: while one connection's are being read, another's are evicted.
    const CLIENTS: usize = 6;
    const EACH: usize = 60;
    let dir = folder();
    let server = Server::start_with(dir.path(), &ARGS);
    let name = |client: usize, at: usize| format!("{client}:{at}").into_bytes();
    let filled = |at: usize| vec![b'a' + (at % 26) as u8; 100_000];
    let mut client = Client::connect(server.address);
    for owner in 0..CLIENTS {
        for at in 0..EACH {
            assert!(client.call(&[b"SET", &name(owner, at), &filled(at)]).is_ok());
        }
    }
    std::thread::scope(|scope| {
        for owner in 0..CLIENTS {
            let address = server.address;
            scope.spawn(move || {
                let mut client = Client::connect(address);
                for round in 0..2 {
                    let mut batch = Vec::new();
                    for at in 0..EACH {
                        batch.extend(encode(&[b"GETRANGE", &name(owner, at), b"-1", b"-1"]));
                        batch.extend(encode(&[b"APPEND", &name(owner, at), b"."]));
                    }
                    client.socket().write_all(&batch).expect("send");
                    for at in 0..EACH {
                        let last = if round == 0 { filled(at)[0] } else { b'.' };
                        assert_eq!(client.reply().bytes(), [last]);
                        assert_eq!(client.reply().int() as usize, 100_001 + round);
                    }
                }
            });
        }
    });
    assert!(fetched_bytes(&mut client) > 0, "some were cold");
    assert_eq!(figure(&mut client, "store_blocking_reads"), 0);
    assert_eq!(figure(&mut client, "pinned_bytes"), 0);
}
