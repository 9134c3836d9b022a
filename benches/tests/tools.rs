//! The load generator against the echo: both count the same.

#![allow(clippy::unwrap_used)]

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use holdfast_bench::load::{Mix, Options, run};
use holdfast_bench::process::Server;

fn echo(folder: &tempfile::TempDir) -> Server {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast-echo"));
    Server::start(&mut command, &folder.path().join("stderr"), Duration::from_secs(60)).unwrap()
}

fn options(server: &Server) -> Options {
    Options {
        address: server.address(),
        clients: 5,
        pipeline: 7,
        value_bytes: 100,
        keys: 1000,
        mix: Mix { sets: 1, gets: 1 },
        rate: None,
        time: Duration::from_millis(100),
        warmup: Duration::ZERO,
        fill: false,
        requests: None,
        stop: None,
        seed: 1,
        pids: vec![server.pid()],
    }
}

#[test]
fn fill_writes_each_key_once() {
    let folder = tempfile::tempdir().unwrap();
    let server = echo(&folder);
    let report = run(&Options { fill: true, keys: 1234, ..options(&server) }).unwrap();
    assert_eq!((report.replies, report.errors), (1234, 0));
    assert_eq!(report.latency.len(), 1234);
    assert!(report.server_cpu.is_some());
}

#[test]
fn open_loop_asks_exactly_what_is_due_even_if_it_must_wait() {
    let folder = tempfile::tempdir().unwrap();
    let server = echo(&folder);
    // One in flight on one connection: most requests wait for their turn, and none may get lost on the way.
    let narrow = Options { rate: Some(20_000), clients: 1, pipeline: 1, ..options(&server) };
    let report = run(&narrow).unwrap();
    assert_eq!(report.replies + report.unanswered, 2000);
    assert_eq!(report.errors, 0);
}

#[test]
fn closed_loop_counts_whole_batches() {
    let folder = tempfile::tempdir().unwrap();
    let server = echo(&folder);
    let report = run(&options(&server)).unwrap();
    assert!(report.replies > 0);
    assert_eq!(report.replies % 7, 0);
}

#[test]
fn server_that_hangs_up_is_an_error_not_a_hang() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let server = echo(&folder);
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || listener.incoming().for_each(drop));
    for rate in [None, Some(1000)] {
        let error = run(&Options { address, rate, ..options(&server) }).unwrap_err();
        assert!(error.contains("connection"), "{error}");
    }
}

#[test]
fn program_that_does_not_listen_is_reported_with_what_it_said() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "echo the disk is on fire >&2; exit 3"]);
    let error = Server::start(&mut command, &folder.path().join("stderr"), Duration::from_secs(60)).unwrap_err();
    assert!(error.contains("the disk is on fire") && error.contains('3'), "{error}");
}

#[test]
fn closed_loop_stops_at_a_number_or_when_it_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let server = echo(&folder);
    let endless = Options { time: Duration::from_secs(3600), ..options(&server) };
    let report = run(&Options { requests: Some(1000), ..endless.clone() }).unwrap();
    assert_eq!(report.replies, 1000);

    let stop = Arc::new(AtomicBool::new(true));
    assert_eq!(run(&Options { stop: Some(stop), ..endless }).unwrap().replies, 0);
}
