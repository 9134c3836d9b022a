//! Faults that were found by trying to break the server, each with its reproducer.

mod common;

use common::resp::encode;
use common::{Server, exchange, folder};
use std::io::{Read, Write};
use std::net::Shutdown;

/// What comes until the server closes.
fn answers_to(server: &Server, request: &[u8]) -> String {
    let mut socket = server.socket();
    socket.write_all(request).expect("send");
    socket.shutdown(Shutdown::Write).expect("half close");
    let mut reply = String::new();
    socket.read_to_string(&mut reply).expect("replies");
    reply
}

/// A client that closed its sending half was cut off before commands that it had sent were run.
#[test]
fn what_was_asked_before_a_half_close_is_answered() {
    let dir = folder();
    let server = Server::start(dir.path());
    assert_eq!(answers_to(&server, b"SET a 1\r\nPING\r\nSET b 2\r\n"), "+OK\r\n+PONG\r\n+OK\r\n");
    assert_eq!(answers_to(&server, b"DBSIZE\r\nSET d 2\r\nPING\r\nGET d\r\n"), ":2\r\n+OK\r\n+PONG\r\n$1\r\n2\r\n");
}

/// A client that vanished behind `WAIT 1 0` stayed connected for ever.
#[test]
fn half_close_ends_a_wait_without_an_end() {
    let dir = folder();
    let server = Server::start(dir.path());
    answers_to(&server, b"WAIT 1 0\r\n");
}

/// The reply to a command that takes more than one step was sent although CLIENT REPLY SKIP was asked.
#[test]
fn skipped_reply_of_a_job_shifts_no_other() {
    let dir = folder();
    let server = Server::start(dir.path());
    assert_eq!(answers_to(&server, b"CLIENT REPLY SKIP\r\nDBSIZE\r\nPING\r\n"), "+PONG\r\n");
    assert_eq!(answers_to(&server, b"CLIENT REPLY SKIP\r\nSCAN x\r\nPING\r\n"), "+PONG\r\n");
}

/// Two large writes that met in one turn were more than Raft wanted to hold uncommitted, and the node took no more writes.
#[test]
fn large_writes_of_one_turn_are_all_taken() {
    let dir = folder();
    let server = Server::start(dir.path());
    let (mut first, mut second) = (server.socket(), server.socket());
    assert_eq!(exchange(&mut first, b"CLIENT PAUSE 60000 WRITE\r\n", 5), b"+OK\r\n");
    first.write_all(&encode(&[b"SET", b"y", &vec![b'v'; 2 << 20]])).expect("send");
    let half = vec![b'v'; 34 << 20];
    second.write_all(&encode(&[b"MSET", b"x1", &half, b"x2", &half])).expect("send");
    let mut third = server.socket();
    assert_eq!(exchange(&mut third, b"CLIENT UNPAUSE\r\n", 5), b"+OK\r\n");
    assert_eq!(exchange(&mut first, b"", 5), b"+OK\r\n");
    assert_eq!(exchange(&mut second, b"", 5), b"+OK\r\n");
    assert_eq!(exchange(&mut third, b"SET z 1\r\n", 5), b"+OK\r\n", "the node goes on taking writes");

    // Reads behind a write are answered with the turn: eight of them would be more than a client may leave unread.
    let reply_bytes = format!("${}\r\n", half.len()).len() + half.len() + 2;
    let request = [&b"SET q 1\r\n"[..], &b"GET x1\r\n".repeat(8)].concat();
    assert_eq!(exchange(&mut second, &request, 5 + 8 * reply_bytes).len(), 5 + 8 * reply_bytes);
}

/// Without a sync the flusher was never allowed to move anything, and writers waited for it for ever.
#[test]
fn without_durability_more_than_the_memory_budget_can_be_written() {
    let dir = folder();
    let flags = ["--durability", "no", "--memory-budget", "32MiB", "--value-bytes-max", "8MiB"];
    let server = Server::start_with(dir.path(), &flags);
    let mut socket = server.socket();
    let value = vec![b'v'; 1 << 20];
    for n in 0..64 {
        let key = format!("k{n}");
        assert_eq!(exchange(&mut socket, &encode(&[b"SET", key.as_bytes(), &value]), 5), b"+OK\r\n", "write {n}");
    }
}

/// A few kilobytes of SETRANGE made gigabytes of values in one turn.
#[test]
fn short_commands_that_make_long_values_are_bounded_by_the_budget() {
    let dir = folder();
    let server = Server::start_with(dir.path(), &["--memory-budget", "32MiB", "--value-bytes-max", "8MiB"]);
    let mut socket = server.socket();
    let mut request = Vec::new();
    for n in 0..100 {
        request.extend(encode(&[b"SETRANGE", format!("m{n}").as_bytes(), b"8388000", b"x"]));
    }
    assert_eq!(exchange(&mut socket, &request, 100 * b":8388001\r\n".len()), b":8388001\r\n".repeat(100));
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("status");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("peak");
    let kilobytes: u64 = peak.trim().trim_end_matches("kB").trim().parse().expect("a number");
    // The values are 800 MB together.
    assert!(kilobytes < 500 << 10, "{kilobytes} kB were resident at the peak");
}
