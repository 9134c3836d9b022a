//! What the process takes, as the system sees it, beside the budget that it was given.

mod common;

use common::resp::{Client, encode};
use common::{Server, eventually, folder, resident_bytes};
use std::io::Write;

const MIB: usize = 1 << 20;
const BUDGET: usize = 32 * MIB;
/// What the process may take beyond its budget: the program itself, threads, buffers, what the store needs while it merges its
/// files, and what the allocator keeps. The page on operations tells users of it.
const FIXED: usize = 64 * MIB;

const ARGS: [&str; 8] = [
    "--memory-budget",
    "32MiB",
    "--value-bytes-max",
    "1MiB",
    "--log-segment-bytes",
    "4MiB",
    "--log-bytes-max",
    "16MiB",
];

/// Values that don't compress, so that the store has as much to hold as it seems.
fn value(seed: usize, bytes: usize) -> Vec<u8> {
    let mut state = seed as u64 | 1 << 40;
    let words = (0..bytes.div_ceil(8)).flat_map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.take(bytes).collect()
}

/// Loads a multiple of the budget, reads all of it twice, and looks at the process all the while.
fn load_and_read(keys: usize, value_bytes: usize) {
    let dir = folder();
    let server = Server::start_with(dir.path(), &ARGS);
    let mut client = Client::connect(server.address);
    let mut most = 0;
    let mut look = |when: &str| {
        let resident = resident_bytes(server.pid());
        most = most.max(resident);
        assert!(resident < BUDGET + FIXED, "{when}: {} MiB are resident", resident / MIB);
    };
    let name = |at: usize| format!("key:{at}").into_bytes();
    let batch_keys = (MIB / value_bytes).max(1);
    let all: Vec<usize> = (0..keys).collect();
    for part in all.chunks(batch_keys) {
        let batch: Vec<u8> =
            part.iter().flat_map(|&at| encode(&[b"SET", &name(at), &value(at, value_bytes)])).collect();
        client.socket().write_all(&batch).expect("send");
        part.iter().for_each(|_| assert!(client.reply().is_ok()));
        look("while loading");
    }
    for _ in 0..2 {
        for part in all.chunks(batch_keys) {
            let batch: Vec<u8> = part.iter().flat_map(|&at| encode(&[b"GET", &name(at)])).collect();
            client.socket().write_all(&batch).expect("send");
            for &at in part {
                assert!(client.reply().bytes() == value(at, value_bytes), "key {at} is wrong");
            }
            look("while reading");
        }
    }
    println!("{keys} values of {value_bytes} bytes: {} MiB at most", most / MIB);
}

#[test]
fn small_values_beyond_the_budget_leave_memory_bounded() {
    load_and_read(300_000, 200);
}

#[test]
fn medium_values_beyond_the_budget_leave_memory_bounded() {
    load_and_read(8_000, 16_000);
}

#[test]
fn large_values_beyond_the_budget_leave_memory_bounded() {
    load_and_read(150, 900_000);
}

/// MemPut of MIT's course: a value of ten MiB that is written over by a small one is gone from memory.
#[test]
fn large_value_that_is_written_over_gives_its_memory_back() {
    let dir = folder();
    let server = Server::start_with(dir.path(), &["--memory-budget", "128MiB", "--value-bytes-max", "16MiB"]);
    let mut client = Client::connect(server.address);
    let used = |client: &mut Client| -> usize {
        let info = client.run("INFO memory").text();
        let line = info.lines().find_map(|line| line.strip_prefix("used_memory:")).expect("used_memory");
        line.parse().expect("a number")
    };
    let before = used(&mut client);
    for seed in 0..10 {
        assert!(client.call(&[b"SET", b"large", &value(seed, 10 * MIB)]).is_ok());
        let resident = resident_bytes(server.pid());
        assert!(resident < 128 * MIB + FIXED, "{} MiB are resident", resident / MIB);
    }
    assert!(used(&mut client) >= before + 10 * MIB, "it was nowhere in memory");
    assert!(client.run("SET large small").is_ok());
    eventually("the memory is back", || used(&mut client) < before + 2 * MIB);
    assert_eq!(client.run("GET large").text(), "small");
}
